//! `taciturn probe`: an operator's end-to-end check. It allocates twice on a server and sends
//! packets between the relayed addresses, with a client that others wrote: the `turn` crate's.
//!
//! `plan` decides which servers and with which credentials, `places` finds the addresses behind a
//! name, `link` connects by every transport, `reach` finds out whether a server answers at all,
//! `relay` drives the two allocations, `tally` counts, `report` tells. An address the server sees
//! us under is neither asked for nor printed.

mod link;
mod places;
mod plan;
mod reach;
mod relay;
mod report;
mod tally;
mod url;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::daemon::cli::Probe;
use crate::daemon::print;
use crate::dataplane::sys;

use link::trust::{Rigour, Trust};
use link::{Failure, Stage, Way};
use places::Family;
use plan::Target;
use reach::PATIENCE;
use report::{Outcome, Verdict};

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
    let rigour = if arguments.insecure {
        Rigour::Insecure
    } else {
        Rigour::Strict
    };
    let trust = Arc::new(Trust::new(arguments.ca.as_deref(), rigour)?);
    let only = match (arguments.ipv4, arguments.ipv6) {
        (true, _) => Some(Family::V4),
        (_, true) => Some(Family::V6),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the probe")?;
    let (mut outcomes, mut failed) = (Vec::new(), 0);
    for target in &targets {
        let those = runtime.block_on(probe(target, &trust, only, pace))?;
        failed += usize::from(!those.iter().all(Outcome::is_whole));
        outcomes.extend(those);
    }
    // Tasks of the client may still retransmit what nobody waits for.
    runtime.shutdown_background();
    if outcomes.len() > 1 {
        let (table, verdict) = (
            report::table(&outcomes, sys::unix_seconds()),
            report::verdict(&outcomes),
        );
        print(&format!("\n{table}\n\n{verdict}"))?;
    }
    match (failed, targets.len()) {
        (0, _) => Ok(()),
        (1, 1) => anyhow::bail!("the probe failed"),
        (failed, all) => anyhow::bail!("the probe failed for {failed} of {all} URLs"),
    }
}

/// Probes a server over each family that it has addresses of, and tells each outcome.
async fn probe(
    target: &Target,
    trust: &Arc<Trust>,
    only: Option<Family>,
    pace: Pace,
) -> anyhow::Result<Vec<Outcome>> {
    let url = &target.url;
    let places = match places::of(&url.host, url.port, only, PATIENCE).await {
        Ok(places) => places,
        Err(text) => {
            let failure = Verdict::Unreached(Failure::new(Stage::Reach, text));
            let outcome = Outcome::new(url, None, failure);
            print(&report::one(&outcome, sys::unix_seconds()))?;
            return Ok(vec![outcome]);
        }
    };
    let mut outcomes = Vec::new();
    for addresses in places {
        let family = addresses.first().copied().map(Family::of);
        let ways = addresses.into_iter().map(|server| Way {
            transport: url.transport,
            server,
            host: url.host.clone(),
            trust: Arc::clone(trust),
        });
        let verdict = relay(target, ways.collect(), pace).await;
        let outcome = Outcome::new(url, family, verdict);
        print(&report::one(&outcome, sys::unix_seconds()))?;
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

async fn relay(target: &Target, ways: Vec<Way>, pace: Pace) -> Verdict {
    let (way, reached) = match reach::first(ways, PATIENCE).await {
        Ok(found) => found,
        Err(failure) => return Verdict::Unreached(failure),
    };
    let progress = progress(pace.packets);
    let relayed = relay::exchange(&way, &target.credential, pace, &progress).await;
    progress.finish_and_clear();
    match relayed {
        Ok(relayed) => Verdict::Relayed(reached, relayed),
        Err(stopped) => Verdict::Unrelayed(reached, stopped),
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
