//! The DTLS clients of one worker: its sockets, the sessions behind them, and what goes between. A
//! record holds one message (RFC 7350 §3), so that nothing has to be cut.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::dataplane::dtls::{Counts, Dtls, DtlsContext, Identity, Idle, Limits, Received};
use crate::dataplane::source::Source;
use crate::dataplane::surroundings::Surroundings;
use crate::dataplane::sys::{Ecn, RecvBatch, UdpSocket, send_to};
use crate::dataplane::tls::{Pairs, TlsKeys};
use crate::turn::stats::{Counters, DropReason, Over};
use crate::turn::{ClientAddr, FiveTuple, ListenerId, Tick, Transport};

/// Datagrams received at once.
const BATCH: usize = 32;
/// The longest datagram of a client: a whole record (RFC 6347 §4.1) and more.
const LARGEST: usize = 20_000;

/// A socket that DTLS clients speak to.
#[derive(Debug)]
pub(crate) struct DtlsSocket {
    pub(crate) socket: UdpSocket,
    /// Its place among the DTLS listeners.
    pub(crate) place: u16,
}

#[derive(Debug)]
struct Listener {
    socket: UdpSocket,
    id: ListenerId,
    dtls: Dtls,
    /// What of its counts stands in the metrics.
    counted: Counts,
}

/// The sessions of one worker.
#[derive(Debug)]
pub(crate) struct Sessions {
    listeners: Vec<Listener>,
    keys: Option<Arc<TlsKeys>>,
    generation: u64,
    sealed: Option<RecvBatch>,
    gone: Vec<FiveTuple>,
    counters: Arc<Counters>,
}

impl Sessions {
    /// Sessions by these sockets, none yet. `secret` makes a cookie secret for each.
    ///
    /// # Errors
    /// When the certificates are none for OpenSSL.
    pub(crate) fn new(
        sockets: Vec<DtlsSocket>,
        keys: Option<Arc<TlsKeys>>,
        counters: Arc<Counters>,
        mut secret: impl FnMut() -> std::io::Result<[u8; 32]>,
    ) -> std::io::Result<Self> {
        let mut listeners = Vec::new();
        let mut generation = 0;
        if let Some(keys) = keys.as_ref().filter(|_| !sockets.is_empty()) {
            let pairs = keys.current();
            generation = pairs.generation();
            let context = Arc::new(context(&pairs)?);
            for DtlsSocket { socket, place } in sockets {
                let dtls = Dtls::new(Arc::clone(&context), secret()?, Limits::default());
                listeners.push(Listener {
                    socket,
                    id: ListenerId::new(Transport::Dtls, place),
                    dtls,
                    counted: Counts::default(),
                });
            }
        }
        let sealed = (!listeners.is_empty()).then(|| RecvBatch::new(BATCH, LARGEST));
        Ok(Self {
            listeners,
            keys,
            generation,
            sealed,
            gone: Vec::new(),
            counters,
        })
    }

