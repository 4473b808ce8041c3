//! Allocate (RFC 8656 §7.2): the checks in the RFC's order, then ports, sockets and the promise.
//!
//! Success is sent only once what it promises exists: the port is held, and the socket open where
//! one is needed. Whatever was taken on the way is given back when a later step fails.

mod wanted;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use crate::proto::{
    AddressErrorCode, AddressFamily, Full, Lifetime, MobilityTicket, ReservationToken, Writer,
    XorMappedAddress, XorRelayedAddress,
};
use crate::turn::Server;
use crate::turn::address::RelayedAddr;
use crate::turn::allocation::{Allocation, Expiry, Limits, MadeBy, Relay};
use crate::turn::clock::{Deadline, Tick};
use crate::turn::environment::{Environment, SocketRefused};
use crate::turn::icmp::Told;
use crate::turn::policy::PeerPolicy;
use crate::turn::ports::{NoPort, Parity, PortWish, Token};
use crate::turn::quota::{Admitted, Applicant};
use crate::turn::rates::Rates;
use crate::turn::reached::Reached;
use crate::turn::request::{Reject, Request};
use crate::turn::route::{AllocationId, CallTag, Current, Landing, RelayProtocol, Standing};
use crate::turn::server_config::Bind;
use crate::turn::stats::{Limit, Meters};
use crate::turn::{EndReason, Event};

use wanted::Wanted;

/// How many ports are tried when other processes hold the ones that were drawn.
const SOCKET_TRIES: usize = 8;

/// A relayed address that is held, and whether its socket is open.
#[derive(Debug, Clone, Copy)]
struct Held {
    relayed: RelayedAddr,
    has_socket: bool,
}

/// What relays are made of, beyond their addresses.
struct Making<'a> {
    request: &'a Request<'a>,
    protocol: RelayProtocol,
    policy: &'a PeerPolicy,
    standing: &'a Arc<Standing>,
    rates: Option<Arc<Rates>>,
}

impl Held {
    /// What becomes of it in an allocation.
    fn relay(self, making: &Making<'_>) -> Relay {
        let Making {
            request,
            protocol,
            policy,
            standing,
            rates,
        } = making;
        let call = standing.claims.as_ref().and_then(|claims| claims.call);
        Relay::new(Landing {
            relayed: self.relayed,
            subject: request.auth.subject,
            call: call.map(CallTag::from),
            same_call_only: **policy == PeerPolicy::Call,
            protocol: *protocol,
            has_socket: self.has_socket,
            client: request.tuple,
            standing: Arc::clone(standing),
            permissions: SmallVec::new(),
            channels: SmallVec::new(),
            rates: rates.clone(),
            current: Current::default(),
        })
    }
}

/// For whom relayed addresses are opened.
#[derive(Clone, Copy)]
struct Opening<'a> {
    id: AllocationId,
    policy: &'a PeerPolicy,
}

/// What a success response promises, and what exists by then.
struct Promised {
    relays: SmallVec<[Held; 2]>,
    token: Option<Token>,
    refused_family: Option<(AddressFamily, u16)>,
}

impl Promised {
    fn one(relay: Held, token: Option<Token>) -> Self {
        Self {
            relays: smallvec![relay],
            token,
            refused_family: None,
        }
    }
}

impl<E: Environment> Server<E> {
    pub(crate) fn allocate(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        // RFC 8656 §7.2: the 5-tuple is in use; a retransmission is answered by its success.
        if let Some(allocation) = self.table.by_tuple(&request.tuple) {
            if allocation.made_by.transaction == request.message.transaction_id() {
                return self.allocated(request);
            }
            return Err(Reject::ALLOCATION_MISMATCH);
        }
        self.count_newcomer(request)?;
        if self.environment.is_behind() {
            return Err(self.limited(Limit::Journal));
        }
        let wanted = self.wanted(request)?;
        // RFC 6062 §4.2: a TCP allocation is its control connection's, and goes nowhere else.
        if wanted.mobile && (self.config.tickets.is_none() || wanted.protocol == RelayProtocol::Tcp)
        {
            return Err(Reject::MOBILITY_FORBIDDEN);
        }
        let now = request.clock.now;
        let id = AllocationId(u64::from_be_bytes(self.random_bytes()));
        let limits = self.limits(request);
        let end = self.lifetime_end(&limits, request, wanted.lifetime);
        let applicant = self.applicant(request)?;
        let standing = Arc::new(Standing {
            id,
            worker: self.worker,
            opened: now,
            claims: request.auth.claims.clone(),
            until: [Deadline::new(end), Deadline::new(end)],
            meters: Meters::default(),
        });
        standing.meters.heard(now);
        // Counted last, so that a silent allocation makes way only for one that comes to be.
        let policy = self.policies.of(request.auth.claims.as_deref());
        let opening = Opening {
            id,
            policy: &policy,
        };
        let promised = self.promise(request, &wanted, opening)?;
        if let Err(reject) = self.count(&applicant, Arc::clone(&standing), now) {
            self.take_back(promised, now);
            return Err(reject);
        }
        let rates = self.rates(applicant.user, &standing);
        let making = Making {
            request,
            protocol: wanted.protocol,
            policy: &policy,
            standing: &standing,
            rates,
        };
        let relays = promised.relays.iter();
        let relays = relays.map(|held| held.relay(&making)).collect();
        self.open(
            Allocation {
                tuple: request.tuple,
                known: request.auth.known(),
                subject: applicant.user,
                session_end: limits.session_end,
                expiry: limits.expiry,
                made_by: MadeBy {
                    transaction: request.message.transaction_id(),
                    token: promised.token,
                    refused_family: promised.refused_family,
                },
                relays,
                policy,
                standing,
                reached: Reached::default(),
                told: Told::default(),
                mobility: wanted.mobile.then(Box::default),
                armed: end,
            },
            now,
        );
        let answered = self.allocated(request);
        if answered.is_err() {
            self.end(&request.tuple, EndReason::Refused, now);
        }
        answered
    }

