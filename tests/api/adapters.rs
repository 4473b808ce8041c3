//! Each adapter against the documented example of the service whose shape it has: the same keys
//! with values of the same kind, down to the last, and a credential that allocates.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::ask::{self, Answer, KEY, READ, ask, raw};
use crate::house::{Daemon, House};
use crate::loopback::client::{Client, Credential};
use crate::loopback::plane::V4;

const ALL: &str = ", adapters = [\"cloudflare\", \"twilio\", \"metered\", \"xirsys\", \"rest\", \
                   \"matrix\", \"stunner\"]";

fn open() -> (House, Daemon) {
    ask::open(ALL)
}

/// What kind of value stands at each place; elements of a list are one place, and their number
/// does not matter.
fn shape(value: &Value) -> BTreeMap<String, &'static str> {
    fn walk(at: &str, value: &Value, out: &mut BTreeMap<String, &'static str>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(list) => {
                for one in list {
                    walk(&format!("{at}[]"), one, out);
                }
                "list"
            }
            Value::Object(map) => {
                for (name, one) in map {
                    walk(&format!("{at}.{name}"), one, out);
                }
                "object"
            }
        };
        out.insert(at.to_owned(), kind);
    }
    let mut out = BTreeMap::new();
    walk("", value, &mut out);
    out
}

/// As the example has it, but for `more`.
#[track_caller]
fn assert_shape(answer: &Answer, status: u16, example: &Value, more: &[&str]) {
    assert_eq!(answer.status, status, "{answer:?}");
    let (mut found, wanted) = (shape(&answer.json()), shape(example));
    for more in more {
        assert!(found.remove(*more).is_some(), "{more} in {answer:?}");
    }
    assert_eq!(found, wanted);
}

#[track_caller]
fn allocates(daemon: &Daemon, username: &Value, password: &Value) {
    let credential = Credential {
        username: username.as_str().unwrap().to_owned(),
        password: password.as_str().unwrap().to_owned(),
    };
    Client::new(daemon.listener(V4), credential).allocate(V4);
}

fn basic(key: &str) -> String {
    let both = STANDARD.encode(format!("anybody:{key}"));
    format!("Authorization: Basic {both}\r\n")
}

#[test]
fn cloudflare() {
    let (_house, daemon) = open();
    let path = "/v1/turn/keys/some-key/credentials/generate-ice-servers";
    let wanted = json!({ "ttl": 86_400, "customIdentifier": "alice" });
    let answer = ask(&daemon, "POST", path, Some(KEY), Some(&wanted));
    let example = json!({ "iceServers": [
        { "urls": ["turn:H:3478?transport=udp"], "username": "…", "credential": "…" },
    ] });
    assert_shape(&answer, 201, &example, &[".iceTransportPolicy"]);
    let server = &answer.json()["iceServers"][0];
    allocates(&daemon, &server["username"], &server["credential"]);

    let older = path.replace("generate-ice-servers", "generate");
    let answer = ask(
        &daemon,
        "POST",
        &older,
        Some(KEY),
        Some(&json!({ "ttl": 60 })),
    );
    let example = json!({ "iceServers":
        { "urls": ["turn:H:3478?transport=udp"], "username": "…", "credential": "…" },
    });
    assert_shape(&answer, 201, &example, &[]);
    let server = &answer.json()["iceServers"];
    allocates(&daemon, &server["username"], &server["credential"]);
}

#[test]
fn twilio() {
    let (_house, daemon) = open();
    let path = "/2010-04-01/Accounts/AC123/Tokens.json";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let answer = raw(
        ask::at(&daemon),
        "POST",
        path,
        &(basic(KEY) + form),
        "Ttl=3600",
    );
    let example = json!({
        "username": "…", "password": "…", "ttl": "86400", "account_sid": "AC…",
        "date_created": "Fri, 01 May 2020 01:42:57 +0000",
        "date_updated": "Fri, 01 May 2020 01:42:57 +0000",
        "ice_servers": [
            { "url": "turn:…", "urls": "turn:…:3478?transport=udp", "username": "…", "credential": "…" },
        ],
    });
    assert_shape(&answer, 201, &example, &[]);
    let token = answer.json();
    assert_eq!(
        (&token["ttl"], &token["account_sid"]),
        (&"3600".into(), &"AC123".into())
    );
    allocates(&daemon, &token["username"], &token["password"]);
    let answer = raw(ask::at(&daemon), "POST", path, &(basic(KEY) + form), "");
    assert_eq!(answer.json()["ttl"], "86400");
}

