//! Send and Data indications, and what goes by a relay socket.

use taciturn::proto::{AttributeType, Class, Data, DontFragment, Method, XorPeerAddress};
use taciturn::turn::Fragmentation;
use taciturn::turn::stats::{Direction, DropReason, Path};

use crate::world::call::Call;
use crate::world::client::SUCCESS;
use crate::world::message::{Build, Received};
use crate::world::servers::{Outcome, Setup, at};

const PEER: &str = "1.1.1.1:5000";

/// A call under policy `any`, in which Alice permits the peer outside.
fn with_peer() -> Call {
    let mut call = Call::new(Setup::any());
    assert_eq!(call.alice.permit(&mut call.world, &[at(PEER)]), SUCCESS);
    call
}

#[test]
fn an_indication_leaves_by_the_relay_socket() {
    let mut call = with_peer();
    let outcome = call.alice.send_to(&mut call.world, at(PEER), b"out");
    assert_eq!(
        outcome,
        Outcome::Peer {
            from: call.a,
            to: at(PEER),
            fragmentation: Fragmentation::Allowed,
            payload: b"out".to_vec(),
        }
    );
    let received = call
        .world
        .receive_from_peer(call.a, PEER, b"in")
        .at(&call.alice);
    assert_eq!(received, Received::Data(at(PEER), b"in".to_vec()));
    assert_eq!(
        call.world.meters(call.a, Path::Indication, Direction::In),
        (1, 3)
    );
    assert_eq!(
        call.world.meters(call.a, Path::Indication, Direction::Out),
        (1, 2)
    );
}

#[test]
fn channel_data_leaves_by_the_relay_socket() {
    let mut call = with_peer();
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, at(PEER)), SUCCESS);
    let sent = call
        .alice
        .channel_data(&mut call.world, 0x4000, b"out")
        .outside();
    assert_eq!(sent, (call.a, at(PEER), b"out".to_vec()));
    let received = call
        .world
        .receive_from_peer(call.a, PEER, b"in")
        .at(&call.alice);
    assert_eq!(received, Received::Channel(0x4000, b"in".to_vec()));
    let other_port = call
        .world
        .receive_from_peer(call.a, "1.1.1.1:6000", b"in")
        .at(&call.alice);
    assert_eq!(
        other_port,
        Received::Data(at("1.1.1.1:6000"), b"in".to_vec())
    );
    for direction in [Direction::In, Direction::Out] {
        let packets = call.world.meters(call.a, Path::Relay, direction).0;
        assert_eq!(packets, 1);
        assert_eq!(call.world.traffic(Path::Relay, direction).0, 1);
        assert_eq!(call.world.traffic(Path::Hairpin, direction).0, 0);
    }
    assert_eq!(call.world.traffic(Path::Indication, Direction::Out), (1, 2));
}

#[test]
fn dont_fragment_reaches_the_socket() {
    let mut call = with_peer();
    let bytes = call
        .alice
        .send_indication(at(PEER), b"x")
        .with(&DontFragment)
        .bytes();
    let Outcome::Peer { fragmentation, .. } = call.world.send(&call.alice, &bytes) else {
        panic!("not sent");
    };
    assert_eq!(fragmentation, Fragmentation::Forbidden);
}

/// T47
#[test]
fn an_indication_with_something_missing_or_unknown_is_dropped() {
    let mut call = with_peer();
    let id = [7; 12];
    let build = || Build::new(Class::Indication, Method::SEND, id);
    let peer = XorPeerAddress(at(PEER));
    for bytes in [
        build(),
        build().with(&peer),
        build().with(&Data(b"x")),
        build()
            .raw(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 2])
            .with(&Data(b"x")),
        build()
            .with(&peer)
            .with(&Data(b"x"))
            .raw_number(0x7001, &[]),
    ] {
        let outcome = call.world.send(&call.alice, &bytes.bytes()).dropped();
        assert_eq!(outcome, Some(DropReason::BadIndication));
    }
    let optional = build()
        .with(&peer)
        .with(&Data(b"x"))
        .raw_number(0x8FFF, &[1]);
    call.world.send(&call.alice, &optional.bytes()).outside();
}

/// T17
#[test]
fn of_two_peers_or_data_the_first_counts() {
    let mut call = with_peer();
    let bytes = call
        .alice
        .send_indication(at(PEER), b"first")
        .with(&XorPeerAddress(at("8.8.8.8:53")))
        .with(&Data(b"second"))
        .bytes();
    let (_, to, payload) = call.world.send(&call.alice, &bytes).outside();
    assert_eq!((to, payload), (at(PEER), b"first".to_vec()));
}

/// T49
#[test]
fn a_wrong_fingerprint_drops_an_indication() {
    let mut call = with_peer();
    let good = call
        .alice
        .send_indication(at(PEER), b"x")
        .fingerprint()
        .bytes();
    call.world.send(&call.alice, &good).outside();
    let mut bad = good;
    *bad.last_mut().unwrap() ^= 1;
    let outcome = call.world.send(&call.alice, &bad).dropped();
    assert_eq!(outcome, Some(DropReason::Fingerprint));
}

/// T12: a permission covers an IP, the policy is asked for each packet's port.
#[test]
fn port_zero_of_a_permitted_peer_is_not_sent_to() {
    let mut call = with_peer();
    let outcome = call
        .alice
        .send_to(&mut call.world, at("1.1.1.1:0"), b"x")
        .dropped();
    assert_eq!(outcome, Some(DropReason::PolicyRefused));
}

/// T46
#[test]
fn what_outgrows_an_indication_is_dropped_on_its_way_in() {
    let mut call = with_peer();
    let largest = (65_507 - 20 - 12 - 4) & !3;
    call.world
        .receive_from_peer(call.a, PEER, &vec![1; largest])
        .at(&call.alice);
    let outcome = call
        .world
        .receive_from_peer(call.a, PEER, &vec![1; largest + 1]);
    assert_eq!(outcome.dropped(), Some(DropReason::TooLarge));
    call.alice.bind(&mut call.world, 0x4000, at(PEER));
    call.world
        .receive_from_peer(call.a, PEER, &vec![1; 65_503])
        .at(&call.alice);
    let outcome = call.world.receive_from_peer(call.a, PEER, &vec![1; 65_504]);
    assert_eq!(outcome.dropped(), Some(DropReason::TooLarge));
}

#[test]
fn data_of_an_allocation_that_is_gone_is_dropped() {
    let mut call = with_peer();
    let (id, worker) = {
        let house = call.world.house.borrow();
        let relayed = taciturn::turn::RelayedAddr::new(call.a);
        (house.sockets[&relayed], call.alice.worker)
    };
    call.alice.refresh(&mut call.world, Some(0));
    let outcome = call.world.receive_at_relay(worker, id, at(PEER), b"late");
    assert_eq!(outcome.dropped(), Some(DropReason::NoRelay));
}
