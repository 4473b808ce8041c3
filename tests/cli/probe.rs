//! `taciturn probe` against a real server, against none, and with credentials from everywhere.

use std::time::{Duration, Instant};

use crate::user::{Server, User, appears, free_port};

#[test]
fn without_any_configuration_the_probe_finds_the_server_of_this_user() {
    // Also where another server left its own credential for this whole machine.
    let user = User::new().apart().alone();
    let port = free_port();
    let server = user.serves(port, &["--listen-udp", &format!("127.0.0.1:{port}")]);
    appears(&user.left());

    // Its variables are those of `serve`, as in one container.
    let said = user.runs(&["probe"]).ended(0);

    said.out_has(&[
        &format!("turn:127.0.0.1:{port}?transport=udp"),
        "answers STUN",
        "there       100 of 100 arrived, 0.0 % lost",
        "back        100 of 100 arrived, 0.0 % lost",
        "p99",
    ]);
    assert!(
        !said.out.contains('\u{1b}') && said.err.is_empty(),
        "{said:?}"
    );

    server.stops();
    assert!(!user.left().exists(), "the credential stays behind");
    if !user.is_alone() {
        eprintln!("skipped: a probe that finds nothing, since this machine has a server for all");
        return;
    }
    user.runs(&["probe"]).ended(64).err_has(&[
        "no credentials",
        "--config FILE",
        "--ice FILE",
        "taciturn serve",
    ]);
}

#[test]
fn a_server_with_a_secret_of_its_own_is_found_too() {
    let user = User::new()
        .apart()
        .with("TACITURN_AUTH__SECRETS", "hunter2");
    let port = free_port();
    let server = user.serves(port, &["--listen-udp", &format!("127.0.0.1:{port}")]);
    let url = format!("turn:127.0.0.1:{port}");
    user.runs(&["probe", &url, "--packets", "5"]).ended(0);
    appears(&user.left());
    let left = user.left().display().to_string();
    let said = user
        .runs(&["probe", "--ice", &left, "--packets", "5"])
        .ended(0);
    said.out_has(&[&url]);
    server.stops();
    assert!(!user.left().exists(), "the credential stays behind");
}

#[test]
fn a_server_of_the_environment_alone_is_probed_by_the_same_environment() {
    let port = free_port();
    let user = User::new()
        .apart()
        .with("TACITURN_AUTH__SECRETS", "hunter2")
        .with("TACITURN_LISTEN__UDP", format!("127.0.0.1:{port}"));
    let server = user.serves(port, &[]);
    let said = user
        .runs(&["probe", "--packets", "20", "--interval", "2ms"])
        .ended(0);
    said.out_has(&["there       20 of 20 arrived"]);
    server.stops();
}

#[test]
fn what_mint_prints_is_what_the_probe_takes() {
    let user = User::new();
    let port = free_port();
    let config = user.file(
        "taciturn.toml",
        &format!(
            "[listen]\nudp = [\"127.0.0.1:{port}\"]\n[relay]\nports = \"20000-20999\"\n\
             [auth]\nsecrets = [{{ id = \"1\", value = \"hunter2\" }}]\n\
             [admin]\nlisten = \"off\"\n"
        ),
    );
    let server = user.serves(port, &["--config", &config]);
    let minted = user
        .runs(&["mint", "--user", "alice", "--config", &config])
        .ended(0)
        .out;

    let ice = user.file("ice.json", &minted);
    let few = ["--packets", "10"];
    for arguments in [["--ice", &ice], ["--config", &config]] {
        user.runs(&[&["probe"], &arguments[..], &few].concat())
            .ended(0)
            .out_has(&["10 of 10 arrived"]);
    }
    user.runs_with_input(&[&["probe", "--ice", "-"], &few[..]].concat(), &minted)
        .ended(0)
        .out_has(&["10 of 10 arrived"]);

    let strange = minted.replace("alice", "mallory");
    user.runs_with_input(&["probe", "--ice", "-"], &strange)
        .ended(1)
        .out_has(&["failed", "the credential is refused", "401"]);
    server.stops();
}

