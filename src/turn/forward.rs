//! The data path: ChannelData, Send indications and peers' datagrams, each framed anew in place
//! around its payload. Lookups only; the one thing that changes state is a first packet to a
//! relayed address, which names it.

use std::net::SocketAddr;
use std::ops::Range;

use crate::proto::{
    AddressFamily, AttributeType, ChannelData, Data, DontFragment, Fingerprint, Message,
    TransactionId, XorPeerAddress, frame_channel_data, frame_data_indication,
};
use crate::turn::address::{FiveTuple, PeerAddr, RelayedAddr};
use crate::turn::allocation::{Allocation, Named};
use crate::turn::clock::Tick;
use crate::turn::environment::Environment;
use crate::turn::policy::Verdict;
use crate::turn::route::{AllocationId, Framing, Name, PeerKind, Route};
use crate::turn::stats::{Direction, DropReason, Path};
use crate::turn::{Forward, Fragmentation, Handled, Server, Target};

/// The comprehension-required attributes of a Send indication (RFC 8656 §11.1).
const SEND: &[AttributeType] = &[
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::DATA,
    AttributeType::DONT_FRAGMENT,
];
/// The largest payload of a UDP datagram on IPv4 and on IPv6.
const LARGEST: [usize; 2] = [65_507, 65_527];

/// What a Send indication asks for.
pub(crate) struct SendIndication {
    peer: SocketAddr,
    payload: Range<usize>,
    fragmentation: Fragmentation,
}

impl SendIndication {
    /// RFC 8656 §11.2: takes the indication `message` in `buf` apart.
    pub(crate) fn parse(message: &Message<'_>, buf: &[u8]) -> Result<Self, DropReason> {
        let (Some(Ok(XorPeerAddress(peer))), Some(Ok(Data(data)))) =
            (message.find::<XorPeerAddress>(), message.find::<Data<'_>>())
        else {
            return Err(DropReason::BadIndication);
        };
        if message.unknown_required(SEND).next().is_some() {
            return Err(DropReason::BadIndication);
        }
        if message.fingerprint() == Fingerprint::Invalid {
            return Err(DropReason::Fingerprint);
        }
        let fragmentation = match message.find::<DontFragment>() {
            None => Fragmentation::Allowed,
            Some(_) => Fragmentation::Forbidden,
        };
        Ok(Self {
            peer,
            payload: place_of(data, buf),
            fragmentation,
        })
    }
}

/// A payload on its way from a client, still in the buffer it came in.
struct Outbound<'b> {
    buf: &'b mut [u8],
    payload: Range<usize>,
    fragmentation: Fragmentation,
}

impl<E: Environment> Server<E> {
    /// RFC 8656 §12.6: ChannelData from a client.
    pub(crate) fn handle_channel_data(
        &mut self,
        tuple: FiveTuple,
        buf: &mut [u8],
        datagram: Range<usize>,
        now: Tick,
    ) -> Handled {
        let Some(Ok(data)) = buf.get(datagram).map(ChannelData::decode_datagram) else {
            return self.drop(DropReason::Malformed);
        };
        let (channel, payload) = (data.channel, place_of(data.payload, buf));
        let Some(allocation) = self.table.by_tuple(&tuple) else {
            return self.miss(tuple);
        };
        allocation.meters().heard(now);
        let Some(route) = allocation.route_of_channel(channel, now) else {
            return self.drop(DropReason::NoChannel);
        };
        let outbound = Outbound {
            buf,
            payload,
            fragmentation: Fragmentation::Allowed,
        };
        self.follow(tuple, route, outbound, Path::Relay, now)
    }

