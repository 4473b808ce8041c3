//! Any datagram: STUN with every typed attribute, ChannelData, framing in place.
//!
//! `cargo fuzz run -s none decode` works on stable.
#![no_main]

#[path = "../../tests/wire/fuzz_bodies.rs"]
#[expect(dead_code, reason = "the other targets run the other bodies")]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::decode(data));
