//! The cap on replies to sources that never proved that they receive at the address they send
//! from (RFC 8656 §21.4: a server must not amplify for whoever forges a source).
//!
//! Two fixed tables of token buckets, one by IP address (/64 for IPv6) and one by network (/24,
//! /48) at twenty times the rate. Memory is spent once, never on a source: a bucket is one number,
//! the moment at which it would be full again, and sources whose keyed hash falls on the same
//! bucket share it.
//!
//! Whoever is connected proved it, and is told that it needs a credential as often as its network
//! may be; apart from datagrams, so that forged ones take nothing off it.
//!
//! [`Networks`] is a table of the second kind for those who proved it and ask for allocations, or
//! fail to authenticate.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Tick;

const BUCKETS: usize = 1 << 16;
/// How many times its addresses' budget a whole network has.
const NETWORK_SHARE: u64 = 20;
/// Tells the key of a network's connected clients from that of its datagrams.
const CONNECTED: u128 = 1 << 126;

/// A rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Replies per second; 0 lets none through.
    pub per_second: u32,
    /// Replies at once after a silence.
    pub burst: u32,
}

impl Rate {
    /// Nanoseconds between two replies, and those of a whole burst; none if none goes through.
    fn pace(self) -> Option<(u64, u64)> {
        let spacing = 1_000_000_000_u64.checked_div(self.per_second.into())?;
        Some((spacing, spacing.saturating_mul(self.burst.max(1).into())))
    }

    fn packed(self) -> u64 {
        u64::from(self.per_second) << 32 | u64::from(self.burst)
    }

    fn unpacked(bits: u64) -> Self {
        let half = |bits| u32::try_from(bits).unwrap_or(u32::MAX);
        Self {
            per_second: half(bits >> 32),
            burst: half(bits & u64::from(u32::MAX)),
        }
    }
}

/// The tables; shared by all workers.
#[derive(Debug)]
pub struct Unvalidated {
    hasher: foldhash::quality::RandomState,
    sources: Box<[AtomicU64]>,
    networks: Box<[AtomicU64]>,
    /// A [`Rate`] in one number, so that nobody reads half of two.
    rate: AtomicU64,
}

impl Unvalidated {
    /// Empty tables for `rate`.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self {
            hasher: foldhash::quality::RandomState::default(),
            sources: table(),
            networks: table(),
            rate: AtomicU64::new(rate.packed()),
        }
    }

    /// Another rate from now on; what was taken stays taken.
    pub fn set(&self, rate: Rate) {
        self.rate.store(rate.packed(), Ordering::Relaxed);
    }

    /// Takes one reply off the budgets of `ip` and its network; false when either is spent.
    #[must_use]
    pub fn allow(&self, ip: IpAddr, now: Tick) -> bool {
        let Some((spacing, span)) = self.pace() else {
            return false;
        };
        let (source, network) = keys(ip);
        // The source first, so that one that floods takes no more than its own share off its
        // network's budget, which fills twenty times as fast and holds twenty times as much.
        take(self.bucket(&self.sources, source), spacing, span, now)
            && take(
                self.bucket(&self.networks, network),
                spacing / NETWORK_SHARE,
                span,
                now,
            )
    }

    /// Takes one challenge to a source that is there off the budget of its network for these, which
    /// is as large as that for datagrams. It has no budget of its own: a whole office may connect
    /// from one address, and nothing that is dropped on a connection is sent again.
    #[must_use]
    pub fn allow_connected(&self, ip: IpAddr, now: Tick) -> bool {
        let Some((spacing, span)) = self.pace() else {
            return false;
        };
        let (_, network) = keys(ip);
        let bucket = self.bucket(&self.networks, network | CONNECTED);
        take(bucket, spacing / NETWORK_SHARE, span, now)
    }

    fn pace(&self) -> Option<(u64, u64)> {
        Rate::unpacked(self.rate.load(Ordering::Relaxed)).pace()
    }

    /// How many buckets each table has.
    #[must_use]
    pub const fn buckets() -> usize {
        BUCKETS
    }

    /// How many sources' buckets are not full at `now`. It looks at every one.
    #[must_use]
    pub fn occupied(&self, now: Tick) -> usize {
        let full_at = self.sources.iter().map(|at| at.load(Ordering::Relaxed));
        full_at.filter(|at| *at > now.nanos()).count()
    }

    fn bucket<'t>(&self, table: &'t [AtomicU64], key: u128) -> &'t AtomicU64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only the low bits choose a bucket"
        )]
        let index = self.hasher.hash_one(key) as usize % BUCKETS;
        &table[index]
    }
}

/// A cap on what one network (/24, /48 for IPv6) may do, shared by all workers. The table is there
/// from the first time on that something is capped, and no larger ever after.
#[derive(Debug, Default)]
pub struct Networks {
    hasher: foldhash::quality::RandomState,
    networks: OnceLock<Box<[AtomicU64]>>,
}

impl Networks {
    /// Takes one off the budget of the network that `ip` is in; false when it is spent.
    #[must_use]
    pub fn allow(&self, ip: IpAddr, rate: Rate, now: Tick) -> bool {
        let Some((spacing, span)) = rate.pace() else {
            return false;
        };
        let (_, network) = keys(ip);
        let networks = self.networks.get_or_init(table);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only the low bits choose a bucket"
        )]
        let index = self.hasher.hash_one(network) as usize % BUCKETS;
        take(&networks[index], spacing, span, now)
    }
}

