//! `taciturn load` against this relay and coturn, over the lab's links: everything arrives.

use std::time::Duration;

use crate::lab::process::Process;
use crate::lab::relay::{Kind, PORT, Peers, Relay, SECRET, TLS_PORT};
use crate::lab::{Lab, Party, SERVICE};

/// Runs it from Alice's namespace against a relay of each kind; panics unless all arrives.
fn run(flags: &[&str]) {
    run_at(PORT, flags);
}

/// The same at a port of the relay.
fn run_at(port: u16, flags: &[&str]) {
    for kind in [Kind::Taciturn, Kind::Coturn] {
        let lab = Lab::new(&["turnserver"]);
        let relay = Relay::start(&lab, kind, Peers::Any, "rfc8656");
        let secret = lab.file("secret");
        std::fs::write(&secret, SECRET).expect("the lab's directory is writable");
        let mut command = lab
            .party(Party::Alice)
            .command(env!("CARGO_BIN_EXE_taciturn"));
        let v4 = SERVICE.v4;
        command
            .args(["load", "--server", &format!("{v4}:{port}"), "--secret-file"])
            .arg(&secret)
            .args([
                "--rate",
                "200",
                "--duration",
                "1s",
                "--no-ceiling",
                "--json",
            ])
            .args(flags);
        let mut load = Process::spawn("load", command, lab.directory());
        let status = load.wait(Duration::from_secs(60));

        let seen = load.output();
        assert!(status.success(), "{kind:?}: {status}\n{seen}");
        assert!(seen.contains("\"loss\":0.0,"), "{kind:?}:\n{seen}");
        assert!(!seen.contains("\"sent\":0,"), "{kind:?}:\n{seen}");
        relay.stop();
    }
}

#[test]
#[ignore = "needs root and coturn; .ci/run runs it"]
fn calls_arrive_whole_through_either_relay() {
    run(&["--pairs", "10"]);
    run(&["--pairs", "3", "--mode", "send"]);
    run(&["--pairs", "3", "--mode", "mixed"]);
    run(&["--pairs", "3", "--payload", "1200", "--burst", "4"]);
}

#[test]
#[ignore = "needs root and coturn; .ci/run runs it"]
fn calls_over_connections_and_between_transports_arrive_whole_through_either_relay() {
    run(&["--pairs", "3", "--transport", "tcp"]);
    run(&["--pairs", "3", "--transport", "tcp", "--payload", "1201"]);
    run_at(TLS_PORT, &["--pairs", "3", "--transport", "tls"]);
    let tls = format!("{}:{TLS_PORT}", SERVICE.v4);
    let callee = ["--callee-transport", "tls", "--callee-server", &tls];
    for pairs in [&["--pairs", "3"][..], &["--pairs", "3", "--mode", "mixed"]] {
        run(&[pairs, &callee].concat());
    }
}

#[test]
#[ignore = "needs root and coturn; .ci/run runs it"]
fn packets_to_and_from_plain_peers_arrive_whole_through_either_relay() {
    run(&["--allocations", "10", "--mode", "peer"]);
}

#[test]
#[ignore = "needs root and coturn; .ci/run runs it"]
fn sequences_beside_the_traffic_disturb_neither_relay() {
    run(&["--pairs", "3", "--background-allocations", "20"]);
}
