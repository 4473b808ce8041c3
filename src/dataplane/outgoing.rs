//! The way out of a worker: one batch for each listener, in which what leaves for all its clients
//! goes with one system call, and one batch for all relay sockets.
//!
//! Between two relayed addresses of this server everything leaves by a listener. By a relay socket
//! leaves what goes to a peer, and since each allocation has a socket of its own, a batch for many
//! peers is as many system calls. io_uring could join them; what that gains was measured with
//! `benches/peers` and stands in `docs/performance.md`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::dataplane::surroundings::Surroundings;
use crate::dataplane::sys::{
    Ecn, Packet, RecvBatch, SendBatch, Sent, UdpSocket, send_parts, send_to_dont_fragment,
};
use crate::turn::stats::{Counters, DropReason};
use crate::turn::{Fragmentation, ListenerId, RelayedAddr, Target};

/// A worker's own socket of a listener, and what waits to leave by it.
#[derive(Debug)]
struct Listener {
    socket: UdpSocket,
    batch: SendBatch<()>,
}

/// What waits to leave.
#[derive(Debug)]
pub(crate) struct Outgoing {
    listeners: Vec<Listener>,
    to_peers: SendBatch<RelayedAddr>,
    capacity: usize,
    counters: Arc<Counters>,
}

impl Outgoing {
    /// No listener yet; batches of `capacity` messages.
    pub(crate) fn new(capacity: usize, counters: Arc<Counters>) -> Self {
        Self {
            listeners: Vec::new(),
            to_peers: SendBatch::new(capacity),
            capacity,
            counters,
        }
    }

    /// Takes up the socket of the next [`ListenerId`].
    pub(crate) fn listen(&mut self, socket: UdpSocket) {
        self.listeners.push(Listener {
            socket,
            batch: SendBatch::new(self.capacity),
        });
    }

    /// Marks what leaves by listeners with this DSCP from now on.
    pub(crate) fn mark(&mut self, dscp: u8) {
        for listener in &mut self.listeners {
            listener.socket.mark(dscp);
        }
    }

    /// How many listeners there are.
    pub(crate) const fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// The socket of a listener.
    pub(crate) fn listener(&self, id: ListenerId) -> Option<&UdpSocket> {
        self.listeners
            .get(usize::from(id.0))
            .map(|listener| &listener.socket)
    }

    /// Adds a packet whose payload lies in `incoming`, where it must stay until the flush.
    pub(crate) fn push(
        &mut self,
        packet: &Packet<'_>,
        to: Target,
        ecn: Ecn,
        incoming: &RecvBatch,
        relays: &Surroundings,
    ) {
        match to {
            Target::Client(tuple) => {
                let Some(listener) = self.listeners.get_mut(usize::from(tuple.listener.0)) else {
                    self.counters.dropped(DropReason::SendRefused, 1);
                    return;
                };
                if listener.batch.is_full() {
                    listener.flush(incoming, &self.counters);
                }
                let Some(to) = relays.way_to(tuple.client) else {
                    self.counters.dropped(DropReason::SendRefused, 1);
                    return;
                };
                listener.batch.push(incoming, packet, (), to, ecn);
            }
            Target::Peer {
                from,
                to,
                fragmentation: Fragmentation::Allowed,
            } => {
                if self.to_peers.is_full() {
                    self.flush_to_peers(incoming, relays);
                }
                self.to_peers.push(incoming, packet, from, to.expose(), ecn);
            }
            Target::Peer {
                fragmentation: Fragmentation::Forbidden,
                ..
            } => {
                // DF is an option of the socket, so that what came before leaves first.
                self.flush_to_peers(incoming, relays);
                let payload = incoming.bytes(packet.slot, packet.range.clone());
                let parts = [packet.head, payload.unwrap_or_default(), &[]];
                self.send(parts, to, ecn, relays);
            }
        }
    }

    /// Sends one datagram by itself, at once.
    pub(crate) fn send(&self, parts: [&[u8]; 3], to: Target, ecn: Ecn, relays: &Surroundings) {
        let sent = match to {
            Target::Client(tuple) => self
                .listener(tuple.listener)
                .zip(relays.way_to(tuple.client))
                .map(|(socket, to)| send_parts(socket, parts, to, ecn)),
            Target::Peer {
                from,
                to,
                fragmentation,
            } => relays.relay(from).map(|socket| match fragmentation {
                Fragmentation::Allowed => send_parts(socket, parts, to.expose(), ecn),
                Fragmentation::Forbidden => {
                    send_to_dont_fragment(socket, parts[1], to.expose(), ecn)
                }
            }),
        };
        if matches!(sent, Some(Ok(_))) {
            self.counters.calls.sent_one();
        } else {
            self.counters.dropped(DropReason::SendRefused, 1);
        }
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self, incoming: &RecvBatch, relays: &Surroundings) {
        for listener in self.listeners.iter_mut().filter(|l| !l.batch.is_empty()) {
            listener.flush(incoming, &self.counters);
        }
        if !self.to_peers.is_empty() {
            self.flush_to_peers(incoming, relays);
        }
    }

    fn flush_to_peers(&mut self, incoming: &RecvBatch, relays: &Surroundings) {
        let sent = self.to_peers.flush(incoming, |from| relays.relay(from));
        count(&sent, self.to_peers.has_given_up_runs(), &self.counters);
    }
}

impl Listener {
    fn flush(&mut self, incoming: &RecvBatch, counters: &Counters) {
        let socket = &self.socket;
        let sent = self.batch.flush(incoming, |()| Some(socket));
        count(&sent, self.batch.has_given_up_runs(), counters);
    }
}

fn count(sent: &Sent, has_given_up_runs: bool, counters: &Counters) {
    let calls = &counters.calls;
    calls.send.add(sent.calls);
    calls.sent.add(sent.packets);
    calls.sent_in_runs.add(sent.in_runs);
    calls
        .runs_given_up
        .store(has_given_up_runs.into(), Ordering::Relaxed);
    let refused = sent.refused.total();
    if refused > 0 {
        counters.dropped(DropReason::SendRefused, refused);
    }
}
