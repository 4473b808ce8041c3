//! What a server tells to sources that may be forged: little, and not often.

use taciturn::proto::{AttributeType, Class, Method, UnknownAttributes};
use taciturn::turn::policy::FleetNode;
use taciturn::turn::stats::DropReason;
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{Bind, NONCE_LIFETIME};

use crate::world::call::{ALICE, Call};
use crate::world::client::{Client, SUCCESS};
use crate::world::message::Build;
use crate::world::servers::{LISTENER_V4, LISTENER_V6, Outcome, Setup, World, at, ip};

const V6: &str = "[2001:db8:c::1]:1000";

fn binding(client: &mut Client, world: &mut World) -> Outcome {
    let bytes = client.build(Method::BINDING).bytes();
    world.send(client, &bytes)
}

/// T29
#[test]
fn a_binding_response_is_as_small_as_it_can_be() {
    let mut world = World::new();
    for (addr, len) in [(ALICE, 32), (V6, 44)] {
        let mut client = world.client("alice", addr);
        let answer = binding(&mut client, &mut world).answer();
        assert_eq!(answer.code(), SUCCESS);
        assert_eq!(answer.mapped(), Some(at(addr)));
        assert_eq!(answer.0.len(), len);
    }
}

/// T29
#[test]
fn challenges_are_small_whatever_the_realm() {
    for len in [1, 10, 31, 32, 33, 44] {
        let setup = Setup {
            realm: "r".repeat(len),
            ..Setup::default()
        };
        let mut world = setup.world();
        let mut alice = world.client("alice", ALICE);
        alice.realm = world.config.realm.clone();
        let bytes = alice.build(Method::ALLOCATE).bytes();
        let challenge = world.send(&alice, &bytes).answer();
        assert_eq!(challenge.code(), 401);
        assert!(challenge.0.len() <= 128, "{}", challenge.0.len());
        alice.nonce = challenge.nonce();
        alice.allocate(&mut world);
        world.advance(NONCE_LIFETIME);
        let stale = alice.request_once(&mut world, Method::REFRESH, |r| r);
        assert_eq!(stale.code(), 438);
        assert!(stale.0.len() <= 128, "{}", stale.0.len());
    }
}

/// T29 and T47
#[test]
fn other_errors_for_the_unvalidated_are_small_too() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let many = (0x7000..0x7100).fold(alice.build(Method::BINDING), |r, kind| {
        r.raw_number(kind, &[])
    });
    let answer = world.send(&alice, &many.bytes()).answer();
    assert_eq!(answer.code(), 420);
    assert!(
        answer
            .find::<UnknownAttributes<'_>>()
            .unwrap()
            .iter()
            .count()
            >= 1
    );
    assert!(answer.0.len() <= 128);
    let incomplete = alice.build(Method::ALLOCATE).integrity(&[0; 16]);
    let answer = world.send(&alice, &incomplete.bytes()).answer();
    assert_eq!(answer.code(), 400);
    assert!(answer.0.len() <= 128);
}

