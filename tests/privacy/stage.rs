//! Where the suite plays: a relay and three parties, each in a network namespace of its own, on
//! documentation addresses, and a daemon with everything switched on that could say something.
//!
//! ```text
//!   alice 203.0.113.7, 2001:db8::7 ── leg ── relay 192.0.2.1 ── leg ── bob 198.51.100.20
//!                                              │
//!                                             leg ── mallory 198.18.66.66
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use taciturn::proto::AddressFamily;
use taciturn::turn::Transport;

use crate::hook::{self, Hook};
use crate::lab::Addresses;
use crate::lab::capture::Capture;
use crate::lab::namespace::{self, Namespace};
use crate::lab::process::Process;
use crate::lab::relay::{SECRET, credential};
use crate::loopback::client::{Client, Credential};
use crate::loopback::eventually;
use crate::loopback::plane::{V4, V6};
use crate::loopback::stream::{Stream, certificate};
use crate::routes::{Door, KEY};

/// Where the daemon listens and relays, but for a daemon behind NAT.
pub(crate) const SERVICE: Addresses = Addresses {
    v4: Ipv4Addr::new(192, 0, 2, 1),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 1),
};
/// Where relay sockets are bound behind 1:1 NAT.
pub(crate) const INNER: Addresses = Addresses {
    v4: Ipv4Addr::new(10, 77, 66, 7),
    v6: Ipv6Addr::new(0xfd77, 0x66, 0, 0, 0, 0, 0, 7),
};
/// Where Alice goes when she moves.
pub(crate) const AWAY: Addresses = Addresses {
    v4: Ipv4Addr::new(203, 0, 113, 99),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x99, 0x99),
};
/// For whom Mallory speaks, where she is a load balancer.
pub(crate) const BALANCED: Addresses = Addresses {
    v4: Ipv4Addr::new(198, 51, 100, 177),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0x177, 0, 0, 0, 0x17, 0x77),
};

const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 9641);
const API: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
/// The adapters, all of them.
const ADAPTERS: &str =
    r#"["cloudflare", "twilio", "metered", "xirsys", "rest", "matrix", "stunner"]"#;
/// The parties' networks, which policy `any` is to open.
const NETWORKS: &str =
    r#"["203.0.113.0/24", "198.51.100.0/24", "198.18.66.0/24", "2001:db8::/32"]"#;

/// Who is there besides the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Party {
    Alice,
    Bob,
    /// A stranger, who has a credential too.
    Mallory,
}

impl Party {
    pub(crate) const ALL: [Self; 3] = [Self::Alice, Self::Bob, Self::Mallory];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::Mallory => "mallory",
        }
    }

    pub(crate) fn addresses(self) -> Addresses {
        let (v4, v6) = match self {
            Self::Alice => ([203, 0, 113, 7], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]),
            Self::Bob => ([198, 51, 100, 20], [0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x20]),
            Self::Mallory => ([198, 18, 66, 66], [0x2001, 0xdb8, 0x66, 0, 0, 0, 0, 0x66]),
        };
        Addresses {
            v4: v4.into(),
            v6: v6.into(),
        }
    }

    pub(crate) fn at(self, family: AddressFamily) -> IpAddr {
        of(self.addresses(), family)
    }

    fn gateway(self) -> Addresses {
        let Addresses { v4, v6 } = self.addresses();
        let [a, b, c, _] = v4.octets();
        let [d, e, f, ..] = v6.segments();
        Addresses {
            v4: Ipv4Addr::new(a, b, c, 254),
            v6: Ipv6Addr::new(d, e, f, 0, 0, 0, 0, 0xfe),
        }
    }

    fn leg(self) -> String {
        format!("to-{}", self.name())
    }
}

/// The address of a family.
pub(crate) fn of(addresses: Addresses, family: AddressFamily) -> IpAddr {
    match family {
        V4 => addresses.v4.into(),
        V6 => addresses.v6.into(),
    }
}

