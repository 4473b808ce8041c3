//! `taciturn diagnose`: one bundle for a bug report, which anybody may read. What this build and this
//! machine are, what the configuration says without what it tells of anybody (`redact`), and how
//! the running daemon fares. What cannot be found out is said, and the rest is told all the same.

mod redact;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::config::{self, Settings, Sources};
use crate::daemon::cli::Diagnose;
use crate::daemon::control::Client;
use crate::daemon::{FEATURES, check, import, print};
use crate::dataplane::sys;

/// Where the daemon is unless its configuration or a flag says otherwise.
const CONTROL: &str = "/run/taciturn/control.sock";

/// Settings of the kernel that a relay depends on, below /proc/sys.
const SYSCTLS: &[&str] = &[
    "fs/file-max",
    "fs/nr_open",
    "net/core/netdev_budget",
    "net/core/netdev_max_backlog",
    "net/core/optmem_max",
    "net/core/rmem_default",
    "net/core/rmem_max",
    "net/core/somaxconn",
    "net/core/wmem_default",
    "net/core/wmem_max",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/udp_mem",
    "net/ipv4/udp_rmem_min",
    "net/ipv6/conf/all/disable_ipv6",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "vm/max_map_count",
];

/// Prints the bundle, or writes it to a new file.
///
/// # Errors
/// When it cannot be written. That something cannot be found out is part of it.
pub(crate) fn run(arguments: &Diagnose) -> anyhow::Result<()> {
    let sources = arguments.sources();
    let loaded = config::load(&sources);
    let settings = loaded.as_ref().ok().map(|loaded| &loaded.settings);
    let written = config::written(&sources);
    let socket = match (&arguments.socket, settings) {
        (Some(flag), _) => Some(flag.clone()),
        (None, Some(settings)) => settings.control.socket.clone(),
        // What was refused on a reload names the daemon's socket all the same.
        (None, None) => socket_of(written.as_ref()),
    };
    let refused = loaded.as_ref().err().map(|error| error.problems().len());
    let bundle = json!({
        "about": "taciturn diagnose: no secret, and no address, name, path or URL of anybody's",
        "made": sys::unix_seconds(),
        "build": build(),
        "machine": machine(),
        "configuration": configuration(&sources, written.as_ref(), refused),
        "granted": settings.map_or(Value::Null, granted),
        "daemon": daemon(socket.as_deref()),
    });
    let text = serde_json::to_string_pretty(&bundle)?;
    match &arguments.output {
        Some(file) => import::write_new(file, &(text + "\n")),
        None => print(&text),
    }
}

fn build() -> Value {
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "features": FEATURES,
        "profile": profile,
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    })
}

fn machine() -> Value {
    let read = |name: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        let words: Vec<&str> = text.split_whitespace().collect();
        Some(words.join(" "))
    };
    let sysctls: Map<String, Value> = SYSCTLS
        .iter()
        .map(|name| (name.replace('/', "."), read(name).into()))
        .collect();
    let memory = fs::read_to_string("/proc/meminfo").ok();
    json!({
        "kernel": read("kernel/osrelease"),
        "cpus": sys::allowed_cpus().len(),
        "memory_kib": memory.as_deref().and_then(total_memory),
        "clock_synchronised": sys::clock_is_synchronised().ok(),
        "descriptors_hard_limit": sys::hard_descriptor_limit().ok(),
        "sysctls": sysctls,
    })
}

/// `MemTotal` of `/proc/meminfo`.
fn total_memory(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the sources say; only their number is told of problems, whose texts quote what was written.
fn configuration(sources: &Sources, written: Option<&Value>, refused: Option<usize>) -> Value {
    let settings = written.map(|written| redact::redacted(written, &config::defaults()));
    let is_ours = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(b"TACITURN_");
    let variables = sources.environment.iter().filter(|(name, _)| is_ours(name));
    json!({
        "from_file": sources.file.is_some(),
        "from_variables": variables.count(),
        "problems": refused.unwrap_or(0),
        "missing": settings.is_none().then_some(
            "it cannot be read or its form is not understood; `taciturn check` says why"
        ),
        "settings": settings,
    })
}

/// What the kernel grants this user of the buffers that the configuration asks for.
fn granted(settings: &Settings) -> Value {
    let [listen, relay] = check::granted_buffers(settings);
    json!({
        "listen_receive_buffer": { "asked": settings.listen.receive_buffer, "granted": listen },
        "relay_receive_buffer": { "asked": settings.relay.receive_buffer, "granted": relay },
    })
}

/// The control socket of a configuration that has problems: what it says, or where it is by default.
fn socket_of(written: Option<&Value>) -> Option<PathBuf> {
    match written.and_then(|written| written["control"]["socket"].as_str()) {
        Some("off") => None,
        Some(path) => Some(path.into()),
        None => Some(CONTROL.into()),
    }
}

/// How the daemon fares, or that nobody says.
fn daemon(socket: Option<&Path>) -> Value {
    let Some(socket) = socket else {
        return json!({ "missing": "control.socket is off, so that it cannot be asked" });
    };
    match Client::new(socket).get("/v1/status") {
        Ok(mut status) => {
            nameless(&mut status);
            status
        }
        Err(error) => {
            // For who stands here: the bundle shows no path.
            tell(&error);
            json!({ "missing": "no daemon answers at the control socket" })
        }
    }
}

/// Takes the names out of certificates.
fn nameless(status: &mut Value) {
    let certificates = status["certificates"].as_array_mut();
    for certificate in certificates.into_iter().flatten() {
        let names = certificate["names"].as_array().map_or(0, Vec::len);
        certificate["names"] = names.into();
    }
}

fn tell(error: &anyhow::Error) {
    use std::io::Write as _;
    let said = writeln!(
        std::io::stderr(),
        "taciturn: the bundle has nothing of a running daemon: {error:#}"
    );
    // Nobody listens, and the bundle says so too.
    drop(said);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_with_problems_still_says_where_its_daemon_is() {
        let at = |written: Value| socket_of(Some(&written));
        let named = json!({ "control": { "socket": "/run/other.sock" } });
        assert_eq!(at(named), Some("/run/other.sock".into()));
        assert_eq!(at(json!({ "control": { "socket": "off" } })), None);
        assert_eq!(at(json!({})), Some(CONTROL.into()));
        assert_eq!(socket_of(None), Some(CONTROL.into()));
    }

    #[test]
    fn certificates_are_told_without_their_names() {
        let mut status = json!({ "certificates": [{ "names": ["a.example", "b.example"] }] });
        nameless(&mut status);
        assert_eq!(status["certificates"][0]["names"], 2);
        nameless(&mut Value::Null);
    }

    #[test]
    fn memory_is_read_as_the_kernel_lists_it() {
        assert_eq!(
            total_memory("MemTotal:  2048 kB\nMemFree: 1 kB\n"),
            Some(2_048)
        );
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }
}
