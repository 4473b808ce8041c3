//! What a sealed username says of its holder beyond the expiry, and how that is written down.
//!
//! ```text
//! claims: (tag (1) | length (1) | value)*, each tag at most once, but for networks
//! ```
//! | tag | claim | value |
//! |---|---|---|
//! | 1 | subject | 16 bytes |
//! | 2 | issue time | Unix seconds, 8 bytes, big-endian as all numbers here |
//! | 3 | call id | 16 bytes, hashed |
//! | 4 | tenant | a label of 1 to 32 characters |
//! | 5 | peer policy | 0 `call`, 1 `relay`, 2 networks, 3 `any` |
//! | 6 | network of that policy, at most four | prefix length (1), then 4 or 16 bytes of address |
//! | 7 | most allocations at a time | 4 bytes |
//! | 8 | most bits a second | 8 bytes |
//! | 9 | most packets a second | 8 bytes |
//! | 10 | most seconds of a session | 4 bytes |
//! | 11 | strict: the allocation ends at the expiry | nothing |
//! | 12 | masked: its client is told its relayed address as its mapped one | nothing |
//! | 13 | audience: the id of the only node that takes it | a label of 1 to 32 characters |
//!
//! A tag that is not known here may be a restriction, so that whoever does not know it refuses the
//! whole.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Subject;
use crate::turn::policy::PeerPolicy;

/// Networks that a claimed policy may list.
pub const CLAIMED_NETWORKS: usize = 4;
/// The longest label in bytes.
pub const LABEL_MAX: usize = 32;

/// A word that may stand in metrics, events and configuration: 1 to 32 ASCII letters, digits, `-`,
/// `_` or `.`. Tenants and nodes have one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    /// Takes `text` for a label if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let fits = (1..=LABEL_MAX).contains(&text.len()) && text.bytes().all(plain);
        fits.then(|| Self(text.into()))
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Keyed hash of the platform's call id: the same for both parties of a call, and of no use to who
/// lacks the key. Meant to be printed. See [`Credentials::call`](super::Credentials::call).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId([u8; 16]);

impl CallId {
    /// For storing; the other way round is [`CallId::from_bytes`].
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// A hash that was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({self})")
    }
}

/// How much the holder may use; none is the server's own limit. The smaller of both counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimedLimits {
    /// Allocations at a time.
    pub allocations: Option<u32>,
    /// Bits a second, of each allocation.
    pub bits: Option<u64>,
    /// Packets a second, of each allocation.
    pub packets: Option<u64>,
}

/// What a credential says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whose it is.
    pub subject: Subject,
    /// When it was minted, Unix seconds.
    pub issued: u64,
    /// For which call.
    pub call: Option<CallId>,
    /// On whose account, where several platforms share a server.
    pub tenant: Option<Label>,
    /// With whom it may exchange packets. It narrows the server's ceiling, never widens it.
    pub policy: Option<PeerPolicy>,
    /// How much it may use.
    pub limits: ClaimedLimits,
    /// How long an allocation may be refreshed; it shortens the server's own, never lengthens it.
    pub session_max: Option<Duration>,
    /// Whether its allocations end when it expires.
    pub strict: bool,
    /// Whether its client is told its relayed transport address as its mapped one.
    pub masked: bool,
    /// The only node that takes it.
    pub audience: Option<Label>,
}

impl Claims {
    /// Of `subject`, minted at `issued`, and nothing else.
    #[must_use]
    pub const fn new(subject: Subject, issued: u64) -> Self {
        Self {
            subject,
            issued,
            call: None,
            tenant: None,
            policy: None,
            limits: ClaimedLimits {
                allocations: None,
                bits: None,
                packets: None,
            },
            session_max: None,
            strict: false,
            masked: false,
            audience: None,
        }
    }

    /// Whether it is good on the node of that name; pinned to one, it is good on no other.
    #[must_use]
    pub fn is_for(&self, node: Option<&Label>) -> bool {
        let audience = self.audience.as_ref();
        audience.is_none_or(|audience| node == Some(audience))
    }

