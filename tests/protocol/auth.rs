//! The long-term credential mechanism: who gets in, for how long, and what others are told.

use taciturn::proto::{
    Algorithm, AttributeType, Lifetime, Method, Nonce, PasswordAlgorithms, Realm,
    RequestedTransport, UnknownAttributes, Username, XorPeerAddress,
};
use taciturn::turn::NONCE_LIFETIME;
use taciturn::turn::stats::AuthFailure;

use crate::world::call::{ALICE, BOB, CAROL, Call};
use crate::world::client::{Client, SUCCESS, Scheme};
use crate::world::message::{Answer, Build, MD5, OFFERED, SHA256, is_signed, key};
use crate::world::servers::{BEGIN_UNIX, REALM, SECRETS, STATIC_USER, Setup, World, at};

#[test]
fn a_first_request_is_challenged() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let request = alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP);
    let answer = world.send(&alice, &request.bytes()).answer();
    assert_eq!(answer.code(), 401);
    assert_eq!(answer.realm().as_deref(), Some(REALM));
    let algorithms = answer.find::<PasswordAlgorithms<'_>>().unwrap();
    assert_eq!(algorithms, PasswordAlgorithms::new(OFFERED));
    assert!(answer.nonce().unwrap().starts_with("obMatJos2gAAA"));
    assert_eq!(world.failures(AuthFailure::Missing), 1);
}

#[test]
fn static_users_and_either_secret_get_in() {
    let mut world = World::new();
    let (name, password) = STATIC_USER;
    Client::new(at(ALICE), name, password).allocate(&mut world);
    let username = format!("{}:bob", BEGIN_UNIX + 100);
    for (secret, addr) in SECRETS.iter().zip([BOB, CAROL]) {
        let secret = taciturn::turn::credential::Secret::new("s", *secret);
        let minted = taciturn::turn::credential::mint(&secret, "bob", BEGIN_UNIX + 100).unwrap();
        assert_eq!(minted.username, username);
        Client::new(at(addr), &username, &minted.password).allocate(&mut world);
    }
}

/// T14
#[test]
fn a_captured_request_is_stale_from_elsewhere_and_later() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    let request = alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP);
    let bytes = alice.sign(request);
    let thief = alice.moved("198.51.100.66:1000");
    assert_eq!(world.send(&thief, &bytes).answer().code(), 438);
    world.advance(NONCE_LIFETIME);
    assert_eq!(world.send(&alice, &bytes).answer().code(), 438);
    assert_eq!(world.allocations(), 0);
    assert_eq!(world.failures(AuthFailure::StaleNonce), 2);
}

/// T14: NATs flip ports, and browsers give up on a 438 to Allocate.
#[test]
fn a_nonce_is_good_from_another_port_of_its_source() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    let mut flipped = alice.moved("198.51.100.1:1999");
    let answer = flipped.request_once(&mut world, Method::ALLOCATE, |r| {
        r.with(&RequestedTransport::UDP)
    });
    assert_eq!(answer.code(), SUCCESS);
}

/// T14
#[test]
fn a_signed_request_that_lacks_something_is_a_bad_request() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let nonce = alice.fetch_nonce(&mut world);
    let username = alice.username.clone();
    let key = alice.key();
    let start = |alice: &mut Client| alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP);
    let requests = [
        start(&mut alice).with(&Realm(REALM)).with(&Nonce(&nonce)),
        start(&mut alice)
            .with(&Username(&username))
            .with(&Nonce(&nonce)),
        start(&mut alice)
            .with(&Username(&username))
            .with(&Realm(REALM)),
        start(&mut alice),
    ];
    for request in requests {
        let answer = world
            .send(&alice, &request.integrity(&key).bytes())
            .answer();
        assert_eq!(answer.code(), 400);
        assert!(answer.nonce().is_none() && answer.realm().is_none());
    }
}

