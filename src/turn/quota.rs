//! How many allocations each user, each tenant and all together hold, over all workers, and the
//! buckets that the allocations of one user or tenant share. Plain data; whoever shares it brings
//! the lock. Touched when an allocation opens or ends, never for a packet.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::clock::Tick;
use super::credential::{Label, Subject};
use super::rates::{Buckets, Flow, RateLimits, SharedBuckets};
use super::route::Standing;
use super::stats::Limit;

/// An allocation that has been silent for so long may be replaced when its user's quota is full:
/// its client most likely came back from behind another NAT mapping.
pub const REPLACEABLE_AFTER: Duration = Duration::from_secs(30);

/// Buckets that are never looked through for those that are nobody's.
const LEAST_SWEPT: usize = 64;

/// The most allocations at a time; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Of one user.
    pub user: Option<u32>,
    /// Of one tenant.
    pub tenant: Option<u32>,
    /// Of all.
    pub total: Option<u32>,
}

/// Who asks for one more allocation, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct Applicant<'a> {
    /// The user.
    pub user: Subject,
    /// The tenant, if its credential names one.
    pub tenant: Option<&'a Label>,
    /// The smaller of configuration and credential.
    pub quotas: Quotas,
}

fn is_silent(standing: &Standing, now: Tick) -> bool {
    now.since(standing.meters.last_heard()) >= REPLACEABLE_AFTER
}

fn tenant(standing: &Standing) -> Option<&Label> {
    standing.claims.as_ref()?.tenant.as_ref()
}

/// What came of an [`Users::admit`].
#[derive(Debug)]
pub enum Admitted {
    /// There was room.
    Granted,
    /// There was none, and this silent allocation makes place.
    Replaced(Arc<Standing>),
    /// There was none, for want of which.
    Full(Limit),
}

/// Buckets by whose they are. They outlive what their owner holds until they are full again, so that
/// who comes back at once finds them as they were left.
#[derive(Debug)]
struct Shared<K> {
    buckets: HashMap<K, Arc<Buckets>, foldhash::quality::RandomState>,
    flow: Flow,
    /// At how many those that are full and nobody's are looked for.
    swept_at: usize,
}

impl<K> Default for Shared<K> {
    fn default() -> Self {
        Self {
            buckets: HashMap::default(),
            flow: Flow::default(),
            swept_at: 0,
        }
    }
}

impl<K: Eq + Hash> Shared<K> {
    /// Other paces for all, also where they are in hand.
    fn set(&mut self, flow: Flow) {
        self.flow = flow;
        self.buckets.retain(|_, buckets| {
            buckets.set(flow);
            flow.is_limited()
        });
    }

    /// The buckets of `owner`; `holds` tells who holds anything at `now`.
    fn of(&mut self, owner: K, now: Tick, holds: impl Fn(&K) -> bool) -> Option<Arc<Buckets>> {
        if !self.flow.is_limited() {
            return None;
        }
        if let Some(buckets) = self.buckets.get(&owner) {
            return Some(Arc::clone(buckets));
        }
        if self.buckets.len() >= self.swept_at {
            self.buckets
                .retain(|owner, buckets| holds(owner) || !buckets.are_full(now));
            self.swept_at = 2 * self.buckets.len() + LEAST_SWEPT;
        }
        let buckets = Arc::new(Buckets::new(self.flow));
        self.buckets.insert(owner, Arc::clone(&buckets));
        Some(buckets)
    }
}

/// Every user's and every tenant's live allocations.
#[derive(Debug, Default)]
pub struct Users {
    held: HashMap<Subject, SmallVec<[Arc<Standing>; 1]>, foldhash::quality::RandomState>,
    /// Apart, since most servers have none.
    buckets: Shared<Subject>,
    tenants: HashMap<Label, usize, foldhash::quality::RandomState>,
    tenants_buckets: Shared<Label>,
    total: usize,
}

/// Where there is room for one more.
enum Room {
    Free,
    /// In the place of the user's allocation that stands there.
    InPlaceOf(usize),
}

const fn is_full(count: usize, limit: Option<u32>) -> bool {
    matches!(limit, Some(limit) if count >= limit as usize)
}

