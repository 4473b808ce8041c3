//! Anything that can reach the server's socket, as the bytes choose: the body of the fuzz target
//! `dtls_records`, and here of a property test.
//!
//! Three clients speak honestly, one word at a time, while somebody who sees every datagram but
//! has no key loses, copies, delays and changes them and writes records of its own.

use std::time::Duration;

use super::harness::{Client, World, address, plain_context};
use crate::dataplane::dtls::{Idle, Limits};

const CLIENTS: usize = 3;

/// The world as the bytes make it.
struct Play<'d> {
    bytes: std::slice::Iter<'d, u8>,
    world: World,
    clients: Vec<Client>,
    /// What each client said and nobody has delivered.
    said: Vec<Vec<Vec<u8>>>,
    /// What each client said or was told last, to be copied and changed.
    seen: Vec<Vec<u8>>,
}

/// Plays `data`, and panics if the server breaks a promise.
pub(crate) fn play(data: &[u8]) {
    let limits = Limits {
        sessions: 3,
        half_open: 2,
        half_open_per_network: 2,
        ..Limits::default()
    };
    let clients = |n| Client::new(client_address(n));
    let mut play = Play {
        bytes: data.iter(),
        world: World::new(plain_context(), limits),
        clients: (0..CLIENTS).map(clients).collect(),
        said: vec![Vec::new(); CLIENTS],
        seen: vec![Vec::new(); CLIENTS],
    };
    while play.act().is_some() {}
}

fn client_address(n: usize) -> crate::turn::ClientAddr {
    address(1, u16::try_from(n).unwrap() + 1)
}

impl Play<'_> {
    fn byte(&mut self) -> Option<usize> {
        self.bytes.next().copied().map(usize::from)
    }

    fn act(&mut self) -> Option<()> {
        let n = self.byte()? % CLIENTS;
        match self.byte()? % 12 {
            0..=2 => self.speak(n),
            3 => {
                let lost = self.said[n].pop()?;
                self.seen[n] = lost;
            }
            4 => self.said[n].reverse(),
            5 => {
                let seen = self.seen[n].clone();
                let from = self.byte()? % CLIENTS;
                self.deliver_others(from, &seen);
            }
            6 => self.change(n)?,
            7 => self.forge(n)?,
            8 => {
                let millis = 1 << (self.byte()? % 16);
                let idle = [Idle::Stay, Idle::Close][self.byte()? % 2];
                self.world.pass(Duration::from_millis(millis), idle);
                self.listen();
            }
            9 => {
                self.world.send(client_address(n), &[b"a word"]);
                self.listen();
            }
            10 => {
                // The client begins anew on its old port.
                self.clients[n] = Client::new(client_address(n));
                self.said[n].clear();
            }
            _ => {
                self.world.close(client_address(n));
                self.listen();
            }
        }
        Some(())
    }

    /// The client goes on with what it was doing, and one of its datagrams arrives.
    fn speak(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if !client.is_done() {
            client.shake();
        } else if self.said[n].is_empty() {
            // If it was told goodbye, there is nothing it could say.
            client.try_seal(b"a word");
        }
        self.said[n].extend(client.sent());
        if self.said[n].is_empty() {
            return;
        }
        let datagram = self.said[n].remove(0);
        self.world.deliver(client_address(n), &datagram);
        self.seen[n] = datagram;
        self.listen();
    }

    /// Somebody else sends a datagram with the address of a client.
    fn deliver_others(&mut self, from: usize, datagram: &[u8]) {
        let before = self.is_established(from);
        let closed = self.world.closed.len();
        self.world.deliver(client_address(from), datagram);
        let sent = &self.world.sent;
        if self.world.dtls.is_empty() {
            let answered: usize = sent.iter().map(|(_, datagram)| datagram.len()).sum();
            assert!(answered <= datagram.len(), "more than was asked");
        }
        // A copy of a client's own goodbye or of its new hello may end a session; nothing else.
        if before && datagram != self.seen[from] {
            assert_eq!(self.world.closed.len(), closed, "a forgery ended a session");
        }
        self.listen();
    }

    fn is_established(&mut self, n: usize) -> bool {
        self.clients[n].is_done() && self.world.send(client_address(n), &[b""])
    }

    /// One byte of what was said is another, or the end is missing.
    fn change(&mut self, n: usize) -> Option<()> {
        let mut datagram = self.seen[n].clone();
        let (at, value) = (self.byte()? * 6 + self.byte()? % 6, self.bytes.next()?);
        if let Some(byte) = datagram.get_mut(at) {
            *byte ^= value;
        } else {
            datagram.truncate(usize::from(*value));
        }
        self.deliver_others(n, &datagram);
        Some(())
    }

    /// A datagram of records that nobody sealed: header fields by choice, the rest as it comes.
    fn forge(&mut self, n: usize) -> Option<()> {
        let mut datagram = Vec::new();
        for _ in 0..=self.byte()? % 3 {
            let content = [20, 21, 22, 22, 22, 23, 24, 0][self.byte()? % 8];
            let minor = [0xff, 0xfd, 0xfc, 0][self.byte()? % 4];
            let epoch = [0, 0, 1, 2][self.byte()? % 4];
            let sequence = self.byte()?.to_be_bytes();
            let len = self.byte()? % 80;
            let mut body: Vec<u8> = self.bytes.by_ref().copied().take(len).collect();
            if content == 22 && body.len() >= 12 {
                // A handshake header that nearly fits.
                let rest = u8::try_from(body.len() - 12).unwrap();
                body[0] = [1, 11, 14, 16, 20][usize::from(body[0]) % 5];
                let message_seq = body[5] % 5;
                body[1..6].copy_from_slice(&[0, 0, rest, 0, message_seq]);
                body[6..12].copy_from_slice(&[0, 0, 0, 0, 0, rest]);
            }
            let len = u16::try_from(body.len()).unwrap();
            datagram.extend([content, 0xfe, minor, 0, epoch]);
            datagram.extend(&sequence[2..]);
            datagram.extend(len.to_be_bytes());
            datagram.extend(body);
        }
        self.deliver_others(n, &datagram);
        Some(())
    }

    /// The clients get what was sent to them. Nothing goes to anybody else.
    fn listen(&mut self) {
        for (to, datagram) in std::mem::take(&mut self.world.sent) {
            let client = self.clients.iter_mut().find(|client| client.addr == to);
            let client = client.expect("a datagram for a stranger");
            client.receive(&datagram);
            if client.is_done() {
                client.open();
            }
        }
        for (_, plain) in self.world.plain.drain(..) {
            assert_eq!(plain, b"a word", "nobody sealed that");
        }
        self.world.closed.clear();
    }
}

#[cfg(test)]
mod property {
    use proptest::prelude::*;

    use super::play;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_server_keeps_its_promises_whatever_reaches_its_socket(
            data in prop::collection::vec(any::<u8>(), 0..600)
        ) {
            play(&data);
        }
    }
}
