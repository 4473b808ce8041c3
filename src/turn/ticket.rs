//! MOBILITY-TICKET (RFC 8016 §3.1.2): which allocation its bearer may take to another 5-tuple.
//!
//! Nothing is kept about a ticket but its number, with the allocation. It is sealed with AES-SIV
//! (RFC 5297), the same for the same contents: so a retransmitted Refresh is answered alike, and no
//! nonce takes room. There is none to spare: coturn's client takes a ticket for a C string of at
//! most 32 characters, so that a byte of salt is counted up until the ticket has no zero in it,
//! which takes 1.13 tries on average.
//!
//! ```text
//! sealed: synthetic IV (16) | allocation id (8) | worker (2) | number (4) | salt (1)
//! ```
//! The ticket does not name its user: the allocation does, and is asked.

use std::fmt;

use aes_siv::KeyInit;
use aes_siv::siv::Aes128Siv;
use zeroize::Zeroizing;

use crate::turn::address::WorkerId;
use crate::turn::route::AllocationId;

const CONTENTS_LEN: usize = 8 + 2 + 4 + 1;
const IV_LEN: usize = 16;
/// Bytes in a ticket.
pub(crate) const TICKET_LEN: usize = IV_LEN + CONTENTS_LEN;
/// Nothing but the contents is authenticated.
const HEADERS: [&[u8]; 0] = [];

/// The key that tickets are sealed with. It is wiped when it is dropped.
#[derive(Clone)]
pub struct TicketKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(hidden)")
    }
}

/// What a ticket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) id: AllocationId,
    /// Who owned the allocation when the ticket was made.
    pub(crate) worker: WorkerId,
    /// How many tickets the allocation had before.
    pub(crate) number: u32,
}

impl TicketKey {
    /// Takes 32 random bytes.
    #[must_use]
    pub const fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// The ticket as its client gets it.
    pub(crate) fn seal(&self, ticket: Ticket) -> Vec<u8> {
        let mut contents = [0; CONTENTS_LEN];
        contents[..8].copy_from_slice(&ticket.id.0.to_be_bytes());
        contents[8..10].copy_from_slice(&ticket.worker.0.to_be_bytes());
        contents[10..14].copy_from_slice(&ticket.number.to_be_bytes());
        let mut cipher = Aes128Siv::new((&*self.0).into());
        let mut sealed = Vec::new();
        for salt in 0..=u8::MAX {
            contents[14] = salt;
            // Contents of any length can be sealed.
            sealed = cipher.encrypt(HEADERS, &contents).unwrap_or_default();
            if !sealed.contains(&0) {
                break;
            }
        }
        sealed
    }

    /// What `sealed` says, if it was sealed with this key.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Ticket> {
        if sealed.len() != TICKET_LEN {
            return None;
        }
        let contents = Aes128Siv::new((&*self.0).into())
            .decrypt(HEADERS, sealed)
            .ok()?;
        let (id, rest) = contents.split_first_chunk()?;
        let (worker, rest) = rest.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        Some(Ticket {
            id: AllocationId(u64::from_be_bytes(*id)),
            worker: WorkerId(u16::from_be_bytes(*worker)),
            number: u32::from_be_bytes(*number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TicketKey {
        TicketKey::new(Zeroizing::new([byte; 32]))
    }

    fn ticket(number: u32) -> Ticket {
        Ticket {
            id: AllocationId(0x1122_3344_5566_7788),
            worker: WorkerId(3),
            number,
        }
    }

    #[test]
    fn a_ticket_says_what_was_sealed_and_fits_a_c_string() {
        let key = key(1);
        for number in (0..2_000).chain([u32::MAX]) {
            let sealed = key.seal(ticket(number));
            assert_eq!(sealed, key.seal(ticket(number)));
            assert!(sealed.len() < 33 && !sealed.contains(&0));
            assert_eq!(key.open(&sealed), Some(ticket(number)));
        }
    }

    #[test]
    fn a_forged_ticket_or_one_of_another_key_says_nothing() {
        let sealed = key(1).seal(ticket(7));
        assert_eq!(key(2).open(&sealed), None);
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert_eq!(key(1).open(&forged), None, "altered at {at}");
        }
        assert_eq!(key(1).open(&sealed[1..]), None);
        assert_eq!(key(1).open(&[&sealed[..], &[1]].concat()), None);
    }

    /// RFC 8016 §5: nothing can be gleaned from a ticket: two in a row share no more bytes than
    /// two random strings would.
    #[test]
    fn tickets_of_one_allocation_look_alike_to_nobody() {
        let sealed: Vec<_> = (0..500).map(|n| key(1).seal(ticket(n))).collect();
        let equal = |pair: &[Vec<u8>]| pair[0].iter().zip(&pair[1]).filter(|(a, b)| a == b).count();
        let equal: usize = sealed.windows(2).map(equal).sum();
        // 15,469 bytes, of which 61 would be equal by chance.
        assert!(equal < 150, "{equal}");
    }
}
