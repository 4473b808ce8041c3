//! Settings: what the operator wants, checked.
//!
//! `file` holds what was typed, [`Settings`] what it means. [`load`] merges the embedded defaults,
//! the configuration file, the environment and the flags, in this order, and either returns
//! settings that make sense or every problem it found, each with its source, key, value and
//! remedy. Nothing here opens a socket or asks the machine for its addresses, and no output of
//! this module holds a secret. `config/taciturn.toml` lists every key.

mod check;
mod environment;
mod error;
mod file;
mod key;
mod layers;
mod parse;
mod reload;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use figment::value::{Dict, Value};
use ipnet::IpNet;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};

use crate::admin::api::{Adapter, ApiKey, Node};
use crate::dataplane::tls::TlsKeys;
use crate::turn::credential::Label;
use crate::turn::{BindingRules, Redirect, Transport};

pub(crate) use self::check::SHOWN_ADDRESSES;
pub use self::error::{Error, Problem};
pub use self::layers::{Keys, Machine};
pub use self::sources::{Flags, Sources};

/// What [`load`] returns.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is not wrong but deserves a line in the log.
    pub warnings: Vec<String>,
}

/// Everything an operator can decide.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The realm of the long-term credential mechanism, at most 44 bytes.
    pub realm: String,
    /// What clients are told about where we are.
    pub public: Public,
    /// Where clients reach us.
    pub listen: Listen,
    /// The certificates of TLS and DTLS.
    pub tls: Tls,
    /// Load balancers that say for whom they speak.
    pub proxy_protocol: ProxyProtocol,
    /// Relayed transport addresses.
    pub relay: Relay,
    /// Who may allocate.
    pub auth: Auth,
    /// With whom an allocation may exchange packets.
    pub policy: Policy,
    /// How much is too much.
    pub limits: Limits,
    /// Deviations for the sake of old clients.
    pub compat: Compat,
    /// What of STUN and its extensions is served.
    pub features: Features,
    /// Other servers.
    pub alternate: Alternate,
    /// The data plane's threads.
    pub workers: Workers,
    /// What outlives the process.
    pub state: State,
    /// HTTP for operators.
    pub admin: Admin,
    /// What is measured, and told of by the admin listener.
    pub metrics: Metrics,
    /// HTTP for the platform.
    pub api: Api,
    /// The way of the command line to the daemon.
    pub control: Control,
    /// What a platform hears of.
    pub events: Events,
    /// The log.
    pub log: Log,
}

/// `[public]`
#[derive(Clone, Debug)]
pub struct Public {
    /// The name or address that minted URLs carry; an IPv6 address without brackets.
    pub host: Option<String>,
    /// The URLs themselves, instead of one made from `host`.
    pub urls: Vec<String>,
}

/// `[listen]`
#[derive(Clone, Debug)]
pub struct Listen {
    /// UDP listeners, at least one.
    pub udp: Vec<SocketAddr>,
    /// TCP listeners.
    pub tcp: Vec<SocketAddr>,
    /// TLS listeners; one that is a TCP listener too is both.
    pub tls: Vec<SocketAddr>,
    /// DTLS listeners, none of them a UDP listener.
    pub dtls: Vec<SocketAddr>,
    /// SO_RCVBUF of each listener's socket, in bytes.
    pub receive_buffer: usize,
}

impl Listen {
    /// The listeners of one transport.
    #[must_use]
    pub fn of(&self, transport: Transport) -> &[SocketAddr] {
        match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
            Transport::Tls => &self.tls,
            Transport::Dtls => &self.dtls,
        }
    }

    /// Every listener with its transport.
    pub fn all(&self) -> impl Iterator<Item = (Transport, SocketAddr)> + '_ {
        Transport::ALL.into_iter().flat_map(|transport| {
            let listeners = self.of(transport).iter();
            listeners.map(move |address| (transport, *address))
        })
    }
}

/// `[tls]`
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificates and keys, read and found good; there when a TLS or DTLS listener is.
    pub keys: Option<Arc<TlsKeys>>,
}

/// `[proxy_protocol]`
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// Networks whose PROXY protocol headers are believed; empty, and there are none.
    pub trusted: Vec<IpNet>,
}

