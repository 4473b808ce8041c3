//! How many allocations each user holds, over all workers. Plain data; whoever shares it brings
//! the lock. Touched when an allocation opens or ends, never for a packet.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::clock::Tick;
use super::credential::Subject;
use super::route::Standing;

/// An allocation that has been silent for so long may be replaced when its user's quota is full:
/// its client most likely came back from behind another NAT mapping.
pub const REPLACEABLE_AFTER: Duration = Duration::from_secs(30);

fn is_silent(standing: &Standing, now: Tick) -> bool {
    now.since(standing.meters.last_heard()) >= REPLACEABLE_AFTER
}

/// What came of an [`Users::admit`].
#[derive(Debug)]
pub enum Admitted {
    /// There was room.
    Granted,
    /// There was none, and this silent allocation makes place.
    Replaced(Arc<Standing>),
    /// There was none.
    Full,
}

/// Every user's live allocations.
#[derive(Debug, Default)]
pub struct Users {
    held: HashMap<Subject, SmallVec<[Arc<Standing>; 1]>, foldhash::quality::RandomState>,
}

impl Users {
    /// Whether [`Users::admit`] would take one more allocation of `user` now.
    #[must_use]
    pub fn has_room(&self, user: Subject, limit: u32, now: Tick) -> bool {
        limit == 0
            || self.held.get(&user).is_none_or(|held| {
                held.len() < limit as usize || held.iter().any(|other| is_silent(other, now))
            })
    }

    /// Counts `holding` on `user` if fewer than `limit` are held (0: no limit), or in the place of
    /// the one that has been silent longest, if that is long enough.
    pub fn admit(
        &mut self,
        user: Subject,
        limit: u32,
        holding: Arc<Standing>,
        now: Tick,
    ) -> Admitted {
        let held = self.held.entry(user).or_default();
        if limit == 0 || held.len() < limit as usize {
            held.push(holding);
            return Admitted::Granted;
        }
        let silent = held
            .iter_mut()
            .filter(|other| is_silent(other, now))
            .min_by_key(|other| other.meters.last_heard());
        match silent {
            Some(place) => Admitted::Replaced(std::mem::replace(place, holding)),
            None => Admitted::Full,
        }
    }

    /// Takes an allocation off `user`'s account; nothing happens when it was replaced.
    pub fn release(&mut self, user: Subject, holding: &Arc<Standing>) {
        if let Some(held) = self.held.get_mut(&user) {
            // One user may hold thousands, where there is no limit: pointers are compared, since
            // to look behind each would miss the cache as often.
            if let Some(place) = held.iter().position(|other| Arc::ptr_eq(other, holding)) {
                held.swap_remove(place);
            }
            if held.is_empty() {
                self.held.remove(&user);
            }
        }
    }

    /// How many allocations `user` holds.
    #[must_use]
    pub fn held(&self, user: Subject) -> usize {
        self.held.get(&user).map_or(0, SmallVec::len)
    }

    /// How many users hold anything.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nobody holds anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
