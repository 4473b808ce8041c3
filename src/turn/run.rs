//! A run: packets that take the same way within one batch. The way is found once, by the first of
//! them; what went along it is counted once, when the run ends.
//!
//! A run lives within one moment: [`Server::settle`](super::Server::settle) ends it after each
//! batch, and so does every input that may change a route. What another worker changes meanwhile
//! is seen from the next batch on, as if the packets had come a moment earlier.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::proto::{
    CHANNEL_DATA_HEADROOM, Class, Full, Icmp, Method, TransactionId, Writer, XorPeerAddress,
    data_indication_headroom, frame_channel_data, frame_data_indication, write_channel_data_head,
    write_data_indication_head,
};
use crate::turn::address::FiveTuple;
use crate::turn::allocation::Allocation;
use crate::turn::clock::Tick;
use crate::turn::media::{Shape, Spell, Tally};
use crate::turn::outcome::{Forward, Fragmentation, Head, Target};
use crate::turn::rates::{Lease, Rates};
use crate::turn::route::{AllocationId, Framing, Landing};
use crate::turn::stats::{Counters, Direction, DropReason, Limit, Path, Volume};
use crate::turn::table::AllocationTable;

/// What packets of one run have in common when they come in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// ChannelData from a client, on this channel.
    Channel(FiveTuple, u16),
    /// Send indications from a client to one peer.
    Indication(FiveTuple, SocketAddr, Fragmentation),
    /// A peer's datagrams at the relay socket of an allocation.
    Peer(AllocationId, SocketAddr),
}

/// Where packets of a run go, and in which shape.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// To a client, framed as it came from `peer`.
    Client {
        client: FiveTuple,
        framing: Framing,
        peer: SocketAddr,
    },
    /// To a peer, bare.
    Peer(Target),
}

/// On whose account a run goes. Allocations are named by their place in the worker's table, which
/// does not change while a run lasts.
#[derive(Debug)]
pub(crate) enum Account {
    /// From one allocation of this server to another, whose landing the sender has in hand.
    Hairpin { sender: u32, place: usize },
    /// From a client to a peer, by a relay socket.
    Out { sender: u32 },
    /// From a peer to a client.
    In { receiver: u32 },
}

/// Packets on one way at one moment.
pub(crate) struct Run {
    pub(crate) key: Key,
    pub(crate) now: Tick,
    pub(crate) way: Way,
    pub(crate) path: Path,
    pub(crate) account: Account,
    pub(crate) volume: Volume,
    pub(crate) media: Tally,
    /// Whether anything limits how much goes.
    pub(crate) is_limited: bool,
}

impl fmt::Debug for Run {
    /// Without key and way, which name endpoints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("now", &self.now)
            .field("path", &self.path)
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

impl Run {
    /// Whether a packet that comes in with `key` at `now` takes this way.
    pub(crate) fn takes(&self, key: &Key, now: Tick) -> bool {
        self.now == now && self.key == *key
    }

    /// A packet with this payload goes, of whose media note is taken.
    pub(crate) fn hear(
        &mut self,
        table: &mut AllocationTable,
        counters: &Counters,
        payload: &[u8],
    ) {
        let Some(shape) = Shape::of(payload) else {
            return;
        };
        let (place, direction) = match self.account {
            Account::Hairpin { sender, .. } | Account::Out { sender } => (sender, Direction::In),
            Account::In { receiver } => (receiver, Direction::Out),
        };
        let media = table.media(place);
        if let Some(spell) = media.take(direction, shape, self.now, &mut self.media) {
            self.record(&spell, table, counters);
        }
    }

    /// What passes between two allocations is measured once, with its sender, and counts on both.
    #[cold]
    fn record(&self, spell: &Spell, table: &AllocationTable, counters: &Counters) {
        let (own, direction) = match self.account {
            Account::Hairpin { sender, place } => {
                counters.spell_ended(Direction::Out, spell);
                let sender = table.at(sender);
                if let Some(landing) = sender.and_then(|sender| sender.reached.at(place)) {
                    landing.meters().set_jitter(Direction::Out, spell.worst);
                }
                (sender, Direction::In)
            }
            Account::Out { sender } => (table.at(sender), Direction::In),
            Account::In { receiver } => (table.at(receiver), Direction::Out),
        };
        counters.spell_ended(direction, spell);
        if let Some(own) = own {
            own.meters().set_jitter(direction, spell.worst);
        }
    }

