//! One RTP stream: loss as RFC 3550 §A.1 and §A.3 reckon it, jitter as §A.8 does, and gaps.
//!
//! Where this differs from the RFC: a packet that comes twice is counted once, which takes a
//! memory of the last 128 sequence numbers; and of the packets that share a timestamp, as those of a
//! video frame do, only the first tells of jitter, as in browsers.

use std::time::Duration;

use super::rate::SenderClock;
use super::shape::Header;
use super::{Sign, Tally};
use crate::turn::clock::Tick;

/// RFC 3550 §A.1: a sequence number that is further ahead is a jump.
const MAX_DROPOUT: u16 = 3_000;
/// RFC 3550 §A.1: one that is so far behind is a jump too.
const MAX_MISORDER: u16 = 100;
/// From when on a stream that says nothing stands still.
const GAP: Duration = Duration::from_millis(200);
/// By how many nanoseconds a packet comes too late that was held up.
const HELD_UP: i64 = 200_000_000;
/// A packet that is off by more tells of a sender whose clock was set, as browsers have it.
const CLOCK_SET: u64 = 5_000_000_000;
/// After how long it is said what a stream came to.
pub(super) const SPELL: Duration = Duration::from_secs(5);
/// For how long a source of which one packet came keeps its place, so that many that begin at once
/// do not drive each other out.
const PROBATION: Duration = Duration::from_secs(1);

/// A source (RFC 3550 §3), and from its second packet in sequence on a stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Which of the 128 sequence numbers up to the highest came; the lowest bit is that one.
    seen: u128,
    /// When the last packet came.
    heard: Tick,
    /// When the first packet with the highest timestamp came.
    stamped: Tick,
    timestamp: u32,
    highest: u16,
    /// RFC 3550 §A.1: whether it has come through its probation.
    is_valid: bool,
    /// The sequence number that would show, after a jump, that the source began anew.
    after_jump: Option<u16>,
    /// RFC 3550 §A.8: sixteenths of nanoseconds.
    jitter: u64,
    clock: SenderClock,
    /// Since when the next two count.
    since: Tick,
    expected: u32,
    packets: u32,
}

/// What a spell of one stream came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Millionths.
    pub(super) loss: Option<u64>,
    /// Nanoseconds.
    pub(super) jitter: Option<u64>,
}

impl Stream {
    /// A source of which one packet came.
    pub(super) const fn new(header: Header, now: Tick) -> Self {
        Self {
            seen: u128::MAX,
            heard: now,
            stamped: now,
            timestamp: header.timestamp,
            highest: header.sequence,
            is_valid: false,
            after_jump: None,
            jitter: 0,
            clock: SenderClock::new(header.timestamp, now),
            since: now,
            expected: 0,
            packets: 0,
        }
    }

    pub(super) const fn heard(&self) -> Tick {
        self.heard
    }

    /// Whether it makes way for another source.
    pub(super) fn gives_way(&self, now: Tick) -> bool {
        let patience = if self.is_valid { SPELL } else { PROBATION };
        now.since(self.heard) >= patience
    }

    /// Nanoseconds, if the clock rate is known.
    pub(super) fn jitter(&self) -> Option<u64> {
        self.clock
            .delay(Duration::ZERO, 0)
            .map(|_| self.jitter >> 4)
    }

    /// Takes the next packet; says what a spell came to that ends with it.
    pub(super) fn take(&mut self, header: Header, now: Tick, tally: &mut Tally) -> Option<Ended> {
        let ahead = header.sequence.wrapping_sub(self.highest);
        let behind = self.highest.wrapping_sub(header.sequence);
        if !self.is_valid {
            self.prove(header, ahead, now, tally);
        } else if behind < MAX_MISORDER {
            self.take_late(behind, now, tally);
        } else if ahead < MAX_DROPOUT {
            self.take_next(header, ahead, now, tally);
        } else if self.after_jump == Some(header.sequence) {
            self.count_gap(now, tally);
            self.begin(header, now, tally);
        } else {
            self.after_jump = Some(header.sequence.wrapping_add(1));
            tally.add(Sign::Unmeasured, 1);
        }
        self.end_spell(now)
    }

    /// RFC 3550 §A.1: two packets in sequence make a stream.
    fn prove(&mut self, header: Header, ahead: u16, now: Tick, tally: &mut Tally) {
        if ahead == 1 {
            tally.add(Sign::Streams, 1);
            self.begin(header, now, tally);
        } else {
            *self = Self::new(header, now);
            tally.add(Sign::Unmeasured, 1);
        }
    }

    /// The stream begins with this packet, or does so anew.
    fn begin(&mut self, header: Header, now: Tick, tally: &mut Tally) {
        *self = Self::new(header, now);
        self.is_valid = true;
        self.expect(1, tally);
        self.arrive(tally);
    }

    fn expect(&mut self, more: u16, tally: &mut Tally) {
        self.expected = self.expected.saturating_add(more.into());
        tally.add(Sign::Expected, more.into());
    }

    fn arrive(&mut self, tally: &mut Tally) {
        self.packets = self.packets.saturating_add(1);
        tally.add(Sign::Packets, 1);
    }

    fn take_late(&mut self, behind: u16, now: Tick, tally: &mut Tally) {
        self.heard = now;
        let place: u128 = 1 << behind;
        if self.seen & place != 0 {
            tally.add(Sign::Duplicates, 1);
            return;
        }
        self.seen |= place;
        tally.add(Sign::Reordered, 1);
        self.arrive(tally);
    }

    fn take_next(&mut self, header: Header, ahead: u16, now: Tick, tally: &mut Tally) {
        self.seen = self.seen.checked_shl(ahead.into()).unwrap_or_default() | 1;
        self.highest = header.sequence;
        self.expect(ahead, tally);
        self.arrive(tally);
        let units = header.timestamp.wrapping_sub(self.timestamp);
        let delay = self
            .clock
            .delay(now.since(self.stamped), units.cast_signed());
        let held_up = delay.is_some_and(|delay| delay >= HELD_UP);
        if ahead > 1 || held_up {
            self.count_gap(now, tally);
        }
        self.heard = now;
        if units == 0 {
            return;
        }
        if let Some(delay) = delay.map(i64::unsigned_abs).filter(|d| *d < CLOCK_SET) {
            self.jitter = self.jitter + delay - ((self.jitter + 8) >> 4);
        }
        self.timestamp = header.timestamp;
        self.stamped = now;
        self.clock.note(header.timestamp, now);
    }

    /// Nothing came for long. The caller knows that the sender was not silent: what it sent was
    /// lost, or came late.
    fn count_gap(&self, now: Tick, tally: &mut Tally) {
        let silent = now.since(self.heard);
        if silent >= GAP {
            tally.add(Sign::Gaps, 1);
            let nanos = u64::try_from(silent.as_nanos()).unwrap_or(u64::MAX);
            tally.add(Sign::GapNanos, nanos);
        }
    }

    fn end_spell(&mut self, now: Tick) -> Option<Ended> {
        if now.since(self.since) < SPELL || !self.is_valid {
            return None;
        }
        let expected = u64::from(self.expected);
        let lost = expected.saturating_sub(self.packets.into());
        let ended = Ended {
            loss: (lost * 1_000_000).checked_div(expected),
            jitter: self.jitter(),
        };
        self.since = now;
        self.expected = 0;
        self.packets = 0;
        Some(ended)
    }

    #[cfg(test)]
    pub(super) fn rate(&self) -> Option<u32> {
        self.clock.rate()
    }
}
