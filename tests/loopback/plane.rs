//! A data plane in this process, on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use taciturn::dataplane::tls::{KeyFiles, TlsKeys};
use taciturn::dataplane::{Config, Dataplane, Handle, Record, Records, RelayAddress, Tuning};
use taciturn::proto::{AddressFamily, ChannelRange};
use taciturn::turn::ban::Bans;
use taciturn::turn::credential::{
    Claims, Credentials, Label, SealingKeys, Secret, SecretsRing, StaticUsers, mint,
};
use taciturn::turn::policy::{FleetNode, PeerJudge, PeerPolicy, PeerRules, RelayRange};
use taciturn::turn::revocation::Revocations;
use taciturn::turn::stats::{Counters, Direction, DropReason, Path};
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{
    Alternate, Bind, BindingRules, Limits, NatDiscovery, NonceKey, ServerConfig, TicketKey,
    Transport,
};
use zeroize::Zeroizing;

use super::client::{Client, Credential};
use super::eventually;
use super::stream::{Stream, certificate};

pub(crate) const V4: AddressFamily = AddressFamily::V4;
pub(crate) const V6: AddressFamily = AddressFamily::V6;
/// Above the ports that the kernel gives to sockets without one, so that no client has one.
pub(crate) const PORTS: RangeInclusive<u16> = 61_000..=65_535;
const SECRET: &str = "not a secret outside of this test";
const REALM: &str = "loopback.test";

/// What a plane is made of; change a field, then call [`Setup::start`].
pub(crate) struct Setup {
    pub(crate) workers: usize,
    pub(crate) policy: PeerPolicy,
    /// What credentials may claim.
    pub(crate) ceiling: PeerPolicy,
    /// The name of this node.
    pub(crate) node: Option<&'static str>,
    pub(crate) bind: Bind,
    pub(crate) v4: RelayAddress,
    pub(crate) v6: RelayAddress,
    pub(crate) ports: RangeInclusive<u16>,
    /// What these were before.
    pub(crate) former_ports: Vec<RangeInclusive<u16>>,
    pub(crate) dscp: u8,
    /// Bytes of each relay socket's receive buffer.
    pub(crate) relay_buffer: usize,
    pub(crate) fleet: Vec<FleetNode>,
    pub(crate) allow: Vec<&'static str>,
    pub(crate) strict: bool,
    pub(crate) tcp_relay: bool,
    pub(crate) media_quality: bool,
    /// Stream workers; 0 is no TCP and no TLS.
    pub(crate) stream_workers: usize,
    /// Whether TCP and TLS share a port.
    pub(crate) one_port: bool,
    pub(crate) trusted: Vec<&'static str>,
    pub(crate) binding: BindingRules,
    pub(crate) mobility: bool,
    pub(crate) listen: Vec<SocketAddr>,
    /// Whether the listeners form a rectangle that serves RFC 5780.
    pub(crate) nat_discovery: bool,
    pub(crate) revocations: Revocations,
    pub(crate) bans: Bans,
    pub(crate) limits: Limits,
}