/// T29: spoofed Allocates leave nothing behind (T27).
#[test]
fn replies_are_capped_per_source_and_then_there_is_silence() {
    let setup = Setup {
        unvalidated: Rate {
            per_second: 2,
            burst: 5,
        },
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let mut other = world.client("other", "192.0.2.77:1");
    let answered = |world: &mut World, client: &mut Client, method: Method| {
        let bytes = client.build(method).bytes();
        matches!(world.send(client, &bytes), Outcome::Answer(_))
    };
    let methods = [Method::BINDING, Method::ALLOCATE, Method::REFRESH];
    let count = methods
        .iter()
        .cycle()
        .take(30)
        .filter(|method| answered(&mut world, &mut alice, **method))
        .count();
    assert_eq!(count, 5, "one budget for all methods");
    assert_eq!(world.drops(DropReason::Unvalidated), 25);
    let mut flipped = alice.moved("198.51.100.1:2");
    assert!(
        !answered(&mut world, &mut flipped, Method::BINDING),
        "ports share it"
    );
    assert!(answered(&mut world, &mut other, Method::BINDING));
    world.advance(1);
    let count = (0..10)
        .filter(|_| answered(&mut world, &mut alice, Method::ALLOCATE))
        .count();
    assert_eq!(count, 2);
    assert!(world.house.borrow().users.is_empty() && world.house.borrow().owners.is_empty());
}

/// T29
#[test]
fn a_source_that_echoed_a_fresh_nonce_is_exempt() {
    let setup = Setup {
        unvalidated: Rate {
            per_second: 1,
            burst: 1,
        },
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    let spent = binding(&mut alice, &mut world).dropped();
    assert_eq!(spent, Some(DropReason::Unvalidated));
    let mut wrong = alice.clone();
    wrong.password = "wrong".to_owned();
    for _ in 0..50 {
        let answer = wrong.request_once(&mut world, Method::ALLOCATE, |r| r);
        assert_eq!(answer.code(), 401);
    }
    alice.allocate(&mut world);

    // Another's nonce proves nothing.
    let mut thief = wrong.moved("192.0.2.66:1");
    let bytes = thief.build(Method::ALLOCATE);
    let bytes = thief.sign(bytes);
    assert_eq!(world.send(&thief, &bytes).answer().code(), 401);
    let outcome = world.send(&thief, &bytes).dropped();
    assert_eq!(outcome, Some(DropReason::Unvalidated));
}

/// T28: a signature without anything behind it costs no more than the cap either.
#[test]
fn garbage_signatures_are_capped() {
    let setup = Setup {
        unvalidated: Rate {
            per_second: 1,
            burst: 3,
        },
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    alice.nonce = Some("obMatJos2gAAAnonsense".to_owned());
    let request = alice.build(Method::ALLOCATE);
    let bytes = alice.sign(request);
    let answers = (0..20)
        .filter(|_| matches!(world.send(&alice, &bytes), Outcome::Answer(_)))
        .count();
    assert_eq!(answers, 3);
}

/// T30
#[test]
fn sources_that_no_client_has_are_ignored() {
    let setup = Setup {
        fleet: vec![FleetNode {
            addr: ip("203.0.113.8"),
            seen_as: Some(ip("10.8.0.8")),
            ports: 50_000..=50_999,
        }],
        ..Setup::default()
    };
    let mut world = setup.world();
    for source in [
        "198.51.100.1:0",
        "224.0.0.1:5000",
        "255.255.255.255:5000",
        "0.0.0.0:5000",
        "[ff02::1]:5000",
        "[::]:5000",
        LISTENER_V4,
        LISTENER_V6,
        "203.0.113.8:50000",
        "10.8.0.8:50000",
    ] {
        let mut client = world.client("alice", source);
        for method in [Method::BINDING, Method::ALLOCATE] {
            let bytes = client.build(method).bytes();
            let outcome = world.send(&client, &bytes).dropped();
            assert_eq!(outcome, Some(DropReason::BadSource), "{source}");
        }
    }
}

#[test]
fn a_program_of_this_machine_with_the_port_of_a_tcp_socket_is_a_client() {
    let mut world = World::new();
    let mut client = world.client("alice", "127.0.0.1:9641");
    assert_eq!(binding(&mut client, &mut world).answer().code(), SUCCESS);
    client.allocate(&mut world);
}

/// T30
#[test]
fn a_relayed_address_with_a_socket_is_no_client() {
    let setup = Setup {
        bind: Bind::Always,
        ..Setup::default()
    };
    for (setup, has_socket) in [(setup, true), (Setup::default(), false)] {
        let mut call = Call::new(setup);
        assert_eq!(call.world.has_socket(call.b), has_socket);
        let mut looped = call.world.client("mallory", &call.b.to_string());
        let outcome = binding(&mut looped, &mut call.world);
        assert_eq!(outcome.dropped().is_some(), has_socket, "{outcome:?}");
    }
}

/// T30
#[test]
fn responses_and_indications_are_never_answered() {
    let mut world = World::new();
    let alice = world.client("alice", ALICE);
    let methods = [
        Method::BINDING,
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
        Method::DATA,
        Method::CONNECTION_ATTEMPT,
    ];
    for method in methods {
        for class in [Class::Success, Class::Error, Class::Indication] {
            let bytes = Build::new(class, method, [1; 12])
                .raw_number(0x7001, &[])
                .bytes();
            let outcome = world.send(&alice, &bytes);
            let keepalive = class == Class::Indication && method == Method::BINDING;
            if keepalive {
                assert_eq!(outcome, Outcome::Consumed);
            } else {
                assert_eq!(outcome.dropped(), Some(DropReason::Unexpected));
            }
        }
    }
}

#[test]
fn methods_that_are_not_spoken_here_are_dropped() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    for method in [
        Method::CONNECT,
        Method::CONNECTION_BIND,
        Method::DATA,
        Method::SEND,
    ] {
        let bytes = alice.build(method).bytes();
        let outcome = world.send(&alice, &bytes).dropped();
        assert_eq!(outcome, Some(DropReason::UnknownMethod), "{method:?}");
    }
}

/// T49
#[test]
fn a_fingerprint_is_right_and_last_or_the_message_is_dropped() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let good = alice.build(Method::BINDING).fingerprint();
    assert_eq!(
        world.send(&alice, &good.clone().bytes()).answer().code(),
        SUCCESS
    );
    let not_last = good.clone().raw(AttributeType::SOFTWARE, b"x").bytes();
    let outcome = world.send(&alice, &not_last).dropped();
    assert_eq!(outcome, Some(DropReason::Malformed));
    let mut wrong = good.bytes();
    *wrong.last_mut().unwrap() ^= 0x80;
    let outcome = world.send(&alice, &wrong).dropped();
    assert_eq!(outcome, Some(DropReason::Fingerprint));

    alice.fetch_nonce(&mut world);
    let request = alice.build(Method::ALLOCATE);
    let mut signed = alice.sign(request);
    signed.extend_from_slice(&[0x80, 0x28, 0, 4, 1, 2, 3, 4]);
    signed[3] += 8;
    let outcome = world.send(&alice, &signed).dropped();
    assert_eq!(
        outcome,
        Some(DropReason::Fingerprint),
        "also behind a signature"
    );
}

/// T50
#[test]
fn other_protocols_on_this_port_are_dropped() {
    let mut world = World::new();
    let alice = world.client("alice", ALICE);
    let tls = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
    let classic_stun = [
        0, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    ];
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
        b"POST /admin HTTP/1.1\r\n\r\n",
        &tls,
        &classic_stun,
        &[],
        &[0],
        &[0; 19],
        &[0xFF; 2_000],
    ] {
        let outcome = world.send(&alice, bytes);
        assert!(outcome.dropped().is_some(), "{bytes:?}: {outcome:?}");
    }
}
