//! Judges peers: may an allocation exchange packets with this address?
//!
//! Owns the peer policies, the order in which rules are asked, and the reasons for a refusal.
//! It holds no permission, no channel and no call id: whether two allocations are of one call, and whether
//! a relay port lives, is asked of the landings after [`Verdict::OwnRelay`]. How a policy that was claimed
//! comes together with a configured one is in `narrow`.
//! What a permission judges is in RFC 8656 §9 and §10, what a channel judges in §12.

mod embedded;
mod fleet;
mod narrow;
pub mod registry;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use fleet::FleetMap;
pub use fleet::FleetNode;

/// With whom an allocation may exchange packets.
///
/// A policy that comes with a credential narrows the configured ceiling: a peer must pass both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerPolicy {
    /// Relayed addresses of this server or of the fleet, nobody else.
    #[default]
    Relay,
    /// Relayed addresses of this server alone, and of them those whose allocation carries the same call id; the
    /// landings know call ids. The fleet is shut, since who is of which call there is not known here.
    Call,
    /// These networks besides relays. Listing one opens it even where the registry would refuse, but neither this
    /// machine's own addresses nor loopback.
    Networks(Vec<IpNet>),
    /// Of those whom `Any` reaches the ones in these networks, besides relays: what is left of a list that was claimed
    /// where the operator listed nothing. It opens nothing that the registry would refuse.
    AnyOf(Vec<IpNet>),
    /// Classic TURN: everybody whom neither `deny` nor the registry refuses.
    Any,
}

impl PeerPolicy {
    /// Whether an allocation needs its relay socket at once; under the others a port is a table entry until
    /// a fleet address is permitted.
    #[must_use]
    pub const fn opens_at_allocate(&self) -> bool {
        match self {
            Self::Relay | Self::Call => false,
            Self::Networks(_) | Self::AnyOf(_) | Self::Any => true,
        }
    }

    fn reaches(&self, ip: IpAddr) -> bool {
        match self {
            Self::Relay | Self::Call => false,
            Self::Networks(networks) | Self::AnyOf(networks) => contains(networks, ip),
            Self::Any => true,
        }
    }

    /// Whether `ip` was named by the policy itself, so that the registry is not asked.
    fn lists(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Networks(networks) if contains(networks, ip))
    }
}

/// What is relayed here: the advertised relay IPs of this server and the ports drawn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRange {
    /// The relay IPs as clients see them, behind NAT the public ones.
    pub addresses: Vec<IpAddr>,
    /// The ports of relayed transport addresses.
    pub ports: RangeInclusive<u16>,
}

/// A relay IP behind 1:1 NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faces {
    /// What relay sockets are bound to.
    pub inner: IpAddr,
    /// What clients are told.
    pub outer: IpAddr,
}

/// Everything [`PeerJudge`] knows; local addresses change, so a judge is rebuilt when they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRules {
    /// This server's relays.
    pub relay: RelayRange,
    /// Listening, admin and API sockets; an unspecified IP stands for every own IP.
    pub own_sockets: Vec<SocketAddr>,
    /// Those of them that send datagrams, which could come back: the UDP and DTLS listeners.
    pub own_senders: Vec<SocketAddr>,
    /// The addresses of local interfaces.
    pub own_addresses: Vec<IpAddr>,
    /// The relays of other nodes. An entry with an own relay IP is ignored: a node's own list may contain itself.
    pub fleet: Vec<FleetNode>,
    /// Spared from the registry, and from being refused as a local interface address.
    pub allow: Vec<IpNet>,
    /// Refused under every policy, the fleet included, but never an own relay.
    pub deny: Vec<IpNet>,
}

/// What a judge says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// A relayed address of this server, whether or not it lives: ask the landings.
    OwnRelay,
    /// A relayed address of another node of the fleet.
    FleetRelay,
    /// Somebody else, whom the policy admits.
    Foreign,
    /// No packet goes there or comes from there; a request is answered with 403 (Forbidden).
    Refused(Refusal),
}

