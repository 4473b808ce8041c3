//! The one vocabulary between the control plane and the data planes.
//!
//! A [`Route`] is the sender's half of a forwarding decision and is plain data of the sender's
//! worker; a [`Landing`] is the receiver's half, published by the receiver's worker alone and
//! immutable but for deadlines and meters. A packet goes from one allocation to another only where
//! both halves agree. No plane forwards past their deadlines.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smallvec::SmallVec;

use crate::proto::ChannelNumber;
use crate::turn::address::{FiveTuple, PeerAddr, RelayedAddr, WorkerId};
use crate::turn::clock::{Deadline, Tick};
use crate::turn::credential::{CallId, Claims, Subject};
use crate::turn::rates::Rates;
use crate::turn::stats::{DropReason, Meters};

/// An allocation's opaque name in logs and events; drawn at random, tells nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub u64);

/// How many relayed addresses of one IP an allocation may have named at once.
pub const MAX_NAMES: usize = 32;

/// What kind of peer the policy found an address to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    /// A relayed address of this server: reached by hairpin.
    Own,
    /// A relayed address of another node of the fleet: reached by the relay socket.
    Fleet,
    /// Any other peer that the policy admits: reached by the relay socket.
    Foreign,
}

/// RFC 8656 §18.8: the transport protocol between server and peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayProtocol {
    /// Datagrams.
    Udp,
    /// Data connections (RFC 6062).
    Tcp,
}

/// The sender's half: where what the client sends on a channel or to a peer goes.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The sender's own relayed transport address, of the peer's family.
    pub from: RelayedAddr,
    /// Where to.
    pub peer: PeerAddr,
    /// How.
    pub kind: PeerKind,
    /// The earliest of allocation, credential, and channel or permission.
    pub until: Tick,
}

/// What a landing keeps of a call id: enough to tell calls apart, read for every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTag(NonZeroU64);

impl From<CallId> for CallTag {
    fn from(call: CallId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = call.to_bytes();
        let tag = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Self(NonZeroU64::new(tag).unwrap_or(NonZeroU64::MIN))
    }
}

/// Of which call an allocation is, and whether it exchanges packets within that one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InCall {
    /// The call that its credential names.
    pub call: Option<CallTag>,
    /// Whether its policy is `call`.
    pub only: bool,
}

impl InCall {
    /// Whether two allocations may exchange packets as far as their calls go: where either keeps to
    /// its call, both must be of the same. Who is of no call is of nobody's.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        !(self.only || other.only) || (self.call.is_some() && self.call == other.call)
    }
}

/// The allocation that a packet or a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// Its relayed transport address.
    pub relayed: RelayedAddr,
    /// Whose it is.
    pub subject: Subject,
    /// Of which call it is.
    pub in_call: InCall,
}

/// A relayed address that an allocation has named, the second gate behind a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// The relayed transport address.
    pub peer: RelayedAddr,
    /// Whose it was when it was named; none if nobody's.
    pub subject: Option<Subject>,
}

/// A name as a permission keeps it: the permission has the IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedPort {
    /// The relayed transport address's port.
    pub port: u16,
    /// As in [`Name`].
    pub subject: Option<Subject>,
}

impl Name {
    /// What a permission for its IP address keeps of it.
    #[must_use]
    pub const fn kept(&self) -> NamedPort {
        NamedPort {
            port: self.peer.port(),
            subject: self.subject,
        }
    }
}

/// RFC 8656 §9: a permission covers the peer's IP address on any port.
#[derive(Clone)]
pub struct Permission {
    /// The peer's IP address.
    pub ip: IpAddr,
    /// What the policy found it to be.
    pub kind: PeerKind,
    /// When it ends.
    pub until: Deadline,
    /// Which relayed addresses of that IP were named; only for own ones. Calls have one.
    pub names: SmallVec<[NamedPort; 1]>,
}

impl fmt::Debug for Permission {
    /// Without the peer's IP address, which may be an endpoint's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permission")
            .field("kind", &self.kind)
            .field("until", &self.until)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Permission {
    /// Whether `sender`, who is live, was named, or has another relayed address of a user who was.
    fn admits<L: Landings>(&self, sender: &Sender, now: Tick, landings: &L) -> bool {
        let Sender {
            relayed, subject, ..
        } = *sender;
        self.names.iter().any(|name| match name.subject {
            // The port may have passed to somebody else since it was named.
            Some(named) => named == subject,
            None if name.port == relayed.port() => true,
            None => live_subject(landings, self.relayed(name.port), now) == Some(subject),
        })
    }

    /// The relayed address behind a name.
    pub(crate) const fn relayed(&self, port: u16) -> RelayedAddr {
        RelayedAddr::new(SocketAddr::new(self.ip, port))
    }
}

/// RFC 8656 §12: a channel binds a number to a peer's transport address.
#[derive(Debug, Clone)]
pub struct ChannelBinding {
    /// The number.
    pub number: ChannelNumber,
    /// The peer.
    pub peer: PeerAddr,
    /// What the policy found the peer to be.
    pub kind: PeerKind,
    /// When it ends; number and peer stay paired for five minutes more.
    pub until: Deadline,
}

/// Whose relayed address this is at `now`, if it lives.
pub(crate) fn live_subject<L: Landings>(
    landings: &L,
    relayed: RelayedAddr,
    now: Tick,
) -> Option<Subject> {
    let look = |landing: &Landing| landing.until().holds(now).then_some(landing.subject);
    landings.with(relayed, look).flatten()
}

/// How the receiver gets a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As ChannelData on this channel.
    Channel(ChannelNumber),
    /// As a Data indication.
    Indication,
}

