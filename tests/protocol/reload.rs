//! New rules for a server whose allocations live on.

use taciturn::proto::Lifetime;
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::stats::DropReason;
use taciturn::turn::{EndReason, Event};

use crate::world::call::{ALICE, BOB, CAROL, Call, ELSEWHERE, Framing};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{BEGIN_UNIX, SECRETS, STATIC_USER, Setup, World, at};

/// Why allocations ended since this was asked last.
fn ended(world: &mut World) -> Vec<EndReason> {
    let events = world.events(0).into_iter();
    let reasons = events.filter_map(|event| match event {
        Event::Closed { reason, .. } => Some(reason),
        Event::Opened { .. } | Event::Moved { .. } => None,
    });
    reasons.collect()
}

fn allocate_for(world: &mut World, client: &mut Client, seconds: u32) {
    let answer = client.allocate_with(world, |request| request.with(&Lifetime(seconds)));
    assert_eq!(answer.code(), SUCCESS);
}

/// T8
#[test]
fn packets_to_and_from_newly_denied_peers_stop() {
    let mut call = Call::permitted(Setup::any());
    let [denied, spared] = ["1.1.1.1:5000", "8.8.8.8:53"];
    for (number, peer) in [(0x4000, denied), (0x4001, spared)] {
        assert_eq!(call.alice.bind(&mut call.world, number, at(peer)), SUCCESS);
    }
    call.world.reconfigure(&Setup {
        deny: vec!["1.0.0.0/8"],
        ..Setup::any()
    });
    let channel = call.alice.channel_data(&mut call.world, 0x4000, b"x");
    assert_eq!(channel.dropped(), Some(DropReason::NoChannel));
    let indication = call.alice.send_to(&mut call.world, at(denied), b"x");
    assert_eq!(indication.dropped(), Some(DropReason::NoPermission));
    let inbound = call.world.receive_from_peer(call.a, denied, b"x");
    assert_eq!(inbound.dropped(), Some(DropReason::NoPermission));
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, at(denied)), 403);

    call.alice
        .channel_data(&mut call.world, 0x4001, b"x")
        .outside();
    call.world
        .receive_from_peer(call.a, spared, b"x")
        .at(&call.alice);
    call.alice_says(b"x").at(&call.bob);
}

/// T8
#[test]
fn a_living_allocation_comes_under_the_policy_there_is_now() {
    let mut call = Call::permitted(Setup::any());
    let peer = at("1.1.1.1:5000");
    assert_eq!(call.alice.permit(&mut call.world, &[peer]), SUCCESS);
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, peer), SUCCESS);
    call.world.reconfigure(&Setup::default());
    assert_eq!(call.alice.permit(&mut call.world, &[peer]), 403);
    let sent = call.alice.send_to(&mut call.world, peer, b"x").dropped();
    assert_eq!(sent, Some(DropReason::NoPermission));
    let sent = call.alice.channel_data(&mut call.world, 0x4000, b"x");
    assert_eq!(sent.dropped(), Some(DropReason::NoChannel));
    let inbound = call.world.receive_from_peer(call.a, "1.1.1.1:5000", b"x");
    assert_eq!(inbound.dropped(), Some(DropReason::NoPermission));
    call.alice_says(b"x").at(&call.bob);

    // And back: what was made closed opens a socket when it needs one.
    let mut carol = call.world.client("carol", CAROL);
    let carols = carol.allocate(&mut call.world);
    assert!(!call.world.has_socket(carols));
    call.world.reconfigure(&Setup::any());
    assert_eq!(carol.permit(&mut call.world, &[peer]), SUCCESS);
    assert!(call.world.has_socket(carols));
    carol.send_to(&mut call.world, peer, b"x").outside();
}

