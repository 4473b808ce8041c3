//! Mobility (RFC 8016): an allocation follows its client from one 5-tuple to another.

use taciturn::proto::{Method, MobilityTicket, RequestedTransport};
use taciturn::turn::stats::DropReason;
use taciturn::turn::{Event, ListenerId, Transport, WorkerId};

use crate::world::call::{ALICE, ASK, BOB, CAROL, Call, ELSEWHERE, FURTHER, Framing, to_alice};
use crate::world::client::{Client, SUCCESS};
use crate::world::message::Received;
use crate::world::servers::{Outcome, Setup, World, at};

const UDP: Transport = Transport::Udp;

#[test]
fn who_asks_for_a_ticket_gets_one_and_nobody_else() {
    let mut world = Setup::mobile().world();
    let mut alice = world.client("alice", ALICE);
    let (_, ticket) = alice.allocate_mobile(&mut world);
    let mut carol = world.client("carol", CAROL);
    let (_, other) = carol.allocate_mobile(&mut world);
    assert_ne!(ticket, other);
    let mut bob = world.client("bob", BOB);
    let answer = bob.allocate_with(&mut world, |request| request);
    assert_eq!((answer.code(), answer.ticket()), (SUCCESS, None));
    assert_eq!(bob.refresh(&mut world, None).ticket(), None);
    assert_eq!(alice.refresh(&mut world, None).ticket(), None);
}

/// RFC 8016 §3.1.2 and §3.2.2.
#[test]
fn where_it_is_off_a_ticket_is_forbidden() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let answer = alice.allocate_with(&mut world, |request| request.with(&ASK));
    assert_eq!(answer.code(), 405);
    assert_eq!(world.allocations(), 0);
    alice.allocate(&mut world);
    let mut moved = alice.moved(ELSEWHERE);
    assert_eq!(moved.resume(&mut world, &[1; 31]).code(), 405);
}

/// RFC 6062: the data connections could not follow.
#[test]
fn a_tcp_allocation_gets_no_ticket() {
    let mut world = Setup {
        tcp_relay: true,
        ..Setup::mobile()
    }
    .world();
    let mut alice = world.client("alice", ALICE);
    alice.tuple.listener = ListenerId::new(Transport::Tcp, 0);
    let answer = alice.request(&mut world, Method::ALLOCATE, |request| {
        request.with(&RequestedTransport::TCP).with(&ASK)
    });
    assert_eq!(answer.code(), 405);
    assert_eq!(world.allocations(), 0);
}

#[test]
fn turned_off_it_keeps_allocations_and_moves_none() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    call.world.reconfigure(&Setup::default());
    let mut moved = call.alice.moved(ELSEWHERE);
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), 405);
    let alice = call.alice.clone();
    call.alice_at(&alice).at(&call.bob);
}

#[test]
fn an_allocate_that_shows_a_ticket_is_a_bad_request() {
    for setup in [Setup::mobile(), Setup::default()] {
        let mut world = setup.world();
        let mut alice = world.client("alice", ALICE);
        let shown = MobilityTicket(b"x");
        let answer = alice.allocate_with(&mut world, |request| request.with(&shown));
        assert_eq!(answer.code(), 400);
        assert_eq!(world.allocations(), 0);
    }
}

#[test]
fn a_resumed_client_keeps_its_relayed_address_permissions_and_channels() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    let answer = moved.resume(&mut call.world, &ticket);
    assert_eq!((answer.code(), answer.lifetime()), (SUCCESS, Some(600)));
    assert_ne!(answer.ticket().unwrap(), ticket);
    call.alice_at(&moved).at(&call.bob);
    assert_eq!(call.bob_talks().at(&moved), to_alice());
    assert_eq!(moved.permit(&mut call.world, &[call.b]), SUCCESS);
    assert_eq!(moved.refresh(&mut call.world, None).code(), SUCCESS);
    assert_eq!(call.world.allocations(), 2);
    let relayed: Vec<_> = call.world.servers[0].relayed().map(|(_, r)| r).collect();
    assert!(
        relayed
            .iter()
            .any(|relayed| relayed.socket_addr() == call.a)
    );
    let moves = call.world.events(0);
    let moves = moves.iter().filter(|e| matches!(e, Event::Moved { .. }));
    assert_eq!(moves.count(), 1);
}

