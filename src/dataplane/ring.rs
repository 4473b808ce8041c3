//! The way of packets from any worker to a client of another one's: a bounded, preallocated ring for
//! each pair of workers, and the one place on the data path where a packet is copied and changes
//! threads. The receiver is woken once per batch; what finds the ring full is dropped and counted,
//! as a router would.

use std::fmt;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::dataplane::stream::Worth;
use crate::turn::{FiveTuple, WorkerId};

/// Packets that may wait: some milliseconds of the highest rate a worker reaches.
const PACKETS: usize = 2_048;
/// Bytes that may wait.
const BYTES: usize = 512 * 1_024;

/// A packet whose bytes lie beside.
struct Item {
    to: FiveTuple,
    worth: Worth,
    len: usize,
}

/// The writing end; the sender's worker has it.
pub(crate) struct RingOut {
    items: Producer<Item>,
    bytes: Producer<u8>,
    reader: WorkerId,
    /// Whether the reader was not told yet of what was pushed last.
    untold: bool,
}

/// The reading end; the worker of the client's connection has it.
pub(crate) struct RingIn {
    items: Consumer<Item>,
    bytes: Consumer<u8>,
}

/// An empty ring to `reader`.
pub(crate) fn ring(reader: WorkerId) -> (RingOut, RingIn) {
    let (items_out, items_in) = RingBuffer::new(PACKETS);
    let (bytes_out, bytes_in) = RingBuffer::new(BYTES);
    let out = RingOut {
        items: items_out,
        bytes: bytes_out,
        reader,
        untold: false,
    };
    let into = RingIn {
        items: items_in,
        bytes: bytes_in,
    };
    (out, into)
}

impl RingOut {
    /// Who reads it.
    pub(crate) const fn reader(&self) -> WorkerId {
        self.reader
    }

    /// Adds a packet; false if there is no room for all of it.
    pub(crate) fn push(&mut self, to: FiveTuple, parts: [&[u8]; 3], worth: Worth) -> bool {
        let len = parts.iter().map(|part| part.len()).sum();
        if self.items.is_full() || self.bytes.slots() < len {
            return false;
        }
        // The reader looks at the bytes only once it has the item.
        for part in parts {
            if self.bytes.push_entire_slice(part).is_err() {
                return false;
            }
        }
        self.untold = true;
        self.items.push(Item { to, worth, len }).is_ok()
    }

    /// Whether something was pushed since the last call, so that the reader is to be woken.
    pub(crate) const fn take_untold(&mut self) -> bool {
        std::mem::replace(&mut self.untold, false)
    }
}

impl RingIn {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Shows the next packet, in two pieces, to `take`; false if there is none.
    pub(crate) fn pop(&mut self, take: impl FnOnce(FiveTuple, Worth, [&[u8]; 2])) -> bool {
        let Ok(item) = self.items.pop() else {
            return false;
        };
        let Ok(chunk) = self.bytes.read_chunk(item.len) else {
            return false;
        };
        let (first, second) = chunk.as_slices();
        take(item.to, item.worth, [first, second]);
        chunk.commit_all();
        true
    }
}

impl fmt::Debug for RingOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingOut")
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RingIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingIn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::thread;

    use super::*;
    use crate::turn::{ClientAddr, ListenerId, Transport};

    fn tuple(port: u16) -> FiveTuple {
        FiveTuple {
            client: ClientAddr::new(SocketAddr::from(([192, 0, 2, 1], port))),
            listener: ListenerId::new(Transport::Tcp, 3),
        }
    }

    #[test]
    fn packets_come_out_whole_and_in_order_on_another_thread() {
        let (mut out, mut into) = ring(WorkerId(1));
        assert!(!out.take_untold());
        let packet = |n: u16| vec![n.to_be_bytes()[1]; usize::from(n % 1_400)];
        let reader = thread::spawn(move || {
            let mut next = 0;
            while next < 20_000 {
                into.pop(|to, _, [first, second]| {
                    assert_eq!(to, tuple(next));
                    assert_eq!([first, second].concat(), packet(next));
                    next += 1;
                });
            }
        });
        for n in 0..20_000 {
            let bytes = packet(n);
            let (head, payload) = bytes.split_at(bytes.len().min(4));
            while !out.push(tuple(n), [head, payload, &[]], Worth::Packet) {
                thread::yield_now();
            }
        }
        assert!(out.take_untold() && !out.take_untold());
        reader.join().unwrap();
    }

    #[test]
    fn a_full_ring_takes_nothing_of_a_packet() {
        let (mut out, mut into) = ring(WorkerId(1));
        let packet = vec![7; 60_000];
        let mut taken = 0;
        while out.push(tuple(1), [&[1, 2, 3, 4], &packet, &[]], Worth::Answer) {
            taken += 1;
        }
        assert_eq!(taken, BYTES / 60_004);
        while into.pop(|_, worth, [first, second]| {
            assert_eq!(worth, Worth::Answer);
            assert_eq!([first, second].concat()[4..], packet[..]);
        }) {
            taken -= 1;
        }
        assert_eq!(taken, 0);
    }
}
