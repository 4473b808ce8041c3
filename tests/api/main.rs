//! The platform's API: over real HTTP, to the real binary, with real TURN clients.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../daemon/house.rs"]
mod house;
#[expect(dead_code, reason = "metrics are another suite's")]
#[path = "../daemon/http.rs"]
mod http;
#[path = "../loopback/mod.rs"]
mod loopback;

mod ask;

mod access;
mod adapters;
mod allocations;
mod control;
mod credentials;
mod hostile;
mod nodes;
mod renewal;
mod revocations;
mod status;
