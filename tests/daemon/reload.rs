//! New settings under a daemon that runs, by SIGHUP and by the change of a file alone.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::certificates::{certificate, hang_up, tls_listener};
use crate::house::{Daemon, House, SECRET, credential};
use crate::http::parse;
use crate::loopback::client::{Client, Credential, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{V4, unix};
use crate::loopback::stream::Stream;

const IN_FORCE: &str = "the configuration was read again and is in force";
const REFUSED: &str = "the configuration from before is still in force";

/// Changes the configuration in one step, as an editor or a tool for it does.
fn change(house: &House, from: &str, to: &str) {
    let config = fs::read_to_string(house.config()).unwrap();
    assert!(config.contains(from), "no {from} in {config}");
    replace(&house.config(), &config.replace(from, to));
}

fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, path).unwrap();
}

/// Waits until one more of these lines is in the log, be it for the file's change alone.
fn wait_for(daemon: &Daemon, line: &str, change: impl FnOnce()) {
    let before = daemon.stderr().matches(line).count();
    change();
    eventually(line, || daemon.stderr().matches(line).count() > before);
}

fn reloads(daemon: &Daemon, outcome: &str) -> f64 {
    let samples = parse(&daemon.get("/metrics").body);
    samples[&format!("taciturn_reloads_total{{outcome=\"{outcome}\"}}")]
}

fn secrets(secrets: &[(&str, &str)]) -> String {
    let one = |(id, value): &(&str, &str)| format!("{{ id = \"{id}\", value = \"{value}\" }}");
    let all: Vec<String> = secrets.iter().map(one).collect();
    format!("secrets = [{}]", all.join(", "))
}

/// T25: old and new are accepted, the removed one refuses, and what it vouched for ends.
#[test]
fn a_secret_is_rotated_under_a_call_by_sighup_and_ends_it_when_it_goes() {
    let house = House::new("");
    let daemon = house.serve();
    let [first, both, second] = [
        secrets(&[("first", SECRET)]),
        secrets(&[("second", "another secret/2"), ("first", SECRET)]),
        secrets(&[("second", "another secret/2")]),
    ];
    let [mut a, mut b] = ["alice", "bob"].map(|user| house.client(&daemon, user));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));

    change(&house, &first, &both);
    hang_up(&daemon, IN_FORCE);
    let mut carol = house.client(&daemon, "carol");
    carol.allocate(V4);
    assert_eq!(a.refresh(600).code(), SUCCESS);
    a.send_channel(0x4000, b"still here");
    assert_eq!(b.receive(), Received::Data(at_a, b"still here".to_vec()));

    change(&house, &both, &second);
    hang_up(&daemon, IN_FORCE);
    eventually("what the first secret vouched for has ended", || {
        let samples = parse(&daemon.get("/metrics").body);
        samples["taciturn_allocations{transport=\"udp\"}"] == 1.0
    });
    assert_eq!(
        (a.refresh(600).code(), a.try_allocate(V4).code()),
        (401, 401)
    );
    assert_eq!(carol.refresh(600).code(), SUCCESS);
    let closed = |line: &Value| line["message"] == "allocation closed";
    let reasons = daemon.log().into_iter().filter(closed);
    let reasons: Vec<Value> = reasons.map(|line| line["reason"].clone()).collect();
    assert_eq!(reasons, ["revoked", "revoked"]);
    assert_eq!(reloads(&daemon, "applied"), 2.0);
}

/// T8
#[test]
fn a_policy_that_is_narrowed_in_the_file_stops_packets_without_a_signal() {
    let house = House::new("policy = { peers = \"any\", allow = [\"127.0.0.0/8\"], deny = [] }");
    let daemon = house.serve();
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at_peer = peer.local_addr().unwrap();
    let mut a = house.client(&daemon, "alice");
    a.allocate(V4);
    assert_eq!(a.bind(0x4000, at_peer), SUCCESS);
    a.send_channel(0x4000, b"heard");
    let mut buf = [0; 100];
    assert_eq!(peer.recv_from(&mut buf).unwrap().0, 5);

    wait_for(&daemon, IN_FORCE, || {
        change(&house, "deny = []", "deny = [\"127.0.0.1\"]")
    });
    eventually("the packet is dropped", || {
        a.send_channel(0x4000, b"not heard");
        let samples = parse(&daemon.get("/metrics").body);
        samples["taciturn_drops_total{reason=\"no_channel\"}"] > 0.0
    });
    peer.set_nonblocking(true).unwrap();
    assert!(peer.recv_from(&mut buf).is_err(), "it went through");
    assert_eq!(a.bind(0x4000, at_peer), 403);
}