fn table() -> Box<[AtomicU64]> {
    (0..BUCKETS).map(|_| AtomicU64::new(0)).collect()
}

/// The keys of the source and of its network, told apart from the other family's.
fn keys(ip: IpAddr) -> (u128, u128) {
    match ip {
        IpAddr::V4(ip) => {
            let bits = u128::from(ip.to_bits());
            (bits | 1 << 127, bits >> 8 | 1 << 127)
        }
        IpAddr::V6(ip) => (ip.to_bits() >> 64, ip.to_bits() >> 80),
    }
}

/// A token bucket in one number (the generic cell rate algorithm): the moment at which it is full.
fn take(bucket: &AtomicU64, spacing: u64, span: u64, now: Tick) -> bool {
    let now = now.nanos();
    bucket
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let next = full_at.max(now).saturating_add(spacing);
            (next <= now.saturating_add(span)).then_some(next)
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 50,
        burst: 200,
    };

    fn second(s: u64) -> Tick {
        Tick::from_nanos(s * 1_000_000_000)
    }

    fn allowed(table: &Unvalidated, ip: IpAddr, now: Tick) -> usize {
        (0..10_000).take_while(|_| table.allow(ip, now)).count()
    }

    /// T29
    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let table = Unvalidated::new(RATE);
        let ip = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(allowed(&table, ip, second(100)), 200);
        assert_eq!(allowed(&table, ip, second(101)), 50);
        assert_eq!(allowed(&table, ip, second(200)), 200);
    }

    /// T29
    #[test]
    fn a_network_gets_twenty_times_a_source() {
        let table = Unvalidated::new(RATE);
        let total: usize = (0..=255)
            .map(|host| allowed(&table, IpAddr::from([192, 0, 2, host]), second(100)))
            .sum();
        assert!((3_900..=4_000).contains(&total), "{total}");
    }

    /// T29
    #[test]
    fn a_source_that_floods_does_not_silence_its_neighbours() {
        let table = Unvalidated::new(RATE);
        allowed(&table, IpAddr::from([192, 0, 2, 1]), second(100));
        for _ in 0..100_000 {
            assert!(!table.allow(IpAddr::from([192, 0, 2, 1]), second(100)));
        }
        assert!(table.allow(IpAddr::from([192, 0, 2, 2]), second(100)));
    }

    /// T29
    #[test]
    fn another_rate_holds_at_once_and_gives_nobody_a_second_burst() {
        let table = Unvalidated::new(RATE);
        let ip = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(allowed(&table, ip, second(100)), 200);
        let rate = Rate {
            per_second: 10,
            burst: u32::MAX,
        };
        assert_eq!(Rate::unpacked(rate.packed()), rate);
        table.set(Rate { burst: 20, ..rate });
        assert_eq!(allowed(&table, ip, second(100)), 0);
        assert_eq!(allowed(&table, ip, second(200)), 20);
        assert_eq!(allowed(&table, ip, second(201)), 10);
    }

    #[test]
    fn a_network_may_ask_for_so_many_allocations_and_others_for_theirs() {
        let newcomers = Networks::default();
        let rate = Rate {
            per_second: 5,
            burst: 20,
        };
        let asks = |third: u8, now| {
            let hosts = (0..=255).map(|host| IpAddr::from([192, 0, third, host]));
            hosts.filter(|ip| newcomers.allow(*ip, rate, now)).count()
        };
        assert_eq!([asks(2, second(100)), asks(2, second(101))], [20, 5]);
        assert_eq!(asks(3, second(101)), 20);
        let site = |n: u128| IpAddr::from((0x2001_0db8_0007_u128 << 80 | n << 64).to_be_bytes());
        let of_a_site = (0..100).filter(|n| newcomers.allow(site(*n), rate, second(101)));
        assert_eq!(of_a_site.count(), 20);
    }

    /// T29: an office behind one address gets in, and datagrams with its address take nothing off that.
    #[test]
    fn who_is_connected_shares_a_budget_with_its_network_alone() {
        let table = Unvalidated::new(RATE);
        let office = IpAddr::from([192, 0, 2, 1]);
        allowed(&table, office, second(100));
        for host in 0..=255 {
            allowed(&table, IpAddr::from([192, 0, 2, host]), second(100));
        }
        let connected = |ip, now| {
            let all = 0..10_000;
            all.take_while(|_| table.allow_connected(ip, now)).count()
        };
        assert_eq!(connected(office, second(100)), 4_000);
        assert_eq!(connected(IpAddr::from([192, 0, 2, 9]), second(100)), 0);
        assert_eq!(connected(IpAddr::from([192, 0, 3, 1]), second(100)), 4_000);
        assert_eq!(connected(office, second(101)), 1_000);
        assert_eq!(
            allowed(&table, IpAddr::from([192, 0, 9, 1]), second(101)),
            200
        );
    }

    #[test]
    fn the_addresses_of_one_ipv6_subscriber_are_one_source() {
        let table = Unvalidated::new(RATE);
        let host = |n: u128| IpAddr::from((0x2001_0db8_u128 << 96 | n).to_be_bytes());
        let total: usize = (0..100)
            .map(|n| allowed(&table, host(n), second(100)))
            .sum();
        assert_eq!(total, 200);
    }
}
