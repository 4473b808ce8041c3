//! The worker's dealings with connections: messages out of them into the server, packets and
//! responses of the server into them.

use crate::dataplane::delivery::{Door, Next, Segment};
use crate::dataplane::stream::connection::Taken;
use crate::dataplane::stream::{At, Streams, Worth};
use crate::dataplane::surroundings::Surroundings;
use crate::dataplane::sys::{Ecn, HEADROOM};
use crate::dataplane::worker::{BUDGET, Course, Worker};
use crate::proto::{Border, MAX_STREAM_MESSAGE, next_border};
use crate::turn::stats::DropReason;
use crate::turn::{Clock, FiveTuple, Tick};

/// The longest message of a client without an allocation. What a request claims to be its length
/// is the sender's word: the request line of HTTP claims some 20 KiB of ChannelData.
const STRANGERS_MESSAGE: usize = 2_048;

impl Worker {
    /// Takes connections that wait.
    pub(in crate::dataplane) fn accept(&mut self, acceptor: u16, turn: Clock) {
        let (server, streams) = (&self.server, &mut self.connected.streams);
        streams.accept(acceptor, server.environment(), turn.now);
        streams.make_room(server.environment(), |tuple| server.has_allocation(tuple));
        // What came with the first bytes is reported by nobody again.
        while let Some(at) = self.connected.streams.fresh.pop() {
            self.read_connection(at, turn);
        }
        self.forget_gone(turn.now);
    }

    /// Takes what came by a connection, up to a budget; what is left is reported again.
    pub(in crate::dataplane) fn read_connection(&mut self, at: At, turn: Clock) {
        if self.connected.streams.connection(at).is_none() {
            let house = self.server.environment();
            self.connected.streams.get_to_know(at, house, turn.now);
            // It may stand where another stood, whose allocation is not its own.
            self.forget_gone(turn.now);
        }
        let mut may_hold_more = true;
        for round in 0..BUDGET {
            let clock = self.begin_batch(turn);
            let Some(connection) = self.connected.streams.connection(at) else {
                break;
            };
            let tuple = connection.tuple;
            if connection.delayed {
                return;
            }
            if connection.is_opening() && !self.connected.streams.may_open() {
                // What was read already nobody reports again.
                self.connected.streams.delay(at);
                return;
            }
            let Some(connection) = self.connected.streams.connection(at) else {
                break;
            };
            let taken = match connection.begun {
                // What came with the first byte waits for nothing more.
                None if round == 0 => match connection.read_kept(&mut self.incoming) {
                    Taken::Nothing => connection.read(&mut self.incoming),
                    taken @ (Taken::Slot { .. } | Taken::Closed) => taken,
                },
                _ => connection.read(&mut self.incoming),
            };
            let (course, more) = match taken {
                Taken::Slot { index, len, more } => {
                    (self.take_apart(at, tuple, index, len, clock), more)
                }
                Taken::Nothing => (Course::Run, false),
                Taken::Closed => (Course::Stop, false),
            };
            may_hold_more = more;
            if course == Course::Stop {
                self.connected.streams.close(at, self.server.environment());
            }
            if !more || course == Course::Stop {
                break;
            }
        }
        if may_hold_more
            && let Some(connection) = self.connected.streams.connection(at)
            && connection.has_decrypted()
        {
            self.connected.streams.delay(at);
        }
        // TLS may have something to say, and a socket that was full may have room.
        self.connected.streams.mark(at);
        self.forget_gone(turn.now);
    }

    /// Another turn of the loop: handshakes that had to wait go on.
    pub(in crate::dataplane) fn begin_turn(&mut self, turn: Clock) {
        for at in self.connected.streams.begin_turn() {
            self.read_connection(at, turn);
        }
    }

    /// The messages in slot `index`; stops where the borders are lost.
    fn take_apart(
        &mut self,
        at: At,
        tuple: FiveTuple,
        index: usize,
        len: usize,
        clock: Clock,
    ) -> Course {
        let channels = self.server.channels();
        let end = HEADROOM + len;
        let mut start = HEADROOM;
        let mut is_whole = false;
        while start < end {
            let rest = self.incoming.bytes(index, start..end).unwrap_or_default();
            match next_border(rest, channels) {
                Border::Whole { len, padded, .. } => {
                    let segment = Segment {
                        index,
                        start,
                        stop: start + len,
                        end,
                    };
                    self.counters.datagrams.add(1);
                    let next =
                        self.handle_segment(segment, Door::Client(tuple), Ecn::NotEct, clock);
                    match next {
                        Next::Message => {}
                        Next::Splice(connection) => {
                            let rest = start + padded..end;
                            self.splice(at, connection, index, rest, clock.now);
                            return Course::Run;
                        }
                        Next::HandOver(worker) => {
                            self.hand_connection_over(at, worker, index, start..end);
                            return Course::Run;
                        }
                    }
                    start += padded;
                    is_whole = true;
                }
                Border::NeedMore { at_least } => {
                    let longest = if self.server.has_allocation(tuple) {
                        MAX_STREAM_MESSAGE
                    } else {
                        STRANGERS_MESSAGE
                    };
                    if at_least > longest {
                        return self.lose_borders();
                    }
                    if let Some(connection) = self.connected.streams.connection(at) {
                        if is_whole {
                            connection.progressed(clock.now);
                        }
                        connection.keep(rest, clock.now);
                    }
                    return Course::Run;
                }
                Border::Invalid => return self.lose_borders(),
            }
        }
        if let Some(connection) = self.connected.streams.connection(at) {
            connection.progressed(clock.now);
        }
        Course::Run
    }

