//! What becomes of a message that reached a worker: the server says, and it goes on, is answered, or
//! is handed to the worker that owns its 5-tuple. Whether it came as a datagram, within a stream or
//! within DTLS is the same from here on.

use std::ops::Range;

use crate::dataplane::shared::Command;
use crate::dataplane::stream::Worth;
use crate::dataplane::sys::{Ecn, HEADROOM, Packet};
use crate::dataplane::worker::{Worker, tick};
use crate::proto::ConnectionId;
use crate::turn::stats::DropReason;
use crate::turn::{
    AllocationId, Clock, FiveTuple, Forward, Handled, Head, PeerAddr, Target, Transport, WorkerId,
};

const ZEROS: [u8; 4] = [0; 4];

/// By which socket a datagram came in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door {
    /// A client's.
    Client(FiveTuple),
    /// A peer's, at a relay socket of this allocation.
    Relay(AllocationId, PeerAddr),
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

impl Worker {
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
    pub(super) fn forward(&mut self, index: usize, offset: usize, forward: Forward, ecn: Ecn) {
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
        let made = self.counters.allocations_total.total();
        if made != self.made {
            self.made = made;
            let took = tick().since(self.now);
            self.counters.histograms.setups.observe_time(took);
        }
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
    pub(super) fn handle_misdirected(
        &mut self,
        tuple: FiveTuple,
        bytes: &[u8],
        ecn: Ecn,
        clock: Clock,
    ) {
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