    /// RFC 8656 §11.2: a Send indication. It is not authenticated; the permission is what counts.
    pub(crate) fn handle_send(
        &mut self,
        tuple: FiveTuple,
        buf: &mut [u8],
        send: SendIndication,
        now: Tick,
    ) -> Handled {
        let SendIndication {
            peer,
            payload,
            fragmentation,
        } = send;
        let Some(allocation) = self.table.by_tuple(&tuple) else {
            return self.miss(tuple);
        };
        allocation.meters().heard(now);
        let route = match self.route_of_peer(allocation, peer, now) {
            Ok(route) => route,
            Err(reason) => return self.drop(reason),
        };
        self.follow(
            tuple,
            route,
            Outbound {
                buf,
                payload,
                fragmentation,
            },
            Path::Indication,
            now,
        )
    }

    fn route_of_peer(
        &self,
        allocation: &Allocation,
        peer: SocketAddr,
        now: Tick,
    ) -> Result<Route, DropReason> {
        let relay = allocation
            .relay(AddressFamily::of(peer.ip()), now)
            .ok_or(DropReason::Family)?;
        let permission = allocation
            .permission(peer.ip(), now)
            .ok_or(DropReason::NoPermission)?;
        // A permission covers an IP; the port is judged packet by packet. On a relay IP that
        // `allow` opens, it decides between a relayed address and another program of that host.
        let kind = match (
            self.config.judge.peer(&allocation.policy, peer),
            permission.kind,
        ) {
            (Verdict::OwnRelay, _) | (Verdict::Refused(_), PeerKind::Own) => PeerKind::Own,
            (Verdict::FleetRelay, _) => PeerKind::Fleet,
            (Verdict::Foreign, _) => PeerKind::Foreign,
            (Verdict::Refused(_), PeerKind::Fleet | PeerKind::Foreign) => {
                return Err(DropReason::PolicyRefused);
            }
        };
        Ok(Route {
            from: relay.relayed(),
            peer: PeerAddr::new(peer),
            kind,
            until: permission.until.at().min(relay.until().at()),
        })
    }

    fn follow(
        &mut self,
        tuple: FiveTuple,
        route: Route,
        outbound: Outbound<'_>,
        path: Path,
        now: Tick,
    ) -> Handled {
        debug_assert!(now < route.until, "a route was found past its deadline");
        if route.kind == PeerKind::Own {
            return self.hairpin(tuple, route, outbound, now);
        }
        let Some(allocation) = self.table.by_tuple(&tuple) else {
            return self.drop(DropReason::NoAllocation);
        };
        let has_socket = allocation
            .relays
            .iter()
            .any(|relay| relay.relayed() == route.from && relay.has_socket());
        if !has_socket {
            return self.drop(DropReason::NoRelay);
        }
        allocation.meters().received(path, outbound.payload.len());
        self.counters
            .relayed(path, Direction::In, outbound.payload.len());
        Handled::Forward(Forward {
            range: outbound.payload,
            to: Target::Peer {
                from: route.from,
                to: route.peer,
                fragmentation: outbound.fragmentation,
            },
        })
    }

    /// From one relayed address of this server to another, without the kernel between: the
    /// receiver sees the sender's relayed address, and nothing else of it. DONT-FRAGMENT has no
    /// hop to act on.
    fn hairpin(
        &mut self,
        tuple: FiveTuple,
        route: Route,
        outbound: Outbound<'_>,
        now: Tick,
    ) -> Handled {
        let Self {
            table,
            environment,
            rng,
            counters,
            ..
        } = self;
        let Some(sender) = table.by_tuple_mut(&tuple) else {
            return self.drop(DropReason::NoAllocation);
        };
        let target = RelayedAddr::new(route.peer.expose());
        let length = outbound.payload.len();
        let mut named = Named::Already;
        let id = || TransactionId::new(super::random(rng));
        let landed = environment.with(target, |landing| {
            if !landing.until().holds(now) {
                return Err(DropReason::NoLanding);
            }
            let name = Name {
                peer: target,
                subject: Some(landing.subject),
            };
            named = sender.name_by_sending(name, now, environment);
            let admitted = if sender.is_reachable_only_in_its_call() {
                Err(DropReason::OtherCall)
            } else {
                landing.admit(route.from, sender.subject, now, environment)
            };
            let landed = admitted.and_then(|framing| {
                let client = landing.client;
                frame(
                    outbound.buf,
                    outbound.payload,
                    framing,
                    route.from.socket_addr(),
                    client,
                    id,
                )
                .map(|range| Forward {
                    range,
                    to: Target::Client(client),
                })
            });
            match &landed {
                Ok(_) => landing.meters().sent(Path::Hairpin, length),
                Err(_) => landing.meters().drops.add_shared(1),
            }
            landed
        });
        let handled = match landed.unwrap_or(Err(DropReason::NoLanding)) {
            Ok(forward) => {
                sender.meters().received(Path::Hairpin, length);
                counters.relayed(Path::Hairpin, Direction::In, length);
                counters.relayed(Path::Hairpin, Direction::Out, length);
                Handled::Forward(forward)
            }
            Err(reason) => self.drop(reason),
        };
        if named == Named::Anew {
            self.publish(&tuple, now);
        }
        handled
    }

