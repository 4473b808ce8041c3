use std::net::IpAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::send::Refused;
use super::super::testing::{
    Header, LOOPBACKS, OPTIONS, observe, observer, receive_one, refill, socket, wait_readable,
};
use super::super::udp::set_option;
use super::super::{HEADROOM, SocketOptions};
use super::*;

/// Expedited forwarding, as a caller's browser may ask for.
const DSCP_OF_SENDER: u32 = 46;
const TTL_OF_SENDER: u32 = 33;
const DSCP: u8 = 10;

/// A batch whose slot 0 holds a datagram of `len` bytes.
fn filled(ip: IpAddr, len: usize) -> RecvBatch {
    let [from, to] = [socket(ip), socket(ip)];
    send_to(&from, &vec![7; len], to.local_addr(), Ecn::NotEct).unwrap();
    let mut batch = RecvBatch::new(1, 65_535);
    wait_readable(&to);
    assert_eq!(refill(&mut batch, &to), 1);
    batch
}

fn bytes(range: Range<usize>) -> Packet<'static> {
    Packet {
        range,
        ..Packet::default()
    }
}

fn to_socket<'s>(socket: &'s UdpSocket) -> impl Fn(()) -> Option<&'s UdpSocket> {
    move |()| Some(socket)
}

#[test]
fn a_datagram_leaves_its_slot_with_a_header_written_in_front() {
    for ip in LOOPBACKS {
        let [relay, to] = [socket(ip), socket(ip)];
        let mut from = filled(ip, 9);
        let (slot, datagram) = from.slot(0);
        let framed = datagram.start - 4..datagram.end + 3;
        slot[framed.clone()][..4].copy_from_slice(b"\x40\x00\x00\x09");

        let mut batch = SendBatch::new(8);
        batch.push(&from, &bytes(framed), (), to.local_addr(), Ecn::NotEct);
        let sent = batch.flush(&from, to_socket(&relay));

        assert_eq!((sent.packets, sent.bytes, sent.refused.total()), (1, 16, 0));
        let expected = b"\x40\x00\x00\x09\x07\x07\x07\x07\x07\x07\x07\x07\x07\0\0\0";
        assert_eq!(receive_one(&to), (expected.to_vec(), relay.local_addr()));
        assert!(batch.is_empty());
        assert_eq!(batch.flush(&from, to_socket(&relay)), Sent::default());
    }
}

#[test]
fn a_refused_datagram_costs_itself_alone() {
    let ip = LOOPBACKS[0];
    let [relay, to] = [socket(ip), socket(ip)];
    let from = filled(ip, 100);
    let mut batch = SendBatch::new(16);
    let mut push = |len, to| {
        batch.push(&from, &bytes(HEADROOM..HEADROOM + len), (), to, Ecn::Ect0);
    };
    push(65_508, to.local_addr());
    push(1, to.local_addr());
    push(1, "255.255.255.255:9".parse().unwrap());
    push(2, to.local_addr());
    push(1, "[::1]:9".parse().unwrap());
    push(1, "127.0.0.1:0".parse().unwrap());
    push(0, to.local_addr());
    push(70_000, to.local_addr());
    push(4, to.local_addr());

    let sent = batch.flush(&from, to_socket(&relay));

    let refused = Refused {
        too_large: 1,
        denied: 1,
        other: 2,
        batch_full: 1,
        ..Refused::default()
    };
    assert_eq!(sent.refused, refused);
    assert_eq!((sent.packets, sent.bytes), (4, 7));
    for len in [1, 2, 0, 4] {
        assert_eq!(receive_one(&to).0.len(), len);
    }
}

#[test]
fn a_full_batch_drops_and_counts() {
    let ip = LOOPBACKS[0];
    let [relay, to] = [socket(ip), socket(ip)];
    let from = filled(ip, 1);
    let mut batch = SendBatch::new(2);
    for (len, expected) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
        let packet = bytes(HEADROOM..HEADROOM + len);
        batch.push(&from, &packet, (), to.local_addr(), Ecn::NotEct);
        assert_eq!(batch.len(), expected);
    }
    assert!(batch.is_full());
    let sent = batch.flush(&from, to_socket(&relay));
    assert_eq!((sent.packets, sent.refused.batch_full), (2, 2));
    assert_eq!(batch.flush(&from, to_socket(&relay)), Sent::default());
}

