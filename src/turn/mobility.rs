//! Mobility (RFC 8016): an allocation follows its client to another 5-tuple, with its relayed
//! transport addresses, permissions and channels.
//!
//! A Refresh with a ticket makes the new 5-tuple the allocation's *next* one; data goes the old way
//! until the client uses the new one (§3.2.2). The RFC names Send and ChannelData as such a use; a
//! request that is not a Refresh with a ticket counts as well, because it shows as surely that the
//! client has read the answer, and one that only receives would otherwise wait until it has
//! something to say. The old 5-tuple is then nobody's.
//!
//! The allocation stays with its worker. One that gets a ticket of another's hands the request to
//! it, and from then on what else comes on the new 5-tuple, which costs a copy for each packet of
//! the client's; packets to the client are sent by whichever worker has them.
//!
//! A TCP allocation (RFC 6062) gets no ticket: its data connections could not follow.
//!
//! A mobile allocation whose connection is gone, and whose next 5-tuple is not known, waits for its
//! client for [`AWAY`] at most; what comes for it meanwhile is dropped and counted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::proto::MobilityTicket;
use crate::turn::Handled;
use crate::turn::address::{FiveTuple, WorkerId};
use crate::turn::allocation::Allocation;
use crate::turn::clock::Tick;
use crate::turn::environment::Environment;
use crate::turn::refresh;
use crate::turn::request::{Reject, Request};
use crate::turn::stats::AuthFailure;
use crate::turn::ticket::{Ticket, TicketKey};
use crate::turn::{EndReason, Event, Server};

/// RFC 8016 §3.2.2: for at least 30 seconds a retransmission with the ticket before is recognised.
const RETRANSMISSIONS: Duration = Duration::from_secs(40);
/// How long an allocation waits for a client whose connection is gone, if its lifetime is not over
/// earlier: twice the time after which ICE gives up a silent peer (RFC 7675 §5.1).
const AWAY: Duration = Duration::from_secs(60);

/// What an allocation that has a ticket keeps.
#[derive(Debug, Default)]
pub(crate) struct Mobility {
    /// The number of the last ticket, which alone is good.
    pub(crate) number: u32,
    /// Where its client has gone, until it uses that 5-tuple. The table alone writes it.
    pub(crate) next: Option<FiveTuple>,
    /// When the last ticket was made, but for the first.
    renewed: Tick,
}

/// What a ticket that is good for something asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The client has gone to another 5-tuple.
    Move,
    /// It is back where it was, and never used the next one.
    Back,
    /// It did not hear that it has moved.
    Again,
}

impl Allocation {
    /// The ticket that is good now, if it has any.
    pub(crate) fn ticket(&self, key: &TicketKey, worker: WorkerId) -> Option<Vec<u8>> {
        let mobility = self.mobility.as_ref()?;
        Some(key.seal(Ticket {
            id: self.id(),
            worker,
            number: mobility.number,
        }))
    }

    /// RFC 8016 §3.2.2: what a Refresh with `ticket` on `tuple` asks for.
    fn step(&self, ticket: Ticket, tuple: FiveTuple, now: Tick) -> Result<Step, Reject> {
        let mobility = self.mobility.as_ref().ok_or(Reject::BAD_REQUEST)?;
        let here = mobility.next.unwrap_or(self.tuple);
        if ticket.number == mobility.number {
            return match tuple {
                // A client that has not moved must not show its ticket.
                tuple if tuple == here => Err(Reject::BAD_REQUEST),
                tuple if tuple == self.tuple => Ok(Step::Back),
                _ => Ok(Step::Move),
            };
        }
        // The ticket before serves retransmissions alone, and those come from where it led to.
        let is_before = ticket.number.wrapping_add(1) == mobility.number;
        if is_before && tuple == here && now.since(mobility.renewed) < RETRANSMISSIONS {
            return Ok(Step::Again);
        }
        Err(Reject::BAD_REQUEST)
    }
}

