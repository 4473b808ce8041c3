//! Clients on TCP and TLS. Their bytes are a stream, cut and glued anywhere, that the worker which
//! owns them takes apart again; what is sent to them waits in a queue of their connection, and is
//! gone with it. The worker's part is written from what `dataplane/stream` says it does.

use std::collections::VecDeque;
use std::net::SocketAddr;

use taciturn::proto::{
    Border, ChannelRange, Class, MAGIC_COOKIE, MAX_STREAM_MESSAGE, Method, next_border,
};
use taciturn::turn::stats::{Direction, DropReason, Path};
use taciturn::turn::{FiveTuple, RelayedAddr};

use super::check::must;
use super::model::{Fate, Says};
use super::plant::Plant;
use super::run::{Outcome, Run};
use super::speech::{Received, bare, padded};

/// The longest message of a client without an allocation that a worker waits for.
pub const STRANGERS_MESSAGE: usize = 2_048;

/// What a message is worth when a queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    Packet,
    Answer,
}

/// Data, and how it is said.
#[derive(Debug)]
pub struct Word {
    pub says: Says,
    pub payload: Vec<u8>,
    pub bytes: Vec<u8>,
}

/// One connection, with both of its ends.
#[derive(Debug)]
pub struct Connection {
    pub tuple: FiveTuple,
    /// Whether its client reads nothing just now.
    pub is_stalled: bool,
    /// Whether its client is gone, and nobody knows.
    pub is_half_open: bool,
    /// What has come to the worker and is no whole message yet.
    unread: Vec<u8>,
    /// Data of which the worker has not seen the end, and the bytes that were not sent yet.
    words: VecDeque<Word>,
    rest: Vec<u8>,
    /// On its way to the client.
    wire: Vec<u8>,
    /// What the client has read and is no whole message yet.
    inbox: Vec<u8>,
    /// What it must read, in this order.
    expected: VecDeque<Vec<u8>>,
    /// Whether an answer found no room, so that its promises are broken.
    is_broken: bool,
}

impl Connection {
    fn new(tuple: FiveTuple) -> Self {
        Self {
            tuple,
            is_stalled: false,
            is_half_open: false,
            unread: Vec::new(),
            words: VecDeque::new(),
            rest: Vec::new(),
            wire: Vec::new(),
            inbox: Vec::new(),
            expected: VecDeque::new(),
            is_broken: false,
        }
    }
}

/// What stands at the beginning of a worker's unread bytes.
enum Taken {
    Message(Vec<u8>),
    More,
    /// Nothing that is waited for: the worker closes the connection.
    Lost,
}

impl Run {
    pub fn connection(&self, tuple: FiveTuple) -> Option<&Connection> {
        self.connections.iter().find(|c| c.tuple == tuple)
    }

    fn connection_mut(&mut self, tuple: FiveTuple) -> Result<&mut Connection, String> {
        let mut all = self.connections.iter_mut();
        let found = all.find(|connection| connection.tuple == tuple);
        found.ok_or_else(|| "something was sent on a connection that is gone".to_owned())
    }

    /// Has a client speak from here, on a connection if that is how.
    pub fn enter(&mut self, client: usize, tuple: FiveTuple) {
        if tuple.listener.transport().is_stream() {
            self.connections.push(Connection::new(tuple));
        }
        self.clients[client].tuple = tuple;
        self.clients[client].home = self.door(tuple);
    }

    /// Where the bytes of a 5-tuple arrive.
    pub fn door(&mut self, tuple: FiveTuple) -> usize {
        match self.setting.owner(tuple.listener) {
            Some(owner) => owner,
            None => self.dice.below(self.setting.udp_workers()),
        }
    }

