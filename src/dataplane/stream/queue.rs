//! What waits to be written to one connection: whole messages, bounded in bytes and in age. A reader
//! that falls behind loses the oldest packets first, since late media is worth nothing; responses
//! are kept for as long as there is room.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::turn::Tick;

/// Bytes of packets that may wait.
const PACKETS_MAX: usize = 64 * 1_024;
/// Bytes that may wait with responses counted, for which nobody asks again on a stream.
const ALL_MAX: usize = PACKETS_MAX + 16 * 1_024;
/// How long a packet may wait: longer than a hiccup of the network, shorter than what a receiver of
/// live media still plays.
const STALE: Duration = Duration::from_millis(400);
/// Memory that an empty queue keeps, so that the common packet needs none.
const KEPT: usize = 4 * 1_024;
/// RFC 8656 §12.5: on a stream every message is padded to a multiple of four bytes.
const ALIGNMENT: usize = 4;
const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// What a message is worth when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    /// Media: may be lost.
    Packet,
    /// A response: its client waits for it.
    Answer,
}

/// What became of a message, and of others for its sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub(crate) taken: bool,
    /// Packets that were dropped, this one included.
    pub(crate) dropped: u64,
}

struct Waiting {
    /// Bytes of it that wait.
    len: usize,
    since: Tick,
    worth: Worth,
}

/// Messages on their way to one client.
pub(crate) struct Queue {
    bytes: Vec<u8>,
    /// Where in `bytes` the first message begins.
    head: usize,
    messages: VecDeque<Waiting>,
    /// Whether part of the first message has been sent, so that it cannot be taken back.
    begun: bool,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            messages: VecDeque::new(),
            begun: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// All that waits.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    /// Adds a message of these parts, padded.
    pub(crate) fn push(&mut self, parts: &[&[u8]], worth: Worth, now: Tick) -> Pushed {
        let mut dropped = self.drop_stale(now);
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let padded = len.next_multiple_of(ALIGNMENT);
        let limit = match worth {
            Worth::Packet => PACKETS_MAX,
            Worth::Answer => ALL_MAX,
        };
        if self.bytes().len() + padded > limit {
            dropped += u64::from(worth == Worth::Packet);
            return Pushed {
                taken: false,
                dropped,
            };
        }
        self.make_room(padded);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.extend_from_slice(&ZEROS[..padded - len]);
        self.messages.push_back(Waiting {
            len: padded,
            since: now,
            worth,
        });
        Pushed {
            taken: true,
            dropped,
        }
    }

    /// What is left of the first message.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        let first = self.messages.front()?;
        self.bytes().get(..first.len)
    }

    /// The first `sent` bytes are gone.
    pub(crate) fn sent(&mut self, mut sent: usize) {
        self.head += sent;
        while let Some(first) = self.messages.front_mut() {
            if first.len > sent {
                first.len -= sent;
                self.begun |= sent > 0;
                return;
            }
            sent -= first.len;
            self.begun = false;
            self.messages.pop_front();
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.messages.shrink_to(KEPT / 64);
        self.head = 0;
    }

    /// Drops packets that have waited too long, the oldest first, up to the first response.
    fn drop_stale(&mut self, now: Tick) -> u64 {
        let first = usize::from(self.begun);
        let mut dropped = 0;
        while let Some(message) = self.messages.get(first)
            && message.worth == Worth::Packet
            && now.since(message.since) > STALE
        {
            let len = message.len;
            self.messages.remove(first);
            // What is left of a message that was begun moves up to the next one.
            let begun = self.messages.front().filter(|_| self.begun);
            let rest = begun.map_or(0, |message| message.len);
            self.bytes
                .copy_within(self.head..self.head + rest, self.head + len);
            self.head += len;
            dropped += 1;
        }
        dropped
    }

    fn make_room(&mut self, more: usize) {
        if self.head > 0 && self.bytes.len() + more > self.bytes.capacity() {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("messages", &self.messages.len())
            .field("bytes", &self.bytes().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::from_nanos(1_000_000_000);

    fn later(after: Duration) -> Tick {
        NOW.plus(after)
    }

    #[test]
    fn messages_are_padded_and_leave_in_order() {
        let mut queue = Queue::new();
        assert!(queue.push(&[&[1], &[2, 3]], Worth::Packet, NOW).taken);
        assert!(queue.push(&[&[4; 8]], Worth::Answer, NOW).taken);
        assert_eq!(queue.bytes(), [1, 2, 3, 0, 4, 4, 4, 4, 4, 4, 4, 4]);
        assert_eq!(queue.first(), Some(&[1, 2, 3, 0][..]));
        queue.sent(5);
        assert_eq!(queue.bytes(), [4; 7]);
        assert_eq!(queue.first(), Some(&[4; 7][..]));
        queue.sent(7);
        assert!(queue.is_empty() && queue.bytes().is_empty());
    }

    /// T38: what a slow reader costs is bounded, and what it loses is counted.
    #[test]
    fn a_slow_reader_loses_packets_and_never_memory() {
        let mut queue = Queue::new();
        let (mut taken, mut dropped) = (0_u64, 0);
        for _ in 0..10_000 {
            let pushed = queue.push(&[&[9; 1_200]], Worth::Packet, NOW);
            taken += u64::from(pushed.taken);
            dropped += pushed.dropped;
        }
        assert_eq!(taken + dropped, 10_000);
        assert_eq!(taken, (PACKETS_MAX / 1_200) as u64);
        assert!(queue.bytes.capacity() <= 2 * ALL_MAX);
        // A response still has room, though not without end.
        let answers = (0..1_000).filter(|_| queue.push(&[&[7; 100]], Worth::Answer, NOW).taken);
        assert!((100..300).contains(&answers.count()));
    }

    #[test]
    fn late_packets_make_way_for_new_ones_but_not_the_one_that_was_begun() {
        let mut queue = Queue::new();
        for n in 1..=4 {
            queue.push(&[&[n; 8]], Worth::Packet, NOW);
        }
        queue.sent(3);
        let at = later(STALE + Duration::from_millis(1));
        let pushed = queue.push(&[&[5; 8]], Worth::Packet, at);
        assert_eq!(
            pushed,
            Pushed {
                taken: true,
                dropped: 3
            }
        );
        assert_eq!(queue.bytes(), [1, 1, 1, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5]);
        queue.sent(5);
        assert_eq!(queue.bytes(), [5; 8]);
    }

    #[test]
    fn a_response_is_not_dropped_for_its_age() {
        let mut queue = Queue::new();
        queue.push(&[&[1; 4]], Worth::Answer, NOW);
        queue.push(&[&[2; 4]], Worth::Packet, NOW);
        let pushed = queue.push(&[&[3; 4]], Worth::Packet, later(STALE * 2));
        assert_eq!(pushed.dropped, 0);
        assert_eq!(queue.bytes().len(), 12);
    }

    #[test]
    fn an_empty_queue_gives_its_memory_back() {
        let mut queue = Queue::new();
        for _ in 0..50 {
            queue.push(&[&[0; 1_200]], Worth::Packet, NOW);
        }
        queue.sent(queue.bytes().len());
        assert!(queue.bytes.capacity() <= KEPT);
    }
}