/// T25: the file of a secret, not the one that names it.
#[test]
fn a_secrets_file_that_is_written_anew_is_noticed_without_a_signal() {
    let house = House::new("");
    let secret = house.directory.path().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let inline = secrets(&[("first", SECRET)]);
    change(
        &house,
        &inline,
        "secrets = [{ id = \"first\", file = \"secret\" }]",
    );
    let daemon = house.serve();
    let mut a = house.client(&daemon, "alice");
    a.allocate(V4);
    let before = house.client(&daemon, "bob");

    wait_for(&daemon, IN_FORCE, || {
        replace(&secret, "yet another secret/3\n")
    });
    let mut before = before;
    assert_eq!(before.try_allocate(V4).code(), 401);
    house.client(&daemon, "bob").allocate(V4);
    eventually("the old secret's allocation has ended", || {
        a.refresh(600).code() == 401
    });
}

/// T6
#[test]
fn a_bad_file_changes_nothing_and_says_what_check_says() {
    let house =
        House::new("policy = { deny = [\"192.0.2.0/24\"] }\nlimits = { user_allocations = 1 }");
    let mut daemon = house.serve();
    let mut a = house.client(&daemon, "alice");
    a.allocate(V4);
    change(&house, "192.0.2.0/24", "192.0.2.0/33");
    change(&house, "user_allocations = 1", "user_allocations = 5");
    hang_up(&daemon, REFUSED);
    let checked = house.run(&["check", "--config", "taciturn.toml"]);
    assert_eq!(checked.status.code(), Some(64));
    let said = String::from_utf8(checked.stderr).unwrap();
    let said = said.trim().strip_prefix("taciturn: ").unwrap().to_owned();
    assert!(said.contains("policy.deny.0"), "{said}");
    let log = daemon.log();
    let told = log
        .iter()
        .any(|line| line["message"] == said.as_str() && line["level"] == "ERROR");
    assert!(told, "no {said} in {log:?}");
    assert_eq!(house_allocations(&house, &daemon, "alice"), 486);
    assert_eq!(
        (reloads(&daemon, "refused"), reloads(&daemon, "applied")),
        (1.0, 0.0)
    );

    change(&house, "192.0.2.0/33", "192.0.2.0/24");
    hang_up(&daemon, IN_FORCE);
    assert_eq!(house_allocations(&house, &daemon, "alice"), SUCCESS);
    assert_eq!(a.refresh(600).code(), SUCCESS);
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
}

/// The code of one more Allocate of `user`, with a credential of the secret that never changed.
fn house_allocations(house: &House, daemon: &Daemon, user: &str) -> u16 {
    let config = house.directory.path().join("mint.toml");
    let text = format!("[auth]\n{}\n", secrets(&[("first", SECRET)]));
    fs::write(&config, text).unwrap();
    let output = house.run(&["mint", "--user", user, "--config", "mint.toml"]);
    let minted = serde_json::from_slice(&output.stdout).unwrap();
    let mut client = Client::new(daemon.listener(V4), credential(&minted));
    client.try_allocate(V4).code()
}

