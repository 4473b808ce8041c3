//! How a worker learns that every other worker has let go of what it withdrew: each marks the
//! turns of its loop, and one that sleeps holds nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// The marks of all workers: odd while awake, even while asleep.
#[derive(Debug)]
pub(crate) struct Turns(Box<[Mark]>);

/// A line of its own, so that marking a turn disturbs no other worker.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Mark(AtomicU64);

/// Where every worker stood at one moment.
#[derive(Debug)]
pub(crate) struct Moment(Box<[u64]>);

impl Turns {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Mark::default()).collect())
    }

    /// The worker begins a turn, or ends one.
    pub(crate) fn flip(&self, worker: usize) {
        if let Some(mark) = self.0.get(worker) {
            mark.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Where every worker stands.
    pub(crate) fn moment(&self) -> Moment {
        Moment(
            self.0
                .iter()
                .map(|mark| mark.0.load(Ordering::SeqCst))
                .collect(),
        )
    }

    /// Whether every worker that was awake at `then` has ended that turn since.
    pub(crate) fn passed(&self, then: &Moment) -> bool {
        self.0
            .iter()
            .zip(&then.0)
            .all(|(mark, then)| then.is_multiple_of(2) || mark.0.load(Ordering::SeqCst) != *then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_passes_once_whoever_was_awake_has_ended_its_turn() {
        let turns = Turns::new(2);
        turns.flip(0);
        let moment = turns.moment();
        assert!(!turns.passed(&moment));
        turns.flip(1);
        assert!(
            !turns.passed(&moment),
            "a worker that was asleep is not waited for"
        );
        turns.flip(0);
        assert!(turns.passed(&moment));
    }
}
