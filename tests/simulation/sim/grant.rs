//! What a success response changes in the model, and what it must say.

use std::net::SocketAddr;

use taciturn::proto::{AddressFamily, Method};

use super::check::must;
use super::judge::{Ask, Chance, Kernel, Parity, REST};
use super::model::{
    Allocation, CHANNEL, COOL_DOWN, Channel, Promise, Relay, Reservation, Traffic, mapped,
};
use super::run::Run;
use super::setting::{Class, Policy, SECOND};
use super::speech::{Answer, Say};

impl Run {
    pub fn granted(&mut self, ask: &Ask, answer: &Answer, kernel: &Kernel) -> Result<(), String> {
        match ask.method {
            Method::ALLOCATE if self.model.live_on(ask.tuple, ask.now).is_some() => {
                self.repeated(ask, answer)
            }
            Method::ALLOCATE => self.allocated(ask, answer, kernel),
            Method::REFRESH => self.refreshed(ask, answer),
            Method::CREATE_PERMISSION => {
                self.permit(ask);
                Ok(())
            }
            _ => {
                self.permit(ask);
                self.bind(ask);
                Ok(())
            }
        }
    }

    /// Sockets may have been opened before a request failed, and ports tried.
    pub fn refused(&mut self, ask: &Ask, code: u16) {
        if code != 508 {
            return;
        }
        if ask.method == Method::ALLOCATE {
            self.model.disturbed_until = ask.now + REST;
            if let Some(token) = ask.token()
                && let Some(addr) = self.model.reservation(token, ask.user, ask.now)
            {
                self.model.reservations.retain(|r| r.token != token);
                self.model.released.insert(addr, ask.now);
            }
            return;
        }
        self.promise(ask, Promise::Perhaps);
    }

    /// Peers outside this server need sockets.
    fn promise(&mut self, ask: &Ask, promise: Promise) {
        for peer in ask.peers() {
            let Some(allocation) = self.model.on_mut(ask.tuple) else {
                continue;
            };
            let class = self
                .setting
                .class(allocation.entitled.policy, peer.ip(), None);
            if !matches!(class, Class::Fleet | Class::Foreign) {
                continue;
            }
            for relay in &mut allocation.relays {
                let same = AddressFamily::of(relay.addr.ip()) == AddressFamily::of(peer.ip());
                if same && relay.socket != Promise::Yes {
                    relay.socket = promise;
                }
            }
        }
    }

    /// RFC 8656 §7.2: a retransmission is answered by the same success.
    fn repeated(&self, ask: &Ask, answer: &Answer) -> Result<(), String> {
        let allocation = self.model.on(ask.tuple).ok_or("no allocation")?;
        let live: Vec<&Relay> = allocation
            .relays
            .iter()
            .filter(|relay| ask.now < relay.until)
            .collect();
        let relayed: Vec<SocketAddr> = live.iter().map(|relay| relay.addr).collect();
        must(answer.relayed == relayed, || {
            format!(
                "a repeated success promises {:?}, not {relayed:?}",
                answer.relayed
            )
        })?;
        let end = live.iter().map(|relay| relay.until).min();
        must_live(answer, end.unwrap_or_default(), ask.now)?;
        must(answer.ticket == allocation.ticket, || {
            "a repeated success has another ticket".to_owned()
        })?;
        must(answer.token == allocation.token, || {
            "a repeated success has another token".to_owned()
        })
    }

    /// RFC 8656 §7.2, and design.md section 5 for how long.
    fn end(&self, ask: &Ask, session_end: u64, strict: bool) -> u64 {
        let longest = self.setting.allocation_lifetime;
        let default = longest.min(600);
        let asked = ask.lifetime().map_or(default, u64::from);
        let end = ask.now + asked.min(longest).max(default) * SECOND;
        let end = end.min(session_end);
        if strict {
            end.min(ask.now + (ask.expires + 60).saturating_sub(ask.unix) * SECOND)
        } else {
            end
        }
    }

    fn allocated(&mut self, ask: &Ask, answer: &Answer, kernel: &Kernel) -> Result<(), String> {
        let [(worker, id)] = self.opened[..] else {
            return Err(format!("{} allocations opened", self.opened.len()));
        };
        self.opened.clear();
        self.must_be_wanted(ask, answer, kernel)?;
        let asked = ask.says.iter().any(|say| matches!(say, Say::Ticket(_)));
        must(asked == answer.ticket.is_some(), || {
            "a ticket that nobody asked for, or the other way round".to_owned()
        })?;
        let entitled = ask.entitled;
        let session_end = ask.now + entitled.session_max * SECOND;
        let until = self.end(ask, session_end, entitled.strict);
        must_live(answer, until, ask.now)?;
        let mapped = mapped(entitled, ask.tuple, &answer.relayed);
        must(answer.mapped == mapped, || {
            "a client was told another's address".to_owned()
        })?;
        if !kernel.taken.is_empty() || kernel.exhausted {
            self.model.disturbed_until = ask.now + REST;
        }
        if let Some(token) = ask.token() {
            self.model.reservations.retain(|r| r.token != token);
        }
        if let Some(token) = answer.token {
            let mut addr = answer.relayed[0];
            addr.set_port(addr.port() + 1);
            self.model.reservations.push(Reservation {
                token,
                addr,
                user: ask.user,
                until: ask.now + 30 * SECOND,
            });
        }
        let socket = if self.setting.opens_at_allocate(entitled.policy) {
            Promise::Yes
        } else {
            Promise::No
        };
        let relays = answer.relayed.iter().map(|addr| Relay {
            addr: *addr,
            until,
            socket,
        });
        self.model.allocations.push(Allocation {
            id,
            worker,
            tuple: ask.tuple,
            user: ask.user,
            username: ask.username.clone(),
            entitled,
            transaction: ask.id,
            token: answer.token,
            ticket: answer.ticket.clone(),
            opened: ask.now,
            session_end,
            heard: ask.now,
            replaced: false,
            relays: relays.collect(),
            permissions: Vec::new(),
            channels: Vec::new(),
            traffic: Traffic::default(),
            paid_until: 0,
        });
        Ok(())
    }

