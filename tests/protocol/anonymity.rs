//! USERHASH (RFC 8489 §9.2, §14.4): where users are static alone, they need not say their names.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use taciturn::proto::{
    Attribute, AttributeType, Method, Nonce, PasswordAlgorithms, Realm, RequestedTransport,
    Userhash, Username,
};
use taciturn::turn::stats::AuthFailure;

use crate::world::call::{ALICE, BOB};
use crate::world::client::{Client, SUCCESS, Scheme};
use crate::world::message::{Answer, Build, MD5, OFFERED, SHA256};
use crate::world::servers::{REALM, SECRETS, Setup, World, at};

const USERS: [(&str, &str); 3] = [
    ("gateway", "gateway-password"),
    ("kiosk", "kiosk-password"),
    ("\u{30de}\u{30c8}", "matrix-password"),
];
/// RFC 8489 §18.1: bits 0 and 1, and bit 0 alone.
const ANONYMITY: &str = "obMatJos2wAAA";
const NO_ANONYMITY: &str = "obMatJos2gAAA";

fn static_alone() -> Setup {
    Setup {
        secrets: Vec::new(),
        users: USERS.to_vec(),
        ..Setup::default()
    }
}

/// A client of a static user.
fn client((name, password): (&str, &str), addr: &str) -> Client {
    Client::new(at(addr), name, password)
}

/// A request of `client` with `names` in the place of a username.
fn send(
    client: &mut Client,
    world: &mut World,
    method: Method,
    names: impl FnOnce(Build) -> Build,
) -> Answer {
    if client.nonce.is_none() {
        client.fetch_nonce(world);
    }
    let nonce = client.nonce.clone().unwrap();
    let mut request = client.build(method);
    if method == Method::ALLOCATE {
        request = request.with(&RequestedTransport::UDP);
    }
    let request = names(request).with(&Realm(REALM)).with(&Nonce(&nonce));
    let offered = PasswordAlgorithms::new(OFFERED);
    let key = client.key();
    let request = match client.scheme {
        Scheme::Md5 => request.integrity(&key),
        Scheme::Sha256 => request.with(&offered).with(&SHA256).integrity_sha256(&key),
        Scheme::Md5Chosen => request.with(&offered).with(&MD5).integrity_sha256(&key),
    };
    world.send(client, &request.bytes()).answer()
}

fn by_hash(client: &mut Client, world: &mut World, method: Method) -> Answer {
    let hash = Userhash::of(&client.username, REALM);
    send(client, world, method, |request| request.with(&hash))
}

#[test]
fn where_users_are_static_alone_the_nonce_offers_anonymity() {
    let mut world = static_alone().world();
    let nonce = client(USERS[0], ALICE).fetch_nonce(&mut world);
    assert!(nonce.starts_with(ANONYMITY), "{nonce}");

    let both = Setup {
        secrets: SECRETS.to_vec(),
        ..static_alone()
    };
    let nobody = Setup {
        users: Vec::new(),
        ..static_alone()
    };
    for setup in [both, nobody] {
        let nonce = client(USERS[0], ALICE).fetch_nonce(&mut setup.world());
        assert!(nonce.starts_with(NO_ANONYMITY), "{nonce}");
    }
}

#[test]
fn a_user_gets_in_by_the_hash_of_the_name_with_every_algorithm() {
    for scheme in [Scheme::Md5, Scheme::Md5Chosen, Scheme::Sha256] {
        for user in USERS {
            let mut world = static_alone().world();
            let mut client = client(user, ALICE);
            client.scheme = scheme;
            for method in [Method::ALLOCATE, Method::REFRESH, Method::REFRESH] {
                let answer = by_hash(&mut client, &mut world, method);
                assert_eq!(answer.code(), SUCCESS, "{scheme:?} {method:?}");
                assert!(client.has_signed(&answer));
                let named = [AttributeType::USERNAME, AttributeType::USERHASH];
                assert!(named.iter().all(|kind| !answer.message().has(*kind)));
            }
            // It is the same user by either.
            assert_eq!(client.refresh(&mut world, None).code(), SUCCESS);
        }
    }
}

#[test]
fn a_username_is_taken_as_ever_where_anonymity_is_offered() {
    let mut world = static_alone().world();
    client(USERS[1], ALICE).allocate(&mut world);
}

