//! The bodies of the fuzz targets against the server, by whom they trust: `fuzz/` feeds them from
//! libFuzzer, a test from seeded random bytes.

use std::net::SocketAddr;

use taciturn::proto::{ChannelRange, Class, MAGIC_COOKIE, Message, Method};
use taciturn::turn::stats::DropReason;
use taciturn::turn::{Bind, FiveTuple, ListenerId, Transport};

use super::action::Action;
use super::dice::Dice;
use super::model::Fate;
use super::plant::Plant;
use super::run::{Outcome, Run};
use super::setting::{EPOCH, Policy, SECOND, Setting, address};
use super::speech::{Envelope, Identity, Say, Signing, request};

/// However many bytes there are, a run ends.
const MOST_STEPS: usize = 500;
/// design.md section 6: what a source gets that never proved its address.
const SMALL_ANSWER: usize = 20 + 128;

/// Whoever has no credential leaves no trace, whatever they send.
///
/// # Panics
/// When they do.
pub fn server_unauthenticated(data: &[u8]) {
    let mut run = Run::within(
        Setting::draw(&mut Dice::given(data)),
        Dice::new(0),
        Plant::Nothing,
        false,
    );
    let mut rest = data;
    while let [how, length, tail @ ..] = rest {
        let (datagram, others) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = others;
        let client = usize::from(*how) % run.clients.len();
        let datagram = dress(&run, client, *how, datagram);
        let tuple = run.clients[client].tuple;
        let worker = run.clients[client].home;
        match run.hand_client(worker, tuple, &datagram).unwrap() {
            Outcome::Answer(answer) => {
                // On a connection whatever follows is another message.
                let length = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
                let asked = Message::decode(&datagram[..20 + length]).unwrap();
                let answer = Message::decode(&answer).unwrap();
                assert_eq!(asked.class(), Class::Request);
                assert_eq!(answer.transaction_id(), asked.transaction_id());
                assert!(answer.class() == Class::Error || answer.method() == Method::BINDING);
                assert!(answer.as_bytes().len() <= SMALL_ANSWER);
            }
            Outcome::Data(fate, _) => panic!("somebody without an allocation reached {fate:?}"),
            Outcome::Consumed | Outcome::Dropped => {}
        }
    }
    run.check().unwrap();
    let house = run.house.borrow();
    assert!(house.landings.is_empty() && house.sockets.is_empty() && house.owners.is_empty());
    assert!(house.users.is_empty() && house.condemned.is_empty());
    let counts = house.ports.counts();
    assert_eq!(
        counts.free,
        run.setting.ports.len() * run.setting.relays.len()
    );
    let drops: u64 = DropReason::ALL
        .iter()
        .map(|r| run.tally.drops_for(*r))
        .sum();
    assert!(drops <= data.len() as u64);
}

