//! What a client has to prove before anything is kept of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::harness::{Client, Shaken, World, address};
use crate::dataplane::dtls::{Idle, Received};
use crate::turn::ClientAddr;

/// The first hello of a client, as OpenSSL writes it.
fn first_hello(client: &mut Client) -> Vec<u8> {
    assert_eq!(client.shake(), Shaken::Waiting);
    client.sent().concat()
}

/// The hello in which a client echoes the cookie that the server gave it.
fn second_hello(world: &mut World, client: &mut Client) -> Vec<u8> {
    let hello = first_hello(client);
    assert_eq!(world.deliver(client.addr, &hello), Received::Challenged);
    for datagram in world.sent_to(client.addr) {
        client.receive(&datagram);
    }
    first_hello(client)
}

/// T37
#[test]
fn nothing_is_kept_of_a_client_that_echoed_no_cookie() {
    let mut world = World::plain();
    let hello = first_hello(&mut Client::new(address(1, 1)));
    let mut asked = 0;
    for port in 1..=10_000 {
        let client = address(1, port);
        assert_eq!(world.deliver(client, &hello), Received::Challenged);
        asked += hello.len();
    }
    assert!(world.dtls.is_empty());
    assert_eq!(world.dtls.poll_timeout(), None);
    assert_eq!(world.dtls.counts().challenged, 10_000);
    let answered: usize = world.sent.iter().map(|(_, datagram)| datagram.len()).sum();
    assert!(answered < asked, "{answered} for {asked}");
}

/// T37: whoever forges a source gets less sent there than it sent itself, even with the shortest
/// hello there can be.
#[test]
fn no_answer_to_an_unproved_source_is_longer_than_its_question() {
    for version in [0xfeff_u16, 0xfefd] {
        let mut hello = vec![0; 13 + 12 + 2 + 32 + 1 + 1];
        hello[0] = 22;
        hello[1..3].copy_from_slice(&[0xfe, 0xff]);
        hello[12] = 12 + 2 + 32 + 1 + 1;
        hello[13] = 1;
        hello[16] = 2 + 32 + 1 + 1;
        hello[24] = 2 + 32 + 1 + 1;
        hello[25..27].copy_from_slice(&version.to_be_bytes());
        let mut world = World::plain();
        let received = world.deliver(address(1, 1), &hello);
        assert!(matches!(received, Received::Challenged | Received::TooOld));
        let answer = world.sent_to(address(1, 1)).concat();
        assert!(!answer.is_empty() && answer.len() < hello.len());
    }
}

/// T37
#[test]
fn a_cookie_is_good_for_the_address_and_the_hello_it_was_made_for_only() {
    let mut world = World::plain();
    let mut client = Client::new(address(1, 1));
    let hello = second_hello(&mut world, &mut client);
    let ip = |ip: [u16; 8]| ClientAddr::new(SocketAddr::new(IpAddr::from(ip), 1));
    for other in [
        address(2, 1),
        address(1, 2),
        ip([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    ] {
        assert_eq!(world.deliver(other, &hello), Received::Challenged);
    }
    // Each byte of random value, session and cookie counts.
    let cookie_end = 13 + 12 + 2 + 32 + 1 + 1 + 20;
    for at in 13 + 12 + 2..cookie_end {
        let mut forged = hello.clone();
        forged[at] ^= 1;
        let received = world.deliver(client.addr, &forged);
        assert!(
            matches!(received, Received::Challenged | Received::Dropped),
            "byte {at}: {received:?}"
        );
    }
    assert!(world.dtls.is_empty());
    assert_eq!(world.deliver(client.addr, &hello), Received::Handshake);
    assert_eq!((world.dtls.len(), world.dtls.half_open()), (1, 1));
}

#[test]
fn a_cookie_outlives_its_minute_by_one() {
    let mut world = World::plain();
    let mut client = Client::new(address(1, 1));
    let hello = second_hello(&mut world, &mut client);
    world.pass(Duration::from_secs(119), Idle::Stay);
    let mut late = World::plain();
    late.pass(Duration::from_secs(120), Idle::Stay);
    assert_eq!(late.deliver(client.addr, &hello), Received::Challenged);
    assert_eq!(world.deliver(client.addr, &hello), Received::Handshake);
}

#[test]
fn a_client_that_speaks_only_an_older_version_is_told_so() {
    let mut world = World::plain();
    let mut client = Client::old(address(1, 1));
    let hello = first_hello(&mut client);
    assert_eq!(world.deliver(client.addr, &hello), Received::TooOld);
    assert!(world.dtls.is_empty());
    for datagram in world.sent_to(client.addr) {
        client.receive(&datagram);
    }
    let Shaken::Failed(why) = client.shake() else {
        panic!("the client goes on");
    };
    assert!(why.contains("alert protocol version"), "{why}");
}

#[test]
fn what_is_no_hello_and_of_nobody_is_dropped_in_silence() {
    let mut world = World::plain();
    let hello = first_hello(&mut Client::new(address(1, 1)));
    let mut datagrams = vec![
        Vec::new(),
        b"\0\x01\0\0\x21\x12\xa4\x42nor is this one".to_vec(),
        vec![0xff; 1_500],
    ];
    // Cut short, of another type, of another major version, of another epoch, not its beginning.
    datagrams.extend((0..hello.len()).map(|len| hello[..len].to_vec()));
    for (at, value) in [(0, 23), (1, 3), (4, 1), (13, 2), (18, 2), (21, 1), (25, 3)] {
        let mut other = hello.clone();
        other[at] = value;
        datagrams.push(other);
    }
    for datagram in &datagrams {
        assert_eq!(world.deliver(address(1, 1), datagram), Received::Dropped);
    }
    assert!(world.sent.is_empty() && world.dtls.is_empty());
    assert_eq!(world.dtls.counts().dropped, datagrams.len() as u64);
}

/// RFC 6347 §4.2.8.
#[test]
fn a_hello_without_a_cookie_from_a_known_address_ends_nothing() {
    let mut world = World::plain();
    let mut client = world.connect(address(1, 1));
    let hello = first_hello(&mut Client::new(client.addr));
    assert_eq!(world.deliver(client.addr, &hello), Received::Challenged);
    let hello = first_hello(&mut Client::old(client.addr));
    assert_eq!(world.deliver(client.addr, &hello), Received::TooOld);
    world.sent.clear();
    assert!(world.passes(&mut client));
    assert!(world.closed.is_empty());
}

/// RFC 6347 §4.2.8.
#[test]
fn a_client_that_begins_anew_replaces_its_session_once_its_cookie_is_back() {
    let mut world = World::plain();
    let mut before = world.connect(address(1, 1));
    let mut after = Client::new(before.addr);
    let hello = second_hello(&mut world, &mut after);
    assert!(world.passes(&mut before) && world.closed.is_empty());

    assert_eq!(world.deliver(after.addr, &hello), Received::Handshake);
    assert_eq!(world.closed, [after.addr]);
    assert_eq!((world.dtls.len(), world.dtls.half_open()), (1, 1));
    for datagram in world.sent_to(after.addr) {
        after.receive(&datagram);
    }
    assert_eq!(world.shake(&mut after), Shaken::Done);
    assert!(world.passes(&mut after));
    assert!(!world.passes(&mut before));

    // The hello comes once more, late.
    assert_eq!(world.deliver(after.addr, &hello), Received::Dropped);
    assert!(world.passes(&mut after));
    assert_eq!(world.closed, [after.addr]);
    assert_eq!(world.dtls.counts().replaced, 1);
}
