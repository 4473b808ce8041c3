//! The second gate: within a permission for a relay IP, only relayed addresses that were named,
//! and others of the same users, get through.

use std::net::SocketAddr;

use taciturn::turn::route::MAX_NAMES;
use taciturn::turn::stats::DropReason;

use crate::world::call::{ALICE, BOB, CAROL, Call};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{Setup, World, at};

/// A user with an allocation that permits Alice's address.
fn party(world: &mut World, user: &str, addr: &str, alice: SocketAddr) -> (Client, SocketAddr) {
    let mut client = world.client(user, addr);
    let relayed = client.allocate(world);
    assert_eq!(client.permit(world, &[alice]), SUCCESS);
    (client, relayed)
}

fn alice(world: &mut World) -> (Client, SocketAddr) {
    let mut alice = world.client("alice", ALICE);
    let a = alice.allocate(world);
    (alice, a)
}

#[test]
fn who_was_sent_to_may_answer_and_a_third_user_may_not() {
    let mut world = World::new();
    let (mut alice, a) = alice(&mut world);
    let (_, p1) = party(&mut world, "one", BOB, a);
    let (mut two, p2) = party(&mut world, "two", CAROL, a);
    let (mut three, _) = party(&mut world, "three", "198.51.100.4:4000", a);
    assert_eq!(alice.permit(&mut world, &[p1]), SUCCESS);

    let early = two.send_to(&mut world, a, b"early").dropped();
    assert_eq!(early, Some(DropReason::NotNamed));
    alice.send_to(&mut world, p2, b"hello").at(&two);
    two.send_to(&mut world, a, b"answer").at(&alice);
    let stranger = three.send_to(&mut world, a, b"spam").dropped();
    assert_eq!(stranger, Some(DropReason::NotNamed));
    assert_eq!(world.drops(DropReason::NotNamed), 2);
}

/// T65
#[test]
fn a_stranger_on_the_same_relay_ip_reaches_nobody() {
    let mut call = Call::permitted(Setup::default());
    let (mut mallory, _) = party(&mut call.world, "mallory", CAROL, call.a);
    mallory.bind(&mut call.world, 0x4000, call.b);
    for outcome in [
        mallory.send_to(&mut call.world, call.a, b"hi alice"),
        mallory.send_to(&mut call.world, call.b, b"hi bob"),
        mallory.channel_data(&mut call.world, 0x4000, b"hi bob"),
    ] {
        assert_eq!(outcome.dropped(), Some(DropReason::NotNamed));
    }
}

#[test]
fn other_relayed_addresses_of_a_named_user_are_admitted() {
    let mut world = World::new();
    let (mut alice, a) = alice(&mut world);
    let (mut bob, b) = party(&mut world, "bob", BOB, a);
    assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
    let (mut second, _) = party(&mut world, "bob", "198.51.100.2:2001", a);
    second
        .send_to(&mut world, a, b"second candidate")
        .at(&alice);

    // Also when the one that was named is gone.
    bob.refresh(&mut world, Some(0));
    second.send_to(&mut world, a, b"after a restart").at(&alice);
}

#[test]
fn a_channel_names_its_peer() {
    let mut world = World::new();
    let (mut alice, a) = alice(&mut world);
    let (mut bob, b) = party(&mut world, "bob", BOB, a);
    assert_eq!(alice.bind(&mut world, 0x4000, b), SUCCESS);
    bob.send_to(&mut world, a, b"x").at(&alice);
}

#[test]
fn naming_a_port_before_it_lives_admits_who_lives_there_later() {
    let setup = Setup {
        ports: 50_000..=50_002,
        ..Setup::default()
    };
    let mut world = setup.world();
    let (mut alice, a) = alice(&mut world);
    let (mut bob, b) = party(&mut world, "bob", BOB, a);
    let free = [
        "203.0.113.7:50000",
        "203.0.113.7:50001",
        "203.0.113.7:50002",
    ]
    .map(at)
    .into_iter()
    .find(|free| ![a, b].contains(free))
    .unwrap();
    assert_eq!(alice.permit(&mut world, &[free]), SUCCESS);
    let early = bob.send_to(&mut world, a, b"x").dropped();
    assert_eq!(early, Some(DropReason::NotNamed));
    let (mut second, named) = party(&mut world, "bob", "198.51.100.2:2001", a);
    assert_eq!(named, free);
    second.send_to(&mut world, a, b"x").at(&alice);
    // And with it his other addresses.
    bob.send_to(&mut world, a, b"x").at(&alice);
}

#[test]
fn a_port_that_passed_to_another_user_is_not_admitted() {
    let setup = Setup {
        ports: 50_000..=50_001,
        ..Setup::default()
    };
    let mut world = setup.world();
    let (mut alice, a) = alice(&mut world);
    let (mut bob, b) = party(&mut world, "bob", BOB, a);
    assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
    bob.send_to(&mut world, a, b"x").at(&alice);
    bob.refresh(&mut world, Some(0));
    world.advance(61);
    let (mut carol, c) = party(&mut world, "carol", CAROL, a);
    assert_eq!(c, b, "the only other port");
    let outcome = carol.send_to(&mut world, a, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NotNamed));

    // Naming it again names who is there now.
    assert_eq!(alice.permit(&mut world, &[c]), SUCCESS);
    carol.send_to(&mut world, a, b"x").at(&alice);
}