impl Setup {
    /// The default policy: nothing but relayed addresses.
    pub(crate) fn relay(workers: usize) -> Self {
        let same = |ip: IpAddr| RelayAddress {
            local: ip,
            advertised: ip,
        };
        Self {
            workers,
            policy: PeerPolicy::Relay,
            ceiling: PeerPolicy::Any,
            node: None,
            bind: Bind::Auto,
            v4: same(loopback_of_its_own().into()),
            v6: same(Ipv6Addr::LOCALHOST.into()),
            ports: PORTS,
            former_ports: Vec::new(),
            dscp: 0,
            relay_buffer: 1 << 20,
            fleet: Vec::new(),
            allow: Vec::new(),
            strict: false,
            binding: BindingRules::default(),
            mobility: false,
            listen: vec![
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
                SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0),
            ],
            nat_discovery: false,
            revocations: Revocations::default(),
            bans: Bans::default(),
            limits: Limits::default(),
            tcp_relay: false,
            media_quality: true,
            stream_workers: 0,
            one_port: false,
            trusted: Vec::new(),
        }
    }

    /// The default policy with TCP and TLS listeners.
    pub(crate) fn streams(workers: usize) -> Self {
        Self {
            stream_workers: workers,
            ..Self::relay(workers)
        }
    }

    /// Classic TURN, with loopback opened.
    pub(crate) fn any(workers: usize) -> Self {
        Self {
            policy: PeerPolicy::Any,
            allow: vec!["127.0.0.0/8", "::1/128"],
            ..Self::relay(workers)
        }
    }

    pub(crate) fn start(self) -> Plane {
        let relays = vec![self.v4, self.v6];
        let here = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let at = if self.one_port { free_tcp_port() } else { here };
        let streams: Vec<SocketAddr> = (self.stream_workers > 0)
            .then_some(at)
            .into_iter()
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = certificate(directory.path(), "turn.test");
        let keys = TlsKeys::load(vec![KeyFiles { cert, key }]).unwrap();
        let config = Config {
            listen: self.listen.clone(),
            listen_tcp: streams.clone(),
            listen_tls: streams,
            listen_dtls: if cfg!(feature = "dtls") && self.stream_workers > 0 {
                vec![here]
            } else {
                Vec::new()
            },
            listen_buffer: 1 << 20,
            relays: relays.clone(),
            ports: self.ports.clone(),
            port_rest: Duration::from_secs(60),
            relay_buffer: self.relay_buffer,
            dscp: self.dscp,
            workers: self.workers,
            stream_workers: self.stream_workers,
            proxy_trusted: self
                .trusted
                .iter()
                .map(|net| net.parse().unwrap())
                .collect(),
            tls: Some(Arc::new(keys)),
            unvalidated: Rate {
                per_second: 10_000,
                burst: 10_000,
            },
        };
        let (dataplane, records) = Dataplane::start(config, self.server(&relays)).unwrap();
        let handle = dataplane.handle().clone();
        Plane {
            dataplane: Some(dataplane),
            handle,
            records,
            users: 0,
        }
    }

    fn server(&self, relays: &[RelayAddress]) -> Arc<ServerConfig> {
        let judge = PeerJudge::new(PeerRules {
            relay: RelayRange {
                addresses: relays.iter().map(|relay| relay.advertised).collect(),
                ports: self.ports.clone(),
            },
            own_sockets: Vec::new(),
            own_senders: Vec::new(),
            own_addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            fleet: self.fleet.clone(),
            allow: self.allow.iter().map(|net| net.parse().unwrap()).collect(),
            deny: Vec::new(),
        })
        .with_former_ports(&self.former_ports);
        Arc::new(ServerConfig {
            realm: REALM.to_owned(),
            channels: ChannelRange::Rfc8656,
            credentials: credentials(),
            nonce_key: NonceKey::new([9; 32]),
            policy: self.policy.clone(),
            ceiling: self.ceiling.clone(),
            node: self.node.and_then(Label::new),
            max_ttl: Duration::from_secs(172_800),
            judge,
            bind: self.bind,
            allocation_lifetime: Duration::from_secs(3_600),
            session_max: Duration::from_secs(86_400),
            strict: self.strict,
            limits: self.limits,
            binding: self.binding.clone(),
            alternate: Alternate::default(),
            draining: false,
            tickets: self
                .mobility
                .then(|| TicketKey::new(Zeroizing::new([3; 32]))),
            nat_discovery: if self.nat_discovery {
                NatDiscovery::new(&self.listen, &self.listen)
            } else {
                NatDiscovery::default()
            },
            tcp_relay: self.tcp_relay,
            media_quality: self.media_quality,
            revocations: self.revocations.clone(),
            bans: self.bans.clone(),
        })
    }
}

