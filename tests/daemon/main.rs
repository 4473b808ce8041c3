//! The real binary on loopback: what it serves, prints, refuses and never shows.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[expect(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    reason = "of the lab the search for addresses is used"
)]
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../loopback/mod.rs"]
mod loopback;

mod house;
mod http;

mod certificates;
mod demo;
mod diagnose;
mod events;
mod limits;
mod media;
mod metrics;
mod mint;
mod nodes;
mod openssl;
mod privacy;
mod refusals;
mod reload;
mod scrapes;
mod serve;
mod shown;
mod state;
#[cfg(feature = "top")]
mod top;
mod whois;
