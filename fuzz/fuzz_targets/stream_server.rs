//! A TCP stream of a client with or without an allocation, cut as the bytes say.
//!
//! `cargo fuzz run -s none stream_server corpus/stream_server seeds/stream_server` in `fuzz/` works on stable.
#![no_main]

#[path = "../../tests/simulation/sim/mod.rs"]
#[expect(dead_code, reason = "the test runs what this does not")]
mod sim;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sim::fuzz_bodies::stream_server(data));
