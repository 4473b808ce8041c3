//! The TURN server (RFC 8656) as a state machine without I/O: bytes and time in, bytes and
//! decisions out. It owns allocations, permissions and channel bindings; it knows no socket, no
//! clock and no thread.
//!
//! # Contract
//! One worker owns one [`Server`]. Its inputs are [`Server::handle_client`] for what reaches a
//! listener, [`Server::handle_peer`] for what reaches a relay socket, [`Server::handle_icmp`] for
//! errors that are reported there, [`Server::handle_condemned`]
//! and [`Server::handle_timeout`]. Each says at once what is to be done, in a [`Handled`]; nothing
//! is queued but [`Event`]s, which [`Server::poll_event`] hands out, and on a worker that relays TCP
//! the [`ControlMessage`]s of [`Server::poll_message`]. [`Server::poll_timeout`] says
//! when `handle_timeout` wants to be called. What the server needs from the house around it, it
//! asks through [`Environment`]. Datagrams come in batches, each ended by [`Server::settle`].
//!
//! The path of a packet is `forward.rs`, which looks up and frames in place; the path of a request
//! is `request.rs` and then one module per method.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![forbid(unsafe_code)]

mod address;
mod allocate;
mod allocation;
mod auth;
pub mod ban;
mod behaviour;
mod binding;
mod channel_bind;
mod clock;
mod create_permission;
pub mod credential;
mod deadlines;
mod ending;
mod entitled;
mod environment;
mod forward;
pub mod histogram;
mod icmp;
mod limits;
pub mod media;
mod mobility;
mod nonce;
mod outcome;
pub mod policy;
pub mod ports;
mod pseudonym;
pub mod quota;
pub mod rates;
mod reached;
mod redirect;
mod refresh;
mod request;
pub mod revocation;
pub mod route;
mod run;
mod server_config;
pub mod stats;
mod table;
mod tcp_relay;
mod ticket;
pub mod unvalidated;

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::proto::{ChannelRange, Class, DecodeError, Kind, Message, Method, classify};

pub(crate) use address::TupleKey;
pub use address::{
    ClientAddr, FiveTuple, ListenerId, PeerAddr, RelayedAddr, Transport, Via, WorkerId,
};
pub use behaviour::{NatDiscovery, Rectangle};
pub use binding::{BindingRequests, BindingRules};
pub use clock::{Clock, Deadline, Tick};
pub use environment::{Environment, SocketRefused};
pub use nonce::{NONCE_LEN, NONCE_LIFETIME, NonceKey};
pub use outcome::{
    ControlMessage, EndReason, Event, Forward, Fragmentation, Handled, Head, Target,
};
pub use pseudonym::{BreakGlass, NoPseudonym, Pseudonym, Pseudonymizer};
pub use redirect::{Alternate, Redirect};
pub use route::AllocationId;
pub use server_config::{Bind, Limits, ServerConfig};
pub use tcp_relay::DataAccount;
pub use ticket::TicketKey;

use allocation::Allocation;
use credential::Voucher;
use entitled::Policies;
use forward::SendIndication;
use policy::{PeerPolicy, Refusal, Verdict};
use rates::Lease;
use run::{Aside, Run};
use stats::{Counters, DropReason};
use table::AllocationTable;
use tcp_relay::Connections;

/// RFC 8656 §3.2: the default lifetime of an allocation.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
/// Allocations that [`Server::handle_timeout`] ends at once: some 0.1 ms of work.
const EXPIRIES: usize = 64;
/// Room for the largest response this server gives, one with PADDING.
const ANSWER_LEN: usize = 2_048;

/// A sans-IO TURN server.
#[derive(Debug)]
pub struct Server<E: Environment> {
    config: Arc<ServerConfig>,
    policies: Policies,
    environment: E,
    worker: WorkerId,
    table: AllocationTable,
    counters: Arc<Counters>,
    connections: Connections,
    messages: VecDeque<ControlMessage>,
    events: VecDeque<Event>,
    rng: StdRng,
    run: Option<Run>,
    /// What the run has been given ahead by the buckets of its sender and of its receiver.
    leases: [Lease; 2],
    aside: Aside,
    answer: Box<[u8; ANSWER_LEN]>,
    answer_len: usize,
}

