//! The servers of one house, one for each worker, and what comes out of them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use taciturn::proto::{ChannelRange, ConnectionId, DATA_INDICATION_HEADROOM, Icmp};
use taciturn::turn::ban::Bans;
use taciturn::turn::credential::{
    Claims, Credentials, Label, SealingKeys, Secret, SecretsRing, StaticUsers, Subject, mint,
};
use taciturn::turn::policy::{Faces, FleetNode, PeerJudge, PeerPolicy, PeerRules, RelayRange};
use taciturn::turn::quota::Quotas;
use taciturn::turn::revocation::Revocations;
use taciturn::turn::stats::{AuthFailure, Direction, DropReason, Limit, Path};
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{
    AllocationId, Alternate, Bind, BindingRules, Clock, Event, FiveTuple, Fragmentation, Handled,
    Limits, ListenerId, NatDiscovery, NonceKey, PeerAddr, RelayedAddr, Server, ServerConfig,
    Target, Tick, TicketKey, WorkerId,
};
use zeroize::Zeroizing;

use super::client::Client;
use super::environment::{House, Room, forwarded};
use super::message::{Answer, Received};

pub const REALM: &str = "calls.test";
/// The secrets, the one that mints first.
pub const SECRETS: [&str; 2] = ["north-star-secret", "south-star-secret"];
pub const STATIC_USER: (&str, &str) = ("gateway", "gateway-password");
pub const RELAY_V4: &str = "203.0.113.7";
pub const RELAY_V6: &str = "2001:db8:7::7";
/// Where the servers listen.
pub const LISTENER_V4: &str = "203.0.113.7:3478";
pub const LISTENER_V6: &str = "[2001:db8:7::7]:3478";
/// The UDP listeners by their place: those two, and what makes a rectangle of each (RFC 5780 §6).
pub const LISTENERS: [&str; 8] = [
    LISTENER_V4,
    LISTENER_V6,
    "203.0.113.7:3479",
    "203.0.113.77:3478",
    "203.0.113.77:3479",
    "[2001:db8:7::7]:3479",
    "[2001:db8:7::77]:3478",
    "[2001:db8:7::77]:3479",
];
/// When every world begins, by the wall clock.
pub const BEGIN_UNIX: u64 = 1_800_000_000;
/// How long credentials last that a test does not mint by itself.
pub const CREDENTIAL_LIFE: u64 = 86_400;

/// What a world is made of; change a field, then call [`Setup::world`].
#[derive(Debug, Clone)]
pub struct Setup {
    pub realm: String,
    pub secrets: Vec<&'static str>,
    pub users: Vec<(&'static str, &'static str)>,
    /// The keys that usernames are sealed with, of such bytes each; the first one seals.
    pub sealing: Vec<u8>,
    pub channels: ChannelRange,
    pub policy: PeerPolicy,
    /// None is the policy itself.
    pub ceiling: Option<PeerPolicy>,
    /// The name of this node.
    pub node: Option<&'static str>,
    pub max_ttl: u64,
    pub bind: Bind,
    pub relays: Vec<IpAddr>,
    /// The address behind 1:1 NAT that the first relay's sockets are bound to.
    pub inner: Option<&'static str>,
    pub ports: RangeInclusive<u16>,
    pub fleet: Vec<FleetNode>,
    pub allow: Vec<&'static str>,
    pub deny: Vec<&'static str>,
    pub allocation_lifetime: u64,
    pub session_max: u64,
    pub strict: bool,
    pub limits: Limits,
    pub tcp_relay: bool,
    pub media_quality: bool,
    pub workers: u16,
    pub unvalidated: Rate,
    pub binding: BindingRules,
    pub alternate: Alternate,
    pub draining: bool,
    /// Whether allocations may move.
    pub mobility: bool,
    /// The listeners that form rectangles.
    pub nat_discovery: Vec<&'static str>,
    pub seed: u64,
    pub revocations: Revocations,
    pub bans: Bans,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            realm: REALM.to_owned(),
            secrets: SECRETS.to_vec(),
            users: vec![STATIC_USER],
            sealing: vec![4],
            channels: ChannelRange::Rfc8656,
            policy: PeerPolicy::Relay,
            ceiling: None,
            node: None,
            max_ttl: 172_800,
            bind: Bind::Auto,
            relays: [RELAY_V4, RELAY_V6].map(ip).to_vec(),
            inner: None,
            ports: 49_152..=65_535,
            fleet: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            allocation_lifetime: 3_600,
            session_max: 86_400,
            strict: false,
            limits: Limits::default(),
            tcp_relay: false,
            media_quality: true,
            workers: 1,
            unvalidated: Rate {
                per_second: 50,
                burst: 200,
            },
            binding: BindingRules::default(),
            alternate: Alternate::default(),
            draining: false,
            mobility: false,
            nat_discovery: Vec::new(),
            seed: 1,
            revocations: Revocations::default(),
            bans: Bans::default(),
        }
    }
}

