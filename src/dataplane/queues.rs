//! The receive queues of the UDP sockets that clients come by, as the kernel tells of them. They are
//! looked at by whoever scrapes: a worker has no part in it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dataplane::sys::UdpSocket;

/// What the kernel says of all sockets of one worker that clients send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// The worker, by its place among all.
    pub worker: usize,
    /// Datagrams that found a queue full.
    pub drops: u64,
}

/// The sockets, each once more.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<Vec<Watched>>);

#[derive(Debug)]
struct Watched {
    worker: usize,
    socket: UdpSocket,
    /// What the kernel said last, whose counter begins anew after 2^32.
    last: u32,
    drops: u64,
}

impl Queues {
    /// Looks at the first socket for the first worker from `first` on, and so on. One for which
    /// there is no descriptor is left out.
    pub(crate) fn watch(&self, first: usize, group: &[UdpSocket]) {
        let mut all = self.lock();
        for (worker, socket) in (first..).zip(group) {
            match socket.try_clone() {
                Ok(socket) => all.push(Watched {
                    worker,
                    socket,
                    last: 0,
                    drops: 0,
                }),
                Err(error) => {
                    tracing::warn!(%error, "drops of a listener's receive queue are not counted");
                }
            }
        }
    }

    /// What the kernel says now, for `workers` workers.
    pub(crate) fn look(&self, workers: usize) -> Vec<Queue> {
        let mut queues: Vec<Queue> = (0..workers)
            .map(|worker| Queue { worker, drops: 0 })
            .collect();
        for watched in self.lock().iter_mut() {
            if let Ok(now) = watched.socket.queue_drops() {
                watched.drops += u64::from(now.wrapping_sub(watched.last));
                watched.last = now;
            }
            if let Some(queue) = queues.get_mut(watched.worker) {
                queue.drops += watched.drops;
            }
        }
        queues
    }

    /// The least receive buffer that the kernel granted, in bytes.
    pub(crate) fn least_buffer(&self) -> Option<usize> {
        let all = self.lock();
        let granted = all.iter().filter_map(|w| w.socket.receive_buffer().ok());
        granted.min()
    }

    /// Whether the kernel hands over datagrams of one flow in one piece, at each of them.
    pub(crate) fn merge(&self) -> bool {
        self.lock().iter().all(|watched| watched.socket.merges())
    }

    // What it guards is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Sender;

    use super::*;
    use crate::dataplane::sys::SocketOptions;

    #[test]
    fn what_finds_a_queue_full_is_counted_for_its_worker() {
        let options = SocketOptions {
            receive_buffer: 4_096,
            dscp: 0,
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let group = [(); 2].map(|()| UdpSocket::relay(any, &options).unwrap());
        let queues = Queues::default();
        queues.watch(1, &group);
        let none: Vec<u64> = queues.look(3).iter().map(|queue| queue.drops).collect();
        assert_eq!(none, [0, 0, 0]);

        let sender = Sender::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            sender.send_to(&[0; 1_000], group[1].local_addr()).unwrap();
        }
        let full: Vec<u64> = queues.look(3).iter().map(|queue| queue.drops).collect();
        let granted = queues.least_buffer().unwrap();
        assert!((1..100).contains(&full[2]), "{full:?} of {granted} bytes");
        assert_eq!(full[..2], [0, 0]);
        assert_eq!(queues.look(3)[2].drops, full[2], "nothing came since");
    }
}