impl Users {
    /// Whether [`Users::admit`] would take one more allocation now.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn has_room(&self, applicant: &Applicant<'_>, now: Tick) -> Result<(), Limit> {
        self.room(applicant, now).map(|_| ())
    }

    /// A silent allocation of the same user makes room under every limit but that of a tenant which
    /// it is not counted on.
    fn room(&self, applicant: &Applicant<'_>, now: Tick) -> Result<Room, Limit> {
        let Applicant {
            user,
            tenant: of,
            quotas,
        } = *applicant;
        let held = self.held.get(&user).map(SmallVec::as_slice);
        let held = held.unwrap_or_default();
        let tenant_is_full = of.is_some_and(|of| is_full(self.held_by(of), quotas.tenant));
        let full = if is_full(held.len(), quotas.user) {
            Limit::UserAllocations
        } else if tenant_is_full {
            Limit::TenantAllocations
        } else if is_full(self.total, quotas.total) {
            Limit::TotalAllocations
        } else {
            return Ok(Room::Free);
        };
        // A limit of none lets nobody in, whoever makes way.
        let quotas = [quotas.user, of.and(quotas.tenant), quotas.total];
        if quotas.contains(&Some(0)) {
            return Err(full);
        }
        held.iter()
            .enumerate()
            .filter(|(_, other)| is_silent(other, now))
            .filter(|(_, other)| !tenant_is_full || tenant(other) == of)
            .min_by_key(|(_, other)| other.meters.last_heard())
            .map(|(place, _)| Room::InPlaceOf(place))
            .ok_or(full)
    }

    /// Counts `holding`, an allocation of the applicant's, if every limit leaves room for it, or in
    /// the place of the user's one that has been silent longest, if that is long enough.
    pub fn admit(
        &mut self,
        applicant: &Applicant<'_>,
        holding: Arc<Standing>,
        now: Tick,
    ) -> Admitted {
        let room = match self.room(applicant, now) {
            Ok(room) => room,
            Err(limit) => return Admitted::Full(limit),
        };
        self.count_tenant(tenant(&holding));
        let held = self.held.entry(applicant.user).or_default();
        let replaced = match room {
            Room::InPlaceOf(place) => held
                .get_mut(place)
                .map(|other| std::mem::replace(other, holding)),
            Room::Free => {
                held.push(holding);
                self.total += 1;
                None
            }
        };
        match replaced {
            Some(replaced) => {
                self.discount_tenant(tenant(&replaced));
                Admitted::Replaced(replaced)
            }
            None => Admitted::Granted,
        }
    }

    /// Takes an allocation off `user`'s account; nothing happens when it was replaced.
    pub fn release(&mut self, user: Subject, holding: &Arc<Standing>) {
        let Some(held) = self.held.get_mut(&user) else {
            return;
        };
        // One user may hold thousands, where there is no limit: pointers are compared, since to look
        // behind each would miss the cache as often.
        let Some(place) = held.iter().position(|other| Arc::ptr_eq(other, holding)) else {
            return;
        };
        held.swap_remove(place);
        if held.is_empty() {
            self.held.remove(&user);
        }
        self.total -= 1;
        self.discount_tenant(tenant(holding));
    }

    fn count_tenant(&mut self, tenant: Option<&Label>) {
        if let Some(label) = tenant {
            *self.tenants.entry(label.clone()).or_default() += 1;
        }
    }

    fn discount_tenant(&mut self, tenant: Option<&Label>) {
        let Some(label) = tenant else {
            return;
        };
        if let Some(count) = self.tenants.get_mut(label) {
            *count -= 1;
            if *count == 0 {
                self.tenants.remove(label);
            }
        }
    }

    /// How much may flow through the buckets of users and tenants from now on. Said here once, before
    /// the workers hear of new rules: one that goes by the former for a moment longer changes nothing
    /// for those that do not.
    pub fn set_rates(&mut self, limits: &RateLimits) {
        self.buckets.set(limits.user);
        self.tenants_buckets.set(limits.tenant);
    }

    /// The buckets that an allocation of `user` shares with others; `holding` has been admitted and
    /// not released.
    pub fn shared_buckets(&mut self, user: Subject, holding: &Standing) -> SharedBuckets {
        let (held, tenants, now) = (&self.held, &self.tenants, holding.opened);
        let holds = |user: &Subject| held.contains_key(user);
        let of_user = self.buckets.of(user, now, holds);
        let holds = |tenant: &Label| tenants.contains_key(tenant);
        let of_tenant =
            tenant(holding).and_then(|label| self.tenants_buckets.of(label.clone(), now, holds));
        SharedBuckets {
            user: of_user,
            tenant: of_tenant,
        }
    }

    /// How many allocations `user` holds.
    #[must_use]
    pub fn held(&self, user: Subject) -> usize {
        self.held.get(&user).map_or(0, SmallVec::len)
    }

    /// How many allocations are counted on `tenant`.
    #[must_use]
    pub fn held_by(&self, tenant: &Label) -> usize {
        self.tenants.get(tenant).copied().unwrap_or(0)
    }

    /// How many tenants are counted on.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.tenants.len()
    }

    /// How many allocations there are.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::turn::credential::Claims;
    use crate::turn::rates::Pace;
    use crate::turn::stats::Meters;
    use crate::turn::{AllocationId, WorkerId};

    const NOW: Tick = Tick::from_nanos(1_000_000_000);
    const LIMITED: Flow = Flow {
        bits: None,
        packets: Some(Pace {
            per_second: 1,
            burst: 1,
        }),
    };

    fn standing(user: u32, tenant: &str) -> (Subject, Arc<Standing>) {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&user.to_be_bytes());
        let subject = Subject::from_bytes(bytes);
        let claims = Claims {
            tenant: Label::new(tenant),
            ..Claims::new(subject, 0)
        };
        let standing = Standing {
            id: AllocationId(user.into()),
            worker: WorkerId(0),
            opened: NOW,
            claims: Some(Arc::new(claims)),
            until: Default::default(),
            meters: Meters::default(),
        };
        standing.meters.heard(NOW);
        (subject, Arc::new(standing))
    }

    fn admit(users: &mut Users, user: Subject, holding: &Arc<Standing>, quotas: Quotas) -> bool {
        let applicant = Applicant {
            user,
            tenant: tenant(holding),
            quotas,
        };
        let admitted = users.admit(&applicant, Arc::clone(holding), NOW);
        matches!(admitted, Admitted::Granted)
    }

    /// T40
    #[test]
    fn a_hundred_thousand_users_leave_no_table_larger_than_some_hundred_did() {
        let mut users = Users::default();
        users.set_rates(&RateLimits {
            user: LIMITED,
            tenant: LIMITED,
            ..RateLimits::default()
        });
        for hundred in 0..1_000 {
            let holding: Vec<_> = (0..100)
                .map(|n| standing(hundred * 100 + n, &format!("tenant-{hundred}-{}", n % 10)))
                .collect();
            for (user, standing) in &holding {
                assert!(admit(&mut users, *user, standing, Quotas::default()));
                let shared = users.shared_buckets(*user, standing);
                assert!(shared.user.is_some() && shared.tenant.is_some());
            }
            assert_eq!(
                (users.len(), users.tenants(), users.total()),
                (100, 10, 100)
            );
            for (user, standing) in &holding {
                users.release(*user, standing);
                users.release(*user, standing);
            }
            assert_eq!((users.len(), users.tenants(), users.total()), (0, 0, 0));
            // Buckets go when there are twice as many as are anybody's, and some.
            assert!(users.buckets.buckets.len() <= 2 * 100 + LEAST_SWEPT);
            assert!(users.tenants_buckets.buckets.len() <= 2 * 10 + LEAST_SWEPT);
            // A table that is nearly full grows to the next power of two.
            assert!(users.held.capacity() <= 448 && users.tenants.capacity() <= 56);
        }
    }

    /// T31: whoever asks first, no limit is passed, and each place that is given back is found.
    #[test]
    #[expect(
        clippy::disallowed_types,
        reason = "stands in for the lock of the data plane"
    )]
    fn workers_that_admit_at_the_same_time_pass_no_limit() {
        use std::sync::Mutex;

        let quotas = Quotas {
            user: Some(3),
            tenant: Some(7),
            total: Some(11),
        };
        let users = Mutex::new(Users::default());
        let most = Mutex::new([0; 3]);
        std::thread::scope(|scope| {
            for worker in 0..4_u32 {
                let (users, most) = (&users, &most);
                scope.spawn(move || {
                    let mut mine: Vec<(Subject, Arc<Standing>)> = Vec::new();
                    for n in 0..5_000_u32 {
                        let pick = n.wrapping_mul(2_654_435_761).wrapping_add(worker) >> 7;
                        let mut users = users.lock().unwrap();
                        if pick % 3 == 0 && !mine.is_empty() {
                            let (user, held) = mine.swap_remove(pick as usize % mine.len());
                            users.release(user, &held);
                            continue;
                        }
                        let (user, held) = standing(pick % 6, ["north", "south"][n as usize % 2]);
                        if admit(&mut users, user, &held, quotas) {
                            mine.push((user, Arc::clone(&held)));
                        }
                        let label = tenant(&held).unwrap();
                        let now = [users.held(user), users.held_by(label), users.total()];
                        let mut most = most.lock().unwrap();
                        *most = std::array::from_fn(|of| most[of].max(now[of]));
                    }
                    for (user, held) in mine {
                        users.lock().unwrap().release(user, &held);
                    }
                });
            }
        });
        assert_eq!(most.into_inner().unwrap(), [3, 7, 11]);
        let users = users.into_inner().unwrap();
        assert_eq!((users.len(), users.tenants(), users.total()), (0, 0, 0));
    }
}