impl<E: Environment> Server<E> {
    /// RFC 8016 §3.2.2: a Refresh with a ticket, which stands in for the 5-tuple. It is looked at
    /// only once its sender is known to have a password, so that for others it costs what any
    /// request costs.
    pub(crate) fn resume(&mut self, request: &Request<'_>) -> Result<Handled, Reject> {
        let (now, here) = (request.clock.now, request.tuple);
        let Some(key) = &self.config.tickets else {
            return Err(Reject::MOBILITY_FORBIDDEN);
        };
        let ticket = match request.message.find::<MobilityTicket<'_>>() {
            Some(Ok(MobilityTicket(sealed))) => key.open(sealed),
            Some(Err(_)) | None => None,
        };
        let ticket = ticket.ok_or(Reject::BAD_REQUEST)?;
        let Some(tuple) = self.living(ticket, now) else {
            // The 5-tuple may be another allocation's.
            if self.table.by_tuple(&here).is_some() {
                return Err(Reject::ALLOCATION_MISMATCH);
            }
            let owner = ticket.worker;
            if owner != self.worker && self.environment.is_worker(owner) {
                return Ok(Handled::Elsewhere(owner));
            }
            return Err(Reject::ALLOCATION_MISMATCH);
        };
        let allocation = self.table.by_tuple(&tuple);
        let allocation = allocation.ok_or(Reject::ALLOCATION_MISMATCH)?;
        if !allocation.known.owner().is(&request.auth.owner) {
            self.counters.auth_failed(AuthFailure::OtherUser);
            return Err(Reject::WRONG_CREDENTIALS);
        }
        if let Some(failure) = request.auth.untimely(request.clock, self.config.max_ttl)
            && !allocation.outlives_its_credential()
        {
            self.counters.auth_failed(failure);
            return Err(Reject::UNAUTHENTICATED);
        }
        self.refuse_banned(request)?;
        if Self::unknown(&request.message, &[]).next().is_some() {
            return Err(Reject::UNKNOWN_ATTRIBUTE);
        }
        let wanted = refresh::Wanted::parse(&request.message)?;
        wanted.check(allocation, now)?;
        let step = allocation.step(ticket, here, now)?;
        match step {
            Step::Move => {
                if self.table.by_tuple(&here).is_some() {
                    return Err(Reject::ALLOCATION_MISMATCH);
                }
                self.lead(&tuple, Some(here), now);
            }
            Step::Back => self.lead(&tuple, None, now),
            Step::Again => {}
        }
        self.refresh_as(request, wanted)?;
        Ok(Handled::Answer)
    }

    /// The 5-tuple of the allocation that a ticket is for, if it has not ended.
    fn living(&mut self, ticket: Ticket, now: Tick) -> Option<FiveTuple> {
        let allocation = self.table.by_id(ticket.id)?;
        let (tuple, end) = (allocation.tuple, allocation.first_end());
        if let Some(end) = end.filter(|end| *end <= now) {
            self.reap(&tuple, EndReason::told_by(end), now);
        }
        self.table.by_id(ticket.id).map(|living| living.tuple)
    }

    /// The allocation on `tuple` is expected on `next`, or where it is, and gets another ticket.
    fn lead(&mut self, tuple: &FiveTuple, next: Option<FiveTuple>, now: Tick) {
        if let Some(before) = self.table.set_next(tuple, next) {
            self.environment.disown(before);
        }
        if let Some(next) = next {
            self.environment.own(next);
        }
        if let Some(allocation) = self.table.by_tuple_mut(tuple) {
            allocation.meters().heard(now);
            if let Some(mobility) = &mut allocation.mobility {
                mobility.number = mobility.number.wrapping_add(1);
                mobility.renewed = now;
            }
        }
        // Nobody is at the old one.
        if let Some(next) = next
            && tuple.is_nowhere()
        {
            self.arrive(next, now);
        }
    }

    /// The client of an allocation uses its next 5-tuple, if `tuple` is one: from now on it is the
    /// allocation's. Where that stands.
    pub(crate) fn arrive(&mut self, tuple: FiveTuple, now: Tick) -> Option<u32> {
        let (index, old) = self.table.arrive(&tuple)?;
        if !old.is_nowhere() {
            self.environment.disown(old);
        }
        self.recount(old, tuple);
        self.readdress(&tuple, now);
        self.counters.moved.add(1);
        if let Some(allocation) = self.table.at(index) {
            let id = allocation.id();
            self.events.push_back(Event::Moved { id, tuple });
        }
        Some(index)
    }

    /// The connection behind `tuple` is gone. Whether its allocation outlives that.
    pub(crate) fn outlives_its_connection(&mut self, tuple: FiveTuple, now: Tick) -> bool {
        let Some(allocation) = self.table.by_tuple(&tuple) else {
            return false;
        };
        let (id, current) = (allocation.id(), allocation.tuple);
        let Some(mobility) = allocation
            .mobility
            .as_ref()
            .filter(|_| self.config.tickets.is_some())
        else {
            return false;
        };
        match mobility.next {
            // It broke before it was used.
            Some(next) if next == tuple => {
                self.table.set_next(&current, None);
                self.environment.disown(next);
            }
            // RFC 8016 §3.2.2: the end of the old connection is as good as data on the new one.
            Some(next) => {
                self.arrive(next, now);
            }
            None => {
                let nowhere = FiveTuple::nowhere(id, tuple.listener);
                for relay in &allocation.relays {
                    relay.until().set(relay.until().at().min(now.plus(AWAY)));
                }
                self.table.readdress(&tuple, nowhere);
                self.environment.disown(tuple);
                self.readdress(&nowhere, now);
                self.table.rearm(&nowhere);
            }
        }
        true
    }

    /// Counts an allocation with the transport that its client has come by.
    fn recount(&self, old: FiveTuple, new: FiveTuple) {
        let [old, new] = [old, new].map(|tuple| self.counters.over(tuple.listener.transport()));
        old.allocations.fetch_sub(1, Ordering::Relaxed);
        new.allocations.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells others where the client of the allocation on `tuple` is now.
    fn readdress(&mut self, tuple: &FiveTuple, now: Tick) {
        if let Some(allocation) = self.table.by_tuple_mut(tuple) {
            for relay in &mut allocation.relays {
                relay.change().client = *tuple;
            }
        }
        self.publish(tuple, now);
    }
}
