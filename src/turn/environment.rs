//! What a [`Server`](super::Server) asks of the house around it: the tables that all workers
//! share, and the sockets that only the data plane can open.
//!
//! These are calls and not queued commands, because each is done in microseconds without waiting
//! (bind(2) does not block) and its outcome decides the very response that is being built; a
//! pending state between question and answer could be lost, an outcome cannot. None of them is
//! called for a packet of a live route.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::address::{FiveTuple, ListenerId, PeerAddr, RelayedAddr, WorkerId};
use super::clock::Tick;
use super::credential::Subject;
use super::ports::{Drawn, NoPort, PortWish, Token};
use super::quota::{Admitted, Applicant};
use super::rates::SharedBuckets;
use super::route::{AllocationId, Landing, Landings, PeerKind, Standing};
use super::stats::Limit;
use super::unvalidated::Rate;
use crate::proto::ConnectionId;

/// A relay socket could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketRefused {
    /// Another process holds the port.
    PortTaken,
    /// No descriptors, no memory, no such address.
    Exhausted,
}

/// The shared tables and the sockets.
pub trait Environment: Landings {
    /// Makes `landing` what every worker finds at its relayed address.
    fn publish(&mut self, landing: Arc<Landing>);
    /// Takes it away; from then on nobody finds it.
    fn withdraw(&mut self, relayed: RelayedAddr);

    /// Draws a relay port (RFC 8656 §7.2), with its neighbour reserved if wished.
    ///
    /// # Errors
    /// When no port of that kind is left, or the family has no relay address.
    fn draw_port(&mut self, wish: PortWish, user: Subject, now: Tick) -> Result<Drawn, NoPort>;
    /// Takes the port that `token` reserved for the same user.
    fn claim_port(&mut self, token: Token, user: Subject, now: Tick) -> Option<RelayedAddr>;
    /// Sends a port to rest.
    fn rest_port(&mut self, relayed: RelayedAddr, now: Tick);

    /// Opens the relay socket of `relayed` for the allocation `id`.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn open_socket(&mut self, relayed: RelayedAddr, id: AllocationId) -> Result<(), SocketRefused>;
    /// Closes it, or the socket of [`listen`](Self::listen), if it is open.
    fn close_socket(&mut self, relayed: RelayedAddr);

    /// Whether [`Environment::admit`] would take one more allocation now.
    ///
    /// # Errors
    /// The limit that is reached.
    fn has_room(&self, applicant: &Applicant<'_>, now: Tick) -> Result<(), Limit>;
    /// Counts an allocation on its user, its tenant and all, exactly.
    fn admit(&mut self, applicant: &Applicant<'_>, holding: Arc<Standing>, now: Tick) -> Admitted;
    /// Takes it off again.
    fn release(&mut self, user: Subject, holding: &Arc<Standing>);
    /// The buckets that an admitted allocation shares with others, at the rates that the house was
    /// told for all its servers; see [`Users::set_rates`](super::quota::Users::set_rates).
    fn shared_buckets(&mut self, user: Subject, holding: &Standing) -> SharedBuckets;
    /// Whether so much is still to be told of that nothing may begin that would have to be told of
    /// too.
    fn is_behind(&self) -> bool {
        false
    }
    /// Takes one Allocate request off the budget of the network that `ip` is in.
    fn allow_newcomer(&self, ip: IpAddr, rate: Rate, now: Tick) -> bool;
    /// Takes one failed authentication off the budget of the network that `ip` is in.
    fn allow_failure(&self, ip: IpAddr, rate: Rate, now: Tick) -> bool;
    /// Tells the worker that owns `id` to end it; its deadline has passed already.
    fn condemn(&mut self, worker: WorkerId, id: AllocationId);

    /// Notes that this worker owns the 5-tuple.
    fn own(&mut self, tuple: FiveTuple);
    /// Notes that it no longer does.
    fn disown(&mut self, tuple: FiveTuple);
    /// Which other worker owns it, on the path of a miss.
    fn other_owner(&self, tuple: FiveTuple) -> Option<WorkerId>;
    /// Tells the worker that owns the 5-tuple that its connection is gone.
    fn disconnected(&mut self, owner: WorkerId, tuple: FiveTuple);
    /// Whether there is a worker of that name, which a ticket from before a restart need not know.
    fn is_worker(&self, worker: WorkerId) -> bool;

    /// Has the relay socket of `relayed` report ICMP errors; they may come after it is closed.
    fn report_errors(&mut self, _relayed: RelayedAddr) {}

    /// Where a listener listens, if that is known.
    fn listening(&self, _listener: ListenerId) -> Option<SocketAddr> {
        None
    }

    /// Takes one reply to the unvalidated source `ip` off its budget.
    fn allow_unvalidated(&self, ip: IpAddr, now: Tick) -> bool;
    /// Takes one challenge to a source that is there, and showed no credential, off the budget of
    /// its network.
    fn allow_connected(&self, ip: IpAddr, now: Tick) -> bool;

    // RFC 6062. Only a worker whose clients speak TCP or TLS is asked for these; one that has no
    // such clients leaves them as they are.

    /// Listens for peers' TCP connections at `relayed`, for the allocation `id`. Each goes to
    /// [`Server::handle_accepted`](super::Server::handle_accepted).
    ///
    /// # Errors
    /// When the kernel refuses.
    fn listen(&mut self, relayed: RelayedAddr, id: AllocationId) -> Result<(), SocketRefused> {
        let _ = (relayed, id);
        Err(SocketRefused::Exhausted)
    }
    /// Begins to connect `from` to the peer `to`. What comes of it is said later, by
    /// [`Server::handle_connected`](super::Server::handle_connected) or
    /// [`Server::handle_connect_failed`](super::Server::handle_connect_failed).
    ///
    /// A peer of [`PeerKind::Own`] is reached within this process and never by the kernel: the
    /// other end goes to [`Server::handle_linked`](super::Server::handle_linked) of its owner.
    ///
    /// # Errors
    /// When the kernel refuses at once.
    fn connect(
        &mut self,
        connection: ConnectionId,
        from: RelayedAddr,
        to: PeerAddr,
        kind: PeerKind,
    ) -> Result<(), SocketRefused> {
        let _ = (connection, from, to, kind);
        Err(SocketRefused::Exhausted)
    }
    /// Closes a peer data connection, also one that is being made, and with it the client's data
    /// connection that is bound to it.
    fn close(&mut self, connection: ConnectionId) {
        let _ = connection;
    }
    /// Whether a client's connection can be handed over to that worker.
    fn takes_connections(&self, worker: WorkerId) -> bool {
        let _ = worker;
        false
    }
}
