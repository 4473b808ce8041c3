//! The register of outputs: whatever the daemon or its binary says to anybody, and how the suite
//! hears it. The tests here compare it with the source, so that a new kind of output fails the
//! suite until it stands here and is searched.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use taciturn::daemon::cli::Cli;

use crate::routes::{ROUTES, UNASKED};
use crate::source::{root, rust_files};

/// How the suite hears of an output.
#[derive(Debug)]
pub(crate) enum Heard {
    /// `collect` asks for it or reads it in every run.
    Collected,
    /// It is run with these arguments beside the daemon, and what it prints is searched.
    Run(&'static [&'static str]),
    /// It is not heard, for this reason.
    Not(&'static str),
}

use Heard::{Collected, Not, Run};

/// Commands of the binary.
pub(crate) const COMMANDS: &[(&str, Heard)] = &[
    ("serve", Collected),
    (
        "demo",
        Not("`serve` with a page for one person's own browser; tests/daemon/demo.rs, tests/demo"),
    ),
    ("check", Run(&["check", "--config", "taciturn.toml"])),
    (
        "mint",
        Run(&["mint", "--user", "alice", "--config", "taciturn.toml"]),
    ),
    (
        "probe",
        Not("a client: it tells of the machine where it runs"),
    ),
    (
        "load",
        Not("a client: it tells of the machine where it runs"),
    ),
    (
        "whois",
        Not("it is given the address, and says yes or no; tests/daemon/whois.rs"),
    ),
    (
        "diagnose",
        Run(&[
            "diagnose",
            "--config",
            "taciturn.toml",
            "--socket",
            "control.sock",
        ]),
    ),
    (
        "top",
        Not("it takes a terminal; tests/daemon/top.rs searches its screen"),
    ),
    ("status", Run(&["status", "--socket", "control.sock"])),
    (
        "allocations",
        Run(&["allocations", "--socket", "control.sock"]),
    ),
    ("bans", Run(&["bans", "--socket", "control.sock"])),
    (
        "ban",
        Run(&[
            "ban",
            "--network",
            "198.51.100.20",
            "--socket",
            "control.sock",
        ]),
    ),
    (
        "unban",
        Run(&["unban", "0123456789abcdef", "--socket", "control.sock"]),
    ),
    (
        "revoke",
        Run(&["revoke", "--user", "bob", "--socket", "control.sock"]),
    ),
    ("openapi", Run(&["openapi"])),
    ("import", Not("it reads another server's configuration")),
    ("import coturn", Not("the same")),
    ("completions", Run(&["completions", "bash"])),
    ("man", Run(&["man"])),
];

/// Sections of the configuration: whether they open an output.
pub(crate) const SECTIONS: &[(&str, Heard)] = &[
    ("realm", Not("a text that clients are told")),
    ("public", Not("texts that `mint` prints")),
    (
        "listen",
        Not("TURN: the captures on both legs are searched"),
    ),
    ("tls", Not("files that are read")),
    ("proxy_protocol", Not("headers that are read")),
    ("relay", Not("TURN: the captures on both legs are searched")),
    ("auth", Not("secrets that are read")),
    ("policy", Not("rules")),
    ("limits", Not("rules")),
    ("compat", Not("rules")),
    (
        "features",
        Not("TURN: the captures on both legs are searched"),
    ),
    ("alternate", Not("addresses that clients are told")),
    ("workers", Not("threads, whose names are read in /proc")),
    ("state", Collected),
    ("admin", Collected),
    ("metrics", Collected),
    ("api", Collected),
    ("control", Collected),
    ("events", Collected),
    ("log", Collected),
];

