//! What two tabs tell each other to begin a call: a mailbox for each party, in memory, emptied by
//! whoever reads it. It is signalling, so a direct call's addresses pass here; nothing of it is
//! written down.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

/// Messages that wait for a party at a time. A call takes a dozen.
const ROOM: usize = 64;

/// Whose mailbox it is.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Party {
    A,
    B,
}

/// A mailbox is full: nobody reads it.
#[derive(Debug)]
pub(super) struct Full;

/// The mailboxes of both parties.
#[derive(Debug, Default)]
pub(super) struct Mailboxes(Mutex<[VecDeque<Value>; 2]>);

impl Mailboxes {
    /// Leaves a message for `party`.
    pub(super) fn leave(&self, party: Party, message: Value) -> Result<(), Full> {
        self.of(party, |mailbox| {
            if mailbox.len() == ROOM {
                return Err(Full);
            }
            mailbox.push_back(message);
            Ok(())
        })
    }

    /// All that waits for `party`, in its order; it waits no longer.
    pub(super) fn take(&self, party: Party) -> Vec<Value> {
        self.of(party, |mailbox| mailbox.drain(..).collect())
    }

    // What the lock guards is whole between any two statements.
    fn of<T>(&self, party: Party, work: impl FnOnce(&mut VecDeque<Value>) -> T) -> T {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [a, b] = &mut *both;
        work(match party {
            Party::A => a,
            Party::B => b,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_party_reads_its_own_messages_once_and_in_order() {
        let mailboxes = Mailboxes::default();
        for (party, message) in [(Party::A, 1), (Party::B, 2), (Party::A, 3)] {
            mailboxes.leave(party, json!(message)).unwrap();
        }
        assert_eq!(mailboxes.take(Party::A), [json!(1), json!(3)]);
        assert_eq!(mailboxes.take(Party::A), Vec::<Value>::new());
        assert_eq!(mailboxes.take(Party::B), [json!(2)]);
    }

    #[test]
    fn a_mailbox_that_nobody_reads_does_not_grow() {
        let mailboxes = Mailboxes::default();
        for n in 0..ROOM {
            mailboxes.leave(Party::B, json!(n)).unwrap();
        }
        assert!(mailboxes.leave(Party::B, json!("more")).is_err());
        assert!(mailboxes.leave(Party::A, json!("other")).is_ok());
        assert_eq!(mailboxes.take(Party::B).len(), ROOM);
        assert!(mailboxes.leave(Party::B, json!("again")).is_ok());
    }
}