/// T25
#[test]
fn a_removed_secret_refuses_and_a_rotated_one_does_not() {
    let mut call = Call::permitted(Setup::default());
    let rotated = Setup {
        secrets: vec!["a-new-secret", SECRETS[0]],
        ..Setup::default()
    };
    call.world.reconfigure(&rotated);
    // Not even their nonces have become stale.
    let kept = call
        .alice
        .request_once(&mut call.world, taciturn::proto::Method::REFRESH, |r| r);
    assert_eq!(kept.code(), SUCCESS);
    let mut carol = call.world.client("carol", CAROL);
    carol.allocate(&mut call.world);

    let removed = Setup {
        secrets: vec!["a-new-secret"],
        ..Setup::default()
    };
    call.world.reconfigure(&removed);
    assert_eq!(call.alice.refresh(&mut call.world, None).code(), 401);
    assert_eq!(call.alice.permit(&mut call.world, &[call.b]), 401);
    assert_eq!(carol.refresh(&mut call.world, None).code(), SUCCESS);
}

#[test]
fn a_hairpin_goes_on_under_new_rules() {
    let mut call = Call::new(Setup::default());
    call.admit(Framing::Channel(0x4000), Framing::Indication);
    for policy in [PeerPolicy::Any, PeerPolicy::Relay] {
        call.world.reconfigure(&Setup {
            policy,
            deny: vec!["0.0.0.0/0"],
            ..Setup::default()
        });
        call.alice
            .channel_data(&mut call.world, 0x4000, b"x")
            .at(&call.bob);
        call.bob_says(b"x").at(&call.alice);
    }
}

/// T25: within the second that the issue allows, since it is in this very call.
#[test]
fn an_allocation_whose_secret_is_gone_ends_and_one_of_a_renamed_secret_lives_on() {
    let mut call = Call::permitted(Setup::default());
    let reordered = Setup {
        secrets: vec![SECRETS[1], SECRETS[0]],
        ..Setup::default()
    };
    call.world.reconfigure(&reordered);
    call.alice_says(b"x").at(&call.bob);
    assert_eq!(call.world.allocations(), 2);

    let removed = Setup {
        secrets: vec![SECRETS[1]],
        ..Setup::default()
    };
    call.world.reconfigure(&removed);
    assert_eq!(call.world.allocations(), 0);
    let says = call.alice_says(b"x").dropped();
    assert_eq!(says, Some(DropReason::NoAllocation));
    let closed = call.world.events(0).into_iter().filter(|event| {
        let reason = EndReason::Revoked;
        matches!(event, Event::Closed { reason: why, .. } if *why == reason)
    });
    assert_eq!(closed.count(), 2);
}

/// T25
#[test]
fn a_static_user_who_is_gone_or_has_another_password_loses_their_allocations() {
    let (name, password) = STATIC_USER;
    for (users, lives) in [
        (vec![("other", "password"), STATIC_USER], true),
        (vec![("other", "password")], false),
        (vec![(name, "another password")], false),
        (vec![("other", password)], false),
    ] {
        let mut world = Setup::default().world();
        let mut gateway = Client::new(at(CAROL), name, password);
        gateway.allocate(&mut world);
        world.client("alice", ALICE).allocate(&mut world);
        world.reconfigure(&Setup {
            users: users.clone(),
            ..Setup::default()
        });
        assert_eq!(world.allocations(), 1 + u64::from(lives), "{users:?}");
        let code = gateway.refresh(&mut world, None).code();
        assert_eq!(code, if lives { SUCCESS } else { 401 });
    }
}