impl<E: Environment> Server<E> {
    /// A server without allocations. `seed` feeds the CSPRNG that draws nonces, allocation ids and
    /// transaction ids.
    #[must_use]
    pub fn new(
        config: Arc<ServerConfig>,
        environment: E,
        worker: WorkerId,
        seed: [u8; 32],
    ) -> Self {
        Self {
            policies: Policies::new(&config),
            config,
            environment,
            worker,
            table: AllocationTable::default(),
            counters: Arc::default(),
            connections: Connections::default(),
            messages: VecDeque::new(),
            events: VecDeque::new(),
            rng: StdRng::from_seed(seed),
            run: None,
            leases: Default::default(),
            aside: Aside::default(),
            answer: Box::new([0; ANSWER_LEN]),
            answer_len: 0,
        }
    }

    /// A datagram that a client sent to a listener: `datagram` of `buf`. What goes on is framed in
    /// place where `buf` has room around the datagram:
    /// [`DATA_INDICATION_HEADROOM`](crate::proto::DATA_INDICATION_HEADROOM) bytes before it and
    /// three behind are always enough. Else its header lies in [`head`](Self::head).
    pub fn handle_client(
        &mut self,
        tuple: FiveTuple,
        buf: &mut [u8],
        datagram: Range<usize>,
        clock: Clock,
    ) -> Handled {
        let Some(first) = buf.get(datagram.clone()).and_then(<[u8]>::first) else {
            return self.drop(DropReason::Malformed);
        };
        match classify(*first, self.config.channels) {
            Kind::ChannelData => self.handle_channel_data(tuple, buf, datagram, clock.now),
            Kind::Neither => self.drop(DropReason::Malformed),
            Kind::Stun => match Message::decode(&buf[datagram]) {
                Ok(message)
                    if message.class() == Class::Indication && message.method() == Method::SEND =>
                {
                    match SendIndication::parse(&message, buf) {
                        Ok(send) => self.handle_send(tuple, buf, send, clock.now),
                        Err(reason) => self.drop(reason),
                    }
                }
                Ok(message) => {
                    self.settle();
                    self.handle_message(tuple, message, clock)
                }
                Err(DecodeError::BadCookie) => self.drop(DropReason::NoCookie),
                Err(_) => self.drop(DropReason::Malformed),
            },
        }
    }

    /// A datagram that reached the relay socket of allocation `id` from `source`.
    pub fn handle_peer(
        &mut self,
        id: AllocationId,
        source: PeerAddr,
        buf: &mut [u8],
        datagram: Range<usize>,
        now: Tick,
    ) -> Handled {
        self.handle_peer_datagram(id, source.expose(), buf, datagram, now)
    }

    /// The connection of a stream or DTLS client is gone, and so is what it stood for (RFC 8656
    /// §3.1: without it the 5-tuple is no more), unless the client has a ticket to come back with.
    /// If another worker owns the 5-tuple, that one is told.
    pub fn handle_disconnected(&mut self, tuple: FiveTuple, now: Tick) {
        self.settle();
        if self.table.by_tuple(&tuple).is_none() {
            if let Some(owner) = self.environment.other_owner(tuple) {
                self.environment.disconnected(owner, tuple);
            }
        } else if !self.outlives_its_connection(tuple, now) {
            self.end(&tuple, EndReason::Disconnected, now);
        }
    }

    /// Which channel numbers there are, for whoever finds the borders in a stream.
    #[must_use]
    pub fn channels(&self) -> ChannelRange {
        self.config.channels
    }

    /// Whether a client has an allocation, here or with another worker.
    #[must_use]
    pub fn has_allocation(&self, tuple: FiveTuple) -> bool {
        self.table.by_tuple(&tuple).is_some() || self.environment.other_owner(tuple).is_some()
    }

    /// Another worker gave this worker's allocation `id` notice; see [`Environment::condemn`].
    pub fn handle_condemned(&mut self, id: AllocationId, now: Tick) {
        self.settle();
        if let Some(allocation) = self.table.by_id(id) {
            let tuple = allocation.tuple;
            self.end(&tuple, EndReason::Replaced, now);
        }
    }

    /// Ends what has expired, but only so much at once that packets are not held up; what is left
    /// is still due. Nothing is forwarded past its deadline meanwhile.
    pub fn handle_timeout(&mut self, now: Tick) {
        self.settle();
        self.expire_connections(now, EXPIRIES);
        for _ in 0..EXPIRIES {
            let Some(tuple) = self.table.take_due(now) else {
                return;
            };
            let end = self.table.by_tuple(&tuple).and_then(Allocation::first_end);
            let reason = end.map_or(EndReason::Expired, EndReason::told_by);
            self.reap(&tuple, reason, now);
        }
    }

