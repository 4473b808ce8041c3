//! Allocate: what is asked for, what is given, and what is given back when it fails.

use taciturn::proto::{
    AttributeType, EvenPort, Lifetime, Method, RequestedTransport, Reserve, UnknownAttributes,
};
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::ports::PortCounts;
use taciturn::turn::stats::DropReason;
use taciturn::turn::{Bind, EndReason, Event};

use crate::world::call::ALICE;
use crate::world::client::SUCCESS;
use crate::world::message::Build;
use crate::world::servers::{Outcome, RELAY_V4, Setup, World, ip};

const EVEN_AND_NEXT: EvenPort = EvenPort {
    reserve_next: Reserve::Yes,
};

fn counts(world: &World) -> PortCounts {
    world.house.borrow().ports.counts()
}

#[test]
fn a_success_tells_relayed_address_lifetime_and_mapped_address() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let answer = alice.allocate_with(&mut world, |request| request);
    assert_eq!(answer.code(), SUCCESS);
    let [relayed] = answer.relayed()[..] else {
        panic!("one relayed address");
    };
    assert_eq!(relayed.ip(), ip(RELAY_V4));
    assert!(relayed.port() >= 49_152);
    assert_eq!(answer.lifetime(), Some(600));
    assert_eq!(answer.mapped(), Some(alice.addr()));
    assert_eq!(answer.token(), None);
    let [Event::Opened { tuple, .. }] = world.events(0)[..] else {
        panic!("one event");
    };
    assert_eq!(tuple, alice.tuple);
}

/// T54
#[test]
fn a_second_allocate_is_a_mismatch() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    assert_eq!(alice.allocate_with(&mut world, |r| r).code(), 437);
    assert_eq!(world.allocations(), 1);
}

/// T54
#[test]
fn a_retransmitted_allocate_gets_the_same_success() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    let request = alice
        .build(Method::ALLOCATE)
        .with(&RequestedTransport::UDP)
        .with(&EVEN_AND_NEXT);
    let bytes = alice.sign(request);
    let first = world.send(&alice, &bytes).answer();
    assert_eq!(first.code(), SUCCESS);
    assert!(first.token().is_some());
    let again = world.send(&alice, &bytes).answer();
    assert_eq!(again, first);

    world.advance(100);
    let later = world.send(&alice, &bytes).answer();
    assert_eq!(later.relayed(), first.relayed());
    assert_eq!(later.token(), first.token());
    assert_eq!(later.lifetime(), Some(500), "what is left of it");
    assert_eq!(world.allocations(), 1);
}

/// T54: the 5-tuple is free once its allocation has ended, whether or not a worker noticed.
#[test]
fn a_5_tuple_is_free_again_at_the_deadline() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    let request = alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP);
    let bytes = alice.sign(request);
    let first = world.send(&alice, &bytes).answer();
    world.stall(600);
    let again = world.send(&alice, &bytes).answer();
    assert_eq!(again.code(), SUCCESS);
    assert_ne!(again.relayed(), first.relayed());
    assert_eq!(again.lifetime(), Some(600));
    assert_eq!(world.allocations(), 1);
}

/// T55
#[test]
fn what_cannot_be_asked_for_is_refused_with_its_code() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let transport = |value: &[u8]| {
        let value = value.to_vec();
        move |r: Build| r.raw(AttributeType::REQUESTED_TRANSPORT, &value)
    };
    for (code, value) in [
        (442, &[6, 0, 0, 0][..]),
        (442, &[99, 0, 0, 0]),
        (400, &[17]),
        (400, &[]),
    ] {
        let answer = alice.request(&mut world, Method::ALLOCATE, transport(value));
        assert_eq!(answer.code(), code, "{value:?}");
        assert!(alice.has_signed(&answer));
    }
    assert_eq!(
        alice.request(&mut world, Method::ALLOCATE, |r| r).code(),
        400
    );

    let cases: [(u16, AttributeType, &[u8]); 9] = [
        (440, AttributeType::REQUESTED_ADDRESS_FAMILY, &[3, 0, 0, 0]),
        (400, AttributeType::REQUESTED_ADDRESS_FAMILY, &[1]),
        (440, AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[9, 0, 0, 0]),
        (400, AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[1, 0, 0, 0]),
        (400, AttributeType::EVEN_PORT, &[]),
        (400, AttributeType::LIFETIME, &[0, 1]),
        (400, AttributeType::RESERVATION_TOKEN, &[1; 7]),
        (508, AttributeType::RESERVATION_TOKEN, &[1; 8]),
        (420, AttributeType::new(0x7ABC), &[]),
    ];
    for (code, kind, value) in cases {
        let answer = alice.allocate_with(&mut world, |r| r.raw(kind, value));
        assert_eq!(answer.code(), code, "{kind:?} {value:?}");
    }
    assert_eq!(world.allocations(), 0);
    assert_eq!(counts(&world).held, 0);
}

