use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use figment::providers::{Format, Toml};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::admin::api::Scope;
use crate::turn::{BindingRequests, Transport};

mod hostile;
mod refusals;
mod secrets;
mod sources;
mod tls;

/// What `[auth]` needs so that nothing is wrong with it.
const SECRET: &str = "[auth]\nsecrets = [{ id = \"1\", value = \"s3cr3t-in-file\" }]\n";

/// Every key with something else than its default; [`everything`] makes the files it names.
const EVERYTHING: &str = r#"
realm = "calls.example.org"
[public]
host = "turn.example.org"
urls = ["turn:a.example.org:3478?transport=udp", "turns:a.example.org"]
[listen]
udp = ["192.0.2.1:3478", "192.0.2.2:3478", "192.0.2.1:3479", "192.0.2.2:3479"]
tcp = ["192.0.2.1:80", "192.0.2.1:443"]
tls = ["192.0.2.1:443", "192.0.2.1:5349"]
dtls = ["192.0.2.1:5349"]
receive_buffer = "4MiB"
[tls]
cert = "@CERT@"
key = ["@KEY@"]
[proxy_protocol]
trusted = ["198.51.100.0/24", "2001:db8:2::1"]
[relay]
addresses = ["10.0.0.7", "2001:db8::7"]
external = { "10.0.0.7" = "203.0.113.7" }
ports = "50000-50999"
bind = "always"
port_rest = "2m"
receive_buffer = "65536"
dscp = 46
[auth]
secrets = [{ id = "a", value = "one" }, { id = "b", value = "two" }]
users = { alice = "password" }
session_max = "12h"
max_ttl = "24h"
strict = true
[policy]
peers = ["192.0.2.0/24", "2001:db8:1::5"]
ceiling = "any"
fleet = ["203.0.113.8", { addr = "203.0.113.9", seen_as = "10.0.0.9", ports = "2000-2999" }]
allow = ["10.1.0.0/16"]
deny = ["198.51.100.0/24"]
[limits]
allocation_lifetime = "10m"
user_allocations = 12
tenant_allocations = 200
total_allocations = 5000
permissions = 16
channels = 8
allocation_rate = "4Mbit/s"
allocation_packets = "500/s burst 1000"
user_rate = "64kbit/s"
user_packets = "50/s"
tenant_rate = "10Gbit/s"
tenant_packets = "100000000/s"
prefix_allocates = "20/s burst 100"
prefix_failures = "5/s"
unvalidated = "10/s"
[compat]
channels = "rfc5766"
[features]
binding = { default = "authenticated", udp = "off", "192.0.2.1:3478" = "open" }
tcp_relay = true
mobility = true
nat_discovery = true
[alternate]
servers = ["203.0.113.8:3478", "[2001:db8::8]:3478"]
redirect = "always"
[workers]
count = 4
streams = 3
[state]
dir = "/var/lib/taciturn"
[admin]
listen = "off"
[metrics]
allocations = 50
coturn_names = false
quality = false
[events]
file = "/var/log/taciturn/events.jsonl"
webhooks = [{ url = "https://backend.example.org/taciturn", value = "three", ca = "@CERT@" }]
queue = 500
interval = "5s"
[api]
listen = "192.0.2.1:8080"
keys = [{ id = "backend", value = "a-key-that-nobody-guesses", scopes = ["mint", "read"] }]
tls = { cert = "@CERT@", key = "@KEY@", client_ca = "@CERT@" }
rate = "5/s"
failures = "2/s"
adapters = ["twilio", "matrix"]
node = "a"
nodes = [{ id = "a", urls = ["turn:a.example.org"] }, { id = "b", urls = ["turn:b.example.org"], drained = true }]
[control]
socket = "off"
[log]
format = "json"
level = "debug"
pseudonym_days = 3
show_addresses = true
"#;

