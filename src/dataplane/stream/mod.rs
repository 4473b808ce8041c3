//! The TCP and TLS clients of one worker: accepted, known, read, written to and closed on deadlines.
//! It moves bytes between connections and the worker's batch; what the bytes mean, the worker's
//! [`turn::Server`](crate::turn::Server) says (`drive.rs`).
//!
//! These connections live in the same bare epoll loop as datagrams do, and rustls is driven without
//! I/O of its own: relay sockets and the mailbox are in that loop anyway, and tokio around an epoll
//! set was measured to be 13 to 19 % dearer below saturation. A handshake takes its time on a stream
//! worker's thread, and none on a UDP worker's.
//!
//! Everything is bounded: connections in all, those without an allocation, what each may hold, and
//! how long each may take for a handshake, for a message, and for nothing at all.

mod arrivals;
pub(super) mod connection;
mod deadlines;
mod drive;
mod newcomer;
mod queue;
#[cfg(feature = "dtls")]
mod sessions;
#[cfg(not(feature = "dtls"))]
#[path = "no_sessions.rs"]
mod sessions;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;
use ipnet::IpNet;
use slab::Slab;

use crate::dataplane::proxy;
use crate::dataplane::source::Source;
use crate::dataplane::surroundings::Surroundings;
use crate::dataplane::sys::{TcpListener, TcpStream};
use crate::dataplane::tls::TlsKeys;
use crate::turn::stats::Counters;
use crate::turn::{FiveTuple, ListenerId, Tick, Transport};

use connection::Connection;
use newcomer::Newcomer;

pub(crate) use newcomer::Spoken;
pub(crate) use queue::Worth;
pub(crate) use sessions::{DtlsSocket, Sessions};

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Steps of TLS handshakes taken in one turn of the worker's loop, so that calls over TLS go on while
/// clients come; one step is up to a millisecond of work.
const HANDSHAKES: usize = 8;

/// A socket that takes connections.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) socket: TcpListener,
    /// Its place among the listeners of its transports.
    pub(crate) place: u16,
    pub(crate) spoken: Spoken,
}

/// What streams are told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Certificates, where TLS is spoken.
    pub(crate) tls: Option<Arc<TlsKeys>>,
    /// From where PROXY headers are taken.
    pub(crate) trusted: Arc<[IpNet]>,
}

#[derive(Debug)]
enum Entry {
    Newcomer(Newcomer),
    Connection(Box<Connection>),
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    entry: Entry,
}

/// A connection's place, good only as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl At {
    const fn source(self) -> Source {
        Source::Connection {
            slot: self.slot,
            generation: self.generation,
        }
    }
}

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Streams {
    rules: Rules,
    acceptors: Vec<Acceptor>,
    /// Whether accepting pauses for want of descriptors.
    paused: bool,
    slots: Slab<Slot>,
    by_tuple: HashMap<FiveTuple, At, foldhash::quality::RandomState>,
    generation: u32,
    /// Those with something to be written, or to be closed.
    dirty: Vec<At>,
    /// Steps of handshakes that may still be taken in this turn.
    handshakes: usize,
    /// Whose handshake waits for the next turn, or whose decrypted bytes do.
    delayed: Vec<At>,
    /// Accepted in this turn.
    fresh: Vec<At>,
    /// In the order in which they came.
    strangers: VecDeque<At>,
    /// Whose connection is gone; the server does not know yet.
    gone: Vec<FiveTuple>,
    next_sweep: Tick,
    counters: Arc<Counters>,
}

impl Streams {
    /// No connection yet.
    pub(crate) fn new(rules: Rules, acceptors: Vec<Acceptor>, counters: Arc<Counters>) -> Self {
        Self {
            rules,
            acceptors,
            paused: false,
            slots: Slab::new(),
            by_tuple: HashMap::default(),
            generation: 0,
            dirty: Vec::new(),
            handshakes: HANDSHAKES,
            delayed: Vec::new(),
            fresh: Vec::new(),
            strangers: VecDeque::new(),
            gone: Vec::new(),
            next_sweep: Tick::default(),
            counters,
        }
    }

    /// Whether a PROXY header is expected from this source.
    pub(crate) fn trusts(&self, source: IpAddr) -> bool {
        !self.rules.trusted.is_empty() && proxy::trusts(&self.rules.trusted, source)
    }

    /// Expects PROXY headers from these networks and from no others.
    pub(crate) fn trust(&mut self, networks: Arc<[IpNet]>) {
        self.rules.trusted = networks;
    }

    /// Marks what is sent with this DSCP.
    pub(crate) fn mark_packets(&mut self, dscp: u8) {
        for acceptor in &mut self.acceptors {
            acceptor.socket.mark(dscp);
        }
        for (_, slot) in &self.slots {
            slot.entry.stream().mark(dscp);
        }
    }

