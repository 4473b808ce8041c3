//! PROXY protocol headers of both versions, in front of a stream and of a datagram.
//!
//! `cargo fuzz run -s none proxy_header corpus/proxy_header seeds/proxy_header` in `fuzz/` works on stable.
#![no_main]

#[path = "../../tests/wire/fuzz_bodies.rs"]
#[expect(dead_code, reason = "the other targets run the other bodies")]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::proxy_header(data));
