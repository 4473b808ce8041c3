//! Refresh (RFC 8656 §8.2): moves the end of an allocation, or ends it.

use crate::proto::{AddressFamily, AttributeError, Lifetime, RequestedAddressFamily};
use crate::turn::allocate::seconds_left;
use crate::turn::environment::Environment;
use crate::turn::request::{Reject, Request};
use crate::turn::{EndReason, Server};

impl<E: Environment> Server<E> {
    pub(crate) fn refresh(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let now = request.clock.now;
        let asked = match request.message.find::<Lifetime>() {
            None => None,
            Some(Ok(Lifetime(seconds))) => Some(seconds),
            Some(Err(_)) => return Err(Reject::BAD_REQUEST),
        };
        let family = match request.message.find::<RequestedAddressFamily>() {
            None => None,
            Some(Ok(RequestedAddressFamily(family))) => Some(family),
            // RFC 8656 §8.2: no allocation is of a family that nobody knows.
            Some(Err(AttributeError::UnknownFamily)) => return Err(Reject::PEER_FAMILY),
            Some(Err(_)) => return Err(Reject::BAD_REQUEST),
        };
        let Some(allocation) = self.table.by_tuple(&request.tuple) else {
            return Err(Reject::ALLOCATION_MISMATCH);
        };

        // RFC 8656 §8.2: a family that the allocation does not have is a mismatch.
        if let Some(family) = family
            && allocation.relay(family, now).is_none()
        {
            return Err(Reject::PEER_FAMILY);
        }
        let limits = allocation.limits;
        let end = match asked {
            Some(0) => now,
            asked => self.lifetime_end(&limits, request, asked),
        };
        let lifetime = seconds_left(end, now);
        self.succeed(request, |writer| writer.push(&Lifetime(lifetime)))?;
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
