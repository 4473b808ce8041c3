//! Counters of all workers as Prometheus text. Summed anew for each scrape, so that a worker
//! never touches a shared metric; no label's values grow with users. What docs/observability.md
//! lists is what is here, which a test holds.
//!
//! `allocations` is the one page whose rows are allocations: bounded, and written by itself.

mod allocations;
mod coturn;
mod distributions;
mod kernel;
mod process;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{CounterVec, Gauge, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::admin::events::{Events, Outlet};
use crate::admin::{House, Reloads, media};
use crate::dataplane::tls::TlsKeys;
use crate::dataplane::{Handle, Totals};
use crate::proto::AddressFamily;
use crate::turn::stats::{AuthFailure, Counters, Direction, DropReason, Limit, Path};
use crate::turn::{AllocationId, EndReason, Tick, Transport};

use allocations::{AllocationSeries, Page};

/// The certificates of a kind of listener.
#[derive(Debug, Clone)]
pub struct Served {
    /// The kind, as metrics call it.
    pub listener: &'static str,
    /// Its certificates.
    pub keys: Arc<TlsKeys>,
}

/// What is told, and under which names.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The realm of this server.
    pub realm: String,
    /// How many allocations have series of their own.
    pub allocations: usize,
    /// Whether metrics stand under coturn's names too.
    pub coturn_names: bool,
    /// Of whose certificates the expiry is told.
    pub certificates: Vec<Served>,
}

/// What metrics remember between scrapes; clones are the same one.
#[derive(Debug, Clone)]
pub struct Numbers {
    shown: Arc<ArcSwap<Shown>>,
    series: AllocationSeries,
}

impl Numbers {
    /// Nothing yet.
    #[must_use]
    pub fn new(shown: Shown) -> Self {
        Self {
            series: AllocationSeries::new(shown.allocations),
            shown: Arc::new(ArcSwap::from_pointee(shown)),
        }
    }

    /// Tells this from now on. With less room than before, allocations that have series keep them.
    pub fn take_up(&self, shown: Shown) {
        self.series.bound(shown.allocations);
        self.shown.store(Arc::new(shown));
    }

    /// The allocation called `id` is gone, and nobody adds to its totals any more.
    pub fn closed(&self, id: AllocationId, totals: &Totals) {
        self.series.closed(id, totals);
    }

    /// What a scrape of all that lives at `now` gets, piece by piece.
    pub(super) fn page(&self, dataplane: &Handle, now: Tick) -> Page {
        self.series.page(dataplane, now)
    }
}

/// What a scrape reads.
pub(super) fn text(house: &House) -> prometheus::Result<String> {
    let (dataplane, shown) = (&house.dataplane, house.numbers.shown.load());
    let scrape = Scrape {
        registry: Registry::new(),
        workers: dataplane.counters(),
    };
    scrape.allocations()?;
    scrape.connections()?;
    scrape.traffic()?;
    scrape.refusals()?;
    scrape.requests()?;
    scrape.ports(dataplane)?;
    scrape.workers(dataplane)?;
    scrape.imbalance(dataplane)?;
    scrape.kernel(dataplane)?;
    scrape.certificates(&shown.certificates)?;
    scrape.refused_and_reloaded(dataplane, &house.reloads)?;
    scrape.events(&house.events)?;
    scrape.process(house.began)?;
    let build = scrape.gauge("taciturn_build_info", "This build; always 1.", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let none: [&str; 0] = [];
    scrape
        .gauge(
            "taciturn_addresses_shown",
            "1 where the log shows clients' addresses (log.show_addresses), else 0.",
            &none,
        )?
        .with_label_values(&none)
        .set(house.addresses_shown.into());
    let mut families = scrape.registry.gather();
    families.extend(scrape.distributions());
    families.extend(media::families(scrape.workers));
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut text = TextEncoder::new().encode_to_string(&families)?;
    if shown.coturn_names {
        text.push_str(&scrape.coturn(dataplane, &shown.realm));
    }
    Ok(text)
}

struct Scrape<'c> {
    registry: Registry,
    workers: &'c [Arc<Counters>],
}

