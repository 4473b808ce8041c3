//! Mobile allocations whose client's connection is gone (RFC 8016 §3.2.2).

use taciturn::turn::stats::DropReason;
use taciturn::turn::{ListenerId, RelayedAddr, Transport, WorkerId};

use crate::world::call::{ALICE, Call, ELSEWHERE, FURTHER, to_alice};
use crate::world::client::SUCCESS;
use crate::world::servers::{Setup, at};

const UDP: Transport = Transport::Udp;
const TCP: Transport = Transport::Tcp;

#[test]
fn a_client_whose_connection_broke_comes_back_on_another() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), TCP);
    let alice = call.alice.clone();
    call.world.disconnect(&alice);
    assert_eq!(call.world.allocations(), 2);
    assert_eq!(call.bob_talks().dropped(), Some(DropReason::Away));
    assert_eq!(call.world.drops(DropReason::Away), 1);
    // The connection's 5-tuple is free for whoever comes next.
    let late = call.alice_at(&alice);
    assert_eq!(late.dropped(), Some(DropReason::NoAllocation));

    let mut moved = call.alice.moved(ELSEWHERE);
    moved.tuple.listener = ListenerId::new(Transport::Tls, 0);
    let answer = moved.resume(&mut call.world, &ticket);
    assert_eq!((answer.code(), answer.lifetime()), (SUCCESS, Some(600)));
    // There is no old way to wait for.
    assert_eq!(call.bob_talks().at(&moved), to_alice());
    call.alice_at(&moved).at(&call.bob);
    call.world.advance(100);
    assert_eq!(call.world.allocations(), 2);
}

#[test]
fn outside_packets_for_a_client_that_is_away_are_dropped_and_counted() {
    let mut world = Setup {
        mobility: true,
        ..Setup::any()
    }
    .world();
    let mut alice = world.client("alice", ALICE);
    alice.tuple.listener = ListenerId::new(Transport::Tcp, 0);
    let (relayed, _) = alice.allocate_mobile(&mut world);
    let peer = "9.9.9.9:9";
    assert_eq!(alice.permit(&mut world, &[at(peer)]), SUCCESS);
    let id = world.house.borrow().sockets[&RelayedAddr::new(relayed)];
    world.servers[0].handle_disconnected(alice.tuple, world.clock.now);
    let heard = world.receive_at_relay(WorkerId(0), id, at(peer), b"x");
    assert_eq!(heard.dropped(), Some(DropReason::Away));
}

/// T31: an absent client holds a port for a minute at most, and its quota meanwhile.
#[test]
fn a_client_that_stays_away_loses_its_allocation() {
    let (mut call, ticket) = Call::mobile(
        Setup {
            mobility: true,
            ..Setup::with_quota(1)
        },
        TCP,
    );
    let alice = call.alice.clone();
    call.world.disconnect(&alice);
    let mut other = call.alice.moved(FURTHER);
    assert_eq!(other.allocate_with(&mut call.world, |r| r).code(), 486);
    call.world.advance(59);
    assert_eq!(call.world.allocations(), 2);
    call.world.advance(2);
    assert_eq!(call.world.allocations(), 1);
    let mut moved = call.alice.moved(ELSEWHERE);
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), 437);
}

#[test]
fn without_a_ticket_an_allocation_ends_with_its_connection() {
    let mut world = Setup::mobile().world();
    let mut alice = world.client("alice", ALICE);
    alice.tuple.listener = ListenerId::new(Transport::Tcp, 0);
    alice.allocate(&mut world);
    world.servers[0].handle_disconnected(alice.tuple, world.clock.now);
    assert_eq!(world.allocations(), 0);
}

/// RFC 8016 §3.2.2: the end of the old connection moves the data as well.
#[test]
fn when_the_old_connection_ends_data_goes_the_new_way() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), TCP);
    let (alice, mut moved) = (call.alice.clone(), call.alice.moved(ELSEWHERE));
    moved.resume(&mut call.world, &ticket);
    call.bob_talks().at(&alice);
    call.world.disconnect(&alice);
    call.bob_talks().at(&moved);
}

#[test]
fn a_new_connection_that_ends_unused_changes_nothing() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let (alice, mut moved) = (call.alice.clone(), call.alice.moved(ELSEWHERE));
    moved.tuple.listener = ListenerId::new(Transport::Tcp, 0);
    let next = moved.resume(&mut call.world, &ticket).ticket().unwrap();
    call.world.disconnect(&moved);
    call.bob_talks().at(&alice);
    call.alice_at(&alice).at(&call.bob);
    let mut further = call.alice.moved(FURTHER);
    assert_eq!(further.resume(&mut call.world, &next).code(), SUCCESS);
}

#[test]
fn the_owner_is_told_of_a_connection_that_ends_at_another_worker() {
    let (mut call, ticket) = Call::mobile(
        Setup {
            workers: 2,
            ..Setup::mobile()
        },
        UDP,
    );
    let mut moved = call.alice.moved(ELSEWHERE);
    moved.tuple.listener = ListenerId::new(Transport::Tcp, 0);
    moved.resume(&mut call.world, &ticket);
    let moved = moved.on(1);
    assert!(call.world.servers[1].has_allocation(moved.tuple));
    call.world.disconnect(&moved);
    let told = std::mem::take(&mut call.world.house.borrow_mut().disconnected);
    assert_eq!(told, [(WorkerId(0), moved.tuple)]);
}
