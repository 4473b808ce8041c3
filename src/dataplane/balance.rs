//! How evenly load is spread over UDP workers. The kernel spreads flows by a hash and knows no load:
//! a few busy clients may all be one worker's. Looked at from outside; a worker has no part in it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many looks are remembered: at one every ten seconds, a minute and the look before it.
const LOOKS: usize = 7;
/// Where the busiest works for less than this share of its time, all of them idle, and idling has no
/// balance.
const IDLE: f64 = 0.05;

/// What was seen of late.
#[derive(Debug, Default)]
pub(crate) struct Balance(Mutex<VecDeque<Look>>);

/// Nanoseconds for which each worker was not waiting, up to a moment.
#[derive(Debug)]
struct Look {
    at: u64,
    busy: Vec<u64>,
}

impl Balance {
    /// Remembers what is seen at `at`, in nanoseconds.
    pub(crate) fn look(&self, at: u64, busy: Vec<u64>) {
        let mut looks = self.lock();
        while looks.len() >= LOOKS {
            looks.pop_front();
        }
        looks.push_back(Look { at, busy });
    }

    /// The busiest worker's share over the mean, between the first and the last look.
    pub(crate) fn ratio(&self) -> f64 {
        let looks = self.lock();
        let (Some(first), Some(last)) = (looks.front(), looks.back()) else {
            return 1.0;
        };
        ratio(first, last)
    }

    // What it guards is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio of times, exact to a nanosecond for a hundred days"
)]
fn ratio(first: &Look, last: &Look) -> f64 {
    let pairs = last.busy.iter().zip(&first.busy);
    let busy: Vec<u64> = pairs.map(|(now, then)| now.wrapping_sub(*then)).collect();
    let most = busy.iter().max().copied().unwrap_or(0) as f64;
    let mean = busy.iter().sum::<u64>() as f64 / busy.len().max(1) as f64;
    let time = last.at.saturating_sub(first.at) as f64;
    if time <= 0.0 || most < IDLE * time {
        return 1.0;
    }
    most / mean
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn one_worker_that_does_everything_is_as_many_times_the_mean_as_there_are() {
        let balance = Balance::default();
        assert!((balance.ratio() - 1.0).abs() < 1e-9);
        balance.look(0, vec![5 * SECOND; 4]);
        assert!((balance.ratio() - 1.0).abs() < 1e-9);
        balance.look(
            10 * SECOND,
            vec![5 * SECOND, 13 * SECOND, 5 * SECOND, 5 * SECOND],
        );
        assert!((balance.ratio() - 4.0).abs() < 1e-9);
        balance.look(20 * SECOND, vec![13 * SECOND; 4]);
        assert!((balance.ratio() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn idle_workers_are_even() {
        let balance = Balance::default();
        balance.look(0, vec![0, 0]);
        balance.look(10 * SECOND, vec![SECOND / 10, 0]);
        assert!((balance.ratio() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_worker_that_does_everything_stands_out_however_many_there_are() {
        let balance = Balance::default();
        balance.look(0, vec![0; 64]);
        let mut busy = vec![0; 64];
        busy[7] = 9 * SECOND;
        balance.look(10 * SECOND, busy);
        assert!((balance.ratio() - 64.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_more_than_a_minute_ago_is_forgotten() {
        let balance = Balance::default();
        balance.look(0, vec![0, 0]);
        let worked = |turn: u64| vec![(10 + turn) * SECOND, turn * SECOND];
        for turn in 1..=7 {
            balance.look(turn * 10 * SECOND, worked(turn));
        }
        assert!((balance.ratio() - 1.0).abs() < 1e-9);
    }
}
