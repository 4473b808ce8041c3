//! The server's behaviour, a file for each: bytes and time in, bytes and decisions out. Nothing
//! here opens a socket or reads a clock.

#[path = "../world/mod.rs"]
mod world;

mod allocate;
mod anonymity;
mod auth;
mod away;
mod behaviour;
mod binding;
mod calls;
mod channel;
mod expiry;
mod families;
mod hairpin;
mod hostile;
mod icmp;
mod limits;
mod masked;
mod media;
mod mobility;
mod naming;
mod nat;
mod permission;
mod policy;
mod ports;
mod privacy;
mod quota;
mod rates;
mod redirect;
mod refresh;
mod refusals;
mod reload;
mod run;
mod sealed;
mod send;
mod tcp_relay;
mod tickets;
mod unvalidated;
