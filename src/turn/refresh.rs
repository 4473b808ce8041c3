//! Refresh (RFC 8656 §8.2): moves the end of an allocation, or ends it.

use crate::proto::{
    AddressFamily, AttributeError, AttributeType, Lifetime, Message, MobilityTicket,
    RequestedAddressFamily,
};
use crate::turn::allocate::seconds_left;
use crate::turn::allocation::Allocation;
use crate::turn::clock::Tick;
use crate::turn::environment::Environment;
use crate::turn::request::{Reject, Request};
use crate::turn::{EndReason, Server};

/// What a Refresh request asks for, checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    lifetime: Option<u32>,
    family: Option<AddressFamily>,
}

impl Wanted {
    pub(crate) fn parse(message: &Message<'_>) -> Result<Self, Reject> {
        let lifetime = match message.find::<Lifetime>() {
            None => None,
            Some(Ok(Lifetime(seconds))) => Some(seconds),
            Some(Err(_)) => return Err(Reject::BAD_REQUEST),
        };
        let family = match message.find::<RequestedAddressFamily>() {
            None => None,
            Some(Ok(RequestedAddressFamily(family))) => Some(family),
            // RFC 8656 §8.2: no allocation is of a family that nobody knows.
            Some(Err(AttributeError::UnknownFamily)) => return Err(Reject::PEER_FAMILY),
            Some(Err(_)) => return Err(Reject::BAD_REQUEST),
        };
        Ok(Self { lifetime, family })
    }

    /// RFC 8656 §8.2: a family that the allocation does not have is a mismatch.
    pub(crate) fn check(&self, allocation: &Allocation, now: Tick) -> Result<(), Reject> {
        match self.family {
            Some(family) if allocation.relay(family, now).is_none() => Err(Reject::PEER_FAMILY),
            Some(_) | None => Ok(()),
        }
    }
}

impl<E: Environment> Server<E> {
    pub(crate) fn refresh(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let wanted = Wanted::parse(&request.message)?;
        self.refresh_as(request, wanted)
    }

    /// Refreshes the allocation on the request's 5-tuple; to a ticket in the request another one is
    /// the answer.
    pub(crate) fn refresh_as(
        &mut self,
        request: &Request<'_>,
        wanted: Wanted,
    ) -> Result<(), Reject> {
        let now = request.clock.now;
        let Wanted {
            lifetime: asked,
            family,
        } = wanted;
        let Some(allocation) = self.table.by_tuple(&request.tuple) else {
            return Err(Reject::ALLOCATION_MISMATCH);
        };
        wanted.check(allocation, now)?;
        let shows_ticket = request.message.has(AttributeType::MOBILITY_TICKET);
        let key = self.config.tickets.as_ref().filter(|_| shows_ticket);
        let ticket = key.and_then(|key| allocation.ticket(key, self.worker));
        let limits = allocation.limits();
        let end = match asked {
            Some(0) => now,
            asked => self.lifetime_end(&limits, request, asked),
        };
        let lifetime = seconds_left(end, now);
        self.succeed(request, |writer| {
            writer.push(&Lifetime(lifetime))?;
            match &ticket {
                Some(ticket) => writer.push(&MobilityTicket(ticket)),
                None => Ok(()),
            }
        })?;
        // Of a dual allocation a family may be refreshed, or given up, alone.
        if let Some(allocation) = self.table.by_tuple_mut(&request.tuple) {
            allocation.reached.tidy();
            allocation
                .relays
                .iter()
                .filter(|relay| {
                    family.is_none_or(|family| family == AddressFamily::of(relay.relayed().ip()))
                        && relay.until().holds(now)
                })
                .for_each(|relay| relay.until().set(end));
        }
        if asked == Some(0) {
            self.reap(&request.tuple, EndReason::Closed, now);
        } else {
            self.table.rearm(&request.tuple);
        }
        Ok(())
    }
}
