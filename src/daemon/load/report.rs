//! What a run tells: a table for a person, or one JSON object.

use std::fmt::Write as _;

use serde::Serialize;

use super::ceiling::Ceiling;
use super::cost::Used;
use super::crowd::Crowd;
use super::streams::Streams;
use super::traffic::Step;
use super::wire::Wire;

/// From this part of the ceiling on the generator is what limits.
const CEILING_PART: f64 = 0.8;

/// Everything that was measured; what was not is null.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) mode: &'static str,
    pub(super) payload: String,
    /// What the clients speak.
    pub(super) transport: String,
    pub(super) pairs: Option<usize>,
    pub(super) allocations: usize,
    pub(super) offered_pps: Option<f64>,
    pub(super) delivered_pps: Option<f64>,
    pub(super) sent: Option<u64>,
    pub(super) received: Option<u64>,
    /// The part of what was sent that did not arrive.
    pub(super) loss: Option<f64>,
    pub(super) latency_us: Option<Latency>,
    pub(super) cpu_us_per_packet: PerPacket,
    pub(super) rss_bytes_per_allocation: Option<f64>,
    pub(super) allocate_per_s: Option<f64>,
    pub(super) sequence_per_s: Option<f64>,
    pub(super) ceiling_pps: Option<f64>,
    pub(super) limited_by_load: bool,
    pub(super) search: Option<Searched>,
    // What the fields above do not say.
    pub(super) duplicates: Option<u64>,
    pub(super) reordered: Option<u64>,
    pub(super) astray: Option<u64>,
    /// Packets that arrived too late to be of use, among the lost.
    pub(super) late: Option<u64>,
    /// TLS version and cipher suite.
    pub(super) secured: Option<String>,
    /// Connections that ended before they should.
    pub(super) ended: Option<u64>,
    /// Packets that were due and did not leave.
    pub(super) unsent: Option<u64>,
    pub(super) refused_by_kernel: Option<u64>,
    pub(super) cpu_us_per_allocation: Option<f64>,
    pub(super) ceiling_echo_cpu_us_per_packet: Option<f64>,
    pub(super) background_sequences: Option<u64>,
    pub(super) background_failures: Option<u64>,
    /// The part of the machine's time that the hypervisor gave to others.
    pub(super) steal: Option<f64>,
    /// CPUs that neither the server nor the generator used; above a few hundredths the figures
    /// are disturbed.
    pub(super) others_cpus: Option<f64>,
    pub(super) seconds: Option<f64>,
    pub(super) server_pids: Vec<u32>,
    /// What a person is told besides.
    pub(super) notes: Vec<String>,
}

/// Microseconds one way.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// Microseconds of CPU for each packet that arrived.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct PerPacket {
    pub(super) server: Option<f64>,
    /// All of the machine, without the time the generator spun.
    pub(super) machine: Option<f64>,
    /// The generator.
    pub(super) load: Option<f64>,
}

/// The rates that a search tried.
#[derive(Debug, Default, Serialize)]
pub(super) struct Searched {
    pub(super) steps: Vec<SearchStep>,
}

/// One of them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct SearchStep {
    pub(super) offered_pps: f64,
    pub(super) loss: f64,
}

impl Report {
    /// Says something below the table.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Takes what one step came to, and what it cost.
    pub(super) fn step(&mut self, step: &Step, costs: Used) {
        self.offered_pps = Some(step.offered_pps());
        self.delivered_pps = Some(step.delivered_pps());
        self.sent = Some(step.sent);
        self.received = Some(step.received);
        self.loss = Some(step.loss());
        self.duplicates = Some(step.duplicates);
        self.reordered = Some(step.reordered);
        self.astray = Some(step.astray);
        self.unsent = Some(step.unsent);
        self.refused_by_kernel = Some(step.refused);
        self.seconds = Some(step.elapsed.as_secs_f64());
        if step.received > 0 {
            let at = |quantile| ratio(step.latency.value_at_quantile(quantile), 1e3);
            self.latency_us = Some(Latency {
                p50: at(0.5),
                p99: at(0.99),
                p999: at(0.999),
                max: ratio(step.latency.max(), 1e3),
            });
            let each = |nanos: u64| ratio(nanos, 1e3) / ratio(step.received, 1.0);
            self.cpu_us_per_packet = PerPacket {
                server: costs.server.map(each),
                machine: costs
                    .machine
                    .map(|machine| each(machine.busy.saturating_sub(step.idle))),
                load: costs.load.map(|load| each(load.saturating_sub(step.idle))),
            };
        }
        self.steal = costs.machine.map(|machine| {
            let all = costs.elapsed.as_secs_f64() * ratio(machine.cpus as u64, 1.0);
            ratio(machine.stolen, 1e9) / all.max(f64::MIN_POSITIVE)
        });
        self.others(costs);
        if step.refused > 0 {
            let why = step
                .error
                .map(std::io::Error::from_raw_os_error)
                .map(|error| error.to_string())
                .unwrap_or_default();
            self.note(format!(
                "the kernel refused to send {} packets: {why}",
                step.refused
            ));
        }
    }

