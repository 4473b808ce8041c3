//! The quality of media at the relay: of each RTP stream (RFC 3550) that passes, loss, reordering,
//! jitter and gaps, from the header that SRTP (RFC 3711) leaves in the clear. Nothing is decrypted,
//! no payload is read or kept, and only sums leave this module: no SSRC does.
//!
//! A payload is told by its first bytes (`shape.rs`). What a stream is measured by is in
//! `stream.rs`, how the rate of its clock is found in `rate.rs`. Here is which streams an allocation
//! has in each direction, and how what they come to is counted.

mod rate;
mod shape;
mod stream;
#[cfg(test)]
mod tests;

use crate::turn::histogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::turn::clock::Tick;
use crate::turn::stats::{Counter, Direction, labels};

pub(crate) use shape::Shape;

use shape::Header;
use stream::{SPELL, Stream};

/// Streams of one allocation in one direction that are measured at a time. A call has audio, video
/// and its retransmissions; a sender of three layers has seven.
const STREAMS: usize = 8;

labels! {
    /// What is counted of media.
    Sign {
        /// RTP packets of a measured stream, each once.
        Packets => "packets",
        /// How many there were if none was lost: by so much the highest sequence number rose.
        Expected => "expected",
        /// Packets that came after one with a higher sequence number.
        Reordered => "reordered",
        /// Packets that came a second time.
        Duplicates => "duplicates",
        /// RTP packets that are of no measured stream: the first of each, those that jump, and
        /// those of more streams than are measured.
        Unmeasured => "unmeasured",
        /// RTCP packets.
        Rtcp => "rtcp",
        /// Streams that were taken up.
        Streams => "streams",
        /// Times at which a stream stood still although its sender did not.
        Gaps => "gaps",
        /// How long those lasted, in nanoseconds.
        GapNanos => "gap_nanoseconds",
    }
}

const SIGNS: usize = Sign::ALL.len();

/// What some packets came to, before it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally([u64; SIGNS]);

impl Tally {
    fn add(&mut self, sign: Sign, more: u64) {
        self.0[sign as usize] += more;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; SIGNS]
    }
}

/// What is counted of media, for good.
#[derive(Debug, Default)]
pub struct Signs([Counter; SIGNS]);

impl Signs {
    /// What was counted of one sign.
    #[must_use]
    pub fn total(&self, sign: Sign) -> u64 {
        self.0[sign as usize].total()
    }

    fn add(&self, tally: &Tally) {
        self.add_by(tally, Counter::add);
    }

    fn add_shared(&self, tally: &Tally) {
        self.add_by(tally, Counter::add_shared);
    }

    fn add_by(&self, tally: &Tally, add: impl Fn(&Counter, u64)) {
        for (counter, more) in self.0.iter().zip(tally.0) {
            if more > 0 {
                add(counter, more);
            }
        }
    }
}

/// What is known of an allocation's media in one direction.
#[derive(Debug, Default)]
pub(crate) struct MediaMeters {
    signs: Signs,
    /// Nanoseconds.
    jitter: AtomicU64,
}

impl MediaMeters {
    /// Counts where one worker alone does so.
    pub(crate) fn add(&self, tally: &Tally) {
        self.signs.add(tally);
    }

    /// Counts where several may.
    pub(crate) fn add_shared(&self, tally: &Tally) {
        self.signs.add_shared(tally);
    }

    /// Notes the jitter of now.
    pub(crate) fn set_jitter(&self, jitter: Duration) {
        let nanos = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
        self.jitter.store(nanos, Ordering::Relaxed);
    }

    pub(crate) fn expected_packets(&self) -> u64 {
        self.signs.total(Sign::Expected)
    }

    pub(crate) fn quality(&self) -> Quality {
        let total = |sign| self.signs.total(sign);
        Quality {
            streams: total(Sign::Streams),
            packets: total(Sign::Packets),
            expected: total(Sign::Expected),
            reordered: total(Sign::Reordered),
            duplicates: total(Sign::Duplicates),
            unmeasured: total(Sign::Unmeasured),
            rtcp: total(Sign::Rtcp),
            gaps: total(Sign::Gaps),
            gap_time: Duration::from_nanos(total(Sign::GapNanos)),
            jitter: Duration::from_nanos(self.jitter.load(Ordering::Relaxed)),
        }
    }
}

/// The quality of an allocation's media in one direction, up to now; each as in [`Sign`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quality {
    /// Streams ever taken up.
    pub streams: u64,
    /// RTP packets of theirs.
    pub packets: u64,
    /// How many there were if none was lost.
    pub expected: u64,
    /// Packets that came out of order.
    pub reordered: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// RTP packets of no measured stream.
    pub unmeasured: u64,
    /// RTCP packets.
    pub rtcp: u64,
    /// Times at which a stream stood still although its sender did not.
    pub gaps: u64,
    /// How long in all.
    pub gap_time: Duration,
    /// RFC 3550 §6.4.1, the greatest of the streams that lived when it was looked at last, which is
    /// every five seconds; zero while no clock rate is known.
    pub jitter: Duration,
}

