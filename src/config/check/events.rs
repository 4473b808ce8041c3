//! `[events]`: where they go, and what deliveries are signed with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::{Checker, SECOND};
use crate::config::file;
use crate::config::key::Key;
use crate::config::parse::Fault;
use crate::config::{Events, Webhook};
use crate::dataplane::tls;

const HOUR: Duration = Duration::from_secs(3_600);
/// Each has a thread and a queue of its own.
const MOST_WEBHOOKS: usize = 16;
/// The most events that may wait; each takes less than a kilobyte.
const MOST_WAITING: i64 = 1_000_000;

fn key(name: &str) -> Key {
    Key::new("events", name)
}

impl Checker<'_> {
    pub(super) fn events(&mut self, typed: &file::Events) -> Events {
        let file = if typed.file.chars().any(char::is_control) {
            Err(Fault::new(
                "a path without control characters is wanted",
                "name a file",
            ))
        } else {
            Ok((!typed.file.is_empty()).then(|| PathBuf::from(&typed.file)))
        };
        let queue = usize::try_from(typed.queue)
            .ok()
            .filter(|_| (1..=MOST_WAITING).contains(&typed.queue))
            .ok_or_else(|| {
                let remedy = format!("write a number from 1 to {MOST_WAITING}");
                Fault::new("out of range", remedy)
            });
        Events {
            file: self.parse(&key("file"), file, None),
            webhooks: self.webhooks(&typed.webhooks),
            queue: self.parse(&key("queue"), queue, 1),
            interval: self.duration(&key("interval"), &typed.interval, SECOND..=HOUR),
        }
    }

    fn webhooks(&mut self, typed: &[file::Webhook]) -> Vec<Webhook> {
        if typed.len() > MOST_WEBHOOKS {
            let fault = Fault::new("too many webhooks", format!("name at most {MOST_WEBHOOKS}"));
            self.refuse(&key("webhooks"), fault);
        }
        let mut webhooks: Vec<Webhook> = Vec::new();
        for (index, webhook) in typed.iter().enumerate() {
            let key = key("webhooks").at(index);
            if let Err(fault) = url(&webhook.url) {
                self.refuse(&key.entry("url"), fault);
            } else if webhooks.iter().any(|other| other.url == webhook.url) {
                let fault = Fault::new("it stands twice", "keep one");
                self.refuse(&key.entry("url"), fault);
            }
            if is_in_clear(&webhook.url) {
                self.warnings.push(format!(
                    "events.webhooks.{index}: events cross the network in clear; use https"
                ));
            }
            let authorities = self.authorities(&key, webhook);
            let file = webhook.file.as_deref();
            if let Some(secret) = self.file_or_value(&key, file, webhook.value.as_ref()) {
                webhooks.push(Webhook {
                    url: webhook.url.clone(),
                    secret,
                    authorities,
                });
            }
        }
        webhooks
    }

    /// Those of `ca`, if it is there.
    fn authorities(
        &mut self,
        key: &Key,
        webhook: &file::Webhook,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let path = webhook.ca.as_deref()?;
        let found = if webhook.url.starts_with("http://") {
            Err(Fault::new(
                "there is no certificate to vouch for on http",
                "use https, or leave it out",
            ))
        } else {
            tls::authorities(Path::new(path)).map_err(|reason| {
                Fault::new(
                    reason,
                    "name a PEM file with the certificates of those who issue the receiver's",
                )
            })
        };
        self.parse(&key.entry("ca"), found.map(Some), None)
    }
}

/// The host of a URL that can be posted to.
fn host(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => authority.split(':').next()?,
    };
    // A name and a password in front of the host would stand in logs of others.
    (!host.is_empty() && !authority.contains('@')).then_some(host)
}

fn url(text: &str) -> Result<(), Fault> {
    let is_plain = text.len() <= 512 && text.chars().all(|c| c.is_ascii_graphic());
    match host(text) {
        Some(_) if is_plain => Ok(()),
        _ => Err(Fault::new(
            "not a URL to post to",
            "write one such as \"https://backend.example.org/taciturn\"",
        )),
    }
}

fn is_in_clear(url: &str) -> bool {
    let local = |host: &str| {
        host == "localhost"
            || host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    };
    url.starts_with("http://") && !host(url).is_some_and(local)
}
