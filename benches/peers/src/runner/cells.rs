//! The work: one cell is one column of the table.

/// What is read from a cell's rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The highest rate with under 0.1 % loss, and the CPU it took.
    Rate,
    /// CPU per packet at a fixed rate.
    Cpu,
    /// One-way latency at a fixed rate.
    Latency,
    /// Allocations, or full sequences, a second.
    Control,
    /// Resident memory per allocation.
    Memory,
}

/// What a server must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Between its own allocations.
    Call,
    /// To plain peers.
    Peer,
    /// As `Call`, by Send and Data indications.
    Indications,
    /// Allocate and delete.
    Allocations,
    /// As `Call`, with clients over TCP.
    Tcp,
    /// As `Call`, with clients over TLS, or those of one side.
    Tls,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    pub(crate) work: Work,
    /// The load: which flows and packets.
    pub(crate) shape: &'static str,
    /// The load: how many of them.
    pub(crate) pace: &'static str,
}

impl Cell {
    /// What the load is told before a measurement, so that the first is not slower than the rest;
    /// nothing where the warming up would be measured.
    pub(crate) fn warm_up(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Rate | Kind::Cpu | Kind::Latency => Some("--rate 20000"),
            Kind::Control => Some("--allocations 200"),
            Kind::Memory => None,
        }
    }

    /// Where the cost of growth is drawn: how many allocations.
    pub(crate) fn growth(&self) -> Option<u32> {
        self.name.strip_prefix("growth-")?.parse().ok()
    }
}

const fn cell(
    name: &'static str,
    title: &'static str,
    (kind, work): (Kind, Work),
    shape: &'static str,
    pace: &'static str,
) -> Cell {
    Cell {
        name,
        title,
        kind,
        work,
        shape,
        pace,
    }
}

const RATE: (Kind, Work) = (Kind::Rate, Work::Call);
const CPU: (Kind, Work) = (Kind::Cpu, Work::Call);
const TCP: (Kind, Work) = (Kind::Rate, Work::Tcp);
const TLS: (Kind, Work) = (Kind::Rate, Work::Tls);

/// All cells, in the order of the table.
#[rustfmt::skip]
pub(crate) const ALL: &[Cell] = &[
    cell("call-1", "call 172 B, 1 pair", RATE, "--mode call --pairs 1", "--search"),
    cell("call-10", "call 172 B, 10 pairs", RATE, "--mode call --pairs 10", "--search"),
    cell("call-100", "call 172 B, 100 pairs", RATE, "--mode call --pairs 100", "--search"),
    cell("call-1000", "call 172 B, 1,000 pairs", RATE, "--mode call --pairs 1000", "--search"),
    cell("call-5000", "call 172 B, 5,000 pairs", RATE, "--mode call --pairs 5000", "--search"),
    cell("peer-10", "peer 172 B, 10 allocations", (Kind::Rate, Work::Peer), "--mode peer --allocations 10", "--search"),
    cell("peer-1000", "peer 172 B, 1,000 allocations", (Kind::Rate, Work::Peer), "--mode peer --allocations 1000", "--search"),
    cell("burst-10", "bursts of 8 × 1,200 B, 10 pairs", RATE, "--mode call --pairs 10 --payload 1200 --burst 8", "--search"),
    cell("send-1000", "indications, 1,000 pairs", (Kind::Rate, Work::Indications), "--mode send --pairs 1000", "--search"),
    cell("mixed-1000", "mixed, 1,000 pairs", (Kind::Rate, Work::Indications), "--mode mixed --pairs 1000", "--search"),
    cell("tcp-100", "call 172 B over TCP, 100 pairs", TCP, "--mode call --pairs 100 --transport tcp", "--search"),
    cell("tcp-1000", "call 172 B over TCP, 1,000 pairs", TCP, "--mode call --pairs 1000 --transport tcp", "--search"),
    cell("tls-100", "call 172 B over TLS, 100 pairs", TLS, "--mode call --pairs 100 --transport tls", "--search"),
    cell("tls-1000", "call 172 B over TLS, 1,000 pairs", TLS, "--mode call --pairs 1000 --transport tls", "--search"),
    cell("udp-tls-100", "call 172 B, UDP to TLS, 100 pairs", TLS, "--mode call --pairs 100 --callee-transport tls", "--search"),
    cell("udp-tls-1000", "call 172 B, UDP to TLS, 1,000 pairs", TLS, "--mode call --pairs 1000 --callee-transport tls", "--search"),
    cell("call-200k", "200,000 packets/s, 1,000 pairs", CPU, "--mode call --pairs 1000", "--rate 200000"),
    cell("growth-2", "2 allocations", CPU, "--mode call --pairs 1", "--rate 100000"),
    cell("growth-10", "10 allocations", CPU, "--mode call --pairs 5", "--rate 100000"),
    cell("growth-100", "100 allocations", CPU, "--mode call --pairs 50", "--rate 100000"),
    cell("growth-1000", "1,000 allocations", CPU, "--mode call --pairs 500", "--rate 100000"),
    cell("growth-10000", "10,000 allocations", CPU, "--mode call --pairs 5000", "--rate 100000"),
    cell("tcp-20k", "20,000 packets/s over TCP, 1,000 pairs", (Kind::Cpu, Work::Tcp), "--mode call --pairs 1000 --transport tcp", "--rate 20000"),
    cell("tls-20k", "20,000 packets/s over TLS, 1,000 pairs", (Kind::Cpu, Work::Tls), "--mode call --pairs 1000 --transport tls", "--rate 20000"),
    cell("latency", "20,000 packets/s, 1,000 pairs", (Kind::Latency, Work::Call), "--mode call --pairs 1000", "--rate 20000"),
    cell("latency-storm", "the same beside 1,000 new allocations/s", (Kind::Latency, Work::Call), "--mode call --pairs 1000", "--rate 20000 --background-allocations 1000"),
    cell("allocate", "401 and Allocate", (Kind::Control, Work::Allocations), "--measure allocate", "--allocations 2000"),
    cell("sequence", "full sequence", (Kind::Control, Work::Allocations), "--measure sequence", "--allocations 2000"),
    cell("memory", "resident memory per allocation, of 10,000", (Kind::Memory, Work::Call), "--mode call --pairs 5000", "--rate 1000"),
];

/// The cells of the short run.
pub(crate) const QUICK: [&str; 8] = [
    "call-10",
    "peer-10",
    "send-1000",
    "tcp-100",
    "tls-100",
    "udp-tls-100",
    "latency",
    "allocate",
];
