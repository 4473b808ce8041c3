//! What a worker's [`turn::Server`](crate::turn::Server) asks for: shared tables, and relay
//! sockets in this worker's own poller.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use slab::Slab;

use crate::dataplane::journal::Backlog;
use crate::dataplane::peers::Peers;
use crate::dataplane::shared::{Command, Notice, Shared};
use crate::dataplane::source::Source;
use crate::dataplane::sys::{
    Interest, Poller, Ready, SocketOptions, TcpListener, TcpStream, UdpSocket, Waker,
};
use crate::proto::ConnectionId;
use crate::turn::credential::Subject;
use crate::turn::ports::{Drawn, NoPort, PortWish, Token};
use crate::turn::quota::{Admitted, Applicant};
use crate::turn::rates::SharedBuckets;
use crate::turn::route::{Landing, Landings, PeerKind, Standing};
use crate::turn::stats::Limit;
use crate::turn::unvalidated::Rate;
use crate::turn::{
    AllocationId, ClientAddr, Environment, FiveTuple, ListenerId, PeerAddr, RelayedAddr,
    SocketRefused, Tick, Via, WorkerId,
};

/// With so many datagrams at once a socket is looked at for what did not fit its queue; one that is
/// too small for so many is looked at when it closes.
const BACKLOG: usize = 16;

/// A relay socket and whose it is.
#[derive(Debug)]
pub(crate) struct RelaySocket {
    pub(crate) socket: UdpSocket,
    pub(crate) id: AllocationId,
    /// How many datagrams to look for at once. One, unless the socket is found backlogged turn after
    /// turn: the system call that finds nothing more is a tax on each packet, and what comes in a
    /// burst is mostly merged into one piece.
    pub(crate) expected: usize,
    /// The turn in which it last had as many as were looked for.
    filled: u64,
    /// Datagrams that had found its queue full when that was looked at last.
    queue_drops: u32,
    generation: u32,
}

impl RelaySocket {
    /// Datagrams that found its queue full since this was asked last.
    fn new_queue_drops(&mut self) -> u64 {
        let Ok(drops) = self.socket.queue_drops() else {
            return 0;
        };
        let new = drops.wrapping_sub(self.queue_drops);
        self.queue_drops = drops;
        new.into()
    }
}

/// The relay sockets of one worker.
#[derive(Debug, Default)]
struct RelaySockets {
    slots: Slab<RelaySocket>,
    by_relayed: HashMap<RelayedAddr, usize, foldhash::quality::RandomState>,
    generation: u32,
}

/// One worker's view of the house.
#[derive(Debug)]
pub(crate) struct Surroundings {
    shared: Arc<Shared>,
    worker: WorkerId,
    poller: Poller,
    relays: RelaySockets,
    options: SocketOptions,
    /// Peers' TCP connections.
    pub(crate) peers: Peers,
    /// Notices whose mailbox was full.
    notices: Vec<(WorkerId, Notice)>,
    /// What is still to be told of.
    backlog: Backlog,
    /// Datagrams that found the queue of a relay socket full, not counted yet.
    queue_drops: u64,
    /// Where each listener listens.
    listening: HashMap<ListenerId, SocketAddr, foldhash::quality::RandomState>,
}

impl Surroundings {
    pub(crate) fn new(
        shared: Arc<Shared>,
        worker: WorkerId,
        poller: Poller,
        options: SocketOptions,
        backlog: Backlog,
    ) -> Self {
        Self {
            shared,
            worker,
            poller,
            backlog,
            relays: RelaySockets::default(),
            options,
            peers: Peers::default(),
            notices: Vec::new(),
            queue_drops: 0,
            listening: HashMap::default(),
        }
    }

    /// Where datagrams for a client go: to itself, or to the load balancer in front of it.
    pub(crate) fn way_to(&self, client: ClientAddr) -> Option<SocketAddr> {
        match client.via() {
            Via::DIRECT => Some(client.expose()),
            via => self.shared.balancers.address(via),
        }
    }

