use super::*;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use crate::turn::policy::PeerPolicy;

/// Computed with `openssl dgst -sha1 -hmac north -binary | base64`, as coturn's users do.
#[test]
fn passwords_are_those_of_coturn() {
    for (secret, username, password) in [
        ("north", "1700000000:alice", "Cd/49soE35ICqcJF/bCTn8Z4OyE="),
        (
            "a secret that is longer than one block of SHA-1, which HMAC hashes first",
            "4102444800:\u{fc}ser@example.org:x",
            "84f5paBxjR/9md9CD10IXbMyjq0=",
        ),
    ] {
        let derived = Secret::new("s", secret).password(username);
        assert_eq!(*derived, password);
        let found = with(&[secret]).find(username).candidates.next().unwrap();
        assert_eq!(*found.password, password);
    }
}

#[test]
fn minted_credentials_are_found() {
    let credentials = with(&["north", "south"]);
    let south = credentials.ring().named("south").unwrap();
    let minted = mint(south, "alice:tablet", 1_700_000_000).unwrap();
    assert_eq!(minted.username, "1700000000:alice:tablet");
    let found = credentials.find(&minted.username);
    assert_eq!(found.expires, Some(1_700_000_000));
    assert_eq!(found.subject, credentials.subject("alice:tablet"));
    let fitting: Vec<Origin> = found
        .candidates
        .filter(|candidate| candidate.password == minted.password)
        .map(|candidate| candidate.origin)
        .collect();
    assert_eq!(fitting, [Origin::Rest { secret: 1 }]);
}

/// T25
#[test]
fn a_removed_secret_vouches_for_nobody() {
    let minted = mint(&Secret::new("old", "old"), "alice", 1_700_000_000).unwrap();
    let fits = |secrets: &[&str]| {
        with(secrets)
            .find(&minted.username)
            .candidates
            .any(|candidate| candidate.password == minted.password)
    };
    assert!(fits(&["new", "old"]));
    assert!(!fits(&["new"]));
}

/// T20
#[test]
fn every_name_has_as_many_candidates_as_there_are_secrets() {
    for secrets in [&[][..], &["a"], &["a", "b", "c"]] {
        let credentials = with_user(secrets, "gateway", "rosebud");
        let expected = secrets.len().max(1);
        for username in [
            "1700000000:alice",
            "gateway",
            "nobody",
            "1700000000:~1.abc",
            "",
            ":",
        ] {
            let found = credentials.find(username);
            assert_eq!(found.candidates.len(), expected, "{username}");
            let lengths: Vec<usize> = found.candidates.map(|c| c.password.len()).collect();
            assert_eq!(lengths.len(), expected, "{username}");
            if username != "gateway" {
                assert!(lengths.iter().all(|length| *length == 28), "{username}");
            }
        }
    }
}

/// T20
#[test]
fn unknown_users_are_nobody() {
    let credentials = with_user(&["north"], "gateway", "rosebud");
    for username in [
        "alice",
        "gateway2",
        "",
        "1700000000",
        "x:alice",
        "1700000000:",
    ] {
        let found = credentials.find(username);
        assert_eq!(found.expires, None, "{username}");
        assert!(
            found
                .candidates
                .map(|c| c.origin)
                .all(|o| o == Origin::Nobody),
            "{username}"
        );
    }
}

#[test]
fn the_password_of_nobody_depends_on_the_key_and_the_name() {
    let password = |key: u8, username: &str| {
        let credentials =
            Credentials::new(SecretsRing::default(), StaticUsers::default(), [key; 32]);
        credentials
            .find(username)
            .candidates
            .next()
            .unwrap()
            .password
    };
    assert_eq!(password(1, "a"), password(1, "a"));
    assert_ne!(password(1, "a"), password(2, "a"));
    assert_ne!(password(1, "a"), password(1, "b"));
}

#[test]
fn without_secrets_a_rest_username_is_nobody() {
    let found = with(&[])
        .find("1700000000:alice")
        .candidates
        .map(|c| c.origin)
        .collect::<Vec<_>>();
    assert_eq!(found, [Origin::Nobody]);
}

