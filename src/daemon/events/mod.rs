//! Events on their way out: a thread for the file and one for each webhook, each behind a queue of
//! its own, so that none waits for another and nobody who relays waits for any.
//!
//! What the lines say is `admin/events.rs`; what a receiver may rely on is docs/events.md.

mod failures;
mod file;
mod webhook;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;

use crate::admin::events::{Event, Events, Outlet, Party};
use crate::config;
use crate::dataplane::Record;

pub(crate) use failures::Failures;
use file::LineFile;
use webhook::Webhook;

/// Lines that are written, or posted, at once.
const BATCH: usize = 100;
/// How long the stop waits for what is still in the queues.
const GRACE: Duration = Duration::from_secs(5);

/// Whether the daemon stops, for threads that wait for something else.
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

    /// Waits so long, or until the daemon stops; whether it does.
    fn wait(&self, duration: Duration) -> bool {
        let stopping = self.lock();
        let waited = self
            .changed
            .wait_timeout_while(stopping, duration, |stopping| !*stopping);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, bool> {
        self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads that carry events out.
#[derive(Debug)]
pub(crate) struct Outlets {
    events: Events,
    stop: Arc<Stop>,
    /// Ends when the last of them has.
    ended: Receiver<()>,
}

impl Outlets {
    /// Opens the file and starts the threads.
    ///
    /// # Errors
    /// When the file cannot be opened, or the system refuses a thread.
    pub(crate) fn start(settings: &config::Events) -> anyhow::Result<Self> {
        let file = settings.file.as_deref().map(LineFile::open).transpose()?;
        let kinds: Vec<Outlet> = file
            .iter()
            .map(|_| Outlet::File)
            .chain(settings.webhooks.iter().map(|_| Outlet::Webhook))
            .collect();
        let (events, receivers) = Events::new(&kinds, settings.queue);
        let (alive, ended) = channel();
        let stop = Arc::new(Stop::default());
        // In the order of their kinds.
        let mut receivers = receivers.into_iter();
        if let Some((mut file, lines)) = file.and_then(|file| Some((file, receivers.next()?))) {
            let events = events.clone();
            spawn("events", &alive, move || {
                carry(&lines, |batch| {
                    file.write(batch, events.counts(Outlet::File))
                });
            })?;
        }
        for (place, (webhook, lines)) in settings.webhooks.iter().zip(receivers).enumerate() {
            let mut webhook = Webhook::new(place, webhook, Arc::clone(&stop));
            let events = events.clone();
            spawn("webhook", &alive, move || {
                carry(&lines, |batch| {
                    webhook.deliver(batch, events.counts(Outlet::Webhook));
                });
            })?;
        }
        Ok(Self {
            events,
            stop,
            ended,
        })
    }
}

impl Outlets {
    /// By which they are sent.
    pub(crate) const fn events(&self) -> &Events {
        &self.events
    }

    /// Waits a little until what is in the queues is out; whatever is not by then is lost, and said.
    pub(crate) fn finish(self) {
        self.events.close();
        self.stop.set();
        let is_late = matches!(
            self.ended.recv_timeout(GRACE),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        );
        if is_late {
            tracing::warn!("some events did not reach their webhooks before the end");
        }
    }
}

fn spawn(
    name: &str,
    alive: &Sender<()>,
    work: impl FnOnce() + Send + 'static,
) -> anyhow::Result<()> {
    let alive = alive.clone();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            work();
            drop(alive);
        })
        .context("cannot start a thread for events")?;
    Ok(())
}

/// Hands lines on in batches until the queue ends.
fn carry(lines: &Receiver<Arc<str>>, mut out: impl FnMut(&[Arc<str>])) {
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
            totals: *totals,
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
    fn who_waits_hears_at_once_that_the_daemon_stops() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.wait(Duration::from_secs(3_600)));
            stop.set();
            assert!(waiting.join().unwrap());
        });
    }
}
