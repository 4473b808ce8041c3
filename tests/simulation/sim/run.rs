//! One seed's run: servers, clients, time, and what is kept to hold the servers to the model.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use taciturn::proto::{DATA_INDICATION_HEADROOM, TransactionId};
use taciturn::turn::revocation::Revocations;
use taciturn::turn::{
    AllocationId, ClientAddr, Clock, Event, FiveTuple, Fragmentation, Handled, ListenerId,
    PeerAddr, RelayedAddr, Server, Target, Tick, Transport, WorkerId,
};

use super::action::Action;
use super::check::must;
use super::dice::Dice;
use super::environment::{House, Room, forwarded};
use super::model::{Fate, Model};
use super::plant::{Plant, Planted};
use super::setting::{Claimed, EPOCH, MAX_TTL, SECOND, Setting, address, shared};
use super::speech::{Dialect, Identity, Received};
use super::stream::{Connection, Worth};
use super::tally::Tally;

/// Behind a datagram, for padding.
const TAILROOM: usize = 3;
/// The longest message that an action makes: an indication around the longest payload.
const LARGEST: usize = 66_000;

/// A nonce, and for whom it is good.
#[derive(Debug, Clone)]
pub struct Nonce {
    pub text: String,
    pub made: u64,
    pub ip: std::net::IpAddr,
}

#[derive(Debug)]
pub struct Client {
    pub tuple: FiveTuple,
    /// The worker that the kernel would hand its datagrams to.
    pub home: usize,
    pub identity: Rc<Identity>,
    pub dialect: Dialect,
    pub nonce: Option<Nonce>,
    /// Its last Allocate request, for a retransmission.
    pub allocate: Option<(TransactionId, Vec<super::speech::Say>)>,
}

/// What came of a datagram.
#[derive(Debug)]
pub enum Outcome {
    Answer(Vec<u8>),
    Data(Fate, Vec<u8>),
    Consumed,
    Dropped,
}

#[derive(Debug)]
pub struct Run {
    pub setting: Rc<Setting>,
    pub revocations: Revocations,
    pub dice: Dice,
    pub servers: Vec<Server<Planted>>,
    pub house: Rc<RefCell<House>>,
    pub model: Model,
    pub clients: Vec<Client>,
    /// Credentials of each user.
    pub identities: Vec<Vec<Rc<Identity>>>,
    /// Every address a client ever had: none may ever be seen by another.
    pub secrets: Vec<SocketAddr>,
    /// Allocations that are gone, by worker.
    pub gone: Vec<(usize, AllocationId)>,
    pub opened: Vec<(usize, AllocationId)>,
    pub now: u64,
    pub early_uses: u64,
    /// Allocations that closed as given up, until a response says so.
    pub given_up: usize,
    /// Allocations that have moved.
    pub moved: u64,
    /// Whose allocation a ticket is for that is being shown.
    pub resuming: Option<usize>,
    pub count: u32,
    pub tally: Tally,
    /// What happened, if somebody wants to read it.
    pub trace: Option<Vec<String>>,
    pub plant: Plant,
    pub connections: Vec<Connection>,
    /// Whose connection has just ended.
    pub ending: Option<FiveTuple>,
    buf: Vec<u8>,
}

impl Run {
    pub fn new(seed: u64, plant: Plant, is_traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let setting = Setting::draw(&mut dice);
        Self::within(setting, dice, plant, is_traced)
    }

    pub fn within(setting: Setting, mut dice: Dice, plant: Plant, is_traced: bool) -> Self {
        let setting = Rc::new(setting);
        let house = House::new(
            &setting.relays,
            &setting.ports,
            setting.unvalidated(),
            dice.within(0..=u64::MAX),
        );
        house.borrow_mut().workers = u16::try_from(setting.workers).unwrap();
        let config = shared(&setting);
        let rates = &config.limits.rates;
        house.borrow_mut().users.set_rates(rates);
        let servers = (0..setting.workers)
            .map(|worker| {
                let worker = WorkerId(u16::try_from(worker).unwrap());
                let room = Room {
                    house: Rc::clone(&house),
                    worker,
                };
                Server::new(
                    Arc::clone(&config),
                    Planted::new(room, plant),
                    worker,
                    dice.bytes(),
                )
            })
            .collect();
        let mut run = Self {
            model: Model::new(Rc::clone(&setting)),
            revocations: config.revocations.clone(),
            servers,
            house,
            clients: Vec::new(),
            identities: (0..setting.users).map(|_| Vec::new()).collect(),
            secrets: Vec::new(),
            gone: Vec::new(),
            opened: Vec::new(),
            now: 1_000 * SECOND,
            early_uses: 0,
            given_up: 0,
            moved: 0,
            resuming: None,
            count: 0,
            tally: Tally::default(),
            trace: is_traced.then(Vec::new),
            plant,
            connections: Vec::new(),
            ending: None,
            buf: vec![0; DATA_INDICATION_HEADROOM + LARGEST + TAILROOM],
            setting,
            dice,
        };
        for index in 0..run.setting.clients {
            let identity = run.identity(index % run.setting.users);
            let dialect = run.dice.pick(&[Dialect::Sha1, Dialect::Sha256]);
            let tuple = run.new_tuple();
            run.clients.push(Client {
                tuple,
                home: 0,
                identity,
                dialect,
                nonce: None,
                allocate: None,
            });
            run.enter(index, tuple);
        }
        run
    }

