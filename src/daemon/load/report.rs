//! What a run tells: a table for a person, or one JSON object.

use std::fmt::Write as _;

use serde::Serialize;

/// Everything that was measured; what was not is null.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) mode: &'static str,
    pub(super) payload: String,
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
    /// Packets that were due and did not leave.
    pub(super) unsent: Option<u64>,
    pub(super) refused_by_kernel: Option<u64>,
    pub(super) cpu_us_per_allocation: Option<f64>,
    pub(super) ceiling_echo_cpu_us_per_packet: Option<f64>,
    pub(super) background_sequences: Option<u64>,
    pub(super) background_failures: Option<u64>,
    /// The part of the machine's time that the hypervisor gave to others.
    pub(super) steal: Option<f64>,
    pub(super) seconds: Option<f64>,
    pub(super) server_pids: Vec<u32>,
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
    /// One JSON object.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// A table; `notes` are said below it.
    pub(super) fn table(&self, notes: &[String]) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<18}{value}");
        let work = match self.pairs {
            Some(pairs) => format!("{}, {pairs} pairs", self.mode),
            None => format!("{}, {} allocations", self.mode, self.allocations),
        };
        line("mode", format!("{work}, payload {}", self.payload));
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
        for note in notes {
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
        ] {
            if let Some(count) = count.filter(|&count| count > 0) {
                _ = write!(text, ", {count} {what}");
            }
        }
        text
    }
}
