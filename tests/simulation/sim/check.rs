//! What must hold after every step, whatever it was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use taciturn::proto::MAGIC_COOKIE;
use taciturn::turn::credential::{Credentials, SecretsRing, StaticUsers, Subject};
use taciturn::turn::stats::{Direction, DropReason, Meters, Path};
use taciturn::turn::{AllocationId, EndReason, Tick, Transport};

use super::model::{Allocation, Promise, Traffic};
use super::run::Run;
use super::speech::user_id;

/// Fails with a sentence.
pub fn must(holds: bool, say: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(say()) }
}

impl Run {
    pub fn check(&mut self) -> Result<(), String> {
        self.drain_events()?;
        must(self.opened.is_empty(), || {
            "an allocation opened without a success response".to_owned()
        })?;
        must(self.given_up == 0, || {
            "an allocation closed that nobody gave up".to_owned()
        })?;
        for server in &self.servers {
            server.check_invariants()?;
        }
        self.check_relays()?;
        self.check_landings()?;
        self.check_quotas()?;
        self.check_timeouts()?;
        self.check_connections()?;
        self.check_counters()
    }

    /// The servers hold exactly what the model holds; what they gave back had ended.
    fn check_relays(&mut self) -> Result<(), String> {
        let mut held = BTreeSet::new();
        for worker in 0..self.servers.len() {
            for (id, relayed) in self.relayed_by(worker) {
                must(held.insert((relayed.socket_addr(), id)), || {
                    format!("two allocations hold {relayed}")
                })?;
            }
        }
        let now = self.now;
        for allocation in &mut self.model.allocations {
            let id = allocation.id;
            for relay in &allocation.relays {
                if !held.contains(&(relay.addr, id)) {
                    must(relay.until <= now, || {
                        format!("{} was given back too early", relay.addr)
                    })?;
                    self.model.released.insert(relay.addr, now);
                }
            }
            allocation
                .relays
                .retain(|relay| held.contains(&(relay.addr, id)));
        }
        let known: usize = self.model.allocations.iter().map(|a| a.relays.len()).sum();
        must(known == held.len(), || {
            format!(
                "{} relayed addresses are held instead of {known}",
                held.len()
            )
        })?;
        let ports: BTreeSet<SocketAddr> = held.iter().map(|(addr, _)| *addr).collect();
        must(ports.len() == held.len(), || {
            "two allocations hold one port".to_owned()
        })?;
        self.check_ports(known)
    }

    fn check_ports(&self, held: usize) -> Result<(), String> {
        let house = self.house.borrow();
        let counts = house.ports.counts();
        let all = self.setting.ports.len() * self.setting.relays.len();
        must(
            counts.free + counts.held + counts.resting + counts.reserved == all,
            || format!("{counts:?} are not the {all} ports there are"),
        )?;
        // The pool forgets a reservation when it is looked at next, this model never.
        let reserved = self.model.reservations.len();
        must(counts.reserved <= reserved, || {
            format!(
                "{} ports are reserved with {reserved} tokens",
                counts.reserved
            )
        })?;
        must(counts.held == held, || {
            format!("{} ports are held by {held} relays", counts.held)
        })?;
        must(self.early_uses <= counts.taken_early, || {
            "a port was used early without being counted".to_owned()
        })
    }