#[test]
fn an_empty_secret_vouches_for_nobody() {
    let credentials = with(&["", "north"]);
    let origins: Vec<Origin> = credentials
        .find("1700000000:alice")
        .candidates
        .map(|c| c.origin)
        .collect();
    assert_eq!(origins, [Origin::Nobody, Origin::Rest { secret: 1 }]);
    let empty = credentials.ring().get(0).unwrap();
    assert_eq!(mint(empty, "alice", 1).unwrap_err(), MintError::EmptySecret);
}

#[test]
fn static_users_have_their_password_and_no_expiry() {
    let credentials = with_user(&["north", "south"], "gateway", "rosebud");
    let found = credentials.find("gateway");
    assert_eq!(found.expires, None);
    assert_eq!(found.subject, credentials.find("gateway").subject);
    assert_ne!(
        found.subject,
        credentials.subject("gateway"),
        "whoever mints that id is somebody else"
    );
    let candidates: Vec<Candidate> = found.candidates.collect();
    assert_eq!(*candidates[0].password, "rosebud");
    assert_eq!(candidates[0].origin, Origin::Static);
    assert_eq!(candidates[1].origin, Origin::Nobody);
}

#[test]
fn a_static_user_wins_over_a_rest_username_of_the_same_spelling() {
    let credentials = with_user(&["north"], "1700000000:alice", "rosebud");
    let minted = mint(credentials.ring().get(0).unwrap(), "alice", 1_700_000_000).unwrap();
    let found = credentials.find(&minted.username);
    assert_eq!(found.expires, None);
    let candidates: Vec<Candidate> = found.candidates.collect();
    assert_eq!(candidates.len(), 1);
    assert_eq!(candidates[0].origin, Origin::Static);
    assert_ne!(candidates[0].password, minted.password);
}

#[test]
fn unusable_static_users_are_refused() {
    let mut users = StaticUsers::default();
    let mut add = |username: &str, password: &str| users.add(username, password.to_owned().into());
    let name = |error| Err(StaticUserError::Username(error));
    assert_eq!(add("", "x"), name(MintError::Empty));
    assert_eq!(add("~1.x", "x"), name(MintError::Reserved));
    assert_eq!(add("a\nb", "x"), name(MintError::Control));
    assert_eq!(add(&"a".repeat(509), "x"), name(MintError::TooLong));
    assert_eq!(add("a", ""), Err(StaticUserError::NoPassword));
    assert_eq!(add(&"a".repeat(508), "x"), Ok(()));
    assert_eq!(add("a", "x"), Ok(()));
    assert_eq!(add("a", "y"), Err(StaticUserError::Twice));
}

#[test]
fn rest_usernames_are_an_expiry_and_a_user() {
    for (username, expected) in [
        ("1700000000:alice", Some((1_700_000_000, "alice"))),
        ("1700000000:a:b:c", Some((1_700_000_000, "a:b:c"))),
        ("1700000000: ", Some((1_700_000_000, " "))),
        ("1700000000::", Some((1_700_000_000, ":"))),
        ("1700000000:a~", Some((1_700_000_000, "a~"))),
        ("0:a", Some((0, "a"))),
        ("0001:a", Some((1, "a"))),
        ("18446744073709551615:a", Some((u64::MAX, "a"))),
        ("18446744073709551616:a", None),
        ("1700000000:", None),
        ("1700000000", None),
        (":alice", None),
        ("+1700000000:alice", None),
        ("-1:alice", None),
        ("1.5:alice", None),
        (" 1:alice", None),
        ("\u{661}:alice", None),
        ("alice:1700000000", None),
        ("1700000000:~1.abc", None),
        ("1700000000:~", None),
        ("", None),
    ] {
        let parsed = parse_rest(username).map(|rest| (rest.expires, rest.user));
        assert_eq!(parsed, expected, "{username}");
    }
}