/// Two cores carry one play at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The namespaces, joined; gone when this is dropped.
pub(crate) struct Stage {
    pub(crate) relay: Namespace,
    parties: [Namespace; 3],
    /// What webhooks post to.
    pub(crate) hook: Hook,
    directory: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            rustix::process::geteuid().is_root(),
            "the stage makes network namespaces, which needs root: run it as root (see .ci/run)"
        );
        namespace::sweep();
        let relay = Namespace::new("relay");
        let stage = Self {
            hook: Hook::open(&relay),
            relay,
            parties: Party::ALL.map(|party| Namespace::new(party.name())),
            directory: tempfile::Builder::new()
                .prefix("privacy-")
                .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
                .unwrap(),
            _turn: turn,
        };
        for party in Party::ALL {
            stage.join(party);
        }
        for addresses in [SERVICE, INNER] {
            for address in addresses.all() {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let address = format!("{address}/{bits}");
                let lo = ["address", "add", &address, "dev", "lo"];
                stage.relay.ip(&lo);
            }
        }
        stage.relay.write_setting("net/ipv4/ip_forward", "1");
        stage
            .relay
            .write_setting("net/ipv6/conf/all/forwarding", "1");
        // Whatever can be told by ICMP is told, however often.
        for namespace in stage.parties.iter().chain([&stage.relay]) {
            namespace.write_setting("net/ipv4/icmp_ratemask", "0");
            namespace.write_setting("net/ipv6/icmp/ratelimit", "0");
        }
        stage
    }

    fn join(&self, party: Party) {
        let (inside, leg) = (self.party(party), party.leg());
        let eth0 = ["type", "veth", "peer", "name", "eth0", "netns"];
        self.relay
            .ip(&[&["link", "add", &leg], &eth0[..], &[inside.name()]].concat());
        let mut ends = vec![
            (&self.relay, leg.as_str(), party.gateway()),
            (inside, "eth0", party.addresses()),
        ];
        if party == Party::Alice {
            ends.push((inside, "eth0", AWAY));
        }
        for (namespace, interface, Addresses { v4, v6 }) in ends {
            let (v4, v6) = (format!("{v4}/24"), format!("{v6}/64"));
            namespace.ip(&["address", "add", &v4, "dev", interface]);
            namespace.ip(&["address", "add", &v6, "dev", interface, "nodad"]);
            namespace.ip(&["link", "set", interface, "up"]);
        }
        let Addresses { v4, v6 } = party.gateway();
        inside.ip(&["route", "add", "default", "via", &v4.to_string()]);
        inside.ip(&["-6", "route", "add", "default", "via", &v6.to_string()]);
    }

    pub(crate) fn party(&self, party: Party) -> &Namespace {
        &self.parties[party as usize]
    }

    /// Starts to capture what passes between the relay and `party`.
    pub(crate) fn capture(&self, party: Party) -> Capture {
        Capture::start(&self.relay, &party.leg(), self.directory.path())
    }

    /// The usual configuration with these values instead of, or besides, its own; values as TOML
    /// writes them, keys with their section.
    pub(crate) fn config(&self, directory: &Path, changes: &[(&str, &str)]) -> String {
        let Addresses { v4, v6 } = SERVICE;
        let [cert, key] = certificate(directory, "turn.test");
        let hook = SocketAddr::from(hook::ADDRESS);
        let scopes = r#"["mint", "read", "revoke"]"#;
        let both = |port: u16| format!(r#"["{v4}:{port}", "[{v6}]:{port}"]"#);
        let mut keys: BTreeMap<&str, String> = BTreeMap::from([
            ("realm", r#""calls.test""#.to_owned()),
            ("listen.udp", both(PORT)),
            ("listen.tls", both(TLS_PORT)),
            ("tls.cert", format!("{cert:?}")),
            ("tls.key", format!("{key:?}")),
            ("relay.addresses", format!(r#"["{v4}", "{v6}"]"#)),
            (
                "auth.secrets",
                format!(r#"[{{ id = "stage", value = "{SECRET}" }}]"#),
            ),
            ("policy.allow", NETWORKS.to_owned()),
            ("limits.unvalidated", r#""10000/s""#.to_owned()),
            ("workers.count", "2".to_owned()),
            ("state.dir", format!("{:?}", directory.join("state"))),
            (
                "api.keys",
                format!(r#"[{{ id = "stage", value = "{KEY}", scopes = {scopes} }}]"#),
            ),
            ("api.rate", r#""100000/s""#.to_owned()),
            ("api.adapters", ADAPTERS.to_owned()),
            (
                "control.socket",
                format!("{:?}", directory.join("control.sock")),
            ),
            (
                "events.file",
                format!("{:?}", directory.join("events.jsonl")),
            ),
            (
                "events.webhooks",
                format!(r#"[{{ url = "http://{hook}/", value = "{KEY}" }}]"#),
            ),
            ("events.interval", r#""1s""#.to_owned()),
            ("log.level", r#""trace""#.to_owned()),
            ("log.format", r#""json""#.to_owned()),
        ]);
        keys.extend(
            changes
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned())),
        );
        let mut config = String::new();
        // Keys without a section stand first, and there is no such section as "".
        let mut section = "";
        for top in [true, false] {
            for (key, value) in &keys {
                let (own, name) = key.split_once('.').unwrap_or(("", key));
                if own.is_empty() != top {
                    continue;
                }
                if own != section {
                    section = own;
                    writeln!(config, "[{section}]").unwrap();
                }
                writeln!(config, "{name} = {value}").unwrap();
            }
        }
        config
    }

    /// A daemon with that configuration, once it is ready.
    pub(crate) fn serve(&self, changes: &[(&str, &str)]) -> Daemon<'_> {
        self.start(changes, To::Stderr)
    }

    /// The same, whose log goes to the journal.
    pub(crate) fn serve_to_journal(&self, changes: &[(&str, &str)]) -> Daemon<'_> {
        let format = ("log.format", r#""auto""#);
        self.start(&[changes, &[format]].concat(), To::Journal)
    }

    fn start(&self, changes: &[(&str, &str)], to: To) -> Daemon<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.path().join(number.to_string());
        fs::create_dir(&directory).unwrap();
        let file = directory.join("taciturn.toml");
        fs::write(&file, self.config(&directory, changes)).unwrap();
        let (mut command, journal) = match to {
            To::Stderr => (self.relay.command(env!("CARGO_BIN_EXE_taciturn")), None),
            To::Journal => {
                let journal = Journal::open(&directory.join("journal"));
                (self.to_journal(&directory), Some(journal))
            }
        };
        command.env("XDG_RUNTIME_DIR", &directory);
        command.arg("serve").arg("--config").arg(&file);
        let mut daemon = Daemon {
            stage: self,
            process: Process::spawn("daemon", command, &directory),
            directory,
            journal,
        };
        eventually("the daemon is ready", || {
            daemon.process.assert_alive();
            daemon
                .ask_anything(Door::Admin, &get("/readyz"))
                .contains("\r\n\r\nready")
        });
        daemon
    }

    /// Runs what follows where `/run/systemd/journal/socket` is ours, and standard error is what
    /// the journal is said to read.
    fn to_journal(&self, directory: &Path) -> Command {
        const SCRIPT: &str = "mount --make-rprivate / && mount -t tmpfs run /run && \
            mkdir /run/systemd && mount --bind \"$1\" /run/systemd && shift && \
            export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && exec \"$@\"";
        let mut command = self.relay.command("unshare");
        command.args(["-m", "sh", "-c", SCRIPT, "sh"]);
        command.arg(directory).arg(env!("CARGO_BIN_EXE_taciturn"));
        command
    }

    /// A UDP client of `user` at this party.
    pub(crate) fn client(&self, party: Party, family: AddressFamily, user: &str) -> Client {
        self.client_at(party, party.at(family), rest(user))
    }

    /// A UDP client at one of the party's addresses.
    pub(crate) fn client_at(&self, party: Party, at: IpAddr, credential: Credential) -> Client {
        let server = listener(AddressFamily::of(at), Transport::Udp);
        self.party(party)
            .enter(|| Client::at(at, server, credential))
    }

    /// A client of `user` on a connection from this party.
    pub(crate) fn client_over(&self, party: Party, transport: Transport, user: &str) -> Client {
        let (server, credential) = (listener(V4, transport), rest(user));
        self.party(party).enter(|| {
            let stream = match transport {
                Transport::Tls => Stream::tls(server),
                Transport::Udp | Transport::Tcp | Transport::Dtls => Stream::tcp(server),
            };
            Client::over(stream, credential)
        })
    }
}

/// Where clients reach the daemon.
pub(crate) fn listener(family: AddressFamily, transport: Transport) -> SocketAddr {
    let port = match transport {
        Transport::Tls | Transport::Dtls => TLS_PORT,
        Transport::Udp | Transport::Tcp => PORT,
    };
    SocketAddr::new(of(SERVICE, family), port)
}

/// A REST credential.
pub(crate) fn rest(user: &str) -> Credential {
    let (username, password) = credential(user);
    Credential { username, password }
}

/// A GET without a key.
pub(crate) fn get(path: &str) -> String {
    request("GET", path)
}

/// A request without a key or a body; HTTP/1.0, so that the answer ends with the connection.
pub(crate) fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.0\r\nHost: stage\r\nContent-Length: 0\r\n\r\n")
}

/// Where a daemon's log goes.
#[derive(Clone, Copy)]
enum To {
    Stderr,
    Journal,
}

/// After how long an answer that does not end is taken for whole.
const QUIET: Duration = Duration::from_secs(5);

/// What comes back for a request, until the end.
fn exchanged(mut stream: impl Read + Write, request: &str) -> String {
    let mut answer = Vec::new();
    // What came before an error counts.
    stream.write_all(request.as_bytes()).ok();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A running daemon; it is killed when this is dropped.
pub(crate) struct Daemon<'stage> {
    stage: &'stage Stage,
    process: Process,
    /// Its configuration, state and runtime directory.
    pub(crate) directory: PathBuf,
    journal: Option<Journal>,
}

impl Daemon<'_> {
    /// The daemon's process. `ip` and `sh` have become it by now.
    pub(crate) fn pid(&self) -> u32 {
        let name = self.stage.relay.name();
        let output = Command::new("ip").args(["netns", "pids", name]).output();
        let pids = String::from_utf8(output.unwrap().stdout).unwrap();
        let is_daemon = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "taciturn\n")
        };
        let mut pids = pids.lines().filter_map(|pid| pid.trim().parse().ok());
        pids.find(is_daemon).unwrap()
    }

    /// The whole answer of a listener to these bytes.
    pub(crate) fn ask(&self, door: Door, request: &str) -> String {
        let answer = self.ask_anything(door, request);
        assert!(answer.starts_with("HTTP/1."), "no answer to {request:?}");
        answer
    }

    /// The same, where there need be none.
    pub(crate) fn ask_anything(&self, door: Door, request: &str) -> String {
        let over_tcp = |listener| {
            let connect = || TcpStream::connect(SocketAddr::from(listener));
            let stream = self.stage.relay.enter(connect).ok()?;
            stream.set_read_timeout(Some(QUIET)).unwrap();
            Some(exchanged(stream, request))
        };
        let answer = match door {
            Door::Admin => over_tcp(ADMIN),
            Door::Api => over_tcp(API),
            Door::Control => {
                let stream = UnixStream::connect(self.directory.join("control.sock")).ok();
                stream.map(|stream| {
                    stream.set_read_timeout(Some(QUIET)).unwrap();
                    exchanged(stream, request)
                })
            }
        };
        answer.unwrap_or_default()
    }

    /// A metric's value, summed over its series with `labels` in them.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> u64 {
        self.ask(Door::Admin, &get("/metrics"))
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(labels))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Sends a signal that ends it, and waits; what it logged.
    pub(crate) fn stop(mut self) -> Vec<u8> {
        self.process.assert_alive();
        let status = self.process.stop(Signal::TERM);
        assert!(status.success(), "{status}\n{}", self.process.output());
        let mut said = self.process.written();
        if let Some(journal) = self.journal.take() {
            said.extend(journal.close());
        }
        said
    }

    /// Has it crash.
    pub(crate) fn crash(mut self) -> ExitStatus {
        self.process.stop(Signal::ABORT)
    }

    /// Runs a command of the binary beside it, with its configuration; what that said.
    pub(crate) fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = self.stage.relay.command(env!("CARGO_BIN_EXE_taciturn"));
        command.args(arguments).current_dir(&self.directory);
        command.env("XDG_RUNTIME_DIR", &self.directory);
        let output = command.output().unwrap();
        [output.stdout, output.stderr].concat()
    }
}

/// No message of a journal.
const LAST: &[u8] = b"that was all";

/// What systemd's journal would read.
struct Journal {
    path: PathBuf,
    reader: JoinHandle<()>,
    read: Arc<Mutex<Vec<u8>>>,
}

impl Journal {
    fn open(directory: &Path) -> Self {
        fs::create_dir(directory).unwrap();
        let path = directory.join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let read = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&read);
        let reader = thread::spawn(move || {
            let mut buf = vec![0; 1 << 16];
            while let Ok(len) = socket.recv(&mut buf)
                && buf[..len] != *LAST
            {
                let mut kept = kept.lock().unwrap();
                kept.extend_from_slice(&buf[..len]);
                kept.push(b'\n');
            }
        });
        Self { path, reader, read }
    }

    fn close(self) -> Vec<u8> {
        let last = UnixDatagram::unbound().unwrap();
        last.send_to(LAST, &self.path).unwrap();
        self.reader.join().unwrap();
        std::mem::take(&mut self.read.lock().unwrap())
    }
}
