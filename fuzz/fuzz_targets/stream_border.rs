//! Any byte stream: where its messages end.
//!
//! `cargo fuzz run -s none stream_border` works on stable.
#![no_main]

#[path = "../../tests/wire/fuzz_bodies.rs"]
#[expect(dead_code, reason = "the other targets run the other bodies")]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::stream_border(data));
