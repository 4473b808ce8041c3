//! A worker: one thread with a bare epoll loop around one [`Server`] and the relay sockets of the
//! allocations it owns. A UDP worker is pinned and reads its own socket of every listener; a stream
//! worker has connections and DTLS sessions instead (`stream/drive.rs`).
//!
//! A turn of the loop, in this order: (1) what is ready, be it commands from other threads or
//! messages, each socket drained in batches up to a budget, so that none starves the others;
//! (2) deadlines; (3) what happened, for the journal. A packet is received into a slot, framed in
//! place, and sent from there (`delivery.rs`): no lock, no allocation, no hop and no log line.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::dataplane::connected::Connected;
use crate::dataplane::delivery::{Door, Segment};
use crate::dataplane::journal::{Journal, Retiring};
use crate::dataplane::outgoing::Outgoing;
use crate::dataplane::shared::{Command, Notice, Shared};
use crate::dataplane::source::Source;
use crate::dataplane::stream::At;
use crate::dataplane::surroundings::Surroundings;
use crate::dataplane::sys::{
    self, Ecn, HEADROOM, IcmpError, RecvBatch, TAILROOM, UdpSocket, Waker,
};
use crate::proto::{Icmp, MAX_STREAM_MESSAGE};
use crate::turn::revocation::Revoked;
use crate::turn::stats::{Counters, DropReason};
use crate::turn::{
    AllocationId, ClientAddr, Clock, FiveTuple, Handled, ListenerId, PeerAddr, Server, Tick,
    WorkerId,
};

/// Datagrams received at once.
const BATCH: usize = 32;
/// The longest message: of a stream, a little more than any datagram.
const LARGEST: usize = MAX_STREAM_MESSAGE;
/// From how many packets on the server looks ahead; fewer hardly wait for each other's memory.
const WORTH_LOOKING_AHEAD: usize = 4;
/// Batches taken from one socket in one turn.
pub(super) const BUDGET: usize = 4;
/// ICMP errors taken from one socket in one turn.
const ERRORS: usize = 16;
/// How long a worker sleeps while somebody may still hold what it withdrew.
const RETIRE: Duration = Duration::from_millis(5);
/// The same when nothing else is left to do.
const STOPPING: Duration = Duration::from_millis(1);

/// What a worker starts with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) id: WorkerId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) server: Server<Surroundings>,
    /// By which it sends to UDP clients.
    pub(crate) listeners: Vec<UdpSocket>,
    /// Whether it reads from them too.
    pub(crate) reads: Reads,
    pub(crate) connected: Connected,
    pub(crate) mailbox: Receiver<Command>,
    pub(crate) waker: Waker,
    pub(crate) journal: Journal,
}

/// From which of its sockets a worker reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A UDP worker's: its listeners, and the relay sockets of its allocations.
    Listeners,
    /// A stream worker's: its connections, and those relay sockets.
    Connections,
}

/// The worker itself.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) id: WorkerId,
    pub(super) shared: Arc<Shared>,
    pub(super) server: Server<Surroundings>,
    pub(super) counters: Arc<Counters>,
    reads: Reads,
    pub(super) outgoing: Outgoing,
    pub(super) connected: Connected,
    pub(super) incoming: RecvBatch,
    /// When this turn began, or the batch that is being filled.
    pub(super) now: Tick,
    pub(super) spare: Box<[u8]>,
    /// How many allocations had been made when the answer to the last was counted.
    pub(super) made: u64,
    /// Room for the ICMP errors of one socket.
    errors: Vec<IcmpError>,
    mailbox: Receiver<Command>,
    waker: Waker,
    journal: Journal,
    retiring: Retiring,
}

/// A socket that is drained.
#[derive(Debug, Clone, Copy)]
enum Socket {
    Listener(ListenerId),
    /// Of this allocation.
    Relay(AllocationId),
}

/// Whose allocations are to end, gathered from all commands that waited, so that the table is walked
/// once.
#[derive(Debug, Default)]
struct Ending {
    revoked: Vec<Revoked>,
    bans: bool,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    Run,
    Stop,
}

