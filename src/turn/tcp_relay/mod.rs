//! TCP allocations (RFC 6062): Connect, ConnectionBind, ConnectionAttempt, and the peer data
//! connections between them. It owns who may be connected with whom, when, and how many at once;
//! the connections themselves, and the bytes in them, are the data plane's.
//!
//! The policy is that of every other peer, and it is asked before anything is sent. A relayed
//! address of this server is reached within the process, by a pair of sockets and both gates of a
//! hairpin: no port has to be open for it, and each side sees the other's relayed address only.
//!
//! A Connect is answered when its outcome is known, so its response is a [`ControlMessage`], as is
//! a ConnectionAttempt.

mod connections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::proto::{
    AddressFamily, AttributeType, Class, ConnectionId, ErrorCode, Full, Message, Method,
    TransactionId, Writer, XorPeerAddress,
};
use crate::turn::address::{FiveTuple, PeerAddr, RelayedAddr, WorkerId};
use crate::turn::allocation::Allocation;
use crate::turn::clock::{Deadline, Tick};
use crate::turn::create_permission::kind_of;
use crate::turn::environment::Environment;
use crate::turn::outcome::ControlMessage;
use crate::turn::rates::Rates;
use crate::turn::request::{Reject, Request, sign};
use crate::turn::route::{AllocationId, Landing, PeerKind, RelayProtocol, Sender, Standing};
use crate::turn::stats::{Counters, Direction, DropReason, Path, Volume};
use crate::turn::{Handled, Server};

pub(crate) use connections::Connections;
use connections::{Connection, Pending, State};

/// RFC 6062 §5.2: the timeout of a connection attempt is at least 30 seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// RFC 6062 §5.2 and §5.3: a peer data connection waits 30 seconds for its ConnectionBind.
const BIND_TIMEOUT: Duration = Duration::from_secs(30);
/// Peer data connections of one allocation at once, those that are being made included.
const MAX_CONNECTIONS: usize = 32;
/// The low bits of a CONNECTION-ID are drawn; those above say which worker has the connection.
const DRAWN_BITS: u32 = 20;
/// How often an id is drawn when it is taken. Of a million few ever are.
const DRAWS: usize = 16;
/// Room for a response to Connect or a ConnectionAttempt indication, the largest of which has 96
/// bytes.
const MESSAGE_LEN: usize = 160;

/// What a data connection is counted on, and for how long it may go on.
#[derive(Debug, Clone)]
pub struct DataAccount {
    standing: Arc<Standing>,
    relayed: RelayedAddr,
    path: Path,
    rates: Option<Arc<Rates>>,
}

impl DataAccount {
    /// When the allocation ends (RFC 6062 §5.5), and with it what flows.
    #[must_use]
    pub fn until(&self) -> &Deadline {
        &self.standing.until[usize::from(self.relayed.ip().is_ipv6())]
    }

    /// Whether `other` takes from the very same buckets.
    #[must_use]
    pub fn is_paced_as(&self, other: &Self) -> bool {
        match (&self.rates, &other.rates) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }

    /// Takes a read from the allocation's buckets; when the next is due.
    fn pace(&self, run: Volume, now: Tick) -> Tick {
        let rates = self.rates.as_ref();
        rates.map_or(now, |rates| rates.owe(1, run.bytes, now))
    }

    /// Counts a read of `bytes` from the client, by the worker that owns the allocation. A connection
    /// loses nothing when it is too fast: it is not to be read again before the moment that is
    /// returned.
    pub fn from_client(&self, bytes: usize, now: Tick, counters: &Counters) -> Tick {
        let (run, meters) = (Volume::one(bytes), &self.standing.meters);
        meters.heard(now);
        meters.received(self.path, run);
        counters.relayed(self.path, Direction::In, run);
        counters.sized(Direction::In, bytes);
        self.pace(run, now)
    }

