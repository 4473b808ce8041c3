//! IPv4, IPv6, and allocations with both (RFC 8656 §7.2, RFC 6156).

use taciturn::proto::{
    AdditionalAddressFamily, AddressFamily, AttributeType, EvenPort, Lifetime, Method,
    RequestedAddressFamily, Reserve,
};
use taciturn::turn::stats::DropReason;

use crate::world::call::{ALICE, BOB};
use crate::world::client::{Client, SUCCESS};
use crate::world::message::Answer;
use crate::world::servers::{RELAY_V4, RELAY_V6, Setup, World, at, ip};

const V4: RequestedAddressFamily = RequestedAddressFamily(AddressFamily::V4);
const V6: RequestedAddressFamily = RequestedAddressFamily(AddressFamily::V6);
const V4_TYPE: AttributeType = AttributeType::REQUESTED_ADDRESS_FAMILY;
const AND_V6: AdditionalAddressFamily = AdditionalAddressFamily(AddressFamily::V6);

fn dual(client: &mut Client, world: &mut World) -> Answer {
    client.allocate_with(world, |r| r.with(&AND_V6))
}

#[test]
fn a_family_is_given_as_asked_whatever_the_clients_own() {
    for addr in [ALICE, "[2001:db8:c::1]:1000"] {
        for (family, relay) in [(V4, RELAY_V4), (V6, RELAY_V6)] {
            let mut world = World::new();
            let mut client = world.client("alice", addr);
            let answer = client.allocate_with(&mut world, |r| r.with(&family));
            assert_eq!(answer.relayed()[0].ip(), ip(relay));
            assert_eq!(answer.relayed().len(), 1);
            assert_eq!(answer.mapped(), Some(at(addr)));
        }
    }
}

#[test]
fn without_a_wish_the_family_is_ipv4() {
    let mut world = World::new();
    let mut client = world.client("alice", "[2001:db8:c::1]:1000");
    assert_eq!(client.allocate(&mut world).ip(), ip(RELAY_V4));
}

#[test]
fn both_families_at_once() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let answer = dual(&mut alice, &mut world);
    let ips: Vec<_> = answer.relayed().iter().map(|at| at.ip()).collect();
    assert_eq!(ips, [ip(RELAY_V4), ip(RELAY_V6)]);
    assert!(answer.address_error().is_none());
    assert_eq!(world.allocations(), 1);
    let [a4, a6] = answer.relayed()[..] else {
        panic!("two relayed addresses");
    };

    let mut bob = world.client("bob", BOB);
    let [b4, b6] = bob.allocate_dual(&mut world);
    assert_eq!(alice.permit(&mut world, &[b4, b6]), SUCCESS);
    assert_eq!(bob.permit(&mut world, &[a4, a6]), SUCCESS);
    for (from, to) in [(a4, b4), (a6, b6)] {
        let received = alice.send_to(&mut world, to, b"x").at(&bob);
        let expected = crate::world::message::Received::Data(from, b"x".to_vec());
        assert_eq!(received, expected);
    }
}

/// T55
#[test]
fn a_family_without_a_relay_address_is_not_supported() {
    let setup = Setup {
        relays: vec![ip(RELAY_V4)],
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let answer = alice.allocate_with(&mut world, |r| r.with(&V6));
    assert_eq!(answer.code(), 440);

    let answer = dual(&mut alice, &mut world);
    assert_eq!(answer.code(), SUCCESS);
    assert_eq!(answer.relayed().len(), 1);
    let error = answer.address_error().unwrap();
    assert_eq!((error.family, error.code), (AddressFamily::V6, 440));
}

/// T54 with ADDRESS-ERROR-CODE, and the other family failing.
#[test]
fn half_a_dual_allocation_names_the_family_that_failed() {
    let setup = Setup {
        relays: vec![ip(RELAY_V6)],
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    let request = alice
        .build(Method::ALLOCATE)
        .with(&taciturn::proto::RequestedTransport::UDP)
        .with(&AND_V6);
    let bytes = alice.sign(request);
    let answer = world.send(&alice, &bytes).answer();
    assert_eq!(answer.relayed()[0].ip(), ip(RELAY_V6));
    let error = answer.address_error().unwrap();
    assert_eq!((error.family, error.code), (AddressFamily::V4, 440));
    assert_eq!(world.send(&alice, &bytes).answer(), answer);
}

#[test]
fn a_family_that_ran_out_is_named_with_508() {
    let setup = Setup {
        ports: 50_000..=50_000,
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let mut bob = world.client("bob", BOB);
    alice.allocate_with(&mut world, |r| r.with(&V6));
    let answer = dual(&mut bob, &mut world);
    let error = answer.address_error().unwrap();
    assert_eq!((error.family, error.code), (AddressFamily::V6, 508));

    let mut carol = world.client("carol", "198.51.100.3:3000");
    assert_eq!(dual(&mut carol, &mut world).code(), 508, "neither is left");
}

#[test]
fn wishes_that_contradict_each_other_are_bad_requests() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let both = alice.allocate_with(&mut world, |r| r.with(&V4).with(&AND_V6));
    assert_eq!(both.code(), 400);
    let reserve = EvenPort {
        reserve_next: Reserve::Yes,
    };
    let pair = alice.allocate_with(&mut world, |r| r.with(&reserve).with(&AND_V6));
    assert_eq!(pair.code(), 400);
}

/// T55
#[test]
fn a_peer_of_a_family_without_relayed_address_is_a_mismatch() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    let [v4, v6] = ["203.0.113.7:50000", "[2001:db8:7::7]:50000"].map(at);
    assert_eq!(alice.permit(&mut world, &[v6]), 443);
    assert_eq!(alice.permit(&mut world, &[v4, v6]), 443);
    assert_eq!(alice.bind(&mut world, 0x4000, v6), 443);
    let outcome = alice.send_to(&mut world, v6, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::Family));
    let outcome = alice.send_to(&mut world, v4, b"x").dropped();
    assert_eq!(
        outcome,
        Some(DropReason::NoPermission),
        "nothing was permitted"
    );

    let refreshed = alice.request(&mut world, Method::REFRESH, |r| r.with(&V6));
    assert_eq!(refreshed.code(), 443);
}

