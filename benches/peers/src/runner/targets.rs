//! The project's targets as ratios within one run, met or missed.

use super::cells::{ALL, Cell, Kind};
use super::results::{Figure, Results};
use super::servers::Server;

/// What is compared with what.
struct Target {
    cell: &'static str,
    figure: Figure,
    against: Against,
    bound: Bound,
}

enum Against {
    /// The same figure of another server.
    Server(&'static str),
    /// Our own figure in another cell.
    Cell(&'static str),
    /// A number.
    Number(f64),
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Against::{Number, Server as Other};
use Bound::{AtLeast, AtMost};

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    Target { cell: "call-1000", figure: Figure::Rate, against: Other("coturn"), bound: AtLeast(2.5) },
    Target { cell: "call-1000", figure: Figure::Rate, against: Other("hairpin"), bound: AtLeast(0.9) },
    Target { cell: "call-1000", figure: Figure::ServerCpu, against: Other("coturn"), bound: AtMost(0.42) },
    Target { cell: "call-200k", figure: Figure::ServerCpu, against: Other("hairpin"), bound: AtMost(1.1) },
    Target { cell: "call-10", figure: Figure::Rate, against: Other("coturn"), bound: AtLeast(1.8) },
    Target { cell: "call-10", figure: Figure::Rate, against: Other("hairpin"), bound: AtLeast(0.9) },
    Target { cell: "call-5000", figure: Figure::Rate, against: Against::Cell("call-1000"), bound: AtLeast(0.85) },
    Target { cell: "peer-1000", figure: Figure::Rate, against: Other("coturn"), bound: AtLeast(1.3) },
    Target { cell: "peer-1000", figure: Figure::Rate, against: Other("forward"), bound: AtLeast(0.9) },
    Target { cell: "burst-10", figure: Figure::Rate, against: Other("coturn"), bound: AtLeast(6.0) },
    Target { cell: "send-1000", figure: Figure::Rate, against: Other("coturn"), bound: AtLeast(2.0) },
    Target { cell: "mixed-1000", figure: Figure::Rate, against: Against::Cell("send-1000"), bound: AtLeast(1.0) },
    Target { cell: "mixed-1000", figure: Figure::Rate, against: Against::Cell("call-1000"), bound: AtMost(1.0) },
    Target { cell: "tcp-1000", figure: Figure::Rate, against: Other("coturn"), bound: AtLeast(1.0) },
    Target { cell: "tls-1000", figure: Figure::Rate, against: Other("coturn"), bound: AtLeast(1.0) },
    Target { cell: "udp-tls-1000", figure: Figure::Rate, against: Other("coturn"), bound: AtLeast(1.0) },
    Target { cell: "tcp-20k", figure: Figure::ServerCpu, against: Other("coturn"), bound: AtMost(1.0) },
    Target { cell: "tls-20k", figure: Figure::ServerCpu, against: Other("coturn"), bound: AtMost(1.0) },
    Target { cell: "allocate", figure: Figure::Allocations, against: Number(1.0), bound: AtLeast(60_000.0) },
    Target { cell: "allocate", figure: Figure::Allocations, against: Other("coturn"), bound: AtLeast(3.75) },
    Target { cell: "memory", figure: Figure::Memory, against: Number(1.0), bound: AtMost(2048.0) },
];

/// The targets as lines of text, then who is ahead of us where.
pub(crate) fn lines(results: &Results, servers: &[Server]) -> Vec<String> {
    let targets = TARGETS.iter().map(|target| target.line(results));
    let latency = [Figure::P50, Figure::P99].map(|figure| latency(results, servers, figure));
    targets
        .chain(latency)
        .chain(ahead(results, servers))
        .collect()
}

impl Target {
    fn line(&self, results: &Results) -> String {
        let title = title(self.cell);
        let what = match self.figure {
            Figure::Rate => "rate",
            Figure::Allocations => "allocations/s",
            Figure::Memory => "bytes",
            _ => "server CPU per packet",
        };
        let (low, high) = (results.topology == "veth", self.cell == "burst-10");
        let bound = match self.bound {
            // Without segmentation offload nobody has promised more than to be ahead.
            AtLeast(_) if low && high => AtLeast(1.0),
            AtLeast(least) => AtLeast(least),
            AtMost(most) => AtMost(most),
        };
        let ours = results.spread(self.cell, "taciturn", self.figure);
        let (name, theirs) = match self.against {
            Other(server) => {
                let theirs = results.spread(self.cell, server, self.figure);
                (format!("× {server}"), theirs.map(|spread| spread.median))
            }
            Against::Cell(cell) => {
                let theirs = results.spread(cell, "taciturn", self.figure);
                (
                    format!("× its {}", self::title(cell)),
                    theirs.map(|spread| spread.median),
                )
            }
            Number(number) => (String::new(), Some(number)),
        };
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            return format!("not measured: {title}: {what} {name}");
        };
        let ratio = ours.median / theirs;
        let (met, wanted) = match bound {
            AtLeast(least) => (ratio >= least, format!("at least {least}")),
            AtMost(most) => (ratio <= most, format!("at most {most}")),
        };
        let verdict = if met { "met" } else { "MISSED" };
        let ratio = if ratio < 100.0 {
            format!("{ratio:.2}")
        } else {
            format!("{ratio:.0}")
        };
        format!("{verdict}: {title}: {what} {ratio} {name} (target {wanted})").replace("  ", " ")
    }
}

fn title(cell: &str) -> &'static str {
    ALL.iter()
        .find(|known| known.name == cell)
        .map_or("", |known| known.title)
}