    /// Landings and sockets are what the allocations promise.
    fn check_landings(&self) -> Result<(), String> {
        let house = self.house.borrow();
        let mut relays = 0;
        let mut sockets = 0;
        for allocation in &self.model.allocations {
            let subject = subject(allocation.user);
            for relay in &allocation.relays {
                relays += 1;
                let at = relay.addr;
                let relayed = taciturn::turn::RelayedAddr::new(at);
                let landing = house
                    .landings
                    .get(&relayed)
                    .ok_or_else(|| format!("{at} has no landing"))?;
                let socket = house.sockets.get(&relayed);
                sockets += usize::from(socket.is_some());
                must(
                    landing.id() == allocation.id
                        && landing.client == allocation.tuple
                        && landing.subject == subject,
                    || format!("the landing of {at} is another allocation's"),
                )?;
                must(
                    landing.until().at() == Tick::from_nanos(relay.until),
                    || {
                        format!(
                            "{at} ends at {:?}, not {}",
                            landing.until().at(),
                            relay.until
                        )
                    },
                )?;
                must(socket.is_none_or(|id| *id == allocation.id), || {
                    format!("the socket of {at} is another allocation's")
                })?;
                must(
                    match relay.socket {
                        Promise::No => socket.is_none(),
                        Promise::Perhaps => true,
                        Promise::Yes => socket.is_some(),
                    },
                    || {
                        format!(
                            "{at} has a socket: {socket:?}, promised: {:?}",
                            relay.socket
                        )
                    },
                )?;
                must(landing.has_socket == socket.is_some(), || {
                    format!(
                        "the landing of {at} says {} of its socket",
                        landing.has_socket
                    )
                })?;
                self.check_admissions(allocation, landing)
                    .map_err(|why| format!("the landing of {at}: {why}"))?;
            }
        }
        must(house.landings.len() == relays, || {
            format!("{} landings for {relays} relays", house.landings.len())
        })?;
        must(house.sockets.len() == sockets, || {
            "a socket belongs to no allocation".to_owned()
        })?;
        must(house.owners.len() == self.model.allocations.len(), || {
            "the owners of 5-tuples are not those of allocations".to_owned()
        })
    }

    fn check_admissions(
        &self,
        allocation: &Allocation,
        landing: &taciturn::turn::route::Landing,
    ) -> Result<(), String> {
        // A landing has what concerns its own family.
        let is_v6 = landing.relayed.ip().is_ipv6();
        let mut promised: Vec<(IpAddr, u64)> = allocation
            .permissions
            .iter()
            .filter(|permission| self.now < permission.until && permission.ip.is_ipv6() == is_v6)
            .map(|permission| (permission.ip, permission.until))
            .collect();
        let mut published: Vec<(IpAddr, u64)> = landing
            .permissions
            .iter()
            .filter(|p| p.until.holds(self.tick()) && p.ip.is_ipv6() == is_v6)
            .map(|permission| (permission.ip, permission.until.at().nanos()))
            .collect();
        promised.sort_unstable();
        published.sort_unstable();
        must(promised == published, || {
            format!("permissions {published:?} instead of {promised:?}")
        })?;
        let mut promised: Vec<(u16, SocketAddr, u64)> = allocation
            .channels
            .iter()
            .filter(|channel| self.now < channel.until && channel.peer.is_ipv6() == is_v6)
            .map(|channel| (channel.number, channel.peer, channel.until))
            .collect();
        let mut published: Vec<(u16, SocketAddr, u64)> = landing
            .channels
            .iter()
            .map(|c| (c.number.value(), c.peer.expose(), c.until.at().nanos()))
            .filter(|(_, peer, until)| self.now < *until && peer.is_ipv6() == is_v6)
            .collect();
        promised.sort_unstable();
        published.sort_unstable();
        must(promised == published, || {
            format!("channels {published:?} instead of {promised:?}")
        })
    }

    fn check_quotas(&self) -> Result<(), String> {
        let house = self.house.borrow();
        for user in 0..self.setting.users {
            let mut held = self.model.allocations.iter();
            let held = held.by_ref().filter(|a| a.user == user && !a.replaced);
            let held = held.count();
            let counted = house.users.held(subject(user));
            must(held == counted, || {
                format!("user {user} holds {held} allocations, {counted} by the quota")
            })?;
            must(
                self.setting.quota == 0 || held <= self.setting.quota,
                || format!("user {user} holds {held} allocations"),
            )?;
        }
        let (counted, total) = (house.users.total(), self.setting.total);
        let held = self.model.allocations.iter().filter(|a| !a.replaced);
        let held = held.count();
        must(held == counted, || {
            format!("there are {held} allocations, {counted} by the quota")
        })?;
        must(total == 0 || held <= total, || {
            format!("there are {held} allocations")
        })
    }

