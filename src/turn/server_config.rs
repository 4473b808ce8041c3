//! What a [`Server`](super::Server) is told once, as plain values; all workers share one.

use std::time::Duration;

use crate::proto::ChannelRange;
use crate::turn::ban::Bans;
use crate::turn::behaviour::NatDiscovery;
use crate::turn::binding::BindingRules;
use crate::turn::credential::{Credentials, Label};
use crate::turn::nonce::NonceKey;
use crate::turn::policy::{PeerJudge, PeerPolicy};
use crate::turn::quota::Quotas;
use crate::turn::rates::RateLimits;
use crate::turn::redirect::Alternate;
use crate::turn::revocation::Revocations;
use crate::turn::ticket::TicketKey;
use crate::turn::unvalidated::Rate;

/// When a relayed address gets a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// Only when a packet may have to go outside: at Allocate if the policy admits peers other
    /// than relays, else when an address of the fleet is first permitted.
    Auto,
    /// At Allocate.
    Always,
}

/// How much is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Allocations at a time.
    pub quotas: Quotas,
    /// Permissions of one allocation at a time.
    pub permissions: usize,
    /// Channel bindings of one allocation at a time, those cooling down included.
    pub channels: usize,
    /// What is relayed a second.
    pub rates: RateLimits,
    /// Allocate requests of one network; none is no limit.
    pub prefix_allocates: Option<Rate>,
    /// Failed authentications of one network that are answered; none is no limit.
    pub prefix_failures: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            quotas: Quotas::default(),
            permissions: 128,
            channels: 128,
            rates: RateLimits::default(),
            prefix_allocates: None,
            prefix_failures: None,
        }
    }
}

/// Behaviour of a server.
#[derive(Debug)]
pub struct ServerConfig {
    /// RFC 8489 §14.9, REALM.
    pub realm: String,
    /// Which channel numbers clients may bind.
    pub channels: ChannelRange,
    /// Who may allocate.
    pub credentials: Credentials,
    /// What nonces are made with.
    pub nonce_key: NonceKey,
    /// The policy of an allocation whose credential carries none.
    pub policy: PeerPolicy,
    /// The widest policy there may be: what a credential claims is narrowed to it.
    pub ceiling: PeerPolicy,
    /// The name of this node, for credentials that are good on one alone.
    pub node: Option<Label>,
    /// The longest that a credential may last, from when it is used.
    pub max_ttl: Duration,
    /// Judges peers.
    pub judge: PeerJudge,
    /// When relay sockets are opened.
    pub bind: Bind,
    /// The longest lifetime a client may ask for.
    pub allocation_lifetime: Duration,
    /// The longest an allocation lives, however often it is refreshed.
    pub session_max: Duration,
    /// Whether an allocation ends with its credential.
    pub strict: bool,
    /// What may be had at most; a credential may claim less.
    pub limits: Limits,
    /// What becomes of Binding requests.
    pub binding: BindingRules,
    /// Other servers, and when clients are sent there.
    pub alternate: Alternate,
    /// Whether this server is being emptied: allocations live on, and new ones are for the
    /// alternate servers if there are any. Nothing in the daemon sets it yet.
    pub draining: bool,
    /// RFC 8016: what tickets are sealed with, if allocations may move.
    pub tickets: Option<TicketKey>,
    /// RFC 5780: which listeners tell how a NAT behaves.
    pub nat_discovery: NatDiscovery,
    /// Whether TCP is relayed (RFC 6062), under the same policy.
    pub tcp_relay: bool,
    /// Whether the quality of media is measured.
    pub media_quality: bool,
    /// What the platform has taken back; the same one under all rules.
    pub revocations: Revocations,
    /// Who may not allocate; the same one under all rules.
    pub bans: Bans,
}