/// RFC 8656 §8.2: a family that nobody knows is none of the allocation's either.
#[test]
fn a_refresh_of_a_family_that_the_allocation_lacks_is_a_mismatch_and_changes_nothing() {
    for asked in [None, Some(0), Some(3_600)] {
        let mut world = World::new();
        let mut alice = world.client("alice", ALICE);
        alice.allocate(&mut world);
        for family in [2, 3, 0] {
            let refreshed = alice.request(&mut world, Method::REFRESH, |r| {
                let r = r.raw(V4_TYPE, &[family, 0, 0, 0]);
                match asked {
                    Some(seconds) => r.with(&Lifetime(seconds)),
                    None => r,
                }
            });
            assert_eq!(refreshed.code(), 443, "{family}");
        }
        world.advance(599);
        assert_eq!(world.allocations(), 1);
        world.advance(1);
        assert_eq!(world.allocations(), 0);
    }
}

/// RFC 8656 §8.2: without a family both are refreshed, and both are given up.
#[test]
fn a_refresh_without_a_family_is_for_both() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.allocate_dual(&mut world);
    world.advance(300);
    assert_eq!(alice.refresh(&mut world, None).lifetime(), Some(600));
    world.advance(599);
    assert_eq!(world.servers[0].relayed().count(), 2);
    assert_eq!(alice.refresh(&mut world, Some(0)).lifetime(), Some(0));
    assert_eq!(world.allocations(), 0);
}

#[test]
fn a_family_of_a_dual_allocation_is_refreshed_alone() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let [_, a6] = alice.allocate_dual(&mut world);
    world.advance(300);
    let refreshed = alice.request(&mut world, Method::REFRESH, |r| r.with(&V6));
    assert_eq!(refreshed.lifetime(), Some(600));
    world.advance(300);
    let left: Vec<_> = world.servers[0]
        .relayed()
        .map(|(_, at)| at.socket_addr())
        .collect();
    assert_eq!(left, [a6], "IPv4 ran out");
    let peer = at("203.0.113.7:50000");
    assert_eq!(alice.permit(&mut world, &[peer]), 443);
    assert_eq!(world.allocations(), 1);
    world.advance(300);
    assert_eq!(world.allocations(), 0);
}

#[test]
fn a_family_of_a_dual_allocation_is_given_up_alone() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let [a4, _] = alice.allocate_dual(&mut world);
    let give_up = alice.request(&mut world, Method::REFRESH, |r| {
        r.with(&V6).with(&Lifetime(0))
    });
    assert_eq!(give_up.lifetime(), Some(0));
    let left: Vec<_> = world.servers[0]
        .relayed()
        .map(|(_, at)| at.socket_addr())
        .collect();
    assert_eq!(left, [a4]);
    assert!(world.events(0).len() == 1, "the allocation lives on");
    let again = alice.request(&mut world, Method::REFRESH, |r| r.with(&V6));
    assert_eq!(again.code(), 443);
    assert_eq!(alice.refresh(&mut world, Some(0)).code(), SUCCESS);
    assert_eq!(world.allocations(), 0);
}