    /// A message of one's own, which is not foretold here. What is no message costs the connection.
    pub fn hand_stream(&mut self, tuple: FiveTuple, message: &[u8]) -> Result<Outcome, String> {
        let is_one = is_one_message(message, self.setting.channels);
        let mut wire = Vec::new();
        // Now and then behind another one, in the same segment.
        let before = self.dice.percent(15).then(|| {
            let id = self.id();
            bare(Class::Indication, Method::BINDING, id)
        });
        wire.extend(before.iter().flatten());
        // Padding could make a message of what is none.
        wire.extend(if is_one {
            padded(message)
        } else {
            message.to_vec()
        });
        let mut expected = before.into_iter();
        let mut last = None;
        for piece in self.cut(wire) {
            self.connection_mut(tuple)?.unread.extend(piece);
            loop {
                match self.take(tuple)? {
                    Taken::Message(taken) => {
                        if let Some(before) = expected.next() {
                            must(taken == before, || "a border is misplaced".to_owned())?;
                            let outcome = self.hand_owner(tuple, &taken)?;
                            must(matches!(outcome, Outcome::Consumed), || {
                                format!("a Binding indication led to {outcome:?}")
                            })?;
                            continue;
                        }
                        let outcome = self.hand_owner(tuple, &taken)?;
                        if !is_one {
                            self.lose(tuple)?;
                            return Ok(outcome);
                        }
                        must(taken == message && last.is_none(), || {
                            "a border is misplaced".to_owned()
                        })?;
                        last = Some(outcome);
                    }
                    Taken::More => break,
                    Taken::Lost => {
                        let is_too_long = message.len() > STRANGERS_MESSAGE;
                        let is_stranger = self.model.on(tuple).is_none();
                        must(!is_one || is_stranger && is_too_long, || {
                            "a connection lost its borders".to_owned()
                        })?;
                        self.give_up(tuple)?;
                        return Ok(Outcome::Dropped);
                    }
                }
            }
        }
        if let Some(outcome) = last {
            return Ok(outcome);
        }
        must(!is_one, || "a message was not heard".to_owned())?;
        if !self.connection_mut(tuple)?.unread.is_empty() {
            self.lose(tuple)?;
        }
        Ok(Outcome::Dropped)
    }

    /// Sends data in one go; the end of the last may be kept back for later. Says what became of
    /// the last that was heard.
    pub fn speak(
        &mut self,
        tuple: FiveTuple,
        words: Vec<Word>,
        keep_back: bool,
    ) -> Result<Fate, String> {
        self.catch_up(tuple)?;
        let mut wire: Vec<u8> = words.iter().flat_map(|word| padded(&word.bytes)).collect();
        let last = words.last().map_or(0, |word| padded(&word.bytes).len());
        let kept = if keep_back && last > 1 {
            1 + self.dice.below(last - 1)
        } else {
            0
        };
        let rest = wire.split_off(wire.len() - kept);
        let connection = self.connection_mut(tuple)?;
        connection.words.extend(words);
        connection.rest = rest;
        self.send(tuple, wire)
    }

    /// Sends the end of what has begun, so that something else can follow.
    pub fn catch_up(&mut self, tuple: FiveTuple) -> Result<(), String> {
        if self.connection(tuple).is_none() {
            return Ok(());
        }
        let rest = std::mem::take(&mut self.connection_mut(tuple)?.rest);
        if !rest.is_empty() {
            self.send(tuple, rest)?;
        }
        // Unless that cost the connection, everything was heard.
        let left = self.connection(tuple).map_or(0, |c| c.words.len());
        must(left == 0, || "data was not heard".to_owned())
    }

    fn send(&mut self, tuple: FiveTuple, wire: Vec<u8>) -> Result<Fate, String> {
        let mut fate = Fate::Dropped;
        let owner = self.door(tuple);
        for piece in self.cut(wire) {
            self.connection_mut(tuple)?.unread.extend(piece);
            loop {
                match self.take(tuple)? {
                    Taken::Message(taken) => {
                        let word = self.connection_mut(tuple)?.words.pop_front();
                        let word = word.ok_or("a message was heard that nobody sent")?;
                        must(taken == word.bytes, || "a border is misplaced".to_owned())?;
                        fate = self.said(tuple, owner, &word)?;
                    }
                    Taken::More => break,
                    Taken::Lost => {
                        let word = self.connection_mut(tuple)?.words.front();
                        let is_too_long =
                            word.is_some_and(|word| word.bytes.len() > STRANGERS_MESSAGE);
                        must(is_too_long && self.model.on(tuple).is_none(), || {
                            "a connection lost its borders".to_owned()
                        })?;
                        self.give_up(tuple)?;
                        return Ok(Fate::Dropped);
                    }
                }
            }
        }
        Ok(fate)
    }