#[test]
fn metered() {
    let (_house, daemon) = open();
    let path = format!("/api/v1/turn/credentials?apiKey={KEY}&region=global");
    let answer = raw(ask::at(&daemon), "GET", &path, "", "");
    let example = json!([{ "urls": "turn:H:80", "username": "…", "credential": "…" }]);
    assert_shape(&answer, 200, &example, &[]);
    let server = &answer.json()[0];
    allocates(&daemon, &server["username"], &server["credential"]);

    let path = format!("/api/v1/turn/credential?secretKey={KEY}");
    let wanted = json!({ "expiryInSeconds": 3_600, "label": "alice" }).to_string();
    let kind = "Content-Type: application/json\r\n";
    let answer = raw(ask::at(&daemon), "POST", &path, kind, &wanted);
    let example = json!({
        "username": "…", "password": "…", "expiryInSeconds": 3_600, "label": "…", "apiKey": "…",
    });
    assert_shape(&answer, 200, &example, &[]);
    allocates(
        &daemon,
        &answer.json()["username"],
        &answer.json()["password"],
    );
}

#[test]
fn xirsys() {
    let (_house, daemon) = open();
    let kind = "Content-Type: application/json\r\n";
    let wanted = json!({ "format": "urls" }).to_string();
    let answer = raw(
        ask::at(&daemon),
        "PUT",
        "/_turn/channel",
        &(basic(KEY) + kind),
        &wanted,
    );
    let example = json!({
        "v": { "iceServers": { "urls": ["turn:…"], "username": "…", "credential": "…" } },
        "s": "ok",
    });
    assert_shape(&answer, 200, &example, &[]);
    let server = &answer.json()["v"]["iceServers"];
    allocates(&daemon, &server["username"], &server["credential"]);
}

#[test]
fn rest_draft_and_matrix() {
    let (_house, daemon) = open();
    let example = json!({ "username": "…", "password": "…", "ttl": 86_400, "uris": ["turn:…"] });
    let path = format!("/turn?service=turn&username=alice&key={KEY}");
    for method in ["GET", "POST"] {
        let answer = raw(ask::at(&daemon), method, &path, "", "");
        assert_shape(&answer, 200, &example, &[]);
        assert_eq!(answer.json()["ttl"], 86_400);
        allocates(
            &daemon,
            &answer.json()["username"],
            &answer.json()["password"],
        );
    }
    let path = "/_matrix/client/v3/voip/turnServer?user_id=%40alice%3Aexample.org";
    let answer = ask(&daemon, "GET", path, Some(KEY), None);
    assert_shape(&answer, 200, &example, &[]);
    allocates(
        &daemon,
        &answer.json()["username"],
        &answer.json()["password"],
    );
}

#[test]
fn stunner() {
    let (_house, daemon) = open();
    let path = format!("/ice?service=turn&ttl=3600&username=alice&key={KEY}");
    let answer = raw(ask::at(&daemon), "GET", &path, "", "");
    let example = json!({
        "iceServers": [{ "urls": ["turn:…"], "username": "…", "credential": "…" }],
        "iceTransportPolicy": "all",
    });
    assert_shape(&answer, 200, &example, &[]);
    assert_eq!(answer.json()["iceTransportPolicy"], "relay");
    let server = &answer.json()["iceServers"][0];
    allocates(&daemon, &server["username"], &server["credential"]);
}

/// The paths of all adapters, with their methods.
const PATHS: [(&str, &str); 10] = [
    ("POST", "/v1/turn/keys/k/credentials/generate-ice-servers"),
    ("POST", "/v1/turn/keys/k/credentials/generate"),
    ("POST", "/v1/turn/keys/k/credentials/u/revoke"),
    ("POST", "/2010-04-01/Accounts/AC1/Tokens.json"),
    ("GET", "/api/v1/turn/credentials"),
    ("POST", "/api/v1/turn/credential"),
    ("PUT", "/_turn/channel"),
    ("GET", "/turn?service=turn"),
    ("GET", "/_matrix/client/v3/voip/turnServer"),
    ("GET", "/ice"),
];

#[test]
fn an_adapter_is_off_until_it_is_named() {
    let (_house, daemon) = ask::open("");
    for (method, path) in PATHS {
        assert_eq!(
            ask(&daemon, method, path, Some(KEY), None).status,
            404,
            "{path}"
        );
        assert_eq!(ask(&daemon, method, path, None, None).status, 401, "{path}");
    }
}

#[test]
fn an_adapter_takes_a_key_that_may_mint_or_revoke_and_no_other() {
    let (_house, daemon) = open();
    for (method, path) in PATHS {
        assert_eq!(
            ask(&daemon, method, path, Some(READ), None).status,
            403,
            "{path}"
        );
        assert_eq!(ask(&daemon, method, path, None, None).status, 401, "{path}");
    }
}
