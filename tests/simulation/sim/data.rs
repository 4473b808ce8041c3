//! Application data, from clients and from peers, held to the fate the model foretells.

use std::net::SocketAddr;

use taciturn::proto::AddressFamily;
use taciturn::turn::FiveTuple;

use super::action::Action;
use super::check::must;
use super::model::{Fate, Says};
use super::run::{Outcome, Run};
use super::setting::{fleet_peer, fleet_source, foreign_peer, refused_peer};
use super::speech::{Received, channel_data, send};
use super::stream::Word;

impl Run {
    /// A relayed address of this server, in a family that the client has.
    pub fn relayed_peer(&mut self, client: usize) -> SocketAddr {
        let friend = (client ^ 1).min(self.clients.len() - 1);
        let tuple = self.clients[friend].tuple;
        let of_friend: Vec<SocketAddr> = self
            .model
            .on(tuple)
            .map(|a| a.relays.iter().map(|relay| relay.addr).collect())
            .unwrap_or_default();
        if self.dice.percent(50)
            && let Some(peer) = self.in_my_family(client, of_friend)
        {
            return peer;
        }
        let all = self.model.allocations.iter().flat_map(|a| &a.relays);
        let all: Vec<SocketAddr> = all.map(|relay| relay.addr).collect();
        match self.in_my_family(client, all) {
            Some(peer) if self.dice.percent(90) => peer,
            _ => self.relayed_anyhow(client),
        }
    }

    fn in_my_family(&mut self, client: usize, peers: Vec<SocketAddr>) -> Option<SocketAddr> {
        let mine = self.model.on(self.clients[client].tuple);
        let families: Vec<AddressFamily> = mine
            .map(|a| {
                a.relays
                    .iter()
                    .map(|r| AddressFamily::of(r.addr.ip()))
                    .collect()
            })
            .unwrap_or_default();
        let mut fitting = peers;
        if self.dice.percent(95) {
            fitting.retain(|peer| families.contains(&AddressFamily::of(peer.ip())));
        }
        self.dice.pick_any(&fitting)
    }

    /// A relay port whether or not it lives, now and then one that is none.
    pub fn relayed_anyhow(&mut self, client: usize) -> SocketAddr {
        let all = self.setting.relays.iter().map(|ip| SocketAddr::new(*ip, 0));
        let all: Vec<SocketAddr> = all.collect();
        let mut peer = self.in_my_family(client, all.clone()).unwrap_or(all[0]);
        let ports = self.setting.ports.clone();
        peer.set_port(if self.dice.percent(95) {
            self.dice.port(&ports)
        } else {
            self.dice.pick(&[22, 3_478, 0])
        });
        peer
    }

    pub fn any_peer(&mut self, client: usize) -> SocketAddr {
        match self.dice.below(10) {
            0..=3 => self.relayed_peer(client),
            4..=5 => fleet_peer(&mut self.dice),
            6..=8 => foreign_peer(&mut self.dice),
            _ => refused_peer(&mut self.dice),
        }
    }

    /// A peer whose IP the client has permitted, if it has any.
    fn permitted_peer(&mut self, client: usize) -> SocketAddr {
        let now = self.now;
        let mine = self.model.live_on(self.clients[client].tuple, now);
        let permitted: Vec<_> = mine
            .map(|a| a.permissions.iter().filter(|p| now < p.until).collect())
            .unwrap_or_default();
        let ips: Vec<_> = permitted.iter().map(|permission| permission.ip).collect();
        let Some(ip) = self.dice.pick_any(&ips) else {
            return self.any_peer(client);
        };
        if self.setting.relays.contains(&ip) {
            let friend = (client ^ 1).min(self.clients.len() - 1);
            let tuple = self.clients[friend].tuple;
            let relays = self.model.allocations.iter().flat_map(|a| {
                let weight = if a.tuple == tuple { 5 } else { 1 };
                a.relays.iter().flat_map(move |r| vec![r.addr; weight])
            });
            let live: Vec<SocketAddr> = relays.filter(|addr| addr.ip() == ip).collect();
            if let Some(peer) = self.dice.pick_any(&live) {
                return peer;
            }
        }
        for _ in 0..30 {
            let peer = match self.dice.below(2) {
                0 => fleet_peer(&mut self.dice),
                _ => foreign_peer(&mut self.dice),
            };
            if peer.ip() == ip {
                return peer;
            }
        }
        SocketAddr::new(ip, 5_000)
    }

