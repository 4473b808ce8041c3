//! What was sent and what came back.

use std::time::{Duration, Instant};

/// Length of a packet's payload: about an audio frame.
const LEN: usize = 160;
/// Bytes that tell this probe's packets from anything else.
const TOKEN: usize = 16;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Opens the way; not counted.
    Hello,
    /// Goes there.
    Ping,
    /// Comes back.
    Pong,
}

/// Writes and reads the packets of one probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packets {
    token: [u8; TOKEN],
}

impl Packets {
    pub(super) const fn new(token: [u8; TOKEN]) -> Self {
        Self { token }
    }

    pub(super) fn write(&self, kind: Kind, number: u32) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let head = self.token.into_iter().chain([kind as u8]);
        for (byte, value) in bytes.iter_mut().zip(head.chain(number.to_be_bytes())) {
            *byte = value;
        }
        bytes
    }

    /// Kind and number, if it is one of ours and whole.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<(Kind, u32)> {
        let rest = bytes.strip_prefix(&self.token)?;
        let (kind, rest) = rest.split_first()?;
        let (number, padding) = rest.split_first_chunk()?;
        let kind = [Kind::Hello, Kind::Ping, Kind::Pong]
            .into_iter()
            .find(|known| *known as u8 == *kind)?;
        let whole = bytes.len() == LEN && padding.iter().all(|byte| *byte == 0);
        whole.then(|| (kind, u32::from_be_bytes(*number)))
    }
}

/// What became of the packets that were sent.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: Vec<Sent>,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    there: bool,
    back: Option<Duration>,
}

impl Tally {
    /// Counts one more packet sent at `at`; returns its number.
    pub(super) fn send(&mut self, at: Instant) -> u32 {
        let number = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
        self.sent.push(Sent {
            at,
            there: false,
            back: None,
        });
        number
    }

    /// Counts the arrival of packet `number` on the other side.
    pub(super) fn there(&mut self, number: u32) {
        if let Some(sent) = self.of(number) {
            sent.there = true;
        }
    }

    /// Counts the return of packet `number`.
    pub(super) fn back(&mut self, number: u32, at: Instant) {
        if let Some(sent) = self.of(number)
            && sent.back.is_none()
        {
            sent.back = Some(at.duration_since(sent.at));
        }
    }

    fn of(&mut self, number: u32) -> Option<&mut Sent> {
        self.sent.get_mut(usize::try_from(number).ok()?)
    }

    /// The totals so far.
    pub(super) fn totals(&self) -> Totals {
        let mut trips: Vec<Duration> = self.sent.iter().filter_map(|sent| sent.back).collect();
        trips.sort_unstable();
        Totals {
            sent: self.sent.len(),
            there: self.sent.iter().filter(|sent| sent.there).count(),
            back: trips.len(),
            round_trips: RoundTrips::of(&trips),
        }
    }

    /// How many came back.
    pub(super) fn returned(&self) -> usize {
        self.sent.iter().filter(|sent| sent.back.is_some()).count()
    }
}

/// How many packets got how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Totals {
    /// Sent by the first allocation.
    pub(super) sent: usize,
    /// Arrived at the second.
    pub(super) there: usize,
    /// Returned by the second and arrived at the first.
    pub(super) back: usize,
    /// How long that took, unless none returned.
    pub(super) round_trips: Option<RoundTrips>,
}

impl Totals {
    /// Whether nothing was lost.
    pub(super) const fn is_whole(&self) -> bool {
        self.there == self.sent && self.back == self.sent
    }
}

/// Round trips from the first allocation to the second and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoundTrips {
    pub(super) min: Duration,
    pub(super) average: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

impl RoundTrips {
    /// Of trips in order.
    fn of(sorted: &[Duration]) -> Option<Self> {
        let count = u32::try_from(sorted.len()).ok()?;
        // The nearest rank: the least trip that 99 % do not exceed.
        let rank = (sorted.len() * 99).div_ceil(100);
        Some(Self {
            min: *sorted.first()?,
            average: sorted.iter().sum::<Duration>() / count,
            p99: *sorted.get(rank.checked_sub(1)?)?,
            max: *sorted.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: [u8; 16] = *b"0123456789abcdef";

    #[test]
    fn a_packet_reads_as_it_was_written() {
        let packets = Packets::new(TOKEN);
        for kind in [Kind::Hello, Kind::Ping, Kind::Pong] {
            assert_eq!(
                packets.read(&packets.write(kind, 70_000)),
                Some((kind, 70_000))
            );
        }
    }

    #[test]
    fn strange_cut_and_damaged_packets_are_none_of_ours() {
        let packets = Packets::new(TOKEN);
        let packet = packets.write(Kind::Ping, 1);
        assert_eq!(Packets::new([0; 16]).read(&packet), None);
        for length in 0..packet.len() {
            assert_eq!(packets.read(&packet[..length]), None, "{length} bytes");
        }
        let mut damaged = packet;
        damaged[159] = 1;
        assert_eq!(packets.read(&damaged), None);
        damaged = packet;
        damaged[16] = 9;
        assert_eq!(packets.read(&damaged), None);
    }

    #[test]
    fn what_is_lost_there_and_back_is_told_apart() {
        let mut tally = Tally::default();
        let began = Instant::now();
        for _ in 0..4 {
            tally.send(began);
        }
        for number in [0, 1, 3] {
            tally.there(number);
        }
        tally.back(1, began + Duration::from_millis(7));
        let totals = tally.totals();
        assert_eq!((totals.sent, totals.there, totals.back), (4, 3, 1));
        assert!(!totals.is_whole());
        assert_eq!(totals.round_trips.unwrap().p99, Duration::from_millis(7));
    }

    #[test]
    fn duplicates_and_strangers_count_for_nothing() {
        let mut tally = Tally::default();
        let began = Instant::now();
        tally.send(began);
        for number in [0, 0, 1, u32::MAX] {
            tally.there(number);
            tally.back(number, began + Duration::from_millis(1));
            tally.back(number, began + Duration::from_secs(1));
        }
        let totals = tally.totals();
        assert_eq!((totals.there, totals.back), (1, 1));
        assert!(totals.is_whole());
        assert_eq!(totals.round_trips.unwrap().max, Duration::from_millis(1));
    }

    #[test]
    fn round_trips_have_a_tail() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let trips = RoundTrips::of(&sorted).unwrap();
        assert_eq!(trips.min, Duration::from_millis(1));
        assert_eq!(trips.average, Duration::from_micros(100_500));
        assert_eq!(trips.p99, Duration::from_millis(198));
        assert_eq!(trips.max, Duration::from_millis(200));
        assert_eq!(RoundTrips::of(&[]), None);
    }
}
