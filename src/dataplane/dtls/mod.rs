//! DTLS 1.2 towards clients (RFC 6347; for TURN RFC 7350): the sessions of one UDP socket, as a
//! machine without socket and clock. Datagrams and time go in, datagrams and application data
//! come out; every message of TURN is one record in one datagram.
//!
//! [`Dtls::receive`] takes a datagram, [`Dtls::read`] hands out what was in it until there is no
//! more, [`Dtls::send`] seals, [`Dtls::poll_timeout`] says when [`Dtls::handle_timeout`] wants to
//! be called, and [`Dtls::take_closed`], after each of them, which clients are gone.
//!
//! # What a client costs
//! Before it has echoed a cookie: nothing. HelloVerifyRequest and the alert to who speaks only
//! DTLS 1.0 are answers of fewer bytes than their question, made without OpenSSL (`hello.rs`,
//! `cookie.rs`). In its handshake: 79 KB, and 185 KB at worst, which `records.rs` sees to; there
//! are at most [`Limits::half_open`] such clients. Afterwards: 37 KB while nothing is to be done,
//! of which 22 KB are a handshake buffer that OpenSSL 3.0 keeps for DTLS; another 33 KB are taken
//! for each record and given back. Measured, with Debian's OpenSSL 3.0.19, by
//! `cargo test --features dtls --lib memory_of_a_session -- --ignored --nocapture`.
//!
//! Retransmission is done here and not by OpenSSL, which would do it by the system's clock. No
//! tickets, no resumption, no renegotiation, no client certificates.

mod context;
mod cookie;
mod hello;
mod outcome;
mod records;
mod session;
mod sys;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::turn::{ClientAddr, Tick};

pub use context::{ContextError, DtlsContext, Identity};
pub use outcome::{Counts, Idle, Limits, Received, Refused};

use cookie::Cookies;
use hello::Hello;
use session::{Lent, Phase, Session, Step, Taken};
use table::Table;

/// RFC 6347 §4.2.4.1: the first pause before a flight is sent anew; each one after it is twice as
/// long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Sessions that [`Dtls::handle_timeout`] looks at in one call: some 0.2 ms of work.
const LOOKS: usize = 64;
/// RFC 6347 §4.1.1: the most application data in a record.
pub const PLAIN_MAX: usize = 1 << 14;

/// Where datagrams to be sent go.
pub type Out<'o> = &'o mut dyn FnMut(ClientAddr, &[u8]);

/// The sessions of one UDP socket.
pub struct Dtls {
    context: Arc<DtlsContext>,
    cookies: Cookies,
    limits: Limits,
    table: Table,
    closed: VecDeque<ClientAddr>,
    /// Whose datagram [`Dtls::read`] reads, and when it came.
    reading: Option<(usize, Tick)>,
    lent: Option<Box<Lent>>,
    /// Where the parts of what is sent are put together.
    whole: Vec<u8>,
    counts: Counts,
}

impl fmt::Debug for Dtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dtls")
            .field("sessions", &self.len())
            .field("half_open", &self.half_open())
            .finish_non_exhaustive()
    }
}

