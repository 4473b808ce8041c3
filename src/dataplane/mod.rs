//! Sockets and threads: UDP workers that each drive one [`turn::Server`](crate::turn::Server),
//! and the directory by which they find each other's allocations.
//!
//! [`Dataplane::start`] binds every listener before any worker reads, and from then on only
//! [`Handle`] speaks to the workers: it reads counters and leaves bounded commands.

mod balance;
mod balancers;
mod connected;
mod delivery;
mod directory;
#[cfg(feature = "dtls")]
pub mod dtls;
mod journal;
mod listeners;
mod outgoing;
mod owners;
mod peers;
pub mod proxy;
mod queues;
mod ring;
mod seen;
mod shared;
mod source;
mod start;
mod stream;
mod surroundings;
pub mod sys;
pub mod tls;
mod tuning;
mod turns;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::proto::AddressFamily;
use crate::turn::ports::PortCounts;
use crate::turn::revocation::Revoked;
use crate::turn::stats::Counters;
use crate::turn::unvalidated::{Rate, Unvalidated};
use crate::turn::{AllocationId, ClientAddr, ListenerId, ServerConfig, Tick, Transport};

pub use journal::{Record, Records, Totals};
pub use queues::Queue;
pub use seen::Seen;
pub use shared::RelayAddress;
pub use tuning::Tuning;

use balance::Balance;
use queues::Queues;
use shared::{Command, Shared};
use sys::SocketOptions;
use tls::TlsKeys;

/// What the data plane is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// UDP listeners; a wildcard stands for every local address of its family.
    pub listen: Vec<SocketAddr>,
    /// TCP listeners. On an address that is a TLS listener too, the first byte tells which it is.
    pub listen_tcp: Vec<SocketAddr>,
    /// TLS listeners.
    pub listen_tls: Vec<SocketAddr>,
    /// DTLS listeners, none of them a UDP listener.
    pub listen_dtls: Vec<SocketAddr>,
    /// Bytes asked for each listener's receive buffer.
    pub listen_buffer: usize,
    /// Relay IP addresses.
    pub relays: Vec<RelayAddress>,
    /// Relay ports.
    pub ports: RangeInclusive<u16>,
    /// How long a port rests before it is used again.
    pub port_rest: Duration,
    /// Bytes asked for each relay socket's receive buffer.
    pub relay_buffer: usize,
    /// DSCP of everything that is sent.
    pub dscp: u8,
    /// How many workers; 0 is one per core that this process may use.
    pub workers: usize,
    /// How many stream workers; 0 is as many as there are workers, at most 8.
    pub stream_workers: usize,
    /// Networks from which a PROXY protocol header tells the client's address.
    pub proxy_trusted: Vec<IpNet>,
    /// Certificates and keys, there when a TLS or DTLS listener is.
    pub tls: Option<Arc<TlsKeys>>,
    /// The cap on replies to unvalidated sources.
    pub unvalidated: Rate,
}

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {address} ({}){}", transport.label(), remedy(*transport, source))]
    Listen {
        /// For clients of this transport.
        transport: Transport,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No local address stands behind the configured listeners.
    #[error("no local address to listen on")]
    NoListener,
    /// Something else that the system refused.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// What an operator may do about a listener that was refused.
fn remedy(transport: Transport, error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let (kind, name) = (error.kind(), transport.label());
    let sockets = if transport.is_stream() { "t" } else { "u" };
    if kind == AddrInUse {
        format!(
            " (another program does, or another taciturn; `ss -{sockets}lpn` names it; \
             listen.{name} or --listen-{name} takes another port)"
        )
    } else if kind == AddrNotAvailable {
        format!(" (listen.{name} names an address that this machine does not have)")
    } else if kind == PermissionDenied {
        " (ports below 1024 take CAP_NET_BIND_SERVICE)".to_owned()
    } else {
        String::new()
    }
}

/// What the kernel granted the socket of a listener, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// Whose clients come by it.
    pub transport: Transport,
    /// For what arrives.
    pub receive: usize,
    /// For what is sent.
    pub send: usize,
}

