//! ALTERNATE-SERVER (RFC 8489 §10; RFC 8656 §7.2): to another server with a 300.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use taciturn::proto::{
    AlternateServer, AttributeType, EvenPort, Method, RequestedTransport, ReservationToken, Reserve,
};
use taciturn::turn::stats::DropReason;
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{Alternate, Redirect};

use crate::world::call::{ALICE, BOB};
use crate::world::client::{Client, SUCCESS, Scheme};
use crate::world::message::Answer;
use crate::world::servers::{Outcome, Setup, World, at};

const ALICE_V6: &str = "[2001:db8:c::1]:1000";
const SERVERS: [&str; 4] = [
    "203.0.113.8:3478",
    "203.0.113.9:3478",
    "[2001:db8::8]:3478",
    "[2001:db8::9]:3478",
];

fn to(servers: &[&str], redirect: Redirect) -> Setup {
    Setup {
        alternate: Alternate {
            servers: servers.iter().map(|server| at(server)).collect(),
            redirect,
        },
        ..Setup::default()
    }
}

fn draining(servers: &[&str]) -> Setup {
    Setup {
        draining: true,
        ..to(servers, Redirect::Draining)
    }
}

/// An Allocate as the first request of every client is, without credentials.
fn first_allocate(client: &mut Client, world: &mut World) -> Answer {
    let request = client.build(Method::ALLOCATE);
    let bytes = request.with(&RequestedTransport::UDP).bytes();
    world.send(client, &bytes).answer()
}

fn alternates(answer: &Answer) -> Vec<SocketAddr> {
    let all = answer.message().all::<AlternateServer>();
    all.map(|server| server.unwrap().0).collect()
}

#[test]
fn an_unauthenticated_allocate_is_sent_to_a_server_of_its_family_without_realm_or_nonce() {
    for setup in [to(&SERVERS, Redirect::Always), draining(&SERVERS)] {
        let mut world = setup.world();
        for addr in [ALICE, ALICE_V6] {
            let mut client = world.client("alice", addr);
            let answer = first_allocate(&mut client, &mut world);
            assert_eq!(answer.code(), 300);
            let [first, second] = alternates(&answer)[..] else {
                panic!("one of each family");
            };
            assert_eq!(first.is_ipv4(), client.addr().is_ipv4());
            assert_ne!(
                first.is_ipv4(),
                second.is_ipv4(),
                "the other family's behind it"
            );
            let kinds: BTreeSet<u16> = answer
                .message()
                .attributes()
                .map(|raw| raw.kind.value())
                .collect();
            let only = [AttributeType::ERROR_CODE, AttributeType::ALTERNATE_SERVER];
            assert_eq!(kinds, only.map(AttributeType::value).into());
        }
        assert_eq!(world.allocations(), 0);
    }
}

#[test]
fn a_server_that_is_not_drained_redirects_only_if_it_always_does() {
    let mut world = to(&SERVERS, Redirect::Draining).world();
    let mut alice = world.client("alice", ALICE);
    assert_eq!(first_allocate(&mut alice, &mut world).code(), 401);
    alice.allocate(&mut world);
    world.reconfigure(&draining(&SERVERS));
    let mut bob = world.client("bob", BOB);
    assert_eq!(first_allocate(&mut bob, &mut world).code(), 300);
    world.reconfigure(&to(&SERVERS, Redirect::Draining));
    assert_eq!(first_allocate(&mut bob, &mut world).code(), 401);
}

/// RFC 8489 §10: without an address of the client's family there is nothing to redirect to.
#[test]
fn a_client_whose_family_has_no_alternate_server_is_served_here() {
    for (servers, addr) in [
        (&SERVERS[..2], ALICE_V6),
        (&SERVERS[2..], ALICE),
        (&[], ALICE),
    ] {
        let mut world = draining(servers).world();
        let mut client = world.client("alice", addr);
        assert_eq!(first_allocate(&mut client, &mut world).code(), 401);
        client.allocate(&mut world);
    }
    let mut world = draining(&SERVERS[..2]).world();
    let mut client = world.client("alice", ALICE);
    let answer = first_allocate(&mut client, &mut world);
    assert_eq!(alternates(&answer).len(), 1);
}

