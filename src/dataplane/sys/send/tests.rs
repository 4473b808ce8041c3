use std::io::Read;
use std::net::IpAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::testing::{
    Header, LOOPBACKS, OPTIONS, observe, observer, receive_one, socket, wait_readable,
};
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
    assert_eq!(batch.receive(&to).unwrap(), 1);
    batch
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
        batch.push(0, framed, to.local_addr(), Ecn::NotEct);
        let sent = batch.flush(&from, &relay);

        assert_eq!((sent.packets, sent.bytes, sent.refused.total()), (1, 16, 0));
        let expected = b"\x40\x00\x00\x09\x07\x07\x07\x07\x07\x07\x07\x07\x07\0\0\0";
        assert_eq!(receive_one(&to), (expected.to_vec(), relay.local_addr()));
        assert!(batch.is_empty());
        assert_eq!(batch.flush(&from, &relay), Sent::default());
    }
}

#[test]
fn a_refused_datagram_costs_itself_alone() {
    let ip = LOOPBACKS[0];
    let [relay, to] = [socket(ip), socket(ip)];
    let from = filled(ip, 100);
    let mut batch = SendBatch::new(16);
    let mut push = |len, to| batch.push(0, HEADROOM..HEADROOM + len, to, Ecn::Ect0);
    push(65_508, to.local_addr());
    push(1, to.local_addr());
    push(1, "255.255.255.255:9".parse().unwrap());
    push(2, to.local_addr());
    push(1, "[::1]:9".parse().unwrap());
    push(1, "127.0.0.1:0".parse().unwrap());
    push(0, to.local_addr());
    push(70_000, to.local_addr());
    push(4, to.local_addr());

    let sent = batch.flush(&from, &relay);

    let refused = Refused {
        too_large: 1,
        denied: 1,
        other: 3,
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
    for expected in [1, 2, 2, 2] {
        batch.push(0, HEADROOM..HEADROOM + 1, to.local_addr(), Ecn::NotEct);
        assert_eq!(batch.len(), expected);
    }
    assert!(batch.is_full());
    let sent = batch.flush(&from, &relay);
    assert_eq!((sent.packets, sent.refused.batch_full), (2, 2));
    assert_eq!(batch.flush(&from, &relay), Sent::default());
}

/// T42
#[test]
fn an_icmp_error_left_on_the_socket_costs_no_datagram() {
    let ip = LOOPBACKS[0];
    let [relay, to, gone] = [socket(ip), socket(ip), socket(ip)];
    let from = filled(ip, 1);
    let addr = gone.local_addr();
    drop(gone);
    // Only a connected socket is told of ICMP errors.
    relay.socket.connect(&addr.into()).unwrap();
    let leave_error = || {
        send_to(&relay, b"anyone?", addr, Ecn::NotEct).unwrap();
        wait_readable(&relay);
    };

    leave_error();
    let mut batch = SendBatch::new(1);
    batch.push(0, HEADROOM..HEADROOM + 1, to.local_addr(), Ecn::NotEct);
    let sent = batch.flush(&from, &relay);
    assert_eq!((sent.packets, sent.refused.total()), (1, 0));
    assert_eq!(receive_one(&to).0, [7]);

    leave_error();
    assert_eq!(
        send_to(&relay, b"two", to.local_addr(), Ecn::NotEct).unwrap(),
        3
    );
    assert_eq!(receive_one(&to).0, b"two");
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
            assert_eq!(batch.receive(&relay).unwrap(), 1);
            let received = batch.datagram(0);
            assert_eq!(received.ecn, ecn);
            let mut sends = SendBatch::new(1);
            let range = HEADROOM..HEADROOM + received.len;
            sends.push(0, range, observer.local_addr(), received.ecn);
            assert_eq!(sends.flush(&batch, &relay).packets, 1);

            let expected = Header {
                hop_limit: 64,
                traffic_class: i32::from(DSCP << 2 | ecn.bits()),
                flow_label: 0,
            };
            assert_eq!(observe(&observer), (expected, b"relayed".to_vec()));
        }
    }
}

/// T67
#[test]
fn single_sends_have_the_same_header_as_batched_ones() {
    for ip in LOOPBACKS {
        let options = SocketOptions {
            dscp: DSCP,
            ..OPTIONS
        };
        let relay = UdpSocket::listener(SocketAddr::new(ip, 0), &options).unwrap();
        let observer = observer(ip);
        for send in [send_to, send_to_dont_fragment] {
            for ecn in [Ecn::NotEct, Ecn::Ce] {
                send(&relay, b"x", observer.local_addr(), ecn).unwrap();
                let expected = Header {
                    hop_limit: 64,
                    traffic_class: i32::from(DSCP << 2 | ecn.bits()),
                    flow_label: 0,
                };
                assert_eq!(observe(&observer), (expected, b"x".to_vec()));
            }
        }
    }
}

#[test]
fn df_is_set_only_when_asked() {
    let ip = LOOPBACKS[0];
    let [relay, to] = [socket(ip), socket(ip)];
    assert_eq!(mtu_discover(&relay), libc::IP_PMTUDISC_DONT);
    send_to_dont_fragment(&relay, b"x", to.local_addr(), Ecn::NotEct).unwrap();
    assert_eq!(mtu_discover(&relay), libc::IP_PMTUDISC_DONT);

    // A copy of every UDP packet with its header, which needs a capability.
    let Ok(capture) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) else {
        return;
    };
    let df = |send: fn(&UdpSocket, &[u8], SocketAddr, Ecn) -> io::Result<usize>| {
        send(&relay, b"x", to.local_addr(), Ecn::NotEct).unwrap();
        let port = to.local_addr().port().to_be_bytes();
        let mut packet = [0; 28];
        loop {
            (&capture).read_exact(&mut packet).unwrap();
            if packet[22..24] == port {
                return packet[6] & 0x40 != 0;
            }
        }
    };
    assert!(!df(send_to));
    assert!(df(send_to_dont_fragment));
    assert!(!df(send_to));
}

#[test]
fn a_datagram_the_link_cannot_carry_whole_is_fragmented_unless_asked_otherwise() {
    // Loopback carries 65,536 bytes, headers included.
    let ip = LOOPBACKS[1];
    let [relay, to] = [socket(ip), socket(ip)];
    let bytes = vec![7; 65_500];
    let error = send_to_dont_fragment(&relay, &bytes, to.local_addr(), Ecn::NotEct).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(
        send_to(&relay, &bytes, to.local_addr(), Ecn::NotEct).unwrap(),
        65_500
    );
    assert_eq!(receive_one(&to).0.len(), 65_500);
}

fn mtu_discover(socket: &UdpSocket) -> libc::c_int {
    let mut value = -1;
    let mut length = 4;
    // SAFETY: the kernel writes at most `length` bytes to `value`, and `length` itself.
    let returned = unsafe {
        libc::getsockopt(
            socket.socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    assert_eq!(returned, 0);
    value
}
