//! The allocations of one worker and the indexes over them. The only writer of those indexes, so
//! that they cannot fall out of step.

use std::hash::BuildHasher;
use std::hint::black_box;

use hashbrown::HashTable;

use super::address::FiveTuple;
use super::allocation::Allocation;
use super::clock::Tick;
use super::deadlines::Deadlines;
use super::media::Media;
use super::route::AllocationId;

/// Allocations that are made room for at once.
const CHUNK: usize = 32;
const CHUNK_LEN: u32 = 32;

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
    /// By the 5-tuple that an allocation's client has gone to and not used yet (RFC 8016 §3.2.2).
    by_next: HashTable<u32>,
    hasher: foldhash::quality::RandomState,
    deadlines: Deadlines,
    /// What is remembered of RTP streams, by slot. Apart, so that those without any pay nothing.
    media: Vec<Option<Box<Media>>>,
}

impl AllocationTable {
    /// Where the allocation on `tuple` stands, until the table changes.
    pub(crate) fn index_of(&self, tuple: &FiveTuple) -> Option<u32> {
        let is_it = |index: &u32| self.slots.get(*index).is_some_and(|a| a.tuple == *tuple);
        self.by_tuple
            .find(self.hasher.hash_one(tuple), is_it)
            .copied()
    }

    /// The same for the 5-tuple that its client has gone to.
    fn index_of_next(&self, tuple: &FiveTuple) -> Option<u32> {
        // Most often nobody is on the way.
        if self.by_next.is_empty() {
            return None;
        }
        let is_it = |index: &u32| self.next_of(*index).is_some_and(|next| next == *tuple);
        self.by_next
            .find(self.hasher.hash_one(tuple), is_it)
            .copied()
    }

    fn next_of(&self, index: u32) -> Option<FiveTuple> {
        self.slots.get(index)?.mobility.as_ref()?.next
    }

    fn index_of_either(&self, tuple: &FiveTuple) -> Option<u32> {
        self.index_of(tuple).or_else(|| self.index_of_next(tuple))
    }

    /// The allocation on `tuple`, or whose client has gone there.
    pub(crate) fn by_tuple(&self, tuple: &FiveTuple) -> Option<&Allocation> {
        self.slots.get(self.index_of_either(tuple)?)
    }

    /// The same, to be changed.
    pub(crate) fn by_tuple_mut(&mut self, tuple: &FiveTuple) -> Option<&mut Allocation> {
        let index = self.index_of_either(tuple)?;
        self.slots.get_mut(index)
    }

