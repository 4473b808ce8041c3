use std::io::Read;

use socket2::{Domain, Protocol, Socket, Type};

use std::os::fd::AsRawFd;

use super::super::SocketOptions;
use super::super::testing::{
    Header, LOOPBACKS, OPTIONS, observe, observer, receive_one, socket, wait_readable,
};
use super::*;

const DSCP: u8 = 10;

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

/// T42
#[test]
fn an_icmp_error_left_on_the_socket_costs_no_single_datagram() {
    let [relay, to, gone] = [(); 3].map(|()| socket(LOOPBACKS[0]));
    let addr = gone.local_addr();
    drop(gone);
    // Only a connected socket is told of ICMP errors.
    relay.socket.connect(&addr.into()).unwrap();
    send_to(&relay, b"anyone?", addr, Ecn::NotEct).unwrap();
    wait_readable(&relay);
    let sent = send_to(&relay, b"two", to.local_addr(), Ecn::NotEct);
    assert_eq!(sent.unwrap(), 3);
    assert_eq!(receive_one(&to).0, b"two");
}

#[test]
fn a_datagram_in_parts_arrives_as_one() {
    let [from, to] = [(); 2].map(|()| socket(LOOPBACKS[1]));
    let parts: [&[u8]; 3] = [b"head", b"payload", b"\0"];
    send_parts(&from, parts, to.local_addr(), Ecn::Ect0).unwrap();
    assert_eq!(receive_one(&to).0, b"headpayload\0");
}

#[test]
fn df_is_set_only_when_asked() {
    let ip = LOOPBACKS[0];
    let [relay, to] = [socket(ip), socket(ip)];
    assert_eq!(mtu_discover(&relay), libc::IP_PMTUDISC_OMIT);
    send_to_dont_fragment(&relay, b"x", to.local_addr(), Ecn::NotEct).unwrap();
    assert_eq!(mtu_discover(&relay), libc::IP_PMTUDISC_OMIT);

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
