//! `taciturn top` in a build without it.

use crate::daemon::Usage;
use crate::daemon::cli::Top;

/// Says that there is none.
///
/// # Errors
/// Always.
pub(crate) fn run(_: &Top) -> anyhow::Result<()> {
    let text = "this build has no top, it was made without the cargo feature `top`; \
                `cargo build --release` makes one with it";
    Err(Usage(text.to_owned()).into())
}