    /// What else ran on the machine.
    fn others(&mut self, costs: Used) {
        const NOTABLE: f64 = 0.1;
        let (Some(machine), Some(server), Some(load)) = (costs.machine, costs.server, costs.load)
        else {
            return;
        };
        let others = machine.busy.saturating_sub(server).saturating_sub(load);
        let cpus = ratio(others, 1e9) / costs.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        self.others_cpus = Some(cpus);
        if cpus > NOTABLE {
            self.note(format!(
                "other processes used {cpus:.1} CPUs meanwhile: the figures are disturbed"
            ));
        }
    }

    /// Holds a step against the generator's own ceiling.
    pub(super) fn ceiling(&mut self, step: &Step, ceiling: Option<Ceiling>) {
        self.ceiling_pps = ceiling.map(|ceiling| ceiling.pps);
        self.ceiling_echo_cpu_us_per_packet = ceiling.map(|ceiling| ceiling.echo_cpu_us);
        let near = ceiling.is_some_and(|ceiling| step.delivered_pps() > ceiling.pps * CEILING_PART);
        self.limited_by_load |= near || !step.kept();
        if near {
            self.note(
                "limited by the load: above 80 % of what the generator does with a bare echo"
                    .to_owned(),
            );
        }
        if !step.kept() {
            self.note(format!(
                "limited by the load: {:.0} packets/s were asked for, and it did not send them",
                step.wanted
            ));
        }
    }

    /// What the connections are, and what became of them.
    pub(super) fn connections(&mut self, wire: &Wire) {
        let crowds = [Some(&wire.clients), wire.callees.as_ref()];
        let mut connections = crowds.into_iter().flatten().filter_map(Crowd::connections);
        self.secured = connections.find_map(Streams::agreed);
        self.ended = Some(0);
        if let Some((ended, reason)) = wire.ended() {
            self.ended = Some(ended);
            self.note(format!("{ended} connections ended meanwhile: {reason}"));
        }
    }

    /// What only connections have. There is no ceiling of theirs: whoever is busier is the limit.
    pub(super) fn streams(&mut self, step: &Step, costs: Used) {
        const BUSY: f64 = 0.9;
        self.late = Some(step.late);
        let part = |nanos: u64| ratio(nanos, 1e9) / costs.elapsed.as_secs_f64();
        let load = costs
            .load
            .map(|nanos| part(nanos.saturating_sub(step.idle)));
        let server = costs.server.map(part);
        if let Some(load) = load.filter(|&load| load > BUSY && server.is_none_or(|s| s < load)) {
            self.limited_by_load = true;
            self.note(format!(
                "limited by the load: it was busy {:.0} % of the time, and the server less",
                load * 100.0
            ));
        }
    }

    /// One JSON object.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// A table, and the notes below it.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<18}{value}");
        let work = match self.pairs {
            Some(pairs) => format!("{}, {pairs} pairs", self.mode),
            None => format!("{}, {} allocations", self.mode, self.allocations),
        };
        let over = match self.transport.as_str() {
            "udp" => String::new(),
            transport => format!(", over {transport}"),
        };
        line("mode", format!("{work}, payload {}{over}", self.payload));
        if let (Some(offered), Some(delivered), Some(loss)) =
            (self.offered_pps, self.delivered_pps, self.loss)
        {
            line("offered", format!("{offered:.0} packets/s"));
            line("delivered", format!("{delivered:.0} packets/s"));
            line("loss", self.losses(loss));
        }
        if let Some(latency) = self.latency_us {
            let Latency {
                p50,
                p99,
                p999,
                max,
            } = latency;
            let value =
                format!("p50 {p50:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs, max {max:.0} µs");
            line("latency one way", value);
        }
        let cpu = self.cpu_us_per_packet;
        if let Some(machine) = cpu.machine {
            let server = cpu.server.map_or_else(
                || "server unknown".to_owned(),
                |us| format!("server {us:.2} µs"),
            );
            line(
                "CPU per packet",
                format!("{server}, whole machine {machine:.2} µs"),
            );
        }
        if let Some(bytes) = self.rss_bytes_per_allocation {
            line("memory", format!("{bytes:.0} bytes for each allocation"));
        }
        for (name, rate) in [
            ("allocations", self.allocate_per_s),
            ("sequences", self.sequence_per_s),
        ] {
            if let Some(rate) = rate {
                line(name, format!("{rate:.0} a second"));
            }
        }
        if let Some(us) = self.cpu_us_per_allocation {
            line("CPU", format!("server {us:.1} µs for each of them"));
        }
        if let (Some(done), Some(failed)) = (self.background_sequences, self.background_failures) {
            line(
                "beside it",
                format!("{done} allocation sequences, {failed} requests failed"),
            );
        }
        if let Some(ceiling) = self.ceiling_pps {
            line("ceiling", format!("{ceiling:.0} packets/s by a bare echo"));
        }
        for note in &self.notes {
            line("note", note.clone());
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn losses(&self, loss: f64) -> String {
        let mut text = format!("{:.3} %", loss * 100.0);
        for (count, what) in [
            (self.duplicates, "twice"),
            (self.reordered, "out of order"),
            (self.astray, "astray"),
            (self.late, "too late"),
        ] {
            if let Some(count) = count.filter(|&count| count > 0) {
                _ = write!(text, ", {count} {what}");
            }
        }
        text
    }
}

/// `value` in units of `unit`.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and times of minutes are exact in a double"
)]
pub(super) fn ratio(value: u64, unit: f64) -> f64 {
    value as f64 / unit
}
