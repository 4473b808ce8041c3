//! The privacy suite: every way in which an endpoint's address, or who it is, is known to leak from
//! a relayed call, is attacked against the real daemon on a small internet, and what was found
//! stands in a table.
//!
//! `outputs` is the register of everything that the daemon says to anybody. A new kind of output
//! fails the suite until it stands there and is searched.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says why it cannot go on, and ends"
)]

#[expect(
    dead_code,
    reason = "of the lab its namespaces, captures and the search are used"
)]
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../loopback/mod.rs"]
mod loopback;
#[path = "../call/planted.rs"]
mod planted;
#[path = "../source/mod.rs"]
mod source;

mod attacks;
mod collect;
mod hook;
mod leaks;
mod outputs;
mod report;
mod routes;
mod stage;

use std::any::Any;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use attacks::ATTACKS;
use leaks::{ENFORCED, OUT_OF_REACH};
use report::{Attack, Report, Table};
use stage::Stage;

/// What a panic said.
fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("in silence")
}

/// Runs the attacks whose leak the environment names, or else all.
fn attacked() -> Vec<(&'static Attack, Report)> {
    let only = std::env::var("PRIVACY_LEAK").ok();
    let asked = |attack: &&Attack| only.as_deref().is_none_or(|only| only == attack.leak);
    let stage = Stage::new();
    let run = |attack: &'static Attack| {
        let report = catch_unwind(AssertUnwindSafe(|| (attack.run)(&stage)));
        (
            attack,
            report.unwrap_or_else(|panic| Report::broken(told(&*panic))),
        )
    };
    ATTACKS.iter().filter(asked).map(run).collect()
}

/// T62 to T72, from outside.
#[test]
#[ignore = "needs root; .ci/run runs it"]
fn no_leak_is_found_by_any_attack() {
    let attacked = attacked();
    assert!(!attacked.is_empty(), "no such leak");
    writeln!(io::stderr(), "{}\nNot listened to:", Table(&attacked)).unwrap();
    for output in outputs::unheard() {
        writeln!(io::stderr(), "     {output}").unwrap();
    }
    let dirty: Vec<&str> = attacked
        .iter()
        .filter(|(_, report)| !report.is_clean())
        .map(|(attack, _)| attack.leak)
        .collect();
    assert_eq!(
        dirty,
        Vec::<&str>::new(),
        "these leak, or were not attacked"
    );
}

#[test]
fn every_leak_is_attacked() {
    let attacked: BTreeSet<&str> = ATTACKS.iter().map(|attack| attack.leak).collect();
    let enforced: BTreeSet<&str> = ENFORCED.iter().map(|leak| leak.id).collect();
    assert_eq!(attacked, enforced);
    let page = std::fs::read_to_string(source::root().join("docs/privacy.md")).unwrap();
    for leak in ENFORCED.iter().chain(&OUT_OF_REACH) {
        assert!(
            page.contains(&format!("| {} |", leak.id)),
            "{} is not told",
            leak.id
        );
    }
}
