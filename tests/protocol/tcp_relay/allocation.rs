//! Allocate for TCP (RFC 6062 §5.1), and what a TCP allocation is not.

use taciturn::proto::{
    AdditionalAddressFamily, AddressFamily, AttributeType, ConnectionId, DontFragment, EvenPort,
    Method, MobilityTicket, RequestedTransport, ReservationToken, Reserve,
};
use taciturn::turn::policy::FleetNode;
use taciturn::turn::stats::DropReason;
use taciturn::turn::{RelayedAddr, Transport};

use super::{PEER, allocate_with, alone, any, over, party, relay};
use crate::world::call::{ALICE, BOB};
use crate::world::client::SUCCESS;
use crate::world::servers::{Setup, at, ip};

/// T10: off by default.
#[test]
fn nothing_of_it_is_spoken_until_it_is_switched_on() {
    let mut world = Setup::any().world();
    let mut alice = over(Transport::Tcp, world.client("alice", ALICE));
    let answer = allocate_with(&mut world, &mut alice, |request| request);
    assert_eq!(answer.code(), 442);
    let connect = alice.build(Method::CONNECT);
    let bind = alice.build(Method::CONNECTION_BIND).with(&ConnectionId(1));
    for request in [connect, bind] {
        let bytes = alice.sign(request);
        let outcome = world.send(&alice, &bytes);
        assert_eq!(outcome.dropped(), Some(DropReason::UnknownMethod));
    }
}

#[test]
fn only_a_client_on_a_stream_gets_a_tcp_allocation() {
    for (transport, code) in [
        (Transport::Udp, 400),
        (Transport::Dtls, 400),
        (Transport::Tcp, SUCCESS),
        (Transport::Tls, SUCCESS),
    ] {
        let mut world = any().world();
        let mut alice = over(transport, world.client("alice", ALICE));
        let answer = allocate_with(&mut world, &mut alice, |request| request);
        assert_eq!(answer.code(), code, "{transport:?}");
    }
}

#[test]
fn a_client_on_a_stream_still_gets_a_udp_allocation() {
    let mut world = any().world();
    let mut alice = over(Transport::Tcp, world.client("alice", ALICE));
    let relayed = alice.allocate(&mut world);
    assert!(world.has_socket(relayed));
    assert!(world.house.borrow().listening.is_empty());
}

#[test]
fn a_protocol_that_is_neither_is_unsupported() {
    let mut world = any().world();
    let mut alice = over(Transport::Tcp, world.client("alice", ALICE));
    let answer = alice.request(&mut world, Method::ALLOCATE, |request| {
        request.with(&RequestedTransport(132))
    });
    assert_eq!(answer.code(), 442);
}

#[test]
fn what_makes_sense_for_udp_only_is_a_bad_request() {
    let mut world = any().world();
    let mut alice = over(Transport::Tcp, world.client("alice", ALICE));
    let even = EvenPort {
        reserve_next: Reserve::No,
    };
    let token = ReservationToken([1; 8]);
    assert_eq!(
        allocate_with(&mut world, &mut alice, |r| r.with(&DontFragment)).code(),
        400
    );
    assert_eq!(
        allocate_with(&mut world, &mut alice, |r| r.with(&even)).code(),
        400
    );
    assert_eq!(
        allocate_with(&mut world, &mut alice, |r| r.with(&token)).code(),
        400
    );
    let answer = allocate_with(&mut world, &mut alice, |request| request);
    assert_eq!(answer.code(), SUCCESS);
    assert_eq!(answer.token(), None);
}

#[test]
fn it_listens_from_the_start_where_the_policy_admits_foreign_peers() {
    let (mut world, mut alice, relayed) = alone(any());
    assert!(
        world
            .house
            .borrow()
            .listening
            .contains_key(&RelayedAddr::new(relayed))
    );
    assert!(!world.has_socket(relayed), "a UDP socket too");
    alice.refresh(&mut world, Some(0));
    assert!(world.house.borrow().listening.is_empty());
}