    /// Opens relay sockets with these options from now on; those that are open are marked alike, and
    /// keep their buffers.
    pub(crate) fn open_with(&mut self, options: SocketOptions) {
        self.options = options;
        for (_, relay) in &mut self.relays.slots {
            relay.socket.mark(options.dscp);
        }
        self.peers.mark(options.dscp);
    }

    fn notify(&mut self, worker: WorkerId, notice: Notice) {
        if !notify(&self.shared, worker, notice) {
            self.notices.push((worker, notice));
        }
    }

    /// Datagrams that found the queue of a relay socket full, since this was asked last.
    pub(crate) const fn take_queue_drops(&mut self) -> u64 {
        std::mem::replace(&mut self.queue_drops, 0)
    }

    /// Notes where a listener listens.
    pub(crate) fn listens(&mut self, listener: ListenerId, address: SocketAddr) {
        self.listening.insert(listener, address);
    }

    /// Tries again to leave notices whose mailbox was full; false if some still wait.
    pub(crate) fn leave_notices(&mut self) -> bool {
        let shared = &self.shared;
        self.notices
            .retain(|(worker, notice)| !notify(shared, *worker, *notice));
        self.notices.is_empty()
    }

    /// Waits for packets, or for `timeout`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Ready> {
        self.poller.wait(timeout)
    }

    /// Has the poller watch a socket until it can be read from.
    pub(crate) fn watch(&self, socket: impl AsFd, source: Source) -> io::Result<()> {
        self.poller.add(socket, source.token())
    }

    /// Changes what a watched socket is waited for.
    pub(crate) fn rewatch(&self, socket: impl AsFd, source: Source, interest: Interest) {
        if let Err(error) = self.poller.change(socket, source.token(), interest) {
            tracing::debug!(%error, "a connection was not in the poller");
        }
    }

    /// Has the poller no longer watch it.
    pub(crate) fn unwatch(&self, socket: impl AsFd) {
        if let Err(error) = self.poller.remove(socket) {
            // Closing it takes it out all the same.
            tracing::debug!(%error, "a socket was not in the poller");
        }
    }

    /// Has the poller watch the mailbox.
    pub(crate) fn watch_waker(&self, waker: &Waker) -> io::Result<()> {
        self.poller.add(waker, Source::Mailbox.token())
    }

    /// The relay socket in a slot, unless the slot has passed to another one since.
    pub(crate) fn relay_at(&self, slot: u32, generation: u32) -> Option<&RelaySocket> {
        self.relays
            .slots
            .get(slot as usize)
            .filter(|relay| relay.generation == generation)
    }

    /// Notes how many datagrams were found in `turn` at the relay socket in a slot.
    pub(crate) fn found_at(&mut self, slot: u32, datagrams: usize, turn: u64) {
        let Some(relay) = self.relays.slots.get_mut(slot as usize) else {
            return;
        };
        if datagrams >= BACKLOG {
            self.queue_drops += relay.new_queue_drops();
        }
        if datagrams < relay.expected {
            relay.expected = datagrams.max(1);
            return;
        }
        if turn == relay.filled + 1 {
            relay.expected *= 4;
        }
        relay.filled = turn;
    }

    /// What the sockets of a relayed transport address are bound to.
    fn local(&self, relayed: RelayedAddr) -> Result<SocketAddr, SocketRefused> {
        let local = self.shared.local(relayed.ip());
        let local = local.ok_or(SocketRefused::Exhausted)?;
        Ok(SocketAddr::new(local, relayed.port()))
    }

    /// Connects two relayed addresses of this server by a pair of sockets, one for the worker of
    /// each.
    fn link(
        &mut self,
        connection: ConnectionId,
        sender: RelayedAddr,
        target: RelayedAddr,
    ) -> Result<(), SocketRefused> {
        let owner = self.with(target, |landing| landing.standing.worker);
        let owner = owner.ok_or(SocketRefused::Exhausted)?;
        let (ours, stream) = TcpStream::pair().map_err(refused)?;
        let command = Command::Linked {
            target,
            sender,
            stream,
        };
        let mailbox = self.shared.mailboxes.get(usize::from(owner.0));
        if !mailbox.is_some_and(|mailbox| mailbox.leave(command)) {
            return Err(SocketRefused::Exhausted);
        }
        self.peers.link(connection, ours);
        Ok(())
    }

    /// Peers' TCP connections, with what watches them.
    pub(crate) const fn peers(&mut self) -> (&mut Peers, &Poller) {
        (&mut self.peers, &self.poller)
    }

    /// The relay socket of a relayed transport address.
    pub(crate) fn relay(&self, relayed: RelayedAddr) -> Option<&UdpSocket> {
        let slot = self.relays.by_relayed.get(&relayed)?;
        self.relays.slots.get(*slot).map(|relay| &relay.socket)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "what an error is mapped with"
)]
fn refused(error: io::Error) -> SocketRefused {
    if error.kind() == io::ErrorKind::AddrInUse {
        SocketRefused::PortTaken
    } else {
        SocketRefused::Exhausted
    }
}

