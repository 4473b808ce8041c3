//! How the daemon fares, in one answer: for `taciturn status`, `top` and `diagnose`, and for a
//! platform that keeps watch. Sums of all workers and a line for each; nobody's address or user.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::dataplane::sys;
use crate::turn::stats::{AuthFailure, Counters, Direction, DropReason, Limit, Path as Way};

/// How a daemon fares. What is counted is counted since it began.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// Whom it is about: this node knows of no other.
    #[schema(example = "node")]
    scope: &'static str,
    version: &'static str,
    /// The optional parts of this build.
    features: Vec<&'static str>,
    /// When it began, in seconds of the Unix epoch.
    began: u64,
    /// For how many seconds it has run.
    uptime: u64,
    /// Whether it takes allocations.
    ready: bool,
    /// How many allocations are live.
    allocations: u64,
    /// How many were ever made.
    allocations_total: u64,
    /// Application data from clients.
    received: Volume,
    /// Application data to clients.
    sent: Volume,
    /// Datagrams dropped, by reason.
    drops: BTreeMap<String, u64>,
    /// What was refused or dropped for a limit, by its name in `[limits]`.
    limited: BTreeMap<String, u64>,
    /// Requests that failed to authenticate, by reason.
    auth_failures: BTreeMap<String, u64>,
    /// Requests answered, by method and response code; 0 is success.
    requests: BTreeMap<String, BTreeMap<String, u64>>,
    /// Each worker.
    workers: Vec<Worker>,
    /// Busy time of the busiest UDP worker over the mean of all in the last minute: 1 is even.
    imbalance: f64,
    ports: Ports,
    reloads: Reloaded,
    /// Those that are served.
    certificates: Vec<Certificate>,
    /// What the kernel granted each UDP and DTLS listener.
    buffers: Vec<Granted>,
    descriptors: Descriptors,
    /// How many credentials, users and calls that were taken back are remembered.
    revocations: usize,
    /// How many users, addresses and networks are banned.
    bans: usize,
}

/// Packets and their bytes, without TURN's framing.
#[derive(Debug, Serialize, ToSchema)]
struct Volume {
    packets: u64,
    bytes: u64,
}

/// A thread that relays.
#[derive(Debug, Serialize, ToSchema)]
struct Worker {
    /// `udp`, or `streams` for TCP, TLS and DTLS.
    of: &'static str,
    allocations: u64,
    /// Application packets that it relayed, counted once each way.
    packets: u64,
    /// Datagrams that it took from its sockets.
    datagrams: u64,
    /// Datagrams that found a receive queue of its listeners full.
    queue_drops: u64,
    /// For how many seconds it was not waiting.
    busy: f64,
}

/// Relay ports by state.
#[derive(Debug, Serialize, ToSchema)]
struct Ports {
    free: u64,
    held: u64,
    resting: u64,
    reserved: u64,
}

/// How often the configuration was read again.
#[derive(Debug, Serialize, ToSchema)]
struct Reloaded {
    /// And is in force.
    applied: u64,
    /// And was bad, and changed nothing.
    refused: u64,
    /// When it was last, in seconds of the Unix epoch.
    last: Option<u64>,
    /// `applied` or `refused`.
    outcome: Option<&'static str>,
}

/// A certificate that is served.
#[derive(Debug, Serialize, ToSchema)]
struct Certificate {
    /// `listen` or `api`.
    by: &'static str,
    names: Vec<String>,
    /// Until when it is valid, in seconds of the Unix epoch.
    until: u64,
}

/// Bytes that a socket may hold.
#[derive(Debug, Serialize, ToSchema)]
struct Granted {
    transport: &'static str,
    receive: usize,
    send: usize,
}

/// Files and sockets of the process; null where the kernel does not say.
#[derive(Debug, Serialize, ToSchema)]
struct Descriptors {
    open: Option<usize>,
    limit: Option<u64>,
}

impl Descriptors {
    fn of_process() -> Self {
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            open: sys::open_descriptors().ok(),
            limit: soft_limit(&limits),
        }
    }
}

/// The soft limit of open files, as `/proc/self/limits` has it.
fn soft_limit(limits: &str) -> Option<u64> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Look at how this node fares
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "show_status",
    tag = "status",
    responses((status = 200, description = "How it fares.", body = Status)),
)]
pub(super) async fn show(State(api): State<Api>) -> Result<Json<Status>, Problem> {
    let of = api.clone();
    api.walks().take(move || status(&of)).await.map(Json)
}

