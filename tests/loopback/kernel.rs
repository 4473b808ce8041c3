//! What the kernel says of UDP sockets, `/proc/net/udp` and `/proc/net/udp6`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A UDP socket as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// All UDP sockets of this network namespace.
pub(crate) fn udp_sockets() -> Vec<Socket> {
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let lines: Vec<Socket> = text.lines().skip(1).map(socket).collect();
            lines
        })
        .collect()
}

/// Whether a socket is bound to exactly this address.
pub(crate) fn is_bound(local: SocketAddr) -> bool {
    udp_sockets().iter().any(|socket| socket.local == local)
}

fn socket(line: &str) -> Socket {
    let mut columns = line.split_whitespace().skip(1);
    let mut next = || address(columns.next().unwrap());
    Socket {
        local: next(),
        remote: next(),
    }
}

/// Words of 32 bits in this machine's byte order, then the port.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').unwrap();
    let bytes: Vec<u8> = (0..ip.len())
        .step_by(8)
        .flat_map(|at| {
            let word = u32::from_str_radix(&ip[at..at + 8], 16).unwrap();
            word.to_ne_bytes()
        })
        .collect();
    let ip: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).unwrap()).into(),
    };
    SocketAddr::new(ip, u16::from_str_radix(port, 16).unwrap())
}
