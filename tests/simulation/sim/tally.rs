//! What a simulation did and saw, to be printed, and to be missing nothing.

use std::collections::BTreeMap;
use std::fmt;

use taciturn::turn::Transport;
use taciturn::turn::stats::DropReason;

use super::action::Action;

/// Reasons for which there is nothing here: a data plane with sockets, ICMP, Binding that is off,
/// clients that are away, peers on TCP.
pub const NOT_SIMULATED: [DropReason; 7] = [
    DropReason::SendRefused,
    DropReason::QueueFull,
    DropReason::NoProxyHeader,
    DropReason::Icmp,
    DropReason::BindingOff,
    DropReason::Away,
    DropReason::Connections,
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
    /// By worker and transport, to be held against its counters.
    pub opened_over: [[u64; Transport::ALL.len()]; MOST_WORKERS],
    /// Hairpins: the transports and framings of sender and receiver.
    pub crossed: BTreeMap<Crossing, u64>,
    /// Messages that were queued for connections, read from them, and gone with them.
    pub queued: u64,
    pub read: u64,
    pub lost: u64,
    pub disconnected: u64,
    /// Connections closed by the worker, and why.
    pub lost_borders: u64,
    pub broken: u64,
    /// Packets for those whose connection was gone.
    pub too_late: u64,
}

/// Transports and framings; whether the framing is a channel.
type Crossing = ([Transport; 2], [bool; 2]);

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

    pub fn crossed(&mut self, over: [Transport; 2], by_channel: [bool; 2]) {
        *self.crossed.entry((over, by_channel)).or_default() += 1;
    }

    pub fn drops_for(&self, reason: DropReason) -> u64 {
        self.drops.iter().map(|drops| drops[reason as usize]).sum()
    }

    pub fn add(&mut self, mut other: Self) {
        for (sum, count) in self.counts().into_iter().zip(other.counts()) {
            *sum += *count;
        }
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
        merge(&mut self.crossed, other.crossed);
    }

    fn counts(&mut self) -> [&mut u64; 7] {
        [
            &mut self.queued,
            &mut self.read,
            &mut self.lost,
            &mut self.disconnected,
            &mut self.lost_borders,
            &mut self.broken,
            &mut self.too_late,
        ]
    }

    /// What never happened though it can.
    pub fn missing(&self) -> Vec<String> {
        let actions = Action::ALL
            .iter()
            .filter(|(action, _)| !self.actions.contains_key(action))
            .map(|(action, _)| format!("action {action:?}"));
        let drops = DropReason::ALL
            .iter()
            .filter(|reason| !NOT_SIMULATED.contains(reason) && self.drops_for(**reason) == 0)
            .map(|reason| format!("drop reason {}", reason.label()));
        let delivered = DELIVERED
            .iter()
            .filter(|how| !self.delivered.contains_key(*how))
            .map(|how| format!("delivery {how}"));
        let crossed = crossings()
            .filter(|crossing| !self.crossed.contains_key(crossing))
            .map(|crossing| format!("hairpin {crossing:?}"));
        let counted = [self.lost, self.lost_borders, self.broken, self.too_late];
        let queues = counted
            .iter()
            .zip(["lost", "lost borders", "broken", "too late"]);
        let queues = queues.filter(|(count, _)| **count == 0);
        let queues = queues.map(|(_, what)| format!("on connections: {what}"));
        let all = actions.chain(drops).chain(delivered);
        all.chain(crossed).chain(queues).collect()
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

/// Every transport to every other, in every framing.
fn crossings() -> impl Iterator<Item = Crossing> {
    const OVER: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];
    const FRAMINGS: [bool; 2] = [true, false];
    let pairs = OVER.iter().flat_map(|from| OVER.map(|to| [*from, to]));
    pairs.flat_map(|over| {
        FRAMINGS
            .iter()
            .flat_map(move |one| FRAMINGS.map(|other| (over, [*one, other])))
    })
}

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
        writeln!(
            f,
            "connections: {} ended, {} of them for lost borders, {} for want of room; of {} messages \
             for them {} were read and {} lost; {} packets came too late",
            self.disconnected,
            self.lost_borders,
            self.broken,
            self.queued,
            self.read,
            self.lost,
            self.too_late
        )?;
        writeln!(f, "actions:")?;
        for (action, _) in Action::ALL {
            let count = self.actions.get(action).copied().unwrap_or_default();
            writeln!(f, "  {:<24}{count:>10}", format!("{action:?}"))?;
        }
        writeln!(f, "dropped for:")?;
        for reason in DropReason::ALL {
            if NOT_SIMULATED.contains(reason) {
                writeln!(f, "  {:<24} not simulated", reason.label())?;
            } else {
                writeln!(f, "  {:<24}{:>10}", reason.label(), self.drops_for(*reason))?;
            }
        }
        writeln!(f, "data:")?;
        for (how, count) in &self.delivered {
            writeln!(f, "  {how:<34}{count:>10}")?;
        }
        for (([from, to], [sent, received]), count) in &self.crossed {
            let framing = |is_channel: &bool| if *is_channel { "channel" } else { "indication" };
            let how = format!(
                "{} {} to {} {}",
                from.label(),
                framing(sent),
                to.label(),
                framing(received)
            );
            writeln!(f, "  {how:<34}{count:>10}")?;
        }
        writeln!(f, "answers:")?;
        for ((method, code), count) in &self.answers {
            writeln!(f, "  {method:<20}{code:>4}{count:>10}")?;
        }
        Ok(())
    }
}
