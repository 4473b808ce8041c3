//! One run from its ceiling to its report.

use std::time::Duration;

use anyhow::{Context, bail};
use rustls::pki_types::ServerName;

use super::background::Background;
use super::calls::Calls;
use super::ceiling::{self, Ceiling};
use super::cost::{self, Used};
use super::crowd::Crowd;
use super::desk::Desk;
use super::options::{Load, Measure, Mode, Payload, Transport};
use super::pace;
use super::plan::{Pace, Plan};
use super::progress::Progress;
use super::report::{Report, SearchStep, Searched, ratio};
use super::rounds;
use super::search::{Next, Search, Tried};
use super::secure;
use super::streams::Speech;
use super::traffic::{Step, Traffic};
use super::wire::Wire;
use crate::daemon::Usage;
use crate::dataplane::sys;
use crate::proto::AddressFamily;

/// The highest rate that one step of a search is tried for.
const PROBE: Duration = Duration::from_secs(1);
/// How long queues have to empty between two rates.
const DRAIN: Duration = Duration::from_millis(150);
/// Where a search begins.
const START: f64 = 100_000.0;
/// Allocations and permissions are renewed when a step might outlast them (RFC 8656 §9: 300 s).
const RENEW: Duration = Duration::from_secs(100);
/// What warms up caches and routes before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// What callers and callees speak, such as "tcp" or "udp-tls".
fn transports(plan: &Plan) -> String {
    let name = |transport: Transport| match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
    };
    match &plan.callees {
        None => name(plan.transport).to_owned(),
        Some(callees) => format!("{}-{}", name(plan.transport), name(callees.transport)),
    }
}

/// One run of the load.
pub(super) struct Run<'a> {
    arguments: &'a Load,
    plan: Plan,
    pub(super) progress: Progress,
    pub(super) report: Report,
    pids: Vec<u32>,
    cpus: usize,
    background: Background,
}