#[test]
fn what_lives_here_goes_on_here() {
    let mut world = to(&SERVERS, Redirect::Draining).world();
    let mut alice = world.client("alice", ALICE);
    let relayed = alice.allocate(&mut world);
    world.reconfigure(&draining(&SERVERS));
    // On the 5-tuple of a living allocation nobody is sent away, whether or not he signs.
    assert_eq!(first_allocate(&mut alice, &mut world).code(), 401);
    assert_eq!(alice.allocate_with(&mut world, |r| r).code(), 437);
    assert_eq!(alice.refresh(&mut world, None).code(), SUCCESS);
    assert_eq!(alice.permit(&mut world, &[relayed]), SUCCESS);
    assert_eq!(alice.bind(&mut world, 0x4000, relayed), SUCCESS);
    // Other requests of others are not for another server either.
    let mut bob = world.client("bob", BOB);
    bob.fetch_nonce(&mut world);
    let binding = bob.build(Method::BINDING).bytes();
    assert_eq!(world.send(&bob, &binding).answer().code(), SUCCESS);
    assert_eq!(bob.refresh(&mut world, None).code(), 437);
    assert_eq!(alice.refresh(&mut world, Some(0)).code(), SUCCESS);
    assert_eq!(first_allocate(&mut alice, &mut world).code(), 300);
}

#[test]
fn a_retransmitted_allocate_is_answered_by_what_it_made() {
    let mut world = to(&SERVERS, Redirect::Draining).world();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    let request = alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP);
    let bytes = alice.sign(request);
    let first = world.send(&alice, &bytes).answer();
    assert_eq!(first.code(), SUCCESS);
    world.reconfigure(&draining(&SERVERS));
    assert_eq!(world.send(&alice, &bytes).answer(), first);
}

#[test]
fn a_port_that_is_reserved_here_is_allocated_here() {
    let mut world = to(&SERVERS, Redirect::Draining).world();
    let mut alice = world.client("alice", ALICE);
    let reserve = EvenPort {
        reserve_next: Reserve::Yes,
    };
    let token = alice
        .allocate_with(&mut world, |r| r.with(&reserve))
        .token();
    world.reconfigure(&draining(&SERVERS));
    let mut second = world.client("alice", "198.51.100.1:1001");
    let token = ReservationToken(token.unwrap());
    let answer = second.allocate_with(&mut world, |r| r.with(&token));
    assert_eq!(answer.code(), SUCCESS);
}

/// A client that has a nonce from before asks with a credential, and is told under its signature.
#[test]
fn an_authenticated_allocate_is_redirected_under_its_signature() {
    for scheme in [Scheme::Md5, Scheme::Sha256] {
        let mut world = draining(&SERVERS).world();
        let mut alice = world.client("alice", ALICE);
        alice.scheme = scheme;
        let answer = alice.allocate_with(&mut world, |r| r);
        assert_eq!(answer.code(), 300);
        assert!(alice.has_signed(&answer));
        assert_eq!(alternates(&answer).len(), 2);
        assert!(answer.realm().is_none() && answer.nonce().is_none());
        alice.password = "wrong".to_owned();
        assert_eq!(alice.allocate_with(&mut world, |r| r).code(), 401);
        assert_eq!(world.allocations(), 0);
    }
}

/// T29: it takes the place of a challenge, under the same cap, and is smaller.
#[test]
fn redirections_are_small_and_capped_per_source() {
    for (addr, len) in [(ALICE, 64), (ALICE_V6, 64)] {
        let setup = Setup {
            unvalidated: Rate {
                per_second: 1,
                burst: 3,
            },
            ..draining(&SERVERS)
        };
        let mut world = setup.world();
        let mut client = world.client("alice", addr);
        let challenge = client.build(Method::REFRESH).bytes();
        let challenge = world.send(&client, &challenge).answer();
        assert_eq!(challenge.code(), 401);
        let allocate = client.build(Method::ALLOCATE).bytes();
        let mut sizes = Vec::new();
        for _ in 0..20 {
            let outcome = world.send(&client, &allocate);
            if let Outcome::Answer(answer) = outcome {
                sizes.push(answer.0.len());
            } else {
                assert_eq!(outcome.dropped(), Some(DropReason::Unvalidated));
            }
        }
        assert_eq!(sizes, [len; 2]);
        assert!(len < challenge.0.len());
    }
}

/// Nothing is remembered: each is drawn anew.
#[test]
fn clients_are_spread_over_the_alternate_servers() {
    let mut world = draining(&SERVERS).world();
    let mut alice = world.client("alice", ALICE);
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..200 {
        let answer = first_allocate(&mut alice, &mut world);
        for server in alternates(&answer) {
            *counts.entry(server).or_insert(0_u32) += 1;
        }
        world.advance(1);
    }
    assert_eq!(counts.len(), SERVERS.len());
    assert!(
        counts.values().all(|count| (60..=140).contains(count)),
        "{counts:?}"
    );
}
