//! Everything that clients with credentials, peers, time and the kernel can do, as the bytes choose.
//!
//! `cargo fuzz run -s none server_authenticated` works on stable.
#![no_main]

#[path = "../../tests/simulation/sim/mod.rs"]
#[expect(dead_code, reason = "the test runs what this does not")]
mod sim;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sim::fuzz_bodies::server_authenticated(data));
