//! coturn's `turnserver.conf`: what each of its options means here.
//!
//! Its defaults count too: an option that is not written has coturn's value, and where ours differs
//! that is said. Sources: `turnserver(1)` and the comments of Debian's `/etc/turnserver.conf` (4.6).

mod left;
mod network;
mod options;
mod ranges;
#[cfg(test)]
mod tests;
mod toml;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use options::Options;
use ranges::Range;
use toml::{Document, list, text};

/// The longest realm, as in our configuration.
const MAX_REALM: usize = 44;

/// Our configuration, and what is to be said about it.
pub(super) struct Imported {
    pub(super) config: String,
    pub(super) notes: Vec<Note>,
}

/// What an operator should know of one of coturn's options.
pub(super) struct Note {
    option: String,
    line: Option<usize>,
    why: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}: {}", self.option, self.why),
            None => write!(f, "{}: {}", self.option, self.why),
        }
    }
}

/// Translates `text`.
pub(super) fn import(text: &str) -> Imported {
    let mut import = Import {
        options: Options::parse(text),
        notes: Vec::new(),
        document: Document::default(),
        used: BTreeSet::new(),
    };
    import.realm();
    import.listeners();
    import.relay();
    import.auth();
    import.policy();
    import.limits();
    import.rest();
    import.leave();
    import
        .notes
        .sort_by_key(|note| note.line.unwrap_or(usize::MAX));
    Imported {
        config: import.document.to_string(),
        notes: import.notes,
    }
}

struct Import {
    options: Options,
    notes: Vec<Note>,
    document: Document,
    /// Options that were looked at.
    used: BTreeSet<&'static str>,
}

impl Import {
    fn note(&mut self, option: &str, why: impl Into<String>) {
        self.notes.push(Note {
            line: self.options.line(option),
            option: option.to_owned(),
            why: why.into(),
        });
    }

    fn has(&mut self, option: &'static str) -> bool {
        self.used.insert(option);
        self.options.is_set(option)
    }

    fn all(&mut self, option: &'static str) -> Vec<String> {
        self.used.insert(option);
        self.options.all(option)
    }

    fn last(&mut self, option: &'static str) -> Option<String> {
        self.all(option).pop()
    }

    /// The number an option is set to; coturn takes 0 for none.
    fn number(&mut self, option: &'static str) -> Option<u64> {
        let text = self.last(option)?;
        match text.parse() {
            Ok(0) => None,
            Ok(number) => Some(number),
            Err(_) => {
                self.note(option, "its value is no number, so it is left out");
                None
            }
        }
    }

    fn realm(&mut self) {
        let Some(realm) = self.last("realm") else {
            return;
        };
        let fits = (1..=MAX_REALM).contains(&realm.len())
            && !realm
                .chars()
                .any(|c| c.is_control() || c == '"' || c == '\\');
        if fits {
            self.document.top("realm", text(&realm));
        } else {
            self.note(
                "realm",
                "a realm here has 1 to 44 bytes without quotes, so choose another",
            );
        }
    }

    fn auth(&mut self) {
        let secrets = self.all("static-auth-secret");
        let uses_secrets = self.has("use-auth-secret") || !secrets.is_empty();
        let separator = self.last("rest-api-separator");
        if separator.is_some_and(|separator| separator != ":") {
            self.note(
                "rest-api-separator",
                "time-limited usernames here are written with a colon, so the backend that mints \
                 them must change",
            );
        }
        let secrets: Vec<String> = (1..)
            .zip(&secrets)
            .map(|(number, secret)| {
                format!("{{ id = \"coturn-{number}\", value = {} }}", text(secret))
            })
            .collect();
        if !secrets.is_empty() {
            self.document
                .set("auth", "secrets", format!("[{}]", secrets.join(", ")));
        } else if uses_secrets {
            self.note(
                "use-auth-secret",
                "its secret is in coturn's database; write it as auth.secrets = [{ id = \"1\", \
                 file = \"…\" }]",
            );
        }
        let users = self.users();
        if !users.is_empty() && uses_secrets {
            self.note(
                "user",
                "coturn ignores its users beside secrets; here both count",
            );
        }
        if self.has("no-auth") {
            self.note("no-auth", "nobody is served here without a credential");
        }
        self.has("lt-cred-mech");
        if !users.is_empty() {
            self.document.set("auth", "users", toml::table(&users));
        } else if secrets.is_empty() {
            self.note(
                "lt-cred-mech",
                "there is neither a secret nor a user, so taciturn will refuse to start: add one \
                 under [auth]",
            );
        }
    }

    fn users(&mut self) -> Vec<(String, String)> {
        let mut users: Vec<(String, String)> = Vec::new();
        for value in self.all("user") {
            let user = value.split_once(':').filter(|(name, password)| {
                !name.is_empty()
                    && !name.starts_with('~')
                    && !password.is_empty()
                    && !password.contains(':')
            });
            match user {
                Some((_, password)) if is_hashed(password) => self.note(
                    "user",
                    "one of them is kept as a hash of its password, which is wanted in clear here",
                ),
                Some((name, _)) if users.iter().any(|(known, _)| known == name) => {
                    self.note("user", "one of them stands twice; the first is taken");
                }
                Some((name, password)) => users.push((name.to_owned(), password.to_owned())),
                None => self.note("user", "one of them is not name:password and is left out"),
            }
        }
        users
    }