/// T42
#[test]
fn an_icmp_error_left_on_the_socket_costs_no_datagram_of_a_batch() {
    let ip = LOOPBACKS[0];
    let [relay, to, gone] = [socket(ip), socket(ip), socket(ip)];
    let from = filled(ip, 1);
    let addr = gone.local_addr();
    drop(gone);
    // Only a connected socket is told of ICMP errors.
    relay.socket.connect(&addr.into()).unwrap();
    send_to(&relay, b"anyone?", addr, Ecn::NotEct).unwrap();
    wait_readable(&relay);
    let mut batch = SendBatch::new(1);
    let packet = bytes(HEADROOM..HEADROOM + 1);
    batch.push(&from, &packet, (), to.local_addr(), Ecn::NotEct);
    let sent = batch.flush(&from, to_socket(&relay));
    assert_eq!((sent.packets, sent.refused.total()), (1, 0));
    assert_eq!(receive_one(&to).0, [7]);
}

/// A socket whose packets have every header field unlike ours.
fn conspicuous(ip: IpAddr, ecn: Ecn) -> Socket {
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(ip, 0)),
        Type::DGRAM,
        Some(Protocol::UDP),
    )
    .unwrap();
    let class = DSCP_OF_SENDER << 2 | u32::from(ecn.bits());
    if ip.is_ipv4() {
        socket.set_ttl_v4(TTL_OF_SENDER).unwrap();
        socket.set_tos_v4(class).unwrap();
    } else {
        socket.set_unicast_hops_v6(TTL_OF_SENDER).unwrap();
        socket.set_tclass_v6(class).unwrap();
        let level = libc::IPPROTO_IPV6;
        set_option(&socket, level, libc::IPV6_AUTOFLOWLABEL, 1).unwrap();
    }
    socket
}

/// T67
#[test]
fn only_ecn_of_a_received_header_shows_in_the_one_sent() {
    for ip in LOOPBACKS {
        let options = SocketOptions {
            dscp: DSCP,
            ..OPTIONS
        };
        let relay = UdpSocket::relay(SocketAddr::new(ip, 0), &options).unwrap();
        let observer = observer(ip);
        for ecn in [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce] {
            let sender = conspicuous(ip, ecn);
            // The observer would see the sender's own fields.
            let to = observer.local_addr().into();
            sender.send_to(b"direct", &to).unwrap();
            let (direct, _) = observe(&observer);
            assert_eq!(direct.hop_limit, TTL_OF_SENDER.cast_signed());
            assert_eq!(direct.traffic_class >> 2, DSCP_OF_SENDER.cast_signed());
            assert_eq!(direct.flow_label == 0, ip.is_ipv4());

            sender
                .send_to(b"relayed", &relay.local_addr().into())
                .unwrap();
            let mut batch = RecvBatch::new(1, 100);
            wait_readable(&relay);
            assert_eq!(refill(&mut batch, &relay), 1);
            let received = batch.datagram(0);
            assert_eq!(received.ecn, ecn);
            let mut sends = SendBatch::new(1);
            let packet = bytes(HEADROOM..HEADROOM + received.len);
            sends.push(&batch, &packet, (), observer.local_addr(), received.ecn);
            assert_eq!(sends.flush(&batch, to_socket(&relay)).packets, 1);

            let expected = Header {
                hop_limit: 64,
                traffic_class: i32::from(DSCP << 2 | ecn.bits()),
                flow_label: 0,
            };
            assert_eq!(observe(&observer), (expected, b"relayed".to_vec()));
        }
    }
}

/// Receives what came on `socket`, datagrams that the kernel merged taken apart.
fn receive_all(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let mut batch = RecvBatch::new(64, 65_535);
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        wait_readable(socket);
        for index in 0..refill(&mut batch, socket) {
            let received = batch.datagram(index);
            let (slot, range) = batch.slot(index);
            if range.is_empty() {
                datagrams.push(Vec::new());
            }
            datagrams.extend(
                slot[range]
                    .chunks(received.segment.max(1))
                    .map(<[u8]>::to_vec),
            );
        }
    }
    datagrams
}

/// Datagrams of several lengths for two destinations, interleaved; what each gets is in order.
#[test]
fn runs_keep_the_order_within_a_destination_and_the_border_between_datagrams() {
    for ip in LOOPBACKS {
        let [relay, one, two] = [socket(ip), socket(ip), socket(ip)];
        let mut from = filled(ip, 3_000);
        let (slot, _) = from.slot(0);
        for (byte, place) in (0_u8..250).cycle().zip(slot.iter_mut()) {
            *place = byte;
        }
        let lengths = [
            100, 100, 40, 100, 0, 100, 100, 101, 101, 1_452, 1_452, 7, 1_453, 1_453,
        ];
        let mut batch = SendBatch::new(64);
        let mut expected = [Vec::new(), Vec::new()];
        for (n, len) in lengths.into_iter().enumerate() {
            for (to, expected) in [&one, &two].into_iter().zip(&mut expected) {
                let range = HEADROOM + n..HEADROOM + n + len;
                expected.push(from.bytes(0, range.clone()).unwrap().to_vec());
                batch.push(&from, &bytes(range), (), to.local_addr(), Ecn::NotEct);
            }
        }
        let sent = batch.flush(&from, to_socket(&relay));
        assert_eq!(sent.packets, 2 * 14);
        // 100 100 40, 100 100, 101 101, 1452 1452 7; nothing joins an empty or a long datagram.
        assert_eq!(sent.runs, 2 * 4);
        for (to, expected) in [one, two].iter().zip(expected) {
            assert_eq!(receive_all(to, expected.len()), expected, "{ip}");
        }
    }
}

