//! `GET /v1/status` and `taciturn status`, of a real daemon with a call on it.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::ask::{self, KEY, MINT, ask};
use crate::house::House;
use crate::loopback::client::SUCCESS;
use crate::loopback::eventually;
use crate::loopback::plane::V4;

fn lines(house: &House) -> (Option<i32>, String) {
    let output = house.run(&["status", "--socket", "control.sock"]);
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn value<'t>(text: &'t str, name: &str) -> &'t str {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap()
}

#[test]
fn a_script_learns_what_a_daemon_does_and_whether_it_takes_calls() {
    let (house, mut daemon) = ask::open("");
    let [mut a, mut b] = ["alice", "bob"].map(|user| house.client(&daemon, user));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    for _ in 0..10 {
        a.send_channel(0x4000, b"hello");
        b.receive();
    }
    a.send_channel(0x4001, b"nobody bound it");

    let mut text = String::new();
    eventually("the packets are counted", || {
        let (code, said) = lines(&house);
        assert_eq!(code, Some(0), "{said}");
        text = said;
        value(&text, "received_bytes") == "50" && value(&text, "drop_no_channel") == "1"
    });
    for (name, wanted) in [
        ("ready", "true"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("allocations", "2"),
        ("allocations_total", "2"),
        ("sent_packets", "10"),
        ("ports_held", "2"),
        ("worker_0_of", "udp"),
        ("reload_applied", "0"),
        ("reload_last", "-"),
        ("buffer_0_transport", "udp"),
    ] {
        assert_eq!(value(&text, name), wanted, "{name}");
    }
    let granted: u64 = value(&text, "buffer_0_receive").parse().unwrap();
    assert!(
        granted > 0 && value(&text, "buffer_0_send") != "0",
        "{text}"
    );
    let ratio: f64 = value(&text, "imbalance").parse().unwrap();
    assert!(ratio >= 1.0, "{ratio}");
    assert_ne!(value(&text, "descriptors_open"), "-");

    let output = house.run(&["status", "--json", "--socket", "control.sock"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let answer = ask(&daemon, "GET", "/v1/status", Some(KEY), None);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["drops"], told["drops"]);
    assert_eq!(told["requests"]["allocate"]["0"], 2);
    assert_eq!(told["auth_failures"]["missing"], 2);
    let busy: Vec<f64> = told["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| worker["busy"].as_f64().unwrap())
        .collect();
    assert!(busy.iter().any(|seconds| *seconds > 0.0), "{busy:?}");

    // Neither addresses nor names, and not for whoever may only mint.
    for hidden in ["127.0.0.1", "alice", "::1"] {
        assert!(!told.to_string().contains(hidden), "{hidden} in {told}");
    }
    assert_eq!(
        ask(&daemon, "GET", "/v1/status", Some(MINT), None).status,
        403
    );

    kill_process(Pid::from_child(&daemon.child), Signal::HUP).unwrap();
    eventually("a reload is told", || {
        let (_, text) = lines(&house);
        value(&text, "reload_applied") == "1" && value(&text, "reload_outcome") == "applied"
    });
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let output = house.run(&["status", "--socket", "control.sock"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(
        said.contains("no taciturn runs there") && output.stdout.is_empty(),
        "{said}"
    );
}

#[test]
fn an_allocation_says_which_way_its_packets_went_and_which_worker_has_it() {
    let (house, daemon) = ask::open("");
    let [mut a, mut b] = ["alice", "bob"].map(|user| house.client(&daemon, user));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    let all =
        || ask(&daemon, "GET", "/v1/allocations", Some(KEY), None).json()["allocations"].clone();
    assert!(
        all()
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["path"].is_null()),
        "{}",
        all()
    );
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_channel(0x4000, b"hello");
    b.receive();
    eventually("the packet is counted", || {
        let all = all();
        all.as_array()
            .unwrap()
            .iter()
            .all(|one| one["path"] == "hairpin")
    });
    for one in all().as_array().unwrap() {
        assert!(one["worker"].as_u64().unwrap() < 2, "{one}");
    }
}

/// What stands in for a daemon that stops, which no test can catch at it.
#[test]
fn a_daemon_that_takes_no_calls_is_told_by_the_exit_code() {
    let house = House::new("");
    let listener = UnixListener::bind(house.directory.path().join("stopping.sock")).unwrap();
    let stopping = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1_000];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].starts_with(b"GET /v1/status "));
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\n{\"ready\":false}")
            .unwrap();
    });
    let output = house.run(&["status", "--socket", "stopping.sock"]);
    stopping.join().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(value(&said, "ready"), "false");
    assert!(output.stderr.is_empty());
}
