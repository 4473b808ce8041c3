//! CreatePermission (RFC 8656 §10.2), all of it or nothing. It judges the IP only: a relay IP
//! succeeds where the policy admits relays whether or not the port is live, so that the answer
//! tells nobody which ports are.

use std::net::{IpAddr, SocketAddr};

use crate::proto::{AddressFamily, XorPeerAddress};
use crate::turn::Server;
use crate::turn::address::RelayedAddr;
use crate::turn::allocate::open_socket;
use crate::turn::clock::Tick;
use crate::turn::environment::Environment;
use crate::turn::policy::Verdict;
use crate::turn::request::{Reject, Request};
use crate::turn::route::{Name, PeerKind, live_subject};
use crate::turn::stats::Limit;

impl<E: Environment> Server<E> {
    pub(crate) fn create_permission(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let now = request.clock.now;
        let limit = self.config.limits.permissions;
        let mut peers: Vec<(SocketAddr, PeerKind)> = Vec::new();
        for peer in request.message.all::<XorPeerAddress>() {
            let Ok(XorPeerAddress(peer)) = peer else {
                return Err(Reject::BAD_REQUEST);
            };
            // As many as there may be, so that one request is not much more work than another.
            if peers.len() == limit {
                return Err(self.limited(Limit::Permissions));
            }
            peers.push((peer, PeerKind::Foreign));
        }
        if peers.is_empty() {
            return Err(Reject::BAD_REQUEST);
        }
        let Some(allocation) = self.table.by_tuple_mut(&request.tuple) else {
            return Err(Reject::ALLOCATION_MISMATCH);
        };

        let family_of = |(peer, _): &(SocketAddr, _)| AddressFamily::of(peer.ip());
        if peers
            .iter()
            .any(|peer| allocation.relay(family_of(peer), now).is_none())
        {
            return Err(Reject::PEER_FAMILY);
        }
        for (peer, kind) in &mut peers {
            *kind = kind_of(self.config.judge.permission(&allocation.policy, peer.ip()))?;
        }
        let ips: Vec<IpAddr> = peers.iter().map(|(peer, _)| peer.ip()).collect();
        if !allocation.has_room_for(&ips, limit, now) {
            return Err(self.limited(Limit::Permissions));
        }
        self.open_sockets(request, &peers)?;
        // The answer is built before anything is permitted, so that one that cannot be given
        // changes nothing.
        self.succeed(request, |_| Ok(()))?;
        for (peer, kind) in peers {
            let name = self.name(peer, kind, now);
            if let Some(allocation) = self.table.by_tuple_mut(&request.tuple) {
                allocation.permit(peer.ip(), kind, name, now);
            }
        }
        self.publish(&request.tuple, now);
        Ok(())
    }

    /// The name to give a relayed address of this server; ports outside the relay range, 0
    /// included, name nobody.
    pub(crate) fn name(&self, peer: SocketAddr, kind: PeerKind, now: Tick) -> Option<Name> {
        if kind != PeerKind::Own || !self.config.judge.is_relay_source(peer) {
            return None;
        }
        let peer = RelayedAddr::new(peer);
        let subject = live_subject(&self.environment, peer, now);
        Some(Name { peer, subject })
    }

    /// Opens the sockets that peers outside this server need, before success is sent.
    pub(crate) fn open_sockets(
        &mut self,
        request: &Request<'_>,
        peers: &[(SocketAddr, PeerKind)],
    ) -> Result<(), Reject> {
        let Some(allocation) = self.table.by_tuple_mut(&request.tuple) else {
            return Ok(());
        };
        let id = allocation.id();
        let mut opened = Ok(());
        for relay in &mut allocation.relays {
            let family = AddressFamily::of(relay.relayed().ip());
            let is_needed = peers.iter().any(|(peer, kind)| {
                *kind != PeerKind::Own && AddressFamily::of(peer.ip()) == family
            });
            if !relay.has_socket() && is_needed {
                let (relayed, protocol) = (relay.relayed(), relay.protocol());
                opened = open_socket(&mut self.environment, relayed, protocol, id);
                if opened.is_err() {
                    break;
                }
                relay.change().has_socket = true;
            }
        }
        opened.map_err(|_| {
            // One of two may be open, and stays.
            self.publish(&request.tuple, request.clock.now);
            Reject::CAPACITY
        })
    }
}

/// Policy refusals are always 403.
pub(crate) const fn kind_of(verdict: Verdict) -> Result<PeerKind, Reject> {
    match verdict {
        Verdict::OwnRelay => Ok(PeerKind::Own),
        Verdict::FleetRelay => Ok(PeerKind::Fleet),
        Verdict::Foreign => Ok(PeerKind::Foreign),
        Verdict::Refused(_) => Err(Reject::FORBIDDEN),
    }
}
