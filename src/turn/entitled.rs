//! What an allocation may do: what its credential claims, within this server's rules. A claim only
//! ever takes away.

use std::sync::Arc;

use crate::turn::Server;
use crate::turn::allocation::{Expiry, Limits};
use crate::turn::credential::Claims;
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

impl<E: Environment> Server<E> {
    /// How long an allocation made by `request` may live at most.
    pub(crate) fn limits(&self, request: &Request<'_>) -> Limits {
        let claims = request.auth.claims.as_deref();
        let claimed = claims.and_then(|claims| claims.session_max);
        let longest = self.config.session_max;
        let session_max = claimed.map_or(longest, |claimed| claimed.min(longest));
        let strict = self.config.strict || claims.is_some_and(|claims| claims.strict);
        Limits {
            session_end: request.clock.now.plus(session_max),
            expiry: if strict {
                Expiry::Strict
            } else {
                Expiry::Lenient
            },
        }
    }
}
