//! `taciturn probe` in a build without it.

use crate::daemon::Usage;
use crate::daemon::cli::Probe;

/// Says that there is none.
///
/// # Errors
/// Always.
pub(crate) fn run(_: &Probe) -> anyhow::Result<()> {
    let text = "this build has no probe, it was made without the cargo feature `probe`; \
                `cargo build --release` makes one with it";
    Err(Usage(text.to_owned()).into())
}
