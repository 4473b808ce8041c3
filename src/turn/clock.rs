//! Time as an input. `turn` never asks what time it is: each call carries a [`Tick`] or a
//! [`Clock`]. Deadlines are atomics, so that a refresh moves one without publishing anything anew
//! and every data plane sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A moment on `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(u64);

impl Tick {
    /// The moment `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// This moment moved by `span`; stops at the end of time instead of wrapping.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long after `earlier` this moment is; zero when it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What a control input carries: the monotonic moment for lifetimes, and the wall clock for
/// credentials' expiry. They are separate so that a clock set late by NTP is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The monotonic moment.
    pub now: Tick,
    /// Seconds since 1970 by the wall clock.
    pub unix: u64,
}

/// A moment after which something no longer holds. It stands in what is published, so that moving
/// it there moves it for every plane; a clone is a deadline of its own.
#[derive(Debug, Default)]
pub struct Deadline(AtomicU64);

impl Clone for Deadline {
    fn clone(&self) -> Self {
        Self::new(self.at())
    }
}

impl Deadline {
    /// A deadline at `at`.
    #[must_use]
    pub const fn new(at: Tick) -> Self {
        Self(AtomicU64::new(at.nanos()))
    }

    /// Moves the deadline for everyone who holds it.
    pub fn set(&self, at: Tick) {
        self.0.store(at.nanos(), Ordering::Release);
    }

    /// The moment itself.
    #[must_use]
    pub fn at(&self) -> Tick {
        Tick(self.0.load(Ordering::Acquire))
    }

    /// Whether it still holds at `now`.
    #[must_use]
    pub fn holds(&self, now: Tick) -> bool {
        now < self.at()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_moved_deadline_moves_for_every_holder() {
        let deadline = Arc::new(Deadline::new(Tick::from_nanos(10)));
        let published = Arc::clone(&deadline);
        assert!(!published.holds(Tick::from_nanos(10)));
        deadline.set(Tick::from_nanos(20));
        assert!(published.holds(Tick::from_nanos(19)));
    }

    #[test]
    fn time_stops_at_its_end_instead_of_wrapping() {
        let end = Tick::from_nanos(u64::MAX).plus(Duration::from_secs(1));
        assert_eq!(end.nanos(), u64::MAX);
        assert_eq!(Tick::default().since(end), Duration::ZERO);
    }
}
