//! The oracle: what must become of each datagram, said as naively as the documents say it (RFC
//! 8656 §7 to §12, design.md sections 2 and 5). It reads every list from its beginning, never
//! forgets anything by itself, and looks at time only by comparing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use taciturn::proto::{AddressFamily, TransactionId};
use taciturn::turn::stats::{Direction, Path};
use taciturn::turn::{AllocationId, FiveTuple};

use super::setting::{Class, Entitled, Policy, SECOND, Setting, named};
use super::taken::Taken;

pub const PERMISSION: u64 = 300 * SECOND;
pub const CHANNEL: u64 = 600 * SECOND;
pub const COOL_DOWN: u64 = 300 * SECOND;
pub const MOST_NAMES: usize = 32;

/// Whether a relayed address has a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Nothing was promised that needs one.
    No,
    /// A request that needed one was refused, perhaps after it was opened.
    Perhaps,
    Yes,
}

#[derive(Debug, Clone)]
pub struct Relay {
    pub addr: SocketAddr,
    pub until: u64,
    pub socket: Promise,
}

#[derive(Debug, Clone)]
pub struct Permission {
    pub ip: IpAddr,
    pub until: u64,
    /// Named relayed addresses, and whose they were then.
    pub names: Vec<(SocketAddr, Option<usize>)>,
}

#[derive(Debug, Clone)]
pub struct Channel {
    pub number: u16,
    pub peer: SocketAddr,
    pub until: u64,
}

/// Packets and bytes.
pub type Traffic = [[(u64, u64); Direction::ALL.len()]; Path::ALL.len()];

#[derive(Debug, Clone)]
pub struct Allocation {
    pub id: AllocationId,
    pub worker: usize,
    pub tuple: FiveTuple,
    pub user: usize,
    pub username: String,
    pub entitled: Entitled,
    pub transaction: TransactionId,
    pub token: Option<[u8; 8]>,
    /// What its client may take it along with.
    pub ticket: Option<Vec<u8>>,
    pub opened: u64,
    pub session_end: u64,
    pub heard: u64,
    /// Another allocation of the user took its place; it is over, though not taken away yet.
    pub replaced: bool,
    pub relays: Vec<Relay>,
    pub permissions: Vec<Permission>,
    pub channels: Vec<Channel>,
    pub traffic: Traffic,
    /// When everything that was relayed for it is paid for, packet by packet.
    pub paid_until: u64,
}

impl Allocation {
    pub fn is_live(&self, now: u64) -> bool {
        self.relays.iter().any(|relay| now < relay.until)
    }

    pub fn mapped(&self) -> Option<SocketAddr> {
        let relayed: Vec<SocketAddr> = self.relays.iter().map(|relay| relay.addr).collect();
        mapped(self.entitled, self.tuple, &relayed)
    }

    pub fn relay(&self, family: AddressFamily, now: u64) -> Option<&Relay> {
        self.relays
            .iter()
            .find(|relay| AddressFamily::of(relay.addr.ip()) == family && now < relay.until)
    }

    pub fn permission(&self, ip: IpAddr, now: u64) -> Option<&Permission> {
        self.permissions
            .iter()
            .find(|permission| permission.ip == ip && now < permission.until)
    }

    /// The channel bound to exactly this peer.
    pub fn channel_to(&self, peer: SocketAddr, now: u64) -> Option<u16> {
        self.channels
            .iter()
            .find(|channel| channel.peer == peer && now < channel.until)
            .map(|channel| channel.number)
    }

    /// RFC 8656 §9.2: installs or refreshes; a permission that ended begins anew, without names.
    pub fn permit(&mut self, ip: IpAddr, name: Option<(SocketAddr, Option<usize>)>, now: u64) {
        self.permissions.retain(|permission| now < permission.until);
        if self.permission(ip, now).is_none() {
            self.permissions.push(Permission {
                ip,
                until: 0,
                names: Vec::new(),
            });
        }
        for permission in self.permissions.iter_mut().filter(|other| other.ip == ip) {
            permission.until = now + PERMISSION;
            if let Some((addr, user)) = name {
                permission.names.retain(|(other, _)| *other != addr);
                if permission.names.len() == MOST_NAMES {
                    permission.names.remove(0);
                }
                permission.names.push((addr, user));
            }
        }
    }

    pub fn count(&mut self, path: Path, direction: Direction, bytes: usize) {
        let traffic = &mut self.traffic[path as usize][direction as usize];
        traffic.0 += 1;
        traffic.1 += bytes as u64;
    }
}

/// A port that waits for its RESERVATION-TOKEN.
#[derive(Debug, Clone)]
pub struct Reservation {
    pub token: [u8; 8],
    pub addr: SocketAddr,
    pub user: usize,
    pub until: u64,
}

/// Data from a client, as it says where to.
#[derive(Debug, Clone, Copy)]
pub enum Says {
    Channel(u16),
    Send { peer: SocketAddr, forbid: bool },
}

/// What must become of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    ToClient {
        tuple: FiveTuple,
        channel: Option<u16>,
        visible: SocketAddr,
    },
    ToPeer {
        from: SocketAddr,
        to: SocketAddr,
        forbid: bool,
    },
}

