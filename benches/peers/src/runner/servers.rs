//! The servers: how each is started with its best settings, and what it cannot do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cells::Work;

/// The secret of REST credentials on every server.
pub(crate) const SECRET: &str = "not a secret outside of this benchmark";
pub(crate) const PORT: u16 = 3478;

/// How a server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Taciturn,
    /// `floor` with these arguments.
    Floor(&'static [&'static str]),
    Coturn,
    TurnRs,
    WebrtcRs,
    Pion,
    Ejabberd,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) about: &'static str,
    pub(crate) program: Program,
    /// Its binary, if it is not the usual one.
    pub(crate) binary: Option<PathBuf>,
    /// Whether it is run only when it is named.
    pub(crate) on_request: bool,
}

/// What `taciturn-limits` has that `taciturn` has not: each packet asks the buckets of allocation
/// and user on both sides. Tenants are claimed by sealed usernames, which the load has none of.
const LIMITS: &str = r#"user_allocations = 1000000
tenant_allocations = 1000000
total_allocations = 1000000
permissions = 1024
channels = 1024
allocation_rate = "1000Gbit/s"
allocation_packets = "100000000/s"
user_rate = "1000Gbit/s"
user_packets = "100000000/s"
tenant_rate = "1000Gbit/s"
tenant_packets = "100000000/s"
prefix_allocates = "1000000/s burst 1000000""#;

/// All rows, in the order of the table.
#[rustfmt::skip]
const ROWS: &[(&str, &str, Program, bool)] = &[
    ("taciturn", "this project", Program::Taciturn, false),
    ("taciturn-bound", "with a socket for every allocation (relay.bind = \"always\")", Program::Taciturn, true),
    ("taciturn-limits", "with every limit of [limits] set, far above use", Program::Taciturn, true),
    ("coturn", "turnserver, from Debian", Program::Coturn, false),
    ("turn-rs", "turn-server, from crates.io", Program::TurnRs, false),
    ("webrtc-rs", "the server of the crate turn, from crates.io", Program::WebrtcRs, false),
    ("pion", "pion/turn, from Debian", Program::Pion, false),
    ("ejabberd", "the STUN/TURN server of ejabberd and eturnal, from Debian", Program::Ejabberd, false),
    ("hairpin", "floor: one receive, one send, batched", Program::Floor(&["hairpin"]), false),
    ("hairpin-gso", "floor: the same with GRO and GSO", Program::Floor(&["hairpin", "--gso"]), false),
    ("hairpin-busy", "floor: the same without ever sleeping", Program::Floor(&["hairpin", "--busy-poll"]), true),
    ("forward", "floor: through a listener and a relay socket, batched", Program::Floor(&["forward"]), false),
    ("forward-gso", "floor: the same with GRO and GSO", Program::Floor(&["forward", "--gso"]), false),
    ("forward-unbatched", "floor: the same packet by packet", Program::Floor(&["forward", "--unbatched"]), false),
    ("forward-scratch", "floor: plain receives on relay sockets, else batched", Program::Floor(&["forward", "--scratch"]), true),
    ("forward-uring", "floor: by io_uring", Program::Floor(&["forward", "--uring"]), true),
    ("forward-busy", "floor: batched, without ever sleeping", Program::Floor(&["forward", "--busy-poll"]), true),
];

pub(crate) fn all() -> Vec<Server> {
    ROWS.iter()
        .map(|&(name, about, program, on_request)| Server {
            name: name.to_owned(),
            about,
            program,
            binary: None,
            on_request,
        })
        .collect()
}

impl Server {
    /// Why it cannot do some work, if so.
    pub(crate) fn cannot(&self, work: Work) -> Option<&'static str> {
        match (self.program, work) {
            (Program::TurnRs, Work::Peer) => Some("it has no relay sockets"),
            (Program::Floor(["hairpin", ..] | ["forward", "--gso"]), Work::Peer) => {
                Some("this floor forwards between clients only")
            }
            (Program::Floor(_), Work::Indications) => Some("a floor has no indications"),
            (Program::Floor(_), Work::Tcp | Work::Tls) => Some("a floor has no connections"),
            (
                Program::TurnRs | Program::WebrtcRs | Program::Pion | Program::Ejabberd,
                Work::Tcp | Work::Tls,
            ) => Some("only coturn is measured over TCP and TLS"),
            _ => None,
        }
    }

    /// Floors stand in the table to show what is possible, not to be beaten.
    pub(crate) fn is_floor(&self) -> bool {
        matches!(self.program, Program::Floor(_))
    }
}

/// Where and for what a server is started.
pub(crate) struct Setting<'a> {
    pub(crate) address: &'a str,
    /// Networks that plain peers are in.
    pub(crate) peers: &'a str,
    pub(crate) work: Work,
    pub(crate) cores: usize,
    pub(crate) tools: &'a Path,
    pub(crate) taciturn: &'a Path,
    /// PEM files: a certificate and its key, for work over TLS.
    pub(crate) certificate: [&'a Path; 2],
    /// For its files.
    pub(crate) directory: &'a Path,
}

