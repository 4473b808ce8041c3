//! Events on their way out: a thread for the file and one for each webhook, each behind a queue of
//! its own, so that none waits for another and nobody who relays waits for any.
//!
//! An outlet is what it writes to: wherever its settings stand among others, and however long its
//! queue may be, it stays the same with all that is in the queue. Other settings are other outlets
//! beside those that stay: one that is no longer named carries out what it has, and ends.
//!
//! What the lines say is `admin/events.rs`; what a receiver may rely on is docs/events.md.

mod failures;
mod file;
mod webhook;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;

use crate::admin::events::{Event, Events, Lines, Outlet, Party, Queue};
use crate::config;
use crate::dataplane::Record;

pub(crate) use failures::Failures;
use file::LineFile;
use webhook::Webhook;

/// Lines that are written, or posted, at once.
const BATCH: usize = 100;
/// How long the stop waits for what is still in the queues.
const GRACE: Duration = Duration::from_secs(5);

/// Whether something is over, for threads that wait for something else.
#[derive(Debug, Default)]
struct Stop {
    stopping: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn set(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// Waits so long, or until it is over; whether it is.
    fn wait(&self, duration: Duration) -> bool {
        let stopping = self.lock();
        let waited = self
            .changed
            .wait_timeout_while(stopping, duration, |stopping| !*stopping);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the lines of one queue go.
#[derive(Debug, Clone, PartialEq)]
enum Destination {
    File(PathBuf),
    Webhook(config::Webhook),
}

impl Destination {
    const fn outlet(&self) -> Outlet {
        match self {
            Self::File(_) => Outlet::File,
            Self::Webhook(_) => Outlet::Webhook,
        }
    }

    fn all_of(settings: &config::Events) -> impl Iterator<Item = Self> + '_ {
        let file = settings.file.iter().cloned().map(Self::File);
        file.chain(settings.webhooks.iter().cloned().map(Self::Webhook))
    }
}

/// A thread that carries lines out, as whoever writes them knows it.
#[derive(Debug, Clone)]
struct Carrier {
    to: Destination,
    /// Among those of its kind in the configuration.
    place: Arc<AtomicUsize>,
    queue: Queue,
    /// Nothing more comes but what is in the queue.
    stop: Arc<Stop>,
    /// It has carried out everything.
    ended: Arc<Stop>,
}

/// The threads that carry events out.
#[derive(Debug)]
pub(crate) struct Outlets {
    events: Events,
    carriers: Mutex<Vec<Carrier>>,
    /// Every thread has one of these,
    alive: Sender<()>,
    /// so that this ends when the last of them has.
    ended: Receiver<()>,
}

/// Other outlets, ready to be used, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Ready {
    carriers: Vec<Carrier>,
    /// How many lines may wait for each.
    room: usize,
}

impl Outlets {
    /// Opens the file and starts the threads.
    ///
    /// # Errors
    /// When the file cannot be opened, or the system refuses a thread.
    pub(crate) fn start(settings: &config::Events) -> anyhow::Result<Self> {
        let (alive, ended) = channel();
        let outlets = Self {
            events: Events::default(),
            carriers: Mutex::default(),
            alive,
            ended,
        };
        let ready = outlets.prepare(settings)?;
        outlets.take_up(ready);
        Ok(outlets)
    }

    /// By which they are sent.
    pub(crate) const fn events(&self) -> &Events {
        &self.events
    }

    /// Opens what these settings name and is not in use yet, as it is named there.
    ///
    /// # Errors
    /// When the file cannot be opened, or the system refuses a thread. Nothing has changed then.
    pub(crate) fn prepare(&self, settings: &config::Events) -> anyhow::Result<Ready> {
        let current = self.carriers();
        // One that is named twice is two.
        let mut left: Vec<&Carrier> = current.iter().collect();
        let room = settings.queue;
        let carriers = Destination::all_of(settings).map(|to| {
            match left.iter().position(|other| other.to == to) {
                Some(same) => Ok(left.remove(same).clone()),
                None => self.carrier(to, room, &current),
            }
        });
        let carriers = carriers.collect::<anyhow::Result<_>>()?;
        Ok(Ready { carriers, room })
    }

    /// Sends what happens from now on to these. Others carry out what they have, and end.
    pub(crate) fn take_up(&self, ready: Ready) {
        let Ready {
            carriers: ready,
            room,
        } = ready;
        let mut carriers = self.carriers();
        for kind in Outlet::ALL {
            let of_kind = ready.iter().filter(|carrier| carrier.to.outlet() == *kind);
            for (place, carrier) in of_kind.enumerate() {
                carrier.place.store(place, Ordering::Relaxed);
                carrier.queue.set_room(room);
            }
        }
        let queues = ready.iter().map(|carrier| carrier.queue.clone());
        self.events.write_to(queues.collect());
        let is_kept = |former: &Carrier| {
            let mut ready = ready.iter();
            ready.any(|carrier| Arc::ptr_eq(&carrier.stop, &former.stop))
        };
        for former in carriers.iter().filter(|former| !is_kept(former)) {
            former.stop.set();
        }
        *carriers = ready;
    }

