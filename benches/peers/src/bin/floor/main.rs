//! Bare UDP programs with the socket pattern of a TURN relay and nothing else of it: what stands
//! below every server on the same work.
//!
//! They answer Allocate, CreatePermission and ChannelBind without checking anything, so that
//! `taciturn load` drives them as it drives a server. On the data path there is no TURN: a source
//! address leads to a target, and that is all. Nobody should run one on a network.

mod control;
mod forward;
mod hairpin;
mod sys;
mod uring;

use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

/// Bare UDP forwarders, to compare TURN servers with.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    pattern: Pattern,
}

#[derive(Subcommand)]
enum Pattern {
    /// One socket: a packet goes straight to the client whose relayed address was named.
    Hairpin(Options),
    /// A listener and one relay socket per client; every packet passes both.
    Forward {
        #[command(flatten)]
        options: Options,
        /// One receive and one send call for each packet.
        #[arg(long, conflicts_with_all = ["scratch", "gso", "uring"])]
        unbatched: bool,
        /// Reads relay sockets with one plain receive each time they are ready.
        #[arg(long, conflicts_with_all = ["gso", "uring"])]
        scratch: bool,
        /// Multishot receives and batched sends by io_uring.
        #[arg(long, conflicts_with_all = ["gso", "busy_poll"])]
        uring: bool,
    },
}

#[derive(Args, Clone, Copy)]
struct Options {
    /// Where clients reach it; relayed addresses have the same IP address.
    #[arg(long, default_value = "127.0.0.1:3478")]
    listen: SocketAddrV4,
    /// Packets in one system call.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Receives merged runs (GRO) and sends them as they came (GSO).
    #[arg(long)]
    gso: bool,
    /// Never sleeps, and asks the kernel to poll the device.
    #[arg(long)]
    busy_poll: bool,
}

fn main() -> Result<()> {
    let (Pattern::Hairpin(options) | Pattern::Forward { options, .. }) = Cli::parse().pattern;
    ensure!(
        (1..=1024).contains(&options.batch),
        "--batch takes 1 to 1024"
    );
    sys::raise_descriptor_limit();
    match Cli::parse().pattern {
        Pattern::Hairpin(options) => hairpin::run(options),
        Pattern::Forward {
            options,
            uring: true,
            ..
        } => uring::run(options),
        Pattern::Forward {
            options,
            unbatched,
            scratch,
            ..
        } => {
            let method = match (unbatched, scratch) {
                (true, _) => forward::Method::Unbatched,
                (_, true) => forward::Method::Scratch,
                _ => forward::Method::Batched,
            };
            forward::run(options, method)
        }
    }
}
