//! The README's commands do what it says: they are taken from it word for word and run. Whatever
//! else starts a daemon on the default admin port stands here too, since one may at a time.

#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up; a release build from nothing included.
const PATIENCE: Duration = Duration::from_secs(1_200);

/// Held by the test whose daemon has the default admin port.
static PORTS: Mutex<()> = Mutex::new(());

fn ports() -> MutexGuard<'static, ()> {
    PORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of the `sh` blocks below a heading, without their comments.
fn commands(heading: &str) -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rest = readme.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap());
    blocks
        .flat_map(str::lines)
        .map(|line| line.split(" #").next().unwrap().trim().to_owned())
        .collect()
}

/// A daemon in a process group of its own, ended with the test.
struct Daemon(Child);

impl Daemon {
    fn start(command: &str, directory: &Path) -> Self {
        let mut shell = shell(command, directory);
        Self(
            shell
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    /// What it says of itself when it starts without a configuration file.
    fn told(&mut self) -> String {
        let output = BufReader::new(self.0.stdout.take().unwrap());
        let lines: Vec<String> = output
            .lines()
            .map(Result::unwrap)
            .take_while(|line| !line.contains("For production"))
            .collect();
        lines.join("\n")
    }

    /// Ctrl-C, and it ends well.
    fn interrupt(mut self) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already when all went well.
        if self.0.kill().is_ok() {
            self.0.wait().unwrap();
        }
    }
}

/// `command` as typed at a prompt, with this build's `taciturn` on the path, where `cargo install`
/// would put it.
fn shell(command: &str, directory: &Path) -> Command {
    let binaries = Path::new(env!("CARGO_BIN_EXE_taciturn")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec {command}")])
        .current_dir(directory)
        .env("PATH", path);
    shell.env("XDG_RUNTIME_DIR", directory);
    shell
}

fn get(path: &str) -> Option<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9641").ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn wait_until_ready() {
    let began = Instant::now();
    while !get("/readyz").is_some_and(|answer| answer.contains("200 OK")) {
        assert!(began.elapsed() < PATIENCE, "the daemon never became ready");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_commands_for_production_configure_check_serve_and_mint() {
    let _ports = ports();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config");
    fs::create_dir(&config).unwrap();
    fs::copy(
        root().join("config/minimal.toml"),
        config.join("minimal.toml"),
    )
    .unwrap();
    let lines = commands("Configure it");
    let [copy, check, serve, mint] = &lines[..] else {
        panic!("four commands: {lines:?}")
    };

    assert!(shell(copy, directory.path()).status().unwrap().success());
    // "then edit it": a secret and a state directory that this test may write.
    let file = directory.path().join("taciturn.toml");
    let secret = directory.path().join("secret");
    fs::write(&secret, "a secret of the readme's test").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let edited = text
        .replace("/etc/taciturn/secret", secret.to_str().unwrap())
        .replace(
            "/var/lib/taciturn",
            directory.path().join("state").to_str().unwrap(),
        );
    assert_ne!(text, edited);
    fs::write(&file, edited).unwrap();

    let output = shell(check, directory.path()).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let daemon = Daemon::start(serve, directory.path());
    wait_until_ready();
    let output = shell(mint, directory.path()).output().unwrap();
    let minted = String::from_utf8(output.stdout).unwrap();
    assert!(
        minted.contains("turn:turn.example.org:3478?transport=udp"),
        "{minted}"
    );
    assert!(
        minted.contains("\"iceTransportPolicy\": \"relay\""),
        "{minted}"
    );
    assert!(get("/healthz").unwrap().ends_with("ok\n"));
    daemon.interrupt();
}

#[test]
fn flags_alone_are_enough_to_serve_probe_and_scrape() {
    let _ports = ports();
    let directory = tempfile::tempdir().unwrap();
    let serve = "taciturn serve --listen-udp 127.0.0.1:34781 --log-level warn";
    let mut daemon = Daemon::start(serve, directory.path());
    let told = daemon.told();
    for part in [
        "udp 127.0.0.1:34781",
        "turn:127.0.0.1:34781",
        "Policy: closed",
    ] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
    wait_until_ready();
    let probe = shell("taciturn probe", directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&probe.stdout);
    assert!(probe.status.success(), "{said}");
    let metrics = get("/metrics").unwrap();
    assert!(
        metrics.contains("taciturn_allocations_total{transport=\"udp\"} 2"),
        "{metrics}"
    );
    daemon.interrupt();
}

/// The part of a command that `cargo run` begins with, apart and with the versions that are tested.
fn build(command: &str) {
    let (run, _) = command.split_once(" -- ").unwrap();
    let build = run.replace("cargo run", "cargo build") + " --locked";
    assert!(shell(&build, root()).status().unwrap().success());
}

/// What a page of this machine answers to `<method> <path>`.
fn asked(page: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(page).unwrap();
    let fields = format!("Host: {page}\r\nConnection: close\r\nContent-Length: 0");
    write!(stream, "{request} HTTP/1.1\r\n{fields}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// That a call is held on that page, and what it shows, is for tests/demo.
#[test]
#[ignore = "builds in release mode; .ci/run runs it"]
fn the_very_first_command_serves_the_demos_page_with_credentials() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = commands("See it");
    let [demo] = &lines[..] else {
        panic!("one command: {lines:?}")
    };
    let first = readme.split("```sh\n").nth(1).unwrap();
    assert!(
        first.starts_with(demo),
        "another command comes before {demo}"
    );
    build(demo);

    let mut command = shell(demo, root());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut daemon = Daemon(command.spawn().unwrap());
    let mut lines = BufReader::new(daemon.0.stdout.take().unwrap()).lines();
    let link = lines.find(|line| line.as_ref().unwrap().contains("http://"));
    let link = link.unwrap().unwrap().trim().to_owned();
    assert!(
        readme.contains(&format!("<{link}>")),
        "the README has not {link}"
    );
    let page = link.trim_start_matches("http://").trim_end_matches('/');
    let answer = asked(page, "GET /");
    assert!(
        answer.contains("200 OK") && answer.contains("Through taciturn"),
        "{answer}"
    );
    let answer = asked(page, "POST /credentials/a");
    assert!(
        answer.contains("\"iceTransportPolicy\":\"relay\""),
        "{answer}"
    );
    daemon.interrupt();
}

/// Run last and alone: it builds in release mode.
#[test]
#[ignore = "builds in release mode; .ci/run runs it"]
fn the_first_command_relays_within_the_first_minute() {
    let _ports = ports();
    let lines = commands("Run it");
    let [run, probe] = &lines[..] else {
        panic!("two commands: {lines:?}")
    };
    build(run);

    let began = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let mut command = shell(run, root());
    command.env("XDG_RUNTIME_DIR", directory.path());
    let mut daemon = Daemon(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let told = daemon.told();
    assert!(
        told.contains("\"iceServers\"") && told.contains("udp 127.0.0.1:3478"),
        "{told}"
    );
    wait_until_ready();
    let mut probe = shell(probe, root());
    let probe = probe
        .env("XDG_RUNTIME_DIR", directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&probe.stdout);
    assert!(
        probe.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&probe.stderr)
    );
    println!(
        "from the command to a proven relay, build apart: {:?}",
        began.elapsed()
    );
    daemon.interrupt();
}
