//! Which servers are probed, and with which credentials: those of `--ice`, those minted from the
//! configuration, or those that a `serve` on this machine left.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::url::TurnUrl;
use crate::config::{self, Flags, Settings, Sources};
use crate::daemon::cli::Probe;
use crate::daemon::ice::{self, Credential, Server};
use crate::daemon::{Usage, reached, runtime};
use crate::dataplane::sys;

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

/// What these arguments mean: which servers, as whom.
///
/// # Errors
/// When there are no credentials, or a URL is none.
pub(super) fn of(arguments: &Probe) -> anyhow::Result<Vec<Target>> {
    let servers = match &arguments.ice {
        Some(path) => ice::read(path)?,
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
        match runtime::open(place).and_then(ice::limited) {
            Ok(text) => {
                return ice::parse(&text)
                    .map_err(|reason| ice::refusal(place, &reason))
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
        targets(&named, &ice::parse(ice).unwrap())
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
    fn a_target_prints_no_password() {
        let ice = r#"[{ "urls": "turn:a", "username": "u", "credential": "hunter2" }]"#;
        let targets = targets(&[], &ice::parse(ice).unwrap()).unwrap();
        assert!(!format!("{targets:?}").contains("hunter2"));
    }
}
