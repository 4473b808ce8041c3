//! Allocation sequences beside the traffic, as a storm of new calls makes them.

use super::desk::{Answer, Desk, Request};
use super::pace::Pacer;
use super::progress::Progress;
use super::wire::{PATIENCE, Wire};
use crate::dataplane::sys;

/// Sequences of Allocate, CreatePermission, ChannelBind and Refresh with lifetime 0.
pub(super) struct Background {
    pacer: Option<Pacer>,
    answers: Vec<Answer>,
    /// Sequences that ended well, and those that did not.
    pub(super) done: u64,
    pub(super) failed: u64,
}

impl Background {
    pub(super) const fn none() -> Self {
        Self {
            pacer: None,
            answers: Vec::new(),
            done: 0,
            failed: 0,
        }
    }

    pub(super) fn new(per_second: u32) -> Self {
        let pacer =
            (per_second > 0).then(|| Pacer::new(sys::monotonic_nanos(), f64::from(per_second)));
        Self {
            pacer,
            ..Self::none()
        }
    }

    /// Begins the sequences that are due.
    pub(super) fn start(&mut self, wire: &mut Wire, now: u64) -> anyhow::Result<bool> {
        let Some(pacer) = &mut self.pacer else {
            return Ok(false);
        };
        let due = pacer.due(now);
        for _ in 0..due {
            pacer.count();
            let client = wire.client()?;
            wire.desk.ask(client, Request::Allocate, now);
        }
        Ok(due > 0)
    }

    /// Brings what was begun to its end, so that no allocation is left behind.
    pub(super) fn settle(&mut self, wire: &mut Wire, progress: &Progress) {
        let answers = std::mem::take(&mut self.answers);
        let now = sys::monotonic_nanos();
        for answer in answers {
            if let Some(request) = following(&wire.desk, &answer) {
                wire.desk.ask(answer.client, request, now);
            }
        }
        // What has no answer by then lives no longer than its lifetime.
        wire.drive([], Some(PATIENCE), progress, |desk, answer| {
            Ok(following(desk, answer))
        })
        .ok();
    }

    /// Takes what may be an answer.
    pub(super) fn hear(&mut self, desk: &mut Desk, datagram: &[u8]) {
        if self.pacer.is_some() {
            self.answers
                .extend(desk.handle(datagram, sys::monotonic_nanos()));
        }
    }

    /// Asks what comes next for each that was answered.
    pub(super) fn go_on(&mut self, wire: &mut Wire, now: u64) -> bool {
        if self.pacer.is_none() {
            return false;
        }
        self.answers.extend(wire.desk.sweep(now));
        for answer in self.answers.drain(..) {
            match (&answer.outcome, answer.request) {
                (Ok(()), Request::Bind(..)) => self.done += 1,
                (Ok(()), _) => {}
                (Err(_), _) => self.failed += 1,
            }
            match following(&wire.desk, &answer) {
                Some(request) => wire.desk.ask(answer.client, request, now),
                None => wire.leave(answer.client),
            }
        }
        wire.transmit();
        // What the requests cost the sockets is not the traffic's.
        wire.clients.take_posted();
        false
    }
}

/// What comes after `answer` in a full sequence, whose peer is the allocation itself: every
/// policy knows it.
pub(super) fn following(desk: &Desk, answer: &Answer) -> Option<Request> {
    const CHANNEL: u16 = 0x4000;
    let peer = desk.client(answer.client)?.relayed?;
    if answer.outcome.is_err() {
        // Whatever failed, the allocation goes.
        return (!matches!(answer.request, Request::Release)).then_some(Request::Release);
    }
    match answer.request {
        Request::Allocate => Some(Request::Permit(peer)),
        Request::Permit(_) => Some(Request::Bind(CHANNEL, peer)),
        Request::Bind(..) | Request::Refresh => Some(Request::Release),
        Request::Release => None,
    }
}
