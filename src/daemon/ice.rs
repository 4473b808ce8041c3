//! Credentials as a web page gets them: the `iceServers` of an RTCConfiguration, as `taciturn mint`
//! prints it. No credential is ever quoted.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use secrecy::SecretString;
use serde::Deserialize;

use crate::daemon::Usage;

/// The longest RTCConfiguration that is read.
const MAX_ICE: u64 = 64 << 10;

/// What a client authenticates with.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    pub(crate) username: String,
    pub(crate) password: SecretString,
}

/// URLs that share a credential.
#[derive(Debug)]
pub(crate) struct Server {
    #[cfg_attr(
        not(feature = "probe"),
        expect(dead_code, reason = "the load is told where the server is")
    )]
    pub(crate) urls: Vec<String>,
    pub(crate) credential: Credential,
}

/// The servers of a file, or of standard input for "-".
///
/// # Errors
/// When it cannot be read, or has none.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Server>> {
    let text = if path == Path::new("-") {
        limited(std::io::stdin()).context("cannot read standard input")?
    } else {
        std::fs::File::open(path)
            .and_then(limited)
            .map_err(|error| refusal(path, &error.to_string()))?
    };
    Ok(parse(&text).map_err(|reason| refusal(path, &reason))?)
}

/// Says what is wrong with a file.
pub(crate) fn refusal(path: &Path, reason: &str) -> Usage {
    let name = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    Usage(format!(
        "cannot use the iceServers of {name}: {reason}; wanted is what `taciturn mint` prints"
    ))
}

/// Reads what is no longer than any RTCConfiguration.
pub(crate) fn limited(source: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    if source.take(MAX_ICE + 1).read_to_string(&mut text)? as u64 > MAX_ICE {
        return Err(std::io::Error::other(format!(
            "longer than {MAX_ICE} bytes"
        )));
    }
    Ok(text)
}

/// An RTCConfiguration, or only its list of servers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ice {
    Whole {
        #[serde(rename = "iceServers")]
        servers: Vec<IceServer>,
    },
    List(Vec<IceServer>),
}

/// W3C WebRTC §4.2.4, RTCIceServer.
#[derive(Deserialize)]
struct IceServer {
    urls: Urls,
    username: Option<String>,
    credential: Option<SecretString>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Urls {
    One(String),
    Many(Vec<String>),
}

/// The servers in it that are TURN servers with credentials. What is wrong is said without
/// quoting any of it.
pub(crate) fn parse(text: &str) -> Result<Vec<Server>, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        format!(
            "no JSON at line {}, column {}",
            error.line(),
            error.column()
        )
    })?;
    let (Ice::Whole { servers } | Ice::List(servers)) = serde_json::from_value(value)
        .map_err(|_| "no list of iceServers with urls, username and credential".to_owned())?;
    let servers: Vec<Server> = servers
        .into_iter()
        .filter_map(|server| {
            let urls = match server.urls {
                Urls::One(url) => vec![url],
                Urls::Many(urls) => urls,
            };
            let turns = |url: &String| url.starts_with("turn:") || url.starts_with("turns:");
            let urls: Vec<String> = urls.into_iter().filter(turns).collect();
            let credential = Credential {
                username: server.username?,
                password: server.credential?,
            };
            (!urls.is_empty()).then_some(Server { urls, credential })
        })
        .collect();
    if servers.is_empty() {
        return Err("no TURN server with a username and a credential is in it".to_owned());
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T26
    #[test]
    fn what_is_no_ice_configuration_is_refused_without_quoting_it() {
        for text in [
            "",
            "hunter2",
            r#"{ "credential": "hunter2" }"#,
            r#"{ "iceServers": "hunter2" }"#,
            r#"[{ "urls": 5, "credential": "hunter2" }]"#,
            r#"[{ "urls": "turn:a", "credential": "hunter2" }]"#,
            r#"[{ "urls": "stun:a", "username": "u", "credential": "hunter2" }]"#,
            "[]",
        ] {
            let reason = parse(text).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = limited(std::io::repeat(b'x')).unwrap_err();
        assert!(error.to_string().contains("65536"), "{error}");
    }
}