impl Setup {
    /// Where allocations may follow their clients.
    pub fn mobile() -> Self {
        Self {
            mobility: true,
            ..Self::default()
        }
    }

    /// Where a user may hold so many allocations.
    pub fn with_quota(user: u32) -> Self {
        Self {
            limits: Limits {
                quotas: Quotas {
                    user: Some(user),
                    ..Quotas::default()
                },
                ..Limits::default()
            },
            ..Self::default()
        }
    }

    pub fn any() -> Self {
        Self {
            policy: PeerPolicy::Any,
            ..Self::default()
        }
    }

    /// What the servers are told.
    pub fn config(&self) -> Arc<ServerConfig> {
        let ring = self
            .secrets
            .iter()
            .enumerate()
            .map(|(n, secret)| Secret::new(format!("secret {n}"), *secret));
        let ring = SecretsRing::new(ring.collect());
        let mut users = StaticUsers::default();
        for (name, password) in &self.users {
            let password = Zeroizing::new((*password).to_owned());
            users.add(name, password).unwrap();
        }
        let sealing = self.sealing.iter().map(|byte| Zeroizing::new([*byte; 32]));
        let sealing = SealingKeys::new(&sealing.collect::<Vec<_>>());
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let judge = PeerJudge::new(PeerRules {
            relay: RelayRange {
                addresses: self.relays.clone(),
                ports: self.ports.clone(),
            },
            own_sockets: [LISTENER_V4, LISTENER_V6, "127.0.0.1:9641"]
                .map(at)
                .to_vec(),
            own_senders: [LISTENER_V4, LISTENER_V6].map(at).to_vec(),
            own_addresses: [RELAY_V4, RELAY_V6, "10.0.0.5"].map(ip).to_vec(),
            fleet: self.fleet.clone(),
            allow: nets(&self.allow),
            deny: nets(&self.deny),
        })
        .behind_nat(self.inner.map(|inner| Faces {
            inner: ip(inner),
            outer: self.relays[0],
        }));
        Arc::new(ServerConfig {
            realm: self.realm.clone(),
            channels: self.channels,
            credentials: Credentials::new(ring, users, [7; 32])
                .with_userhashes(&self.realm)
                .with_sealing(sealing, &self.realm),
            nonce_key: NonceKey::new([9; 32]),
            policy: self.policy.clone(),
            ceiling: self.ceiling.clone().unwrap_or_else(|| self.policy.clone()),
            node: self.node.and_then(Label::new),
            max_ttl: Duration::from_secs(self.max_ttl),
            judge,
            bind: self.bind,
            allocation_lifetime: Duration::from_secs(self.allocation_lifetime),
            session_max: Duration::from_secs(self.session_max),
            strict: self.strict,
            limits: self.limits,
            binding: self.binding.clone(),
            alternate: self.alternate.clone(),
            draining: self.draining,
            tickets: self
                .mobility
                .then(|| TicketKey::new(Zeroizing::new([3; 32]))),
            nat_discovery: NatDiscovery::new(
                &self
                    .nat_discovery
                    .iter()
                    .map(|text| at(text))
                    .collect::<Vec<_>>(),
                &LISTENERS.map(at),
            ),
            tcp_relay: self.tcp_relay,
            media_quality: self.media_quality,
            revocations: self.revocations.clone(),
            bans: self.bans.clone(),
        })
    }