/// `[relay]`
#[derive(Clone, Debug)]
pub struct Relay {
    /// Addresses to relay from; when empty, those of the default route, else loopback.
    pub addresses: Vec<IpAddr>,
    /// What clients are told instead of those, behind 1:1 NAT.
    pub external: External,
    /// Ports to relay from.
    pub ports: RangeInclusive<u16>,
    /// When a relayed address gets a socket.
    pub bind: RelayBind,
    /// How long a freed port rests.
    pub port_rest: Duration,
    /// SO_RCVBUF of each relay socket, in bytes.
    pub receive_buffer: usize,
    /// The DSCP of all packets sent, at most 63.
    pub dscp: u8,
}

impl Relay {
    /// The addresses to relay from and what clients are told of each: `addresses`, or when none
    /// was configured `found`, those that this machine has.
    ///
    /// # Errors
    ///
    /// When `relay.external` does not fit the addresses found.
    pub fn resolve(&self, found: &[IpAddr]) -> Result<Vec<RelayAddress>, Error> {
        let addresses = if self.addresses.is_empty() {
            found
        } else {
            &self.addresses
        };
        check::external_fits(&self.external, addresses)?;
        let pair = |&address| RelayAddress {
            address,
            external: self.external.of(address),
        };
        Ok(addresses.iter().map(pair).collect())
    }
}

/// One address to relay from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// What sockets are bound to.
    pub address: IpAddr,
    /// What clients are told; the same unless there is NAT between.
    pub external: IpAddr,
}

/// `relay.external`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum External {
    /// No NAT.
    Same,
    /// One address, for the relay address of its family.
    One(IpAddr),
    /// Each relay address with its external one.
    Each(BTreeMap<IpAddr, IpAddr>),
}

impl External {
    /// What clients are told of the relay address `address`.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> IpAddr {
        match self {
            Self::One(external) if external.is_ipv4() == address.is_ipv4() => *external,
            Self::Same | Self::One(_) => address,
            Self::Each(map) => map.get(&address).copied().unwrap_or(address),
        }
    }
}

/// `relay.bind`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayBind {
    /// Only when a peer outside this process is permitted.
    Auto,
    /// With every allocation.
    Always,
}

/// `[auth]`
#[derive(Clone, Debug)]
pub struct Auth {
    /// Secrets shared with the platform's backend, for time-limited credentials.
    pub secrets: Vec<Secret>,
    /// Static users and their passwords.
    pub users: BTreeMap<String, SecretString>,
    /// How long an allocation may be refreshed after its credential was first used.
    pub session_max: Duration,
    /// The longest that a credential may last; those that last longer are refused.
    pub max_ttl: Duration,
    /// Whether an allocation ends when its credential expires.
    pub strict: bool,
}

impl Auth {
    /// Whether nobody could allocate. [`load`] lets this pass only without a configuration file,
    /// for a daemon that then makes a secret for this run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.users.is_empty()
    }
}

/// A secret shared with the platform's backend.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Its name in rotation, logs and metrics.
    pub id: String,
    /// The secret.
    pub value: SecretString,
}

/// `[policy]`
#[derive(Clone, Debug)]
pub struct Policy {
    /// Who may be a peer, where a credential says nothing of that.
    pub peers: Peers,
    /// The most that a credential may claim, no narrower than `peers`.
    pub ceiling: Peers,
    /// Our other nodes.
    pub fleet: Vec<FleetNode>,
    /// Networks opened in spite of the deny registry.
    pub allow: Vec<IpNet>,
    /// Networks closed in addition to it.
    pub deny: Vec<IpNet>,
}

/// `policy.peers`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Relayed addresses of this server whose allocation is of the same call.
    Call,
    /// Relayed addresses of this server and of the fleet.
    Relay,
    /// Everybody outside the deny registry.
    Any,
    /// Relayed addresses, and these networks.
    Networks(Vec<IpNet>),
}

