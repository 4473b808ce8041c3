//! Credentials for the two parties of the demo's one call. They are sealed, and say that their
//! holder meets the other party of that call and nobody else, and is *masked*: what a browser may
//! tell in signalling of what a TURN server says of its own address is the relayed one again.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::signals::Party;
use crate::daemon::house::House;
use crate::daemon::reached;
use crate::dataplane::{self, sys};
use crate::turn::credential::Claims;
use crate::turn::policy::PeerPolicy;

/// For how long one is good: a call that has begun goes on.
const LIFE: Duration = Duration::from_secs(600);
/// What the demo's call is called; each run hashes that with a key of its own.
const CALL: &str = "demo";

impl Party {
    /// Each has a user of their own, as in a call of two people.
    const fn user(self) -> &'static str {
        match self {
            Self::A => "alice",
            Self::B => "bob",
        }
    }
}

/// An `RTCConfiguration` that only relays, and what addresses the relay gives.
///
/// # Errors
/// When there is no key to seal with, or no randomness.
pub(super) fn mint(
    party: Party,
    house: &House,
    handle: &dataplane::Handle,
) -> anyhow::Result<Value> {
    let rules = house.rules()?;
    let credentials = &rules.credentials;
    let now = sys::unix_seconds();
    let call = credentials.call(CALL).context("there is no sealing key")?;
    let claims = Claims {
        call: Some(call),
        policy: Some(PeerPolicy::Call),
        masked: true,
        ..Claims::new(credentials.subject(party.user()), now)
    };
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).context("the system has no randomness")?;
    let minted = credentials.mint_sealed(&claims, now + LIFE.as_secs(), nonce)?;
    let relays = house.relays.iter();
    let addresses: Vec<IpAddr> = relays.map(|relay| relay.advertised).collect();
    Ok(json!({
        "iceServers": [{
            "urls": reached::ice_urls(&house.settings, &handle.listening()),
            "username": minted.username,
            "credential": minted.password.as_str(),
        }],
        "iceTransportPolicy": "relay",
        "relayedAddresses": addresses,
    }))
}
