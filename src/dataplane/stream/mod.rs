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

pub(super) mod connection;
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
use newcomer::{Header, Known, Newcomer};

pub(crate) use newcomer::Spoken;
pub(crate) use queue::Worth;
pub(crate) use sessions::{DtlsSocket, Sessions};

/// Connections of one worker.
const CONNECTIONS_MAX: usize = 65_536;
/// Connections without an allocation; one more, and the oldest of them goes.
const STRANGERS_MAX: usize = 8_192;
/// For how long a connection may be opening: its PROXY header, its first byte, its TLS handshake.
const OPENING: Duration = Duration::from_secs(10);
/// For how long a message that has begun may take to be whole.
const MESSAGE: Duration = Duration::from_secs(10);
/// For how long a connection without an allocation may say nothing.
const IDLE: Duration = Duration::from_secs(60);
/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Connections accepted in one go.
const ACCEPTS: usize = 32;
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

    /// Whether it is time to look at deadlines.
    fn is_due(&self, now: Tick) -> bool {
        (self.paused || !self.slots.is_empty()) && self.next_sweep <= now
    }

    /// When deadlines are looked at next, if there are any.
    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        if !self.delayed.is_empty() {
            return Some(Tick::default());
        }
        (self.paused || !self.slots.is_empty()).then_some(self.next_sweep)
    }

    /// Takes connections that wait at an acceptor.
    fn accept(&mut self, index: u16, house: &Surroundings, now: Tick) {
        for _ in 0..ACCEPTS {
            let Some(acceptor) = self.acceptors.get(usize::from(index)) else {
                return;
            };
            match acceptor.socket.accept() {
                Ok((stream, from)) => {
                    let (place, spoken) = (acceptor.place, acceptor.spoken);
                    self.welcome(stream, from, place, spoken, house, now);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        tracing::warn!(%error, "connections wait: they cannot be accepted now");
                        self.pause(house);
                        self.next_sweep = now.plus(SWEEP);
                        return;
                    }
                    // That connection has failed before it was accepted.
                    _ => {}
                },
            }
        }
    }

    /// A connection that nobody takes is reported for ever.
    fn pause(&mut self, house: &Surroundings) {
        self.paused = true;
        for acceptor in &self.acceptors {
            house.unwatch(&acceptor.socket);
        }
    }

    fn resume(&mut self, house: &Surroundings) {
        self.paused = false;
        if let Err(error) = self.watch(house) {
            tracing::error!(%error, "connections are no longer accepted");
        }
    }

    fn welcome(
        &mut self,
        stream: TcpStream,
        from: SocketAddr,
        place: u16,
        spoken: Spoken,
        house: &Surroundings,
        now: Tick,
    ) {
        let over = self.counters.over(spoken.transport());
        if self.slots.len() >= CONNECTIONS_MAX {
            over.connections_refused.add(1);
            return;
        }
        let header = if self.trusts(from.ip()) {
            Header::Expected
        } else {
            Header::None
        };
        self.generation = (self.generation + 1) % Source::GENERATIONS;
        let entry = self.slots.vacant_entry();
        let Ok(slot) = u32::try_from(entry.key()) else {
            return;
        };
        let at = At {
            slot,
            generation: self.generation,
        };
        if let Err(error) = house.watch(&stream, at.source()) {
            tracing::debug!(%error, "a connection cannot be watched");
            return;
        }
        over.connections.fetch_add(1, Ordering::Relaxed);
        let newcomer = Newcomer::new(stream, place, from, header, spoken, now);
        entry.insert(Slot {
            generation: at.generation,
            entry: Entry::Newcomer(newcomer),
        });
        if self.slots.len() == 1 {
            self.next_sweep = now.plus(SWEEP);
        }
        self.strangers.push_back(at);
        self.fresh.push(at);
    }

    /// Looks at a newcomer; it becomes a connection, waits, or goes.
    fn get_to_know(&mut self, at: At, house: &Surroundings, now: Tick) {
        let Some(Entry::Newcomer(newcomer)) = self.entry(at) else {
            return;
        };
        match newcomer.look() {
            Known::NotYet => {}
            Known::Nobody => self.close(at, house),
            Known::All(client, transport, seen) => {
                let place = newcomer.place;
                let tuple = FiveTuple {
                    client,
                    listener: ListenerId::new(transport, place),
                };
                self.establish(at, tuple, seen, house, now);
            }
        }
    }

    fn establish(
        &mut self,
        at: At,
        tuple: FiveTuple,
        seen: Vec<u8>,
        house: &Surroundings,
        now: Tick,
    ) {
        // The client's port was used again before the end of its former connection was seen.
        if let Some(former) = self.by_tuple.get(&tuple).copied() {
            self.close(former, house);
        }
        let Some(Slot {
            entry: Entry::Newcomer(newcomer),
            ..
        }) = self.slots.try_remove(at.slot as usize)
        else {
            return;
        };
        let (before, after) = (newcomer.transport(), tuple.listener.transport());
        // Where both are spoken it was taken for plain at first.
        self.uncount(before);
        let over = self.counters.over(after);
        over.connections_total.add(1);
        over.connections.fetch_add(1, Ordering::Relaxed);
        let stream = newcomer.stream;
        let connection = match (tuple.listener.transport(), &self.rules.tls) {
            (Transport::Tls, Some(keys)) => {
                Connection::tls(stream, keys.server_config(), tuple, &seen, now)
            }
            _ => Ok(Connection::plain(stream, tuple, seen, now)),
        };
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "a TLS connection cannot begin");
                self.uncount(tuple.listener.transport());
                return;
            }
        };
        let entry = self.slots.vacant_entry();
        debug_assert_eq!(
            entry.key(),
            at.slot as usize,
            "a slot is used again at once"
        );
        entry.insert(Slot {
            generation: at.generation,
            entry: Entry::Connection(Box::new(connection)),
        });
        self.by_tuple.insert(tuple, at);
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
        if self.entry(at).is_none() {
            return;
        }
        let Some(slot) = self.slots.try_remove(at.slot as usize) else {
            return;
        };
        self.uncount(slot.entry.transport());
        match slot.entry {
            Entry::Newcomer(newcomer) => house.unwatch(&newcomer.stream),
            Entry::Connection(mut connection) => {
                house.unwatch(connection.stream());
                connection.part();
                if self.by_tuple.get(&connection.tuple) == Some(&at) {
                    self.by_tuple.remove(&connection.tuple);
                }
                self.gone.push(connection.tuple);
            }
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

    /// Takes in a connection of another worker's, of which `rest` has been read.
    pub(crate) fn adopt(
        &mut self,
        mut connection: Connection,
        tuple: FiveTuple,
        rest: Vec<u8>,
        house: &Surroundings,
        now: Tick,
    ) -> Option<At> {
        let transport = tuple.listener.transport();
        if self.slots.len() >= CONNECTIONS_MAX {
            self.counters.over(transport).connections_refused.add(1);
            return None;
        }
        if let Some(former) = self.by_tuple.get(&tuple).copied() {
            self.close(former, house);
        }
        self.generation = (self.generation + 1) % Source::GENERATIONS;
        let entry = self.slots.vacant_entry();
        let at = At {
            slot: u32::try_from(entry.key()).ok()?,
            generation: self.generation,
        };
        house.watch(connection.stream(), at.source()).ok()?;
        let over = self.counters.over(transport);
        over.connections.fetch_add(1, Ordering::Relaxed);
        connection.begin_anew(tuple, rest);
        entry.insert(Slot {
            generation: at.generation,
            entry: Entry::Connection(Box::new(connection)),
        });
        if self.slots.len() == 1 {
            self.next_sweep = now.plus(SWEEP);
        }
        self.by_tuple.insert(tuple, at);
        self.strangers.push_back(at);
        Some(at)
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

    /// Closes what has taken too long, at `now`; `is_known` says who has an allocation.
    fn sweep(&mut self, house: &Surroundings, now: Tick, is_known: impl Fn(FiveTuple) -> bool) {
        self.next_sweep = now.plus(SWEEP);
        let late: Vec<At> = self
            .all()
            .filter(|at| {
                let slot = self.slots.get(at.slot as usize);
                slot.is_some_and(|slot| slot.entry.is_late(now, &is_known))
            })
            .collect();
        for at in late {
            self.refuse(at, house);
        }
        self.strangers.retain(|at| {
            let slot = self.slots.get(at.slot as usize);
            slot.is_some_and(|slot| slot.generation == at.generation && !slot.is_known(&is_known))
        });
        for (_, slot) in &mut self.slots {
            if let Entry::Connection(connection) = &mut slot.entry {
                connection.rest();
            }
        }
        if self.paused {
            self.resume(house);
        }
    }

    /// One connection without an allocation too many: the oldest goes.
    fn make_room(&mut self, house: &Surroundings, is_known: impl Fn(FiveTuple) -> bool) {
        while self.strangers.len() > STRANGERS_MAX {
            let Some(at) = self.strangers.pop_front() else {
                return;
            };
            let slot = self.slots.get(at.slot as usize);
            if slot.is_some_and(|s| s.generation == at.generation && !s.is_known(&is_known)) {
                self.refuse(at, house);
            }
        }
    }

    /// Closes a connection whose client has no allocation.
    fn refuse(&mut self, at: At, house: &Surroundings) {
        if let Some(entry) = self.entry(at) {
            let transport = entry.transport();
            self.counters.over(transport).connections_refused.add(1);
        }
        self.close(at, house);
    }
}

impl Slot {
    fn is_known(&self, is_known: impl Fn(FiveTuple) -> bool) -> bool {
        match &self.entry {
            Entry::Newcomer(_) => false,
            Entry::Connection(connection) => is_known(connection.tuple),
        }
    }
}

impl Entry {
    const fn transport(&self) -> Transport {
        match self {
            Self::Newcomer(newcomer) => newcomer.transport(),
            Self::Connection(connection) => connection.tuple.listener.transport(),
        }
    }

    fn is_late(&self, now: Tick, is_known: impl Fn(FiveTuple) -> bool) -> bool {
        match self {
            Self::Newcomer(newcomer) => now.since(newcomer.since) > OPENING,
            Self::Connection(connection) => {
                let silence = now.since(connection.heard);
                let waits_for_rest = connection
                    .begun
                    .is_some_and(|begun| now.since(begun) > MESSAGE);
                waits_for_rest
                    || connection.is_opening() && silence > OPENING
                    || silence > IDLE && !is_known(connection.tuple)
            }
        }
    }
}
