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

use crate::dataplane::journal::{Journal, Retiring};
use crate::dataplane::outgoing::Outgoing;
use crate::dataplane::shared::{Command, Shared};
use crate::dataplane::source::Source;
use crate::dataplane::surroundings::Surroundings;
use crate::dataplane::sys::{
    self, Ecn, HEADROOM, Packet, Received, RecvBatch, TAILROOM, UdpSocket, Waker,
};
use crate::turn::stats::{Counters, DropReason};
use crate::turn::{
    AllocationId, ClientAddr, Clock, FiveTuple, Forward, Handled, Head, ListenerId, PeerAddr,
    Server, Target, Tick, WorkerId,
};

/// Datagrams received at once.
const BATCH: usize = 32;
/// The largest datagram.
const LARGEST: usize = 65_535;
/// From how many packets on the server looks ahead; fewer hardly wait for each other's memory.
const WORTH_LOOKING_AHEAD: usize = 4;
/// Batches taken from one socket in one turn.
const BUDGET: usize = 4;
const ZEROS: [u8; 4] = [0; 4];
/// How long a worker sleeps while somebody may still hold what it withdrew.
const RETIRE: Duration = Duration::from_millis(5);

/// What a worker starts with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) id: WorkerId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) server: Server<Surroundings>,
    pub(crate) listeners: Vec<UdpSocket>,
    pub(crate) mailbox: Receiver<Command>,
    pub(crate) waker: Waker,
    pub(crate) journal: Journal,
}

/// The worker itself.
#[derive(Debug)]
pub(crate) struct Worker {
    id: WorkerId,
    shared: Arc<Shared>,
    server: Server<Surroundings>,
    counters: Arc<Counters>,
    outgoing: Outgoing,
    incoming: RecvBatch,
    /// When the batch that is being filled was begun.
    now: Tick,
    spare: Box<[u8]>,
    mailbox: Receiver<Command>,
    waker: Waker,
    journal: Journal,
    retiring: Retiring,
}