#[test]
fn packets_from_outside_follow_the_client_too() {
    let mut world = Setup {
        mobility: true,
        ..Setup::any()
    }
    .world();
    let mut alice = world.client("alice", ALICE);
    let (relayed, ticket) = alice.allocate_mobile(&mut world);
    let peer = "9.9.9.9:9";
    assert_eq!(alice.permit(&mut world, &[at(peer)]), SUCCESS);
    let mut moved = alice.moved(ELSEWHERE);
    assert_eq!(moved.resume(&mut world, &ticket).code(), SUCCESS);
    let sent = moved.send_to(&mut world, at(peer), b"out").outside();
    assert_eq!(sent, (relayed, at(peer), b"out".to_vec()));
    let heard = world.receive_from_peer(relayed, peer, b"in").at(&moved);
    assert_eq!(heard, Received::Data(at(peer), b"in".to_vec()));
}

/// RFC 8016 §3.2.2: make before break.
#[test]
fn data_goes_the_old_way_until_the_client_sends_on_the_new_one() {
    for framing in [Framing::Channel(0x4000), Framing::Indication] {
        let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
        let (mut alice, mut moved) = (call.alice.clone(), call.alice.moved(ELSEWHERE));
        let answer = moved.resume(&mut call.world, &ticket);
        assert_eq!(answer.code(), SUCCESS);
        call.bob_talks().at(&alice);
        call.alice_at(&alice).at(&call.bob);
        call.bob_talks().at(&alice);
        assert_eq!(alice.refresh(&mut call.world, None).code(), SUCCESS);

        framing
            .send(&mut moved, &mut call.world, call.b, b"here")
            .at(&call.bob);
        call.bob_talks().at(&moved);
        // The old 5-tuple is nobody's.
        let late = call.alice_at(&alice);
        assert_eq!(late.dropped(), Some(DropReason::NoAllocation));
        assert_eq!(alice.refresh(&mut call.world, None).code(), 437);
        assert_eq!(
            alice.clone().allocate_with(&mut call.world, |r| r).code(),
            SUCCESS
        );
    }
}

/// Where this server goes beyond the RFC: a client that has nothing to say is heard all the same.
#[test]
fn a_request_on_the_new_way_is_a_use_of_it() {
    let uses: [fn(&mut Client, &mut Call) -> u16; 3] = [
        |client, call| client.permit(&mut call.world, &[call.b]),
        |client, call| client.bind(&mut call.world, 0x4000, call.b),
        |client, call| client.refresh(&mut call.world, None).code(),
    ];
    for uses_it in uses {
        let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
        let mut moved = call.alice.moved(ELSEWHERE);
        moved.resume(&mut call.world, &ticket);
        assert_eq!(uses_it(&mut moved, &mut call), SUCCESS);
        call.bob_talks().at(&moved);
    }
    // One that is refused shows nothing.
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    moved.resume(&mut call.world, &ticket);
    assert_eq!(
        moved.clone().allocate_with(&mut call.world, |r| r).code(),
        437
    );
    let alice = call.alice.clone();
    call.bob_talks().at(&alice);
}

/// RFC 8016 §3.2.2: for at least 30 seconds.
#[test]
fn a_refresh_that_is_sent_again_is_answered_again() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    let first = moved.resume(&mut call.world, &ticket);
    call.world.stall(15);
    assert_eq!(
        moved.resume(&mut call.world, &ticket).ticket(),
        first.ticket()
    );
    // Also when data came in between.
    call.alice_at(&moved).at(&call.bob);
    call.world.stall(15);
    assert_eq!(
        moved.resume(&mut call.world, &ticket).ticket(),
        first.ticket()
    );
    call.world.stall(15);
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), 400);
    let next = first.ticket().unwrap();
    let mut further = moved.moved(FURTHER);
    assert_eq!(further.resume(&mut call.world, &next).code(), SUCCESS);
}

/// A captured Refresh is good for nobody else, nor again.
#[test]
fn the_ticket_before_leads_nowhere_else() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    moved.resume(&mut call.world, &ticket);
    let mut thief = call.alice.moved(FURTHER);
    assert_eq!(thief.resume(&mut call.world, &ticket).code(), 400);
    call.alice_at(&moved).at(&call.bob);
    assert_eq!(thief.resume(&mut call.world, &ticket).code(), 400);
    let mut alice = call.alice.clone();
    assert_eq!(alice.resume(&mut call.world, &ticket).code(), 400);
    call.bob_talks().at(&moved);
}

/// T14: byte for byte, from another IP address.
#[test]
fn a_captured_refresh_from_another_address_is_challenged() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    moved.fetch_nonce(&mut call.world);
    let request = moved.build(Method::REFRESH).with(&MobilityTicket(&ticket));
    let captured = moved.sign(request);
    let thief = call.alice.moved(FURTHER);
    assert_eq!(call.world.send(&thief, &captured).answer().code(), 438);
    assert_eq!(call.world.send(&moved, &captured).answer().code(), SUCCESS);
}