/// The running workers.
#[derive(Debug)]
pub struct Dataplane {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

/// What may be asked of the workers while they run.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    counters: Arc<[Arc<Counters>]>,
    listeners: Arc<Mutex<Vec<SocketAddr>>>,
    /// Where clients of other transports than UDP are taken; these never change.
    others: Arc<[(Transport, SocketAddr)]>,
    queues: Arc<Queues>,
    config: Arc<Config>,
    /// What of it holds now.
    tuning: Arc<ArcSwap<Tuning>>,
    rules: Arc<ArcSwap<ServerConfig>>,
    lost: Arc<AtomicU64>,
    buffers: Arc<[Buffers]>,
    balance: Arc<Balance>,
}

/// What a look at this machine's addresses came to.
#[derive(Debug, Default)]
pub struct Rescan {
    /// What is listened on from now on.
    pub new: Vec<SocketAddr>,
    /// What could not be.
    pub failed: Vec<StartError>,
}

impl Dataplane {
    /// Binds every listener, then starts the workers. The second half is what happens to
    /// allocations, for a log.
    ///
    /// # Errors
    /// When a listener cannot be bound or the system refuses a thread or a descriptor.
    pub fn start(config: Config, server: Arc<ServerConfig>) -> Result<(Self, Records), StartError> {
        start::start(config, &server)
    }

    /// What may be asked of the workers.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends all allocations and waits for the workers.
    pub fn stop(self) {
        for mailbox in &self.handle.shared.mailboxes {
            mailbox.insist(Command::Stop);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended in a panic");
            }
        }
    }
}

impl Handle {
    /// Each worker's counters.
    #[must_use]
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// What is live now.
    #[must_use]
    pub fn allocations(&self) -> Vec<Seen> {
        let now = Tick::from_nanos(sys::monotonic_nanos());
        seen::allocations(&self.shared.directory, now)
    }

    /// The relay ports by state.
    #[must_use]
    pub fn ports(&self) -> PortCounts {
        self.shared.ports(|ports| ports.counts())
    }

    /// The ports of each relay address by state, in the order of the addresses.
    #[must_use]
    pub fn ports_by_relay(&self) -> Vec<(AddressFamily, PortCounts)> {
        self.shared.ports(|ports| ports.counts_by_relay())
    }

    /// What the kernel says of the receive queues of all workers' listeners.
    #[must_use]
    pub fn queues(&self) -> Vec<Queue> {
        self.queues.look(self.counters.len())
    }

    /// The least receive buffer that the kernel granted a listener, in bytes.
    #[must_use]
    pub fn least_receive_buffer(&self) -> Option<usize> {
        self.queues.least_buffer()
    }

    /// Whether the kernel hands over datagrams of one flow in one piece.
    #[must_use]
    pub fn merges(&self) -> bool {
        self.queues.merge()
    }

    /// Of the table that caps replies to unvalidated sources: how many buckets are in use, and how
    /// many there are.
    #[must_use]
    pub fn unvalidated(&self) -> (usize, usize) {
        let now = Tick::from_nanos(sys::monotonic_nanos());
        (
            self.shared.unvalidated.occupied(now),
            Unvalidated::buckets(),
        )
    }

    /// What the kernel granted each UDP and DTLS listener at the start.
    #[must_use]
    pub fn buffers(&self) -> &[Buffers] {
        &self.buffers
    }

    /// How many of the workers, the first ones, are of UDP; the others are of connections.
    #[must_use]
    pub fn udp_workers(&self) -> usize {
        usize::from(self.shared.stream_workers.first)
    }

