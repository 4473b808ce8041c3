//! What a server must not be impressed by: noise, forgeries, the wrong people; and Binding, which
//! it answers to everybody.

use taciturn::proto::{Class, Message, Method};
use taciturn::turn::{ClientAddr, Transport};

use super::act::METHODS;
use super::action::Action;
use super::check::must;
use super::run::{Outcome, Run};
use super::setting::no_client;
use super::speech::{Answer, Say, Signing, bare, request, send};

impl Run {
    /// Requests that must not be granted, but for what is asked.
    pub fn unauthorized(&mut self, action: Action) -> Result<(), String> {
        let client = self.holder();
        let method = self.dice.pick(&METHODS);
        let peer = self.relayed_peer(client);
        let mut says = match method {
            Method::ALLOCATE => vec![Say::Transport(17)],
            Method::REFRESH => vec![],
            Method::CREATE_PERMISSION => vec![Say::Peer(peer)],
            _ => vec![Say::Channel(0x4001), Say::Peer(peer)],
        };
        let signing = match action {
            Action::Unsigned => Signing::None,
            Action::Incomplete => Signing::NoNonce,
            Action::WrongPassword => Signing::WrongPassword,
            _ => Signing::Right,
        };
        let identity = std::rc::Rc::clone(&self.clients[client].identity);
        match action {
            Action::StaleNonce => self.clients[client].nonce = None,
            Action::UnknownAttribute => says.push(Say::Unknown),
            Action::OtherUser => {
                let other = (identity.user + 1) % self.setting.users;
                self.clients[client].identity = self.identity(other);
            }
            _ => {}
        }
        let id = self.id();
        let asked = self.ask_as(client, method, says, signing, id);
        self.clients[client].identity = identity;
        asked
    }

    pub fn binding(&mut self, action: Action) -> Result<(), String> {
        let client = self.anybody();
        self.catch_up(self.clients[client].tuple)?;
        let (tuple, id) = (self.clients[client].tuple, self.id());
        let class = match action {
            Action::Binding => Class::Request,
            _ => Class::Indication,
        };
        let worker = self.door(tuple);
        let outcome = self.hand_client(worker, tuple, &bare(class, Method::BINDING, id))?;
        match (outcome, class) {
            (Outcome::Consumed, Class::Indication) => Ok(()),
            (Outcome::Dropped, Class::Request)
                if self.setting.tight && tuple.listener.transport() == Transport::Udp =>
            {
                Ok(())
            }
            (Outcome::Answer(bytes), Class::Request) => {
                let client = &self.clients[client];
                let answer = Answer::read(&bytes, &client.identity, client.dialect)?;
                self.check_hidden(&bytes, Some(tuple.client.expose()))?;
                self.tally.answered("binding", 0);
                let mapped = match self.model.on(tuple) {
                    Some(allocation) => allocation.mapped(),
                    None => Some(tuple.client.expose()),
                };
                must(answer.mapped == mapped && answer.id == id, || {
                    "a client was told another's address".to_owned()
                })
            }
            (other, _) => Err(format!("Binding led to {other:?}")),
        }
    }

    /// A request with one byte changed grants nothing, unless it became a Binding request.
    pub fn mutated(&mut self) -> Result<(), String> {
        let client = self.holder();
        self.catch_up(self.clients[client].tuple)?;
        let method = self.dice.pick(&METHODS);
        let peer = self.relayed_peer(client);
        let says = [Say::Transport(17), Say::Peer(peer), Say::Channel(0x4002)];
        let id = self.id();
        let mut envelope = self.envelope(client, method, Signing::Right, id);
        // What follows the integrity is covered by nothing, and means nothing.
        envelope.fingerprint = false;
        let mut bytes = request(&envelope, &says);
        // The first byte stays, or this could become data.
        let at = 1 + self.dice.below(bytes.len() - 1);
        if self.dice.percent(20) {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << self.dice.below(8);
        }
        let worker = self.worker_for(client);
        let tuple = self.clients[client].tuple;
        match self.hand_client(worker, tuple, &bytes)? {
            Outcome::Answer(answer) => {
                let message = Message::decode(&answer).map_err(|why| why.to_string())?;
                must(
                    message.class() == Class::Error || message.method() == Method::BINDING,
                    || "a forged request was granted".to_owned(),
                )
            }
            Outcome::Data(..) => Err("a request became data".to_owned()),
            Outcome::Consumed | Outcome::Dropped => Ok(()),
        }
    }

    pub fn noise(&mut self, action: Action) -> Result<(), String> {
        let client = self.holder();
        self.catch_up(self.clients[client].tuple)?;
        let mut tuple = self.clients[client].tuple;
        let id = self.id();
        let mut bytes = bare(Class::Request, Method::BINDING, id);
        match action {
            Action::SendBad => {
                let peer = self.any_peer(client);
                bytes = send(id, peer, None, false);
            }
            Action::Garbage => bytes = self.garbage(),
            Action::ClassicStun => bytes[4] ^= 0xFF,
            Action::BadFingerprint => {
                let mut envelope = self.envelope(client, Method::REFRESH, Signing::Right, id);
                envelope.fingerprint = true;
                bytes = request(&envelope, &[]);
                *bytes.last_mut().unwrap() ^= 1;
            }
            Action::UnknownMethod => {
                let method = self
                    .dice
                    .pick(&[Method::CONNECT, Method::SEND, Method::DATA]);
                bytes = bare(Class::Request, method, id);
            }
            Action::Response => {
                let class = self.dice.pick(&[Class::Success, Class::Error]);
                let method = self.dice.pick(&METHODS);
                let response = bare(class, method, id);
                let indication = bare(Class::Indication, Method::DATA, id);
                bytes = self.dice.pick(&[response, indication]);
            }
            _ => {
                let sockets = self.sockets();
                let own = self
                    .dice
                    .pick_any(&sockets)
                    .filter(|_| self.dice.percent(50));
                let source = own.unwrap_or_else(|| no_client(&mut self.dice));
                tuple.client = ClientAddr::new(source);
            }
        }
        let worker = self.door(tuple);
        match self.hand_client(worker, tuple, &bytes)? {
            Outcome::Dropped => Ok(()),
            other => Err(format!("noise led to {other:?}")),
        }
    }

    fn garbage(&mut self) -> Vec<u8> {
        let noise = self.dice.bytes::<40>();
        let len = self.dice.below(noise.len());
        let mut bytes = noise[..len].to_vec();
        if let Some(first) = bytes.first_mut() {
            *first = self.dice.pick(&[0x00, 0x01, 0x03, 0x04, 0x3F, 0x80, 0xFF]);
        }
        if self.dice.percent(20) {
            // ChannelData that announces more than there is.
            bytes = vec![0x40, 0x00, 0x00, 0x05, 1, 2, 3, 4];
            bytes.truncate(1 + self.dice.below(8));
        }
        bytes
    }
}
