//! The binary as a user meets it: what it says, what it refuses, and with which exit code.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says why it cannot go on, and ends"
)]

mod check;
mod generated;
mod import;
mod load;
#[cfg(feature = "probe")]
mod probe;
mod refusals;
#[cfg_attr(
    not(feature = "probe"),
    expect(
        dead_code,
        reason = "only the tests of the probe look for what a server leaves"
    )
)]
mod user;