    /// As it is sealed; none if the policy lists more networks than can be claimed.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Encoder(Vec::with_capacity(128));
        out.put(1, &self.subject.to_bytes());
        out.put(2, &self.issued.to_be_bytes());
        if let Some(call) = self.call {
            out.put(3, &call.to_bytes());
        }
        if let Some(tenant) = &self.tenant {
            out.put(4, tenant.as_str().as_bytes());
        }
        if let Some(policy) = &self.policy {
            out.policy(policy)?;
        }
        let ClaimedLimits {
            allocations,
            bits,
            packets,
        } = self.limits;
        if let Some(allocations) = allocations {
            out.put(7, &allocations.to_be_bytes());
        }
        if let Some(bits) = bits {
            out.put(8, &bits.to_be_bytes());
        }
        if let Some(packets) = packets {
            out.put(9, &packets.to_be_bytes());
        }
        if let Some(session_max) = self.session_max {
            let seconds = u32::try_from(session_max.as_secs()).unwrap_or(u32::MAX);
            out.put(10, &seconds.to_be_bytes());
        }
        if self.strict {
            out.put(11, &[]);
        }
        if self.masked {
            out.put(12, &[]);
        }
        if let Some(audience) = &self.audience {
            out.put(13, audience.as_str().as_bytes());
        }
        Some(out.0)
    }

    /// What was sealed, if every byte of it is understood.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let (mut subject, mut issued) = (None, None);
        let mut claims = Self::new(Subject::from_bytes([0; 16]), 0);
        let mut kind = None;
        let mut networks = Vec::new();
        let mut last = 0;
        while let [tag, length, rest @ ..] = bytes {
            let (value, rest) = rest.split_at_checked(usize::from(*length))?;
            bytes = rest;
            // In the order of their tags, so that none comes twice but networks.
            if *tag < last || (*tag == last && *tag != 6) {
                return None;
            }
            last = *tag;
            match tag {
                1 => subject = Some(Subject::from_bytes(value.try_into().ok()?)),
                2 => issued = Some(u64::from_be_bytes(value.try_into().ok()?)),
                3 => claims.call = Some(CallId(value.try_into().ok()?)),
                4 => claims.tenant = Some(label(value)?),
                5 => kind = Some(<[u8; 1]>::try_from(value).ok()?[0]),
                6 if networks.len() < CLAIMED_NETWORKS => networks.push(network(value)?),
                7 => {
                    claims.limits.allocations = Some(u32::from_be_bytes(value.try_into().ok()?));
                }
                8 => claims.limits.bits = Some(u64::from_be_bytes(value.try_into().ok()?)),
                9 => claims.limits.packets = Some(u64::from_be_bytes(value.try_into().ok()?)),
                10 => {
                    let seconds = u32::from_be_bytes(value.try_into().ok()?);
                    claims.session_max = Some(Duration::from_secs(seconds.into()));
                }
                11 if value.is_empty() => claims.strict = true,
                12 if value.is_empty() => claims.masked = true,
                13 => claims.audience = Some(label(value)?),
                _ => return None,
            }
        }
        if !bytes.is_empty() {
            return None;
        }
        claims.policy = match (kind, networks.is_empty()) {
            (None, true) => None,
            (Some(0), true) => Some(PeerPolicy::Call),
            (Some(1), true) => Some(PeerPolicy::Relay),
            (Some(2), false) => Some(PeerPolicy::Networks(networks)),
            (Some(3), true) => Some(PeerPolicy::Any),
            _ => return None,
        };
        claims.subject = subject?;
        claims.issued = issued?;
        Some(claims)
    }
}

struct Encoder(Vec<u8>);