    fn carrier(
        &self,
        to: Destination,
        room: usize,
        current: &[Carrier],
    ) -> anyhow::Result<Carrier> {
        let (queue, lines) = Queue::new(to.outlet(), room);
        let carrier = Carrier {
            to,
            place: Arc::default(),
            queue,
            stop: Arc::default(),
            ended: Arc::default(),
        };
        let (events, ended) = (self.events.clone(), Arc::clone(&carrier.ended));
        match &carrier.to {
            Destination::File(path) => {
                let mut file = LineFile::open(path)?;
                let is_file = |other: &&Carrier| matches!(other.to, Destination::File(_));
                let former = current.iter().find(is_file);
                let mut former = former.map(|former| Arc::clone(&former.ended));
                self.spawn("events", ended, move || {
                    carry(&lines, |batch| {
                        // It may be the same file: no line comes before those that it still has.
                        if let Some(former) = former.take() {
                            former.wait(GRACE);
                        }
                        file.write(batch, events.counts(Outlet::File));
                    });
                })?;
            }
            Destination::Webhook(webhook) => {
                let (place, stop) = (Arc::clone(&carrier.place), Arc::clone(&carrier.stop));
                let mut webhook = Webhook::new(place, webhook, stop);
                self.spawn("webhook", ended, move || {
                    carry(&lines, |batch| {
                        webhook.deliver(batch, events.counts(Outlet::Webhook));
                    });
                })?;
            }
        }
        Ok(carrier)
    }

    fn spawn(
        &self,
        name: &str,
        ended: Arc<Stop>,
        work: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<()> {
        let alive = self.alive.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                work();
                ended.set();
                drop(alive);
            })
            .context("cannot start a thread for events")?;
        Ok(())
    }

    /// Waits a little until what is in the queues is out; whatever is not by then is lost, and said.
    pub(crate) fn finish(self) {
        self.take_up(Ready {
            carriers: Vec::new(),
            room: 0,
        });
        drop(self.alive);
        let is_late = matches!(
            self.ended.recv_timeout(GRACE),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        );
        if is_late {
            tracing::warn!("some events did not reach their webhooks before the end");
        }
    }

    // What it guards is whole between any two statements.
    fn carriers(&self) -> MutexGuard<'_, Vec<Carrier>> {
        self.carriers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands lines on in batches until the queue ends.
fn carry(lines: &Lines, mut out: impl FnMut(&[Arc<str>])) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = lines.recv() {
        batch.push(first);
        batch.extend(lines.try_iter().take(BATCH - 1));
        out(&batch);
        batch.clear();
    }
}

/// The event that a record of the journal is, if it is one.
pub(crate) fn of_record(record: &Record, at: u64) -> Option<Event> {
    match record {
        Record::Opened {
            id,
            tuple,
            subject,
            claims,
        } => Some(Event::Opened {
            at,
            party: Party {
                id: *id,
                subject: *subject,
                claims: claims.clone(),
                transport: tuple.listener.transport(),
            },
        }),
        Record::Moved { .. } => None,
        Record::Closed {
            id,
            transport,
            reason,
            lived,
            subject,
            claims,
            totals,
        } => Some(Event::Closed {
            at,
            party: Party {
                id: *id,
                subject: *subject,
                claims: claims.clone(),
                transport: *transport,
            },
            reason: *reason,
            seconds: lived.as_secs(),
            totals: totals.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_in_order_and_in_batches_until_the_queue_ends() {
        let (events, mut queues) = Events::new(&[Outlet::File], 1_000);
        let event = |at| Event::AuthFailures {
            at,
            reason: crate::turn::stats::AuthFailure::Wrong,
            count: 1,
            seconds: 60,
        };
        (0..250).for_each(|at| events.send(&event(at)));
        events.close();
        events.send(&event(999));
        let mut sizes = Vec::new();
        let mut all = Vec::new();
        carry(&queues.remove(0), |batch| {
            sizes.push(batch.len());
            all.extend(batch.iter().map(ToString::to_string));
        });
        assert_eq!(sizes, [100, 100, 50]);
        let expected: Vec<String> = (0..250).map(|at| event(at).line()).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn who_waits_hears_at_once_that_it_is_over() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.wait(Duration::from_secs(3_600)));
            stop.set();
            assert!(waiting.join().unwrap());
        });
    }

    fn settings(queue: usize, webhooks: &[&str]) -> config::Events {
        config::Events {
            file: None,
            webhooks: webhooks
                .iter()
                .map(|name| config::Webhook {
                    url: format!("http://127.0.0.1:1/{name}"),
                    secret: (*name).into(),
                    authorities: None,
                })
                .collect(),
            queue,
            interval: Duration::from_secs(60),
        }
    }

    #[test]
    fn an_outlet_stays_the_same_at_another_place_and_with_another_bound() {
        let outlets = Outlets::start(&settings(10, &["a", "b", "b"])).unwrap();
        let before = outlets.carriers().clone();
        let ready = outlets.prepare(&settings(20, &["b", "c", "b"])).unwrap();
        assert!(outlets.carriers().iter().zip(&before).all(is_same));
        outlets.take_up(ready);
        let after = outlets.carriers().clone();
        let kept = |new: &Carrier| before.iter().position(|old| is_same((new, old)));
        let kept: Vec<_> = after.iter().map(kept).collect();
        assert!(
            [Some(1), Some(2)].iter().all(|one| kept.contains(one)),
            "one that is named twice stays two: {kept:?}"
        );
        assert_eq!(kept[1], None, "the new one is none of them");
        let place = |carrier: &Carrier| carrier.place.load(Ordering::Relaxed);
        assert_eq!(after.iter().map(place).collect::<Vec<_>>(), [0, 1, 2]);
        let is_over = |carrier: &Carrier| *carrier.stop.lock();
        assert_eq!(
            before.iter().map(is_over).collect::<Vec<_>>(),
            [true, false, false]
        );
        // Both can write there, which none may do at the end.
        drop((before, after));
        outlets.finish();
    }

    fn is_same((one, other): (&Carrier, &Carrier)) -> bool {
        Arc::ptr_eq(&one.stop, &other.stop)
    }
}