/// Beyond the spread: our lower quartile is above a peer's upper one.
fn latency(results: &Results, servers: &[Server], figure: Figure) -> String {
    let name = if figure == Figure::P50 { "p50" } else { "p99" };
    let Some(ours) = results.spread("latency", "taciturn", figure) else {
        return format!("not measured: latency {name}");
    };
    let peers = servers.iter().filter(|server| is_peer(server));
    let better: Vec<String> = peers
        .filter_map(|server| {
            let theirs = results.spread("latency", &server.name, figure)?;
            (ours.low > theirs.high).then(|| format!("{} {:.0}", server.name, theirs.median))
        })
        .collect();
    let floor = results.spread("latency", "forward", figure);
    let floor = floor.map_or_else(String::new, |floor| format!(", floor {:.0}", floor.median));
    if better.is_empty() {
        format!(
            "met: latency {name} {:.0} µs, no peer better beyond the spread{floor}",
            ours.median
        )
    } else {
        format!(
            "MISSED: latency {name} {:.0} µs, better: {}{floor}",
            ours.median,
            better.join(", ")
        )
    }
}

/// Other servers, not our own builds and not floors.
fn is_peer(server: &Server) -> bool {
    !server.is_floor() && server.program != super::servers::Program::Taciturn
}

fn ahead(results: &Results, servers: &[Server]) -> Vec<String> {
    let mut lines = Vec::new();
    for cell in ALL {
        let figure = Figure::of(cell);
        let Some(ours) = results.spread(cell.name, "taciturn", figure) else {
            continue;
        };
        let more_is_better = matches!(cell.kind, Kind::Rate | Kind::Control);
        for server in servers.iter().filter(|server| is_peer(server)) {
            let Some(theirs) = usable(results, cell, &server.name, figure) else {
                continue;
            };
            if (theirs > ours.median) == more_is_better && theirs != ours.median {
                let ratio = theirs / ours.median;
                lines.push(format!(
                    "AHEAD: {}: {} has {ratio:.2} × ours",
                    cell.title, server.name
                ));
            }
        }
    }
    if lines.is_empty() && results.measured("taciturn") {
        lines.push("met: no peer is ahead in any cell measured".to_owned());
    }
    lines
}

/// A server that loses packets spends nothing on them.
fn usable(results: &Results, cell: &Cell, server: &str, figure: Figure) -> Option<f64> {
    let loss = results
        .spread(cell.name, server, Figure::Loss)
        .map_or(0.0, |loss| loss.median);
    let keeps_up = matches!(cell.kind, Kind::Rate | Kind::Control | Kind::Memory) || loss < 0.01;
    let figure = results.spread(cell.name, server, figure)?;
    keeps_up.then_some(figure.median)
}