/// A running plane; it stops when it is dropped.
pub(crate) struct Plane {
    dataplane: Option<Dataplane>,
    pub(crate) handle: Handle,
    records: Records,
    users: u32,
}

impl Plane {
    /// Where clients of this family reach it.
    pub(crate) fn listener(&self, family: AddressFamily) -> SocketAddr {
        let mut listeners = self.handle.listeners().into_iter();
        listeners
            .find(|listener| AddressFamily::of(listener.ip()) == family)
            .unwrap()
    }

    /// A client of a user of its own, over this family.
    pub(crate) fn client(&mut self, family: AddressFamily) -> Client {
        self.users += 1;
        let user = format!("user-{}", self.users);
        Client::new(self.listener(family), credential(&user, unix() + 3_600))
    }

    /// A client over IPv4 whose sealed username says `claims`.
    pub(crate) fn sealed(&self, claims: &Claims) -> Client {
        Client::new(self.listener(V4), sealed(claims))
    }

    /// Where clients of this transport reach it.
    pub(crate) fn reached_over(&self, transport: Transport) -> SocketAddr {
        let listening = self.handle.listening().into_iter();
        let mut over = listening.filter(|(other, _)| *other == transport);
        over.next().unwrap().1
    }

    /// A client of a user of its own, over this transport and IPv4.
    pub(crate) fn client_over(&mut self, transport: Transport) -> Client {
        let mut client = self.client(V4);
        self.reconnect(&mut client, transport);
        client
    }

    /// Takes a client to another socket, or a connection of this transport; what it had before.
    pub(crate) fn reconnect(
        &self,
        client: &mut Client,
        transport: Transport,
    ) -> (UdpSocket, Option<Stream>) {
        let server = self.reached_over(transport);
        let stream = match transport {
            Transport::Udp | Transport::Dtls => None,
            Transport::Tcp => Some(Stream::tcp(server)),
            Transport::Tls => Some(Stream::tls(server)),
        };
        #[cfg(feature = "dtls")]
        if transport == Transport::Dtls {
            client.dtls = Some(super::dtls::Dtls::connect(server));
        }
        client.server = server;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = std::mem::replace(&mut client.socket, socket);
        (socket, std::mem::replace(&mut client.stream, stream))
    }

    /// The same with a relayed address.
    #[track_caller]
    pub(crate) fn party_over(&mut self, transport: Transport) -> (Client, SocketAddr) {
        let mut client = self.client_over(transport);
        let relayed = client.allocate(V4);
        (client, relayed)
    }

    /// A client over this family with a relayed address of the same.
    #[track_caller]
    pub(crate) fn party(&mut self, family: AddressFamily) -> (Client, SocketAddr) {
        let mut client = self.client(family);
        let relayed = client.allocate(family);
        (client, relayed)
    }

    pub(crate) fn counters(&self) -> &[Arc<Counters>] {
        self.handle.counters()
    }

    pub(crate) fn sum(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.counters().iter().map(|worker| count(worker)).sum()
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.sum(|worker| worker.drops(reason))
    }

    pub(crate) fn packets(&self, path: Path, direction: Direction) -> u64 {
        self.sum(|worker| worker.traffic(path, direction).packets.total())
    }

    /// Packets on `path`: from clients, and to clients.
    pub(crate) fn both_ways(&self, path: Path) -> [u64; 2] {
        [Direction::In, Direction::Out].map(|direction| self.packets(path, direction))
    }

    pub(crate) fn misdirected(&self) -> u64 {
        self.sum(|worker| worker.misdirected.total())
    }

    /// Each worker's live allocations.
    pub(crate) fn allocations(&self) -> Vec<u64> {
        let live = |worker: &Arc<Counters>| worker.allocations.load(Ordering::Relaxed);
        self.counters().iter().map(live).collect()
    }

