//! `[metrics]`: what the admin listener tells of, and under which names.

use super::Checker;
use crate::config::Metrics;
use crate::config::file;
use crate::config::key::Key;

/// The most allocations that may have series of their own.
const MOST_SERIES: i64 = 100_000;

impl Checker<'_> {
    pub(super) fn metrics(&mut self, typed: &file::Metrics) -> Metrics {
        let key = Key::new("metrics", "allocations");
        Metrics {
            allocations: self.number(&key, typed.allocations, MOST_SERIES, 0),
            coturn_names: typed.coturn_names,
            quality: typed.quality,
        }
    }
}
