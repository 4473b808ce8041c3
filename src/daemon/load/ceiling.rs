//! What the generator itself can do: the same flows against a bare echo on another CPU, which
//! hands each datagram to the other client of its pair with one receive and one send, and knows
//! nothing of TURN.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use super::background::Background;
use super::crowd::{Crowd, Side};
use super::desk::Desk;
use super::pace::Stream;
use super::packet::{Arrival, Framing, Stamp};
use super::progress::Progress;
use super::search::{Next, Search, Tried};
use super::sources::Network;
use super::traffic::{Flow, Traffic};
use super::wire::Wire;
use crate::dataplane::sys::{self, CrowdSocket, Inbox, Outbox};
use crate::proto::{AddressFamily, ChannelData};

/// How long each rate is tried: this only says roughly where the end is.
const STEP: Duration = Duration::from_millis(400);
const START: f64 = 400_000.0;
const BUFFER: usize = 64 << 20;
const BATCH: usize = 64;

/// What a bare echo carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ceiling {
    pub(super) pps: f64,
    /// Microseconds of the echo for each packet.
    pub(super) echo_cpu_us: f64,
}

/// What the echo tells while it runs.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    forwarded: AtomicU64,
    /// Nanoseconds in which it had something to do.
    busy: AtomicU64,
}

/// Searches for the ceiling of `flows` flows.
///
/// # Errors
/// When sockets cannot be had.
pub(super) fn measure(
    shared_socket: bool,
    flows: usize,
    streams: &[Stream],
    segmented: bool,
    max_loss: f64,
    other_cpu: usize,
    progress: &Progress,
) -> anyhow::Result<Option<Ceiling>> {
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let socket = CrowdSocket::open(loopback, BUFFER)?;
    let server = socket.local_addr();
    // The echo is on loopback wherever the server is.
    let clients = if shared_socket {
        Crowd::shared(Network::loopback())?
    } else {
        Crowd::own()?
    };
    let mut wire = Wire {
        clients,
        callees: None,
        peers: None,
        desk: Desk::new(Vec::new(), AddressFamily::V4, 0),
        server,
        callee_server: server,
        window: 1,
    };
    let (flows, addresses) = pairs(&mut wire, flows)?;
    let shared = Arc::new(Shared::default());
    let echo = start(socket, addresses, other_cpu, Arc::clone(&shared));
    let token = rand::random();
    let mut traffic = Traffic::new(flows, streams.to_vec(), segmented, token, false);
    let found = search(&mut traffic, &mut wire, max_loss, &shared, progress);
    shared.stop.store(true, Ordering::Relaxed);
    // It ends by itself, and has nothing to tell.
    echo.join().ok();
    found
}

fn search(
    traffic: &mut Traffic,
    wire: &mut Wire,
    max_loss: f64,
    shared: &Shared,
    progress: &Progress,
) -> anyhow::Result<Option<Ceiling>> {
    const CONFIRMED: f64 = 0.95;
    progress.stage("the generator's own ceiling", 1);
    let mut search = Search::new(START, max_loss).roughly();
    let mut best: Option<Ceiling> = None;
    loop {
        let (Next::Try(rate) | Next::Confirm(rate)) = search.next() else {
            return Ok(best);
        };
        let counts = || {
            let busy = shared.busy.load(Ordering::Relaxed);
            (shared.forwarded.load(Ordering::Relaxed), busy)
        };
        let (forwarded, busy) = counts();
        let step = traffic.run(wire, rate, STEP, &mut Background::none(), progress)?;
        let (forwarded, busy) = (counts().0 - forwarded, counts().1 - busy);
        let pps = step.delivered_pps();
        if step.loss() <= max_loss && best.is_none_or(|best| pps > best.pps) {
            #[expect(clippy::cast_precision_loss, reason = "a second's nanoseconds")]
            let echo_cpu_us = busy as f64 / 1e3 / forwarded.max(1) as f64;
            best = Some(Ceiling { pps, echo_cpu_us });
        }
        if matches!(search.next(), Next::Confirm(_))
            || best.is_some_and(|best| pps > best.pps * CONFIRMED) && !step.kept()
            || progress.stopped()
        {
            return Ok(best);
        }
        search.record(Tried {
            offered: step.offered_pps(),
            loss: step.loss(),
            kept: step.kept(),
        });
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Flows between two halves of as many clients, and where each is to arrive.
fn pairs(wire: &mut Wire, count: usize) -> anyhow::Result<(Vec<Flow>, Vec<SocketAddr>)> {
    const CHANNEL: u16 = 0x4000;
    let mut flows = Vec::with_capacity(count);
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let (seat, to) = wire.clients.seat(wire.server)?;
        addresses.push(
            wire.clients
                .address(seat)
                .context("a client has no address")?,
        );
        flows.push(Flow {
            side: Side::Client,
            seat,
            to,
            framing: Framing::channel(CHANNEL),
            arrival: Arrival::Channel(CHANNEL),
        });
    }
    addresses.rotate_left(count / 2);
    Ok((flows, addresses))
}

fn start(
    socket: CrowdSocket,
    addresses: Vec<SocketAddr>,
    cpu: usize,
    shared: Arc<Shared>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        // Where it may not be pinned, the scheduler finds it a CPU.
        sys::pin_current_thread(cpu).ok();
        let mut inbox = Inbox::new(BATCH);
        let mut outbox = Outbox::new(BATCH, sys::RUN_MAX);
        while !shared.stop.load(Ordering::Relaxed) {
            let began = sys::monotonic_nanos();
            let Ok(runs) = inbox.receive(&socket) else {
                return;
            };
            if runs == 0 {
                continue;
            }
            for index in 0..runs {
                let (run, segment) = inbox.run(index);
                let stamp = run.get(ChannelData::HEADER_LEN..).and_then(Stamp::read);
                let to = stamp
                    .and_then(|stamp| usize::try_from(stamp.flow).ok())
                    .and_then(|flow| addresses.get(flow));
                if let (Some(&to), Some(room)) = (to, outbox.vacant()) {
                    room[..run.len()].copy_from_slice(run);
                    outbox.push(run.len(), None, Some(to), segment);
                }
            }
            let posted = outbox.flush(&socket);
            shared.forwarded.fetch_add(posted.sent, Ordering::Relaxed);
            let busy = sys::monotonic_nanos().saturating_sub(began);
            shared.busy.fetch_add(busy, Ordering::Relaxed);
        }
    })
}
