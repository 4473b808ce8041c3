//! Events posted to a URL, signed, and again while nobody takes them.
//!
//! A delivery is up to a hundred lines, as a file would have them. It is signed anew at each
//! attempt: `Taciturn-Signature: t=<Unix seconds>,v1=<hex>`, where the hex is HMAC-SHA256 under the
//! webhook's secret over `<Unix seconds>.<body>`. `Taciturn-Delivery` stays the same, so that a
//! receiver that answered too late knows it by that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustls::crypto::aws_lc_rs;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::Stop;
use crate::admin::events::Counts;
use crate::config;
use crate::dataplane::sys;

/// Attempts of one delivery: the last comes about two minutes after the first.
const ATTEMPTS: u32 = 8;
/// Before the second attempt; each of the following waits twice as long, up to a minute.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// For everything from the name's look-up to the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One webhook.
#[derive(Debug)]
pub(super) struct Webhook {
    /// Its place in the configuration, which logs name it by: a URL may be half a secret.
    place: Arc<AtomicUsize>,
    url: String,
    secret: SecretString,
    agent: Agent,
    stop: Arc<Stop>,
    /// Whether the last delivery was given up.
    is_away: bool,
    /// Whether one was given up that had no time left: none of those behind it has.
    is_over: bool,
}

impl Webhook {
    pub(super) fn new(
        place: Arc<AtomicUsize>,
        settings: &config::Webhook,
        stop: Arc<Stop>,
    ) -> Self {
        Self {
            place,
            url: settings.url.clone(),
            secret: settings.secret.clone(),
            agent: agent(settings),
            stop,
            is_away: false,
            is_over: false,
        }
    }

    /// Posts lines until they are taken, or given up, which is counted.
    pub(super) fn deliver(&mut self, lines: &[Arc<str>], counts: &Counts) {
        let mut body = String::new();
        for line in lines {
            body.push_str(line);
            body.push('\n');
        }
        let number = lines.len() as u64;
        if self.is_over {
            counts.dropped.fetch_add(number, Ordering::Relaxed);
            return;
        }
        let delivery = format!("{:032x}", rand::random::<u128>());
        let (mut wait, mut is_last) = (FIRST_WAIT, false);
        for attempt in 1..=ATTEMPTS {
            let Err(why) = self.post(&body, &delivery) else {
                counts.delivered.fetch_add(number, Ordering::Relaxed);
                if std::mem::take(&mut self.is_away) {
                    tracing::info!(webhook = self.place(), "a webhook takes events again");
                }
                return;
            };
            tracing::debug!(
                webhook = self.place(),
                attempt,
                "events were not taken: {why}"
            );
            if attempt == ATTEMPTS || is_last {
                self.is_over = is_last;
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::error!(webhook = self.place(), "events are given up: {why}");
                }
                break;
            }
            // Who stops, or is replaced, tries once more, and at once.
            is_last = self.stop.wait(wait);
            counts.retries.fetch_add(1, Ordering::Relaxed);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        counts.dropped.fetch_add(number, Ordering::Relaxed);
    }

    fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed)
    }

    fn post(&self, body: &str, delivery: &str) -> Result<(), String> {
        let signature = signature(&self.secret, sys::unix_seconds(), body);
        let sent = self
            .agent
            .post(&self.url)
            .header("content-type", "application/x-ndjson")
            .header("taciturn-signature", signature)
            .header("taciturn-delivery", delivery)
            .send(body);
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status().as_u16())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What a delivery at `unix` is signed with.
fn signature(secret: &SecretString, unix: u64, body: &str) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("any length");
    mac.update(format!("{unix}.").as_bytes());
    mac.update(body.as_bytes());
    let mut text = format!("t={unix},v1=");
    for byte in mac.finalize().into_bytes() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// A client that follows nobody elsewhere; over TLS it trusts whom the settings name, or else whom
/// this system trusts.
fn agent(settings: &config::Webhook) -> Agent {
    let native;
    let roots = match &settings.authorities {
        Some(authorities) => authorities.as_slice(),
        None if settings.url.starts_with("https://") => {
            native = rustls_native_certs::load_native_certs().certs;
            native.as_slice()
        }
        None => &[],
    };
    let roots: Vec<Certificate<'static>> = roots
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .build();
    Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .http_status_as_error(false)
        .proxy(None)
        .user_agent("taciturn")
        .tls_config(tls)
        .build()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of docs/events.md, worked out with `openssl dgst -sha256 -hmac`.
    #[test]
    fn a_signature_is_the_one_of_the_documentation() {
        let secret = SecretString::from("not a secret");
        let body = "{\"schema\":1}\n";
        assert_eq!(
            signature(&secret, 1_800_000_000, body),
            "t=1800000000,v1=a590cb0f25eabfdd54f5d3deeb41de85ce624e9cc1eca33e87e47d303df049a6"
        );
    }
}
