//! Clients that others wrote, against the relay: coturn's `turnutils_uclient` and
//! `turnutils_natdiscovery`, the TURN client and ICE agent of `aioice`, the TURN client of webrtc-rs,
//! and `turn-client-proto`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says why it cannot go on, and ends"
)]

#[path = "../lab/mod.rs"]
mod lab;

mod aioice;
mod load;
mod natdiscovery;
mod turn_proto;
mod uclient;
mod webrtc;
