//! PROXY protocol headers, versions 1 and 2, by which a load balancer tells for whom it speaks
//! (haproxy.org, "The PROXY protocol").
//!
//! It parses what stands in front of a stream or of a datagram, and says whose headers are
//! believed. It reads nothing, and keeps nothing. Whose headers are believed must send one (a stream
//! without it is to be closed, a datagram dropped); from anybody else the same bytes are a message
//! like any other.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};

use crate::turn::ClientAddr;

#[cfg(test)]
mod tests;

/// What a header of version 2 begins with.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Its signature, version and command, family, and length.
const V2_FIXED: usize = 16;
/// What a header of version 1 begins with.
const V1: &[u8] = b"PROXY ";
/// Section 2.1: the longest header of version 1 with its CRLF.
const V1_MOST: usize = 107;

/// The longest header that is taken. Addresses take 52 bytes; the rest is for what load balancers
/// add about themselves, which is skipped.
pub const MAX_HEADER: usize = 2_048;

/// What stands in front of a stream or in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header. Of a stream more is to come, at most [`MAX_HEADER`] bytes in all.
    NeedMore,
    /// A header.
    Header {
        /// How long it is.
        len: usize,
        /// For whom the sender speaks; `None` when for itself, as in a health check.
        client: Option<ClientAddr>,
    },
    /// No header.
    Absent,
    /// The beginning of a header, and no header.
    Invalid,
}

/// Whether headers from this source are believed, and must be there.
#[must_use]
pub fn trusts(trusted: &[IpNet], source: IpAddr) -> bool {
    let source = source.to_canonical();
    trusted.iter().any(|net| net.contains(&source))
}

/// A header of either version in front of a stream.
#[must_use]
pub fn parse_stream(bytes: &[u8]) -> Parsed {
    let v2 = parse_v2(bytes, Protocol::Stream);
    if v2 != Parsed::Absent {
        return v2;
    }
    parse_v1(bytes)
}

/// A header of version 2 in front of a datagram's payload; there is no other version for datagrams.
#[must_use]
pub fn parse_datagram(datagram: &[u8]) -> Parsed {
    match parse_v2(datagram, Protocol::Datagram) {
        // A datagram that is cut short stays so.
        Parsed::NeedMore if datagram.len() < V2.len() => Parsed::Absent,
        Parsed::NeedMore => Parsed::Invalid,
        parsed @ (Parsed::Header { .. } | Parsed::Absent | Parsed::Invalid) => parsed,
    }
}

fn parse_v2(bytes: &[u8], protocol: Protocol) -> Parsed {
    match begins(bytes, V2) {
        Begins::No => return Parsed::Absent,
        Begins::Perhaps => return Parsed::NeedMore,
        Begins::Yes => {}
    }
    let Some((fixed, _)) = bytes.split_at_checked(V2_FIXED) else {
        return Parsed::NeedMore;
    };
    let [.., command, _, high, low] = *fixed else {
        return Parsed::Invalid;
    };
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_HEADER {
        return Parsed::Invalid;
    }
    let Some(header) = bytes.get(..len) else {
        return Parsed::NeedMore;
    };
    // Section 2.2: LOCAL stands for the connection itself, whatever family and addresses follow,
    // which the library would judge.
    if command == 0x20 {
        return Parsed::Header { len, client: None };
    }
    of_library(header, len, protocol)
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    match begins(bytes, V1) {
        Begins::No => return Parsed::Absent,
        Begins::Perhaps => return Parsed::NeedMore,
        Begins::Yes => {}
    }
    // The library looks for the end beyond the longest header, too.
    let most = bytes.get(..V1_MOST).unwrap_or(bytes);
    let Some(end) = most.windows(2).position(|pair| pair == b"\r\n") else {
        return if most.len() < V1_MOST {
            Parsed::NeedMore
        } else {
            Parsed::Invalid
        };
    };
    let len = end + 2;
    match most.get(..len) {
        Some(header) => of_library(header, len, Protocol::Stream),
        None => Parsed::Invalid,
    }
}

/// What the library makes of a header of this length, which is all there.
fn of_library(header: &[u8], len: usize, protocol: Protocol) -> Parsed {
    let parsed = ProxyHeader::parse(header, ParseConfig::default());
    let Ok((parsed, consumed)) = parsed else {
        return Parsed::Invalid;
    };
    if consumed != len {
        return Parsed::Invalid;
    }
    match parsed.proxied_address() {
        None => Parsed::Header { len, client: None },
        Some(address) if address.protocol == protocol => Parsed::Header {
            len,
            client: Some(client(address.source)),
        },
        Some(_) => Parsed::Invalid,
    }
}

/// An IPv4 address in IPv6 clothes is what a load balancer writes whose own side is IPv6.
fn client(source: SocketAddr) -> ClientAddr {
    ClientAddr::new(SocketAddr::new(source.ip().to_canonical(), source.port()))
}

enum Begins {
    Yes,
    /// As far as there is anything.
    Perhaps,
    No,
}

fn begins(bytes: &[u8], with: &[u8]) -> Begins {
    if bytes.starts_with(with) {
        Begins::Yes
    } else if with.starts_with(bytes) {
        Begins::Perhaps
    } else {
        Begins::No
    }
}
