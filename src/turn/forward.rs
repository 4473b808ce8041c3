//! The data path: ChannelData, Send indications and peers' datagrams, each framed anew around its
//! payload. The first packet of a [`Run`] finds the way, by lookups only; the one thing that changes
//! state is a first packet to a relayed address, which names it.

use std::net::SocketAddr;
use std::ops::Range;

use crate::proto::{
    AddressFamily, AttributeType, ChannelData, Data, DontFragment, Fingerprint, Message,
    TransactionId, XorPeerAddress,
};
use crate::turn::address::{FiveTuple, PeerAddr, RelayedAddr};
use crate::turn::allocation::{Allocation, Named};
use crate::turn::clock::Tick;
use crate::turn::environment::Environment;
use crate::turn::media::Tally;
use crate::turn::policy::{Refusal, Verdict};
use crate::turn::route::{AllocationId, Framing, Name, PeerKind, RelayProtocol, Route};
use crate::turn::run::{Account, Key, Run, Way};
use crate::turn::stats::{DropReason, Path, Volume};
use crate::turn::{Fragmentation, Handled, Server, Target};

/// The comprehension-required attributes of a Send indication (RFC 8656 §11.1).
const SEND: &[AttributeType] = &[
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::DATA,
    AttributeType::DONT_FRAGMENT,
];
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
        let key = Key::Channel(tuple, channel);
        if !self.goes_on(&key, now) {
            let Some(index) = self.index_of(tuple, now) else {
                return self.miss(tuple);
            };
            let route = self.table.at(index).and_then(|allocation| {
                allocation.meters().heard(now);
                allocation.route_of_channel(channel, now)
            });
            let begun = route
                .ok_or(DropReason::NoChannel)
                .and_then(|route| self.begin(key, index, route, Fragmentation::Allowed, now));
            if let Err(reason) = begun {
                return self.drop_of(index, reason);
            }
        }
        self.carry(buf, payload)
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
        let key = Key::Indication(tuple, peer, fragmentation);
        if !self.goes_on(&key, now) {
            let Some(index) = self.index_of(tuple, now) else {
                return self.miss(tuple);
            };
            let route = self.table.at(index).ok_or(DropReason::NoAllocation);
            let begun = route
                .and_then(|allocation| {
                    allocation.meters().heard(now);
                    self.route_of_peer(allocation, peer, now)
                })
                .and_then(|route| self.begin(key, index, route, fragmentation, now));
            if let Err(reason) = begun {
                return self.drop_of(index, reason);
            }
        }
        self.carry(buf, payload)
    }

    /// Where the allocation on `tuple` stands; RFC 8016 §3.2.2: data on the 5-tuple that a client
    /// has gone to makes it the allocation's.
    fn index_of(&mut self, tuple: FiveTuple, now: Tick) -> Option<u32> {
        let index = self.table.index_of(&tuple);
        index.or_else(|| self.arrive(tuple, now))
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
        // RFC 6062 §3: a control connection carries no application data.
        if relay.protocol() == RelayProtocol::Tcp {
            return Err(DropReason::NoRelay);
        }
        let Some(permission) = allocation.permission(peer.ip(), now) else {
            return Err(self.reason_for_none(allocation, peer));
        };
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

    /// Why nothing goes to a peer without a permission. A party that is kept to its call has none
    /// on other nodes because it gets none, which the operator is told.
    fn reason_for_none(&self, allocation: &Allocation, peer: SocketAddr) -> DropReason {
        match self.config.judge.peer(&allocation.policy, peer) {
            Verdict::Refused(Refusal::OtherNode) => DropReason::PolicyRefused,
            Verdict::Refused(_) | Verdict::OwnRelay | Verdict::FleetRelay | Verdict::Foreign => {
                DropReason::NoPermission
            }
        }
    }

    /// Whether the run that goes on takes a packet with `key` too; a run that does not has ended.
    fn goes_on(&mut self, key: &Key, now: Tick) -> bool {
        let goes_on = self.run.as_ref().is_some_and(|run| run.takes(key, now));
        if !goes_on {
            self.settle();
        }
        goes_on
    }

    /// Begins a run from the client whose allocation stands at `sender`.
    fn begin(
        &mut self,
        key: Key,
        sender: u32,
        route: Route,
        fragmentation: Fragmentation,
        now: Tick,
    ) -> Result<(), DropReason> {
        debug_assert!(now < route.until, "a route was found past its deadline");
        if route.kind == PeerKind::Own {
            return self.begin_hairpin(key, sender, route, now);
        }
        let has_socket = self.table.at(sender).is_some_and(|allocation| {
            allocation
                .relays
                .iter()
                .any(|relay| relay.relayed() == route.from && relay.has_socket())
        });
        if !has_socket {
            return Err(DropReason::NoRelay);
        }
        let way = Way::Peer(Target::Peer {
            from: route.from,
            to: route.peer,
            fragmentation,
        });
        let path = match key {
            Key::Indication(..) => Path::Indication,
            Key::Channel(..) | Key::Peer(..) => Path::Relay,
        };
        self.run = Some(Run {
            key,
            now,
            way,
            path,
            account: Account::Out { sender },
            volume: Volume::default(),
            media: Tally::default(),
            is_limited: self.table.at(sender).is_some_and(Allocation::is_limited),
        });
        Ok(())
    }

    /// From one relayed address of this server to another, without the kernel between: the
    /// receiver sees the sender's relayed address, and nothing else of it. DONT-FRAGMENT has no
    /// hop to act on.
    fn begin_hairpin(
        &mut self,
        key: Key,
        index: u32,
        route: Route,
        now: Tick,
    ) -> Result<(), DropReason> {
        let Self {
            table, environment, ..
        } = self;
        let sender = table.at_mut(index).ok_or(DropReason::NoAllocation)?;
        let tuple = sender.tuple;
        let target = RelayedAddr::new(route.peer.expose());
        let place = sender.reached.place(target, environment);
        let place = place.ok_or(DropReason::NoLanding)?;
        let landing = sender.reached.at(place);
        let landing = landing
            .filter(|landing| landing.until().holds(now) && landing.protocol == RelayProtocol::Udp);
        let name = Name {
            peer: target,
            subject: Some(landing.ok_or(DropReason::NoLanding)?.subject),
        };
        let named = sender.name_by_sending(name, now, environment);
        let landing = sender.reached.at(place).ok_or(DropReason::NoLanding)?;
        let admitted = landing.admit(&sender.sender(route.from), now, environment);
        let client = landing.client;
        let is_limited = sender.is_limited() || landing.rates.is_some();
        if admitted.is_err() {
            landing.meters().drops.add_shared(1);
        }
        let begun = admitted.map(|framing| {
            self.run = Some(Run {
                key,
                now,
                way: Way::Client {
                    client,
                    framing,
                    peer: route.from.socket_addr(),
                },
                path: Path::Hairpin,
                account: Account::Hairpin {
                    sender: index,
                    place,
                },
                volume: Volume::default(),
                media: Tally::default(),
                is_limited,
            });
        });
        if named == Named::Anew {
            self.publish(&tuple, now);
        }
        begun
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
        if buf.get(datagram.clone()).is_none() {
            return self.drop(DropReason::Malformed);
        }
        let key = Key::Peer(id, source);
        if !self.goes_on(&key, now)
            && let Err(reason) = self.begin_from_peer(key, id, source, now)
        {
            return self.drop(reason);
        }
        self.carry(buf, datagram)
    }

    fn begin_from_peer(
        &mut self,
        key: Key,
        id: AllocationId,
        source: SocketAddr,
        now: Tick,
    ) -> Result<(), DropReason> {
        let index = self.table.index_of_id(id).ok_or(DropReason::NoRelay)?;
        let allocation = self.table.at(index).ok_or(DropReason::NoRelay)?;
        let peer = self.admit_peer(allocation, source, now)?;
        let framing = allocation.framing(peer, now);
        let path = match framing {
            Framing::Channel(_) => Path::Relay,
            Framing::Indication => Path::Indication,
        };
        self.run = Some(Run {
            key,
            now,
            way: Way::Client {
                client: allocation.tuple,
                framing,
                peer,
            },
            path,
            account: Account::In { receiver: index },
            volume: Volume::default(),
            media: Tally::default(),
            is_limited: allocation.is_limited(),
        });
        Ok(())
    }

    /// Whether what comes from `source` by a socket is for the allocation, and as whose it is
    /// known.
    pub(crate) fn admit_peer(
        &self,
        allocation: &Allocation,
        source: SocketAddr,
        now: Tick,
    ) -> Result<SocketAddr, DropReason> {
        // A node of the fleet may be seen under another address than clients know it by.
        let judge = &self.config.judge;
        let peer = judge.named(judge.outer(source));
        let verdict = judge.peer(&allocation.policy, peer);
        // A hairpin never comes by the kernel.
        if verdict == Verdict::OwnRelay {
            return Err(DropReason::ByKernel);
        }
        if allocation
            .relay(AddressFamily::of(peer.ip()), now)
            .is_none()
        {
            return Err(DropReason::NoRelay);
        }
        let refused = if allocation.permission(peer.ip(), now).is_none() {
            Some(self.reason_for_none(allocation, peer))
        } else if !verdict.is_admitted() {
            Some(DropReason::PolicyRefused)
        } else if allocation.tuple.is_nowhere() {
            Some(DropReason::Away)
        } else {
            None
        };
        if let Some(reason) = refused {
            allocation.meters().drops.add_shared(1);
            return Err(reason);
        }
        Ok(peer)
    }

    /// Sends the payload along the run that goes on.
    fn carry(&mut self, buf: &mut [u8], payload: Range<usize>) -> Handled {
        let Self {
            run,
            rng,
            aside,
            table,
            leases,
            config,
            counters,
            ..
        } = self;
        let Some(run) = run else {
            return self.drop(DropReason::NoAllocation);
        };
        let length = payload.len();
        if run.is_limited
            && let Err(limit) = run.pay(table, leases, length)
        {
            run.count_drop(table);
            self.counters.limited(limit);
            return self.drop(DropReason::OverRate);
        }
        let id = || TransactionId::new(super::random(rng));
        match run.way.frame(buf, payload.clone(), aside, id) {
            Ok(forward) => {
                run.volume.packets += 1;
                run.volume.bytes += length as u64;
                run.count_size(length, counters);
                // Its header was written around the payload.
                if let Some(payload) = buf.get(payload).filter(|_| config.media_quality) {
                    run.hear(table, counters, payload);
                }
                Handled::Forward(forward)
            }
            Err(reason) => {
                if run.is_limited {
                    run.refund(table, leases, length);
                }
                run.count_drop(table);
                self.drop(reason)
            }
        }
    }

    /// A packet from the client whose allocation stands at `index` goes nowhere.
    fn drop_of(&self, index: u32, reason: DropReason) -> Handled {
        if let Some(allocation) = self.table.at(index) {
            allocation.meters().drops_in.add(1);
        }
        self.drop(reason)
    }

    /// Data on a 5-tuple without an allocation here: another worker's, or nobody's.
    fn miss(&self, tuple: FiveTuple) -> Handled {
        match self.environment.other_owner(tuple) {
            Some(owner) => Handled::Elsewhere(owner),
            None => self.drop(DropReason::NoAllocation),
        }
    }
}

/// Where in `whole` the slice `part` of it lies.
fn place_of(part: &[u8], whole: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}