/// T15
#[test]
fn one_438_brings_a_client_with_an_old_nonce_back() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    assert_eq!(alice.refresh(&mut world, Some(3_600)).code(), SUCCESS);
    world.advance(NONCE_LIFETIME - 1);
    assert_eq!(alice.refresh(&mut world, Some(3_600)).code(), SUCCESS);
    assert_eq!(world.failures(AuthFailure::StaleNonce), 0);
    world.advance(1);
    let stale = alice.request_once(&mut world, Method::REFRESH, |r| r);
    assert_eq!(stale.code(), 438);
    assert_eq!(stale.realm().as_deref(), Some(REALM));
    assert!(stale.find::<PasswordAlgorithms<'_>>().is_some());
    alice.nonce = stale.nonce();
    let fresh = alice.request_once(&mut world, Method::REFRESH, |r| r);
    assert_eq!(fresh.code(), SUCCESS);
}

/// T15: the key of nonces is shared, a nonce is not remembered.
#[test]
fn a_nonce_of_one_worker_is_good_on_another() {
    let setup = Setup {
        workers: 2,
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    let mut alice = alice.on(1);
    let answer = alice.request_once(&mut world, Method::ALLOCATE, |r| {
        r.with(&RequestedTransport::UDP)
    });
    assert_eq!(answer.code(), SUCCESS);
}

/// Signs, then appends behind the signature.
fn send_with_appended(
    client: &Client,
    world: &mut World,
    request: Build,
    append: impl Fn(Build) -> Build,
) -> Answer {
    let signed = Build::from(client.sign(request));
    world.send(client, &append(signed).bytes()).answer()
}

/// T16
#[test]
fn what_is_appended_behind_the_signature_is_ignored() {
    let mut call = Call::new(Setup::default());
    let Call {
        world, alice, a, b, ..
    } = &mut call;
    let refresh = alice.build(Method::REFRESH);
    let answer = send_with_appended(alice, world, refresh, |r| r.with(&Lifetime(0)));
    assert_eq!(answer.lifetime(), Some(600));

    let permit = alice
        .build(Method::CREATE_PERMISSION)
        .with(&XorPeerAddress(*b));
    let v6 = XorPeerAddress(at("[2001:db8:7::7]:50000"));
    let answer = send_with_appended(alice, world, permit, |r| {
        r.with(&v6).raw_number(0x7001, &[])
    });
    assert_eq!(
        answer.code(),
        SUCCESS,
        "one that counted would be 443 or 420"
    );

    let empty = alice.build(Method::CREATE_PERMISSION);
    let answer = send_with_appended(alice, world, empty, |r| r.with(&XorPeerAddress(*a)));
    assert_eq!(answer.code(), 400, "no peer was signed");
}

/// T17
#[test]
fn of_a_repeated_attribute_the_first_counts() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let tcp = RequestedTransport::TCP;
    let answer = alice.allocate_with(&mut world, |r| {
        r.with(&tcp).with(&Lifetime(1_000)).with(&Lifetime(2_000))
    });
    assert_eq!(answer.lifetime(), Some(1_000));
    let answer = alice.request(&mut world, Method::REFRESH, |r| {
        r.with(&Lifetime(700)).with(&Lifetime(0))
    });
    assert_eq!(answer.lifetime(), Some(700));

    // The username that is looked up is the first one too.
    let answer = alice.request(&mut world, Method::REFRESH, |r| {
        r.with(&Username("mallory"))
    });
    assert_eq!(answer.code(), 401);
}

/// T19
#[test]
fn another_user_gets_nothing_done_on_my_5_tuple() {
    let mut call = Call::permitted(Setup::default());
    let mut mallory = call.world.client("mallory", ALICE);
    assert_eq!(mallory.tuple, call.alice.tuple);
    let world = &mut call.world;
    let refused = mallory.refresh(world, Some(0));
    assert_eq!(refused.code(), 441);
    assert!(mallory.has_signed(&refused));
    assert_eq!(mallory.permit(world, &[call.b]), 441);
    assert_eq!(mallory.bind(world, 0x4000, call.b), 441);
    assert_eq!(mallory.allocate_with(world, |r| r).code(), 437);
    assert_eq!(world.failures(AuthFailure::OtherUser), 4);
    call.alice_says(b"still there").at(&call.bob);
}