#[test]
fn no_configuration_at_all_is_valid() {
    let Loaded { settings, warnings } = load(&Sources::default()).unwrap();

    assert_eq!(warnings, Vec::<String>::new());
    assert!(settings.auth.is_empty());
    assert_eq!(settings.realm, "taciturn");
    assert_eq!(
        settings.listen.udp,
        addresses(&["0.0.0.0:3478", "[::]:3478"])
    );
    assert_eq!(settings.listen.tcp, settings.listen.udp);
    assert!(settings.listen.tls.is_empty() && settings.listen.dtls.is_empty());
    assert!(settings.tls.keys.is_none());
    assert!(settings.proxy_protocol.trusted.is_empty());
    assert_eq!(settings.listen.receive_buffer, 8 << 20);
    assert_eq!(settings.relay.ports, 49152..=65535);
    assert_eq!(settings.relay.port_rest, Duration::from_secs(60));
    assert_eq!(settings.relay.external, External::Same);
    assert_eq!(settings.auth.session_max, Duration::from_secs(86_400));
    assert_eq!(settings.policy.peers, Peers::Relay);
    assert_eq!(settings.policy.ceiling, Peers::Relay);
    assert_eq!(settings.auth.max_ttl, Duration::from_secs(172_800));
    // What a revocation without one is read with, and kept for.
    let default = crate::turn::credential::DEFAULT_MAX_TTL;
    assert_eq!(settings.auth.max_ttl, default);
    let limits = &settings.limits;
    assert_eq!(limits.user_allocations, None);
    assert_eq!(limits.tenant_allocations.or(limits.total_allocations), None);
    assert_eq!((limits.permissions, limits.channels), (128, 128));
    for relaying in [limits.allocation, limits.user, limits.tenant] {
        assert_eq!(relaying, Relaying::default());
    }
    assert_eq!(limits.prefix_allocates, None);
    let rate = Rate {
        per_second: 20,
        burst: 500,
    };
    assert_eq!(limits.prefix_failures, Some(rate));
    let rate = Rate {
        per_second: 50,
        burst: 200,
    };
    assert_eq!(settings.limits.unvalidated, rate);
    assert_eq!(settings.workers.count, None);
    assert_eq!(settings.workers.streams, None);
    assert_eq!(settings.state.dir, None);
    assert_eq!(
        settings.admin.listen,
        Some("127.0.0.1:9641".parse().unwrap())
    );
    assert!(settings.metrics.quality);
    assert_eq!(settings.log.level, tracing::Level::INFO);
}

#[test]
fn broken_glass_is_warned_of() {
    let shown = with_variable("TACITURN_LOG__SHOW_ADDRESSES", "true".as_ref()).unwrap();
    assert!(shown.settings.log.show_addresses);
    let [warning] = shown.warnings.as_slice() else {
        panic!("{:?}", shown.warnings)
    };
    assert!(warning.contains("log.show_addresses"), "{warning}");
    let whole = load(&Sources::default()).unwrap();
    assert!(!whole.settings.log.show_addresses);
}

#[test]
fn the_example_of_everything_leaves_no_key_at_its_default() {
    let typed: Dict = Toml::from_str(EVERYTHING).unwrap();
    for (section, default) in default_tree() {
        let Some(keys) = default.as_dict() else {
            assert_ne!(typed[&section], default, "{section}");
            continue;
        };
        let typed = typed[&section].as_dict().unwrap();
        for (key, default) in keys {
            assert_ne!(
                typed.get(key).unwrap_or(default),
                default,
                "{section}.{key}"
            );
        }
    }
}

