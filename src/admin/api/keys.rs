//! API keys. Of each only a SHA-256 is kept: a key is long and random, so that nobody guesses what
//! has this hash, and who reads this memory learns no key.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// What a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To mint credentials.
    Mint,
    /// To look at allocations and bans.
    Read,
    /// To revoke, to ban and to end allocations.
    Revoke,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mint, Self::Read, Self::Revoke];

    /// The word that stands for it in configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::Read => "read",
            Self::Revoke => "revoke",
        }
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope there is.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether `scope` is among them.
    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let bits = scopes.into_iter().map(|scope| 1 << scope as u8);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// A key that somebody may present.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    id: String,
    digest: [u8; 32],
    scopes: Scopes,
}

impl ApiKey {
    /// The key called `id` that reads `value`.
    #[must_use]
    pub fn new(id: &str, value: &str, scopes: Scopes) -> Self {
        Self {
            id: id.to_owned(),
            digest: digest(value),
            scopes,
        }
    }

    /// What it is called in logs and configuration.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether who shows one shows the other.
    #[must_use]
    pub fn reads_as(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// What it is good for.
    #[must_use]
    pub const fn scopes(&self) -> Scopes {
        self.scopes
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("id", &self.id)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// The key that was presented, if it is one of `keys`. All of them are compared, each in the same
/// time, whichever fits.
pub(super) fn find<'k>(keys: &'k [ApiKey], presented: &str) -> Option<&'k ApiKey> {
    let digest = digest(presented);
    let mut found = u32::MAX;
    for (place, key) in (0_u32..).zip(keys) {
        let fits: Choice = key.digest.ct_eq(&digest);
        found = u32::conditional_select(&found, &place, fits);
    }
    keys.get(usize::try_from(found).ok()?)
}

fn digest(value: &str) -> [u8; 32] {
    Sha256::digest(value.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_that_is_there_is_found() {
        let keys =
            ["one", "two"].map(|id| ApiKey::new(id, &format!("value of {id}"), Scopes::all()));
        assert_eq!(find(&keys, "value of one").map(ApiKey::id), Some("one"));
        assert_eq!(find(&keys, "value of two").map(ApiKey::id), Some("two"));
        for other in ["", "value of", "value of one ", "one", "VALUE OF ONE"] {
            assert_eq!(find(&keys, other), None, "{other}");
        }
        assert_eq!(find(&[], ""), None);
    }

    /// T26
    #[test]
    fn a_key_does_not_show_what_it_is() {
        let shown = format!(
            "{:?}",
            ApiKey::new("one", "a-long-random-value", Scopes::all())
        );
        assert!(shown.contains("one") && !shown.contains("long"), "{shown}");
        let digest = digest("a-long-random-value");
        assert!(!shown.contains(&format!("{}", digest[0])) || !shown.contains("digest"));
    }

    #[test]
    fn scopes_are_what_they_were_made_of() {
        let scopes: Scopes = [Scope::Mint, Scope::Revoke].into_iter().collect();
        assert!(scopes.has(Scope::Mint) && scopes.has(Scope::Revoke) && !scopes.has(Scope::Read));
        assert!(Scope::ALL.into_iter().all(|scope| Scopes::all().has(scope)));
        assert!(
            !Scope::ALL
                .into_iter()
                .any(|scope| Scopes::default().has(scope))
        );
    }
}
