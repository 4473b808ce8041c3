//! What the platform has taken back before its time: credentials, users and calls.
//!
//! A revocation at a moment T covers what was issued up to T. Who is covered gets the 401 of an
//! unknown user (RFC 8489 §9.2.4); what allocations it has end with
//! [`Server::revoke`](super::Server::revoke). All workers read one [`Revocations`] when a request
//! authenticates, without a lock, and never for a packet. It knows no file; `admin` keeps one.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use super::auth::Owner;
use super::credential::{CallId, Subject};

/// Parts of the table. One is copied for each revocation, while others are read.
const SHARDS: usize = 64;

/// Stands for a username; the name itself is not kept. Of a name that holds no secret, since what
/// its password is made with is kept elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsernameDigest([u8; 16]);

impl UsernameDigest {
    /// The digest of a username.
    #[must_use]
    pub fn of(username: &str) -> Self {
        Owner::new(username).digest()
    }

    /// For storing; the other way round is [`UsernameDigest::from_bytes`].
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// A digest that was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for UsernameDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UsernameDigest({:032x})", u128::from_be_bytes(self.0))
    }
}

/// What is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Revoked {
    /// One credential, whenever it was issued.
    Credential(UsernameDigest),
    /// All that was issued for a user of the platform. Static users have subjects of their own, and
    /// go with the configuration.
    User(Subject),
    /// All that was issued for a call.
    Call(CallId),
}

impl Revoked {
    fn shard(&self) -> usize {
        let bytes = match self {
            Self::Credential(digest) => digest.0,
            Self::User(subject) => subject.to_bytes(),
            Self::Call(call) => call.to_bytes(),
        };
        usize::from(bytes[0]) % SHARDS
    }
}

/// What a credential is known by.
#[derive(Debug, Clone, Copy)]
pub struct Issued {
    /// Its name.
    pub name: UsernameDigest,
    /// Whose it is.
    pub subject: Subject,
    /// For which call.
    pub call: Option<CallId>,
    /// Since when it may have been about, in Unix seconds; static users' always was.
    pub at: Option<u64>,
}

impl Issued {
    fn matches(&self) -> impl Iterator<Item = Revoked> {
        let call = self.call.map(Revoked::Call);
        [Revoked::Credential(self.name), Revoked::User(self.subject)]
            .into_iter()
            .chain(call)
    }

    /// Whether it is one of those that are taken back at this moment.
    pub(crate) fn is_among(&self, revoked: &HashSet<Revoked>) -> bool {
        self.matches().any(|one| revoked.contains(&one))
    }
}

/// When each was taken back, in Unix seconds.
type Shard = HashMap<Revoked, u64, foldhash::quality::RandomState>;

/// What is refused although it is not over; clones are the same one.
#[derive(Clone)]
pub struct Revocations(Arc<[ArcSwap<Shard>; SHARDS]>);

impl Default for Revocations {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| ArcSwap::default())))
    }
}

impl Revocations {
    /// From now on what was issued up to `at` is refused. An earlier moment changes nothing.
    pub fn add(&self, revoked: Revoked, at: u64) {
        let shard = &self.0[revoked.shard()];
        shard.rcu(|before| {
            let mut after = Shard::clone(before);
            let known = after.entry(revoked).or_insert(at);
            *known = at.max(*known);
            after
        });
    }

    /// The same for many, as at a start.
    pub fn add_all(&self, all: impl IntoIterator<Item = (Revoked, u64)>) {
        let mut shards: Vec<Vec<(Revoked, u64)>> = vec![Vec::new(); SHARDS];
        for (revoked, at) in all {
            shards[revoked.shard()].push((revoked, at));
        }
        for (shard, more) in self.0.iter().zip(shards) {
            if more.is_empty() {
                continue;
            }
            shard.rcu(|before| {
                let mut after = Shard::clone(before);
                for (revoked, at) in &more {
                    let known = after.entry(*revoked).or_insert(*at);
                    *known = (*at).max(*known);
                }
                after
            });
        }
    }

