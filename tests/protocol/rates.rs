//! Rates of bits and packets: what comes too fast is dropped and counted, and nothing ends for it.

use taciturn::turn::credential::{Claims, Label};
use taciturn::turn::rates::{Flow, Pace, RateLimits};
use taciturn::turn::stats::{Direction, DropReason, Limit, Path};
use taciturn::turn::{Limits, RelayedAddr, WorkerId};

use crate::world::call::{ALICE, BOB, CAROL, Call, ELSEWHERE};
use crate::world::client::{Client, SUCCESS};
use crate::world::message::Received;
use crate::world::servers::{Outcome, Setup, World};

const fn packets(per_second: u64, burst: u64) -> Flow {
    Flow {
        bits: None,
        packets: Some(Pace { per_second, burst }),
    }
}

fn setup(rates: RateLimits) -> Setup {
    Setup {
        limits: Limits {
            rates,
            ..Limits::default()
        },
        ..Setup::default()
    }
}

fn of_allocation(allocation: Flow) -> Setup {
    setup(RateLimits {
        allocation,
        ..RateLimits::default()
    })
}

/// How many of `n` packets from one to the other arrive; the others are over the rate.
fn arrive(world: &mut World, from: &mut Client, to: &Client, n: usize, len: usize) -> usize {
    let relayed = world.relayed_of(to);
    let sent: Vec<Outcome> = (0..n)
        .map(|_| from.send_to(world, relayed, &vec![7; len]))
        .collect();
    sent.into_iter()
        .filter(|outcome| match outcome.dropped() {
            None => true,
            Some(reason) => {
                assert_eq!(reason, DropReason::OverRate);
                false
            }
        })
        .count()
}

fn says(call: &mut Call, n: usize, len: usize) -> usize {
    let bob = call.bob.clone();
    arrive(&mut call.world, &mut call.alice, &bob, n, len)
}

#[test]
fn packets_over_the_rate_are_dropped_and_counted_and_the_call_goes_on() {
    let mut call = Call::permitted(of_allocation(packets(10, 20)));
    assert_eq!(says(&mut call, 50, 100), 20);
    assert_eq!(call.world.drops(DropReason::OverRate), 30);
    assert_eq!(call.world.limited(Limit::AllocationPackets), 30);
    let dropped = |relayed, direction| {
        let house = call.world.house.borrow();
        house.landings[&RelayedAddr::new(relayed)]
            .meters()
            .dropped(direction)
    };
    let (from, to) = (call.a, call.b);
    assert_eq!(
        (dropped(from, Direction::In), dropped(to, Direction::Out)),
        (30, 30)
    );
    assert_eq!(
        (dropped(from, Direction::Out), dropped(to, Direction::In)),
        (0, 0)
    );
    for _ in 0..3 {
        call.world.advance(1);
        assert_eq!(says(&mut call, 50, 100), 10);
    }
    let (a, b) = (call.a, call.b);
    let went = call.world.meters(a, Path::Hairpin, Direction::In);
    assert_eq!(went, (50, 5_000), "only what goes is counted as relayed");
    let came = call.world.meters(b, Path::Hairpin, Direction::Out);
    assert_eq!(came, (50, 5_000));
    assert_eq!(call.alice.refresh(&mut call.world, None).code(), SUCCESS);
}

/// T31: neither a user's nor a tenant's rate begins anew with another allocation.
#[test]
fn who_comes_again_finds_the_bucket_as_it_was_left() {
    let of_user = RateLimits {
        user: packets(10, 20),
        ..RateLimits::default()
    };
    let of_tenant = RateLimits {
        tenant: packets(10, 20),
        ..RateLimits::default()
    };
    for limits in [of_user, of_tenant] {
        let mut world = setup(limits).world();
        let tenant = |claims: &mut Claims| claims.tenant = Label::new("north");
        let mut alice = world.sealed_client("alice", ALICE, tenant);
        let mut bob = world.client("bob", BOB);
        let b = bob.allocate(&mut world);
        let mut went = Vec::new();
        for _ in 0..3 {
            let a = alice.allocate(&mut world);
            assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
            assert_eq!(bob.permit(&mut world, &[a]), SUCCESS);
            went.push(arrive(&mut world, &mut alice, &bob, 30, 100));
            assert_eq!(alice.refresh(&mut world, Some(0)).code(), SUCCESS);
        }
        assert_eq!(went, [20, 0, 0], "{limits:?}");
        world.advance(1);
    }
}

