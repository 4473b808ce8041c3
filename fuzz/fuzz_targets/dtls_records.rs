//! Datagrams of DTLS clients and of somebody who sees them and has no key.
//!
//! `cargo fuzz run -s none --features dtls dtls_records` works on stable.
#![no_main]

use taciturn::{dataplane, turn};

#[path = "../../src/dataplane/dtls/tests/harness.rs"]
#[expect(dead_code, reason = "the tests do what this does not")]
mod harness;
#[path = "../../src/dataplane/dtls/tests/records.rs"]
mod records;

libfuzzer_sys::fuzz_target!(|data: &[u8]| records::play(data));
