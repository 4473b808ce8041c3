//! `taciturn mint`: a credential for one user, for the server with the same configuration.

use std::fs;

use serde_json::Value;

use crate::house::{House, SECRET, credential};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::plane::{V4, unix};

/// How many seconds the credential of an `RTCConfiguration` has left.
fn left(minted: &Value) -> u64 {
    let username = minted["iceServers"][0]["username"].as_str().unwrap();
    let (expires, _) = username.split_once(':').unwrap();
    expires.parse::<u64>().unwrap() - unix()
}

#[test]
fn a_minted_credential_allocates_on_the_server_with_the_same_configuration() {
    let house = House::new("public = { host = \"turn.example.org\" }");
    let minted = house.mint("alice");
    let servers = minted["iceServers"].as_array().unwrap();
    assert_eq!(
        (servers.len(), &minted["iceTransportPolicy"]),
        (1, &"relay".into())
    );
    let url = servers[0]["urls"][0].as_str().unwrap();
    assert!(url.starts_with("turn:turn.example.org"), "{url}");
    assert!(servers[0]["username"].as_str().unwrap().ends_with(":alice"));
    assert!((3_000..=3_600).contains(&left(&minted)));

    let daemon = house.serve();
    let mut client = Client::new(daemon.listener(V4), credential(&minted));
    client.allocate(V4);
    assert_eq!(client.refresh(600).code(), SUCCESS);
}

#[test]
fn a_credential_of_another_secret_allocates_nothing() {
    let (house, other) = (House::new(""), House::new(""));
    other.write("auth = { secrets = [{ id = \"first\", value = \"another secret\" }] }");
    let daemon = house.serve();
    let mut client = Client::new(daemon.listener(V4), credential(&other.mint("alice")));
    assert_eq!(client.try_allocate(V4).code(), 401);
}

#[test]
fn a_lifetime_may_be_asked_for() {
    let house = House::new("");
    let user = ["--user", "alice", "--ttl", "12h"];
    let output = house.run(&[&["mint", "--config", "taciturn.toml"], &user[..]].concat());
    let minted: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!((42_000..=43_200).contains(&left(&minted)), "{minted}");
}

#[test]
fn without_a_secret_it_says_what_is_missing() {
    let house = House::new("");
    let output = house.run(&["mint", "--user", "alice"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(output.stdout.is_empty());
    assert!(
        said.contains("no secret") && said.contains("auth.secrets"),
        "{said}"
    );
}

#[test]
fn who_can_be_no_user_gets_no_credential() {
    let house = House::new("");
    for user in ["", "~sealed", "line\nbreak"] {
        let output = house.run(&["mint", "--config", "taciturn.toml", "--user", user]);
        assert_eq!(output.status.code(), Some(64), "{user:?}");
        assert!(output.stdout.is_empty(), "{user:?}");
    }
}

#[test]
fn the_secret_may_come_by_the_environment() {
    let house = House::new("");
    let daemon = house.serve();
    let file = house.directory.path().join("secret");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    for (variable, value) in [
        ("TACITURN_AUTH__SECRETS", SECRET),
        ("TACITURN_AUTH__SECRETS__FILE", file.to_str().unwrap()),
    ] {
        let mut command = house.command(&["mint", "--user", "alice"]);
        command.env(variable, value);
        let output = house.finish(command);
        let minted: Value = serde_json::from_slice(&output.stdout).unwrap();
        Client::new(daemon.listener(V4), credential(&minted)).allocate(V4);
    }
}