    /// The rules changed. What a living allocation may do, and for how long, is found anew from its
    /// claims; permissions and channels that are not admitted now end at once, and so do allocations
    /// whose secret, sealing key or static user is gone, whose credential lasts longer than any may
    /// now, or which relay TCP where that is off now; relayed addresses stay what they are.
    pub fn reconfigure(&mut self, config: Arc<ServerConfig>, clock: Clock) {
        let now = clock.now;
        self.settle();
        self.policies = Policies::new(&config);
        let rates_changed = self.config.limits.rates != config.limits.rates;
        let is_shortened = config.max_ttl < self.config.max_ttl;
        self.config = config;
        let vouchers: HashSet<Voucher> = self.config.credentials.vouchers().collect();
        for tuple in self.table.tuples() {
            if let Some(allocation) = self.table.by_tuple_mut(&tuple) {
                let is_vouched = vouchers.contains(&allocation.known.voucher());
                // Only where that is what changed: a clock that was put back ends no call.
                let is_too_long = is_shortened && allocation.lasts_too_long(&self.config, clock);
                if !is_vouched || is_too_long || !allocation.is_served_by(&self.config) {
                    allocation.end_soon(EndReason::Revoked);
                }
                let claims = allocation.standing.claims.as_deref();
                let policy = self.policies.of(claims);
                allocation.put_under(policy);
                allocation.live_by(&self.config, clock);
                allocation.judge_anew(&self.config.judge);
                if rates_changed {
                    let (limits, standing) = (&self.config.limits.rates, &allocation.standing);
                    let rates =
                        limits::rates(&mut self.environment, allocation.subject, standing, limits);
                    allocation.limit(rates);
                }
            }
            self.publish(&tuple, now);
            self.table.rearm(&tuple);
        }
        self.judge_connections_anew();
        self.handle_timeout(now);
    }

    /// Ends every allocation, because the server stops.
    pub fn stop(&mut self, now: Tick) {
        self.settle();
        for tuple in self.table.tuples() {
            self.end(&tuple, EndReason::Stopped, now);
        }
    }