    /// The same for a read from the peer.
    pub fn from_peer(&self, bytes: usize, now: Tick, counters: &Counters) -> Tick {
        let run = Volume::one(bytes);
        self.standing.meters.sent(self.path, run);
        counters.relayed(self.path, Direction::Out, run);
        counters.sized(Direction::Out, bytes);
        self.pace(run, now)
    }
}

/// Which worker has the connection named `id`.
const fn owner_of(id: ConnectionId) -> WorkerId {
    WorkerId((id.0 >> DRAWN_BITS) as u16)
}

/// RFC 6062 §5.1: what an Allocate for TCP must be and must not carry.
pub(crate) fn check_allocate(tuple: FiveTuple, message: &Message<'_>) -> Result<(), Reject> {
    let is_for_udp = message.has(AttributeType::DONT_FRAGMENT)
        || message.has(AttributeType::EVEN_PORT)
        || message.has(AttributeType::RESERVATION_TOKEN);
    if !tuple.listener.transport().is_stream() || is_for_udp {
        return Err(Reject::BAD_REQUEST);
    }
    Ok(())
}

impl<E: Environment> Server<E> {
    /// RFC 6062 §5.2: a Connect request. It is answered when the connection is made, or is not.
    pub(crate) fn connect(&mut self, request: &Request<'_>) -> Result<Handled, Reject> {
        let now = request.clock.now;
        let Some(allocation) = self.table.by_tuple(&request.tuple).filter(|a| a.is_tcp()) else {
            return Err(Reject::ALLOCATION_MISMATCH);
        };
        let Some(Ok(XorPeerAddress(peer))) = request.message.find::<XorPeerAddress>() else {
            return Err(Reject::BAD_REQUEST);
        };
        let to = PeerAddr::new(peer);
        if self.connections.has(allocation.id(), to) {
            return Err(Reject::CONNECTION_EXISTS);
        }
        let Some(relay) = allocation.relay(AddressFamily::of(peer.ip()), now) else {
            return Err(Reject::PEER_FAMILY);
        };
        // Before a single packet is sent, so that nobody learns of a host what the policy hides.
        let kind = kind_of(self.config.judge.peer(&allocation.policy, peer))?;
        let (id, from) = (allocation.id(), relay.relayed());
        if kind == PeerKind::Own {
            self.check_link(allocation, from, peer, now)?;
        }
        if self.connections.count(id) >= MAX_CONNECTIONS {
            return Err(Reject::CAPACITY);
        }
        let connection = self.draw_connection().ok_or(Reject::CAPACITY)?;
        self.environment
            .connect(connection, from, to, kind)
            .map_err(|_| Reject::CONNECTION_FAILED)?;
        let pending = Pending {
            transaction: request.message.transaction_id(),
            key: request.auth.key.clone(),
            signature: request.auth.signature,
        };
        self.connections.insert(
            connection,
            Connection {
                allocation: id,
                relayed: from,
                peer: to,
                kind,
                state: State::Connecting(Box::new(pending)),
                until: now.plus(CONNECT_TIMEOUT),
            },
        );
        Ok(Handled::Consumed)
    }

    /// Whether the relayed address `peer` of this server takes a connection from `from`. One that is
    /// dead, is no TCP allocation's or does not admit `from` fails alike, so that the answer tells
    /// nobody which ports live.
    fn check_link(
        &self,
        sender: &Allocation,
        from: RelayedAddr,
        peer: SocketAddr,
        now: Tick,
    ) -> Result<(), Reject> {
        let landing = self
            .environment
            .find(RelayedAddr::new(peer))
            .filter(|_| from.socket_addr() != peer)
            .filter(|landing| landing.protocol == RelayProtocol::Tcp)
            .ok_or(Reject::CONNECTION_FAILED)?;
        match landing.admit(&sender.sender(from), now, &self.environment) {
            Ok(_) => Ok(()),
            Err(reason) => {
                landing.meters().drops.add_shared(1);
                self.counters.dropped(reason, 1);
                Err(Reject::CONNECTION_FAILED)
            }
        }
    }

