//! What the system says of this process, under the names that every Prometheus client has for it.
//!
//! Not the collector of the `prometheus` crate, which counts CPU time in whole seconds: a rate over
//! a scrape's interval would move in steps of several per cent.

use std::fs;
use std::time::Duration;

use prometheus::{Counter, Gauge, Opts};

use super::Scrape;
use crate::dataplane::sys;

impl Scrape<'_> {
    /// `began` is when the daemon did, in seconds of the Unix epoch.
    pub(super) fn process(&self, began: u64) -> prometheus::Result<()> {
        let cpu = Counter::with_opts(Opts::new(
            "process_cpu_seconds_total",
            "CPU time of this process, in user mode and in the kernel.",
        ))?;
        cpu.inc_by(Duration::from_nanos(sys::process_cpu_nanos()).as_secs_f64());
        self.registry.register(Box::new(cpu))?;
        self.one(
            "process_start_time_seconds",
            "When it began, in seconds of the Unix epoch.",
            began,
        )?;
        let limit = sys::hard_descriptor_limit().unwrap_or_default();
        self.one(
            "process_max_fds",
            "File descriptors that it may open.",
            limit,
        )?;
        if let Ok(open) = sys::open_descriptors() {
            let help = "File descriptors that are open.";
            self.one("process_open_fds", help, open as u64)?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (name, help, line, unit) in [
            (
                "process_resident_memory_bytes",
                "Memory of it that is in RAM.",
                "VmRSS:",
                1_024,
            ),
            (
                "process_virtual_memory_bytes",
                "Memory that it has laid claim to.",
                "VmSize:",
                1_024,
            ),
            ("process_threads", "Its threads.", "Threads:", 1),
        ] {
            if let Some(number) = number(&status, line) {
                self.one(name, help, number * unit)?;
            }
        }
        Ok(())
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a sample of Prometheus is a double"
    )]
    fn one(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let gauge = Gauge::with_opts(Opts::new(name, help))?;
        gauge.set(value as f64);
        self.registry.register(Box::new(gauge))
    }
}

/// The number behind `name` in the lines of `/proc/self/status`.
fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_this_process_are_found() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        for name in ["VmRSS:", "VmSize:", "Threads:"] {
            assert!(number(&status, name).unwrap() > 0, "{name}");
        }
        assert_eq!(number(&status, "NoSuchLine:"), None);
        assert_eq!(number("Name:\ttaciturn\n", "Name:"), None);
    }
}