    fn policy(&mut self) {
        self.document.set("policy", "peers", text("any"));
        self.note(
            "policy.peers",
            "coturn relays to everybody, so it is \"any\" here. With \"relay\", the default of \
             taciturn, parties reach each other's relayed addresses alone, and neither learns the \
             other's address: change it if all clients only relay",
        );
        let allowed = self.ranges("allowed-peer-ip");
        let denied = self.ranges("denied-peer-ip");
        // In coturn what is allowed wins over what is denied.
        let denied = ranges::without(denied, &allowed);
        let mut allow = ranges::networks(&allowed);
        if self.has("allow-loopback-peers") {
            allow.extend(["127.0.0.0/8".to_owned(), "::1/128".to_owned()]);
        }
        if !allow.is_empty() {
            self.document.set("policy", "allow", list(&allow));
        }
        let deny = ranges::networks(&denied);
        if !deny.is_empty() {
            self.document.set("policy", "deny", list(&deny));
        }
        self.note(
            "denied-peer-ip",
            "beyond what it lists, loopback, private, link-local and all other special-purpose \
             networks are denied here by default; policy.allow opens what is needed",
        );
        if !self.has("no-multicast-peers") {
            self.note("no-multicast-peers", "multicast is never relayed to here");
        }
    }

    fn ranges(&mut self, option: &'static str) -> Vec<Range> {
        let mut ranges = Vec::new();
        for value in self.all(option) {
            match Range::parse(&value) {
                Some(range) => ranges.push(range),
                None => self.note(option, "one of its values is no address or range; left out"),
            }
        }
        ranges
    }

    fn limits(&mut self) {
        for (option, key) in [
            ("user-quota", "user_allocations"),
            ("total-quota", "total_allocations"),
        ] {
            if let Some(number) = self.number(option) {
                self.document.set("limits", key, number.to_string());
            }
        }
        if let Some(bytes) = self.number("max-bps") {
            let bits = bytes.saturating_mul(8);
            self.document
                .set("limits", "allocation_rate", text(&format!("{bits}bit/s")));
            self.note(
                "max-bps",
                "bytes each way in coturn, bits of both ways together here",
            );
        }
        if let Some(seconds) = self.number("max-allocate-lifetime") {
            let within = seconds.clamp(60, 86_400);
            self.document
                .set("limits", "allocation_lifetime", text(&format!("{within}s")));
        }
        if let Some(rate) = self.number("unauthorized-ratelimit-rps") {
            let rate = rate.min(1_000_000);
            self.document
                .set("limits", "unvalidated", text(&format!("{rate}/s")));
        }
    }

    fn rest(&mut self) {
        let binding = match (self.has("no-stun"), self.has("secure-stun")) {
            (true, _) => Some("off"),
            (false, true) => Some("authenticated"),
            (false, false) => None,
        };
        if let Some(binding) = binding {
            self.document.set("features", "binding", text(binding));
        }
        if self.has("mobility") {
            self.document.set("features", "mobility", "true".to_owned());
        }
        if !self.has("no-tcp-relay") {
            self.note(
                "no-tcp-relay",
                "without it coturn relays TCP (RFC 6062); here that is off unless \
                 features.tcp_relay = true",
            );
        }
        let servers: Vec<String> = self
            .all("alternate-server")
            .into_iter()
            .map(|server| {
                if server.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) {
                    format!("{server}:3478")
                } else {
                    server
                }
            })
            .collect();
        if servers
            .iter()
            .any(|server| server.parse::<SocketAddr>().is_err())
        {
            self.note(
                "alternate-server",
                "one of its values is no address with a port",
            );
        }
        let servers: Vec<String> = servers
            .into_iter()
            .filter(|server| server.parse::<SocketAddr>().is_ok())
            .collect();
        if !servers.is_empty() {
            self.document.set("alternate", "servers", list(&servers));
            self.document.set("alternate", "redirect", text("always"));
        }
        if let Some(threads) = self.number("relay-threads") {
            self.document
                .set("workers", "count", threads.min(1_024).to_string());
        }
        self.metrics();
        if self.has("verbose") || self.has("Verbose") {
            self.document.set("log", "level", text("debug"));
        }
    }

    fn metrics(&mut self) {
        let port = self.port("prometheus-port", 9_641);
        let address = self.last("prometheus-address");
        if self.has("prometheus") {
            let ip = address.and_then(|address| address.parse::<IpAddr>().ok());
            let listen = SocketAddr::new(ip.unwrap_or_else(|| [127, 0, 0, 1].into()), port);
            self.document
                .set("admin", "listen", text(&listen.to_string()));
            if ip.is_none() {
                self.note(
                    "prometheus",
                    "coturn serves metrics to everybody; here they are for this machine alone \
                     unless admin.listen says otherwise",
                );
            }
        } else {
            self.document.set("admin", "listen", text("off"));
        }
    }

    /// Everything that was written and not looked at.
    fn leave(&mut self) {
        for option in self.options.names() {
            if self.used.contains(option.as_str()) || !self.options.is_set(&option) {
                continue;
            }
            let why = left::why(&option).unwrap_or(
                "this importer does not know it; see config/taciturn.toml for what there is",
            );
            self.note(&option, why);
        }
        for line in self.options.unread().to_vec() {
            self.notes.push(Note {
                option: "turnserver.conf".to_owned(),
                line: Some(line),
                why: "this line is no option".to_owned(),
            });
        }
    }
}

/// `turnadmin -k` makes keys, which are MD5 or SHA-256 in hexadecimal behind `0x`.
fn is_hashed(password: &str) -> bool {
    password
        .strip_prefix("0x")
        .is_some_and(|digits| digits.len() >= 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