/// Files of the control side that open a file for writing, a socket, or a standard stream.
pub(crate) const SINKS: &[(&str, Heard)] = &[
    ("admin/api/serve.rs", Collected),
    ("admin/ledger.rs", Collected),
    ("admin/mod.rs", Collected),
    ("daemon/api.rs", Collected),
    (
        "daemon/control/mod.rs",
        Run(&["bans", "--socket", "control.sock"]),
    ),
    ("daemon/control/place.rs", Collected),
    (
        "daemon/check/mod.rs",
        Run(&["check", "--config", "taciturn.toml"]),
    ),
    (
        "daemon/demo/page.rs",
        Not("the demo's page, on loopback alone; tests/daemon/demo.rs, tests/demo"),
    ),
    (
        "daemon/diagnose/mod.rs",
        Run(&[
            "diagnose",
            "--config",
            "taciturn.toml",
            "--socket",
            "control.sock",
        ]),
    ),
    ("daemon/events/file.rs", Collected),
    ("daemon/events/webhook.rs", Collected),
    (
        "daemon/import/mod.rs",
        Not("it reads another server's configuration"),
    ),
    ("daemon/keys.rs", Collected),
    ("daemon/log.rs", Collected),
    ("daemon/manual.rs", Run(&["man"])),
    ("daemon/mod.rs", Collected),
    ("daemon/runtime.rs", Collected),
    (
        "daemon/top/mod.rs",
        Not("it takes a terminal; tests/daemon/top.rs searches its screen"),
    ),
];

/// What opens one, as source spells it.
const OPENERS: &[&str] = &[
    "OpenOptions::new",
    "File::create",
    "fs::write",
    "fs::copy",
    "stdout()",
    "stderr()",
    "TcpListener::bind",
    "TcpStream::connect",
    "UdpSocket::bind",
    "UnixListener",
    "UnixStream",
    "UnixDatagram",
    "ureq::",
    "reqwest::",
    "hyper_util::",
];

/// Files of the control side that look at a client's address, and what for.
const EXPOSERS: &[(&str, &str)] = &[(
    "admin/control.rs",
    "it hashes the address behind a pseudonym with the key of bans",
)];

/// Clients of their own, run by a person at a terminal.
const CLIENTS: &[&str] = &["daemon/load/", "daemon/probe/"];

/// What the suite does not hear, and why.
pub(crate) fn unheard() -> impl Iterator<Item = String> {
    let silent = [COMMANDS, SECTIONS, SINKS]
        .into_iter()
        .flatten()
        .filter_map(|(name, heard)| match heard {
            Not(why) => Some(format!("{name}: {why}")),
            Collected | Run(_) => None,
        });
    let unasked = UNASKED.iter().map(|(path, why)| format!("{path}: {why}"));
    silent.chain(unasked)
}

/// A file's code without its tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// Files below `src` with their code, tests left out.
fn sources() -> Vec<(String, String)> {
    let source = root().join("src");
    let files = rust_files(&source).into_iter().filter_map(|file| {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap();
        let is_test = name.contains("/tests") || name.ends_with("testing.rs");
        (!is_test).then(|| (name.to_owned(), code(&file)))
    });
    let sources: Vec<_> = files.collect();
    assert!(sources.len() > 50, "the source was not found");
    sources
}

/// The texts between `mark` and the next quote.
fn quoted<'c>(code: &'c str, mark: &'c str) -> impl Iterator<Item = &'c str> {
    let rests = code.split(mark).skip(1);
    rests.filter_map(|rest| rest.split('"').next())
}

fn registered<'r>(table: &'r [(&'r str, Heard)]) -> BTreeSet<&'r str> {
    let names: BTreeSet<_> = table.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), table.len(), "an output is registered twice");
    names
}

/// Paths that `code` serves, as axum and utoipa spell them.
fn routes(code: &str) -> BTreeSet<&str> {
    let compact = [".route(\"", ".nest(\"", ".nest_service(\"", "path = \"/"];
    let mut found = BTreeSet::new();
    for mark in compact {
        let slash = if mark.ends_with('/') { 1 } else { 0 };
        for path in quoted(code, mark) {
            let at = path.as_ptr() as usize - code.as_ptr() as usize - slash;
            found.insert(&code[at..at + slash + path.len()]);
        }
    }
    found
}