#[test]
fn bits_are_counted_by_payload() {
    let flow = Flow {
        bits: Some(Pace::of_bits(8_000_000)),
        packets: None,
    };
    let mut call = Call::permitted(of_allocation(flow));
    // A quarter of a second's worth: 250,000 bytes.
    assert_eq!(says(&mut call, 300, 1_000), 250);
    assert_eq!(call.world.limited(Limit::AllocationRate), 50);
    call.world.advance(1);
    assert_eq!(says(&mut call, 300, 1_000), 250);
}

#[test]
fn a_hairpin_counts_on_both_sides() {
    let mut call = Call::permitted(of_allocation(packets(1, 30)));
    assert_eq!(says(&mut call, 10, 10), 10);
    let (alice, mut bob) = (call.alice.clone(), call.bob.clone());
    // Bob has taken ten, and may send twenty more; Alice has sent ten.
    assert_eq!(arrive(&mut call.world, &mut bob, &alice, 30, 10), 20);
    assert_eq!(says(&mut call, 10, 10), 0);
}

#[test]
fn who_is_over_the_rate_of_the_receiver_alone_keeps_its_own() {
    let mut world = of_allocation(Flow::default()).world();
    let mut alice = world.client("alice", ALICE);
    let mut bob = world.sealed_client("bob", BOB, |claims| claims.limits.packets = Some(5));
    let mut carol = world.client("carol", CAROL);
    let [a, b, c] = [&mut alice, &mut bob, &mut carol].map(|client| client.allocate(&mut world));
    assert_eq!(alice.permit(&mut world, &[b, c]), SUCCESS);
    assert_eq!(bob.permit(&mut world, &[a]), SUCCESS);
    assert_eq!(carol.permit(&mut world, &[a]), SUCCESS);
    assert_eq!(arrive(&mut world, &mut alice, &bob, 20, 9), 5);
    assert_eq!(arrive(&mut world, &mut alice, &carol, 20, 9), 20);
    assert_eq!(world.limited(Limit::AllocationPackets), 15);
}

#[test]
fn the_allocations_of_a_user_and_of_a_tenant_share_a_rate() {
    let mut world = setup(RateLimits {
        user: packets(1, 30),
        tenant: packets(1, 45),
        ..RateLimits::default()
    })
    .world();
    let north = |world: &World, user: &str, addr: &str| {
        world.sealed_client(user, addr, |claims| claims.tenant = Label::new("north"))
    };
    let mut first = north(&world, "alice", "198.51.100.1:1");
    let mut second = north(&world, "alice", "198.51.100.1:2");
    let mut third = north(&world, "bob", "198.51.100.2:1");
    let mut carol = world.client("carol", CAROL);
    let c = carol.allocate(&mut world);
    for client in [&mut first, &mut second, &mut third] {
        let relayed = client.allocate(&mut world);
        assert_eq!(client.permit(&mut world, &[c]), SUCCESS);
        assert_eq!(carol.permit(&mut world, &[relayed]), SUCCESS);
    }
    // Carol has no tenant, and a rate of her own as a user, which is thirty in all.
    assert_eq!(arrive(&mut world, &mut first, &carol, 20, 9), 20);
    assert_eq!(arrive(&mut world, &mut second, &carol, 20, 9), 10);
    assert_eq!(world.limited(Limit::UserPackets), 10);
    world.advance(10);
    assert_eq!(arrive(&mut world, &mut third, &carol, 20, 9), 10);
    world.advance(30);
    // Alice has thirty again and Carol too; of north's forty-five, forty are left after a second.
    assert_eq!(arrive(&mut world, &mut first, &carol, 40, 9), 30);
}

#[test]
fn the_smaller_rate_of_claim_and_configuration_counts() {
    for (claimed, most) in [(Some(5), 5), (Some(500), 20), (None, 20), (Some(0), 0)] {
        let mut world = of_allocation(packets(10, 20)).world();
        let mut alice = world.sealed_client("alice", ALICE, |claims| {
            claims.limits.packets = claimed;
        });
        let mut bob = world.client("bob", BOB);
        let (a, b) = (alice.allocate(&mut world), bob.allocate(&mut world));
        assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
        assert_eq!(bob.permit(&mut world, &[a]), SUCCESS);
        assert_eq!(arrive(&mut world, &mut alice, &bob, 60, 9), most);
    }
}

