//! What a probe tells: plain lines for each server, and a table when there were several.

use std::fmt::Write as _;
use std::time::Duration;

use super::link::certificate::Certificate;
use super::link::{Failure, Secured, Stage};
use super::places::Family;
use super::reach::Reached;
use super::relay::{Relayed, Stopped};
use super::url::{self, TurnUrl};
use crate::turn::Transport;

/// How the probe of one server ended, over one address family.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) url: String,
    pub(super) transport: Transport,
    /// None when no address was found.
    pub(super) family: Option<Family>,
    pub(super) verdict: Verdict,
}

#[derive(Debug)]
pub(super) enum Verdict {
    /// Packets were sent between two allocations.
    Relayed(Reached, Relayed),
    /// It answers, but it did not come to that.
    Unrelayed(Reached, Stopped),
    /// It does not answer as it should.
    Unreached(Failure),
}

impl Outcome {
    pub(super) fn new(url: &TurnUrl, family: Option<Family>, verdict: Verdict) -> Self {
        Self {
            url: url.text.clone(),
            transport: url.transport,
            family,
            verdict,
        }
    }

    /// Whether every packet arrived.
    pub(super) const fn is_whole(&self) -> bool {
        match &self.verdict {
            Verdict::Relayed(_, relayed) => relayed.totals.is_whole(),
            Verdict::Unrelayed(..) | Verdict::Unreached(_) => false,
        }
    }

    const fn is_unreached(&self) -> bool {
        matches!(self.verdict, Verdict::Unreached(_))
    }

    fn certificate(&self) -> Option<&Certificate> {
        match &self.verdict {
            Verdict::Relayed(reached, _) | Verdict::Unrelayed(reached, _) => {
                reached.secured.as_ref().map(|secured| &secured.certificate)
            }
            Verdict::Unreached(failure) => failure.certificate.as_ref(),
        }
    }

    /// Such as "TLS over IPv6".
    fn way(&self) -> String {
        let transport = url::name(self.transport);
        match self.family {
            Some(family) => format!("{transport} over {}", family.name()),
            None => transport.to_owned(),
        }
    }
}

/// Everything about one server; `now` is in seconds since 1970.
pub(super) fn one(outcome: &Outcome, now: u64) -> String {
    let mut text = format!("{} ({})", outcome.url, outcome.way());
    // Writing into a string cannot fail.
    let mut line = |name: &str, value: String| _ = write!(text, "\n  {name:<12}{value}");
    if let Verdict::Relayed(reached, _) | Verdict::Unrelayed(reached, _) = &outcome.verdict {
        line(
            "reached",
            format!(
                "{} answers STUN in {}",
                reached.server,
                milliseconds(reached.round_trip)
            ),
        );
        if let Some(connected) = reached.connected {
            line("connected", format!("in {}", milliseconds(connected)));
        }
        if let Some(secured) = &reached.secured {
            line("secured", secured_by(secured));
        }
    }
    if let Some(certificate) = outcome.certificate() {
        line("certificate", certificate.line(now));
        // Elsewhere that is why it failed.
        if let (Some(doubt), false) = (&certificate.doubt, outcome.is_unreached()) {
            line(
                "WARNING",
                format!("the certificate is NOT VERIFIED: {doubt}"),
            );
        }
    }
    match &outcome.verdict {
        Verdict::Unreached(Failure {
            stage: Stage::NotBuiltIn,
            text,
            ..
        }) => line("not built in", text.clone()),
        Verdict::Unreached(failure) => line("failed", failure.text.clone()),
        Verdict::Unrelayed(_, stopped) => line("failed", stopped.text.clone()),
        Verdict::Relayed(_, relayed) => relayed_lines(relayed, line),
    }
    text
}

fn relayed_lines(relayed: &Relayed, mut line: impl FnMut(&str, String)) {
    let Relayed {
        allocated,
        addresses,
        totals,
    } = relayed;
    let [first, second] = allocated.map(milliseconds);
    line("allocated", format!("in {first} and {second}"));
    let [first, second] = addresses;
    line("relayed", format!("{first} and {second}"));
    line("there", arrived(totals.there, totals.sent));
    line("back", arrived(totals.back, totals.there));
    if let Some(trips) = &totals.round_trips {
        let trip = |name, duration| format!("{name} {}", milliseconds(duration));
        let all = [
            trip("min", trips.min),
            trip("avg", trips.average),
            trip("max", trips.max),
            trip("p99", trips.p99),
        ];
        line("round trip", all.join(", "));
    }
}

