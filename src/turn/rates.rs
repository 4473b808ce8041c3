//! How much may go through an allocation, and through all of one user and of one tenant: bits and
//! packets a second. What comes too fast is dropped and counted; no allocation ends for it.
//!
//! A bucket is three numbers, read and changed in place by every worker: no lock, no clock of its
//! own, and nothing to do while nobody takes. What goes between two allocations of this server is
//! taken from the buckets of both. For the packets of one run a worker takes a little ahead and gives
//! back what it did not need before the run is over (`Lease`), so that workers seldom meet at the
//! bucket of a tenant, and nothing is held by who has nothing to send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Tick;
use super::stats::Limit;

/// The largest payload of a datagram: whatever the rate, one such must fit.
const LARGEST_BITS: u64 = 65_535 * 8;
/// Time is counted in sixteenths of a nanosecond, so that a bit at 1000 Gbit/s takes some.
const UNITS_PER_NANO: u64 = 16;
const UNITS_PER_SECOND: u64 = 1_000_000_000 * UNITS_PER_NANO;
/// What one costs has so many binary places.
const PLACES: u32 = 24;
/// Packets that are taken ahead once a run has more than one.
const AHEAD: u32 = 16;

/// So many a second, and so many at once after a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How many a second; with 0 nothing goes.
    pub per_second: u64,
    /// How many at once.
    pub burst: u64,
}

impl Pace {
    /// Bits: a quarter of a second's worth at once, and never less than one datagram.
    #[must_use]
    pub const fn of_bits(per_second: u64) -> Self {
        let quarter = per_second / 4;
        Self {
            per_second,
            burst: match per_second {
                0 => 0,
                _ if quarter < LARGEST_BITS => LARGEST_BITS,
                _ => quarter,
            },
        }
    }

    /// No more than `per_second`.
    const fn at_most(self, per_second: u64) -> Self {
        Self {
            per_second: if per_second < self.per_second {
                per_second
            } else {
                self.per_second
            },
            burst: if per_second < self.burst {
                per_second
            } else {
                self.burst
            },
        }
    }
}

/// What may flow; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Bits of payload.
    pub bits: Option<Pace>,
    /// Packets.
    pub packets: Option<Pace>,
}

impl Flow {
    /// Whether anything is limited.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.bits.is_some() || self.packets.is_some()
    }

    /// The smaller of this and of what a credential claims.
    #[must_use]
    pub fn claimed(self, bits: Option<u64>, packets: Option<u64>) -> Self {
        Self {
            bits: match (self.bits, bits) {
                (Some(own), Some(claimed)) => Some(Pace::of_bits(own.per_second.min(claimed))),
                (own, claimed) => own.or_else(|| claimed.map(Pace::of_bits)),
            },
            packets: match (self.packets, packets) {
                (Some(own), Some(claimed)) => Some(own.at_most(claimed)),
                (own, claimed) => own.or_else(|| {
                    claimed.map(|claimed| Pace {
                        per_second: claimed,
                        burst: claimed,
                    })
                }),
            },
        }
    }
}

/// The rates of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Of each allocation.
    pub allocation: Flow,
    /// Of all allocations of one user together.
    pub user: Flow,
    /// Of all allocations of one tenant together.
    pub tenant: Flow,
}

/// A token bucket as one moment (the generic cell rate algorithm): the one at which it would be full
/// again. It never yields more than its rate times the time that passed, and its burst.
#[derive(Debug, Default)]
struct Bucket {
    full_at: AtomicU64,
    /// What one costs, in units of time with [`PLACES`]; 0 is nothing, and no limit.
    cost: AtomicU64,
    /// What the whole bucket costs.
    span: AtomicU64,
}