    /// Whatever bytes, of which the model knows nothing: each message that came of them, and what
    /// came of it.
    pub fn pour(
        &mut self,
        tuple: FiveTuple,
        bytes: &[u8],
    ) -> Result<Vec<(Vec<u8>, Outcome)>, String> {
        let mut heard = Vec::new();
        self.connection_mut(tuple)?.unread.extend(bytes);
        loop {
            match self.take(tuple)? {
                Taken::Message(taken) => {
                    let outcome = self.hand_owner(tuple, &taken)?;
                    if let Outcome::Data(Fate::ToClient { tuple: to, .. }, bytes) = &outcome {
                        let (Received::OnChannel(_, data) | Received::From(_, data)) =
                            Received::read(bytes)?;
                        self.model
                            .count(tuple, Path::Hairpin, Direction::In, data.len());
                        self.model
                            .count(*to, Path::Hairpin, Direction::Out, data.len());
                    }
                    heard.push((taken, outcome));
                }
                Taken::More => return Ok(heard),
                Taken::Lost => {
                    self.give_up(tuple)?;
                    return Ok(heard);
                }
            }
        }
    }

    fn hand_owner(&mut self, tuple: FiveTuple, message: &[u8]) -> Result<Outcome, String> {
        let owner = self.door(tuple);
        self.hand(owner, tuple, message)
    }

    /// Pieces that together are the whole: mostly one, now and then many, or byte by byte.
    fn cut(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let count = self.dice.pick(&[1, 1, 1, 1, 2, 2, 3, 5]);
        if bytes.len() < 60 && self.dice.percent(3) {
            return bytes.into_iter().map(|byte| vec![byte]).collect();
        }
        let mut pieces = vec![bytes];
        while pieces.len() < count {
            let Some(last) = pieces.last_mut().filter(|last| last.len() > 1) else {
                break;
            };
            // Borders and headers are where it hurts.
            let span = last.len().min(if self.dice.percent(50) {
                30
            } else {
                usize::MAX
            });
            let rest = last.split_off(1 + self.dice.below(span - 1));
            pieces.push(rest);
        }
        pieces
    }

    /// The next message that has come whole.
    fn take(&mut self, tuple: FiveTuple) -> Result<Taken, String> {
        let owner = self.door(tuple);
        let is_known = self.servers[owner].has_allocation(tuple);
        let channels = self.servers[owner].channels();
        let unread = &mut self.connection_mut(tuple)?.unread;
        Ok(match next_border(unread, channels) {
            Border::Whole { len, padded, .. } => {
                let message = unread[..len].to_vec();
                unread.drain(..padded);
                Taken::Message(message)
            }
            Border::NeedMore { at_least } => {
                let longest = if is_known {
                    MAX_STREAM_MESSAGE
                } else {
                    STRANGERS_MESSAGE
                };
                if at_least > longest {
                    Taken::Lost
                } else {
                    must(unread.len() < at_least && at_least <= longest, || {
                        "more is kept than is waited for".to_owned()
                    })?;
                    Taken::More
                }
            }
            Border::Invalid => Taken::Lost,
        })
    }

    /// The worker closes a connection that lost its borders.
    fn give_up(&mut self, tuple: FiveTuple) -> Result<(), String> {
        let owner = self.door(tuple);
        self.count_drop(owner, DropReason::Malformed);
        self.tally.lost_borders += 1;
        self.lose(tuple)
    }

    fn count_drop(&mut self, worker: usize, reason: DropReason) {
        self.servers[worker].counters().dropped(reason, 1);
        self.tally.dropped(worker, reason);
    }

