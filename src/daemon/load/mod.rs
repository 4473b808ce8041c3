//! `taciturn load`: drives any TURN server over UDP and measures what it carries, what that costs
//! and how long it takes.
//!
//! `options` is what a user may say and `plan` what it means; `desk` speaks TURN for all clients,
//! `crowd` is their side of the wire, and `calls` sets up who sends to whom. `traffic` sends at a
//! pace and counts what arrives, `search` looks for the highest rate, `ceiling` for the
//! generator's own, `rounds` counts allocations, `cost` reads /proc, and `report` tells. No
//! client's address is printed.

mod background;
mod calls;
mod ceiling;
mod cost;
mod crowd;
mod desk;
mod login;
pub(crate) mod options;
mod pace;
mod packet;
mod plan;
mod progress;
mod report;
mod rounds;
mod search;
mod sources;
mod traffic;
mod wire;

use std::time::Duration;

use anyhow::{Context, bail};

use crate::daemon::{Usage, print};
use crate::dataplane::sys;
use crate::proto::AddressFamily;

use background::Background;
use calls::Calls;
use ceiling::Ceiling;
use cost::Machine;
use crowd::Crowd;
use desk::Desk;
use options::{Load, Measure, Mode, Payload};
use plan::{Pace, Plan};
use progress::Progress;
use report::{Latency, PerPacket, Report, SearchStep, Searched};
use search::{Next, Search, Tried};
use traffic::{Step, Traffic};
use wire::Wire;

/// The highest rate that one step of a search is tried for.
const PROBE: Duration = Duration::from_secs(1);
/// How long queues have to empty between two rates.
const DRAIN: Duration = Duration::from_millis(150);
/// Where a search begins.
const START: f64 = 100_000.0;
/// Allocations and permissions are renewed when a step might outlast them (RFC 8656 §9: 300 s).
const RENEW: Duration = Duration::from_secs(100);
/// From this part of the ceiling on the generator is what limits.
const CEILING_PART: f64 = 0.8;
/// What warms up caches and routes before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// Loads the server as the arguments say, and tells how it did.
///
/// # Errors
/// When nothing arrives, or it does not come to that.
pub(crate) fn run(arguments: &Load) -> anyhow::Result<()> {
    let plan = plan::of(arguments)?;
    if let Some(cpu) = arguments.cpu {
        sys::pin_current_thread(cpu)
            .map_err(|error| Usage(format!("cannot stay on CPU {cpu}: {error}")))?;
    }
    if plan.network.is_none() {
        // A socket for each client. Where it stays lower, opening them says so.
        sys::raise_descriptor_limit().ok();
    }
    let progress = Progress::new();
    let mut run = Run::new(arguments, plan, progress)?;
    let outcome = run.go();
    run.progress.clear();
    outcome?;
    if arguments.json {
        print(&run.report.json()?)?;
    } else {
        print(&run.report.table(&run.notes))?;
    }
    if run.report.received == Some(0) {
        bail!("nothing arrived");
    }
    Ok(())
}

