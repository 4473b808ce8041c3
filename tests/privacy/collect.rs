//! Everything that comes out of a daemon, however it is asked, and the search through it.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::lab::Addresses;
use crate::lab::search::{Finding, in_text};
use crate::outputs::{COMMANDS, Heard, SINKS};
use crate::planted::{self, Planted};
use crate::report::Report;
use crate::routes::{Ask, Auth, Door, KEY, ROUTES, Route};
use crate::stage::{Daemon, get, request};

/// Something that came out.
pub(crate) struct Said {
    pub(crate) place: String,
    pub(crate) bytes: Vec<u8>,
}

impl Said {
    fn new(place: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            place: place.into(),
            bytes: bytes.into(),
        }
    }
}

/// All that a living daemon shows.
pub(crate) fn living(daemon: &Daemon<'_>) -> Vec<Said> {
    let mut said = Vec::new();
    said.extend(routes(daemon));
    said.extend(errors(daemon));
    let commands = COMMANDS.iter().chain(SINKS);
    for (name, heard) in commands {
        if let Heard::Run(arguments) = heard {
            let printed = daemon.run(arguments);
            assert!(!printed.is_empty(), "{name} said nothing");
            said.push(Said::new(format!("`{}`", arguments.join(" ")), printed));
        }
    }
    said.extend(process(daemon.pid()));
    said.extend(files(&daemon.directory));
    said
}

/// What of earlier answers later requests need.
#[derive(Default)]
struct Names {
    username: Option<String>,
    allocation: Option<String>,
    ban: Option<String>,
}

impl Names {
    fn learn(&mut self, body: &str) {
        let Ok(body) = serde_json::from_str::<Value>(body) else {
            return;
        };
        let learn = |name: &mut Option<String>, at: &str| {
            let found = body.pointer(at).and_then(Value::as_str);
            *name = name.take().or_else(|| found.map(str::to_owned));
        };
        learn(&mut self.username, "/iceServers/0/username");
        learn(&mut self.allocation, "/allocations/0/id");
        learn(&mut self.ban, "/bans/0/id");
    }

    /// A path with a name for each that it takes.
    fn fill(&self, path: &str) -> String {
        let id = match path.split('/').nth(2) {
            Some("allocations") => self.allocation.as_deref(),
            Some("bans") => self.ban.as_deref(),
            _ => Some("somebody"),
        };
        let known = |name: Option<&str>| name.unwrap_or("0").to_owned();
        path.replace("{id}", &known(id))
            .replace("{username}", &known(self.username.as_deref()))
            .replace("{sid}", "AC00000000000000000000000000000000")
            .replace("{channel}", "calls")
    }
}

/// Every answer of every route, understood and not.
fn routes(daemon: &Daemon<'_>) -> Vec<Said> {
    let mut said = Vec::new();
    let mut names = Names::default();
    for Route { path, door, asks } in ROUTES {
        let target = names.fill(path);
        for ask in *asks {
            let answer = daemon.ask(*door, &asked(ask, &target));
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(status.starts_with('2'), "{} {target}: {answer}", ask.method);
            names.learn(answer.split("\r\n\r\n").nth(1).unwrap_or_default());
            said.push(Said::new(format!("{} {path}", ask.method), answer));
        }
        for method in ["GET", "POST", "PATCH"] {
            // Without a key, and with a body that is none.
            let answer = daemon.ask(*door, &request(method, &target));
            said.push(Said::new(format!("{method} {path}, refused"), answer));
        }
    }
    said
}

/// The API's answer to a body of JSON.
pub(crate) fn post(daemon: &Daemon<'_>, path: &str, body: &str) -> String {
    let auth = format!("Authorization: Bearer {KEY}\r\n");
    daemon.ask(Door::Api, &written("POST", path, &auth, body))
}