    /// A connection ends, in the middle of whatever it was; with it, at once, what stood for it.
    pub fn lose(&mut self, tuple: FiveTuple) -> Result<(), String> {
        let Some(at) = self.connections.iter().position(|c| c.tuple == tuple) else {
            return Ok(());
        };
        let former = self.connections.remove(at);
        self.tally.lost += former.expected.len() as u64;
        self.tally.disconnected += 1;
        let held: Vec<SocketAddr> = self
            .model
            .on(tuple)
            .map(|a| a.relays.iter().map(|relay| relay.addr).collect())
            .unwrap_or_default();
        self.note(|_| format!("{:16}disconnected, held {held:?}", ""));
        let before = self.house.borrow().ports.counts();
        let (owner, tick) = (self.door(tuple), self.tick());
        if self.plant != Plant::DisconnectForgotten {
            self.ending = Some(tuple);
            self.servers[owner].handle_disconnected(tuple, tick);
            self.servers[owner].environment().put_back();
            self.drain_events()?;
            self.ending = None;
        }
        must(self.model.on(tuple).is_none(), || {
            "an allocation outlives its connection".to_owned()
        })?;
        let after = self.house.borrow().ports.counts();
        must(
            before.held - after.held == held.len() && after.resting - before.resting == held.len(),
            || format!("{before:?} became {after:?} with {} ports less", held.len()),
        )?;
        for addr in &held {
            let (house, relayed) = (self.house.borrow(), RelayedAddr::new(*addr));
            let is_gone =
                !house.landings.contains_key(&relayed) && !house.sockets.contains_key(&relayed);
            must(is_gone, || format!("{addr} is still there"))?;
        }
        self.come_again(former)?;
        self.send_too_late(&held)
    }

    /// Its client comes again: from the same port, or another, or in another way.
    fn come_again(&mut self, former: Connection) -> Result<(), String> {
        let tuple = former.tuple;
        let Some(client) = self.clients.iter().position(|c| c.tuple == tuple) else {
            return must(former.is_half_open, || {
                "a connection was nobody's".to_owned()
            });
        };
        if self.dice.percent(40) {
            let other = self.new_tuple();
            self.enter(client, other);
            return Ok(());
        }
        self.enter(client, tuple);
        if self.plant == Plant::FormerQueueKept {
            self.connection_mut(tuple)?.wire = former.wire;
        }
        Ok(())
    }

    /// Whoever sent to what is gone sends on, and reaches nobody.
    fn send_too_late(&mut self, gone: &[SocketAddr]) -> Result<(), String> {
        let now = self.now;
        let mut late = Vec::new();
        for (client, other) in self.clients.iter().enumerate() {
            let Some(allocation) = self.model.live_on(other.tuple, now) else {
                continue;
            };
            for addr in gone {
                if let Some(number) = allocation.channel_to(*addr, now) {
                    late.push((client, Says::Channel(number)));
                }
                if allocation.permission(addr.ip(), now).is_some() {
                    let (peer, forbid) = (*addr, false);
                    late.push((client, Says::Send { peer, forbid }));
                }
            }
        }
        let Some((client, says)) = self.dice.pick_any(&late) else {
            return Ok(());
        };
        let fate = self.say(client, says, b"too late")?;
        self.tally.too_late += 1;
        must(fate == Fate::Dropped, || {
            format!("something reached a client that is gone: {fate:?}")
        })
    }

    /// Something for a client: on its way at once, or into its connection's queue.
    pub fn deliver(&mut self, tuple: FiveTuple, bytes: &[u8], worth: Worth) -> Result<(), String> {
        if !tuple.listener.transport().is_stream() {
            return Ok(());
        }
        let wire = padded(bytes);
        let most = match worth {
            Worth::Packet => self.setting.queue,
            Worth::Answer => self.setting.queue + self.setting.queue / 4,
        };
        let owner = self.door(tuple);
        let connection = self.connection_mut(tuple)?;
        if connection.wire.len() + wire.len() <= most {
            connection.wire.extend(wire);
            connection.expected.push_back(bytes.to_vec());
            self.tally.queued += 1;
        } else if worth == Worth::Packet {
            self.count_drop(owner, DropReason::SlowReader);
        } else {
            connection.is_broken = true;
        }
        Ok(())
    }

