//! Two nodes that share their calls: whichever mints, both parties are sent to one node, which takes
//! them and keeps others out of their call, and the other one takes neither.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use serde_json::{Value, json};

use crate::ask::{self, MINT, ask};
use crate::house::{Daemon, House, credential};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{V4, loopback_of_its_own};

const NAMES: [&str; 2] = ["a", "b"];

/// Both nodes, each at an address of its own, whose URLs they know before they start.
fn nodes() -> [(House, Daemon); 2] {
    let at = NAMES.map(|name| (name, free(loopback_of_its_own())));
    let list =
        at.map(|(name, at)| format!("{{ id = \"{name}\", urls = [\"turn:{at}?transport=udp\"] }}"));
    at.map(|(name, at)| node(name, at, &list.join(", ")))
}

/// A port there that nobody has, of UDP and TCP.
fn free(ip: Ipv4Addr) -> SocketAddr {
    loop {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let at = socket.local_addr().unwrap();
        if TcpListener::bind(at).is_ok() {
            return at;
        }
    }
}

fn node(name: &str, at: SocketAddr, list: &str) -> (House, Daemon) {
    let more = ask::api(&format!(", node = \"{name}\", nodes = [{list}]"));
    let house = House::new(&format!("{more}\nstate = {{ dir = \"state\" }}"));
    let config = fs::read_to_string(house.config()).unwrap();
    let anywhere = "udp = [\"127.0.0.1:0\", \"[::1]:0\"]";
    assert!(config.contains(anywhere));
    house.write(&config.replace(anywhere, &format!("udp = [\"{at}\"]")));
    // What the nodes of a fleet share.
    let state = house.directory.path().join("state");
    DirBuilder::new().mode(0o700).create(&state).unwrap();
    for key in ["sealing.key", "subject.key"] {
        let mut file = OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600);
        let mut file = file.open(state.join(key)).unwrap();
        file.write_all(&[4; 32]).unwrap();
    }
    let daemon = house.serve();
    (house, daemon)
}

fn mint(daemon: &Daemon, wanted: &Value) -> Value {
    let answer = ask(daemon, "POST", "/v1/credentials", Some(MINT), Some(wanted));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

/// A party of a call that keeps to itself.
fn party(user: &str, call: &str) -> Value {
    json!({ "user": user, "call": call, "policy": "call" })
}

/// Where a minted credential sends its client.
fn sent_to(minted: &Value) -> SocketAddr {
    let urls = minted["iceServers"][0]["urls"].as_array().unwrap();
    assert_eq!(urls.len(), 1, "{minted}");
    let address = urls[0].as_str().unwrap().strip_prefix("turn:").unwrap();
    let address = address.strip_suffix("?transport=udp").unwrap();
    address.parse().unwrap()
}

fn counted(daemon: &Daemon, series: &str) -> u64 {
    let numbers = daemon.get("/metrics").body;
    let mut lines = numbers.lines();
    let count = lines.find_map(|line| line.strip_prefix(series)).unwrap();
    count.trim().parse().unwrap()
}

fn refused_elsewhere(daemon: &Daemon) -> u64 {
    counted(
        daemon,
        "taciturn_auth_failures_total{reason=\"other_node\"}",
    )
}

/// As many packets were dropped because they were from or for another call.
fn kept_apart(daemon: &Daemon) -> u64 {
    counted(daemon, "taciturn_drops_total{reason=\"other_call\"}")
}

/// One who is sent to the same node for another call.
fn stranger(daemon: &Daemon, node: &Value) -> Client {
    let minted = (0..).map(|n| mint(daemon, &party("mallory", &format!("strange-{n}"))));
    let mut minted = minted.filter(|minted| minted["node"] == *node);
    let minted = minted.next().unwrap();
    Client::new(sent_to(&minted), credential(&minted))
}

/// T65: where the other node took one of them, or any node let a stranger in, it would be as under the
/// policy `relay`.
#[test]
fn a_call_is_minted_for_one_node_which_carries_it_and_the_other_refuses_it() {
    let nodes = nodes();
    let daemons = nodes.each_ref().map(|(_, daemon)| daemon);
    let mut chosen = BTreeSet::new();
    for call in 0.. {
        let call = format!("call-{call}");
        // Whichever node is asked.
        let minted = [
            mint(daemons[0], &party("alice", &call)),
            mint(daemons[1], &party("bob", &call)),
        ];
        assert_eq!(minted[0]["node"], minted[1]["node"], "{call}");
        let name = minted[0]["node"].as_str().unwrap().to_owned();
        let place = NAMES.iter().position(|node| *node == name).unwrap();
        if !chosen.insert(name) {
            continue;
        }
        let (here, there) = (daemons[place], daemons[1 - place]);
        assert_eq!(minted.each_ref().map(sent_to), [here.listener(V4); 2]);
        let client = |n: usize, server| Client::new(server, credential(&minted[n]));
        let [mut alice, mut bob] = [0, 1].map(|n| client(n, sent_to(&minted[n])));
        let (at_alice, at_bob) = (alice.allocate(V4), bob.allocate(V4));
        assert_eq!(
            (alice.permit(at_bob), bob.permit(at_alice)),
            (SUCCESS, SUCCESS)
        );
        alice.send_to(at_bob, b"hello");
        assert_eq!(bob.receive(), Received::Data(at_alice, b"hello".to_vec()));

        let mut mallory = stranger(there, &minted[0]["node"]);
        let at_mallory = mallory.allocate(V4);
        assert_eq!(alice.permit(at_mallory), SUCCESS);
        assert_eq!(mallory.permit(at_alice), SUCCESS);
        let apart = kept_apart(here);
        mallory.send_to(at_alice, b"pst");
        eventually("the stranger is counted", || kept_apart(here) == apart + 1);
        bob.send_to(at_alice, b"it is me");
        assert_eq!(
            alice.receive(),
            Received::Data(at_bob, b"it is me".to_vec())
        );

        let before = daemons.map(refused_elsewhere);
        for n in [0, 1] {
            let mut astray = client(n, there.listener(V4));
            assert_eq!(astray.try_allocate(V4).code(), 401, "{call}");
        }
        let mut after = before;
        after[1 - place] += 2;
        eventually("both are counted there", || {
            daemons.map(refused_elsewhere) == after
        });
        if chosen.len() == NAMES.len() {
            return;
        }
    }
}