/// Another node of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetNode {
    /// Its relayed addresses' IP, as its clients are told.
    pub addr: IpAddr,
    /// The IP its relayed packets come from as we see them.
    pub seen_as: IpAddr,
    /// Its relay ports.
    pub ports: RangeInclusive<u16>,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest lifetime an allocation gets at once, at least 60 s. Below the 600 s that RFC
    /// 8656 §7.2 gives to clients that ask for nothing, it shortens theirs too.
    pub allocation_lifetime: Duration,
    /// Allocations one user may hold at a time; `None` for no limit, here and below.
    pub user_allocations: Option<u32>,
    /// Allocations at a time of all credentials that name one tenant.
    pub tenant_allocations: Option<u32>,
    /// Allocations at a time.
    pub total_allocations: Option<u32>,
    /// Permissions of one allocation at a time, 1 to 1024.
    pub permissions: u16,
    /// Channels of one allocation at a time, 1 to 1024.
    pub channels: u16,
    /// What is relayed for each allocation, in either direction.
    pub allocation: Relaying,
    /// What is relayed for each user.
    pub user: Relaying,
    /// What is relayed for each tenant.
    pub tenant: Relaying,
    /// Allocate requests from one network, /24 or /48.
    pub prefix_allocates: Option<Rate>,
    /// Failed authentications from one network that are answered.
    pub prefix_failures: Option<Rate>,
    /// Replies to one source that has not proved its address.
    pub unvalidated: Rate,
}

/// How much may be relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relaying {
    /// Bits of payload a second.
    pub bits: Option<u64>,
    /// Packets.
    pub packets: Option<Rate>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back each second.
    pub per_second: u32,
    /// Tokens the bucket holds.
    pub burst: u32,
}

/// `[compat]`
#[derive(Clone, Debug)]
pub struct Compat {
    /// Which channel numbers may be bound.
    pub channels: Channels,
}

/// `compat.channels`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// 0x4000–0x4FFF, RFC 8656 §12.
    Rfc8656,
    /// 0x4000–0x7FFF, RFC 5766 §11.
    Rfc5766,
}

/// `[features]`
#[derive(Clone, Debug)]
pub struct Features {
    /// What becomes of Binding requests.
    pub binding: BindingRules,
    /// Whether TCP is relayed (RFC 6062).
    pub tcp_relay: bool,
    /// Whether an allocation may move to another 5-tuple (RFC 8016).
    pub mobility: bool,
    /// Whether NAT behaviour discovery is served (RFC 5780).
    pub nat_discovery: bool,
}

/// `[alternate]`
#[derive(Clone, Debug)]
pub struct Alternate {
    /// Other servers to send clients to.
    pub servers: Vec<SocketAddr>,
    /// When.
    pub redirect: Redirect,
}

/// `[workers]`
#[derive(Clone, Debug)]
pub struct Workers {
    /// UDP workers, at most 1024; `None` for one per core that this process may use.
    pub count: Option<u16>,
    /// Stream workers, at most 64; `None` for as many as UDP workers, up to 8.
    pub streams: Option<u16>,
}

/// `[state]`
#[derive(Clone, Debug)]
pub struct State {
    /// Where keys are kept; `None` and they live as long as the process.
    pub dir: Option<PathBuf>,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where HTTP listens; `None` for nowhere.
    pub listen: Option<SocketAddr>,
}

/// `[metrics]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How many allocations have series of their own, at most 100,000.
    pub allocations: u32,
    /// Whether metrics stand under coturn's names too.
    pub coturn_names: bool,
    /// Whether the quality of media is measured.
    pub quality: bool,
}

/// `[api]`
#[derive(Clone, Debug)]
pub struct Api {
    /// Where HTTP would listen; [`Api::door`] says whether it does.
    pub listen: Option<SocketAddr>,
    /// Who may ask for what.
    pub keys: Vec<ApiKey>,
    /// TLS, if it speaks that.
    pub tls: Option<ApiTls>,
    /// How often each key may ask.
    pub rate: Rate,
    /// How often a source without a good key may try.
    pub failures: Rate,
    /// Which other services' shapes are answered too.
    pub adapters: Vec<Adapter>,
    /// What this node is called.
    pub node: Option<Label>,
    /// Between which nodes calls are shared.
    pub nodes: Vec<Node>,
}

/// `api.tls`
#[derive(Clone, Debug)]
pub struct ApiTls {
    /// Certificate and key, read and found good.
    pub keys: Arc<TlsKeys>,
    /// Those who vouch for clients, if these are asked for certificates.
    pub clients: Option<Arc<RootCertStore>>,
}

