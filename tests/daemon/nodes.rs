//! Two nodes with one key: each takes the credentials that are pinned to it, keeps calls apart, and
//! says what it kept apart.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use taciturn::turn::credential::{
    Claims, Credentials, Label, SealingKeys, Secret, SecretsRing, StaticUsers,
};
use zeroize::Zeroizing;

use crate::house::{Daemon, House, SECRET};
use crate::loopback::client::{Client, Credential, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{V4, unix};

const KEY: [u8; 32] = [4; 32];

/// The house of a node that keeps calls apart.
pub(crate) fn node(name: &str) -> House {
    let house = House::new(&format!(
        "state = {{ dir = \"state\" }}\napi = {{ node = \"{name}\" }}\npolicy = {{ peers = \"call\" }}"
    ));
    let state = house.directory.path().join("state");
    DirBuilder::new().mode(0o700).create(&state).unwrap();
    for key in ["sealing.key", "subject.key"] {
        let mut file = OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600);
        file.open(state.join(key)).unwrap().write_all(&KEY).unwrap();
    }
    house
}

/// As a backend with these keys mints, for `call` and the node `a`.
fn party(daemon: &Daemon, user: &str, call: &str) -> Client {
    let claims = |credentials: &Credentials| Claims {
        call: credentials.call(call),
        audience: Label::new("a"),
        ..Claims::new(credentials.subject(user), unix())
    };
    sealed(daemon, claims)
}

/// As a backend with these keys mints.
pub(crate) fn sealed(daemon: &Daemon, claims: impl Fn(&Credentials) -> Claims) -> Client {
    let ring = SecretsRing::new(vec![Secret::new("first", SECRET)]);
    let keys = SealingKeys::new(&[Zeroizing::new(KEY)]);
    let credentials =
        Credentials::new(ring, StaticUsers::default(), KEY).with_sealing(keys, "taciturn");
    let minted = credentials
        .mint_sealed(&claims(&credentials), unix() + 3_600, [9; 16])
        .unwrap();
    let credential = Credential {
        username: minted.username,
        password: minted.password.as_str().to_owned(),
    };
    Client::new(daemon.listener(V4), credential)
}

fn counted(daemon: &Daemon, series: &str, least: u64) -> bool {
    let numbers = daemon.get("/metrics").body;
    let line = numbers.lines().find_map(|line| line.strip_prefix(series));
    line.is_some_and(|count| count.trim().parse::<u64>().unwrap() >= least)
}

/// T65
#[test]
fn a_node_takes_whom_it_is_named_for_and_keeps_calls_apart() {
    let houses = ["a", "b"].map(node);
    let [a, b] = houses.each_ref().map(House::serve);
    let [mut alice, mut bob, mut mallory] = [("alice", "one"), ("bob", "one"), ("mallory", "two")]
        .map(|(user, call)| {
            let mut client = party(&a, user, call);
            let relayed: SocketAddr = client.allocate(V4);
            (client, relayed)
        });
    assert_eq!(alice.0.permit(bob.1), SUCCESS);
    assert_eq!(bob.0.permit(alice.1), SUCCESS);
    assert_eq!(mallory.0.permit(alice.1), SUCCESS);
    mallory.0.send_to(alice.1, b"pst");
    let dropped = "taciturn_drops_total{reason=\"other_call\"}";
    eventually("the stranger is counted", || counted(&a, dropped, 1));
    bob.0.send_to(alice.1, b"hello");
    let received = Received::Data(bob.1, b"hello".to_vec());
    assert_eq!(alice.0.receive(), received);

    let mut astray = party(&b, "alice", "one");
    assert_eq!(astray.try_allocate(V4).code(), 401);
    let refused = "taciturn_auth_failures_total{reason=\"other_node\"}";
    eventually("the credential is counted", || counted(&b, refused, 1));
}
