//! Credentials, users and calls that are taken back, and clients that are banned.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use taciturn::turn::ban::Banned;
use taciturn::turn::revocation::{Reach, Revocations, Revoked, UsernameDigest};
use taciturn::turn::stats::{AuthFailure, DropReason};
use taciturn::turn::{EndReason, Event, Transport};

use crate::world::call::{ALICE, BOB, CAROL, Call, ELSEWHERE};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{BEGIN_UNIX, CREDENTIAL_LIFE, STATIC_USER, Setup, World, at};

/// `[auth] max_ttl` of every world.
const MAX_TTL: u64 = 48 * 3_600;

/// First nothing new is let in, then the workers end what is there.
fn revoke(world: &mut World, revoked: Revoked) {
    let reach = Reach::new(world.clock.unix, world.config.max_ttl);
    world.config.revocations.add(revoked, reach);
    for server in &mut world.servers {
        server.revoke(&[revoked], world.clock.now);
        assert_eq!(server.check_invariants(), Ok(()));
    }
}

fn ban(world: &mut World, banned: Banned, until: Option<u64>) {
    world.config.bans.add([(banned, until)]);
    for server in &mut world.servers {
        server.enforce_bans(world.clock);
        assert_eq!(server.check_invariants(), Ok(()));
    }
}

fn network(world: &World, text: &str) -> Banned {
    Banned::Network(world.config.bans.network(text.parse().unwrap()))
}

fn ends(world: &mut World) -> Vec<EndReason> {
    let events = world.events(0).into_iter();
    events
        .filter_map(|event| match event {
            Event::Closed { reason, .. } => Some(reason),
            Event::Opened { .. } | Event::Moved { .. } => None,
        })
        .collect()
}

fn allocate(world: &mut World, client: &mut Client) -> u16 {
    client.allocate_with(world, |request| request).code()
}

fn user(world: &World, id: &str) -> Revoked {
    Revoked::User(world.subject(id))
}

/// T25
#[test]
fn a_revoked_user_loses_every_allocation_and_whoever_else_none() {
    let mut call = Call::permitted(Setup::default());
    let mut other = call.world.client("alice", CAROL);
    other.allocate(&mut call.world);
    let revoked = user(&call.world, "alice");
    revoke(&mut call.world, revoked);
    assert_eq!(ends(&mut call.world), [EndReason::Revoked; 2]);
    assert_eq!(
        call.alice_says(b"x").dropped(),
        Some(DropReason::NoAllocation)
    );
    assert_eq!(call.bob_says(b"x").dropped(), Some(DropReason::NoLanding));
    assert_eq!(call.world.allocations(), 1);
    assert_eq!(call.bob.refresh(&mut call.world, None).code(), SUCCESS);
    assert_eq!(call.alice.refresh(&mut call.world, None).code(), 401);
    assert_eq!(allocate(&mut call.world, &mut call.alice), 401);
    assert_eq!(call.world.failures(AuthFailure::Revoked), 2);
}

/// T25: a REST name does not say when it was minted, so that it counts as old as it may be.
#[test]
fn what_was_issued_up_to_the_revocation_is_refused_and_what_came_later_is_not() {
    let mut world = World::new();
    let revoked = user(&world, "alice");
    revoke(&mut world, revoked);
    for (expires, code) in [
        (BEGIN_UNIX + 60, 401),
        (BEGIN_UNIX + MAX_TTL, 401),
        (BEGIN_UNIX + MAX_TTL + 1, SUCCESS),
    ] {
        let mut alice = world.client_until("alice", ALICE, expires);
        assert_eq!(allocate(&mut world, &mut alice), code, "{expires}");
    }
    let mut bob = world.client("bob", CAROL);
    bob.allocate(&mut world);
}

/// T25
#[test]
fn another_max_ttl_brings_back_nobody_who_was_revoked() {
    const HOUR: u64 = 3_600;
    for (before, after, refused_until) in [(48, 1, 48), (1, 48, 1)] {
        let rules = |revocations: Revocations, hours| Setup {
            max_ttl: hours * HOUR,
            revocations,
            ..Setup::default()
        };
        let revocations = Revocations::default();
        let mut world = rules(revocations.clone(), before).world();
        let last = BEGIN_UNIX + refused_until * HOUR;
        let claims = world.claims("alice");
        let mut covered = world.client_until("alice", ALICE, last);
        let mut sealed = world.sealed_until(&claims, BOB, last);
        let mut later = world.client_until("alice", CAROL, last + 1);
        let revoked = user(&world, "alice");
        revoke(&mut world, revoked);

        world.reconfigure(&rules(revocations.clone(), after));
        world.advance(refused_until * HOUR - 1_800);
        revocations.forget(world.config.max_ttl, world.clock.unix);
        for refused in [&mut covered, &mut sealed] {
            assert_eq!(allocate(&mut world, refused), 401, "{before} {after}");
        }
        assert_eq!(world.failures(AuthFailure::Revoked), 2, "{before} {after}");
        assert_eq!(allocate(&mut world, &mut later), SUCCESS);
    }
}