impl Verdict {
    /// Whether packets may be exchanged.
    #[must_use]
    pub const fn is_admitted(self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// Why a peer is refused. For metrics and for the operator; clients only ever see 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The policy admits relays only, or other networks.
    Policy,
    /// One of our listening, admin or API sockets.
    OwnSocket,
    /// A local interface address or loopback.
    OwnAddress,
    /// An own relay IP with a port that is no relay port.
    RelayPort,
    /// A fleet relay IP with a port outside that node's relay ports.
    FleetPort,
    /// On the operator's deny list.
    Denied,
    /// A relayed address of another node, where the policy admits those of one call alone.
    OtherNode,
    /// In a special-purpose range: [`registry::find`] tells which.
    Registry,
    /// Unspecified, multicast or broadcast.
    NotUnicast,
    /// An IPv6 address that hides an address of ours or of the fleet's.
    Disguised,
    /// Port 0.
    PortZero,
}

impl Refusal {
    /// Every reason, for declaring metrics.
    pub const ALL: [Self; 11] = [
        Self::Policy,
        Self::OwnSocket,
        Self::OwnAddress,
        Self::RelayPort,
        Self::FleetPort,
        Self::Denied,
        Self::OtherNode,
        Self::Registry,
        Self::NotUnicast,
        Self::Disguised,
        Self::PortZero,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::OwnSocket => "own_socket",
            Self::OwnAddress => "own_address",
            Self::RelayPort => "relay_port",
            Self::FleetPort => "fleet_port",
            Self::Denied => "denied",
            Self::OtherNode => "other_node",
            Self::Registry => "registry",
            Self::NotUnicast => "not_unicast",
            Self::Disguised => "disguised",
            Self::PortZero => "port_zero",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The rules, arranged for judging. Immutable: a reload makes a new one.
///
/// They are asked in this order, and the first that matches decides:
/// 1. what can be no peer at all (port 0, unspecified, multicast, broadcast) is refused, whatever is listed;
/// 2. an own relay IP with a relay port is an own relay, and nothing below concerns it;
/// 3. our listening, admin and API sockets are never reached;
/// 4. `deny` refuses;
/// 5. the fleet's relay IPs are open on their relay ports and shut on others, and under `call` on all;
/// 6. the policy: `relay` and `call` end here, networks go on with what they list;
/// 7. local interface addresses and loopback are refused unless `allow` opens them;
/// 8. the [`registry`] refuses what neither `allow` nor the policy's networks list;
/// 9. every IPv4 address hidden in an IPv6 one is judged too, and the stricter verdict stands.
#[derive(Clone, Debug)]
pub struct PeerJudge {
    relay: RelayRange,
    former: Vec<RangeInclusive<u16>>,
    inner: Vec<Faces>,
    sockets: Vec<SocketAddr>,
    senders: Vec<SocketAddr>,
    own: Vec<IpAddr>,
    fleet: FleetMap,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl PeerJudge {
    /// Arranges `rules`.
    ///
    /// IPv4 written as IPv4-mapped IPv6 is taken for the IPv4 it means, except in `allow`, where that opens nothing.
    #[must_use]
    pub fn new(rules: PeerRules) -> Self {
        let PeerRules {
            relay,
            own_sockets,
            own_senders,
            own_addresses,
            fleet,
            allow,
            deny,
        } = rules;
        let relay = RelayRange {
            addresses: relay.addresses.iter().map(IpAddr::to_canonical).collect(),
            ports: relay.ports,
        };
        let canonical = |sockets: Vec<SocketAddr>| -> Vec<SocketAddr> {
            let sockets = sockets.into_iter();
            sockets
                .map(|socket| SocketAddr::new(socket.ip().to_canonical(), socket.port()))
                .collect()
        };
        let sockets = canonical(own_sockets);
        let mut own: Vec<IpAddr> = own_addresses
            .iter()
            .map(IpAddr::to_canonical)
            .chain(relay.addresses.iter().copied())
            .chain(sockets.iter().map(SocketAddr::ip))
            .filter(|ip| !ip.is_unspecified())
            .collect();
        own.sort_unstable();
        own.dedup();
        Self {
            fleet: FleetMap::new(fleet, &relay.addresses),
            relay,
            former: Vec::new(),
            inner: Vec::new(),
            sockets,
            senders: canonical(own_senders),
            own,
            allow,
            deny: deny.into_iter().flat_map(embedded::both_forms).collect(),
        }
    }

    /// The same, behind 1:1 NAT: `faces` are the relay IPs whose sockets are bound to another one.
    ///
    /// Nobody reaches a relayed transport address by its inner face, whatever `allow` opens, since
    /// that would be the way through the kernel; what comes from there is known by the outer one.
    #[must_use]
    pub fn behind_nat(mut self, faces: impl IntoIterator<Item = Faces>) -> Self {
        self.inner = faces
            .into_iter()
            .filter(|face| face.inner != face.outer)
            .collect();
        self
    }

    /// The same, where these were relay ports too until others were configured: relayed transport
    /// addresses live on there.
    #[must_use]
    pub fn with_former_ports(mut self, ports: &[RangeInclusive<u16>]) -> Self {
        self.former = ports.to_vec();
        self
    }

    fn is_relay_port(&self, port: u16) -> bool {
        self.relay.ports.contains(&port) || self.former.iter().any(|ports| ports.contains(&port))
    }

    /// The relayed transport address as clients know it whose socket is bound to `source`, else
    /// `source` itself.
    #[must_use]
    pub fn outer(&self, source: SocketAddr) -> SocketAddr {
        match self.face(source) {
            Some(face) => SocketAddr::new(face.outer, source.port()),
            None => source,
        }
    }

    /// The listening address as clients know it that is bound to `address`.
    #[must_use]
    pub fn outer_listener(&self, address: SocketAddr) -> SocketAddr {
        let face = self.inner.iter().find(|face| face.inner == address.ip());
        let ip = face.map_or_else(|| address.ip(), |face| face.outer);
        SocketAddr::new(ip, address.port())
    }

    fn face(&self, address: SocketAddr) -> Option<&Faces> {
        let face = self.inner.iter().find(|face| face.inner == address.ip())?;
        self.is_relay_port(address.port()).then_some(face)
    }

    /// Judges a CreatePermission, which names an IP and leaves the port open.
    ///
    /// An own relay IP is an own relay under every policy, whichever ports live, so that the answer tells nobody.
    pub fn permission(&self, policy: &PeerPolicy, ip: IpAddr) -> Verdict {
        // RFC 8656 §9: a permission covers the peer's address on any port.
        if is_not_unicast(ip) {
            return Verdict::Refused(Refusal::NotUnicast);
        }
        if self.is_relay_ip(ip) {
            return Verdict::OwnRelay;
        }
        self.beyond(policy, ip, None)
    }

    /// Judges a ChannelBind, a Send indication and an inbound datagram, which have a port.
    ///
    /// For an inbound datagram pass its source through [`Self::named`] first.
    pub fn peer(&self, policy: &PeerPolicy, peer: SocketAddr) -> Verdict {
        let ip = peer.ip();
        if peer.port() == 0 {
            return Verdict::Refused(Refusal::PortZero);
        }
        if is_not_unicast(ip) {
            return Verdict::Refused(Refusal::NotUnicast);
        }
        if self.is_own_relay(peer) {
            return Verdict::OwnRelay;
        }
        if self.is_own_socket(peer) {
            return Verdict::Refused(Refusal::OwnSocket);
        }
        if self.face(peer).is_some() {
            return Verdict::Refused(Refusal::Disguised);
        }
        self.beyond(policy, ip, Some(peer.port()))
    }

    /// The address under which clients know the sender of an inbound datagram: a fleet relay's advertised address if
    /// its packets reach us from another, else `source` itself.
    #[must_use]
    pub fn named(&self, source: SocketAddr) -> SocketAddr {
        self.fleet.named(source)
    }

    /// Whether `source` is an own or a fleet relayed transport address. A client that has one is ignored: it would
    /// relay through relays, in a loop if it wants to.
    #[must_use]
    pub fn is_relay_source(&self, source: SocketAddr) -> bool {
        self.is_own_relay(source) || self.fleet.is_relay(self.fleet.named(source))
    }

    fn beyond(&self, policy: &PeerPolicy, ip: IpAddr, port: Option<u16>) -> Verdict {
        if self.is_denied(ip) {
            return Verdict::Refused(Refusal::Denied);
        }
        if self.fleet.contains(ip) {
            // Never as `relay` would have it: what the parties' call is there, only that node knows.
            if *policy == PeerPolicy::Call {
                return Verdict::Refused(Refusal::OtherNode);
            }
            // A port outside the range is a service of that machine, which we would reach with our address.
            return match port {
                Some(port) if !self.fleet.is_relay(SocketAddr::new(ip, port)) => {
                    Verdict::Refused(Refusal::FleetPort)
                }
                Some(_) | None => Verdict::FleetRelay,
            };
        }
        let refusal = self
            .own_refusal(policy, ip)
            .or_else(|| self.foreign_refusal(policy, ip))
            .or_else(|| self.hidden_refusal(policy, ip));
        refusal.map_or(Verdict::Foreign, Verdict::Refused)
    }

    /// Addresses of this machine: the policy must reach them and `allow` must open them.
    fn own_refusal(&self, policy: &PeerPolicy, ip: IpAddr) -> Option<Refusal> {
        let opened = policy.reaches(ip) && contains(&self.allow, ip);
        if opened || !self.is_own(ip) {
            None
        } else if self.is_relay_ip(ip) {
            Some(Refusal::RelayPort)
        } else if policy.reaches(ip) {
            Some(Refusal::OwnAddress)
        } else {
            Some(Refusal::Policy)
        }
    }

    fn foreign_refusal(&self, policy: &PeerPolicy, ip: IpAddr) -> Option<Refusal> {
        if !policy.reaches(ip) {
            Some(Refusal::Policy)
        } else if !self.is_spared(policy, ip) && registry::contains(ip) {
            Some(Refusal::Registry)
        } else {
            None
        }
    }

    /// A translator or tunnel on the way would deliver to the IPv4 address inside, so that one is judged as well.
    fn hidden_refusal(&self, policy: &PeerPolicy, ip: IpAddr) -> Option<Refusal> {
        embedded::hidden(ip).find_map(|hidden| {
            if is_not_unicast(hidden) {
                Some(Refusal::NotUnicast)
            } else if self.is_own(hidden) || self.fleet.contains(hidden) {
                Some(Refusal::Disguised)
            } else if !self.is_spared(policy, hidden) && registry::contains(hidden) {
                Some(Refusal::Registry)
            } else {
                None
            }
        })
    }

    fn is_spared(&self, policy: &PeerPolicy, ip: IpAddr) -> bool {
        policy.lists(ip) || contains(&self.allow, ip)
    }

    fn is_denied(&self, ip: IpAddr) -> bool {
        contains(&self.deny, ip) || embedded::hidden(ip).any(|hidden| contains(&self.deny, hidden))
    }

    fn is_relay_ip(&self, ip: IpAddr) -> bool {
        self.relay.addresses.contains(&ip)
    }

    fn is_own_relay(&self, address: SocketAddr) -> bool {
        self.is_relay_port(address.port()) && self.is_relay_ip(address.ip())
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.own.binary_search(&ip).is_ok()
    }

    /// Whether a datagram from `source` would be one of our own, and neither a client's nor a
    /// peer's.
    ///
    /// Of our listeners those alone that send datagrams: another program of this machine may well
    /// have the port over UDP that one of ours has over TCP.
    pub(crate) fn is_own_sender(&self, source: SocketAddr) -> bool {
        self.is_among(&self.senders, source)
    }

    fn is_own_socket(&self, peer: SocketAddr) -> bool {
        self.is_among(&self.sockets, peer)
    }

    fn is_among(&self, sockets: &[SocketAddr], address: SocketAddr) -> bool {
        let ip = address.ip();
        self.is_own(ip)
            && sockets.iter().any(|socket| {
                socket.port() == address.port()
                    && (socket.ip() == ip
                        || socket.ip().is_unspecified()
                        // Behind NAT a relay IP leads to whichever local address the port is mapped to, so there the port decides.
                        || self.is_relay_ip(ip) && socket.is_ipv4() == ip.is_ipv4())
            })
    }
}

/// Addresses that stand for no single host: never a peer, not even if allowed.
///
/// A subnet's directed broadcast can't be told from a host here; the kernel refuses it, as relay sockets lack
/// `SO_BROADCAST`.
fn is_not_unicast(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}