    /// Counts what went: on both allocations and on the path.
    pub(crate) fn count(&self, table: &AllocationTable, counters: &Counters) {
        if !self.media.is_empty() {
            self.count_media(table, counters);
        }
        let (path, volume) = (self.path, self.volume);
        match &self.account {
            Account::Hairpin { sender, place } => {
                if let Some(sender) = table.at(*sender) {
                    sender.meters().received(path, volume);
                    if let Some(landing) = sender.reached.at(*place) {
                        landing.meters().sent(path, volume);
                    }
                }
                counters.relayed(path, Direction::In, volume);
                counters.relayed(path, Direction::Out, volume);
            }
            Account::Out { sender } => {
                if let Some(sender) = table.at(*sender) {
                    sender.meters().received(path, volume);
                }
                counters.relayed(path, Direction::In, volume);
            }
            Account::In { receiver } => {
                if let Some(receiver) = table.at(*receiver) {
                    receiver.meters().sent(path, volume);
                }
                counters.relayed(path, Direction::Out, volume);
            }
        }
    }

    fn count_media(&self, table: &AllocationTable, counters: &Counters) {
        let media = &self.media;
        match self.account {
            Account::Hairpin { sender, place } => {
                if let Some(sender) = table.at(sender) {
                    sender.meters().media_received(media);
                    if let Some(landing) = sender.reached.at(place) {
                        landing.meters().media_sent(media);
                    }
                }
                counters.media_passed(Direction::In, media);
                counters.media_passed(Direction::Out, media);
            }
            Account::Out { sender } => {
                if let Some(sender) = table.at(sender) {
                    sender.meters().media_received(media);
                }
                counters.media_passed(Direction::In, media);
            }
            Account::In { receiver } => {
                if let Some(receiver) = table.at(receiver) {
                    receiver.meters().media_sent(media);
                }
                counters.media_passed(Direction::Out, media);
            }
        }
    }

    /// What limits those on whose account it goes, the sender first.
    fn rates<'t>(&self, table: &'t AllocationTable) -> [Option<&'t Rates>; 2] {
        let of = |place: &u32| table.at(*place);
        let own = |allocation: &'t Allocation| allocation.rates().map(Arc::as_ref);
        match &self.account {
            Account::Hairpin { sender, place } => [
                of(sender).and_then(own),
                of(sender)
                    .and_then(|sender| sender.reached.at(*place))
                    .and_then(|landing| landing.rates.as_deref()),
            ],
            Account::Out { sender } => [of(sender).and_then(own), None],
            Account::In { receiver } => [None, of(receiver).and_then(own)],
        }
    }

    /// Takes a packet of `bytes` from the buckets of both sides, or from none.
    pub(crate) fn pay(
        &self,
        table: &AllocationTable,
        leases: &mut [Lease; 2],
        bytes: usize,
    ) -> Result<(), Limit> {
        let bytes = bytes as u64;
        let [sender, receiver] = self.rates(table);
        let [of_sender, of_receiver] = leases;
        if let Some(rates) = sender {
            of_sender.pay(rates, bytes, self.now)?;
        }
        if let Some(rates) = receiver
            && let Err(limit) = of_receiver.pay(rates, bytes, self.now)
        {
            if sender.is_some() {
                of_sender.refund(bytes);
            }
            return Err(limit);
        }
        Ok(())
    }

    /// A packet of `bytes` that was paid for does not go.
    pub(crate) fn refund(&self, table: &AllocationTable, leases: &mut [Lease; 2], bytes: usize) {
        for (rates, lease) in self.rates(table).into_iter().zip(leases) {
            if rates.is_some() {
                lease.refund(bytes as u64);
            }
        }
    }

    /// Gives back what was taken ahead.
    pub(crate) fn end_leases(&self, table: &AllocationTable, leases: &mut [Lease; 2]) {
        if self.is_limited {
            for (rates, lease) in self.rates(table).into_iter().zip(leases) {
                if let Some(rates) = rates {
                    lease.end(rates);
                }
            }
        }
    }

