//! The relay under test: started, asked for its numbers, stopped.
//!
//! `TACITURN_LAB_RELAY=coturn` puts Debian's `turnserver` in its place, which
//! shows that the lab itself works and what another relay does in it.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rustix::process::Signal;
use serde_json::Value;
use sha1::Sha1;

use super::process::Process;
use super::{Addresses, Lab, SERVICE, http};

/// The port of STUN and TURN.
pub(crate) const PORT: u16 = 3478;

/// The same over TLS.
pub(crate) const TLS_PORT: u16 = 5349;

pub(crate) const REALM: &str = "calls.test";
pub(crate) const SECRET: &str = "not a secret outside of this lab";

/// Where operators look; reached from inside the relay's namespace only.
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 9641);

/// Where platforms ask; the same.
const API: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const API_KEY: &str = "bm8ga2V5IG91dHNpZGUgb2YgdGhpcyBsYWIgZWl0aGVy";

/// With whom allocations may exchange packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peers {
    /// Other allocations of this relay.
    Relay,
    /// Anyone on the lab's networks too.
    Any,
}

/// Whose relay it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Taciturn,
    Coturn,
}

impl Kind {
    /// This project's, unless the environment asks for another.
    pub(crate) fn under_test() -> Self {
        match std::env::var("TACITURN_LAB_RELAY").as_deref() {
            Ok("coturn") => Self::Coturn,
            Ok(other) => panic!("TACITURN_LAB_RELAY={other} is not known here"),
            Err(_) => Self::Taciturn,
        }
    }
}

/// A running relay.
pub(crate) struct Relay<'lab> {
    lab: &'lab Lab,
    kind: Kind,
    process: Process,
}

impl<'lab> Relay<'lab> {
    /// Returns once the relay is ready.
    pub(crate) fn start(lab: &'lab Lab, kind: Kind, peers: Peers, channels: &str) -> Self {
        Self::start_with(lab, kind, peers, channels, &[])
    }

    /// The same with settings of this relay's as its environment gives them.
    pub(crate) fn start_with(
        lab: &'lab Lab,
        kind: Kind,
        peers: Peers,
        channels: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut command = match kind {
            Kind::Taciturn => taciturn(lab, peers, channels),
            Kind::Coturn => coturn(lab, peers),
        };
        command.envs(settings.iter().copied());
        let process = Process::spawn("relay", command, lab.directory());
        let mut relay = Self { lab, kind, process };
        relay.wait_until_ready();
        relay
    }