/// T47
#[test]
fn unknown_required_attributes_are_listed() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let answer = alice.allocate_with(&mut world, |r| {
        r.raw_number(0x7001, &[1])
            .raw_number(0xC001, &[1])
            .raw_number(0x0024, &[])
    });
    assert_eq!(answer.code(), 420);
    let unknown = answer.find::<UnknownAttributes<'_>>().unwrap();
    let unknown: Vec<u16> = unknown.iter().map(AttributeType::value).collect();
    assert_eq!(unknown, [0x7001, 0x0024]);
    assert!(alice.has_signed(&answer));

    let answer = alice.allocate_with(&mut world, |r| r.raw_number(0xFFFE, b"?"));
    assert_eq!(answer.code(), SUCCESS, "what is optional is ignored");
}

/// T47
#[test]
fn a_list_of_unknown_attributes_stays_small() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let answer = alice.allocate_with(&mut world, |request| {
        (0x7000..0x7100).fold(request, |r, kind| r.raw_number(kind, &[]))
    });
    assert_eq!(answer.code(), 420);
    assert!(answer.0.len() <= 128, "{}", answer.0.len());
}

/// T34
#[test]
fn a_lifetime_is_clamped_between_default_and_maximum() {
    for (asked, given) in [
        (0, 600),
        (1, 600),
        (601, 601),
        (3_600, 3_600),
        (u32::MAX, 3_600),
    ] {
        let mut world = World::new();
        let mut alice = world.client("alice", ALICE);
        let answer = alice.allocate_with(&mut world, |r| r.with(&Lifetime(asked)));
        assert_eq!(answer.lifetime(), Some(given), "{asked}");
    }
}

#[test]
fn a_maximum_below_the_default_holds() {
    let setup = Setup {
        allocation_lifetime: 120,
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let answer = alice.allocate_with(&mut world, |r| r);
    assert_eq!(answer.lifetime(), Some(120));
    assert_eq!(alice.refresh(&mut world, Some(600)).lifetime(), Some(120));
}

#[test]
fn a_socket_is_opened_only_where_the_policy_may_need_one() {
    let networks = PeerPolicy::Networks(vec!["1.1.1.0/24".parse().unwrap()]);
    for (policy, bind, opened) in [
        (PeerPolicy::Relay, Bind::Auto, false),
        (PeerPolicy::Call, Bind::Auto, false),
        (networks, Bind::Auto, true),
        (PeerPolicy::Any, Bind::Auto, true),
        (PeerPolicy::Relay, Bind::Always, true),
    ] {
        let setup = Setup {
            policy,
            bind,
            ..Setup::default()
        };
        let mut world = setup.world();
        let mut alice = world.client("alice", ALICE);
        let a = alice.allocate(&mut world);
        assert_eq!(world.has_socket(a), opened);
        alice.refresh(&mut world, Some(0));
        assert!(!world.has_socket(a));
    }
}

#[test]
fn the_same_client_has_an_allocation_on_each_listener() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let mut other = alice.clone();
    other.tuple.listener = taciturn::turn::ListenerId(7);
    let (first, second) = (alice.allocate(&mut world), other.allocate(&mut world));
    assert_ne!(first, second);
    assert_eq!(world.allocations(), 2);
}

#[test]
fn a_5_tuple_that_another_worker_owns_is_handed_to_it() {
    let setup = Setup {
        workers: 2,
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE).on(1);
    alice.allocate(&mut world);
    let owner = alice.worker;
    let stray = alice.clone().on(0).worker;
    let request = alice.build(Method::REFRESH);
    let bytes = alice.sign(request);
    let peer = "203.0.113.7:50000".parse().unwrap();
    let indication = alice.send_indication(peer, b"x").bytes();
    let channel_data = crate::world::client::channel_data(0x4000, b"x");
    for bytes in [&bytes, &indication, &channel_data] {
        let outcome = world.receive(stray, alice.tuple, bytes);
        assert_eq!(outcome, Outcome::Elsewhere(owner));
    }
    alice.refresh(&mut world, Some(0));
    let outcome = world.receive(stray, alice.tuple, &channel_data);
    assert_eq!(outcome.dropped(), Some(DropReason::NoAllocation));
}

#[test]
fn an_allocation_that_ends_says_how_and_when() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    world.advance(100);
    alice.refresh(&mut world, Some(0));
    alice.allocate(&mut world);
    world.advance(700);
    alice.allocate(&mut world);
    let now = world.clock.now;
    world.servers[0].stop(now);
    let ends: Vec<_> = world
        .events(0)
        .into_iter()
        .filter_map(|event| match event {
            Event::Opened { .. } | Event::Moved { .. } => None,
            Event::Closed { reason, lived, .. } => Some((reason, lived.as_secs())),
        })
        .collect();
    assert_eq!(
        ends,
        [
            (EndReason::Closed, 100),
            (EndReason::Expired, 700),
            (EndReason::Stopped, 0)
        ]
    );
    assert!(world.house.borrow().landings.is_empty());
    assert_eq!(counts(&world).held, 0);
}
