//! Walks through all that is live: one at a time, in the order in which they were asked for, so that
//! many requests take the memory and the processor of one. Owns the queue for that, and the thread
//! that a walk is on; what a walk looks for is its route's.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::problem::Problem;

/// Where requests wait for their walk.
#[derive(Debug)]
pub(super) struct Walks(Arc<Semaphore>);

impl Default for Walks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Walks {
    /// Walks on a thread that may take its time: other requests, and what is logged and billed
    /// meanwhile, do not wait for it. Whoever goes away before their turn leaves the queue.
    pub(super) async fn take<T: Send + 'static>(
        &self,
        walk: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let turn = turn.map_err(|_| stops())?;
        let walked = tokio::task::spawn_blocking(move || {
            // With the walk, which goes on when nobody waits for it any more.
            let _turn = turn;
            walk()
        });
        walked.await.map_err(|_| stops())
    }
}

fn stops() -> Problem {
    Problem::unavailable("the server stops")
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn of_many_walks_no_two_overlap_and_all_come_to_their_end_in_order() {
        const WALKS: usize = 64;
        let (walks, under_way) = (Arc::new(Walks::default()), Arc::new(AtomicUsize::new(0)));
        let (tell, told) = channel();
        runtime().block_on(async {
            let all: Vec<_> = (0..WALKS)
                .map(|number| {
                    let (walks, tell) = (Arc::clone(&walks), tell.clone());
                    let under_way = Arc::clone(&under_way);
                    tokio::spawn(async move {
                        let walk = walks.take(move || {
                            let others = under_way.fetch_add(1, Ordering::SeqCst);
                            // Any other thread has its chance to be here too.
                            std::thread::yield_now();
                            tell.send((number, others)).unwrap();
                            under_way.fetch_sub(1, Ordering::SeqCst);
                            number
                        });
                        walk.await.is_ok_and(|walked| walked == number)
                    })
                })
                .collect();
            for one in all {
                assert!(one.await.unwrap());
            }
        });
        let expected: Vec<_> = (0..WALKS).map(|number| (number, 0)).collect();
        assert_eq!(told.try_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn who_goes_away_leaves_the_queue_and_a_walk_under_way_keeps_its_turn() {
        let walks = Arc::new(Walks::default());
        let (begin, begun) = channel();
        let (open, gate) = channel::<()>();
        let (tell, told) = channel();
        runtime().block_on(async {
            let start = |number: u8, gate: Option<std::sync::mpsc::Receiver<()>>| {
                let (walks, begin, tell) = (Arc::clone(&walks), begin.clone(), tell.clone());
                tokio::spawn(async move {
                    let walk = walks.take(move || {
                        begin.send(number).unwrap();
                        if let Some(gate) = gate {
                            gate.recv().unwrap();
                        }
                        tell.send(number).unwrap();
                    });
                    walk.await.is_ok()
                })
            };
            let first = start(1, Some(gate));
            tokio::task::yield_now().await;
            assert_eq!(begun.recv().unwrap(), 1);
            let [second, third] = [2, 3].map(|number| start(number, None));
            tokio::task::yield_now().await;
            first.abort();
            second.abort();
            assert!(first.await.is_err() && second.await.is_err());
            assert!(begun.try_recv().is_err(), "the first still walks");
            open.send(()).unwrap();
            assert!(third.await.unwrap());
        });
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(begun.try_iter().collect::<Vec<_>>(), [3]);
    }
}