    pub fn world(self) -> World {
        let config = self.config();
        let house = House::new(&self.relays, &self.ports, self.unvalidated, self.seed);
        house.borrow_mut().listeners = [LISTENER_V4, LISTENER_V6].map(at).to_vec();
        house.borrow_mut().workers = self.workers;
        let rates = &self.limits.rates;
        house.borrow_mut().users.set_rates(rates);
        let servers = (0..self.workers)
            .map(|worker| {
                let room = Room {
                    house: Rc::clone(&house),
                    worker: WorkerId(worker),
                };
                let mut seed = [0; 32];
                seed[..8].copy_from_slice(&self.seed.to_be_bytes());
                seed[8..10].copy_from_slice(&worker.to_be_bytes());
                Server::new(Arc::clone(&config), room, WorkerId(worker), seed)
            })
            .collect();
        World {
            house,
            servers,
            config,
            clock: Clock {
                now: Tick::from_nanos(1_000_000_000_000),
                unix: BEGIN_UNIX,
            },
            buf: Vec::new(),
        }
    }
}

/// What a server did with a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Answer(Answer),
    /// An answer that leaves for another port, or by another listener.
    AnswerBy(FiveTuple, Answer),
    Client {
        to: FiveTuple,
        bytes: Vec<u8>,
    },
    Peer {
        from: SocketAddr,
        to: SocketAddr,
        fragmentation: Fragmentation,
        payload: Vec<u8>,
    },
    Consumed,
    Dropped(DropReason),
    Elsewhere(WorkerId),
    Spliced(Answer, ConnectionId),
    HandOver(WorkerId),
}

impl Outcome {
    /// What reached `client`; panics if nothing did.
    #[track_caller]
    pub fn at(self, client: &Client) -> Received {
        let Self::Client { to, bytes } = self else {
            panic!("not for a client: {self:?}");
        };
        assert_eq!(to, client.tuple, "for another client");
        Received::decode(&bytes)
    }

    /// The response; panics if there is none.
    #[track_caller]
    pub fn answer(self) -> Answer {
        let Self::Answer(answer) = self else {
            panic!("no answer: {self:?}");
        };
        answer
    }

    /// The response to a request on `asked`, with the client and the listener it left by; panics
    /// if there is none.
    #[track_caller]
    pub fn left(self, asked: FiveTuple) -> (FiveTuple, Answer) {
        if let Self::AnswerBy(by, answer) = self {
            return (by, answer);
        }
        (asked, self.answer())
    }

    /// Where it went from and to outside this server, and what; panics if it did not.
    #[track_caller]
    pub fn outside(self) -> (SocketAddr, SocketAddr, Vec<u8>) {
        let Self::Peer {
            from, to, payload, ..
        } = self
        else {
            panic!("not sent to a peer: {self:?}");
        };
        (from, to, payload)
    }

    /// Why it was dropped, if it was.
    pub fn dropped(&self) -> Option<DropReason> {
        if let Self::Dropped(reason) = self {
            return Some(*reason);
        }
        None
    }
}

/// A house with its servers, and the time.
#[derive(Debug)]
pub struct World {
    pub house: Rc<RefCell<House>>,
    pub servers: Vec<Server<Room>>,
    pub config: Arc<ServerConfig>,
    pub clock: Clock,
    buf: Vec<u8>,
}

impl World {
    pub fn new() -> Self {
        Setup::default().world()
    }

    /// A client at `addr` with a REST credential of `user`, on worker 0.
    pub fn client(&self, user: &str, addr: &str) -> Client {
        self.client_until(user, addr, self.clock.unix + CREDENTIAL_LIFE)
    }

    /// The same, with a credential that expires at `expires`.
    pub fn client_until(&self, user: &str, addr: &str, expires: u64) -> Client {
        let ring = self.config.credentials.ring();
        let minted = mint(ring.get(0).unwrap(), user, expires).unwrap();
        Client::new(at(addr), &minted.username, &minted.password)
    }

    /// What is sealed for `user`, with nothing else in it.
    pub fn claims(&self, user: &str) -> Claims {
        Claims::new(self.subject(user), self.clock.unix)
    }

    /// The same, for that call.
    pub fn claims_in(&self, user: &str, call: &str) -> Claims {
        Claims {
            call: self.config.credentials.call(call),
            ..self.claims(user)
        }
    }

    /// A client at `addr` with a sealed credential of `user`, whose claims `fill` completes.
    pub fn sealed_client(&self, user: &str, addr: &str, fill: impl FnOnce(&mut Claims)) -> Client {
        let mut claims = self.claims(user);
        fill(&mut claims);
        self.sealed(&claims, addr)
    }

    /// A client at `addr` whose sealed username says `claims`.
    pub fn sealed(&self, claims: &Claims, addr: &str) -> Client {
        self.sealed_until(claims, addr, self.clock.unix + CREDENTIAL_LIFE)
    }

