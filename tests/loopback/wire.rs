//! IP headers as they go over loopback, which takes root.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

use std::io::Read;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use taciturn::proto::AddressFamily;

use super::PATIENCE;

/// Protocol numbers of Ethernet, for IPv4 and IPv6.
const ETHERTYPES: [u16; 2] = [0x0800, 0x86dd];
const UDP: u8 = 17;
/// IPPROTO_RAW: the IP header is the sender's.
const RAW: i32 = 255;
/// After how long a packet that was not seen is sent again: the kernel's queue may have been full.
const RESEND: Duration = Duration::from_millis(500);

/// What of an IP header could tell packets of one sender from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// TTL or hop limit.
    pub(crate) hops: u8,
    /// Type of service or traffic class: DSCP and ECN.
    pub(crate) traffic_class: u8,
    /// IPv6 only, else 0.
    pub(crate) flow_label: u32,
    /// IPv4 only, else false.
    pub(crate) dont_fragment: bool,
}

/// A header and, on IPv4, the identification (IP-ID) in it, which differs from packet to packet.
struct Seen {
    header: Header,
    id: u16,
    ports: [u16; 2],
}

/// A view of all packets of one family.
pub(crate) struct Wire {
    socket: Socket,
    family: AddressFamily,
}

impl Wire {
    pub(crate) fn open(family: AddressFamily) -> Self {
        let ethertype = ETHERTYPES[usize::from(family == AddressFamily::V6)];
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))
            .expect("to see packets takes root: run it as root (see .ci/run)");
        Self { socket, family }
    }

    /// Sends until a UDP packet from `source` to `destination` is seen; its header.
    #[track_caller]
    pub(crate) fn see(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        send: impl FnMut(),
    ) -> Header {
        self.see_with_id(source, destination, send).0
    }

    /// As [`Wire::see`], with the IP-ID of an IPv4 packet.
    #[track_caller]
    pub(crate) fn see_with_id(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        mut send: impl FnMut(),
    ) -> (Header, u16) {
        self.drain();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            send();
            let again = Instant::now() + RESEND;
            while let Some(packet) = self.read(again) {
                if let Some(seen) = self.parse(&packet)
                    && seen.ports == [source.port(), destination.port()]
                {
                    return (seen.header, seen.id);
                }
            }
        }
        panic!("no packet of that flow was seen");
    }

    fn drain(&mut self) {
        while self.read(Instant::now()).is_some() {}
    }

    fn read(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left)).expect("a time");
        let mut buf = vec![0; 65_536];
        let len = self.socket.read(&mut buf).ok()?;
        buf.truncate(len);
        Some(buf)
    }

    fn parse(&self, packet: &[u8]) -> Option<Seen> {
        let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
        let byte = |at: usize| packet.get(at).copied();
        let (header, id, protocol, udp) = match self.family {
            AddressFamily::V4 => {
                let header = Header {
                    hops: byte(8)?,
                    traffic_class: byte(1)?,
                    flow_label: 0,
                    dont_fragment: byte(6)? & 0x40 != 0,
                };
                let udp = usize::from(byte(0)? & 0x0f) * 4;
                (header, word(4)?, byte(9)?, udp)
            }
            AddressFamily::V6 => {
                let flow_info = u32::from(word(0)?) << 16 | u32::from(word(2)?);
                let header = Header {
                    hops: byte(7)?,
                    traffic_class: (word(0)? >> 4).to_be_bytes()[1],
                    flow_label: flow_info & 0x000f_ffff,
                    dont_fragment: false,
                };
                (header, 0, byte(6)?, 40)
            }
        };
        let ports = [word(udp)?, word(udp + 2)?];
        (protocol == UDP).then_some(Seen { header, id, ports })
    }
}

/// Sends UDP over IPv4 under headers of its own making.
pub(crate) struct Forge(Socket);

impl Forge {
    pub(crate) fn open() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))
            .expect("to write headers takes root: run it as root (see .ci/run)");
        Self(socket)
    }

    /// A datagram with this IP-ID; 0 stays 0, since DF is set with it, as clients' kernels do.
    pub(crate) fn send(&self, id: u16, from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) {
        let dont_fragment = if id == 0 { 0x40 } else { 0 };
        let length = u16::try_from(8 + data.len()).expect("a short datagram");
        let [id_high, id_low] = id.to_be_bytes();
        // The kernel fills in the total length and the checksum.
        let mut packet = vec![
            0x45,
            0,
            0,
            0,
            id_high,
            id_low,
            dont_fragment,
            0,
            17,
            UDP,
            0,
            0,
        ];
        packet.extend(from.ip().octets());
        packet.extend(to.ip().octets());
        for word in [from.port(), to.port(), length, 0] {
            packet.extend(word.to_be_bytes());
        }
        packet.extend(data);
        let sent = self.0.send_to(&packet, &to.into()).expect("loopback");
        assert_eq!(sent, packet.len());
    }
}
