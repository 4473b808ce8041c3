//! The text of `/metrics/allocations`: families of rows, written piece by piece as the scraper takes
//! them, from numbers that were read at once. Which rows there are is decided elsewhere.

use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};

use crate::turn::stats::Direction;

use super::{Count, Values};

/// Bytes of a piece of the text.
pub(super) const PIECE: usize = 64 * 1_024;
/// The labels of the row for all the rest.
const OTHER: &str = r#"allocation="other",call="",tenant="",transport="""#;

/// A row, as it is written in each family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) labels: Arc<str>,
    pub(super) values: Values,
    /// `other` has none.
    pub(super) state: Option<State>,
}

/// What is true of an allocation now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// Seconds since it was made.
    pub(super) age: u64,
    /// Of its media, in each direction.
    pub(super) jitter: [Duration; Direction::ALL.len()],
}

impl Row {
    /// Whether it has series of media. `other` always has, since an increase is seen only where
    /// something was before it.
    pub(super) fn tells_of_media(&self) -> bool {
        self.state.is_none() || self.values.has_media()
    }
}

/// What a family says of a row.
#[derive(Clone, Copy)]
pub(super) enum Says {
    Count(Count),
    /// Of what is counted in nanoseconds.
    Seconds(Count),
    Age,
    Jitter,
}

pub(super) struct Family {
    pub(super) name: &'static str,
    help: &'static str,
    pub(super) says: Says,
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "taciturn_allocation_packets_total",
        help: "Application datagrams of an allocation, from its client (in) and to it (out).",
        says: Says::Count(Count::Packets),
    },
    Family {
        name: "taciturn_allocation_bytes_total",
        help: "Their payload in bytes, without TURN framing.",
        says: Says::Count(Count::Bytes),
    },
    Family {
        name: "taciturn_allocation_drops_total",
        help: "Packets from an allocation's client (in) and for it (out) that were dropped.",
        says: Says::Count(Count::Drops),
    },
    Family {
        name: "taciturn_allocation_age_seconds",
        help: "Seconds since an allocation was made.",
        says: Says::Age,
    },
    Family {
        name: "taciturn_allocation_media_packets_total",
        help: "RTP packets of an allocation's measured streams that came, each once.",
        says: Says::Count(Count::Media),
    },
    Family {
        name: "taciturn_allocation_media_expected_packets_total",
        help: "RTP packets of those streams that there were by their sequence numbers.",
        says: Says::Count(Count::MediaExpected),
    },
    Family {
        name: "taciturn_allocation_media_reordered_packets_total",
        help: "RTP packets of those streams that came after one with a higher sequence number.",
        says: Says::Count(Count::MediaReordered),
    },
    Family {
        name: "taciturn_allocation_media_gaps_total",
        help: "Times at which one of them stood still for 200 ms or more although its sender did not.",
        says: Says::Count(Count::MediaGaps),
    },
    Family {
        name: "taciturn_allocation_media_gap_seconds_total",
        help: "How long those gaps lasted.",
        says: Says::Seconds(Count::MediaGapNanos),
    },
    Family {
        name: "taciturn_allocation_media_jitter_seconds",
        help: "The greatest jitter (RFC 3550) of those streams when it was looked at last.",
        says: Says::Jitter,
    },
];

impl Family {
    fn begin(&self, text: &mut String) {
        let (name, help) = (self.name, self.help);
        let kind = match self.says {
            Says::Count(_) | Says::Seconds(_) => "counter",
            Says::Age | Says::Jitter => "gauge",
        };
        write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
    }

    fn write(&self, row: &Row, text: &mut String) {
        match self.says {
            Says::Count(count) if !count.is_of_media() || row.tells_of_media() => {
                self.write_both(row, text, row.values.get(count));
            }
            Says::Seconds(count) if row.tells_of_media() => {
                let nanos = row.values.get(count);
                self.write_both(row, text, nanos.map(|n| Seconds(Duration::from_nanos(n))));
            }
            Says::Jitter if row.tells_of_media() => {
                if let Some(state) = row.state {
                    self.write_both(row, text, state.jitter.map(Seconds));
                }
            }
            Says::Age => {
                if let Some(state) = row.state {
                    writeln!(text, "{}{{{}}} {}", self.name, row.labels, state.age).ok();
                }
            }
            Says::Count(_) | Says::Seconds(_) | Says::Jitter => {}
        }
    }

    /// A line for each direction.
    fn write_both<V: fmt::Display>(&self, row: &Row, text: &mut String, values: [V; 2]) {
        for (direction, value) in Direction::ALL.iter().zip(values) {
            // Piece by piece: most of what a scrape costs is spent here.
            for piece in [
                self.name,
                "{",
                &row.labels,
                ",direction=\"",
                direction.label(),
            ] {
                text.push_str(piece);
            }
            writeln!(text, "\"}} {value}").ok();
        }
    }
}

/// A time as Prometheus has it, to the last nanosecond.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

/// The text of a scrape, written as it is taken.
#[derive(Debug)]
pub(in crate::admin) struct Page {
    rows: Vec<Row>,
    own: usize,
    other: usize,
    family: usize,
    row: usize,
}

impl Page {
    /// These rows of allocations, and what all the rest came to, of whom so many live.
    pub(super) fn new(mut rows: Vec<Row>, other: usize, rest: Values) -> Self {
        let own = rows.len();
        rows.push(Row {
            labels: OTHER.into(),
            values: rest,
            state: None,
        });
        Self {
            rows,
            own,
            other,
            family: 0,
            row: 0,
        }
    }

    /// How many live allocations have series of their own, and how many have not.
    fn summary(&self) -> String {
        format!(
            "# HELP taciturn_allocation_series Live allocations by whose series tell of them: \
             their own, or other.\n\
             # TYPE taciturn_allocation_series gauge\n\
             taciturn_allocation_series{{series=\"other\"}} {}\n\
             taciturn_allocation_series{{series=\"own\"}} {}\n",
            self.other, self.own
        )
    }
}

impl Iterator for Page {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut text = String::with_capacity(PIECE + 1_024);
        while text.len() < PIECE
            && let Some(family) = FAMILIES.get(self.family)
        {
            if self.row == 0 {
                if self.family == 0 {
                    text.push_str(&self.summary());
                }
                family.begin(&mut text);
            }
            if let Some(row) = self.rows.get(self.row) {
                family.write(row, &mut text);
                self.row += 1;
            }
            if self.row >= self.rows.len() {
                self.family += 1;
                self.row = 0;
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece.into()))))
    }
}