#[test]
fn user_ids_that_cannot_be_minted() {
    let secret = Secret::new("s", "north");
    let error = |user: &str| mint(&secret, user, 1_700_000_000).unwrap_err();
    assert_eq!(error(""), MintError::Empty);
    assert_eq!(error("~1.abc"), MintError::Reserved);
    assert_eq!(error("~"), MintError::Reserved);
    assert_eq!(error("a\r\nb"), MintError::Control);
    assert_eq!(error("a\0"), MintError::Control);
    assert_eq!(error("a\u{85}"), MintError::Control);
    assert_eq!(error(&"a".repeat(508 - 10)), MintError::TooLong);
    assert_eq!(
        mint(&secret, &"a".repeat(508 - 11), 1_700_000_000)
            .unwrap()
            .username
            .len(),
        508
    );
}

#[test]
fn expiry_has_a_minute_of_leeway() {
    assert!(!expired(1000, 0));
    assert!(!expired(1000, 1059));
    assert!(expired(1000, 1060));
    assert!(!expired(u64::MAX, u64::MAX));
}

/// Checked with Python's `hmac`.
#[test]
fn subjects_are_keyed_hashes_of_the_user_id() {
    let subject = with(&[]).subject("alice");
    assert_eq!(subject.to_string(), "6a8851c590ddeb5a2ea0a50374798bce");
    assert_eq!(
        format!("{subject:?}"),
        "Subject(6a8851c590ddeb5a2ea0a50374798bce)"
    );
    assert_eq!(Subject::from_bytes(subject.to_bytes()), subject);
    let other_key = Credentials::new(SecretsRing::default(), StaticUsers::default(), [8; 32]);
    assert_ne!(other_key.subject("alice"), subject);
}

#[test]
fn a_user_keeps_the_subject_when_credentials_change() {
    let before = with(&["north"]).find("1700000000:alice").subject;
    assert_eq!(with(&["south"]).find("1800000000:alice").subject, before);
    assert_ne!(with(&["south"]).find("1800000000:bob").subject, before);
}

/// T21
#[test]
fn hostile_usernames_are_carried_but_never_printed() {
    let credentials = with_user(&["north"], "gateway", "rosebud");
    for name in [
        "%s%n%x",
        "'; DROP TABLE users; --",
        "\"quoted\"",
        "nul\0inside",
        "line\r\nX-Injected: yes",
        "\u{1b}[31mred",
        "\u{202e}right to left",
    ] {
        for username in [name.to_owned(), format!("1700000000:{name}")] {
            let mut found = credentials.find(&username);
            let rest = parse_rest(&username);
            let printed = format!("{found:?} {rest:?} {:?}", found.candidates.next().unwrap());
            assert!(!printed.contains(name), "{printed}");
            assert!(!printed.contains(&format!("{name:?}")), "{printed}");
            assert!(
                printed.chars().all(|c| c.is_ascii_graphic() || c == ' '),
                "{printed}"
            );
        }
    }
}

/// T21
#[test]
fn a_username_of_600_bytes_is_nobody() {
    let username = format!("1700000000:{}", "a".repeat(589));
    let credentials = with(&["north"]);
    let mut found = credentials.find(&username);
    assert_eq!(found.expires, None);
    assert_eq!(found.candidates.next().unwrap().origin, Origin::Nobody);
}

/// T26
#[test]
fn secrets_and_passwords_are_never_printed() {
    let credentials = with_user(&["north-value"], "gateway-name", "rosebud");
    let minted = mint(credentials.ring().get(0).unwrap(), "alice", 1_700_000_000).unwrap();
    let mut found = credentials.find("gateway-name");
    let candidate = found.candidates.next().unwrap();
    let printed = format!(
        "{credentials:?} {credentials:#?} {:?} {:?} {:?} {found:?} {candidate:?} {minted:?}",
        credentials.ring(),
        Secret::new("the id", "north-value"),
        credentials.users,
    );
    assert!(printed.contains("the id"));
    let key = "7, 7, 7";
    for hidden in [
        "north-value",
        "rosebud",
        "gateway-name",
        "alice",
        minted.password.as_str(),
        key,
    ] {
        assert!(!printed.contains(hidden), "{printed}");
    }
}