#[test]
fn plain_keys_are_taken_over() {
    let settings = everything();

    assert_eq!(settings.realm, "calls.example.org");
    assert!(!settings.metrics.quality);
    assert_eq!(settings.public.host.as_deref(), Some("turn.example.org"));
    assert_eq!(settings.ice_urls(&[])[1], "turns:a.example.org");
    assert_eq!(settings.listen.receive_buffer, 4 << 20);
    assert_eq!(settings.relay.port_rest, Duration::from_secs(120));
    assert_eq!(settings.auth.session_max, Duration::from_secs(43_200));
    assert_eq!(settings.auth.max_ttl, Duration::from_secs(86_400));
    assert_eq!(settings.policy.ceiling, Peers::Any);
    assert_eq!(settings.policy.allow, ["10.1.0.0/16".parse().unwrap()]);
    assert_eq!(settings.policy.deny, ["198.51.100.0/24".parse().unwrap()]);
    assert_eq!(
        settings.limits.allocation_lifetime,
        Duration::from_secs(600)
    );
    assert_eq!(settings.state.dir, Some(PathBuf::from("/var/lib/taciturn")));
    assert_eq!(settings.log.level, tracing::Level::DEBUG);
}

#[test]
fn the_api_is_as_it_is_written() {
    let settings = everything();
    let api = &settings.api;
    assert_eq!(api.door(), Some("192.0.2.1:8080".parse().unwrap()));
    let [key] = api.keys.as_slice() else {
        panic!("not one key: {api:?}")
    };
    let scopes = Scope::ALL.map(|scope| key.scopes().has(scope));
    assert_eq!((key.id(), scopes), ("backend", [true, true, false]));
    assert!(api.tls.as_ref().is_some_and(|tls| tls.clients.is_some()));
    assert_eq!((api.rate.per_second, api.failures.burst), (5, 2));
    assert_eq!(api.adapters, [Adapter::Twilio, Adapter::Matrix]);
    assert_eq!(api.node, Label::new("a"));
    assert_eq!(api.nodes.len(), 2);
    assert!(api.nodes[1].drained && !api.nodes[0].drained);
    assert_eq!(settings.control.socket, None);

    // With neither a key nor an authority nobody could be let in.
    let bare = load(&Sources::default()).unwrap().settings;
    assert_eq!(bare.api.listen, Some("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(bare.api.door(), None);
    assert!(!bare.control.is_configured);
}

/// T26
#[test]
fn a_key_of_the_api_is_in_no_debug_output() {
    let settings = everything();
    assert!(!format!("{settings:?}").contains("nobody-guesses"));
}

#[test]
fn everything_an_operator_can_write_is_understood() {
    let settings = everything();

    let four = [
        "192.0.2.1:3478",
        "192.0.2.2:3478",
        "192.0.2.1:3479",
        "192.0.2.2:3479",
    ];
    assert_eq!(settings.listen.udp, addresses(&four));
    let relay = &settings.relay;
    let pairs: Vec<(String, String)> = relay
        .resolve(&[])
        .unwrap()
        .iter()
        .map(|pair| (pair.address.to_string(), pair.external.to_string()))
        .collect();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        pairs,
        [
            pair("10.0.0.7", "203.0.113.7"),
            pair("2001:db8::7", "2001:db8::7")
        ]
    );
    assert_eq!(
        (relay.ports.clone(), relay.bind),
        (50000..=50999, RelayBind::Always)
    );
    assert_eq!((relay.receive_buffer, relay.dscp), (65536, 46));
    assert_eq!(settings.auth.secrets[1].id, "b");
    assert_eq!(settings.auth.secrets[1].value.expose_secret(), "two");
    assert_eq!(settings.auth.users["alice"].expose_secret(), "password");
    assert!(settings.auth.strict);
    let networks = ["192.0.2.0/24", "2001:db8:1::5/128"].map(|net| net.parse().unwrap());
    assert_eq!(settings.policy.peers, Peers::Networks(networks.to_vec()));
    let node = |addr: &str, seen_as: &str, ports| FleetNode {
        addr: addr.parse().unwrap(),
        seen_as: seen_as.parse().unwrap(),
        ports,
    };
    assert_eq!(
        settings.policy.fleet,
        [
            node("203.0.113.8", "203.0.113.8", 50000..=50999),
            node("203.0.113.9", "10.0.0.9", 2000..=2999)
        ]
    );
    check_limits(&settings.limits);
    check_events(&settings.events);
    assert_eq!(settings.compat.channels, Channels::Rfc5766);
    let features = &settings.features;
    assert!(features.tcp_relay && features.mobility && features.nat_discovery);
    let binding = BindingRules {
        default: BindingRequests::Authenticated,
        transports: BTreeMap::from([(Transport::Udp, BindingRequests::Off)]),
        listeners: BTreeMap::from([("192.0.2.1:3478".parse().unwrap(), BindingRequests::Open)]),
    };
    assert_eq!(features.binding, binding);
    assert_eq!(settings.alternate.redirect, Redirect::Always);
    assert_eq!(
        settings.alternate.servers,
        addresses(&["203.0.113.8:3478", "[2001:db8::8]:3478"])
    );
    assert_eq!(settings.workers.count, Some(4));
    assert_eq!(settings.workers.streams, Some(3));
    assert_eq!(settings.admin.listen, None);
    assert_eq!(settings.log.format, LogFormat::Json);
}

fn check_limits(limits: &Limits) {
    assert_eq!(limits.user_allocations, Some(12));
    assert_eq!(limits.tenant_allocations, Some(200));
    assert_eq!(limits.total_allocations, Some(5_000));
    assert_eq!((limits.permissions, limits.channels), (16, 8));
    let relaying = |bits, per_second, burst| Relaying {
        bits: Some(bits),
        packets: Some(Rate { per_second, burst }),
    };
    assert_eq!(limits.allocation, relaying(4_000_000, 500, 1_000));
    assert_eq!(limits.user, relaying(64_000, 50, 50));
    let tenant = relaying(10_000_000_000, 100_000_000, 100_000_000);
    assert_eq!(limits.tenant, tenant);
    assert_eq!(limits.prefix_allocates.map(|rate| rate.burst), Some(100));
    assert_eq!(limits.prefix_failures.map(|rate| rate.burst), Some(5));
    assert_eq!(limits.unvalidated.burst, 10);
}

fn check_events(events: &Events) {
    let file = Path::new("/var/log/taciturn/events.jsonl");
    assert_eq!(events.file.as_deref(), Some(file));
    let [webhook] = &events.webhooks[..] else {
        panic!("not one webhook")
    };
    assert_eq!(webhook.url, "https://backend.example.org/taciturn");
    assert_eq!(webhook.secret.expose_secret(), "three");
    assert_eq!(webhook.authorities.as_ref().map(Vec::len), Some(1));
    let interval = Duration::from_secs(5);
    assert_eq!((events.queue, events.interval), (500, interval));
}

#[test]
fn everything_about_streams_is_understood() {
    let settings = everything();

    let streams = ["192.0.2.1:80", "192.0.2.1:443"];
    assert_eq!(settings.listen.tcp, addresses(&streams));
    let tls = ["192.0.2.1:443", "192.0.2.1:5349"];
    assert_eq!(settings.listen.tls, addresses(&tls));
    let dtls: &[&str] = if cfg!(feature = "dtls") {
        &["192.0.2.1:5349"]
    } else {
        &[]
    };
    assert_eq!(settings.listen.dtls, addresses(dtls));
    let trusted = ["198.51.100.0/24", "2001:db8:2::1/128"].map(|net| net.parse().unwrap());
    assert_eq!(settings.proxy_protocol.trusted, trusted);
    assert!(settings.tls.keys.is_some());

    let plane = settings.dataplane(Vec::new());
    assert_eq!(plane.listen_tcp, settings.listen.tcp);
    assert_eq!(plane.listen_tls, settings.listen.tls);
    assert_eq!(plane.listen_dtls, settings.listen.dtls);
    assert_eq!((plane.workers, plane.stream_workers), (4, 3));
    assert_eq!(plane.proxy_trusted, trusted);
    assert!(plane.tls.is_some());
}

/// T60
#[test]
fn an_admin_listener_off_loopback_brings_a_warning() {
    let warnings = |listen| {
        from_env(&[("TACITURN_ADMIN__LISTEN", listen)])
            .unwrap()
            .warnings
    };
    assert_eq!(warnings("[::1]:9641"), Vec::<String>::new());
    assert_eq!(warnings("0.0.0.0:9641").len(), 1);
}

#[test]
fn minted_urls_name_the_host_and_the_port_that_is_reached() {
    let reached = |port| [(Transport::Udp, SocketAddr::from(([192, 0, 2, 9], port)))];
    let urls_at =
        |port, env: &[(&str, &str)]| from_env(env).unwrap().settings.ice_urls(&reached(port));
    let urls = |env: &[(&str, &str)]| urls_at(3478, env);
    let host = "TACITURN_PUBLIC__HOST";
    assert_eq!(urls(&[]), ["turn:192.0.2.9:3478?transport=udp"]);
    assert_eq!(
        urls_at(443, &[(host, "turn.example.org")]),
        ["turn:turn.example.org:443?transport=udp"]
    );
    for literal in ["2001:db8::1", "[2001:db8::1]"] {
        assert_eq!(
            urls(&[(host, literal)]),
            ["turn:[2001:db8::1]:3478?transport=udp"]
        );
    }
    assert_eq!(
        urls(&[
            (host, "unused"),
            ("TACITURN_PUBLIC__URLS", "turn:a,turns:b:443?transport=tcp")
        ]),
        ["turn:a", "turns:b:443?transport=tcp"]
    );
}

#[test]
fn minted_urls_name_each_transport() {
    let settings = load(&Sources::default()).unwrap().settings;
    let at = |port| SocketAddr::from(([192, 0, 2, 9], port));
    let [udp, tcp, tls, dtls] = Transport::ALL;
    assert_eq!(
        settings.ice_urls(&[(udp, at(1)), (tcp, at(2)), (tls, at(3)), (dtls, at(4))]),
        [
            "turn:192.0.2.9:1?transport=udp",
            "turn:192.0.2.9:2?transport=tcp",
            "turns:192.0.2.9:3?transport=tcp",
            "turns:192.0.2.9:4?transport=udp",
        ]
    );
}

#[test]
fn one_external_address_stands_for_its_family() {
    let env = [("TACITURN_RELAY__EXTERNAL", "203.0.113.7")];
    let relay = from_env(&env).unwrap().settings.relay;
    let v4: IpAddr = "10.0.0.7".parse().unwrap();
    let v6: IpAddr = "2001:db8::7".parse().unwrap();

    let resolved = relay.resolve(&[v4, v6]).unwrap();

    assert_eq!(resolved[0].external.to_string(), "203.0.113.7");
    assert_eq!(resolved[1].external, v6);
    let error = relay.resolve(&[v6]).unwrap_err();
    assert!(error.to_string().contains("relay.external"), "{error}");
}

/// What [`EVERYTHING`] means, as far as this build can.
fn everything() -> Settings {
    let directory = TempDir::new().unwrap();
    let [cert, key] = tls::certificate(&directory, "a", &["turn.example.org"]);
    let text = EVERYTHING.replace("@CERT@", &cert).replace("@KEY@", &key);
    let dtls = if cfg!(feature = "dtls") {
        ""
    } else {
        "dtls = ["
    };
    let lines = text
        .lines()
        .filter(|line| dtls.is_empty() || !line.starts_with(dtls));
    let text: Vec<&str> = lines.collect();
    from_text(&text.join("\n")).unwrap().settings
}

fn from_text(text: &str) -> Result<Loaded, Error> {
    from_all(text, &[], &Flags::default())
}

fn from_env(env: &[(&str, &str)]) -> Result<Loaded, Error> {
    load(&Sources {
        environment: environment_of(env),
        ..Sources::default()
    })
}

fn from_all(text: &str, env: &[(&str, &str)], flags: &Flags) -> Result<Loaded, Error> {
    let directory = TempDir::new().unwrap();
    load(&Sources {
        file: Some(write(&directory, "config.toml", text, 0o600).into()),
        environment: environment_of(env),
        flags: flags.clone(),
    })
}

fn environment_of(env: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    env.iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn write(directory: &TempDir, name: &str, content: &str, mode: u32) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    set_mode(&path, mode);
    path.to_str().unwrap().to_owned()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn with_variable(name: &str, value: &std::ffi::OsStr) -> Result<Loaded, Error> {
    load(&Sources {
        environment: vec![(name.into(), value.to_owned())],
        ..Sources::default()
    })
}

#[test]
fn a_static_users_password_may_come_from_a_file() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("password");
    std::fs::write(&path, "hunter2-of-alice\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let name = "TACITURN_AUTH__USERS__ALICE__FILE";
    let loaded = with_variable(name, path.as_os_str()).unwrap();
    let users = &loaded.settings.auth.users;
    assert_eq!(users["alice"].expose_secret(), "hunter2-of-alice");
    assert!(loaded.warnings[0].contains("every user of this machine"));

    let error = with_variable(name, "hunter2-itself".as_ref()).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains(name) && said.contains("cannot be read"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

/// T26
#[test]
fn a_secret_in_the_place_of_its_file_is_not_shown_and_a_path_is() {
    let name = "TACITURN_AUTH__SECRETS__FILE";
    for (value, is_shown) in [
        ("hunter2", false),
        ("hunter2/+w==", false),
        ("/no/hunter2", true),
    ] {
        let said = with_variable(name, value.as_ref()).unwrap_err().to_string();
        assert!(said.contains(name), "{said}");
        assert_eq!(said.contains("hunter2"), is_shown, "{said}");
    }
}

#[test]
fn an_unknown_variable_of_auth_is_told_of_the_files() {
    let error = with_variable("TACITURN_AUTH__SECRET", "a".as_ref()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("TACITURN_AUTH__SECRETS__FILE"), "{said}");
    assert!(said.contains("TACITURN_AUTH__USERS__NAME__FILE"), "{said}");
}

#[test]
fn a_configuration_that_is_no_file_is_refused_at_once() {
    let error = load(&Sources {
        file: Some("/dev/zero".into()),
        ..Sources::default()
    })
    .unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("/dev/zero: is a pipe, a socket or a device"),
        "{said}"
    );
}

/// What is written reaches the servers; nothing drains them yet.
#[test]
fn servers_are_told_of_binding_alternates_and_whether_names_are_hashed() {
    let told = |text: &str| {
        let settings = from_text(text).unwrap().settings;
        let keys = Keys {
            nonce: crate::turn::NonceKey::new([1; 32]),
            subject: zeroize::Zeroizing::new([2; 32]),
            ticket: crate::turn::TicketKey::new(zeroize::Zeroizing::new([3; 32])),
            sealing: crate::turn::credential::SealingKeys::default(),
            revocations: crate::turn::revocation::Revocations::default(),
            bans: crate::turn::ban::Bans::default(),
        };
        let machine = Machine {
            addresses: Vec::new(),
            listening: Vec::new(),
            udp: Vec::new(),
            former_ports: Vec::new(),
        };
        let server = settings.server(&keys, settings.secrets(), &[], &machine);
        (settings, server.unwrap())
    };
    let (settings, server) = told(
        "features.binding = { udp = 'off' }\nalternate.servers = ['203.0.113.8:3478']\n\
         alternate.redirect = 'always'\n[auth]\nusers = { alice = 'password' }\n\
         secrets = [{ id = '1', value = 's3cr3t' }]\n",
    );
    assert_eq!(server.binding, settings.features.binding);
    assert_eq!(server.alternate.servers, settings.alternate.servers);
    assert_eq!(server.alternate.redirect, settings.alternate.redirect);
    assert!(!server.draining && !server.credentials.knows_userhashes());
    let (_, server) = told("[auth]\nusers = { alice = 'password' }\n");
    assert!(server.credentials.knows_userhashes());
}