    /// Every end is waited for.
    fn check_timeouts(&self) -> Result<(), String> {
        for allocation in self.model.allocations.iter().filter(|a| !a.replaced) {
            let wanted = self.servers[allocation.worker].poll_timeout();
            for relay in &allocation.relays {
                must(
                    wanted.is_some_and(|at| at <= Tick::from_nanos(relay.until)),
                    || format!("nobody waits for the end of {}", relay.addr),
                )?;
            }
        }
        Ok(())
    }

    fn check_counters(&self) -> Result<(), String> {
        let mut total = Traffic::default();
        let mut live = 0;
        for (worker, server) in self.servers.iter().enumerate() {
            let counters = server.counters();
            live += counters.allocations.load(Ordering::Relaxed);
            for transport in Transport::ALL {
                let over = counters.over(transport);
                let mut held = self.model.allocations.iter();
                let held = held
                    .by_ref()
                    .filter(|a| (a.worker, a.tuple.listener.transport()) == (worker, transport));
                let opened = self.tally.opened_over[worker][transport as usize];
                must(
                    over.allocations.load(Ordering::Relaxed) == held.count() as u64
                        && over.allocations_total.total() == opened,
                    || format!("allocations over {} are miscounted", transport.label()),
                )?;
            }
            for path in Path::ALL {
                for direction in Direction::ALL {
                    let counted = counters.traffic(*path, *direction);
                    let sum = &mut total[*path as usize][*direction as usize];
                    sum.0 += counted.packets.total();
                    sum.1 += counted.bytes.total();
                }
            }
            for reason in DropReason::ALL {
                let seen = self.tally.drops[worker][*reason as usize];
                must(counters.drops(*reason) == seen, || {
                    format!("drops for {} are miscounted", reason.label())
                })?;
            }
        }
        let [hairpin_in, hairpin_out] = total[Path::Hairpin as usize];
        must(hairpin_in == hairpin_out, || {
            format!("{hairpin_in:?} went into hairpins, {hairpin_out:?} came out")
        })?;
        must(total == self.model.traffic, || {
            format!(
                "{total:?} was counted on the paths instead of {:?}",
                self.model.traffic
            )
        })?;
        must(self.tally.opened - self.tally.closed == live, || {
            format!("{live} live allocations do not fit the events")
        })?;
        let house = self.house.borrow();
        for allocation in &self.model.allocations {
            let relayed = taciturn::turn::RelayedAddr::new(allocation.relays[0].addr);
            let meters = house.landings.get(&relayed).map(|landing| landing.meters());
            must(
                meters.is_some_and(|meters| metered(meters) == allocation.traffic),
                || format!("the traffic of {relayed} is miscounted"),
            )?;
        }
        Ok(())
    }