/// T72: under `relay` nobody outside sees which ports live, unless the fleet needs it.
#[test]
fn it_listens_only_for_the_fleet_where_the_policy_admits_relays() {
    let (mut world, mut alice, relayed) = alone(Setup {
        fleet: vec![FleetNode {
            addr: ip("203.0.113.8"),
            seen_as: None,
            ports: 50_000..=50_999,
        }],
        ..relay()
    });
    let own = at("203.0.113.7:60000");
    assert_eq!(alice.permit(&mut world, &[own]), SUCCESS);
    assert!(world.house.borrow().listening.is_empty());
    let fleet = at("203.0.113.8:50000");
    assert_eq!(alice.permit(&mut world, &[fleet]), SUCCESS);
    let listens = world.house.borrow().listening.clone();
    assert_eq!(listens.len(), 1);
    assert!(listens.contains_key(&RelayedAddr::new(relayed)));
}

#[test]
fn a_port_that_another_process_listens_on_is_passed_over() {
    let mut world = Setup {
        ports: 50_000..=50_002,
        ..any()
    }
    .world();
    world.house.borrow_mut().taken.extend([50_000, 50_001]);
    let (_, relayed) = party(&mut world, "alice", ALICE);
    assert_eq!(relayed.port(), 50_002);
}

/// RFC 6062 §4.2: it is its control connection's.
#[test]
fn it_gets_no_ticket_to_go_elsewhere_with() {
    let mut world = Setup {
        mobility: true,
        ..any()
    }
    .world();
    let mut alice = over(Transport::Tcp, world.client("alice", ALICE));
    let answer = allocate_with(&mut world, &mut alice, |request| {
        request.with(&MobilityTicket(&[]))
    });
    assert_eq!(answer.code(), 405);
}

#[test]
fn both_families_listen_and_each_ends_alone() {
    let mut world = any().world();
    let mut alice = over(Transport::Tls, world.client("alice", ALICE));
    let answer = allocate_with(&mut world, &mut alice, |request| {
        request.with(&AdditionalAddressFamily(AddressFamily::V6))
    });
    let relayed = answer.relayed();
    assert_eq!(relayed.len(), 2);
    assert_eq!(world.house.borrow().listening.len(), 2);
    world.servers[0].handle_disconnected(alice.tuple, world.clock.now);
    assert!(world.house.borrow().listening.is_empty());
}

/// T31
#[test]
fn it_counts_against_its_users_quota_as_any_other() {
    let mut world = Setup {
        limits: Setup::with_quota(1).limits,
        ..any()
    }
    .world();
    party(&mut world, "alice", ALICE);
    let mut second = over(Transport::Tcp, world.client("alice", BOB));
    let answer = allocate_with(&mut world, &mut second, |request| request);
    assert_eq!(answer.code(), 486);
    assert_eq!(world.house.borrow().listening.len(), 1);
}

#[test]
fn its_control_connection_carries_no_application_data() {
    let (mut world, mut alice, _) = alone(any());
    assert_eq!(alice.permit(&mut world, &[at(PEER)]), SUCCESS);
    assert_eq!(alice.bind(&mut world, 0x4000, at(PEER)), 403);
    let sent = alice.send_to(&mut world, at(PEER), b"x").dropped();
    assert_eq!(sent, Some(DropReason::NoRelay));
    let sent = alice.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(sent, Some(DropReason::NoChannel));
}

#[test]
fn no_datagram_reaches_it() {
    let mut world = relay().world();
    let (mut alice, a) = party(&mut world, "alice", ALICE);
    let mut bob = world.client("bob", BOB);
    let b = bob.allocate(&mut world);
    assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
    assert_eq!(bob.permit(&mut world, &[a]), SUCCESS);
    let sent = bob.send_to(&mut world, a, b"x").dropped();
    assert_eq!(sent, Some(DropReason::NoLanding));
    let sent = alice.send_to(&mut world, b, b"x").dropped();
    assert_eq!(sent, Some(DropReason::NoRelay));
}

/// T47
#[test]
fn an_unknown_required_attribute_of_a_connect_is_named() {
    let (mut world, mut alice, _) = alone(any());
    let answer = alice.request(&mut world, Method::CONNECT, |request| {
        request.raw(AttributeType::new(0x7001), b"x")
    });
    assert_eq!(answer.code(), 420);
}
