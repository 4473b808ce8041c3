//! The oracle for requests: every reason there is to refuse one. A server may name any of them,
//! must name one if there is one, and must not refuse if there is none.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use taciturn::proto::{AddressFamily, ChannelRange, Method, Reserve, TransactionId};
use taciturn::turn::{FiveTuple, Transport};

use super::model::{Allocation, COOL_DOWN, Model, Promise};
use super::setting::{Class, Entitled, MAX_TTL, SECOND};
use super::speech::{Say, Signing};

/// How long a port rests.
pub const REST: u64 = 60 * SECOND;
/// How long an allocation is silent before it may make way.
const SILENCE: u64 = 30 * SECOND;

/// A request and the moment it arrives.
#[derive(Debug, Clone)]
pub struct Ask {
    pub tuple: FiveTuple,
    pub method: Method,
    pub says: Vec<Say>,
    pub id: TransactionId,
    pub user: usize,
    pub username: String,
    pub expires: u64,
    /// When its credential was issued, if that says so.
    pub issued: Option<u64>,
    pub entitled: Entitled,
    pub signing: Signing,
    pub nonce_is_fresh: bool,
    pub now: u64,
    pub unix: u64,
}

/// The kernel as it is just now.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    pub exhausted: bool,
    pub taken: HashSet<u16>,
}

/// Which codes there is reason for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// If there are any, one of them must come.
    pub must: Vec<u16>,
    /// These may come instead of success.
    pub may: Vec<u16>,
    /// Whether a budget may have run out: of a source, or of its network.
    pub may_drop: bool,
}

/// Whether something can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chance {
    Never,
    Perhaps,
    Surely,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    Any,
    Even,
    Pair,
}

impl Ask {
    pub fn family(&self) -> Option<AddressFamily> {
        self.says.iter().find_map(|say| match say {
            Say::Family(family) => Some(*family),
            _ => None,
        })
    }

    pub fn additional(&self) -> Option<AddressFamily> {
        self.says.iter().find_map(|say| match say {
            Say::Additional(family) => Some(*family),
            _ => None,
        })
    }

    pub fn token(&self) -> Option<[u8; 8]> {
        self.says.iter().find_map(|say| match say {
            Say::Token(token) => Some(*token),
            _ => None,
        })
    }

    pub fn lifetime(&self) -> Option<u32> {
        self.says.iter().find_map(|say| match say {
            Say::Lifetime(seconds) => Some(*seconds),
            _ => None,
        })
    }

    pub fn channel(&self) -> Option<u16> {
        self.says.iter().find_map(|say| match say {
            Say::Channel(number) => Some(*number),
            _ => None,
        })
    }

    pub fn peers(&self) -> Vec<SocketAddr> {
        let peer = |say: &Say| match say {
            Say::Peer(peer) => Some(*peer),
            _ => None,
        };
        self.says.iter().filter_map(peer).collect()
    }

    pub fn parity(&self) -> Parity {
        self.says
            .iter()
            .find_map(|say| match say {
                Say::Even(Reserve::No) => Some(Parity::Even),
                Say::Even(Reserve::Yes) => Some(Parity::Pair),
                _ => None,
            })
            .unwrap_or(Parity::Any)
    }

    fn transport(&self) -> Option<u8> {
        self.says.iter().find_map(|say| match say {
            Say::Transport(protocol) => Some(*protocol),
            _ => None,
        })
    }
}

