//! What differs from seed to seed, and where everything lies. The classes of addresses are written
//! from design.md's order of judgement, not asked of the code that judges.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use taciturn::proto::ChannelRange;
use taciturn::turn::ban::Bans;
use taciturn::turn::credential::{
    Claims, Credentials, SealingKeys, Secret, SecretsRing, StaticUsers,
};
use taciturn::turn::policy::{FleetNode, PeerJudge, PeerPolicy, PeerRules, RelayRange};
use taciturn::turn::quota::Quotas;
use taciturn::turn::rates::{Flow, Pace, RateLimits};
use taciturn::turn::revocation::Revocations;
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{
    Alternate, Bind, BindingRules, Limits, ListenerId, NatDiscovery, NonceKey, ServerConfig,
    TicketKey, Transport,
};
use zeroize::Zeroizing;

use super::dice::Dice;

pub const REALM: &str = "sim.example";
pub const SECRET: &[u8] = b"a secret of the simulation";
/// The wall clock when a run begins.
pub const EPOCH: u64 = 1_800_000_000;
pub const SECOND: u64 = 1_000_000_000;
/// How long a credential may last.
pub const MAX_TTL: u64 = 100_000;

const RELAYS: [&str; 3] = ["198.41.0.1", "2606:4700::1", "198.41.0.2"];
const FLEET: [(&str, Option<&str>, RangeInclusive<u16>); 3] = [
    ("198.41.7.1", None, 40_000..=40_009),
    ("198.41.7.2", Some("172.20.0.7"), 60_000..=60_009),
    ("2606:4700:7::1", None, 40_000..=40_009),
];
const PUBLIC: [&str; 3] = ["8.8.8.8", "9.9.9.9", "2620:fe::9"];
const LISTED: [&str; 3] = ["9.9.9.9", "10.7.1.1", "2620:fe::9"];
/// Of these, whom everybody may reach where nothing is listed.
const LISTED_PUBLIC: [&str; 2] = ["9.9.9.9", "2620:fe::9"];
/// Refused under every policy: denied, own, special, no host at all, or an own relay in disguise.
const REFUSED: [&str; 9] = [
    "8.8.4.4",
    "10.0.0.5",
    "192.168.1.1",
    "127.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
    "64:ff9b::c629:1",
    "fe80::1",
    "::ffff:10.0.0.5",
];
/// Where the clients' listener lies.
pub const LISTENING_PORT: u16 = 3_478;

/// From the closest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    Call,
    Relay,
    /// A list that was claimed where everybody may be reached.
    Claimed,
    Networks,
    Any,
}

impl Policy {
    fn peers(self) -> PeerPolicy {
        match self {
            Self::Relay => PeerPolicy::Relay,
            Self::Call => PeerPolicy::Call,
            Self::Networks | Self::Claimed => PeerPolicy::Networks(LISTED.map(host).to_vec()),
            Self::Any => PeerPolicy::Any,
        }
    }

    /// Whether its allocations have sockets from the beginning.
    pub const fn goes_outside(self) -> bool {
        matches!(self, Self::Claimed | Self::Networks | Self::Any)
    }
}

/// What a sealed username says of its holder, beyond whose it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claimed {
    pub policy: Option<Policy>,
    pub call: Option<usize>,
    pub strict: bool,
    pub session_max: Option<u64>,
    pub masked: bool,
}

impl Claimed {
    pub fn draw(dice: &mut Dice) -> Self {
        Self {
            policy: dice.pick(&[
                None,
                None,
                Some(Policy::Call),
                Some(Policy::Call),
                Some(Policy::Relay),
                Some(Policy::Networks),
                Some(Policy::Any),
            ]),
            call: dice.pick(&[None, Some(0), Some(0), Some(1)]),
            strict: dice.percent(15),
            session_max: dice.pick(&[None, None, Some(600), Some(8_000)]),
            masked: dice.percent(25),
        }
    }

