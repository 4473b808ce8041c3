//! One ordered queue of when each allocation wants to be looked at. An allocation stands in it at
//! most once; a deadline that moves away is noticed only when the old moment comes, so that a
//! refresh costs nothing here.

use std::collections::BTreeSet;

use super::clock::Tick;

/// Moments and the table index of the allocation that asked for each.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeSet<(Tick, u32)>);

impl Deadlines {
    /// The earliest moment.
    pub(crate) fn first(&self) -> Option<Tick> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Asks to be looked at: at `at`, and no longer at `before`.
    pub(crate) fn arm(&mut self, index: u32, before: Option<Tick>, at: Tick) {
        if let Some(before) = before {
            self.0.remove(&(before, index));
        }
        self.0.insert((at, index));
    }

    /// Forgets an allocation.
    pub(crate) fn forget(&mut self, index: u32, armed: Tick) {
        self.0.remove(&(armed, index));
    }

    /// Takes the next allocation whose moment has come.
    pub(crate) fn take_due(&mut self, now: Tick) -> Option<u32> {
        let (at, index) = *self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some(index)
    }

    /// How many are waiting.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
