//! How connections go that nobody closes: on deadlines for a handshake, for a message and for nothing
//! at all, and for want of room, the oldest without an allocation first.

use std::time::Duration;

use crate::dataplane::stream::{At, Entry, SWEEP, Slot, Streams};
use crate::dataplane::surroundings::Surroundings;
use crate::turn::{FiveTuple, Tick};

/// Connections without an allocation; one more, and the oldest of them goes.
const STRANGERS_MAX: usize = 8_192;
/// For how long a connection may be opening: its PROXY header, its first byte, its TLS handshake.
const OPENING: Duration = Duration::from_secs(10);
/// For how long a message that has begun may take to be whole.
const MESSAGE: Duration = Duration::from_secs(10);
/// For how long a connection without an allocation may say nothing.
const IDLE: Duration = Duration::from_secs(60);

impl Streams {
    /// Whether it is time to look at deadlines.
    pub(super) fn is_due(&self, now: Tick) -> bool {
        (self.paused || !self.slots.is_empty()) && self.next_sweep <= now
    }

    /// Closes what has taken too long, at `now`; `is_known` says who has an allocation.
    pub(super) fn sweep(
        &mut self,
        house: &Surroundings,
        now: Tick,
        is_known: impl Fn(FiveTuple) -> bool,
    ) {
        self.next_sweep = now.plus(SWEEP);
        let late: Vec<At> = self
            .all()
            .filter(|at| {
                let slot = self.slots.get(at.slot as usize);
                slot.is_some_and(|slot| slot.entry.is_late(now, &is_known))
            })
            .collect();
        for at in late {
            self.refuse(at, house);
        }
        self.strangers.retain(|at| {
            let slot = self.slots.get(at.slot as usize);
            slot.is_some_and(|slot| slot.generation == at.generation && !slot.is_known(&is_known))
        });
        for (_, slot) in &mut self.slots {
            if let Entry::Connection(connection) = &mut slot.entry {
                connection.rest();
            }
        }
        if self.paused {
            self.resume(house);
        }
    }

    /// One connection without an allocation too many: the oldest goes.
    pub(super) fn make_room(&mut self, house: &Surroundings, is_known: impl Fn(FiveTuple) -> bool) {
        while self.strangers.len() > STRANGERS_MAX {
            let Some(at) = self.strangers.pop_front() else {
                return;
            };
            let slot = self.slots.get(at.slot as usize);
            if slot.is_some_and(|s| s.generation == at.generation && !s.is_known(&is_known)) {
                self.refuse(at, house);
            }
        }
    }

    /// Closes a connection whose client has no allocation.
    fn refuse(&mut self, at: At, house: &Surroundings) {
        if let Some(entry) = self.entry(at) {
            let transport = entry.transport();
            self.counters.over(transport).connections_refused.add(1);
        }
        self.close(at, house);
    }
}

impl Slot {
    fn is_known(&self, is_known: impl Fn(FiveTuple) -> bool) -> bool {
        match &self.entry {
            Entry::Newcomer(_) => false,
            Entry::Connection(connection) => is_known(connection.tuple),
        }
    }
}

impl Entry {
    fn is_late(&self, now: Tick, is_known: impl Fn(FiveTuple) -> bool) -> bool {
        match self {
            Self::Newcomer(newcomer) => now.since(newcomer.since) > OPENING,
            Self::Connection(connection) => {
                let silence = now.since(connection.heard);
                let waits_for_rest = connection
                    .begun
                    .is_some_and(|begun| now.since(begun) > MESSAGE);
                waits_for_rest
                    || connection.is_opening() && silence > OPENING
                    || silence > IDLE && !is_known(connection.tuple)
            }
        }
    }
}