    /// As it is sealed.
    pub fn claims(self, user: &str, issued: u64) -> Claims {
        let credentials = credentials();
        let call = self.call.and_then(|call| credentials.call(&call_id(call)));
        Claims {
            call,
            policy: self.policy.map(Policy::peers),
            strict: self.strict,
            session_max: self.session_max.map(Duration::from_secs),
            masked: self.masked,
            ..Claims::new(credentials.subject(user), issued)
        }
    }
}

/// What somebody may do: design.md section 5, a claim within the server's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entitled {
    pub policy: Policy,
    pub call: Option<usize>,
    pub strict: bool,
    pub session_max: u64,
    pub masked: bool,
}

/// What an address is to an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Own,
    Fleet,
    Foreign,
    Refused,
}

/// One seed's world.
#[derive(Debug)]
pub struct Setting {
    /// Of those who claim none.
    pub policy: Policy,
    pub ceiling: Policy,
    pub bind: Bind,
    pub strict: bool,
    pub channels: ChannelRange,
    pub relays: Vec<IpAddr>,
    pub ports: RangeInclusive<u16>,
    /// Allocations of one user; 0 is no limit.
    pub quota: usize,
    /// Allocations of all; 0 is no limit.
    pub total: usize,
    /// Permissions of one allocation.
    pub permissions: usize,
    /// Channels of one allocation.
    pub channels_of_one: usize,
    /// Packets a second and at once of one allocation.
    pub pace: Option<(u64, u64)>,
    pub allocation_lifetime: u64,
    pub session_max: u64,
    /// Whether unvalidated sources get so little that they notice.
    pub tight: bool,
    pub workers: usize,
    /// So many of them, the last ones, own connections.
    pub stream_workers: usize,
    /// Bytes of packets that may wait for a connection.
    pub queue: usize,
    pub clients: usize,
    pub users: usize,
}

impl Setting {
    pub fn draw(dice: &mut Dice) -> Self {
        let first = 50_000 + dice.port(&(0..=1));
        let count = dice.pick(&[3, 8, 16, 24, 64]);
        let relays = dice.pick(&[1, 2, 2, 2, 3]);
        let policy = dice.pick(&[
            Policy::Relay,
            Policy::Relay,
            Policy::Relay,
            Policy::Networks,
            Policy::Networks,
            Policy::Any,
            Policy::Any,
            Policy::Call,
        ]);
        let wider = dice.pick(&[policy, Policy::Relay, Policy::Networks, Policy::Any]);
        Self {
            policy,
            ceiling: policy.max(wider),
            bind: dice.pick(&[Bind::Auto, Bind::Auto, Bind::Always]),
            strict: dice.percent(30),
            channels: dice.pick(&[ChannelRange::Rfc8656, ChannelRange::Rfc5766]),
            relays: RELAYS[..relays].iter().map(|ip| address(ip)).collect(),
            ports: first..=first + count - 1,
            quota: dice.pick(&[0, 1, 2, 3, 10]),
            total: dice.pick(&[0, 0, 0, 5, 8]),
            permissions: dice.pick(&[2, 4, 128, 128]),
            channels_of_one: dice.pick(&[1, 3, 128, 128]),
            pace: dice.pick(&[None, None, None, None, Some((1, 2)), Some((10, 5))]),
            allocation_lifetime: dice.pick(&[300, 600, 1_200, 3_600]),
            session_max: dice.pick(&[900, 7_200, 86_400]),
            tight: dice.percent(15),
            workers: dice.pick(&[3, 4]),
            stream_workers: dice.pick(&[0, 1, 1, 2]),
            queue: dice.pick(&[1_024, 4_096, 65_536]),
            clients: dice.pick(&[6, 8, 12]),
            users: dice.pick(&[3, 4, 5]),
        }
    }

    pub const fn udp_workers(&self) -> usize {
        self.workers - self.stream_workers
    }

