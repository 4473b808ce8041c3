//! Sealed usernames: what a server makes of the claims, and what others learn of such a name.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::HashSet;
use std::time::Duration;

use taciturn::proto::{Lifetime, Method, RequestedTransport};
use taciturn::turn::credential::{Claims, Credentials, Label, SealingKeys, USERNAME_MAX};
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::stats::AuthFailure;
use zeroize::Zeroizing;

use crate::world::call::{ALICE, BOB, CAROL};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{BEGIN_UNIX, SECRETS, Setup, World, at};

/// What a client was told, and what finding that out took, as far as it can be seen.
fn seen(world: &mut World, client: &mut Client) -> (u16, usize, Vec<u16>, usize) {
    let answer = client.allocate_with(world, |r| r);
    let kinds = answer.message().attributes().map(|raw| raw.kind.value());
    let found = world.config.credentials.find(&client.username);
    (
        answer.code(),
        answer.0.len(),
        kinds.collect(),
        found.candidates.count(),
    )
}

/// The sealed username and password of a server whose settings differ from this world's.
fn minted_by(world: &World, key: u8, realm: &str, claims: &Claims) -> Client {
    let keys = SealingKeys::new(&[Zeroizing::new([key; 32])]);
    let foreign: Credentials = world.config.credentials.clone().with_sealing(keys, realm);
    let minted = foreign.mint_sealed(claims, BEGIN_UNIX + 3_600, [8; 16]);
    let minted = minted.unwrap();
    Client::new(at(ALICE), &minted.username, &minted.password)
}

/// The same client with another username, whose password fits as a holder of the secret makes it.
fn renamed(client: &Client, username: &str) -> Client {
    Client::new(client.addr(), username, &password_of(username))
}