    fn payload(&mut self) -> Vec<u8> {
        self.count += 1;
        let length = self.dice.pick(&[0, 1, 2, 3, 20, 120, 1_201]);
        let pattern = self.count.to_be_bytes().into_iter().cycle();
        pattern.take(length).collect()
    }

    pub fn send_some(&mut self, action: Action) -> Result<(), String> {
        let client = self.holder();
        let mut payload = self.payload();
        let says = self.says(client, action);
        if action == Action::SendOversize {
            let least: usize = 65_430;
            payload = vec![0xA5; least + self.dice.below(56)];
        }
        self.say(client, says, &payload).map(|_| ())
    }

    fn says(&mut self, client: usize, action: Action) -> Says {
        let tuple = self.clients[client].tuple;
        match action {
            Action::ChannelData | Action::ChannelUnbound => {
                let mine = self.model.on(tuple);
                let bound: Vec<u16> = mine
                    .map(|a| a.channels.iter().map(|channel| channel.number).collect())
                    .unwrap_or_default();
                let bound = self.dice.pick_any(&bound);
                let number = bound.filter(|_| action == Action::ChannelData);
                Says::Channel(number.unwrap_or(0x4009))
            }
            Action::SendUnpermitted => Says::Send {
                peer: self.any_peer(client),
                forbid: self.dice.percent(10),
            },
            _ => Says::Send {
                peer: self.permitted_peer(client),
                forbid: self.dice.percent(10),
            },
        }
    }

    /// Sends data, and says what rightly became of it.
    pub fn say(&mut self, client: usize, says: Says, payload: &[u8]) -> Result<Fate, String> {
        let tuple = self.clients[client].tuple;
        let word = self.word(says, payload);
        if self.connection(tuple).is_some() {
            return self.speak(tuple, vec![word], false);
        }
        let worker = self.worker_for(client);
        self.said(tuple, worker, &word)
    }

    fn word(&mut self, says: Says, payload: &[u8]) -> Word {
        let bytes = match says {
            Says::Channel(number) => channel_data(number, payload),
            Says::Send { peer, forbid } => send(self.id(), peer, Some(payload), forbid),
        };
        let payload = payload.to_vec();
        Word {
            says,
            payload,
            bytes,
        }
    }

    /// Several messages in one go, or the beginning of one; a client without a connection sends
    /// them one by one.
    pub fn burst(&mut self, action: Action) -> Result<(), String> {
        let connected: Vec<usize> = (0..self.clients.len())
            .filter(|client| self.connection(self.clients[*client].tuple).is_some())
            .collect();
        let Some(client) = self.dice.pick_any(&connected) else {
            return Ok(());
        };
        let count = match action {
            Action::Burst => self.dice.pick(&[2, 3, 4, 6]),
            _ => 1,
        };
        let mut words = Vec::new();
        for _ in 0..count {
            let payload = self.payload();
            let says = self.says(client, Action::ChannelData);
            let other = self.says(client, Action::Send);
            let says = self.dice.pick(&[says, other]);
            words.push(self.word(says, &payload));
        }
        let tuple = self.clients[client].tuple;
        let keep_back = action == Action::HalfMessage || self.dice.percent(10);
        self.speak(tuple, words, keep_back).map(|_| ())
    }

    /// A message has come whole to this worker: it has the fate that the model foretells now.
    pub fn said(&mut self, tuple: FiveTuple, worker: usize, word: &Word) -> Result<Fate, String> {
        let Word {
            says,
            payload,
            bytes,
        } = word;
        let foretold = self
            .model
            .foretell_client(tuple, *says, payload.len(), self.now);
        self.note(|_| format!("{:16}{says:?}: {foretold:?}", ""));
        let outcome = self.hand(worker, tuple, bytes)?;
        self.compare(&foretold, outcome, payload)?;
        let by_channel = matches!(says, Says::Channel(_));
        if let Fate::ToClient {
            tuple: to, channel, ..
        } = &foretold
        {
            let over = [tuple, *to].map(|end| end.listener.transport());
            self.tally.crossed(over, [by_channel, channel.is_some()]);
        }
        match (&foretold, by_channel) {
            (Fate::Dropped, _) => {}
            (Fate::ToPeer { .. }, _) => self.tally.delivered("to a peer"),
            (Fate::ToClient { channel, .. }, _) => {
                self.tally.delivered(match (by_channel, channel.is_some()) {
                    (true, true) => "hairpin, channel to channel",
                    (true, false) => "hairpin, channel to indication",
                    (false, true) => "hairpin, indication to channel",
                    (false, false) => "hairpin, indication to indication",
                });
            }
        }
        Ok(foretold)
    }