/// T19: another credential of the same user is another username (RFC 8656 §7.2).
#[test]
fn another_credential_of_the_same_user_is_wrong_too() {
    let mut call = Call::new(Setup::default());
    let mut renewed = call.world.client_until("alice", ALICE, BEGIN_UNIX + 999);
    assert_ne!(renewed.username, call.alice.username);
    assert_eq!(renewed.refresh(&mut call.world, None).code(), 441);
}

/// T20
#[test]
fn an_unknown_user_and_a_wrong_password_look_and_cost_the_same() {
    let mut world = World::new();
    let good = world.client("alice", ALICE);
    let cases = [
        (good.username.as_str(), "wrong"),
        (STATIC_USER.0, "wrong"),
        ("nobody", "wrong"),
        ("", "wrong"),
        ("1:expired", "wrong"),
        ("1900000000:~1.sealed", "wrong"),
        ("1900000000:unknown", ""),
    ];
    let mut seen = Vec::new();
    for (username, password) in cases {
        let mut client = Client::new(at(ALICE), username, password);
        let answer = client.allocate_with(&mut world, |r| r);
        let kinds: Vec<_> = answer.message().attributes().map(|raw| raw.kind).collect();
        let candidates = world.config.credentials.find(username).candidates.count();
        seen.push((answer.code(), answer.0.len(), kinds, candidates));
    }
    assert_eq!(seen[0].0, 401);
    assert_eq!(seen[0].3, SECRETS.len());
    assert!(seen.iter().all(|case| *case == seen[0]), "{seen:?}");
    assert_eq!(world.failures(AuthFailure::Wrong), cases.len() as u64);
}

/// T20: a realm that is not ours is refused like a wrong password, whichever key it goes with.
#[test]
fn a_wrong_realm_is_unauthorized() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    let good_key = alice.key();
    alice.realm = "other.test".to_owned();
    for key in [good_key, alice.key()] {
        let request = alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP);
        let bytes = alice.credentials(request).integrity(&key).bytes();
        let answer = world.send(&alice, &bytes).answer();
        assert_eq!(answer.code(), 401);
        assert_eq!(answer.realm().as_deref(), Some(REALM));
    }
}

/// T21
#[test]
fn hostile_usernames_are_refused_and_shown_to_nobody() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let nonce = alice.fetch_nonce(&mut world);
    let long = "x".repeat(600);
    let names: [&[u8]; 8] = [
        b"%s%n%x%p",
        b"'; DROP TABLE users; --",
        b"\"quoted\"",
        b"nul\0inside",
        b"line\r\nX-Injected: yes",
        b"\xFF\xFE not utf-8",
        long.as_bytes(),
        b"1900000000:\x1b[31mred",
    ];
    for name in names {
        let request = alice
            .build(Method::ALLOCATE)
            .with(&RequestedTransport::UDP)
            .raw(AttributeType::USERNAME, name)
            .with(&Realm(REALM))
            .with(&Nonce(&nonce))
            .integrity(&[0; 16])
            .bytes();
        let answer = world.send(&alice, &request).answer();
        let expected = if name.starts_with(b"\xFF") { 400 } else { 401 };
        assert_eq!(answer.code(), expected, "{name:?}");
        assert!(!answer.0.windows(name.len()).any(|window| window == name));
        let events = world.events(0);
        let shown = format!("{:?} {events:?}", world.servers);
        let name = String::from_utf8_lossy(name);
        assert!(!shown.contains(&*name), "{name}");
        assert!(!shown.contains(&format!("{name:?}")), "{name}");
    }
}

/// T21
#[test]
fn a_username_with_odd_characters_that_is_minted_gets_in() {
    let mut world = World::new();
    let mut client = world.client("ünïcode %s 'quoted' \"user\" a:b:c", ALICE);
    client.allocate(&mut world);
}

/// T22
#[test]
fn the_stronger_algorithms_work_and_sign_the_response() {
    for scheme in [Scheme::Sha256, Scheme::Md5Chosen] {
        let mut call = Call::new(Setup::default());
        let mut carol = call.world.client("carol", CAROL);
        carol.scheme = scheme;
        carol.allocate(&mut call.world);
        assert_eq!(carol.permit(&mut call.world, &[call.a]), SUCCESS);
        let refused = carol.allocate_with(&mut call.world, |r| r);
        assert_eq!(refused.code(), 437);
        let sha256 = AttributeType::MESSAGE_INTEGRITY_SHA256;
        assert!(is_signed(&refused.0, sha256, &carol.key()), "{scheme:?}");
        assert!(!refused.message().has(AttributeType::MESSAGE_INTEGRITY));
    }
}

