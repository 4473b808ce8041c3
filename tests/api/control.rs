//! The control socket, and the verbs of the command line that go by it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::ask::{self, KEY, ask};
use crate::house::{House, credential};
use crate::loopback::client::Client;
use crate::loopback::plane::V4;

const AT: [&str; 2] = ["--socket", "control.sock"];

#[test]
fn the_command_line_sees_what_is_live_without_a_key() {
    let (house, mut daemon) = ask::open("");
    let wanted = json!({ "user": "alice", "tenant": "north" });
    let minted = ask(&daemon, "POST", "/v1/credentials", Some(KEY), Some(&wanted)).json();
    let mut client = Client::new(daemon.listener(V4), credential(&minted));
    client.allocate(V4);
    let run = |more: &[&str]| {
        let output = house.run(&[&["allocations"], &AT[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run(&[]);
    let subject = minted["subject"].as_str().unwrap();
    assert!(
        table.contains(subject) && table.contains("north"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 2);
    let line: Value = serde_json::from_str(&run(&["--json", "--user", "alice"])).unwrap();
    assert_eq!(line["subject"], subject);
    assert_eq!(run(&["--json", "--user", "bob/?#"]).trim(), "");
    assert_eq!(run(&["--json", "--transport", "tls"]).trim(), "");

    let path = house.directory.path().join("control.sock");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn without_a_daemon_the_command_line_says_so() {
    let house = House::new("");
    let output = house.run(&[&["allocations"], &AT[..]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no taciturn runs there") && said.contains("control.sock"),
        "{said}"
    );
}

#[test]
fn what_a_killed_daemon_left_is_replaced_and_what_a_living_one_has_is_not() {
    let (house, mut daemon) = ask::open("");
    daemon.stop(Signal::KILL);
    assert!(house.directory.path().join("control.sock").exists());
    let daemon = house.serve();
    let output = house.run(&["serve", "--config", "taciturn.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("another taciturn answers") && said.contains("control.socket"),
        "{said}"
    );
    let output = house.run(&[&["allocations"], &AT[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    drop(daemon);
}

#[test]
fn the_description_of_the_api_needs_no_daemon_and_is_what_a_daemon_serves() {
    let (house, daemon) = ask::open("");
    let output = house.run(&["openapi"]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let served = ask(&daemon, "GET", "/v1/openapi.json", Some(KEY), None).json();
    assert_eq!(printed, served);
    let paths = printed["paths"].as_object().unwrap();
    assert!(paths.contains_key("/v1/credentials"), "{paths:?}");
    assert!(paths.contains_key("/v1/allocations/{id}"));
}

/// Whoever holds a key could try addresses until one fits: that is this machine's user's to do.
#[test]
fn pseudonyms_are_answered_for_on_the_control_socket_alone() {
    let (house, daemon) = ask::open("");
    let question = json!({ "pseudonym": "0123456789abcdef", "address": "192.0.2.1" });
    let answer = ask(&daemon, "POST", "/v1/whois", Some(KEY), Some(&question));
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(!answer.text.contains("192.0.2.1"), "{answer:?}");
    let document = ask(&daemon, "GET", "/v1/openapi.json", Some(KEY), None).text;
    assert!(!document.contains("whois"));
    let socket = |question: &Value| {
        let path = house.directory.path().join("control.sock");
        let mut stream = UnixStream::connect(path).unwrap();
        let body = question.to_string();
        let head = "POST /v1/whois HTTP/1.0\r\nHost: a\r\nContent-Type: application/json\r\n";
        let length = body.len();
        let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        ask::taken_apart(&bytes)
    };
    let answer = socket(&question);
    assert_eq!(answer.status, 200, "{answer:?}");
    let days = answer.json()["days"].clone();
    assert_eq!(days.as_array().unwrap().len(), 1, "{days}");
    assert_eq!(days[0]["fits"], false);
    for (name, value) in [("address", "192.0.2.1:3478"), ("pseudonym", "192.0.2.1")] {
        let mut slip = question.clone();
        slip[name] = value.into();
        let answer = socket(&slip);
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(!answer.text.contains("192.0.2.1"), "{answer:?}");
    }
}
