//! What an allocation may do: what its credential claims, within this server's rules. A claim only
//! ever takes away.

use std::sync::Arc;
use std::time::Duration;

use crate::turn::Server;
use crate::turn::allocation::{Allocation, Expiry, Limits};
use crate::turn::auth::lasts_too_long;
use crate::turn::clock::{Clock, Tick};
use crate::turn::credential::{Claims, EXPIRY_LEEWAY};
use crate::turn::environment::Environment;
use crate::turn::policy::PeerPolicy;
use crate::turn::request::Request;
use crate::turn::server_config::ServerConfig;

/// The policies that allocations come under. The usual ones are shared, so that they take no memory
/// of an allocation's own.
#[derive(Debug)]
pub(crate) struct Policies {
    /// Of those whose credential claims none.
    default: Arc<PeerPolicy>,
    ceiling: PeerPolicy,
    others: [Arc<PeerPolicy>; 3],
}

impl Policies {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let ServerConfig {
            policy, ceiling, ..
        } = config;
        // A list that the operator wrote down opens what it lists, also where everything may be claimed.
        let default = if policy.is_within(ceiling) {
            policy.clone()
        } else {
            policy.narrowed(ceiling)
        };
        Self {
            default: Arc::new(default),
            ceiling: ceiling.clone(),
            others: [PeerPolicy::Call, PeerPolicy::Relay, PeerPolicy::Any].map(Arc::new),
        }
    }

    /// The policy of an allocation whose credential says `claims`.
    pub(crate) fn of(&self, claims: Option<&Claims>) -> Arc<PeerPolicy> {
        let Some(claimed) = claims.and_then(|claims| claims.policy.as_ref()) else {
            return Arc::clone(&self.default);
        };
        let policy = claimed.narrowed(&self.ceiling);
        let mut shared = [&self.default].into_iter().chain(&self.others);
        let shared = shared.find(|shared| ***shared == policy);
        shared.map_or_else(|| Arc::new(policy), Arc::clone)
    }
}

/// How long an allocation may live at most that was made at `opened` with a credential that says
/// `claims`.
fn limits(config: &ServerConfig, claims: Option<&Claims>, opened: Tick) -> Limits {
    let claimed = claims.and_then(|claims| claims.session_max);
    let longest = config.session_max;
    let session_max = claimed.map_or(longest, |claimed| claimed.min(longest));
    let strict = config.strict || claims.is_some_and(|claims| claims.strict);
    Limits {
        session_end: opened.plus(session_max),
        expiry: if strict {
            Expiry::Strict
        } else {
            Expiry::Lenient
        },
    }
}

impl<E: Environment> Server<E> {
    /// How long an allocation made by `request` may live at most.
    pub(crate) fn limits(&self, request: &Request<'_>) -> Limits {
        let claims = request.auth.claims.as_deref();
        limits(&self.config, claims, request.clock.now)
    }
}

impl Limits {
    /// When an allocation ends at the latest whose credential `expires` then, if ever.
    pub(crate) fn latest_end(&self, expires: Option<u64>, clock: Clock) -> Tick {
        match (self.expiry, expires) {
            (Expiry::Strict, Some(expires)) => {
                let left = expires
                    .saturating_add(EXPIRY_LEEWAY)
                    .saturating_sub(clock.unix);
                let left = Duration::from_secs(left);
                self.session_end.min(clock.now.plus(left))
            }
            (Expiry::Strict, None) | (Expiry::Lenient, _) => self.session_end,
        }
    }
}

impl Allocation {
    /// Whether it is for this node, and of a kind that is served.
    pub(crate) fn is_served_by(&self, config: &ServerConfig) -> bool {
        let claims = self.standing.claims.as_deref();
        claims.is_none_or(|claims| claims.is_for(config.node.as_ref()))
            && (config.tcp_relay || !self.is_tcp())
    }

    /// Whether its credential lasts for longer than any may, as an Allocate would be told.
    pub(crate) fn lasts_too_long(&self, config: &ServerConfig, clock: Clock) -> bool {
        let claims = self.standing.claims.as_deref();
        let expires = self.known.expires();
        expires.is_some_and(|expires| lasts_too_long(expires, claims, clock, config.max_ttl))
    }

    /// Has it live no longer than other rules let it, whatever its client was promised.
    pub(crate) fn live_by(&mut self, config: &ServerConfig, clock: Clock) {
        let claims = self.standing.claims.as_deref();
        let limits = limits(config, claims, self.standing.opened);
        (self.session_end, self.expiry) = (limits.session_end, limits.expiry);
        let end = limits
            .latest_end(self.known.expires(), clock)
            .min(clock.now.plus(config.allocation_lifetime));
        for relay in &self.relays {
            if end < relay.until().at() {
                relay.until().set(end);
            }
        }
    }
}