    /// RFC 6062 §5.4: a ConnectionBind request on a client's new connection.
    pub(crate) fn connection_bind(&mut self, request: &Request<'_>) -> Result<Handled, Reject> {
        // A control connection carries no application data.
        let is_control = self.table.by_tuple(&request.tuple).is_some();
        if !request.tuple.listener.transport().is_stream() || is_control {
            return Err(Reject::BAD_REQUEST);
        }
        let Some(Ok(connection)) = request.message.find::<ConnectionId>() else {
            return Err(Reject::BAD_REQUEST);
        };
        // Somebody else's connection is none, so that nobody learns which ids live.
        let Some(allocation) = self.allocation_to_bind(request) else {
            return Err(Reject::BAD_REQUEST);
        };
        allocation.meters().heard(request.clock.now);
        self.succeed(request, |_| Ok(()))?;
        self.connections.bind(connection);
        Ok(Handled::Spliced(connection))
    }

    /// The allocation of the pending connection that a ConnectionBind names, if both are of one
    /// user: RFC 6062 §4.3 asks for the credentials of the control connection.
    pub(crate) fn allocation_to_bind(&self, request: &Request<'_>) -> Option<&Allocation> {
        let id = request.message.find::<ConnectionId>()?.ok()?;
        let connection = self.connections.get(id)?;
        if !matches!(connection.state, State::Unbound) {
            return None;
        }
        let allocation = self.table.by_id(connection.allocation)?;
        let family = AddressFamily::of(connection.relayed.ip());
        let is_live = allocation.relay(family, request.clock.now).is_some();
        (is_live && allocation.known.owner().is(&request.auth.owner)).then_some(allocation)
    }

    /// The other worker that has the connection which a ConnectionBind names.
    pub(crate) fn elsewhere_to_bind(&self, request: &Request<'_>) -> Option<WorkerId> {
        if request.message.method() != Method::CONNECTION_BIND
            || !request.tuple.listener.transport().is_stream()
            || self.table.by_tuple(&request.tuple).is_some()
        {
            return None;
        }
        let owner = owner_of(request.message.find::<ConnectionId>()?.ok()?);
        (owner != self.worker && self.environment.takes_connections(owner)).then_some(owner)
    }

    /// The peer data connection that [`Environment::connect`] began to make exists.
    pub fn handle_connected(&mut self, connection: ConnectionId, now: Tick) {
        let until = now.plus(BIND_TIMEOUT);
        let Some(pending) = self.connections.connected(connection, until) else {
            return;
        };
        self.respond(connection, &pending, Ok(connection));
    }

    /// It does not, and never will.
    pub fn handle_connect_failed(&mut self, connection: ConnectionId) {
        self.refuse(connection, Reject::CONNECTION_FAILED);
    }

    /// RFC 6062 §5.3: a peer connected to the relayed address of allocation `id`. Says by which
    /// name the connection is known from now on; one that is refused is to be closed at once.
    ///
    /// # Errors
    /// The reason, which has been counted.
    pub fn handle_accepted(
        &mut self,
        id: AllocationId,
        source: PeerAddr,
        now: Tick,
    ) -> Result<ConnectionId, DropReason> {
        self.settle();
        let accepted = self.table.by_id(id).ok_or(DropReason::NoRelay);
        let accepted = accepted.and_then(|allocation| {
            let peer = self.admit_peer(allocation, source.expose(), now)?;
            let relay = allocation.relay(AddressFamily::of(peer.ip()), now);
            Ok((peer, relay.ok_or(DropReason::NoRelay)?.relayed()))
        });
        accepted
            .and_then(|(peer, relayed)| self.attempt(id, relayed, peer, PeerKind::Foreign, now))
            .inspect_err(|reason| self.counters.dropped(*reason, 1))
    }

