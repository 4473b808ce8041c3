//! Connect (RFC 6062 §5.2).

use taciturn::proto::{
    AttributeType, Class, ConnectionId, Method, RequestedAddressFamily, XorPeerAddress,
};
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::route::PeerKind;
use taciturn::turn::{EndReason, Event, Transport};

use super::{
    PEER, allocate_with, alone, any, ask, begin, closed, connect, connects, messages, one_message,
    over, party, refused, relay,
};
use crate::world::call::{ALICE, BOB};
use crate::world::client::SUCCESS;
use crate::world::message::is_signed;
use crate::world::servers::{Outcome, Setup, at};

/// What `any` refuses: loopback, private, link-local, metadata, multicast, our own, and IPv4 hidden
/// in IPv6.
const DENIED: &[&str] = &[
    "127.0.0.1:80",
    "0.0.0.0:80",
    "10.0.0.5:22",
    "10.1.2.3:5432",
    "172.16.0.1:443",
    "192.168.1.1:80",
    "169.254.169.254:80",
    "100.64.0.1:80",
    "224.0.0.1:80",
    "255.255.255.255:80",
    "203.0.113.7:3478",
    "203.0.113.7:22",
    "192.0.9.9:0",
];
const DENIED_V6: &[&str] = &[
    "[::1]:80",
    "[::]:80",
    "[fe80::1]:80",
    "[fd00:ec2::254]:80",
    "[ff02::1]:80",
    "[::ffff:127.0.0.1]:80",
    "[::ffff:169.254.169.254]:80",
    "[::ffff:10.0.0.1]:80",
    "[64:ff9b::7f00:1]:80",
    "[2002:7f00:1::]:80",
];

/// T9, T10: refused before anything is sent, so that no SYN leaves for a peer that the policy denies.
#[test]
fn no_connection_to_a_denied_peer_is_even_begun() {
    let mut world = any().world();
    let (mut alice, _) = party(&mut world, "alice", ALICE);
    let mut bob = over(Transport::Tcp, world.client("bob", BOB));
    let v6 = RequestedAddressFamily(taciturn::proto::AddressFamily::V6);
    assert_eq!(
        allocate_with(&mut world, &mut bob, |request| request.with(&v6)).code(),
        SUCCESS
    );
    for peer in DENIED {
        assert_eq!(refused(&mut world, &mut alice, at(peer)), 403, "{peer}");
    }
    for peer in DENIED_V6 {
        assert_eq!(refused(&mut world, &mut bob, at(peer)), 403, "{peer}");
    }
    assert_eq!(connects(&world), []);
    connect(&mut world, &mut alice, at(PEER));
}

/// T9, T12: under `relay` and `call` nobody outside is reached by TCP either.
#[test]
fn a_policy_of_relays_connects_nobody_else() {
    for policy in [PeerPolicy::Relay, PeerPolicy::Call] {
        let (mut world, mut alice, _) = alone(Setup { policy, ..relay() });
        assert_eq!(refused(&mut world, &mut alice, at(PEER)), 403);
        assert_eq!(connects(&world), []);
    }
}

/// T9
#[test]
fn the_operators_networks_and_deny_list_hold_for_tcp() {
    let networks = PeerPolicy::Networks(vec!["192.0.9.0/24".parse().unwrap()]);
    let (mut world, mut alice, relayed) = alone(Setup {
        policy: networks,
        deny: vec!["192.0.9.128/25"],
        ..relay()
    });
    assert_eq!(refused(&mut world, &mut alice, at("192.0.9.200:80")), 403);
    assert_eq!(refused(&mut world, &mut alice, at("192.0.8.1:80")), 403);
    assert_eq!(connects(&world), []);
    let connection = connect(&mut world, &mut alice, at(PEER));
    let begun = (connection, relayed, at(PEER), PeerKind::Foreign);
    assert_eq!(connects(&world), [begun]);
}

#[test]
fn the_answer_comes_when_the_connection_is_there_and_is_signed() {
    let (mut world, mut alice, _) = alone(any());
    let (connection, transaction) = begin(&mut world, &mut alice, at(PEER));
    assert_eq!(messages(&mut world, &alice), []);
    world.advance(29);
    let now = world.clock.now;
    world.servers[0].handle_connected(connection, now);
    let (to, answer) = one_message(&mut world, &alice);
    assert_eq!(to, alice.tuple);
    let message = answer.message();
    assert_eq!(
        (message.class(), message.method()),
        (Class::Success, Method::CONNECT)
    );
    assert_eq!(message.transaction_id(), transaction);
    assert_eq!(answer.find::<ConnectionId>(), Some(connection));
    assert!(alice.has_signed(&answer));
}

