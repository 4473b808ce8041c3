//! What a credential's expiry means for what was allocated with it, in both modes.

use taciturn::proto::{Lifetime, Method, RequestedTransport};
use taciturn::turn::stats::AuthFailure;

use crate::world::call::{ALICE, BOB, CAROL, Call};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{BEGIN_UNIX, STATIC_USER, Setup, World, at};

/// T13
#[test]
fn an_expired_credential_allocates_nothing() {
    let mut world = World::new();
    let mut alice = world.client_until("alice", ALICE, BEGIN_UNIX + 10);
    world.advance(69);
    alice.allocate(&mut world);
    alice.refresh(&mut world, Some(0));
    world.advance(1);
    let answer = alice.allocate_with(&mut world, |r| r);
    assert_eq!(answer.code(), 401, "past the leeway of a minute");
    assert!(answer.nonce().is_some());
    assert_eq!(world.failures(AuthFailure::Expired), 1);
}

/// T13
#[test]
fn an_allocation_outlives_its_credential_until_the_session_is_over() {
    let mut world = World::new();
    let mut alice = world.client_until("alice", ALICE, BEGIN_UNIX + 600);
    let mut bob = world.client("bob", BOB);
    let a = alice.allocate(&mut world);
    let b = bob.allocate(&mut world);
    let mut passed = 0;
    while passed < 86_400 - 600 {
        world.advance(600 - 1);
        passed += 599;
        assert_eq!(
            alice.refresh(&mut world, Some(600)).code(),
            SUCCESS,
            "{passed}"
        );
        assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
        assert_eq!(alice.bind(&mut world, 0x4000, b), SUCCESS);
        if passed > 1_200 {
            let mut second = alice.moved("198.51.100.1:1001");
            assert_eq!(second.allocate_with(&mut world, |r| r).code(), 401);
        }
        bob.refresh(&mut world, Some(3_600));
        bob.permit(&mut world, &[a]);
        alice.channel_data(&mut world, 0x4000, b"x").at(&bob);
    }
    let left = 86_400 - passed;
    let answer = alice.refresh(&mut world, Some(3_600));
    assert_eq!(answer.lifetime(), Some(u32::try_from(left).unwrap()));
    world.advance(left);
    assert_eq!(alice.refresh(&mut world, Some(600)).code(), 401);
    assert_eq!(alice.permit(&mut world, &[b]), 401);
}

/// T13
#[test]
fn in_strict_mode_an_allocation_ends_with_its_credential() {
    let setup = Setup {
        strict: true,
        ..Setup::default()
    };
    let mut call = Call::new(setup);
    let world = &mut call.world;
    let mut carol = world.client_until("carol", CAROL, BEGIN_UNIX + 700);
    let answer = carol.allocate_with(world, |r| r.with(&Lifetime(3_600)));
    assert_eq!(answer.lifetime(), Some(760));
    world.advance(500);
    assert_eq!(carol.refresh(world, Some(600)).lifetime(), Some(260));
    assert_eq!(carol.permit(world, &[call.a]), SUCCESS);
    world.advance(259);
    assert_eq!(carol.refresh(world, None).lifetime(), Some(1));
    world.stall(1);
    let outcome = carol.send_to(world, call.a, b"x");
    assert!(outcome.dropped().is_some());
    world.stall(1);
    for code in [
        carol.refresh(world, None).code(),
        carol.permit(world, &[call.a]),
        carol.bind(world, 0x4000, call.a),
        carol.allocate_with(world, |r| r).code(),
    ] {
        assert_eq!(code, 401);
    }
}

/// T13: who never expires is not clamped by strict mode.
#[test]
fn static_users_live_on_in_strict_mode() {
    let setup = Setup {
        strict: true,
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut gateway = Client::new(at(ALICE), STATIC_USER.0, STATIC_USER.1);
    let answer = gateway.allocate_with(&mut world, |r| r.with(&Lifetime(3_600)));
    assert_eq!(answer.lifetime(), Some(3_600));
}

/// T13: a retransmission belongs to the Allocate that was made in time.
#[test]
fn a_retransmitted_allocate_outlives_the_credential() {
    let mut world = World::new();
    let mut alice = world.client_until("alice", ALICE, BEGIN_UNIX);
    alice.fetch_nonce(&mut world);
    let request = alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP);
    let bytes = alice.sign(request);
    world.advance(59);
    assert_eq!(world.send(&alice, &bytes).answer().code(), SUCCESS);
    world.advance(1);
    assert_eq!(world.send(&alice, &bytes).answer().code(), SUCCESS);
    assert_eq!(alice.allocate_with(&mut world, |r| r).code(), 401);
}

/// When very many end in the same moment, packets get their turn in between.
#[test]
fn a_mass_of_expiries_is_spread_over_turns() {
    let mut world = World::new();
    for host in 1..=150 {
        let mut client = world.client("alice", &format!("198.51.100.{host}:1000"));
        client.allocate(&mut world);
    }
    world.stall(601);
    let mut turns = 0;
    while world.servers[0]
        .poll_timeout()
        .is_some_and(|at| at <= world.clock.now)
    {
        let before = world.allocations();
        world.servers[0].handle_timeout(world.clock.now);
        assert_eq!(world.servers[0].check_invariants(), Ok(()));
        assert!((1..=64).contains(&(before - world.allocations())));
        turns += 1;
    }
    assert_eq!((world.allocations(), turns), (0, 3));
}
