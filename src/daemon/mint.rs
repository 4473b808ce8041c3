//! Credentials for people: `taciturn mint`, and what `serve` prints when it made its own secret.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{self, Settings};
use crate::daemon::cli::Mint;
use crate::daemon::{Usage, reached};
use crate::dataplane::sys;
use crate::turn::Transport;
use crate::turn::credential::{Secret, mint};

/// What `taciturn mint` prints.
///
/// # Errors
/// When the configuration is bad or has no secret, or the user id cannot be one.
pub(crate) fn run(arguments: &Mint) -> anyhow::Result<String> {
    let settings = config::load(&arguments.sources())?.settings;
    let ring = settings.secrets();
    let Some(secret) = ring.get(0) else {
        return Err(usage(
            "there is no secret to mint with: name the one that the server uses, in auth.secrets \
             of a file given with --config, or in a file named by TACITURN_AUTH__SECRETS__FILE. A \
             server without a configuration prints a credential of its own when it starts",
        ));
    };
    if arguments.ttl > settings.auth.max_ttl {
        let longest = humantime::format_duration(settings.auth.max_ttl);
        return Err(usage(&format!(
            "the server would refuse it: --ttl is longer than auth.max_ttl, {longest}"
        )));
    }
    let servers = ice_servers(&settings, &[], secret, &arguments.user, arguments.ttl)?;
    Ok(format!("{servers:#}"))
}

/// An `RTCConfiguration` that only relays. `listening` is where this server listens, if it runs.
///
/// # Errors
/// When the user id cannot be one.
pub(crate) fn ice_servers(
    settings: &Settings,
    listening: &[(Transport, SocketAddr)],
    secret: &Secret,
    user: &str,
    ttl: Duration,
) -> anyhow::Result<Value> {
    let expires = sys::unix_seconds().saturating_add(ttl.as_secs());
    let minted = mint(secret, user, expires).map_err(|error| {
        usage(&format!(
            "no credential for that user id: {error}; give --user the id by which your platform \
             knows the person, 1 to 400 printable characters, not beginning with ~"
        ))
    })?;
    Ok(json!({
        "iceServers": [{
            "urls": reached::ice_urls(settings, listening),
            "username": minted.username,
            "credential": minted.password.as_str(),
        }],
        "iceTransportPolicy": "relay",
    }))
}

fn usage(text: &str) -> anyhow::Error {
    Usage(text.to_owned()).into()
}
