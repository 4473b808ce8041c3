//! Taking back: what was issued is refused, and what lives ends within a second in packets.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ask::{self, Answer, KEY, MINT, READ, REVOKE, ask, raw};
use crate::house::{Daemon, House, credential};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::plane::V4;

fn mint(daemon: &Daemon, user: &str, call: &str) -> Value {
    let wanted = json!({ "user": user, "call": call });
    ask(daemon, "POST", "/v1/credentials", Some(KEY), Some(&wanted)).json()
}

fn delete(daemon: &Daemon, path: &str) -> Answer {
    ask(daemon, "DELETE", path, Some(KEY), None)
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Two clients of one call that hear each other on channels.
struct Call {
    parties: [Client; 2],
    minted: [Value; 2],
}

impl Call {
    fn new(daemon: &Daemon, users: [&str; 2], call: &str) -> Self {
        Self::between(daemon, users.map(|user| mint(daemon, user, call)))
    }

    fn between(daemon: &Daemon, minted: [Value; 2]) -> Self {
        let [mut a, mut b] =
            [0, 1].map(|n: usize| Client::new(daemon.listener(V4), credential(&minted[n])));
        let at: [SocketAddr; 2] = [a.allocate(V4), b.allocate(V4)];
        assert_eq!(
            (a.bind(0x4000, at[1]), b.bind(0x4000, at[0])),
            (SUCCESS, SUCCESS)
        );
        Self {
            parties: [a, b],
            minted,
        }
    }

    /// Whether a packet of the first reaches the second at once.
    fn carries(&self) -> bool {
        let [a, b] = &self.parties;
        b.socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        a.send_channel(0x4000, b"hello");
        let mut buffer = [0; 2_000];
        b.socket.recv(&mut buffer).is_ok()
    }

    /// For how long packets still arrive after `change`, which must end them within two seconds.
    fn ends_after(&self, change: impl FnOnce()) -> Duration {
        assert!(self.carries() || self.carries(), "the call does not begin");
        change();
        let began = Instant::now();
        let mut last = Duration::ZERO;
        while began.elapsed() < Duration::from_millis(2_500) {
            if self.carries() {
                last = began.elapsed();
            }
            thread::sleep(Duration::from_millis(5));
        }
        last
    }
}

/// T25: as Cloudflare's documentation has it, from the minting to the revocation.
#[test]
fn cloudflares_revoke_ends_what_cloudflares_generate_minted() {
    let (_house, daemon) = ask::open(", adapters = [\"cloudflare\"]");
    let keys = "/v1/turn/keys/some-key/credentials";
    let generate = |user: &str| {
        let path = format!("{keys}/generate-ice-servers");
        let wanted = json!({ "ttl": 86_400, "customIdentifier": user });
        let answer = ask(&daemon, "POST", &path, Some(MINT), Some(&wanted));
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    };
    let username = |minted: &Value| minted["iceServers"][0]["username"].clone();
    let revoke = |name: &str, key| {
        let path = format!("{keys}/{}/revoke", encoded(name));
        ask(&daemon, "POST", &path, Some(key), None)
    };
    let pairs = [["alice", "bob"], ["carol", "dave"]];
    let [call, other] = pairs.map(|users| Call::between(&daemon, users.map(generate)));
    let name = username(&call.minted[1]);
    let name = name.as_str().unwrap();
    for (key, status) in [(MINT, 403), (READ, 403)] {
        assert_eq!(revoke(name, key).status, status);
    }
    assert_eq!(revoke("nobody", REVOKE).status, 404);
    let last = call.ends_after(|| {
        let answer = revoke(name, REVOKE);
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    });
    assert!(last < Duration::from_secs(1), "{last:?}");
    assert!(other.carries() || other.carries(), "another call ended");
    let codes = [&call.minted[0], &call.minted[1], &generate("bob")].map(|minted| {
        let mut again = Client::new(daemon.listener(V4), credential(minted));
        again.try_allocate(V4).code()
    });
    assert_eq!(codes, [SUCCESS, 401, SUCCESS], "one credential alone");
}

/// T25
#[test]
fn each_kind_of_revocation_ends_its_call_within_a_second_while_another_goes_on() {
    let (_house, daemon) = ask::open("");
    let other = Call::new(&daemon, ["carol", "dave"], "other");
    for kind in ["users", "calls", "credentials", "allocations"] {
        let users = [format!("alice-{kind}"), format!("bob-{kind}")];
        let call = Call::new(&daemon, [&users[0], &users[1]], kind);
        let name = match kind {
            "users" => users[1].clone(),
            "calls" => kind.to_owned(),
            "credentials" => {
                let server = &call.minted[1]["iceServers"][0];
                server["username"].as_str().unwrap().to_owned()
            }
            _ => {
                let path = format!("/v1/allocations?user={}", users[1]);
                let page = ask(&daemon, "GET", &path, Some(READ), None).json();
                page["allocations"][0]["id"].as_str().unwrap().to_owned()
            }
        };
        let last = call.ends_after(|| {
            let answer = delete(&daemon, &format!("/v1/{kind}/{}", encoded(&name)));
            assert_eq!(
                (answer.status, answer.text.as_str()),
                (204, ""),
                "{kind}: {answer:?}"
            );
        });
        assert!(last < Duration::from_secs(1), "{kind}: {last:?}");
        assert!(
            other.carries() || other.carries(),
            "{kind} ended another call"
        );

        let mut again = Client::new(daemon.listener(V4), credential(&call.minted[1]));
        let code = again.try_allocate(V4).code();
        assert_eq!(
            code,
            if kind == "allocations" { SUCCESS } else { 401 },
            "{kind}"
        );
    }
}

#[test]
fn a_revocation_says_where_it_holds_and_whether_it_lasts() {
    for (state, durable) in [("", "false"), ("state = { dir = \"state\" }\n", "true")] {
        let house = House::new(&format!("{state}{}", ask::api("")));
        let daemon = house.serve();
        let answer = delete(&daemon, "/v1/users/alice");
        assert_eq!(answer.status, 204);
        assert!(answer.head.contains("taciturn-scope: node"), "{answer:?}");
        let said = format!("taciturn-durable: {durable}");
        assert!(answer.head.contains(&said), "{answer:?}");
        let head = format!("Authorization: Bearer {KEY}\r\nPrefer: return=representation\r\n");
        let answer = raw(ask::at(&daemon), "DELETE", "/v1/calls/c", &head, "");
        assert_eq!(answer.status, 200);
        let wanted = json!({ "scope": "node", "durable": durable == "true" });
        assert_eq!(answer.json(), wanted);
        assert!(
            answer
                .head
                .contains("preference-applied: return=representation")
        );
    }
}

/// T20, T25
#[test]
fn a_revocation_outlives_a_restart_and_what_is_minted_later_is_good() {
    let house = House::new(&format!("state = {{ dir = \"state\" }}\n{}", ask::api("")));
    let mut daemon = house.serve();
    let before = mint(&daemon, "alice", "c");
    assert_eq!(delete(&daemon, "/v1/users/alice").status, 204);
    assert_eq!(daemon.stop(rustix::process::Signal::KILL).code(), None);
    let daemon = house.serve();
    let mut revoked = Client::new(daemon.listener(V4), credential(&before));
    assert_eq!(revoked.try_allocate(V4).code(), 401);
    // A credential is good from the second after.
    eventually("a second is over", || {
        let later = mint(&daemon, "alice", "c");
        let mut client = Client::new(daemon.listener(V4), credential(&later));
        client.try_allocate(V4).code() == SUCCESS
    });
}

#[test]
fn what_is_not_there_is_not_revoked() {
    let (_house, daemon) = ask::open("");
    for (path, status) in [
        ("/v1/credentials/nobody", 404),
        ("/v1/credentials/%FF", 400),
        ("/v1/allocations/0123456789abcdef", 404),
        ("/v1/allocations/x", 404),
        ("/v1/bans/0123456789abcdef", 404),
        ("/v1/bans/x", 404),
        ("/v1/users/a%0Ab", 422),
    ] {
        let answer = delete(&daemon, path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        answer.detail();
    }
}

#[test]
fn who_is_banned_allocates_nothing_until_the_ban_is_lifted() {
    let (house, daemon) = ask::open("");
    let run = |arguments: &[&str]| {
        let output = house.run(&[arguments, &["--socket", "control.sock"]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for who in [
        json!({ "user": "alice" }),
        json!({ "network": "127.0.0.0/8" }),
    ] {
        let call = Call::new(&daemon, ["alice", "bob"], "c");
        let mut id = String::new();
        let last = call.ends_after(|| {
            let banned = ask(&daemon, "POST", "/v1/bans", Some(KEY), Some(&who));
            assert_eq!(banned.status, 201, "{banned:?}");
            id = banned.json()["bans"][0]["id"].as_str().unwrap().to_owned();
            assert!(!banned.text.contains("127.0") && !banned.text.contains("alice"));
        });
        assert!(last < Duration::from_secs(1), "{who}: {last:?}");
        let minted = mint(&daemon, "alice", "c");
        let allocate = || {
            let mut client = Client::new(daemon.listener(V4), credential(&minted));
            client.try_allocate(V4).code()
        };
        assert_eq!(allocate(), 403, "{who}");
        let listed = ask(&daemon, "GET", "/v1/bans", Some(READ), None);
        assert_eq!(listed.json()["bans"][0]["id"], id.as_str());
        assert!(!listed.text.contains("127.0") && !listed.text.contains("alice"));
        assert!(run(&["bans"]).contains(&id));
        run(&["unban", &id]);
        assert_eq!(allocate(), SUCCESS, "{who}");
    }
    let said = run(&["ban", "--user", "mallory", "--ttl", "1h"]);
    assert!(said.contains("until its daemon ends"), "{said}");
    let said = run(&["revoke", "--user", "alice"]);
    assert!(said.contains("revoked on this node"), "{said}");
}

#[test]
fn a_ban_that_cannot_be_meant_is_refused() {
    let (_house, daemon) = ask::open("");
    for (who, status) in [
        (json!({}), 422),
        (json!({ "user": "a", "network": "192.0.2.0/24" }), 422),
        (json!({ "network": "192.0.2.1/24" }), 422),
        (json!({ "network": "0.0.0.0/0" }), 422),
        (json!({ "network": "example.org" }), 422),
        (json!({ "subject": "x" }), 422),
        (json!({ "pseudonym": "x" }), 422),
        (json!({ "pseudonym": "0123456789abcdef" }), 404),
        (json!({ "user": "a", "ttl": 0 }), 422),
        (json!({ "usr": "a" }), 400),
    ] {
        let answer = ask(&daemon, "POST", "/v1/bans", Some(KEY), Some(&who));
        assert_eq!(answer.status, status, "{who}: {answer:?}");
        answer.detail();
    }
    let bans = ask(&daemon, "GET", "/v1/bans", Some(KEY), None).json();
    assert_eq!(bans["bans"], json!([]));
}
