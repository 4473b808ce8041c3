//! From what was typed to what it means; every problem is collected, not the first.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::error::Problem;
use super::file::{self, File, TextOr};
use super::key::Key;
use super::parse::{self, Fault};
use super::sources::Layers;
use super::{
    Admin, Auth, Channels, Compat, FleetNode, Log, LogFormat, Metrics, Peers, Policy,
    ProxyProtocol, Public, Settings, State, Workers,
};
use crate::turn::policy::PeerPolicy;

mod alternate;
mod api;
mod events;
mod features;
mod limits;
mod listen;
mod relay;
mod secrets;
mod tls;

pub(super) use self::listen::under_relay_ports;
pub(super) use self::relay::external_fits;
pub(super) use self::secrets::read_secret;

/// RFC 8489 §14.9 allows 127 characters; with 44 bytes a 401 stays within 128.
const MAX_REALM: usize = 44;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(31_557_600);

/// The outcome; settings only when nothing was wrong.
pub(super) struct Checked {
    pub(super) settings: Option<Settings>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

/// Checks everything that was typed.
pub(super) fn check(file: File, layers: &Layers) -> Checked {
    let mut checker = Checker {
        layers,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let c = &mut checker;
    let realm = c.parse(&Key::top("realm"), realm(file.realm), String::new());
    let public = c.public(file.public);
    let listen = c.listen(&file.listen);
    let tls = c.tls(&file.tls, &listen);
    let proxy_protocol = c.proxy_protocol(&file.proxy_protocol);
    let listen_addresses: Vec<_> = listen.all().map(|(_, address)| address).collect();
    let relay = c.relay(&file.relay);
    c.listeners_apart_from_relay_ports(&listen, &relay);
    let auth = c.auth(file.auth);
    let policy = c.policy(file.policy, &relay.ports);
    let limits = c.limits(&file.limits);
    let admin = c.admin(&file.admin);
    c.admin_apart_from_listeners(&admin, &listen);
    let api = c.api(&file.api);
    c.api_apart_from_listeners(&api, &admin, &listen);
    let features = c.features(&file.features, &listen_addresses);
    let alternate = c.alternate(&file.alternate, &listen_addresses);
    c.nat_discovery_has_its_listeners(&features, &listen);
    let settings = Settings {
        realm,
        public,
        listen,
        tls,
        proxy_protocol,
        relay,
        auth,
        policy,
        limits,
        compat: c.compat(&file.compat),
        features,
        alternate,
        workers: c.workers(&file.workers),
        state: c.state(file.state),
        admin,
        metrics: Metrics {
            quality: file.metrics.quality,
        },
        api,
        control: c.control(&file.control),
        events: c.events(&file.events),
        log: c.log(&file.log),
    };
    Checked {
        settings: checker.problems.is_empty().then_some(settings),
        problems: checker.problems,
        warnings: checker.warnings,
    }
}

/// What is said of broken glass when the configuration is checked, at each start and each hour.
pub(crate) const SHOWN_ADDRESSES: &str = "log.show_addresses = true: the log shows the address of every client that allocates. Whoever \
     reads the log, or a copy of it, learns who called from where. Take the key out again as soon \
     as you know what you had to know, and delete that log";

struct Checker<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Checker<'_> {
    fn refuse(&mut self, key: &Key, fault: Fault) {
        let problem = self.layers.problem(key, fault.reason, fault.remedy);
        self.problems.push(problem);
    }

    /// The value, or after a refusal something of its type, so that checking can go on.
    fn parse<T>(&mut self, key: &Key, value: Result<T, Fault>, otherwise: T) -> T {
        value.unwrap_or_else(|fault| {
            self.refuse(key, fault);
            otherwise
        })
    }

    /// The elements of a list that make sense, each at most once.
    fn list<T: PartialEq>(
        &mut self,
        key: &Key,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match parse(text) {
                Ok(value) if values.contains(&value) => {
                    self.refuse(&key.at(index), Fault::new("it stands twice", "keep one"));
                }
                Ok(value) => values.push(value),
                Err(fault) => self.refuse(&key.at(index), fault),
            }
        }
        values
    }

    fn choice<T: Copy>(&mut self, key: &Key, text: &str, choices: &[(&str, T)], default: T) -> T {
        let found = choices.iter().find(|(name, _)| *name == text);
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        let value = found
            .map(|(_, value)| *value)
            .ok_or_else(|| Fault::new("no such choice", format!("write {}", names.join(" or "))));
        self.parse(key, value, default)
    }

    fn number<T: TryFrom<i64> + Copy>(&mut self, key: &Key, number: i64, most: i64, zero: T) -> T {
        let value = T::try_from(number)
            .ok()
            .filter(|_| (0..=most).contains(&number));
        let fault = || Fault::new("out of range", format!("write a number from 0 to {most}"));
        self.parse(key, value.ok_or_else(fault), zero)
    }

    fn duration(&mut self, key: &Key, text: &str, range: RangeInclusive<Duration>) -> Duration {
        let otherwise = *range.end();
        self.parse(key, parse::duration(text, range), otherwise)
    }