/// `[control]`
#[derive(Clone, Debug)]
pub struct Control {
    /// Where the socket lies; `None` for nowhere.
    pub socket: Option<PathBuf>,
    /// Whether that is the operator's choice, so that the daemon does not start without it.
    pub is_configured: bool,
}

/// `[events]`
#[derive(Clone, Debug)]
pub struct Events {
    /// A file to which they are appended, a line each.
    pub file: Option<PathBuf>,
    /// Where they are posted.
    pub webhooks: Vec<Webhook>,
    /// How many may wait for the file, and for each URL.
    pub queue: usize,
    /// How often refused authentications are summed up.
    pub interval: Duration,
}

/// A URL to which events are posted.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The URL.
    pub url: String,
    /// What each delivery is signed with.
    pub secret: SecretString,
    /// Who vouches for the receiver's certificate, in the place of those whom this system trusts.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
}

impl PartialEq for Webhook {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
            && self.secret.expose_secret() == other.secret.expose_secret()
            && self.authorities == other.authorities
    }
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// The form of its lines.
    pub format: LogFormat,
    /// The least level that is written.
    pub level: tracing::Level,
    /// How many days the key of address pseudonyms is kept; 0 keeps none beyond its day.
    pub pseudonym_days: u16,
    /// Whether the log shows clients' addresses beside their pseudonyms.
    pub show_addresses: bool,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// The one that suits where the log goes.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// The URLs that a minted credential goes with, for a server that clients reach at `reached`;
    /// those addresses stand in when no `public.host` is configured.
    #[must_use]
    pub fn ice_urls(&self, reached: &[(Transport, SocketAddr)]) -> Vec<String> {
        if !self.public.urls.is_empty() {
            return self.public.urls.clone();
        }
        let url = |(transport, address): &(Transport, SocketAddr)| {
            let (ip, port) = (address.ip().to_string(), address.port());
            let host = self.public.host.as_deref().unwrap_or(&ip);
            let (scheme, below) = match transport {
                Transport::Udp => ("turn", "udp"),
                Transport::Tcp => ("turn", "tcp"),
                Transport::Tls => ("turns", "tcp"),
                Transport::Dtls => ("turns", "udp"),
            };
            // RFC 7065 §3.1: an IPv6 address stands in brackets.
            if host.contains(':') && !host.starts_with('[') {
                format!("{scheme}:[{host}]:{port}?transport={below}")
            } else {
                format!("{scheme}:{host}:{port}?transport={below}")
            }
        };
        reached.iter().map(url).collect()
    }
}

/// Reads all sources and checks what they say.
///
/// # Errors
///
/// With every problem found. A source that cannot be read is one of them; the rest is checked
/// nevertheless.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    let gathered = sources::gather(sources, &default_tree());
    let mut problems = gathered.problems;
    let mut warnings = gathered.warnings;
    let file = match gathered.layers.extract() {
        Ok(file) => file,
        Err(problem) => {
            problems.push(problem);
            return Err(Error::new(problems));
        }
    };
    let checked = check::check(file, &gathered.layers);
    problems.extend(checked.problems);
    warnings.extend(checked.warnings);
    match checked.settings {
        Some(settings) if problems.is_empty() => Ok(Loaded { settings, warnings }),
        _ => Err(Error::new(problems)),
    }
}

/// What the sources say over the defaults, key by key, as it would stand in a file, without values of
/// secrets; none where a source cannot be read or its form is not understood.
#[must_use]
pub fn written(sources: &Sources) -> Option<serde_json::Value> {
    let gathered = sources::gather(sources, &default_tree());
    if !gathered.problems.is_empty() {
        return None;
    }
    serde_json::to_value(gathered.layers.extract().ok()?).ok()
}

/// Changes when anything does that [`load`] would read: sources, and the files that they name for
/// secrets. It says nothing of what it was made from to who does not know that.
#[must_use]
pub fn fingerprint(sources: &Sources) -> [u8; 32] {
    sources::gather(sources, &default_tree())
        .layers
        .fingerprint()
}

/// The embedded defaults, key by key, as they would stand in a file.
#[must_use]
pub fn defaults() -> serde_json::Value {
    serde_json::to_value(file::File::default()).unwrap_or_default()
}

fn default_tree() -> Dict {
    Value::serialize(file::File::default())
        .ok()
        .and_then(Value::into_dict)
        .unwrap_or_default()
}
