//! Peers that connect to a relayed transport address (RFC 6062 §5.3).

use taciturn::turn::stats::DropReason;

use super::{PEER, accept, alone, any, attempt, begin, closed, messages, one_message, refused};
use crate::world::client::SUCCESS;
use crate::world::servers::{Setup, at};

#[test]
fn the_client_hears_of_a_permitted_peer_and_can_bind_it() {
    let (mut world, mut alice, relayed) = alone(any());
    // RFC 8656 §9: the permission covers every port.
    assert_eq!(alice.permit(&mut world, &[at("192.0.9.9:1")]), SUCCESS);
    let connection = accept(&mut world, &alice, relayed, PEER).unwrap();
    let (to, indication) = one_message(&mut world, &alice);
    assert_eq!(to, alice.tuple);
    assert_eq!(attempt(&indication), (connection, at(PEER)));
    let mut data = super::data_connection(&alice, 1001);
    let (answer, id) = super::bind::spliced(&mut world, &mut data, connection);
    assert_eq!((answer.code(), id), (SUCCESS, connection));
    world.advance(200);
    assert!(closed(&world).is_empty());
}

/// T53
#[test]
fn a_peer_without_a_permission_is_refused_and_counted() {
    let (mut world, mut alice, relayed) = alone(any());
    let outcome = accept(&mut world, &alice, relayed, PEER);
    assert_eq!(outcome, Err(DropReason::NoPermission));
    alice.permit(&mut world, &[at(PEER)]);
    let outcome = accept(&mut world, &alice, relayed, "192.0.9.10:8080");
    assert_eq!(outcome, Err(DropReason::NoPermission));
    world.advance(300);
    let outcome = accept(&mut world, &alice, relayed, PEER);
    assert_eq!(outcome, Err(DropReason::NoPermission));
    assert_eq!(messages(&mut world, &alice), []);
    assert_eq!(world.drops(DropReason::NoPermission), 3);
}

/// T9, T8
#[test]
fn a_peer_that_the_policy_no_longer_admits_is_refused() {
    let (mut world, mut alice, relayed) = alone(any());
    alice.permit(&mut world, &[at(PEER)]);
    world.reconfigure(&Setup {
        deny: vec!["192.0.9.0/24"],
        ..any()
    });
    let outcome = accept(&mut world, &alice, relayed, PEER);
    assert_eq!(outcome, Err(DropReason::NoPermission));
}

/// T57: what comes from a relayed address of ours by the kernel is another program of this host.
#[test]
fn an_own_relayed_address_is_refused_at_the_listening_socket() {
    let (mut world, mut alice, relayed) = alone(any());
    let own = at("203.0.113.7:60000");
    alice.permit(&mut world, &[own]);
    let outcome = accept(&mut world, &alice, relayed, "203.0.113.7:60000");
    assert_eq!(outcome, Err(DropReason::ByKernel));
}

#[test]
fn a_connection_that_nobody_binds_ends_after_thirty_seconds() {
    let (mut world, mut alice, relayed) = alone(any());
    alice.permit(&mut world, &[at(PEER)]);
    let connection = accept(&mut world, &alice, relayed, PEER).unwrap();
    messages(&mut world, &alice);
    world.advance(29);
    assert_eq!(closed(&world), []);
    world.advance(1);
    assert_eq!(closed(&world), [connection]);
    assert_eq!(messages(&mut world, &alice), []);
    let mut data = super::data_connection(&alice, 1001);
    let answer = super::bind(&mut world, &mut data, connection).answer();
    assert_eq!(answer.code(), 400);
}

#[test]
fn one_allocation_takes_so_many_connections_and_one_of_each_peer() {
    let (mut world, mut alice, relayed) = alone(any());
    alice.permit(&mut world, &[at(PEER)]);
    for port in 0..32 {
        accept(
            &mut world,
            &alice,
            relayed,
            &format!("192.0.9.9:{}", 9_000 + port),
        )
        .unwrap();
    }
    let outcome = accept(&mut world, &alice, relayed, PEER);
    assert_eq!(outcome, Err(DropReason::Connections));
    assert_eq!(messages(&mut world, &alice).len(), 32);
    world.advance(30);
    begin(&mut world, &mut alice, at(PEER));
    let outcome = accept(&mut world, &alice, relayed, PEER);
    assert_eq!(outcome, Err(DropReason::Connections));
    accept(&mut world, &alice, relayed, "192.0.9.9:8081").unwrap();
    let code = refused(&mut world, &mut alice, at("192.0.9.9:8081"));
    assert_eq!(code, 446);
}

#[test]
fn a_late_connection_to_an_allocation_that_is_gone_is_refused() {
    let (mut world, mut alice, relayed) = alone(any());
    alice.permit(&mut world, &[at(PEER)]);
    let id = world.servers[0].relayed().next().unwrap().0;
    alice.refresh(&mut world, Some(0));
    let _ = relayed;
    let peer = taciturn::turn::PeerAddr::new(at(PEER));
    let outcome = world.servers[0].handle_accepted(id, peer, world.clock.now);
    assert_eq!(outcome, Err(DropReason::NoRelay));
}