    /// The relayed addresses are what was asked for, and nobody else's.
    fn must_be_wanted(
        &mut self,
        ask: &Ask,
        answer: &Answer,
        kernel: &Kernel,
    ) -> Result<(), String> {
        let parity = ask.parity();
        for addr in &answer.relayed {
            must(
                self.setting
                    .class(Policy::Relay, addr.ip(), Some(addr.port()))
                    == Class::Own,
                || format!("{addr} is no relayed address of ours"),
            )?;
            must(parity == Parity::Any || addr.port() % 2 == 0, || {
                format!("{addr} is not even")
            })?;
            let mut held = self.model.allocations.iter().flat_map(|a| &a.relays);
            must(held.all(|relay| relay.addr != *addr), || {
                format!("{addr} is another allocation's")
            })?;
            let mut reserved = self.model.reservations.iter();
            must(
                reserved
                    .all(|r| r.addr != *addr || ask.now >= r.until || Some(r.token) == ask.token()),
                || format!("{addr} is reserved"),
            )?;
            let released = self.model.released.get(addr);
            if ask.token().is_none() && released.is_some_and(|at| ask.now < at + REST) {
                self.early_uses += 1;
            }
        }
        must((parity == Parity::Pair) == answer.token.is_some(), || {
            "a token without a reservation, or the other way round".to_owned()
        })?;
        if let Some(token) = ask.token() {
            let reserved = self.model.reservation(token, ask.user, ask.now);
            return must(answer.relayed == Vec::from_iter(reserved), || {
                format!("{:?} instead of the reserved {reserved:?}", answer.relayed)
            });
        }
        let families: Vec<AddressFamily> = answer
            .relayed
            .iter()
            .map(|addr| AddressFamily::of(addr.ip()))
            .collect();
        if ask.additional().is_none() {
            let wanted = ask.family().unwrap_or(AddressFamily::V4);
            return must(families == [wanted], || {
                format!("{families:?} for {wanted:?}")
            });
        }
        let missing = match families[..] {
            [AddressFamily::V4, AddressFamily::V6] => None,
            [AddressFamily::V4] => Some(AddressFamily::V6),
            [AddressFamily::V6] => Some(AddressFamily::V4),
            _ => return Err(format!("{families:?} for both")),
        };
        let Some(missing) = missing else {
            return must(answer.refused_family.is_none(), || {
                "a family is refused that is there".to_owned()
            });
        };
        let parity = if missing == AddressFamily::V4 {
            parity
        } else {
            Parity::Any
        };
        let chance = self.model.port_chance(missing, parity, ask, kernel);
        let code = if self.model.has_family(missing) {
            508
        } else {
            440
        };
        must(chance != Chance::Surely, || {
            format!("{missing:?} is missing without need")
        })?;
        must(answer.refused_family == Some((missing, code)), || {
            format!("{:?} instead of {missing:?} {code}", answer.refused_family)
        })
    }

    fn refreshed(&mut self, ask: &Ask, answer: &Answer) -> Result<(), String> {
        if ask.lifetime() == Some(0) {
            self.given_up = 0;
            must(answer.lifetime == Some(0), || {
                "an allocation was given up, and lives on".to_owned()
            })?;
        }
        let Some(allocation) = self.model.on(ask.tuple) else {
            return must(ask.lifetime() == Some(0), || {
                "a refreshed allocation is gone".to_owned()
            });
        };
        let until = match ask.lifetime() {
            Some(0) => ask.now,
            _ => self.end(ask, allocation.session_end, allocation.entitled.strict),
        };
        must_live(answer, until, ask.now)?;
        let family = ask.family();
        if let Some(allocation) = self.model.on_mut(ask.tuple) {
            for relay in &mut allocation.relays {
                let meant = family.is_none_or(|f| f == AddressFamily::of(relay.addr.ip()));
                if meant && ask.now < relay.until {
                    relay.until = until;
                }
            }
        }
        Ok(())
    }

    fn permit(&mut self, ask: &Ask) {
        self.promise(ask, Promise::Yes);
        for peer in ask.peers() {
            let class = self
                .setting
                .class(Policy::Relay, peer.ip(), Some(peer.port()));
            let is_own = class == Class::Own;
            let user = self.model.live_at(peer, ask.now).map(|other| other.user);
            if let Some(allocation) = self.model.on_mut(ask.tuple) {
                allocation.permit(peer.ip(), is_own.then_some((peer, user)), ask.now);
            }
        }
    }

    fn bind(&mut self, ask: &Ask) {
        let (Some(number), Some(peer)) = (ask.channel(), ask.peers().first().copied()) else {
            return;
        };
        let Some(allocation) = self.model.on_mut(ask.tuple) else {
            return;
        };
        let channels = &mut allocation.channels;
        channels.retain(|c| ask.now < c.until + COOL_DOWN && c.number != number);
        channels.push(Channel {
            number,
            peer,
            until: ask.now + CHANNEL,
        });
    }
}

/// LIFETIME says how many whole seconds are left.
fn must_live(answer: &Answer, until: u64, now: u64) -> Result<(), String> {
    let left = until.saturating_sub(now) / SECOND;
    must(answer.lifetime.map(u64::from) == Some(left), || {
        format!("LIFETIME is {:?}, {left} s are left", answer.lifetime)
    })
}
