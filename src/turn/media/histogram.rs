//! How often a number was how great, between bounds that never change. One thread counts, any thread
//! reads.

use crate::turn::stats::Counter;

/// How many numbers fell where.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64; 9],
    /// Up to the bound in the same place and above the one before; the last is for all beyond.
    counts: [Counter; 10],
    sum: Counter,
}

/// What a histogram says at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Distribution {
    /// The upper bounds, in order.
    pub bounds: &'static [u64],
    /// How many fell up to each bound and above the one before; last, how many beyond all.
    pub counts: Vec<u64>,
    /// All of them together.
    pub sum: u64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64; 9]) -> Self {
        Self {
            bounds,
            counts: Default::default(),
            sum: Counter::default(),
        }
    }

    /// Counts a number; the owning worker alone does so.
    pub(super) fn observe(&self, number: u64) {
        let place = self.bounds.iter().position(|bound| number <= *bound);
        self.counts[place.unwrap_or(self.bounds.len())].add(1);
        self.sum.add(number);
    }

    /// What it says now.
    #[must_use]
    pub fn read(&self) -> Distribution {
        Distribution {
            bounds: self.bounds,
            counts: self.counts.iter().map(Counter::total).collect(),
            sum: self.sum.total(),
        }
    }
}

impl Distribution {
    /// How many numbers there are.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_up_to_its_bound() {
        let histogram = Histogram::new(&[0, 1, 2, 3, 4, 5, 6, 10, 20]);
        for number in [0, 7, 10, 11, 20, 21, 100] {
            histogram.observe(number);
        }
        let mut read = histogram.read();
        assert_eq!(read.counts, [1, 0, 0, 0, 0, 0, 0, 2, 2, 2]);
        assert_eq!((read.count(), read.sum), (7, 169));
        read.add(&histogram.read());
        assert_eq!((read.count(), read.sum), (14, 338));
    }
}