impl Model {
    pub fn judge(&self, ask: &Ask, kernel: &Kernel) -> Verdict {
        let mut verdict = Verdict::default();
        let Verdict {
            must,
            may,
            may_drop,
        } = &mut verdict;
        let is_taken = self.refuses_taken(ask);
        match ask.signing {
            Signing::None => must.push(401),
            Signing::NoNonce => must.push(400),
            Signing::WrongPassword => must.push(401),
            Signing::Right if is_taken => must.push(401),
            Signing::Right => {}
        }
        if !ask.nonce_is_fresh && must.is_empty() {
            must.push(438);
        }
        if !must.is_empty() {
            let is_judged = matches!(ask.signing, Signing::WrongPassword | Signing::Right);
            let validated = is_judged && ask.nonce_is_fresh;
            // A connection has validated its source by itself.
            let may_lie = ask.tuple.listener.transport() == Transport::Udp;
            // A stale nonce is no failure; for the rest networks have budgets of their own.
            let is_capped = !validated && may_lie || *must != [438];
            *may_drop = self.setting.tight && is_capped;
            return verdict;
        }
        let allocation = self.live_on(ask.tuple, ask.now);
        if allocation.is_some_and(|a| a.username != ask.username) {
            must.push(if ask.method == Method::ALLOCATE {
                437
            } else {
                441
            });
        }
        let is_retransmission =
            ask.method == Method::ALLOCATE && allocation.is_some_and(|a| a.transaction == ask.id);
        // design.md section 5: expiry gates Allocate, and in strict mode everything.
        let outlives = allocation.is_some_and(|a| !a.entitled.strict)
            && (ask.method != Method::ALLOCATE || is_retransmission);
        // With a minute of leeway.
        let since = ask.issued.unwrap_or(ask.unix);
        let too_long = ask.expires > since + MAX_TTL + 60;
        if (ask.unix >= ask.expires + 60 || too_long) && !outlives {
            must.push(401);
            *may_drop = self.setting.tight;
        }
        if ask.says.iter().any(|say| matches!(say, Say::Unknown)) {
            must.push(420);
        }
        match ask.method {
            Method::ALLOCATE if is_retransmission => {}
            Method::ALLOCATE => self.judge_allocate(ask, kernel, must, may),
            Method::REFRESH => self.judge_refresh(ask, must),
            Method::CREATE_PERMISSION => self.judge_permission(ask, kernel, must, may),
            _ => self.judge_bind(ask, kernel, must, may),
        }
        verdict
    }

    fn judge_allocate(&self, ask: &Ask, kernel: &Kernel, must: &mut Vec<u16>, may: &mut Vec<u16>) {
        if self.live_on(ask.tuple, ask.now).is_some() {
            must.push(437);
        }
        match ask.transport() {
            None => must.push(400),
            Some(17) => {}
            Some(_) => must.push(442),
        }
        let (family, additional) = (ask.family(), ask.additional());
        let parity = ask.parity();
        let token = ask.token();
        if token.is_some() && (family.is_some() || additional.is_some() || parity != Parity::Any)
            || family.is_some() && additional.is_some()
            || additional == Some(AddressFamily::V4)
            || additional.is_some() && parity == Parity::Pair
        {
            must.push(400);
        }
        self.judge_quota(ask, must, may);
        if let Some(token) = token {
            let held = self.reservation(token, ask.user, ask.now);
            if held.is_none_or(|addr| self.refuses(ask, kernel, addr)) {
                must.push(508);
            }
            return;
        }
        let family = family.unwrap_or(AddressFamily::V4);
        if !self.has_family(family) {
            must.push(440);
            return;
        }
        let mut chance = self.port_chance(family, parity, ask, kernel);
        if additional.is_some() && chance != Chance::Surely {
            let second = self.port_chance(AddressFamily::V6, Parity::Any, ask, kernel);
            chance = match (chance, second) {
                (_, Chance::Surely) => Chance::Surely,
                (Chance::Never, Chance::Never) => Chance::Never,
                _ => Chance::Perhaps,
            };
        }
        match chance {
            Chance::Never => must.push(508),
            Chance::Perhaps => may.push(508),
            Chance::Surely => {}
        }
    }

    fn judge_quota(&self, ask: &Ask, must: &mut Vec<u16>, may: &mut Vec<u16>) {
        if !self.is_full(ask) || !self.victims(ask).is_empty() {
            return;
        }
        // What has ended but was not taken away yet may still count.
        let by_user = self.is_full_of(&self.holdings(ask), self.setting.quota);
        let counted = if by_user {
            self.holdings(ask)
        } else {
            self.counted(ask)
        };
        if counted.iter().all(|a| a.is_live(ask.now)) {
            must.push(486);
        } else {
            may.push(486);
        }
    }

    /// What counts on the asker's account.
    fn holdings(&self, ask: &Ask) -> Vec<&Allocation> {
        self.allocations
            .iter()
            .filter(|a| a.user == ask.user && !a.replaced && a.tuple != ask.tuple)
            .collect()
    }

