//! Distributions of what a worker sees: how many values fell between bounds that never change. One
//! thread counts, any thread reads; what is counted for each packet costs a load and a store.

use std::time::Duration;

use super::stats::Counter;

/// The most bounds that a distribution has.
const MOST: usize = 15;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of one turn of a worker's loop.
const TURNS: &[u64] = &[
    10 * MICROSECOND,
    25 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2_500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    100 * MILLISECOND,
];
/// Nanoseconds that it takes to make an allocation.
const SETUPS: &[u64] = &[
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2_500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    100 * MILLISECOND,
];
/// Nanoseconds that an allocation lives.
const LIFETIMES: &[u64] = &[
    SECOND,
    5 * SECOND,
    15 * SECOND,
    60 * SECOND,
    300 * SECOND,
    600 * SECOND,
    1_800 * SECOND,
    3_600 * SECOND,
    7_200 * SECOND,
    14_400 * SECOND,
    43_200 * SECOND,
    86_400 * SECOND,
];
/// Messages of one batch.
const BATCHES: &[u64] = &[1, 2, 4, 8, 16, 24, 31];
/// Bytes of one payload. The last is what a datagram over IPv4 carries on a link of 1,500 bytes.
const SIZES: &[u64] = &[64, 128, 256, 512, 768, 1_024, 1_280, 1_472];

/// All bounds of [`SIZES`] are multiples of this.
const STEP: usize = 64;
/// Into which part of [`SIZES`] a payload of so many steps falls.
const PART_OF: [u8; 24] = parts();

const fn parts() -> [u8; 24] {
    let mut parts = [0; 24];
    let (mut steps, mut part) = (0, 0);
    while steps < parts.len() {
        if part < SIZES.len() && (steps * STEP) as u64 > SIZES[part] {
            part += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 8")]
        let index = part as u8;
        parts[steps] = index;
        steps += 1;
    }
    parts
}

/// How many values fell where.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// Up to the bound in the same place; the one behind the last bound is for all beyond.
    counts: [Counter; MOST + 1],
    sum: Counter,
}

/// What a histogram says at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Distribution {
    /// The upper bounds, in order.
    pub bounds: &'static [u64],
    /// How many values fell up to each bound and above the one before; last, how many beyond all.
    pub counts: Vec<u64>,
    /// All values together.
    pub sum: u64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.len() <= MOST, "there is a count for each bound");
        Self {
            bounds,
            counts: Default::default(),
            sum: Counter::default(),
        }
    }

    /// Counts a value; the owning worker alone does so.
    pub fn observe(&self, value: u64) {
        let beyond = self.bounds.len();
        let part = self.bounds.iter().position(|bound| value <= *bound);
        self.counts[part.unwrap_or(beyond)].add(1);
        self.sum.add(value);
    }

    /// Counts a time.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What it says now.
    #[must_use]
    pub fn read(&self) -> Distribution {
        let counts = self.counts.iter().take(self.bounds.len() + 1);
        Distribution {
            bounds: self.bounds,
            counts: counts.map(Counter::total).collect(),
            sum: self.sum.total(),
        }
    }
}

impl Distribution {
    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds what another one of the same bounds says.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

/// Sizes of payloads. Their sum is counted with the traffic.
#[derive(Debug, Default)]
pub struct Sizes([Counter; SIZES.len() + 1]);

impl Sizes {
    /// Counts a payload of `bytes`; the owning worker alone does so.
    pub(crate) fn observe(&self, bytes: usize) {
        let part = PART_OF.get(bytes.div_ceil(STEP)).copied();
        let part = part.map_or(SIZES.len(), usize::from);
        self.0[part].add(1);
    }

    /// What they are now, where they come to `sum` bytes.
    #[must_use]
    pub fn read(&self, sum: u64) -> Distribution {
        Distribution {
            bounds: SIZES,
            counts: self.0.iter().map(Counter::total).collect(),
            sum,
        }
    }
}

/// The distributions that one worker counts.
#[derive(Debug)]
pub struct Histograms {
    /// Nanoseconds that allocations lived that have ended.
    pub lifetimes: Histogram,
    /// Nanoseconds from the receipt of an Allocate request to its success response.
    pub setups: Histogram,
    /// Nanoseconds of the turns of the worker's loop.
    pub turns: Histogram,
    /// Messages of the worker's batches.
    pub batches: Histogram,
}

impl Default for Histograms {
    fn default() -> Self {
        Self {
            lifetimes: Histogram::new(LIFETIMES),
            setups: Histogram::new(SETUPS),
            turns: Histogram::new(TURNS),
            batches: Histogram::new(BATCHES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_up_to_its_bound() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21, u64::MAX - 62] {
            histogram.observe(value);
        }
        let read = histogram.read();
        assert_eq!(read.counts, [2, 2, 2]);
        assert_eq!((read.count(), read.sum), (6, u64::MAX));
    }

    #[test]
    fn a_payload_counts_where_its_size_would_by_comparison() {
        for bytes in 0..=65_535 {
            let (sizes, compared) = (Sizes::default(), Histogram::new(SIZES));
            sizes.observe(bytes);
            compared.observe(bytes as u64);
            assert_eq!(sizes.read(bytes as u64), compared.read(), "{bytes}");
        }
    }

    #[test]
    fn distributions_add_up_and_their_bounds_rise() {
        let histograms = Histograms::default();
        for one in [
            &histograms.lifetimes,
            &histograms.setups,
            &histograms.turns,
            &histograms.batches,
        ] {
            assert!(one.bounds.is_sorted() && one.bounds.len() <= MOST);
            one.observe(one.bounds[1]);
            one.observe_time(Duration::MAX);
            let mut sum = one.read();
            sum.add(&one.read());
            assert_eq!((sum.counts[1], sum.count()), (2, 4));
        }
    }
}
