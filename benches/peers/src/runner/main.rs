//! Runs TURN servers and floors on the same work, in turns, and writes down what came out.
//!
//! `run` in this package's directory builds what is needed and starts this. Every measurement is
//! a server on one core, fresh, and `taciturn load` on the other, in network namespaces that go
//! away with it; rounds go A, B, C, A, B, C. Raw rounds are kept as JSON; table and plots are made
//! from that file alone, so `report` makes them again.

mod cells;
mod machine;
mod measure;
mod plot;
mod ready;
mod report;
mod results;
mod servers;
mod targets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// TURN servers and bare floors on the same work.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures, and writes the raw rounds, the table and the plots.
    Run(Box<Run>),
    /// Writes table and plots anew from raw rounds.
    Report {
        /// What `run` wrote.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Lists cells and servers.
    List,
    /// Waits until a server answers a Binding request.
    #[command(hide = true)]
    Ready { server: SocketAddr },
}

#[derive(Args)]
struct Run {
    /// Cells to measure; all without it. `list` names them.
    #[arg(long, value_delimiter = ',')]
    cells: Vec<String>,
    /// Servers to measure; all that are there without it.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Another build of taciturn, as a server called NAME.
    #[arg(long, value_name = "NAME=BINARY")]
    also: Vec<String>,
    /// How often each server is measured in each cell.
    #[arg(long, env = "ROUNDS", default_value_t = 6)]
    rounds: usize,
    /// How long a rate must hold.
    #[arg(long, default_value = "5s")]
    duration: String,
    /// One short round of few cells: that everything works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Server and load in two namespaces joined by a veth pair that does not segment.
    #[arg(long)]
    veth: bool,
    /// Namespaces there are: this with "-server" and, for --veth, "-load" behind it.
    #[arg(long)]
    namespace: String,
    /// taciturn: the server, and the load.
    #[arg(long)]
    taciturn: PathBuf,
    /// Where servers that were built for this are.
    #[arg(long)]
    tools: PathBuf,
    /// Where results go.
    #[arg(long, default_value = "docs/measurements")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Result<()> {
    match Cli::parse().command {
        Command::Run(run) => measure::run(&run),
        Command::Report { files } => files.iter().try_for_each(|file| report::write(file)),
        Command::List => {
            for cell in cells::ALL {
                println!("cell    {:18} {}", cell.name, cell.title);
            }
            for server in servers::all() {
                println!("server  {:18} {}", server.name, server.about);
            }
            Ok(())
        }
        Command::Ready { server } => ready::wait(server),
    }
}