    /// What counts on everybody's.
    fn counted(&self, ask: &Ask) -> Vec<&Allocation> {
        self.allocations
            .iter()
            .filter(|a| !a.replaced && a.tuple != ask.tuple)
            .collect()
    }

    const fn is_full_of(&self, counted: &[&Allocation], limit: usize) -> bool {
        limit > 0 && counted.len() >= limit
    }

    pub fn is_full(&self, ask: &Ask) -> bool {
        self.is_full_of(&self.holdings(ask), self.setting.quota)
            || self.is_full_of(&self.counted(ask), self.setting.total)
    }

    /// Those who have been silent longest, and for long enough.
    pub fn victims(&self, ask: &Ask) -> Vec<&Allocation> {
        let mut silent = self.holdings(ask);
        silent.retain(|a| ask.now - a.heard >= SILENCE);
        let longest = silent.iter().map(|a| a.heard).min();
        silent.retain(|a| Some(a.heard) == longest);
        silent
    }

    fn judge_refresh(&self, ask: &Ask, must: &mut Vec<u16>) {
        match (self.live_on(ask.tuple, ask.now), ask.family()) {
            (None, _) => must.push(437),
            (Some(a), Some(family)) if a.relay(family, ask.now).is_none() => must.push(443),
            (Some(_), _) => {}
        }
    }

    fn judge_permission(
        &self,
        ask: &Ask,
        kernel: &Kernel,
        must: &mut Vec<u16>,
        may: &mut Vec<u16>,
    ) {
        let peers = ask.peers();
        if peers.is_empty() {
            must.push(400);
        }
        if peers.len() > self.setting.permissions {
            must.push(508);
        }
        let Some(allocation) = self.live_on(ask.tuple, ask.now) else {
            must.push(437);
            return;
        };
        self.judge_peers(allocation, ask, kernel, must, may);
        for peer in peers {
            let policy = allocation.entitled.policy;
            if self.setting.class(policy, peer.ip(), None) == Class::Refused {
                must.push(403);
            }
        }
    }

    fn judge_bind(&self, ask: &Ask, kernel: &Kernel, must: &mut Vec<u16>, may: &mut Vec<u16>) {
        let (Some(number), Some(peer)) = (ask.channel(), ask.peers().first().copied()) else {
            must.push(400);
            return;
        };
        let last = match self.setting.channels {
            ChannelRange::Rfc8656 => 0x4FFF,
            ChannelRange::Rfc5766 => 0x7FFE,
        };
        if !(0x4000..=last).contains(&number) {
            must.push(400);
        }
        let Some(allocation) = self.live_on(ask.tuple, ask.now) else {
            must.push(437);
            return;
        };
        let kept = |until: u64| ask.now < until + COOL_DOWN;
        let mut kept = allocation.channels.iter().filter(|c| kept(c.until));
        let is_bound = kept.clone().any(|c| c.number == number && c.peer == peer);
        if kept.clone().count() >= self.setting.channels_of_one && !is_bound {
            must.push(508);
        }
        // RFC 8656 §12: nor within five minutes after a binding's end.
        if kept.any(|channel| (channel.number == number) != (channel.peer == peer)) {
            must.push(400);
        }
        self.judge_peers(allocation, ask, kernel, must, may);
        let policy = allocation.entitled.policy;
        if self.setting.class(policy, peer.ip(), Some(peer.port())) == Class::Refused {
            must.push(403);
        }
    }

    /// Families, room, and sockets for peers outside this server.
    fn judge_peers(
        &self,
        a: &Allocation,
        ask: &Ask,
        kernel: &Kernel,
        must: &mut Vec<u16>,
        may: &mut Vec<u16>,
    ) {
        let mut ips: Vec<IpAddr> = ask.peers().iter().map(SocketAddr::ip).collect();
        ips.sort_unstable();
        ips.dedup();
        ips.retain(|ip| a.permission(*ip, ask.now).is_none());
        let live = a.permissions.iter().filter(|p| ask.now < p.until).count();
        if !ips.is_empty() && live + ips.len() > self.setting.permissions {
            must.push(508);
        }
        for peer in ask.peers() {
            let Some(relay) = a.relay(AddressFamily::of(peer.ip()), ask.now) else {
                must.push(443);
                continue;
            };
            let class = self.setting.class(a.entitled.policy, peer.ip(), None);
            let outside = matches!(class, Class::Fleet | Class::Foreign);
            if outside && is_refused(kernel, relay.addr) {
                match relay.socket {
                    Promise::No => must.push(508),
                    Promise::Perhaps => may.push(508),
                    Promise::Yes => {}
                }
            }
        }
    }