impl Scrape<'_> {
    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn sum(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.workers.iter().map(|worker| count(worker)).sum()
    }

    fn allocations(&self) -> prometheus::Result<()> {
        let live = self.gauge(
            "taciturn_allocations",
            "Allocations that are live.",
            &["transport"],
        )?;
        let total = self.counter(
            "taciturn_allocations_total",
            "Allocations ever made.",
            &["transport"],
        )?;
        for transport in Transport::ALL {
            let label = [transport.label()];
            let count = self.sum(|w| w.over(transport).allocations.load(Ordering::Relaxed));
            live.with_label_values(&label).set(gauge(count));
            let count = self.sum(|w| w.over(transport).allocations_total.total());
            total.with_label_values(&label).inc_by(count);
        }
        let ended = self.counter(
            "taciturn_allocations_ended_total",
            "Allocations that have ended, by reason.",
            &["reason"],
        )?;
        for reason in EndReason::ALL {
            ended
                .with_label_values(&[reason.label()])
                .inc_by(self.sum(|w| w.ends(*reason)));
        }
        let moved = self.counter(
            "taciturn_allocations_moved_total",
            "How often an allocation followed its client to another 5-tuple (RFC 8016).",
            &[],
        )?;
        let misdirected = self.counter(
            "taciturn_misdirected_total",
            "Datagrams handed to the worker that owns their 5-tuple.",
            &[],
        )?;
        let none: [&str; 0] = [];
        moved
            .with_label_values(&none)
            .inc_by(self.sum(|w| w.moved.total()));
        misdirected
            .with_label_values(&none)
            .inc_by(self.sum(|w| w.misdirected.total()));
        Ok(())
    }

    fn connections(&self) -> prometheus::Result<()> {
        let label = ["transport"];
        let open = self.gauge(
            "taciturn_connections",
            "Connections of clients that are open.",
            &label,
        )?;
        let total = self.counter(
            "taciturn_connections_total",
            "Connections of clients ever taken up, once their transport was known.",
            &label,
        )?;
        let refused = self.counter(
            "taciturn_connections_refused_total",
            "Connections closed before an allocation was made, on a deadline or for want of room.",
            &label,
        )?;
        let connected = Transport::ALL.into_iter().filter(|t| *t != Transport::Udp);
        for transport in connected {
            let label = [transport.label()];
            let count = self.sum(|w| w.over(transport).connections.load(Ordering::Relaxed));
            open.with_label_values(&label).set(gauge(count));
            let count = self.sum(|w| w.over(transport).connections_total.total());
            total.with_label_values(&label).inc_by(count);
            let count = self.sum(|w| w.over(transport).connections_refused.total());
            refused.with_label_values(&label).inc_by(count);
        }
        Ok(())
    }

    fn traffic(&self) -> prometheus::Result<()> {
        let labels = ["path", "direction"];
        let packets = self.counter(
            "taciturn_packets_total",
            "Application datagrams relayed, from clients (in) and to clients (out).",
            &labels,
        )?;
        let bytes = self.counter(
            "taciturn_bytes_total",
            "Their payload in bytes, without TURN framing.",
            &labels,
        )?;
        for path in Path::ALL {
            for direction in Direction::ALL {
                let values = [path.label(), direction.label()];
                let traffic = |w: &Counters| w.traffic(*path, *direction).packets.total();
                packets.with_label_values(&values).inc_by(self.sum(traffic));
                let traffic = |w: &Counters| w.traffic(*path, *direction).bytes.total();
                bytes.with_label_values(&values).inc_by(self.sum(traffic));
            }
        }
        Ok(())
    }

    fn refusals(&self) -> prometheus::Result<()> {
        let drops = self.counter(
            "taciturn_drops_total",
            "Datagrams dropped without an answer, by reason.",
            &["reason"],
        )?;
        for reason in DropReason::ALL {
            drops
                .with_label_values(&[reason.label()])
                .inc_by(self.sum(|w| w.drops(*reason)));
        }
        let limited = self.counter(
            "taciturn_limited_total",
            "Requests refused and packets dropped for a limit, by its name in [limits], or for a full journal.",
            &["limit"],
        )?;
        for limit in Limit::ALL {
            limited
                .with_label_values(&[limit.label()])
                .inc_by(self.sum(|w| w.limits_reached(*limit)));
        }
        let failures = self.counter(
            "taciturn_auth_failures_total",
            "Requests that failed to authenticate, by reason.",
            &["reason"],
        )?;
        for why in AuthFailure::ALL {
            failures
                .with_label_values(&[why.label()])
                .inc_by(self.sum(|w| w.auth_failures(*why)));
        }
        Ok(())
    }

    fn requests(&self) -> prometheus::Result<()> {
        let requests = self.counter(
            "taciturn_requests_total",
            "Requests answered, by method and response code (0 is success).",
            &["method", "code"],
        )?;
        for (method, code, count) in self.workers.iter().flat_map(|worker| worker.requests()) {
            // Success is there from the start, so that a rate has something to begin with.
            if count > 0 || code == 0 {
                requests
                    .with_label_values(&[method, &code.to_string()])
                    .inc_by(count);
            }
        }
        Ok(())
    }

    fn refused_and_reloaded(
        &self,
        dataplane: &Handle,
        reloads: &Reloads,
    ) -> prometheus::Result<()> {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let none: [&str; 0] = [];
        let rules = dataplane.rules();
        let revocations = self.gauge(
            "taciturn_revocations",
            "Credentials, users and calls that were taken back and are remembered.",
            &[],
        )?;
        revocations
            .with_label_values(&none)
            .set(count(rules.revocations.len()));
        let bans = self.gauge(
            "taciturn_bans",
            "Users, addresses and networks that are banned.",
            &[],
        )?;
        bans.with_label_values(&none).set(count(rules.bans.len()));
        let total = self.counter(
            "taciturn_reloads_total",
            "How often the configuration was read again, by what came of it.",
            &["outcome"],
        )?;
        for (outcome, count) in reloads.counts() {
            total.with_label_values(&[outcome]).inc_by(count);
        }
        Ok(())
    }

    fn events(&self, events: &Events) -> prometheus::Result<()> {
        let total = self.counter(
            "taciturn_events_total",
            "Events by outlet, delivered, or dropped because the outlet was too slow or away.",
            &["outlet", "outcome"],
        )?;
        let retries = self.counter(
            "taciturn_event_retries_total",
            "Attempts to deliver events that failed and were made again.",
            &["outlet"],
        )?;
        for outlet in Outlet::ALL {
            let (label, counts) = (outlet.label(), events.counts(*outlet));
            for (outcome, count) in [
                ("delivered", &counts.delivered),
                ("dropped", &counts.dropped),
            ] {
                total
                    .with_label_values(&[label, outcome])
                    .inc_by(count.load(Ordering::Relaxed));
            }
            retries
                .with_label_values(&[label])
                .inc_by(counts.retries.load(Ordering::Relaxed));
        }
        Ok(())
    }

    fn workers(&self, dataplane: &Handle) -> prometheus::Result<()> {
        let label = ["worker"];
        let busy = CounterVec::new(
            Opts::new(
                "taciturn_worker_busy_seconds_total",
                "Time for which a worker was not waiting for packets.",
            ),
            &["worker", "of"],
        )?;
        self.registry.register(Box::new(busy.clone()))?;
        let turns = self.counter(
            "taciturn_worker_turns_total",
            "Turns of a worker's loop.",
            &label,
        )?;
        let datagrams = self.counter(
            "taciturn_worker_datagrams_total",
            "Datagrams that a worker took from its sockets.",
            &label,
        )?;
        let allocations = self.gauge(
            "taciturn_worker_allocations",
            "Live allocations that a worker owns.",
            &label,
        )?;
        for (place, worker) in self.workers.iter().enumerate() {
            let index = place.to_string();
            let seconds = Duration::from_nanos(worker.busy.total()).as_secs_f64();
            busy.with_label_values(&[index.as_str(), dataplane.clients_of(place)])
                .inc_by(seconds);
            turns
                .with_label_values(&[&index])
                .inc_by(worker.turns.total());
            datagrams
                .with_label_values(&[&index])
                .inc_by(worker.datagrams.total());
            let live = worker.allocations.load(Ordering::Relaxed);
            allocations.with_label_values(&[&index]).set(gauge(live));
        }
        Ok(())
    }

    fn certificates(&self, all: &[Served]) -> prometheus::Result<()> {
        let expiry = self.gauge(
            "taciturn_certificate_expiry_timestamp_seconds",
            "When the first certificate of a kind of listener expires, in seconds of the Unix epoch.",
            &["listener"],
        )?;
        for Served { listener, keys } in all {
            let pairs = keys.current();
            let first = pairs.iter().map(|pair| pair.certificate().not_after).min();
            if let Some(first) = first {
                expiry.with_label_values(&[*listener]).set(gauge(first));
            }
        }
        Ok(())
    }

    fn imbalance(&self, dataplane: &Handle) -> prometheus::Result<()> {
        let ratio = Gauge::new(
            "taciturn_worker_imbalance_ratio",
            "Busy time of the busiest UDP worker over the mean of all in the last minute; 1 if idle.",
        )?;
        self.registry.register(Box::new(ratio.clone()))?;
        ratio.set(dataplane.imbalance());
        Ok(())
    }

    fn ports(&self, dataplane: &Handle) -> prometheus::Result<()> {
        let ports = self.gauge(
            "taciturn_ports",
            "Relay ports by relay address, which its place in relay.addresses stands for, and state.",
            &["relay", "family", "state"],
        )?;
        for (index, (family, counts)) in dataplane.ports_by_relay().into_iter().enumerate() {
            let (index, family) = (index.to_string(), family_label(family));
            for (state, count) in [
                ("free", counts.free),
                ("held", counts.held),
                ("resting", counts.resting),
                ("reserved", counts.reserved),
            ] {
                ports
                    .with_label_values(&[&index, family, state])
                    .set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        let none: [&str; 0] = [];
        let early = self.counter(
            "taciturn_ports_taken_early_total",
            "Relay ports used again before their rest was over.",
            &[],
        )?;
        early
            .with_label_values(&none)
            .inc_by(dataplane.ports().taken_early);
        let lost = self.counter(
            "taciturn_journal_lost_total",
            "Moves of allocations not told of because the log was too slow; openings and ends are.",
            &[],
        )?;
        lost.with_label_values(&none)
            .inc_by(dataplane.lost_records());
        Ok(())
    }
}

const fn family_label(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::V4 => "ipv4",
        AddressFamily::V6 => "ipv6",
    }
}

/// A count as a gauge takes it.
fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