    /// Counts a new allocation on its user, its tenant and all, in the place of a silent one if need
    /// be.
    fn count(
        &mut self,
        applicant: &Applicant<'_>,
        holding: Arc<Standing>,
        now: Tick,
    ) -> Result<(), Reject> {
        match self.environment.admit(applicant, holding, now) {
            Admitted::Granted => Ok(()),
            Admitted::Replaced(silent) => {
                for deadline in &silent.until {
                    deadline.set(EndReason::Replaced.moment());
                }
                self.environment.condemn(silent.worker, silent.id);
                Ok(())
            }
            // Another worker took the last place since it was asked for.
            Admitted::Full(limit) => Err(self.limited(limit)),
        }
    }

    fn take_back(&mut self, promised: Promised, now: Tick) {
        for relay in promised.relays {
            self.environment.close_socket(relay.relayed);
            self.environment.rest_port(relay.relayed, now);
        }
    }

    /// The relays an allocation gets: one, or one of each family as far as there are any.
    fn promise(
        &mut self,
        request: &Request<'_>,
        wanted: &Wanted,
        opening: Opening<'_>,
    ) -> Result<Promised, Reject> {
        let now = request.clock.now;
        if let Some(token) = wanted.token {
            let relayed = self
                .environment
                .claim_port(token, request.auth.subject, now)
                .ok_or(Reject::CAPACITY)?;
            let opened = self.open_relay(relayed, wanted.protocol, opening);
            let relay = opened.map_err(|_| {
                self.environment.rest_port(relayed, now);
                Reject::CAPACITY
            })?;
            return Ok(Promised::one(relay, None));
        }
        let first = self.draw_relay(request, wanted, wanted.family, opening);
        if !wanted.additional {
            let (relay, token) = first?;
            return Ok(Promised::one(relay, token));
        }
        // RFC 8656 §7.2: with ADDITIONAL-ADDRESS-FAMILY one family may fail, and is named.
        let any = Wanted {
            parity: Parity::Any,
            ..*wanted
        };
        let second = self.draw_relay(request, &any, AddressFamily::V6, opening);
        match (first, second) {
            (Ok((v4, token)), Ok((v6, _))) => Ok(Promised {
                relays: smallvec![v4, v6],
                token,
                refused_family: None,
            }),
            (Ok((v4, token)), Err(why)) => Ok(Promised {
                refused_family: Some((AddressFamily::V6, why.code)),
                ..Promised::one(v4, token)
            }),
            (Err(why), Ok((v6, _))) => Ok(Promised {
                refused_family: Some((AddressFamily::V4, why.code)),
                ..Promised::one(v6, None)
            }),
            (Err(_), Err(_)) => Err(Reject::CAPACITY),
        }
    }

    /// Draws a port and opens its socket where one is needed; a port that another process holds
    /// goes to rest and the next is tried.
    fn draw_relay(
        &mut self,
        request: &Request<'_>,
        wanted: &Wanted,
        family: AddressFamily,
        opening: Opening<'_>,
    ) -> Result<(Held, Option<Token>), Reject> {
        let now = request.clock.now;
        let wish = PortWish {
            family,
            parity: wanted.parity,
        };
        for _ in 0..SOCKET_TRIES {
            let drawn = self
                .environment
                .draw_port(wish, request.auth.subject, now)
                .map_err(|why| match why {
                    NoPort::Family => Reject::FAMILY_NOT_SUPPORTED,
                    NoPort::Exhausted => Reject::CAPACITY,
                })?;
            match self.open_relay(drawn.relayed, wanted.protocol, opening) {
                Ok(relay) => return Ok((relay, drawn.token)),
                Err(refused) => {
                    self.environment.rest_port(drawn.relayed, now);
                    // Nobody will ever have the token of its neighbour.
                    if let Some(token) = drawn.token
                        && let Some(next) =
                            self.environment
                                .claim_port(token, request.auth.subject, now)
                    {
                        self.environment.rest_port(next, now);
                    }
                    if refused == SocketRefused::Exhausted {
                        break;
                    }
                }
            }
        }
        Err(Reject::CAPACITY)
    }

