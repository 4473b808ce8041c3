use std::fs;

use super::*;
use crate::config::{self, Flags, Sources};

fn settings(config: &str) -> config::Settings {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("taciturn.toml");
    fs::write(&path, config).unwrap();
    let sources = Sources {
        file: Some(path),
        flags: Flags::default(),
        ..Sources::default()
    };
    config::load(&sources)
        .unwrap_or_else(|error| panic!("{error:#}\n{config}"))
        .settings
}

fn notes(imported: &Imported) -> Vec<String> {
    imported.notes.iter().map(Note::to_string).collect()
}

#[test]
fn what_coturn_was_told_is_what_we_are_told() {
    let imported = import(
        "# a comment\n\
         listening-port=3479\n\
         listening-ip=192.0.2.1\n\
         listening-ip = 2001:db8::1\n\
         relay-ip=10.0.0.7\n\
         external-ip=203.0.113.7/10.0.0.7\n\
         min-port=50000\nmax-port=50999\n\
         realm=\"turn.example.org\"\n\
         use-auth-secret\n\
         static-auth-secret=north\nstatic-auth-secret='so\"uth'\n\
         user=gateway:pass\n\
         user-quota=12\ntotal-quota=1200\n\
         max-bps=125000\n\
         max-allocate-lifetime=1800\n\
         no-dtls\nno-tls\n\
         denied-peer-ip=192.0.2.0-192.0.2.255\n\
         allowed-peer-ip=192.0.2.64-192.0.2.127\n\
         secure-stun\nmobility\nverbose\n\
         prometheus\nprometheus-port=9000\n",
    );
    let settings = settings(&imported.config);
    let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    assert_eq!(settings.realm, "turn.example.org");
    let listen = addresses(&["192.0.2.1:3479", "[2001:db8::1]:3479"]);
    assert_eq!(settings.listen.udp, listen);
    assert_eq!(settings.listen.tcp, listen);
    let relay = settings.relay.resolve(&[]).unwrap();
    assert_eq!(relay[0].external, "203.0.113.7".parse::<IpAddr>().unwrap());
    assert_eq!(settings.relay.ports, 50_000..=50_999);
    let secrets: Vec<&str> = settings
        .auth
        .secrets
        .iter()
        .map(|s| s.id.as_str())
        .collect();
    assert_eq!(secrets, ["coturn-1", "coturn-2"]);
    assert!(imported.config.contains(r#"value = "so\"uth""#));
    assert!(settings.auth.users.contains_key("gateway"));
    assert_eq!(settings.limits.user_allocations, Some(12));
    assert_eq!(settings.limits.allocation_lifetime.as_secs(), 1_800);
    assert_eq!(settings.policy.peers, config::Peers::Any);
    let networks =
        |nets: &[ipnet::IpNet]| -> Vec<String> { nets.iter().map(ToString::to_string).collect() };
    assert_eq!(networks(&settings.policy.allow), ["192.0.2.64/26"]);
    assert_eq!(
        networks(&settings.policy.deny),
        ["192.0.2.0/26", "192.0.2.128/25"]
    );
    assert!(settings.features.mobility);
    assert_eq!(
        settings.admin.listen,
        Some("127.0.0.1:9000".parse().unwrap())
    );
}

#[test]
fn what_is_left_out_is_named_with_its_line_and_reason() {
    let imported = import(
        "static-auth-secret=north\nredis-statsdb=\"ip=127.0.0.1\"\nno-cli\nfrobnicate=3\n\
         cli-password=hunter2\n=oops\nuser=alice:0x0123456789abcdef0123456789abcdef\n",
    );
    let notes = notes(&imported);
    let has = |start: &str, part: &str| {
        assert!(
            notes
                .iter()
                .any(|note| note.starts_with(start) && note.contains(part)),
            "{start} {part}: {notes:#?}"
        );
    };
    has("line 2: redis-statsdb: ", "[events]");
    has("line 3: no-cli: ", "control socket");
    has("line 4: frobnicate: ", "does not know it");
    has("line 5: cli-password: ", "control socket");
    has("line 6: turnserver.conf: ", "no option");
    has("line 7: user: ", "hash");
    has("policy.peers: ", "relay");
    // T26: what is said quotes no value.
    assert!(!notes.concat().contains("hunter2") && !notes.concat().contains("north"));
}

#[test]
fn a_file_without_users_says_that_nobody_could_come() {
    let notes = notes(&import("listening-port=3478\n"));
    assert!(
        notes.iter().any(|note| note.contains("refuse to start")),
        "{notes:#?}"
    );
}

/// Every option in the example of the coturn that is installed is either translated or known to be
/// left out.
#[test]
fn no_option_of_the_installed_coturn_is_unknown() {
    let Ok(example) = fs::read_to_string("/etc/turnserver.conf") else {
        println!("skipped: coturn is not installed (.ci/install does it)");
        return;
    };
    let mut options: Vec<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split(['=', ' ']).next())
        .filter(|name| name.contains('-') || ["realm", "cert", "user", "mobility"].contains(name))
        .collect();
    options.sort_unstable();
    options.dedup();
    assert!(options.len() > 60, "{options:?}");
    for option in options {
        let imported = import(&format!("static-auth-secret=a\n{option}=1\n"));
        let notes = notes(&imported);
        assert!(
            !notes.iter().any(|n| n.contains("does not know it")),
            "{option}: {notes:#?}"
        );
    }
}

#[test]
fn hostile_files_are_translated_into_something_or_nothing() {
    for text in [
        "realm=\u{0}\n",
        "min-port=99999\nmax-port=-1\n",
        "external-ip=/\nexternal-ip=1.2.3.4/::1\nuser-quota=99999999999999999999\n",
        "user=:\nuser=a\nuser=~a:b\nuser=a:b:c\nstatic-auth-secret=\n",
        "listening-ip=nonsense\nrelay-ip=nonsense\ndenied-peer-ip=9-1\nalternate-server=x\n",
        "cert=/only/one\nprometheus-address=x\nprometheus\n\"\"\n--\n",
    ] {
        let imported = import(&format!("{text}static-auth-secret=a\n"));
        settings(&imported.config);
    }
}

#[test]
fn ranges_become_networks_and_lose_what_is_allowed() {
    let range = |text: &str| Range::parse(text).unwrap();
    let networks = |text: &str| ranges::networks(&[range(text)]);
    assert_eq!(networks("10.0.0.0-10.255.255.255"), ["10.0.0.0/8"]);
    assert_eq!(
        networks("10.0.0.1-10.0.0.2"),
        ["10.0.0.1/32", "10.0.0.2/32"]
    );
    assert_eq!(networks("2001:db8::-2001:db8::ffff"), ["2001:db8::/112"]);
    assert_eq!(networks("0.0.0.0-255.255.255.255"), ["0.0.0.0/0"]);
    assert!(Range::parse("10.0.0.2-10.0.0.1").is_none());
    assert!(Range::parse("10.0.0.2-::1").is_none());
    let all = range("0.0.0.0-255.255.255.255");
    assert!(ranges::without(vec![all], &[all]).is_empty());
    let left = ranges::without(
        vec![range("10.0.0.0/8")],
        &[range("10.0.0.0-10.127.255.255")],
    );
    assert_eq!(ranges::networks(&left), ["10.128.0.0/9"]);
    let untouched = ranges::without(vec![range("::1")], &[range("0.0.0.1")]);
    assert_eq!(ranges::networks(&untouched), ["::1/128"]);
}