impl Encoder {
    /// `value` is at most 32 bytes long.
    fn put(&mut self, tag: u8, value: &[u8]) {
        self.0
            .extend([tag, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
        self.0.extend_from_slice(value);
    }

    fn policy(&mut self, policy: &PeerPolicy) -> Option<()> {
        let (kind, networks): (u8, &[IpNet]) = match policy {
            PeerPolicy::Call => (0, &[]),
            PeerPolicy::Relay => (1, &[]),
            PeerPolicy::Networks(networks) | PeerPolicy::AnyOf(networks) => (2, networks),
            PeerPolicy::Any => (3, &[]),
        };
        if networks.len() > CLAIMED_NETWORKS || (kind == 2 && networks.is_empty()) {
            return None;
        }
        self.put(5, &[kind]);
        for network in networks {
            let mut value = vec![network.prefix_len()];
            match network.trunc().addr() {
                IpAddr::V4(ip) => value.extend(ip.octets()),
                IpAddr::V6(ip) => value.extend(ip.octets()),
            }
            self.put(6, &value);
        }
        Some(())
    }
}

fn label(value: &[u8]) -> Option<Label> {
    Label::new(std::str::from_utf8(value).ok()?)
}

fn network(value: &[u8]) -> Option<IpNet> {
    let (prefix, address) = value.split_first()?;
    let ip = match address.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)),
        _ => return None,
    };
    let network = IpNet::new(ip, *prefix).ok()?;
    (network.trunc() == network).then_some(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Claims {
        Claims {
            call: Some(CallId([3; 16])),
            tenant: Label::new("north.example"),
            policy: Some(PeerPolicy::Networks(vec![
                "192.0.2.0/24".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ])),
            limits: ClaimedLimits {
                allocations: Some(4),
                bits: Some(2_000_000),
                packets: Some(500),
            },
            session_max: Some(Duration::from_secs(7_200)),
            strict: true,
            masked: true,
            audience: Label::new("node-1"),
            ..Claims::new(Subject::from_bytes([1; 16]), 1_800_000_000)
        }
    }

    #[test]
    fn claims_are_read_as_they_were_written() {
        let bare = Claims::new(Subject::from_bytes([2; 16]), 7);
        let policies = [PeerPolicy::Call, PeerPolicy::Relay, PeerPolicy::Any];
        let with = |policy| Claims {
            policy: Some(policy),
            ..bare.clone()
        };
        for claims in policies.map(with).into_iter().chain([bare.clone(), full()]) {
            let bytes = claims.encode().unwrap();
            assert_eq!(Claims::decode(&bytes), Some(claims));
        }
    }

    #[test]
    fn what_is_not_wholly_understood_says_nothing() {
        let bytes = full().encode().unwrap();
        for end in 0..bytes.len() {
            // A piece may end between two claims, but not before subject and issue time.
            let read = Claims::decode(&bytes[..end]);
            assert!(read.is_none() || end >= 28, "{end}");
        }
        let minimal = Claims::new(Subject::from_bytes([2; 16]), 7)
            .encode()
            .unwrap();
        for more in [
            &[14, 0][..],
            &[2, 8, 0, 0, 0, 0, 0, 0, 0, 7],
            &[5, 1, 2],
            &[5, 1, 4],
            &[6, 5, 24, 192, 0, 2, 0],
            &[5, 1, 2, 6, 5, 24, 192, 0, 2, 1],
            &[5, 1, 2, 6, 5, 33, 192, 0, 2, 0],
            &[11, 1, 0],
            &[4, 0],
            &[4, 3, b'a', b'"', b'b'],
            &[13],
        ] {
            let bytes = [&minimal[..], more].concat();
            assert_eq!(Claims::decode(&bytes), None, "{more:?}");
        }
    }

    /// What is sealed must be what is taken.
    #[test]
    fn bits_of_a_host_are_no_part_of_a_claimed_network() {
        let list = |text: &str| Claims {
            policy: Some(PeerPolicy::Networks(vec![text.parse().unwrap()])),
            ..full()
        };
        let bytes = list("192.0.2.77/24").encode().unwrap();
        assert_eq!(Claims::decode(&bytes), Some(list("192.0.2.0/24")));
    }

    #[test]
    fn a_policy_of_five_networks_cannot_be_claimed() {
        let networks = (0..5).map(|n| format!("192.0.2.{n}/32").parse().unwrap());
        let claims = Claims {
            policy: Some(PeerPolicy::Networks(networks.collect())),
            ..full()
        };
        assert_eq!(claims.encode(), None);
    }

    #[test]
    fn a_label_can_stand_anywhere() {
        for good in ["a", "north.example", "A-1_b", &"x".repeat(32)] {
            assert!(Label::new(good).is_some(), "{good}");
        }
        for bad in ["", "a b", "a\"", "ä", "a\n", "{}", &"x".repeat(33)] {
            assert!(Label::new(bad).is_none(), "{bad}");
        }
    }
}
