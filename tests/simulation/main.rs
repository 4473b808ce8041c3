//! Random clients against several servers of one house, in virtual time. An independent model
//! foretells what must become of each datagram, and invariants are checked after each step.
//!
//! `cargo test --test simulation -- --nocapture` prints what happened; `SIM_SEED=n` replays one
//! seed with all its steps, `SIM_SEEDS=n` and `SIM_STEPS=n` change how much is simulated.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

mod found;
mod sim;
mod streams;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use sim::fuzz_bodies;
use sim::plant::Plant;
use sim::run::Run;
use sim::tally::Tally;

const SEEDS: u64 = 2_000;
const STEPS: usize = 300;
const THREADS: u64 = 2;
/// How many of the last steps a failure prints.
const LAST: usize = 60;

/// One seed; panics of the code under test are failures as others are.
fn simulate(
    seed: u64,
    steps: usize,
    plant: Plant,
    is_traced: bool,
) -> (Tally, Result<(), String>, Vec<String>) {
    let mut run = Run::new(seed, plant, is_traced);
    let outcome = catch_unwind(AssertUnwindSafe(|| run.go(steps)));
    let outcome = outcome.unwrap_or_else(|_| Err("it panicked".to_owned()));
    let mut tally = std::mem::take(&mut run.tally);
    tally.runs = 1;
    (tally, outcome, run.trace.take().unwrap_or_default())
}

/// Fails with the seed and its last steps, which a second run writes down.
fn report(seed: u64, steps: usize, plant: Plant, why: &str) -> String {
    let (_, again, trace) = simulate(seed, steps, plant, true);
    let last = trace[trace.len().saturating_sub(LAST)..].join("\n");
    format!(
        "seed {seed}: {why}\n{last}\n(replayed: {again:?})\nSIM_SEED={seed} cargo test --test simulation replays it"
    )
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

#[test]
fn thousands_of_seeds_do_what_the_model_foretells() {
    let steps = setting("SIM_STEPS").map_or(STEPS, |steps| usize::try_from(steps).unwrap());
    if let Some(seed) = setting("SIM_SEED") {
        let (tally, outcome, trace) = simulate(seed, steps, Plant::Nothing, true);
        println!("{}\n{tally}", trace.join("\n"));
        outcome.unwrap();
        return;
    }
    let seeds = setting("SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let worker = || {
        let mut sum = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return Ok(sum);
            }
            let (tally, outcome, _) = simulate(seed, steps, Plant::Nothing, false);
            if let Err(why) = outcome {
                next.store(seeds, Ordering::Relaxed);
                return Err(report(seed, steps, Plant::Nothing, &why));
            }
            sum.add(tally);
        }
    };
    let mut sum = Tally::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        for thread in threads {
            match thread.join().unwrap() {
                Ok(tally) => sum.add(tally),
                Err(why) => panic!("{why}"),
            }
        }
    });
    println!("seeds 0 to {}: {sum}", seeds - 1);
    let missing = sum.missing();
    assert!(
        seeds < SEEDS || missing.is_empty(),
        "never happened: {missing:?}"
    );
}

/// A simulation that would not notice is worth nothing.
#[test]
fn planted_bugs_are_noticed_within_a_few_seeds() {
    const FEW: u64 = 30;
    for bug in Plant::BUGS {
        let noticed = (0..FEW).find_map(|seed| {
            let (_, outcome, _) = simulate(seed, STEPS, bug, false);
            outcome.err().map(|why| (seed, why))
        });
        let (seed, why) = noticed.unwrap_or_else(|| panic!("{bug:?} goes unnoticed"));
        println!("{bug:?} is noticed at seed {seed}: {why}");
    }
}

/// The fuzz targets' bodies, on bytes that no fuzzer chose.
#[test]
fn the_fuzz_targets_hold_on_random_bytes() {
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; rng.random_range(0..800)];
        rng.fill_bytes(&mut bytes);
        fuzz_bodies::server_unauthenticated(&bytes);
        fuzz_bodies::server_authenticated(&bytes);
        fuzz_bodies::stream_server(&bytes);
    }
}