impl Worker {
    /// Watches the sockets; nothing is read yet.
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let server = parts.server;
        server.environment().watch_waker(&parts.waker)?;
        let counters = Arc::clone(server.counters());
        let mut worker = Self {
            id: parts.id,
            shared: parts.shared,
            server,
            reads: parts.reads,
            outgoing: Outgoing::new(BATCH, Arc::clone(&counters)),
            connected: parts.connected,
            counters,
            incoming: RecvBatch::new(BATCH, LARGEST),
            now: Tick::default(),
            spare: vec![0; HEADROOM + LARGEST + TAILROOM].into_boxed_slice(),
            made: 0,
            errors: Vec::with_capacity(ERRORS),
            mailbox: parts.mailbox,
            waker: parts.waker,
            journal: parts.journal,
            retiring: Retiring::default(),
        };
        for (place, socket) in (0..).zip(parts.listeners) {
            worker.listen(ListenerId(place), socket)?;
        }
        worker.connected.watch(worker.server.environment())?;
        for (listener, address) in worker.connected.listening() {
            worker.server.environment_mut().listens(listener, address);
        }
        Ok(worker)
    }

    /// What it counts.
    pub(crate) const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// When epoll itself fails, which no packet can cause.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mine = usize::from(self.id.0);
        let mut now = tick();
        loop {
            let timeout = self.timeout(now);
            let ready = self.server.environment_mut().wait(timeout)?;
            self.shared.turns.flip(mine);
            let clock = Clock {
                now: tick(),
                unix: sys::unix_seconds(),
            };
            let course = self.turn(ready, clock);
            self.shared.turns.flip(mine);
            now = tick();
            let lasted = now.since(clock.now);
            self.counters.turns.add(1);
            self.counters
                .busy
                .add(now.nanos().saturating_sub(clock.now.nanos()));
            self.counters.histograms.turns.observe_time(lasted);
            let lost = self.server.environment_mut().take_queue_drops();
            if lost > 0 {
                self.counters.calls.relay_queue_drops.add(lost);
            }
            self.retiring.release(&self.shared.turns, &self.journal);
            if course == Course::Stop {
                // No turn is long, and what others add in theirs counts too.
                while !self.retiring.is_empty() {
                    std::thread::sleep(STOPPING);
                    self.retiring.release(&self.shared.turns, &self.journal);
                }
                return Ok(());
            }
        }
    }

    fn timeout(&mut self, now: Tick) -> Option<Duration> {
        let waits_for_others =
            !self.retiring.is_empty() || !self.server.environment_mut().leave_notices();
        // Rounded up, so that the deadline has passed when the worker wakes.
        let deadlines = [
            self.server.poll_timeout(),
            self.connected.poll_timeout(),
            self.server.environment().peers.poll_timeout(),
        ];
        let next = deadlines
            .into_iter()
            .flatten()
            .min()
            .filter(|at| *at < Tick::from_nanos(u64::MAX))
            .map(|at| at.since(now) + Duration::from_millis(1));
        if waits_for_others {
            Some(next.map_or(RETIRE, |n| n.min(RETIRE)))
        } else {
            next
        }
    }

    fn turn(&mut self, mut ready: sys::Ready, clock: Clock) -> Course {
        let mut course = Course::Run;
        self.now = clock.now;
        self.begin_turn(clock);
        while let Some(token) = ready.next() {
            let source = Source::of(token);
            if ready.has_error() {
                self.hear_errors(source, clock.now);
            }
            match source {
                Source::Mailbox => course = self.read_mailbox(clock),
                source @ (Source::Listener(_) | Source::Relay { .. }) => self.drain(source, clock),
                Source::Acceptor(index) => self.accept(index, clock),
                Source::Connection { slot, generation } => {
                    self.read_connection(At { slot, generation }, clock);
                }
                Source::Peer { slot, generation } => {
                    self.meet_peer(At { slot, generation }, clock);
                }
                Source::Dtls(index) => self.drain_dtls(index, clock),
            }
        }
        self.tell_clients(clock.now);
        self.flush();
        self.sweep_clients(clock.now);
        self.sweep_peers(clock.now);
        if self.server.poll_timeout().is_some_and(|at| at <= clock.now) {
            self.server.handle_timeout(clock.now);
        }
        if self.tell_clients(clock.now) {
            self.connected.flush(self.server.environment(), self.now);
        }
        while let Some(event) = self.server.poll_event() {
            self.retiring.take(event, &self.shared.turns, &self.journal);
        }
        course
    }

    fn listen(&mut self, id: ListenerId, socket: UdpSocket) -> io::Result<()> {
        let address = socket.local_addr();
        self.server.environment_mut().listens(id, address);
        let watched = match self.reads {
            Reads::Listeners => {
                let house = self.server.environment();
                house.watch(&socket, Source::Listener(id.0))
            }
            Reads::Connections => Ok(()),
        };
        // It has its place even if it cannot be read from, so that those after it have theirs.
        self.outgoing.listen(socket);
        watched
    }

    fn read_mailbox(&mut self, clock: Clock) -> Course {
        self.waker.drain();
        if self.connected.drain(clock.now) {
            self.waker.wake();
        }
        let mut ending = Ending::default();
        while let Ok(command) = self.mailbox.try_recv() {
            match command {
                Command::Datagram { tuple, bytes, ecn } => {
                    self.handle_misdirected(tuple, &bytes, ecn, clock);
                }
                Command::Notice(Notice::Condemned(id)) => {
                    self.server.handle_condemned(id, clock.now);
                }
                Command::Notice(Notice::Disconnected(tuple)) => {
                    self.server.handle_disconnected(tuple, clock.now);
                }
                Command::Listen(id, socket) => {
                    if usize::from(id.0) == self.outgoing.listeners()
                        && let Err(error) = self.listen(id, *socket)
                    {
                        tracing::error!(%error, "a listener on a new address was not taken up");
                    }
                }
                Command::Linked {
                    target,
                    sender,
                    stream,
                } => self.link(target, sender, stream, clock.now),
                Command::HandedOver(connection) => self.take_over(*connection, clock),
                Command::Revoke(revoked) => ending.revoked.extend_from_slice(&revoked),
                Command::EnforceBans => ending.bans = true,
                Command::End(id) => self.server.end_by_name(id, clock.now),
                Command::Reconfigure(config) => {
                    self.server.reconfigure(config, clock);
                    self.pace_connections_anew(clock.now);
                }
                Command::Retune(tuning) => self.retune(&tuning),
                Command::Stop => {
                    self.connected.close_all(self.server.environment());
                    self.server.stop(clock.now);
                    return Course::Stop;
                }
            }
        }
        if !ending.revoked.is_empty() {
            self.server.revoke(&ending.revoked, clock.now);
        }
        if ending.bans {
            self.server.enforce_bans(clock);
        }
        Course::Run
    }

    /// Takes what waits at one socket, up to a budget. It goes on together with what came in by
    /// other sockets, when the batch is full or the turn ends.
    fn drain(&mut self, source: Source, turn: Clock) {
        for _ in 0..BUDGET {
            let clock = self.begin_batch(turn);
            let free = self.incoming.free();
            let (socket, door, limit) = match source {
                Source::Listener(place) => match self.outgoing.listener(ListenerId(place)) {
                    Some(socket) => (socket, Socket::Listener(ListenerId(place)), free),
                    None => return,
                },
                Source::Relay { slot, generation } => {
                    match self.server.environment().relay_at(slot, generation) {
                        Some(relay) => (
                            &relay.socket,
                            Socket::Relay(relay.id),
                            relay.expected.min(free),
                        ),
                        None => return,
                    }
                }
                Source::Mailbox
                | Source::Acceptor(_)
                | Source::Dtls(_)
                | Source::Peer { .. }
                | Source::Connection { .. } => return,
            };
            let Ok(received) = self.incoming.receive(socket, limit) else {
                return;
            };
            let count = received.len();
            self.counters.calls.took(count);
            if let Socket::Listener(listener) = door
                && count >= WORTH_LOOKING_AHEAD
            {
                let incoming = &self.incoming;
                let sources = received.clone().map(|index| incoming.source(index));
                self.server.look_ahead(sources.map(|source| FiveTuple {
                    client: ClientAddr::new(source),
                    listener,
                }));
            }
            for index in received {
                self.handle(index, door, clock);
            }
            if let Source::Relay { slot, .. } = source {
                let turn = self.counters.turns.total();
                self.server.environment_mut().found_at(slot, count, turn);
                // What is left is reported again.
                return;
            }
            if count < limit {
                return;
            }
        }
    }

    /// Makes room for another batch if there is none; the moment at which it is handled.
    pub(super) fn begin_batch(&mut self, turn: Clock) -> Clock {
        if self.incoming.free() == 0 {
            self.flush();
        }
        if self.incoming.free() == BATCH {
            // Anew for each batch, so that no deadline is passed by the length of a turn.
            self.now = tick();
        }
        Clock {
            now: self.now,
            ..turn
        }
    }

    /// ICMP errors at a relay socket; what is left is reported again.
    fn hear_errors(&mut self, source: Source, now: Tick) {
        let Source::Relay { slot, generation } = source else {
            return;
        };
        let Some(relay) = self.server.environment().relay_at(slot, generation) else {
            return;
        };
        let id = relay.id;
        sys::receive_errors(&relay.socket, ERRORS, &mut self.errors);
        let mut errors = std::mem::take(&mut self.errors);
        for error in errors.drain(..) {
            let icmp = Icmp {
                kind: error.kind,
                code: error.code,
                data: error.info.to_be_bytes(),
            };
            let peer = PeerAddr::new(error.to);
            if let Handled::Forward(forward) = self.server.handle_icmp(id, peer, icmp, now) {
                self.forward(0, 0, forward, Ecn::NotEct);
            }
        }
        self.errors = errors;
    }

    /// What was received goes on, and its slots are free.
    fn flush(&mut self) {
        self.server.settle();
        if self.incoming.free() < BATCH {
            let messages = BATCH - self.incoming.free();
            self.counters.histograms.batches.observe(messages as u64);
        }
        self.outgoing
            .flush(&self.incoming, self.server.environment());
        self.connected.flush(self.server.environment(), self.now);
        self.incoming.clear();
    }

    /// What is in slot `index` of the batch came in by `door`: a datagram, or several of one flow.
    fn handle(&mut self, index: usize, socket: Socket, clock: Clock) {
        let received = self.incoming.datagram(index);
        let mut door = match socket {
            Socket::Listener(listener) => Door::Client(FiveTuple {
                client: ClientAddr::new(received.source),
                listener,
            }),
            Socket::Relay(id) => Door::Relay(id, PeerAddr::new(received.source)),
        };
        let balancer = match socket {
            Socket::Listener(listener) if self.connected.trusts(received.source.ip()) => {
                Some(listener)
            }
            Socket::Listener(_) | Socket::Relay(_) => None,
        };
        if received.truncated {
            self.counters.dropped(DropReason::TooLarge, 1);
            return;
        }
        let end = HEADROOM + received.len;
        let mut start = HEADROOM;
        if received.segment < received.len {
            let datagrams = received.len.div_ceil(received.segment);
            self.counters.calls.took_merged(datagrams);
        }
        loop {
            let stop = end.min(start + received.segment);
            self.counters.datagrams.add(1);
            let mut begin = start;
            if let Some(listener) = balancer {
                let datagram = self.incoming.bytes(index, start..stop).unwrap_or_default();
                match self.connected.behind(received.source, datagram) {
                    Some((client, header)) => {
                        door = Door::Client(FiveTuple { client, listener });
                        begin += header;
                    }
                    None => begin = stop,
                }
            }
            if begin < stop || balancer.is_none() {
                let segment = Segment {
                    index,
                    start: begin,
                    stop,
                    end,
                };
                self.handle_segment(segment, door, received.ecn, clock);
            }
            start = stop;
            if start >= end {
                return;
            }
        }
    }
}

pub(super) fn tick() -> Tick {
    Tick::from_nanos(sys::monotonic_nanos())
}