/// What any worker may read of an allocation for as long as it lives, and change in place: its
/// ends and its meters. Every landing of the allocation holds the same one.
#[derive(Debug)]
pub struct Standing {
    /// The allocation's opaque name.
    pub id: AllocationId,
    /// Who owns it.
    pub worker: WorkerId,
    /// When it was made.
    pub opened: Tick,
    /// What its credential says of its holder, if that was sealed.
    pub claims: Option<Arc<Claims>>,
    /// When its IPv4 and its IPv6 relayed address end.
    pub until: [Deadline; 2],
    /// What went through it.
    pub meters: Meters,
}

/// The receiver's half: how a packet for this relayed address reaches its client, and from whom.
///
/// One piece of memory with its only permission and channel in it, since it is read for every
/// packet: its owner works on the very landing that is published, and publishes a copy of it when
/// anything but a deadline changes.
#[derive(Debug, Clone)]
pub struct Landing {
    /// The relayed transport address it stands for.
    pub relayed: RelayedAddr,
    /// Whose allocation it is.
    pub subject: Subject,
    /// Of which call it is.
    pub call: Option<CallTag>,
    /// Whether only that call may reach it.
    pub same_call_only: bool,
    /// How peers are spoken to.
    pub protocol: RelayProtocol,
    /// Whether the relayed address has a socket, so that packets may leave from it.
    pub has_socket: bool,
    /// The client, and the listener that it uses.
    pub client: FiveTuple,
    /// What lives on when the landing is published anew.
    pub standing: Arc<Standing>,
    /// The first gate, and within it the second.
    pub permissions: SmallVec<[Permission; 1]>,
    /// Which peers have a channel.
    pub channels: SmallVec<[ChannelBinding; 1]>,
    /// How much may go through it; none where nothing is limited.
    pub rates: Option<Arc<Rates>>,
    /// Whether it is still what is found at its address.
    pub current: Current,
}

/// Whether a landing is what its owner published last. Who holds on to a landing asks this instead
/// of looking for it anew.
#[derive(Debug)]
pub struct Current(AtomicBool);

impl Current {
    /// It is not, from now on.
    pub fn supersede(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Default for Current {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Clone for Current {
    /// A copy is made to be published.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Landing {
    /// The allocation's opaque name.
    #[must_use]
    pub fn id(&self) -> AllocationId {
        self.standing.id
    }

    /// Whether it is still what is found at its address.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.current.0.load(Ordering::Acquire)
    }

    /// When the relayed address ends.
    #[must_use]
    pub fn until(&self) -> &Deadline {
        &self.standing.until[usize::from(self.relayed.ip().is_ipv6())]
    }

    /// What went through the allocation.
    #[must_use]
    pub fn meters(&self) -> &Meters {
        &self.standing.meters
    }

    /// Of which call it is, and whether it keeps to that.
    #[must_use]
    pub const fn in_call(&self) -> InCall {
        InCall {
            call: self.call,
            only: self.same_call_only,
        }
    }

    /// Whether this allocation takes packets from `sender` at `now`, and in which framing.
    ///
    /// # Errors
    /// The reason to count when it does not.
    pub fn admit<L: Landings>(
        &self,
        sender: &Sender,
        now: Tick,
        landings: &L,
    ) -> Result<Framing, DropReason> {
        if !self.until().holds(now) {
            return Err(DropReason::NoLanding);
        }
        if self.client.is_nowhere() {
            return Err(DropReason::Away);
        }
        if !self.in_call().meets(sender.in_call) {
            return Err(DropReason::OtherCall);
        }
        // RFC 8656 §9: only addresses are compared, port numbers are not.
        let permission = self
            .permissions
            .iter()
            .find(|permission| permission.ip == sender.relayed.ip() && permission.until.holds(now))
            .ok_or(DropReason::NotPermitted)?;
        if !permission.admits(sender, now, landings) {
            return Err(DropReason::NotNamed);
        }
        Ok(framing(&self.channels, sender.relayed.socket_addr(), now))
    }
}

/// RFC 8656 §11.3: ChannelData if a channel is bound to exactly this peer, else a Data indication.
pub(crate) fn framing<'c>(
    channels: impl IntoIterator<Item = &'c ChannelBinding>,
    peer: SocketAddr,
    now: Tick,
) -> Framing {
    channels
        .into_iter()
        .find(|channel| channel.peer.expose() == peer && channel.until.holds(now))
        .map_or(Framing::Indication, |channel| {
            Framing::Channel(channel.number)
        })
}

/// Where landings are found: the data plane's directory, or a map in a simulation.
pub trait Landings {
    /// The landing of `relayed`, if one is published.
    fn find(&self, relayed: RelayedAddr) -> Option<Arc<Landing>>;

    /// Looks at the landing of `relayed`, if one is published.
    fn with<R>(&self, relayed: RelayedAddr, look: impl FnOnce(&Landing) -> R) -> Option<R> {
        self.find(relayed).as_deref().map(look)
    }
}