struct Run<'a> {
    arguments: &'a Load,
    plan: Plan,
    progress: Progress,
    report: Report,
    notes: Vec<String>,
    pids: Vec<u32>,
    cpus: usize,
    background: Background,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a Load, plan: Plan, progress: Progress) -> anyhow::Result<Self> {
        let pids = if arguments.server_pid.is_empty() {
            cost::processes_with_port(plan.server.port())
        } else {
            arguments.server_pid.clone()
        };
        if !arguments.server_pid.is_empty() && cost::process_nanos(&pids).is_none() {
            return Err(Usage("there is no process with that --server-pid".to_owned()).into());
        }
        let traffic = plan.measure == Measure::Traffic;
        let report = Report {
            mode: match plan.mode {
                Mode::Call => "call",
                Mode::Peer => "peer",
                Mode::Send => "send",
                Mode::Mixed => "mixed",
            },
            payload: match arguments.payload {
                Payload::Bytes(bytes) => bytes.to_string(),
                Payload::Audio => "audio".to_owned(),
                Payload::Video => "video".to_owned(),
                Payload::Call => "call".to_owned(),
            },
            pairs: (traffic && plan.mode != Mode::Peer).then_some(plan.allocations / 2),
            allocations: plan.allocations,
            server_pids: pids.clone(),
            ..Report::default()
        };
        Ok(Self {
            background: Background::none(),
            arguments,
            plan,
            progress,
            report,
            notes: Vec::new(),
            pids,
            cpus: cost::machine().map_or(1, |machine| machine.cpus),
        })
    }

    fn go(&mut self) -> anyhow::Result<()> {
        match self.plan.measure {
            Measure::Traffic => self.traffic(),
            Measure::Allocate | Measure::Sequence => self.allocations(),
        }
    }

    fn wire(&self) -> anyhow::Result<Wire> {
        let plan = &self.plan;
        let clients = match plan.network {
            Some(network) => Crowd::shared(network),
            None => Crowd::own(),
        };
        let peers = (plan.mode == Mode::Peer && plan.measure == Measure::Traffic)
            .then(|| Crowd::alone(plan.peer))
            .transpose()
            .context("cannot bind a socket for the peers; see --peer-address")?;
        let logins = plan
            .credentials
            .logins(plan.allocations, sys::unix_seconds())?;
        let family = AddressFamily::of(plan.server.ip());
        Ok(Wire {
            clients: clients.context("cannot bind a socket for the clients")?,
            peers,
            desk: Desk::new(logins, family, rand::random()),
            server: plan.server,
            window: usize::try_from(self.arguments.window)?,
        })
    }

    fn allocations(&mut self) -> anyhow::Result<()> {
        let mut wire = self.wire()?;
        wire.greet(&self.progress)?;
        let rounds = rounds::run(
            &mut wire,
            self.plan.measure,
            self.plan.allocations,
            self.arguments.duration,
            || cost::process_nanos(&self.pids),
            &self.progress,
        )?;
        let rate = ratio(rounds.done, 1.0) / rounds.elapsed.as_secs_f64();
        match self.plan.measure {
            Measure::Sequence => self.report.sequence_per_s = Some(rate),
            _ => self.report.allocate_per_s = Some(rate),
        }
        self.report.seconds = Some(rounds.elapsed.as_secs_f64());
        self.report.cpu_us_per_allocation = rounds
            .server_nanos
            .map(|nanos| ratio(nanos, 1e3) / ratio(rounds.done.max(1), 1.0));
        self.notes.push(format!(
            "in rounds of {}, {} requests outstanding; deleted by Refresh with lifetime 0 between \
             rounds, which is not counted",
            self.plan.allocations, self.arguments.window
        ));
        Ok(())
    }

    fn traffic(&mut self) -> anyhow::Result<()> {
        let ceiling = self.ceiling()?;
        let mut wire = self.wire()?;
        wire.greet(&self.progress)?;
        let before = cost::resident(&self.pids);
        let calls = Calls::begin(
            &mut wire,
            self.plan.mode,
            self.plan.allocations,
            &self.progress,
        )?;
        if let (Some(before), Some(after)) = (before, cost::resident(&self.pids))
            && !self.pids.is_empty()
        {
            let grown = after.saturating_sub(before);
            let allocations = self.plan.allocations.max(1) as u64;
            self.report.rss_bytes_per_allocation =
                Some(ratio(grown, 1.0) / ratio(allocations, 1.0));
        }
        self.background = Background::new(self.arguments.background_allocations);
        let measured = self.measure(&mut wire, &calls);
        calls.end(&mut wire, &self.progress);
        let (step, costs) = measured?;
        self.tell(&step, costs, ceiling);
        Ok(())
    }

    fn ceiling(&mut self) -> anyhow::Result<Option<Ceiling>> {
        if self.arguments.no_ceiling {
            self.notes
                .push("the generator's own ceiling was not measured".to_owned());
            return Ok(None);
        }
        if self.cpus < 2 {
            self.notes
                .push("one CPU: the generator's own ceiling cannot be measured".to_owned());
            return Ok(None);
        }
        let mine = self
            .arguments
            .cpu
            .or_else(|| sys::allowed_cpus().first().copied())
            .unwrap_or(0);
        let flows = match self.plan.mode {
            Mode::Peer => 2 * self.plan.allocations,
            _ => self.plan.allocations,
        };
        ceiling::measure(
            self.plan.network,
            flows,
            &self.plan.streams,
            self.plan.segmented,
            self.arguments.max_loss / 100.0,
            usize::from(mine == 0),
            &self.progress,
        )
        .context("cannot measure the generator's own ceiling; --no-ceiling leaves it out")
    }

    /// The step that counts, and what it cost.
    fn measure(&mut self, wire: &mut Wire, calls: &Calls) -> anyhow::Result<(Step, Costs)> {
        // What the calls need is copied, so that their renewal can go on beside.
        let mut traffic = Traffic::new(
            calls.flows(),
            self.plan.streams.clone(),
            self.plan.segmented,
            rand::random(),
            self.cpus < 2,
        );
        let natural = pace::natural(traffic.streams(), traffic.flows());
        let gentle = natural.min(10_000.0);
        traffic.run(wire, gentle, WARM_UP, &mut self.background, &self.progress)?;
        std::thread::sleep(DRAIN);
        match self.plan.pace {
            Pace::Fixed(rate) => self.step(&mut traffic, wire, rate, self.arguments.duration),
            Pace::Search => self.search(&mut traffic, wire, calls),
        }
    }

    fn search(
        &mut self,
        traffic: &mut Traffic,
        wire: &mut Wire,
        calls: &Calls,
    ) -> anyhow::Result<(Step, Costs)> {
        let max_loss = self.arguments.max_loss / 100.0;
        let mut search = Search::new(START, max_loss);
        let mut searched = Searched::default();
        let mut last = None;
        let mut renewed = sys::monotonic_nanos();
        loop {
            let (rate, duration) = match search.next() {
                Next::Try(rate) => (rate, PROBE.min(self.arguments.duration)),
                Next::Confirm(rate) => (rate, self.arguments.duration),
                Next::Found => break,
                Next::Nothing => {
                    self.notes
                        .push("no rate was carried with so little loss".to_owned());
                    break;
                }
            };
            if Duration::from_nanos(sys::monotonic_nanos() - renewed) > RENEW {
                calls.renew(wire, &self.progress)?;
                renewed = sys::monotonic_nanos();
            }
            let (step, costs) = self.step(traffic, wire, rate, duration)?;
            if self.progress.stopped() {
                bail!("interrupted");
            }
            let tried = Tried {
                offered: step.offered_pps(),
                loss: step.loss(),
                kept: step.kept(),
            };
            searched.steps.push(SearchStep {
                offered_pps: tried.offered,
                loss: tried.loss,
            });
            search.record(tried);
            last = Some((step, costs));
            std::thread::sleep(DRAIN);
        }
        self.report.search = Some(searched);
        last.context("nothing was tried")
    }

    fn step(
        &mut self,
        traffic: &mut Traffic,
        wire: &mut Wire,
        rate: f64,
        duration: Duration,
    ) -> anyhow::Result<(Step, Costs)> {
        let milliseconds = usize::try_from(duration.as_millis()).unwrap_or(0);
        self.progress
            .stage(format!("{rate:.0} packets/s"), milliseconds);
        let before = Costs::now(&self.pids);
        let step = traffic.run(wire, rate, duration, &mut self.background, &self.progress)?;
        let costs = Costs::now(&self.pids).since(before);
        Ok((step, costs))
    }

    fn tell(&mut self, step: &Step, costs: Costs, ceiling: Option<Ceiling>) {
        let report = &mut self.report;
        report.offered_pps = Some(step.offered_pps());
        report.delivered_pps = Some(step.delivered_pps());
        report.sent = Some(step.sent);
        report.received = Some(step.received);
        report.loss = Some(step.loss());
        report.duplicates = Some(step.duplicates);
        report.reordered = Some(step.reordered);
        report.astray = Some(step.astray);
        report.unsent = Some(step.unsent);
        report.refused_by_kernel = Some(step.refused);
        report.seconds = Some(step.elapsed.as_secs_f64());
        if step.received > 0 {
            let at = |quantile| ratio(step.latency.value_at_quantile(quantile), 1e3);
            report.latency_us = Some(Latency {
                p50: at(0.5),
                p99: at(0.99),
                p999: at(0.999),
                max: ratio(step.latency.max(), 1e3),
            });
            let each = |nanos: u64| ratio(nanos, 1e3) / ratio(step.received, 1.0);
            report.cpu_us_per_packet = PerPacket {
                server: costs.server.map(each),
                machine: costs
                    .machine
                    .map(|machine| each(machine.busy.saturating_sub(step.idle))),
                load: costs.load.map(|load| each(load.saturating_sub(step.idle))),
            };
        }
        report.steal = costs.machine.map(|machine| {
            let all = step.elapsed.as_secs_f64() * ratio(machine.cpus as u64, 1.0);
            ratio(machine.stolen, 1e9) / all.max(f64::MIN_POSITIVE)
        });
        if self.arguments.background_allocations > 0 {
            report.background_sequences = Some(self.background.done);
            report.background_failures = Some(self.background.failed);
        }
        report.ceiling_pps = ceiling.map(|ceiling| ceiling.pps);
        report.ceiling_echo_cpu_us_per_packet = ceiling.map(|ceiling| ceiling.echo_cpu_us);
        let near = ceiling.is_some_and(|ceiling| step.delivered_pps() > ceiling.pps * CEILING_PART);
        report.limited_by_load = near || !step.kept();
        if near {
            self.notes.push(
                "limited by the load: above 80 % of what the generator does with a bare echo"
                    .to_owned(),
            );
        }
        if !step.kept() {
            self.notes.push(format!(
                "limited by the load: {:.0} packets/s were asked for, and it did not send them",
                step.wanted
            ));
        }
        if step.refused > 0 {
            let why = step
                .error
                .map(std::io::Error::from_raw_os_error)
                .map(|error| error.to_string())
                .unwrap_or_default();
            self.notes.push(format!(
                "the kernel refused to send {} packets: {why}",
                step.refused
            ));
        }
    }
}

/// What was used up to some moment, or between two.
#[derive(Debug, Clone, Copy)]
struct Costs {
    server: Option<u64>,
    load: Option<u64>,
    machine: Option<Machine>,
}

impl Costs {
    fn now(pids: &[u32]) -> Self {
        Self {
            server: cost::process_nanos(pids),
            load: cost::thread_nanos(),
            machine: cost::machine(),
        }
    }

    fn since(self, before: Self) -> Self {
        let less = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        Self {
            server: less(self.server, before.server),
            load: less(self.load, before.load),
            machine: self
                .machine
                .zip(before.machine)
                .map(|(now, before)| Machine {
                    busy: now.busy.saturating_sub(before.busy),
                    stolen: now.stolen.saturating_sub(before.stolen),
                    cpus: now.cpus,
                }),
        }
    }
}

/// `value` in units of `unit`.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and times of minutes are exact in a double"
)]
fn ratio(value: u64, unit: f64) -> f64 {
    value as f64 / unit
}
