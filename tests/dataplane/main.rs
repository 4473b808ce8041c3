//! The data plane with real sockets on loopback: what workers, listeners and relay sockets do
//! with packets, each idea in a file, with one worker and with four.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and tells what it saw"
)]

#[path = "../loopback/mod.rs"]
mod loopback;

mod behaviour;
mod binding;
mod bursts;
mod calls;
mod deadlines;
mod descriptors;
mod errors;
mod families;
mod hairpin;
mod headers;
mod journal;
mod media;
mod misdirected;
mod mobility;
mod network;
mod quotas;
mod rates;
mod refusals;
mod relay;
mod siege;
mod sockets;
mod strangers;
mod streams;
mod tcp_relay;
mod tuning;
