//! Which servers are probed, and with which credentials: those of `--ice`, those minted from the
//! configuration, or those that a `serve` on this machine left.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::url::TurnUrl;
use crate::config::{self, Flags, Settings, Sources};
use crate::daemon::cli::Probe;
use crate::daemon::{Usage, reached, runtime};
use crate::dataplane::sys;

/// The longest RTCConfiguration that is read.
const MAX_ICE: u64 = 64 << 10;
/// Whom a credential is minted for.
const USER: &str = "probe";
/// Long enough for a probe, too short to be of use to whoever finds it.
const TTL: Duration = Duration::from_secs(600);

/// One server to probe.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: TurnUrl,
    pub(super) credential: Credential,
}

/// What a client authenticates with.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) username: String,
    pub(super) password: SecretString,
}

/// URLs that share a credential.
#[derive(Debug)]
struct Server {
    urls: Vec<String>,
    credential: Credential,
}

/// What these arguments mean.
///
/// # Errors
/// When there are no credentials, or a URL is none.
pub(super) fn of(arguments: &Probe) -> anyhow::Result<Vec<Target>> {
    let servers = match &arguments.ice {
        Some(path) => read_ice(path)?,
        None => servers_of_process(arguments)?,
    };
    targets(&arguments.urls, &servers).map_err(|text| Usage(text).into())
}

/// The URLs named, with the first credential; or else each server's own.
fn targets(named: &[String], servers: &[Server]) -> Result<Vec<Target>, String> {
    let pairs: Vec<(&String, &Credential)> = match servers {
        [] => return Err("there are no TURN servers with a credential in it".to_owned()),
        [first, ..] if !named.is_empty() => {
            named.iter().map(|url| (url, &first.credential)).collect()
        }
        servers => servers
            .iter()
            .flat_map(|server| server.urls.iter().map(|url| (url, &server.credential)))
            .collect(),
    };
    pairs
        .into_iter()
        .map(|(url, credential)| {
            Ok(Target {
                url: TurnUrl::parse(url)?,
                credential: credential.clone(),
            })
        })
        .collect()
}

fn servers_of_process(arguments: &Probe) -> anyhow::Result<Vec<Server>> {
    let sources = Sources::of_process(arguments.config.clone(), Flags::default());
    let settings = config::load(&sources)?.settings;
    if let Some(server) = server_of(&settings)? {
        return Ok(vec![server]);
    }
    let places = runtime::places();
    let mut obstacle = String::new();
    for place in &places {
        match read_limited(place) {
            Ok(text) => {
                return parse_ice(&text)
                    .map_err(|reason| refusal(place, &reason))
                    .map_err(Into::into);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => obstacle = format!(" ({}: {error})", place.display()),
        }
    }
    Err(Usage(format!(
        "there are no credentials to probe with: no configuration names a secret, and no \
         `taciturn serve` of this user runs here{obstacle}. Give --config FILE with \
         the server's secret, or --ice FILE with what `taciturn mint` prints, or start `taciturn \
         serve`"
    ))
    .into())
}

/// The server that these settings describe, if they let anybody in.
fn server_of(settings: &Settings) -> anyhow::Result<Option<Server>> {
    let urls = reached::ice_urls(settings, &[]);
    let ring = settings.secrets();
    let credential = if let Some(secret) = ring.get(0) {
        let expires = sys::unix_seconds().saturating_add(TTL.as_secs());
        let minted = crate::turn::credential::mint(secret, USER, expires)?;
        Credential {
            username: minted.username,
            password: SecretString::from(minted.password.as_str()),
        }
    } else if let Some((name, password)) = settings.auth.users.iter().next() {
        Credential {
            username: name.clone(),
            password: SecretString::from(password.expose_secret()),
        }
    } else {
        return Ok(None);
    };
    Ok(Some(Server { urls, credential }))
}

fn read_ice(path: &Path) -> anyhow::Result<Vec<Server>> {
    let text = if path == Path::new("-") {
        limited(std::io::stdin()).context("cannot read standard input")?
    } else {
        read_limited(path).map_err(|error| refusal(path, &error.to_string()))?
    };
    Ok(parse_ice(&text).map_err(|reason| refusal(path, &reason))?)
}

fn refusal(path: &Path, reason: &str) -> Usage {
    let name = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    Usage(format!(
        "cannot use the iceServers of {name}: {reason}; wanted is what `taciturn mint` prints"
    ))
}

fn read_limited(path: &Path) -> std::io::Result<String> {
    limited(std::fs::File::open(path)?)
}

fn limited(source: impl Read) -> std::io::Result<String> {
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
fn parse_ice(text: &str) -> Result<Vec<Server>, String> {
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

    const TWO: &str = r#"{ "iceServers": [
        { "urls": "stun:s.example" },
        { "urls": ["stun:s.example", "turn:a.example"], "username": "u1", "credential": "p1" },
        { "urls": "turns:b.example", "username": "u2", "credential": "p2" }
    ], "iceTransportPolicy": "relay" }"#;

    fn pairs(named: &[&str], ice: &str) -> Vec<(String, String)> {
        let named: Vec<String> = named.iter().map(|&url| url.to_owned()).collect();
        targets(&named, &parse_ice(ice).unwrap())
            .unwrap()
            .into_iter()
            .map(|target| (target.url.text, target.credential.username))
            .collect()
    }

    fn pair(url: &str, username: &str) -> (String, String) {
        (url.to_owned(), username.to_owned())
    }

    #[test]
    fn each_turn_server_has_its_own_credential() {
        let expected = [pair("turn:a.example", "u1"), pair("turns:b.example", "u2")];
        assert_eq!(pairs(&[], TWO), expected);
    }

    #[test]
    fn named_servers_are_probed_instead_with_the_first_credential() {
        assert_eq!(
            pairs(&["turn:c.example"], TWO),
            [pair("turn:c.example", "u1")]
        );
    }

    #[test]
    fn a_bare_list_of_servers_is_understood() {
        let list = r#"[{ "urls": "turn:a", "username": "u", "credential": "p" }]"#;
        assert_eq!(pairs(&[], list), [pair("turn:a", "u")]);
    }

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
            let reason = parse_ice(text).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = limited(std::io::repeat(b'x')).unwrap_err();
        assert!(error.to_string().contains("65536"), "{error}");
    }

    /// T26
    #[test]
    fn a_target_prints_no_password() {
        let ice = r#"[{ "urls": "turn:a", "username": "u", "credential": "hunter2" }]"#;
        let targets = targets(&[], &parse_ice(ice).unwrap()).unwrap();
        assert!(!format!("{targets:?}").contains("hunter2"));
    }
}