/// T22
#[test]
fn a_bid_down_is_a_bad_request() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let nonce = alice.fetch_nonce(&mut world);
    let offered = PasswordAlgorithms::new(OFFERED);
    let (md5_only, reversed) = ([MD5], [MD5, SHA256]);
    let start = |alice: &mut Client| {
        alice
            .build(Method::ALLOCATE)
            .with(&RequestedTransport::UDP)
            .with(&Username(&alice.username))
            .with(&Realm(REALM))
            .with(&Nonce(&nonce))
    };
    let requests = [
        start(&mut alice)
            .with(&PasswordAlgorithms::new(&md5_only))
            .with(&MD5),
        start(&mut alice)
            .with(&PasswordAlgorithms::new(&reversed))
            .with(&MD5),
        start(&mut alice).with(&offered),
        start(&mut alice).with(&MD5),
        start(&mut alice).with(&SHA256),
        start(&mut alice)
            .with(&offered)
            .raw_number(0x001D, &[0, 9, 0, 0]),
        start(&mut alice).with(&offered).raw_number(0x001D, &[0]),
        start(&mut alice).raw_number(0x8002, &[1]).with(&MD5),
    ];
    let key = alice.key();
    for (n, request) in requests.into_iter().enumerate() {
        for request in [
            request.clone().integrity(&key),
            request.integrity_sha256(&key),
        ] {
            let answer = world.send(&alice, &request.bytes()).answer();
            assert_eq!(answer.code(), 400, "request {n}");
        }
    }
    assert_eq!(world.allocations(), 0);
}

/// T22: the bits in the nonce tell a client what the server offers, so they may not be altered.
#[test]
fn a_nonce_with_other_security_features_is_stale() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.fetch_nonce(&mut world);
    alice.nonce = alice.nonce.map(|nonce| nonce.replacen("gAAA", "AAAA", 1));
    let answer = alice.request_once(&mut world, Method::ALLOCATE, |r| {
        r.with(&RequestedTransport::UDP)
    });
    assert_eq!(answer.code(), 438);
    assert!(answer.nonce().unwrap().starts_with("obMatJos2gAAA"));
}

/// T22
#[test]
fn the_sha256_signature_decides_when_both_are_there() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let nonce = alice.fetch_nonce(&mut world);
    let md5 = alice.key();
    let sha256 = key(Algorithm::Sha256, &alice.username, REALM, &alice.password);
    for (good, code) in [(true, SUCCESS), (false, 401)] {
        let wrong = [0; 32];
        let request = alice
            .build(Method::ALLOCATE)
            .with(&RequestedTransport::UDP)
            .with(&Username(&alice.username))
            .with(&Realm(REALM))
            .with(&Nonce(&nonce))
            .with(&PasswordAlgorithms::new(OFFERED))
            .with(&SHA256)
            .integrity(&md5)
            .integrity_sha256(if good { &sha256 } else { &wrong });
        let answer = world.send(&alice, &request.bytes()).answer();
        assert_eq!(answer.code(), code);
        alice.refresh(&mut world, Some(0));
    }
}

/// T22: a truncated signature is easier to guess, and TURN does not allow one.
#[test]
fn a_truncated_sha256_signature_is_unauthorized() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    alice.scheme = Scheme::Sha256;
    alice.fetch_nonce(&mut world);
    let request = alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP);
    let start = alice
        .credentials(request)
        .with(&PasswordAlgorithms::new(OFFERED))
        .with(&SHA256);
    for (len, code) in [(16, 401), (28, 401), (32, SUCCESS)] {
        let request = start.clone().truncated_sha256(&alice.key(), len).bytes();
        let answer = world.send(&alice, &request).answer();
        assert_eq!(answer.code(), code, "{len} bytes");
    }
}

