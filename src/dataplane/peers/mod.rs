//! TCP between relayed transport addresses and peers (RFC 6062): the sockets that listen there, the
//! connections that are made or wait for a client, and those that are spliced to one.
//!
//! It moves bytes and holds sockets; who may be connected with whom, and for how long a connection
//! waits, the worker's [`turn::Server`](crate::turn::Server) says (`drive.rs`). What a waiting peer
//! sends stays in the kernel, whose window tells the peer to stop.

mod drive;
mod splice;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hashbrown::HashMap;
use slab::Slab;

use crate::dataplane::source::Source;
use crate::dataplane::stream::At;
use crate::dataplane::sys::{Interest, Poller, TcpListener, TcpStream};
use crate::proto::ConnectionId;
use crate::turn::stats::Counters;
use crate::turn::{AllocationId, DataAccount, RelayedAddr, Tick};

use splice::{Carried, End, ROOM, Splice};

/// Sockets of one worker, each with at most one more of the client's.
const PEERS_MAX: usize = 16_384;
/// How often what lingers is looked at, and listening is tried again.
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Entry {
    /// Takes connections for this allocation.
    Listening(AllocationId, TcpListener),
    /// The kernel is at it.
    Connecting(ConnectionId, TcpStream),
    /// Waits for its client.
    Waiting(TcpStream),
    /// Has it.
    Spliced(ConnectionId, Box<Splice>),
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    entry: Entry,
}

/// What became of a socket that the poller reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Nothing,
    /// Somebody connects to the relayed address of this allocation.
    Arrivals(AllocationId),
    Connected(ConnectionId),
    Failed(ConnectionId),
    /// Both sides are done, or one is gone; it is closed.
    Ended(ConnectionId),
}

/// The sockets of one worker.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    slots: Slab<Slot>,
    by_connection: HashMap<ConnectionId, At, foldhash::quality::RandomState>,
    by_relayed: HashMap<RelayedAddr, At, foldhash::quality::RandomState>,
    generation: u32,
    /// Connected from the start; the server does not know yet.
    linked: Vec<ConnectionId>,
    /// Listening sockets that pause for want of descriptors.
    paused: Vec<At>,
    next_sweep: Tick,
    /// Spliced connections that were too fast, and when each goes on.
    slowed: Vec<(Tick, At)>,
    /// What is read before it is written; only workers that relay TCP have it.
    room: Vec<u8>,
}

const fn token(at: At) -> Source {
    Source::Peer {
        slot: at.slot,
        generation: at.generation,
    }
}