/// T25: who rotates keys keeps the former one for as long as what it sealed may be about.
#[test]
fn what_a_sealing_key_sealed_ends_and_is_refused_when_the_key_is_gone() {
    let mut world = World::new();
    let mut alice = world.sealed(&world.claims("alice"), ALICE);
    alice.allocate(&mut world);
    // The same secret vouches for a name that nobody sealed.
    let mut bob = world.client("bob", BOB);
    bob.allocate(&mut world);
    world.reconfigure(&Setup {
        sealing: vec![5, 4],
        ..Setup::default()
    });
    assert_eq!(alice.refresh(&mut world, None).code(), SUCCESS);
    let mut again = alice.moved(ELSEWHERE);
    again.allocate(&mut world);
    let mut carol = world.sealed(&world.claims("carol"), CAROL);
    carol.allocate(&mut world);
    assert_eq!((world.allocations(), ended(&mut world)), (4, Vec::new()));

    world.reconfigure(&Setup {
        sealing: vec![5],
        ..Setup::default()
    });
    assert_eq!(ended(&mut world), [EndReason::Revoked; 2]);
    assert_eq!(alice.refresh(&mut world, None).code(), 401);
    assert_eq!(again.allocate_with(&mut world, |r| r).code(), 401);
    for living in [&mut bob, &mut carol] {
        assert_eq!(living.refresh(&mut world, None).code(), SUCCESS);
    }
}

#[test]
fn a_shorter_session_ends_allocations_that_are_older_and_shortens_the_others() {
    let session = |seconds| Setup {
        session_max: seconds,
        ..Setup::default()
    };
    let mut world = World::new();
    let mut old = world.client("alice", ALICE);
    allocate_for(&mut world, &mut old, 3_600);
    world.advance(300);
    let mut young = world.client("bob", BOB);
    allocate_for(&mut world, &mut young, 3_600);
    world.advance(100);

    world.reconfigure(&session(400));
    assert_eq!(
        (world.allocations(), ended(&mut world)),
        (1, vec![EndReason::Expired])
    );
    let answer = young.refresh(&mut world, Some(3_600));
    let told = answer.message().find::<Lifetime>().unwrap().unwrap();
    assert_eq!(told, Lifetime(300));
    // And back, before its time is up.
    world.reconfigure(&session(500));
    assert_eq!(young.refresh(&mut world, Some(3_600)).code(), SUCCESS);
    world.advance(399);
    assert_eq!(world.allocations(), 1);
    world.advance(1);
    assert_eq!(ended(&mut world), [EndReason::Expired]);
}

#[test]
fn a_shorter_lifetime_holds_for_those_who_were_promised_a_longer_one() {
    let mut world = World::new();
    let [mut silent, mut other] =
        [("alice", ALICE), ("bob", BOB)].map(|(user, at)| world.client(user, at));
    for client in [&mut silent, &mut other] {
        allocate_for(&mut world, client, 3_600);
    }
    world.advance(1_000);
    world.reconfigure(&Setup {
        allocation_lifetime: 900,
        ..Setup::default()
    });
    world.advance(899);
    assert_eq!((world.allocations(), ended(&mut world)), (2, Vec::new()));
    assert_eq!(other.refresh(&mut world, None).code(), SUCCESS);
    world.advance(1);
    assert_eq!(
        (world.allocations(), ended(&mut world)),
        (1, vec![EndReason::Expired])
    );
}

/// T13: with the leeway that every expiry has.
#[test]
fn strict_mode_ends_allocations_with_their_credentials_whenever_it_is_turned_on() {
    let strict = Setup {
        strict: true,
        ..Setup::default()
    };
    let mut world = World::new();
    let mut over = world.client_until("alice", ALICE, BEGIN_UNIX + 100);
    let mut soon = world.client_until("bob", BOB, BEGIN_UNIX + 500);
    let mut free = Client::new(at(CAROL), STATIC_USER.0, STATIC_USER.1);
    for client in [&mut over, &mut soon, &mut free] {
        allocate_for(&mut world, client, 3_600);
    }
    world.advance(300);
    assert_eq!(world.allocations(), 3);
    world.reconfigure(&strict);
    assert_eq!(
        (world.allocations(), ended(&mut world)),
        (2, vec![EndReason::Expired])
    );
    world.advance(259);
    assert_eq!(world.allocations(), 2);
    world.reconfigure(&Setup::default());
    assert_eq!(soon.refresh(&mut world, Some(3_600)).code(), SUCCESS);
    world.reconfigure(&strict);
    world.advance(1);
    assert_eq!(
        (world.allocations(), ended(&mut world)),
        (1, vec![EndReason::Expired])
    );
    assert_eq!(free.refresh(&mut world, None).code(), SUCCESS);
}

