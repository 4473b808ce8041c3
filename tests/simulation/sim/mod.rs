//! The simulation's parts; what drives them is a test with seeds, or a fuzzer with bytes.
#![expect(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "it belongs to no library, and a test that cannot go on panics"
)]

pub mod act;
pub mod action;
pub mod ask;
pub mod check;
pub mod data;
pub mod dice;
#[path = "../../world/environment.rs"]
pub mod environment;
pub mod fuzz_bodies;
pub mod grant;
pub mod judge;
pub mod model;
mod moves;
pub mod noise;
pub mod plant;
pub mod run;
pub mod setting;
pub mod speech;
pub mod stream;
pub mod taken;
pub mod tally;
