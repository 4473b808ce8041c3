//! What a simulation did and saw, to be printed, and to be missing nothing.

use std::collections::BTreeMap;
use std::fmt;

use taciturn::turn::stats::DropReason;

use super::action::Action;

/// Reasons that only a data plane with sockets counts.
pub const DATA_PLANE_ONLY: [DropReason; 5] = [
    DropReason::SendRefused,
    DropReason::QueueFull,
    DropReason::SlowReader,
    DropReason::NoProxyHeader,
    // No client here has a connection that could break.
    DropReason::Away,
];

pub const MOST_WORKERS: usize = 4;

#[derive(Debug, Default)]
pub struct Tally {
    pub runs: u64,
    pub steps: u64,
    pub actions: BTreeMap<Action, u64>,
    /// By worker, to be held against its counters.
    pub drops: [[u64; DropReason::ALL.len()]; MOST_WORKERS],
    /// By method and code; 0 is success.
    pub answers: BTreeMap<(&'static str, u16), u64>,
    /// By path.
    pub delivered: BTreeMap<&'static str, u64>,
    pub handed_over: u64,
    pub moved: u64,
    pub opened: u64,
    pub closed: u64,
    pub replaced: u64,
}

impl Tally {
    pub fn did(&mut self, action: Action) {
        self.steps += 1;
        *self.actions.entry(action).or_default() += 1;
    }

    pub fn dropped(&mut self, worker: usize, reason: DropReason) {
        self.drops[worker][reason as usize] += 1;
    }

    pub fn answered(&mut self, method: &'static str, code: u16) {
        *self.answers.entry((method, code)).or_default() += 1;
    }

    pub fn delivered(&mut self, how: &'static str) {
        *self.delivered.entry(how).or_default() += 1;
    }

    pub fn drops_for(&self, reason: DropReason) -> u64 {
        self.drops.iter().map(|drops| drops[reason as usize]).sum()
    }

    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.steps += other.steps;
        merge(&mut self.actions, other.actions);
        for (drops, others) in self.drops.iter_mut().zip(other.drops) {
            drops
                .iter_mut()
                .zip(others)
                .for_each(|(sum, count)| *sum += count);
        }
        merge(&mut self.answers, other.answers);
        merge(&mut self.delivered, other.delivered);
        self.handed_over += other.handed_over;
        self.moved += other.moved;
        self.opened += other.opened;
        self.closed += other.closed;
        self.replaced += other.replaced;
    }

    /// What never happened though it can.
    pub fn missing(&self) -> Vec<String> {
        let actions = Action::ALL
            .iter()
            .filter(|(action, _)| !self.actions.contains_key(action))
            .map(|(action, _)| format!("action {action:?}"));
        let drops = DropReason::ALL
            .iter()
            .filter(|reason| !DATA_PLANE_ONLY.contains(reason) && self.drops_for(**reason) == 0)
            .map(|reason| format!("drop reason {}", reason.label()));
        let delivered = DELIVERED
            .iter()
            .filter(|how| !self.delivered.contains_key(*how))
            .map(|how| format!("delivery {how}"));
        actions.chain(drops).chain(delivered).collect()
    }
}

/// Every way data can take.
pub const DELIVERED: [&str; 7] = [
    "hairpin, channel to channel",
    "hairpin, channel to indication",
    "hairpin, indication to channel",
    "hairpin, indication to indication",
    "to a peer",
    "from a peer, in a channel",
    "from a peer, in an indication",
];

fn merge<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} runs, {} steps", self.runs, self.steps)?;
        writeln!(
            f,
            "allocations: {} opened, {} closed, {} of them replaced; {} datagrams handed over; {} moves",
            self.opened, self.closed, self.replaced, self.handed_over, self.moved
        )?;
        writeln!(f, "actions:")?;
        for (action, _) in Action::ALL {
            let count = self.actions.get(action).copied().unwrap_or_default();
            writeln!(f, "  {:<24}{count:>10}", format!("{action:?}"))?;
        }
        writeln!(f, "dropped for:")?;
        for reason in DropReason::ALL {
            if DATA_PLANE_ONLY.contains(reason) {
                writeln!(f, "  {:<24} only with sockets", reason.label())?;
            } else {
                writeln!(f, "  {:<24}{:>10}", reason.label(), self.drops_for(*reason))?;
            }
        }
        writeln!(f, "data:")?;
        for (how, count) in &self.delivered {
            writeln!(f, "  {how:<34}{count:>10}")?;
        }
        writeln!(f, "answers:")?;
        for ((method, code), count) in &self.answers {
            writeln!(f, "  {method:<20}{code:>4}{count:>10}")?;
        }
        Ok(())
    }
}