/// T25
#[test]
fn a_revoked_credential_takes_no_other_of_its_user_with_it() {
    let mut world = World::new();
    let mut first = world.client("alice", ALICE);
    let mut second = world.client_until("alice", CAROL, BEGIN_UNIX + 60);
    first.allocate(&mut world);
    second.allocate(&mut world);
    let name = UsernameDigest::of(&first.username);
    revoke(&mut world, Revoked::Credential(name));
    assert_eq!(ends(&mut world), [EndReason::Revoked]);
    assert_eq!(allocate(&mut world, &mut first), 401);
    assert_eq!(second.refresh(&mut world, None).code(), SUCCESS);
}

/// T25: under whichever key its id was hashed, and whoever takes part in it.
#[test]
fn a_revoked_call_ends_for_all_its_parties_and_no_other_call_does() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = [
        ("alice", "one", ALICE),
        ("bob", "one", BOB),
        ("carol", "two", CAROL),
    ]
    .map(|(user, call, addr)| {
        let claims = world.claims_in(user, call);
        world.sealed(&claims, addr)
    });
    for client in [&mut alice, &mut bob, &mut carol] {
        client.allocate(&mut world);
    }
    let calls: Vec<Revoked> = world
        .config
        .credentials
        .calls("one")
        .map(Revoked::Call)
        .collect();
    for call in calls {
        revoke(&mut world, call);
    }
    assert_eq!(ends(&mut world), [EndReason::Revoked; 2]);
    assert_eq!(carol.refresh(&mut world, None).code(), SUCCESS);
    for client in [&mut alice, &mut bob] {
        assert_eq!(allocate(&mut world, client), 401);
    }
    // A sealed name says when it was minted.
    world.advance(1);
    let claims = world.claims_in("alice", "one");
    world.sealed(&claims, ALICE).allocate(&mut world);
}

/// T20
#[test]
fn who_was_revoked_looks_and_costs_like_who_never_was() {
    let mut world = World::new();
    let revoked = user(&world, "alice");
    revoke(&mut world, revoked);
    let expires = BEGIN_UNIX + CREDENTIAL_LIFE;
    let alice = world.client("alice", ALICE);
    let strangers = [
        alice.clone(),
        Client::new(at(ALICE), &alice.username, "wrong"),
        Client::new(at(ALICE), &format!("{expires}:other"), "wrong"),
        Client::new(at(ALICE), "nobody", "wrong"),
    ];
    let seen = strangers.map(|mut client| {
        let answer = client.allocate_with(&mut world, |r| r);
        let kinds: Vec<_> = answer.message().attributes().map(|raw| raw.kind).collect();
        let candidates = world.config.credentials.find(&client.username).candidates;
        (answer.code(), answer.0.len(), kinds, candidates.count())
    });
    assert_eq!(seen[0].0, 401);
    assert!(seen.iter().all(|case| *case == seen[0]), "{seen:?}");
}

/// The revocation is known before the workers hear of it, so that what they let in until then was
/// let in before, and ends with the rest.
#[test]
fn an_allocate_that_races_with_a_revocation_does_not_survive_it() {
    for is_known_first in [true, false] {
        let mut world = World::new();
        let revoked = user(&world, "alice");
        let mut alice = world.client("alice", ALICE);
        alice.fetch_nonce(&mut world);
        if is_known_first {
            let reach = Reach::new(BEGIN_UNIX, world.config.max_ttl);
            world.config.revocations.add(revoked, reach);
        }
        let code = allocate(&mut world, &mut alice);
        assert_eq!(code, if is_known_first { 401 } else { SUCCESS });
        revoke(&mut world, revoked);
        assert_eq!(world.allocations(), 0);
    }
}

#[test]
fn many_allocations_go_silent_at_once_and_are_given_back_in_turns() {
    let mut world = World::new();
    let mut bob = world.client("bob", CAROL);
    let at_bob = bob.allocate(&mut world);
    let mut crowd: Vec<Client> = (1..=200)
        .map(|n| world.client("alice", &format!("192.0.2.{n}:1000")))
        .collect();
    let relayed: Vec<_> = crowd.iter_mut().map(|c| c.allocate(&mut world)).collect();
    for (client, relayed) in crowd.iter_mut().zip(&relayed) {
        assert_eq!(client.permit(&mut world, &[at_bob]), SUCCESS);
        assert_eq!(bob.permit(&mut world, &[*relayed]), SUCCESS);
    }
    let revoked = user(&world, "alice");
    revoke(&mut world, revoked);
    let left = world.allocations();
    assert!(left > 1, "all at once would hold up packets");
    for (client, relayed) in crowd.iter_mut().zip(&relayed) {
        let out = client.send_to(&mut world, at_bob, b"x").dropped();
        assert!(out.is_some(), "it still sends");
        let back = bob.send_to(&mut world, *relayed, b"x").dropped();
        assert_eq!(back, Some(DropReason::NoLanding));
    }
    let now = world.clock.now;
    let mut turns = 0;
    while world.servers[0].poll_timeout().is_some_and(|at| at <= now) {
        world.servers[0].handle_timeout(now);
        assert_eq!(world.servers[0].check_invariants(), Ok(()));
        turns += 1;
        assert!(turns < 10);
    }
    assert_eq!(world.allocations(), 1);
    assert_eq!(ends(&mut world), [EndReason::Revoked; 200]);
}

