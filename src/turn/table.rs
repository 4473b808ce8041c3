//! The allocations of one worker and the indexes over them. The only writer of those indexes, so
//! that they cannot fall out of step.

use hashbrown::HashMap;
use slab::Slab;

use super::address::FiveTuple;
use super::allocation::Allocation;
use super::clock::Tick;
use super::deadlines::Deadlines;
use super::route::AllocationId;

/// Allocations by 5-tuple, by opaque name, and by the moment each wants to be looked at.
#[derive(Debug, Default)]
pub(crate) struct AllocationTable {
    slots: Slab<Allocation>,
    by_tuple: HashMap<FiveTuple, usize, foldhash::quality::RandomState>,
    by_id: HashMap<AllocationId, usize, foldhash::quality::RandomState>,
    deadlines: Deadlines,
}

impl AllocationTable {
    /// The allocation on `tuple`.
    pub(crate) fn by_tuple(&self, tuple: &FiveTuple) -> Option<&Allocation> {
        self.slots.get(*self.by_tuple.get(tuple)?)
    }

    /// The allocation on `tuple`, to be changed.
    pub(crate) fn by_tuple_mut(&mut self, tuple: &FiveTuple) -> Option<&mut Allocation> {
        self.slots.get_mut(*self.by_tuple.get(tuple)?)
    }

    /// Where the allocation on `tuple` stands, until the table changes.
    pub(crate) fn index_of(&self, tuple: &FiveTuple) -> Option<usize> {
        self.by_tuple.get(tuple).copied()
    }

    /// Where the allocation named `id` stands, until the table changes.
    pub(crate) fn index_of_id(&self, id: AllocationId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// The allocation that stands at `index`.
    pub(crate) fn at(&self, index: usize) -> Option<&Allocation> {
        self.slots.get(index)
    }

    /// The allocation that stands at `index`, to be changed.
    pub(crate) fn at_mut(&mut self, index: usize) -> Option<&mut Allocation> {
        self.slots.get_mut(index)
    }

    /// The allocation named `id`.
    pub(crate) fn by_id(&self, id: AllocationId) -> Option<&Allocation> {
        self.slots.get(*self.by_id.get(&id)?)
    }

    /// Takes in an allocation whose 5-tuple is free.
    pub(crate) fn insert(&mut self, allocation: Allocation) {
        let (tuple, id, armed) = (allocation.tuple, allocation.id, allocation.armed);
        let index = self.slots.insert(allocation);
        self.by_tuple.insert(tuple, index);
        self.by_id.insert(id, index);
        self.deadlines.arm(index, None, armed);
    }

    /// Takes an allocation out.
    pub(crate) fn remove(&mut self, tuple: &FiveTuple) -> Option<Allocation> {
        let index = self.by_tuple.remove(tuple)?;
        let allocation = self.slots.try_remove(index)?;
        self.by_id.remove(&allocation.id);
        self.deadlines.forget(index, allocation.armed);
        Some(allocation)
    }

    /// Makes sure that the allocation on `tuple` is looked at when its first relay ends. A moment
    /// that moved away is left to come and found to be early.
    pub(crate) fn rearm(&mut self, tuple: &FiveTuple) {
        let Some(index) = self.by_tuple.get(tuple).copied() else {
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
        self.slots.len()
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
        let count = self.slots.len();
        if self.by_tuple.len() != count || self.by_id.len() != count {
            return Err("an index and the allocations differ in number");
        }
        if self.deadlines.len() != count {
            return Err("an allocation is not in the queue of deadlines exactly once");
        }
        for (index, allocation) in &self.slots {
            if self.by_tuple.get(&allocation.tuple) != Some(&index)
                || self.by_id.get(&allocation.id) != Some(&index)
            {
                return Err("an index points at another allocation");
            }
            if allocation.relays.is_empty() {
                return Err("an allocation has no relayed transport address");
            }
        }
        Ok(())
    }
}