#[test]
fn each_of_several_servers_has_a_row_and_all_must_relay() {
    let user = User::new()
        .apart()
        .with("TACITURN_AUTH__SECRETS", "hunter2");
    let (port, absent) = (free_port(), free_port());
    let server = user.serves(port, &["--listen-udp", &format!("127.0.0.1:{port}")]);
    let url = |port| format!("turn:127.0.0.1:{port}");
    let said = user
        .runs(&[
            "probe",
            &url(port),
            &url(absent),
            &format!("turns:127.0.0.1:{absent}"),
            "--packets",
            "5",
        ])
        .ended(1);
    said.out_has(&[
        "URL ",
        "ok",
        "not reached",
        "nothing listens on that TCP port",
        "works      UDP over IPv4",
        "fails      UDP over IPv4, TLS over IPv4",
    ]);
    said.err_has(&["failed for 2 of 3 URLs"]);
    user.runs(&["probe", &url(port), &url(port), "--packets", "5"])
        .ended(0);
    server.stops();
}

#[test]
fn a_user_who_may_hold_one_allocation_is_told_that_the_probe_needs_two() {
    let user = User::new()
        .apart()
        .with("TACITURN_AUTH__SECRETS", "hunter2")
        .with("TACITURN_LIMITS__USER_ALLOCATIONS", 1);
    let port = free_port();
    let server = user.serves(port, &["--listen-udp", &format!("127.0.0.1:{port}")]);
    user.runs(&["probe", &format!("turn:127.0.0.1:{port}")])
        .ended(1)
        .out_has(&["the second allocation failed", "needs two", "486"]);
    server.stops();
}

