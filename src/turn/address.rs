//! The addresses of RFC 8656 §3 as types of their own, so that a client's cannot be taken for a
//! peer's, and so that an endpoint's address cannot be printed: [`ClientAddr`] and [`PeerAddr`]
//! have no `Display` and a `Debug` that says `hidden`. A [`RelayedAddr`] is this server's own and
//! may be shown.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::turn::route::AllocationId;

/// A client's transport address as this server sees it (the server-reflexive transport address), or
/// as a load balancer in front of it says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr(SocketAddr, Via);

/// Which way leads to a client: straight, or through a load balancer whose address the data plane
/// keeps under this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Via(pub u32);

impl Via {
    /// Straight.
    pub const DIRECT: Self = Self(0);
}

impl ClientAddr {
    /// Takes a datagram's source address.
    #[must_use]
    pub const fn new(addr: SocketAddr) -> Self {
        Self(addr, Via::DIRECT)
    }

    /// Takes what a load balancer says is the source of a datagram that came through it.
    #[must_use]
    pub const fn behind(addr: SocketAddr, via: Via) -> Self {
        Self(addr, via)
    }

    /// The way to it.
    #[must_use]
    pub const fn via(self) -> Via {
        self.1
    }

    /// The address itself, for a send or for XOR-MAPPED-ADDRESS; never for a log or a label.
    #[must_use]
    pub const fn expose(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Debug for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAddr(hidden)")
    }
}

/// A peer's transport address, as a client named it or as it arrived at a relay socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerAddr(SocketAddr);

impl PeerAddr {
    /// Takes an address that a client named or a datagram came from.
    #[must_use]
    pub const fn new(addr: SocketAddr) -> Self {
        Self(addr)
    }

    /// The address itself, for a send or for XOR-PEER-ADDRESS; never for a log or a label.
    #[must_use]
    pub const fn expose(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Debug for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerAddr(hidden)")
    }
}

/// A relayed transport address of this server, as clients are told it (behind 1:1 NAT that is the
/// external address).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayedAddr(SocketAddr);

impl RelayedAddr {
    /// Takes an address of the relay range.
    #[must_use]
    pub const fn new(addr: SocketAddr) -> Self {
        Self(addr)
    }

    /// The transport address.
    #[must_use]
    pub const fn socket_addr(self) -> SocketAddr {
        self.0
    }

    /// Its IP address.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// Its port.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.0.port()
    }
}

impl fmt::Debug for RelayedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayedAddr({})", self.0)
    }
}

impl fmt::Display for RelayedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Between client and server (RFC 8656 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// A stream within TLS.
    Tls,
    /// Datagrams within DTLS.
    Dtls,
}

impl Transport {
    /// All of them, in the order of their bits in a [`ListenerId`].
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Dtls];

    /// The word that stands for it in logs, labels and configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }

    /// Whether messages follow each other without borders (RFC 8489 §6.2.2), in order and without
    /// loss.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }

    /// Whether a source has answered before its first message is read, by a handshake or a cookie,
    /// and so is where it says.
    #[must_use]
    pub const fn validates_its_source(self) -> bool {
        !matches!(self, Self::Udp)
    }
}

/// Which listener a client uses. It stands for the server's transport address and the transport
/// in a [`FiveTuple`]. All workers share a UDP listener, each with a socket of its own; a listener
/// of another transport belongs to one worker, as do the clients that it finds there.
///
/// Two bits say the transport, the others the place among the listeners; those of UDP count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

impl ListenerId {
    /// So many places there are for each transport.
    pub const PLACES: u16 = 1 << 14;

    /// The listener at `place`, less than [`PLACES`](Self::PLACES), of a transport.
    #[must_use]
    pub const fn new(transport: Transport, place: u16) -> Self {
        Self(((transport as u16) << 14) | (place % Self::PLACES))
    }

    /// How clients speak to it.
    #[must_use]
    pub const fn transport(self) -> Transport {
        Transport::ALL[(self.0 >> 14) as usize]
    }

    /// Its place among the listeners.
    #[must_use]
    pub const fn place(self) -> u16 {
        self.0 % Self::PLACES
    }
}

/// RFC 8656 §3, 5-tuple: the client's transport address, and by way of the listener the server's
/// transport address and the transport protocol. An IPv6 flow label is no part of it.
#[derive(Debug, Clone, Copy)]
pub struct FiveTuple {
    /// The client's side.
    pub client: ClientAddr,
    /// The server's side and the transport.
    pub listener: ListenerId,
}

/// A [`FiveTuple`] in 28 bytes, to be hashed, compared and kept where there are many.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TupleKey {
    /// An IPv4 address as an IPv4-mapped one.
    ip: [u32; 4],
    scope: u32,
    via: u32,
    port: u16,
    listener: u16,
}

/// The scope of an IPv4 address; no interface has this number.
const NO_SCOPE: u32 = u32::MAX;

