//! One client's session, which is OpenSSL's with a wire that is only there while it is needed:
//! the datagram to be read and those to be sent lie in buffers that all sessions are lent in turn,
//! so that an idle one has none.

use std::io::{self, Read, Write};
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{ErrorCode, Ssl, SslContextRef, SslStream};

use super::hello::RANDOM_LEN;
use super::records::{Allowance, NONCE_AND_TAG, TAG};
use super::{Out, sys};
use crate::turn::{ClientAddr, Tick};

/// The largest datagram of a handshake: what passes every path that carries IPv6 and a tunnel.
pub(super) const MTU: u32 = 1_200;
/// What one call may make OpenSSL send: a certificate chain several times over.
const OUTGOING_MAX: usize = 1 << 17;

/// A datagram to be read, and datagrams to be sent.
#[derive(Debug, Default)]
pub(super) struct Lent {
    incoming: Vec<u8>,
    is_unread: bool,
    outgoing: Vec<u8>,
    ends: Vec<usize>,
}

impl Lent {
    /// Puts in a datagram for the next read; what nobody read before is gone.
    pub(super) fn set_incoming(&mut self, datagram: &[u8]) {
        self.incoming.clear();
        self.incoming.extend_from_slice(datagram);
        self.is_unread = true;
    }

    /// Whether there are datagrams to be sent.
    pub(super) const fn has_outgoing(&self) -> bool {
        !self.ends.is_empty()
    }

    /// The datagrams to be sent.
    pub(super) fn outgoing(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .filter_map(|(start, end)| self.outgoing.get(start..*end))
    }

    /// Forgets the datagrams to be sent.
    pub(super) fn clear_outgoing(&mut self) {
        self.outgoing.clear();
        self.ends.clear();
    }
}

/// What OpenSSL reads from and writes to: each read is a datagram, and each write.
#[derive(Debug)]
pub(super) struct Wire(Option<Box<Lent>>);

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(lent) = self.0.as_mut().filter(|lent| lent.is_unread) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        lent.is_unread = false;
        let len = lent.incoming.len().min(buf.len());
        buf[..len].copy_from_slice(&lent.incoming[..len]);
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // What has no place is lost, as datagrams are.
        if let Some(lent) = &mut self.0
            && lent.outgoing.len() + buf.len() <= OUTGOING_MAX
        {
            lent.outgoing.extend_from_slice(buf);
            lent.ends.push(lent.outgoing.len());
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How far a session is.
#[derive(Debug)]
pub(super) enum Phase {
    /// The cookie was echoed; the handshake is not through.
    HalfOpen(HalfOpen),
    /// Application data may flow, in records that are longer than it by at least so much.
    Open { overhead: usize },
}

/// What is kept of a handshake.
#[derive(Debug)]
pub(super) struct HalfOpen {
    /// The datagrams of the flight that the client has not answered.
    pub flight: Box<[Box<[u8]>]>,
    /// The pause before it was, or will be, sent anew.
    pub pause: Duration,
    /// When the handshake is given up.
    pub deadline: Tick,
    /// What the client may still send.
    pub allowance: Allowance,
}

impl HalfOpen {
    /// Sends the flight anew, record by record what it was: to a client that has it, these are
    /// copies such as the network makes.
    pub(super) fn resend(&self, client: ClientAddr, out: Out<'_>) {
        for datagram in &self.flight {
            out(client, datagram);
        }
    }
}

/// What came of a step of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Waiting,
    Done,
    Failed,
}

/// What came of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Data(usize),
    Nothing,
    /// The client said goodbye.
    Closed,
    /// OpenSSL cannot go on; it has said why to the client, if that is still possible.
    Failed,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    stream: SslStream<Wire>,
    pub client: ClientAddr,
    pub phase: Phase,
    /// When the client last sent something that was its own.
    pub active: Tick,
}

impl Session {
    /// Begins a session with the hello in `lent`, whose cookie was verified. `None` if OpenSSL
    /// has no memory or finds the hello wrong.
    pub(super) fn begin(
        context: &SslContextRef,
        client: ClientAddr,
        deadline: Tick,
        lent: &mut Option<Box<Lent>>,
    ) -> Option<Self> {
        let mut ssl = Ssl::new(context).ok()?;
        ssl.set_mtu(MTU).ok()?;
        sys::stop_timer(&mut ssl);
        let half_open = HalfOpen {
            flight: Box::default(),
            pause: Duration::ZERO,
            deadline,
            allowance: Allowance::WHOLE,
        };
        let mut session = Self {
            stream: SslStream::new(ssl, Wire(None)).ok()?,
            client,
            phase: Phase::HalfOpen(half_open),
            active: Tick::default(),
        };
        session.with(lent, sys::listen).then_some(session)
    }

    /// Goes on with the handshake.
    pub(super) fn handshake(&mut self, lent: &mut Option<Box<Lent>>) -> Step {
        self.with(lent, |stream| match stream.do_handshake() {
            Ok(()) => Step::Done,
            Err(error) if error.code() == ErrorCode::WANT_READ => Step::Waiting,
            Err(_) => Step::Failed,
        })
    }

    /// Takes the next application data into `plain`.
    pub(super) fn read(&mut self, plain: &mut [u8], lent: &mut Option<Box<Lent>>) -> Taken {
        sys::take_buffers(&mut self.stream);
        let taken = self.with(lent, |stream| match stream.ssl_read(plain) {
            Ok(len) => Taken::Data(len),
            Err(error) if error.code() == ErrorCode::WANT_READ => Taken::Nothing,
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => Taken::Closed,
            Err(_) => Taken::Failed,
        });
        if taken == Taken::Nothing {
            sys::release_buffers(&mut self.stream);
        }
        taken
    }

    /// Sends `plain` as one record.
    pub(super) fn write(&mut self, plain: &[u8], lent: &mut Option<Box<Lent>>) -> bool {
        sys::take_buffers(&mut self.stream);
        let written = self.with(lent, |stream| stream.ssl_write(plain).is_ok());
        sys::release_buffers(&mut self.stream);
        written
    }

    /// Sends close_notify.
    pub(super) fn shutdown(&mut self, lent: &mut Option<Box<Lent>>) {
        sys::take_buffers(&mut self.stream);
        // The session ends whether or not that can be said.
        self.with(lent, |stream| drop(stream.shutdown()));
    }

    /// Whether the session was begun by a hello with this random value.
    pub(super) fn began_with(&self, random: &[u8; RANDOM_LEN]) -> bool {
        let mut own = [0; RANDOM_LEN];
        self.stream.ssl().client_random(&mut own) == RANDOM_LEN && own == *random
    }

    /// By how much an encrypted record is longer than its content.
    pub(super) fn overhead(&self) -> usize {
        let cipher = self.stream.ssl().current_cipher();
        if cipher.is_some_and(|cipher| cipher.name().contains("CHACHA20")) {
            TAG
        } else {
            NONCE_AND_TAG
        }
    }

    /// Lends the wire its buffers for one call. OpenSSL's queue of errors belongs to the thread,
    /// and an error in it would be taken for this call's.
    fn with<R>(
        &mut self,
        lent: &mut Option<Box<Lent>>,
        call: impl FnOnce(&mut SslStream<Wire>) -> R,
    ) -> R {
        drop(ErrorStack::get());
        self.stream.get_mut().0 = Some(lent.take().unwrap_or_default());
        let outcome = call(&mut self.stream);
        *lent = self.stream.get_mut().0.take();
        outcome
    }
}
