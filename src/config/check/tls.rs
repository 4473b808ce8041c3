//! Certificates and keys of TLS and DTLS: that they are there, fit each other, and are still good.

use std::path::PathBuf;
use std::sync::Arc;

use super::Checker;
use super::listen::key_of;
use super::secrets::is_world_readable;
use crate::config::file::{self, TextOr};
use crate::config::key::Key;
use crate::config::parse::Fault;
use crate::config::sources::escaped_path;
use crate::config::{Listen, Tls};
use crate::dataplane::sys;
use crate::dataplane::tls::{KeyFiles, Part, TlsError, TlsKeys};
use crate::turn::Transport;

/// From so many days before its end a certificate is warned of. Who renews by ACME does so with
/// thirty left.
const SOON: u64 = 14;

impl Checker<'_> {
    pub(super) fn tls(&mut self, typed: &file::Tls, listen: &Listen) -> Tls {
        let none = Tls { keys: None };
        let (certs, keys) = (list(&typed.cert), list(&typed.key));
        let wanted = [Transport::Tls, Transport::Dtls]
            .into_iter()
            .filter(|transport| !listen.of(*transport).is_empty());
        let wanted: Vec<Transport> = wanted.collect();
        if certs.is_empty() && keys.is_empty() {
            for transport in wanted {
                let fault = Fault::new(
                    "it takes a certificate and its key, and [tls] names none",
                    "write cert = \"/etc/taciturn/fullchain.pem\" and key = \
                     \"/etc/taciturn/privkey.pem\" under [tls], or empty the list",
                );
                self.refuse(&key_of(transport), fault);
            }
            return none;
        }
        if self.holds_a_key(keys) || !self.one_key_each(certs.len(), keys.len()) {
            return none;
        }
        let files = certs.iter().zip(keys).map(|(cert, key)| KeyFiles {
            cert: PathBuf::from(cert),
            key: PathBuf::from(key),
        });
        match TlsKeys::load(files.collect()) {
            Ok(keys) => {
                self.warn_of_certificates(&keys);
                if wanted.is_empty() {
                    self.warnings.push(
                        "tls.cert and tls.key are not used: neither listen.tls nor listen.dtls \
                         has an address, such as \"0.0.0.0:5349\""
                            .to_owned(),
                    );
                }
                Tls {
                    keys: Some(Arc::new(keys)),
                }
            }
            Err(errors) => {
                for error in errors {
                    self.refuse_tls(typed, error);
                }
                none
            }
        }
    }

    /// A key in the place of its path must not be shown.
    fn holds_a_key(&mut self, keys: &[String]) -> bool {
        if !keys.iter().any(|key| key.contains("-----BEGIN")) {
            return false;
        }
        let fault = Fault::new(
            "it is a key, not the path of a file with one",
            "write the key to a file that only taciturn may read, and name that",
        );
        self.refuse(&Key::new("tls", "key"), fault);
        if let Some(problem) = self.problems.last_mut() {
            problem.value = None;
        }
        true
    }

    fn one_key_each(&mut self, certs: usize, keys: usize) -> bool {
        let fault = match (certs, keys) {
            (certs, keys) if certs == keys => return true,
            (_, 0) => Fault::new(
                "a certificate without its key",
                "name the file of its private key in tls.key",
            ),
            (0, _) => Fault::new(
                "a key without its certificate",
                "name the file of its certificate and those above it in tls.cert",
            ),
            (certs, keys) => Fault::new(
                format!("tls.cert names {certs} files and tls.key names {keys}"),
                "write one key for each certificate, in the same order",
            ),
        };
        let name = if keys == 0 { "cert" } else { "key" };
        self.refuse(&Key::new("tls", name), fault);
        false
    }

    fn refuse_tls(&mut self, typed: &file::Tls, error: TlsError) {
        let (key, fault) = match error {
            TlsError::File {
                pair,
                part,
                reason,
                remedy,
                ..
            } => {
                let (name, typed) = match part {
                    Part::Certificate => ("cert", &typed.cert),
                    Part::Key => ("key", &typed.key),
                };
                let key = Key::new("tls", name);
                let key = match typed {
                    TextOr::Text(_) => key,
                    TextOr::Full(_) => key.at(pair),
                };
                (key, Fault::new(reason, remedy))
            }
            TlsError::Nothing | TlsError::Setup(_) => (
                Key::new("tls", "cert"),
                Fault::new(error.to_string(), "compare config/taciturn.toml"),
            ),
        };
        self.refuse(&key, fault);
    }

    fn warn_of_certificates(&mut self, keys: &TlsKeys) {
        let now = sys::unix_seconds();
        for (files, pair) in keys.files().iter().zip(keys.current().iter()) {
            let shown = escaped_path(&files.cert);
            let days = pair.certificate().days_left(now);
            let warning = if pair.certificate().not_before > now {
                "is not valid yet: clients will refuse it until then, if the clock is right"
                    .to_owned()
            } else {
                match days {
                    None => "has expired: clients will refuse it. Renew it; it is read again \
                             without a restart"
                        .to_owned(),
                    Some(days) if days < SOON => format!(
                        "expires in {days} days. Renew it; it is read again without a restart"
                    ),
                    Some(_) => continue,
                }
            };
            self.warnings
                .push(format!("the certificate in {shown} {warning}"));
        }
        for files in keys.files() {
            if is_world_readable(&files.key) {
                self.warnings.push(format!(
                    "every user of this machine can read the key in {}; chmod o-r it",
                    escaped_path(&files.key)
                ));
            }
        }
    }
}

/// One path or several; an empty text is none.
fn list(typed: &TextOr<Vec<String>>) -> &[String] {
    match typed {
        TextOr::Text(text) if text.is_empty() => &[],
        TextOr::Text(text) => std::slice::from_ref(text),
        TextOr::Full(list) => list,
    }
}
