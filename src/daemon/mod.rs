//! Wiring: from arguments to a running daemon and back to an exit code. It uses every layer, and
//! only `main` uses it.

mod announce;
mod api;
mod certificates;
mod check;
pub mod cli;
mod control;
mod demo;
mod diagnose;
mod events;
mod house;
mod ice;
mod import;
mod keys;
mod load;
mod log;
mod manual;
mod mint;
#[cfg(feature = "probe")]
mod probe;
#[cfg(not(feature = "probe"))]
#[path = "probe/absent.rs"]
mod probe;
mod pseudonyms;
mod reached;
mod reload;
mod runtime;
mod serve;
mod status;
#[cfg(feature = "top")]
mod top;
#[cfg(not(feature = "top"))]
#[path = "top/absent.rs"]
mod top;
mod whois;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

use crate::config;

/// The optional parts of this build.
const FEATURES: &[&str] = &[
    #[cfg(feature = "dtls")]
    "dtls",
    #[cfg(feature = "probe")]
    "probe",
    #[cfg(feature = "top")]
    "top",
];

/// sysexits.h, EX_USAGE: the command line or the configuration is bad; starting again will not
/// help.
const BAD_USAGE: u8 = 64;

/// What was asked for cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Does what the command line says.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too. Nobody is left to tell when the
            // standard streams are closed.
            let told = error.print().is_ok();
            return match error.use_stderr() {
                false if told => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
                true => ExitCode::from(BAD_USAGE),
            };
        }
    };
    let outcome = match &cli.command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Mint(arguments) => mint::run(arguments).and_then(|text| print(&text)),
        Command::Whois(arguments) => whois::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Diagnose(arguments) => diagnose::run(arguments),
        Command::Top(arguments) => top::run(arguments),
        Command::Allocations(arguments) => {
            control::allocations(arguments).and_then(|text| print(&text))
        }
        Command::Revoke(arguments) => control::revoke(arguments).and_then(|text| print(&text)),
        Command::Ban(arguments) => control::ban(arguments).and_then(|text| print(&text)),
        Command::Unban(arguments) => control::unban(arguments).and_then(|text| print(&text)),
        Command::Bans(arguments) => control::bans(arguments).and_then(|text| print(&text)),
        Command::Openapi(_) => openapi().and_then(|text| print(&text)),
        Command::Probe(arguments) => probe::run(arguments),
        Command::Load(arguments) => load::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Completions(arguments) => manual::completions(arguments),
        Command::Man(arguments) => manual::page(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // It was said on standard output.
        Err(error) if error.is::<whois::No>() || error.is::<status::NotReady>() => {
            ExitCode::FAILURE
        }
        Err(error) => {
            let code = if error.is::<config::Error>() || error.is::<Usage>() {
                ExitCode::from(BAD_USAGE)
            } else if error.is::<whois::CannotTell>() {
                ExitCode::from(whois::CANNOT_TELL)
            } else if error.is::<status::NoAnswer>() {
                ExitCode::from(status::NO_ANSWER)
            } else {
                ExitCode::FAILURE
            };
            // Nobody is left to tell when standard error is closed.
            if writeln!(std::io::stderr(), "taciturn: {error:#}").is_err() {
                return code;
            }
            code
        }
    }
}

/// The description of the API, for generators of clients.
fn openapi() -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&crate::admin::api::openapi())?)
}

/// Prints for a person or a script.
fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