    pub fn receive_some(&mut self, action: Action) -> Result<(), String> {
        if action == Action::FromPeerTooLate {
            return self.receive_too_late();
        }
        let sockets = self.sockets();
        let Some(relayed) = self.dice.pick_any(&sockets) else {
            return Ok(());
        };
        let Some((worker, id)) = self.behind(relayed) else {
            return Err(format!("the socket of {relayed} is nobody's"));
        };
        // A socket hears only its own family.
        let sources: Vec<SocketAddr> = (0..8).map(|_| self.source(action, relayed)).collect();
        let mut fitting = sources.iter().filter(|s| s.is_ipv4() == relayed.is_ipv4());
        let Some(source) = fitting.next().copied() else {
            return Ok(());
        };
        let payload = self.payload();
        let foretold = self
            .model
            .foretell_peer(relayed, source, payload.len(), self.now);
        self.note(|_| format!("{:16}from {source} to {relayed}: {foretold:?}", ""));
        let outcome = self.hand_peer(worker, id, source, &payload)?;
        self.compare(&foretold, outcome, &payload)?;
        if let Fate::ToClient { channel, .. } = foretold {
            self.tally.delivered(match channel {
                Some(_) => "from a peer, in a channel",
                None => "from a peer, in an indication",
            });
        }
        Ok(())
    }

    fn source(&mut self, action: Action, relayed: SocketAddr) -> SocketAddr {
        match action {
            Action::FromFleet => fleet_source(&mut self.dice),
            Action::FromOwnRelay => {
                let ip = relayed.ip();
                let ports = self.setting.ports.clone();
                SocketAddr::new(ip, self.dice.port(&ports))
            }
            Action::FromAnyPeer => foreign_peer(&mut self.dice),
            _ => self.source_for(relayed),
        }
    }

    /// Somebody outside whom the allocation of `relayed` has bound or permitted.
    fn source_for(&mut self, relayed: SocketAddr) -> SocketAddr {
        let holder = self.model.live_at(relayed, self.now);
        let mut known: Vec<SocketAddr> = Vec::new();
        if let Some(allocation) = holder {
            known.extend(allocation.channels.iter().map(|channel| channel.peer));
            let permitted = allocation.permissions.iter();
            known.extend(permitted.map(|p| SocketAddr::new(p.ip, 5_001)));
        }
        known.retain(|peer| !self.setting.relays.contains(&peer.ip()));
        let source = self.dice.pick_any(&known);
        source.unwrap_or_else(|| foreign_peer(&mut self.dice))
    }

    /// What was in a socket's buffer when its allocation ended.
    fn receive_too_late(&mut self) -> Result<(), String> {
        let Some((worker, id)) = self.dice.pick_any(&self.gone) else {
            return Ok(());
        };
        let source = foreign_peer(&mut self.dice);
        let payload = self.payload();
        match self.hand_peer(worker, id, source, &payload)? {
            Outcome::Dropped => Ok(()),
            other => Err(format!("an allocation that is gone received {other:?}")),
        }
    }

    fn compare(&self, foretold: &Fate, outcome: Outcome, payload: &[u8]) -> Result<(), String> {
        let (fate, bytes) = match (foretold, outcome) {
            (Fate::Dropped, Outcome::Dropped) => return Ok(()),
            (_, Outcome::Data(fate, bytes)) => (fate, bytes),
            (_, other) => return Err(format!("{other:?} instead of {foretold:?}")),
        };
        let is_foretold = match (&fate, foretold) {
            // A channel shows no peer: the number stands for it.
            (
                Fate::ToClient {
                    tuple,
                    channel: Some(channel),
                    ..
                },
                Fate::ToClient {
                    tuple: other_tuple,
                    channel: Some(other_channel),
                    ..
                },
            ) => (tuple, channel) == (other_tuple, other_channel),
            (fate, foretold) => fate == foretold,
        };
        must(is_foretold, || format!("{fate:?} instead of {foretold:?}"))?;
        let received = match fate {
            Fate::ToPeer { .. } => &bytes[..],
            Fate::Dropped | Fate::ToClient { .. } => match Received::read(&bytes)? {
                Received::OnChannel(_, data) | Received::From(_, data) => data,
            },
        };
        must(received == payload, || "the payload was altered".to_owned())?;
        // What is around the payload; the payload itself is what it was.
        let start = received.as_ptr().addr() - bytes.as_ptr().addr();
        let end = start + received.len();
        self.check_hidden(&[&bytes[..start], &bytes[end..]].concat(), None)
    }
}