    /// RFC 8656 §11.3: a datagram from a peer at the relay socket of allocation `id`.
    pub(crate) fn handle_peer_datagram(
        &mut self,
        id: AllocationId,
        source: SocketAddr,
        buf: &mut [u8],
        datagram: Range<usize>,
        now: Tick,
    ) -> Handled {
        let Self {
            table,
            rng,
            config,
            counters,
            ..
        } = self;
        let Some(allocation) = table.by_id(id) else {
            return self.drop(DropReason::NoRelay);
        };
        // A node of the fleet may be seen under another address than clients know it by.
        let peer = config.judge.named(config.judge.outer(source));
        let verdict = config.judge.peer(&allocation.policy, peer);
        // A hairpin never comes by the kernel.
        if verdict == Verdict::OwnRelay {
            return self.drop(DropReason::ByKernel);
        }
        if allocation
            .relay(AddressFamily::of(peer.ip()), now)
            .is_none()
        {
            return self.drop(DropReason::NoRelay);
        }
        if allocation.permission(peer.ip(), now).is_none() {
            allocation.meters().drops.add_shared(1);
            return self.drop(DropReason::NoPermission);
        }
        if !verdict.is_admitted() {
            allocation.meters().drops.add_shared(1);
            return self.drop(DropReason::PolicyRefused);
        }
        let length = datagram.len();
        let framing = allocation.framing(peer, now);
        let path = match framing {
            Framing::Channel(_) => Path::Relay,
            Framing::Indication => Path::Indication,
        };
        let id = || TransactionId::new(super::random(rng));
        match frame(buf, datagram, framing, peer, allocation.tuple, id) {
            Ok(range) => {
                allocation.meters().sent(path, length);
                counters.relayed(path, Direction::Out, length);
                Handled::Forward(Forward {
                    range,
                    to: Target::Client(allocation.tuple),
                })
            }
            Err(reason) => {
                allocation.meters().drops.add_shared(1);
                self.drop(reason)
            }
        }
    }

    /// Data on a 5-tuple without an allocation here: another worker's, or nobody's.
    fn miss(&self, tuple: FiveTuple) -> Handled {
        match self.environment.other_owner(tuple) {
            Some(owner) => Handled::Elsewhere(owner),
            None => self.drop(DropReason::NoAllocation),
        }
    }
}

/// Frames a payload for a client, in place.
fn frame(
    buf: &mut [u8],
    payload: Range<usize>,
    framing: Framing,
    peer: SocketAddr,
    client: FiveTuple,
    id: impl FnOnce() -> TransactionId,
) -> Result<Range<usize>, DropReason> {
    let framed = match framing {
        Framing::Channel(number) => frame_channel_data(buf, payload, number),
        Framing::Indication => frame_data_indication(buf, payload, peer, id()),
    };
    let largest = LARGEST[usize::from(client.client.expose().is_ipv6())];
    framed
        .ok()
        .filter(|range| range.len() <= largest)
        .ok_or(DropReason::TooLarge)
}

/// Where in `whole` the slice `part` of it lies.
fn place_of(part: &[u8], whole: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}