impl Setting<'_> {
    /// Program and arguments; an error says why the server is not to be had.
    pub(crate) fn command(&self, server: &Server) -> Result<Command> {
        let rest = [self.address.to_owned(), PORT.to_string(), SECRET.to_owned()];
        let mut command = match server.program {
            Program::Taciturn => {
                let mut command = Command::new(server.binary.as_deref().unwrap_or(self.taciturn));
                command
                    .args(["serve", "--config"])
                    .arg(self.taciturn_config(&server.name)?);
                return Ok(command);
            }
            Program::Floor(arguments) => {
                let mut command = Command::new(built("floor")?);
                command.args(arguments);
                command.arg(format!("--listen={}:{PORT}", self.address));
                return Ok(command);
            }
            Program::Coturn => return self.coturn(),
            Program::TurnRs => {
                let mut command = Command::new(present(&self.tools.join("bin/turn-server"))?);
                command.arg("--config").arg(self.turn_rs_config()?);
                return Ok(command);
            }
            Program::WebrtcRs => Command::new(built("webrtc-rs-server")?),
            Program::Pion => Command::new(present(&self.tools.join("bin/pion"))?),
            Program::Ejabberd => {
                let library = Path::new("/usr/lib/erlang/lib");
                let there = fs::read_dir(library).into_iter().flatten().flatten();
                there
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .find(|name| name.starts_with("p1_stun"))
                    .context("Debian's erlang-p1-stun is not installed")?;
                let mut command = Command::new("escript");
                // Schedulers for the cores it has, and as many ports as there are allocations.
                command.env("ERL_FLAGS", format!("+S {0}:{0} +Q 65536", self.cores));
                command.arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/servers/ejabberd.escript"
                ));
                command
            }
        };
        command.args(rest);
        Ok(command)
    }

    /// The default policy for calls; for plain peers their networks are opened. Rate limits are
    /// out of the way, metrics are on.
    fn taciturn_config(&self, name: &str) -> Result<PathBuf> {
        // Loopback needs `allow` too.
        let (peers, allow) = match self.work {
            Work::Peer => (format!("[{}]", self.peers), self.peers),
            _ => ("\"relay\"".to_owned(), ""),
        };
        let bind = if name == "taciturn-bound" {
            "always"
        } else {
            "auto"
        };
        let limits = if name == "taciturn-limits" {
            LIMITS
        } else {
            ""
        };
        let Self { address, cores, .. } = self;
        // On one port beside TCP, as coturn has it.
        let (listen_tls, tls) = match self.work {
            Work::Tls => {
                let [cert, key] = self.certificate.map(|file| file.display().to_string());
                let listen = format!("tls = [\"{address}:{PORT}\"]");
                (listen, format!("[tls]\ncert = [{cert:?}]\nkey = [{key:?}]"))
            }
            _ => (String::new(), String::new()),
        };
        self.write(
            "taciturn.toml",
            &format!(
                r#"realm = "bench.invalid"

[listen]
udp = ["{address}:{PORT}"]
{listen_tls}

{tls}

[relay]
addresses = ["{address}"]
bind = "{bind}"
port_rest = "1s"

[auth]
secrets = [{{ id = "bench", value = "{SECRET}" }}]

[policy]
peers = {peers}
allow = [{allow}]

[limits]
unvalidated = "1000000/s burst 1000000"
{limits}

[workers]
count = {cores}

[admin]
listen = "127.0.0.1:9641"

[log]
level = "warn"
"#
            ),
        )
    }

    fn coturn(&self) -> Result<Command> {
        let help = Command::new("turnserver").arg("-h").output();
        let help = help.context("Debian's coturn is not installed")?;
        let mut command = Command::new("turnserver");
        command
            .args([
                "-n",
                "--use-auth-secret",
                "--realm=bench.invalid",
                "--stale-nonce=0",
            ])
            .args(["--no-dtls", "--no-cli", "--no-tcp-relay"])
            .args([
                "--min-port=49152",
                "--max-port=65535",
                "--allow-loopback-peers",
            ])
            .args([
                "--log-file=/dev/null",
                "--no-stdout-log",
                "--pidfile=/dev/null",
            ])
            .arg(format!("--static-auth-secret={SECRET}"))
            .arg(format!("--listening-ip={}", self.address))
            .arg(format!("--listening-port={PORT}"))
            .arg(format!("--relay-ip={}", self.address))
            .arg(format!("--relay-threads={}", self.cores))
            .arg(format!(
                "--userdb={}",
                self.directory.join("turndb").display()
            ));
        match self.work {
            Work::Tls => {
                let [cert, key] = self.certificate.map(Path::display);
                command
                    .arg(format!("--cert={cert}"))
                    .arg(format!("--pkey={key}"));
            }
            Work::Tcp => {
                command.arg("--no-tls");
            }
            _ => {
                command.args(["--no-tls", "--no-tcp"]);
            }
        }
        // 4.11 and later.
        if String::from_utf8_lossy(&help.stdout).contains("--sock-buf-size") {
            command.arg("--sock-buf-size=4194304");
        }
        Ok(command)
    }

    fn turn_rs_config(&self) -> Result<PathBuf> {
        let Self { address, cores, .. } = self;
        self.write(
            "turn-rs.toml",
            &format!(
                r#"[server]
port-range = "49152..65535"
max-threads = {cores}
realm = "bench.invalid"

[[server.interfaces]]
transport = "udp"
listen = "{address}:{PORT}"
external = "{address}:{PORT}"
idle-timeout = 3600

[log]
level = "error"

[auth]
static-auth-secret = "{SECRET}"
"#
            ),
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.directory.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}

/// A binary of this package, which lies beside this one.
fn built(name: &str) -> Result<PathBuf> {
    present(&std::env::current_exe()?.with_file_name(name))
}

fn present(binary: &Path) -> Result<PathBuf> {
    let name = binary.file_name().unwrap_or_default().display().to_string();
    let found = binary.canonicalize();
    found.with_context(|| format!("{name} was not built; `run` said why"))
}
