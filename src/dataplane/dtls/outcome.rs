//! What [`Dtls`](super::Dtls) is told at its beginning, and what it says.

use std::time::Duration;

/// How many clients there may be, and for how long they may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sessions in all.
    pub sessions: usize,
    /// Of these, such as have not finished their handshake. The oldest gives way to a new one.
    pub half_open: usize,
    /// Of these, such as are from one /24, or /64 for IPv6. A new one from there is refused.
    pub half_open_per_network: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long a client may send nothing before the caller is asked whether it still wants it.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 16_384,
            half_open: 2_048,
            half_open_per_network: 32,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// What a datagram came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Something may be in it for [`Dtls::read`](super::Dtls::read).
    Readable,
    /// It was part of a handshake.
    Handshake,
    /// A hello without a good cookie got one, and nothing is known of it.
    Challenged,
    /// A client that speaks nothing later than DTLS 1.0 was told so.
    TooOld,
    /// There is no place for one more session.
    Refused,
    /// It belongs to nothing.
    Dropped,
}

/// Why something was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No handshake was finished with that client.
    #[error("there is no session")]
    NoSession,
    /// It is longer than a record.
    #[error("it is too long")]
    TooLong,
    /// The session can send no more.
    #[error("the session is at its end")]
    Ended,
}

/// Whether a client that has long been silent is to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// It has something to come back to.
    Stay,
    /// It is told goodbye.
    Close,
}

/// What happened since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hellos that were given a cookie.
    pub challenged: u64,
    /// Hellos of clients that speak nothing later than DTLS 1.0.
    pub too_old: u64,
    /// Handshakes begun, each with an echoed cookie.
    pub begun: u64,
    /// Handshakes finished.
    pub finished: u64,
    /// Handshakes that failed.
    pub failed: u64,
    /// Handshakes that took too long.
    pub timed_out: u64,
    /// Handshakes that gave way to younger ones.
    pub evicted: u64,
    /// Hellos with a good cookie for which there was no place.
    pub refused: u64,
    /// Sessions that ended because their client began anew.
    pub replaced: u64,
    /// Flights sent anew.
    pub resent: u64,
    /// Datagrams that belonged to nothing.
    pub dropped: u64,
}