    /// Where the listeners of this worker listen.
    pub(crate) fn listening(&self) -> impl Iterator<Item = (ListenerId, SocketAddr)> + '_ {
        let listeners = self.listeners.iter();
        listeners.map(|listener| (listener.id, listener.socket.local_addr()))
    }

    /// Marks what is sent with this DSCP.
    pub(crate) fn mark(&mut self, dscp: u8) {
        for listener in &mut self.listeners {
            listener.socket.mark(dscp);
        }
    }

    /// Has the poller watch every socket.
    pub(crate) fn watch(&self, house: &Surroundings) -> std::io::Result<()> {
        for (index, listener) in (0..).zip(&self.listeners) {
            house.watch(&listener.socket, Source::Dtls(index))?;
        }
        Ok(())
    }

    /// Receives what waits at a socket; the slots that it lies in.
    pub(crate) fn fill(&mut self, index: u16) -> Range<usize> {
        self.follow_keys();
        let (Some(listener), Some(sealed)) =
            (self.listeners.get(usize::from(index)), self.sealed.as_mut())
        else {
            return 0..0;
        };
        sealed.clear();
        let slots = sealed.receive(&listener.socket, BATCH);
        let slots = slots.unwrap_or_default();
        self.counters.calls.took(slots.len());
        slots
    }

    /// The datagrams in a slot, each by its place there.
    pub(crate) fn datagrams(&self, slot: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let received = self.sealed.as_ref().map(|sealed| sealed.datagram(slot));
        let (len, segment) = received
            .filter(|received| !received.truncated)
            .map_or((0, 1), |received| (received.len, received.segment.max(1)));
        self.counters.calls.took_merged(len.div_ceil(segment));
        let start = crate::dataplane::sys::HEADROOM;
        (0..len)
            .step_by(segment)
            .map(move |at| start + at..start + len.min(at + segment))
    }

    /// Takes a datagram; says whose it is if something may be in it for [`read`](Self::read).
    pub(crate) fn receive(
        &mut self,
        index: u16,
        slot: usize,
        datagram: Range<usize>,
        now: Tick,
    ) -> Option<FiveTuple> {
        let sealed = self.sealed.as_ref()?;
        let client = ClientAddr::new(sealed.source(slot));
        let Listener {
            socket, id, dtls, ..
        } = self.listeners.get_mut(usize::from(index))?;
        let bytes = sealed.bytes(slot, datagram)?;
        let tuple = FiveTuple {
            client,
            listener: *id,
        };
        match dtls.receive(client, bytes, now, &mut out(socket, &self.counters)) {
            Received::Readable => Some(tuple),
            Received::Dropped => {
                self.counters.dropped(DropReason::Malformed, 1);
                None
            }
            Received::Handshake | Received::Challenged | Received::TooOld | Received::Refused => {
                None
            }
        }
    }

    /// Puts the next message of the datagram received last in `room`; says how long it is.
    pub(crate) fn read(&mut self, index: u16, room: &mut [u8]) -> Option<usize> {
        let Listener { socket, dtls, .. } = self.listeners.get_mut(usize::from(index))?;
        dtls.read(room, &mut out(socket, &self.counters))
    }

    /// Sends a message to a client.
    pub(crate) fn push(&mut self, to: FiveTuple, parts: &[&[u8]]) {
        let listener = self.listeners.iter_mut().find(|l| l.id == to.listener);
        let sent = listener.map(|Listener { socket, dtls, .. }| {
            dtls.send(to.client, parts, &mut out(socket, &self.counters))
        });
        if !matches!(sent, Some(Ok(()))) {
            self.counters.dropped(DropReason::SendRefused, 1);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.dtls.poll_timeout())
            .min()
    }

    /// Sends flights anew and ends what has been silent; `is_known` says who has an allocation.
    pub(crate) fn handle_timeout(&mut self, now: Tick, is_known: impl Fn(FiveTuple) -> bool) {
        for Listener {
            socket, id, dtls, ..
        } in &mut self.listeners
        {
            let listener = *id;
            let mut idle = |client| {
                if is_known(FiveTuple { client, listener }) {
                    Idle::Stay
                } else {
                    Idle::Close
                }
            };
            dtls.handle_timeout(now, &mut idle, &mut out(socket, &self.counters));
        }
    }

    /// Whose session has ended since the last call, one by one.
    pub(crate) fn take_gone(&mut self) -> Option<FiveTuple> {
        for Listener { id, dtls, .. } in &mut self.listeners {
            let listener = *id;
            while let Some(client) = dtls.take_closed() {
                self.gone.push(FiveTuple { client, listener });
            }
        }
        self.gone.pop()
    }

    /// Ends every session, because the worker stops.
    pub(crate) fn close_all(&mut self) {
        for Listener { socket, dtls, .. } in &mut self.listeners {
            dtls.close_all(&mut out(socket, &self.counters));
        }
    }

    /// Has the metrics say how things stand.
    pub(crate) fn count(&mut self) {
        let over = self.counters.over(Transport::Dtls);
        let mut open = 0;
        for listener in &mut self.listeners {
            open += listener.dtls.len();
            let counts = *listener.dtls.counts();
            let before = std::mem::replace(&mut listener.counted, counts);
            count(over, &before, &counts);
        }
        over.connections.store(open as u64, Ordering::Relaxed);
    }

    /// Begins new sessions with the certificates that are served now.
    fn follow_keys(&mut self) {
        let Some(keys) = &self.keys else { return };
        if keys.generation() == self.generation {
            return;
        }
        let pairs = keys.current();
        self.generation = pairs.generation();
        match context(&pairs) {
            Ok(context) => {
                let context = Arc::new(context);
                for listener in &mut self.listeners {
                    listener.dtls.set_context(Arc::clone(&context));
                }
            }
            Err(error) => {
                tracing::error!(%error, "DTLS keeps the certificates that it has");
            }
        }
    }
}

fn count(over: &Over, before: &Counts, after: &Counts) {
    over.connections_total.add(after.finished - before.finished);
    let refused = |counts: &Counts| counts.refused + counts.evicted + counts.timed_out;
    over.connections_refused
        .add(refused(after) - refused(before));
}

fn context(pairs: &Pairs) -> std::io::Result<DtlsContext> {
    let identities: Vec<Identity<'_>> = pairs
        .iter()
        .map(|pair| Identity {
            chain: pair.chain_pem(),
            key: pair.key_pem(),
        })
        .collect();
    DtlsContext::new(&identities).map_err(std::io::Error::other)
}

/// Sends what a session has to say.
fn out<'s>(
    socket: &'s UdpSocket,
    counters: &'s Counters,
) -> impl FnMut(ClientAddr, &[u8]) + use<'s> {
    move |client, datagram| match send_to(socket, datagram, client.expose(), Ecn::NotEct) {
        Ok(_) => counters.calls.sent_one(),
        Err(_) => counters.dropped(DropReason::SendRefused, 1),
    }
}
