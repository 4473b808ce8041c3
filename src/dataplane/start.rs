//! Builds the data plane: every socket is bound and every worker whole before the first one reads.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::dataplane::connected::{Connected, StreamWorkers};
use crate::dataplane::directory::Directory;
use crate::dataplane::journal::Journal;
use crate::dataplane::listeners::{self, Doors};
use crate::dataplane::queues::Queues;
use crate::dataplane::ring::{RingIn, RingOut, ring};
use crate::dataplane::shared::{Command, MAILBOX, Mailbox, Shared};
use crate::dataplane::stream::{Acceptor, DtlsSocket, Rules, Sessions, Streams};
use crate::dataplane::surroundings::Surroundings;
use crate::dataplane::sys::{self, Poller, SocketOptions, UdpSocket, Waker};
use crate::dataplane::worker::{Parts, Reads, Worker};
use crate::dataplane::{Buffers, Config, Dataplane, Handle, Records, StartError, system};
use crate::turn::ports::PortPool;
use crate::turn::unvalidated::Unvalidated;
use crate::turn::{Server, ServerConfig, Transport, WorkerId};

/// Stream workers when their number is not configured are at most so many: each pair of workers has
/// a ring.
const STREAM_WORKERS: usize = 8;

/// What one worker starts with, but for what all share.
struct Desk {
    listeners: Vec<UdpSocket>,
    acceptors: Vec<Acceptor>,
    dtls: Vec<DtlsSocket>,
    rings_out: Vec<RingOut>,
    rings_in: Vec<RingIn>,
    mailbox: Receiver<Command>,
}

pub(super) fn start(
    config: Config,
    server: &Arc<ServerConfig>,
) -> Result<(Dataplane, Records), StartError> {
    let cpus = sys::allowed_cpus();
    let udp = match config.workers {
        0 => cpus.len().max(1),
        count => count,
    };
    let streams = stream_workers(&config, udp);
    let (groups, bound) = bind_all(udp, &config)?;
    let doors = listeners::open_doors(&config, streams)?;
    let others = doors.bound.clone();
    let queues = queues(&groups, &doors, udp);
    let buffers = buffers(&groups, &doors);
    let all = udp + usize::from(streams.count);
    let (mailboxes, receivers) = mailboxes(all)?;
    let shared = share(&config, server, mailboxes, streams)?;
    let (journal, records) = Journal::new();

    let desks = desks(streams, groups, doors, receivers)?;
    let mut counters = Vec::new();
    let mut ready = Vec::new();
    for (id, desk) in (0..).map(WorkerId).zip(desks) {
        let worker = worker(id, desk, &shared, &config, server, &journal)?;
        counters.push(Arc::clone(worker.counters()));
        ready.push(worker);
    }
    let mut threads = Vec::new();
    for (index, worker) in ready.into_iter().enumerate() {
        // With more workers than cores, pinning would only make them wait for each other. A stream
        // worker runs where there is time, so that no handshake delays media.
        let cpu = cpus
            .get(index)
            .copied()
            .filter(|_| config.workers <= cpus.len() && index < udp);
        threads.push(spawn(index, cpu, worker)?);
    }
    let handle = Handle {
        shared,
        counters: counters.into(),
        listeners: Arc::new(Mutex::new(bound)),
        others: others.into(),
        tuning: Arc::new(ArcSwap::from_pointee(config.tuning())),
        queues: Arc::new(queues),
        config: Arc::new(config),
        rules: Arc::new(ArcSwap::new(Arc::clone(server))),
        lost: journal.lost(),
        buffers,
        balance: Arc::default(),
    };
    Ok((Dataplane { handle, threads }, records))
}

/// What the kernel granted, asked of one socket of each group.
fn buffers(groups: &[Vec<UdpSocket>], doors: &Doors) -> Arc<[Buffers]> {
    let udp = groups.iter().filter_map(|group| group.first());
    let dtls = doors.dtls.first().into_iter().flatten();
    let all = udp
        .map(|socket| (Transport::Udp, socket))
        .chain(dtls.map(|door| (Transport::Dtls, &door.socket)));
    let asked = all.filter_map(|(transport, socket)| {
        Some(Buffers {
            transport,
            receive: socket.receive_buffer().ok()?,
            send: socket.send_buffer().ok()?,
        })
    });
    asked.collect()
}

/// Stream workers come behind the UDP workers; without listeners for them there are none.
fn stream_workers(config: &Config, udp: usize) -> StreamWorkers {
    let has_listeners = [&config.listen_tcp, &config.listen_tls, &config.listen_dtls]
        .iter()
        .any(|listeners| !listeners.is_empty());
    let count = match (has_listeners, config.stream_workers) {
        (false, _) => 0,
        (true, 0) => udp.min(STREAM_WORKERS),
        (true, count) => count,
    };
    StreamWorkers {
        first: u16::try_from(udp).unwrap_or(u16::MAX),
        count: u16::try_from(count).unwrap_or(u16::MAX),
    }
}

/// The queues of UDP workers' sockets, and of stream workers' behind them.
fn queues(groups: &[Vec<UdpSocket>], doors: &Doors, udp: usize) -> Queues {
    let queues = Queues::default();
    for group in groups {
        queues.watch(0, group);
    }
    for (worker, sockets) in (udp..).zip(&doors.dtls) {
        for socket in sockets {
            queues.watch(worker, std::slice::from_ref(&socket.socket));
        }
    }
    queues
}