    /// Forgets what was taken back before `oldest`: nothing that it covers is good any more.
    pub fn forget_before(&self, oldest: u64) {
        for shard in self.0.iter() {
            if shard.load().values().any(|at| *at < oldest) {
                shard.rcu(|before| {
                    let mut after = Shard::clone(before);
                    after.retain(|_, at| *at >= oldest);
                    after
                });
            }
        }
    }

    /// Whether a credential is refused.
    ///
    /// Everything it may be covered by is looked for, whatever was found before: a refusal takes no
    /// longer and no less long than that of an unknown user.
    #[must_use]
    pub fn covers(&self, issued: &Issued) -> bool {
        let mut is_covered = false;
        for revoked in issued.matches() {
            let until = self.0[revoked.shard()].load().get(&revoked).copied();
            is_covered |= match revoked {
                Revoked::Credential(_) => until.is_some(),
                Revoked::User(_) | Revoked::Call(_) => until
                    .zip(issued.at)
                    .is_some_and(|(until, issued)| issued <= until),
            };
        }
        is_covered
    }

    /// All of them, each with its moment, sorted.
    #[must_use]
    pub fn all(&self) -> Vec<(Revoked, u64)> {
        let mut all = Vec::new();
        for shard in self.0.iter() {
            all.extend(shard.load().iter().map(|(revoked, at)| (*revoked, *at)));
        }
        all.sort_unstable();
        all
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.load().len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(at: Option<u64>) -> Issued {
        Issued {
            name: UsernameDigest::of("1800000000:alice"),
            subject: Subject::from_bytes([1; 16]),
            call: Some(CallId::from_bytes([2; 16])),
            at,
        }
    }

    fn each() -> [Revoked; 3] {
        [
            Revoked::Credential(UsernameDigest::of("1800000000:alice")),
            Revoked::User(Subject::from_bytes([1; 16])),
            Revoked::Call(CallId::from_bytes([2; 16])),
        ]
    }

    #[test]
    fn what_was_issued_up_to_a_revocation_is_covered_and_nothing_later() {
        for revoked in each() {
            let revocations = Revocations::default();
            revocations.add(revoked, 100);
            assert!(revocations.covers(&issued(Some(99))), "{revoked:?}");
            assert!(revocations.covers(&issued(Some(100))), "{revoked:?}");
            let is_name = matches!(revoked, Revoked::Credential(_));
            assert_eq!(revocations.covers(&issued(Some(101))), is_name);
            assert_eq!(revocations.covers(&issued(None)), is_name);
            let other = Issued {
                name: UsernameDigest::of("1800000001:alice"),
                subject: Subject::from_bytes([3; 16]),
                call: None,
                at: Some(1),
            };
            assert!(!revocations.covers(&other), "{revoked:?}");
        }
    }

    #[test]
    fn an_earlier_revocation_takes_nothing_off_a_later_one() {
        let revocations = Revocations::default();
        for at in [100, 50] {
            for revoked in each() {
                revocations.add(revoked, at);
            }
            revocations.add_all(each().map(|revoked| (revoked, at)));
        }
        assert_eq!(revocations.len(), 3);
        assert!(revocations.all().iter().all(|(_, at)| *at == 100));
    }

    #[test]
    fn what_cannot_matter_any_more_is_forgotten_and_the_rest_is_not() {
        let revocations = Revocations::default();
        let user = |n: u8| Revoked::User(Subject::from_bytes([n; 16]));
        revocations.add_all((0..200).map(|n| (user(n), u64::from(n))));
        revocations.forget_before(150);
        assert_eq!(revocations.len(), 50);
        assert!(revocations.all().iter().all(|(_, at)| *at >= 150));
        revocations.forget_before(u64::MAX);
        assert!(revocations.is_empty());
    }
}