    /// Does `work` and waits until as many more packets were dropped for `reason`, and no others.
    #[track_caller]
    pub(crate) fn drops_by(&self, reason: DropReason, more: u64, work: impl FnOnce()) {
        let all = || -> u64 {
            DropReason::ALL
                .iter()
                .map(|reason| self.drops(*reason))
                .sum()
        };
        let before = (self.drops(reason), all());
        work();
        let after = (before.0 + more, before.1 + more);
        eventually(reason.label(), || all() >= after.1);
        assert_eq!((self.drops(reason), all()), after, "{}", reason.label());
    }

    /// What happened to allocations so far and was not asked for yet, at most so much.
    pub(crate) fn records(&mut self, most: usize) -> Vec<Record> {
        let records = std::iter::from_fn(|| self.records.try_recv());
        records.take(most).collect()
    }

    /// The next that happened to an allocation.
    pub(crate) fn record(&mut self) -> Record {
        let mut record = None;
        eventually("a record of an allocation", || {
            record = self.records.try_recv();
            record.is_some()
        });
        record.unwrap()
    }
}

impl Plane {
    /// Tells the workers other rules.
    pub(crate) fn reconfigure(&self, setup: &Setup) {
        let relays = [setup.v4, setup.v6];
        self.handle.reconfigure(&setup.server(&relays));
    }

    /// Tells the workers other rules, and all that `change` makes of what a usual plane is told.
    pub(crate) fn retune(&self, setup: &Setup, change: impl FnOnce(&mut Tuning)) {
        let mut tuning = Tuning {
            ports: setup.ports.clone(),
            port_rest: Duration::from_secs(60),
            relay_buffer: 1 << 20,
            dscp: setup.dscp,
            proxy_trusted: setup
                .trusted
                .iter()
                .map(|net| net.parse().unwrap())
                .collect(),
            unvalidated: Rate {
                per_second: 10_000,
                burst: 10_000,
            },
        };
        change(&mut tuning);
        self.reconfigure(setup);
        self.handle.retune(tuning);
    }

    /// Ends every allocation and every worker.
    pub(crate) fn stop(&mut self) {
        if let Some(dataplane) = self.dataplane.take() {
            dataplane.stop();
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A credential that every plane takes until `expires`.
pub(crate) fn credential(user: &str, expires: u64) -> Credential {
    let minted = mint(&Secret::new("test", SECRET), user, expires).unwrap();
    Credential {
        username: minted.username,
        password: minted.password.as_str().to_owned(),
    }
}

/// What every plane knows its users by.
pub(crate) fn credentials() -> Credentials {
    let ring = SecretsRing::new(vec![Secret::new("test", SECRET)]);
    let keys = SealingKeys::new(&[Zeroizing::new([4; 32])]);
    Credentials::new(ring, StaticUsers::default(), [7; 32]).with_sealing(keys, REALM)
}

/// What is sealed for `user` in `call`, and nothing else.
pub(crate) fn claims(user: &str, call: &str) -> Claims {
    let credentials = credentials();
    Claims {
        call: credentials.call(call),
        ..Claims::new(credentials.subject(user), unix())
    }
}

/// A credential for an hour that every plane takes, if it is not pinned to another.
pub(crate) fn sealed(claims: &Claims) -> Credential {
    static MINTED: AtomicU64 = AtomicU64::new(0);
    let number = MINTED.fetch_add(1, Ordering::Relaxed);
    let nonce = u128::from(number).to_be_bytes();
    let minted = credentials()
        .mint_sealed(claims, unix() + 3_600, nonce)
        .unwrap();
    Credential {
        username: minted.username,
        password: minted.password.as_str().to_owned(),
    }
}

pub(crate) fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn free_tcp_port() -> SocketAddr {
    let here = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let socket = std::net::TcpListener::bind(here).unwrap();
    socket.local_addr().unwrap()
}

/// An IPv4 loopback address that nobody else uses, so that all of its ports are free.
pub(crate) fn loopback_of_its_own() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, 128 | high, low, number)
}