    fn public(&mut self, typed: file::Public) -> Public {
        let key = Key::new("public", "host");
        let host = self.parse(&key, host(&typed.host), None);
        let urls = self.list(&Key::new("public", "urls"), &typed.urls, url);
        Public { host, urls }
    }

    fn proxy_protocol(&mut self, typed: &file::ProxyProtocol) -> ProxyProtocol {
        let key = Key::new("proxy_protocol", "trusted");
        let trusted = self.list(&key, &typed.trusted, parse::network);
        if trusted.iter().any(|net| net.prefix_len() == 0) {
            self.warnings.push(
                "proxy_protocol.trusted names everybody: whoever connects may claim any client's \
                 address. Name the networks of your load balancers"
                    .to_owned(),
            );
        }
        ProxyProtocol { trusted }
    }

    fn auth(&mut self, typed: file::Auth) -> Auth {
        let key = |name| Key::new("auth", name);
        let none = typed.secrets.is_empty() && typed.users.is_empty();
        self.warn_of_a_readable_file();
        let secrets = self.secrets(&typed.secrets);
        let users = self.users(typed.users);
        if none && self.layers.file().is_some() {
            let fault = Fault::new(
                "neither secrets nor users are given, nobody could allocate",
                "write secrets = [{ id = \"1\", file = \"/etc/taciturn/secret\" }] under [auth], \
                 or set TACITURN_AUTH__SECRETS__FILE",
            );
            self.refuse(&Key::top("auth"), fault);
        }
        Auth {
            secrets,
            users,
            session_max: self.duration(&key("session_max"), &typed.session_max, SECOND..=YEAR),
            max_ttl: self.duration(&key("max_ttl"), &typed.max_ttl, MINUTE..=YEAR),
            strict: typed.strict,
        }
    }

    fn policy(&mut self, typed: file::Policy, own_ports: &RangeInclusive<u16>) -> Policy {
        let key = |name| Key::new("policy", name);
        let peers = self.peers(&key("peers"), &typed.peers);
        let ceiling = match &typed.ceiling {
            TextOr::Text(text) if text.is_empty() => peers.clone(),
            typed @ (TextOr::Text(_) | TextOr::Full(_)) => self.peers(&key("ceiling"), typed),
        };
        if !PeerPolicy::from(&peers).is_within(&PeerPolicy::from(&ceiling)) {
            let fault = Fault::new(
                "policy.peers is wider than that",
                "choose a ceiling that admits what peers does, or leave it out",
            );
            self.refuse(&key("ceiling"), fault);
        }
        let mut fleet: Vec<FleetNode> = Vec::new();
        for (index, node) in typed.fleet.into_iter().enumerate() {
            if let Some(node) = self.fleet_node(&key("fleet").at(index), node, own_ports) {
                if fleet.iter().any(|known| known.addr == node.addr) {
                    let fault = Fault::new("this node stands twice", "keep one");
                    self.refuse(&key("fleet").at(index), fault);
                }
                fleet.push(node);
            }
        }
        Policy {
            peers,
            ceiling,
            fleet,
            allow: self.list(&key("allow"), &typed.allow, opened),
            deny: self.list(&key("deny"), &typed.deny, parse::network),
        }
    }

    fn peers(&mut self, key: &Key, typed: &TextOr<Vec<String>>) -> Peers {
        let remedy = "write \"call\", \"relay\", \"any\" or a list of networks";
        let fault = match typed {
            TextOr::Text(text) if text == "relay" => return Peers::Relay,
            TextOr::Text(text) if text == "any" => return Peers::Any,
            TextOr::Text(text) if text == "call" => return Peers::Call,
            TextOr::Text(_) => Fault::new("no such policy", remedy),
            TextOr::Full(list) if list.is_empty() => Fault::new("the list is empty", remedy),
            TextOr::Full(list) => return Peers::Networks(self.list(key, list, opened)),
        };
        self.refuse(key, fault);
        Peers::Relay
    }

    fn fleet_node(
        &mut self,
        key: &Key,
        typed: TextOr<file::FleetNode>,
        own_ports: &RangeInclusive<u16>,
    ) -> Option<FleetNode> {
        let (node, addr_key) = match typed {
            TextOr::Full(node) => (node, key.entry("addr")),
            TextOr::Text(addr) => (
                file::FleetNode {
                    addr,
                    seen_as: None,
                    ports: None,
                },
                key.clone(),
            ),
        };
        let addr = match parse::host_address(&node.addr) {
            Ok(addr) => Some(addr),
            Err(fault) => {
                self.refuse(&addr_key, fault);
                None
            }
        };
        let seen_as = node.seen_as.as_deref().map(parse::host_address).transpose();
        let seen_as = match (seen_as, addr) {
            (Ok(Some(seen_as)), Some(addr)) if seen_as.is_ipv4() != addr.is_ipv4() => {
                Err(Fault::new(
                    "not of the same family as addr",
                    "write an address of addr's family",
                ))
            }
            (Ok(seen_as), addr) => Ok(seen_as.or(addr)),
            (Err(fault), _) => Err(fault),
        };
        let seen_as = self.parse(&key.entry("seen_as"), seen_as, addr);
        let ports = node
            .ports
            .as_deref()
            .map_or_else(|| Ok(own_ports.clone()), parse::ports);
        let ports = self.parse(&key.entry("ports"), ports, own_ports.clone());
        Some(FleetNode {
            addr: addr?,
            seen_as: seen_as?,
            ports,
        })
    }