#[test]
fn an_attempt_that_fails_is_answered_with_447() {
    let (mut world, mut alice, _) = alone(any());
    let (connection, transaction) = begin(&mut world, &mut alice, at(PEER));
    world.servers[0].handle_connect_failed(connection);
    let (to, answer) = one_message(&mut world, &alice);
    assert_eq!((to, answer.code()), (alice.tuple, 447));
    assert_eq!(answer.message().transaction_id(), transaction);
    assert!(is_signed(
        &answer.0,
        AttributeType::MESSAGE_INTEGRITY,
        &alice.key()
    ));
    connect(&mut world, &mut alice, at(PEER));
}

#[test]
fn an_attempt_is_given_up_after_thirty_seconds_and_not_before() {
    let (mut world, mut alice, _) = alone(any());
    let (connection, transaction) = begin(&mut world, &mut alice, at(PEER));
    world.advance(29);
    assert_eq!(messages(&mut world, &alice), []);
    assert!(closed(&world).is_empty());
    world.advance(1);
    let (_, answer) = one_message(&mut world, &alice);
    assert_eq!(answer.code(), 447);
    assert_eq!(answer.message().transaction_id(), transaction);
    assert_eq!(closed(&world), [connection]);
    // The kernel's news crossed the command to close it.
    let now = world.clock.now;
    world.servers[0].handle_connected(connection, now);
    world.servers[0].handle_connect_failed(connection);
    assert_eq!(messages(&mut world, &alice), []);
}

#[test]
fn what_the_kernel_refuses_at_once_is_answered_with_447() {
    let (mut world, mut alice, _) = alone(any());
    world.house.borrow_mut().exhausted = true;
    assert_eq!(refused(&mut world, &mut alice, at(PEER)), 447);
    world.house.borrow_mut().exhausted = false;
    connect(&mut world, &mut alice, at(PEER));
}

#[test]
fn one_peer_is_connected_once_while_it_is_being_connected_pending_or_active() {
    let (mut world, mut alice, _) = alone(any());
    let (connection, _) = begin(&mut world, &mut alice, at(PEER));
    assert_eq!(refused(&mut world, &mut alice, at(PEER)), 446);
    let now = world.clock.now;
    world.servers[0].handle_connected(connection, now);
    assert_eq!(refused(&mut world, &mut alice, at(PEER)), 446);
    assert_eq!(one_message(&mut world, &alice).1.code(), SUCCESS);
    let mut data = super::data_connection(&alice, 1001);
    let bound = super::bind(&mut world, &mut data, connection);
    assert!(matches!(bound, Outcome::Spliced(_, id) if id == connection));
    world.advance(100);
    assert_eq!(refused(&mut world, &mut alice, at(PEER)), 446);
    // Another port is another peer, and another client's connection does not count.
    connect(&mut world, &mut alice, at("192.0.9.9:8081"));
    let (mut bob, _) = party(&mut world, "bob", BOB);
    connect(&mut world, &mut bob, at(PEER));

    world.servers[0].handle_connection_closed(connection);
    let again = connect(&mut world, &mut alice, at(PEER));
    assert_ne!(again, connection);
}

#[test]
fn without_a_tcp_allocation_there_is_a_mismatch() {
    let mut world = any().world();
    let mut alice = over(Transport::Tcp, world.client("alice", ALICE));
    alice.fetch_nonce(&mut world);
    assert_eq!(refused(&mut world, &mut alice, at(PEER)), 437);
    alice.allocate(&mut world);
    assert_eq!(refused(&mut world, &mut alice, at(PEER)), 437);
    assert_eq!(connects(&world), []);
}

#[test]
fn a_peer_that_is_missing_or_malformed_is_a_bad_request_and_one_of_another_family_a_mismatch() {
    let (mut world, mut alice, _) = alone(any());
    let answer = alice.request(&mut world, Method::CONNECT, |request| request);
    assert_eq!(answer.code(), 400);
    let answer = alice.request(&mut world, Method::CONNECT, |request| {
        request.raw(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 0])
    });
    assert_eq!(answer.code(), 400);
    assert_eq!(refused(&mut world, &mut alice, at("[2600::1]:80")), 443);
    assert_eq!(connects(&world), []);
}

#[test]
fn who_has_no_credential_connects_nobody() {
    let (mut world, mut alice, _) = alone(any());
    let bare = alice
        .build(Method::CONNECT)
        .with(&XorPeerAddress(at(PEER)))
        .bytes();
    assert_eq!(world.send(&alice, &bare).answer().code(), 401);
    let mut mallory = over(Transport::Tcp, world.client("mallory", ALICE));
    mallory.fetch_nonce(&mut world);
    assert_eq!(refused(&mut world, &mut mallory, at(PEER)), 441);
    assert_eq!(connects(&world), []);
}