#[test]
fn every_route_is_registered() {
    let sources = sources();
    // Where a call is broken into lines its first argument stands on the next one.
    let joined: Vec<String> = sources
        .iter()
        .map(|(_, code)| code.split_whitespace().collect::<Vec<_>>().join(" "))
        .map(|code| code.replace("( \"", "(\""))
        .collect();
    let served: BTreeSet<&str> = joined.iter().flat_map(|code| routes(code)).collect();
    let asked = ROUTES.iter().map(|route| route.path);
    let unasked = UNASKED.iter().map(|(path, _)| *path);
    let known: BTreeSet<&str> = asked.chain(unasked).collect();
    assert_eq!(served, known, "ROUTES is not what is served");
    assert!(ROUTES.iter().all(|route| !route.asks.is_empty()));
}

#[test]
fn every_command_is_registered() {
    let command = Cli::command();
    let mut names = BTreeSet::new();
    for command in command.get_subcommands() {
        names.insert(command.get_name().to_owned());
        for inner in command.get_subcommands() {
            names.insert(format!("{} {}", command.get_name(), inner.get_name()));
        }
    }
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(
        names,
        registered(COMMANDS),
        "COMMANDS is not the command line"
    );
}

#[test]
fn every_section_of_the_configuration_is_registered() {
    let defaults = taciturn::config::defaults();
    let sections = defaults.as_object().unwrap().keys();
    let sections: BTreeSet<&str> = sections.map(String::as_str).collect();
    assert_eq!(
        sections,
        registered(SECTIONS),
        "SECTIONS is not the configuration"
    );
}

#[test]
fn whatever_opens_a_file_or_a_socket_is_registered() {
    let sources = sources();
    let opens = sources.iter().filter(|(name, code)| {
        let is_control = ["admin/", "config/", "daemon/"]
            .iter()
            .any(|layer| name.starts_with(layer));
        is_control
            && !CLIENTS.iter().any(|client| name.starts_with(client))
            && OPENERS.iter().any(|opener| code.contains(opener))
    });
    let opens: BTreeSet<&str> = opens.map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        opens,
        registered(SINKS),
        "SINKS is not what opens files and sockets"
    );
}

/// One function turns a client's address into text, where one order allows it.
#[test]
fn a_clients_address_becomes_text_in_one_place() {
    let mut tellers = Vec::new();
    let mut exposers = BTreeSet::new();
    for (name, code) in sources() {
        let client = CLIENTS.iter().any(|client| name.starts_with(client));
        if code.contains("BreakGlass::") || code.contains(".tell(") {
            tellers.push(name.clone());
        }
        // These layers write logs, answers and files.
        let is_control = ["admin/", "config/", "daemon/"]
            .iter()
            .any(|layer| name.starts_with(layer));
        if is_control && !client && code.contains(".expose()") {
            exposers.insert(name.clone());
        }
        // Nobody formats what an address is exposed for.
        let lines = code.lines().filter(|line| line.contains(".expose()"));
        for line in lines {
            let formats = [
                "tracing::",
                "format!",
                "format_args!",
                "write!",
                "to_string()",
            ];
            assert!(
                !formats.iter().any(|mark| line.contains(mark)) || name == "turn/pseudonym.rs",
                "{name}: {line}"
            );
        }
    }
    assert_eq!(tellers, ["daemon/serve.rs"]);
    let known = EXPOSERS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(exposers, known.collect());
}

/// The scans see what they are to see.
#[test]
fn a_route_in_each_spelling_is_seen() {
    let code =
        r#"Router::new().route("/a", get(a)).nest("/b", b) #[utoipa::path(get, path = "/c")]"#;
    assert_eq!(routes(code), BTreeSet::from(["/a", "/b", "/c"]));
}
