//! Refresh, and what happens when nobody refreshes.

use taciturn::turn::Bind;
use taciturn::turn::stats::DropReason;

use crate::world::call::{ALICE, Call, Framing};
use crate::world::client::SUCCESS;
use crate::world::servers::{Setup, World};

/// T34
#[test]
fn a_lifetime_is_clamped_between_default_and_maximum() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    for (asked, given) in [
        (None, 600),
        (Some(1), 600),
        (Some(777), 777),
        (Some(u32::MAX), 3_600),
    ] {
        let answer = alice.refresh(&mut world, asked);
        assert_eq!(answer.lifetime(), Some(given), "{asked:?}");
    }
}

/// T34
#[test]
fn a_lifetime_of_zero_ends_everything_at_once() {
    let mut call = Call::new(Setup::any());
    call.admit(Framing::Channel(0x4000), Framing::Channel(0x4000));
    let Call {
        mut world,
        mut alice,
        mut bob,
        a,
        b,
    } = call;
    let answer = alice.refresh(&mut world, Some(0));
    assert_eq!(answer.lifetime(), Some(0));
    assert!(!world.has_socket(a));
    assert_eq!(world.allocations(), 1);
    let outcome = bob.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NoLanding));
    let outcome = alice.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NoAllocation));
    assert_eq!(alice.refresh(&mut world, Some(0)).code(), 437);

    // Neither channel nor permission is left for a new allocation on the 5-tuple.
    let again = alice.allocate(&mut world);
    let outcome = alice.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NoChannel));
    let outcome = alice.send_to(&mut world, b, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NoPermission));
    bob.permit(&mut world, &[again]);
    let outcome = bob.send_to(&mut world, again, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NotPermitted));
}

/// T55
#[test]
fn without_an_allocation_every_request_is_a_mismatch() {
    let mut call = Call::new(Setup::default());
    let mut carol = call.world.client("carol", "198.51.100.3:3000");
    let world = &mut call.world;
    assert_eq!(carol.refresh(world, None).code(), 437);
    assert_eq!(carol.permit(world, &[call.a]), 437);
    assert_eq!(carol.bind(world, 0x4000, call.a), 437);
}

#[test]
fn an_allocation_that_nobody_refreshes_ends() {
    let mut call = Call::permitted(Setup::any());
    call.world.advance(599);
    assert_eq!(call.world.allocations(), 2);
    call.world.advance(1);
    assert_eq!(call.world.allocations(), 0);
    assert!(call.world.house.borrow().sockets.is_empty());
    assert_eq!(call.alice.refresh(&mut call.world, None).code(), 437);
}

#[test]
fn a_refreshed_allocation_lives_on() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    for _ in 0..10 {
        world.advance(599);
        assert_eq!(alice.refresh(&mut world, None).lifetime(), Some(600));
    }
    world.advance(600);
    assert_eq!(world.allocations(), 0);
}

#[test]
fn at_its_deadline_an_allocation_is_over_even_if_no_worker_notices() {
    let setup = Setup {
        bind: Bind::Always,
        ..Setup::any()
    };
    let mut call = Call::permitted(setup);
    let peer = "1.1.1.1:5000".parse().unwrap();
    call.world.stall(500);
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, peer), SUCCESS);
    call.world.stall(99);
    call.alice
        .channel_data(&mut call.world, 0x4000, b"x")
        .outside();
    call.world
        .receive_from_peer(call.a, "1.1.1.1:5000", b"x")
        .at(&call.alice);

    call.world.stall(1);
    let out = call.alice.channel_data(&mut call.world, 0x4000, b"x");
    assert!(out.dropped().is_some(), "{out:?}");
    let out = call.alice.send_to(&mut call.world, peer, b"x");
    assert!(out.dropped().is_some(), "{out:?}");
    let inbound = call.world.receive_from_peer(call.a, "1.1.1.1:5000", b"x");
    assert_eq!(inbound.dropped(), Some(DropReason::NoRelay));
    assert_eq!(call.alice.refresh(&mut call.world, None).code(), 437);
    assert_eq!(call.alice.permit(&mut call.world, &[call.b]), 437);
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, peer), 437);
}

#[test]
fn a_session_ends_however_often_it_is_refreshed() {
    let setup = Setup {
        session_max: 1_500,
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    world.advance(500);
    assert_eq!(alice.refresh(&mut world, None).lifetime(), Some(600));
    world.advance(500);
    assert_eq!(alice.refresh(&mut world, Some(3_600)).lifetime(), Some(500));
    world.advance(499);
    assert_eq!(alice.refresh(&mut world, Some(3_600)).lifetime(), Some(1));
    world.advance(1);
    assert_eq!(world.allocations(), 0);
    alice.allocate(&mut world);
}

#[test]
fn the_server_asks_to_be_woken_when_the_first_allocation_ends() {
    let mut world = World::new();
    assert_eq!(world.servers[0].poll_timeout(), None);
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    let end = world.clock.now.plus(std::time::Duration::from_secs(600));
    assert_eq!(world.servers[0].poll_timeout(), Some(end));
    world.advance(600);
    assert_eq!(world.servers[0].poll_timeout(), None);
}
