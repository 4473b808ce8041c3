//! Requests with any head and body, and a daemon that has keys.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::house::{Daemon, House};
use crate::loopback::PATIENCE;

/// A key with every scope.
pub(crate) const KEY: &str = "platform-key-that-nobody-guesses";
/// Keys with one scope each.
pub(crate) const MINT: &str = "mint-key-that-nobody-guesses";
pub(crate) const READ: &str = "read-key-that-nobody-guesses";
pub(crate) const REVOKE: &str = "revoke-key-that-nobody-guesses";

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Header lines, in lower case.
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// What a problem says.
    #[track_caller]
    pub(crate) fn detail(&self) -> String {
        assert!(self.head.contains("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// The configuration of an API with those keys, and `more` of it.
pub(crate) fn api(more: &str) -> String {
    format!(
        r#"
api = {{ listen = "127.0.0.1:0", rate = "1000000/s", keys = [
    {{ id = "all", value = "{KEY}", scopes = ["mint", "read", "revoke"] }},
    {{ id = "minter", value = "{MINT}", scopes = ["mint"] }},
    {{ id = "reader", value = "{READ}", scopes = ["read"] }},
    {{ id = "revoker", value = "{REVOKE}", scopes = ["revoke"] }},
]{more} }}
control = {{ socket = "control.sock" }}
"#
    )
}

/// A house with an API, and the daemon in it.
pub(crate) fn open(more: &str) -> (House, Daemon) {
    let house = House::new(&api(more));
    let daemon = house.serve();
    (house, daemon)
}

/// Where the API listens.
pub(crate) fn at(daemon: &Daemon) -> SocketAddr {
    daemon.addresses("API listens")[0]
}

/// A request with this key, if any.
pub(crate) fn ask(
    daemon: &Daemon,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: Option<&Value>,
) -> Answer {
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n"));
    let body = body.map(Value::to_string);
    let kind = body.as_ref().map(|_| "Content-Type: application/json\r\n");
    let head = key.unwrap_or_default() + kind.unwrap_or_default();
    raw(at(daemon), method, path, &head, &body.unwrap_or_default())
}

/// A request with these header lines.
pub(crate) fn raw(server: SocketAddr, method: &str, path: &str, head: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // HTTP/1.0, so that the body ends with the connection and is never chunked.
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {server}\r\n{head}Content-Length: {length}\r\n\r\n{body}"
    );
    // Who refuses a long body does not read it to its end.
    stream.write_all(request.as_bytes()).ok();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok();
    taken_apart(&bytes)
}

pub(crate) fn taken_apart(bytes: &[u8]) -> Answer {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        text: body.to_owned(),
    }
}
