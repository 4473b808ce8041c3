//! What a platform wants to hear of: allocations opened and closed with what to bill from, refused
//! authentications in sums, revocations. One line of JSON each, as `docs/events.schema.json` says;
//! no address in any, and a call only by its hash.
//!
//! [`Events::send`] never waits: each outlet has a bounded queue, and what finds no room in it is
//! dropped and counted. What reads the queues is the daemon's.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::dataplane::Totals;
use crate::turn::credential::{CallId, Claims, Subject};
use crate::turn::media;
use crate::turn::revocation::Revoked;
use crate::turn::stats::{AuthFailure, Direction, Path};
use crate::turn::{AllocationId, EndReason, Transport};

/// The version of the schema; it changes when a field is taken away or means something else.
pub const SCHEMA: u32 = 1;

/// Whose an allocation is, or was.
#[derive(Debug, Clone)]
pub struct Party {
    /// The allocation.
    pub id: AllocationId,
    /// The user.
    pub subject: Subject,
    /// What a sealed username said beyond that.
    pub claims: Option<Arc<Claims>>,
    /// How the client spoke to the server.
    pub transport: Transport,
}

/// Something that happened, with the wall clock in Unix seconds.
#[derive(Debug, Clone)]
pub enum Event {
    /// An allocation was made.
    Opened {
        /// When.
        at: u64,
        /// Whose.
        party: Party,
    },
    /// An allocation is gone.
    Closed {
        /// When.
        at: u64,
        /// Whose.
        party: Party,
        /// Why.
        reason: EndReason,
        /// How many seconds it lived.
        seconds: u64,
        /// What went through it.
        totals: Totals,
    },
    /// Requests failed to authenticate.
    AuthFailures {
        /// When they were summed up.
        at: u64,
        /// Why.
        reason: AuthFailure,
        /// How many.
        count: u64,
        /// In how many seconds.
        seconds: u64,
    },
    /// Somebody was shut out.
    Revoked {
        /// When.
        at: u64,
        /// What was revoked.
        what: Revoked,
    },
}

/// Packets and bytes as they stand in a line.
#[derive(Serialize)]
struct Volume {
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Directions {
    r#in: Volume,
    out: Volume,
}

#[derive(Serialize)]
struct Traffic {
    hairpin: Directions,
    relay: Directions,
    indication: Directions,
}

impl Traffic {
    fn of(totals: &Totals) -> Self {
        let volume = |path, direction| {
            let (packets, bytes) = totals.of(path, direction);
            Volume { packets, bytes }
        };
        let both = |path| Directions {
            r#in: volume(path, Direction::In),
            out: volume(path, Direction::Out),
        };
        Self {
            hairpin: both(Path::Hairpin),
            relay: both(Path::Relay),
            indication: both(Path::Indication),
        }
    }
}

/// What the RTP streams of one direction came to.
#[derive(Serialize)]
struct Quality {
    streams: u64,
    packets: u64,
    lost: u64,
    reordered: u64,
    gaps: u64,
    gap_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter_seconds: Option<f64>,
}

impl From<&media::Quality> for Quality {
    fn from(quality: &media::Quality) -> Self {
        Self {
            streams: quality.streams,
            packets: quality.packets,
            lost: quality.lost(),
            reordered: quality.reordered,
            gaps: quality.gaps,
            gap_seconds: quality.gap_time.as_secs_f64(),
            jitter_seconds: (!quality.jitter.is_zero()).then_some(quality.jitter.as_secs_f64()),
        }
    }
}

/// In each direction in which there were streams.
#[derive(Serialize)]
struct Media {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#in: Option<Quality>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<Quality>,
}

impl Media {
    fn of(totals: &Totals) -> Option<Self> {
        let both = [Direction::In, Direction::Out];
        let [of_in, of_out] = both.map(|direction| totals.quality(direction).map(Quality::from));
        (of_in.is_some() || of_out.is_some()).then_some(Self {
            r#in: of_in,
            out: of_out,
        })
    }
}

/// A line; what does not belong to an event is not there.
#[derive(Default, Serialize)]
struct Line {
    schema: u32,
    event: &'static str,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic: Option<Traffic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media: Option<Media>,
}

impl Line {
    fn new(event: &'static str, at: u64) -> Self {
        Self {
            schema: SCHEMA,
            event,
            at,
            ..Self::default()
        }
    }

