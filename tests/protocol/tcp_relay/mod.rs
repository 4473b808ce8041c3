//! TCP allocations (RFC 6062): what is asked of the house, what clients hear, and when.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

mod accept;
mod allocation;
mod bind;
mod chaos;
mod connect;
mod link;

use std::net::SocketAddr;

use taciturn::proto::{
    Class, ConnectionId, Method, RequestedTransport, TransactionId, XorPeerAddress,
};
use taciturn::turn::route::PeerKind;
use taciturn::turn::stats::DropReason;
use taciturn::turn::{FiveTuple, ListenerId, PeerAddr, RelayedAddr, Transport};

use crate::world::call::ALICE;
use crate::world::client::{Client, SUCCESS};
use crate::world::message::{Answer, Build};
use crate::world::servers::{Outcome, Setup, World, at};

/// A host that `any` admits.
const PEER: &str = "192.0.9.9:8080";

fn relay() -> Setup {
    Setup {
        tcp_relay: true,
        ..Setup::default()
    }
}

fn any() -> Setup {
    Setup {
        tcp_relay: true,
        ..Setup::any()
    }
}

/// The same client over another transport.
fn over(transport: Transport, mut client: Client) -> Client {
    client.tuple.listener = ListenerId::new(transport, 0);
    client
}

/// Asks for a TCP allocation.
fn allocate_with(world: &mut World, client: &mut Client, fill: impl Fn(Build) -> Build) -> Answer {
    client.request(world, Method::ALLOCATE, |request| {
        fill(request.with(&RequestedTransport::TCP))
    })
}

/// A client on TCP with a TCP allocation.
fn party(world: &mut World, user: &str, addr: &str) -> (Client, SocketAddr) {
    let mut client = over(Transport::Tcp, world.client(user, addr));
    let answer = allocate_with(world, &mut client, |request| request);
    assert_eq!(answer.code(), SUCCESS);
    let relayed = answer.relayed()[0];
    (client, relayed)
}

/// A world with one client that has a TCP allocation.
fn alone(setup: Setup) -> (World, Client, SocketAddr) {
    let mut world = setup.world();
    let (alice, relayed) = party(&mut world, "alice", ALICE);
    (world, alice, relayed)
}

/// A Connect request and what comes of it at once.
fn ask(world: &mut World, client: &mut Client, peer: SocketAddr) -> (TransactionId, Outcome) {
    let request = client.build(Method::CONNECT).with(&XorPeerAddress(peer));
    let id = TransactionId::new(request.id());
    let bytes = client.sign(request);
    (id, world.send(client, &bytes))
}

/// The code with which a Connect is refused at once.
#[track_caller]
fn refused(world: &mut World, client: &mut Client, peer: SocketAddr) -> u16 {
    ask(world, client, peer).1.answer().code()
}

/// Begins a connection; says its name and the transaction that waits for it.
#[track_caller]
fn begin(
    world: &mut World,
    client: &mut Client,
    peer: SocketAddr,
) -> (ConnectionId, TransactionId) {
    let (transaction, outcome) = ask(world, client, peer);
    assert_eq!(outcome, Outcome::Consumed);
    let begun = world.house.borrow().connects.last().copied();
    (begun.unwrap().0, transaction)
}

/// Makes a connection, up to the success response.
#[track_caller]
fn connect(world: &mut World, client: &mut Client, peer: SocketAddr) -> ConnectionId {
    let (connection, _) = begin(world, client, peer);
    let now = world.clock.now;
    world.servers[usize::from(client.worker.0)].handle_connected(connection, now);
    let (to, answer) = one_message(world, client);
    assert_eq!((to, answer.code()), (client.tuple, SUCCESS));
    assert_eq!(answer.find::<ConnectionId>(), Some(connection));
    connection
}

/// What the worker of `client` has to say to whom.
fn messages(world: &mut World, client: &Client) -> Vec<(FiveTuple, Answer)> {
    let server = &mut world.servers[usize::from(client.worker.0)];
    assert_eq!(server.check_invariants(), Ok(()));
    std::iter::from_fn(|| server.poll_message())
        .map(|message| (message.to, Answer(message.bytes.into_vec())))
        .collect()
}

#[track_caller]
fn one_message(world: &mut World, client: &Client) -> (FiveTuple, Answer) {
    let mut messages = messages(world, client);
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

/// A peer reaches the listening socket of `relayed`, an address of the worker of `client`.
fn accept(
    world: &mut World,
    client: &Client,
    relayed: SocketAddr,
    peer: &str,
) -> Result<ConnectionId, DropReason> {
    let id = world.house.borrow().listening[&RelayedAddr::new(relayed)];
    let now = world.clock.now;
    let server = &mut world.servers[usize::from(client.worker.0)];
    server.handle_accepted(id, PeerAddr::new(at(peer)), now)
}

/// What a ConnectionAttempt indication tells.
fn attempt(answer: &Answer) -> (ConnectionId, SocketAddr) {
    let message = answer.message();
    assert_eq!(message.class(), Class::Indication);
    assert_eq!(message.method(), Method::CONNECTION_ATTEMPT);
    let peer = answer.find::<XorPeerAddress>().unwrap().0;
    (answer.find::<ConnectionId>().unwrap(), peer)
}

/// A connection of `client`'s from another port, to be a data connection.
fn data_connection(client: &Client, port: u16) -> Client {
    let mut addr = client.addr();
    addr.set_port(port);
    client.moved(&addr.to_string())
}

/// A ConnectionBind and what comes of it.
fn bind(world: &mut World, client: &mut Client, connection: ConnectionId) -> Outcome {
    if client.nonce.is_none() {
        client.fetch_nonce(world);
    }
    let request = client.build(Method::CONNECTION_BIND).with(&connection);
    let bytes = client.sign(request);
    world.send(client, &bytes)
}

/// How a request was answered, whatever follows.
#[track_caller]
fn code(outcome: Outcome) -> u16 {
    if let Outcome::Spliced(answer, _) = &outcome {
        return answer.code();
    }
    outcome.answer().code()
}

fn closed(world: &World) -> Vec<ConnectionId> {
    world.house.borrow().closed.clone()
}

fn connects(world: &World) -> Vec<(ConnectionId, SocketAddr, SocketAddr, PeerKind)> {
    world.house.borrow().connects.clone()
}