/// base64(HMAC-SHA1(secret, username)), computed here.
fn password_of(username: &str) -> String {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(SECRETS[0].as_bytes()).unwrap();
    mac.update(username.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
}

#[test]
fn a_sealed_username_allocates_refreshes_and_counts_for_its_subject() {
    let mut world = Setup::with_quota(1).world();
    let mut alice = world.sealed(&world.claims("alice"), ALICE);
    assert_eq!(alice.password, password_of(&alice.username));
    alice.allocate(&mut world);
    assert_eq!(alice.refresh(&mut world, None).code(), SUCCESS);
    // By whichever kind of name: it is the same person.
    let mut rest = world.client("alice", BOB);
    assert_eq!(rest.allocate_with(&mut world, |r| r).code(), 486);
    world
        .sealed(&world.claims("bob"), CAROL)
        .allocate(&mut world);
}

/// T20: whoever minted it, and whatever became of it on the way, it is nobody's. The passwords fit,
/// so that only the name decides.
#[test]
fn what_is_not_wholly_genuine_looks_and_costs_like_any_unknown_user() {
    let mut world = World::new();
    let genuine = world.sealed(&world.claims_in("alice", "a call"), ALICE);
    let mut unknown = Client::new(at(ALICE), "nobody", "wrong");
    let expected = seen(&mut world, &mut unknown);
    assert_eq!((expected.0, expected.3), (401, SECRETS.len()));

    let name = genuine.username.clone();
    let mut names: Vec<String> = (12..name.len())
        .step_by(7)
        .map(|n| name[..n].to_owned())
        .collect();
    for place in (0..name.len()).step_by(5) {
        let mut altered = name.clone().into_bytes();
        altered[place] = if altered[place] == b'1' { b'2' } else { b'1' };
        names.push(String::from_utf8(altered).unwrap());
    }
    names.extend([
        // The expiry is sealed with the rest.
        name.replacen(&name[..10], &(BEGIN_UNIX + 80_000).to_string(), 1),
        format!("+{name}"),
        format!("0{name}"),
        format!("{name}="),
        format!("{name}A"),
        format!("{}:~1.", BEGIN_UNIX + 3_600),
        format!("{}:~2.{}", BEGIN_UNIX + 3_600, &name[14..]),
        format!("{}:~", BEGIN_UNIX + 3_600),
    ]);
    let count = names.len() as u64;
    for name in names {
        assert_ne!(name, genuine.username);
        let mut client = renamed(&genuine, &name);
        assert_eq!(seen(&mut world, &mut client), expected, "{name}");
    }
    let claims = world.claims("alice");
    let pinned = Claims {
        audience: Label::new("elsewhere"),
        ..claims.clone()
    };
    let mut foreign = [
        minted_by(&world, 4, "other.test", &claims),
        minted_by(&world, 5, "calls.test", &claims),
        world.sealed(&pinned, ALICE),
    ];
    for client in &mut foreign {
        assert_eq!(seen(&mut world, client), expected, "{}", client.username);
    }
    let mut wrong = Client::new(at(ALICE), &genuine.username, "wrong");
    assert_eq!(seen(&mut world, &mut wrong), expected);
    assert_eq!(world.failures(AuthFailure::Wrong), count + 4);
    assert_eq!(world.failures(AuthFailure::OtherNode), 1);
    assert_eq!(world.allocations(), 0);

    // The control: the same password for the name as it was minted.
    renamed(&genuine, &genuine.username).allocate(&mut world);
}

/// T13, T20: a replay after the expiry and its leeway.
#[test]
fn an_expired_sealed_username_is_refused_like_an_unknown_user() {
    let mut world = World::new();
    let mut unknown = Client::new(at(ALICE), "nobody", "wrong");
    let expected = seen(&mut world, &mut unknown);
    let claims = world.claims("alice");
    let mut alice = world.sealed_until(&claims, ALICE, BEGIN_UNIX + 100);
    world.advance(159);
    let mut late = alice.moved(BOB);
    late.allocate(&mut world);
    world.advance(1);
    assert_eq!(seen(&mut world, &mut alice), expected);
    assert_eq!(world.failures(AuthFailure::Expired), 1);
    // What was made in time lives on.
    assert_eq!(late.refresh(&mut world, None).code(), SUCCESS);
}

/// T70
#[test]
fn a_sealed_username_names_nobody_and_differs_at_each_minting() {
    let world = World::new();
    let credentials = &world.config.credentials;
    let claims = Claims {
        tenant: Label::new("north"),
        audience: Label::new("node-1"),
        ..world.claims_in("alice", "call-4711")
    };
    let mut seen = HashSet::new();
    for n in 0..50_u8 {
        let minted = credentials.mint_sealed(&claims, BEGIN_UNIX + 3_600, [n; 16]);
        let name = minted.unwrap().username;
        let (expiry, sealed) = name.split_once(":~1.").unwrap();
        assert_eq!(expiry, (BEGIN_UNIX + 3_600).to_string());
        // No piece of it is that of another minting, but for the id of the key in front.
        for start in 6..sealed.len() - 6 {
            assert!(seen.insert((start, sealed[start..start + 6].to_owned())));
        }
        let hashes = [claims.subject.to_string(), claims.call.unwrap().to_string()];
        for told in [
            "alice",
            "call-4711",
            "north",
            "node-1",
            &hashes[0],
            &hashes[1],
        ] {
            assert!(!name.contains(told), "{told}");
        }
        assert_eq!(credentials.find(&name).claims.as_deref(), Some(&claims));
    }
}

#[test]
fn the_longest_claims_fit_a_username() {
    let world = World::new();
    let label = || Label::new(&"x".repeat(32));
    let claims = Claims {
        tenant: label(),
        audience: label(),
        policy: Some(PeerPolicy::Networks(
            [
                "2001:db8:1::/48",
                "2001:db8:2::/48",
                "2001:db8:3::/48",
                "2001:db8:4::/48",
            ]
            .map(|net| net.parse().unwrap())
            .to_vec(),
        )),
        limits: taciturn::turn::credential::ClaimedLimits {
            allocations: Some(u32::MAX),
            bits: Some(u64::MAX),
            packets: Some(u64::MAX),
        },
        session_max: Some(Duration::from_secs(u32::MAX.into())),
        strict: true,
        masked: true,
        ..world.claims_in("alice", "call")
    };
    let minted = world
        .config
        .credentials
        .mint_sealed(&claims, u64::MAX, [1; 16])
        .unwrap();
    assert!(
        minted.username.len() <= USERNAME_MAX,
        "{}",
        minted.username.len()
    );
    let found = world.config.credentials.find(&minted.username);
    assert_eq!(found.claims.as_deref(), Some(&claims));
}

/// T21: what stands in a name, sealed or not, is shown to nobody.
#[test]
fn nothing_that_can_be_printed_shows_a_sealed_username_or_what_it_hides() {
    let mut world = World::new();
    let claims = world.claims_in("alice-the-user", "call-4711");
    let mut alice = world.sealed(&claims, ALICE);
    alice.allocate(&mut world);
    let mut hostile = ["%s%n", "\"quoted\"", "nul\0", "cr\r\nlf", "\u{202e}x"]
        .map(|text| Client::new(at(BOB), &format!("1:~1.{text}"), "x"));
    for client in &mut hostile {
        let code = client.allocate_with(&mut world, |r| r).code();
        assert!(matches!(code, 400 | 401), "{code}");
    }
    let events = world.events(0);
    let house = world.house.borrow();
    let shown = format!(
        "{:?} {:#?} {events:?} {:?}",
        world.servers, world.config, house.landings
    );
    let call = claims.call.unwrap().to_string();
    assert!(shown.contains(&call) && shown.contains(&claims.subject.to_string()));
    let (_, sealed) = alice.username.split_once('.').unwrap();
    for hidden in [
        sealed,
        alice.password.as_str(),
        "alice-the-user",
        "call-4711",
        "~1.",
    ] {
        assert!(!shown.contains(hidden), "{hidden}");
    }
}

#[test]
fn a_claimed_session_ends_no_later_than_claimed_and_never_later_than_configured() {
    for (claimed, ends) in [(None, 7_200), (Some(900), 900), (Some(86_400), 7_200)] {
        let setup = Setup {
            session_max: 7_200,
            ..Setup::default()
        };
        let mut world = setup.world();
        let claims = Claims {
            session_max: claimed.map(Duration::from_secs),
            ..world.claims("alice")
        };
        let mut alice = world.sealed(&claims, ALICE);
        let answer = alice.allocate_with(&mut world, |r| r.with(&Lifetime(3_600)));
        assert_eq!(answer.lifetime().map(u64::from), Some(ends.min(3_600)));
        world.advance(ends.min(3_600) - 1);
        let left = alice.refresh(&mut world, Some(3_600)).lifetime();
        let rest = ends - (ends.min(3_600) - 1);
        assert_eq!(left.map(u64::from), Some(rest.min(3_600)), "{claimed:?}");
    }
}

/// T13
#[test]
fn a_strict_claim_ends_the_allocation_with_its_credential() {
    for (claimed, configured) in [(true, false), (false, true), (true, true)] {
        let setup = Setup {
            strict: configured,
            ..Setup::default()
        };
        let mut world = setup.world();
        let claims = Claims {
            strict: claimed,
            ..world.claims("alice")
        };
        let mut alice = world.sealed_until(&claims, ALICE, BEGIN_UNIX + 700);
        let answer = alice.allocate_with(&mut world, |r| r.with(&Lifetime(3_600)));
        assert_eq!(answer.lifetime(), Some(760));
        world.advance(700);
        assert_eq!(alice.refresh(&mut world, None).lifetime(), Some(60));
        world.advance(60);
        assert_eq!(alice.refresh(&mut world, None).code(), 401);
        assert_eq!(world.allocations(), 0);
    }
}

#[test]
fn a_credential_is_good_on_the_node_it_is_pinned_to_and_on_no_other() {
    let on = |node| Setup {
        node,
        ..Setup::default()
    };
    for (node, audience, code) in [
        (Some("a"), Some("a"), SUCCESS),
        (Some("a"), None, SUCCESS),
        (None, None, SUCCESS),
        (Some("b"), Some("a"), 401),
        (None, Some("a"), 401),
        (Some("A"), Some("a"), 401),
    ] {
        let mut world = on(node).world();
        let claims = Claims {
            audience: audience.and_then(Label::new),
            ..world.claims("alice")
        };
        let mut alice = world.sealed(&claims, ALICE);
        let answer = alice.allocate_with(&mut world, |r| r);
        assert_eq!(answer.code(), code, "{audience:?} on {node:?}");
        let counted = world.failures(AuthFailure::OtherNode);
        assert_eq!(counted, u64::from(code == 401), "{audience:?} on {node:?}");
        // With a wrong password it is nobody's, on whatever node.
        let mut wrong = world.sealed(&claims, "192.0.2.9:9");
        wrong.password = "wrong".to_owned();
        assert_eq!(wrong.allocate_with(&mut world, |r| r).code(), 401);
        assert_eq!(world.failures(AuthFailure::OtherNode), counted);
        assert_eq!(world.failures(AuthFailure::Wrong), 1);
    }
    // A node that gets another name keeps none of those who were pinned to the old one.
    let mut world = on(Some("a")).world();
    let claims = Claims {
        audience: Label::new("a"),
        ..world.claims("alice")
    };
    let mut alice = world.sealed(&claims, ALICE);
    alice.allocate(&mut world);
    world.reconfigure(&on(Some("b")));
    assert_eq!(alice.refresh(&mut world, None).code(), 401);
    assert_eq!(world.allocations(), 0);
}

#[test]
fn a_sealed_credential_that_lasted_too_long_does_not_become_good_in_its_last_hours() {
    let mut world = World::new();
    let expires = BEGIN_UNIX + 172_800 + 61;
    let claims = world.claims("alice");
    world.advance(100_000);
    let mut alice = world.sealed_until(&claims, ALICE, expires);
    assert_eq!(alice.allocate_with(&mut world, |r| r).code(), 401);
    assert_eq!(world.failures(AuthFailure::TooLong), 1);
    // A REST name does not say when it was issued.
    world.client_until("bob", BOB, expires).allocate(&mut world);
}

#[test]
fn a_credential_that_lasts_longer_than_any_may_is_refused_and_counted() {
    let mut world = World::new();
    let mut unknown = Client::new(at(ALICE), "nobody", "wrong");
    let expected = seen(&mut world, &mut unknown);
    let longest = BEGIN_UNIX + 172_800 + 60;
    let claims = world.claims("alice");
    for expires in [longest + 1, u64::MAX] {
        let mut rest = world.client_until("alice", ALICE, expires);
        assert_eq!(seen(&mut world, &mut rest), expected);
        let mut sealed = world.sealed_until(&claims, ALICE, expires);
        assert_eq!(seen(&mut world, &mut sealed), expected);
    }
    assert_eq!(world.failures(AuthFailure::TooLong), 4);
    let mut alice = world.sealed_until(&claims, ALICE, longest);
    alice.allocate(&mut world);
    world.client_until("bob", BOB, longest).allocate(&mut world);
    world.reconfigure(&Setup {
        max_ttl: 3_600,
        ..Setup::default()
    });
    let mut again = alice.moved(CAROL);
    let request = |r: crate::world::message::Build| r.with(&RequestedTransport::UDP);
    assert_eq!(
        again.request(&mut world, Method::ALLOCATE, request).code(),
        401
    );
}
