//! The platform's API: who may reach it, and by which keys.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::secrets::read_secret;
use super::{Checker, url};
use crate::admin::api::{Adapter, ApiKey, Node, Scope, Scopes};
use crate::config::file;
use crate::config::key::Key;
use crate::config::parse::{self, Fault};
use crate::config::{Admin, Api, ApiTls, Control, Listen, Rate};
use crate::dataplane::tls::{KeyFiles, Part, TlsError, TlsKeys, client_authorities};
use crate::turn::credential::Label;

/// The shortest key. One of `openssl rand -base64 32` has 44 characters.
const SHORTEST: usize = 20;

impl Checker<'_> {
    pub(super) fn api(&mut self, typed: &file::Api) -> Api {
        let key = |name| Key::new("api", name);
        let listen = match typed.listen.as_str() {
            "" | "off" => Ok(None),
            text => parse::listener(text).map(Some).map_err(|fault| {
                let remedy = "write an address such as \"127.0.0.1:8080\", or \"off\"";
                Fault::new(fault.reason, remedy)
            }),
        };
        let no_rate = Rate {
            per_second: 1,
            burst: 1,
        };
        let api = Api {
            listen: self.parse(&key("listen"), listen, None),
            keys: self.api_keys(&typed.keys),
            tls: self.api_tls(&typed.tls),
            rate: self.parse(&key("rate"), parse::rate(&typed.rate), no_rate),
            failures: self.parse(&key("failures"), parse::rate(&typed.failures), no_rate),
            adapters: self.list(&key("adapters"), &typed.adapters, adapter),
            node: match typed.node.as_str() {
                "" => None,
                text => self.parse(&key("node"), label(text).map(Some), None),
            },
            nodes: self.nodes(&typed.nodes),
        };
        self.node_has_a_name(&api);
        if let Some(listen) = api.door()
            && !listen.ip().is_loopback()
            && api.tls.is_none()
        {
            self.warnings.push(format!(
                "api.listen = {listen}: other machines can reach it, and keys and credentials \
                 travel in clear; give api.tls a certificate, or listen on 127.0.0.1 behind a \
                 proxy that speaks TLS"
            ));
        }
        api
    }

    /// A credential that is pinned to a node is good on no other, and on none that has no name.
    fn node_has_a_name(&mut self, api: &Api) {
        let Some(first) = api.nodes.first() else {
            return;
        };
        match &api.node {
            None => {
                let fault = Fault::new(
                    "with api.nodes, credentials are pinned to one of them, and this server is none",
                    format!("write this node's id, such as \"{}\"", first.id),
                );
                self.refuse(&Key::new("api", "node"), fault);
            }
            Some(node) if api.nodes.iter().all(|other| other.id != *node) => {
                self.warnings.push(format!(
                    "api.nodes does not list api.node = {node}: this server mints for the others and \
                     takes nothing that they mint"
                ));
            }
            Some(_) => {}
        }
    }

    fn api_keys(&mut self, typed: &[file::ApiKey]) -> Vec<ApiKey> {
        let mut ids = BTreeSet::new();
        let mut keys: Vec<ApiKey> = Vec::new();
        for (index, typed) in typed.iter().enumerate() {
            let key = Key::new("api", "keys").at(index);
            let id = match label(&typed.id) {
                Ok(id) => id,
                Err(fault) => {
                    self.refuse(&key.entry("id"), fault);
                    continue;
                }
            };
            if !ids.insert(id.clone()) {
                let fault = Fault::new("two keys have this id", "give each its own");
                self.refuse(&key.entry("id"), fault);
            }
            let scopes = self.list(&key.entry("scopes"), &typed.scopes, scope);
            if typed.scopes.is_empty() {
                let fault = Fault::new(
                    "a key without a scope is good for nothing",
                    "write some of \"mint\", \"read\" and \"revoke\"",
                );
                self.refuse(&key.entry("scopes"), fault);
            }
            let (at, value) = match (&typed.file, &typed.value) {
                (Some(path), None) => {
                    let value = read_secret(Path::new(path), &mut self.warnings);
                    (key.entry("file"), value)
                }
                (None, Some(value)) => (key.entry("value"), Ok(value.clone())),
                (Some(_), Some(_)) => {
                    let fault = Fault::new("it has a file and a value", "keep one of them");
                    (key, Err(fault))
                }
                (None, None) => {
                    let fault = Fault::new("it has neither file nor value", "name a file");
                    (key, Err(fault))
                }
            };
            let scopes: Scopes = scopes.into_iter().collect();
            let value = value.and_then(|value| strong(value.expose_secret(), &id, scopes));
            match value {
                Ok(one) if keys.iter().any(|other| other.reads_as(&one)) => {
                    let fault = Fault::new("two ids have the same key", "make one for each");
                    self.refuse(&at, fault);
                }
                Ok(one) => keys.push(one),
                Err(fault) => self.refuse_secret(&at, fault, typed.file.as_deref()),
            }
        }
        keys
    }

    fn api_tls(&mut self, typed: &file::ApiTls) -> Option<ApiTls> {
        let key = |name| Key::new("api", "tls").entry(name);
        if typed.cert.is_empty() && typed.key.is_empty() {
            if !typed.client_ca.is_empty() {
                let fault = Fault::new(
                    "clients' certificates are asked for within TLS, and there is none",
                    "name cert and key too",
                );
                self.refuse(&key("client_ca"), fault);
            }
            return None;
        }
        if typed.key.contains("-----BEGIN") {
            let fault = Fault::new(
                "it is a key, not the path of a file with one",
                "write the key to a file that only taciturn may read, and name that",
            );
            self.refuse(&key("key"), fault);
            if let Some(problem) = self.problems.last_mut() {
                problem.value = None;
            }
            return None;
        }
        for (name, value) in [("cert", &typed.cert), ("key", &typed.key)] {
            if value.is_empty() {
                let fault = Fault::new("it is missing", "name both cert and key");
                self.refuse(&key(name), fault);
                return None;
            }
        }
        let files = KeyFiles {
            cert: PathBuf::from(&typed.cert),
            key: PathBuf::from(&typed.key),
        };
        let keys = match TlsKeys::load(vec![files]) {
            Ok(keys) => Arc::new(keys),
            Err(errors) => {
                for error in errors {
                    self.refuse_api_tls(error);
                }
                return None;
            }
        };
        let clients = match typed.client_ca.as_str() {
            "" => None,
            path => match client_authorities(Path::new(path)) {
                Ok(authorities) => Some(authorities),
                Err(reason) => {
                    let fault = Fault::new(
                        reason,
                        "name a PEM file with the certificates of those who issue your clients'",
                    );
                    self.refuse(&key("client_ca"), fault);
                    None
                }
            },
        };
        Some(ApiTls { keys, clients })
    }

    fn refuse_api_tls(&mut self, error: TlsError) {
        let key = |name| Key::new("api", "tls").entry(name);
        let (key, fault) = match error {
            TlsError::File {
                part,
                reason,
                remedy,
                ..
            } => match part {
                Part::Certificate => (key("cert"), Fault::new(reason, remedy)),
                Part::Key => (key("key"), Fault::new(reason, remedy)),
            },
            TlsError::Nothing | TlsError::Setup(_) => {
                let fault = Fault::new(error.to_string(), "compare config/taciturn.toml");
                (key("cert"), fault)
            }
        };
        self.refuse(&key, fault);
    }

    fn nodes(&mut self, typed: &[file::ApiNode]) -> Vec<Node> {
        let mut nodes: Vec<Node> = Vec::new();
        for (index, typed) in typed.iter().enumerate() {
            let key = Key::new("api", "nodes").at(index);
            let id = match label(&typed.id) {
                Ok(id) => id,
                Err(fault) => {
                    self.refuse(&key.entry("id"), fault);
                    continue;
                }
            };
            if nodes.iter().any(|other| other.id == id) {
                let fault = Fault::new("two nodes have this id", "give each its own");
                self.refuse(&key.entry("id"), fault);
            }
            let urls = self.list(&key.entry("urls"), &typed.urls, url);
            if typed.urls.is_empty() {
                let fault = Fault::new(
                    "no client could reach it",
                    "list its URLs, such as \"turn:a.example.org:3478?transport=udp\"",
                );
                self.refuse(&key.entry("urls"), fault);
            }
            nodes.push(Node {
                id,
                urls,
                drained: typed.drained,
            });
        }
        nodes
    }

    /// All are TCP.
    pub(super) fn api_apart_from_listeners(&mut self, api: &Api, admin: &Admin, listen: &Listen) {
        let Some(own) = api.door() else { return };
        let others = listen.tcp.iter().chain(&listen.tls).chain(&admin.listen);
        let mut others = others.copied();
        if let Some(taken) = others.find(|other| super::listen::meet(own, *other)) {
            let fault = Fault::new(
                format!("{taken} is listened on already, and both would be on one TCP port"),
                "give one of them another port",
            );
            self.refuse(&Key::new("api", "listen"), fault);
        }
    }

    pub(super) fn control(&mut self, typed: &file::Control) -> Control {
        let key = Key::new("control", "socket");
        let socket = match typed.socket.as_str() {
            "" | "off" => Ok(None),
            // sun_path has 108 bytes, its end included.
            text if text.len() > 107 || text.chars().any(char::is_control) => Err(Fault::new(
                "no path for a socket",
                "write a path of at most 107 bytes, such as \"/run/taciturn/control.sock\", or \
                 \"off\"",
            )),
            text => Ok(Some(PathBuf::from(text))),
        };
        Control {
            socket: self.parse(&key, socket, None),
            is_configured: typed.socket != file::Control::default().socket,
        }
    }
}

