//! Failed authentications, summed up: a flood of them is a line for each reason and interval.

use std::sync::Arc;

use crate::admin::events::{Event, Events};
use crate::turn::stats::{AuthFailure, Counters};

/// What has been told of so far.
#[derive(Debug)]
pub(crate) struct Failures {
    counters: Arc<[Arc<Counters>]>,
    told: [u64; AuthFailure::ALL.len()],
    since: u64,
}

impl Failures {
    /// Nothing has.
    pub(crate) fn new(counters: &[Arc<Counters>], unix: u64) -> Self {
        Self {
            counters: counters.into(),
            told: [0; AuthFailure::ALL.len()],
            since: unix,
        }
    }

    /// Tells of those since the last time.
    pub(crate) fn sum_up(&mut self, events: &Events, unix: u64) {
        for reason in AuthFailure::ALL {
            // Every client's first request has no credential yet.
            if *reason == AuthFailure::Missing {
                continue;
            }
            let workers = self.counters.iter();
            let total: u64 = workers.map(|worker| worker.auth_failures(*reason)).sum();
            let told = &mut self.told[*reason as usize];
            let count = total.saturating_sub(*told);
            *told = total;
            if count > 0 {
                events.send(&Event::AuthFailures {
                    at: unix,
                    reason: *reason,
                    count,
                    seconds: unix.saturating_sub(self.since),
                });
            }
        }
        self.since = unix;
    }
}