impl FiveTuple {
    /// A 5-tuple that no client has, for an allocation whose client is away: no datagram comes from
    /// port 0, nor from the discard prefix (RFC 6666).
    pub(crate) fn nowhere(id: AllocationId, listener: ListenerId) -> Self {
        let ip = Ipv6Addr::from(0x0100 << 112 | u128::from(id.0));
        Self {
            client: ClientAddr::new(SocketAddr::new(ip.into(), 0)),
            listener,
        }
    }

    /// Whether it is one that no client has.
    pub(crate) const fn is_nowhere(&self) -> bool {
        self.client.0.port() == 0
    }

    /// The same in 28 bytes.
    pub(crate) const fn key(&self) -> TupleKey {
        let (ip, scope) = match self.client.0 {
            SocketAddr::V4(addr) => ([0, 0, 0xffff, addr.ip().to_bits()], NO_SCOPE),
            SocketAddr::V6(addr) => {
                let bits = addr.ip().to_bits();
                #[expect(clippy::cast_possible_truncation, reason = "cut into four words")]
                let ip = [
                    (bits >> 96) as u32,
                    (bits >> 64) as u32,
                    (bits >> 32) as u32,
                    bits as u32,
                ];
                (ip, addr.scope_id())
            }
        };
        TupleKey {
            ip,
            scope,
            via: self.client.1.0,
            port: self.client.0.port(),
            listener: self.listener.0,
        }
    }
}

impl PartialEq for FiveTuple {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for FiveTuple {}

impl Hash for FiveTuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Hash for TupleKey {
    /// Three words: the derived hash of a `SocketAddr` goes byte string by byte string, in four
    /// times the time.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d] = self.ip.map(u64::from);
        state.write_u64(a << 32 | b);
        state.write_u64(c << 32 | d);
        let ends = u64::from(self.listener) << 16 | u64::from(self.port);
        // Whoever has a scope comes from this link, and not through a load balancer.
        let scope = self.scope ^ self.via;
        state.write_u64(u64::from(scope) << 32 | ends);
    }
}

impl fmt::Debug for TupleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TupleKey(hidden)")
    }
}

/// Which worker owns an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV6};

    use super::*;

    /// T62 at its root: what a log macro would print of an endpoint is not its address.
    #[test]
    fn endpoints_are_hidden_from_debug() {
        let addr = SocketAddr::from(([198, 51, 100, 20], 4242));
        let tuple = FiveTuple {
            client: ClientAddr::new(addr),
            listener: ListenerId(0),
        };
        let shown = format!("{tuple:?} {:?}", PeerAddr::new(addr));
        assert!(!shown.contains("198") && !shown.contains("4242"), "{shown}");
        assert!(shown.contains("ClientAddr(hidden)") && shown.contains("PeerAddr(hidden)"));
        assert!(format!("{}", RelayedAddr::new(addr)).contains("198.51.100.20:4242"));
    }

    #[test]
    fn a_listener_says_its_transport_and_its_place() {
        for transport in Transport::ALL {
            for place in [0, 1, ListenerId::PLACES - 1] {
                let id = ListenerId::new(transport, place);
                assert_eq!((id.transport(), id.place()), (transport, place));
            }
        }
        assert_eq!(ListenerId::new(Transport::Udp, 7), ListenerId(7));
    }

    #[test]
    fn five_tuples_differ_by_address_port_scope_family_way_and_listener_but_not_by_flow() {
        let tuple = |addr: SocketAddr, listener| FiveTuple {
            client: ClientAddr::new(addr),
            listener: ListenerId(listener),
        };
        let v6 = |port, flow, scope| {
            SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(0xfe80_u128 << 112 | 1),
                port,
                flow,
                scope,
            ))
        };
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        let behind = FiveTuple {
            client: ClientAddr::behind(SocketAddr::from(([192, 0, 2, 1], 1)), Via(1)),
            listener: ListenerId(0),
        };
        let all = [
            behind,
            tuple(SocketAddr::from(([192, 0, 2, 1], 1)), 0),
            tuple(SocketAddr::from(([192, 0, 2, 2], 1)), 0),
            tuple(SocketAddr::from(([192, 0, 2, 1], 2)), 0),
            tuple(SocketAddr::from(([192, 0, 2, 1], 1)), 1),
            tuple(SocketAddr::from((mapped, 1)), 0),
            tuple(v6(1, 0, 2), 0),
            tuple(v6(1, 0, 3), 0),
            tuple(v6(2, 0, 2), 0),
        ];
        for (index, one) in all.iter().enumerate() {
            for (other_index, other) in all.iter().enumerate() {
                assert_eq!(one == other, index == other_index, "{index} {other_index}");
            }
        }
        assert_eq!(tuple(v6(1, 7, 2), 0), tuple(v6(1, 0, 2), 0));
    }
}