    /// An allocation is gone: it must have ended, and have been counted as it was.
    pub fn closed(
        &mut self,
        worker: usize,
        id: AllocationId,
        transport: Transport,
        reason: EndReason,
        lived: Duration,
        meters: &Meters,
    ) -> Result<(), String> {
        let now = self.now;
        let index = self
            .model
            .allocations
            .iter()
            .position(|a| a.id == id && a.worker == worker)
            .ok_or("an unknown allocation closed")?;
        let allocation = self.model.allocations.remove(index);
        self.note(|_| format!("{:16}closed: {reason:?}", ""));
        self.gone.push((worker, id));
        self.given_up += usize::from(reason == EndReason::Closed);
        let is_over = !allocation.is_live(now);
        must(
            match reason {
                EndReason::Expired => is_over,
                EndReason::Replaced => allocation.replaced,
                EndReason::Closed | EndReason::Stopped => true,
                EndReason::Disconnected => true,
                EndReason::Revoked => self.model.took(&allocation),
                EndReason::Refused | EndReason::Banned => false,
            },
            || format!("an allocation closed as {reason:?}"),
        )?;
        must(
            (reason == EndReason::Disconnected) == (self.ending == Some(allocation.tuple))
                && transport == allocation.tuple.listener.transport(),
            || {
                format!(
                    "an allocation over {} closed as {reason:?}",
                    transport.label()
                )
            },
        )?;
        must(
            lived == Duration::from_nanos(now - allocation.opened),
            || "an allocation's life was measured wrongly".to_owned(),
        )?;
        must(metered(meters) == allocation.traffic, || {
            "a closed allocation's traffic is miscounted".to_owned()
        })?;
        for relay in allocation.relays {
            self.model.released.insert(relay.addr, now);
        }
        Ok(())
    }

    /// None of the clients' addresses lies in `bytes`, raw or XORed, but perhaps `except`.
    pub fn check_hidden(&self, bytes: &[u8], except: Option<SocketAddr>) -> Result<(), String> {
        let id = bytes.get(8..20).unwrap_or_default();
        // Transaction ids are random, so that anything may stand there.
        let parts = [
            &bytes[..bytes.len().min(8)],
            bytes.get(20..).unwrap_or_default(),
        ];
        for secret in &self.secrets {
            if except.is_some_and(|except| except.ip() == secret.ip()) {
                continue;
            }
            let hidden = parts.iter().all(|part| match secret.ip() {
                IpAddr::V4(ip) => {
                    let xored = (ip.to_bits() ^ MAGIC_COOKIE).to_be_bytes();
                    !contains(part, &ip.octets()) && !contains(part, &xored)
                }
                IpAddr::V6(ip) => {
                    let mut xored = ip.octets();
                    let mask = MAGIC_COOKIE.to_be_bytes();
                    let mask = mask.iter().chain(id);
                    xored.iter_mut().zip(mask).for_each(|(x, m)| *x ^= m);
                    !contains(part, &ip.octets()) && !contains(part, &xored)
                }
            });
            must(hidden, || "a client's address was shown".to_owned())?;
        }
        Ok(())
    }

    /// The servers stop: nothing remains.
    pub fn stop(&mut self) -> Result<(), String> {
        let tick = self.tick();
        self.close_all();
        for server in &mut self.servers {
            server.stop(tick);
        }
        self.check()?;
        let house = self.house.borrow();
        let nothing = house.landings.is_empty()
            && house.sockets.is_empty()
            && house.owners.is_empty()
            && house.users.is_empty()
            && house.ports.counts().held == 0
            && self.model.allocations.is_empty();
        must(nothing, || "something remains when all is over".to_owned())
    }
}

fn metered(meters: &Meters) -> Traffic {
    let mut traffic = Traffic::default();
    for path in Path::ALL {
        for direction in Direction::ALL {
            let counted = meters.traffic(*path, *direction);
            let (packets, bytes) = (counted.packets.total(), counted.bytes.total());
            traffic[*path as usize][*direction as usize] = (packets, bytes);
        }
    }
    traffic
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes
        .iter()
        .enumerate()
        .any(|(at, first)| *first == part[0] && bytes[at..].starts_with(part))
}

/// A user's name in the quota; the key is the setting's.
pub fn subject(user: usize) -> Subject {
    thread_local! {
        static SUBJECTS: std::cell::RefCell<BTreeMap<usize, Subject>> =
            const { std::cell::RefCell::new(BTreeMap::new()) };
    }
    SUBJECTS.with_borrow_mut(|known| {
        *known.entry(user).or_insert_with(|| {
            let nobody = Credentials::new(SecretsRing::default(), StaticUsers::default(), [5; 32]);
            nobody.subject(&user_id(user))
        })
    })
}
