//! Raw rounds, as they are kept, and what is read from them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cells::{Cell, Kind};

/// The share of time that the hypervisor may take from a round, in percent.
pub(crate) const STEAL_MAX: f64 = 2.0;

/// One file of results: one topology.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) topology: String,
    pub(crate) command: String,
    pub(crate) date: String,
    pub(crate) machine: String,
    /// What was measured, by name of the server.
    pub(crate) versions: BTreeMap<String, String>,
    /// Servers that are not in the table, and why.
    pub(crate) missing: BTreeMap<String, String>,
    pub(crate) rounds: Vec<Round>,
}

/// One measurement of one server in one cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) cell: String,
    pub(crate) server: String,
    pub(crate) round: usize,
    /// Percent of the machine's time that the hypervisor took.
    pub(crate) steal: f64,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) failed: Option<String>,
    /// What the load printed.
    #[serde(skip_serializing_if = "Value::is_null", default)]
    pub(crate) load: Value,
}

/// The figures of several rounds: their median, and the quartiles as spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let last = figures.len().checked_sub(1)?;
        let at = |share: f64| {
            #[expect(clippy::cast_precision_loss, reason = "rounds are few")]
            let place = share * last as f64;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "rounds are few"
            )]
            let below = place as usize;
            let above = (below + 1).min(last);
            figures[below] + (figures[above] - figures[below]) * place.fract()
        };
        Some(Self {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        })
    }
}

/// What a cell says of a server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    /// Not measured.
    Empty,
    /// It cannot do this work.
    Cannot(String),
    /// It failed in every round.
    Failed(String),
    Figure(Spread),
}

impl Entry {
    pub(crate) const fn spread(&self) -> Option<Spread> {
        match self {
            Self::Figure(spread) => Some(*spread),
            _ => None,
        }
    }
}

/// A figure of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Rate,
    ServerCpu,
    MachineCpu,
    P50,
    P99,
    P999,
    Loss,
    Allocations,
    Sequences,
    Memory,
}

impl Figure {
    /// The figure that a cell is for.
    pub(crate) fn of(cell: &Cell) -> Self {
        match (cell.kind, cell.name) {
            (Kind::Rate, _) => Self::Rate,
            (Kind::Cpu, _) => Self::ServerCpu,
            (Kind::Latency, _) => Self::P50,
            (Kind::Control, "sequence") => Self::Sequences,
            (Kind::Control, _) => Self::Allocations,
            (Kind::Memory, _) => Self::Memory,
        }
    }

    fn read(self, load: &Value) -> Option<f64> {
        let pointer = match self {
            Self::Rate => "/delivered_pps",
            Self::ServerCpu => "/cpu_us_per_packet/server",
            Self::MachineCpu => "/cpu_us_per_packet/machine",
            Self::P50 => "/latency_us/p50",
            Self::P99 => "/latency_us/p99",
            Self::P999 => "/latency_us/p999",
            Self::Loss => "/loss",
            Self::Allocations => "/allocate_per_s",
            Self::Sequences => "/sequence_per_s",
            Self::Memory => "/rss_bytes_per_allocation",
        };
        load.pointer(pointer)?.as_f64()
    }
}

impl Results {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("no {}", file.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// One round a line, so that a change shows as one.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let mut value = serde_json::to_value(self)?;
        let rounds: Result<Vec<String>, _> =
            self.rounds.iter().map(serde_json::to_string).collect();
        value["rounds"] = Value::Null;
        let text = serde_json::to_string_pretty(&value)?;
        let rounds = format!("\"rounds\": [\n{}\n]", rounds?.join(",\n"));
        fs::write(file, text.replacen("\"rounds\": null", &rounds, 1) + "\n")?;
        Ok(())
    }

    /// Servers that have rounds.
    pub(crate) fn measured(&self, server: &str) -> bool {
        self.rounds.iter().any(|round| round.server == server)
    }

    pub(crate) fn entry(&self, cell: &str, server: &str, figure: Figure) -> Entry {
        let all: Vec<&Round> = self.of(cell, server).collect();
        let kept: Vec<&&Round> = all
            .iter()
            .filter(|round| round.steal <= STEAL_MAX)
            .collect();
        let figures: Vec<f64> = kept
            .iter()
            .filter_map(|round| figure.read(&round.load))
            .collect();
        if let Some(spread) = Spread::of(figures) {
            return Entry::Figure(spread);
        }
        match all.iter().find_map(|round| round.failed.as_ref()) {
            Some(why) if why.starts_with("cannot") => Entry::Cannot(why.clone()),
            Some(why) => Entry::Failed(why.clone()),
            None => Entry::Empty,
        }
    }

    pub(crate) fn spread(&self, cell: &str, server: &str, figure: Figure) -> Option<Spread> {
        self.entry(cell, server, figure).spread()
    }

    pub(crate) fn of(&self, cell: &str, server: &str) -> impl Iterator<Item = &Round> {
        self.rounds
            .iter()
            .filter(move |round| round.cell == cell && round.server == server)
    }

    /// Whether the load says that it, not the server, was the limit.
    pub(crate) fn limited_by_load(&self, cell: &str, server: &str) -> bool {
        self.of(cell, server)
            .any(|round| round.load["limited_by_load"] == true)
    }
}

/// What the load printed, without what is not read and to six digits: thousands of rounds are kept.
pub(crate) fn shortened(load: Value) -> Value {
    const DIGITS: i32 = 6;
    match load {
        Value::Object(mut fields) => {
            for name in ["search", "server_pids", "sent", "received"] {
                fields.remove(name);
            }
            fields.retain(|_, value| !value.is_null());
            Value::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (name, shortened(value)))
                    .collect(),
            )
        }
        Value::Number(number) if number.is_f64() => {
            let figure = number.as_f64().unwrap_or_default();
            if figure == 0.0 {
                return Value::from(0);
            }
            #[expect(clippy::cast_possible_truncation, reason = "a logarithm is small")]
            let scale = 10_f64.powi(DIGITS - 1 - figure.abs().log10().floor() as i32);
            Value::from((figure * scale).round() / scale)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_median_and_quartiles() {
        let spread = Spread::of(vec![5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                low: 2.0,
                median: 3.0,
                high: 4.0
            }
        );
        assert_eq!(Spread::of(vec![1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn figures_are_kept_to_six_digits() {
        let load =
            serde_json::json!({ "a": 123_456_789.123, "b": { "c": 0.001_234_567_8 }, "d": null });
        let kept = serde_json::json!({ "a": 123_457_000.0, "b": { "c": 0.001_234_57 } });
        assert_eq!(shortened(load), kept);
    }

    #[test]
    fn a_round_in_which_the_machine_was_not_ours_does_not_count() {
        let round = |steal, rate: f64| Round {
            cell: "c".to_owned(),
            server: "s".to_owned(),
            round: 0,
            steal,
            failed: None,
            load: serde_json::json!({ "delivered_pps": rate }),
        };
        let results = Results {
            rounds: vec![round(0.0, 7.0), round(2.1, 1.0)],
            ..Results::default()
        };
        assert_eq!(results.spread("c", "s", Figure::Rate).unwrap().low, 7.0);
        assert_eq!(results.entry("c", "other", Figure::Rate), Entry::Empty);
    }
}
