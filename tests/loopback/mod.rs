//! The real thing on loopback: TURN clients on UDP sockets, and a data plane of this process for
//! them. What a test waits for it waits for patiently, since a busy machine is no fault.
#![allow(
    dead_code,
    reason = "each binary uses another part of it, so `expect` fails where one uses it all"
)]
#![allow(unreachable_pub, reason = "the messages are shared with other rooms")]

pub(crate) mod client;
#[cfg(feature = "dtls")]
pub(crate) mod dtls;
pub(crate) mod kernel;
#[path = "../world/message.rs"]
pub(crate) mod message;
pub(crate) mod plane;
pub(crate) mod stream;
pub(crate) mod wire;

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; panics when it does not come true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come true: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
