//! The allocations of one worker and the indexes over them. The only writer of those indexes, so
//! that they cannot fall out of step.

use std::hash::BuildHasher;
use std::hint::black_box;

use hashbrown::HashTable;

use super::address::FiveTuple;
use super::allocation::Allocation;
use super::clock::Tick;
use super::deadlines::Deadlines;
use super::route::AllocationId;

/// Allocations that are made room for at once.
const CHUNK: usize = 64;
const CHUNK_LEN: u32 = 64;

/// How many packets are looked ahead for.
const LOOK_AHEAD: usize = 64;

/// Slots that stay where they are: a list that doubles would copy thousands of allocations in one
/// turn of the loop, and stand half empty afterwards.
#[derive(Debug, Default)]
struct Slots {
    chunks: Vec<Box<[Option<Allocation>; CHUNK]>>,
    vacant: Vec<u32>,
    taken: usize,
}

impl Slots {
    fn get(&self, index: u32) -> Option<&Allocation> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?[index % CHUNK].as_ref()
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Allocation> {
        let index = index as usize;
        self.chunks.get_mut(index / CHUNK)?[index % CHUNK].as_mut()
    }

    fn insert(&mut self, allocation: Allocation) -> u32 {
        let index = self.vacant.pop().unwrap_or_else(|| {
            // One server has fewer allocations than relayed addresses: 65,536 for each IP.
            let first = u32::try_from(self.chunks.len() * CHUNK).unwrap_or(u32::MAX);
            self.chunks.push(Box::new([const { None }; CHUNK]));
            self.vacant.extend((1..CHUNK_LEN).rev().map(|n| first + n));
            first
        });
        let place = index as usize;
        self.chunks[place / CHUNK][place % CHUNK] = Some(allocation);
        self.taken += 1;
        index
    }

    fn remove(&mut self, index: u32) -> Option<Allocation> {
        let place = index as usize;
        let removed = self.chunks.get_mut(place / CHUNK)?[place % CHUNK].take()?;
        self.vacant.push(index);
        self.taken -= 1;
        Some(removed)
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &Allocation)> {
        let slots = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0..)
            .zip(slots)
            .filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
    }
}

/// Allocations by 5-tuple, by opaque name, and by the moment each wants to be looked at.
///
/// The indexes hold slot numbers and no keys: what is looked up is in the slot, which a hit reads
/// anyway.
#[derive(Debug, Default)]
pub(crate) struct AllocationTable {
    slots: Slots,
    by_tuple: HashTable<u32>,
    by_id: HashTable<u32>,
    hasher: foldhash::quality::RandomState,
    deadlines: Deadlines,
}

impl AllocationTable {
    /// Where the allocation on `tuple` stands, until the table changes.
    pub(crate) fn index_of(&self, tuple: &FiveTuple) -> Option<u32> {
        let is_it = |index: &u32| self.slots.get(*index).is_some_and(|a| a.tuple == *tuple);
        self.by_tuple
            .find(self.hasher.hash_one(tuple), is_it)
            .copied()
    }

    /// The allocation on `tuple`.
    pub(crate) fn by_tuple(&self, tuple: &FiveTuple) -> Option<&Allocation> {
        self.slots.get(self.index_of(tuple)?)
    }

    /// The allocation on `tuple`, to be changed.
    pub(crate) fn by_tuple_mut(&mut self, tuple: &FiveTuple) -> Option<&mut Allocation> {
        let index = self.index_of(tuple)?;
        self.slots.get_mut(index)
    }

    /// Where the allocation named `id` stands, until the table changes.
    pub(crate) fn index_of_id(&self, id: AllocationId) -> Option<u32> {
        let is_it = |index: &u32| self.slots.get(*index).is_some_and(|a| a.id == id);
        // Ids are random already.
        self.by_id.find(id.0, is_it).copied()
    }

    /// As [`Server::look_ahead`](super::Server::look_ahead): first all slots, then what they lead to,
    /// so that no read waits for the one before.
    pub(crate) fn look_ahead(&self, tuples: impl Iterator<Item = FiveTuple>) {
        let mut found = [None; LOOK_AHEAD];
        for (place, tuple) in found.iter_mut().zip(tuples) {
            *place = self.index_of(&tuple);
        }
        // Between those that are known may stand some that are not.
        black_box(found.into_iter().flatten().fold(0, |seen, index| {
            seen ^ self.at(index).map_or(0, Allocation::touch)
        }));
    }