    fn wait_until_ready(&mut self) {
        let limit = Duration::from_secs(20);
        if self.kind == Kind::Coturn {
            self.process
                .expect_line("SQLite DB connection success", limit);
            return;
        }
        let deadline = Instant::now() + limit;
        while let Err(error) = self.admin("/healthz") {
            self.process.assert_alive();
            let output = self.process.output();
            assert!(Instant::now() < deadline, "not ready: {error}\n{output}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether this is the relay of this project, which makes promises that
    /// others do not.
    pub(crate) fn is_taciturn(&self) -> bool {
        self.kind == Kind::Taciturn
    }

    /// All that it shows to operators just now, as text.
    pub(crate) fn numbers(&self) -> String {
        if !self.is_taciturn() {
            return String::new();
        }
        let mut all = self.admin("/metrics").expect("the relay serves metrics");
        let (status, allocations) = self.api("GET /v1/allocations", None);
        assert_eq!(status, 200, "{allocations}");
        all.push_str(&allocations);
        all
    }

    /// Asks the relay as a platform does: `<method> <path>`, and what it answers.
    pub(crate) fn api(&self, request: &str, body: Option<&Value>) -> (u16, String) {
        let fields =
            format!("Authorization: Bearer {API_KEY}\r\nContent-Type: application/json\r\n");
        let body = body.map(Value::to_string).unwrap_or_default();
        http::ask(
            &self.lab.relay,
            SocketAddr::from(API),
            request,
            &fields,
            &body,
        )
        .expect("the relay serves its platform")
    }

    fn admin(&self, path: &str) -> std::io::Result<String> {
        http::get(&self.lab.relay, SocketAddr::from(ADMIN), path)
    }

    /// Stops the relay in good order; all that it has ever written.
    pub(crate) fn stop(mut self) -> Vec<u8> {
        self.process.assert_alive();
        let status = self.process.stop(Signal::TERM);
        assert!(
            status.success() || !self.is_taciturn(),
            "{status}\n{}",
            self.process.output()
        );
        self.process.written()
    }
}

/// A REST credential: user name and password, good for an hour.
pub(crate) fn credential(user: &str) -> (String, String) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let expiry = now.expect("it is later than 1970").as_secs() + 3600;
    let username = format!("{expiry}:{user}");
    let mut mac =
        Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(username.as_bytes());
    (username, STANDARD.encode(mac.finalize().into_bytes()))
}

fn taciturn(lab: &Lab, peers: Peers, channels: &str) -> Command {
    let Addresses { v4, v6 } = SERVICE;
    let (peers, allow) = match peers {
        Peers::Relay => ("relay", String::new()),
        Peers::Any => ("any", format!("allow = {NETWORKS:?}\n")),
    };
    let mut config = String::new();
    write!(
        config,
        r#"realm = "{REALM}"

[listen]
udp = ["{v4}:{PORT}", "[{v6}]:{PORT}"]
tcp = ["{v4}:{PORT}", "[{v6}]:{PORT}"]
tls = ["{v4}:{TLS_PORT}", "[{v6}]:{TLS_PORT}"]
{dtls}
[tls]
cert = ["{cert}"]
key = ["{key}"]

[relay]
addresses = ["{v4}", "{v6}"]

[auth]
secrets = [{{ id = "lab", value = "{SECRET}" }}]

[policy]
peers = "{peers}"
{allow}
[workers]
count = 2

[admin]
listen = "127.0.0.1:{admin}"

[api]
listen = "127.0.0.1:{api}"
keys = [{{ id = "lab", value = "{API_KEY}", scopes = ["mint", "read", "revoke"] }}]

[control]
socket = "off"

[log]
level = "trace"
format = "json"

[compat]
channels = "{channels}"
"#,
        // A build without the feature takes no such listener.
        dtls = if cfg!(feature = "dtls") {
            format!("dtls = [\"{v4}:{TLS_PORT}\", \"[{v6}]:{TLS_PORT}\"]\n")
        } else {
            String::new()
        },
        cert = lab.file("certificate.pem").display(),
        key = lab.file("key.pem").display(),
        admin = ADMIN.1,
        api = API.1,
    )
    .expect("a string takes all");
    let file = lab.file("taciturn.toml");
    fs::write(&file, config).expect("the lab's directory is writable");
    let mut command = lab.relay.command(env!("CARGO_BIN_EXE_taciturn"));
    command.env("XDG_RUNTIME_DIR", lab.directory());
    command.arg("serve").arg("--config").arg(file);
    command
}

fn coturn(lab: &Lab, peers: Peers) -> Command {
    let mut command = lab.relay.command("turnserver");
    command
        .args(["-n", "--verbose", "--use-auth-secret", "--no-cli"])
        .args(["--simple-log", "--log-file=stdout"])
        .arg(format!("--cert={}", lab.file("certificate.pem").display()))
        .arg(format!("--pkey={}", lab.file("key.pem").display()))
        .arg(format!("--tls-listening-port={TLS_PORT}"))
        .arg(format!("--static-auth-secret={SECRET}"))
        .arg(format!("--realm={REALM}"))
        .arg(format!("--userdb={}", lab.file("turndb").display()))
        .arg(format!(
            "--pidfile={}",
            lab.file("turnserver.pid").display()
        ));
    for address in SERVICE.all() {
        command.arg(format!("--listening-ip={address}"));
        command.arg(format!("--relay-ip={address}"));
    }
    if peers == Peers::Relay {
        for range in [
            "192.0.2.0-192.0.2.255",
            "198.51.100.0-198.51.100.255",
            "2001:db8:a::-2001:db8:a::ffff",
            "2001:db8:b::-2001:db8:b::ffff",
        ] {
            command.arg(format!("--denied-peer-ip={range}"));
        }
    }
    command
}

/// The networks of the parties.
const NETWORKS: [&str; 4] = [
    "192.0.2.0/24",
    "198.51.100.0/24",
    "2001:db8:a::/64",
    "2001:db8:b::/64",
];
