//! Allocations per user: exact, over all workers, and what makes way when they are used up.

use taciturn::proto::{Method, ReservationToken};
use taciturn::turn::stats::DropReason;
use taciturn::turn::{EndReason, Event, RelayedAddr};

use crate::world::call::BOB;
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{BEGIN_UNIX, STATIC_USER, Setup, World, at};

fn with_limit(user_allocations: u32) -> World {
    Setup {
        workers: 2,
        ..Setup::with_quota(user_allocations)
    }
    .world()
}

fn alice_at(world: &World, port: u16) -> Client {
    let worker = port % 2;
    world
        .client("alice", &format!("198.51.100.1:{port}"))
        .on(worker)
}

fn try_allocate(world: &mut World, client: &mut Client) -> u16 {
    client.allocate_with(world, |r| r).code()
}

fn held(world: &World) -> usize {
    world.house.borrow().users.held(world.subject("alice"))
}

/// Why allocations of a worker ended.
fn closed(world: &mut World, worker: u16) -> Vec<EndReason> {
    let reason = |event| match event {
        Event::Opened { .. } | Event::Moved { .. } => None,
        Event::Closed { reason, .. } => Some(reason),
    };
    world
        .events(worker)
        .into_iter()
        .filter_map(reason)
        .collect()
}

/// T31 and T55
#[test]
fn the_quota_is_exact_over_workers_and_credentials() {
    let mut world = with_limit(3);
    let mut clients: Vec<_> = (1..=5).map(|port| alice_at(&world, port)).collect();
    let mut renewed = world.client_until("alice", "198.51.100.1:9", BEGIN_UNIX + 99);
    for client in &mut clients[..3] {
        assert_eq!(try_allocate(&mut world, client), SUCCESS);
    }
    assert_eq!(try_allocate(&mut world, &mut clients[3]), 486);
    assert_eq!(try_allocate(&mut world, &mut renewed), 486);
    let mut bob = world.client("bob", BOB);
    assert_eq!(try_allocate(&mut world, &mut bob), SUCCESS, "his own quota");

    clients[0].refresh(&mut world, Some(0));
    assert_eq!(try_allocate(&mut world, &mut clients[3]), SUCCESS);
    assert_eq!(try_allocate(&mut world, &mut clients[4]), 486);
    assert_eq!((held(&world), world.allocations()), (3, 4));
    let counts = world.house.borrow().ports.counts();
    assert_eq!(counts.held, 4, "a refusal holds no port");
}

/// T31
#[test]
fn what_expired_or_failed_is_not_counted() {
    let mut world = with_limit(1);
    let mut first = alice_at(&world, 1);
    let mut second = alice_at(&world, 2);
    for _ in 0..3 {
        let tcp = first.request(&mut world, Method::ALLOCATE, |r| {
            r.raw_number(0x19, &[6, 0, 0, 0])
        });
        assert_eq!(tcp.code(), 442);
        let token = first.allocate_with(&mut world, |r| r.raw_number(0x22, &[1; 8]));
        assert_eq!(token.code(), 508);
    }
    assert_eq!(held(&world), 0);
    assert_eq!(try_allocate(&mut world, &mut first), SUCCESS);
    world.advance(600);
    assert_eq!(held(&world), 0);
    assert_eq!(try_allocate(&mut world, &mut second), SUCCESS);
}

/// T56
#[test]
fn a_full_quota_replaces_an_allocation_that_has_been_silent() {
    let mut world = with_limit(2);
    let mut before = alice_at(&world, 1);
    let mut other = alice_at(&world, 2);
    let mut bob = world.client("bob", BOB);
    let old = before.allocate(&mut world);
    other.allocate(&mut world);
    let b = bob.allocate(&mut world);
    assert_eq!(before.permit(&mut world, &[b]), SUCCESS);
    assert_eq!(bob.permit(&mut world, &[old]), SUCCESS);
    world.advance(29);
    let mut after = alice_at(&world, 4);
    assert_eq!(try_allocate(&mut world, &mut after), 486);
    assert_eq!(other.refresh(&mut world, None).code(), SUCCESS);
    world.advance(1);
    assert_eq!(
        try_allocate(&mut world, &mut after),
        SUCCESS,
        "30 s of silence"
    );
    assert_eq!(held(&world), 2);

    // The other worker has not heard of it yet, but nothing goes by it any more.
    assert_eq!(world.house.borrow().condemned.len(), 1);
    let outcome = bob.send_to(&mut world, old, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NoLanding));
    let outcome = before.send_to(&mut world, b, b"x");
    assert!(outcome.dropped().is_some(), "{outcome:?}");

    world.settle();
    assert_eq!(closed(&mut world, 1), [EndReason::Replaced]);
    assert_eq!((held(&world), world.allocations()), (2, 3));
    assert_eq!(world.house.borrow().ports.counts().resting, 1);
    assert_eq!(before.refresh(&mut world, None).code(), 437);
    assert_eq!(other.refresh(&mut world, None).code(), SUCCESS);
}

