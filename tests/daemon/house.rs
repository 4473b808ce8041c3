//! A daemon with a directory of its own: configuration, state, and what it wrote.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use taciturn::proto::AddressFamily;
use tempfile::TempDir;

use crate::http;
use crate::loopback::client::{Client, Credential};
use crate::loopback::eventually;
use crate::loopback::plane::V4;

/// The secret of every configuration made here.
pub(crate) const SECRET: &str = "quartz-lantern-7/abridged";

/// Where configuration, state and output are.
pub(crate) struct House {
    pub(crate) directory: TempDir,
    pub(crate) binary: PathBuf,
}

impl House {
    /// A house whose configuration is the usual one and `more`.
    pub(crate) fn new(more: &str) -> Self {
        let house = Self {
            directory: tempfile::tempdir().unwrap(),
            binary: env!("CARGO_BIN_EXE_taciturn").into(),
        };
        house.write(&format!(
            r#"
{more}
[listen]
udp = ["127.0.0.1:0", "[::1]:0"]
[relay]
addresses = ["127.0.0.1", "::1"]
ports = "61000-65535"
[auth]
secrets = [{{ id = "first", value = "{SECRET}" }}]
[workers]
count = 2
[admin]
listen = "127.0.0.1:0"
"#
        ));
        house
    }

    /// Writes the configuration, which nobody else may read.
    pub(crate) fn write(&self, config: &str) {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(self.config()).unwrap();
        file.write_all(config.as_bytes()).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("taciturn.toml")
    }

    /// The binary, with nothing of this test's environment, and with a control socket of its own:
    /// the usual one belongs to one daemon of a machine.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env_clear()
            .env("XDG_RUNTIME_DIR", self.directory.path())
            .env(
                "TACITURN_CONTROL__SOCKET",
                self.directory.path().join("control.sock"),
            )
            .stdin(Stdio::null())
            .current_dir(self.directory.path());
        command
    }

    /// Runs the binary, which must come to an end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.finish(self.command(arguments))
    }

    /// Runs `command`, which must come to an end.
    pub(crate) fn finish(&self, command: Command) -> Output {
        let mut run = self.spawn(command);
        let status = run.wait();
        Output {
            status,
            stdout: run.stdout().into_bytes(),
            stderr: run.stderr().into_bytes(),
        }
    }

    /// `taciturn serve` with this configuration, once it is ready.
    pub(crate) fn serve(&self) -> Daemon {
        self.start(self.command(&["serve", "--config", "taciturn.toml"]))
    }

    /// Runs `command` until it says that it is ready.
    pub(crate) fn start(&self, command: Command) -> Daemon {
        let mut daemon = self.spawn(command);
        eventually("the daemon is ready", || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", daemon.stderr());
            daemon.says_ready()
        });
        daemon
    }

    fn spawn(&self, mut command: Command) -> Daemon {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let [out, err] =
            ["out", "err"].map(|name| self.directory.path().join(format!("{run}.{name}")));
        let child = command
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        Daemon { child, out, err }
    }

    /// What `taciturn mint` prints for `user`.
    pub(crate) fn mint(&self, user: &str) -> Value {
        let output = self.run(&["mint", "--user", user, "--config", "taciturn.toml"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A client of `user`, with a credential that the binary minted.
    pub(crate) fn client(&self, daemon: &Daemon, user: &str) -> Client {
        Client::new(daemon.listener(V4), credential(&self.mint(user)))
    }
}

/// The credential of an `RTCConfiguration`.
pub(crate) fn credential(configuration: &Value) -> Credential {
    let server = &configuration["iceServers"][0];
    let text = |key: &str| server[key].as_str().unwrap().to_owned();
    Credential {
        username: text("username"),
        password: text("credential"),
    }
}

/// A running daemon; it is killed when it is dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Daemon {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(fs::read(&self.out).unwrap()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(fs::read(&self.err).unwrap()).unwrap()
    }

    /// Whether its log has the last line of a start, whole, in either format.
    fn says_ready(&self) -> bool {
        let log = self.stderr();
        let (whole, _) = log.rsplit_once('\n').unwrap_or_default();
        whole
            .lines()
            .any(|line| line.contains(r#""message":"ready""#) || line.ends_with(": ready"))
    }

    /// Where clients of this family reach it.
    pub(crate) fn listener(&self, family: AddressFamily) -> SocketAddr {
        let mut listeners = self.addresses("listening").into_iter();
        listeners
            .find(|listener| AddressFamily::of(listener.ip()) == family)
            .unwrap()
    }

    /// A GET to its admin listener.
    pub(crate) fn get(&self, path: &str) -> http::Answer {
        http::get(self.addresses("admin listens")[0], path)
    }

    /// The addresses in log lines with this message, in either format of the log.
    pub(crate) fn addresses(&self, message: &str) -> Vec<SocketAddr> {
        let log = self.stderr();
        log.lines()
            .filter(|line| line.contains(message))
            .filter_map(|line| line.split_once("address"))
            .map(|(_, rest)| {
                let rest = rest.trim_start_matches(['"', ':', '=']);
                let end = rest.find(['"', ' ']).unwrap_or(rest.len());
                rest[..end].parse().unwrap()
            })
            .collect()
    }

    /// The whole lines of the log, which are JSON.
    pub(crate) fn log(&self) -> Vec<Value> {
        let log = self.stderr();
        let (whole, _) = log.rsplit_once('\n').unwrap_or_default();
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends `signal` and waits for the end.
    pub(crate) fn stop(&mut self, signal: Signal) -> ExitStatus {
        kill_process(self.pid(), signal).unwrap();
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
