//! Sockets and threads: UDP workers that each drive one [`turn::Server`](crate::turn::Server),
//! and the directory by which they find each other's allocations.
//!
//! [`Dataplane::start`] binds every listener before any worker reads, and from then on only
//! [`Handle`] speaks to the workers: it reads counters and leaves bounded commands.

mod directory;
#[cfg(feature = "dtls")]
pub mod dtls;
mod journal;
mod listeners;
mod outgoing;
mod owners;
mod shared;
mod source;
mod surroundings;
pub mod sys;
mod turns;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use crate::turn::ports::{PortCounts, PortPool};
use crate::turn::stats::Counters;
use crate::turn::unvalidated::{Rate, Unvalidated};
use crate::turn::{ListenerId, Server, ServerConfig, WorkerId};

pub use journal::Record;
pub use shared::RelayAddress;

use directory::Directory;
use journal::Journal;
use shared::{Command, MAILBOX, Mailbox, Shared};
use surroundings::Surroundings;
use sys::{Poller, SocketOptions, UdpSocket, Waker};
use worker::{Parts, Worker};

/// What the data plane is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// UDP listeners; a wildcard stands for every local address of its family.
    pub listen: Vec<SocketAddr>,
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
    /// The cap on replies to unvalidated sources.
    pub unvalidated: Rate,
}

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {address}{}", remedy(source))]
    Listen {
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
fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let kind = error.kind();
    if kind == AddrInUse {
        " (another program does, or another taciturn; `ss -ulpn` names it; listen.udp or \
         --listen-udp takes another port)"
    } else if kind == AddrNotAvailable {
        " (listen.udp names an address that this machine does not have)"
    } else if kind == PermissionDenied {
        " (ports below 1024 take CAP_NET_BIND_SERVICE)"
    } else {
        ""
    }
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
    config: Arc<Config>,
    lost: Arc<AtomicU64>,
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
    pub fn start(
        config: Config,
        server: Arc<ServerConfig>,
    ) -> Result<(Self, mpsc::Receiver<Record>), StartError> {
        let cpus = sys::allowed_cpus();
        let workers = match config.workers {
            0 => cpus.len().max(1),
            count => count,
        };
        let (groups, bound) = bind_all(workers, &config)?;
        let (mailboxes, receivers): (Vec<_>, Vec<_>) = (0..workers)
            .map(|_| {
                let (sender, receiver) = sync_channel(MAILBOX);
                Waker::new().map(|waker| (Mailbox { sender, waker }, receiver))
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(system("make a mailbox"))?
            .into_iter()
            .unzip();
        let advertised: Vec<IpAddr> = config.relays.iter().map(|relay| relay.advertised).collect();
        let rng = StdRng::from_seed(entropy()?);
        let shared = Arc::new(Shared::new(
            config.relays.clone(),
            Directory::new(&advertised, &config.ports),
            PortPool::new(&advertised, &config.ports, config.port_rest, rng),
            Unvalidated::new(config.unvalidated),
            mailboxes,
        ));
        let (journal, records) = Journal::new();

        // Every worker is whole before the first one reads.
        let mut ready = Vec::new();
        for ((id, mailbox), sockets) in (0..).map(WorkerId).zip(receivers).zip(groups) {
            let poller = Poller::new().map_err(system("open epoll"))?;
            let options = SocketOptions {
                receive_buffer: config.relay_buffer,
                dscp: config.dscp,
            };
            let surroundings = Surroundings::new(Arc::clone(&shared), id, poller, options);
            let turn = Server::new(Arc::clone(&server), surroundings, id, entropy()?);
            let waker = shared.mailboxes[usize::from(id.0)].waker.clone();
            ready.push((
                Arc::clone(turn.counters()),
                Worker::new(Parts {
                    id,
                    shared: Arc::clone(&shared),
                    server: turn,
                    listeners: sockets,
                    mailbox,
                    waker,
                    journal: journal.clone(),
                })
                .map_err(system("watch a listener"))?,
            ));
        }
        let (counters, workers): (Vec<_>, Vec<_>) = ready.into_iter().unzip();
        let mut threads = Vec::new();
        for (index, worker) in workers.into_iter().enumerate() {
            // With more workers than cores, pinning would only make them wait for each other.
            let cpu = cpus
                .get(index)
                .copied()
                .filter(|_| config.workers <= cpus.len());
            threads.push(spawn(index, cpu, worker)?);
        }
        let handle = Handle {
            shared,
            counters: counters.into(),
            listeners: Arc::new(Mutex::new(bound)),
            config: Arc::new(config),
            lost: journal.lost(),
        };
        Ok((Self { handle, threads }, records))
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

    /// The relay ports by state.
    #[must_use]
    pub fn ports(&self) -> PortCounts {
        self.shared.ports(|ports| ports.counts())
    }

    /// How many journal records were lost.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
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
        let options = SocketOptions {
            receive_buffer: self.config.listen_buffer,
            dscp: self.config.dscp,
        };
        let mut known = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
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
            match listeners::bind(address, self.shared.mailboxes.len(), &options) {
                Ok(group) => {
                    for (mailbox, socket) in self.shared.mailboxes.iter().zip(group) {
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

    /// Gives every worker new rules; what they no longer admit stops.
    pub fn reconfigure(&self, config: &Arc<ServerConfig>) {
        for mailbox in &self.shared.mailboxes {
            mailbox.insist(Command::Reconfigure(Arc::clone(config)));
        }
    }
}

/// Sockets by worker, and the addresses they are bound to.
fn bind_all(
    workers: usize,
    config: &Config,
) -> Result<(Vec<Vec<UdpSocket>>, Vec<SocketAddr>), StartError> {
    let options = SocketOptions {
        receive_buffer: config.listen_buffer,
        dscp: config.dscp,
    };
    let mut groups: Vec<Vec<UdpSocket>> = (0..workers).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    for wanted in listeners::expand(&config.listen).map_err(system("list addresses"))? {
        let sockets = match listeners::bind(wanted.address, workers, &options) {
            Ok(sockets) => sockets,
            Err(error) if wanted.may_come_later(&error) => continue,
            Err(error) => return Err(error),
        };
        bound.extend(sockets.first().map(UdpSocket::local_addr));
        for (group, socket) in groups.iter_mut().zip(sockets) {
            group.push(socket);
        }
    }
    if bound.is_empty() {
        return Err(StartError::NoListener);
    }
    Ok((groups, bound))
}

fn spawn(index: usize, cpu: Option<usize>, worker: Worker) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let _guard = EndOnPanic;
            if let Some(cpu) = cpu
                && let Err(error) = sys::pin_current_thread(cpu)
            {
                tracing::warn!(worker = index, %error, "a worker is not pinned to its core");
            }
            if let Err(error) = worker.run() {
                tracing::error!(worker = index, %error, "a worker cannot go on");
                std::process::abort();
            }
        })
        .map_err(system("start a worker"))
}

/// A worker that panicked holds allocations that nobody else can serve: the process ends, and
/// whoever watches it starts it anew.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// Random bytes from the system, for a CSPRNG.
fn entropy() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(io::Error::from)
        .map_err(system("get random bytes"))?;
    Ok(seed)
}
