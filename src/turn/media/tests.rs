//! Streams whose loss, order, jitter and gaps are known.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::turn::Tick;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;
/// Opus: 20 ms at 48,000 Hz.
const PTIME: u64 = 20 * MILLI;
const STEP: u32 = 960;

/// One direction of an allocation, and what came of it.
#[derive(Default)]
struct Line {
    streams: Streams,
    tally: Tally,
    spells: Vec<Spell>,
}

impl Line {
    fn take(&mut self, ssrc: u32, sequence: u16, timestamp: u32, at: u64) {
        let header = Header {
            sequence,
            timestamp,
            ssrc,
        };
        let now = Tick::from_nanos(at);
        self.spells
            .extend(self.streams.take(header, now, &mut self.tally));
        assert!(self.of(Sign::Packets) <= self.of(Sign::Expected));
    }

    /// Packet `number` of an Opus stream that began at 65,500, at its moment.
    fn opus(&mut self, number: u64) {
        self.opus_at(number, SECOND + number * PTIME);
    }

    fn opus_at(&mut self, number: u64, at: u64) {
        let sequence = u16::try_from((65_500 + number) % 65_536).unwrap();
        let timestamp = u32::try_from(number).unwrap().wrapping_mul(STEP);
        let timestamp = timestamp.wrapping_sub(5 * STEP);
        self.take(1, sequence, timestamp, at);
    }

    fn of(&self, sign: Sign) -> u64 {
        self.tally.0[sign as usize]
    }

    fn lost(&self) -> u64 {
        self.of(Sign::Expected) - self.of(Sign::Packets)
    }

    fn stream(&self, ssrc: u32) -> &Stream {
        let place = self.streams.sources.iter().position(|s| *s == ssrc);
        &self.streams.streams[place.unwrap()]
    }
}

/// RFC 3550 §A.1 and §A.3: the first packet is on probation, and 65,535 is followed by 0.
#[test]
fn a_whole_stream_loses_nothing_where_its_sequence_numbers_begin_anew() {
    let mut line = Line::default();
    (0..200).for_each(|number| line.opus(number));
    assert_eq!(line.of(Sign::Expected), 199);
    assert_eq!(line.of(Sign::Packets), 199);
    assert_eq!(line.of(Sign::Unmeasured), 1);
    assert_eq!(line.of(Sign::Streams), 1);
    for sign in [Sign::Reordered, Sign::Duplicates, Sign::Gaps] {
        assert_eq!(line.of(sign), 0, "{}", sign.label());
    }
}

#[test]
fn every_packet_that_does_not_come_is_lost_once() {
    let mut line = Line::default();
    let lost = |number: &u64| number.is_multiple_of(7) || (30..40).contains(number);
    (1..201).filter(|n| !lost(n)).for_each(|n| line.opus(n));
    // 7, 14, … 196, of which 35 is in the ten.
    assert_eq!(line.lost(), 28 + 10 - 1);
}

#[test]
fn a_packet_that_comes_late_is_out_of_order_and_not_lost() {
    let mut line = Line::default();
    for number in [0, 1, 2, 5, 4, 3, 6, 40, 38, 39, 41] {
        line.opus_at(number, SECOND);
    }
    assert_eq!(line.of(Sign::Reordered), 4);
    assert_eq!(line.lost(), 41 - 6 - 4);
}

#[test]
fn a_packet_that_comes_twice_does_not_make_up_for_one_that_does_not() {
    let mut line = Line::default();
    for number in [0, 1, 2, 2, 2, 4, 5, 1, 4] {
        line.opus_at(number, SECOND);
    }
    assert_eq!(line.of(Sign::Duplicates), 4);
    assert_eq!(line.of(Sign::Packets), 4);
    assert_eq!(line.lost(), 1);
}

#[test]
fn what_came_before_the_stream_began_is_not_of_it() {
    let mut line = Line::default();
    for number in [50, 51, 49, 40, 52] {
        line.opus_at(number, SECOND);
    }
    assert_eq!((line.of(Sign::Packets), line.lost()), (2, 0));
}

/// RFC 3550 §A.1: one packet from elsewhere is noise, and two in sequence are a source that began
/// anew.
#[test]
fn a_jump_is_believed_when_the_next_packet_confirms_it() {
    let mut line = Line::default();
    (0..10).for_each(|number| line.opus(number));
    line.opus(30_000);
    assert_eq!((line.of(Sign::Expected), line.of(Sign::Unmeasured)), (9, 2));
    line.opus(10);
    assert_eq!((line.of(Sign::Expected), line.lost()), (10, 0));
    (40_000..40_010).for_each(|number| line.opus(number));
    assert_eq!((line.of(Sign::Expected), line.lost()), (19, 0));
    assert_eq!(line.of(Sign::Streams), 1);
}