    /// The same, until `expires`.
    pub fn sealed_until(&self, claims: &Claims, addr: &str, expires: u64) -> Client {
        let mut nonce = [0; 16];
        for (n, byte) in addr.bytes().enumerate() {
            nonce[n % 16] ^= byte;
        }
        let credentials = &self.config.credentials;
        let minted = credentials.mint_sealed(claims, expires, nonce).unwrap();
        Client::new(at(addr), &minted.username, &minted.password)
    }

    pub fn subject(&self, user: &str) -> Subject {
        self.config.credentials.subject(user)
    }

    /// A datagram reaches the listener of `worker`.
    pub fn receive(&mut self, worker: WorkerId, tuple: FiveTuple, bytes: &[u8]) -> Outcome {
        let range = self.fill(bytes);
        let server = &mut self.servers[usize::from(worker.0)];
        let handled = server.handle_client(tuple, &mut self.buf, range, self.clock);
        self.finish(worker, handled)
    }

    /// What `client` sends reaches its worker.
    pub fn send(&mut self, client: &Client, bytes: &[u8]) -> Outcome {
        self.receive(client.worker, client.tuple, bytes)
    }

    /// A datagram from outside reaches the relay socket of `relayed`; panics if there is none.
    #[track_caller]
    pub fn receive_from_peer(
        &mut self,
        relayed: SocketAddr,
        source: &str,
        bytes: &[u8],
    ) -> Outcome {
        let (id, worker) = {
            let house = self.house.borrow();
            let relayed = RelayedAddr::new(relayed);
            let id = house.sockets[&relayed];
            (id, house.owners[&house.landings[&relayed].client])
        };
        self.receive_at_relay(worker, id, at(source), bytes)
    }

    pub fn receive_at_relay(
        &mut self,
        worker: WorkerId,
        id: AllocationId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Outcome {
        let range = self.fill(bytes);
        let server = &mut self.servers[usize::from(worker.0)];
        let source = PeerAddr::new(source);
        let handled = server.handle_peer(id, source, &mut self.buf, range, self.clock.now);
        self.finish(worker, handled)
    }

    /// An ICMP error reaches the relay socket of `relayed`, about what was sent to `peer`.
    #[track_caller]
    pub fn receive_icmp(&mut self, relayed: SocketAddr, peer: &str, error: Icmp) -> Outcome {
        let id = self.house.borrow().sockets[&RelayedAddr::new(relayed)];
        let handled =
            self.servers[0].handle_icmp(id, PeerAddr::new(at(peer)), error, self.clock.now);
        self.finish(WorkerId(0), handled)
    }

    /// Puts `bytes` between exactly as much room as the contract asks for, none of it zero.
    fn fill(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        self.buf.clear();
        self.buf.resize(DATA_INDICATION_HEADROOM, 0xAA);
        self.buf.extend_from_slice(bytes);
        self.buf.resize(self.buf.len() + 3, 0xAA);
        DATA_INDICATION_HEADROOM..DATA_INDICATION_HEADROOM + bytes.len()
    }

    fn finish(&mut self, worker: WorkerId, handled: Handled) -> Outcome {
        let server = &mut self.servers[usize::from(worker.0)];
        server.settle();
        assert_eq!(server.check_invariants(), Ok(()));
        match handled {
            Handled::Answer => Outcome::Answer(Answer(server.answer().to_vec())),
            Handled::AnswerBy(by) => Outcome::AnswerBy(by, Answer(server.answer().to_vec())),
            Handled::Forward(forward) => {
                let bytes = forwarded(server, &self.buf, &forward);
                match forward.to {
                    Target::Client(to) => Outcome::Client { to, bytes },
                    Target::Peer {
                        from,
                        to,
                        fragmentation,
                    } => Outcome::Peer {
                        from: from.socket_addr(),
                        to: to.expose(),
                        fragmentation,
                        payload: bytes,
                    },
                }
            }
            Handled::Consumed => Outcome::Consumed,
            Handled::Dropped(reason) => Outcome::Dropped(reason),
            Handled::Elsewhere(owner) => Outcome::Elsewhere(owner),
            Handled::Spliced(connection) => {
                Outcome::Spliced(Answer(server.answer().to_vec()), connection)
            }
            Handled::HandOver(owner) => Outcome::HandOver(owner),
        }
    }

    /// The connection of `client` is gone, as its worker notices.
    pub fn disconnect(&mut self, client: &Client) {
        let server = &mut self.servers[usize::from(client.worker.0)];
        server.handle_disconnected(client.tuple, self.clock.now);
        assert_eq!(server.check_invariants(), Ok(()));
    }

    /// Time passes, and the workers do what is due.
    pub fn advance(&mut self, seconds: u64) {
        self.stall(seconds);
        self.settle();
        for server in &mut self.servers {
            server.handle_timeout(self.clock.now);
            assert_eq!(server.check_invariants(), Ok(()));
            assert!(
                server.poll_timeout().is_none_or(|at| at > self.clock.now),
                "something is due still"
            );
        }
    }

    /// Time passes, and no worker notices.
    pub fn stall(&mut self, seconds: u64) {
        self.clock.now = self.clock.now.plus(Duration::from_secs(seconds));
        self.clock.unix += seconds;
    }

    /// Tells the workers which of their allocations others have condemned.
    pub fn settle(&mut self) {
        let condemned = std::mem::take(&mut self.house.borrow_mut().condemned);
        for (worker, id) in condemned {
            self.servers[usize::from(worker.0)].handle_condemned(id, self.clock.now);
        }
    }

    /// The servers are told something else.
    pub fn reconfigure(&mut self, setup: &Setup) {
        self.announce(setup);
        for worker in 0..self.servers.len() {
            self.reconfigure_one(worker);
        }
    }

    /// What is to be told to the servers is said to what they share, and to none of them yet.
    pub fn announce(&mut self, setup: &Setup) {
        self.config = setup.config();
        let rates = &self.config.limits.rates;
        self.house.borrow_mut().users.set_rates(rates);
    }

    /// One server is told what was announced.
    pub fn reconfigure_one(&mut self, worker: usize) {
        let config = Arc::clone(&self.config);
        self.servers[worker].reconfigure(config, self.clock);
    }

    pub fn events(&mut self, worker: u16) -> Vec<Event> {
        let server = &mut self.servers[usize::from(worker)];
        std::iter::from_fn(|| server.poll_event()).collect()
    }

    /// Allocations over all workers.
    pub fn allocations(&self) -> u64 {
        self.servers
            .iter()
            .map(|server| server.counters().allocations.load(Ordering::Relaxed))
            .sum()
    }

    /// How often a packet was dropped for `reason`, over all workers.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.servers
            .iter()
            .map(|server| server.counters().drops(reason))
            .sum()
    }