#[test]
fn a_probe_of_nothing_ends_soon_and_says_why() {
    let user = User::new().with("TACITURN_AUTH__SECRETS", "hunter2");
    let began = Instant::now();
    let said = user
        .runs(&["probe", &format!("turn:127.0.0.1:{}", free_port())])
        .ended(1);
    said.out_has(&["nothing listens on that UDP port"]);
    said.err_has(&["the probe failed"]);
    // A port that swallows everything.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    user.runs(&["probe", &format!("turn:127.0.0.1:{port}")])
        .ended(1)
        .out_has(&["did not answer", "firewall"]);
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_cannot_be_probed_is_bad_usage() {
    let user = User::new().with("TACITURN_AUTH__SECRETS", "hunter2");
    let absent = user.path("absent");
    let absent = absent.to_str().unwrap();
    for (arguments, words) in [
        (vec!["probe", "127.0.0.1:3478"], "no TURN URL"),
        (vec!["probe", "stun:a.example"], "no TURN URL"),
        (vec!["probe", "--ice", absent], absent),
        (vec!["probe", "--config", absent], absent),
        (vec!["probe", "--ice", "-"], "standard input"),
        (vec!["probe", "--packets", "0"], "--packets"),
        (vec!["probe", "--credential", "hunter2"], "--credential"),
    ] {
        user.runs(&arguments).ended(64).err_has(&[words]);
    }
}

/// A server on every transport, all but DTLS at one port, whose certificate is for localhost.
fn over_everything(days: u64) -> (User, Server, u16) {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let mut user = User::new()
        .apart()
        .with("TACITURN_AUTH__SECRETS", "hunter2")
        .with("TACITURN_PUBLIC__HOST", "localhost")
        .with("TACITURN_LISTEN__UDP", &address)
        .with("TACITURN_LISTEN__TLS", &address)
        .with_certificate("localhost", days);
    if cfg!(feature = "dtls") {
        user = user.with(
            "TACITURN_LISTEN__DTLS",
            format!("127.0.0.1:{}", free_port()),
        );
    }
    let server = user.serves(port, &[]);
    (user, server, port)
}

const FEW: [&str; 3] = ["-4", "--packets", "5"];

#[test]
fn every_transport_that_the_configuration_names_is_probed() {
    let (user, server, port) = over_everything(30);
    let ca = user.path("ca.pem").display().to_string();
    let said = user
        .runs(&[&["probe", "--ca", &ca], &FEW[..]].concat())
        .ended(0);
    for (scheme, transport, over) in [
        ("turn", "udp", "UDP over IPv4"),
        ("turn", "tcp", "TCP over IPv4"),
        ("turns", "tcp", "TLS over IPv4"),
    ] {
        said.out_has(&[&format!(
            "{scheme}:localhost:{port}?transport={transport} ({over})"
        )]);
    }
    said.out_has(&[
        "TLS 1.3, protocol stun.turn",
        "certificate for localhost, issued by",
        "30 days left\n",
        "works      UDP over IPv4, TCP over IPv4, TLS over IPv4",
    ]);
    let mut rows = 3;
    if cfg!(feature = "dtls") {
        said.out_has(&["secured     DTLS 1.2", ", DTLS over IPv4\n"]);
        rows += 1;
    }
    let whole = said.out.matches("back        5 of 5 arrived").count();
    assert_eq!(whole, rows, "{}", said.out);
    assert!(!said.out.contains("fails"), "{}", said.out);
    server.stops();
}

#[test]
fn a_certificate_that_does_not_hold_is_no_success() {
    let (user, server, port) = over_everything(13);
    let ca = user.path("ca.pem").display().to_string();
    let url = format!("turns:localhost:{port}");
    let probe = |more: &[&str]| user.runs(&[&["probe", &url], more, &FEW].concat());

    if cfg!(feature = "dtls") {
        // The URL that the configuration makes.
        let said = user.runs(&[&["probe"], &FEW[..]].concat()).ended(1);
        said.out_has(&[
            "unable to get local issuer certificate",
            "fails      TLS over IPv4, DTLS",
        ]);
        user.runs(&[&["probe", "--insecure"], &FEW[..]].concat())
            .ended(0)
            .out_has(&["DTLS over IPv4 (certificate NOT VERIFIED)"]);
    }
    probe(&[])
        .ended(1)
        .out_has(&["nobody whom this system trusts", "--ca FILE"]);
    probe(&["--insecure"])
        .ended(0)
        .out_has(&["WARNING", "NOT VERIFIED", "5 of 5 arrived"]);
    probe(&["--ca", &ca])
        .ended(0)
        .out_has(&["13 days left (!)", "5 of 5 arrived"]);

    let other = format!("turns:127.0.0.1:{port}");
    user.runs(&[&["probe", &other, &url, "--ca", &ca], &FEW[..]].concat())
        .ended(1)
        .out_has(&[
            "not for 127.0.0.1: it names localhost",
            "bad certificate",
            "13 d (!)",
        ]);
    server.stops();
}

#[test]
fn a_transport_that_the_server_does_not_speak_is_told_with_the_reason() {
    let user = User::new()
        .apart()
        .with("TACITURN_AUTH__SECRETS", "hunter2");
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let server = user.serves(port, &["--listen-udp", &address, "--listen-tcp", &address]);
    user.runs(&["probe", &format!("turns:{address}")])
        .ended(1)
        .out_has(&["failed", "TLS"]);
    user.runs(&["probe", &format!("turn:{address}?transport=tcp"), "-6"])
        .ended(1)
        .out_has(&["127.0.0.1 has no IPv6 address"]);
    server.stops();
    user.runs(&["probe", &format!("turn:{address}?transport=tcp")])
        .ended(1)
        .out_has(&["nothing listens on that TCP port"]);
}

#[test]
fn a_wrong_credential_is_refused_over_a_stream_too() {
    let user = User::new()
        .apart()
        .with("TACITURN_AUTH__SECRETS", "hunter2");
    let port = free_port();
    let server = user.serves(port, &["--listen-udp", &format!("127.0.0.1:{port}")]);
    let url = format!("turn:127.0.0.1:{port}?transport=tcp");
    let ice = format!(r#"[{{ "urls": "{url}", "username": "u", "credential": "hunter3" }}]"#);
    user.runs_with_input(&["probe", "--ice", "-"], &ice)
        .ended(1)
        .out_has(&["reached", "connected", "the credential is refused", "401"]);
    server.stops();
}

#[test]
fn both_families_are_probed_where_a_server_has_both() {
    let port = free_port();
    let user = User::new()
        .apart()
        .with("TACITURN_AUTH__SECRETS", "hunter2")
        .with("TACITURN_RELAY__ADDRESSES", "127.0.0.1");
    let v4 = format!("127.0.0.1:{port}");
    let v6 = format!("[::1]:{port}");
    let server = user.serves(port, &["--listen-udp", &v4, "--listen-udp", &v6]);
    user.runs(&[
        "probe",
        &format!("turn:{v4}"),
        &format!("turn:{v6}?transport=tcp"),
    ])
    .ended(0)
    .out_has(&["works      UDP over IPv4, TCP over IPv6"]);
    server.stops();
}

#[cfg(not(feature = "dtls"))]
#[test]
fn what_is_not_built_in_never_works() {
    let user = User::new().with("TACITURN_AUTH__SECRETS", "hunter2");
    user.runs(&["probe", "turns:127.0.0.1:1?transport=udp"])
        .ended(1)
        .out_has(&["not built in", "`dtls`"]);
}

#[test]
fn authorities_come_from_a_file_that_has_some() {
    let user = User::new().with("TACITURN_AUTH__SECRETS", "hunter2");
    let empty = user.file("empty.pem", "no certificate");
    for file in [&empty, "absent.pem"] {
        user.runs(&["probe", "turn:127.0.0.1:1", "--ca", file])
            .ended(64)
            .err_has(&["--ca", file]);
    }
}
