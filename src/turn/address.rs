//! The addresses of RFC 8656 §3 as types of their own, so that a client's cannot be taken for a
//! peer's, and so that an endpoint's address cannot be printed: [`ClientAddr`] and [`PeerAddr`]
//! have no `Display` and a `Debug` that says `hidden`. A [`RelayedAddr`] is this server's own and
//! may be shown.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A client's transport address as this server sees it (the server-reflexive transport address).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr(SocketAddr);

impl ClientAddr {
    /// Takes a datagram's source address.
    #[must_use]
    pub const fn new(addr: SocketAddr) -> Self {
        Self(addr)
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

/// Which listener a client uses. It stands for the server's transport address and the transport
/// in a [`FiveTuple`]; every worker has a socket of its own for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// RFC 8656 §3, 5-tuple: the client's transport address, and by way of the listener the server's
/// transport address and the transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The client's side.
    pub client: ClientAddr,
    /// The server's side and the transport.
    pub listener: ListenerId,
}

/// Which worker owns an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

#[cfg(test)]
mod tests {
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
}
