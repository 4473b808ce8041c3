//! `/metrics/allocations`: series for each of the busiest allocations, and one more, `other`, for
//! what went through all the rest.
//!
//! An allocation gets series of its own when there is room, by what went through it since the last
//! scrape, and keeps them until it ends. `other` only grows: by what went through an allocation
//! before it had series of its own, and by what went through it between the last scrape and its
//! end. Each packet is so in the increase of exactly one row, and the rates of all rows add up.
//!
//! The text is written piece by piece as the scraper takes it, from numbers that were read at once.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hashbrown::HashMap;
use hyper::body::{Body, Bytes, Frame};

use crate::admin::events;
use crate::dataplane::{Handle, Seen, Totals};
use crate::turn::stats::Direction;
use crate::turn::{AllocationId, Tick, Transport};

/// Bytes of a piece of the text.
const PIECE: usize = 64 * 1_024;
/// For how long an allocation that is no more found waits for its final totals, which come within
/// milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// The labels of the row for all the rest.
const OTHER: &str = r#"allocation="other",call="",tenant="",transport="""#;

/// The numbers of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Values {
    packets: [u64; Direction::ALL.len()],
    bytes: [u64; Direction::ALL.len()],
    drops: [u64; Direction::ALL.len()],
}

impl Values {
    fn of(totals: &Totals) -> Self {
        let both = [Direction::In, Direction::Out];
        Self {
            packets: both.map(|direction| totals.packets(direction)),
            bytes: both.map(|direction| totals.bytes(direction)),
            drops: both.map(|direction| totals.drops(direction)),
        }
    }

    /// What they are more than `earlier`.
    fn since(&self, earlier: &Self) -> Self {
        let less = |now: [u64; 2], then: [u64; 2]| {
            [Direction::In, Direction::Out]
                .map(|d| now[d as usize].saturating_sub(then[d as usize]))
        };
        Self {
            packets: less(self.packets, earlier.packets),
            bytes: less(self.bytes, earlier.bytes),
            drops: less(self.drops, earlier.drops),
        }
    }

    fn add(&mut self, more: &Self) {
        for direction in Direction::ALL.iter().map(|direction| *direction as usize) {
            self.packets[direction] += more.packets[direction];
            self.bytes[direction] += more.bytes[direction];
            self.drops[direction] += more.drops[direction];
        }
    }

