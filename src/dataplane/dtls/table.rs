//! The sessions and their indexes: by client, by age and by network of those in their handshake,
//! and by deadline. The only writer of each.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::net::IpAddr;

use hashbrown::{HashMap, HashTable};
use slab::Slab;

use super::session::{Phase, Session};
use crate::turn::{ClientAddr, FiveTuple, ListenerId, Tick, Transport, TupleKey};

/// Sessions by slot.
pub(super) struct Table {
    entries: Slab<Entry>,
    clients: HashTable<(TupleKey, usize)>,
    hasher: foldhash::quality::RandomState,
    /// Those that have not finished their handshake, by age.
    half_open: BTreeMap<u64, usize>,
    next_serial: u64,
    /// How many of these are from each network.
    networks: HashMap<u128, usize, foldhash::quality::RandomState>,
    deadlines: BTreeSet<(Tick, usize)>,
}

struct Entry {
    session: Session,
    key: TupleKey,
    /// Its place in `half_open`.
    serial: u64,
    /// Its place in `deadlines`.
    armed: Tick,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            entries: Slab::new(),
            clients: HashTable::new(),
            hasher: foldhash::quality::RandomState::default(),
            half_open: BTreeMap::new(),
            next_serial: 0,
            networks: HashMap::default(),
            deadlines: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn half_open(&self) -> usize {
        self.half_open.len()
    }

    pub(super) fn slots(&self) -> Vec<usize> {
        self.entries.iter().map(|(slot, _)| slot).collect()
    }

    pub(super) fn find(&self, client: ClientAddr) -> Option<usize> {
        let key = key(client);
        self.clients
            .find(self.hasher.hash_one(key), |(other, _)| *other == key)
            .map(|(_, slot)| *slot)
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Session> {
        self.entries.get_mut(slot).map(|entry| &mut entry.session)
    }

    /// Takes in a session that is in its handshake, of a client that has none.
    pub(super) fn insert(&mut self, session: Session, at: Tick) -> usize {
        let (key, network) = (key(session.client), network(session.client));
        let serial = self.next_serial;
        self.next_serial += 1;
        let slot = self.entries.insert(Entry {
            session,
            key,
            serial,
            armed: at,
        });
        let hasher = &self.hasher;
        self.clients
            .insert_unique(hasher.hash_one(key), (key, slot), |(key, _)| {
                hasher.hash_one(key)
            });
        self.half_open.insert(serial, slot);
        *self.networks.entry(network).or_insert(0) += 1;
        self.deadlines.insert((at, slot));
        slot
    }

    /// Notes that a handshake is finished.
    pub(super) fn open(&mut self, slot: usize, overhead: usize, at: Tick) {
        if let Some(entry) = self.entries.get_mut(slot)
            && matches!(entry.session.phase, Phase::HalfOpen(_))
        {
            entry.session.phase = Phase::Open { overhead };
            let (serial, client) = (entry.serial, entry.session.client);
            self.forget_half_open(serial, client);
        }
        self.arm(slot, at);
    }

    /// Moves the moment at which a session wants to be looked at.
    pub(super) fn arm(&mut self, slot: usize, at: Tick) {
        if let Some(entry) = self.entries.get_mut(slot) {
            self.deadlines.remove(&(entry.armed, slot));
            self.deadlines.insert((at, slot));
            entry.armed = at;
        }
    }

    /// The session that wants to be looked at next.
    pub(super) fn first_deadline(&self) -> Option<(Tick, usize)> {
        self.deadlines.first().copied()
    }

    /// The session that has been in its handshake for longest.
    pub(super) fn oldest_half_open(&self) -> Option<usize> {
        self.half_open.first_key_value().map(|(_, slot)| *slot)
    }

    /// How many clients of this client's network are in their handshake.
    pub(super) fn half_open_near(&self, client: ClientAddr) -> usize {
        self.networks.get(&network(client)).copied().unwrap_or(0)
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Session> {
        let entry = self.entries.try_remove(slot)?;
        if let Ok(found) = self
            .clients
            .find_entry(self.hasher.hash_one(entry.key), |(key, _)| {
                *key == entry.key
            })
        {
            found.remove();
        }
        self.deadlines.remove(&(entry.armed, slot));
        if matches!(entry.session.phase, Phase::HalfOpen(_)) {
            self.forget_half_open(entry.serial, entry.session.client);
        }
        Some(entry.session)
    }

    fn forget_half_open(&mut self, serial: u64, client: ClientAddr) {
        self.half_open.remove(&serial);
        let network = network(client);
        if let Some(count) = self.networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
    }

    /// Looks whether the indexes and the sessions agree.
    pub(super) fn check_invariants(&self) -> Result<(), &'static str> {
        let check = |holds: bool, rule| if holds { Ok(()) } else { Err(rule) };
        let count = self.entries.len();
        check(self.clients.len() == count, "one place by client")?;
        check(self.deadlines.len() == count, "one deadline")?;
        let near: usize = self.networks.values().sum();
        check(near == self.half_open.len(), "one network")?;
        let mut half_open = 0;
        for (slot, entry) in &self.entries {
            let found = self.find(entry.session.client);
            check(found == Some(slot), "found by client")?;
            let is_armed = self.deadlines.contains(&(entry.armed, slot));
            check(is_armed, "armed for its deadline")?;
            if matches!(entry.session.phase, Phase::HalfOpen(_)) {
                half_open += 1;
                let placed = self.half_open.get(&entry.serial);
                check(placed == Some(&slot), "placed by age")?;
            }
        }
        check(
            half_open == self.half_open.len(),
            "only those in handshake by age",
        )
    }
}

/// A client in 24 bytes. All sessions are of one socket, so that any listener will do.
const fn key(client: ClientAddr) -> TupleKey {
    let listener = ListenerId::new(Transport::Dtls, 0);
    FiveTuple { client, listener }.key()
}

/// The /24 of a client, or the /64, told apart from the other family's.
fn network(client: ClientAddr) -> u128 {
    match client.expose().ip().to_canonical() {
        IpAddr::V4(ip) => u128::from(ip.to_bits() >> 8) | 1 << 127,
        IpAddr::V6(ip) => ip.to_bits() >> 64,
    }
}