impl Peers {
    /// Whether one more socket is taken.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < PEERS_MAX
    }

    /// When connections are looked at next that linger or were too fast, if there are any.
    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        let slowed = self.slowed.iter().map(|(until, _)| *until).min();
        self.sweeps_at().into_iter().chain(slowed).min()
    }

    fn sweeps_at(&self) -> Option<Tick> {
        (!self.by_connection.is_empty() || !self.paused.is_empty()).then_some(self.next_sweep)
    }

    fn insert(&mut self, entry: Entry) -> Option<At> {
        self.generation = (self.generation + 1) % Source::GENERATIONS;
        let vacant = self.slots.vacant_entry();
        let at = At {
            slot: u32::try_from(vacant.key()).ok()?,
            generation: self.generation,
        };
        vacant.insert(Slot {
            generation: at.generation,
            entry,
        });
        Some(at)
    }

    fn entry(&mut self, at: At) -> Option<&mut Entry> {
        self.slots
            .get_mut(at.slot as usize)
            .filter(|slot| slot.generation == at.generation)
            .map(|slot| &mut slot.entry)
    }

    /// Takes connections at a relayed address from now on.
    pub(crate) fn listen(
        &mut self,
        relayed: RelayedAddr,
        id: AllocationId,
        socket: TcpListener,
        poller: &Poller,
    ) -> io::Result<()> {
        if !self.has_room() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let at = self.insert(Entry::Listening(id, socket));
        let at = at.ok_or(io::ErrorKind::OutOfMemory)?;
        if let Some(Entry::Listening(.., socket)) = self.entry(at)
            && let Err(error) = poller.add(&*socket, token(at).token())
        {
            self.slots.remove(at.slot as usize);
            return Err(error);
        }
        self.by_relayed.insert(relayed, at);
        Ok(())
    }

    /// Takes none there any more.
    pub(crate) fn close_listener(&mut self, relayed: RelayedAddr, poller: &Poller) {
        if let Some(at) = self.by_relayed.remove(&relayed)
            && let Some(Slot {
                entry: Entry::Listening(.., socket),
                ..
            }) = self.slots.try_remove(at.slot as usize)
        {
            self.paused.retain(|other| *other != at);
            // One that pauses is not in the poller, and closing takes it out anyway.
            poller.remove(&socket).ok();
        }
    }

    /// Waits for what the kernel makes of a connection.
    pub(crate) fn connect(
        &mut self,
        connection: ConnectionId,
        stream: TcpStream,
        poller: &Poller,
    ) -> io::Result<()> {
        let at = self.insert(Entry::Connecting(connection, stream));
        let at = at.ok_or(io::ErrorKind::OutOfMemory)?;
        if let Some(Entry::Connecting(_, stream)) = self.entry(at) {
            let token = token(at).token();
            let watched = poller
                .add(&*stream, token)
                .and_then(|()| poller.change(&*stream, token, Interest::Write));
            if let Err(error) = watched {
                self.slots.remove(at.slot as usize);
                return Err(error);
            }
        }
        self.by_connection.insert(connection, at);
        Ok(())
    }

    /// Keeps one end of a pair, which is connected from the start.
    pub(crate) fn link(&mut self, connection: ConnectionId, stream: TcpStream) {
        self.keep(connection, stream);
        self.linked.push(connection);
    }

    /// Keeps a connection until its client comes for it.
    fn keep(&mut self, connection: ConnectionId, stream: TcpStream) {
        if let Some(at) = self.insert(Entry::Waiting(stream)) {
            self.by_connection.insert(connection, at);
        }
    }

    /// Closes a connection, with that of its client.
    pub(crate) fn close(&mut self, connection: ConnectionId, poller: &Poller) {
        let Some(at) = self.by_connection.remove(&connection) else {
            return;
        };
        self.slowed.retain(|(_, other)| *other != at);
        match self.slots.try_remove(at.slot as usize) {
            Some(Slot {
                entry: Entry::Spliced(_, mut splice),
                ..
            }) => splice.unwatch(poller),
            Some(Slot {
                entry: Entry::Connecting(_, stream),
                ..
            }) => {
                poller.remove(&stream).ok();
            }
            Some(Slot {
                entry: Entry::Listening(..) | Entry::Waiting(..),
                ..
            })
            | None => {}
        }
    }

    /// Looks at what the poller reported.
    fn look(&mut self, at: At, poller: &Poller, counters: &Counters, now: Tick) -> News {
        match self.entry(at) {
            None | Some(Entry::Waiting(..)) => News::Nothing,
            Some(Entry::Listening(id, _)) => News::Arrivals(*id),
            Some(Entry::Connecting(connection, stream)) => {
                let connection = *connection;
                poller.remove(&*stream).ok();
                if stream.outcome().is_ok() {
                    self.wait(at);
                    News::Connected(connection)
                } else {
                    self.close(connection, poller);
                    News::Failed(connection)
                }
            }
            Some(Entry::Spliced(..)) => self.carry(at, poller, counters, now),
        }
    }

    /// What was being made waits for its client.
    fn wait(&mut self, at: At) {
        let Some(slot) = self.slots.try_remove(at.slot as usize) else {
            return;
        };
        let entry = match slot.entry {
            Entry::Connecting(_, stream) => Entry::Waiting(stream),
            entry @ (Entry::Listening(..) | Entry::Waiting(..) | Entry::Spliced(..)) => entry,
        };
        self.put_back(at, entry);
    }

    fn put_back(&mut self, at: At, entry: Entry) {
        let vacant = self.slots.vacant_entry();
        debug_assert_eq!(
            vacant.key(),
            at.slot as usize,
            "a slot is used again at once"
        );
        vacant.insert(Slot {
            generation: at.generation,
            entry,
        });
    }

    /// Moves what can be moved.
    fn carry(&mut self, at: At, poller: &Poller, counters: &Counters, now: Tick) -> News {
        self.room.resize(ROOM, 0);
        let slot = self.slots.get_mut(at.slot as usize);
        let Some(Slot {
            entry: Entry::Spliced(connection, splice),
            ..
        }) = slot
        else {
            return News::Nothing;
        };
        let connection = *connection;
        let carried = splice.carry(&mut self.room, counters, now);
        if carried == Carried::On && splice.watch(poller, token(at).token()).is_ok() {
            let paused = splice.paused();
            // It may be reported for its other direction meanwhile.
            self.slowed.retain(|(_, other)| *other != at);
            self.slowed.extend(paused.map(|until| (until, at)));
            return News::Nothing;
        }
        self.close(connection, poller);
        News::Ended(connection)
    }

    /// Splices a client's connection to the peer's that waits for it.
    fn splice(
        &mut self,
        connection: ConnectionId,
        client: End,
        account: DataAccount,
        waiting: [Vec<u8>; 2],
        now: Tick,
    ) -> Option<At> {
        let at = self.by_connection.get(&connection).copied()?;
        let slot = self.slots.try_remove(at.slot as usize)?;
        let entry = match slot.entry {
            Entry::Waiting(stream) => {
                // One of a pair has no such limit.
                stream.bear_slow_readers().ok();
                let splice = Splice::new(client, End::plain(stream), account, waiting, now);
                Entry::Spliced(connection, Box::new(splice))
            }
            entry @ (Entry::Listening(..) | Entry::Connecting(..) | Entry::Spliced(..)) => entry,
        };
        self.put_back(at, entry);
        Some(at)
    }

    /// Marks what is sent to peers, and by connections that are spliced, with this DSCP.
    pub(crate) fn mark(&mut self, dscp: u8) {
        for (_, slot) in &mut self.slots {
            match &mut slot.entry {
                Entry::Listening(.., socket) => socket.mark(dscp),
                Entry::Connecting(_, stream) | Entry::Waiting(stream) => stream.mark(dscp),
                Entry::Spliced(_, splice) => splice.mark(dscp),
            }
        }
    }

    /// Connections that are spliced to their clients'.
    fn spliced(&self) -> Vec<ConnectionId> {
        let entries = self.slots.iter().map(|(_, slot)| &slot.entry);
        let spliced = entries.filter_map(|entry| match entry {
            Entry::Spliced(connection, _) => Some(*connection),
            Entry::Listening(..) | Entry::Connecting(..) | Entry::Waiting(..) => None,
        });
        spliced.collect()
    }

    /// Counts a spliced connection on `account`. It goes on at once, at the pace of that.
    fn account_to(&mut self, connection: ConnectionId, account: DataAccount, now: Tick) {
        let Some(at) = self.by_connection.get(&connection).copied() else {
            return;
        };
        if let Some(Entry::Spliced(_, splice)) = self.entry(at)
            && splice.account_to(account)
        {
            self.slowed.retain(|(_, other)| *other != at);
            self.slowed.push((now, at));
        }
    }

    /// The next connection that waits at a listening socket.
    fn accept(&mut self, at: At, poller: &Poller) -> Option<(TcpStream, SocketAddr)> {
        let has_room = self.has_room();
        let Some(Entry::Listening(.., socket)) = self.entry(at) else {
            return None;
        };
        loop {
            match socket.accept() {
                Ok(accepted) if has_room => return Some(accepted),
                // It is closed at once.
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return None,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        // One that nobody takes is reported for ever.
                        poller.remove(&*socket).ok();
                        self.paused.push(at);
                        return None;
                    }
                    // That connection has failed before it was accepted.
                    _ => {}
                },
            }
        }
    }

    /// Moves those on that were too fast, where it is time; which of them have ended.
    fn go_on(&mut self, poller: &Poller, counters: &Counters, now: Tick) -> Vec<ConnectionId> {
        let due: Vec<At> = self
            .slowed
            .extract_if(.., |(until, _)| *until <= now)
            .map(|(_, at)| at)
            .collect();
        due.into_iter()
            .filter_map(|at| match self.carry(at, poller, counters, now) {
                News::Ended(connection) => Some(connection),
                News::Nothing | News::Arrivals(_) | News::Connected(_) | News::Failed(_) => None,
            })
            .collect()
    }

    /// Ends what has lingered too long, and listens again where that paused, if it is time.
    fn sweep(&mut self, poller: &Poller, now: Tick) -> Vec<ConnectionId> {
        if self.sweeps_at().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.next_sweep = now.plus(SWEEP);
        for at in std::mem::take(&mut self.paused) {
            if let Some(Entry::Listening(.., socket)) = self.entry(at)
                && poller.add(&*socket, token(at).token()).is_err()
            {
                self.paused.push(at);
            }
        }
        let late: Vec<ConnectionId> = self
            .slots
            .iter()
            .filter_map(|(_, slot)| match &slot.entry {
                Entry::Spliced(connection, splice) if splice.is_late(now) => Some(*connection),
                Entry::Listening(..)
                | Entry::Connecting(..)
                | Entry::Waiting(..)
                | Entry::Spliced(..) => None,
            })
            .collect();
        for connection in &late {
            self.close(*connection, poller);
        }
        late
    }
}