    /// Where the allocation named `id` stands, until the table changes.
    pub(crate) fn index_of_id(&self, id: AllocationId) -> Option<u32> {
        let is_it = |index: &u32| self.slots.get(*index).is_some_and(|a| a.id() == id);
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
            let media = self.media.get(index as usize);
            let media = media.and_then(|media| media.as_deref());
            seen ^ self.at(index).map_or(0, Allocation::touch) ^ media.map_or(0, Media::touch)
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

    /// What is remembered of the RTP streams of the allocation that stands at `index`; it begins
    /// with the first packet of one.
    pub(crate) fn media(&mut self, index: u32) -> &mut Media {
        let place = index as usize;
        if place >= self.media.len() {
            self.media.resize_with(place + 1, || None);
        }
        self.media[place].get_or_insert_default()
    }

    /// The allocation named `id`.
    pub(crate) fn by_id(&self, id: AllocationId) -> Option<&Allocation> {
        self.slots.get(self.index_of_id(id)?)
    }

    /// Takes in an allocation whose 5-tuple is free.
    pub(crate) fn insert(&mut self, allocation: Allocation) {
        let (id, armed) = (allocation.id(), allocation.armed);
        let index = self.slots.insert(allocation);
        self.index(index);
        let Self { slots, .. } = self;
        self.by_id.insert_unique(id.0, index, |index| {
            slots.get(*index).map_or(0, |a| a.id().0)
        });
        self.deadlines.arm(index, None, armed);
    }

    /// Has what stands at `index` found by its 5-tuple.
    fn index(&mut self, index: u32) {
        let Self {
            slots,
            hasher,
            by_tuple,
            ..
        } = self;
        let hash = |index: &u32| slots.get(*index).map_or(0, |a| hasher.hash_one(a.tuple));
        by_tuple.insert_unique(hash(&index), index, hash);
    }

    /// Has what stands at `index` no longer found by `tuple`.
    fn forget(&mut self, index: u32, tuple: &FiveTuple) {
        let (hash, is_it) = (self.hasher.hash_one(tuple), |other: &u32| *other == index);
        if let Ok(entry) = self.by_tuple.find_entry(hash, is_it) {
            entry.remove();
        }
    }

    /// Puts the allocation on `tuple` on another, which is free.
    pub(crate) fn readdress(&mut self, tuple: &FiveTuple, to: FiveTuple) {
        let Some(index) = self.index_of(tuple) else {
            return;
        };
        self.forget(index, tuple);
        if let Some(allocation) = self.slots.get_mut(index) {
            allocation.tuple = to;
        }
        self.index(index);
    }

    /// Notes where the client of the mobile allocation on `tuple` has gone, a 5-tuple that is free,
    /// or that it has gone nowhere. Where it had gone before.
    pub(crate) fn set_next(
        &mut self,
        tuple: &FiveTuple,
        next: Option<FiveTuple>,
    ) -> Option<FiveTuple> {
        let index = self.index_of(tuple)?;
        let Self {
            slots,
            hasher,
            by_next,
            ..
        } = self;
        let mobility = slots.get_mut(index)?.mobility.as_mut()?;
        let before = std::mem::replace(&mut mobility.next, next);
        if let Some(before) = before {
            let is_it = |other: &u32| *other == index;
            if let Ok(entry) = by_next.find_entry(hasher.hash_one(before), is_it) {
                entry.remove();
            }
        }
        let hash = |index: &u32| {
            let mobility = slots.get(*index).and_then(|a| a.mobility.as_ref());
            let next = mobility.and_then(|mobility| mobility.next);
            next.map_or(0, |next| hasher.hash_one(next))
        };
        if next.is_some() {
            by_next.insert_unique(hash(&index), index, hash);
        }
        before
    }

    /// Puts the allocation whose client has gone to `tuple` there; where it stands, and on which
    /// 5-tuple it was.
    pub(crate) fn arrive(&mut self, tuple: &FiveTuple) -> Option<(u32, FiveTuple)> {
        let index = self.index_of_next(tuple)?;
        let old = self.slots.get(index)?.tuple;
        self.set_next(&old, None);
        self.readdress(&old, *tuple);
        Some((index, old))
    }

    /// Takes an allocation out.
    pub(crate) fn remove(&mut self, tuple: &FiveTuple) -> Option<Allocation> {
        let tuple = self.by_tuple(tuple)?.tuple;
        let index = self.index_of(&tuple)?;
        let next = self.set_next(&tuple, None);
        self.forget(index, &tuple);
        let mut allocation = self.slots.remove(index)?;
        if let Some(mobility) = &mut allocation.mobility {
            mobility.next = next;
        }
        let is_it = |other: &u32| *other == index;
        if let Ok(entry) = self.by_id.find_entry(allocation.id().0, is_it) {
            entry.remove();
        }
        self.deadlines.forget(index, allocation.armed);
        if let Some(media) = self.media.get_mut(index as usize) {
            *media = None;
        }
        Some(allocation)
    }

    /// Makes sure that the allocation on `tuple` is looked at when its first relay ends. A moment
    /// that moved away is left to come and found to be early.
    pub(crate) fn rearm(&mut self, tuple: &FiveTuple) {
        let Some(index) = self.index_of_either(tuple) else {
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
        let mut on_the_way = 0;
        for (index, allocation) in self.slots.iter() {
            if let Some(next) = self.next_of(index) {
                on_the_way += 1;
                if self.index_of(&next).is_some() || self.index_of_next(&next) != Some(index) {
                    return Err("a client has gone to another allocation's 5-tuple");
                }
            }
            let by_id = self.by_id(allocation.id()).map(|a| a.tuple);
            if self.index_of(&allocation.tuple) != Some(index) || by_id != Some(allocation.tuple) {
                return Err("an index points at another allocation");
            }
            if allocation.relays.is_empty() {
                return Err("an allocation has no relayed transport address");
            }
        }
        if self.by_next.len() != on_the_way {
            return Err("clients on the way and their index differ in number");
        }
        Ok(())
    }
}
