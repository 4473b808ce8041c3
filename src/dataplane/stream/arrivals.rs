//! How connections come: accepted as long as there are descriptors, known by their first bytes, and
//! then established in the place where they were accepted.

use std::sync::atomic::Ordering;

use crate::dataplane::source::Source;
use crate::dataplane::stream::connection::Connection;
use crate::dataplane::stream::newcomer::{Header, Known, Newcomer};
use crate::dataplane::stream::{At, Entry, SWEEP, Slot, Streams};
use crate::dataplane::surroundings::Surroundings;
use crate::turn::{FiveTuple, ListenerId, Tick, Transport};

/// Connections of one worker.
const CONNECTIONS_MAX: usize = 65_536;
/// Connections accepted in one go.
const ACCEPTS: usize = 32;

impl Streams {
    /// Takes connections that wait at an acceptor.
    pub(super) fn accept(&mut self, index: u16, house: &Surroundings, now: Tick) {
        for _ in 0..ACCEPTS {
            let Some(acceptor) = self.acceptors.get(usize::from(index)) else {
                return;
            };
            match acceptor.socket.accept() {
                Ok((stream, from)) => {
                    let header = if self.trusts(from.ip()) {
                        Header::Expected
                    } else {
                        Header::None
                    };
                    let (place, spoken) = (acceptor.place, acceptor.spoken);
                    let newcomer = Newcomer::new(stream, place, from, header, spoken, now);
                    let taken_in = self.take_in(Entry::Newcomer(newcomer), house, now);
                    self.fresh.extend(taken_in);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        tracing::warn!(%error, "connections wait: they cannot be accepted now");
                        self.pause(house);
                        self.next_sweep = now.plus(SWEEP);
                        return;
                    }
                    // That connection has failed before it was accepted.
                    _ => {}
                },
            }
        }
    }

    /// A connection that nobody takes is reported for ever.
    fn pause(&mut self, house: &Surroundings) {
        self.paused = true;
        for acceptor in &self.acceptors {
            house.unwatch(&acceptor.socket);
        }
    }

    pub(super) fn resume(&mut self, house: &Surroundings) {
        self.paused = false;
        if let Err(error) = self.watch(house) {
            tracing::error!(%error, "connections are no longer accepted");
        }
    }

    /// Takes in a connection of another worker's, of which `rest` has been read.
    pub(crate) fn adopt(
        &mut self,
        mut connection: Connection,
        tuple: FiveTuple,
        rest: Vec<u8>,
        house: &Surroundings,
        now: Tick,
    ) -> Option<At> {
        if let Some(former) = self.by_tuple.get(&tuple).copied() {
            self.close(former, house);
        }
        connection.begin_anew(tuple, rest);
        let at = self.take_in(Entry::Connection(Box::new(connection)), house, now)?;
        self.by_tuple.insert(tuple, at);
        Some(at)
    }

    /// Gives a connection a place among the others, as far as there is one.
    fn take_in(&mut self, entry: Entry, house: &Surroundings, now: Tick) -> Option<At> {
        let over = self.counters.over(entry.transport());
        if self.slots.len() >= CONNECTIONS_MAX {
            over.connections_refused.add(1);
            return None;
        }
        self.generation = (self.generation + 1) % Source::GENERATIONS;
        let place = self.slots.vacant_entry();
        let at = At {
            slot: u32::try_from(place.key()).ok()?,
            generation: self.generation,
        };
        if let Err(error) = house.watch(entry.stream(), at.source()) {
            tracing::debug!(%error, "a connection cannot be watched");
            return None;
        }
        over.connections.fetch_add(1, Ordering::Relaxed);
        place.insert(Slot {
            generation: at.generation,
            entry,
        });
        if self.slots.len() == 1 {
            self.next_sweep = now.plus(SWEEP);
        }
        self.strangers.push_back(at);
        Some(at)
    }

    /// Looks at a newcomer; it becomes a connection, waits, or goes.
    pub(super) fn get_to_know(&mut self, at: At, house: &Surroundings, now: Tick) {
        let Some(Entry::Newcomer(newcomer)) = self.entry(at) else {
            return;
        };
        match newcomer.look() {
            Known::NotYet => {}
            Known::Nobody => self.close(at, house),
            Known::All(client, transport, seen) => {
                let place = newcomer.place;
                let tuple = FiveTuple {
                    client,
                    listener: ListenerId::new(transport, place),
                };
                self.establish(at, tuple, seen, house, now);
            }
        }
    }

    fn establish(
        &mut self,
        at: At,
        tuple: FiveTuple,
        seen: Vec<u8>,
        house: &Surroundings,
        now: Tick,
    ) {
        // The client's port was used again before the end of its former connection was seen.
        if let Some(former) = self.by_tuple.get(&tuple).copied() {
            self.close(former, house);
        }
        let Some(Slot {
            entry: Entry::Newcomer(newcomer),
            ..
        }) = self.slots.try_remove(at.slot as usize)
        else {
            return;
        };
        let (before, after) = (newcomer.transport(), tuple.listener.transport());
        // Where both are spoken it was taken for plain at first.
        self.uncount(before);
        let over = self.counters.over(after);
        over.connections_total.add(1);
        over.connections.fetch_add(1, Ordering::Relaxed);
        let stream = newcomer.stream;
        let connection = match (tuple.listener.transport(), &self.rules.tls) {
            (Transport::Tls, Some(keys)) => {
                Connection::tls(stream, keys.server_config(), tuple, &seen, now)
            }
            _ => Ok(Connection::plain(stream, tuple, seen, now)),
        };
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "a TLS connection cannot begin");
                self.uncount(tuple.listener.transport());
                return;
            }
        };
        let entry = self.slots.vacant_entry();
        debug_assert_eq!(
            entry.key(),
            at.slot as usize,
            "a slot is used again at once"
        );
        entry.insert(Slot {
            generation: at.generation,
            entry: Entry::Connection(Box::new(connection)),
        });
        self.by_tuple.insert(tuple, at);
    }
}
