//! What happened to allocations, on its way from workers to whoever logs it: bounded, and never
//! waited for. A closed allocation is told of only once no worker can still be adding to its
//! totals.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::dataplane::turns::{Moment, Turns};
use crate::turn::credential::{Claims, Subject};
use crate::turn::route::Standing;
use crate::turn::stats::{Direction, Meters, Path};
use crate::turn::{AllocationId, EndReason, Event, FiveTuple, Transport};

/// Records that may wait; more are lost, and counted.
const WAITING: usize = 4_096;

/// What the journal tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An allocation was made.
    Opened {
        /// Its opaque name.
        id: AllocationId,
        /// Its client, and the listener it uses.
        tuple: FiveTuple,
        /// Whose it is.
        subject: Subject,
        /// What its credential says beyond that, if it was sealed.
        claims: Option<Arc<Claims>>,
    },
    /// An allocation followed its client to another 5-tuple.
    Moved {
        /// Its opaque name.
        id: AllocationId,
        /// Its client now, and the listener it uses.
        tuple: FiveTuple,
    },
    /// An allocation is gone, with its final totals.
    Closed {
        /// Its opaque name.
        id: AllocationId,
        /// How its client spoke to the server.
        transport: Transport,
        /// Why.
        reason: EndReason,
        /// How long it lived.
        lived: Duration,
        /// Whose it was.
        subject: Subject,
        /// What its credential said beyond that, if it was sealed.
        claims: Option<Arc<Claims>>,
        /// What went through it.
        totals: Totals,
    },
}

/// What went through an allocation, when nobody adds to it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals([[(u64, u64); Direction::ALL.len()]; Path::ALL.len()]);

impl Totals {
    /// What these meters say.
    #[must_use]
    pub fn of_meters(meters: &Meters) -> Self {
        let mut totals = Self::default();
        for path in Path::ALL {
            for direction in Direction::ALL {
                let traffic = meters.traffic(*path, *direction);
                totals.0[*path as usize][*direction as usize] =
                    (traffic.packets.total(), traffic.bytes.total());
            }
        }
        totals
    }

    /// Packets and bytes on `path` in `direction`.
    #[must_use]
    pub const fn of(&self, path: Path, direction: Direction) -> (u64, u64) {
        self.0[path as usize][direction as usize]
    }

    /// Packets in `direction` over all paths.
    #[must_use]
    pub fn packets(&self, direction: Direction) -> u64 {
        let by_path = Path::ALL.iter().map(|path| self.of(*path, direction).0);
        by_path.sum()
    }
}

/// The writing end; each worker has one.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    sender: mpsc::Sender<Record>,
    lost: Arc<AtomicU64>,
}

impl Journal {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Record>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (
            Self {
                sender,
                lost: Arc::default(),
            },
            receiver,
        )
    }

    fn write(&self, record: Record) {
        if self.sender.try_send(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many records were lost because nobody read them in time.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }
}

/// Closed allocations that another worker may still be adding to.
#[derive(Debug, Default)]
pub(crate) struct Retiring(VecDeque<(Moment, Closed)>);

#[derive(Debug)]
struct Closed {
    id: AllocationId,
    transport: Transport,
    reason: EndReason,
    lived: Duration,
    subject: Subject,
    standing: Arc<Standing>,
}

impl Retiring {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes down what may be told at once and keeps the rest.
    pub(crate) fn take(&mut self, event: Event, turns: &Turns, journal: &Journal) {
        match event {
            Event::Opened {
                id,
                tuple,
                subject,
                claims,
            } => {
                journal.write(Record::Opened {
                    id,
                    tuple,
                    subject,
                    claims,
                });
            }
            Event::Moved { id, tuple } => journal.write(Record::Moved { id, tuple }),
            Event::Closed {
                id,
                transport,
                reason,
                lived,
                subject,
                standing,
            } => {
                self.0.push_back((
                    turns.moment(),
                    Closed {
                        id,
                        transport,
                        reason,
                        lived,
                        subject,
                        standing,
                    },
                ));
            }
        }
    }

    /// Writes down what no worker touches any more.
    pub(crate) fn release(&mut self, turns: &Turns, journal: &Journal) {
        while self
            .0
            .front()
            .is_some_and(|(moment, _)| turns.passed(moment))
        {
            if let Some((_, closed)) = self.0.pop_front() {
                journal.write(closed.record());
            }
        }
    }

    /// Writes down everything, because the worker stops.
    pub(crate) fn release_all(&mut self, journal: &Journal) {
        for (_, closed) in self.0.drain(..) {
            journal.write(closed.record());
        }
    }
}

impl Closed {
    fn record(&self) -> Record {
        Record::Closed {
            id: self.id,
            transport: self.transport,
            reason: self.reason,
            lived: self.lived,
            subject: self.subject,
            claims: self.standing.claims.clone(),
            totals: Totals::of_meters(&self.standing.meters),
        }
    }
}
