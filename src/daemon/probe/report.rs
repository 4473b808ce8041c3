//! What a probe tells: plain lines for each server, and a table when there were several.

use std::fmt::Write as _;
use std::time::Duration;

use super::reach::Reached;
use super::relay::Relayed;

/// How the probe of one server ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) url: String,
    pub(super) verdict: Verdict,
}

#[derive(Debug)]
pub(super) enum Verdict {
    /// Packets were sent between two allocations.
    Relayed(Reached, Relayed),
    /// It answers, but it did not come to that.
    Unrelayed(Reached, String),
    /// It does not answer.
    Unreached(String),
    /// The probe does not speak this transport.
    NotYet(&'static str),
}

impl Outcome {
    /// Whether every packet arrived.
    pub(super) const fn is_whole(&self) -> bool {
        match &self.verdict {
            Verdict::Relayed(_, relayed) => relayed.totals.is_whole(),
            Verdict::Unrelayed(..) | Verdict::Unreached(_) | Verdict::NotYet(_) => false,
        }
    }
}

/// Everything about one server.
pub(super) fn one(outcome: &Outcome) -> String {
    let mut text = outcome.url.clone();
    // Writing into a string cannot fail.
    let mut line = |name: &str, value: String| _ = write!(text, "\n  {name:<12}{value}");
    let reached = |reached: &Reached| {
        format!(
            "{} answers STUN in {}",
            reached.server,
            milliseconds(reached.round_trip)
        )
    };
    match &outcome.verdict {
        Verdict::NotYet(transport) => {
            line("not probed", format!("{transport} is not supported yet"));
        }
        Verdict::Unreached(failure) => line("failed", failure.clone()),
        Verdict::Unrelayed(server, failure) => {
            line("reached", reached(server));
            line("failed", failure.clone());
        }
        Verdict::Relayed(server, Relayed { addresses, totals }) => {
            let [first, second] = addresses;
            line("reached", reached(server));
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
    }
    text
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

/// One row for each server.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let head = ["URL", "result", "lost", "avg", "p99"].map(str::to_owned);
    let rows: Vec<[String; 5]> = [head].into_iter().chain(outcomes.iter().map(row)).collect();
    let mut widths = [0; 5];
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

fn row(outcome: &Outcome) -> [String; 5] {
    let result = match &outcome.verdict {
        Verdict::Relayed(..) if outcome.is_whole() => "ok".to_owned(),
        Verdict::Relayed(..) => "loses packets".to_owned(),
        Verdict::Unrelayed(..) => "does not relay".to_owned(),
        Verdict::Unreached(_) => "not reached".to_owned(),
        Verdict::NotYet(transport) => format!("{transport} is not supported yet"),
    };
    let (mut lost, mut average, mut p99) = ("-".to_owned(), "-".to_owned(), "-".to_owned());
    if let Verdict::Relayed(_, Relayed { totals, .. }) = &outcome.verdict {
        lost = percent(totals.sent.saturating_sub(totals.back), totals.sent);
        if let Some(trips) = &totals.round_trips {
            average = milliseconds(trips.average);
            p99 = milliseconds(trips.p99);
        }
    }
    [outcome.url.clone(), result, lost, average, p99]
}

#[cfg(test)]
mod tests {
    use super::super::tally::{RoundTrips, Totals};
    use super::*;

    fn relayed(there: usize, back: usize) -> Outcome {
        let reached = Reached {
            server: "192.0.2.1:3478".parse().unwrap(),
            round_trip: Duration::from_micros(1500),
        };
        let trip = Duration::from_millis(2);
        let relayed = Relayed {
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
        Outcome {
            url: "turn:a".to_owned(),
            verdict: Verdict::Relayed(reached, relayed),
        }
    }

    #[test]
    fn every_packet_must_arrive_both_ways() {
        assert!(relayed(1000, 1000).is_whole());
        assert!(!relayed(1000, 999).is_whole());
        assert!(!relayed(999, 999).is_whole());
    }

    #[test]
    fn each_way_has_its_own_loss() {
        let text = one(&relayed(1000, 999));
        for line in [
            "turn:a\n",
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

    #[test]
    fn the_table_has_a_row_for_each_server() {
        let failed = |url: &str, verdict| Outcome {
            url: url.to_owned(),
            verdict,
        };
        let outcomes = [
            relayed(1000, 1000),
            failed("turn:b.example", Verdict::Unreached("silence".to_owned())),
            failed("turns:c", Verdict::NotYet("TLS")),
        ];
        assert_eq!(
            table(&outcomes),
            "URL             result                    lost   avg      p99\n\
             turn:a          ok                        0.0 %  2.00 ms  4.00 ms\n\
             turn:b.example  not reached               -      -        -\n\
             turns:c         TLS is not supported yet  -      -        -"
        );
    }
}