/// Raw, or with a header that is right, or with a signature that is wrong.
fn dress(run: &Run, client: usize, how: u8, bytes: &[u8]) -> Vec<u8> {
    match how >> 6 {
        0 => bytes.to_vec(),
        1 => {
            let says = [Say::Transport(17)];
            let mut envelope: Envelope = run.envelope(
                client,
                Method::ALLOCATE,
                Signing::WrongPassword,
                taciturn::proto::TransactionId::new([how; 12]),
            );
            envelope.nonce = String::from_utf8_lossy(bytes).chars().take(40).collect();
            request(&envelope, &says)
        }
        _ => {
            let body = &bytes[..bytes.len() / 4 * 4];
            let mut message = vec![0; 20];
            let kind = [
                0x0001, 0x0003, 0x0004, 0x0008, 0x0009, 0x0016, 0x0011, 0x0103,
            ];
            let kind: u16 = kind[usize::from(how) / 8 % kind.len()];
            message[..2].copy_from_slice(&kind.to_be_bytes());
            message[2..4].copy_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
            message[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            message.extend_from_slice(body);
            message
        }
    }
}

/// Whoever has a credential: the bytes choose what happens, as a seed does in the simulation, and
/// the model foretells what must come of it.
///
/// # Panics
/// When something else does.
pub fn server_authenticated(data: &[u8]) {
    let mut dice = Dice::given(data);
    let setting = Setting::draw(&mut dice);
    let mut run = Run::within(setting, dice, Plant::Nothing, false);
    for _ in 0..MOST_STEPS {
        if run.dice.is_spent() {
            break;
        }
        let action = Action::draw(&mut run.dice);
        run.act(action).unwrap();
        run.check().unwrap();
    }
    run.stop().unwrap();
}

/// A stream that the bytes cut into pieces, of a stranger or of somebody with an allocation, whose
/// peer is on UDP: each piece is a byte that says how, one that says how long, and so many bytes.
///
/// # Panics
/// When a stranger gets more than small errors, anybody anything that is not theirs, or a connection
/// holds more than it may.
pub fn stream_server(data: &[u8]) {
    let mut run = acquainted();
    let mut rest = data;
    while let [how, length, tail @ ..] = rest {
        let span = usize::from(*length) << (how >> 6);
        let (piece, others) = tail.split_at(tail.len().min(span));
        rest = others;
        let mut piece = piece.to_vec();
        if how & 0x10 != 0 {
            piece.resize(piece.len() + 512 * usize::from(*length), 0);
        }
        run.now += u64::from(how >> 1 & 3) * SECOND;
        let client = usize::from(how & 1);
        // Whoever lost a connection comes again, though not always by one.
        let mut tuple = run.clients[client].tuple;
        if run.connection(tuple).is_none() {
            tuple.listener = ListenerId::new(Transport::Tcp, 0);
            run.enter(client, tuple);
        }
        let friend = run.clients[FRIEND].tuple;
        for (message, outcome) in run.pour(tuple, &piece).unwrap() {
            match outcome {
                Outcome::Answer(answer) => {
                    let asked = Message::decode(&message).unwrap();
                    let answer = Message::decode(&answer).unwrap();
                    assert_eq!(answer.transaction_id(), asked.transaction_id());
                    assert!(answer.class() == Class::Error || answer.method() == Method::BINDING);
                    assert!(client == HOLDER || answer.as_bytes().len() <= SMALL_ANSWER);
                }
                Outcome::Data(Fate::ToClient { tuple: to, .. }, _) => {
                    assert!(client == HOLDER && to == friend);
                }
                Outcome::Data(fate, _) => panic!("a datagram left the server: {fate:?}"),
                Outcome::Consumed | Outcome::Dropped => {}
            }
        }
        run.end_turn().unwrap();
        run.check_connections().unwrap();
    }
    run.check().unwrap();
    run.stop().unwrap();
}

const STRANGER: usize = 0;
const HOLDER: usize = 1;
const FRIEND: usize = 2;

/// A stranger on TCP, and two with allocations that admit each other: one on TCP, with a channel,
/// and one on UDP.
fn acquainted() -> Run {
    let setting = Setting {
        policy: Policy::Relay,
        ceiling: Policy::Relay,
        bind: Bind::Auto,
        strict: false,
        channels: ChannelRange::Rfc8656,
        relays: vec![address("198.41.0.1")],
        ports: 50_000..=50_007,
        quota: 0,
        total: 0,
        permissions: 128,
        channels_of_one: 128,
        pace: None,
        allocation_lifetime: 3_600,
        session_max: 86_400,
        tight: false,
        workers: 2,
        stream_workers: 1,
        queue: 65_536,
        clients: 3,
        users: 3,
    };
    let mut run = Run::within(setting, Dice::new(1), Plant::Nothing, false);
    run.connections.clear();
    let over = [Transport::Tcp, Transport::Tcp, Transport::Udp];
    for (client, transport) in over.into_iter().enumerate() {
        let listener = ListenerId::new(transport, 0);
        let own = run.clients[client].tuple.client;
        run.enter(
            client,
            FiveTuple {
                client: own,
                listener,
            },
        );
        run.clients[client].identity = Identity::mint(client, EPOCH + 90_000);
        let id = run.id();
        let asked = run.ask_as(client, Method::REFRESH, vec![], Signing::None, id);
        asked.unwrap();
        if client != STRANGER {
            let asked = run.ask(client, Method::ALLOCATE, vec![Say::Transport(17)]);
            asked.unwrap();
        }
    }
    let [holder, friend] = [HOLDER, FRIEND].map(|client| -> SocketAddr {
        let allocation = run.model.on(run.clients[client].tuple);
        allocation.unwrap().relays[0].addr
    });
    let bound = vec![Say::Channel(0x4000), Say::Peer(friend)];
    run.ask(HOLDER, Method::CHANNEL_BIND, bound).unwrap();
    run.ask(FRIEND, Method::CREATE_PERMISSION, vec![Say::Peer(holder)])
        .unwrap();
    run
}
