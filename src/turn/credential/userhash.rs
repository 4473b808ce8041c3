//! USERHASH (RFC 8489 §14.4): static users by the hash of their names, so that who listens in does
//! not read one. Names that a secret mints are not known before they come, and so have no place
//! here.

use std::fmt;

use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::proto::Userhash;

/// The names of all static users, each with its hash.
#[derive(Clone, Default)]
pub(super) struct Userhashes(Vec<([u8; 32], String)>);

impl Userhashes {
    pub(super) fn new<'n>(names: impl Iterator<Item = &'n String>, realm: &str) -> Self {
        let hashed = |name: &String| (Userhash::of(name, realm).0, name.clone());
        Self(names.map(hashed).collect())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name with this hash and `true`, else another one and `false`.
    ///
    /// Every hash is compared, and each to its end, so that the time tells neither whether one was
    /// found nor which: some 30 ns for each user, of whom there are few.
    pub(super) fn find(&self, hash: &[u8; 32]) -> (&str, bool) {
        let mut place = 0_u64;
        let mut is_known = subtle::Choice::from(0);
        for (index, (other, _)) in (0..).zip(&self.0) {
            let same = other.ct_eq(hash);
            place.conditional_assign(&index, same);
            is_known |= same;
        }
        let place = usize::try_from(place).unwrap_or_default();
        let name = self.0.get(place).map_or("", |(_, name)| name.as_str());
        (name, is_known.into())
    }
}

impl fmt::Debug for Userhashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Userhashes({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_found_by_its_hash_in_its_realm_alone() {
        let names = ["alice", "bob", "carol"].map(str::to_owned);
        let hashes = Userhashes::new(names.iter(), "calls.test");
        for name in &names {
            let hash = Userhash::of(name, "calls.test").0;
            assert_eq!(hashes.find(&hash), (name.as_str(), true));
            let elsewhere = Userhash::of(name, "other.test").0;
            assert!(!hashes.find(&elsewhere).1);
            for bit in [0, 255] {
                let mut close = hash;
                close[bit / 8] ^= 1 << (bit % 8);
                assert!(!hashes.find(&close).1);
            }
        }
        assert!(!Userhashes::default().find(&[0; 32]).1);
    }
}
