//! Datagrams of clients without a credential: they leave no trace.
//!
//! `cargo fuzz run -s none server_unauthenticated` works on stable.
#![no_main]

#[path = "../../tests/simulation/sim/mod.rs"]
#[expect(dead_code, reason = "the test runs what this does not")]
mod sim;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sim::fuzz_bodies::server_unauthenticated(data));
