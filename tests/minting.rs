//! The snippets in `docs/minting`: what each mints is what the server takes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says why it cannot go on, or why it was left out"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use taciturn::turn::credential::{Secret, mint, parse_rest};

#[expect(clippy::expect_used, unreachable_pub, reason = "a snippet for others")]
#[path = "../docs/minting/mint.rs"]
mod snippet;

const SECRET: &str = "a secret, ä, with+/= in it";
const USER: &str = "alice@example.org";
const TTL: u64 = 3_600;

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Holds a credential against the server's own.
fn is_taken(username: &str, password: &str, began: u64) {
    let rest = parse_rest(username).unwrap();
    assert_eq!(rest.user, USER);
    assert!(
        (began + TTL..=now() + TTL).contains(&rest.expires),
        "{username}"
    );
    let ours = mint(&Secret::new("1", SECRET), USER, rest.expires).unwrap();
    assert_eq!(ours.username, username);
    assert_eq!(ours.password.as_str(), password);
}

/// Runs a snippet where its runtime is.
fn run(runtime: &str, arguments: &[&str], file: &str) {
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let snippets: PathBuf = [env!("CARGO_MANIFEST_DIR"), "docs", "minting"]
        .iter()
        .collect();
    let began = now();
    let output = Command::new(runtime)
        .args(arguments)
        .arg(snippets.join(file))
        .arg(&secret)
        .args([USER, &TTL.to_string()])
        // Go keeps what it builds.
        .env("GOCACHE", home.path().join("go"))
        .env("GOFLAGS", "-mod=mod")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped {file}: there is no {runtime} on this machine");
            return;
        }
        Err(error) => panic!("{runtime}: {error}"),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{file}: {stderr}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    is_taken(
        json["username"].as_str().unwrap(),
        json["credential"].as_str().unwrap(),
        began,
    );
}

#[test]
fn python_mints_what_the_server_takes() {
    run("python3", &[], "mint.py");
}

#[test]
fn node_mints_what_the_server_takes() {
    run("node", &[], "mint.mjs");
}

#[test]
fn go_mints_what_the_server_takes() {
    run("go", &["run"], "mint.go");
}

#[test]
fn rust_mints_what_the_server_takes() {
    let began = now();
    let (username, password) = snippet::mint(SECRET, USER, Duration::from_secs(TTL));
    is_taken(&username, &password, began);
}

#[test]
fn every_snippet_is_run_here() {
    let mut files: Vec<String> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/minting"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "README.md")
            .collect();
    files.sort();
    assert_eq!(files, ["mint.go", "mint.mjs", "mint.py", "mint.rs"]);
}
