//! The way from the command line to the daemon on this machine: HTTP over its control socket.
//!
//! The daemon lets in its own user and root, so nothing is shown but who asks; no API key is
//! needed, and none is read.

pub(crate) mod options;
pub(crate) mod place;
mod verbs;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

#[cfg(feature = "top")]
pub(crate) use verbs::every_allocation;
pub(crate) use verbs::{allocations, ban, bans, revoke, unban};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const LONGEST: u64 = 64 << 20;

/// A daemon that can be asked.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status of HTTP.
    pub(crate) status: u16,
    /// The body; null where there is none.
    pub(crate) body: Value,
}

impl Client {
    /// The daemon whose control socket lies at `socket`.
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks for `path`, which begins with a slash; what it names is percent-encoded.
    ///
    /// # Errors
    /// When no daemon is there, or it refuses.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, None)
    }

    /// The same with any method, and a body.
    ///
    /// # Errors
    /// When no daemon is there, or it refuses.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let answer = self.exchange(method, path, body)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        let detail = answer.body["detail"]
            .as_str()
            .unwrap_or("it does not say why");
        bail!("the daemon refused (HTTP {}): {detail}", answer.status)
    }

    /// The same, whatever the answer is.
    ///
    /// # Errors
    /// When no daemon is there, or what is there speaks something else.
    pub(crate) fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut stream = self.connect()?;
        let body = body.map(Value::to_string).unwrap_or_default();
        // HTTP/1.0, so that the body ends with the connection and is never chunked.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: taciturn\r\nContent-Type: application/json\r\n\
             Prefer: return=representation\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut text = Vec::new();
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body.as_bytes()))
            .and_then(|()| stream.take(LONGEST).read_to_end(&mut text))
            .with_context(|| format!("no answer came from {}", self.socket.display()))?;
        let answer = parse(&text);
        answer.with_context(|| format!("what answers at {} is no taciturn", self.socket.display()))
    }

    fn connect(&self) -> anyhow::Result<UnixStream> {
        let socket = self.socket.display();
        let stream = UnixStream::connect(&self.socket).map_err(|error| {
            let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
            let remedy = if is(&[io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused]) {
                "no taciturn runs there; --socket names another place, which is control.socket in \
                 the daemon's configuration"
            } else if is(&[io::ErrorKind::PermissionDenied]) {
                "it is for the user that taciturn runs as, and for root"
            } else {
                "is it the control socket of a taciturn?"
            };
            anyhow::anyhow!("cannot reach a daemon at {socket}: {error}; {remedy}")
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

fn parse(text: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut words = head.strip_prefix("HTTP/1.")?.split(' ');
    words.next()?;
    let status = words.next()?.trim().parse().ok()?;
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(body).ok()?
    };
    Some(Answer { status, body })
}

/// `text` as it may stand in a path or a query (RFC 3986 §2.1).
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = parse(b"HTTP/1.0 201 Created\r\na: b\r\n\r\n{\"c\":1}").unwrap();
        assert_eq!((answer.status, &answer.body["c"]), (201, &Value::from(1)));
        let answer = parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body), (204, Value::Null));
        for noise in ["", "220 mail ready\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nhello"] {
            assert!(parse(noise.as_bytes()).is_none(), "{noise}");
        }
    }

    #[test]
    fn what_stands_in_a_path_stays_one_segment() {
        assert_eq!(
            percent_encoded("17:alice/b?c#ä"),
            "17%3Aalice%2Fb%3Fc%23%C3%A4"
        );
        assert_eq!(percent_encoded("a-b.c_d~1"), "a-b.c_d~1");
    }
}
