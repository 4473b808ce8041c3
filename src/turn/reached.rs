//! The relayed addresses that an allocation sends to: their landings, kept in hand so that a packet asks
//! no table.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::turn::address::RelayedAddr;
use crate::turn::route::{Landing, Landings};

/// How many landings a sender keeps in hand.
const REACHED: usize = 4;

/// Landings of this server's relayed addresses that the client sent to lately: as good as the
/// directory, since each says whether it is still what is found there, and nearer. One that is not
/// is let go when the client sends there again, or when others take its place.
#[derive(Debug, Default)]
pub(crate) struct Reached(SmallVec<[Arc<Landing>; 1]>);

impl Reached {
    /// Which of them is the landing of `relayed`; it is looked up if it is none of them.
    pub(crate) fn place<L: Landings>(
        &mut self,
        relayed: RelayedAddr,
        landings: &L,
    ) -> Option<usize> {
        let known = self.0.iter().position(|landing| landing.relayed == relayed);
        if let Some(place) = known.filter(|place| self.0[*place].is_current()) {
            return Some(place);
        }
        let found = landings.find(relayed);
        match (known, found) {
            (Some(place), Some(landing)) => {
                self.0[place] = landing;
                Some(place)
            }
            (Some(place), None) => {
                self.0.remove(place);
                None
            }
            (None, Some(landing)) => {
                if self.0.len() == REACHED {
                    self.0.remove(0);
                }
                self.0.push(landing);
                Some(self.0.len() - 1)
            }
            (None, None) => None,
        }
    }

    /// Lets go of those that are superseded; a refresh does so, since a client that no longer sends
    /// to a peer would hold what the peer left behind.
    pub(crate) fn tidy(&mut self) {
        self.0.retain(|landing| landing.is_current());
    }

    /// The landing at a place.
    pub(crate) fn at(&self, place: usize) -> Option<&Landing> {
        self.0.get(place).map(Arc::as_ref)
    }
}