impl Dtls {
    /// No session. `cookie_secret` is 32 random bytes.
    #[must_use]
    pub fn new(context: Arc<DtlsContext>, cookie_secret: [u8; 32], limits: Limits) -> Self {
        Self {
            context,
            cookies: Cookies::new(cookie_secret),
            limits,
            table: Table::new(),
            closed: VecDeque::new(),
            reading: None,
            lent: None,
            whole: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Begins new sessions with other certificates from now on.
    pub fn set_context(&mut self, context: Arc<DtlsContext>) {
        self.context = context;
    }

    /// How many sessions there are, handshakes included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many have not finished their handshake.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.table.half_open()
    }

    /// What happened since the beginning.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes a datagram from `client`. If it is [`Received::Readable`], [`read`](Self::read) has
    /// to be called until it gives nothing.
    pub fn receive(
        &mut self,
        client: ClientAddr,
        datagram: &[u8],
        now: Tick,
        out: Out<'_>,
    ) -> Received {
        self.reading = None;
        let slot = self.table.find(client);
        let received = match (Hello::parse(datagram), slot) {
            (Some(hello), _) => self.handle_hello(client, &hello, datagram, now, out),
            (None, Some(slot)) => self.handle_datagram(slot, datagram, now, out),
            (None, None) => Received::Dropped,
        };
        match received {
            Received::Challenged => self.counts.challenged += 1,
            Received::TooOld => self.counts.too_old += 1,
            Received::Refused => self.counts.refused += 1,
            Received::Dropped => self.counts.dropped += 1,
            Received::Readable | Received::Handshake => {}
        }
        received
    }

    /// Writes the next application data of the datagram received last to the front of `plain` and
    /// says how long it is. What `plain` has no room for comes with the next call.
    pub fn read(&mut self, plain: &mut [u8], out: Out<'_>) -> Option<usize> {
        let (slot, came) = self.reading.filter(|_| !plain.is_empty())?;
        let session = self.table.get_mut(slot)?;
        let taken = session.read(plain, &mut self.lent);
        let client = session.client;
        match taken {
            Taken::Data(len) => {
                session.active = came;
                flush(&mut self.lent, client, out);
                return Some(len);
            }
            Taken::Nothing => self.reading = None,
            Taken::Closed => {
                session.shutdown(&mut self.lent);
                self.end(slot);
            }
            Taken::Failed => self.end(slot),
        }
        flush(&mut self.lent, client, out);
        None
    }

    /// Sends `parts`, one after the other, as one datagram.
    ///
    /// # Errors
    /// If no handshake was finished with `client`, or what is to be sent is too long.
    pub fn send(
        &mut self,
        client: ClientAddr,
        parts: &[&[u8]],
        out: Out<'_>,
    ) -> Result<(), Refused> {
        let slot = self.table.find(client).ok_or(Refused::NoSession)?;
        let session = self.table.get_mut(slot).ok_or(Refused::NoSession)?;
        if !matches!(session.phase, Phase::Open { .. }) {
            return Err(Refused::NoSession);
        }
        let whole = if let [whole] = parts {
            whole
        } else {
            self.whole.clear();
            self.whole.extend(parts.iter().copied().flatten());
            &*self.whole
        };
        if whole.len() > PLAIN_MAX {
            return Err(Refused::TooLong);
        }
        let written = session.write(whole, &mut self.lent);
        if !written {
            self.end(slot);
        }
        flush(&mut self.lent, client, out);
        written.then_some(()).ok_or(Refused::Ended)
    }

    /// Ends a client's session, with a goodbye if its handshake was finished.
    pub fn close(&mut self, client: ClientAddr, out: Out<'_>) {
        if let Some(slot) = self.table.find(client) {
            self.say_goodbye(slot, out);
            self.remove(slot);
        }
    }

    /// Ends all sessions.
    pub fn close_all(&mut self, out: Out<'_>) {
        for slot in self.table.slots() {
            self.say_goodbye(slot, out);
            self.remove(slot);
        }
    }

    /// The next client whose session ended otherwise than by [`close`](Self::close) after its
    /// handshake was finished. A client that begins anew is named at once and can send nothing
    /// before its next datagram, so whoever asks after each call takes no session for another.
    pub fn take_closed(&mut self) -> Option<ClientAddr> {
        self.closed.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        self.table.first_deadline().map(|(at, _)| at)
    }

    /// Sends flights anew, gives up handshakes, and asks `idle` about clients that have been
    /// silent for long. It does a bounded piece of this; then the next timeout is in the past.
    pub fn handle_timeout(
        &mut self,
        now: Tick,
        idle: &mut dyn FnMut(ClientAddr) -> Idle,
        out: Out<'_>,
    ) {
        for _ in 0..LOOKS {
            match self.table.first_deadline() {
                Some((at, slot)) if at <= now => self.look_at(slot, now, idle, out),
                Some(_) | None => return,
            }
        }
    }

    /// Whether the indexes of the sessions agree, for tests.
    ///
    /// # Errors
    /// The rule that does not hold.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        self.table.check_invariants()
    }

    fn look_at(
        &mut self,
        slot: usize,
        now: Tick,
        idle: &mut dyn FnMut(ClientAddr) -> Idle,
        out: Out<'_>,
    ) {
        let Some(session) = self.table.get_mut(slot) else {
            return;
        };
        match &mut session.phase {
            Phase::HalfOpen(half_open) if half_open.deadline <= now => {
                self.counts.timed_out += 1;
                self.remove(slot);
            }
            Phase::HalfOpen(half_open) => {
                half_open.pause *= 2;
                let at = half_open.deadline.min(now.plus(half_open.pause));
                self.counts.resent += 1;
                half_open.resend(session.client, out);
                self.table.arm(slot, at);
            }
            Phase::Open { .. } => {
                let silent_until = session.active.plus(self.limits.idle);
                if silent_until > now {
                    self.table.arm(slot, silent_until);
                } else if idle(session.client) == Idle::Stay {
                    self.table.arm(slot, now.plus(self.limits.idle));
                } else {
                    self.say_goodbye(slot, out);
                    self.end(slot);
                }
            }
        }
    }

    /// Takes what is no beginning of a ClientHello.
    fn handle_datagram(
        &mut self,
        slot: usize,
        datagram: &[u8],
        now: Tick,
        out: Out<'_>,
    ) -> Received {
        let Some(session) = self.table.get_mut(slot) else {
            return Received::Dropped;
        };
        let lent = self.lent.get_or_insert_default();
        match &mut session.phase {
            Phase::Open { overhead } => {
                if !records::are_whole(datagram, *overhead) {
                    return Received::Dropped;
                }
                lent.set_incoming(datagram);
                self.reading = Some((slot, now));
                Received::Readable
            }
            Phase::HalfOpen(half_open) => {
                if !half_open.allowance.take(datagram) {
                    return Received::Dropped;
                }
                lent.set_incoming(datagram);
                self.advance(slot, now, out)
            }
        }
    }

