//! A client of OpenSSL's own against [`Dtls`], both in memory, with every datagram in the test's
//! hand.

mod bounds;
mod handshake;
pub(crate) mod harness;
mod life;
mod measured;
mod proof;
mod records;
mod wire;