/// Leaves a notice in a worker's mailbox; false when that is full.
fn notify(shared: &Shared, worker: WorkerId, notice: Notice) -> bool {
    let mailbox = shared.mailboxes.get(usize::from(worker.0));
    mailbox.is_none_or(|mailbox| mailbox.leave(Command::Notice(notice)))
}

impl Landings for Surroundings {
    fn find(&self, relayed: RelayedAddr) -> Option<Arc<Landing>> {
        self.shared.directory.find(relayed)
    }

    fn with<R>(&self, relayed: RelayedAddr, look: impl FnOnce(&Landing) -> R) -> Option<R> {
        self.shared.directory.with(relayed, look)
    }
}

impl Environment for Surroundings {
    fn publish(&mut self, landing: Arc<Landing>) {
        self.shared.directory.publish(landing);
    }

    fn withdraw(&mut self, relayed: RelayedAddr) {
        self.shared.directory.withdraw(relayed);
    }

    fn draw_port(&mut self, wish: PortWish, user: Subject, now: Tick) -> Result<Drawn, NoPort> {
        self.shared.ports(|ports| ports.draw(wish, user, now))
    }

    fn claim_port(&mut self, token: Token, user: Subject, now: Tick) -> Option<RelayedAddr> {
        self.shared.ports(|ports| ports.claim(token, user, now))
    }

    fn rest_port(&mut self, relayed: RelayedAddr, now: Tick) {
        self.shared.ports(|ports| ports.rest(relayed, now));
    }

    fn open_socket(&mut self, relayed: RelayedAddr, id: AllocationId) -> Result<(), SocketRefused> {
        let local = self.local(relayed)?;
        let socket = UdpSocket::relay(local, &self.options).map_err(refused)?;
        self.relays.generation = (self.relays.generation + 1) % Source::GENERATIONS;
        let generation = self.relays.generation;
        let entry = self.relays.slots.vacant_entry();
        let slot = u32::try_from(entry.key()).map_err(|_| SocketRefused::Exhausted)?;
        let source = Source::Relay { slot, generation };
        self.poller.add(&socket, source.token()).map_err(refused)?;
        entry.insert(RelaySocket {
            socket,
            id,
            expected: 1,
            filled: 0,
            queue_drops: 0,
            generation,
        });
        self.relays.by_relayed.insert(relayed, slot as usize);
        Ok(())
    }

    fn close_socket(&mut self, relayed: RelayedAddr) {
        if let Some(slot) = self.relays.by_relayed.remove(&relayed)
            && let Some(mut relay) = self.relays.slots.try_remove(slot)
        {
            self.queue_drops += relay.new_queue_drops();
            self.unwatch(&relay.socket);
        }
        self.peers.close_listener(relayed, &self.poller);
    }

