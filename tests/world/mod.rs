//! A small world for the sans-IO server: shared tables as plain maps, sockets as a set, and a
//! client that speaks TURN by hand. No time passes unless a test says so.
#![allow(
    dead_code,
    reason = "each binary uses another part of it, so `expect` fails where one uses it all"
)]
#![expect(unreachable_pub, reason = "it belongs to no library")]

pub mod call;
pub mod client;
pub mod environment;
pub mod message;
pub mod servers;