    fn party(self, party: &Party) -> Self {
        let claims = party.claims.as_deref();
        Self {
            allocation: Some(format!("{:016x}", party.id.0)),
            subject: Some(party.subject.to_string()),
            tenant: claims.and_then(|claims| Some(claims.tenant.as_ref()?.to_string())),
            call: claims.and_then(|claims| Some(told(claims.call?, party.subject))),
            transport: Some(party.transport.label()),
            ..self
        }
    }
}

/// What stands for a call in the events and the series of one of its parties. Another one's differ,
/// so that lines that lie beside each other do not tell who called whom.
pub(super) fn told(call: CallId, subject: Subject) -> String {
    half(Sha256::digest(
        [call.to_bytes(), subject.to_bytes()].concat(),
    ))
}

/// What stands for a call that was revoked. Not its id, from which, with the subjects that stand in
/// other lines, whoever reads them could make what stands there.
fn told_of_revoked(call: CallId) -> String {
    half(Sha256::digest(
        [b"revoked".as_slice(), &call.to_bytes()].concat(),
    ))
}

fn half(hash: impl AsRef<[u8]>) -> String {
    let bytes = hash.as_ref().iter().take(16);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

impl Event {
    /// Its line of JSON, without the line's end.
    #[must_use]
    pub fn line(&self) -> String {
        let line = match self {
            Self::Opened { at, party } => Line::new("allocation.opened", *at).party(party),
            Self::Closed {
                at,
                party,
                reason,
                seconds,
                totals,
            } => Line {
                reason: Some(reason.label()),
                opened: Some(at.saturating_sub(*seconds)),
                seconds: Some(*seconds),
                traffic: Some(Traffic::of(totals)),
                media: Media::of(totals),
                ..Line::new("allocation.closed", *at).party(party)
            },
            Self::AuthFailures {
                at,
                reason,
                count,
                seconds,
            } => Line {
                reason: Some(reason.label()),
                count: Some(*count),
                seconds: Some(*seconds),
                ..Line::new("auth.failures", *at)
            },
            Self::Revoked { at, what } => {
                let line = Line::new("revoked", *at);
                match what {
                    Revoked::Credential(_) => Line {
                        what: Some("credential"),
                        ..line
                    },
                    Revoked::User(subject) => Line {
                        what: Some("user"),
                        subject: Some(subject.to_string()),
                        ..line
                    },
                    Revoked::Call(call) => Line {
                        what: Some("call"),
                        call: Some(told_of_revoked(*call)),
                        ..line
                    },
                }
            }
        };
        // Nothing in it can fail to be written.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// What became of the events of one outlet.
#[derive(Debug, Default)]
pub struct Counts {
    /// Those that arrived.
    pub delivered: AtomicU64,
    /// Those that found the queue full, or were given up.
    pub dropped: AtomicU64,
    /// Attempts that failed and were made again.
    pub retries: AtomicU64,
}

/// A kind of outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlet {
    /// A file of lines.
    File,
    /// A URL to which they are posted.
    Webhook,
}

impl Outlet {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::File, Self::Webhook];

    /// The word that stands for it in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Webhook => "webhook",
        }
    }
}

/// How full a queue is, and how full it may be.
#[derive(Debug)]
struct Fill {
    waiting: AtomicUsize,
    room: AtomicUsize,
}

/// The writing end of one outlet's queue.
#[derive(Debug, Clone)]
pub struct Queue {
    outlet: Outlet,
    lines: Sender<Arc<str>>,
    fill: Arc<Fill>,
}

/// The reading end of one outlet's queue.
#[derive(Debug)]
pub struct Lines {
    lines: Receiver<Arc<str>>,
    fill: Arc<Fill>,
}

impl Queue {
    /// A queue of `room` lines, with its reading end.
    #[must_use]
    pub fn new(outlet: Outlet, room: usize) -> (Self, Lines) {
        let (sender, lines) = channel();
        let fill = Arc::new(Fill {
            waiting: AtomicUsize::new(0),
            room: AtomicUsize::new(room),
        });
        let queue = Self {
            outlet,
            lines: sender,
            fill: Arc::clone(&fill),
        };
        (queue, Lines { lines, fill })
    }

    /// Another bound from now on. What is in the queue stays there, also when that is more.
    pub fn set_room(&self, room: usize) {
        self.fill.room.store(room, Ordering::Relaxed);
    }

    /// Whether there was room, and somebody who reads.
    fn put(&self, line: Arc<str>) -> bool {
        let Fill { waiting, room } = &*self.fill;
        let room = room.load(Ordering::Relaxed);
        let one_more = |waiting| (waiting < room).then_some(waiting + 1);
        let counted = waiting.try_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.is_ok() && self.lines.send(line).is_ok()
    }
}

impl Lines {
    /// The next line, once there is one.
    ///
    /// # Errors
    /// When nothing more can come.
    pub fn recv(&self) -> Result<Arc<str>, RecvError> {
        self.lines.recv().inspect(|_| self.taken())
    }

    /// The lines that are there.
    pub fn try_iter(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.lines.try_iter().inspect(|_| self.taken())
    }

    fn taken(&self) {
        self.fill.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writing end of the queues; without outlets nothing is written.
#[derive(Debug, Clone, Default)]
pub struct Events {
    queues: Arc<RwLock<Vec<Queue>>>,
    counts: Arc<[Counts; Outlet::ALL.len()]>,
}

impl Events {
    /// A queue of `room` lines for each outlet, with their reading ends.
    #[must_use]
    pub fn new(outlets: &[Outlet], room: usize) -> (Self, Vec<Lines>) {
        let pairs = outlets.iter().map(|outlet| Queue::new(*outlet, room));
        let (queues, receivers): (Vec<_>, Vec<_>) = pairs.unzip();
        let events = Self::default();
        events.write_to(queues);
        (events, receivers)
    }

    /// What happens from now on goes into these queues. Those from before that are not among them end
    /// behind what is in them, once nobody else can write there.
    pub fn write_to(&self, queues: Vec<Queue>) {
        *self.queues.write().unwrap_or_else(PoisonError::into_inner) = queues;
    }

    /// Nothing more is said.
    pub fn close(&self) {
        self.write_to(Vec::new());
    }

    /// Puts an event into every queue that has room, at once.
    pub fn send(&self, event: &Event) {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        if queues.is_empty() {
            return;
        }
        let line: Arc<str> = event.line().into();
        for queue in queues.iter() {
            if !queue.put(Arc::clone(&line)) {
                let counts = self.counts(queue.outlet);
                counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What became of the events for this kind of outlet, all of them together.
    #[must_use]
    pub fn counts(&self, outlet: Outlet) -> &Counts {
        &self.counts[outlet as usize]
    }
}

#[cfg(test)]
mod tests;
