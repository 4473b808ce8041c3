//! What each action does, and what must come of it.

use std::net::SocketAddr;

use taciturn::proto::{AddressFamily, Method, Reserve};
use taciturn::turn::{ClientAddr, FiveTuple, RelayedAddr};

use super::action::Action;
use super::check::must;
use super::run::Run;
use super::setting::{SECOND, fleet_peer, foreign_peer, refused_peer};
use super::speech::{Identity, Say, Signing};

/// The requests that are authenticated.
pub const METHODS: [Method; 4] = [
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
];

impl Run {
    pub fn act(&mut self, action: Action) -> Result<(), String> {
        self.perform(action)?;
        self.end_turn()
    }

    fn perform(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Allocate
            | Action::AllocateEven
            | Action::AllocateReserve
            | Action::AllocateToken
            | Action::AllocateV6
            | Action::AllocateBoth
            | Action::AllocateMalformed
            | Action::AllocateAgain => self.allocate(action),
            Action::Refresh | Action::RefreshZero | Action::RefreshFamily => self.refresh(action),
            Action::PermitOne
            | Action::PermitMany
            | Action::PermitPortZero
            | Action::PermitFleet
            | Action::PermitForeign
            | Action::PermitRefused
            | Action::PermitNothing => self.permit_some(action),
            Action::Bind | Action::BindOutside | Action::BindMalformed => self.bind_some(action),
            Action::Send
            | Action::SendUnpermitted
            | Action::SendOversize
            | Action::ChannelData
            | Action::ChannelUnbound => self.send_some(action),
            Action::FromPermittedPeer
            | Action::FromAnyPeer
            | Action::FromFleet
            | Action::FromOwnRelay
            | Action::FromPeerTooLate => self.receive_some(action),
            Action::SendBad
            | Action::Garbage
            | Action::ClassicStun
            | Action::BadFingerprint
            | Action::UnknownMethod
            | Action::Response
            | Action::BadSource => self.noise(action),
            Action::Mutated => self.mutated(),
            Action::Unsigned
            | Action::Incomplete
            | Action::WrongPassword
            | Action::StaleNonce
            | Action::OtherUser
            | Action::UnknownAttribute => self.unauthorized(action),
            Action::Binding | Action::BindingIndication => self.binding(action),
            Action::PassMilliseconds
            | Action::PassSeconds
            | Action::PassMinutes
            | Action::PassHours
            | Action::PassToDeadline => {
                self.pass(action);
                Ok(())
            }
            Action::Timeout => self.timeout(),
            Action::Condemned => self.condemned(),
            Action::Exhausted | Action::PortsTaken | Action::KernelRecovers => {
                self.trouble(action);
                Ok(())
            }
            Action::Roam => self.roam(),
            Action::Burst | Action::HalfMessage => self.burst(action),
            Action::Disconnect => self.disconnect(),
            Action::Stall | Action::ReadOn => {
                self.stall(action);
                Ok(())
            }
            Action::Move => self.move_some(),
            Action::Revoke => self.revoke(),
            Action::NewCredential => {
                self.renew();
                Ok(())
            }
        }
    }

    pub fn anybody(&mut self) -> usize {
        self.dice.below(self.clients.len())
    }

    /// A client with an allocation, mostly.
    pub fn holder(&mut self) -> usize {
        let holders: Vec<usize> = (0..self.clients.len())
            .filter(|client| {
                self.model
                    .live_on(self.clients[*client].tuple, self.now)
                    .is_some()
            })
            .collect();
        match self.dice.pick_any(&holders) {
            Some(client) if self.dice.percent(95) => client,
            _ => self.anybody(),
        }
    }

    fn lifetime(&mut self) -> Vec<Say> {
        let asked = self
            .dice
            .pick(&[None, None, Some(1), Some(900), Some(u32::MAX)]);
        asked.map(Say::Lifetime).into_iter().collect()
    }

    fn allocate(&mut self, action: Action) -> Result<(), String> {
        let idle: Vec<usize> = (0..self.clients.len())
            .filter(|client| {
                self.model
                    .live_on(self.clients[*client].tuple, self.now)
                    .is_none()
            })
            .collect();
        let client = match self.dice.pick_any(&idle) {
            Some(client) if self.dice.percent(90) => client,
            _ => self.anybody(),
        };
        let identity = &self.clients[client].identity;
        if self.unix() > identity.expires && self.dice.percent(75) {
            self.clients[client].identity = Identity::mint(identity.user, self.unix() + 4_000);
        }
        if action == Action::AllocateAgain {
            let client = self.holder();
            let Some((id, mut says)) = self.clients[client].allocate.clone() else {
                return self.ask(client, Method::ALLOCATE, vec![Say::Transport(17)]);
            };
            // It was said on a datagram's 5-tuple, perhaps, and the client is on a connection now.
            if self.clients[client].tuple.listener.transport().is_stream() {
                says.retain(|say| !matches!(say, Say::Ticket(_)));
            }
            return self.ask_as(client, Method::ALLOCATE, says, Signing::Right, id);
        }
        let mut says = vec![Say::Transport(17)];
        says.extend(self.lifetime());
        // Here what stands for a connection ends with it; `tests/dataplane` has those that wait.
        let is_datagrams = !self.clients[client].tuple.listener.transport().is_stream();
        if self.dice.percent(50) && is_datagrams {
            says.push(Say::Ticket(Vec::new()));
        }
        match action {
            Action::AllocateEven => says.push(Say::Even(Reserve::No)),
            Action::AllocateReserve => says.push(Say::Even(Reserve::Yes)),
            Action::AllocateToken => {
                let tokens: Vec<[u8; 8]> =
                    self.model.reservations.iter().map(|r| r.token).collect();
                let token = self.dice.pick_any(&tokens).unwrap_or([7; 8]);
                says.push(Say::Token(token));
            }
            Action::AllocateV6 => says.push(Say::Family(AddressFamily::V6)),
            Action::AllocateBoth => says.push(Say::Additional(AddressFamily::V6)),
            Action::AllocateMalformed => says = self.malformed_allocate(),
            _ => {}
        }
        let id = self.id();
        self.clients[client].allocate = Some((id, says.clone()));
        self.ask_as(client, Method::ALLOCATE, says, Signing::Right, id)
    }

    fn malformed_allocate(&mut self) -> Vec<Say> {
        let udp = Say::Transport(17);
        let v6 = Say::Family(AddressFamily::V6);
        self.dice.pick(&[
            vec![],
            vec![Say::Transport(6)],
            vec![udp.clone(), v6.clone(), Say::Additional(AddressFamily::V6)],
            vec![udp.clone(), Say::Additional(AddressFamily::V4)],
            vec![udp.clone(), Say::Token([1; 8]), Say::Even(Reserve::No)],
            vec![udp.clone(), Say::Token([1; 8]), v6],
            vec![
                udp,
                Say::Even(Reserve::Yes),
                Say::Additional(AddressFamily::V6),
            ],
        ])
    }

    fn refresh(&mut self, action: Action) -> Result<(), String> {
        let client = self.holder();
        let mut says = match action {
            Action::RefreshZero => vec![Say::Lifetime(0)],
            _ => self.lifetime(),
        };
        if action == Action::RefreshFamily || self.dice.percent(10) {
            let family = self.dice.pick(&[AddressFamily::V4, AddressFamily::V6]);
            says.push(Say::Family(family));
            if self.dice.percent(30) {
                says.retain(|say| !matches!(say, Say::Lifetime(_)));
                says.push(Say::Lifetime(0));
            }
        }
        self.ask(client, Method::REFRESH, says)
    }

    fn permit_some(&mut self, action: Action) -> Result<(), String> {
        let client = self.holder();
        let count = match action {
            Action::PermitMany => self.dice.pick(&[2, 3, 5, 40]),
            Action::PermitFleet => self.dice.pick(&[1, 1, 2, 3]),
            Action::PermitNothing => 0,
            _ => 1,
        };
        let mut says = Vec::new();
        for _ in 0..count {
            let peer = match action {
                Action::PermitFleet => fleet_peer(&mut self.dice),
                Action::PermitForeign => foreign_peer(&mut self.dice),
                Action::PermitRefused => refused_peer(&mut self.dice),
                Action::PermitPortZero => {
                    let mut peer = self.relayed_peer(client);
                    peer.set_port(0);
                    peer
                }
                Action::PermitMany if count == 40 => self.relayed_anyhow(client),
                Action::PermitMany => self.any_peer(client),
                _ => self.relayed_peer(client),
            };
            says.push(Say::Peer(peer));
        }
        self.ask(client, Method::CREATE_PERMISSION, says)
    }

    fn bind_some(&mut self, action: Action) -> Result<(), String> {
        let client = self.holder();
        let number = 0x4000 + self.dice.port(&(0..=5));
        let says = match action {
            Action::BindMalformed => {
                let peer = self.relayed_peer(client);
                let number = self.dice.pick(&[0x3FFF, 0x5000, 0x7FFE, 0x7FFF, 0xFFFF]);
                let whole = vec![Say::Channel(number), Say::Peer(peer)];
                self.dice
                    .pick(&[whole.clone(), whole, vec![Say::Channel(0x4000)], vec![]])
            }
            Action::BindOutside => vec![Say::Channel(number), Say::Peer(self.any_peer(client))],
            _ => vec![Say::Channel(number), Say::Peer(self.relayed_peer(client))],
        };
        self.ask(client, Method::CHANNEL_BIND, says)
    }

    fn pass(&mut self, action: Action) {
        let span = match action {
            Action::PassMilliseconds => self.dice.within(1..=900_000_000),
            Action::PassSeconds => self.dice.within(1..=40) * SECOND,
            Action::PassMinutes => self.dice.within(1..=9) * 60 * SECOND,
            Action::PassHours => self.dice.within(1..=3) * 3_600 * SECOND,
            _ => {
                let mut ends: Vec<u64> = Vec::new();
                for allocation in &self.model.allocations {
                    ends.extend(allocation.relays.iter().map(|relay| relay.until));
                    ends.extend(allocation.permissions.iter().map(|p| p.until));
                    ends.extend(allocation.channels.iter().map(|c| c.until));
                }
                ends.retain(|end| *end > self.now + 1);
                let end = self.dice.pick_any(&ends).unwrap_or(self.now + 1);
                // A nanosecond before, at the end, or after it.
                end - self.now - 1 + self.dice.within(0..=2)
            }
        };
        self.now += span;
    }

    fn timeout(&mut self) -> Result<(), String> {
        let tick = self.tick();
        let worker = self.dice.below(self.servers.len());
        self.servers[worker].handle_timeout(tick);
        self.drain_events()?;
        for (_, relayed) in self.relayed_by(worker) {
            let holder = self.model.allocations.iter().find(|allocation| {
                let mut relays = allocation.relays.iter();
                relays.any(|relay| relay.addr == relayed.socket_addr() && relay.until <= self.now)
            });
            must(holder.is_none_or(|a| a.replaced), || {
                format!("{relayed} has ended and is held")
            })?;
        }
        Ok(())
    }

    fn condemned(&mut self) -> Result<(), String> {
        let tick = self.tick();
        let waiting = self.house.borrow().condemned.len();
        if waiting == 0 {
            return Ok(());
        }
        let at = self.dice.below(waiting);
        let (worker, id) = self.house.borrow_mut().condemned.remove(at);
        self.servers[usize::from(worker.0)].handle_condemned(id, tick);
        self.drain_events()?;
        must(self.model.allocations.iter().all(|a| a.id != id), || {
            "a condemned allocation lives".to_owned()
        })
    }

    fn trouble(&mut self, action: Action) {
        let ports = self.setting.ports.clone();
        let taken: Vec<u16> = (0..3).map(|_| self.dice.port(&ports)).collect();
        let mut house = self.house.borrow_mut();
        match action {
            Action::Exhausted => house.exhausted = true,
            Action::PortsTaken => house.taken.extend(taken),
            _ => {
                house.exhausted = false;
                house.taken.clear();
            }
        }
    }

    /// A NAT gives a client another port, or it comes from another network; what it held stays.
    fn roam(&mut self) -> Result<(), String> {
        let client = self.anybody();
        let before = self.clients[client].tuple;
        let after = self.new_tuple();
        if self.connection(before).is_some() {
            self.leave_half_open(before)?;
            self.enter(client, after);
            return Ok(());
        }
        let port = after.client.expose().port();
        let flipped = SocketAddr::new(before.client.expose().ip(), port);
        let taken = self.secrets.contains(&flipped);
        let after = if taken || self.dice.percent(40) {
            after
        } else {
            self.secrets.push(flipped);
            FiveTuple {
                client: ClientAddr::new(flipped),
                listener: before.listener,
            }
        };
        self.enter(client, after);
        Ok(())
    }

    /// A connection ends, mostly one that means something.
    fn disconnect(&mut self) -> Result<(), String> {
        let holders = self.connections.iter().map(|c| c.tuple);
        let holders: Vec<FiveTuple> = holders.filter(|t| self.model.on(*t).is_some()).collect();
        let all: Vec<FiveTuple> = self.connections.iter().map(|c| c.tuple).collect();
        let among = if self.dice.percent(70) && !holders.is_empty() {
            holders
        } else {
            all
        };
        match self.dice.pick_any(&among) {
            Some(tuple) => self.lose(tuple),
            None => Ok(()),
        }
    }

    /// A client stops reading, or some read on.
    fn stall(&mut self, action: Action) {
        if self.connections.is_empty() {
            return;
        }
        let at = self.dice.below(self.connections.len());
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if action == Action::Stall {
                connection.is_stalled |= index == at;
            } else if !connection.is_half_open && index >= at {
                connection.is_stalled = false;
            }
        }
    }

    fn renew(&mut self) {
        let client = self.anybody();
        let holds = self
            .model
            .live_on(self.clients[client].tuple, self.now)
            .is_some();
        if !holds || self.dice.percent(20) {
            let user = self.clients[client].identity.user;
            self.clients[client].identity = self.identity(user);
        }
    }

    /// What the data plane knows of a relayed address with a socket.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        let house = self.house.borrow();
        let mut sockets: Vec<SocketAddr> = house
            .sockets
            .keys()
            .map(|addr| addr.socket_addr())
            .collect();
        sockets.sort_unstable();
        sockets
    }

    /// The worker and the opaque name behind a relayed address.
    pub fn behind(&self, relayed: SocketAddr) -> Option<(usize, taciturn::turn::AllocationId)> {
        let house = self.house.borrow();
        let id = *house.sockets.get(&RelayedAddr::new(relayed))?;
        let holder = self.model.allocations.iter().find(|a| a.id == id)?;
        Some((holder.worker, id))
    }
}