    /// Where the listeners of this worker listen, whichever of the two is spoken there.
    pub(crate) fn listening(&self) -> impl Iterator<Item = (ListenerId, SocketAddr)> + '_ {
        self.acceptors.iter().flat_map(|acceptor| {
            let address = acceptor.socket.local_addr();
            let spoken = [Transport::Tcp, Transport::Tls];
            spoken.map(|transport| (ListenerId::new(transport, acceptor.place), address))
        })
    }

    /// Has the poller watch every acceptor.
    pub(crate) fn watch(&self, house: &Surroundings) -> io::Result<()> {
        for (index, acceptor) in (0..).zip(&self.acceptors) {
            house.watch(&acceptor.socket, Source::Acceptor(index))?;
        }
        Ok(())
    }

    /// Another turn of the loop, with those that waited for it.
    fn begin_turn(&mut self) -> Vec<At> {
        self.handshakes = HANDSHAKES;
        let delayed = std::mem::take(&mut self.delayed);
        for at in &delayed {
            if let Some(connection) = self.connection(*at) {
                connection.delayed = false;
            }
        }
        delayed
    }

    /// Has a connection wait for the next turn.
    fn delay(&mut self, at: At) {
        if let Some(connection) = self.connection(at)
            && !connection.delayed
        {
            connection.delayed = true;
            self.delayed.push(at);
        }
    }

    /// Whether a handshake may go on in this turn; what may not waits for the next.
    const fn may_open(&mut self) -> bool {
        let may = self.handshakes > 0;
        self.handshakes = self.handshakes.saturating_sub(1);
        may
    }

    /// When deadlines are looked at next, if there are any.
    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        if !self.delayed.is_empty() {
            return Some(Tick::default());
        }
        (self.paused || !self.slots.is_empty()).then_some(self.next_sweep)
    }

    fn uncount(&self, transport: Transport) {
        let over = self.counters.over(transport);
        over.connections.fetch_sub(1, Ordering::Relaxed);
    }

    fn entry(&mut self, at: At) -> Option<&mut Entry> {
        self.slots
            .get_mut(at.slot as usize)
            .filter(|slot| slot.generation == at.generation)
            .map(|slot| &mut slot.entry)
    }

    fn connection(&mut self, at: At) -> Option<&mut Connection> {
        match self.entry(at) {
            Some(Entry::Connection(connection)) => Some(connection),
            Some(Entry::Newcomer(_)) | None => None,
        }
    }

    /// Notes that a connection has something to be written.
    fn mark(&mut self, at: At) {
        if let Some(connection) = self.connection(at)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(at);
        }
    }

    /// Ends a connection; what stood for it is told by [`take_gone`](Self::take_gone).
    fn close(&mut self, at: At, house: &Surroundings) {
        if let Some(mut connection) = self.take(at, house) {
            connection.part();
            self.gone.push(connection.tuple);
        } else if let Some(Entry::Newcomer(newcomer)) = self.entry(at) {
            house.unwatch(&newcomer.stream);
            let transport = newcomer.transport();
            self.uncount(transport);
            self.slots.remove(at.slot as usize);
        }
    }

    /// Takes a connection out, to be something else.
    pub(crate) fn take(&mut self, at: At, house: &Surroundings) -> Option<Connection> {
        self.connection(at)?;
        let slot = self.slots.try_remove(at.slot as usize)?;
        let Entry::Connection(connection) = slot.entry else {
            return None;
        };
        house.unwatch(connection.stream());
        if self.by_tuple.get(&connection.tuple) == Some(&at) {
            self.by_tuple.remove(&connection.tuple);
        }
        self.uncount(connection.tuple.listener.transport());
        Some(*connection)
    }

    /// Ends every connection, because the worker stops.
    pub(crate) fn close_all(&mut self, house: &Surroundings) {
        let all: Vec<At> = self.all().collect();
        for at in all {
            self.close(at, house);
        }
    }

    fn all(&self) -> impl Iterator<Item = At> + '_ {
        self.slots.iter().filter_map(|(slot, entry)| {
            Some(At {
                slot: u32::try_from(slot).ok()?,
                generation: entry.generation,
            })
        })
    }
}

impl Entry {
    const fn stream(&self) -> &TcpStream {
        match self {
            Self::Newcomer(newcomer) => &newcomer.stream,
            Self::Connection(connection) => connection.stream(),
        }
    }

    const fn transport(&self) -> Transport {
        match self {
            Self::Newcomer(newcomer) => newcomer.transport(),
            Self::Connection(connection) => connection.tuple.listener.transport(),
        }
    }
}