    pub fn go(&mut self, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            let action = Action::draw(&mut self.dice);
            self.tally.did(action);
            self.note(|run| format!("{:>14} {action:?}", run.now));
            self.act(action)?;
            self.check()?;
        }
        self.stop()
    }

    pub fn note(&mut self, say: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = say(self);
            self.trace.get_or_insert_default().push(line);
        }
    }

    pub const fn unix(&self) -> u64 {
        EPOCH + self.now / SECOND
    }

    pub const fn tick(&self) -> Tick {
        Tick::from_nanos(self.now)
    }

    pub const fn clock(&self) -> Clock {
        Clock {
            now: self.tick(),
            unix: self.unix(),
        }
    }

    /// A credential of `user`: one that exists, or a new one.
    pub fn identity(&mut self, user: usize) -> Rc<Identity> {
        if self.identities[user].is_empty() || self.dice.percent(30) {
            let mut left = self.dice.pick(&[100, 700, 4_000, 90_000]);
            if self.dice.percent(3) {
                left = 2 * MAX_TTL;
            }
            let expires = self.unix() + left;
            let identity = if self.dice.percent(50) {
                let claimed = Claimed::draw(&mut self.dice);
                Identity::seal(user, (self.unix(), expires), claimed, self.dice.bytes())
            } else {
                Identity::mint(user, expires)
            };
            self.identities[user].push(identity);
        }
        self.dice.pick(&self.identities[user])
    }

    /// The same over UDP.
    pub fn new_datagram_tuple(&mut self) -> FiveTuple {
        loop {
            let tuple = self.new_tuple();
            if !tuple.listener.transport().is_stream() {
                return tuple;
            }
        }
    }

    /// A client's address that nobody ever had; some hosts have several.
    pub fn new_tuple(&mut self) -> FiveTuple {
        loop {
            let host = self.dice.within(1..=20);
            let ip = if self.dice.percent(60) {
                address(&format!("193.5.6.{host}"))
            } else {
                address(&format!("2a01:4f8:{host}::{host}"))
            };
            let client = SocketAddr::new(ip, self.dice.port(&(20_000..=30_000)));
            if self.secrets.contains(&client) {
                continue;
            }
            self.secrets.push(client);
            let mut listener = ListenerId::new(Transport::Udp, self.dice.port(&(0..=1)));
            let streams = u16::try_from(self.setting.stream_workers).unwrap();
            if streams > 0 && self.dice.percent(45) {
                let transport = self.dice.pick(&[Transport::Tcp, Transport::Tls]);
                // Two addresses, each with a place at every worker.
                listener = ListenerId::new(transport, self.dice.port(&(0..=2 * streams - 1)));
            }
            return FiveTuple {
                client: ClientAddr::new(client),
                listener,
            };
        }
    }

    pub fn id(&mut self) -> TransactionId {
        TransactionId::new(self.dice.bytes())
    }

    /// Hands a client's message to its connection, or as a datagram to `worker`.
    pub fn hand_client(
        &mut self,
        worker: usize,
        tuple: FiveTuple,
        message: &[u8],
    ) -> Result<Outcome, String> {
        if self.connection(tuple).is_some() {
            return self.hand_stream(tuple, message);
        }
        self.hand(worker, tuple, message)
    }

    /// Hands a client's datagram to `worker`, and on to the owner of its 5-tuple if that is
    /// another.
    pub fn hand(
        &mut self,
        worker: usize,
        tuple: FiveTuple,
        datagram: &[u8],
    ) -> Result<Outcome, String> {
        let mut worker = worker;
        for _ in 0..2 {
            let (buf, range) = load(&mut self.buf, datagram);
            let clock = self.clock();
            let server = &mut self.servers[worker];
            let handled = server.handle_client(tuple, &mut self.buf[buf.clone()], range, clock);
            server.settle();
            server.environment().put_back();
            if let Handled::Elsewhere(owner) = handled {
                let owner = usize::from(owner.0);
                let expected = self.model.on(tuple).map(|allocation| allocation.worker);
                let expected = expected.or(self.resuming);
                if expected != Some(owner) || owner == worker {
                    return Err(format!("handed over to {owner} instead of {expected:?}"));
                }
                self.tally.handed_over += 1;
                worker = owner;
                continue;
            }
            return self.outcome(worker, Some(tuple), buf, handled);
        }
        Err("a datagram was handed over twice".to_owned())
    }

    pub fn hand_peer(
        &mut self,
        worker: usize,
        id: AllocationId,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<Outcome, String> {
        let (buf, range) = load(&mut self.buf, datagram);
        let tick = self.tick();
        let source = PeerAddr::new(source);
        let server = &mut self.servers[worker];
        let handled = server.handle_peer(id, source, &mut self.buf[buf.clone()], range, tick);
        server.settle();
        server.environment().put_back();
        self.outcome(worker, None, buf, handled)
    }

    fn outcome(
        &mut self,
        worker: usize,
        asked: Option<FiveTuple>,
        buf: Range<usize>,
        handled: Handled,
    ) -> Result<Outcome, String> {
        self.drain_events()?;
        Ok(match handled {
            Handled::Answer => {
                let answer = self.servers[worker].answer().to_vec();
                let asked = asked.ok_or("a peer was answered")?;
                self.deliver(asked, &answer, Worth::Answer)?;
                Outcome::Answer(answer)
            }
            Handled::Consumed => Outcome::Consumed,
            Handled::Dropped(reason) => {
                self.tally.dropped(worker, reason);
                self.note(|_| format!("{:16}dropped: {}", "", reason.label()));
                Outcome::Dropped
            }
            Handled::Elsewhere(_) => return Err("a peer's datagram was handed over".to_owned()),
            Handled::AnswerBy(_) => return Err("an answer left by another listener".to_owned()),
            Handled::Spliced(_) | Handled::HandOver(_) => {
                return Err("TCP was relayed".to_owned());
            }
            Handled::Forward(forward) => {
                let bytes = forwarded(&self.servers[worker], &self.buf[buf], &forward);
                let fate = fate(&forward.to, &bytes)?;
                if let Target::Client(to) = forward.to {
                    self.deliver(to, &bytes, Worth::Packet)?;
                }
                Outcome::Data(fate, bytes)
            }
        })
    }

    /// Takes the events of all servers: what closed must have ended, and be counted as it was.
    pub fn drain_events(&mut self) -> Result<(), String> {
        for worker in 0..self.servers.len() {
            while let Some(event) = self.servers[worker].poll_event() {
                match event {
                    Event::Opened { id, tuple, .. } => {
                        self.tally.opened += 1;
                        let transport = tuple.listener.transport();
                        self.tally.opened_over[worker][transport as usize] += 1;
                        self.opened.push((worker, id));
                    }
                    Event::Moved { id, tuple } => {
                        self.moved += 1;
                        let allocation = self.model.on(tuple);
                        must(allocation.is_some_and(|a| a.id == id), || {
                            "an allocation went where its client is not".to_owned()
                        })?;
                    }
                    Event::Closed {
                        id,
                        transport,
                        reason,
                        lived,
                        standing,
                        ..
                    } => {
                        self.tally.closed += 1;
                        self.closed(worker, id, transport, reason, lived, &standing.meters)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The address of a client of `worker` or of any other.
    pub fn worker_for(&mut self, client: usize) -> usize {
        let tuple = self.clients[client].tuple;
        if self.dice.percent(6) {
            self.door(tuple)
        } else {
            self.clients[client].home
        }
    }

    pub fn relayed_by(&self, worker: usize) -> Vec<(AllocationId, RelayedAddr)> {
        self.servers[worker].relayed().collect()
    }
}

/// What was done with data, in the model's words; the payload is compared by the caller.
fn fate(to: &Target, bytes: &[u8]) -> Result<Fate, String> {
    Ok(match to {
        Target::Peer {
            from,
            to,
            fragmentation,
        } => Fate::ToPeer {
            from: from.socket_addr(),
            to: to.expose(),
            forbid: *fragmentation == Fragmentation::Forbidden,
        },
        Target::Client(tuple) => match Received::read(bytes)? {
            Received::OnChannel(number, _) => Fate::ToClient {
                tuple: *tuple,
                channel: Some(number),
                visible: SocketAddr::from(([0; 4], 0)),
            },
            Received::From(visible, _) => Fate::ToClient {
                tuple: *tuple,
                channel: None,
                visible,
            },
        },
    })
}

/// Puts a datagram where it has room around it, or every third length where it has none; says what
/// belongs to it, and where it lies in that.
fn load(buf: &mut [u8], datagram: &[u8]) -> (Range<usize>, Range<usize>) {
    let range = DATA_INDICATION_HEADROOM..DATA_INDICATION_HEADROOM + datagram.len();
    buf[range.clone()].copy_from_slice(datagram);
    if datagram.len().is_multiple_of(3) {
        (range, 0..datagram.len())
    } else {
        (0..buf.len(), range)
    }
}
