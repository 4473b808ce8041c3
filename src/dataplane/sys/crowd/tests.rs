//! What a crowd's socket must do: speak for each address, and keep runs apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::*;

const BUFFER: usize = 1 << 20;

fn crowd(ip: IpAddr) -> CrowdSocket {
    CrowdSocket::open(SocketAddr::new(ip, 0), BUFFER).unwrap()
}

fn write(outbox: &mut Outbox, bytes: &[u8]) -> usize {
    outbox.vacant().unwrap()[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}

/// Every datagram that comes within a moment, until there are `count`.
fn received(socket: &CrowdSocket, count: usize) -> Vec<Vec<u8>> {
    let mut inbox = Inbox::new(4);
    let mut datagrams = Vec::new();
    let began = Instant::now();
    while datagrams.len() < count && began.elapsed() < Duration::from_secs(10) {
        for index in 0..inbox.receive(socket).unwrap() {
            datagrams.extend(inbox.datagrams(index).map(<[u8]>::to_vec));
        }
    }
    datagrams
}

#[test]
fn one_socket_speaks_and_hears_for_many_addresses() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let crowd = crowd(Ipv4Addr::UNSPECIFIED.into());
    let mut outbox = Outbox::new(8, 100);
    let sources = [[127, 64, 0, 1], [127, 65, 1, 1], [127, 127, 255, 254]];
    for source in sources {
        let length = write(&mut outbox, &source);
        let to = server.local_addr().unwrap();
        outbox.push(length, Some(source.into()), Some(to), None);
    }
    assert_eq!(outbox.flush(&crowd).sent, 3);
    for source in sources {
        let mut bytes = [0; 100];
        let (length, from) = server.recv_from(&mut bytes).unwrap();
        assert_eq!(bytes[..length], source);
        let client = SocketAddr::new(source.into(), crowd.local_addr().port());
        assert_eq!(from, client);
        server.send_to(&source, from).unwrap();
    }
    assert_eq!(received(&crowd, 3), sources.map(Vec::from));
}

#[test]
fn an_address_that_is_not_local_is_refused_and_the_others_leave() {
    let receiver = crowd(Ipv4Addr::LOCALHOST.into());
    let sender = crowd(Ipv4Addr::UNSPECIFIED.into());
    let mut outbox = Outbox::new(8, 100);
    for source in [[127, 0, 0, 9], [192, 0, 2, 1], [127, 0, 0, 10]] {
        let length = write(&mut outbox, &source);
        let to = receiver.local_addr();
        outbox.push(length, Some(source.into()), Some(to), None);
    }
    let posted = outbox.flush(&sender);
    assert_eq!((posted.sent, posted.refused), (2, 1));
    assert!(posted.error.is_some());
    let expected = [vec![127, 0, 0, 9], vec![127, 0, 0, 10]];
    assert_eq!(received(&receiver, 2), expected);
}

#[test]
fn a_run_leaves_as_one_and_arrives_as_its_segments() {
    for ip in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let receiver = crowd(ip);
        let sender = crowd(ip);
        sender.connect(receiver.local_addr()).unwrap();
        let mut outbox = Outbox::new(2, 1000);
        let bytes: Vec<u8> = (0..250).collect();
        let length = write(&mut outbox, &bytes);
        outbox.push(length, None, None, Some(100));
        assert_eq!(outbox.flush(&sender).sent, 3);
        let expected = [&bytes[..100], &bytes[100..200], &bytes[200..]];
        assert_eq!(received(&receiver, 3), expected);
        // A run of one segment is no run, which the kernel would refuse.
        let length = write(&mut outbox, &bytes[..50]);
        outbox.push(length, None, None, Some(100));
        assert_eq!(outbox.flush(&sender).sent, 1);
        assert_eq!(received(&receiver, 1), [&bytes[..50]]);
    }
}

#[test]
fn slots_keep_what_they_hold_and_a_full_outbox_takes_no_more() {
    let receiver = crowd(Ipv4Addr::LOCALHOST.into());
    let mut outbox = Outbox::new(1, 10);
    let length = write(&mut outbox, b"held");
    for _ in 0..2 {
        outbox.push(length, None, Some(receiver.local_addr()), None);
        assert!(outbox.is_full() && outbox.vacant().is_none());
        outbox.push(length, None, Some(receiver.local_addr()), None);
        assert_eq!(outbox.flush(&receiver).sent, 1);
        assert!(outbox.is_empty());
    }
    assert_eq!(received(&receiver, 2), [b"held", b"held"]);
}

#[test]
fn nothing_shows_an_address() {
    let crowd = crowd(Ipv4Addr::LOCALHOST.into());
    let shown = format!("{crowd:?} {:?} {:?}", Outbox::new(1, 10), Inbox::new(1));
    assert!(!shown.contains("127"), "{shown}");
}