#[test]
fn what_comes_from_a_peer_outside_and_goes_there_is_limited_too() {
    let setup = Setup {
        policy: taciturn::turn::policy::PeerPolicy::Any,
        ..of_allocation(packets(1, 30))
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let relayed = alice.allocate(&mut world);
    let peer = "1.1.1.1:9";
    assert_eq!(
        alice.permit(&mut world, &[crate::world::servers::at(peer)]),
        SUCCESS
    );
    let went = (0..20).filter(|_| {
        let outcome = alice.send_to(&mut world, crate::world::servers::at(peer), b"out");
        outcome.dropped().is_none()
    });
    assert_eq!(went.count(), 20);
    let came = (0..20).filter(|_| {
        let outcome = world.receive_from_peer(relayed, peer, b"in");
        outcome.dropped().is_none()
    });
    assert_eq!(came.count(), 10);
    assert_eq!(world.drops(DropReason::OverRate), 10);
}

/// What does not fit its framing costs nothing.
#[test]
fn what_is_not_relayed_is_not_counted() {
    let mut call = Call::permitted(of_allocation(packets(1, 3)));
    let (bob, b) = (call.bob.clone(), call.b);
    for _ in 0..10 {
        let outcome = call.alice.send_to(&mut call.world, b, &vec![7; 65_480]);
        assert_eq!(outcome.dropped(), Some(DropReason::TooLarge));
    }
    assert_eq!(arrive(&mut call.world, &mut call.alice, &bob, 5, 9), 3);
}

#[test]
fn another_rate_holds_for_allocations_that_live() {
    let mut call = Call::permitted(of_allocation(packets(1, 5)));
    assert_eq!(says(&mut call, 20, 9), 5);
    call.world.reconfigure(&Setup::default());
    assert_eq!(says(&mut call, 100, 9), 100);
    call.world.reconfigure(&of_allocation(packets(1, 10)));
    assert_eq!(says(&mut call, 100, 9), 10);
    let shared = setup(RateLimits {
        user: packets(1, 7),
        ..RateLimits::default()
    });
    call.world.reconfigure(&shared);
    assert_eq!(says(&mut call, 100, 9), 7);
}

/// T31: a worker that has not heard of the rules yet lifts no rate for those that have.
#[test]
fn workers_that_take_up_a_shared_rate_one_after_the_other_share_one_bucket() {
    let of_user = RateLimits {
        user: packets(1, 20),
        ..RateLimits::default()
    };
    let of_tenant = RateLimits {
        tenant: packets(1, 20),
        ..RateLimits::default()
    };
    for limits in [of_user, of_tenant] {
        let workers = |rates| Setup {
            workers: 2,
            ..setup(rates)
        };
        let mut world = workers(RateLimits::default()).world();
        let party = |world: &World, addr, worker| {
            let mut claims = world.claims("alice");
            claims.tenant = Label::new("north");
            let mut client = world.sealed(&claims, addr);
            client.worker = WorkerId(worker);
            client
        };
        let [mut first, mut second] = [(ALICE, 0), (CAROL, 1)].map(|(at, w)| party(&world, at, w));
        let mut bob = world.client("bob", BOB);
        let at_bob = bob.allocate(&mut world);
        let at_first = first.allocate(&mut world);

        world.announce(&workers(limits));
        world.reconfigure_one(0);
        let at_second = second.allocate(&mut world);
        world.reconfigure_one(1);

        assert_eq!(bob.permit(&mut world, &[at_first, at_second]), SUCCESS);
        for sender in [&mut first, &mut second] {
            assert_eq!(sender.permit(&mut world, &[at_bob]), SUCCESS);
        }
        assert_eq!(arrive(&mut world, &mut first, &bob, 15, 9), 15);
        assert_eq!(arrive(&mut world, &mut second, &bob, 15, 9), 5);
        assert_eq!(arrive(&mut world, &mut first, &bob, 15, 9), 0);

        // Nor does one that goes by them for longer keep a rate in force that is lifted.
        world.announce(&workers(RateLimits::default()));
        world.reconfigure_one(0);
        let mut third = party(&world, ELSEWHERE, 1);
        third.allocate(&mut world);
        for sender in [&mut first, &mut second] {
            assert_eq!(arrive(&mut world, sender, &bob, 50, 9), 50);
        }
        world.reconfigure_one(1);
        assert_eq!(arrive(&mut world, &mut second, &bob, 50, 9), 50);
    }
}

/// Control messages go whatever the rate: a client over it can still refresh, and end.
#[test]
fn requests_are_not_limited() {
    let mut call = Call::permitted(of_allocation(packets(1, 1)));
    assert_eq!(says(&mut call, 9, 9), 1);
    for _ in 0..20 {
        assert_eq!(call.alice.refresh(&mut call.world, None).code(), SUCCESS);
    }
    let received = call.world.drops(DropReason::OverRate);
    assert_eq!(received, 8);
    call.world.advance(2);
    let a = call.a;
    let outcome = call.alice_says(b"x").at(&call.bob);
    assert_eq!(outcome, Received::Data(a, b"x".to_vec()));
}
