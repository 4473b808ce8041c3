//! What `POST /v1/credentials` mints, and what it refuses to.

use serde_json::{Value, json};

use crate::ask::{self, KEY, ask};
use crate::house::{Daemon, SECRET, credential};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::plane::{V4, unix};

fn mint(daemon: &Daemon, wanted: &Value) -> Value {
    let answer = ask(daemon, "POST", "/v1/credentials", Some(KEY), Some(wanted));
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(
        answer.head.contains("cache-control: no-store"),
        "{answer:?}"
    );
    answer.json()
}

fn client(daemon: &Daemon, minted: &Value) -> Client {
    Client::new(daemon.listener(V4), credential(minted))
}

/// T70
#[test]
fn a_minted_credential_allocates_and_names_nobody() {
    let (_house, daemon) = ask::open("");
    let wanted = json!({ "user": "alice", "call": "call-7" });
    let minted = mint(&daemon, &wanted);
    assert_eq!(minted["iceTransportPolicy"], "relay");
    let server = &minted["iceServers"][0];
    let url = server["urls"][0].as_str().unwrap();
    let port = daemon.listener(V4).port();
    assert_eq!(url, format!("turn:127.0.0.1:{port}?transport=udp"));
    assert_eq!(minted["ttl"], 3_600);
    let expires = minted["expires"].as_u64().unwrap();
    assert!((3_500..=3_600).contains(&(expires - unix())), "{minted}");
    let username = server["username"].as_str().unwrap();
    assert!(
        username.starts_with(&format!("{expires}:~1.")),
        "{username}"
    );
    assert!(!minted.to_string().contains("alice") && !minted.to_string().contains("call-7"));
    assert!(!minted.to_string().contains(SECRET));
    assert_eq!(minted.get("node"), None);

    let mut client = client(&daemon, &minted);
    client.allocate(V4);
    assert_eq!(client.refresh(600).code(), SUCCESS);

    let again = mint(&daemon, &wanted);
    assert_ne!(again["iceServers"][0]["username"], server["username"]);
    assert_eq!(again["subject"], minted["subject"]);
}

#[test]
fn two_parties_of_a_call_hear_each_other() {
    let (_house, daemon) = ask::open("");
    let [mut a, mut b] = ["alice", "bob"].map(|user| {
        let minted = mint(
            &daemon,
            &json!({ "user": user, "call": "c", "policy": "relay" }),
        );
        client(&daemon, &minted)
    });
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!(
        (a.bind(0x4000, at_b), b.bind(0x4000, at_a)),
        (SUCCESS, SUCCESS)
    );
    a.send_channel(0x4000, b"hello");
    b.receive();
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_reason() {
    let (_house, daemon) = ask::open("");
    let refused = |wanted: Value| {
        let answer = ask(&daemon, "POST", "/v1/credentials", Some(KEY), Some(&wanted));
        (answer.status, answer.detail())
    };
    let with = |name: &str, value: Value| {
        let mut wanted = json!({ "user": "alice" });
        wanted[name] = value;
        wanted
    };
    for (wanted, status, word) in [
        (json!({}), 400, "user"),
        (json!({ "user": 7 }), 400, "user"),
        (json!([]), 400, "an object"),
        (json!(["alice", null, null]), 400, "an object"),
        (with("limits", json!([1, 1, 1])), 400, "an object"),
        (with("usr", "x".into()), 400, "usr"),
        (with("ttl", "1h".into()), 400, "ttl"),
        (with("ttl", (-1).into()), 400, "ttl"),
        (with("policy", "everything".into()), 400, "policy"),
        (with("limits", json!({ "bit": 1 })), 400, "bit"),
        (with("user", "".into()), 422, "user"),
        (with("user", "~1.x".into()), 422, "~"),
        (with("user", "a\nb".into()), 422, "user"),
        (with("user", "x".repeat(401).into()), 422, "user"),
        (with("call", "".into()), 422, "call"),
        (with("ttl", 0.into()), 422, "ttl"),
        (with("ttl", (48 * 3_600 + 1).into()), 422, "172800"),
        (with("policy", "any".into()), 422, "ceiling"),
        (with("policy", json!(["192.0.2.0/24"])), 422, "ceiling"),
        (with("policy", "call".into()), 422, "call id"),
        (with("policy", json!([])), 422, "networks"),
        (with("policy", json!(["192.0.2.1/24"])), 422, "networks"),
        (with("tenant", "a b".into()), 422, "tenant"),
        (with("limits", json!({ "bits": 0 })), 422, "limit"),
        (with("session_max", 0.into()), 422, "limit"),
    ] {
        let (code, detail) = refused(wanted.clone());
        assert_eq!(code, status, "{wanted}: {detail}");
        assert!(detail.contains(word), "{wanted}: {detail}");
    }
}

#[test]
fn a_server_without_a_secret_cannot_mint() {
    let house = crate::house::House::new("");
    house.write(&format!(
        "{}\n[listen]\nudp = [\"127.0.0.1:0\"]\n[auth]\nusers = {{ gateway = \"password\" }}\n\
         [admin]\nlisten = \"off\"\n",
        ask::api("")
    ));
    let daemon = house.serve();
    let wanted = json!({ "user": "alice" });
    let answer = ask(&daemon, "POST", "/v1/credentials", Some(KEY), Some(&wanted));
    assert_eq!(answer.status, 503);
    assert!(answer.detail().contains("auth.secrets"));
}

#[test]
fn both_parties_of_a_call_are_sent_to_one_node_and_drained_ones_to_none() {
    let nodes = |drained: bool| {
        format!(
            ", node = \"a\", nodes = [\
             {{ id = \"a\", urls = [\"turn:a.example.org:3478?transport=udp\"] }}, \
             {{ id = \"b\", urls = [\"turn:b.example.org:3478?transport=udp\"], drained = {drained} }}]"
        )
    };
    let node_of = |daemon: &Daemon, user: &str, call: u32| {
        let minted = mint(
            daemon,
            &json!({ "user": user, "call": format!("call-{call}") }),
        );
        let node = minted["node"].as_str().unwrap().to_owned();
        let url = minted["iceServers"][0]["urls"][0].as_str().unwrap();
        assert_eq!(url, format!("turn:{node}.example.org:3478?transport=udp"));
        node
    };
    let (_house, daemon) = ask::open(&nodes(false));
    let mut seen = std::collections::BTreeSet::new();
    for call in 0..32 {
        let node = node_of(&daemon, "alice", call);
        assert_eq!(node_of(&daemon, "bob", call), node);
        seen.insert(node);
    }
    assert_eq!(seen.len(), 2);
    let without_call = mint(&daemon, &json!({ "user": "alice" }));
    assert_eq!(without_call.get("node"), None);

    let (_house, daemon) = ask::open(&nodes(true));
    for call in 0..32 {
        assert_eq!(node_of(&daemon, "alice", call), "a");
    }
}