    fn handle_hello(
        &mut self,
        client: ClientAddr,
        hello: &Hello<'_>,
        datagram: &[u8],
        now: Tick,
        out: Out<'_>,
    ) -> Received {
        if hello.is_too_old() {
            out(client, &hello.protocol_version_alert());
            return Received::TooOld;
        }
        if !self.cookies.verify(client, hello, now) {
            let cookie = self.cookies.make(client, hello, now);
            out(client, &hello.verify_request(&cookie));
            return Received::Challenged;
        }
        let Some(slot) = self.table.find(client) else {
            return self.begin(client, None, datagram, now, out);
        };
        let Some(session) = self.table.get_mut(slot) else {
            return Received::Dropped;
        };
        let came_before = session.began_with(hello.random);
        match &mut session.phase {
            Phase::HalfOpen(half_open) if came_before => {
                if !half_open.allowance.take(datagram) {
                    return Received::Dropped;
                }
                // RFC 6347 §4.2.4: a flight that comes anew is answered with ours anew.
                half_open.resend(client, out);
                self.counts.resent += 1;
                Received::Handshake
            }
            Phase::HalfOpen(_) => {
                self.remove(slot);
                self.begin(client, None, datagram, now, out)
            }
            // A late copy of the hello that began this session ends nothing.
            Phase::Open { .. } if came_before => Received::Dropped,
            Phase::Open { .. } => self.begin(client, Some(slot), datagram, now, out),
        }
    }

    /// Begins a session with a hello whose cookie was verified.
    fn begin(
        &mut self,
        client: ClientAddr,
        replaced: Option<usize>,
        datagram: &[u8],
        now: Tick,
        out: Out<'_>,
    ) -> Received {
        if !self.make_room(client, replaced) {
            return Received::Refused;
        }
        self.lent.get_or_insert_default().set_incoming(datagram);
        let deadline = now.plus(self.limits.handshake);
        let Some(session) = Session::begin(self.context.ssl(), client, deadline, &mut self.lent)
        else {
            return Received::Dropped;
        };
        // RFC 6347 §4.2.8: the old association ends now that the client has shown where it is.
        if let Some(slot) = replaced {
            self.counts.replaced += 1;
            self.end(slot);
        }
        self.counts.begun += 1;
        let slot = self
            .table
            .insert(session, now.plus(FIRST_PAUSE).min(deadline));
        self.advance(slot, now, out)
    }

    /// Whether there is a place for one more handshake, after the oldest gave way if need be.
    fn make_room(&mut self, client: ClientAddr, replaced: Option<usize>) -> bool {
        if self.table.half_open_near(client) >= self.limits.half_open_per_network {
            return false;
        }
        let is_full = replaced.is_none() && self.table.len() >= self.limits.sessions;
        if !is_full && self.table.half_open() < self.limits.half_open {
            return true;
        }
        let oldest = self.table.oldest_half_open();
        if let Some(oldest) = oldest {
            self.counts.evicted += 1;
            self.remove(oldest);
        }
        oldest.is_some()
    }

    /// Goes on with a handshake, with the datagram that was put in.
    fn advance(&mut self, slot: usize, now: Tick, out: Out<'_>) -> Received {
        let Some(session) = self.table.get_mut(slot) else {
            return Received::Dropped;
        };
        let step = session.handshake(&mut self.lent);
        let client = session.client;
        let received = match step {
            Step::Waiting => {
                if let (Phase::HalfOpen(half_open), Some(lent)) = (&mut session.phase, &self.lent)
                    && lent.has_outgoing()
                {
                    half_open.flight = lent.outgoing().map(Box::from).collect();
                    half_open.pause = FIRST_PAUSE;
                    let at = half_open.deadline.min(now.plus(FIRST_PAUSE));
                    self.table.arm(slot, at);
                }
                Received::Handshake
            }
            Step::Done => {
                session.active = now;
                let overhead = session.overhead();
                self.table.open(slot, overhead, now.plus(self.limits.idle));
                self.counts.finished += 1;
                // Application data may stand behind Finished.
                self.reading = Some((slot, now));
                Received::Readable
            }
            Step::Failed => {
                self.counts.failed += 1;
                self.remove(slot);
                Received::Handshake
            }
        };
        flush(&mut self.lent, client, out);
        received
    }

    fn say_goodbye(&mut self, slot: usize, out: Out<'_>) {
        if let Some(session) = self.table.get_mut(slot)
            && matches!(session.phase, Phase::Open { .. })
        {
            session.shutdown(&mut self.lent);
            flush(&mut self.lent, session.client, out);
        }
    }

    /// Ends a session whose handshake was finished, and tells the caller.
    fn end(&mut self, slot: usize) {
        if let Some(session) = self.remove(slot) {
            self.closed.push_back(session.client);
        }
    }

    fn remove(&mut self, slot: usize) -> Option<Session> {
        self.reading = self.reading.filter(|(reading, _)| *reading != slot);
        self.table.remove(slot)
    }
}

/// Sends what OpenSSL wrote.
fn flush(lent: &mut Option<Box<Lent>>, client: ClientAddr, out: Out<'_>) {
    if let Some(lent) = lent
        && lent.has_outgoing()
    {
        for datagram in lent.outgoing() {
            out(client, datagram);
        }
        lent.clear_outgoing();
    }
}
