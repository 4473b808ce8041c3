//! What all workers share: the directory on the data path, and behind locks the tables that only
//! control events touch.

use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};

use crate::dataplane::balancers::Balancers;
use crate::dataplane::connected::StreamWorkers;
use crate::dataplane::directory::Directory;
use crate::dataplane::owners::Owners;
use crate::dataplane::stream::connection::Connection;
use crate::dataplane::sys::{Ecn, TcpStream, UdpSocket, Waker};
use crate::dataplane::tuning::Tuning;
use crate::dataplane::turns::Turns;
use crate::turn::ports::PortPool;
use crate::turn::quota::Users;
use crate::turn::revocation::Revoked;
use crate::turn::unvalidated::{Networks, Unvalidated};
use crate::turn::{AllocationId, FiveTuple, ListenerId, RelayedAddr, ServerConfig};

/// Commands that may wait for one worker; more are dropped and counted.
pub(crate) const MAILBOX: usize = 256;

/// Everything that workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) directory: Directory,
    pub(crate) turns: Turns,
    pub(crate) owners: Owners,
    pub(crate) unvalidated: Unvalidated,
    pub(crate) newcomers: Networks,
    pub(crate) failures: Networks,
    pub(crate) mailboxes: Vec<Mailbox>,
    /// Relay IPs as clients are told them, each with the local one that it is bound to.
    pub(crate) relays: Vec<RelayAddress>,
    /// Whose the clients are that are not on UDP.
    pub(crate) stream_workers: StreamWorkers,
    pub(crate) balancers: Balancers,
    ports: Mutex<PortPool>,
    users: Mutex<Users>,
}

/// A relay IP address; behind 1:1 NAT it has two faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAddress {
    /// What sockets are bound to.
    pub local: IpAddr,
    /// What clients are told.
    pub advertised: IpAddr,
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// A datagram on a 5-tuple that it owns reached another worker.
    Datagram {
        tuple: FiveTuple,
        bytes: Box<[u8]>,
        ecn: Ecn,
    },
    /// Something came about elsewhere that concerns an allocation of its.
    Notice(Notice),
    /// It gets a listener on an address that is new on this machine.
    Listen(ListenerId, Box<UdpSocket>),
    /// A relayed address of this server connected to one of its own, by a pair of which this is one
    /// end.
    Linked {
        target: RelayedAddr,
        sender: RelayedAddr,
        stream: TcpStream,
    },
    /// A client's connection is its from now on; these bytes of it have been read.
    HandedOver(Box<(Connection, Vec<u8>)>),
    /// These were taken back.
    Revoke(std::sync::Arc<[Revoked]>),
    /// Somebody was banned.
    EnforceBans,
    /// An allocation ends, if it is one of its own.
    End(AllocationId),
    /// The rules changed.
    Reconfigure(std::sync::Arc<ServerConfig>),
    /// What sockets are opened and marked with changed, or whose PROXY headers are believed.
    Retune(std::sync::Arc<Tuning>),
    /// It ends its allocations and itself.
    Stop,
}

/// What a worker must be told, sooner or later.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Notice {
    /// One of its allocations was replaced.
    Condemned(AllocationId),
    /// The connection behind a 5-tuple that it owns is gone.
    Disconnected(FiveTuple),
}

/// The way to one worker.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) sender: SyncSender<Command>,
    pub(crate) waker: Waker,
}

impl Mailbox {
    /// Leaves `command` and wakes the worker; false when the mailbox is full.
    pub(crate) fn leave(&self, command: Command) -> bool {
        self.try_leave(command).is_none()
    }

    /// Leaves `command`, waiting while the mailbox is full; not for workers.
    pub(crate) fn insist(&self, command: Command) {
        let mut left = Some(command);
        while let Some(command) = left.take() {
            left = self.try_leave(command);
            if left.is_some() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    fn try_leave(&self, command: Command) -> Option<Command> {
        let returned = match self.sender.try_send(command) {
            // A worker that is gone takes no command, and needs none.
            Ok(()) | Err(TrySendError::Disconnected(_)) => None,
            Err(TrySendError::Full(command)) => Some(command),
        };
        self.waker.wake();
        returned
    }
}

impl Shared {
    pub(crate) fn new(
        relays: Vec<RelayAddress>,
        directory: Directory,
        ports: PortPool,
        unvalidated: Unvalidated,
        mailboxes: Vec<Mailbox>,
        stream_workers: StreamWorkers,
    ) -> Self {
        Self {
            directory,
            turns: Turns::new(mailboxes.len()),
            owners: Owners::new(),
            unvalidated,
            newcomers: Networks::default(),
            failures: Networks::default(),
            mailboxes,
            relays,
            stream_workers,
            balancers: Balancers::default(),
            ports: Mutex::new(ports),
            users: Mutex::default(),
        }
    }

    // A worker's panic ends the process, so that a poisoned lock is never seen for long; what it
    // guards is plain data, whole between any two statements.

    /// The port pool, for one control event.
    pub(crate) fn ports<R>(&self, change: impl FnOnce(&mut PortPool) -> R) -> R {
        change(&mut self.ports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The users' accounts, for one control event.
    pub(crate) fn users<R>(&self, change: impl FnOnce(&mut Users) -> R) -> R {
        change(&mut self.users.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The local address behind an advertised relay IP.
    pub(crate) fn local(&self, advertised: IpAddr) -> Option<IpAddr> {
        self.relays
            .iter()
            .find(|relay| relay.advertised == advertised)
            .map(|relay| relay.local)
    }
}
