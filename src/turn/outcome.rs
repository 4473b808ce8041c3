//! What a [`Server`](super::Server) says is to be done, and what it tells of allocations.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::proto::ConnectionId;
use crate::turn::address::{FiveTuple, PeerAddr, RelayedAddr, Transport, WorkerId};
use crate::turn::clock::Tick;
use crate::turn::credential::{Claims, Subject};
use crate::turn::route::{AllocationId, Standing};
use crate::turn::stats::DropReason;

/// What came of a datagram.
#[derive(Debug)]
#[must_use]
pub enum Handled {
    /// Send these bytes of the buffer there.
    Forward(Forward),
    /// Send [`Server::answer`](super::Server::answer) back to where the datagram came from.
    Answer,
    /// Send [`Server::answer`](super::Server::answer) to that client, by that listener.
    AnswerBy(FiveTuple),
    /// Nothing is to be sent, and nothing is wrong.
    Consumed,
    /// Dropped without an answer, and counted.
    Dropped(DropReason),
    /// That worker owns the 5-tuple: hand the datagram to it.
    Elsewhere(WorkerId),
    /// Send [`Server::answer`](super::Server::answer) back; whatever follows on the client's
    /// connection belongs to this peer data connection, in both directions (RFC 6062 §5.4).
    Spliced(ConnectionId),
    /// That worker has the peer data connection that is asked for: hand the client's connection
    /// over to it, with this request at the head of what it has yet to read.
    HandOver(WorkerId),
}

/// A message for a client that answers nothing of what was handled last.
#[derive(Debug)]
#[must_use]
pub struct ControlMessage {
    /// The client, by its control connection.
    pub to: FiveTuple,
    /// The message.
    pub bytes: Box<[u8]>,
}

/// A packet that goes on: [`Server::head`](super::Server::head), then bytes of the buffer, then
/// zeros.
#[derive(Debug)]
pub struct Forward {
    /// Whether the header did not fit in front of the payload and lies aside, in
    /// [`Server::head`](super::Server::head).
    pub head: Head,
    /// What of the buffer is to be sent; it lies around the payload that came.
    pub range: Range<usize>,
    /// Zero bytes to be sent behind it.
    pub padding: usize,
    /// Where to.
    pub to: Target,
}

/// Where the header of a packet that goes on is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// In the buffer, in front of the payload; or there is none.
    InPlace,
    /// In [`Server::head`](super::Server::head).
    Aside,
}

/// Where a packet goes on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To a client of this server, from its listener.
    Client(FiveTuple),
    /// To a peer, from a relay socket.
    Peer {
        /// The relayed transport address whose socket it leaves by.
        from: RelayedAddr,
        /// The peer.
        to: PeerAddr,
        /// Whether DF is set.
        fragmentation: Fragmentation,
    },
}

/// RFC 8656 §14: whether a datagram may be fragmented on its way to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragmentation {
    /// As usual.
    Allowed,
    /// The client asked for DF.
    Forbidden,
}

/// Why an allocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Its lifetime ran out.
    Expired,
    /// Its client gave it up.
    Closed,
    /// The connection that it was made on is gone.
    Disconnected,
    /// It was silent, and made way for another one of its user.
    Replaced,
    /// The platform took back what it was made with, or the operator did.
    Revoked,
    /// Its user or its client's address was banned.
    Banned,
    /// It could not be answered.
    Refused,
    /// The server stops.
    Stopped,
}

impl EndReason {
    /// Every reason, in the order of its index.
    pub const ALL: &'static [Self] = &[
        Self::Expired,
        Self::Closed,
        Self::Disconnected,
        Self::Replaced,
        Self::Revoked,
        Self::Banned,
        Self::Refused,
        Self::Stopped,
    ];

    /// A deadline that is long over and tells why: past it nobody forwards anything, and who takes
    /// the allocation away later reads the reason off it.
    pub(crate) const fn moment(self) -> Tick {
        Tick::from_nanos(match self {
            Self::Replaced => 0,
            Self::Revoked => 1,
            Self::Banned => 2,
            Self::Expired | Self::Closed | Self::Disconnected | Self::Refused | Self::Stopped => 3,
        })
    }

    /// Why an allocation ends whose deadline `end` is over.
    pub(crate) const fn told_by(end: Tick) -> Self {
        match end.nanos() {
            0 => Self::Replaced,
            1 => Self::Revoked,
            2 => Self::Banned,
            _ => Self::Expired,
        }
    }

    /// The word that stands for it in logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Closed => "closed",
            Self::Disconnected => "disconnected",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Banned => "banned",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        }
    }
}

/// Something an operator may want to read about.
#[derive(Debug)]
pub enum Event {
    /// An allocation was made.
    Opened {
        /// Its opaque name.
        id: AllocationId,
        /// Its client, and the listener it uses.
        tuple: FiveTuple,
        /// Whose it is.
        subject: Subject,
        /// What its credential says beyond that, if it was sealed.
        claims: Option<Arc<Claims>>,
    },
    /// An allocation followed its client to another 5-tuple.
    Moved {
        /// Its opaque name.
        id: AllocationId,
        /// Its client now, and the listener it uses.
        tuple: FiveTuple,
    },
    /// An allocation is gone. Other workers may still be adding the last packets to its meters.
    Closed {
        /// Its opaque name.
        id: AllocationId,
        /// How its client spoke to the server.
        transport: Transport,
        /// Why.
        reason: EndReason,
        /// How long it lived.
        lived: Duration,
        /// Whose it was.
        subject: Subject,
        /// With what went through it.
        standing: Arc<Standing>,
    },
}