/// By which socket a datagram came in.
#[derive(Debug, Clone, Copy)]
enum Door {
    /// A client's, at a listener.
    Listener(ListenerId),
    /// A peer's, at a relay socket of this allocation.
    Relay(AllocationId),
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
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
            outgoing: Outgoing::new(BATCH, Arc::clone(&counters)),
            counters,
            incoming: RecvBatch::new(BATCH, LARGEST),
            now: Tick::default(),
            spare: vec![0; HEADROOM + LARGEST + TAILROOM].into_boxed_slice(),
            mailbox: parts.mailbox,
            waker: parts.waker,
            journal: parts.journal,
            retiring: Retiring::default(),
        };
        for (place, socket) in (0..).zip(parts.listeners) {
            worker.listen(ListenerId(place), socket)?;
        }
        Ok(worker)
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
        let next = self
            .server
            .poll_timeout()
            .filter(|at| *at < Tick::from_nanos(u64::MAX))
            .map(|at| at.since(now) + Duration::from_millis(1));
        if waits_for_others {
            Some(next.map_or(RETIRE, |n| n.min(RETIRE)))
        } else {
            next
        }
    }

    fn turn(&mut self, ready: sys::Ready, clock: Clock) -> Course {
        let mut course = Course::Run;
        for token in ready {
            match Source::of(token) {
                Source::Mailbox => course = self.read_mailbox(clock),
                source @ (Source::Listener(_) | Source::Relay { .. }) => self.drain(source, clock),
            }
        }
        self.flush();
        if self.server.poll_timeout().is_some_and(|at| at <= clock.now) {
            self.server.handle_timeout(clock.now);
        }
        while let Some(event) = self.server.poll_event() {
            self.retiring.take(event, &self.shared.turns, &self.journal);
        }
        course
    }

    fn listen(&mut self, id: ListenerId, socket: UdpSocket) -> io::Result<()> {
        let watched = self
            .server
            .environment()
            .watch(&socket, Source::Listener(id.0));
        // It has its place even if it cannot be read from, so that those after it have theirs.
        self.outgoing.listen(socket);
        watched
    }

    fn read_mailbox(&mut self, clock: Clock) -> Course {
        self.waker.drain();
        while let Ok(command) = self.mailbox.try_recv() {
            match command {
                Command::Datagram { tuple, bytes, ecn } => {
                    self.handle_misdirected(tuple, &bytes, ecn, clock);
                }
                Command::Condemned(id) => self.server.handle_condemned(id, clock.now),
                Command::Listen(id, socket) => {
                    if usize::from(id.0) == self.outgoing.listeners()
                        && let Err(error) = self.listen(id, *socket)
                    {
                        tracing::error!(%error, "a listener on a new address was not taken up");
                    }
                }
                Command::Reconfigure(config) => self.server.reconfigure(config, clock.now),
                Command::Stop => {
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
            if self.incoming.free() == 0 {
                self.flush();
            }
            if self.incoming.free() == BATCH {
                // Anew for each batch, so that no deadline is passed by the length of a turn.
                self.now = tick();
            }
            let clock = Clock {
                now: self.now,
                ..turn
            };
            let free = self.incoming.free();
            let (socket, door, limit) = match source {
                Source::Mailbox => return,
                Source::Listener(place) => match self.outgoing.listener(ListenerId(place)) {
                    Some(socket) => (socket, Door::Listener(ListenerId(place)), free),
                    None => return,
                },
                Source::Relay { slot, generation } => {
                    match self.server.environment().relay_at(slot, generation) {
                        Some(relay) => (
                            &relay.socket,
                            Door::Relay(relay.id),
                            relay.expected.min(free),
                        ),
                        None => return,
                    }
                }
            };
            let Ok(received) = self.incoming.receive(socket, limit) else {
                return;
            };
            let count = received.len();
            if let Door::Listener(listener) = door
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

    /// What was received goes on, and its slots are free.
    fn flush(&mut self) {
        self.server.settle();
        self.outgoing
            .flush(&self.incoming, self.server.environment());
        self.incoming.clear();
    }

    /// What is in slot `index` of the batch came in by `door`: a datagram, or several of one flow.
    fn handle(&mut self, index: usize, door: Door, clock: Clock) {
        let received = self.incoming.datagram(index);
        if received.truncated {
            self.counters.dropped(DropReason::TooLarge, 1);
            return;
        }
        let end = HEADROOM + received.len;
        let mut start = HEADROOM;
        loop {
            let stop = end.min(start + received.segment);
            self.counters.datagrams.add(1);
            self.handle_segment(
                Segment {
                    index,
                    start,
                    stop,
                    end,
                },
                &received,
                door,
                clock,
            );
            start = stop;
            if start >= end {
                return;
            }
        }
    }

    fn handle_segment(&mut self, segment: Segment, received: &Received, door: Door, clock: Clock) {
        let (slot, _) = self.incoming.slot(segment.index);
        let room = segment.room(slot.len());
        let offset = room.start;
        let datagram = segment.start - offset..segment.stop - offset;
        let Some(buf) = slot.get_mut(room) else {
            return;
        };
        match door {
            Door::Listener(listener) => {
                let client = ClientAddr::new(received.source);
                let tuple = FiveTuple { client, listener };
                match self.server.handle_client(tuple, buf, datagram, clock) {
                    Handled::Forward(forward) => {
                        self.forward(segment.index, offset, forward, received.ecn);
                    }
                    Handled::Answer => self.answer(tuple),
                    Handled::Elsewhere(owner) => {
                        self.hand_over(owner, tuple, segment, received.ecn)
                    }
                    Handled::Consumed | Handled::Dropped(_) => {}
                }
            }
            Door::Relay(id) => {
                let source = PeerAddr::new(received.source);
                let handled = self
                    .server
                    .handle_peer(id, source, buf, datagram, clock.now);
                if let Handled::Forward(forward) = handled {
                    self.forward(segment.index, offset, forward, received.ecn);
                }
            }
        }
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
        let relays = self.server.environment();
        self.outgoing
            .push(&packet, forward.to, ecn, &self.incoming, relays);
    }

    /// The answer leaves in its turn with what else leaves by the listener.
    fn answer(&mut self, tuple: FiveTuple) {
        let packet = Packet {
            head: self.server.answer(),
            ..Packet::default()
        };
        let (to, relays) = (Target::Client(tuple), self.server.environment());
        self.outgoing
            .push(&packet, to, Ecn::NotEct, &self.incoming, relays);
    }

    /// A datagram that reached another worker. It may not be handed on a second time.
    fn handle_misdirected(&mut self, tuple: FiveTuple, bytes: &[u8], ecn: Ecn, clock: Clock) {
        let range = HEADROOM..HEADROOM + bytes.len();
        let Some(place) = self.spare.get_mut(range.clone()) else {
            return;
        };
        place.copy_from_slice(bytes);
        match self
            .server
            .handle_client(tuple, &mut self.spare, range, clock)
        {
            Handled::Forward(forward) => {
                let head = match forward.head {
                    Head::InPlace => &[],
                    Head::Aside => self.server.head(),
                };
                let bytes = self.spare.get(forward.range).unwrap_or_default();
                let padding = ZEROS.get(..forward.padding).unwrap_or_default();
                let relays = self.server.environment();
                self.outgoing
                    .send([head, bytes, padding], forward.to, ecn, relays);
            }
            Handled::Answer => {
                let parts = [self.server.answer(), &[], &[]];
                let (to, relays) = (Target::Client(tuple), self.server.environment());
                self.outgoing.send(parts, to, Ecn::NotEct, relays);
            }
            Handled::Elsewhere(_) => self.counters.dropped(DropReason::NoAllocation, 1),
            Handled::Consumed | Handled::Dropped(_) => {}
        }
        self.server.settle();
    }
}

/// Bytes `start..stop` of slot `index`, whose last used byte is in front of `end`.
#[derive(Debug, Clone, Copy)]
struct Segment {
    index: usize,
    start: usize,
    stop: usize,
    end: usize,
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
