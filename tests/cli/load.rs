//! `taciturn load` against a daemon on loopback: everything that it sends at a low rate arrives,
//! in each mode. No rate and no time is held against anything.

use serde_json::Value;

use crate::user::{Server, User, free_port};

/// A server for any peers, its user, and the arguments that lead there.
struct House {
    user: User,
    server: Server,
    arguments: Vec<String>,
}

impl House {
    fn new() -> Self {
        let user = User::new()
            .apart()
            .with("TACITURN_AUTH__SECRETS", "hunter2")
            .with("TACITURN_POLICY__PEERS", "any")
            .with("TACITURN_POLICY__ALLOW", "127.0.0.0/8");
        let user = user.with_certificate("localhost", 30);
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let listen = ["--listen-udp", &address, "--listen-tls", &address];
        let server = user.serves(port, &listen);
        let secret = user.file("secret", "hunter2\n");
        let arguments = ["load", "--server", &address, "--secret-file", &secret];
        Self {
            user,
            server,
            arguments: arguments.map(str::to_owned).to_vec(),
        }
    }

    /// Runs `load` with these flags besides; returns its JSON.
    fn loads(&self, flags: &str) -> Value {
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.extend(flags.split_whitespace());
        arguments.push("--json");
        let said = self.user.runs(&arguments).ended(0);
        assert!(said.err.is_empty(), "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    }
}

/// Stops the test unless everything that was sent arrived, once.
#[track_caller]
fn whole(report: &Value) {
    let sent = report["sent"].as_u64().unwrap();
    assert!(sent > 0, "{report}");
    assert_eq!(report["received"], sent, "{report}");
    for nothing in ["duplicates", "astray", "refused_by_kernel"] {
        assert_eq!(report[nothing], 0, "{nothing} in {report}");
    }
    assert_eq!(report["loss"], 0.0, "{report}");
    assert!(report["latency_us"]["p50"].as_f64().unwrap() > 0.0);
}

const GENTLE: &str = "--rate 200 --duration 500ms --no-ceiling";

#[test]
fn every_mode_delivers_what_it_sends() {
    let house = House::new();
    for mode in ["call", "send", "mixed"] {
        let report = house.loads(&format!("--mode {mode} --pairs 5 {GENTLE}"));
        whole(&report);
        assert_eq!(
            (&report["mode"], &report["pairs"], &report["allocations"]),
            (&mode.into(), &5.into(), &10.into())
        );
    }
    let report = house.loads(&format!("--mode peer --allocations 5 {GENTLE}"));
    whole(&report);
    assert_eq!(report["pairs"], Value::Null);
    // Every allocation was deleted: the relay's ports suffice again and again.
    for _ in 0..3 {
        whole(&house.loads(&format!("--pairs 200 {GENTLE}")));
    }
    house.server.stops();
}

#[test]
fn every_transport_delivers_what_it_is_given() {
    let house = House::new();
    for (flags, transport) in [
        ("--transport tcp", "tcp"),
        ("--transport tls", "tls"),
        ("--callee-transport tls", "udp-tls"),
        ("--transport tcp --callee-transport udp", "tcp-udp"),
        ("--transport tls --mode send", "tls"),
        (
            "--transport tcp --callee-transport tls --mode mixed",
            "tcp-tls",
        ),
        ("--transport tcp --payload 1201 --burst 5", "tcp"),
        ("--transport tls --payload 25 --burst 3 --gso=off", "tls"),
    ] {
        let report = house.loads(&format!("{flags} --pairs 5 {GENTLE}"));
        whole(&report);
        assert_eq!(report["transport"], transport, "{flags}");
        assert_eq!((&report["late"], &report["ended"]), (&0.into(), &0.into()));
        let secured = report["secured"].as_str().unwrap_or_default();
        let tls = transport.contains("tls");
        assert_eq!(secured.starts_with("TLSv1_3, TLS13_"), tls, "{report}");
    }
    let report = house.loads(&format!(
        "--transport tls --mode peer --allocations 5 {GENTLE}"
    ));
    whole(&report);
    let report =
        house.loads("--transport tcp --allocations 50 --duration 100ms --measure sequence");
    assert!(report["sequence_per_s"].as_f64().unwrap() > 0.0);
    house.server.stops();
}

#[test]
fn the_ceiling_of_datagrams_is_not_held_against_connections() {
    let house = House::new();
    let report = house.loads("--transport tcp --pairs 1 --rate 200 --duration 300ms");
    whole(&report);
    assert!(report["ceiling_pps"].is_null());
    let notes = report["notes"].to_string();
    assert!(notes.contains("not measured for this transport"), "{notes}");
    // The server's process is found by its TCP port.
    assert!(report["cpu_us_per_packet"]["server"].is_number());
    house.server.stops();
}

#[test]
fn bursts_and_mixes_arrive_whole_segmented_or_not() {
    let house = House::new();
    for flags in [
        "--payload 1200 --burst 8",
        "--payload 1200 --burst 8 --gso=off",
        "--payload 25 --burst 3 --mode send",
        "--payload 1201 --burst 2 --mode mixed --gso",
        "--payload 8900 --burst 9",
    ] {
        whole(&house.loads(&format!("{flags} --pairs 2 {GENTLE}")));
    }
    for mix in ["audio", "video", "call"] {
        let flags = format!("--payload {mix} --pairs 1 --duration 500ms --no-ceiling");
        let report = house.loads(&flags);
        whole(&report);
        assert_eq!(report["payload"], mix);
    }
    house.server.stops();
}

#[test]
fn json_has_every_field_and_null_for_what_was_not_measured() {
    let house = House::new();
    let report = house.loads(&format!("--pairs 1 {GENTLE}"));
    for (field, null) in [
        ("mode", false),
        ("payload", false),
        ("pairs", false),
        ("allocations", false),
        ("offered_pps", false),
        ("delivered_pps", false),
        ("sent", false),
        ("received", false),
        ("loss", false),
        ("latency_us", false),
        ("cpu_us_per_packet", false),
        ("rss_bytes_per_allocation", false),
        ("allocate_per_s", true),
        ("sequence_per_s", true),
        ("ceiling_pps", true),
        ("limited_by_load", false),
        ("search", true),
    ] {
        let value = report.get(field).unwrap_or_else(|| panic!("no {field}"));
        assert_eq!(value.is_null(), null, "{field} in {report}");
    }
    // The server's process is found by its port.
    assert!(
        report["cpu_us_per_packet"]["server"].is_number(),
        "{report}"
    );
    for quantile in ["p50", "p99", "p999", "max"] {
        assert!(report["latency_us"][quantile].is_number(), "{report}");
    }
    house.server.stops();
}

#[test]
fn allocations_and_sequences_are_counted() {
    let house = House::new();
    let flags = "--allocations 50 --duration 100ms --measure";
    let report = house.loads(&format!("{flags} allocate"));
    assert!(report["allocate_per_s"].as_f64().unwrap() > 0.0);
    assert!(report["sequence_per_s"].is_null() && report["sent"].is_null());
    let report = house.loads(&format!("{flags} sequence"));
    assert!(report["sequence_per_s"].as_f64().unwrap() > 0.0);
    let beside = house.loads(&format!("--pairs 1 --background-allocations 50 {GENTLE}"));
    whole(&beside);
    assert!(beside["background_sequences"].as_u64().unwrap() > 0);
    assert_eq!(beside["background_failures"], 0);
    house.server.stops();
}

#[test]
fn a_search_tells_its_steps_and_the_ceiling() {
    let house = House::new();
    let report = house.loads("--pairs 1 --duration 100ms --max-loss 40 --search");
    let steps = report["search"]["steps"].as_array().unwrap();
    assert!(!steps.is_empty());
    for step in steps {
        assert!(step["offered_pps"].is_number() && step["loss"].is_number());
    }
    house.server.stops();
}

#[test]
fn credentials_come_from_a_secret_a_password_or_an_rtc_configuration() {
    let house = House::new();
    let server = house.arguments[2].clone();
    let minted = house.user.runs(&["mint", "--user", "alice"]).ended(0).out;
    let ice = house.user.file("ice.json", &minted);
    let value: Value = serde_json::from_str(&minted).unwrap();
    let entry = &value["iceServers"][0];
    let username = entry["username"].as_str().unwrap();
    let password = house
        .user
        .file("password", entry["credential"].as_str().unwrap());
    for credentials in [
        vec!["--ice", &ice],
        vec!["--user", username, "--password-file", &password],
    ] {
        let gentle: Vec<&str> = GENTLE.split_whitespace().collect();
        let arguments = [
            &["load", "--server", &server, "--pairs", "1"],
            &credentials[..],
            &gentle[..],
        ]
        .concat();
        let said = house.user.runs(&arguments).ended(0);
        said.out_has(&[
            "mode              call, 1 pairs",
            "loss              0.000 %",
        ]);
    }
    let wrong = house.user.file("wrong", "hunter3");
    let arguments = ["load", "--server", &server, "--secret-file", &wrong];
    house
        .user
        .runs(&[&arguments[..], &["--rate", "10", "--no-ceiling"]].concat())
        .ended(1)
        .err_has(&["refused Allocate with 401", "credential"]);
    house.server.stops();
}

#[test]
fn what_a_server_refuses_is_told_with_what_to_do() {
    let user = User::new()
        .apart()
        .with("TACITURN_AUTH__SECRETS", "hunter2")
        .with("TACITURN_LIMITS__USER_ALLOCATIONS", 3);
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let server = user.serves(port, &["--listen-udp", &address]);
    let secret = user.file("secret", "hunter2");
    let base = ["load", "--server", &address, "--secret-file", &secret];
    let gentle: Vec<&str> = GENTLE.split_whitespace().collect();
    let with = |flags: &[&str]| user.runs(&[&base, flags, &gentle].concat());
    with(&["--pairs", "3"]).ended(0);
    with(&["--pairs", "3", "--users", "1"]).ended(1).err_has(&[
        "486",
        "quota",
        "3 of 6 allocations",
    ]);
    with(&["--mode", "peer", "--allocations", "1"])
        .ended(1)
        .err_has(&["403", "ChannelBind", "policy.peers"]);
    server.stops();
    with(&[]).ended(1).err_has(&["did not answer", "UDP port"]);
    with(&["--transport", "tcp"])
        .ended(1)
        .err_has(&["did not take one more connection", "refused"]);
}

#[test]
fn what_cannot_be_meant_is_bad_usage() {
    let user = User::new();
    let secret = user.file("secret", "hunter2");
    let base = format!("load --server 127.0.0.1:3478 --secret-file {secret}");
    for (arguments, word) in [
        (
            "load --server 127.0.0.1:3478 --rate 1".to_owned(),
            "--secret-file",
        ),
        (base.clone(), "--rate PACKETS or --search"),
        (format!("{base} --payload 23"), "at least 24"),
        (format!("{base} --payload music"), "audio, video or call"),
        (format!("{base} --rate 10 --search"), "--search"),
        (format!("{base} --rate 10 --duration 4m"), "100ms to 3m"),
        (format!("{base} --rate 10 --allocations 5"), "--pairs"),
        (
            format!("{base} --rate 10 --mode peer --pairs 5"),
            "--allocations",
        ),
        (format!("{base} --payload audio --burst 2"), "--burst"),
        (
            format!("{base} --rate 10 --sources 192.0.2.0/24"),
            "ip route add local",
        ),
        (
            format!("{base} --rate 10 --sources 127.0.0.0/30"),
            "2 addresses",
        ),
        (format!("{base} --rate 10 --sources ::1/128"), "families"),
        (
            format!("{base} --rate 10 --server-pid 4194305"),
            "no process",
        ),
        (format!("{base} --rate 10 --cpu 8000"), "CPU 8000"),
        (
            format!("{base} --rate 10 --callee-server 127.0.0.1:1"),
            "--callee-transport",
        ),
        (
            format!("{base} --rate 10 --callee-transport tcp --mode peer"),
            "modes call, send and mixed",
        ),
        (
            format!("{base} --rate 10 --transport tcp --background-allocations 1"),
            "goes with UDP",
        ),
        (
            "load --server nowhere --ice x --rate 1".to_owned(),
            "HOST:PORT",
        ),
        (
            "load --server 127.0.0.1:1 --ice absent --rate 1".to_owned(),
            "absent",
        ),
        (
            "load --server 127.0.0.1:1 --user u --rate 1".to_owned(),
            "--password-file",
        ),
    ] {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        user.runs(&arguments).ended(64).err_has(&[word]);
    }
}
