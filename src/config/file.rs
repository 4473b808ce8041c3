//! What was typed: the configuration as it stands in a file, and its defaults.
//!
//! Texts stay texts here. What they mean, and whether they make sense, is for `check`, which can
//! then name every problem at once instead of the first. Serialising never yields a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use secrecy::SecretString;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) realm: String,
    pub(super) public: Public,
    pub(super) listen: Listen,
    pub(super) tls: Tls,
    pub(super) proxy_protocol: ProxyProtocol,
    pub(super) relay: Relay,
    pub(super) auth: Auth,
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    pub(super) compat: Compat,
    pub(super) features: Features,
    pub(super) alternate: Alternate,
    pub(super) workers: Workers,
    pub(super) state: State,
    pub(super) admin: Admin,
    pub(super) metrics: Metrics,
    pub(super) api: Api,
    pub(super) control: Control,
    pub(super) events: Events,
    pub(super) log: Log,
}

impl Default for File {
    fn default() -> Self {
        Self {
            realm: "taciturn".to_owned(),
            public: Public::default(),
            listen: Listen::default(),
            tls: Tls::default(),
            proxy_protocol: ProxyProtocol::default(),
            relay: Relay::default(),
            auth: Auth::default(),
            policy: Policy::default(),
            limits: Limits::default(),
            compat: Compat::default(),
            features: Features::default(),
            alternate: Alternate::default(),
            workers: Workers::default(),
            state: State::default(),
            admin: Admin::default(),
            metrics: Metrics::default(),
            api: Api::default(),
            control: Control::default(),
            events: Events::default(),
            log: Log::default(),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Public {
    pub(super) host: String,
    pub(super) urls: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) udp: Vec<String>,
    pub(super) tcp: TextOr<Vec<String>>,
    pub(super) tls: Vec<String>,
    pub(super) dtls: Vec<String>,
    pub(super) receive_buffer: String,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            udp: vec!["0.0.0.0:3478".to_owned(), "[::]:3478".to_owned()],
            tcp: TextOr::Text("same".to_owned()),
            tls: Vec::new(),
            dtls: Vec::new(),
            receive_buffer: "8MiB".to_owned(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) cert: TextOr<Vec<String>>,
    pub(super) key: TextOr<Vec<String>>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            cert: TextOr::Full(Vec::new()),
            key: TextOr::Full(Vec::new()),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ProxyProtocol {
    pub(super) trusted: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Relay {
    pub(super) addresses: Vec<String>,
    pub(super) external: TextOr<BTreeMap<String, String>>,
    pub(super) ports: String,
    pub(super) bind: String,
    pub(super) port_rest: String,
    pub(super) receive_buffer: String,
    pub(super) dscp: i64,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            external: TextOr::Full(BTreeMap::new()),
            ports: "49152-65535".to_owned(),
            bind: "auto".to_owned(),
            port_rest: "60s".to_owned(),
            receive_buffer: "1MiB".to_owned(),
            dscp: 0,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) secrets: Vec<Secret>,
    #[serde(serialize_with = "hide_values")]
    pub(super) users: BTreeMap<String, SecretString>,
    pub(super) session_max: String,
    pub(super) max_ttl: String,
    pub(super) strict: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            users: BTreeMap::new(),
            session_max: "24h".to_owned(),
            max_ttl: "48h".to_owned(),
            strict: false,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    #[serde(default)]
    pub(super) id: String,
    pub(super) file: Option<String>,
    #[serde(skip_serializing)]
    pub(super) value: Option<SecretString>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) peers: TextOr<Vec<String>>,
    pub(super) ceiling: TextOr<Vec<String>>,
    pub(super) fleet: Vec<TextOr<FleetNode>>,
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            peers: TextOr::Text("relay".to_owned()),
            ceiling: TextOr::Text(String::new()),
            fleet: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FleetNode {
    pub(super) addr: String,
    pub(super) seen_as: Option<String>,
    pub(super) ports: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) allocation_lifetime: String,
    pub(super) user_allocations: i64,
    pub(super) tenant_allocations: i64,
    pub(super) total_allocations: i64,
    pub(super) permissions: i64,
    pub(super) channels: i64,
    pub(super) allocation_rate: String,
    pub(super) allocation_packets: String,
    pub(super) user_rate: String,
    pub(super) user_packets: String,
    pub(super) tenant_rate: String,
    pub(super) tenant_packets: String,
    pub(super) prefix_allocates: String,
    pub(super) prefix_failures: String,
    pub(super) unvalidated: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocation_lifetime: "1h".to_owned(),
            user_allocations: 0,
            tenant_allocations: 0,
            total_allocations: 0,
            permissions: 128,
            channels: 128,
            allocation_rate: String::new(),
            allocation_packets: String::new(),
            user_rate: String::new(),
            user_packets: String::new(),
            tenant_rate: String::new(),
            tenant_packets: String::new(),
            prefix_allocates: String::new(),
            prefix_failures: "20/s burst 500".to_owned(),
            unvalidated: "50/s burst 200".to_owned(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Compat {
    pub(super) channels: String,
}

impl Default for Compat {
    fn default() -> Self {
        Self {
            channels: "rfc8656".to_owned(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Features {
    pub(super) binding: TextOr<BTreeMap<String, String>>,
    pub(super) tcp_relay: bool,
    pub(super) mobility: bool,
    pub(super) nat_discovery: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            binding: TextOr::Text("open".to_owned()),
            tcp_relay: false,
            mobility: false,
            nat_discovery: false,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Alternate {
    pub(super) servers: Vec<String>,
    pub(super) redirect: String,
}

impl Default for Alternate {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            redirect: "draining".to_owned(),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Workers {
    pub(super) count: i64,
    pub(super) streams: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct State {
    pub(super) dir: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) listen: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9641".to_owned(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) allocations: i64,
    pub(super) coturn_names: bool,
    pub(super) quality: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            allocations: 1_000,
            coturn_names: true,
            quality: true,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Api {
    pub(super) listen: String,
    pub(super) keys: Vec<ApiKey>,
    pub(super) tls: ApiTls,
    pub(super) rate: String,
    pub(super) failures: String,
    pub(super) adapters: Vec<String>,
    pub(super) node: String,
    pub(super) nodes: Vec<ApiNode>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            keys: Vec::new(),
            tls: ApiTls::default(),
            rate: "50/s burst 200".to_owned(),
            failures: "1/s burst 20".to_owned(),
            adapters: Vec::new(),
            node: String::new(),
            nodes: Vec::new(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKey {
    #[serde(default)]
    pub(super) id: String,
    pub(super) file: Option<String>,
    #[serde(skip_serializing)]
    pub(super) value: Option<SecretString>,
    #[serde(default)]
    pub(super) scopes: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ApiTls {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) client_ca: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiNode {
    pub(super) id: String,
    pub(super) urls: Vec<String>,
    #[serde(default)]
    pub(super) drained: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Control {
    pub(super) socket: String,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: "/run/taciturn/control.sock".to_owned(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Events {
    pub(super) file: String,
    pub(super) webhooks: Vec<Webhook>,
    pub(super) queue: i64,
    pub(super) interval: String,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            file: String::new(),
            webhooks: Vec::new(),
            queue: 10_000,
            interval: "60s".to_owned(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    #[serde(default)]
    pub(super) url: String,
    pub(super) ca: Option<String>,
    pub(super) file: Option<String>,
    #[serde(skip_serializing)]
    pub(super) value: Option<SecretString>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: String,
    pub(super) level: String,
    pub(super) pseudonym_days: i64,
    pub(super) show_addresses: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: "auto".to_owned(),
            level: "info".to_owned(),
            pseudonym_days: 7,
            show_addresses: false,
        }
    }
}

/// A short form in one text, or the full form.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum TextOr<T> {
    Text(String),
    Full(T),
}

/// How a full form is called in an error.
pub(super) trait Form {
    const NAME: &'static str;
}

impl Form for Vec<String> {
    const NAME: &'static str = "a text or a list of texts";
}

impl Form for BTreeMap<String, String> {
    const NAME: &'static str = "a text or a table of texts";
}

impl Form for FleetNode {
    const NAME: &'static str = "a text or a table { addr, seen_as, ports }";
}

// By hand, because serde's derived `untagged` forgets which key within the full form was wrong.
impl<'de, T: Deserialize<'de> + Form> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrVisitor(PhantomData))
    }
}

struct TextOrVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Form> Visitor<'de> for TextOrVisitor<T> {
    type Value = TextOr<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::NAME)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(TextOr::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::Full)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(seq)).map(TextOr::Full)
    }
}

fn hide_values<S: Serializer>(
    users: &BTreeMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(users.len()))?;
    for name in users.keys() {
        map.serialize_entry(name, "hidden")?;
    }
    map.end()
}
