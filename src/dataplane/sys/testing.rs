//! What the tests of this module share: sockets on loopback, and a patient receive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::abi::control_messages;
use super::udp::set_option;
use super::{Poller, RecvBatch, SocketOptions, UdpSocket};

pub(super) const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

pub(super) const OPTIONS: SocketOptions = SocketOptions {
    receive_buffer: 1 << 20,
    dscp: 0,
};

/// A relay socket on `ip`, on any port.
pub(super) fn socket(ip: IpAddr) -> UdpSocket {
    UdpSocket::relay(SocketAddr::new(ip, 0), &OPTIONS).unwrap()
}

pub(super) fn wait_readable(socket: &UdpSocket) {
    let mut poller = Poller::new().unwrap();
    poller.add(socket, 0).unwrap();
    let ready = poller.wait(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(ready.len(), 1, "nothing came");
}

/// Receives what is waiting into a batch that is emptied before; says how many datagrams.
pub(super) fn refill(batch: &mut RecvBatch, socket: &UdpSocket) -> usize {
    batch.clear();
    batch.receive(socket, usize::MAX).unwrap().len()
}

/// Receives one datagram, and returns its bytes and source.
pub(super) fn receive_one(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut batch = RecvBatch::new(1, 65_535);
    wait_readable(socket);
    assert_eq!(refill(&mut batch, socket), 1);
    let source = batch.datagram(0).source;
    let (slot, datagram) = batch.slot(0);
    (slot[datagram].to_vec(), source)
}

/// Header fields of a packet as it arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) hop_limit: i32,
    pub(super) traffic_class: i32,
    pub(super) flow_label: u32,
}

/// A socket that sees the header fields of what arrives.
pub(super) fn observer(ip: IpAddr) -> UdpSocket {
    let observer = socket(ip);
    let (level, names) = if ip.is_ipv4() {
        (libc::IPPROTO_IP, vec![libc::IP_RECVTTL])
    } else {
        let names = vec![libc::IPV6_RECVHOPLIMIT, libc::IPV6_FLOWINFO];
        (libc::IPPROTO_IPV6, names)
    };
    for name in names {
        set_option(&observer.socket, level, name, 1).unwrap();
    }
    observer
}

/// Receives one datagram on an [`observer`], and returns its header and payload.
pub(super) fn observe(observer: &UdpSocket) -> (Header, Vec<u8>) {
    let mut batch = RecvBatch::new(1, 2_000);
    wait_readable(observer);
    assert_eq!(refill(&mut batch, observer), 1);
    let mut header = Header {
        hop_limit: -1,
        traffic_class: -1,
        flow_label: 0,
    };
    for message in control_messages(batch.control(0)) {
        match (message.level, message.kind) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                header.hop_limit = message.int().unwrap();
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => header.traffic_class = message.data[0].into(),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                header.traffic_class = message.int().unwrap();
            }
            (libc::IPPROTO_IPV6, libc::IPV6_FLOWINFO) => {
                let flow_info = u32::from_be_bytes(message.data[..4].try_into().unwrap());
                header.flow_label = flow_info & 0x000f_ffff;
            }
            _ => {}
        }
    }
    let (slot, datagram) = batch.slot(0);
    (header, slot[datagram].to_vec())
}