#[test]
fn each_source_is_a_stream_of_its_own() {
    let mut line = Line::default();
    for number in 0..100 {
        line.take(1, number, 0, SECOND);
        // A retransmission now and then, in a sequence of its own.
        if number.is_multiple_of(10) {
            line.take(2, number / 10, 0, SECOND);
        }
        // The third loses every second one after its first two.
        if number < 2 || number.is_multiple_of(2) {
            line.take(3, number, 0, SECOND);
        }
    }
    assert_eq!(line.of(Sign::Streams), 3);
    assert_eq!(line.of(Sign::Packets), 99 + 9 + 50);
    assert_eq!(line.lost(), 48);
}

#[test]
fn a_flood_of_sources_takes_no_more_than_its_places_and_no_streams_place() {
    let mut line = Line::default();
    let mut random = StdRng::seed_from_u64(3);
    for number in 0..2_000 {
        line.opus(number);
        for _ in 0..10 {
            let (ssrc, sequence) = (random.random_range(2..=u32::MAX), random.random());
            line.take(ssrc, sequence, 0, SECOND + number * PTIME);
        }
    }
    assert_eq!(line.streams.streams.len(), STREAMS);
    assert_eq!((line.of(Sign::Expected), line.lost()), (1_999, 0));
}

#[test]
fn a_ninth_stream_is_measured_only_when_another_falls_silent() {
    let mut line = Line::default();
    let all = |line: &mut Line, sources: std::ops::RangeInclusive<u32>, at: u64| {
        for number in 0..10 {
            sources
                .clone()
                .for_each(|ssrc| line.take(ssrc, number, 0, at));
        }
    };
    all(&mut line, 1..=9, SECOND);
    assert_eq!(line.of(Sign::Streams), 8);
    assert_eq!(line.of(Sign::Unmeasured), 8 + 10);
    all(&mut line, 9..=9, 7 * SECOND);
    assert_eq!(line.of(Sign::Streams), 9);
}

/// RFC 3550 §6.4.1: J += (|D| - J) / 16.
#[test]
fn jitter_is_what_the_formula_says() {
    let mut line = Line::default();
    let mut random = StdRng::seed_from_u64(5);
    let (mut reference, mut last) = (0.0, None);
    for number in 0..1_000 {
        let late = random.random_range(0..PTIME);
        line.opus_at(number, SECOND + number * PTIME + late);
        let is_known = line.streams.streams[0].jitter().is_some();
        if let Some(last) = last {
            let off: f64 = late as f64 - last as f64;
            reference += (off.abs() - reference) / 16.0;
        }
        // From the packet after the one that told the rate.
        last = is_known.then_some(late);
    }
    let jitter = line.stream(1).jitter().unwrap() as f64;
    // A unit's length is known to a part in 100 million.
    let off = (jitter - reference).abs();
    assert!(off < 1_000.0, "{jitter} is not {reference}");
    assert!(reference > MILLI as f64, "there is no jitter");
}

#[test]
fn the_rate_of_a_clock_is_found_in_spite_of_jitter() {
    for (rate, step) in [
        (8_000, 160),
        (16_000, 320),
        (24_000, 480),
        (32_000, 640),
        (48_000, 960),
        (90_000, 1_800),
    ] {
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut line = Line::default();
            for number in 0..500_u16 {
                let late = random.random_range(0..PTIME);
                let timestamp = u32::from(number).wrapping_mul(step);
                let at = SECOND + u64::from(number) * PTIME + late;
                line.take(1, number, timestamp.wrapping_sub(10 * step), at);
            }
            assert_eq!(line.stream(1).rate(), Some(rate), "seed {seed}");
        }
    }
}

#[test]
fn a_clock_of_no_known_rate_tells_loss_and_no_jitter() {
    for step in [882, 0, 1_000_000] {
        let mut line = Line::default();
        for number in (0..2_000_u16).filter(|n| *n < 2 || n.is_multiple_of(2)) {
            let timestamp = u32::from(number).wrapping_mul(step);
            line.take(1, number, timestamp, SECOND + u64::from(number) * PTIME);
        }
        assert_eq!(line.stream(1).jitter(), None, "{step}");
        assert_eq!(line.lost(), 998);
        assert!(line.spells.iter().all(|spell| spell.jitter.is_none()));
        assert!(line.spells.len() > 5);
    }
}

