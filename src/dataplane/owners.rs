//! Which worker owns a 5-tuple: written when an allocation opens or ends, read when a worker gets
//! a datagram on a 5-tuple that it does not know.

use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::turn::{FiveTuple, TupleKey, WorkerId};

/// The table is split into so many by hash, each behind a lock of its own, so that workers which
/// open allocations at the same time seldom meet, and that growing holds up nobody for long.
const SHARDS: usize = 64;

/// The owners of 5-tuples.
#[derive(Debug)]
pub(crate) struct Owners {
    shards: Box<[RwLock<HashTable<Owned>>; SHARDS]>,
    hasher: foldhash::quality::RandomState,
}

#[derive(Debug)]
struct Owned {
    key: TupleKey,
    owner: WorkerId,
}

impl Owners {
    /// Nobody owns anything.
    pub(crate) fn new() -> Self {
        Self {
            shards: Box::new([const { RwLock::new(HashTable::new()) }; SHARDS]),
            hasher: foldhash::quality::RandomState::default(),
        }
    }

    /// Notes who owns a 5-tuple, or that nobody does.
    pub(crate) fn set(&self, tuple: FiveTuple, owner: Option<WorkerId>) {
        let (key, hash) = (tuple.key(), self.hasher.hash_one(tuple));
        let mut shard = self
            .shard(hash)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let rehash = |owned: &Owned| self.hasher.hash_one(owned.key);
        match (shard.entry(hash, |owned| owned.key == key, rehash), owner) {
            (Entry::Occupied(mut entry), Some(worker)) => entry.get_mut().owner = worker,
            (Entry::Occupied(entry), None) => drop(entry.remove()),
            (Entry::Vacant(entry), Some(owner)) => drop(entry.insert(Owned { key, owner })),
            (Entry::Vacant(_), None) => {}
        }
    }

    /// Who owns a 5-tuple.
    pub(crate) fn of(&self, tuple: &FiveTuple) -> Option<WorkerId> {
        let (key, hash) = (tuple.key(), self.hasher.hash_one(tuple));
        self.shard(hash)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .find(hash, |owned| owned.key == key)
            .map(|owned| owned.owner)
    }

    fn shard(&self, hash: u64) -> &RwLock<HashTable<Owned>> {
        // The table itself takes the lowest bits and the highest.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::turn::{ClientAddr, ListenerId};

    #[test]
    fn a_five_tuple_has_one_owner_until_it_is_given_up() {
        let owners = Owners::new();
        let tuple = |port| FiveTuple {
            client: ClientAddr::new(SocketAddr::from(([192, 0, 2, 1], port))),
            listener: ListenerId(0),
        };
        for port in 0..1_000 {
            owners.set(tuple(port), Some(WorkerId(port)));
        }
        owners.set(tuple(1), Some(WorkerId(7)));
        owners.set(tuple(2), None);
        owners.set(tuple(1_000), None);
        assert_eq!(owners.of(&tuple(0)), Some(WorkerId(0)));
        assert_eq!(owners.of(&tuple(1)), Some(WorkerId(7)));
        assert_eq!(owners.of(&tuple(2)), None);
        assert_eq!(owners.of(&tuple(999)), Some(WorkerId(999)));
    }
}