/// Static users are the operator's, and a platform that gives its users any id takes back none.
#[test]
fn a_platforms_user_is_not_the_static_user_of_that_name() {
    let mut world = World::new();
    let (name, password) = STATIC_USER;
    let mut gateway = Client::new(at(ALICE), name, password);
    gateway.allocate(&mut world);
    let revoked = user(&world, name);
    revoke(&mut world, revoked);
    assert_eq!(gateway.refresh(&mut world, None).code(), SUCCESS);
}

#[test]
fn a_client_that_is_away_does_not_come_back_to_what_was_revoked() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), Transport::Tcp);
    let alice = call.alice.clone();
    call.world.disconnect(&alice);
    assert_eq!(call.world.allocations(), 2);
    let revoked = user(&call.world, "alice");
    revoke(&mut call.world, revoked);
    assert_eq!(call.world.allocations(), 1);
    let mut moved = call.alice.moved(ELSEWHERE);
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), 401);
}

#[test]
fn who_is_banned_gets_403_and_loses_what_they_have() {
    for by_address in [true, false] {
        let mut call = Call::permitted(Setup::default());
        let banned = if by_address {
            network(&call.world, &format!("{}/32", at(ALICE).ip()))
        } else {
            Banned::Subject(call.world.subject("alice"))
        };
        ban(&mut call.world, banned, None);
        assert_eq!(ends(&mut call.world), [EndReason::Banned]);
        assert_eq!(call.bob_says(b"x").dropped(), Some(DropReason::NoLanding));
        assert_eq!(allocate(&mut call.world, &mut call.alice), 403);
        assert_eq!(call.alice.refresh(&mut call.world, None).code(), 403);
        assert_eq!(call.bob.refresh(&mut call.world, None).code(), SUCCESS);
        let mut elsewhere = call.world.client("alice", ELSEWHERE);
        let code = allocate(&mut call.world, &mut elsewhere);
        assert_eq!(code, if by_address { SUCCESS } else { 403 });
    }
}

#[test]
fn a_banned_network_covers_its_addresses_until_the_ban_ends() {
    let mut world = World::new();
    let banned = network(&world, "198.51.100.0/24");
    ban(&mut world, banned, Some(BEGIN_UNIX + 60));
    for addr in [ALICE, CAROL] {
        let mut client = world.client("anybody", addr);
        assert_eq!(allocate(&mut world, &mut client), 403, "{addr}");
    }
    let mut elsewhere = world.client("anybody", ELSEWHERE);
    elsewhere.allocate(&mut world);
    world.advance(60);
    world.client("anybody", ALICE).allocate(&mut world);
}

/// Where a mobile client goes next, and has not used yet, it is too.
#[test]
fn a_ban_finds_a_mobile_client_where_it_was_and_where_it_goes() {
    for (addr, expected) in [
        (ALICE, vec![EndReason::Banned]),
        (ELSEWHERE, vec![EndReason::Banned]),
        (CAROL, vec![]),
    ] {
        let (mut call, ticket) = Call::mobile(Setup::mobile(), Transport::Udp);
        let mut moved = call.alice.moved(ELSEWHERE);
        assert_eq!(moved.resume(&mut call.world, &ticket).code(), SUCCESS);
        // Its packets still go the old way: it is not known yet that it heard the answer.
        let alice = call.alice.clone();
        call.bob_says(b"x").at(&alice);
        ends(&mut call.world);
        let banned = network(&call.world, &format!("{}/32", at(addr).ip()));
        ban(&mut call.world, banned, None);
        assert_eq!(ends(&mut call.world), expected, "{addr}");
        let lives = expected.is_empty();
        let dropped = call.bob_says(b"x").dropped();
        assert_eq!(dropped, (!lives).then_some(DropReason::NoLanding), "{addr}");
        assert_eq!(call.world.allocations(), 1 + u64::from(lives));
    }
}

#[test]
fn a_client_does_not_move_into_a_banned_network() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), Transport::Udp);
    let banned = network(&call.world, &format!("{}/32", at(ELSEWHERE).ip()));
    ban(&mut call.world, banned, None);
    let mut moved = call.alice.moved(ELSEWHERE);
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), 403);
    let alice = call.alice.clone();
    call.alice_at(&alice).at(&call.bob);
}
