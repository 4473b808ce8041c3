use super::super::testing::{LOOPBACKS, OPTIONS, receive_one, refill, socket};
use super::super::{Poller, RecvBatch, send_to};
use super::*;

#[test]
fn listeners_share_an_address_and_a_relay_socket_does_not() {
    for ip in LOOPBACKS {
        let first = UdpSocket::listener(SocketAddr::new(ip, 0), &OPTIONS).unwrap();
        let addr = first.local_addr();
        let _second = UdpSocket::listener(addr, &OPTIONS).unwrap();
        let error = UdpSocket::relay(addr, &OPTIONS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}

#[test]
fn the_port_of_a_relay_socket_is_busy_for_everyone_until_it_is_closed() {
    for ip in LOOPBACKS {
        let relay = socket(ip);
        let addr = relay.local_addr();
        for again in [UdpSocket::relay, UdpSocket::listener] {
            let error = again(addr, &OPTIONS).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        drop(relay);
        UdpSocket::relay(addr, &OPTIONS).unwrap();
    }
}

#[test]
fn each_listener_of_a_shared_address_keeps_to_its_own_flows() {
    let addr = SocketAddr::new(LOOPBACKS[0], 0);
    let first = UdpSocket::listener(addr, &OPTIONS).unwrap();
    let second = UdpSocket::listener(first.local_addr(), &OPTIONS).unwrap();
    let client = socket(LOOPBACKS[0]);
    for _ in 0..10 {
        send_to(&client, b"one flow", first.local_addr(), Ecn::NotEct).unwrap();
    }
    let mut poller = Poller::new().unwrap();
    poller.add(&first, 1).unwrap();
    poller.add(&second, 2).unwrap();
    let ready: Vec<u64> = poller.wait(None).unwrap().collect();
    assert_eq!(ready.len(), 1);
    let listener = if ready[0] == 1 { &first } else { &second };
    for _ in 0..10 {
        assert_eq!(receive_one(listener).1, client.local_addr());
    }
}

#[test]
fn the_receive_buffer_granted_is_reported_in_the_unit_asked_in() {
    let options = SocketOptions {
        receive_buffer: 100_000,
        dscp: 0,
    };
    let relay = UdpSocket::relay(SocketAddr::new(LOOPBACKS[0], 0), &options).unwrap();
    assert_eq!(relay.receive_buffer().unwrap(), 100_000);
}

/// Where coturn 4.6.1 lost 9 % of a 2 Mbit/s video (its issue 1902): a key frame's burst waits whole
/// in a relay socket of the default size while its worker is busy elsewhere.
#[test]
fn a_video_burst_waits_whole_in_a_relay_socket_of_the_default_size() {
    const BURST: usize = 300;
    let [from, relay] = [(); 2].map(|()| socket(LOOPBACKS[0]));
    let granted = relay.receive_buffer().unwrap();
    if granted < OPTIONS.receive_buffer {
        // Only with CAP_NET_ADMIN may a socket have more than net.core.rmem_max.
        eprintln!("skipped: this process gets {granted} bytes of receive buffer");
        return;
    }
    for _ in 0..BURST {
        send_to(&from, &[7; 1_200], relay.local_addr(), Ecn::NotEct).unwrap();
    }
    let mut batch = RecvBatch::new(32, 65_535);
    let mut seen = 0;
    while seen < BURST {
        let count = refill(&mut batch, &relay);
        assert!(count > 0, "{seen} of {BURST} arrived");
        seen += count;
    }
}

#[test]
fn a_dscp_of_more_than_six_bits_is_refused() {
    let options = SocketOptions {
        dscp: 64,
        ..OPTIONS
    };
    let error = UdpSocket::relay(SocketAddr::new(LOOPBACKS[0], 0), &options).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn ecn_bits_go_there_and_back_whatever_the_dscp() {
    for bits in 0..=3 {
        assert_eq!(Ecn::from_bits(0xb8 | bits).bits(), bits);
    }
}

#[test]
fn debug_shows_no_address() {
    let text = format!("{:?}", socket(LOOPBACKS[0]));
    assert!(text.starts_with("UdpSocket"));
    assert!(!text.contains("127"));
}