    /// The worker that has the connections of a listener, as `dataplane/connected.rs` says.
    pub fn owner(&self, listener: ListenerId) -> Option<usize> {
        let place = usize::from(listener.place());
        (listener.transport() != Transport::Udp)
            .then(|| self.udp_workers() + place % self.stream_workers)
    }

    pub fn server_config(&self) -> ServerConfig {
        ServerConfig {
            realm: REALM.to_owned(),
            channels: self.channels,
            credentials: credentials(),
            nonce_key: NonceKey::new([9; 32]),
            policy: self.policy.peers(),
            ceiling: self.ceiling.peers(),
            node: None,
            max_ttl: Duration::from_secs(MAX_TTL),
            judge: PeerJudge::new(PeerRules {
                relay: RelayRange {
                    addresses: self.relays.clone(),
                    ports: self.ports.clone(),
                },
                own_sockets: vec![SocketAddr::new(address("0.0.0.0"), LISTENING_PORT)],
                own_senders: vec![SocketAddr::new(address("0.0.0.0"), LISTENING_PORT)],
                own_addresses: vec![address("10.0.0.5")],
                fleet: FLEET
                    .map(|(addr, seen_as, ports)| FleetNode {
                        addr: address(addr),
                        seen_as: seen_as.map(address),
                        ports,
                    })
                    .to_vec(),
                allow: Vec::new(),
                deny: vec![host("8.8.4.4")],
            }),
            bind: self.bind,
            allocation_lifetime: Duration::from_secs(self.allocation_lifetime),
            session_max: Duration::from_secs(self.session_max),
            strict: self.strict,
            limits: self.limits(),
            binding: BindingRules::default(),
            alternate: Alternate::default(),
            draining: false,
            tickets: Some(TicketKey::new(Zeroizing::new([6; 32]))),
            nat_discovery: NatDiscovery::default(),
            tcp_relay: false,
            media_quality: true,
            revocations: Revocations::default(),
            bans: Bans::default(),
        }
    }

    fn limits(&self) -> Limits {
        let some = |limit: usize| (limit > 0).then(|| u32::try_from(limit).unwrap());
        let packets = self
            .pace
            .map(|(per_second, burst)| Pace { per_second, burst });
        Limits {
            quotas: Quotas {
                user: some(self.quota),
                tenant: None,
                total: some(self.total),
            },
            permissions: self.permissions,
            channels: self.channels_of_one,
            rates: RateLimits {
                allocation: Flow {
                    packets,
                    bits: None,
                },
                ..RateLimits::default()
            },
            prefix_allocates: None,
            prefix_failures: self.tight.then_some(Rate {
                per_second: 1,
                burst: 2,
            }),
        }
    }

    pub const fn unvalidated(&self) -> Rate {
        if self.tight {
            Rate {
                per_second: 1,
                burst: 1,
            }
        } else {
            Rate {
                per_second: 1_000_000,
                burst: 1_000_000,
            }
        }
    }

    /// Whether allocations under this policy have their sockets from the beginning.
    pub const fn opens_at_allocate(&self, policy: Policy) -> bool {
        matches!(self.bind, Bind::Always) || policy.goes_outside()
    }

    /// What who claims that may do; nothing is claimed by a REST username.
    pub fn entitled(&self, claimed: Option<Claimed>) -> Entitled {
        let claimed = claimed.unwrap_or_default();
        let policy = match (claimed.policy, self.ceiling) {
            (None, _) => self.policy,
            (Some(Policy::Networks), Policy::Any) => Policy::Claimed,
            (Some(policy), ceiling) => policy.min(ceiling),
        };
        let longest = self.session_max;
        Entitled {
            policy,
            call: claimed.call,
            strict: claimed.strict || self.strict,
            session_max: claimed.session_max.map_or(longest, |max| max.min(longest)),
            masked: claimed.masked,
        }
    }

