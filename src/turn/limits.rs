//! What an allocation may have at most: the smaller of what the configuration says and of what its
//! credential claims. The counts themselves are `quota.rs`, the buckets `rates.rs`.

use std::sync::Arc;

use crate::turn::Server;
use crate::turn::address::FiveTuple;
use crate::turn::clock::Tick;
use crate::turn::credential::{Claims, Subject};
use crate::turn::environment::Environment;
use crate::turn::quota::{Applicant, Quotas};
use crate::turn::rates::{RateLimits, Rates};
use crate::turn::request::{Reject, Request};
use crate::turn::route::Standing;
use crate::turn::stats::Limit;

impl<E: Environment> Server<E> {
    /// Counts that a request meets a limit; what it is answered.
    pub(crate) fn limited(&self, limit: Limit) -> Reject {
        self.counters.limited(limit);
        match limit {
            // RFC 8656 §7.2, §10.2 and §12.2: the server cannot have more of them.
            Limit::Permissions | Limit::Channels | Limit::Journal => Reject::CAPACITY,
            // RFC 8656 §7.2: the allocation quota.
            Limit::UserAllocations
            | Limit::TenantAllocations
            | Limit::TotalAllocations
            | Limit::PrefixAllocates
            | Limit::PrefixFailures
            | Limit::AllocationRate
            | Limit::AllocationPackets
            | Limit::UserRate
            | Limit::UserPackets
            | Limit::TenantRate
            | Limit::TenantPackets => Reject::QUOTA,
        }
    }

    /// Counts an authenticated Allocate on the network that it comes from.
    pub(crate) fn count_newcomer(&self, request: &Request<'_>) -> Result<(), Reject> {
        let (ip, now) = (request.tuple.client.expose().ip(), request.clock.now);
        match self.config.limits.prefix_allocates {
            Some(rate) if !self.environment.allow_newcomer(ip, rate, now) => {
                Err(self.limited(Limit::PrefixAllocates))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a failed authentication on the network that it comes from; whether it may be told so.
    /// What has a credential that is good never comes here, so that nobody's calls depend on who
    /// else fails in the same network.
    pub(crate) fn may_fail(&self, tuple: FiveTuple, now: Tick) -> bool {
        let ip = tuple.client.expose().ip();
        let is_within = self
            .config
            .limits
            .prefix_failures
            .is_none_or(|rate| self.environment.allow_failure(ip, rate, now));
        if !is_within {
            self.counters.limited(Limit::PrefixFailures);
        }
        is_within
    }

    /// How much may go through an allocation that has been counted on `user`.
    pub(crate) fn rates(&mut self, user: Subject, standing: &Standing) -> Option<Arc<Rates>> {
        let limits = &self.config.limits.rates;
        rates(&mut self.environment, user, standing, limits)
    }

    /// Who asks for an allocation, and how many there may be, if there is room for one more.
    pub(crate) fn applicant<'r>(&self, request: &'r Request<'_>) -> Result<Applicant<'r>, Reject> {
        let (claims, quotas) = (request.auth.claims.as_deref(), self.config.limits.quotas);
        let claimed = claims.and_then(|claims| claims.limits.allocations);
        let applicant = Applicant {
            user: request.auth.subject,
            tenant: claims.and_then(|claims| claims.tenant.as_ref()),
            quotas: Quotas {
                user: quotas.user.into_iter().chain(claimed).min(),
                ..quotas
            },
        };
        match self.environment.has_room(&applicant, request.clock.now) {
            Ok(()) => Ok(applicant),
            Err(limit) => Err(self.limited(limit)),
        }
    }
}

/// As [`Server::rates`], while an allocation is in hand.
pub(crate) fn rates<E: Environment>(
    environment: &mut E,
    user: Subject,
    standing: &Standing,
    limits: &RateLimits,
) -> Option<Arc<Rates>> {
    let claims: Option<&Claims> = standing.claims.as_deref();
    let own = claims.map_or(limits.allocation, |claims| {
        let claimed = &claims.limits;
        limits.allocation.claimed(claimed.bits, claimed.packets)
    });
    let shared = environment.shared_buckets(user, standing);
    Rates::new(own, shared)
}