impl Bucket {
    /// Another pace, for whoever takes from now on.
    fn set(&self, pace: Option<Pace>) {
        let (cost, span) = match pace {
            None => (0, 0),
            Some(Pace { per_second: 0, .. } | Pace { burst: 0, .. }) => (u64::MAX, 0),
            Some(Pace { per_second, burst }) => {
                let cost = (UNITS_PER_SECOND << PLACES).div_ceil(per_second);
                (cost, times(burst, cost, Round::Up))
            }
        };
        self.span.store(span, Ordering::Relaxed);
        self.cost.store(cost, Ordering::Relaxed);
    }

    fn is_full(&self, now: Tick) -> bool {
        self.full_at.load(Ordering::Relaxed) <= now.nanos().saturating_mul(UNITS_PER_NANO)
    }

    /// Takes `n` if there are as many.
    fn take(&self, n: u64, now: Tick) -> bool {
        let cost = self.cost.load(Ordering::Relaxed);
        if cost == 0 {
            return true;
        }
        let now = now.nanos().saturating_mul(UNITS_PER_NANO);
        let end = now.saturating_add(self.span.load(Ordering::Relaxed));
        let price = times(n, cost, Round::Up);
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let next = full_at.max(now).saturating_add(price);
                (next <= end).then_some(next)
            })
            .is_ok()
    }

    /// Takes `n` even if there are fewer; when the next may be taken.
    fn owe(&self, n: u64, now: Tick) -> Tick {
        let cost = self.cost.load(Ordering::Relaxed);
        if cost == 0 {
            return now;
        }
        let price = times(n, cost, Round::Up);
        let begin = now.nanos().saturating_mul(UNITS_PER_NANO);
        let later = |full_at: u64| full_at.max(begin).saturating_add(price);
        let before = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(later(full_at))
            });
        let full_at = later(before.unwrap_or_default());
        let open = full_at.saturating_sub(self.span.load(Ordering::Relaxed));
        Tick::from_nanos(open.div_ceil(UNITS_PER_NANO)).max(now)
    }

    /// Gives back `n` of what was taken.
    fn give_back(&self, n: u64) {
        let price = times(n, self.cost.load(Ordering::Relaxed), Round::Down);
        if price > 0 {
            let less = |full_at: u64| Some(full_at.saturating_sub(price));
            // It always succeeds.
            self.full_at
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                .ok();
        }
    }
}

#[derive(Clone, Copy)]
enum Round {
    Up,
    Down,
}

/// `n` times a cost, in whole units; at most half of all time, so that sums stay far from its end.
fn times(n: u64, cost: u64, round: Round) -> u64 {
    let rest = match round {
        Round::Up => (1 << PLACES) - 1,
        Round::Down => 0,
    };
    let whole = (u128::from(n) * u128::from(cost) + rest) >> PLACES;
    u64::try_from(whole).map_or(u64::MAX / 2, |whole| whole.min(u64::MAX / 2))
}

/// The buckets of one allocation, user or tenant.
#[derive(Debug, Default)]
pub struct Buckets {
    bits: Bucket,
    packets: Bucket,
}

impl Buckets {
    /// Full ones.
    #[must_use]
    pub fn new(flow: Flow) -> Self {
        let buckets = Self::default();
        buckets.set(flow);
        buckets
    }

    /// Other paces, for whoever takes from now on; what was taken stays taken.
    pub fn set(&self, flow: Flow) {
        self.bits.set(flow.bits);
        self.packets.set(flow.packets);
    }

    /// Whether nothing is missing at `now`.
    pub(crate) fn are_full(&self, now: Tick) -> bool {
        self.bits.is_full(now) && self.packets.is_full(now)
    }

    fn take(&self, packets: u32, bytes: u64, now: Tick, limits: [Limit; 2]) -> Result<(), Limit> {
        let [of_bits, of_packets] = limits;
        if !self.packets.take(packets.into(), now) {
            return Err(of_packets);
        }
        if !self.bits.take(bytes * 8, now) {
            self.packets.give_back(packets.into());
            return Err(of_bits);
        }
        Ok(())
    }

    fn give_back(&self, packets: u32, bytes: u64) {
        self.packets.give_back(packets.into());
        self.bits.give_back(bytes * 8);
    }
}