    /// `sender`, a relayed address of this server, connected to `target`, one of this worker's. Its
    /// owner asked `target`'s landing; what that says may have changed since.
    ///
    /// # Errors
    /// The reason, which has been counted.
    pub fn handle_linked(
        &mut self,
        target: RelayedAddr,
        sender: RelayedAddr,
        now: Tick,
    ) -> Result<ConnectionId, DropReason> {
        self.settle();
        self.admit_link(target, sender, now)
            .and_then(|id| self.attempt(id, target, sender.socket_addr(), PeerKind::Own, now))
            .inspect_err(|reason| self.counters.dropped(*reason, 1))
    }

    fn admit_link(
        &self,
        target: RelayedAddr,
        sender: RelayedAddr,
        now: Tick,
    ) -> Result<AllocationId, DropReason> {
        let is_tcp = |landing: &Arc<_>| is_live_tcp(landing, now);
        let sending = self.environment.find(sender).filter(is_tcp);
        let sending = sending.ok_or(DropReason::NoLanding)?;
        let sender = Sender {
            relayed: sender,
            subject: sending.subject,
            in_call: sending.in_call(),
        };
        let landing = self.environment.find(target).filter(is_tcp);
        let id = landing.ok_or(DropReason::NoLanding)?.id();
        let allocation = self.table.by_id(id).ok_or(DropReason::NoLanding)?;
        let relay = allocation
            .relays
            .iter()
            .find(|relay| relay.relayed() == target)
            .ok_or(DropReason::NoLanding)?;
        relay
            .admit(&sender, now, &self.environment)
            .inspect_err(|_| allocation.meters().drops.add_shared(1))?;
        Ok(id)
    }

    /// RFC 6062 §5.3: takes in a connection that a peer made, and tells the client.
    fn attempt(
        &mut self,
        id: AllocationId,
        relayed: RelayedAddr,
        peer: SocketAddr,
        kind: PeerKind,
        now: Tick,
    ) -> Result<ConnectionId, DropReason> {
        let source = PeerAddr::new(peer);
        if self.connections.has(id, source) || self.connections.count(id) >= MAX_CONNECTIONS {
            return Err(DropReason::Connections);
        }
        let connection = self.draw_connection().ok_or(DropReason::Connections)?;
        self.connections.insert(
            connection,
            Connection {
                allocation: id,
                relayed,
                peer: source,
                kind,
                state: State::Unbound,
                until: now.plus(BIND_TIMEOUT),
            },
        );
        let transaction = TransactionId::new(self.random_bytes());
        let method = Method::CONNECTION_ATTEMPT;
        self.send_message(id, Class::Indication, method, transaction, |writer| {
            writer.push(&XorPeerAddress(peer))?;
            writer.push(&connection)
        });
        Ok(connection)
    }

    /// A peer data connection is gone, or the client's data connection that was bound to it; the
    /// data plane has closed both.
    pub fn handle_connection_closed(&mut self, connection: ConnectionId) {
        self.connections.remove(connection);
    }

    /// On what the data of a connection is counted.
    #[must_use]
    pub fn account(&self, connection: ConnectionId) -> Option<DataAccount> {
        let connection = self.connections.get(connection)?;
        let allocation = self.table.by_id(connection.allocation)?;
        Some(DataAccount {
            standing: Arc::clone(&allocation.standing),
            rates: allocation.rates().cloned(),
            relayed: connection.relayed,
            path: match connection.kind {
                PeerKind::Own => Path::Hairpin,
                PeerKind::Fleet | PeerKind::Foreign => Path::Relay,
            },
        })
    }

    /// The next message for a client that answers nothing of what was handled last. What is not
    /// polled after an input stays.
    pub fn poll_message(&mut self) -> Option<ControlMessage> {
        self.messages.pop_front()
    }

    /// Ends up to `limit` connections that nobody answered or bound in time.
    pub(crate) fn expire_connections(&mut self, now: Tick, limit: usize) {
        for _ in 0..limit {
            let Some(connection) = self.connections.first_due(now) else {
                return;
            };
            self.environment.close(connection);
            self.refuse(connection, Reject::CONNECTION_FAILED);
        }
    }

