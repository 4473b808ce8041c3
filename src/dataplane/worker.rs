//! A UDP worker: one pinned thread with a bare epoll loop around one [`Server`], its own socket of
//! every listener, and the relay sockets of the allocations it owns.
//!
//! A turn of the loop, in this order: (1) what is ready, be it commands from other threads or
//! datagrams at listeners and relay sockets, each socket drained in batches up to a budget, so that
//! none starves the others; (2) deadlines; (3) what happened, for the journal. A packet is received
//! into a slot, framed in place, and sent from there: no lock, no allocation, no hop and no log
//! line.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::dataplane::connected::Connected;
use crate::dataplane::journal::{Journal, Retiring};
use crate::dataplane::outgoing::Outgoing;
use crate::dataplane::shared::{Command, Notice, Shared};
use crate::dataplane::source::Source;
use crate::dataplane::stream::{At, Worth};
use crate::dataplane::surroundings::Surroundings;
use crate::dataplane::sys::{
    self, Ecn, HEADROOM, IcmpError, Packet, RecvBatch, TAILROOM, UdpSocket, Waker,
};
use crate::proto::{ConnectionId, Icmp, MAX_STREAM_MESSAGE};
use crate::turn::stats::{Counters, DropReason};
use crate::turn::{
    AllocationId, ClientAddr, Clock, FiveTuple, Forward, Handled, Head, ListenerId, PeerAddr,
    Server, Target, Tick, Transport, WorkerId,
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
const ZEROS: [u8; 4] = [0; 4];
/// How long a worker sleeps while somebody may still hold what it withdrew.
const RETIRE: Duration = Duration::from_millis(5);

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
    outgoing: Outgoing,
    pub(super) connected: Connected,
    pub(super) incoming: RecvBatch,
    /// When this turn began, or the batch that is being filled.
    now: Tick,
    spare: Box<[u8]>,
    /// Room for the ICMP errors of one socket.
    errors: Vec<IcmpError>,
    mailbox: Receiver<Command>,
    waker: Waker,
    journal: Journal,
    retiring: Retiring,
}

/// By which socket a datagram came in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door {
    /// A client's.
    Client(FiveTuple),
    /// A peer's, at a relay socket of this allocation.
    Relay(AllocationId, PeerAddr),
}

/// A socket that is drained.
#[derive(Debug, Clone, Copy)]
enum Socket {
    Listener(ListenerId),
    /// Of this allocation.
    Relay(AllocationId),
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
            self.counters.turns.add(1);
            self.counters
                .busy
                .add(now.nanos().saturating_sub(clock.now.nanos()));
            self.retiring.release(&self.shared.turns, &self.journal);
            if course == Course::Stop {
                self.retiring.release_all(&self.journal);
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
                Command::Reconfigure(config) => self.server.reconfigure(config, clock.now),
                Command::Stop => {
                    self.connected.close_all(self.server.environment());
                    self.server.stop(clock.now);
                    return Course::Stop;
                }
            }
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

    pub(super) fn handle_segment(
        &mut self,
        segment: Segment,
        door: Door,
        ecn: Ecn,
        clock: Clock,
    ) -> Next {
        let (slot, _) = self.incoming.slot(segment.index);
        let room = segment.room(slot.len());
        let offset = room.start;
        let datagram = segment.start - offset..segment.stop - offset;
        let Some(buf) = slot.get_mut(room) else {
            return Next::Message;
        };
        match door {
            Door::Client(tuple) => match self.server.handle_client(tuple, buf, datagram, clock) {
                Handled::Forward(forward) => self.forward(segment.index, offset, forward, ecn),
                Handled::Answer => self.answer(tuple),
                Handled::AnswerBy(by) => self.answer_by(by),
                Handled::Elsewhere(owner) => self.hand_over(owner, tuple, segment, ecn),
                Handled::Consumed | Handled::Dropped(_) => {}
                Handled::Spliced(connection) => {
                    self.answer(tuple);
                    return Next::Splice(connection);
                }
                Handled::HandOver(worker) => return Next::HandOver(worker),
            },
            Door::Relay(id, source) => {
                let handled = self
                    .server
                    .handle_peer(id, source, buf, datagram, clock.now);
                if let Handled::Forward(forward) = handled {
                    self.forward(segment.index, offset, forward, ecn);
                }
            }
        }
        Next::Message
    }

    /// A datagram whose 5-tuple another worker owns.
    fn hand_over(&self, owner: WorkerId, tuple: FiveTuple, segment: Segment, ecn: Ecn) {
        let range = segment.start..segment.stop;
        let bytes = self
            .incoming
            .bytes(segment.index, range)
            .unwrap_or_default();
        self.counters.misdirected.add(1);
        let command = Command::Datagram {
            tuple,
            bytes: bytes.into(),
            ecn,
        };
        let mailbox = self.shared.mailboxes.get(usize::from(owner.0));
        if !mailbox.is_some_and(|mailbox| mailbox.leave(command)) {
            self.counters.dropped(DropReason::QueueFull, 1);
        }
    }

