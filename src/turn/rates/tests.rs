use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(nanos: u64) -> Tick {
    Tick::from_nanos(1_000 * SECOND + nanos)
}

fn pace(per_second: u64, burst: u64) -> Pace {
    Pace { per_second, burst }
}

fn bucket(pace: Pace) -> Bucket {
    let bucket = Bucket::default();
    bucket.set(Some(pace));
    bucket
}

fn of_packets(per_second: u64, burst: u64) -> Flow {
    Flow {
        packets: Some(pace(per_second, burst)),
        bits: None,
    }
}

fn rates(own: Flow, user: Flow, tenant: Flow) -> Rates {
    let shared = |flow: Flow| flow.is_limited().then(|| Arc::new(Buckets::new(flow)));
    Rates {
        own: own.is_limited().then(|| Buckets::new(own)),
        user: shared(user),
        tenant: shared(tenant),
    }
}

/// As many as there are.
fn drain(bucket: &Bucket, now: Tick) -> u64 {
    (0..).take_while(|_| bucket.take(1, now)).count() as u64
}

#[test]
fn a_burst_is_there_at_once_and_then_the_rate() {
    let bucket = bucket(pace(500, 1_000));
    assert_eq!(drain(&bucket, at(0)), 1_000);
    assert_eq!(drain(&bucket, at(SECOND / 2)), 250);
    assert_eq!(drain(&bucket, at(SECOND)), 250);
    assert_eq!(drain(&bucket, at(100 * SECOND)), 1_000);
}

#[test]
fn a_pace_of_nothing_lets_nothing_through_and_none_everything() {
    assert_eq!(drain(&bucket(pace(0, 0)), at(0)), 0);
    let unlimited = Bucket::default();
    assert!(unlimited.take(u64::MAX / 2, at(0)) && unlimited.take(u64::MAX / 2, at(0)));
    assert_eq!(unlimited.owe(9, at(5)), at(5));
}

#[test]
fn the_largest_datagram_fits_at_every_rate_of_bits() {
    for per_second in [1, 1_000, 64_000, 4_000_000, 1_000_000_000_000] {
        let bucket = bucket(Pace::of_bits(per_second));
        assert!(bucket.take(LARGEST_BITS, at(0)), "{per_second}");
    }
}

#[test]
fn what_is_owed_is_waited_for() {
    let bucket = bucket(pace(1_000, 1_000));
    assert_eq!(bucket.owe(1_000, at(0)), at(0));
    assert_eq!(bucket.owe(500, at(0)), at(SECOND / 2));
    assert!(!bucket.take(1, at(SECOND / 2)));
    assert!(bucket.take(1, at(SECOND / 2 + SECOND / 1_000)));
}

#[test]
fn another_pace_counts_from_then_on() {
    let bucket = bucket(pace(10, 10));
    assert_eq!(drain(&bucket, at(0)), 10);
    bucket.set(Some(pace(1_000, 1_000)));
    assert!(drain(&bucket, at(SECOND)) > 900);
    bucket.set(None);
    assert!(bucket.take(1 << 40, at(SECOND)));
}

#[test]
fn the_smaller_of_claim_and_configuration_counts() {
    let own = Flow {
        bits: Some(Pace::of_bits(8_000_000)),
        packets: Some(pace(500, 1_000)),
    };
    let claimed = own.claimed(Some(4_000_000), Some(2_000));
    assert_eq!(claimed.bits, Some(Pace::of_bits(4_000_000)));
    assert_eq!(claimed.packets, own.packets);
    let claimed = own.claimed(Some(16_000_000), Some(100));
    assert_eq!(claimed.bits, own.bits);
    assert_eq!(claimed.packets, Some(pace(100, 100)));
    assert_eq!(own.claimed(None, None), own);
    let only = Flow::default().claimed(Some(0), Some(7));
    assert_eq!(only.bits, Some(pace(0, 0)));
    assert_eq!(only.packets, Some(pace(7, 7)));
}

