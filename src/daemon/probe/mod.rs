//! `taciturn probe`: an operator's end-to-end check. It allocates twice on a server and sends
//! packets between the relayed addresses, with a client that others wrote: the `turn` crate's.
//!
//! `plan` decides which servers and with which credentials, `reach` finds out whether one answers
//! at all, `relay` drives the two allocations, `tally` counts, `report` tells. An address the
//! server sees us under is neither asked for nor printed.

mod plan;
mod reach;
mod relay;
mod report;
mod tally;
mod url;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::daemon::cli::Probe;
use crate::daemon::print;

use plan::Target;
use report::{Outcome, Verdict};
use url::Transport;

/// How many packets, and how fast.
#[derive(Debug, Clone, Copy)]
struct Pace {
    packets: u32,
    interval: Duration,
}

/// Probes every server and says how each did.
///
/// # Errors
/// When one does not relay every packet, or there is nothing to probe.
pub(crate) fn run(arguments: &Probe) -> anyhow::Result<()> {
    let targets = plan::of(arguments)?;
    let pace = Pace {
        packets: arguments.packets,
        interval: arguments.interval,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the probe")?;
    let mut outcomes = Vec::new();
    for target in &targets {
        let outcome = Outcome {
            url: target.url.text.clone(),
            verdict: runtime.block_on(probe(target, pace)),
        };
        print(&report::one(&outcome))?;
        outcomes.push(outcome);
    }
    // Tasks of the client may still retransmit what nobody waits for.
    runtime.shutdown_background();
    if outcomes.len() > 1 {
        print(&format!("\n{}", report::table(&outcomes)))?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.is_whole());
    match (failed.count(), outcomes.len()) {
        (0, _) => Ok(()),
        (1, 1) => anyhow::bail!("the probe failed"),
        (failed, all) => anyhow::bail!("the probe failed for {failed} of {all} URLs"),
    }
}

async fn probe(target: &Target, pace: Pace) -> Verdict {
    match target.url.transport {
        Transport::Udp => {}
        Transport::NotYet(transport) => return Verdict::NotYet(transport),
    }
    let reached = match reach::server(&target.url.host, target.url.port, reach::PATIENCE).await {
        Ok(reached) => reached,
        Err(failure) => return Verdict::Unreached(failure),
    };
    let progress = progress(pace.packets);
    let relayed = relay::exchange(reached.server, &target.credential, pace, &progress).await;
    progress.finish_and_clear();
    match relayed {
        Ok(relayed) => Verdict::Relayed(reached, relayed),
        Err(failure) => Verdict::Unrelayed(reached, failure),
    }
}

/// A bar for a person who waits, nothing for a script.
fn progress(packets: u32) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(u64::from(packets)), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("  {bar:40} {pos} of {len} came back") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