#[test]
fn names_die_with_their_permission() {
    let mut world = World::new();
    let (mut alice, a) = alice(&mut world);
    let (mut one, p1) = party(&mut world, "one", BOB, a);
    let (mut two, p2) = party(&mut world, "two", CAROL, a);
    assert_eq!(alice.permit(&mut world, &[p1]), SUCCESS);
    world.advance(300);
    assert_eq!(one.permit(&mut world, &[a]), SUCCESS);
    assert_eq!(two.permit(&mut world, &[a]), SUCCESS);
    let outcome = one.send_to(&mut world, a, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NotPermitted));

    assert_eq!(alice.permit(&mut world, &[p2]), SUCCESS);
    let outcome = one.send_to(&mut world, a, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NotNamed));
    two.send_to(&mut world, a, b"x").at(&alice);
}

#[test]
fn names_live_on_while_their_permission_is_refreshed() {
    let mut world = World::new();
    let (mut alice, a) = alice(&mut world);
    let (mut one, p1) = party(&mut world, "one", BOB, a);
    let (mut two, p2) = party(&mut world, "two", CAROL, a);
    assert_eq!(alice.permit(&mut world, &[p1]), SUCCESS);
    for _ in 0..2 {
        world.advance(200);
        assert_eq!(alice.permit(&mut world, &[p2]), SUCCESS);
        assert_eq!(one.permit(&mut world, &[a]), SUCCESS);
        assert_eq!(two.permit(&mut world, &[a]), SUCCESS);
    }
    one.send_to(&mut world, a, b"x").at(&alice);
    two.send_to(&mut world, a, b"x").at(&alice);
}

#[test]
fn port_zero_permits_the_ip_and_names_nobody() {
    let mut world = World::new();
    let (mut alice, a) = alice(&mut world);
    let (mut bob, b) = party(&mut world, "bob", BOB, a);
    let mut whole_ip = b;
    whole_ip.set_port(0);
    assert_eq!(alice.permit(&mut world, &[whole_ip]), SUCCESS);
    let outcome = bob.send_to(&mut world, a, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NotNamed));
    alice.send_to(&mut world, b, b"x").at(&bob);
    bob.send_to(&mut world, a, b"x").at(&alice);
}

#[test]
fn ports_outside_the_relay_range_take_no_names_place() {
    let mut world = World::new();
    let (mut alice, a) = alice(&mut world);
    let (mut bob, b) = party(&mut world, "bob", BOB, a);
    assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
    let below = |port: usize| at(&format!("203.0.113.7:{port}"));
    let others: Vec<_> = (1..=MAX_NAMES).map(below).collect();
    assert_eq!(alice.permit(&mut world, &others), SUCCESS);
    bob.send_to(&mut world, a, b"x").at(&alice);
}

#[test]
fn at_the_limit_the_name_given_first_makes_way() {
    let mut world = World::new();
    let (mut alice, a) = alice(&mut world);
    let (mut first, p) = party(&mut world, "first", BOB, a);
    assert_eq!(alice.permit(&mut world, &[p]), SUCCESS);
    let dead = |n: usize| at(&format!("203.0.113.7:{}", 49_152 + n));
    let others: Vec<_> = (0..MAX_NAMES).map(dead).filter(|at| *at != p).collect();
    assert_eq!(alice.permit(&mut world, &others[..MAX_NAMES - 1]), SUCCESS);
    first.send_to(&mut world, a, b"x").at(&alice);
    let one_more = at("203.0.113.7:60000");
    assert_ne!(one_more, p);
    assert_eq!(alice.permit(&mut world, &[one_more]), SUCCESS);
    let outcome = first.send_to(&mut world, a, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NotNamed));
}

#[test]
fn sending_at_the_limit_takes_the_place_of_a_dead_name_only() {
    let mut world = World::new();
    let (mut alice, a) = alice(&mut world);
    let parties: Vec<_> = (0..=MAX_NAMES)
        .map(|n| {
            let addr = format!("198.51.100.{}:5000", 10 + n);
            party(&mut world, &format!("user{n}"), &addr, a)
        })
        .collect();
    let (named, last) = parties.split_at(MAX_NAMES);
    let (mut last, p) = last[0].clone();
    let addrs: Vec<_> = named.iter().map(|(_, addr)| *addr).collect();
    assert_eq!(alice.permit(&mut world, &addrs), SUCCESS);

    let published = world.house.borrow().published;
    for _ in 0..10 {
        alice.send_to(&mut world, p, b"x").at(&last);
    }
    assert_eq!(
        world.house.borrow().published,
        published,
        "a packet is no event"
    );
    let outcome = last.send_to(&mut world, a, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NotNamed));

    named[5].0.clone().refresh(&mut world, Some(0));
    alice.send_to(&mut world, p, b"x").at(&last);
    last.send_to(&mut world, a, b"x").at(&alice);
    for (client, _) in [&named[0], &named[MAX_NAMES - 1]] {
        client.clone().send_to(&mut world, a, b"x").at(&alice);
    }
}
