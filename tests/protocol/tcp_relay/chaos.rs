//! Everything at once, in any order: what must hold between calls is checked after each, and in the
//! end nothing is left over.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use taciturn::proto::{ConnectionId, Method};
use taciturn::turn::route::PeerKind;
use taciturn::turn::{PeerAddr, RelayedAddr};

use super::{allocate_with, any, ask, data_connection, over, relay};
use crate::world::client::Client;
use crate::world::servers::{Outcome, Setup, World, at};

const STEPS: usize = 400;

struct Chaos {
    world: World,
    rng: StdRng,
    clients: Vec<Client>,
    /// Names that were heard of, by whomever.
    known: Vec<ConnectionId>,
    /// Connections that the house has open.
    open: HashSet<ConnectionId>,
    bound: usize,
    connected: usize,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let setup = if seed.is_multiple_of(2) {
            any()
        } else {
            relay()
        };
        let world = Setup {
            workers: 2,
            ports: 50_000..=50_007,
            seed,
            ..setup
        }
        .world();
        let transports = taciturn::turn::Transport::ALL;
        let clients = (0..6_u16)
            .map(|n| {
                let addr = format!("198.51.100.{n}:{}", 1_000 + n);
                let transport = transports[usize::from(n % 4).max(1)];
                over(transport, world.client(&format!("user-{}", n % 3), &addr)).on(n % 2)
            })
            .collect();
        Self {
            world,
            rng: StdRng::seed_from_u64(seed),
            clients,
            known: vec![ConnectionId(0), ConnectionId(u32::MAX)],
            open: HashSet::new(),
            bound: 0,
            connected: 0,
        }
    }

    fn peer(&mut self) -> std::net::SocketAddr {
        let port = 50_000 + self.rng.random_range(0..9_u16);
        let host = ["203.0.113.7", "192.0.9.9", "10.0.0.1"][self.rng.random_range(0..3)];
        at(&format!("{host}:{port}"))
    }

    fn known(&mut self) -> ConnectionId {
        // Mostly one of late.
        let from = if self.rng.random_range(0..4) == 0 {
            0
        } else {
            self.known.len().saturating_sub(4)
        };
        self.known[self.rng.random_range(from..self.known.len())]
    }

    fn step(&mut self) {
        let who = self.rng.random_range(0..self.clients.len());
        let mut client = self.clients[who].clone();
        if client.nonce.is_none() {
            client.fetch_nonce(&mut self.world);
        }
        let worker = usize::from(client.worker.0);
        let (peer, known, now) = (self.peer(), self.known(), self.world.clock.now);
        let worker = match known.0 >> 20 {
            owner @ 0..=1 => usize::try_from(owner).unwrap(),
            _ => worker,
        };
        match self.rng.random_range(0..12) {
            0 | 1 => drop(allocate_with(&mut self.world, &mut client, |request| {
                request
            })),
            2 => drop(client.permit(&mut self.world, &[peer])),
            3 | 4 => drop(ask(&mut self.world, &mut client, peer)),
            5 => {
                let before = self.world.servers[worker].account(known);
                self.world.servers[worker].handle_connected(known, now);
                self.connected += usize::from(before.is_some());
            }
            6 => self.world.servers[worker].handle_connect_failed(known),
            7 => self.accept(worker, peer),
            // Whoever of the worker's clients it is.
            8 => {
                for other in self.clients.clone() {
                    if usize::from(other.worker.0) == worker && other.nonce.is_some() {
                        self.bind(&other, known);
                    }
                }
            }
            9 => {
                self.world.servers[worker].handle_connection_closed(known);
                if usize::from(u16::try_from(known.0 >> 20).unwrap()) == worker {
                    self.open.remove(&known);
                }
            }
            10 => self.world.advance(self.rng.random_range(0..20)),
            _ if self.rng.random_range(0..8) == 0 => {
                self.world.servers[worker].handle_disconnected(client.tuple, now);
            }
            _ => drop(client.refresh(&mut self.world, None)),
        }
        self.clients[who] = client;
        self.take_stock();
    }

    fn accept(&mut self, worker: usize, peer: std::net::SocketAddr) {
        let now = self.world.clock.now;
        let held: Vec<_> = self.world.servers[worker].relayed().collect();
        let Some((id, relayed)) = held.first().copied() else {
            return;
        };
        let server = &mut self.world.servers[worker];
        let accepted = if peer.ip() == relayed.ip() {
            server.handle_linked(relayed, RelayedAddr::new(peer), now)
        } else {
            server.handle_accepted(id, PeerAddr::new(peer), now)
        };
        if let Ok(connection) = accepted {
            assert!(self.open.insert(connection), "a name is used twice");
            self.known.push(connection);
        }
    }

    fn bind(&mut self, client: &Client, connection: ConnectionId) {
        let port = self.rng.random_range(2_000..60_000);
        let mut data = data_connection(client, port);
        data.nonce.clone_from(&client.nonce);
        let request = data.build(Method::CONNECTION_BIND).with(&connection);
        let bytes = data.sign(request);
        let outcome = self.world.send(&data, &bytes);
        if let Outcome::Spliced(_, id) = outcome {
            assert!(self.open.contains(&id), "bound to what is closed");
            self.bound += 1;
            return;
        }
        let is_refused = matches!(outcome, Outcome::Answer(_) | Outcome::HandOver(_));
        assert!(is_refused, "unexpected {outcome:?}");
    }

    /// What the house was told, and what clients were.
    fn take_stock(&mut self) {
        let mut house = self.world.house.borrow_mut();
        for (connection, from, to, kind) in std::mem::take(&mut house.connects) {
            assert!(self.open.insert(connection), "a name is used twice");
            self.known.push(connection);
            assert_ne!(from, to);
            assert!(!to.ip().to_string().starts_with("10."), "a denied peer");
            assert_eq!(kind == PeerKind::Own, to.ip() == from.ip());
        }
        for connection in std::mem::take(&mut house.closed) {
            assert!(self.open.remove(&connection), "closed twice");
        }
        drop(house);
        for server in &mut self.world.servers {
            assert_eq!(server.check_invariants(), Ok(()));
            while let Some(message) = server.poll_message() {
                let message = taciturn::proto::Message::decode(&message.bytes).unwrap();
                // What failed by itself is closed by the data plane.
                if message.class() == taciturn::proto::Class::Error {
                    continue;
                }
                assert!(message.find::<ConnectionId>().is_some());
            }
        }
        // A connection that failed is forgotten without a command to close it.
        let servers = &self.world.servers;
        self.open
            .retain(|id| servers.iter().any(|server| server.account(*id).is_some()));
    }
}

/// T44: whatever comes in whatever order.
#[test]
fn nothing_is_left_over_however_things_happen() {
    let (mut bound, mut connected) = (0, 0);
    for seed in 0..40 {
        let mut chaos = Chaos::new(seed);
        for _ in 0..STEPS {
            chaos.step();
        }
        chaos.world.advance(4_000);
        chaos.take_stock();
        assert!(chaos.open.is_empty(), "seed {seed}: {:?}", chaos.open);
        assert!(chaos.world.house.borrow().listening.is_empty());
        assert_eq!(chaos.world.allocations(), 0);
        bound += chaos.bound;
        connected += chaos.connected;
    }
    assert!(
        bound > 20 && connected > 100,
        "{bound} bound, {connected} connected"
    );
}
