//! The peer data connections of one worker and the indexes over them; the only writer of those, so
//! that they cannot fall out of step.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::proto::{ConnectionId, LongTermKey, TransactionId};
use crate::turn::address::{PeerAddr, RelayedAddr};
use crate::turn::auth::Signature;
use crate::turn::clock::Tick;
use crate::turn::route::{AllocationId, PeerKind};

/// What the response to a Connect is made of.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) transaction: TransactionId,
    pub(crate) key: LongTermKey,
    pub(crate) signature: Signature,
}

/// How far a connection has come.
#[derive(Debug)]
pub(crate) enum State {
    /// The kernel is at it, and the client waits for a response.
    Connecting(Box<Pending>),
    /// It waits for a ConnectionBind.
    Unbound,
    /// It belongs to a client's data connection.
    Bound,
}

/// A peer data connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) allocation: AllocationId,
    pub(crate) relayed: RelayedAddr,
    pub(crate) peer: PeerAddr,
    pub(crate) kind: PeerKind,
    pub(crate) state: State,
    /// When it ends, unless it is bound.
    pub(crate) until: Tick,
}

impl Connection {
    const fn is_due(&self) -> bool {
        !matches!(self.state, State::Bound)
    }
}

/// Connections by name, by allocation, and by the moment each ends.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    all: BTreeMap<ConnectionId, Connection>,
    by_allocation:
        HashMap<AllocationId, SmallVec<[ConnectionId; 4]>, foldhash::quality::RandomState>,
    deadlines: BTreeSet<(Tick, ConnectionId)>,
}

impl Connections {
    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.all.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.all.iter().map(|(id, connection)| (*id, connection))
    }

    /// How many an allocation has.
    pub(crate) fn count(&self, allocation: AllocationId) -> usize {
        self.of(allocation).len()
    }

    /// Whether an allocation has one with `peer`.
    pub(crate) fn has(&self, allocation: AllocationId, peer: PeerAddr) -> bool {
        self.of(allocation)
            .iter()
            .any(|id| self.get(*id).is_some_and(|other| other.peer == peer))
    }

    fn of(&self, allocation: AllocationId) -> &[ConnectionId] {
        self.by_allocation
            .get(&allocation)
            .map_or(&[], SmallVec::as_slice)
    }

    /// Takes in a connection whose name is free.
    pub(crate) fn insert(&mut self, id: ConnectionId, connection: Connection) {
        if connection.is_due() {
            self.deadlines.insert((connection.until, id));
        }
        self.by_allocation
            .entry(connection.allocation)
            .or_default()
            .push(id);
        self.all.insert(id, connection);
    }

    /// One that was being made is there, and waits until then; says who asked for it.
    pub(crate) fn connected(&mut self, id: ConnectionId, until: Tick) -> Option<Box<Pending>> {
        let connection = self.all.get_mut(&id)?;
        match std::mem::replace(&mut connection.state, State::Unbound) {
            State::Connecting(pending) => {
                self.deadlines.remove(&(connection.until, id));
                connection.until = until;
                self.deadlines.insert((until, id));
                Some(pending)
            }
            other @ (State::Unbound | State::Bound) => {
                connection.state = other;
                None
            }
        }
    }

    /// One that waited belongs to a client's data connection.
    pub(crate) fn bind(&mut self, id: ConnectionId) {
        if let Some(connection) = self.all.get_mut(&id) {
            self.deadlines.remove(&(connection.until, id));
            connection.state = State::Bound;
        }
    }

    /// Takes a connection out.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        let Some(connection) = self.all.remove(&id) else {
            return;
        };
        self.deadlines.remove(&(connection.until, id));
        if let Some(ids) = self.by_allocation.get_mut(&connection.allocation) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_allocation.remove(&connection.allocation);
            }
        }
    }

    /// Takes out all of an allocation's at one relayed address.
    pub(crate) fn take_all_at(
        &mut self,
        allocation: AllocationId,
        relayed: RelayedAddr,
    ) -> SmallVec<[ConnectionId; 4]> {
        let is_there = |id: &ConnectionId| self.get(*id).is_some_and(|c| c.relayed == relayed);
        let ids: SmallVec<[ConnectionId; 4]> = self
            .of(allocation)
            .iter()
            .copied()
            .filter(is_there)
            .collect();
        for id in &ids {
            self.remove(*id);
        }
        ids
    }

    /// One whose time is up.
    pub(crate) fn first_due(&self, now: Tick) -> Option<ConnectionId> {
        let (until, id) = self.deadlines.first()?;
        (*until <= now).then_some(*id)
    }

    /// When the first one's time is up.
    pub(crate) fn first_deadline(&self) -> Option<Tick> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// What must hold between calls: all indexes tell of the same connections.
    pub(crate) fn check_invariants(&self) -> Result<(), &'static str> {
        let mut due = 0;
        for (id, connection) in self.iter() {
            if !self.of(connection.allocation).contains(&id) {
                return Err("a data connection is not among its allocation's");
            }
            if self.count(connection.allocation) > super::MAX_CONNECTIONS {
                return Err("an allocation has too many data connections");
            }
            let is_queued = self.deadlines.contains(&(connection.until, id));
            if is_queued != connection.is_due() {
                return Err("a data connection's deadline is not what it waits for");
            }
            due += usize::from(is_queued);
        }
        let filed: usize = self.by_allocation.values().map(SmallVec::len).sum();
        if filed != self.all.len() || due != self.deadlines.len() {
            return Err("an index and the data connections differ in number");
        }
        Ok(())
    }
}