fn secured_by(secured: &Secured) -> String {
    let alpn = if secured.alpn {
        "protocol stun.turn"
    } else {
        "no protocol agreed on by ALPN"
    };
    format!(
        "{}, {alpn}, in {}",
        secured.protocol,
        milliseconds(secured.took)
    )
}

fn arrived(arrived: usize, sent: usize) -> String {
    let lost = sent.saturating_sub(arrived);
    format!("{arrived} of {sent} arrived, {} lost", percent(lost, sent))
}

/// Rounded up, so that 0 % is none.
fn percent(part: usize, whole: usize) -> String {
    let tenths = (part * 1000).div_ceil(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

const COLUMNS: usize = 9;

/// One row for each server, transport and family.
pub(super) fn table(outcomes: &[Outcome], now: u64) -> String {
    let head = [
        "URL",
        "over",
        "result",
        "allocation",
        "relay",
        "lost",
        "avg",
        "p99",
        "certificate",
    ];
    let rows: Vec<[String; COLUMNS]> = [head.map(str::to_owned)]
        .into_iter()
        .chain(outcomes.iter().map(|outcome| row(outcome, now)))
        .collect();
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Which ways work and which do not, in two lines.
pub(super) fn verdict(outcomes: &[Outcome]) -> String {
    let named = |whole: bool| {
        let mut ways: Vec<String> = Vec::new();
        for outcome in outcomes
            .iter()
            .filter(|outcome| outcome.is_whole() == whole)
        {
            let mut way = outcome.way();
            let doubted = outcome
                .certificate()
                .is_some_and(|seen| seen.doubt.is_some());
            if whole && doubted {
                way.push_str(" (certificate NOT VERIFIED)");
            }
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        ways
    };
    let line = |name: &str, ways: &[String]| match ways {
        [] => String::new(),
        ways => format!("\n{name:<11}{}", ways.join(", ")),
    };
    let (works, fails) = (named(true), named(false));
    let text = line("works", &works) + &line("fails", &fails);
    text.trim_start().to_owned()
}

fn row(outcome: &Outcome, now: u64) -> [String; COLUMNS] {
    let none = || "-".to_owned();
    let result = match &outcome.verdict {
        Verdict::Relayed(..) if outcome.is_whole() => "ok",
        Verdict::Relayed(..) => "loses packets",
        Verdict::Unrelayed(..) => "does not relay",
        Verdict::Unreached(failure) => match failure.stage {
            Stage::NotBuiltIn => "not built in",
            Stage::Reach => "not reached",
            Stage::Speech => "does not answer as it should",
            Stage::Certificate => "bad certificate",
        },
    };
    let (allocation, relay) = match &outcome.verdict {
        Verdict::Relayed(_, relayed) => {
            let relay = match (relayed.totals.there, relayed.totals.back) {
                (0, _) => "none",
                (_, 0) => "one way",
                _ => "both ways",
            };
            (milliseconds(relayed.allocated[0]), relay)
        }
        Verdict::Unrelayed(_, stopped) => match stopped.allocated {
            Some([first, _]) => (milliseconds(first), "none"),
            None => ("none".to_owned(), "-"),
        },
        Verdict::Unreached(_) => (none(), "-"),
    };
    let (mut lost, mut average, mut p99) = (none(), none(), none());
    if let Verdict::Relayed(_, Relayed { totals, .. }) = &outcome.verdict {
        lost = percent(totals.sent.saturating_sub(totals.back), totals.sent);
        if let Some(trips) = &totals.round_trips {
            average = milliseconds(trips.average);
            p99 = milliseconds(trips.p99);
        }
    }
    let certificate = outcome.certificate();
    [
        outcome.url.clone(),
        outcome.way(),
        result.to_owned(),
        allocation,
        relay.to_owned(),
        lost,
        average,
        p99,
        certificate.map_or_else(none, |certificate| certificate.cell(now)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tally::{RoundTrips, Totals};
    use super::*;

    fn relayed(there: usize, back: usize) -> Outcome {
        let reached = Reached {
            server: "192.0.2.1:3478".parse().unwrap(),
            connected: None,
            secured: None,
            round_trip: Duration::from_micros(1500),
        };
        let trip = Duration::from_millis(2);
        let relayed = Relayed {
            allocated: [Duration::from_millis(1); 2],
            addresses: ["192.0.2.1:50000", "192.0.2.1:50001"].map(|a| a.parse().unwrap()),
            totals: Totals {
                sent: 1000,
                there,
                back,
                round_trips: Some(RoundTrips {
                    min: trip,
                    average: trip,
                    p99: trip * 2,
                    max: trip * 3,
                }),
            },
        };
        let url = TurnUrl::parse("turn:a").unwrap();
        Outcome::new(&url, Some(Family::V4), Verdict::Relayed(reached, relayed))
    }

    #[test]
    fn every_packet_must_arrive_both_ways() {
        assert!(relayed(1000, 1000).is_whole());
        assert!(!relayed(1000, 999).is_whole());
        assert!(!relayed(999, 999).is_whole());
    }

    #[test]
    fn each_way_has_its_own_loss() {
        let text = one(&relayed(1000, 999), 0);
        for line in [
            "turn:a (UDP over IPv4)\n",
            "allocated   in 1.00 ms and 1.00 ms",
            "reached     192.0.2.1:3478 answers STUN in 1.50 ms",
            "relayed     192.0.2.1:50000 and 192.0.2.1:50001",
            "there       1000 of 1000 arrived, 0.0 % lost",
            "back        999 of 1000 arrived, 0.1 % lost",
            "round trip  min 2.00 ms, avg 2.00 ms, max 6.00 ms, p99 4.00 ms",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn no_loss_looks_like_none() {
        assert_eq!(percent(0, 100_000), "0.0 %");
        assert_eq!(percent(1, 100_000), "0.1 %");
        assert_eq!(percent(1, 3), "33.4 %");
        assert_eq!(percent(0, 0), "0.0 %");
    }

    fn failed(url: &str, stage: Stage) -> Outcome {
        let verdict = Verdict::Unreached(Failure::new(stage, "why"));
        Outcome::new(&TurnUrl::parse(url).unwrap(), Some(Family::V6), verdict)
    }

    #[test]
    fn the_table_has_a_row_for_each_server() {
        let outcomes = [
            relayed(1000, 1000),
            failed("turn:b.example?transport=tcp", Stage::Reach),
            failed("turns:c", Stage::Certificate),
        ];
        let table = table(&outcomes, 0);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect())
            .collect();
        let rows: Vec<String> = rows
            .iter()
            .map(|cells| {
                cells
                    .iter()
                    .map(|cell| cell.trim())
                    .collect::<Vec<_>>()
                    .join("|")
            })
            .collect();
        assert_eq!(
            rows,
            [
                "URL|over|result|allocation|relay|lost|avg|p99|certificate",
                "turn:a|UDP over IPv4|ok|1.00 ms|both ways|0.0 %|2.00 ms|4.00 ms|-",
                "turn:b.example?transport=tcp|TCP over IPv6|not reached|-|-|-|-|-|-",
                "turns:c|TLS over IPv6|bad certificate|-|-|-|-|-|-",
            ]
        );
    }

    #[test]
    fn what_is_not_built_in_never_works() {
        let outcome = failed("turns:a?transport=udp", Stage::NotBuiltIn);
        assert!(!outcome.is_whole());
        assert!(one(&outcome, 0).contains("not built in"));
        assert_eq!(verdict(&[outcome]), "fails      DTLS over IPv6");
    }

    #[test]
    fn the_verdict_names_what_works_and_what_does_not() {
        let outcomes = [
            relayed(1000, 1000),
            relayed(1000, 1000),
            failed("turns:c", Stage::Speech),
        ];
        assert_eq!(
            verdict(&outcomes),
            "works      UDP over IPv4\nfails      TLS over IPv6"
        );
    }
}
