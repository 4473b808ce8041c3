//! Limits, and what a client may make the server keep.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::harness::{Client, Shaken, World, address, plain_context};
use crate::dataplane::dtls::{Idle, Limits, Received};
use crate::turn::ClientAddr;

fn limited(limits: Limits) -> World {
    World::new(plain_context(), limits)
}

/// Gets a client as far as its cookie, and says what came of that.
fn begin(world: &mut World, client: &mut Client) -> Received {
    let mut received = Received::Dropped;
    for _ in 0..2 {
        assert_eq!(client.shake(), Shaken::Waiting);
        received = world.deliver(client.addr, &client.sent().concat());
        for datagram in world.sent_to(client.addr) {
            client.receive(&datagram);
        }
    }
    received
}

fn v6(host: u16, network: u16) -> ClientAddr {
    let ip = IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]);
    ClientAddr::new(SocketAddr::new(ip, 1))
}

#[test]
fn the_oldest_handshake_gives_way_when_there_are_too_many() {
    let mut world = limited(Limits {
        half_open: 3,
        ..Limits::default()
    });
    let mut done = world.connect(address(1, 9));
    let mut clients = [1, 2, 3, 4].map(|port| Client::new(address(1, port)));
    for client in &mut clients {
        assert_eq!(begin(&mut world, client), Received::Handshake);
        world.pass(Duration::from_millis(10), Idle::Stay);
    }
    assert_eq!((world.dtls.len(), world.dtls.half_open()), (4, 3));
    assert_eq!(world.dtls.counts().evicted, 1);
    let [first, others @ ..] = &mut clients;
    for client in others {
        assert_eq!(world.shake(client), Shaken::Done);
    }
    assert_ne!(world.shake(first), Shaken::Done);
    assert!(world.passes(&mut done));
    assert!(world.closed.is_empty());
}

#[test]
fn one_network_cannot_take_all_places() {
    let limits = Limits {
        half_open_per_network: 2,
        ..Limits::default()
    };
    for (near, far) in [
        ([address(1, 1), address(2, 1), address(255, 1)], v6(1, 1)),
        ([v6(1, 1), v6(2, 1), v6(3, 1)], v6(1, 2)),
    ] {
        let mut world = limited(limits);
        let mut clients = near.map(Client::new);
        let received = clients.each_mut().map(|it| begin(&mut world, it));
        assert_eq!(
            received,
            [Received::Handshake, Received::Handshake, Received::Refused]
        );
        assert_eq!(world.dtls.counts().refused, 1);
        let mut other = Client::new(far);
        assert_eq!(begin(&mut world, &mut other), Received::Handshake);
        // A handshake that is finished, or given up, makes room.
        assert_eq!(world.shake(&mut clients[0]), Shaken::Done);
        let mut late = Client::new(near[2]);
        assert_eq!(begin(&mut world, &mut late), Received::Handshake);
        world.pass(limits.handshake, Idle::Stay);
        assert_eq!(world.dtls.half_open(), 0);
        let mut later = Client::new(near[1]);
        assert_eq!(begin(&mut world, &mut later), Received::Handshake);
    }
}

#[test]
fn sessions_that_are_finished_give_way_to_none() {
    let mut world = limited(Limits {
        sessions: 3,
        ..Limits::default()
    });
    let mut one = world.connect(address(1, 1));
    let mut two = world.connect(address(1, 2));
    let mut three = Client::new(address(1, 3));
    assert_eq!(begin(&mut world, &mut three), Received::Handshake);
    let mut four = Client::new(address(1, 4));
    assert_eq!(begin(&mut world, &mut four), Received::Handshake);
    assert_eq!(world.dtls.counts().evicted, 1);
    assert_eq!(world.shake(&mut four), Shaken::Done);
    let mut five = Client::new(address(1, 5));
    assert_eq!(begin(&mut world, &mut five), Received::Refused);
    for client in [&mut one, &mut two, &mut four] {
        assert!(world.passes(client));
    }
    // Who begins anew takes the place it has.
    let mut again = Client::new(one.addr);
    assert_eq!(begin(&mut world, &mut again), Received::Handshake);
    assert_eq!(world.shake(&mut again), Shaken::Done);
    assert_eq!(world.dtls.len(), 3);
}

#[test]
fn a_client_in_its_handshake_is_heard_for_so_many_datagrams() {
    let mut world = World::plain();
    let mut client = Client::new(address(1, 1));
    begin(&mut world, &mut client);
    let mut encrypted = [0; 60];
    encrypted[..5].copy_from_slice(&[22, 0xfe, 0xfd, 0, 1]);
    encrypted[12] = 47;
    let mut heard = 0;
    for n in 0..200 {
        encrypted[10] = n;
        let received = world.deliver(client.addr, &encrypted);
        heard += usize::from(received != Received::Dropped);
    }
    assert_eq!(heard, 6, "records of the next epoch are kept");

    let long = [
        22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 13, 16, 0, 16, 1, 0, 2, 0, 0, 0, 0, 0, 1, 0,
    ];
    let far = [
        22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 13, 16, 0, 0, 9, 0, 9, 0, 0, 0, 0, 0, 1, 0,
    ];
    for datagram in [&long[..], &far] {
        assert_eq!(world.deliver(client.addr, datagram), Received::Dropped);
    }
    // None of this hinders a client that goes on: its own Finished is one of those above when it
    // comes in order.
    let mut other = Client::new(address(1, 2));
    begin(&mut world, &mut other);
    assert_eq!(world.shake(&mut other), Shaken::Done);
}

#[test]
fn many_deadlines_at_once_are_met_in_bounded_pieces() {
    let mut world = limited(Limits {
        half_open_per_network: 2_048,
        ..Limits::default()
    });
    for port in 1..=150 {
        begin(&mut world, &mut Client::new(address(1, port)));
    }
    let later = world.now.plus(Duration::from_secs(11));
    let mut ends = Vec::new();
    while !world.dtls.is_empty() {
        let before = world.dtls.len();
        assert!(world.dtls.poll_timeout().unwrap() <= later);
        let mut out = |_, _: &[u8]| ();
        world
            .dtls
            .handle_timeout(later, &mut |_| Idle::Stay, &mut out);
        ends.push(before - world.dtls.len());
    }
    assert_eq!(ends, [64, 64, 22]);
}

#[test]
fn neither_a_session_nor_a_refusal_shows_an_address() {
    let mut world = World::plain();
    let client = world.connect(address(77, 4242));
    let shown = format!("{:?} {:?}", world.dtls, client.addr);
    assert!(!shown.contains("77") && !shown.contains("4242"), "{shown}");
}