/// T24: of RFC 7635 there is nothing here, so that a token is an attribute that nobody knows,
/// however it is made up.
#[test]
fn an_access_token_is_an_unknown_attribute() {
    let mut world = World::new();
    let mut alice = world.client("alice", ALICE);
    let tokens: [&[u8]; 5] = [
        &[],
        &[0xFF, 0xFF],
        // A nonce length beyond the token, beyond its own field, and none.
        &[&[0xFF, 0xFF], [0xAA; 64].as_slice()].concat(),
        &[&[0, 12], [0xAA; 64].as_slice()].concat(),
        &[0xAA; 1_000],
    ];
    for token in tokens {
        let unsigned = alice.build(Method::ALLOCATE).raw_number(0x001B, token);
        let challenge = world.send(&alice, &unsigned.bytes()).answer();
        assert_eq!(challenge.code(), 401);
        // THIRD-PARTY-AUTHORIZATION would offer it.
        let offers = |raw: taciturn::proto::RawAttribute<'_>| raw.kind.value() == 0x802E;
        assert!(!challenge.message().attributes().any(offers));
        let answer = alice.allocate_with(&mut world, |r| r.raw_number(0x001B, token));
        assert_eq!(answer.code(), 420);
        assert!(alice.has_signed(&answer));
        let unknown = answer.find::<UnknownAttributes<'_>>().unwrap();
        let unknown: Vec<u16> = unknown.iter().map(AttributeType::value).collect();
        assert_eq!(unknown, [0x001B]);
        let binding = alice.build(Method::BINDING).raw_number(0x001B, token);
        assert_eq!(world.send(&alice, &binding.bytes()).answer().code(), 420);
    }
    assert_eq!(world.allocations(), 0);
}

/// T23
#[test]
fn what_is_drawn_at_random_never_repeats() {
    let mut seen = std::collections::HashSet::new();
    for seed in 0..4 {
        let setup = Setup {
            seed,
            workers: 2,
            ..Setup::default()
        };
        let mut call = Call::permitted(setup);
        for worker in 0..2 {
            for _ in 0..50 {
                let mut client = call.alice.moved(CAROL).on(worker);
                let nonce = client.fetch_nonce(&mut call.world);
                assert!(seen.insert(nonce.into_bytes()));
            }
        }
        for _ in 0..50 {
            let crate::world::servers::Outcome::Client { bytes, .. } = call.alice_says(b"x") else {
                panic!("not delivered");
            };
            assert!(seen.insert(bytes[8..20].to_vec()), "a transaction id");
        }
    }
    assert_eq!(seen.len(), 4 * 150);
}

/// The key that an allocation keeps lets in nobody else, and nobody with another password.
#[test]
fn a_known_key_admits_its_own_password_alone() {
    let mut world = World::new();
    let mut alice = world.client("alice", "198.51.100.1:1000");
    alice.allocate(&mut world);
    assert_eq!(alice.refresh(&mut world, None).code(), SUCCESS);
    let mut wrong = alice.clone();
    wrong.password = "another password".to_owned();
    assert_eq!(
        wrong
            .request_once(&mut world, Method::REFRESH, |r| r)
            .code(),
        401
    );
    // The same user by the other secret, and by another algorithm, is who he was.
    let ring = world.config.credentials.ring();
    let other = taciturn::turn::credential::mint(
        ring.get(1).unwrap(),
        "alice",
        world.clock.unix + crate::world::servers::CREDENTIAL_LIFE,
    );
    let mut other_secret = alice.clone();
    other_secret.password = other.unwrap().password.to_string();
    assert_eq!(other_secret.refresh(&mut world, None).code(), SUCCESS);
    let mut other_scheme = alice.clone();
    other_scheme.scheme = Scheme::Sha256;
    assert_eq!(other_scheme.refresh(&mut world, None).code(), SUCCESS);
    // A nonce of another source is stale with a known key too.
    let mut elsewhere = world.client("bob", "198.51.100.99:1000");
    alice.nonce = Some(elsewhere.fetch_nonce(&mut world));
    let stale = alice.request_once(&mut world, Method::REFRESH, |r| r);
    assert_eq!(stale.code(), 438);
}