    /// After each step clients read, if they do, and what broke its promises is closed.
    pub fn end_turn(&mut self) -> Result<(), String> {
        for at in 0..self.connections.len() {
            if !self.connections[at].is_stalled && !self.connections[at].wire.is_empty() {
                self.read(at)?;
            }
        }
        let broken = |c: &&Connection| c.is_broken;
        while let Some(connection) = self.connections.iter().find(broken) {
            self.tally.broken += 1;
            self.lose(connection.tuple)?;
        }
        Ok(())
    }

    /// A client reads what has come, up to anywhere.
    fn read(&mut self, at: usize) -> Result<(), String> {
        let all = self.connections[at].wire.len();
        let len = if self.dice.percent(70) {
            all
        } else {
            self.dice.below(all + 1)
        };
        let connection = &mut self.connections[at];
        connection.inbox.extend(connection.wire.drain(..len));
        loop {
            let inbox = &connection.inbox;
            let [first, _, high, low, ..] = inbox[..] else {
                return Ok(());
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let len = length + if first < 4 { 20 } else { 4 };
            let whole = len.next_multiple_of(4);
            if inbox.len() < whole {
                return Ok(());
            }
            let expected = connection.expected.pop_front();
            let expected = expected.ok_or("a connection got what was not for it")?;
            must(inbox[..len] == expected, || {
                "what was read is not what was sent".to_owned()
            })?;
            must(inbox[len..whole].iter().all(|byte| *byte == 0), || {
                "padding says something".to_owned()
            })?;
            connection.inbox.drain(..whole);
            self.tally.read += 1;
        }
    }

    /// A client's way out is gone; its connection stays, since nobody tells the worker.
    pub fn leave_half_open(&mut self, tuple: FiveTuple) -> Result<(), String> {
        let connection = self.connection_mut(tuple)?;
        connection.is_half_open = true;
        connection.is_stalled = true;
        connection.rest.clear();
        connection.words.clear();
        Ok(())
    }

    /// The workers stop, and first close what connections there are.
    pub fn close_all(&mut self) {
        for connection in self.connections.drain(..) {
            self.tally.lost += connection.expected.len() as u64;
        }
    }

    /// What must hold of connections after every step.
    pub fn check_connections(&self) -> Result<(), String> {
        let most = self.setting.queue + self.setting.queue / 4;
        let mut waiting = 0;
        for connection in &self.connections {
            let is_known = self.model.on(connection.tuple).is_some();
            let owner = self.setting.owner(connection.tuple.listener);
            let server = owner.and_then(|owner| self.servers.get(owner));
            must(
                server.is_some_and(|s| s.has_allocation(connection.tuple) == is_known),
                || "a client is known that has nothing, or the other way round".to_owned(),
            )?;
            let longest = if is_known {
                MAX_STREAM_MESSAGE
            } else {
                STRANGERS_MESSAGE
            };
            must(
                connection.wire.len() <= most && connection.unread.len() < longest,
                || "a connection holds more than it may".to_owned(),
            )?;
            waiting += connection.expected.len() as u64;
        }
        let tally = &self.tally;
        must(tally.queued == tally.read + tally.lost + waiting, || {
            "something in a queue is unaccounted for".to_owned()
        })?;
        let mut allocations = self.model.allocations.iter();
        must(
            allocations.all(|a| {
                !a.tuple.listener.transport().is_stream() || self.connection(a.tuple).is_some()
            }),
            || "an allocation has no connection".to_owned(),
        )
    }
}

/// Whether these bytes are one STUN message or one ChannelData message, said naively.
fn is_one_message(bytes: &[u8], channels: ChannelRange) -> bool {
    let last = match channels {
        ChannelRange::Rfc8656 => 0x4F,
        ChannelRange::Rfc5766 => 0x7F,
    };
    let [first, _, high, low, rest @ ..] = bytes else {
        return false;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if *first < 4 {
        rest.starts_with(&MAGIC_COOKIE.to_be_bytes())
            && length % 4 == 0
            && rest.len() == 16 + length
    } else {
        (0x40..=last).contains(first) && rest.len() == length
    }
}