/// T56
#[test]
fn whoever_gives_a_sign_of_life_is_not_replaced() {
    let mut world = with_limit(1);
    let mut alice = alice_at(&world, 1);
    let mut rival = alice_at(&world, 2);
    let mut bob = world.client("bob", BOB);
    let a = alice.allocate(&mut world);
    let b = bob.allocate(&mut world);
    assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
    assert_eq!(alice.bind(&mut world, 0x4000, b), SUCCESS);
    assert_eq!(bob.permit(&mut world, &[a]), SUCCESS);
    for sign in 0..4 {
        world.advance(25);
        match sign {
            0 => drop(alice.send_to(&mut world, b, b"x").at(&bob)),
            1 => drop(alice.channel_data(&mut world, 0x4000, b"x").at(&bob)),
            2 => assert_eq!(alice.permit(&mut world, &[b]), SUCCESS),
            _ => assert_eq!(alice.refresh(&mut world, None).code(), SUCCESS),
        }
        world.advance(25);
        assert_eq!(try_allocate(&mut world, &mut rival), 486, "sign {sign}");
    }
    // What others send to it is none.
    world.advance(4);
    bob.send_to(&mut world, a, b"x").at(&alice);
    world.advance(1);
    assert_eq!(try_allocate(&mut world, &mut rival), SUCCESS);
}

/// T56: a request that anybody can send from a forged source keeps nothing alive.
#[test]
fn an_unsigned_request_is_no_sign_of_life() {
    let mut world = with_limit(1);
    let mut alice = alice_at(&world, 1);
    let mut rival = alice_at(&world, 2);
    alice.allocate(&mut world);
    world.advance(20);
    let bytes = alice.build(Method::REFRESH).bytes();
    assert_eq!(world.send(&alice, &bytes).answer().code(), 401);
    world.advance(10);
    assert_eq!(try_allocate(&mut world, &mut rival), SUCCESS);
}

/// T56: the one silent longest goes first, one for each newcomer.
#[test]
fn of_several_silent_allocations_the_longest_silent_makes_way() {
    let mut world = with_limit(2);
    let mut first = alice_at(&world, 2);
    let mut second = alice_at(&world, 4);
    first.allocate(&mut world);
    world.advance(5);
    second.allocate(&mut world);
    world.advance(40);
    let mut third = alice_at(&world, 6);
    assert_eq!(try_allocate(&mut world, &mut third), SUCCESS);
    world.settle();
    assert_eq!(first.refresh(&mut world, None).code(), 437);
    assert_eq!(second.refresh(&mut world, None).code(), SUCCESS);
    let mut fourth = alice_at(&world, 8);
    assert_eq!(try_allocate(&mut world, &mut fourth), 486);
}

/// T56: what was condemned and ends by itself meanwhile is released once.
#[test]
fn a_condemned_allocation_may_come_back_before_the_notice_does() {
    let mut world = with_limit(1);
    let mut before = alice_at(&world, 1);
    before.allocate(&mut world);
    world.advance(30);
    let mut after = alice_at(&world, 2);
    assert_eq!(try_allocate(&mut world, &mut after), SUCCESS);
    assert_eq!(before.refresh(&mut world, Some(600)).code(), 437);
    assert_eq!(try_allocate(&mut world, &mut before), 486);
    world.settle();
    assert_eq!(closed(&mut world, 1), [EndReason::Replaced]);
    assert_eq!((held(&world), world.allocations()), (1, 1));
    assert_eq!(after.refresh(&mut world, None).code(), SUCCESS);
}

/// T56
#[test]
fn an_allocate_that_fails_makes_nobody_make_way() {
    let mut world = with_limit(1);
    let mut silent = alice_at(&world, 2);
    let relayed = silent.allocate(&mut world);
    world.advance(60);
    let mut other = alice_at(&world, 3);
    let answer = other.allocate_with(&mut world, |request| {
        request.with(&ReservationToken([7; 8]))
    });
    assert_eq!(answer.code(), 508);
    world.settle();
    assert_eq!((held(&world), world.allocations()), (1, 1));
    let landings = &world.house.borrow().landings;
    assert!(landings.contains_key(&RelayedAddr::new(relayed)));
}

/// Minting "relay-box" does not make its holder the static user of that name.
#[test]
fn a_static_user_and_a_minted_one_of_the_same_name_are_two() {
    let mut world = with_limit(1);
    let (name, password) = STATIC_USER;
    let mut fixed = Client::new(at("198.51.100.1:2"), name, password);
    assert_eq!(try_allocate(&mut world, &mut fixed), SUCCESS);
    let mut minted = world.client(name, "198.51.100.2:2");
    assert_eq!(try_allocate(&mut world, &mut minted), SUCCESS);
}