    /// What makes one allocation busier than another.
    fn traffic(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

/// A live allocation, as far as its series go.
#[derive(Debug, Clone)]
struct Live {
    id: AllocationId,
    transport: Transport,
    values: Values,
    /// Seconds since it was made.
    age: u64,
    /// What its labels are made of beyond that.
    seen: Option<Seen>,
}

impl Live {
    fn new(seen: Seen, now: Tick) -> Self {
        Self {
            id: seen.standing.id,
            transport: seen.transport,
            values: Values::of(&Totals::of_meters(&seen.standing.meters)),
            age: now.since(seen.standing.opened).as_secs(),
            seen: Some(seen),
        }
    }

    /// Its labels. Neither an id nor a tenant has a character in it that would have to be escaped.
    fn labels(&self) -> Arc<str> {
        let claims = self
            .seen
            .as_ref()
            .and_then(|seen| Some((seen.subject, seen.standing.claims.as_deref()?)));
        let call = claims.and_then(|(subject, claims)| Some(events::told(claims.call?, subject)));
        let tenant = claims.and_then(|(_, claims)| claims.tenant.as_ref());
        format!(
            r#"allocation="{:016x}",call="{}",tenant="{}",transport="{}""#,
            self.id.0,
            call.unwrap_or_default(),
            tenant.map_or("", |tenant| tenant.as_str()),
            self.transport.label(),
        )
        .into()
    }
}

/// What is remembered of an allocation.
#[derive(Debug)]
struct Known {
    /// What the last scrape found.
    last: Values,
    /// When it was found last.
    found: Tick,
    own: Option<Own>,
}

/// An allocation's own series.
#[derive(Debug, Clone)]
struct Own {
    labels: Arc<str>,
    transport: Transport,
}

/// Who has series of its own, and what `other` has come to.
#[derive(Debug, Default)]
struct Book {
    most: usize,
    known: HashMap<AllocationId, Known, foldhash::quality::RandomState>,
    other: Values,
}

impl Book {
    /// Takes note of what lives at `now`; the rows of a scrape.
    fn look(&mut self, mut live: Vec<Live>, now: Tick) -> Vec<Row> {
        let mut rows = Vec::new();
        // How much went through it since the last scrape, and its place in `live`.
        let mut candidates = Vec::new();
        for (place, one) in live.iter().enumerate() {
            let known = self.known.entry(one.id).or_insert_with(|| Known {
                last: Values::default(),
                found: now,
                own: None,
            });
            let more = one.values.since(&known.last);
            (known.last, known.found) = (one.values, now);
            match &mut known.own {
                Some(own) if own.transport == one.transport => rows.push(one.row(&own.labels)),
                Some(own) => {
                    // Its client went elsewhere, and a row with other labels begins.
                    self.other.add(&more);
                    own.transport = one.transport;
                    own.labels = one.labels();
                    rows.push(one.row(&own.labels));
                }
                None => {
                    self.other.add(&more);
                    candidates.push((more.traffic(), place));
                }
            }
        }
        let room = self.most.saturating_sub(rows.len()).min(candidates.len());
        if room > 0 && room < candidates.len() {
            candidates.select_nth_unstable_by(room - 1, |a, b| b.cmp(a));
        }
        candidates.truncate(room);
        for (_, place) in candidates {
            let one = &mut live[place];
            let own = Own {
                labels: one.labels(),
                transport: one.transport,
            };
            rows.push(one.row(&own.labels));
            if let Some(known) = self.known.get_mut(&one.id) {
                known.own = Some(own);
            }
        }
        self.known
            .retain(|_, known| now.since(known.found) < PATIENCE);
        rows
    }

    /// An allocation is gone, with these final totals.
    fn close(&mut self, id: AllocationId, last: &Values) {
        let known = self.known.remove(&id);
        let before = known.map(|known| known.last).unwrap_or_default();
        self.other.add(&last.since(&before));
    }
}

/// Who has series of its own in `/metrics/allocations`; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct AllocationSeries(Arc<Mutex<Book>>);

impl AllocationSeries {
    /// At most so many allocations have.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Book {
            most,
            ..Book::default()
        })))
    }

    /// At most so many have from now on. Who has series keeps them.
    pub(super) fn bound(&self, most: usize) {
        self.lock().most = most;
    }

    /// The allocation called `id` is gone, and nobody adds to its totals any more.
    pub(super) fn closed(&self, id: AllocationId, totals: &Totals) {
        self.lock().close(id, &Values::of(totals));
    }

    /// What a scrape of all that lives at `now` gets, piece by piece.
    pub(super) fn page(&self, dataplane: &Handle, now: Tick) -> Page {
        // Held while the directory is walked: who is found in it cannot have been closed.
        let mut book = self.lock();
        let seen = dataplane.allocations().into_iter();
        let live: Vec<Live> = seen.map(|seen| Live::new(seen, now)).collect();
        let count = live.len();
        let mut rows = book.look(live, now);
        let own = rows.len();
        rows.push(Row {
            labels: OTHER.into(),
            values: book.other,
            age: None,
        });
        Page {
            rows,
            own,
            other: count.saturating_sub(own),
            family: 0,
            row: 0,
        }
    }

    // What it guards is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row, as it is written in each family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    labels: Arc<str>,
    values: Values,
    /// Seconds; `other` has none.
    age: Option<u64>,
}

impl Live {
    fn row(&self, labels: &Arc<str>) -> Row {
        Row {
            labels: Arc::clone(labels),
            values: self.values,
            age: Some(self.age),
        }
    }
}

/// What a family says of a row.
#[derive(Clone, Copy)]
enum Says {
    Count(fn(&Values) -> [u64; Direction::ALL.len()]),
    Age,
}

struct Family {
    name: &'static str,
    help: &'static str,
    says: Says,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "taciturn_allocation_packets_total",
        help: "Application datagrams of an allocation, from its client (in) and to it (out).",
        says: Says::Count(|values| values.packets),
    },
    Family {
        name: "taciturn_allocation_bytes_total",
        help: "Their payload in bytes, without TURN framing.",
        says: Says::Count(|values| values.bytes),
    },
    Family {
        name: "taciturn_allocation_drops_total",
        help: "Packets from an allocation's client (in) and for it (out) that were dropped.",
        says: Says::Count(|values| values.drops),
    },
    Family {
        name: "taciturn_allocation_age_seconds",
        help: "Seconds since an allocation was made.",
        says: Says::Age,
    },
];

impl Family {
    fn begin(&self, text: &mut String) {
        let (name, help) = (self.name, self.help);
        let kind = match self.says {
            Says::Count(_) => "counter",
            Says::Age => "gauge",
        };
        write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
    }

    fn write(&self, row: &Row, text: &mut String) {
        let (name, labels) = (self.name, &row.labels);
        match self.says {
            Says::Count(count) => {
                for (direction, value) in Direction::ALL.iter().zip(count(&row.values)) {
                    let direction = direction.label();
                    writeln!(text, "{name}{{{labels},direction=\"{direction}\"}} {value}").ok();
                }
            }
            Says::Age => {
                if let Some(age) = row.age {
                    writeln!(text, "{name}{{{labels}}} {age}").ok();
                }
            }
        }
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

#[cfg(test)]
mod tests;