fn status(api: &Api) -> Status {
    let (dataplane, course) = (api.dataplane(), api.course());
    let all = dataplane.counters();
    let sum = |count: &dyn Fn(&Counters) -> u64| all.iter().map(|one| count(one)).sum::<u64>();
    let volume = |direction| Volume {
        packets: sum(&|one| packets(one, direction)),
        bytes: sum(&|one| bytes(one, direction)),
    };
    let now = sys::unix_seconds();
    let ports = dataplane.ports();
    let rules = dataplane.rules();
    Status {
        scope: "node",
        version: env!("CARGO_PKG_VERSION"),
        features: course.features.to_vec(),
        began: course.began,
        uptime: now.saturating_sub(course.began),
        ready: course.readiness.is_ready(),
        allocations: sum(&|one| one.allocations.load(Ordering::Relaxed)),
        allocations_total: sum(&|one| one.allocations_total.total()),
        received: volume(Direction::In),
        sent: volume(Direction::Out),
        drops: named(DropReason::ALL.iter().map(|reason| {
            let count = sum(&|one| one.drops(*reason));
            (reason.label(), count)
        })),
        limited: named(Limit::ALL.iter().map(|limit| {
            let count = sum(&|one| one.limits_reached(*limit));
            (limit.label(), count)
        })),
        auth_failures: named(AuthFailure::ALL.iter().map(|why| {
            let count = sum(&|one| one.auth_failures(*why));
            (why.label(), count)
        })),
        requests: requests(all.iter().flat_map(|one| one.requests())),
        workers: workers(api),
        imbalance: dataplane.imbalance(),
        ports: Ports {
            free: count(ports.free),
            held: count(ports.held),
            resting: count(ports.resting),
            reserved: count(ports.reserved),
        },
        reloads: reloads(api),
        certificates: certificates(api),
        buffers: granted(api),
        descriptors: Descriptors::of_process(),
        revocations: rules.revocations.len(),
        bans: rules.bans.len(),
    }
}

fn packets(one: &Counters, direction: Direction) -> u64 {
    let ways = Way::ALL.iter();
    ways.map(|way| one.traffic(*way, direction).packets.total())
        .sum()
}

fn bytes(one: &Counters, direction: Direction) -> u64 {
    let ways = Way::ALL.iter();
    ways.map(|way| one.traffic(*way, direction).bytes.total())
        .sum()
}

fn count(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

fn named<'l>(counts: impl Iterator<Item = (&'l str, u64)>) -> BTreeMap<String, u64> {
    counts.map(|(name, n)| (name.to_owned(), n)).collect()
}

/// By method and code; of failures only those that came about.
fn requests(
    counts: impl Iterator<Item = (&'static str, u16, u64)>,
) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut all: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (method, code, count) in counts {
        if count > 0 || code == 0 {
            let codes = all.entry(method.to_owned()).or_default();
            *codes.entry(code.to_string()).or_default() += count;
        }
    }
    all
}

fn workers(api: &Api) -> Vec<Worker> {
    let queues = api.dataplane().queues();
    let all = api.dataplane().counters().iter().enumerate();
    all.map(|(index, one)| Worker {
        of: api.dataplane().clients_of(index),
        allocations: one.allocations.load(Ordering::Relaxed),
        packets: packets(one, Direction::In) + packets(one, Direction::Out),
        datagrams: one.datagrams.total(),
        queue_drops: queues.get(index).map_or(0, |queue| queue.drops),
        busy: std::time::Duration::from_nanos(one.busy.total()).as_secs_f64(),
    })
    .collect()
}

fn reloads(api: &Api) -> Reloaded {
    let reloads = &api.course().reloads;
    let [(_, applied), (_, refused)] = reloads.counts();
    let last = reloads.last();
    Reloaded {
        applied,
        refused,
        last: last.map(|(at, _)| at),
        outcome: last.map(|(_, outcome)| outcome),
    }
}

fn certificates(api: &Api) -> Vec<Certificate> {
    let rules = api.rules();
    let all = rules.certificates.iter().flat_map(|(by, keys)| {
        let pairs = keys.current();
        let shown = pairs.iter().map(|pair| Certificate {
            by,
            names: pair.certificate().names.clone(),
            until: pair.certificate().not_after,
        });
        shown.collect::<Vec<_>>()
    });
    all.collect()
}

fn granted(api: &Api) -> Vec<Granted> {
    let all = api.dataplane().buffers().iter();
    all.map(|buffers| Granted {
        transport: buffers.transport.label(),
        receive: buffers.receive,
        send: buffers.send,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read_as_the_kernel_lists_it() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max processes  1  2  processes\nMax open files            1024   4096  files\n";
        assert_eq!(soft_limit(limits), Some(1_024));
        assert_eq!(soft_limit("Max open files   unlimited  unlimited"), None);
        assert_eq!(soft_limit(""), None);
        assert!(Descriptors::of_process().open.unwrap() > 2);
    }

    #[test]
    fn requests_that_never_came_about_are_told_of_success_alone() {
        let counts = [
            ("allocate", 0, 0),
            ("allocate", 401, 2),
            ("allocate", 401, 3),
            ("refresh", 437, 0),
        ];
        let told = requests(counts.into_iter());
        let allocate = &told["allocate"];
        assert_eq!((allocate["0"], allocate["401"], told.len()), (0, 5, 1));
    }
}