    fn has_room(&self, applicant: &Applicant<'_>, now: Tick) -> Result<(), Limit> {
        self.shared.users(|users| users.has_room(applicant, now))
    }

    fn admit(&mut self, applicant: &Applicant<'_>, holding: Arc<Standing>, now: Tick) -> Admitted {
        self.shared
            .users(|users| users.admit(applicant, holding, now))
    }

    fn shared_buckets(&mut self, user: Subject, holding: &Standing) -> SharedBuckets {
        self.shared
            .users(|users| users.shared_buckets(user, holding))
    }

    fn is_behind(&self) -> bool {
        self.backlog.is_full()
    }

    fn allow_newcomer(&self, ip: IpAddr, rate: Rate, now: Tick) -> bool {
        self.shared.newcomers.allow(ip, rate, now)
    }

    fn allow_failure(&self, ip: IpAddr, rate: Rate, now: Tick) -> bool {
        self.shared.failures.allow(ip, rate, now)
    }

    fn release(&mut self, user: Subject, holding: &Arc<Standing>) {
        self.shared.users(|users| users.release(user, holding));
    }

    fn condemn(&mut self, worker: WorkerId, id: AllocationId) {
        self.notify(worker, Notice::Condemned(id));
    }

    fn disconnected(&mut self, owner: WorkerId, tuple: FiveTuple) {
        self.notify(owner, Notice::Disconnected(tuple));
    }

    fn own(&mut self, tuple: FiveTuple) {
        self.shared.owners.set(tuple, Some(self.worker));
    }

    fn disown(&mut self, tuple: FiveTuple) {
        self.shared.owners.set(tuple, None);
    }

    fn other_owner(&self, tuple: FiveTuple) -> Option<WorkerId> {
        self.shared
            .owners
            .of(&tuple)
            .filter(|owner| *owner != self.worker)
    }

    fn report_errors(&mut self, relayed: RelayedAddr) {
        let slot = self.relays.by_relayed.get(&relayed).copied();
        let relay = slot.and_then(|slot| self.relays.slots.get_mut(slot));
        if let Some(relay) = relay
            && let Err(error) = relay.socket.report_errors()
        {
            tracing::debug!(%error, "a relay socket does not report ICMP errors");
        }
    }

    fn listening(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.listening.get(&listener).copied()
    }

    fn is_worker(&self, worker: WorkerId) -> bool {
        usize::from(worker.0) < self.shared.mailboxes.len()
    }

    fn allow_unvalidated(&self, ip: IpAddr, now: Tick) -> bool {
        self.shared.unvalidated.allow(ip, now)
    }

    fn allow_connected(&self, ip: IpAddr, now: Tick) -> bool {
        self.shared.unvalidated.allow_connected(ip, now)
    }

    fn listen(&mut self, relayed: RelayedAddr, id: AllocationId) -> Result<(), SocketRefused> {
        let local = self.local(relayed)?;
        let socket = TcpListener::relay(local, &self.options).map_err(refused)?;
        self.peers
            .listen(relayed, id, socket, &self.poller)
            .map_err(refused)
    }

    fn connect(
        &mut self,
        connection: ConnectionId,
        from: RelayedAddr,
        to: PeerAddr,
        kind: PeerKind,
    ) -> Result<(), SocketRefused> {
        if !self.peers.has_room() {
            return Err(SocketRefused::Exhausted);
        }
        if kind == PeerKind::Own {
            return self.link(connection, from, RelayedAddr::new(to.expose()));
        }
        let local = self.local(from)?;
        let stream = TcpStream::connect(local, to.expose(), &self.options).map_err(refused)?;
        self.peers
            .connect(connection, stream, &self.poller)
            .map_err(refused)
    }

    fn close(&mut self, connection: ConnectionId) {
        self.peers.close(connection, &self.poller);
    }

    fn takes_connections(&self, worker: WorkerId) -> bool {
        self.shared.stream_workers.has(worker)
    }
}