/// Everything that is, or was a moment ago.
#[derive(Debug)]
pub struct Model {
    pub setting: Rc<Setting>,
    pub allocations: Vec<Allocation>,
    pub reservations: Vec<Reservation>,
    /// When each relayed address was given back last.
    pub released: BTreeMap<SocketAddr, u64>,
    /// Until when ports may be at rest that this model never saw in use.
    pub disturbed_until: u64,
    /// Packets and bytes over all allocations that ever were.
    pub traffic: Traffic,
    /// What was taken back, and when in Unix seconds.
    pub taken: Vec<(Taken, u64)>,
}

impl Model {
    pub fn new(setting: Rc<Setting>) -> Self {
        Self {
            setting,
            allocations: Vec::new(),
            reservations: Vec::new(),
            released: BTreeMap::new(),
            disturbed_until: 0,
            traffic: Traffic::default(),
            taken: Vec::new(),
        }
    }

    /// The allocation on a 5-tuple, also if it has ended and nobody has noticed.
    pub fn on(&self, tuple: FiveTuple) -> Option<&Allocation> {
        self.allocations.iter().find(|a| a.tuple == tuple)
    }

    pub fn on_mut(&mut self, tuple: FiveTuple) -> Option<&mut Allocation> {
        self.allocations.iter_mut().find(|a| a.tuple == tuple)
    }

    pub fn live_on(&self, tuple: FiveTuple, now: u64) -> Option<&Allocation> {
        self.on(tuple).filter(|allocation| allocation.is_live(now))
    }

    /// Whose live relayed address this is.
    pub fn live_at(&self, addr: SocketAddr, now: u64) -> Option<&Allocation> {
        self.allocations.iter().find(|allocation| {
            allocation
                .relays
                .iter()
                .any(|relay| relay.addr == addr && now < relay.until)
        })
    }

    /// RFC 8656 §11.2 and §12.6, and design.md on hairpins.
    pub fn foretell_client(
        &mut self,
        tuple: FiveTuple,
        says: Says,
        length: usize,
        now: u64,
    ) -> Fate {
        if let Some(allocation) = self.on_mut(tuple) {
            allocation.heard = now;
        }
        let Some(sender) = self.live_on(tuple, now) else {
            return Fate::Dropped;
        };
        let (peer, path, forbid) = match says {
            Says::Channel(number) => {
                let bound = sender
                    .channels
                    .iter()
                    .find(|channel| channel.number == number && now < channel.until);
                match bound {
                    Some(channel) => (channel.peer, Path::Relay, false),
                    None => return Fate::Dropped,
                }
            }
            Says::Send { peer, forbid } => {
                if sender.permission(peer.ip(), now).is_none() {
                    return Fate::Dropped;
                }
                (peer, Path::Indication, forbid)
            }
        };
        let Some(from) = sender.relay(AddressFamily::of(peer.ip()), now) else {
            return Fate::Dropped;
        };
        let from = from.addr;
        let policy = sender.entitled.policy;
        match self.setting.class(policy, peer.ip(), Some(peer.port())) {
            Class::Refused => Fate::Dropped,
            Class::Own => self.hairpin(tuple, from, peer, length, now),
            Class::Fleet | Class::Foreign if !self.pay(&[tuple], now) => Fate::Dropped,
            Class::Fleet | Class::Foreign => {
                self.count(tuple, path, Direction::In, length);
                Fate::ToPeer {
                    from,
                    to: peer,
                    forbid,
                }
            }
        }
    }

    fn hairpin(
        &mut self,
        tuple: FiveTuple,
        from: SocketAddr,
        to: SocketAddr,
        length: usize,
        now: u64,
    ) -> Fate {
        let Some(receiver) = self.live_at(to, now) else {
            return Fate::Dropped;
        };
        let Some(sender) = self.on(tuple) else {
            return Fate::Dropped;
        };
        let (receiver_user, receiver_tuple) = (receiver.user, receiver.tuple);
        let fate = if may_meet(sender.entitled, receiver.entitled)
            && self.admits(receiver, from, sender.user, now)
        {
            deliver(receiver, from, length, now)
        } else {
            Fate::Dropped
        };
        // Named for what comes back, not for the very packet that names.
        self.name_by_sending(tuple, to, receiver_user, now);
        if fate != Fate::Dropped && !self.pay(&[tuple, receiver_tuple], now) {
            return Fate::Dropped;
        }
        if fate != Fate::Dropped {
            self.count(tuple, Path::Hairpin, Direction::In, length);
            self.count(receiver_tuple, Path::Hairpin, Direction::Out, length);
        }
        fate
    }

    /// design.md section 5: the permission, and within it the second gate, naming.
    fn admits(&self, receiver: &Allocation, from: SocketAddr, sender: usize, now: u64) -> bool {
        let Some(permission) = receiver.permission(from.ip(), now) else {
            return false;
        };
        permission.names.iter().any(|(addr, user)| match user {
            Some(user) => *user == sender,
            // Named while it was nobody's: it, or whoever has it now.
            None => {
                *addr == from
                    || self
                        .live_at(*addr, now)
                        .is_some_and(|other| other.user == sender)
            }
        })
    }

