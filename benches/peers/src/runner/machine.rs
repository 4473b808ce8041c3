//! What was measured on: said in words, and how much of it the hypervisor kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::servers::{Program, Server};

/// Cores, processor and kernel.
pub(crate) fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let hypervisor = if cpuinfo.contains("hypervisor") {
        ", virtual"
    } else {
        ""
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What distributions and clouds append tells nothing more.
    let kernel = kernel
        .trim()
        .split('-')
        .next()
        .unwrap_or_default()
        .to_owned();
    format!("{cores} cores, {model}{hypervisor}, Linux {kernel}")
}

/// The day, in UTC.
pub(crate) fn date() -> String {
    output("date", &["-u", "+%F"]).unwrap_or_default()
}

/// Time so far, in ticks: stolen, and all.
pub(crate) fn time() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().sum())
}

/// Percent stolen between two such times.
#[expect(clippy::cast_precision_loss, reason = "ticks of one round are few")]
pub(crate) fn steal(before: (u64, u64), after: (u64, u64)) -> f64 {
    let (stolen, all) = (after.0 - before.0, after.1 - before.1);
    100.0 * stolen as f64 / all.max(1) as f64
}

/// Which version of each server it is.
pub(crate) fn versions(
    servers: &[Server],
    tools: &Path,
    taciturn: &Path,
) -> BTreeMap<String, String> {
    let version = |server: &Server| match server.program {
        Program::Taciturn => {
            let binary = server
                .binary
                .as_deref()
                .unwrap_or(taciturn)
                .display()
                .to_string();
            output(&binary, &["--version"])
        }
        Program::Floor(_) => None,
        Program::Coturn => debian("coturn"),
        Program::Pion => debian("golang-github-pion-turn.v2-dev"),
        Program::Ejabberd => debian("erlang-p1-stun"),
        Program::TurnRs => output(
            &tools.join("bin/turn-server").display().to_string(),
            &["--version"],
        ),
        Program::WebrtcRs => {
            let lock = include_str!("../../Cargo.lock");
            let (_, rest) = lock.split_once("name = \"turn\"\nversion = \"")?;
            rest.split('"')
                .next()
                .map(|version| format!("turn {version}"))
        }
    };
    let named = servers
        .iter()
        .filter_map(|server| Some((server.name.clone(), version(server)?)));
    named.collect()
}

fn debian(package: &str) -> Option<String> {
    output(
        "dpkg-query",
        &["--showformat=${Package} ${Version}", "--show", package],
    )
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.is_empty()).then(|| text.trim().to_owned())
}