    /// How often `limit` was reached, over all workers.
    pub fn limited(&self, limit: Limit) -> u64 {
        self.servers
            .iter()
            .map(|server| server.counters().limits_reached(limit))
            .sum()
    }

    /// How often a request failed to authenticate for `why`, over all workers.
    pub fn failures(&self, why: AuthFailure) -> u64 {
        self.servers
            .iter()
            .map(|server| server.counters().auth_failures(why))
            .sum()
    }

    /// Packets and bytes on `path` in `direction`, over all workers.
    pub fn traffic(&self, path: Path, direction: Direction) -> (u64, u64) {
        self.servers
            .iter()
            .fold((0, 0), |(packets, bytes), server| {
                let traffic = server.counters().traffic(path, direction);
                (
                    packets + traffic.packets.total(),
                    bytes + traffic.bytes.total(),
                )
            })
    }

    /// Packets and bytes on `path` in `direction` of the allocation at `relayed`.
    pub fn meters(&self, relayed: SocketAddr, path: Path, direction: Direction) -> (u64, u64) {
        let house = self.house.borrow();
        let traffic = house.landings[&RelayedAddr::new(relayed)]
            .meters()
            .traffic(path, direction);
        (traffic.packets.total(), traffic.bytes.total())
    }

    /// The relayed address of `client`'s allocation, the first of them.
    pub fn relayed_of(&self, client: &Client) -> SocketAddr {
        let house = self.house.borrow();
        let own = house.landings.values().filter(|l| l.client == client.tuple);
        let first = own.map(|landing| landing.relayed.socket_addr()).min();
        first.unwrap()
    }

    pub fn has_socket(&self, relayed: SocketAddr) -> bool {
        let house = self.house.borrow();
        house.sockets.contains_key(&RelayedAddr::new(relayed))
    }
}

/// The listener at one of [`LISTENERS`].
pub fn listener(address: &str) -> ListenerId {
    let mut places = (0..).zip(LISTENERS);
    ListenerId(places.find(|(_, at)| *at == address).unwrap().0)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