#[test]
fn where_one_bucket_is_empty_nothing_is_taken_from_the_others() {
    let rates = rates(of_packets(1, 10), of_packets(1, 3), of_packets(1, 100));
    let taken = |limit| {
        let refused = (0..50).find_map(|_| rates.take(1, 100, at(0)).err());
        assert_eq!(refused, Some(limit));
    };
    taken(Limit::UserPackets);
    let left = |buckets: &Buckets| drain(&buckets.packets, at(0));
    assert_eq!(left(rates.own.as_ref().unwrap()), 7);
    assert_eq!(left(rates.tenant.as_ref().unwrap()), 97);
    taken(Limit::AllocationPackets);
}

#[test]
fn without_any_limit_there_is_nothing_to_ask() {
    assert!(Rates::new(Flow::default(), SharedBuckets::default()).is_none());
    let own = of_packets(1, 1);
    assert!(Rates::new(own, SharedBuckets::default()).is_some());
}

#[test]
fn a_lease_takes_exactly_what_went() {
    let rates = rates(Flow::default(), of_packets(1, 1_000), Flow::default());
    for packets in [1, 2, 3, 17, 40] {
        let before = at(0);
        let mut lease = Lease::default();
        for _ in 0..packets {
            lease.pay(&rates, 100, before).unwrap();
        }
        lease.end(&rates);
    }
    let user = rates.user.as_ref().unwrap();
    assert_eq!(drain(&user.packets, at(0)), 1_000 - 63);
}

#[test]
fn a_lease_finds_the_last_packets_of_a_bucket_and_a_refund_is_given_back() {
    let rates = rates(of_packets(1, 50), Flow::default(), Flow::default());
    let mut lease = Lease::default();
    let paid = (0..100).filter(|_| lease.pay(&rates, 9, at(0)).is_ok());
    assert_eq!(paid.count(), 50);
    lease.refund(9);
    lease.end(&rates);
    assert_eq!(drain(&rates.own.as_ref().unwrap().packets, at(0)), 1);
}

proptest! {
    /// Whatever is asked for and whenever, and whatever of it is given back.
    #[test]
    fn never_more_than_the_rate_and_a_burst(
        per_second in 1..2_000_000_u64,
        burst in 1..100_000_u64,
        asks in prop::collection::vec((0..50_000_000_u64, 1..5_000_u64, 0..4_u64), 1..200),
    ) {
        let bucket = bucket(pace(per_second, burst));
        let (mut now, mut windows) = (0, Vec::new());
        for (later, n, kept) in asks {
            now += later;
            if bucket.take(n, at(now)) {
                let back = if kept == 0 { n / 2 } else { 0 };
                bucket.give_back(back);
                windows.push((now, n - back));
            }
        }
        // In every window, not only from the beginning.
        for first in 0..windows.len() {
            let mut sum = 0;
            for (moment, n) in &windows[first..] {
                sum += u128::from(*n);
                let passed = u128::from(moment - windows[first].0);
                let most = passed * u128::from(per_second) / u128::from(SECOND) + u128::from(burst);
                prop_assert!(sum <= most, "{sum} of {most}");
            }
        }
    }

    /// One that asks for its rate gets it, but for what rounding takes: less than a thousandth.
    #[test]
    fn not_much_less_than_the_rate_either(per_second in 1_000..1_000_000_000_u64) {
        let bucket = bucket(pace(per_second, per_second));
        prop_assert!(bucket.take(per_second, at(0)));
        let some = per_second / 100 * 99;
        for second in 1..50 {
            prop_assert!(bucket.take(some, at(second * SECOND)), "second {second}");
        }
    }
}

/// Workers take at the same time, ahead and one by one, and give back.
#[test]
fn takers_at_the_same_time_never_get_more_than_there_is() {
    const BURST: u64 = 100_000;
    let rates = rates(
        Flow::default(),
        of_packets(1, BURST),
        of_packets(1, BURST + 1),
    );
    let went = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut refused = 0;
                while refused < 100 {
                    let mut lease = Lease::default();
                    for _ in 0..20 {
                        match lease.pay(&rates, 10, at(0)) {
                            Ok(()) => drop(went.fetch_add(1, Ordering::Relaxed)),
                            Err(_) => refused += 1,
                        }
                    }
                    lease.end(&rates);
                }
            });
        }
    });
    assert_eq!(went.into_inner(), BURST);
}