    /// A packet in slot `index` of the batch goes on, with the others that leave by its socket;
    /// `offset` is where in the slot the buffer began that it was handled in.
    fn forward(&mut self, index: usize, offset: usize, forward: Forward, ecn: Ecn) {
        let packet = Packet {
            head: match forward.head {
                Head::InPlace => &[],
                Head::Aside => self.server.head(),
            },
            slot: index,
            range: forward.range.start + offset..forward.range.end + offset,
            padding: forward.padding,
        };
        if let Some(tuple) = connected(forward.to) {
            let payload = self.incoming.bytes(packet.slot, packet.range);
            let padding = ZEROS.get(..packet.padding).unwrap_or_default();
            let parts = [packet.head, payload.unwrap_or_default(), padding];
            self.connected.push(tuple, parts, Worth::Packet, self.now);
            return;
        }
        let relays = self.server.environment();
        self.outgoing
            .push(&packet, forward.to, ecn, &self.incoming, relays);
    }

    /// The answer leaves in its turn with what else leaves by the listener.
    fn answer(&mut self, tuple: FiveTuple) {
        if tuple.listener.transport() != Transport::Udp {
            let parts = [self.server.answer(), &[], &[]];
            self.connected.push(tuple, parts, Worth::Answer, self.now);
            return;
        }
        let packet = Packet {
            head: self.server.answer(),
            ..Packet::default()
        };
        let (to, relays) = (Target::Client(tuple), self.server.environment());
        self.outgoing
            .push(&packet, to, Ecn::NotEct, &self.incoming, relays);
    }

    /// The answer leaves by itself, and at once: it may be longer than a batch takes.
    fn answer_by(&self, tuple: FiveTuple) {
        let parts = [self.server.answer(), &[], &[]];
        let (to, relays) = (Target::Client(tuple), self.server.environment());
        self.outgoing.send(parts, to, Ecn::NotEct, relays);
    }

    /// A datagram that reached another worker. It may not be handed on a second time.
    fn handle_misdirected(&mut self, tuple: FiveTuple, bytes: &[u8], ecn: Ecn, clock: Clock) {
        let range = HEADROOM..HEADROOM + bytes.len();
        let Some(place) = self.spare.get_mut(range.clone()) else {
            return;
        };
        place.copy_from_slice(bytes);
        let handled = self
            .server
            .handle_client(tuple, &mut self.spare, range, clock);
        // Counted before it is seen.
        self.server.settle();
        match handled {
            Handled::Forward(forward) => {
                let head = match forward.head {
                    Head::InPlace => &[],
                    Head::Aside => self.server.head(),
                };
                let bytes = self.spare.get(forward.range).unwrap_or_default();
                let padding = ZEROS.get(..forward.padding).unwrap_or_default();
                let parts = [head, bytes, padding];
                match connected(forward.to) {
                    Some(tuple) => self.connected.push(tuple, parts, Worth::Packet, clock.now),
                    None => {
                        let relays = self.server.environment();
                        self.outgoing.send(parts, forward.to, ecn, relays);
                    }
                }
            }
            Handled::Answer => self.answer(tuple),
            Handled::AnswerBy(by) => self.answer_by(by),
            Handled::Elsewhere(_) => self.counters.dropped(DropReason::NoAllocation, 1),
            Handled::Consumed
            | Handled::Dropped(_)
            | Handled::Spliced(_)
            | Handled::HandOver(_) => {}
        }
    }
}

/// The client that a packet goes to, if it is not on plain UDP.
const fn connected(to: Target) -> Option<FiveTuple> {
    match to {
        Target::Client(tuple) if !matches!(tuple.listener.transport(), Transport::Udp) => {
            Some(tuple)
        }
        Target::Client(_) | Target::Peer { .. } => None,
    }
}

/// What follows on the connection that a message came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// More messages.
    Message,
    /// Data of a peer data connection.
    Splice(ConnectionId),
    /// The same message, for another worker.
    HandOver(WorkerId),
}

/// Bytes `start..stop` of slot `index`, whose last used byte is in front of `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) index: usize,
    pub(super) start: usize,
    pub(super) stop: usize,
    pub(super) end: usize,
}

impl Segment {
    /// What of a slot of `len` bytes belongs to this datagram: with the headroom if it is the
    /// first, with the tailroom if it is the last.
    const fn room(&self, len: usize) -> Range<usize> {
        let start = if self.start == HEADROOM {
            0
        } else {
            self.start
        };
        let stop = if self.stop == self.end {
            len
        } else {
            self.stop
        };
        start..stop
    }
}

fn tick() -> Tick {
    Tick::from_nanos(sys::monotonic_nanos())
}