    /// Ends the connections with peers that the rules no longer admit.
    pub(crate) fn judge_connections_anew(&mut self) {
        let judge = &self.config.judge;
        let is_admitted = |connection: &Connection| {
            let allocation = self.table.by_id(connection.allocation);
            let peer = connection.peer.expose();
            allocation.is_some_and(|a| {
                judge.peer(&a.policy, peer).is_admitted()
                    && (connection.kind != PeerKind::Own || self.meets(a, connection))
            })
        };
        let refused: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, connection)| !is_admitted(connection))
            .map(|(id, _)| id)
            .collect();
        for connection in refused {
            self.environment.close(connection);
            self.refuse(connection, Reject::FORBIDDEN);
        }
    }

    /// Whether the parties of a connection between relayed addresses of this server may talk to each
    /// other as far as their calls go. If the other is gone, its own worker ends the connection.
    fn meets(&self, allocation: &Allocation, connection: &Connection) -> bool {
        let own = allocation.sender(connection.relayed).in_call;
        let peer = self
            .environment
            .find(RelayedAddr::new(connection.peer.expose()));
        peer.is_none_or(|peer| peer.in_call().meets(own))
    }

    /// Forgets a connection; a client that waits for it hears why there is none.
    fn refuse(&mut self, connection: ConnectionId, reject: Reject) {
        if let Some(removed) = self.connections.get(connection)
            && let State::Connecting(pending) = &removed.state
        {
            let pending = Pending::clone(pending);
            self.respond(connection, &pending, Err(reject));
        }
        self.connections.remove(connection);
    }

    /// Answers the Connect that asked for `connection`, on what is now its control connection.
    fn respond(
        &mut self,
        connection: ConnectionId,
        pending: &Pending,
        outcome: Result<ConnectionId, Reject>,
    ) {
        let Some(id) = self.connections.get(connection).map(|c| c.allocation) else {
            return;
        };
        let (class, code) = match outcome {
            Ok(_) => (Class::Success, 0),
            Err(reject) => (Class::Error, reject.code),
        };
        let method = Method::CONNECT;
        self.counters.answered(method.name(), code);
        self.send_message(id, class, method, pending.transaction, |writer| {
            match outcome {
                Ok(connection) => writer.push(&connection)?,
                Err(Reject { code, reason }) => writer.push(&ErrorCode { code, reason })?,
            }
            sign(writer, &pending.key, pending.signature)
        });
    }

    /// Queues a message for the client of allocation `id`: one for each connection that was made,
    /// refused or ended by the last input, and no more.
    fn send_message(
        &mut self,
        id: AllocationId,
        class: Class,
        method: Method,
        transaction: TransactionId,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<(), Full>,
    ) {
        let Some(to) = self.table.by_id(id).map(|allocation| allocation.tuple) else {
            return;
        };
        let mut bytes = [0; MESSAGE_LEN];
        let written = (|| {
            let mut writer = Writer::new(&mut bytes, class, method, transaction)?;
            fill(&mut writer)?;
            Ok::<_, Full>(writer.finish())
        })();
        if let Some(bytes) = written.ok().and_then(|len| bytes.get(..len)) {
            let bytes = bytes.into();
            self.messages.push_back(ControlMessage { to, bytes });
        }
    }

    /// A free CONNECTION-ID of this worker's. It is no secret, since a ConnectionBind is
    /// authenticated; it is drawn so that a late request does not meet another connection.
    fn draw_connection(&mut self) -> Option<ConnectionId> {
        let owner = u32::from(self.worker.0) << DRAWN_BITS;
        if owner_of(ConnectionId(owner)) != self.worker {
            return None;
        }
        for _ in 0..DRAWS {
            let drawn = u32::from_be_bytes(self.random_bytes()) >> (u32::BITS - DRAWN_BITS);
            let id = ConnectionId(owner | drawn);
            if self.connections.get(id).is_none() {
                return Some(id);
            }
        }
        None
    }
}

fn is_live_tcp(landing: &Landing, now: Tick) -> bool {
    landing.protocol == RelayProtocol::Tcp && landing.until().holds(now)
}