    fn open_relay(
        &mut self,
        relayed: RelayedAddr,
        protocol: RelayProtocol,
        opening: Opening<'_>,
    ) -> Result<Held, SocketRefused> {
        let goes_outside = opening.policy.opens_at_allocate();
        let has_socket = match self.config.bind {
            Bind::Always => true,
            Bind::Auto => goes_outside,
        };
        if has_socket {
            open_socket(&mut self.environment, relayed, protocol, opening.id)?;
            if protocol == RelayProtocol::Udp && goes_outside {
                self.environment.report_errors(relayed);
            }
        }
        Ok(Held {
            relayed,
            has_socket,
        })
    }

    fn open(&mut self, allocation: Allocation, now: Tick) {
        let tuple = allocation.tuple;
        self.environment.own(allocation.tuple);
        self.events.push_back(Event::Opened {
            id: allocation.id(),
            tuple: allocation.tuple,
            subject: allocation.subject,
            claims: allocation.standing.claims.clone(),
        });
        self.table.insert(allocation);
        self.publish(&tuple, now);
        self.counters.allocations_total.add(1);
        let over = self.counters.over(tuple.listener.transport());
        over.allocations_total.add(1);
        over.allocations.fetch_add(1, Ordering::Relaxed);
        self.count_allocations();
    }

    /// The success response, from what the allocation is now (RFC 8656 §7.2).
    fn allocated(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let Some(allocation) = self.table.by_tuple(&request.tuple) else {
            return Err(Reject::ALLOCATION_MISMATCH);
        };
        let relayed: SmallVec<[RelayedAddr; 2]> =
            allocation.relays.iter().map(Relay::relayed).collect();
        let made_by = allocation.made_by;
        let mapped = XorMappedAddress(allocation.mapped(request.tuple.client));
        let key = self.config.tickets.as_ref();
        let ticket = key.and_then(|key| allocation.ticket(key, self.worker));
        let lifetime = seconds_left(
            allocation.first_end().unwrap_or_default(),
            request.clock.now,
        );
        let fill = |writer: &mut Writer<'_>| {
            for relayed in relayed {
                writer.push(&XorRelayedAddress(relayed.socket_addr()))?;
            }
            writer.push(&Lifetime(lifetime))?;
            if let Some(Token(token)) = made_by.token {
                writer.push(&ReservationToken(token))?;
            }
            if let Some((family, code)) = made_by.refused_family {
                writer.push(&AddressErrorCode {
                    family,
                    code,
                    reason: "",
                })?;
            }
            writer.push(&mapped)?;
            if let Some(ticket) = &ticket {
                writer.push(&MobilityTicket(ticket))?;
            }
            Ok::<_, Full>(())
        };
        self.succeed(request, fill)
    }
}

impl Allocation {
    /// Whether it goes on when the credential it was made with has expired.
    pub(crate) const fn outlives_its_credential(&self) -> bool {
        matches!(self.expiry, Expiry::Lenient)
    }
}

impl<E: Environment> Server<E> {
    /// RFC 8656 §7.2 and §8.2: the smaller of what is asked and what is allowed, but not below the
    /// default; then no longer than the session, and in strict mode than the credential.
    pub(crate) fn lifetime_end(
        &self,
        limits: &Limits,
        request: &Request<'_>,
        asked: Option<u32>,
    ) -> Tick {
        let longest = self.config.allocation_lifetime;
        let default = super::DEFAULT_LIFETIME.min(longest);
        let asked = asked.map_or(default, |secs| Duration::from_secs(secs.into()));
        let granted = request.clock.now.plus(asked.min(longest).max(default));
        granted.min(limits.latest_end(request.auth.expires, request.clock))
    }
}

/// Opens the socket by which peers reach a relayed address.
pub(crate) fn open_socket<E: Environment>(
    environment: &mut E,
    relayed: RelayedAddr,
    protocol: RelayProtocol,
    id: AllocationId,
) -> Result<(), SocketRefused> {
    match protocol {
        RelayProtocol::Udp => environment.open_socket(relayed, id),
        RelayProtocol::Tcp => environment.listen(relayed, id),
    }
}

/// The seconds of a LIFETIME attribute.
pub(crate) fn seconds_left(end: Tick, now: Tick) -> u32 {
    u32::try_from(end.since(now).as_secs()).unwrap_or(u32::MAX)
}