/// The packets of a video frame share a timestamp and are sent one after the other.
#[test]
fn a_frame_in_many_packets_has_no_jitter_of_its_own() {
    let mut line = Line::default();
    let mut sequence = 0;
    for frame in 0..300_u32 {
        let at = SECOND + u64::from(frame) * 40 * MILLI;
        for packet in 0..10 {
            line.take(1, sequence, frame * 3_600, at + packet * 2 * MILLI);
            sequence += 1;
        }
    }
    let stream = line.stream(1);
    assert_eq!(stream.rate(), Some(90_000));
    assert!(stream.jitter().unwrap() < MICRO);
}

#[test]
fn a_stream_that_stands_still_has_a_gap_whether_packets_were_lost_or_held_up() {
    let mut line = Line::default();
    let gaps = |line: &Line| (line.of(Sign::Gaps), line.of(Sign::GapNanos) / MILLI);
    (0..200).for_each(|number| line.opus(number));
    // Half a second is lost.
    (225..300).for_each(|number| line.opus(number));
    assert_eq!(gaps(&line), (1, 520));
    // Another half is held up, and comes at once.
    let end = SECOND + 325 * PTIME;
    (300..325).for_each(|number| line.opus_at(number, end));
    (325..400).for_each(|number| line.opus(number));
    assert_eq!(gaps(&line), (2, 520 + 520));
    assert_eq!(line.lost(), 25);
}

/// Discontinuous transmission: a sender of speech is silent, and its timestamps go on.
#[test]
fn a_sender_that_is_silent_makes_no_gap() {
    let mut line = Line::default();
    (0..200).for_each(|number| line.opus(number));
    for (sequence, number) in (164..).zip((200..400_u32).step_by(20)) {
        let timestamp = (number * STEP).wrapping_sub(5 * STEP);
        let at = SECOND + u64::from(number) * PTIME;
        line.take(1, sequence, timestamp, at);
    }
    assert_eq!(line.lost(), 0);
    assert_eq!(line.of(Sign::Gaps), 0);
}

#[test]
fn five_seconds_of_a_stream_make_a_record() {
    let mut line = Line::default();
    let numbers = (0..1_000_u64).filter(|n| *n < 2 || !n.is_multiple_of(10));
    numbers.for_each(|number| line.opus(number));
    assert_eq!(line.spells.len(), 3);
    for spell in &line.spells {
        let loss = spell.loss.unwrap();
        assert!((96_000..104_000).contains(&loss), "{loss}");
        assert!(spell.jitter.unwrap() < MICRO);
        assert!(spell.worst < Duration::from_micros(1));
    }
}

#[test]
fn the_worst_jitter_of_a_direction_is_told_with_every_record() {
    let mut line = Line::default();
    for number in 0..600_u64 {
        line.opus(number);
        let at = SECOND + number * PTIME + number % 2 * 10 * MILLI;
        let step = u32::try_from(number).unwrap() * 1_800;
        line.take(2, u16::try_from(number).unwrap(), step, at);
    }
    let last = line.spells.last().unwrap();
    let worst = last.worst.as_nanos() / u128::from(MILLI);
    assert!((9..=10).contains(&worst), "{worst} ms");
}

proptest! {
    /// Whatever is lost, comes twice or comes up to fifty packets late.
    #[test]
    fn loss_is_exact_whatever_the_order(
        first: u16,
        fates in prop::collection::vec((0..100_u8, 0..50_usize, 0..100_u8), 10..2_000),
    ) {
        let mut arrivals = Vec::new();
        for (number, (lost, late, twice)) in fates.iter().enumerate() {
            if number < 2 {
                arrivals.push((number, number));
            } else if *lost >= 20 {
                arrivals.push((number + late, number));
                if *twice < 5 {
                    arrivals.push((number + late, number));
                }
            }
        }
        arrivals.sort_by_key(|(place, _)| *place);
        let mut line = Line::default();
        for (_, number) in &arrivals {
            let sequence = first.wrapping_add(u16::try_from(*number).unwrap());
            line.take(1, sequence, 0, SECOND);
        }
        let mut came: Vec<usize> = arrivals.iter().map(|(_, number)| *number).collect();
        came.sort_unstable();
        came.dedup();
        let highest = *came.last().unwrap() as u64;
        prop_assert_eq!(line.of(Sign::Expected), highest);
        prop_assert_eq!(line.of(Sign::Packets), came.len() as u64 - 1);
    }

    /// Nothing that a sender writes makes more come than was expected, or a number run over.
    #[test]
    fn no_packets_confuse_the_count(
        packets in prop::collection::vec((0..12_u32, any::<u16>(), any::<u32>(), any::<u64>()), 1..500),
    ) {
        let mut line = Line::default();
        for (ssrc, sequence, timestamp, at) in packets {
            line.take(ssrc, sequence, timestamp, at);
        }
        prop_assert!(line.streams.streams.len() <= STREAMS);
    }
}