#[test]
fn what_needs_a_restart_is_named_and_left_and_the_rest_is_taken_up() {
    let house = House::new("log = { level = \"info\" }");
    let daemon = house.serve();
    let listener = daemon.listener(V4);
    change(&house, "level = \"info\"", "level = \"debug\"");
    change(&house, "[\"127.0.0.1\", \"::1\"]", "[\"127.0.0.1\"]");
    change(&house, "count = 2", "count = 1");
    hang_up(&daemon, IN_FORCE);
    let log = daemon.log();
    let keys: Vec<&str> = log
        .iter()
        .filter(|line| line["message"] == "this needs a restart, and stays as it was")
        .map(|line| line["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["relay.addresses", "workers.count"]);
    assert_eq!(daemon.listener(V4), listener);
    house.client(&daemon, "alice").allocate(V4);
}

/// What is good by itself is not taken up beside what is not, here a file that only opening it tells of.
#[test]
fn a_good_certificate_beside_a_file_that_cannot_be_opened_changes_nothing() {
    let house = House::new(
        "tls = { cert = \"first/tls.crt\", key = \"first/tls.key\" }\n\
         events = { file = \"events.jsonl\" }\nlimits = { user_allocations = 5 }",
    );
    let root = house.directory.path();
    let [first, second] =
        ["first", "second"].map(|name| certificate(&root.join(name), &format!("{name}.example")));
    let mut command = house.command(&["serve", "--config", "taciturn.toml"]);
    command.args(["--listen-tls", "127.0.0.1:0"]);
    let mut daemon = house.start(command);
    let shown = || Stream::shown(tls_listener(&daemon));
    change(&house, "first/tls.crt", "second/tls.crt");
    change(&house, "first/tls.key", "second/tls.key");
    change(&house, "user_allocations = 5", "user_allocations = 1");
    change(&house, "\"events.jsonl\"", "\"no/such/place/events.jsonl\"");
    hang_up(&daemon, REFUSED);
    let said = daemon.stderr();
    assert!(said.contains("events.file no/such/place"), "{said}");
    assert!(!said.contains("a new certificate is served"), "{said}");
    assert_eq!(shown(), first);
    let [mut one, mut other] = [(); 2].map(|()| house.client(&daemon, "alice"));
    one.allocate(V4);
    other.allocate(V4);

    change(&house, "\"no/such/place/events.jsonl\"", "\"events.jsonl\"");
    hang_up(&daemon, IN_FORCE);
    assert_eq!(shown(), second);
    let code = house.client(&daemon, "alice").try_allocate(V4).code();
    assert_eq!(code, 486);
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
}

/// T59: a call across the former ports and the new ones.
#[test]
fn other_relay_ports_and_a_cap_on_strangers_hold_at_once_and_a_call_goes_on() {
    let house = House::new("limits = { unvalidated = \"1000/s\" }");
    let daemon = house.serve();
    let mut a = house.client(&daemon, "alice");
    let at_a = a.allocate(V4);
    let free = || {
        let samples = parse(&daemon.get("/metrics").body);
        ["family=\"ipv4\",relay=\"0\"", "family=\"ipv6\",relay=\"1\""]
            .map(|relay| samples[&format!("taciturn_ports{{{relay},state=\"free\"}}")])
    };
    assert!(free().iter().all(|ports| *ports > 4_500.0));
    change(&house, "ports = \"61000-65535\"", "ports = \"60100-60199\"");
    change(
        &house,
        "unvalidated = \"1000/s\"",
        "unvalidated = \"1/s burst 1\"",
    );
    hang_up(&daemon, IN_FORCE);
    assert_eq!(free(), [100.0, 100.0]);
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    eventually("a flood is cut off", || {
        let mut binding = [0; 20];
        binding[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
        stranger.send_to(&binding, daemon.listener(V4)).unwrap();
        let samples = parse(&daemon.get("/metrics").body);
        samples["taciturn_drops_total{reason=\"unvalidated\"}"] > 10.0
    });
    change(
        &house,
        "unvalidated = \"1/s burst 1\"",
        "unvalidated = \"1000/s\"",
    );
    hang_up(&daemon, IN_FORCE);
    let mut b = house.client(&daemon, "bob");
    let at_b = b.allocate(V4);
    assert!((60_100..60_200).contains(&at_b.port()) && at_a.port() >= 61_000);
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_channel(0x4000, b"across");
    assert_eq!(b.receive(), Received::Data(at_a, b"across".to_vec()));
    assert_eq!(a.refresh(600).code(), SUCCESS);
}

#[test]
fn the_format_of_the_log_follows_the_file() {
    let house = House::new("log = { format = \"json\" }");
    let daemon = house.serve();
    change(&house, "format = \"json\"", "format = \"text\"");
    hang_up(&daemon, IN_FORCE);
    let is_json = |line: &&str| line.starts_with('{');
    let log = daemon.stderr();
    let last = log.lines().last().unwrap();
    assert!(last.ends_with(IN_FORCE) && !is_json(&last), "{last}");
    change(&house, "format = \"text\"", "format = \"json\"");
    hang_up(&daemon, IN_FORCE);
    let log = daemon.stderr();
    let (whole, _) = log.rsplit_once('\n').unwrap();
    assert!(whole.lines().last().as_ref().is_some_and(is_json), "{log}");
}

#[test]
fn keys_of_pseudonyms_go_at_once_when_they_are_to_be_kept_for_fewer_days() {
    let house = House::new("state = { dir = \"state\" }\nlog = { pseudonym_days = 7 }");
    let state = house.directory.path().join("state");
    let mut daemon = house.serve();
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let today = unix() / 86_400;
    let key = |days: u64| state.join(format!("pseudonym-{}.key", today - days));
    let template = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut template = template.filter(|path| path.to_str().unwrap().contains("pseudonym-"));
    let template = template.next().unwrap();
    for days in [2, 4] {
        fs::copy(&template, key(days)).unwrap();
    }
    let daemon = house.serve();
    assert!(key(2).exists() && key(4).exists());
    change(&house, "pseudonym_days = 7", "pseudonym_days = 4");
    hang_up(&daemon, IN_FORCE);
    eventually("the older one is gone", || !key(4).exists());
    assert!(key(2).exists());
}

/// T25
#[test]
fn a_key_that_names_are_sealed_with_is_taken_up_when_its_file_comes() {
    let house = House::new("state = { dir = \"state\" }");
    let daemon = house.serve();
    let state = house.directory.path().join("state");
    wait_for(&daemon, IN_FORCE, || {
        fs::copy(state.join("nonce.key"), state.join("draft")).unwrap();
        fs::rename(state.join("draft"), state.join("sealing.previous.key")).unwrap();
    });
    wait_for(&daemon, IN_FORCE, || {
        fs::remove_file(state.join("sealing.previous.key")).unwrap()
    });
}

#[test]
fn the_level_of_the_log_follows_the_file() {
    let house = House::new("log = { level = \"info\" }");
    let daemon = house.serve();
    house.client(&daemon, "alice").allocate(V4);
    eventually("it is told", || {
        daemon.stderr().contains("allocation opened")
    });
    change(&house, "level = \"info\"", "level = \"warn\"");
    eventually("it is taken up", || reloads(&daemon, "applied") == 1.0);
    house.client(&daemon, "bob").allocate(V4);
    house.client(&daemon, "carol").allocate(V4);
    assert_eq!(daemon.stderr().matches("allocation opened").count(), 1);
}

/// T25
#[test]
fn a_static_user_who_is_taken_out_of_the_file_is_gone() {
    let house = House::new("");
    change(
        &house,
        "[auth]",
        "[auth]\nusers = { gateway = \"gatekeeper-of-old/9\" }",
    );
    let daemon = house.serve();
    let mut gateway = Client::new(
        daemon.listener(V4),
        Credential {
            username: "gateway".to_owned(),
            password: "gatekeeper-of-old/9".to_owned(),
        },
    );
    gateway.allocate(V4);
    let mut alice = house.client(&daemon, "alice");
    alice.allocate(V4);
    change(
        &house,
        "\nusers = { gateway = \"gatekeeper-of-old/9\" }",
        "",
    );
    hang_up(&daemon, IN_FORCE);
    eventually("the static user is gone", || {
        gateway.refresh(600).code() == 401
    });
    assert_eq!(alice.refresh(600).code(), SUCCESS);
}

/// T26: not before, not after, and not in between, when a secret is where it cannot be used.
#[test]
fn secrets_are_in_no_argument_log_answer_or_refusal() {
    let (second, third) = ("another secret/2", "yet-another-secret\u{7}");
    let house = House::new("log = { level = \"trace\", format = \"json\" }");
    let mut daemon = house.serve();
    let first = secrets(&[("first", SECRET)]);
    change(
        &house,
        &first,
        &secrets(&[("second", second), ("first", SECRET)]),
    );
    hang_up(&daemon, IN_FORCE);
    house.client(&daemon, "alice").allocate(V4);
    change(&house, second, "yet-another-secret\\u0007");
    hang_up(&daemon, REFUSED);
    let check = house.run(&["check", "--config", "taciturn.toml"]);
    let arguments = fs::read(format!("/proc/{}/cmdline", daemon.child.id())).unwrap();
    let answers = ["/metrics", "/healthz", "/"].map(|path| {
        let answer = daemon.get(path);
        answer.head + &answer.body
    });
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let texts = [
        String::from_utf8_lossy(&arguments).into_owned(),
        answers.concat(),
        daemon.stdout(),
        daemon.stderr(),
        String::from_utf8_lossy(&check.stderr).into_owned(),
        String::from_utf8_lossy(&check.stdout).into_owned(),
    ];
    assert!(daemon.stderr().contains("TRACE") || daemon.stderr().contains("DEBUG"));
    for text in texts {
        for secret in [SECRET, second, third.trim_end_matches('\u{7}')] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn an_unreadable_file_of_refusals_is_named_with_its_line_and_nobody_is_served() {
    for name in ["revocations", "bans"] {
        let house = House::new("state = { dir = \"state\" }");
        let state = house.directory.path().join("state");
        let mut daemon = house.serve();
        assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
        fs::write(state.join(name), "{}\nhalf a line").unwrap();
        let output = house.run(&["serve", "--config", "taciturn.toml"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in [&*format!("state/{name}, line 1"), "move the file away"] {
            assert!(said.contains(word), "{said}");
        }
        assert!(!said.contains("listening"), "{said}");
    }
}
