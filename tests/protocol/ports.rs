//! Relay ports: parity, reservations, rest, and what is given back when something fails.

use std::collections::HashSet;

use taciturn::proto::{AddressFamily, EvenPort, RequestedAddressFamily, ReservationToken, Reserve};
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::ports::PortCounts;
use taciturn::turn::stats::DropReason;

use crate::world::call::{ALICE, BOB, CAROL};
use crate::world::client::SUCCESS;
use crate::world::servers::{Setup, World};

const EVEN: EvenPort = EvenPort {
    reserve_next: Reserve::No,
};
const EVEN_AND_NEXT: EvenPort = EvenPort {
    reserve_next: Reserve::Yes,
};

fn counts(world: &World) -> PortCounts {
    world.house.borrow().ports.counts()
}

#[test]
fn an_even_port_is_even() {
    let mut world = World::new();
    for n in 1..=20 {
        let mut client = world.client("alice", &format!("198.51.100.1:{n}"));
        let answer = client.allocate_with(&mut world, |r| r.with(&EVEN));
        assert!(answer.relayed()[0].port().is_multiple_of(2));
        assert_eq!(answer.token(), None);
    }
    // T32: nothing was reserved beside them.
    assert_eq!(counts(&world).reserved, 0);
}

#[test]
fn a_reserved_port_is_claimed_on_another_worker() {
    let setup = Setup {
        workers: 2,
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut rtp = world.client("alice", ALICE);
    let mut rtcp = rtp.moved("198.51.100.1:1001").on(1);
    let first = rtp.allocate_with(&mut world, |r| r.with(&EVEN_AND_NEXT));
    let token = ReservationToken(first.token().unwrap());
    assert_eq!(counts(&world).reserved, 1);
    let second = rtcp.allocate_with(&mut world, |r| r.with(&token));
    assert_eq!(second.relayed()[0].port(), first.relayed()[0].port() + 1);
    assert_eq!(second.token(), None);
    assert_eq!(counts(&world).reserved, 0);

    // A token is good once.
    let mut third = rtp.moved("198.51.100.1:1002");
    assert_eq!(
        third.allocate_with(&mut world, |r| r.with(&token)).code(),
        508
    );
}

#[test]
fn a_reservation_holds_for_thirty_seconds() {
    for (seconds, code) in [(29, SUCCESS), (30, 508)] {
        let mut world = World::new();
        let mut alice = world.client("alice", ALICE);
        let mut later = alice.moved("198.51.100.1:1001");
        let first = alice.allocate_with(&mut world, |r| r.with(&EVEN_AND_NEXT));
        let token = ReservationToken(first.token().unwrap());
        world.advance(seconds);
        let answer = later.allocate_with(&mut world, |r| r.with(&token));
        assert_eq!(answer.code(), code, "{seconds}");
        assert_eq!(counts(&world).reserved, 0);
    }
}

#[test]
fn another_users_reservation_is_refused_and_stays() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let mut mallory = world.client("mallory", CAROL);
    let first = alice.allocate_with(&mut world, |r| r.with(&EVEN_AND_NEXT));
    let token = ReservationToken(first.token().unwrap());
    assert_eq!(
        mallory.allocate_with(&mut world, |r| r.with(&token)).code(),
        508
    );
    let mut second = alice.moved("198.51.100.1:1001");
    assert_eq!(
        second.allocate_with(&mut world, |r| r.with(&token)).code(),
        SUCCESS
    );
}

/// T55
#[test]
fn a_token_goes_with_no_other_wish() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let first = alice.allocate_with(&mut world, |r| r.with(&EVEN_AND_NEXT));
    let token = ReservationToken(first.token().unwrap());
    let mut other = alice.moved("198.51.100.1:1001");
    let with_even = other.allocate_with(&mut world, |r| r.with(&token).with(&EVEN));
    assert_eq!(with_even.code(), 400);
    let family = RequestedAddressFamily(AddressFamily::V4);
    let with_family = other.allocate_with(&mut world, |r| r.with(&token).with(&family));
    assert_eq!(with_family.code(), 400);
    assert_eq!(counts(&world).reserved, 1);
}

#[test]
fn a_port_that_another_process_holds_is_left_for_the_next() {
    let setup = Setup {
        ports: 50_000..=50_003,
        ..Setup::any()
    };
    let mut world = setup.world();
    world.house.borrow_mut().taken = HashSet::from([50_000, 50_001, 50_003]);
    let mut alice = world.client("alice", ALICE);
    assert_eq!(alice.allocate(&mut world).port(), 50_002);
    assert_eq!(counts(&world).held, 1);

    let mut bob = world.client("bob", BOB);
    assert_eq!(bob.allocate_with(&mut world, |r| r).code(), 508);
    assert_eq!(counts(&world).held, 1);
    assert_eq!(world.allocations(), 1);
}