proptest! {
    /// T21
    #[test]
    fn any_name_is_found_without_panic(username in ".{0,300}") {
        let credentials = with(&["a", "b"]);
        prop_assert_eq!(credentials.find(&username).candidates.count(), 2);
    }

    #[test]
    fn whatever_is_minted_is_known(user in "\\PC{1,40}", expires: u64) {
        let secret = Secret::new("a", "a");
        if let Ok(minted) = mint(&secret, &user, expires) {
            let rest = parse_rest(&minted.username);
            prop_assert_eq!(rest, Some(RestUsername { expires, user: &user }));
            let credentials = with(&["a"]);
            let candidate = credentials.find(&minted.username).candidates.next().unwrap();
            prop_assert_eq!(candidate.password, minted.password);
            prop_assert_eq!(candidate.origin, Origin::Rest { secret: 0 });
        } else {
            prop_assert!(user.starts_with('~'));
        }
    }
}

/// Secrets whose id is their value.
fn with(secrets: &[&str]) -> Credentials {
    Credentials::new(ring(secrets), StaticUsers::default(), [7; 32])
}

fn with_user(secrets: &[&str], username: &str, password: &str) -> Credentials {
    let ring = secrets
        .iter()
        .map(|value| Secret::new("id", value))
        .collect();
    let mut users = StaticUsers::default();
    users.add(username, password.to_owned().into()).unwrap();
    Credentials::new(ring, users, [7; 32])
}

fn ring(secrets: &[&str]) -> SecretsRing {
    secrets
        .iter()
        .map(|value| Secret::new(*value, value))
        .collect()
}

/// The test vectors of docs/sealed-usernames.md, which were made by another implementation of
/// AES-SIV, and what the code makes of the same claims.
#[test]
fn sealed_usernames_are_those_of_the_documented_vectors() {
    let mut key = [0; 32];
    for (byte, n) in key.iter_mut().zip(0..) {
        *byte = n;
    }
    let realm = "calls.example";
    let keys = SealingKeys::new(&[Zeroizing::new(key)]);
    let ring = SecretsRing::new(vec![Secret::new("north", "north")]);
    let credentials =
        Credentials::new(ring, StaticUsers::default(), [0x5a; 32]).with_sealing(keys, realm);
    let document = include_str!("../../../docs/sealed-usernames.md");
    let party = Claims {
        call: credentials.call("call-4711"),
        policy: Some(PeerPolicy::Call),
        masked: true,
        audience: Label::new("fra-1"),
        ..Claims::new(credentials.subject("alice"), 1_800_000_000)
    };
    let full = Claims {
        tenant: Label::new("north.example"),
        policy: Some(PeerPolicy::Networks(
            ["192.0.2.0/24", "2001:db8::/32"]
                .map(|net| net.parse().unwrap())
                .to_vec(),
        )),
        limits: ClaimedLimits {
            allocations: Some(4),
            bits: Some(2_000_000),
            packets: Some(500),
        },
        session_max: Some(Duration::from_secs(7_200)),
        strict: true,
        ..party.clone()
    };
    let bare = Claims::new(credentials.subject("alice"), 1_800_000_000);
    let blocks: Vec<&str> = document
        .split("```text\n")
        .filter(|block| block.starts_with("expiry "))
        .collect();
    assert_eq!(blocks.len(), 3);
    for (block, claims) in blocks.into_iter().zip([bare, party, full]) {
        let value = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim()
        };
        let expiry = value("expiry").parse().unwrap();
        let nonce = u128::from_str_radix(value("nonce"), 16)
            .unwrap()
            .to_be_bytes();
        let encoded: String = claims
            .encode()
            .unwrap()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(encoded, value("claims"));
        let minted = credentials.mint_sealed(&claims, expiry, nonce).unwrap();
        assert_eq!(minted.username, value("username"));
        assert_eq!(*minted.password, value("password"));
        let found = credentials.find(value("username"));
        assert_eq!(found.expires, Some(expiry));
        assert_eq!(found.claims.as_deref(), Some(&claims));
        assert!(
            found
                .candidates
                .map(|c| c.password)
                .any(|p| *p == value("password"))
        );
    }
    let name = credentials.mint_sealed(&Claims::new(credentials.subject("alice"), 0), 0, [0; 16]);
    let name = name.unwrap().username;
    let sealed = URL_SAFE_NO_PAD.decode(&name["0:~1.".len()..]).unwrap();
    let id: String = sealed[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(document.contains(&format!("its key id `{id}`")), "{id}");
}