impl ApiTls {
    /// Whether clients are asked for the certificates of the same issuers, if for any.
    pub(crate) fn asks_as(&self, other: &Self) -> bool {
        let roots = |tls: &Self| tls.clients.as_ref().map(|clients| clients.roots.clone());
        roots(self) == roots(other)
    }
}

impl Api {
    /// Where the API listens: nowhere while there is neither a key nor an authority for clients'
    /// certificates, since nobody could be let in.
    #[must_use]
    pub fn door(&self) -> Option<SocketAddr> {
        let asks_for_certificates = self.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        self.listen
            .filter(|_| !self.keys.is_empty() || asks_for_certificates)
    }
}

fn strong(value: &str, id: &Label, scopes: Scopes) -> Result<ApiKey, Fault> {
    let plain = |c: char| c.is_ascii_graphic();
    if value.len() < SHORTEST {
        Err(Fault::new(
            format!("the key is shorter than {SHORTEST} characters and could be guessed"),
            "make one with: openssl rand -base64 32",
        ))
    } else if !value.chars().all(plain) {
        Err(Fault::new(
            "the key has characters that cannot stand in a header",
            "make one with: openssl rand -base64 32",
        ))
    } else {
        Ok(ApiKey::new(id.as_str(), value, scopes))
    }
}

fn label(text: &str) -> Result<Label, Fault> {
    Label::new(text).ok_or_else(|| {
        Fault::new(
            "it needs an id that can stand in logs",
            "use 1 to 32 letters, digits, '-', '_' or '.', such as \"backend\"",
        )
    })
}

fn scope(text: &str) -> Result<Scope, Fault> {
    let found = Scope::ALL.into_iter().find(|scope| scope.label() == text);
    let remedy = "write \"mint\", \"read\" or \"revoke\"";
    found.ok_or_else(|| Fault::new("no such scope", remedy))
}

fn adapter(text: &str) -> Result<Adapter, Fault> {
    let mut all = Adapter::ALL.into_iter();
    let found = all.find(|adapter| adapter.label() == text);
    found.ok_or_else(|| {
        let names = Adapter::ALL.map(|adapter| format!("\"{}\"", adapter.label()));
        Fault::new("no such adapter", format!("write {}", names.join(", ")))
    })
}