#[test]
fn a_client_that_has_not_moved_must_not_show_its_ticket() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut alice = call.alice.clone();
    assert_eq!(alice.resume(&mut call.world, &ticket).code(), 400);
    let mut moved = call.alice.moved(ELSEWHERE);
    let next = moved.resume(&mut call.world, &ticket).ticket().unwrap();
    assert_eq!(moved.resume(&mut call.world, &next).code(), 400);
    call.alice_at(&moved).at(&call.bob);
    assert_eq!(moved.resume(&mut call.world, &next).code(), 400);
}

#[test]
fn a_client_may_come_back_before_it_has_used_the_new_way() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let (mut alice, mut moved) = (call.alice.clone(), call.alice.moved(ELSEWHERE));
    let next = moved.resume(&mut call.world, &ticket).ticket().unwrap();
    let back = alice.resume(&mut call.world, &next);
    assert_eq!(back.code(), SUCCESS);
    let late = call.alice_at(&moved);
    assert_eq!(late.dropped(), Some(DropReason::NoAllocation));
    call.bob_talks().at(&alice);
    call.alice_at(&alice).at(&call.bob);
    let last = back.ticket().unwrap();
    assert_eq!(moved.resume(&mut call.world, &last).code(), SUCCESS);
    call.alice_at(&moved).at(&call.bob);
}

#[test]
fn a_client_may_go_on_before_it_has_used_the_new_way() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    let next = moved.resume(&mut call.world, &ticket).ticket().unwrap();
    let mut further = call.alice.moved(FURTHER);
    assert_eq!(further.resume(&mut call.world, &next).code(), SUCCESS);
    let late = call.alice_at(&moved);
    assert_eq!(late.dropped(), Some(DropReason::NoAllocation));
    call.alice_at(&further).at(&call.bob);
    call.bob_talks().at(&further);
    assert_eq!(call.world.house.borrow().owners.len(), 2);
}

#[test]
fn a_client_may_go_to_another_family_and_listener() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved("[2001:db8:77::7]:7000");
    moved.tuple.listener = ListenerId(1);
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), SUCCESS);
    call.alice_at(&moved).at(&call.bob);
    assert_eq!(call.bob_talks().at(&moved), to_alice());
}

/// The allocation stays with its worker: the one that is reached hands on.
#[test]
fn a_move_to_another_workers_socket_is_handed_to_the_owner() {
    let (mut call, ticket) = Call::mobile(
        Setup {
            workers: 2,
            ..Setup::mobile()
        },
        UDP,
    );
    let mut moved = call.alice.moved(ELSEWHERE).on(1);
    moved.fetch_nonce(&mut call.world);
    let request = moved.build(Method::REFRESH).with(&MobilityTicket(&ticket));
    let bytes = moved.sign(request);
    let owner = Outcome::Elsewhere(WorkerId(0));
    assert_eq!(call.world.send(&moved, &bytes), owner);
    let answer = call
        .world
        .receive(WorkerId(0), moved.tuple, &bytes)
        .answer();
    assert_eq!(answer.code(), SUCCESS);
    // The worker that has its connection may know that it is no stranger.
    assert!(call.world.servers[1].has_allocation(moved.tuple));
    // What comes on the new 5-tuple is handed on from now on, a retransmission first.
    assert_eq!(call.world.send(&moved, &bytes), owner);
    assert_eq!(call.alice_at(&moved), owner);
    let moved = moved.on(0);
    call.alice_at(&moved).at(&call.bob);
    call.bob_talks().at(&moved);
    assert_eq!(call.world.house.borrow().owners.len(), 2);
}

/// T39: neither worker takes a 5-tuple on which the other has an allocation.
#[test]
fn a_five_tuple_of_another_workers_allocation_is_no_place_to_go_to() {
    let (mut call, ticket) = Call::mobile(
        Setup {
            workers: 2,
            ..Setup::mobile()
        },
        UDP,
    );
    let mut moved = call.alice.moved(ELSEWHERE).on(1);
    moved.allocate(&mut call.world);
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), 437);
}

#[test]
fn a_ticket_of_a_worker_that_is_no_more_is_a_mismatch() {
    let mut world = Setup {
        workers: 2,
        ..Setup::mobile()
    }
    .world();
    let mut alice = world.client("alice", ALICE).on(1);
    let (_, ticket) = alice.allocate_mobile(&mut world);
    let mut world = Setup::mobile().world();
    let mut moved = alice.moved(ELSEWHERE).on(0);
    assert_eq!(moved.resume(&mut world, &ticket).code(), 437);
}