/// What an allocation takes from: its own buckets, and those that it shares.
#[derive(Debug, Default)]
pub struct Rates {
    own: Option<Buckets>,
    user: Option<Arc<Buckets>>,
    tenant: Option<Arc<Buckets>>,
}

/// The buckets that an allocation shares with others of its user and of its tenant.
#[derive(Debug, Default, Clone)]
pub struct SharedBuckets {
    /// Of its user.
    pub user: Option<Arc<Buckets>>,
    /// Of its tenant.
    pub tenant: Option<Arc<Buckets>>,
}

impl Rates {
    /// The rates of an allocation; none where nothing is limited.
    #[must_use]
    pub fn new(own: Flow, shared: SharedBuckets) -> Option<Arc<Self>> {
        let SharedBuckets { user, tenant } = shared;
        let is_limited = own.is_limited() || user.is_some() || tenant.is_some();
        is_limited.then(|| {
            Arc::new(Self {
                own: own.is_limited().then(|| Buckets::new(own)),
                user,
                tenant,
            })
        })
    }

    /// Each with what it is called where it says no.
    fn levels(&self) -> impl Iterator<Item = (&Buckets, [Limit; 2])> {
        let own = [Limit::AllocationRate, Limit::AllocationPackets];
        let user = [Limit::UserRate, Limit::UserPackets];
        let tenant = [Limit::TenantRate, Limit::TenantPackets];
        let levels = [
            (self.own.as_ref(), own),
            (self.user.as_deref(), user),
            (self.tenant.as_deref(), tenant),
        ];
        levels
            .into_iter()
            .filter_map(|(buckets, limits)| Some((buckets?, limits)))
    }

    /// Takes so much from every bucket, or from none.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn take(&self, packets: u32, bytes: u64, now: Tick) -> Result<(), Limit> {
        for (place, (buckets, limits)) in self.levels().enumerate() {
            if let Err(limit) = buckets.take(packets, bytes, now, limits) {
                for (buckets, _) in self.levels().take(place) {
                    buckets.give_back(packets, bytes);
                }
                return Err(limit);
            }
        }
        Ok(())
    }

    /// Takes so much from every bucket even where there is less, for a connection, which loses
    /// nothing and waits instead: until when.
    pub fn owe(&self, packets: u32, bytes: u64, now: Tick) -> Tick {
        self.levels().fold(now, |until, (buckets, _)| {
            until
                .max(buckets.packets.owe(packets.into(), now))
                .max(buckets.bits.owe(bytes * 8, now))
        })
    }

    /// Gives back so much of what was taken from every bucket.
    pub fn give_back(&self, packets: u32, bytes: u64) {
        for (buckets, _) in self.levels() {
            buckets.give_back(packets, bytes);
        }
    }
}

/// What a worker has taken ahead from one side's buckets, for packets of one run.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    packets: u32,
    bytes: u64,
    /// What comes next is most likely not the run's only packet.
    goes_on: bool,
}

impl Lease {
    /// Pays for a packet of `bytes`.
    pub(crate) fn pay(&mut self, rates: &Rates, bytes: u64, now: Tick) -> Result<(), Limit> {
        if self.packets == 0 || self.bytes < bytes {
            let ahead = bytes.max(1) * u64::from(AHEAD);
            if self.goes_on && rates.take(AHEAD, ahead, now).is_ok() {
                self.packets += AHEAD;
                self.bytes += ahead;
            } else {
                // One by one when the bucket is nearly empty.
                self.goes_on = !self.goes_on;
                rates.take(1, bytes, now)?;
                self.packets += 1;
                self.bytes += bytes;
            }
        }
        self.packets -= 1;
        self.bytes -= bytes;
        Ok(())
    }

    /// What was paid for did not go.
    pub(crate) const fn refund(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }

    /// The run is over.
    pub(crate) fn end(&mut self, rates: &Rates) {
        if self.packets > 0 || self.bytes > 0 {
            rates.give_back(self.packets, self.bytes);
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