    fn compat(&mut self, typed: &file::Compat) -> Compat {
        let choices = [
            ("rfc8656", Channels::Rfc8656),
            ("rfc5766", Channels::Rfc5766),
        ];
        let key = Key::new("compat", "channels");
        Compat {
            channels: self.choice(&key, &typed.channels, &choices, Channels::Rfc8656),
        }
    }

    fn workers(&mut self, typed: &file::Workers) -> Workers {
        let count = self.number(&Key::new("workers", "count"), typed.count, 1024, 0);
        let streams = self.number(&Key::new("workers", "streams"), typed.streams, 64, 0);
        Workers {
            count: (count > 0).then_some(count),
            streams: (streams > 0).then_some(streams),
        }
    }

    fn state(&mut self, typed: file::State) -> State {
        let dir = if typed.dir.chars().any(char::is_control) {
            Err(Fault::new(
                "a path without control characters is wanted",
                "name a directory",
            ))
        } else {
            Ok((!typed.dir.is_empty()).then(|| PathBuf::from(typed.dir)))
        };
        State {
            dir: self.parse(&Key::new("state", "dir"), dir, None),
        }
    }

    fn admin(&mut self, typed: &file::Admin) -> Admin {
        let listen = match typed.listen.as_str() {
            "" | "off" => Ok(None),
            text => parse::listener(text).map(Some).map_err(|fault| {
                Fault::new(
                    fault.reason,
                    "write an address such as \"127.0.0.1:9641\", or \"off\"",
                )
            }),
        };
        let listen = self.parse(&Key::new("admin", "listen"), listen, None);
        if let Some(address) = listen
            && !address.ip().is_loopback()
        {
            self.warnings.push(format!(
                "admin.listen = {address}: other machines can reach it, and it asks for no \
                 password; see to it that only your monitoring does"
            ));
        }
        Admin { listen }
    }

    fn log(&mut self, typed: &file::Log) -> Log {
        use tracing::Level;
        let formats = [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
        ];
        let levels = [
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ];
        if typed.show_addresses {
            self.warnings.push(SHOWN_ADDRESSES.to_owned());
        }
        Log {
            format: self.choice(
                &Key::new("log", "format"),
                &typed.format,
                &formats,
                LogFormat::Auto,
            ),
            level: self.choice(
                &Key::new("log", "level"),
                &typed.level,
                &levels,
                Level::INFO,
            ),
            pseudonym_days: self.number(
                &Key::new("log", "pseudonym_days"),
                typed.pseudonym_days,
                365,
                7,
            ),
            show_addresses: typed.show_addresses,
        }
    }
}

fn realm(text: String) -> Result<String, Fault> {
    if text.is_empty() {
        Err(Fault::new("the realm is empty", "write your domain"))
    } else if text.len() > MAX_REALM {
        Err(Fault::new(
            "the realm is too long",
            format!("use at most {MAX_REALM} bytes"),
        ))
    } else if text
        .chars()
        .any(|c| c.is_control() || c == '"' || c == '\\')
    {
        // RFC 8489 §14.9: the text stands between quotes in other protocols.
        Err(Fault::new(
            "the realm has a quote, a backslash or a control character",
            "write your domain",
        ))
    } else {
        Ok(text)
    }
}

fn host(text: &str) -> Result<Option<String>, Fault> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if text.is_empty() {
        Ok(None)
    } else if bare.parse::<IpAddr>().is_ok()
        || (bare == text && text.len() <= 253 && text.split('.').all(label))
    {
        Ok(Some(bare.to_owned()))
    } else {
        Err(Fault::new(
            "not a host name or address",
            "write the name alone, such as \"turn.example.org\"; the port is the listener's",
        ))
    }
}

fn url(text: &str) -> Result<String, Fault> {
    let schemes = ["turn:", "turns:", "stun:", "stuns:"];
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    let sound = |rest: &str| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && text.len() <= 512
            && text
                .chars()
                .all(|c| c.is_ascii_graphic() && c != '"' && c != '\\')
    };
    match rest {
        // RFC 7065 §3.1
        Some(rest) if sound(rest) => Ok(text.to_owned()),
        _ => Err(Fault::new(
            "not a TURN URL",
            "write one such as \"turn:turn.example.org:3478?transport=udp\"",
        )),
    }
}

/// A network that is opened in spite of the deny registry.
fn opened(text: &str) -> Result<IpNet, Fault> {
    let net = parse::network(text)?;
    if net.prefix_len() == 0 {
        return Err(Fault::new(
            "the whole address space, private networks and this machine included",
            "name the networks that are meant; peers = \"any\" opens all but the denied ones",
        ));
    }
    Ok(net)
}