/// T8: for as long as any may last from now on, as authentication judges it: a sealed name by when it
/// was issued, a REST name by what is left of it.
#[test]
fn allocations_end_whose_credentials_last_longer_than_any_may_now() {
    const HOUR: u64 = 3_600;
    for strict in [false, true] {
        let rules = |max_ttl| Setup {
            max_ttl,
            strict,
            ..Setup::default()
        };
        let mut world = rules(48 * HOUR).world();
        let claims = world.claims("alice");
        let long = BEGIN_UNIX + 47 * HOUR;
        let mut sealed = world.sealed_until(&claims, ALICE, long);
        let mut rest = world.client_until("bob", BOB, long);
        // As long as may be.
        let mut short = world.sealed_until(&claims, CAROL, BEGIN_UNIX + HOUR + 60);
        // After ten minutes, no more than an hour and the leeway is left of it.
        let mut nearly = world.client_until("dave", ELSEWHERE, BEGIN_UNIX + HOUR + 660);
        let mut gateway = Client::new(at("198.51.100.77:7"), STATIC_USER.0, STATIC_USER.1);
        for client in [
            &mut sealed,
            &mut rest,
            &mut short,
            &mut nearly,
            &mut gateway,
        ] {
            allocate_for(&mut world, client, 3_600);
        }
        world.advance(600);
        world.reconfigure(&rules(HOUR));
        assert_eq!(ended(&mut world), [EndReason::Revoked; 2]);
        for ended in [&mut sealed, &mut rest] {
            let sent = ended.send_to(&mut world, at("203.0.113.7:50000"), b"x");
            assert_eq!(sent.dropped(), Some(DropReason::NoAllocation));
        }
        for living in [&mut short, &mut nearly, &mut gateway] {
            assert_eq!(living.refresh(&mut world, Some(3_600)).code(), SUCCESS);
        }

        // Of the one that does not say when it was issued, half an hour and the leeway is left.
        world.advance(1_800);
        world.reconfigure(&rules(HOUR / 2));
        assert_eq!(ended(&mut world), [EndReason::Revoked]);
        for living in [&mut nearly, &mut gateway] {
            assert_eq!(living.refresh(&mut world, None).code(), SUCCESS);
        }
    }
}

/// A sealed name that is over is not what keeps an allocation from ending for having lasted too long.
#[test]
fn an_expired_credential_is_judged_by_how_long_it_lasted() {
    let mut world = World::new();
    let claims = world.claims("alice");
    let mut long = world.sealed_until(&claims, ALICE, BEGIN_UNIX + 2_000);
    let mut short = world.sealed_until(&claims, BOB, BEGIN_UNIX + 900);
    for client in [&mut long, &mut short] {
        allocate_for(&mut world, client, 3_600);
    }
    world.advance(2_500);
    world.reconfigure(&Setup {
        max_ttl: 900,
        ..Setup::default()
    });
    assert_eq!(
        (world.allocations(), ended(&mut world)),
        (1, vec![EndReason::Revoked])
    );
    assert_eq!(short.refresh(&mut world, None).code(), SUCCESS);
}

#[test]
fn a_clock_that_was_put_back_ends_nothing_at_a_reload() {
    let mut world = World::new();
    let mut alice = world.client_until("alice", ALICE, BEGIN_UNIX + 172_800);
    alice.allocate(&mut world);
    world.clock.unix -= 86_400;
    world.reconfigure(&Setup::default());
    assert_eq!((world.allocations(), ended(&mut world)), (1, Vec::new()));
}