    /// The allocation that stands at `index`.
    pub(crate) fn at(&self, index: u32) -> Option<&Allocation> {
        self.slots.get(index)
    }

    /// The allocation that stands at `index`, to be changed.
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut Allocation> {
        self.slots.get_mut(index)
    }

    /// The allocation named `id`.
    pub(crate) fn by_id(&self, id: AllocationId) -> Option<&Allocation> {
        self.slots.get(self.index_of_id(id)?)
    }

    /// Takes in an allocation whose 5-tuple is free.
    pub(crate) fn insert(&mut self, allocation: Allocation) {
        let (tuple, id, armed) = (allocation.tuple, allocation.id, allocation.armed);
        let index = self.slots.insert(allocation);
        let Self { slots, hasher, .. } = self;
        self.by_tuple
            .insert_unique(hasher.hash_one(tuple), index, |index| {
                slots.get(*index).map_or(0, |a| hasher.hash_one(a.tuple))
            });
        self.by_id
            .insert_unique(id.0, index, |index| slots.get(*index).map_or(0, |a| a.id.0));
        self.deadlines.arm(index, None, armed);
    }

    /// Takes an allocation out.
    pub(crate) fn remove(&mut self, tuple: &FiveTuple) -> Option<Allocation> {
        let index = self.index_of(tuple)?;
        let allocation = self.slots.remove(index)?;
        let is_it = |other: &u32| *other == index;
        if let Ok(entry) = self.by_tuple.find_entry(self.hasher.hash_one(tuple), is_it) {
            entry.remove();
        }
        if let Ok(entry) = self.by_id.find_entry(allocation.id.0, is_it) {
            entry.remove();
        }
        self.deadlines.forget(index, allocation.armed);
        Some(allocation)
    }

    /// Makes sure that the allocation on `tuple` is looked at when its first relay ends. A moment
    /// that moved away is left to come and found to be early.
    pub(crate) fn rearm(&mut self, tuple: &FiveTuple) {
        let Some(index) = self.index_of(tuple) else {
            return;
        };
        let Some(allocation) = self.slots.get_mut(index) else {
            return;
        };
        if let Some(end) = allocation.first_end()
            && end < allocation.armed
        {
            self.deadlines.arm(index, Some(allocation.armed), end);
            allocation.armed = end;
        }
    }

    /// The next allocation with a relay that has ended; those whose end moved away are armed anew.
    pub(crate) fn take_due(&mut self, now: Tick) -> Option<FiveTuple> {
        while let Some(index) = self.deadlines.take_due(now) {
            let Some(allocation) = self.slots.get_mut(index) else {
                continue;
            };
            let end = allocation.first_end().unwrap_or(now);
            // Armed for the future in either case, so that the table stays in step until the
            // caller has taken out what ended.
            let at = if end > now {
                end
            } else {
                Tick::from_nanos(u64::MAX)
            };
            allocation.armed = at;
            self.deadlines.arm(index, None, at);
            if end <= now {
                return Some(allocation.tuple);
            }
        }
        None
    }

    /// When something wants to be looked at.
    pub(crate) fn first_deadline(&self) -> Option<Tick> {
        self.deadlines.first()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.taken
    }

    /// Every 5-tuple with an allocation.
    pub(crate) fn tuples(&self) -> Vec<FiveTuple> {
        self.slots
            .iter()
            .map(|(_, allocation)| allocation.tuple)
            .collect()
    }

    /// Every allocation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Allocation> {
        self.slots.iter().map(|(_, allocation)| allocation)
    }

    /// What must hold between calls: the indexes and the slots tell of the same allocations.
    pub(crate) fn check_invariants(&self) -> Result<(), &'static str> {
        let count = self.slots.taken;
        if self.by_tuple.len() != count || self.by_id.len() != count {
            return Err("an index and the allocations differ in number");
        }
        if self.deadlines.len() != count {
            return Err("an allocation is not in the queue of deadlines exactly once");
        }
        for (index, allocation) in self.slots.iter() {
            let by_id = self.by_id(allocation.id).map(|a| a.tuple);
            if self.index_of(&allocation.tuple) != Some(index) || by_id != Some(allocation.tuple) {
                return Err("an index points at another allocation");
            }
            if allocation.relays.is_empty() {
                return Err("an allocation has no relayed transport address");
            }
        }
        Ok(())
    }
}