impl Quality {
    /// Packets that did not come, or not yet.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.packets)
    }

    /// Which part of all packets that is, from 0 to 1.
    #[must_use]
    pub fn loss_ratio(&self) -> f64 {
        ratio(self.lost(), self.expected)
    }
}

/// `part` of `whole`; nothing of nothing is 0.
#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio needs no more than 53 bits"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

/// Millionths.
const LOSS_BOUNDS: [u64; 9] = [
    0, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
];
/// Nanoseconds.
const JITTER_BOUNDS: [u64; 9] = [
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
];

/// What one worker has counted of media in one direction.
#[derive(Debug)]
pub struct MediaCounters {
    /// What was counted.
    pub signs: Signs,
    /// Which part of a stream's packets was lost in five seconds of it, in millionths.
    pub loss: Histogram,
    /// A stream's jitter after five seconds of it, in nanoseconds.
    pub jitter: Histogram,
}

impl Default for MediaCounters {
    fn default() -> Self {
        Self {
            signs: Signs::default(),
            loss: Histogram::new(&LOSS_BOUNDS),
            jitter: Histogram::new(&JITTER_BOUNDS),
        }
    }
}

impl MediaCounters {
    pub(crate) fn add(&self, tally: &Tally) {
        self.signs.add(tally);
    }

    pub(crate) fn record(&self, spell: &Spell) {
        if let Some(loss) = spell.loss {
            self.loss.observe(loss);
        }
        if let Some(jitter) = spell.jitter {
            self.jitter.observe(jitter);
        }
    }
}

/// What five seconds of a stream came to, as the histograms take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spell {
    /// Millionths of the packets that were expected, if any were.
    pub(crate) loss: Option<u64>,
    /// Nanoseconds, if the clock rate is known.
    pub(crate) jitter: Option<u64>,
    /// The greatest jitter of all streams of the direction.
    pub(crate) worst: Duration,
}

/// What is remembered of an allocation's streams, by its worker alone.
#[derive(Debug, Default)]
pub(crate) struct Media([Streams; Direction::ALL.len()]);

impl Media {
    /// Something of every piece of memory that a packet from the client reads; the number itself
    /// means nothing.
    pub(crate) fn touch(&self) -> u64 {
        let [from_client, _] = &self.0;
        let first = from_client.streams.first();
        u64::from(from_client.sources[0]) ^ first.map_or(0, |stream| stream.heard().nanos())
    }

    /// Takes a packet of this shape; what five seconds of its stream came to if it ends them.
    pub(crate) fn take(
        &mut self,
        direction: Direction,
        shape: Shape,
        now: Tick,
        tally: &mut Tally,
    ) -> Option<Spell> {
        match shape {
            Shape::Rtp(header) => self.0[direction as usize].take(header, now, tally),
            Shape::Rtcp => {
                tally.add(Sign::Rtcp, 1);
                None
            }
        }
    }
}

/// The streams of one direction.
#[derive(Debug, Default)]
struct Streams {
    /// Of each stream, apart from it: all of them are looked through for every packet.
    sources: [u32; STREAMS],
    streams: Vec<Stream>,
}

impl Streams {
    fn take(&mut self, header: Header, now: Tick, tally: &mut Tally) -> Option<Spell> {
        let known = self.sources.iter().take(self.streams.len());
        let place = known.into_iter().position(|ssrc| *ssrc == header.ssrc);
        let stream = place.and_then(|place| self.streams.get_mut(place));
        let Some(stream) = stream else {
            tally.add(Sign::Unmeasured, 1);
            self.take_up(header, now);
            return None;
        };
        let ended = stream.take(header, now, tally)?;
        Some(Spell {
            loss: ended.loss,
            jitter: ended.jitter,
            worst: self.worst_jitter(now),
        })
    }

    /// A source that is not known takes a free place, or that of the one that has been silent for
    /// longest, if that was long enough; else it is not measured. Many sources cost no more than
    /// these places, and streams that go on keep theirs.
    #[cold]
    fn take_up(&mut self, header: Header, now: Tick) {
        let stream = Stream::new(header, now);
        let place = self.streams.len();
        if place < STREAMS {
            self.streams.push(stream);
            self.sources[place] = header.ssrc;
            return;
        }
        let known = self.streams.iter().enumerate();
        let gives_way = known.filter(|(_, stream)| stream.gives_way(now));
        if let Some((place, _)) = gives_way.min_by_key(|(_, stream)| stream.heard()) {
            self.streams[place] = stream;
            self.sources[place] = header.ssrc;
        }
    }

    fn worst_jitter(&self, now: Tick) -> Duration {
        let alive = self.streams.iter();
        let alive = alive.filter(|stream| now.since(stream.heard()) < SPELL);
        let worst = alive.filter_map(Stream::jitter).max();
        Duration::from_nanos(worst.unwrap_or_default())
    }
}