    /// When [`Server::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        let connections = self.connections.first_deadline();
        self.table
            .first_deadline()
            .into_iter()
            .chain(connections)
            .min()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The response to the datagram that was handled last, if that said [`Handled::Answer`]
    /// or [`Handled::AnswerBy`].
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        self.answer.get(..self.answer_len).unwrap_or_default()
    }

    /// The header of the datagram that was handled last, or all that tells of an error, if its [`Forward`] says [`Head::Aside`].
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.aside.bytes()
    }

    /// Reads what packets of these 5-tuples will need, before the first of them is handled: all of a
    /// batch wait for memory at the same time, instead of one after the other.
    pub fn look_ahead(&self, tuples: impl Iterator<Item = FiveTuple>) {
        self.table.look_ahead(tuples);
    }

    /// The batch is done: what went through it is counted, and the next packet looks up its way
    /// anew. Until then packets that take the same way as the one before are neither judged nor
    /// counted by themselves.
    pub fn settle(&mut self) {
        if let Some(run) = &self.run {
            run.count(&self.table, &self.counters);
            run.end_leases(&self.table, &mut self.leases);
            self.run = None;
        }
    }

    /// What this server has counted up to the last [`settle`](Self::settle), to be read at any
    /// time.
    #[must_use]
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The house around this server.
    #[must_use]
    pub const fn environment(&self) -> &E {
        &self.environment
    }

    /// The house around this server, to be changed.
    pub const fn environment_mut(&mut self) -> &mut E {
        &mut self.environment
    }

    /// The relayed transport addresses that are held, each with its allocation's opaque name.
    pub fn relayed(&self) -> impl Iterator<Item = (AllocationId, RelayedAddr)> + '_ {
        self.table.iter().flat_map(|allocation| {
            allocation
                .relays
                .iter()
                .map(|r| (allocation.id(), r.relayed()))
        })
    }

    /// Checks what must hold between calls.
    ///
    /// # Errors
    /// A sentence about what does not.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        self.table.check_invariants()?;
        if self.table.len() as u64 != self.counters.allocations.load(Ordering::Relaxed) {
            return Err("the gauge of allocations is off");
        }
        self.connections.check_invariants()?;
        if self.connections.iter().any(|(_, connection)| {
            let allocation = self.table.by_id(connection.allocation);
            !allocation.is_some_and(Allocation::is_tcp)
        }) {
            return Err("a data connection outlived its allocation");
        }
        for allocation in self.table.iter() {
            for relay in &allocation.relays {
                let published = self
                    .environment
                    .with(relay.relayed(), |l| l.id() == allocation.id());
                if published != Some(true) {
                    return Err("a relayed transport address has no landing, or another's");
                }
            }
        }
        Ok(())
    }

    fn drop(&self, reason: DropReason) -> Handled {
        self.counters.dropped(reason, 1);
        Handled::Dropped(reason)
    }

    /// A source that no client has (RFC 8656 §21.1.6, and loops through this server itself).
    fn is_bad_source(&self, client: ClientAddr) -> bool {
        let source = self.config.judge.outer(client.expose());
        let ip = source.ip();
        let judge = &self.config.judge;
        source.port() == 0
            || ip.is_unspecified()
            || ip.is_multicast()
            || matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast())
            || match judge.peer(&PeerPolicy::Any, source) {
                // A relayed address without a socket sends nothing, so that the source is another
                // program on this machine, whose port merely lies in the relay range.
                Verdict::OwnRelay => {
                    self.environment
                        .with(RelayedAddr::new(source), |l| l.has_socket)
                        == Some(true)
                }
                Verdict::Refused(Refusal::OwnSocket) => judge.is_own_sender(source),
                Verdict::FleetRelay | Verdict::Foreign | Verdict::Refused(_) => {
                    judge.is_relay_source(source)
                }
            }
    }

    /// Publishes the receiver's half of every relay of the allocation on `tuple`, where more than
    /// deadlines changed.
    fn publish(&mut self, tuple: &FiveTuple, now: Tick) {
        let Some(allocation) = self.table.by_tuple_mut(tuple) else {
            return;
        };
        for relay in allocation
            .relays
            .iter_mut()
            .filter(|relay| relay.until().holds(now))
        {
            if let Some(landing) = relay.take_unpublished() {
                let before = self.environment.find(landing.relayed);
                self.environment.publish(landing);
                if let Some(before) = before {
                    before.current.supersede();
                }
            }
        }
    }

    /// Ends the whole allocation on `tuple` now.
    fn end(&mut self, tuple: &FiveTuple, reason: EndReason, now: Tick) {
        if let Some(allocation) = self.table.by_tuple(tuple) {
            allocation
                .relays
                .iter()
                .for_each(|relay| relay.until().set(now));
        }
        self.reap(tuple, reason, now);
    }

    /// Takes away what of the allocation on `tuple` has ended.
    ///
    /// Nobody finds a landing once it is withdrawn; a worker that found it just before may still be
    /// sending one packet. The answer and the port's rest do not wait for that: to the client such
    /// a packet is one that crossed its Refresh on the way, and the port rests for longer than any
    /// turn takes. Only the final totals wait, in the data plane's journal.
    fn reap(&mut self, tuple: &FiveTuple, reason: EndReason, now: Tick) {
        let Some(allocation) = self.table.by_tuple_mut(tuple) else {
            return;
        };
        for relay in allocation.take_ended(now) {
            let relayed = relay.relayed();
            let last = self.environment.find(relayed);
            self.environment.withdraw(relayed);
            if let Some(last) = last {
                last.current.supersede();
            }
            self.environment.close_socket(relayed);
            // RFC 6062 §5.5: its data connections end with it.
            for connection in self.connections.take_all_at(allocation.id(), relayed) {
                self.environment.close(connection);
            }
            self.environment.rest_port(relayed, now);
        }
        if !allocation.relays.is_empty() {
            self.publish(tuple, now);
            self.table.rearm(tuple);
            return;
        }
        let Some(allocation) = self.table.remove(tuple) else {
            return;
        };
        let over = self.counters.over(allocation.tuple.listener.transport());
        over.allocations.fetch_sub(1, Ordering::Relaxed);
        let mobility = allocation.mobility.as_ref();
        let next = mobility.and_then(|mobility| mobility.next);
        for tuple in [Some(allocation.tuple), next].into_iter().flatten() {
            if !tuple.is_nowhere() {
                self.environment.disown(tuple);
            }
        }
        self.environment
            .release(allocation.subject, &allocation.standing);
        self.count_allocations();
        let lived = now.since(allocation.standing.opened);
        self.counters.ended(reason);
        self.counters.histograms.lifetimes.observe_time(lived);
        self.events.push_back(Event::Closed {
            id: allocation.id(),
            transport: allocation.tuple.listener.transport(),
            reason,
            lived,
            subject: allocation.subject,
            standing: allocation.standing,
        });
    }

    fn count_allocations(&self) {
        self.counters
            .allocations
            .store(self.table.len() as u64, Ordering::Relaxed);
    }

    fn random_bytes<const N: usize>(&mut self) -> [u8; N] {
        random(&mut self.rng)
    }
}

fn random<const N: usize>(rng: &mut StdRng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}