/// A request as it goes over the wire.
fn asked(ask: &Ask, target: &str) -> String {
    let auth = match ask.auth {
        Auth::Bearer => format!("Authorization: Bearer {KEY}\r\n"),
        Auth::Basic => {
            let pair = STANDARD.encode(format!("AC0:{KEY}"));
            format!("Authorization: Basic {pair}\r\n")
        }
        Auth::Query => String::new(),
    };
    let target = format!("{target}{}", ask.query.replace("{key}", KEY));
    written(ask.method, &target, &auth, ask.body)
}

fn written(method: &str, target: &str, auth: &str, body: &str) -> String {
    let kind = match body.as_bytes() {
        [] => "",
        [b'{', ..] => "Content-Type: application/json\r\n",
        _ => "Content-Type: application/x-www-form-urlencoded\r\n",
    };
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.0\r\nHost: stage\r\n{auth}{kind}\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Answers to what nobody should ask.
fn errors(daemon: &Daemon<'_>) -> Vec<Said> {
    let long = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(20_000));
    [
        get("/v1/allocations"),
        get("/"),
        get("/../../proc/self/net/udp"),
        "GET /metrics HTTP/9.9\r\n\r\n".to_owned(),
        "\0\0\0\0 nonsense\r\n\r\n".to_owned(),
        long,
    ]
    .iter()
    .flat_map(|request| {
        let line = request.lines().next().unwrap_or_default();
        let place = format!("the answer to {:?}", &line[..line.len().min(40)]);
        [Door::Admin, Door::Api, Door::Control]
            .map(|door| Said::new(place.clone(), daemon.ask_anything(door, request)))
    })
    .collect()
}

/// What any user of the machine reads in `/proc` of a process, and root besides.
pub(crate) fn process(pid: u32) -> Vec<Said> {
    let mut said = Vec::new();
    let mut read = |path: String| {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        said.push(Said::new(path, bytes));
    };
    for name in [
        "cmdline", "environ", "comm", "maps", "status", "limits", "net/udp", "net/udp6", "net/unix",
    ] {
        read(format!("/proc/{pid}/{name}"));
    }
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().file_name().into_string().unwrap();
        read(format!("/proc/{pid}/task/{task}/comm"));
    }
    for file in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = file.unwrap().path();
        // One may have been closed meanwhile.
        if let Ok(target) = fs::read_link(&path) {
            let target = target.to_string_lossy().into_owned();
            said.push(Said::new(path.display().to_string(), target));
        }
    }
    said
}

/// Every file below a daemon's directory: state, runtime, and what else it may have written.
fn files(directory: &Path) -> Vec<Said> {
    let mut said = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            said.extend(files(&path));
        } else if kind.is_file() && !path.ends_with("taciturn.toml") {
            // The configuration is ours; and a name may tell as much as what is in it.
            let name = path.display().to_string();
            let bytes = fs::read(&path).unwrap();
            said.push(Said::new(
                name.clone(),
                [name.as_bytes(), b"\n", &bytes].concat(),
            ));
        }
    }
    said
}

/// The search for an endpoint's addresses in all that was said, which first shows that it sees.
pub(crate) fn search(report: &mut Report, said: &[Said], hidden: &[Addresses]) {
    for addresses in hidden {
        for Said { place, bytes } in said {
            report.found(place, &in_text(*addresses, bytes));
        }
        let longest = said.iter().max_by_key(|said| said.bytes.len()).unwrap();
        for address in addresses.all() {
            for Planted { form, line } in planted::every_form(address) {
                let told = [&longest.bytes[..longest.bytes.len().min(2_000)], &line].concat();
                let seen = in_text(*addresses, told);
                let sees = |found: &Finding| (found.form, found.address) == (form, address);
                assert!(seen.iter().any(sees), "the search is blind for {form:?}");
            }
        }
    }
    let bytes: usize = said.iter().map(|said| said.bytes.len()).sum();
    report.looked(format!("{} outputs, {} KiB", said.len(), bytes / 1024));
}
