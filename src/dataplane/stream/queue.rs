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
/// Memory that every queue may keep, so that the common packet needs none.
const KEPT: usize = 4 * 1_024;
/// Messages whose places it may keep.
const KEPT_PLACES: usize = KEPT / 64;
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
    /// The most bytes, and messages, that waited at once since the last [`rest`](Self::rest).
    most: (usize, usize),
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            messages: VecDeque::new(),
            begun: false,
            most: (0, 0),
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
        self.note_most();
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
        self.head = 0;
    }

    /// Gives back memory of which nothing was needed since the last call. To be called now and then:
    /// a queue that fills and empties without end needs the same again at once.
    pub(crate) fn rest(&mut self) {
        let (bytes, messages) = std::mem::take(&mut self.most);
        if self.is_empty() {
            shrink(bytes.max(KEPT), self.bytes.capacity(), |to| {
                self.bytes.shrink_to(to);
            });
            shrink(messages.max(KEPT_PLACES), self.messages.capacity(), |to| {
                self.messages.shrink_to(to);
            });
        }
        self.note_most();
    }

    fn note_most(&mut self) {
        let (bytes, messages) = self.most;
        self.most = (
            bytes.max(self.bytes().len()),
            messages.max(self.messages.len()),
        );
    }

    /// Drops packets that have waited too long, the oldest first, up to the first response.
    pub(crate) fn drop_stale(&mut self, now: Tick) -> u64 {
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

/// A vector that grew by doubling has less than twice what it needed.
fn shrink(needed: usize, capacity: usize, to: impl FnOnce(usize)) {
    if capacity > 2 * needed {
        to(needed);
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
mod tests;