    /// Counts the size of a packet that goes.
    pub(crate) fn count_size(&self, bytes: usize, counters: &Counters) {
        if !matches!(self.account, Account::In { .. }) {
            counters.sized(Direction::In, bytes);
        }
        if !matches!(self.account, Account::Out { .. }) {
            counters.sized(Direction::Out, bytes);
        }
    }

    /// Counts a packet that did not fit the receiver's framing, or went too fast for either side.
    pub(crate) fn count_drop(&self, table: &AllocationTable) {
        if let Account::Hairpin { sender, .. } | Account::Out { sender } = &self.account
            && let Some(sender) = table.at(*sender)
        {
            sender.meters().drops_in.add(1);
        }
        let meters = match &self.account {
            Account::Hairpin { sender, place } => table
                .at(*sender)
                .and_then(|sender| sender.reached.at(*place))
                .map(Landing::meters),
            Account::In { receiver } => table.at(*receiver).map(Allocation::meters),
            Account::Out { .. } => None,
        };
        if let Some(meters) = meters {
            meters.drops.add_shared(1);
        }
    }
}

/// The largest payload of a UDP datagram on IPv4 and on IPv6.
const LARGEST: [usize; 2] = [65_507, 65_527];

impl Way {
    /// Makes of a payload what leaves on this way: in place where `buf` has room around it, else
    /// with its header in `aside`.
    pub(crate) fn frame(
        &self,
        buf: &mut [u8],
        payload: Range<usize>,
        aside: &mut Aside,
        id: impl FnOnce() -> TransactionId,
    ) -> Result<Forward, DropReason> {
        let (client, framing, peer) = match *self {
            Self::Client {
                client,
                framing,
                peer,
            } => (client, framing, peer),
            Self::Peer(to) => {
                return Ok(Forward {
                    head: Head::InPlace,
                    range: payload,
                    padding: 0,
                    to,
                });
            }
        };
        let (headroom, padding) = match framing {
            Framing::Channel(_) => (CHANNEL_DATA_HEADROOM, 0),
            Framing::Indication => (
                data_indication_headroom(peer),
                payload.len().next_multiple_of(4) - payload.len(),
            ),
        };
        let largest = LARGEST[usize::from(client.client.expose().is_ipv6())];
        if headroom + payload.len() + padding > largest {
            return Err(DropReason::TooLarge);
        }
        let to = Target::Client(client);
        if payload.start >= headroom && payload.end + padding <= buf.len() {
            let framed = match framing {
                Framing::Channel(number) => frame_channel_data(buf, payload, number),
                Framing::Indication => frame_data_indication(buf, payload, peer, id()),
            };
            return framed
                .map(|range| Forward {
                    head: Head::InPlace,
                    range,
                    padding: 0,
                    to,
                })
                .map_err(|_| DropReason::TooLarge);
        }
        aside
            .write(framing, payload.len(), peer, id)
            .map_err(|_| DropReason::TooLarge)?;
        Ok(Forward {
            head: Head::Aside,
            range: payload,
            padding,
            to,
        })
    }
}

/// The longest that lies aside: a Data indication with ICMP, about an IPv6 peer.
const ASIDE: usize = 56;

/// A header that found no room in front of its payload, or a message that has none.
#[derive(Debug)]
pub(crate) struct Aside {
    bytes: [u8; ASIDE],
    len: usize,
}

impl Default for Aside {
    fn default() -> Self {
        Self {
            bytes: [0; ASIDE],
            len: 0,
        }
    }
}

impl Aside {
    /// The header that was written last.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// RFC 8656 §11.5: a Data indication without DATA.
    pub(crate) fn write_icmp(
        &mut self,
        peer: SocketAddr,
        error: Icmp,
        id: TransactionId,
    ) -> Result<(), Full> {
        let mut writer = Writer::new(&mut self.bytes, Class::Indication, Method::DATA, id)?;
        writer.push(&XorPeerAddress(peer))?;
        writer.push(&error)?;
        self.len = writer.finish();
        Ok(())
    }

    fn write(
        &mut self,
        framing: Framing,
        payload: usize,
        peer: SocketAddr,
        id: impl FnOnce() -> TransactionId,
    ) -> Result<(), Full> {
        self.len = match framing {
            Framing::Channel(number) => write_channel_data_head(&mut self.bytes, payload, number)?,
            Framing::Indication => {
                write_data_indication_head(&mut self.bytes, payload, peer, id())?
            }
        };
        Ok(())
    }
}
