//! Searches for the highest rate that still arrives, without knowing how it is tried.

/// How close the bounds come before the rate is held to be found.
const PRECISION: f64 = 0.02;
const ROUGHLY: f64 = 0.1;
/// A loss up to so many times the allowed may be a hiccup of the machine, as may a rate that the
/// generator did not keep: both are tried again.
const HICCUP: f64 = 10.0;
/// How often a rate that was found may fail to be confirmed.
const CONFIRMATIONS: u32 = 6;
const LOWEST: f64 = 100.0;

/// One rate that was tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tried {
    /// Packets a second that left.
    pub(super) offered: f64,
    /// The part of them that did not arrive.
    pub(super) loss: f64,
    /// Whether the generator kept the rate.
    pub(super) kept: bool,
}

/// What to try next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// This rate, for a moment.
    Try(f64),
    /// This rate, for as long as it must hold.
    Confirm(f64),
    /// The last confirmation is the result.
    Found,
    /// Not even the lowest rate arrives.
    Nothing,
}

/// The search.
#[derive(Debug)]
pub(super) struct Search {
    max_loss: f64,
    precision: f64,
    rate: f64,
    /// The highest rate that arrived, and the lowest that did not.
    good: Option<f64>,
    bad: Option<f64>,
    again: bool,
    limited: bool,
    confirming: u32,
    done: Option<Next>,
}

impl Search {
    pub(super) const fn new(start: f64, max_loss: f64) -> Self {
        Self {
            max_loss,
            precision: PRECISION,
            rate: start,
            good: None,
            bad: None,
            again: false,
            limited: false,
            confirming: 0,
            done: None,
        }
    }

    /// The same, content with less.
    pub(super) const fn roughly(mut self) -> Self {
        self.precision = ROUGHLY;
        self
    }

    pub(super) const fn next(&self) -> Next {
        match (self.done, self.confirming) {
            (Some(done), _) => done,
            (None, 0) => Next::Try(self.rate),
            (None, _) => Next::Confirm(self.rate),
        }
    }

    /// Whether the generator and not the server set the bound.
    pub(super) const fn limited(&self) -> bool {
        self.limited
    }

    /// Takes the outcome of what [`next`](Self::next) said.
    pub(super) fn record(&mut self, tried: Tried) {
        let arrived = tried.loss <= self.max_loss;
        if self.confirming > 0 {
            self.confirmed(arrived);
            return;
        }
        let nearly = tried.loss <= self.max_loss * HICCUP;
        if !self.again && nearly && !(arrived && tried.kept) {
            self.again = true;
            return;
        }
        self.again = false;
        if arrived && tried.kept {
            self.good = Some(self.rate);
        } else if arrived {
            // More than this the generator does not send.
            self.limited = true;
            self.good = Some(self.good.unwrap_or(0.0).max(tried.offered));
            self.bad = Some(self.rate.min(tried.offered * (1.0 + self.precision / 2.0)));
        } else {
            self.bad = Some(self.rate.min(tried.offered.max(LOWEST)));
        }
        self.rate = match (self.good, self.bad) {
            (Some(good), None) => good * 2.0,
            (None, Some(bad)) if bad <= LOWEST => {
                self.done = Some(Next::Nothing);
                bad
            }
            (None, Some(bad)) => bad / 2.0,
            (Some(good), Some(bad)) if bad <= good * (1.0 + self.precision) => {
                self.confirming = 1;
                good
            }
            (Some(good), Some(bad)) => f64::midpoint(good, bad),
            (None, None) => self.rate,
        };
    }

    fn confirmed(&mut self, arrived: bool) {
        if arrived {
            self.done = Some(Next::Found);
        } else if self.confirming == CONFIRMATIONS {
            self.done = Some(Next::Nothing);
        } else {
            // A short step flatters: each failure takes more off.
            self.rate *= 1.0 - self.precision * f64::from(self.confirming);
            self.confirming += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server of that capacity makes of a rate, offered by a generator of that capacity.
    fn served(rate: f64, server: f64, generator: f64) -> Tried {
        let offered = rate.min(generator);
        Tried {
            offered,
            loss: (1.0 - server / offered).max(0.0),
            kept: rate <= generator,
        }
    }

    fn found(start: f64, server: f64, generator: f64) -> Option<f64> {
        let mut search = Search::new(start, 0.001);
        for _ in 0..100 {
            match search.next() {
                Next::Try(rate) | Next::Confirm(rate) => {
                    search.record(served(rate, server, generator));
                }
                Next::Found => return Some(search.rate),
                Next::Nothing => return None,
            }
        }
        panic!("the search does not end");
    }

    #[test]
    fn the_capacity_of_a_server_is_found_wherever_the_search_begins() {
        for capacity in [700.0, 50_000.0, 183_456.0, 1_500_000.0] {
            for start in [1_000.0, 100_000.0, 10_000_000.0] {
                let found = found(start, capacity, f64::MAX).unwrap();
                let ratio = found / capacity;
                assert!(
                    (0.97..=1.001).contains(&ratio),
                    "{start}: {found} of {capacity}"
                );
            }
        }
    }

    #[test]
    fn a_server_faster_than_the_generator_ends_at_the_generators_rate() {
        let found = found(100_000.0, 1e9, 300_000.0).unwrap();
        assert!((290_000.0..=310_000.0).contains(&found), "{found}");
        let mut search = Search::new(1000.0, 0.001);
        search.record(served(1000.0, 1e9, 500.0));
        assert!(!search.limited(), "at once");
        search.record(served(1000.0, 1e9, 500.0));
        assert!(search.limited());
    }

    #[test]
    fn a_server_that_delivers_nothing_is_given_up() {
        assert_eq!(found(100_000.0, 0.0, f64::MAX), None);
    }

    #[test]
    fn one_hiccup_does_not_halve_the_result() {
        let mut search = Search::new(100_000.0, 0.001);
        let hiccup = Tried {
            offered: 100_000.0,
            loss: 0.005,
            kept: true,
        };
        search.record(hiccup);
        assert_eq!(search.next(), Next::Try(100_000.0));
        search.record(hiccup);
        assert_eq!(search.next(), Next::Try(50_000.0));
    }

    #[test]
    fn a_rate_that_does_not_hold_is_lowered() {
        let mut search = Search::new(1000.0, 0.001);
        while let Next::Try(rate) = search.next() {
            search.record(served(rate, 1000.0, f64::MAX));
        }
        let Next::Confirm(first) = search.next() else {
            panic!("nothing to confirm")
        };
        search.record(served(first * 2.0, 1000.0, f64::MAX));
        let Next::Confirm(second) = search.next() else {
            panic!("given up")
        };
        assert!(second < first && second > first * 0.9);
        search.record(served(second, 1000.0, f64::MAX));
        assert_eq!(search.next(), Next::Found);
    }
}
