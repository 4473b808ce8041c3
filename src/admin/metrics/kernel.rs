//! What the kernel does for workers, and where it falls short: system calls, packets joined and cut
//! (GRO, GSO), receive queues that were full, and how relayed addresses are bound.

use std::sync::atomic::Ordering;

use super::Scrape;
use crate::dataplane::Handle;
use crate::turn::Bind;
use crate::turn::stats::Counters;

impl Scrape<'_> {
    pub(super) fn kernel(&self, dataplane: &Handle) -> prometheus::Result<()> {
        self.calls()?;
        self.queues(dataplane)?;
        self.offload(dataplane)
    }

    fn calls(&self) -> prometheus::Result<()> {
        let calls = self.counter(
            "taciturn_udp_calls_total",
            "System calls that received (in) or sent (out) datagrams.",
            &["direction"],
        )?;
        let datagrams = self.counter(
            "taciturn_udp_datagrams_total",
            "Datagrams received (in) and sent (out), joined with others on the way (gro, gso) or not.",
            &["direction", "offload"],
        )?;
        let sum = |count: fn(&Counters) -> u64| self.sum(count);
        // The parts first: workers go on meanwhile, and what is left of a whole must not fall.
        let merged = sum(|w| w.calls.received_merged.total());
        let in_runs = sum(|w| w.calls.sent_in_runs.total());
        let (received, sent) = (
            sum(|w| w.calls.received.total()),
            sum(|w| w.calls.sent.total()),
        );
        for (direction, count) in [
            ("in", sum(|w| w.calls.receive.total())),
            ("out", sum(|w| w.calls.send.total())),
        ] {
            calls.with_label_values(&[direction]).inc_by(count);
        }
        for (direction, offload, count) in [
            ("in", "gro", merged),
            ("in", "none", received.saturating_sub(merged)),
            ("out", "gso", in_runs),
            ("out", "none", sent.saturating_sub(in_runs)),
        ] {
            let labels = [direction, offload];
            datagrams.with_label_values(&labels).inc_by(count);
        }
        Ok(())
    }

    fn queues(&self, dataplane: &Handle) -> prometheus::Result<()> {
        let drops = self.counter(
            "taciturn_receive_queue_drops_total",
            "Datagrams that found the kernel's receive queue full, at a listener's or a relay socket.",
            &["socket", "worker"],
        )?;
        for queue in dataplane.queues() {
            drops
                .with_label_values(&["listener", &queue.worker.to_string()])
                .inc_by(queue.drops);
        }
        for (index, worker) in self.workers.iter().enumerate() {
            drops
                .with_label_values(&["relay", &index.to_string()])
                .inc_by(worker.calls.relay_queue_drops.total());
        }
        let buffer = self.gauge(
            "taciturn_receive_buffer_bytes",
            "The least receive buffer that the kernel granted a listener.",
            &[],
        )?;
        let granted = dataplane.least_receive_buffer().unwrap_or_default();
        let none: [&str; 0] = [];
        buffer
            .with_label_values(&none)
            .set(i64::try_from(granted).unwrap_or(i64::MAX));
        Ok(())
    }

    fn offload(&self, dataplane: &Handle) -> prometheus::Result<()> {
        let offload = self.gauge(
            "taciturn_offload_active",
            "1 where the kernel joins what comes in (gro) or cuts what goes out (gso), else 0.",
            &["offload"],
        )?;
        let given_up = |worker: &Counters| worker.calls.runs_given_up.load(Ordering::Relaxed);
        for (name, active) in [
            ("gro", dataplane.merges()),
            ("gso", self.sum(given_up) == 0),
        ] {
            offload.with_label_values(&[name]).set(active.into());
        }
        let bind = self.gauge(
            "taciturn_relay_bind",
            "How relayed addresses get their sockets (relay.bind): 1 for the mode in force.",
            &["mode"],
        )?;
        let mode = dataplane.rules().bind;
        for (name, this) in [("always", Bind::Always), ("auto", Bind::Auto)] {
            bind.with_label_values(&[name]).set((mode == this).into());
        }
        Ok(())
    }
}