    /// Whose the clients of this worker are: `udp`, or `streams`, which are those of connections.
    #[must_use]
    pub fn clients_of(&self, worker: usize) -> &'static str {
        if worker < self.udp_workers() {
            "udp"
        } else {
            "streams"
        }
    }

    /// Looks at how busy workers are; from several looks follows [`Handle::imbalance`].
    pub fn weigh(&self) {
        let udp = self.counters.iter().take(self.udp_workers());
        let busy = udp.map(|counters| counters.busy.total()).collect();
        self.balance.look(sys::monotonic_nanos(), busy);
    }

    /// How much busier the busiest UDP worker was of late than they all are on average: 1 where all
    /// are even or idle, their number where one does everything.
    #[must_use]
    pub fn imbalance(&self) -> f64 {
        self.balance.ratio()
    }

    /// How many journal records were lost: none of what opened or closed, while they are read.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Where clients are listened to, by transport.
    #[must_use]
    pub fn listening(&self) -> Vec<(Transport, SocketAddr)> {
        let udp = self.listeners().into_iter();
        udp.map(|address| (Transport::Udp, address))
            .chain(self.others.iter().copied())
            .collect()
    }

    /// The transport addresses that are listened on, by [`ListenerId`].
    #[must_use]
    pub fn listeners(&self) -> Vec<SocketAddr> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Listens on addresses that appeared on this machine since, if a wildcard stands for them.
    /// Those that vanished keep their sockets: a group never changes, and they may come back.
    ///
    /// # Errors
    /// When this machine's addresses cannot be listed.
    pub fn rescan(&self) -> Result<Rescan, StartError> {
        let all = listeners::expand(&self.config.listen).map_err(system("list addresses"))?;
        let mut known = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let options = SocketOptions {
            receive_buffer: self.config.listen_buffer,
            dscp: self.tuning.load().dscp,
        };
        let mut scan = Rescan::default();
        for wanted in all {
            let address = wanted.address;
            let Ok(place) = u16::try_from(known.len()) else {
                break;
            };
            // Port 0 was given a port when it was first bound.
            if address.port() == 0 || known.contains(&address) {
                continue;
            }
            let workers = usize::from(self.shared.stream_workers.first);
            let bound = listeners::bind(address, workers, &options)
                .inspect(|group| self.queues.watch(0, group));
            match bound.and_then(|group| listeners::for_all(group, self.shared.mailboxes.len())) {
                Ok(sockets) => {
                    for (mailbox, socket) in self.shared.mailboxes.iter().zip(sockets) {
                        mailbox.insist(Command::Listen(ListenerId(place), Box::new(socket)));
                    }
                    known.push(address);
                    scan.new.push(address);
                }
                Err(error) if wanted.may_come_later(&error) => {}
                Err(error) => scan.failed.push(error),
            }
        }
        Ok(scan)
    }

    /// The rules that workers were given last.
    #[must_use]
    pub fn rules(&self) -> Arc<ServerConfig> {
        self.rules.load_full()
    }

    /// Ends what `revoked` has allocated. [`ServerConfig::revocations`] must have it by now, so that
    /// an Allocate on its way is either refused or ended with the rest. Waits while mailboxes are
    /// full.
    pub fn revoke(&self, revoked: &[Revoked]) {
        let revoked: Arc<[Revoked]> = revoked.into();
        for mailbox in &self.shared.mailboxes {
            mailbox.insist(Command::Revoke(Arc::clone(&revoked)));
        }
    }

    /// Ends what those have allocated whom [`ServerConfig::bans`] has by now. Waits while mailboxes
    /// are full.
    pub fn enforce_bans(&self) {
        for mailbox in &self.shared.mailboxes {
            mailbox.insist(Command::EnforceBans);
        }
    }

    /// Ends the allocation called `id`; false if there is none. Waits while mailboxes are full.
    pub fn end(&self, id: AllocationId) -> bool {
        let is_there = self.is_live(id);
        if is_there {
            for mailbox in &self.shared.mailboxes {
                mailbox.insist(Command::End(id));
            }
        }
        is_there
    }

    /// Whether the allocation called `id` lives.
    #[must_use]
    pub fn is_live(&self, id: AllocationId) -> bool {
        self.shared.directory.any(|landing| landing.id() == id)
    }

    /// The clients of living allocations that `is_meant` picks, each once.
    pub fn clients(&self, is_meant: impl Fn(ClientAddr) -> bool) -> Vec<ClientAddr> {
        let mut found: Vec<ClientAddr> = Vec::new();
        self.shared.directory.each(|landing| {
            let client = landing.client.client;
            if !landing.client.is_nowhere() && !found.contains(&client) && is_meant(client) {
                found.push(client);
            }
        });
        found
    }

    /// Gives every worker new rules; what they no longer admit stops.
    pub fn reconfigure(&self, config: &Arc<ServerConfig>) {
        self.rules.store(Arc::clone(config));
        self.shared
            .users(|users| users.set_rates(&config.limits.rates));
        for mailbox in &self.shared.mailboxes {
            mailbox.insist(Command::Reconfigure(Arc::clone(config)));
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}