#[test]
fn one_allocation_has_so_many_connections_and_no_more() {
    let (mut world, mut alice, _) = alone(any());
    let peer = |n: u16| at(&format!("192.0.9.9:{}", 8_000 + n));
    let first = connect(&mut world, &mut alice, peer(0));
    for n in 1..32 {
        begin(&mut world, &mut alice, peer(n));
    }
    assert_eq!(refused(&mut world, &mut alice, peer(32)), 508);
    world.servers[0].handle_connection_closed(first);
    begin(&mut world, &mut alice, peer(32));
    assert_eq!(refused(&mut world, &mut alice, peer(33)), 508);
}

#[test]
fn connections_end_with_their_allocation() {
    let (mut world, mut alice, _) = alone(any());
    let pending = connect(&mut world, &mut alice, at(PEER));
    let (begun, _) = begin(&mut world, &mut alice, at("192.0.9.9:8081"));
    alice.refresh(&mut world, Some(0));
    assert_eq!(closed(&world), [pending, begun]);
    assert_eq!(messages(&mut world, &alice), []);
    world.servers[0].handle_connected(begun, world.clock.now);
    world.servers[0].handle_connection_closed(pending);
    assert_eq!(messages(&mut world, &alice), []);
}

#[test]
fn connections_end_with_their_control_connection() {
    let (mut world, mut alice, _) = alone(any());
    let connection = connect(&mut world, &mut alice, at(PEER));
    world.servers[0].handle_disconnected(alice.tuple, world.clock.now);
    assert_eq!(closed(&world), [connection]);
}

#[test]
fn connections_end_when_the_allocation_expires() {
    let (mut world, mut alice, _) = alone(any());
    let connection = connect(&mut world, &mut alice, at(PEER));
    let mut data = super::data_connection(&alice, 1001);
    let bound = super::bind(&mut world, &mut data, connection);
    assert!(matches!(bound, Outcome::Spliced(..)));
    assert!(world.servers[0].account(connection).is_some());
    world.advance(599);
    assert_eq!(closed(&world), []);
    world.advance(1);
    assert_eq!(closed(&world), [connection]);
    assert!(world.servers[0].account(connection).is_none());
}

/// T8
#[test]
fn a_reload_that_denies_a_peer_ends_its_connections() {
    let (mut world, mut alice, _) = alone(any());
    let other = at("192.0.8.8:80");
    let kept = connect(&mut world, &mut alice, other);
    let made = connect(&mut world, &mut alice, at(PEER));
    let (begun, transaction) = begin(&mut world, &mut alice, at("192.0.9.10:80"));
    let setup = Setup {
        deny: vec!["192.0.9.0/24"],
        ..any()
    };
    world.reconfigure(&setup);
    let mut ended = closed(&world);
    ended.sort_unstable();
    let mut expected = [made, begun];
    expected.sort_unstable();
    assert_eq!(ended, expected);
    let (_, answer) = one_message(&mut world, &alice);
    assert_eq!(answer.code(), 403);
    assert_eq!(answer.message().transaction_id(), transaction);
    assert!(world.servers[0].account(kept).is_some());
    assert_eq!(ask(&mut world, &mut alice, other).1.answer().code(), 446);
}

/// T8
#[test]
fn a_reload_that_turns_it_off_ends_tcp_allocations_with_their_connections_and_no_others() {
    let (mut world, mut alice, _) = alone(any());
    let mut bob = world.client("bob", BOB);
    bob.allocate(&mut world);
    let made = connect(&mut world, &mut alice, at(PEER));
    let account = world.servers[0].account(made).unwrap();
    world.reconfigure(&Setup::any());
    assert_eq!(closed(&world), [made]);
    assert!(!account.until().holds(world.clock.now));
    assert!(world.house.borrow().listening.is_empty());
    assert_eq!(world.allocations(), 1);
    assert_eq!(alice.refresh(&mut world, None).code(), 437);
    assert_eq!(bob.refresh(&mut world, None).code(), SUCCESS);
    let reasons: Vec<EndReason> = world
        .events(0)
        .into_iter()
        .filter_map(|event| match event {
            Event::Closed { reason, .. } => Some(reason),
            Event::Opened { .. } | Event::Moved { .. } => None,
        })
        .collect();
    assert_eq!(reasons, [EndReason::Revoked]);
}

#[test]
fn the_metrics_count_what_was_answered_late() {
    let (mut world, mut alice, _) = alone(any());
    connect(&mut world, &mut alice, at(PEER));
    let (failed, _) = begin(&mut world, &mut alice, at("192.0.9.9:8081"));
    world.servers[0].handle_connect_failed(failed);
    refused(&mut world, &mut alice, at(PEER));
    for code in [0, 446, 447] {
        let row = ("connect", code, 1);
        assert!(
            world.servers[0]
                .counters()
                .requests()
                .any(|counted| counted == row),
            "{row:?}"
        );
    }
}