impl<'a> Run<'a> {
    pub(super) fn new(arguments: &'a Load, plan: Plan, progress: Progress) -> anyhow::Result<Self> {
        let pids = if arguments.server_pid.is_empty() {
            let tables = match plan.transport {
                Transport::Udp => &cost::UDP,
                Transport::Tcp | Transport::Tls => &cost::TCP,
            };
            cost::processes_with_port(plan.server.port(), tables)
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
            transport: transports(&plan),
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
            pids,
            cpus: cost::machine().map_or(1, |machine| machine.cpus),
        })
    }

    pub(super) fn go(&mut self) -> anyhow::Result<()> {
        match self.plan.measure {
            Measure::Traffic => self.traffic(),
            Measure::Allocate | Measure::Sequence => self.allocations(),
        }
    }

    fn wire(&self) -> anyhow::Result<Wire> {
        let plan = &self.plan;
        let clients = self.crowd(plan.transport)?;
        let callees = plan.callees.as_ref();
        let callee_server = callees.map_or(plan.server, |callees| callees.server);
        let callees = callees
            .map(|callees| self.crowd(callees.transport))
            .transpose()?;
        let peers = (plan.mode == Mode::Peer && plan.measure == Measure::Traffic)
            .then(|| Crowd::alone(plan.peer))
            .transpose()
            .context("cannot bind a socket for the peers; see --peer-address")?;
        let logins = plan
            .credentials
            .logins(plan.allocations, sys::unix_seconds())?;
        let family = AddressFamily::of(plan.server.ip());
        Ok(Wire {
            clients,
            callees,
            peers,
            desk: Desk::new(logins, family, rand::random()),
            server: plan.server,
            callee_server,
            window: usize::try_from(self.arguments.window)?,
        })
    }

    fn crowd(&self, transport: Transport) -> anyhow::Result<Crowd> {
        let network = self.plan.network;
        let crowd = match (transport, network) {
            (Transport::Udp, Some(network)) => Crowd::shared(network),
            (Transport::Udp, None) => Crowd::own(),
            (Transport::Tcp, _) => Crowd::streams(Speech::Tcp, network),
            (Transport::Tls, _) => {
                let name = ServerName::try_from(self.plan.host.clone())?;
                Crowd::streams(Speech::Tls(secure::config()?, name), network)
            }
        };
        crowd.context("cannot bind a socket for the clients")
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
            Measure::Allocate | Measure::Traffic => self.report.allocate_per_s = Some(rate),
        }
        self.report.seconds = Some(rounds.elapsed.as_secs_f64());
        self.report.cpu_us_per_allocation = rounds
            .server_nanos
            .map(|nanos| ratio(nanos, 1e3) / ratio(rounds.done.max(1), 1.0));
        self.report.note(format!(
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
        if self.plan.has_connections() {
            self.report.connections(&wire);
        }
        self.background.settle(&mut wire, &self.progress);
        calls.end(&mut wire, &self.progress);
        let (step, costs) = measured?;
        self.report.step(&step, costs);
        if self.progress.stopped() {
            let text = "interrupted: the figures are of the time until then";
            self.report.note(text.to_owned());
        }
        self.report.ceiling(&step, ceiling);
        if self.plan.has_connections() {
            self.report.streams(&step, costs);
        }
        if self.arguments.background_allocations > 0 {
            self.report.background_sequences = Some(self.background.done);
            self.report.background_failures = Some(self.background.failed);
        }
        Ok(())
    }

    fn ceiling(&mut self) -> anyhow::Result<Option<Ceiling>> {
        if self.plan.has_connections() {
            let text = "the generator's own ceiling is not measured for this transport";
            self.report.note(text.to_owned());
            return Ok(None);
        }
        if self.arguments.no_ceiling {
            self.report
                .note("the generator's own ceiling was not measured".to_owned());
            return Ok(None);
        }
        if self.cpus < 2 {
            self.report
                .note("one CPU: the generator's own ceiling cannot be measured".to_owned());
            return Ok(None);
        }
        let mine = self
            .arguments
            .cpu
            .or_else(|| sys::allowed_cpus().first().copied())
            .unwrap_or(0);
        let flows = match self.plan.mode {
            Mode::Peer => 2 * self.plan.allocations,
            Mode::Call | Mode::Send | Mode::Mixed => self.plan.allocations,
        };
        ceiling::measure(
            self.plan.network.is_some(),
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
    fn measure(&mut self, wire: &mut Wire, calls: &Calls) -> anyhow::Result<(Step, Used)> {
        // What the calls need is copied, so that their renewal can go on beside.
        let mut traffic = Traffic::new(
            calls.flows(),
            self.plan.streams.clone(),
            self.plan.segmented,
            rand::random(),
            self.cpus < 2,
        );
        if self.plan.has_connections() {
            traffic = traffic.live();
        }
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
    ) -> anyhow::Result<(Step, Used)> {
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
                    self.report
                        .note("no rate was carried with so little loss".to_owned());
                    break;
                }
            };
            if Duration::from_nanos(sys::monotonic_nanos() - renewed) > RENEW {
                self.background.settle(wire, &self.progress);
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
        self.report.limited_by_load = search.limited();
        last.context("nothing was tried")
    }

    fn step(
        &mut self,
        traffic: &mut Traffic,
        wire: &mut Wire,
        rate: f64,
        duration: Duration,
    ) -> anyhow::Result<(Step, Used)> {
        let milliseconds = usize::try_from(duration.as_millis()).unwrap_or(0);
        self.progress
            .stage(format!("{rate:.0} packets/s"), milliseconds);
        if self.plan.has_connections() {
            Traffic::drain(wire, &self.progress)?;
        }
        let before = Used::now(&self.pids);
        let step = traffic.run(wire, rate, duration, &mut self.background, &self.progress)?;
        let costs = Used::now(&self.pids).since(before);
        Ok((step, costs))
    }
}
