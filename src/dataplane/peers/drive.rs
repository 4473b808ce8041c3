//! The worker's dealings with peers' TCP connections: news of them into the server, and what that
//! says into them.

use std::ops::Range;

use crate::dataplane::peers::splice::Counted;
use crate::dataplane::peers::{End, News};
use crate::dataplane::shared::Command;
use crate::dataplane::stream::connection::Connection;
use crate::dataplane::stream::{At, Worth};
use crate::dataplane::sys::TcpStream;
use crate::dataplane::worker::Worker;
use crate::proto::ConnectionId;
use crate::turn::stats::DropReason;
use crate::turn::{AllocationId, Clock, FiveTuple, PeerAddr, RelayedAddr, Tick, WorkerId};

/// Connections accepted at one relayed address in one turn.
const ACCEPTS: usize = 16;

impl Worker {
    /// Looks at a peer's socket, or at one that is spliced to a peer's.
    pub(in crate::dataplane) fn meet_peer(&mut self, at: At, clock: Clock) {
        let counters = &self.counters;
        let (peers, poller) = self.server.environment_mut().peers();
        match peers.look(at, poller, counters, clock.now) {
            News::Nothing => {}
            News::Arrivals(id) => self.accept_peers(at, id, clock.now),
            News::Connected(connection) => self.server.handle_connected(connection, clock.now),
            News::Failed(connection) => self.server.handle_connect_failed(connection),
            News::Ended(connection) => self.server.handle_connection_closed(connection),
        }
    }

    fn accept_peers(&mut self, at: At, id: AllocationId, now: Tick) {
        for _ in 0..ACCEPTS {
            let (peers, poller) = self.server.environment_mut().peers();
            let Some((stream, from)) = peers.accept(at, poller) else {
                return;
            };
            // RFC 6062 §5.3: without a permission it is closed immediately.
            if let Ok(connection) = self.server.handle_accepted(id, PeerAddr::new(from), now) {
                let (peers, _) = self.server.environment_mut().peers();
                peers.keep(connection, stream);
            }
        }
    }

    /// One end of a pair came from the worker of `sender`.
    pub(in crate::dataplane) fn link(
        &mut self,
        target: RelayedAddr,
        sender: RelayedAddr,
        stream: TcpStream,
        now: Tick,
    ) {
        let has_room = self.server.environment().peers.has_room();
        if has_room && let Ok(connection) = self.server.handle_linked(target, sender, now) {
            let (peers, _) = self.server.environment_mut().peers();
            peers.keep(connection, stream);
        }
    }

    /// What follows on the client's connection `at` belongs to `connection`, from `rest` of slot
    /// `index` on.
    pub(in crate::dataplane) fn splice(
        &mut self,
        at: At,
        connection: ConnectionId,
        index: usize,
        rest: Range<usize>,
        now: Tick,
    ) {
        let house = self.server.environment();
        let client = self.connected.streams.take(at, house);
        let account = self.server.account(connection);
        let (Some(client), Some(account)) = (client, account) else {
            self.end_connection(connection);
            return;
        };
        let counted = Counted::new(&self.counters, client.tuple.listener.transport());
        let (stream, layer, unsent) = client.into_raw();
        let client = End::new(stream, layer, Some(counted));
        client.stream().bear_slow_readers().ok();
        let rest = self.incoming.bytes(index, rest).unwrap_or_default();
        if !rest.is_empty() {
            account.from_client(rest.len(), now, &self.counters);
        }
        let waiting = [rest.to_vec(), unsent];
        let counters = &self.counters;
        let (peers, poller) = self.server.environment_mut().peers();
        let news = match peers.splice(connection, client, account, waiting, now) {
            Some(at) => peers.carry(at, poller, counters, now),
            None => News::Ended(connection),
        };
        if let News::Ended(connection) = news {
            self.end_connection(connection);
        }
    }

    fn end_connection(&mut self, connection: ConnectionId) {
        let (peers, poller) = self.server.environment_mut().peers();
        peers.close(connection, poller);
        self.server.handle_connection_closed(connection);
    }

    /// Gives a client's connection to another worker, which reads on from `rest` of slot `index`.
    pub(in crate::dataplane) fn hand_connection_over(
        &mut self,
        at: At,
        worker: WorkerId,
        index: usize,
        rest: Range<usize>,
    ) {
        let house = self.server.environment();
        let Some(connection) = self.connected.streams.take(at, house) else {
            return;
        };
        let rest = self.incoming.bytes(index, rest).unwrap_or_default();
        let command = Command::HandedOver(Box::new((connection, rest.to_vec())));
        let mailbox = self.shared.mailboxes.get(usize::from(worker.0));
        if !mailbox.is_some_and(|mailbox| mailbox.leave(command)) {
            // It is closed, and its client tries again.
            self.counters.dropped(DropReason::QueueFull, 1);
        }
    }

    /// Takes a connection from another worker.
    pub(in crate::dataplane) fn take_over(
        &mut self,
        (connection, rest): (Connection, Vec<u8>),
        clock: Clock,
    ) {
        let (id, streams) = (self.id, self.shared.stream_workers);
        let tuple = FiveTuple {
            listener: streams.listener_of(connection.tuple.listener, id),
            ..connection.tuple
        };
        let house = self.server.environment();
        let (streams, now) = (&mut self.connected.streams, clock.now);
        if let Some(at) = streams.adopt(connection, tuple, rest, house, now) {
            self.read_connection(at, clock);
        }
    }

    /// Sends what the server has to say besides answers; whether that was anything.
    pub(in crate::dataplane) fn tell_clients(&mut self, now: Tick) -> bool {
        let (peers, _) = self.server.environment_mut().peers();
        for connection in std::mem::take(&mut peers.linked) {
            self.server.handle_connected(connection, now);
        }
        let mut told = false;
        while let Some(message) = self.server.poll_message() {
            told = true;
            let parts = [&message.bytes[..], &[], &[]];
            self.connected.push(message.to, parts, Worth::Answer, now);
        }
        told
    }

    /// The rules changed, and with them how fast connections may be that are spliced.
    pub(in crate::dataplane) fn pace_connections_anew(&mut self, now: Tick) {
        for connection in self.server.environment().peers.spliced() {
            if let Some(account) = self.server.account(connection) {
                let (peers, _) = self.server.environment_mut().peers();
                peers.account_to(connection, account, now);
            }
        }
    }

    /// Moves on what was too fast, and ends what lingers, if it is time to look.
    pub(in crate::dataplane) fn sweep_peers(&mut self, now: Tick) {
        let counters = &self.counters;
        let (peers, poller) = self.server.environment_mut().peers();
        let mut ended = peers.go_on(poller, counters, now);
        ended.extend(peers.sweep(poller, now));
        for connection in ended {
            self.server.handle_connection_closed(connection);
        }
    }
}