fn mailboxes(count: usize) -> Result<(Vec<Mailbox>, Vec<Receiver<Command>>), StartError> {
    let all = (0..count)
        .map(|_| {
            let (sender, receiver) = sync_channel(MAILBOX);
            Waker::new().map(|waker| (Mailbox { sender, waker }, receiver))
        })
        .collect::<io::Result<Vec<_>>>()
        .map_err(system("make a mailbox"))?;
    Ok(all.into_iter().unzip())
}

fn share(
    config: &Config,
    server: &ServerConfig,
    mailboxes: Vec<Mailbox>,
    streams: StreamWorkers,
) -> Result<Arc<Shared>, StartError> {
    let advertised: Vec<IpAddr> = config.relays.iter().map(|relay| relay.advertised).collect();
    let rng = StdRng::from_seed(entropy()?);
    let shared = Shared::new(
        config.relays.clone(),
        Directory::new(&advertised, &config.ports),
        PortPool::new(&advertised, &config.ports, config.port_rest, rng),
        Unvalidated::new(config.unvalidated),
        mailboxes,
        streams,
    );
    shared.users(|users| users.set_rates(&server.limits.rates));
    Ok(Arc::new(shared))
}

/// Gives every worker its sockets, and a ring to each worker that has connections.
fn desks(
    streams: StreamWorkers,
    groups: Vec<Vec<UdpSocket>>,
    doors: Doors,
    receivers: Vec<Receiver<Command>>,
) -> Result<Vec<Desk>, StartError> {
    let mut desks: Vec<Desk> = receivers
        .into_iter()
        .map(|mailbox| Desk {
            listeners: Vec::new(),
            acceptors: Vec::new(),
            dtls: Vec::new(),
            rings_out: Vec::new(),
            rings_in: Vec::new(),
            mailbox,
        })
        .collect();
    for group in groups {
        let sockets = listeners::for_all(group, desks.len())?;
        for (desk, socket) in desks.iter_mut().zip(sockets) {
            desk.listeners.push(socket);
        }
    }
    let first = usize::from(streams.first);
    let doors = doors.acceptors.into_iter().zip(doors.dtls);
    for (desk, (acceptors, dtls)) in desks.iter_mut().skip(first).zip(doors) {
        desk.acceptors = acceptors;
        desk.dtls = dtls;
    }
    for reader in first..desks.len() {
        let id = WorkerId(u16::try_from(reader).unwrap_or(u16::MAX));
        for writer in (0..desks.len()).filter(|writer| *writer != reader) {
            let (out, into) = ring(id);
            desks[writer].rings_out.push(out);
            desks[reader].rings_in.push(into);
        }
    }
    Ok(desks)
}

fn worker(
    id: WorkerId,
    desk: Desk,
    shared: &Arc<Shared>,
    config: &Config,
    server: &Arc<ServerConfig>,
    journal: &Journal,
) -> Result<Worker, StartError> {
    let poller = Poller::new().map_err(system("open epoll"))?;
    let options = config.tuning().relay_options();
    let backlog = journal.backlog();
    let surroundings = Surroundings::new(Arc::clone(shared), id, poller, options, backlog);
    let turn = Server::new(Arc::clone(server), surroundings, id, entropy()?);
    let rules = Rules {
        tls: config.tls.clone(),
        trusted: config.proxy_trusted.clone().into(),
    };
    let sessions = Sessions::new(
        desk.dtls,
        config.tls.clone(),
        Arc::clone(turn.counters()),
        random,
    )
    .map_err(system("begin DTLS"))?;
    let connected = Connected::new(
        id,
        Arc::clone(shared),
        Arc::clone(turn.counters()),
        Streams::new(rules, desk.acceptors, Arc::clone(turn.counters())),
        sessions,
        desk.rings_out,
        desk.rings_in,
    );
    let reads = if id.0 < shared.stream_workers.first {
        Reads::Listeners
    } else {
        Reads::Connections
    };
    Worker::new(Parts {
        id,
        shared: Arc::clone(shared),
        server: turn,
        listeners: desk.listeners,
        reads,
        connected,
        mailbox: desk.mailbox,
        waker: shared.mailboxes[usize::from(id.0)].waker.clone(),
        journal: journal.clone(),
    })
    .map_err(system("watch a listener"))
}

/// The sockets of each UDP listener, one per worker, and the addresses they are bound to.
fn bind_all(
    workers: usize,
    config: &Config,
) -> Result<(Vec<Vec<UdpSocket>>, Vec<SocketAddr>), StartError> {
    let options = SocketOptions {
        receive_buffer: config.listen_buffer,
        dscp: config.dscp,
    };
    let mut groups = Vec::new();
    let mut bound = Vec::new();
    for wanted in listeners::expand(&config.listen).map_err(system("list addresses"))? {
        let sockets = match listeners::bind(wanted.address, workers, &options) {
            Ok(sockets) => sockets,
            Err(error) if wanted.may_come_later(&error) => continue,
            Err(error) => return Err(error),
        };
        bound.extend(sockets.first().map(UdpSocket::local_addr));
        groups.push(sockets);
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

/// Random bytes from the system, for a CSPRNG.
fn entropy() -> Result<[u8; 32], StartError> {
    random().map_err(system("get random bytes"))
}

fn random() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::from)?;
    Ok(seed)
}
