//! Binding requests: for everybody, for those with a credential, or for nobody, by listener.

use std::collections::BTreeMap;

use taciturn::proto::{AttributeType, Class, Method, PasswordAlgorithms};
use taciturn::turn::stats::{AuthFailure, DropReason};
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{BindingRequests, BindingRules, ListenerId, Transport};

use crate::world::call::{ALICE, BOB, Call};
use crate::world::client::{Client, SUCCESS, Scheme};
use crate::world::message::Build;
use crate::world::servers::{LISTENER_V4, Outcome, Setup, World, at};

fn all(default: BindingRequests) -> Setup {
    Setup {
        binding: BindingRules {
            default,
            ..BindingRules::default()
        },
        ..Setup::default()
    }
}

fn bare(client: &mut Client, world: &mut World) -> Outcome {
    let bytes = client.build(Method::BINDING).bytes();
    world.send(client, &bytes)
}

#[test]
fn a_binding_request_where_binding_is_off_is_dropped_and_counted() {
    let mut call = Call::permitted(all(BindingRequests::Off));
    let Call {
        world, alice, bob, ..
    } = &mut call;
    let mut carol = world.client("carol", "198.51.100.3:3000");
    for client in [&mut *alice, &mut carol] {
        assert_eq!(bare(client, world).dropped(), Some(DropReason::BindingOff));
        let signed = client.build(Method::BINDING);
        let bytes = client.sign(signed);
        let outcome = world.send(client, &bytes).dropped();
        assert_eq!(outcome, Some(DropReason::BindingOff));
    }
    assert_eq!(world.drops(DropReason::BindingOff), 4);
    // The rest goes on, also the indication that keeps a NAT open.
    let keepalive = Build::new(Class::Indication, Method::BINDING, [1; 12]).bytes();
    assert_eq!(world.send(bob, &keepalive), Outcome::Consumed);
    assert_eq!(alice.refresh(world, None).code(), SUCCESS);
    call.alice_says(b"x").at(&call.bob);
}

#[test]
fn an_authenticated_binding_is_challenged_and_then_answered_under_its_signature() {
    for scheme in [Scheme::Md5, Scheme::Sha256] {
        let mut world = all(BindingRequests::Authenticated).world();
        let mut alice = world.client("alice", ALICE);
        alice.scheme = scheme;
        let challenge = bare(&mut alice, &mut world).answer();
        assert_eq!(challenge.code(), 401);
        assert!(challenge.mapped().is_none());
        assert!(challenge.0.len() <= 128);
        assert!(challenge.find::<PasswordAlgorithms<'_>>().is_some());
        alice.nonce = challenge.nonce();
        let answer = alice.request_once(&mut world, Method::BINDING, |r| r);
        assert_eq!(answer.code(), SUCCESS);
        assert_eq!(answer.mapped(), Some(at(ALICE)));
        assert!(alice.has_signed(&answer));

        let mut wrong = alice.clone();
        wrong.password = "wrong".to_owned();
        let refused = wrong.request_once(&mut world, Method::BINDING, |r| r);
        assert_eq!(refused.code(), 401);
        assert!(refused.mapped().is_none());
        let unknown =
            alice.request_once(&mut world, Method::BINDING, |r| r.raw_number(0x7001, &[]));
        assert_eq!(unknown.code(), 420);
        assert!(
            world.events(0).is_empty(),
            "a Binding request makes nothing"
        );
    }
}

/// RFC 8656 §5: also a Binding request on my 5-tuple must be mine.
#[test]
fn an_authenticated_binding_on_a_living_5_tuple_is_its_owners() {
    let mut call = Call::new(all(BindingRequests::Authenticated));
    let Call { world, alice, .. } = &mut call;
    let answer = alice.request(world, Method::BINDING, |r| r);
    assert_eq!(answer.mapped(), Some(at(ALICE)));
    let mut mallory = world.client("mallory", ALICE);
    let answer = mallory.request(world, Method::BINDING, |r| r);
    assert_eq!(answer.code(), 441);
    assert_eq!(world.failures(AuthFailure::OtherUser), 1);
}

/// T29
#[test]
fn challenges_to_binding_requests_are_capped_too() {
    let setup = Setup {
        unvalidated: Rate {
            per_second: 1,
            burst: 3,
        },
        ..all(BindingRequests::Authenticated)
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let answers = (0..20)
        .filter(|_| matches!(bare(&mut alice, &mut world), Outcome::Answer(_)))
        .count();
    assert_eq!(answers, 3);
}

#[test]
fn each_transport_and_each_listener_may_have_its_own_rule() {
    let setup = Setup {
        binding: BindingRules {
            default: BindingRequests::Authenticated,
            transports: BTreeMap::from([
                (Transport::Udp, BindingRequests::Off),
                (Transport::Tls, BindingRequests::Open),
            ]),
            listeners: BTreeMap::from([(at(LISTENER_V4), BindingRequests::Open)]),
        },
        ..Setup::default()
    };
    let mut world = setup.world();
    for (transport, place, addr, expected) in [
        (Transport::Udp, 0, ALICE, Some(SUCCESS)),
        (Transport::Udp, 1, "[2001:db8:c::1]:1000", None),
        (Transport::Tls, 3, BOB, Some(SUCCESS)),
        (Transport::Tcp, 2, BOB, Some(401)),
        (Transport::Dtls, 4, BOB, Some(401)),
    ] {
        let mut client = world.client("alice", addr);
        client.tuple.listener = ListenerId::new(transport, place);
        let outcome = bare(&mut client, &mut world);
        match expected {
            Some(code) => assert_eq!(outcome.answer().code(), code, "{transport:?}"),
            None => assert_eq!(outcome.dropped(), Some(DropReason::BindingOff)),
        }
    }
}

#[test]
fn a_reload_changes_what_binding_requests_get() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    assert_eq!(bare(&mut alice, &mut world).answer().code(), SUCCESS);
    world.reconfigure(&all(BindingRequests::Off));
    assert!(bare(&mut alice, &mut world).dropped().is_some());
}

/// A request as RFC 3489 had it: with 128 bits of transaction id where the cookie stands now.
#[test]
fn a_classic_binding_request_without_the_magic_cookie_is_dropped_and_counted() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let change_request = alice
        .build(Method::BINDING)
        .raw(AttributeType::CHANGE_REQUEST, &[0; 4])
        .bytes();
    for bytes in [alice.build(Method::BINDING).bytes(), change_request] {
        let mut classic = bytes;
        classic[4..8].copy_from_slice(&[0xC0, 0xFF, 0xEE, 0x00]);
        let outcome = world.send(&alice, &classic).dropped();
        assert_eq!(outcome, Some(DropReason::NoCookie));
    }
    assert_eq!(world.drops(DropReason::NoCookie), 2);
}