    fn lose_borders(&self) -> Course {
        self.counters.dropped(DropReason::Malformed, 1);
        Course::Stop
    }

    /// Takes what came from DTLS clients, up to a budget; what is left is reported again.
    pub(in crate::dataplane) fn drain_dtls(&mut self, index: u16, turn: Clock) {
        for _ in 0..BUDGET {
            let slots = self.connected.sessions.fill(index);
            if slots.is_empty() {
                break;
            }
            for slot in slots {
                for datagram in self.connected.sessions.datagrams(slot) {
                    self.counters.datagrams.add(1);
                    let sessions = &mut self.connected.sessions;
                    if let Some(tuple) = sessions.receive(index, slot, datagram, turn.now) {
                        self.read_session(index, tuple, turn);
                    }
                    self.forget_gone(turn.now);
                }
            }
        }
        self.connected.sessions.count();
    }

    /// The messages of the datagram that came last.
    fn read_session(&mut self, index: u16, tuple: FiveTuple, turn: Clock) {
        loop {
            let clock = self.begin_batch(turn);
            let sessions = &mut self.connected.sessions;
            let read = |room: &mut [u8]| Ok(sessions.read(index, room).unwrap_or(0));
            let Ok((slot, len @ 1..)) = self.incoming.stage(read) else {
                return;
            };
            let end = HEADROOM + len;
            let segment = Segment {
                index: slot,
                start: HEADROOM,
                stop: end,
                end,
            };
            self.handle_segment(segment, Door::Client(tuple), Ecn::NotEct, clock);
        }
    }

    /// Looks at deadlines, if it is time.
    pub(in crate::dataplane) fn sweep_clients(&mut self, now: Tick) {
        let (server, connected) = (&self.server, &mut self.connected);
        let is_known = |tuple| server.has_allocation(tuple);
        if connected.streams.is_due(now) {
            connected.streams.sweep(server.environment(), now, is_known);
        }
        if connected
            .sessions
            .poll_timeout()
            .is_some_and(|at| at <= now)
        {
            connected.sessions.handle_timeout(now, is_known);
            connected.sessions.count();
        }
        self.forget_gone(now);
    }

    /// Tells the server whose connection is gone.
    fn forget_gone(&mut self, now: Tick) {
        while let Some(tuple) = self.connected.take_gone() {
            self.server.handle_disconnected(tuple, now);
        }
    }
}

impl Streams {
    /// Whose connection is gone, one by one.
    pub(crate) fn take_gone(&mut self) -> Option<FiveTuple> {
        self.gone.pop()
    }

    /// Adds a message to what waits for a client.
    pub(crate) fn push(&mut self, tuple: FiveTuple, parts: &[&[u8]], worth: Worth, now: Tick) {
        let Some(at) = self.by_tuple.get(&tuple).copied() else {
            // It has just gone.
            self.counters.dropped(DropReason::NoLanding, 1);
            return;
        };
        let Some(connection) = self.connection(at) else {
            return;
        };
        let pushed = connection.push(parts, worth, now);
        self.mark(at);
        if pushed.dropped > 0 {
            self.counters
                .dropped(DropReason::SlowReader, pushed.dropped);
        }
    }

    /// Writes to every connection that has something waiting.
    pub(crate) fn flush(&mut self, house: &Surroundings, now: Tick) {
        while let Some(at) = self.dirty.pop() {
            let Some(connection) = self.connection(at) else {
                continue;
            };
            connection.dirty = false;
            let late = connection.drop_stale(now);
            let flushed = connection.flush();
            let is_broken = connection.broken;
            if late > 0 {
                self.counters.dropped(DropReason::SlowReader, late);
            }
            let wanted = match flushed {
                Ok(interest) if !is_broken => interest,
                Ok(_) | Err(_) => {
                    self.close(at, house);
                    continue;
                }
            };
            let Some(connection) = self.connection(at) else {
                continue;
            };
            if wanted != connection.interest {
                connection.interest = wanted;
                house.rewatch(connection.stream(), at.source(), wanted);
            }
        }
    }
}
