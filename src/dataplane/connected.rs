//! The clients that are not on plain UDP, wherever their connection is: with this worker, or beyond
//! a ring with the one that owns it. UDP workers have none of their own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::dataplane::balancers::KnownBalancers;
use crate::dataplane::proxy::{self, Parsed};
use crate::dataplane::ring::{RingIn, RingOut};
use crate::dataplane::shared::Shared;
use crate::dataplane::stream::{Sessions, Streams, Worth};
use crate::dataplane::surroundings::Surroundings;
use crate::turn::stats::{Counters, DropReason};
use crate::turn::{ClientAddr, FiveTuple, ListenerId, Tick, Transport, WorkerId};

/// Which workers have connections. The listeners of other transports than UDP are numbered so that
/// their place tells the worker that owns them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StreamWorkers {
    pub(crate) first: u16,
    pub(crate) count: u16,
}

impl StreamWorkers {
    /// The worker of a listener that is not on UDP.
    pub(crate) fn owner(self, listener: ListenerId) -> WorkerId {
        WorkerId(self.first + listener.place().checked_rem(self.count).unwrap_or(0))
    }

    /// Whether a worker is one of them.
    pub(crate) fn has(self, worker: WorkerId) -> bool {
        (self.first..self.first.saturating_add(self.count)).contains(&worker.0)
    }

    /// What stands for the same address and transport as `listener` at another of these workers.
    pub(crate) fn listener_of(self, listener: ListenerId, worker: WorkerId) -> ListenerId {
        let index = listener.place().checked_div(self.count).unwrap_or(0);
        let place = self.place(index, worker.0.saturating_sub(self.first));
        ListenerId::new(listener.transport(), place)
    }

    /// The place of address `index` at the worker that is the `worker`th of these.
    pub(crate) const fn place(self, index: u16, worker: u16) -> u16 {
        index * self.count + worker
    }
}

/// Packets taken from one ring in a turn.
const DRAINED: usize = 256;

/// The ways to them.
#[derive(Debug)]
pub(crate) struct Connected {
    id: WorkerId,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    pub(crate) streams: Streams,
    pub(crate) sessions: Sessions,
    rings_out: Vec<RingOut>,
    rings_in: Vec<RingIn>,
    balancers: KnownBalancers,
}

impl Connected {
    pub(crate) fn new(
        id: WorkerId,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        streams: Streams,
        sessions: Sessions,
        rings_out: Vec<RingOut>,
        rings_in: Vec<RingIn>,
    ) -> Self {
        Self {
            id,
            shared,
            counters,
            streams,
            sessions,
            rings_out,
            rings_in,
            balancers: KnownBalancers::default(),
        }
    }

    /// Whether datagrams from this source are those of a load balancer.
    pub(crate) fn trusts(&self, source: IpAddr) -> bool {
        self.streams.trusts(source)
    }

    /// Believes the PROXY headers of these networks, and of no others, from now on. Connections that
    /// stand keep the client that theirs named.
    pub(crate) fn trust(&mut self, networks: Arc<[IpNet]>) {
        self.streams.trust(networks);
    }

    /// Marks what leaves for clients with this DSCP from now on.
    pub(crate) fn mark(&mut self, dscp: u8) {
        self.streams.mark_packets(dscp);
        self.sessions.mark(dscp);
    }

    /// Whose datagram came through the load balancer `source`, and how long its header is; a datagram
    /// without one is counted.
    pub(crate) fn behind(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Option<(ClientAddr, usize)> {
        let known = match proxy::parse_datagram(datagram) {
            Parsed::Header {
                len,
                client: Some(client),
            } => {
                let via = self.shared.balancers.number(source, &mut self.balancers);
                via.map(|via| (ClientAddr::behind(client.expose(), via), len))
            }
            // It speaks for itself, as in a health check.
            Parsed::Header { len, client: None } => Some((ClientAddr::new(source), len)),
            Parsed::NeedMore | Parsed::Absent | Parsed::Invalid => None,
        };
        if known.is_none() {
            self.counters.dropped(DropReason::NoProxyHeader, 1);
        }
        known
    }

    /// Adds a message for a client; it is written, or its worker woken, with the flush.
    pub(crate) fn push(&mut self, to: FiveTuple, parts: [&[u8]; 3], worth: Worth, now: Tick) {
        let owner = self.shared.stream_workers.owner(to.listener);
        if owner == self.id {
            self.push_here(to, &parts, worth, now);
            return;
        }
        let ring = self.rings_out.iter_mut().find(|r| r.reader() == owner);
        if !ring.is_some_and(|ring| ring.push(to, parts, worth)) {
            self.counters.dropped(DropReason::QueueFull, 1);
        }
    }

    fn push_here(&mut self, to: FiveTuple, parts: &[&[u8]], worth: Worth, now: Tick) {
        if to.listener.transport() == Transport::Dtls {
            self.sessions.push(to, parts);
        } else {
            self.streams.push(to, parts, worth, now);
        }
    }

    /// Takes what other workers have left for this one's clients, so much at once that reading,
    /// writing and deadlines have their turn too; says whether something is left.
    pub(crate) fn drain(&mut self, now: Tick) -> bool {
        let mut rings = std::mem::take(&mut self.rings_in);
        for ring in &mut rings {
            for _ in 0..DRAINED {
                if !ring.pop(|to, worth, parts| self.push_here(to, &parts, worth, now)) {
                    break;
                }
            }
        }
        let is_left = rings.iter().any(|ring| !ring.is_empty());
        self.rings_in = rings;
        is_left
    }

    /// When a deadline of a client is to be looked at.
    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        let deadlines = [self.streams.poll_timeout(), self.sessions.poll_timeout()];
        deadlines.into_iter().flatten().min()
    }

    /// Has the poller watch where clients come.
    pub(crate) fn watch(&self, house: &Surroundings) -> io::Result<()> {
        self.streams.watch(house)?;
        self.sessions.watch(house)
    }

    /// Where the listeners of this worker listen.
    pub(crate) fn listening(&self) -> impl Iterator<Item = (ListenerId, SocketAddr)> + '_ {
        self.streams.listening().chain(self.sessions.listening())
    }

    /// Whose connection or session is gone, one by one.
    pub(crate) fn take_gone(&mut self) -> Option<FiveTuple> {
        self.streams
            .take_gone()
            .or_else(|| self.sessions.take_gone())
    }

    /// Ends everything, because the worker stops.
    pub(crate) fn close_all(&mut self, house: &Surroundings) {
        self.streams.close_all(house);
        self.sessions.close_all();
    }

    /// Writes what waits, and wakes whom this worker has left something.
    pub(crate) fn flush(&mut self, house: &Surroundings, now: Tick) {
        for ring in &mut self.rings_out {
            if ring.take_untold()
                && let Some(mailbox) = self.shared.mailboxes.get(usize::from(ring.reader().0))
            {
                mailbox.waker.wake();
            }
        }
        self.streams.flush(house, now);
    }
}
