//! Chance, from a seed or from a fuzzer's bytes.

use std::ops::RangeInclusive;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// Everything random of a run comes from here, so that its seed or its bytes repeat it.
#[derive(Debug)]
pub struct Dice {
    rng: StdRng,
    given: Vec<u8>,
    next: usize,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            given: Vec::new(),
            next: 0,
        }
    }

    /// Choices are taken from `bytes` as long as there are any.
    pub fn given(bytes: &[u8]) -> Self {
        Self {
            given: bytes.to_vec(),
            ..Self::new(0)
        }
    }

    /// Whether all given bytes are used.
    pub const fn is_spent(&self) -> bool {
        self.next >= self.given.len()
    }

    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        if self.is_spent() {
            return self.rng.random_range(range);
        }
        let (first, last) = range.into_inner();
        let span = last - first;
        let width = (8 - span.leading_zeros() as usize / 8).max(1);
        let end = self.given.len().min(self.next + width);
        let bytes = &self.given[self.next..end];
        self.next = end;
        let number = bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        match span.checked_add(1) {
            Some(count) => first + number % count,
            None => number,
        }
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.within(0..=end as u64 - 1)).unwrap()
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.within(0..=99) < chance
    }

    pub fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())].clone()
    }

    /// Nothing if there is nothing.
    pub fn pick_any<T: Clone>(&mut self, among: &[T]) -> Option<T> {
        (!among.is_empty()).then(|| self.pick(among))
    }

    pub fn port(&mut self, range: &RangeInclusive<u16>) -> u16 {
        let port = self.within((*range.start()).into()..=(*range.end()).into());
        u16::try_from(port).unwrap()
    }

    /// Never from given bytes: what identifies something must be unlike all others.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}
