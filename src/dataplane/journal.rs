//! What happened to allocations, on its way from workers to whoever logs it and bills from it:
//! never waited for, and what opened and closed never lost. It is bounded by what workers do then:
//! while very much waits to be read nobody allocates, so that no more is to come than the end of
//! what lives. A closed allocation is told of only once no worker can still be adding to its totals.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::dataplane::turns::{Moment, Turns};
use crate::turn::credential::{Claims, Subject};
use crate::turn::media::Quality;
use crate::turn::route::Standing;
use crate::turn::stats::{Direction, Meters, Path};
use crate::turn::{AllocationId, EndReason, Event, FiveTuple, Transport};

/// Records that may wait before moves are lost, and counted: a client may move as often as it likes,
/// and nothing is billed by it.
const MOVES: usize = 4_096;
/// Records that may wait before no more allocations are made: 12 MB, and 13 MB more if each is of
/// an allocation that had media.
const ENOUGH: usize = 65_536;

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    traffic: [[(u64, u64); Direction::ALL.len()]; Path::ALL.len()],
    drops: [u64; Direction::ALL.len()],
    /// Apart, so that an allocation without media takes no more room for it than a pointer.
    media: Option<Box<[Quality; Direction::ALL.len()]>>,
}

impl Totals {
    /// What these meters say.
    #[must_use]
    pub fn of_meters(meters: &Meters) -> Self {
        let both = [Direction::In, Direction::Out];
        let [of_in, of_out] = both.map(|direction| meters.quality(direction));
        let mut totals = Self {
            drops: both.map(|direction| meters.dropped(direction)),
            media: of_in
                .zip(of_out)
                .map(|(of_in, of_out)| Box::new([of_in, of_out])),
            ..Self::default()
        };
        for path in Path::ALL {
            for direction in Direction::ALL {
                let traffic = meters.traffic(*path, *direction);
                totals.traffic[*path as usize][*direction as usize] =
                    (traffic.packets.total(), traffic.bytes.total());
            }
        }
        totals
    }

    /// Packets and bytes on `path` in `direction`.
    #[must_use]
    pub const fn of(&self, path: Path, direction: Direction) -> (u64, u64) {
        self.traffic[path as usize][direction as usize]
    }

    /// Packets in `direction` over all paths.
    #[must_use]
    pub fn packets(&self, direction: Direction) -> u64 {
        let by_path = Path::ALL.iter().map(|path| self.of(*path, direction).0);
        by_path.sum()
    }

    /// Bytes of payload in `direction` over all paths.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        let by_path = Path::ALL.iter().map(|path| self.of(*path, direction).1);
        by_path.sum()
    }

    /// The quality of its media in `direction`, if streams were seen there.
    #[must_use]
    pub fn quality(&self, direction: Direction) -> Option<&Quality> {
        let quality = &self.media.as_deref()?[direction as usize];
        (quality.streams > 0).then_some(quality)
    }

    /// Packets in `direction` that were dropped.
    #[must_use]
    pub const fn drops(&self, direction: Direction) -> u64 {
        self.drops[direction as usize]
    }
}

/// How much waits to be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    /// Whether so much waits that no allocation may be made.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= ENOUGH
    }

    fn len(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The writing end; each worker has one.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    sender: mpsc::UnboundedSender<Record>,
    backlog: Backlog,
    lost: Arc<AtomicU64>,
}

/// The reading end.
#[derive(Debug)]
pub struct Records {
    receiver: mpsc::UnboundedReceiver<Record>,
    backlog: Backlog,
}

impl Journal {
    pub(crate) fn new() -> (Self, Records) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let backlog = Backlog::default();
        let journal = Self {
            sender,
            backlog: backlog.clone(),
            lost: Arc::default(),
        };
        (journal, Records { receiver, backlog })
    }

    fn write(&self, record: Record) {
        let may_go = matches!(record, Record::Moved { .. }) && self.backlog.len() >= MOVES;
        self.backlog.0.fetch_add(1, Ordering::Relaxed);
        if may_go || self.sender.send(record).is_err() {
            self.backlog.0.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How much waits.
    pub(crate) fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// How many records were lost because nobody read them in time.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }
}

impl Records {
    /// The next record; none when no worker is left.
    pub async fn recv(&mut self) -> Option<Record> {
        let record = self.receiver.recv().await;
        self.taken(record)
    }

    /// The next record, if one waits.
    pub fn try_recv(&mut self) -> Option<Record> {
        let record = self.receiver.try_recv().ok();
        self.taken(record)
    }

    fn taken(&self, record: Option<Record>) -> Option<Record> {
        if record.is_some() {
            self.backlog.0.fetch_sub(1, Ordering::Relaxed);
        }
        record
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{ClientAddr, ListenerId};

    fn tuple() -> FiveTuple {
        FiveTuple {
            client: ClientAddr::new("192.0.2.1:1".parse().unwrap()),
            listener: ListenerId::new(Transport::Udp, 0),
        }
    }

    fn opened(id: u64) -> Record {
        Record::Opened {
            id: AllocationId(id),
            tuple: tuple(),
            subject: Subject::from_bytes([7; 16]),
            claims: None,
        }
    }

    #[test]
    fn all_that_may_wait_takes_no_more_than_is_said() {
        assert!(ENOUGH * size_of::<Record>() <= 12_000_000);
        assert!(ENOUGH * size_of::<[Quality; Direction::ALL.len()]>() <= 13_000_000);
    }

    #[test]
    fn moves_are_lost_before_anything_that_is_billed_by() {
        let (journal, mut records) = Journal::new();
        let moved = |id| Record::Moved {
            id: AllocationId(id),
            tuple: tuple(),
        };
        let (moves, all) = (MOVES as u64, ENOUGH as u64);
        (0..moves + 5).for_each(|id| journal.write(moved(id)));
        assert_eq!(journal.lost().load(Ordering::Relaxed), 5);
        (0..all).for_each(|id| journal.write(opened(id)));
        assert_eq!(journal.lost().load(Ordering::Relaxed), 5);
        assert!(journal.backlog().is_full());
        for id in 0..moves {
            assert_eq!(records.try_recv(), Some(moved(id)));
        }
        for id in 0..all {
            assert_eq!(journal.backlog().is_full(), id == 0);
            assert_eq!(records.try_recv(), Some(opened(id)));
        }
        assert_eq!(records.try_recv(), None);
        assert_eq!(journal.backlog().len(), 0);
    }

    #[test]
    fn what_nobody_reads_any_more_is_counted_and_holds_up_no_allocation() {
        let (journal, records) = Journal::new();
        drop(records);
        (0..ENOUGH as u64 + 5).for_each(|id| journal.write(opened(id)));
        assert!(!journal.backlog().is_full());
        assert_eq!(journal.lost().load(Ordering::Relaxed), ENOUGH as u64 + 5);
    }
}