/// T20
#[test]
fn an_unknown_hash_and_a_wrong_password_look_and_cost_the_same() {
    let mut world = static_alone().world();
    let mut seen = Vec::new();
    let cases = [
        ("gateway", "wrong"),
        ("kiosk", "wrong"),
        ("unknown", "wrong"),
        ("", ""),
        // The password of the user whose name stands in for an unknown one.
        ("unknown", USERS[0].1),
    ];
    for case in cases {
        let mut client = client(case, ALICE);
        let answer = by_hash(&mut client, &mut world, Method::ALLOCATE);
        let kinds: Vec<_> = answer.message().attributes().map(|raw| raw.kind).collect();
        let hash = Userhash::of(case.0, REALM).0;
        let found = world.config.credentials.find_by_hash(&hash);
        let candidates = found.found.candidates.count();
        seen.push((answer.code(), answer.0.len(), kinds, candidates));
    }
    assert_eq!(seen[0].0, 401);
    assert!(seen.iter().all(|case| *case == seen[0]), "{seen:?}");
    assert_eq!(world.failures(AuthFailure::Wrong), cases.len() as u64);
}

/// T20: whatever user it is whose name stands in for an unknown one, nobody becomes him.
#[test]
fn an_unknown_hash_with_a_known_key_is_unauthorized() {
    for user in USERS {
        let mut world = static_alone().world();
        let mut client = client(user, ALICE);
        assert_eq!(
            by_hash(&mut client, &mut world, Method::ALLOCATE).code(),
            SUCCESS
        );
        let unknown = Userhash::of("unknown", REALM);
        for method in [Method::REFRESH, Method::ALLOCATE] {
            let answer = send(&mut client, &mut world, method, |r| r.with(&unknown));
            assert_eq!(answer.code(), 401);
        }
    }
}

/// RFC 8489 §9.2.4: a USERHASH that is not valid. A name that a secret mints has no place in a
/// list, and while there are such names none is found by its hash.
#[test]
fn where_secrets_are_configured_a_hash_is_unknown() {
    let mut world = Setup::default().world();
    let minted = world.client("alice", ALICE);
    let gateway = client(USERS[0], BOB);
    for mut client in [minted, gateway] {
        client.scheme = Scheme::Sha256;
        let answer = by_hash(&mut client, &mut world, Method::ALLOCATE);
        assert_eq!(answer.code(), 401);
        assert_eq!(answer.realm().as_deref(), Some(REALM));
        assert!(answer.nonce().unwrap().starts_with(NO_ANONYMITY));
        assert!(answer.find::<PasswordAlgorithms<'_>>().is_some());
        client.allocate(&mut world);
    }
}

#[test]
fn a_name_and_a_hash_at_once_or_a_hash_of_another_length_is_a_bad_request() {
    let mut world = static_alone().world();
    let mut client = client(USERS[0], ALICE);
    let name = client.username.clone();
    let hash = Userhash::of(&name, REALM);
    for n in 0..4 {
        let answer = send(&mut client, &mut world, Method::ALLOCATE, |r| match n {
            0 => r.with(&Username(&name)).with(&hash),
            1 => r.with(&hash).with(&Username(&name)),
            2 => r.raw(Userhash::TYPE, &hash.0[..31]),
            _ => r.raw(Userhash::TYPE, &[hash.0.as_slice(), &[0; 4]].concat()),
        });
        assert_eq!(answer.code(), 400, "case {n}");
        assert!(answer.nonce().is_none());
    }
    assert_eq!(world.allocations(), 0);
}

/// T19
#[test]
fn another_users_hash_gets_nothing_done_on_my_5_tuple() {
    let mut world = static_alone().world();
    let mut alice = client(USERS[0], ALICE);
    by_hash(&mut alice, &mut world, Method::ALLOCATE);
    let mut mallory = client(USERS[1], ALICE);
    let answer = by_hash(&mut mallory, &mut world, Method::REFRESH);
    assert_eq!(answer.code(), 441);
    let answer = by_hash(&mut mallory, &mut world, Method::ALLOCATE);
    assert_eq!(answer.code(), 437);
}

/// T25: what a nonce offered may no longer hold; the challenge says so, and nothing is stale.
#[test]
fn with_the_first_secret_anonymity_ends_and_names_go_on() {
    let mut world = static_alone().world();
    let mut alice = client(USERS[0], ALICE);
    by_hash(&mut alice, &mut world, Method::ALLOCATE);
    let before = alice.nonce.clone();
    let both = Setup {
        secrets: SECRETS.to_vec(),
        ..static_alone()
    };
    world.reconfigure(&both);
    let answer = by_hash(&mut alice, &mut world, Method::REFRESH);
    assert_eq!(answer.code(), 401);
    assert!(answer.nonce().unwrap().starts_with(NO_ANONYMITY));
    assert_eq!(alice.nonce, before);
    let by_name = alice.request_once(&mut world, Method::REFRESH, |r| r);
    assert_eq!(by_name.code(), SUCCESS);
    assert_eq!(world.failures(AuthFailure::StaleNonce), 0);
    world.reconfigure(&static_alone());
    let answer = by_hash(&mut alice, &mut world, Method::REFRESH);
    assert_eq!(answer.code(), SUCCESS);
}
