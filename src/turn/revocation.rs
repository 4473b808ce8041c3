//! What the platform has taken back before its time: credentials, users and calls.
//!
//! A revocation at a moment T covers what was issued up to T. Who is covered gets the 401 of an
//! unknown user (RFC 8489 §9.2.4); what allocations it has end with
//! [`Server::revoke`](super::Server::revoke). All workers read one [`Revocations`] when a request
//! authenticates, without a lock, and never for a packet. It knows no file; `admin` keeps one.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use super::auth::Owner;
use super::credential::{CallId, Claims, DEFAULT_MAX_TTL, EXPIRY_LEEWAY, Subject};

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
    /// Since when it may have been about.
    pub when: When,
}

/// What a credential says of when it was issued, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Then, as a sealed name says.
    Issued(u64),
    /// Nothing but when it ends, as a REST name.
    Expires(u64),
    /// It always was, as static users'.
    Always,
}

impl When {
    /// Of a credential that says `claims` and ends at `expires`.
    pub(crate) fn of(claims: Option<&Claims>, expires: Option<u64>) -> Self {
        match (claims, expires) {
            (Some(claims), _) => Self::Issued(claims.issued),
            (None, Some(expires)) => Self::Expires(expires),
            (None, None) => Self::Always,
        }
    }
}

/// How far a revocation reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    issued_by: u64,
    expires_by: u64,
}

impl Reach {
    /// What was issued up to `at`, in Unix seconds. A REST name counts as issued `max_ttl` before it
    /// ends, which is what was in force at that moment, whatever is later.
    #[must_use]
    pub const fn new(at: u64, max_ttl: Duration) -> Self {
        Self {
            issued_by: at,
            expires_by: at.saturating_add(max_ttl.as_secs()),
        }
    }

    /// The moment.
    #[must_use]
    pub const fn at(self) -> u64 {
        self.issued_by
    }

    /// How long a credential might last then. Of what was taken back several times, so long that
    /// the latest moment and this say as much as all of them.
    #[must_use]
    pub const fn max_ttl(self) -> Duration {
        Duration::from_secs(self.expires_by.saturating_sub(self.issued_by))
    }

    const fn covers(self, when: When) -> bool {
        match when {
            When::Issued(issued) => issued <= self.issued_by,
            When::Expires(expires) => expires <= self.expires_by,
            When::Always => false,
        }
    }

    /// Both.
    fn and(self, other: Self) -> Self {
        Self {
            issued_by: self.issued_by.max(other.issued_by),
            expires_by: self.expires_by.max(other.expires_by),
        }
    }

    /// Whether nothing that it covers can be good any more at `now`, where credentials may last for
    /// `max_ttl`, or up to [`DEFAULT_MAX_TTL`] again.
    const fn is_over(self, max_ttl: Duration, now: u64) -> bool {
        let mut longest = max_ttl.as_secs();
        if longest < DEFAULT_MAX_TTL.as_secs() {
            longest = DEFAULT_MAX_TTL.as_secs();
        }
        let mut end = self.issued_by.saturating_add(longest);
        if end < self.expires_by {
            end = self.expires_by;
        }
        end.saturating_add(2 * EXPIRY_LEEWAY) < now
    }
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

type Shard = HashMap<Revoked, Reach, foldhash::quality::RandomState>;

/// What is refused although it is not over; clones are the same one.
#[derive(Clone)]
pub struct Revocations(Arc<[ArcSwap<Shard>; SHARDS]>);

impl Default for Revocations {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| ArcSwap::default())))
    }
}

impl Revocations {
    /// From now on what `reach` covers is refused, besides what was already.
    pub fn add(&self, revoked: Revoked, reach: Reach) {
        let shard = &self.0[revoked.shard()];
        shard.rcu(|before| {
            let mut after = Shard::clone(before);
            let known = after.entry(revoked).or_insert(reach);
            *known = known.and(reach);
            after
        });
    }

    /// The same for many, as at a start.
    pub fn add_all(&self, all: impl IntoIterator<Item = (Revoked, Reach)>) {
        let mut shards: Vec<Vec<(Revoked, Reach)>> = vec![Vec::new(); SHARDS];
        for (revoked, reach) in all {
            shards[revoked.shard()].push((revoked, reach));
        }
        for (shard, more) in self.0.iter().zip(shards) {
            if more.is_empty() {
                continue;
            }
            shard.rcu(|before| {
                let mut after = Shard::clone(before);
                for (revoked, reach) in &more {
                    let known = after.entry(*revoked).or_insert(*reach);
                    *known = known.and(*reach);
                }
                after
            });
        }
    }