/// T42
#[test]
fn a_server_without_descriptors_refuses_and_recovers() {
    let setup = Setup {
        policy: PeerPolicy::Any,
        ..Setup::with_quota(1)
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let all_free = counts(&world).free;
    world.house.borrow_mut().exhausted = true;
    for _ in 0..3 {
        assert_eq!(alice.allocate_with(&mut world, |r| r).code(), 508);
    }
    assert_eq!(counts(&world).held, 0);
    assert!(world.house.borrow().users.is_empty());
    assert!(world.house.borrow().landings.is_empty());
    assert!(world.house.borrow().owners.is_empty());

    world.house.borrow_mut().exhausted = false;
    let a = alice.allocate(&mut world);
    assert!(world.has_socket(a));
    alice.refresh(&mut world, Some(0));
    world.advance(61);
    alice.allocate(&mut world);
    assert_eq!(counts(&world).free, all_free - 1);
}

/// T55
#[test]
fn ports_that_ran_out_come_back() {
    let setup = Setup {
        ports: 50_000..=50_001,
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut clients = [ALICE, BOB, CAROL].map(|addr| world.client("alice", addr));
    let [one, two, three] = &mut clients;
    one.allocate(&mut world);
    two.allocate(&mut world);
    assert_eq!(three.allocate_with(&mut world, |r| r).code(), 508);
    one.refresh(&mut world, Some(0));
    assert_eq!(three.allocate_with(&mut world, |r| r).code(), SUCCESS);
}

/// T68
#[test]
fn a_freed_port_rests_and_late_packets_reach_nobody() {
    let setup = Setup {
        ports: 50_000..=50_031,
        ..Setup::any()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let mut bob = world.client("bob", BOB);
    alice.allocate(&mut world);
    let b = bob.allocate(&mut world);
    assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
    bob.refresh(&mut world, Some(0));
    for _ in 0..29 {
        world.advance(2);
        assert_ne!(bob.allocate(&mut world), b);
        bob.refresh(&mut world, Some(0));
        let late = alice.send_to(&mut world, b, b"late").dropped();
        assert_eq!(late, Some(DropReason::NoLanding));
    }
    assert_eq!(counts(&world).taken_early, 0);
    world.advance(2);
    let rested = (0..100).any(|n| {
        let mut client = bob.moved(&format!("198.51.100.2:{}", 3_000 + n));
        client
            .allocate_with(&mut world, |r| r)
            .relayed()
            .contains(&b)
    });
    assert!(rested, "it never comes back");
}

/// T33
#[test]
fn no_port_is_lost_over_many_allocations() {
    let setup = Setup {
        ports: 50_000..=50_063,
        policy: PeerPolicy::Any,
        ..Setup::with_quota(8)
    };
    let mut world = setup.world();
    let all = counts(&world).free;
    let mut clients: Vec<_> = (0..8)
        .map(|n| world.client("alice", &format!("198.51.100.1:{}", 1_000 + n)))
        .collect();
    for round in 0..50 {
        for (n, client) in clients.iter_mut().enumerate() {
            let code = match (round + n) % 3 {
                0 => client
                    .allocate_with(&mut world, |r| r.with(&EVEN_AND_NEXT))
                    .code(),
                1 => client.allocate_with(&mut world, |r| r).code(),
                _ => {
                    let family = RequestedAddressFamily(AddressFamily::V6);
                    client.allocate_with(&mut world, |r| r.with(&family)).code()
                }
            };
            assert_eq!(code, SUCCESS);
        }
        if round % 2 == 0 {
            for client in &mut clients {
                client.refresh(&mut world, Some(0));
            }
            world.advance(61);
        } else {
            world.advance(600);
            world.advance(61);
        }
        assert_eq!(world.allocations(), 0);
    }
    let mut probe = world.client("probe", CAROL);
    probe.allocate(&mut world);
    let counts = counts(&world);
    assert_eq!((counts.free, counts.held, counts.resting), (all - 1, 1, 0));
    assert!(world.house.borrow().sockets.len() == 1);
}

/// T69
#[test]
fn allocations_of_one_user_are_no_neighbours_more_often_than_by_chance() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let mut ports = vec![alice.allocate(&mut world).port()];
    for n in 1..400 {
        let mut client = alice.moved(&format!("198.51.100.1:{}", 1_000 + n));
        ports.push(client.allocate(&mut world).port());
    }
    let near = |pair: &[u16]| pair[0].abs_diff(pair[1]) <= 16;
    let near = ports.windows(2).filter(|pair| near(pair)).count();
    // One pair in 500 by chance, so fewer than one of 399; ten would be no chance.
    assert!(near < 10, "{near}");
}