#[test]
fn a_run_is_gathered_from_heads_payloads_and_padding() {
    for ip in LOOPBACKS {
        let [relay, to] = [socket(ip), socket(ip)];
        let from = filled(ip, 9);
        let mut batch = SendBatch::new(8);
        for head in [b"one:", b"two:", b"tri:"] {
            let packet = Packet {
                head,
                slot: 0,
                range: HEADROOM..HEADROOM + 5,
                padding: 3,
            };
            batch.push(&from, &packet, (), to.local_addr(), Ecn::NotEct);
        }
        let sent = batch.flush(&from, to_socket(&relay));
        assert_eq!((sent.packets, sent.runs, sent.bytes), (3, 1, 36));
        let body = b"\x07\x07\x07\x07\x07\0\0\0".as_slice();
        let expected = [b"one:", b"two:", b"tri:"].map(|head| [head.as_slice(), body].concat());
        assert_eq!(receive_all(&to, 3), expected);
    }
}

#[test]
fn a_run_has_at_most_64_datagrams_and_one_packet_s_bytes() {
    let ip = LOOPBACKS[0];
    let [relay, to] = [socket(ip), socket(ip)];
    let from = filled(ip, 1_400);
    for (len, runs) in [(10, 2), (1_400, 2)] {
        let mut batch = SendBatch::new(64);
        for _ in 0..80 {
            let packet = bytes(HEADROOM..HEADROOM + len);
            batch.push(&from, &packet, (), to.local_addr(), Ecn::NotEct);
        }
        let sent = batch.flush(&from, to_socket(&relay));
        assert_eq!((sent.packets, sent.runs), (80, runs));
        assert_eq!(receive_all(&to, 80).len(), 80);
    }
}

/// Datagrams with another ECN mark or by another socket are no part of a run.
#[test]
fn a_run_ends_where_ecn_or_the_socket_changes() {
    let ip = LOOPBACKS[0];
    let [first, second, to] = [socket(ip), socket(ip), socket(ip)];
    let from = filled(ip, 10);
    let mut batch = SendBatch::new(64);
    let marks = [Ecn::NotEct, Ecn::NotEct, Ecn::Ce, Ecn::Ce, Ecn::NotEct];
    for via in [1, 2] {
        for ecn in marks {
            let packet = bytes(HEADROOM..HEADROOM + 10);
            batch.push(&from, &packet, via, to.local_addr(), ecn);
        }
    }
    // A socket that is gone costs its own datagrams.
    batch.push(
        &from,
        &bytes(HEADROOM..HEADROOM + 10),
        3,
        to.local_addr(),
        Ecn::Ce,
    );
    let sent = batch.flush(&from, |via| match via {
        1 => Some(&first),
        2 => Some(&second),
        _ => None,
    });
    assert_eq!((sent.packets, sent.runs, sent.refused.other), (10, 4, 1));
    let mut batch = RecvBatch::new(64, 65_535);
    let mut seen = Vec::new();
    while seen.len() < 10 {
        wait_readable(&to);
        for index in 0..refill(&mut batch, &to) {
            let received = batch.datagram(index);
            seen.extend(vec![received.ecn; received.len.div_ceil(received.segment)]);
        }
    }
    assert_eq!(seen, [marks, marks].concat());
}

/// A kernel that will not cut a run refuses it as a whole, and its datagrams
/// leave all the same.
#[test]
fn a_refused_run_leaves_datagram_by_datagram_and_costs_other_destinations_nothing() {
    let ip = LOOPBACKS[0];
    let [relay, to] = [socket(ip), socket(ip)];
    // The kernel refuses to cut for a socket that sends without checksums (EINVAL).
    set_option(&relay.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let from = filled(ip, 100);
    let mut batch = SendBatch::new(64);
    for _ in 0..2 {
        for len in [50, 50, 20] {
            let packet = bytes(HEADROOM..HEADROOM + len);
            batch.push(&from, &packet, (), to.local_addr(), Ecn::Ect0);
        }
        let sent = batch.flush(&from, to_socket(&relay));
        assert_eq!((sent.packets, sent.runs, sent.bytes), (3, 0, 120));
        assert_eq!(sent.refused.total(), 0);
        let lengths: Vec<_> = receive_all(&to, 3).iter().map(Vec::len).collect();
        assert_eq!(lengths, [50, 50, 20]);
    }
    assert_eq!(batch.pause, 0);
}
