//! `taciturn load`: drives any TURN server over UDP, TCP or TLS and measures what it carries, what
//! that costs and how long it takes.
//!
//! `options` is what a user may say and `plan` what it means; `desk` speaks TURN for all clients,
//! `crowd` is their side of the wire (`streams` with a connection each, which `secure` secures),
//! and `calls` sets up who sends to whom. `traffic` sends at a
//! pace and counts what arrives, `search` looks for the highest rate, `ceiling` for the
//! generator's own, `rounds` counts allocations, `cost` reads /proc, and `report` tells. No
//! client's address is printed.

mod background;
mod calls;
mod ceiling;
mod cost;
mod crowd;
mod desk;
mod login;
pub(crate) mod options;
mod pace;
mod packet;
mod plan;
mod progress;
mod report;
mod rounds;
mod run;
mod search;
mod secure;
mod sources;
mod streams;
mod traffic;
mod wire;

use anyhow::bail;

use crate::daemon::cli::Load;
use crate::daemon::{Usage, print};
use crate::dataplane::sys;

use progress::Progress;
use run::Run;

/// Loads the server as the arguments say, and tells how it did.
///
/// # Errors
/// When nothing arrives, or it does not come to that.
pub(crate) fn run(arguments: &Load) -> anyhow::Result<()> {
    let plan = plan::of(arguments)?;
    if let Some(cpu) = arguments.cpu {
        sys::pin_current_thread(cpu)
            .map_err(|error| Usage(format!("cannot stay on CPU {cpu}: {error}")))?;
    }
    if plan.network.is_none() || plan.has_connections() {
        // A socket for each client. Where it stays lower, opening them says so.
        sys::raise_descriptor_limit().ok();
    }
    let progress = Progress::new();
    let mut run = Run::new(arguments, plan, progress)?;
    let outcome = run.go();
    run.progress.clear();
    outcome?;
    if arguments.json {
        print(&run.report.json()?)?;
    } else {
        print(&run.report.table())?;
    }
    if run.report.received == Some(0) {
        bail!("nothing arrived");
    }
    Ok(())
}