    pub fn reservation(&self, token: [u8; 8], user: usize, now: u64) -> Option<SocketAddr> {
        self.reservations
            .iter()
            .find(|r| r.token == token && r.user == user && now < r.until)
            .map(|reservation| reservation.addr)
    }

    pub fn has_family(&self, family: AddressFamily) -> bool {
        self.setting
            .relays
            .iter()
            .any(|ip| AddressFamily::of(*ip) == family)
    }

    /// Whether the kernel refuses a socket that is needed at Allocate.
    fn refuses(&self, ask: &Ask, kernel: &Kernel, addr: SocketAddr) -> bool {
        self.setting.opens_at_allocate(ask.entitled.policy) && is_refused(kernel, addr)
    }

    /// Whether a port of that kind must be found.
    pub fn port_chance(
        &self,
        family: AddressFamily,
        parity: Parity,
        ask: &Ask,
        kernel: &Kernel,
    ) -> Chance {
        let opens = self.setting.opens_at_allocate(ask.entitled.policy);
        if !self.has_family(family) || opens && kernel.exhausted {
            return Chance::Never;
        }
        let mut chance = Chance::Never;
        for ip in &self.setting.relays {
            if AddressFamily::of(*ip) != family {
                continue;
            }
            for port in self.setting.ports.clone() {
                let mut found = self.is_free(SocketAddr::new(*ip, port), ask);
                match parity {
                    Parity::Any => {}
                    Parity::Even | Parity::Pair if port % 2 == 1 => found = Chance::Never,
                    Parity::Even => {}
                    Parity::Pair if port == *self.setting.ports.end() => found = Chance::Never,
                    Parity::Pair => {
                        let next = self.is_free(SocketAddr::new(*ip, port + 1), ask);
                        found = weaker(found, next);
                    }
                }
                // One of whichever port rests is woken, so that any port will be found.
                if parity == Parity::Any && found == Chance::Perhaps {
                    found = Chance::Surely;
                }
                chance = stronger(chance, found);
            }
        }
        let doubtful = ask.now < self.disturbed_until || opens && !kernel.taken.is_empty();
        if doubtful {
            weaker(chance, Chance::Perhaps)
        } else {
            chance
        }
    }

    /// A port that rests may be taken early, but need not be the one.
    fn is_free(&self, addr: SocketAddr, ask: &Ask) -> Chance {
        let held = self
            .allocations
            .iter()
            .filter(|a| a.tuple != ask.tuple)
            .flat_map(|a| &a.relays)
            .any(|relay| relay.addr == addr);
        let mut reservations = self.reservations.iter();
        if held || reservations.any(|r| r.addr == addr && ask.now < r.until) {
            return Chance::Never;
        }
        let ended_now = self
            .on(ask.tuple)
            .is_some_and(|a| a.relays.iter().any(|relay| relay.addr == addr));
        match self.released.get(&addr) {
            _ if ended_now => Chance::Perhaps,
            Some(at) if ask.now < at + REST => Chance::Perhaps,
            _ => Chance::Surely,
        }
    }
}

pub fn is_refused(kernel: &Kernel, addr: SocketAddr) -> bool {
    kernel.exhausted || kernel.taken.contains(&addr.port())
}

const fn stronger(one: Chance, other: Chance) -> Chance {
    match (one, other) {
        (Chance::Surely, _) | (_, Chance::Surely) => Chance::Surely,
        (Chance::Perhaps, _) | (_, Chance::Perhaps) => Chance::Perhaps,
        (Chance::Never, Chance::Never) => Chance::Never,
    }
}

const fn weaker(one: Chance, other: Chance) -> Chance {
    match (one, other) {
        (Chance::Never, _) | (_, Chance::Never) => Chance::Never,
        (Chance::Perhaps, _) | (_, Chance::Perhaps) => Chance::Perhaps,
        (Chance::Surely, Chance::Surely) => Chance::Surely,
    }
}
