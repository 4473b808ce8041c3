//! `/metrics/allocations`: series for each of the busiest allocations, and one more, `other`, for
//! what went through all the rest.
//!
//! An allocation gets series of its own when there is room, by what went through it since the last
//! scrape, and keeps them until it ends. `other` only grows: by what went through an allocation
//! before it had series of its own, and by what went through it between the last scrape and its
//! end. Each packet is so in the increase of exactly one row, and the rates of all rows add up.
//! Series of media begin with the first stream, and what was counted up to then is in `other` too.

mod page;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;

use crate::admin::events;
use crate::dataplane::{Handle, Seen, Totals};
use crate::turn::stats::Direction;
use crate::turn::{AllocationId, Tick, Transport};

pub(in crate::admin) use page::Page;

use page::{Row, State};

/// For how long an allocation that is no more found waits for its final totals, which come within
/// milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a row counts in each direction: what every allocation has, and what those with media have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Packets,
    Bytes,
    Drops,
    Media,
    MediaExpected,
    MediaReordered,
    MediaGaps,
    MediaGapNanos,
}

impl Count {
    /// How many there are.
    const NUMBER: usize = Self::MediaGapNanos as usize + 1;

    const fn is_of_media(self) -> bool {
        self as usize >= Self::Media as usize
    }
}

/// The numbers of one row, each of which only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Values([[u64; Direction::ALL.len()]; Count::NUMBER]);

impl Values {
    fn of(totals: &Totals) -> Self {
        let mut values = Self::default();
        for direction in Direction::ALL {
            let mut set = |count, value| values.set(count, *direction, value);
            set(Count::Packets, totals.packets(*direction));
            set(Count::Bytes, totals.bytes(*direction));
            set(Count::Drops, totals.drops(*direction));
            if let Some(quality) = totals.quality(*direction) {
                let gaps = u64::try_from(quality.gap_time.as_nanos()).unwrap_or(u64::MAX);
                set(Count::Media, quality.packets);
                set(Count::MediaExpected, quality.expected);
                set(Count::MediaReordered, quality.reordered);
                set(Count::MediaGaps, quality.gaps);
                set(Count::MediaGapNanos, gaps);
            }
        }
        values
    }

    const fn set(&mut self, count: Count, direction: Direction, value: u64) {
        self.0[count as usize][direction as usize] = value;
    }

    const fn get(&self, count: Count) -> [u64; Direction::ALL.len()] {
        self.0[count as usize]
    }

    /// What they are more than `earlier`.
    fn since(mut self, earlier: &Self) -> Self {
        let before = earlier.0.iter().flatten();
        for (now, before) in self.0.iter_mut().flatten().zip(before) {
            *now = now.saturating_sub(*before);
        }
        self
    }

    fn add(&mut self, more: &Self) {
        for (sum, more) in self.0.iter_mut().flatten().zip(more.0.iter().flatten()) {
            *sum += more;
        }
    }

    /// What makes one allocation busier than another.
    fn traffic(&self) -> u64 {
        self.get(Count::Bytes).iter().sum()
    }

    /// Whether there were streams, in either direction. By any count of theirs, since a worker may
    /// have been amid them.
    fn has_media(&self) -> bool {
        let of_media = self.0.iter().skip(Count::Media as usize);
        of_media.flatten().any(|count| *count > 0)
    }

    /// What they say of media, and nothing else.
    fn of_media(mut self) -> Self {
        self.0[..Count::Media as usize].fill([0; Direction::ALL.len()]);
        self
    }
}

/// A live allocation, as far as its series go.
#[derive(Debug, Clone)]
struct Live {
    id: AllocationId,
    transport: Transport,
    values: Values,
    state: State,
    /// What its labels are made of beyond that.
    seen: Option<Seen>,
}

impl Live {
    fn new(seen: Seen, now: Tick) -> Self {
        let totals = Totals::of_meters(&seen.standing.meters);
        let jitter = |direction| totals.quality(direction).map(|quality| quality.jitter);
        Self {
            id: seen.standing.id,
            transport: seen.transport,
            values: Values::of(&totals),
            state: State {
                age: now.since(seen.standing.opened).as_secs(),
                jitter: [Direction::In, Direction::Out].map(|d| jitter(d).unwrap_or_default()),
            },
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

    fn row(&self, labels: &Arc<str>) -> Row {
        Row {
            labels: Arc::clone(labels),
            values: self.values,
            state: Some(self.state),
        }
    }
}

/// What is remembered of an allocation.
#[derive(Debug)]
struct Known {
    /// What the last scrape found.
    last: Values,
    /// When it was found last.
    found: Tick,
    /// When a scrape missed it first.
    missed: Option<Tick>,
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
                missed: None,
                own: None,
            });
            let more = one.values.since(&known.last);
            let had_media = known.last.has_media();
            (known.last, known.found) = (one.values, now);
            match &mut known.own {
                Some(own) if own.transport == one.transport => {
                    if !had_media {
                        // Its series of media, if there are any, begin with this scrape.
                        self.other.add(&more.of_media());
                    }
                    rows.push(one.row(&own.labels));
                }
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
        // However long ago it was found: its end may be on its way here for the first scrape that
        // misses it.
        self.known.retain(|_, known| {
            known.found == now || now.since(*known.missed.get_or_insert(now)) < PATIENCE
        });
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
        let rows = book.look(live, now);
        let other = count.saturating_sub(rows.len());
        Page::new(rows, other, book.other)
    }

    // What it guards is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