    fn name_by_sending(&mut self, tuple: FiveTuple, to: SocketAddr, user: usize, now: u64) {
        let alive: Vec<SocketAddr> = self
            .allocations
            .iter()
            .flat_map(|a| &a.relays)
            .map(|relay| relay.addr)
            .collect();
        let permission = self.on_mut(tuple).and_then(|sender| {
            sender
                .permissions
                .iter_mut()
                .find(|permission| permission.ip == to.ip() && now < permission.until)
        });
        let Some(permission) = permission else {
            return;
        };
        if permission.names.contains(&(to, Some(user))) {
            return;
        }
        permission.names.retain(|(addr, _)| *addr != to);
        if permission.names.len() == MOST_NAMES {
            let dead = permission
                .names
                .iter()
                .position(|(addr, _)| !alive.contains(addr));
            match dead {
                Some(index) => permission.names.remove(index),
                None => return,
            };
        }
        permission.names.push((to, Some(user)));
    }

    /// RFC 8656 §11.3: a datagram at a relay socket.
    pub fn foretell_peer(
        &mut self,
        relayed: SocketAddr,
        source: SocketAddr,
        length: usize,
        now: u64,
    ) -> Fate {
        let visible = named(source);
        let Some(receiver) = self.live_at(relayed, now) else {
            return Fate::Dropped;
        };
        let policy = receiver.entitled.policy;
        let class = self
            .setting
            .class(policy, visible.ip(), Some(visible.port()));
        // Hairpin never comes by the kernel.
        if !matches!(class, Class::Fleet | Class::Foreign)
            || receiver.permission(visible.ip(), now).is_none()
        {
            return Fate::Dropped;
        }
        let tuple = receiver.tuple;
        let path = match receiver.channel_to(visible, now) {
            Some(_) => Path::Relay,
            None => Path::Indication,
        };
        let fate = deliver(receiver, visible, length, now);
        if fate != Fate::Dropped && !self.pay(&[tuple], now) {
            return Fate::Dropped;
        }
        if fate != Fate::Dropped {
            self.count(tuple, path, Direction::Out, length);
        }
        fate
    }

    /// A packet is relayed only if all on whose account it goes may have one more: so many at once,
    /// and one more each time that its share of a second has passed.
    fn pay(&mut self, tuples: &[FiveTuple], now: u64) -> bool {
        let Some((per_second, burst)) = self.setting.pace else {
            return true;
        };
        let share = SECOND / per_second;
        let before: Vec<u64> = self.allocations.iter().map(|a| a.paid_until).collect();
        for tuple in tuples {
            let Some(allocation) = self.on_mut(*tuple) else {
                continue;
            };
            allocation.paid_until = allocation.paid_until.max(now) + share;
            if allocation.paid_until > now + burst * share {
                for (allocation, before) in self.allocations.iter_mut().zip(before) {
                    allocation.paid_until = before;
                }
                return false;
            }
        }
        true
    }

    pub fn count(&mut self, tuple: FiveTuple, path: Path, direction: Direction, bytes: usize) {
        let total = &mut self.traffic[path as usize][direction as usize];
        total.0 += 1;
        total.1 += bytes as u64;
        if let Some(allocation) = self.on_mut(tuple) {
            allocation.count(path, direction, bytes);
        }
    }
}

/// What a client is told as its own address: where it is masked, its relayed one, of its own family
/// if it has that.
pub fn mapped(entitled: Entitled, tuple: FiveTuple, relayed: &[SocketAddr]) -> Option<SocketAddr> {
    let client = tuple.client.expose();
    if !entitled.masked {
        return Some(client);
    }
    let same_family = relayed.iter().find(|r| r.is_ipv4() == client.is_ipv4());
    same_family.or_else(|| relayed.first()).copied()
}

/// design.md section 5: whoever is under `call` meets those of the same call, and one without a
/// call meets nobody there.
fn may_meet(one: Entitled, other: Entitled) -> bool {
    let apart = one.call.is_none() || one.call != other.call;
    !(apart && [one.policy, other.policy].contains(&Policy::Call))
}

/// In a channel if one is bound to exactly this peer, else in a Data indication; and only if that
/// still is a datagram.
fn deliver(receiver: &Allocation, visible: SocketAddr, length: usize, now: u64) -> Fate {
    let channel = receiver.channel_to(visible, now);
    let framed = match (channel, visible) {
        (Some(_), _) => 4 + length,
        (None, SocketAddr::V4(_)) => 20 + 12 + 4 + length.next_multiple_of(4),
        (None, SocketAddr::V6(_)) => 20 + 24 + 4 + length.next_multiple_of(4),
    };
    let most = match receiver.tuple.client.expose() {
        SocketAddr::V4(_) => 65_535 - 20 - 8,
        SocketAddr::V6(_) => 65_535 - 8,
    };
    if framed > most {
        return Fate::Dropped;
    }
    Fate::ToClient {
        tuple: receiver.tuple,
        channel,
        visible,
    }
}