    /// Forgets what cannot matter any more at `now`, where credentials may last for `max_ttl`: not
    /// before that, the default, and what might last at the time have passed since.
    pub fn forget(&self, max_ttl: Duration, now: u64) {
        for shard in self.0.iter() {
            let loaded = shard.load();
            if loaded.values().any(|reach| reach.is_over(max_ttl, now)) {
                shard.rcu(|before| {
                    let mut after = Shard::clone(before);
                    after.retain(|_, reach| !reach.is_over(max_ttl, now));
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
            let reach = self.0[revoked.shard()].load().get(&revoked).copied();
            is_covered |= match revoked {
                Revoked::Credential(_) => reach.is_some(),
                Revoked::User(_) | Revoked::Call(_) => {
                    reach.is_some_and(|reach| reach.covers(issued.when))
                }
            };
        }
        is_covered
    }

    /// All of them, each with its reach, sorted.
    #[must_use]
    pub fn all(&self) -> Vec<(Revoked, Reach)> {
        let mut all = Vec::new();
        for shard in self.0.iter() {
            let loaded = shard.load();
            all.extend(loaded.iter().map(|(revoked, reach)| (*revoked, *reach)));
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

    const HOUR: u64 = 3_600;
    const NOW: u64 = 1_800_000_000;

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * HOUR)
    }

    fn issued(when: When) -> Issued {
        Issued {
            name: UsernameDigest::of("1800000000:alice"),
            subject: Subject::from_bytes([1; 16]),
            call: Some(CallId::from_bytes([2; 16])),
            when,
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
            revocations.add(revoked, Reach::new(100, Duration::from_secs(10)));
            let covers = |when| revocations.covers(&issued(when));
            assert!(covers(When::Issued(99)), "{revoked:?}");
            assert!(covers(When::Issued(100)), "{revoked:?}");
            assert!(covers(When::Expires(110)), "{revoked:?}");
            let is_name = matches!(revoked, Revoked::Credential(_));
            for later in [When::Issued(101), When::Expires(111), When::Always] {
                assert_eq!(covers(later), is_name, "{later:?}");
            }
            let other = Issued {
                name: UsernameDigest::of("1800000001:alice"),
                subject: Subject::from_bytes([3; 16]),
                call: None,
                when: When::Issued(1),
            };
            assert!(!revocations.covers(&other), "{revoked:?}");
        }
    }

    #[test]
    fn an_earlier_revocation_takes_nothing_off_a_later_one() {
        let revocations = Revocations::default();
        for at in [100, 50] {
            let reach = Reach::new(at, hours(1));
            for revoked in each() {
                revocations.add(revoked, reach);
            }
            revocations.add_all(each().map(|revoked| (revoked, reach)));
        }
        assert_eq!(revocations.len(), 3);
        assert!(revocations.all().iter().all(|(_, reach)| reach.at() == 100));
    }

    /// T25: whichever comes first, and also when it has been written down and read again.
    #[test]
    fn a_second_revocation_under_a_shorter_max_ttl_takes_nothing_off_the_first() {
        let [long, short] = [Reach::new(NOW, hours(48)), Reach::new(NOW + HOUR, hours(1))];
        for order in [[long, short], [short, long]] {
            let revocations = Revocations::default();
            revocations.add_all(order.map(|reach| (each()[1], reach)));
            let reach = revocations.all()[0].1;
            assert_eq!(Reach::new(reach.at(), reach.max_ttl()), reach);
            let covers = |when| revocations.covers(&issued(when));
            assert!(covers(When::Expires(NOW + 48 * HOUR)));
            assert!(!covers(When::Expires(NOW + 48 * HOUR + 1)));
            assert!(covers(When::Issued(NOW + HOUR)) && !covers(When::Issued(NOW + HOUR + 1)));
        }
    }

    /// T25: not before the longest of its own `max_ttl`, the one there is now, and the default.
    #[test]
    fn a_revocation_is_kept_for_as_long_as_anything_that_it_covers_may_become_good() {
        for (own, current, kept) in [
            (48, 1, 48),
            (1, 1, 48),
            (1, 100, 100),
            (100, 1, 100),
            (48, 48, 48),
        ] {
            let revocations = Revocations::default();
            revocations.add(each()[1], Reach::new(NOW, hours(own)));
            let end = NOW + kept * HOUR + 2 * EXPIRY_LEEWAY;
            revocations.forget(hours(current), end);
            assert_eq!(revocations.len(), 1, "{own} {current}");
            revocations.forget(hours(current), end + 1);
            assert!(revocations.is_empty(), "{own} {current}");
        }
    }

    #[test]
    fn what_cannot_matter_any_more_is_forgotten_and_the_rest_is_not() {
        let revocations = Revocations::default();
        let user = |n: u8| Revoked::User(Subject::from_bytes([n; 16]));
        let reach = |n: u8| Reach::new(NOW + u64::from(n), hours(48));
        revocations.add_all((0..200).map(|n| (user(n), reach(n))));
        revocations.forget(hours(48), NOW + 150 + 48 * HOUR + 2 * EXPIRY_LEEWAY);
        assert_eq!(revocations.len(), 50);
        let mut all = revocations.all().into_iter();
        assert!(all.all(|(_, reach)| reach.at() >= NOW + 150));
        revocations.forget(hours(48), u64::MAX);
        assert!(revocations.is_empty());
    }
}