    /// design.md section 5, "Order of judgement"; without a port, as CreatePermission judges.
    pub fn class(&self, policy: Policy, ip: IpAddr, port: Option<u16>) -> Class {
        if port == Some(0) || ip == address("0.0.0.0") || ip == address("255.255.255.255") {
            return Class::Refused;
        }
        if self.relays.contains(&ip) {
            return match port {
                Some(port) if !self.ports.contains(&port) => Class::Refused,
                _ => Class::Own,
            };
        }
        if let Some((_, _, ports)) = FLEET.iter().find(|(addr, _, _)| address(addr) == ip) {
            return match port {
                // Who is of which call there is not known here.
                _ if policy == Policy::Call => Class::Refused,
                Some(port) if !ports.contains(&port) => Class::Refused,
                _ => Class::Fleet,
            };
        }
        let admitted: &[&str] = match policy {
            Policy::Relay | Policy::Call => &[],
            Policy::Claimed => &LISTED_PUBLIC,
            Policy::Networks => &LISTED,
            Policy::Any => &PUBLIC,
        };
        if admitted.iter().any(|known| address(known) == ip) {
            Class::Foreign
        } else {
            Class::Refused
        }
    }
}

/// What the servers know their users by.
/// How many calls there are.
pub const CALLS: usize = 2;

pub fn call_id(call: usize) -> String {
    format!("call {call}")
}

pub fn credentials() -> Credentials {
    let secrets = SecretsRing::new(vec![Secret::new("sim", SECRET)]);
    let keys = SealingKeys::new(&[Zeroizing::new([4; 32])]);
    Credentials::new(secrets, StaticUsers::default(), [5; 32]).with_sealing(keys, REALM)
}

/// The address by which clients know a node of the fleet.
pub fn named(source: SocketAddr) -> SocketAddr {
    FLEET
        .iter()
        .find(|(_, seen_as, ports)| {
            seen_as.map(address) == Some(source.ip()) && ports.contains(&source.port())
        })
        .map_or(source, |(addr, _, _)| {
            SocketAddr::new(address(addr), source.port())
        })
}

/// Sources that no client has, among them none of this server's live relayed addresses.
pub fn no_client(dice: &mut Dice) -> SocketAddr {
    dice.pick(&[
        SocketAddr::new(address("198.41.7.1"), 40_001),
        SocketAddr::new(address("172.20.0.7"), 60_003),
        SocketAddr::new(address("198.41.0.1"), LISTENING_PORT),
        SocketAddr::new(address("193.5.6.7"), 0),
        SocketAddr::new(address("255.255.255.255"), 4_000),
    ])
}

/// An address of the fleet, now and then with a port that is none of its relay ports.
pub fn fleet_peer(dice: &mut Dice) -> SocketAddr {
    let (addr, _, ports) = dice.pick(&FLEET);
    let port = if dice.percent(85) {
        dice.port(&ports)
    } else {
        22
    };
    SocketAddr::new(address(addr), port)
}

/// Where a packet of the fleet comes from.
pub fn fleet_source(dice: &mut Dice) -> SocketAddr {
    let (addr, seen_as, ports) = dice.pick(&FLEET);
    SocketAddr::new(address(seen_as.unwrap_or(addr)), dice.port(&ports))
}

pub fn foreign_peer(dice: &mut Dice) -> SocketAddr {
    let ip = if dice.percent(50) {
        dice.pick(&PUBLIC)
    } else {
        dice.pick(&LISTED)
    };
    SocketAddr::new(address(ip), dice.port(&(5_000..=5_003)))
}

pub fn refused_peer(dice: &mut Dice) -> SocketAddr {
    SocketAddr::new(address(dice.pick(&REFUSED)), 5_000)
}

pub fn address(ip: &str) -> IpAddr {
    ip.parse().unwrap()
}

fn host(ip: &str) -> IpNet {
    address(ip).into()
}

/// One configuration for all workers.
pub fn shared(setting: &Setting) -> Arc<ServerConfig> {
    Arc::new(setting.server_config())
}
