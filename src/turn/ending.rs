//! Allocations that end because somebody says so, not their client nor their deadline: taken back
//! by the platform, banned, or ended by the operator.

use std::collections::HashSet;

use crate::turn::address::FiveTuple;
use crate::turn::allocation::Allocation;
use crate::turn::clock::{Clock, Tick};
use crate::turn::environment::Environment;
use crate::turn::revocation::Revoked;
use crate::turn::route::AllocationId;
use crate::turn::{EndReason, Server};

impl<E: Environment> Server<E> {
    /// Ends the allocations of what the platform took back. [`ServerConfig::revocations`](super::ServerConfig::revocations) says so
    /// already, so that none can be made meanwhile.
    ///
    /// From here on nothing is forwarded for any of them; what they hold is given back by this call
    /// and those of [`handle_timeout`](Self::handle_timeout) that are due.
    pub fn revoke(&mut self, revoked: &[Revoked], now: Tick) {
        let revoked: HashSet<Revoked> = revoked.iter().copied().collect();
        self.end_where(EndReason::Revoked, now, |allocation| {
            allocation.issued().is_among(&revoked)
        });
    }

    /// Ends the allocations of those who are banned.
    pub fn enforce_bans(&mut self, clock: Clock) {
        let bans = self.config.bans.clone();
        self.end_where(EndReason::Banned, clock.now, |allocation| {
            let next = allocation.mobility.as_ref().and_then(|m| m.next);
            let mut tuples = [Some(allocation.tuple), next].into_iter().flatten();
            tuples.any(|tuple| {
                let ip = tuple.client.expose().ip();
                bans.cover(allocation.subject, ip, clock.unix)
            })
        });
    }

    /// Ends the allocation called `id`, if it is this server's.
    pub fn end_by_name(&mut self, id: AllocationId, now: Tick) {
        self.settle();
        if let Some(allocation) = self.table.by_id(id) {
            let tuple = allocation.tuple;
            self.end(&tuple, EndReason::Revoked, now);
        }
    }

    /// Ends those that `ends` names.
    fn end_where(&mut self, reason: EndReason, now: Tick, ends: impl Fn(&Allocation) -> bool) {
        self.settle();
        let ending: Vec<FiveTuple> = self
            .table
            .iter()
            .filter(|allocation| ends(allocation))
            .map(|allocation| allocation.tuple)
            .collect();
        for tuple in &ending {
            if let Some(allocation) = self.table.by_tuple(tuple) {
                allocation.end_soon(reason);
            }
            self.table.rearm(tuple);
        }
        if !ending.is_empty() {
            self.handle_timeout(now);
        }
    }
}
