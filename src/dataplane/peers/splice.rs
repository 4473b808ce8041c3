//! Two connections as one: what comes by either leaves by the other as it is (RFC 6062 §5.4), in
//! order and whole. While one side does not take what it gets, the other is not read, and its
//! sender is told by its window; so a splice holds no more than one read in each direction. A side
//! that sends more than its allocation may is not read for a while either: nothing is dropped.
//!
//! The end of one direction is passed on and the other goes on, until it ends too or nothing has
//! moved for a while. Who resets a connection gets nothing more, and what it sent still arrives.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::dataplane::stream::connection::{Came, Layer, decrypted, plain};
use crate::dataplane::sys::{Interest, Poller, TcpStream};
use crate::turn::stats::Counters;
use crate::turn::{DataAccount, Tick, Transport};

/// What is read at once: more than TLS decrypts at a time, so that nothing is left over within it.
pub(super) const ROOM: usize = 32 * 1_024;
/// Reads of one direction before others have their turn.
const ROUNDS: usize = 4;
/// For how long nothing may move once one direction has ended.
const LINGER: Duration = Duration::from_secs(60);

/// A client's connection in the gauge of those that are open, for as long as it is.
pub(super) struct Counted {
    counters: Arc<Counters>,
    transport: Transport,
}

impl Counted {
    /// One more.
    pub(super) fn new(counters: &Arc<Counters>, transport: Transport) -> Self {
        let counters = Arc::clone(counters);
        let over = counters.over(transport);
        over.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            counters,
            transport,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let over = self.counters.over(self.transport);
        over.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the two connections.
pub(super) struct End {
    stream: TcpStream,
    layer: Layer,
    /// What the poller waits for; it does not watch what can neither be read nor written to.
    watched: Option<Interest>,
    /// Whether the other side has been told that nothing more comes.
    finish: Finish,
    /// Whether nothing can be written to it any more, and nothing more comes than has come.
    is_gone: bool,
    /// Of a client's.
    _counted: Option<Counted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    Not,
    Begun,
    Done,
}

impl End {
    /// A connection without anything around its data.
    pub(super) const fn plain(stream: TcpStream) -> Self {
        Self::new(stream, Layer::Plain, None)
    }

    /// A connection that nobody watches.
    pub(super) const fn new(stream: TcpStream, layer: Layer, counted: Option<Counted>) -> Self {
        Self {
            stream,
            layer,
            watched: None,
            finish: Finish::Not,
            is_gone: false,
            _counted: counted,
        }
    }

    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<Came> {
        match &mut self.layer {
            Layer::Plain => plain(&self.stream, room),
            Layer::Tls(tls) => decrypted(tls, &self.stream, room),
        }
    }

    /// Writes as much as is taken. TLS takes all or nothing, and nothing before what it took is out.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() || !self.flush()? {
            return Ok(0);
        }
        match &mut self.layer {
            Layer::Plain => loop {
                return match (&self.stream).write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                    written => written,
                };
            },
            Layer::Tls(tls) => {
                tls.writer().write_all(bytes)?;
                self.flush()?;
                Ok(bytes.len())
            }
        }
    }

    /// Whether all that it took is with the kernel.
    fn flush(&mut self) -> io::Result<bool> {
        let Layer::Tls(tls) = &mut self.layer else {
            return Ok(true);
        };
        while tls.wants_write() {
            match tls.write_tls(&mut &self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Notices that it is gone, where neither a read nor a write would tell; `towards` leads to it.
    fn look(&mut self, towards: &mut Way) {
        if self.watched == Some(Interest::Nothing) && self.stream.is_gone() {
            self.is_gone = true;
        }
        if self.is_gone {
            towards.give_up();
        }
    }

    fn is_clogged(&self) -> bool {
        match &self.layer {
            Layer::Plain => false,
            Layer::Tls(tls) => tls.wants_write(),
        }
    }

    /// Says that nothing more comes, behind everything else; whether that is done.
    fn finish(&mut self) -> io::Result<bool> {
        if let (Layer::Tls(tls), Finish::Not) = (&mut self.layer, self.finish) {
            tls.send_close_notify();
            self.finish = Finish::Begun;
        }
        if !self.flush()? {
            return Ok(false);
        }
        if self.finish != Finish::Done {
            self.stream.finish()?;
            self.finish = Finish::Done;
        }
        Ok(true)
    }

    fn watch(&mut self, wanted: Option<Interest>, poller: &Poller, token: u64) -> io::Result<()> {
        match (self.watched, wanted) {
            (before, after) if before == after => return Ok(()),
            (_, None) => poller.remove(&self.stream)?,
            (Some(_), Some(interest)) => poller.change(&self.stream, token, interest)?,
            (None, Some(interest)) => {
                poller.add(&self.stream, token)?;
                poller.change(&self.stream, token, interest)?;
            }
        }
        self.watched = wanted;
        Ok(())
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What has been read and not yet taken.
    waiting: Vec<u8>,
    taken: usize,
    /// Whether nothing more comes.
    has_ended: bool,
    /// Whether the other side knows.
    is_done: bool,
    /// Until when it is not read, because it was too fast.
    paused: Option<Tick>,
}

impl Way {
    fn new(waiting: Vec<u8>) -> Self {
        Self {
            waiting,
            ..Self::default()
        }
    }

    fn is_clear(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes what waits; whether nothing does any more.
    fn deliver(&mut self, to: &mut End) -> io::Result<bool> {
        while let Some(rest) = self.waiting.get(self.taken..).filter(|r| !r.is_empty()) {
            match to.write(rest)? {
                0 => return Ok(false),
                taken => self.taken += taken,
            }
        }
        self.waiting = Vec::new();
        self.taken = 0;
        to.flush()
    }

    /// The other side takes nothing any more.
    fn give_up(&mut self) {
        self.waiting = Vec::new();
        self.taken = 0;
        self.is_done = true;
    }

    /// Writes what waits, and says the end behind it; whether there is room for more.
    fn push(&mut self, to: &mut End) -> bool {
        let pushed = self.deliver(to).and_then(|is_clear| {
            if is_clear && self.has_ended {
                self.is_done = to.finish()?;
            }
            Ok(is_clear && !self.has_ended)
        });
        pushed.unwrap_or_else(|_| {
            self.give_up();
            false
        })
    }

    /// Moves what can be moved; whether anything was. What one side does not take any more is given
    /// up, and what it sent before still counts.
    fn carry(
        &mut self,
        from: &mut End,
        to: &mut End,
        room: &mut [u8],
        now: Tick,
        mut count: impl FnMut(usize) -> Tick,
    ) -> bool {
        let mut moved = false;
        self.paused = self.paused.filter(|until| now < *until);
        for _ in 0..ROUNDS {
            if self.is_done || !self.push(to) || self.paused.is_some() {
                return moved;
            }
            match from.read(room) {
                Ok(Came::Nothing) => return moved,
                Ok(Came::End) => self.has_ended = true,
                Ok(Came::Bytes { len, more }) => {
                    moved = true;
                    self.paused = Some(count(len)).filter(|until| now < *until);
                    let bytes = room.get(..len).unwrap_or_default();
                    let Ok(taken) = to.write(bytes) else {
                        self.give_up();
                        return moved;
                    };
                    let rest = bytes.get(taken..).unwrap_or_default();
                    self.waiting.extend_from_slice(rest);
                    if !more {
                        break;
                    }
                }
                Err(_) => {
                    self.has_ended = true;
                    from.is_gone = true;
                }
            }
        }
        if !self.is_done {
            self.push(to);
        }
        moved
    }
}

/// What came of moving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    /// It goes on.
    On,
    /// Both directions have ended, or one side is gone, or the allocation.
    Ended,
}

/// A client's data connection and a peer's.
pub(super) struct Splice {
    client: End,
    peer: End,
    /// From the client to the peer.
    out: Way,
    /// From the peer to the client.
    back: Way,
    account: DataAccount,
    moved: Tick,
}

impl Splice {
    /// Splices two connections that nobody watches; of `waiting`, the first is for the peer, the
    /// second for the client.
    pub(super) fn new(
        client: End,
        peer: End,
        account: DataAccount,
        waiting: [Vec<u8>; 2],
        now: Tick,
    ) -> Self {
        let [for_peer, for_client] = waiting;
        Self {
            client,
            peer,
            out: Way::new(for_peer),
            back: Way::new(for_client),
            account,
            moved: now,
        }
    }

    /// Marks what is sent with this DSCP.
    pub(super) fn mark(&self, dscp: u8) {
        for end in [&self.client, &self.peer] {
            end.stream.mark(dscp);
        }
    }

    /// Counts on `account` from now on. What it owed to other buckets is forgiven: whether one has
    /// changed.
    pub(super) fn account_to(&mut self, account: DataAccount) -> bool {
        let is_other = !self.account.is_paced_as(&account);
        if is_other {
            self.account = account;
            self.out.paused = None;
            self.back.paused = None;
        }
        is_other
    }

    /// Moves what can be moved, up to a budget; what is left is reported again.
    pub(super) fn carry(&mut self, room: &mut [u8], counters: &Counters, now: Tick) -> Carried {
        // RFC 6062 §5.5: nothing moves past the end of the allocation.
        if !self.account.until().holds(now) {
            return Carried::Ended;
        }
        let Self {
            client,
            peer,
            out,
            back,
            account,
            ..
        } = self;
        client.look(back);
        peer.look(out);
        let went = out.carry(client, peer, room, now, |len| {
            account.from_client(len, now, counters)
        });
        let came = back.carry(peer, client, room, now, |len| {
            account.from_peer(len, now, counters)
        });
        client.look(back);
        peer.look(out);
        if out.is_done && back.is_done {
            return Carried::Ended;
        }
        if went || came {
            self.moved = now;
        }
        Carried::On
    }

    /// Has the poller wait for what is needed to move on.
    pub(super) fn watch(&mut self, poller: &Poller, token: u64) -> io::Result<()> {
        let of_client = interest(&self.out, &self.back, &self.client, &self.peer);
        let of_peer = interest(&self.back, &self.out, &self.peer, &self.client);
        self.client.watch(of_client, poller, token)?;
        self.peer.watch(of_peer, poller, token)
    }

    /// Has it wait for nothing.
    pub(super) fn unwatch(&mut self, poller: &Poller) {
        for end in [&mut self.client, &mut self.peer] {
            // Closing it takes it out all the same.
            end.watch(None, poller, 0).ok();
        }
    }

    /// When it is to be moved on by itself, if it pauses.
    pub(super) fn paused(&self) -> Option<Tick> {
        [self.out.paused, self.back.paused]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether one direction has ended and the other has not moved for long.
    pub(super) fn is_late(&self, now: Tick) -> bool {
        let is_half = [&self.out, &self.back].map(|way| way.has_ended || way.is_done);
        is_half.contains(&true) && now.since(self.moved) > LINGER
    }
}

/// What `end` is waited for, from which `away` comes and to which `towards` leads.
fn interest(away: &Way, towards: &Way, end: &End, other: &End) -> Option<Interest> {
    let open = !away.has_ended && !away.is_done && away.paused.is_none();
    let reads = open && away.is_clear() && !other.is_clogged();
    let writes = !towards.is_done && (!towards.is_clear() || end.is_clogged() || towards.has_ended);
    match (reads, writes) {
        (true, true) => Some(Interest::ReadAndWrite),
        (true, false) => Some(Interest::Read),
        (false, true) => Some(Interest::Write),
        // One that is gone is reported for ever.
        (false, false) if end.is_gone || away.has_ended && end.finish == Finish::Done => None,
        (false, false) => Some(Interest::Nothing),
    }
}

impl fmt::Debug for Splice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Splice")
            .field(
                "waiting",
                &[self.out.waiting.len(), self.back.waiting.len()],
            )
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const NOW: Tick = Tick::from_nanos(1);

    /// Bytes that differ from place to place.
    fn pattern(len: usize) -> Vec<u8> {
        (0_u8..251).cycle().take(len).collect()
    }

    fn pair() -> (End, TcpStream) {
        let (one, other) = TcpStream::pair().unwrap();
        (End::plain(one), other)
    }

    fn all(from: &TcpStream) -> Vec<u8> {
        let (mut bytes, mut room) = (Vec::new(), vec![0; 65_536]);
        while let Ok(len @ 1..) = (&*from).read(&mut room) {
            bytes.extend_from_slice(&room[..len]);
        }
        bytes
    }

    #[test]
    fn while_nobody_reads_no_more_is_held_than_one_read_and_nothing_is_lost() {
        let ((mut from, sender), (mut to, receiver)) = (pair(), pair());
        let (mut way, mut room) = (Way::default(), vec![0; ROOM]);
        let whole = pattern(8 << 20);
        let (mut sent, mut counted, mut stuck) = (0, 0, 0);
        let mut received = Vec::new();
        while received.len() < whole.len() {
            if let Ok(len) = (&sender).write(&whole[sent..]) {
                sent += len;
            }
            let moved = way.carry(&mut from, &mut to, &mut room, NOW, |len| {
                counted += len;
                NOW
            });
            assert!(
                way.waiting.len() <= ROOM,
                "{} bytes wait",
                way.waiting.len()
            );
            if !moved && !way.is_clear() {
                stuck += 1;
                assert_eq!(
                    interest(&way, &Way::default(), &from, &to),
                    Some(Interest::Nothing)
                );
                assert_eq!(
                    interest(&Way::default(), &way, &to, &from),
                    Some(Interest::ReadAndWrite)
                );
                received.extend(all(&receiver));
            } else if sent == whole.len() {
                received.extend(all(&receiver));
            }
        }
        assert!(received == whole && counted == whole.len());
        assert!(stuck > 2, "it never was stuck");
        assert_eq!(way.waiting.capacity(), 0, "memory is given back");
    }

    #[test]
    fn a_way_that_was_too_fast_is_not_read_until_it_may_go_on() {
        let ((mut from, sender), (mut to, receiver)) = (pair(), pair());
        let (mut way, mut room) = (Way::default(), vec![0; ROOM]);
        (&sender).write_all(b"first").unwrap();
        let later = Tick::from_nanos(5);
        assert!(way.carry(&mut from, &mut to, &mut room, NOW, |_| later));
        (&sender).write_all(b"second").unwrap();
        assert!(!way.carry(&mut from, &mut to, &mut room, NOW, |_| NOW));
        assert_eq!(way.paused, Some(later));
        assert_eq!(
            interest(&way, &Way::default(), &from, &to),
            Some(Interest::Nothing)
        );
        assert_eq!(all(&receiver), b"first");
        assert!(way.carry(&mut from, &mut to, &mut room, later, |_| later));
        assert_eq!((way.paused, all(&receiver)), (None, b"second".to_vec()));
    }

    #[test]
    fn the_end_comes_behind_everything_else() {
        let ((mut from, sender), (mut to, receiver)) = (pair(), pair());
        let (mut way, mut room) = (Way::new(b"first".to_vec()), vec![0; ROOM]);
        (&sender).write_all(b" last").unwrap();
        sender.finish().unwrap();
        assert!(way.carry(&mut from, &mut to, &mut room, NOW, |_| NOW));
        assert!(!way.carry(&mut from, &mut to, &mut room, NOW, |_| NOW));
        assert!(way.is_done);
        assert_eq!(all(&receiver), b"first last");
        assert_eq!((&receiver).read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(interest(&way, &way, &to, &from), None);
    }

    #[test]
    fn what_nobody_takes_any_more_is_given_up() {
        let ((mut from, sender), (mut to, receiver)) = (pair(), pair());
        let (mut way, mut room) = (Way::default(), vec![0; ROOM]);
        drop(receiver);
        (&sender).write_all(b"lost").unwrap();
        way.carry(&mut from, &mut to, &mut room, NOW, |_| NOW);
        assert!(way.is_done && way.is_clear());
        // What it would have said is read all the same, up to its end.
        let mut back = Way::default();
        back.carry(&mut to, &mut from, &mut room, NOW, |_| NOW);
        assert!(back.has_ended);
    }

    #[test]
    fn one_that_is_gone_is_noticed_though_nobody_reads_it() {
        let ((mut end, other), mut towards) = (pair(), Way::new(b"x".to_vec()));
        end.watched = Some(Interest::Nothing);
        end.look(&mut towards);
        assert!(!end.is_gone && !towards.is_done);
        drop(other);
        end.look(&mut towards);
        assert!(end.is_gone && towards.is_done && towards.is_clear());
    }
}
