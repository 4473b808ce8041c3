//! A packet that the kernel gives to another worker than its allocation's. A group of sockets
//! never changes in one process, but another process of the same user can join it, and then the
//! kernel's hash moves flows that are alive.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use taciturn::proto::AddressFamily;
use taciturn::turn::stats::{Counters, Direction, DropReason, Path};

use crate::loopback::client::{Client, SUCCESS, channel_data};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4, V6};

const PAIRS: usize = 24;

/// A socket of somebody else in the listeners' group.
fn intruder(listener: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(listener), Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&listener.into()).unwrap();
    let socket: UdpSocket = socket.into();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Whether the intruder got the packet.
fn is_lost(intruder: &UdpSocket) -> bool {
    match intruder.recv_from(&mut [0; 2_000]) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

struct Pair {
    a: Client,
    b: Client,
    at_a: SocketAddr,
    at_b: SocketAddr,
    worker: usize,
}

fn pairs(plane: &mut Plane, family: AddressFamily, count: usize) -> Vec<Pair> {
    (0..count)
        .map(|_| {
            let (mut b, at_b) = plane.party(family);
            let before = plane.allocations();
            let (mut a, at_a) = plane.party(family);
            let after = plane.allocations();
            let worker = (0..after.len()).find(|i| after[*i] > before[*i]).unwrap();
            assert_eq!(a.bind(0x4000, at_b), SUCCESS);
            assert_eq!(b.permit(at_a), SUCCESS);
            Pair {
                a,
                b,
                at_a,
                at_b,
                worker,
            }
        })
        .collect()
}

fn misdirected(workers: &[Arc<Counters>]) -> Vec<u64> {
    workers.iter().map(|w| w.misdirected.total()).collect()
}

/// Waits until `arrived` or until the intruder has what was sent; says which.
fn delivered(intruder: &UdpSocket, mut arrived: impl FnMut() -> bool) -> bool {
    let mut outcome = None;
    eventually("a packet arrives somewhere", || {
        if arrived() {
            outcome = Some(true);
        } else if is_lost(intruder) {
            outcome = Some(false);
        }
        outcome.is_some()
    });
    outcome == Some(true)
}

fn flows_that_move(family: AddressFamily) {
    let mut plane = Setup::relay(4).start();
    let mut pairs = pairs(&mut plane, family, PAIRS);
    let counters = plane.counters().to_vec();
    assert_eq!(plane.misdirected(), 0);
    let intruder = intruder(plane.listener(family));

    let (mut moved, mut stayed, mut lost) = (0, 0, 0);
    for (number, pair) in (0_u8..).zip(&mut pairs) {
        for by_channel in [true, false] {
            let data = [number, u8::from(by_channel)];
            let before = misdirected(&counters);
            if by_channel {
                pair.a.send_channel(0x4000, &data);
            } else {
                pair.a.send_to(pair.at_b, &data);
            }
            let mut got = None;
            let short = Duration::from_millis(2);
            if delivered(&intruder, || {
                got = pair.b.receive_within(short);
                got.is_some()
            }) {
                let got = Received::decode(&got.unwrap());
                assert_eq!(got, Received::Data(pair.at_a, data.to_vec()));
                let after = misdirected(&counters);
                let by: Vec<usize> = (0..4).filter(|i| after[*i] > before[*i]).collect();
                match by[..] {
                    [] => stayed += 1,
                    // Who counts is the worker that was given what is another one's.
                    [worker] if worker != pair.worker => moved += 1,
                    _ => panic!("{before:?} became {after:?}, owner {}", pair.worker),
                }
            } else {
                lost += 1;
            }
        }
    }
    eprintln!("{moved} packets moved to another worker, {stayed} did not, {lost} were lost");
    assert!(moved > 0, "no flow moved");
    assert_eq!(plane.misdirected(), moved);
    assert_eq!(plane.both_ways(Path::Hairpin), [moved + stayed; 2]);
    assert_eq!(plane.drops(DropReason::NoAllocation), 0);

    requests_are_answered(&plane, &mut pairs, &intruder);
    drop(intruder);
    // The group is what it was, and so are the flows.
    let before = plane.misdirected();
    for pair in &mut pairs {
        pair.a.send_channel(0x4000, b"back");
        assert_eq!(
            pair.b.receive(),
            Received::Data(pair.at_a, b"back".to_vec())
        );
    }
    assert_eq!(plane.misdirected(), before);
}

fn requests_are_answered(plane: &Plane, pairs: &mut [Pair], intruder: &UdpSocket) {
    let before = plane.misdirected();
    let mut answered = 0;
    for pair in pairs.iter_mut() {
        // Whether this flow is the intruder's now.
        pair.a.send_channel(0x4000, b"?");
        let short = Duration::from_millis(2);
        if delivered(intruder, || pair.b.receive_within(short).is_some()) {
            let moved = plane.misdirected();
            assert_eq!(pair.a.refresh(600).code(), SUCCESS);
            answered += plane.misdirected() - moved;
        }
    }
    assert!(answered > 0, "no request moved");
    assert!(
        plane.misdirected() >= before + 2 * answered,
        "data and request of one flow"
    );
}

#[test]
fn flows_that_move_to_another_worker_are_delivered_and_counted_over_ipv4() {
    flows_that_move(V4);
}

#[test]
fn flows_that_move_to_another_worker_are_delivered_and_counted_over_ipv6() {
    flows_that_move(V6);
}

/// Packets that keep a worker busy for a moment, and packets that are handed to it meanwhile: more
/// than a mailbox holds.
const LARGE: usize = 30;
const MOVED: usize = 1_000;

/// Where the kernel takes each pair's packets now: to the worker that owns them (false) or to the
/// other one (true); nothing for those that the intruder gets.
fn moves(plane: &Plane, pairs: &mut [Pair], intruder: &UdpSocket) -> Vec<Option<bool>> {
    let mut moves = Vec::new();
    for pair in pairs {
        let before = plane.misdirected();
        pair.a.send_channel(0x4000, b"?");
        let short = Duration::from_millis(2);
        let arrived = delivered(intruder, || pair.b.receive_within(short).is_some());
        moves.push(arrived.then(|| plane.misdirected() > before));
    }
    moves
}

/// What does not fit into another worker's mailbox is dropped and counted; what did fit goes on,
/// and afterwards all is as before.
#[test]
fn a_flood_of_flows_that_moved_fills_a_mailbox_and_costs_only_itself() {
    let mut plane = Setup::relay(2).start();
    // A sixth of all flows moves, and one of them is needed.
    let mut pairs = pairs(&mut plane, V4, 64);
    let intruder = intruder(plane.listener(V4));
    let moves = moves(&plane, &mut pairs, &intruder);
    let flow = |worker, moved| {
        let found =
            (0..pairs.len()).find(|i| pairs[*i].worker == worker && moves[*i] == Some(moved));
        found.map(|place| &pairs[place].a)
    };
    let (own, moved) = (0..2)
        .find_map(|worker| flow(worker, false).zip(flow(worker, true)))
        .unwrap();

    let [large, small] = [60_000, 1].map(|size| channel_data(0x4000, &vec![7; size]));
    let full = || plane.drops(DropReason::QueueFull);
    let before = (hairpin_bytes(&plane), plane.misdirected());
    eventually("a mailbox that is full", || {
        (0..LARGE).for_each(|_| own.send_raw(&large));
        (0..MOVED).for_each(|_| moved.send_raw(&small));
        full() > 0
    });
    eventually(
        "what was handed on is relayed or counted as dropped",
        || {
            // One byte of each packet that moved, 60 000 of each that did not.
            let relayed = (hairpin_bytes(&plane) - before.0) % 60_000;
            relayed > 0 && relayed + full() == plane.misdirected() - before.1
        },
    );
    let all: u64 = DropReason::ALL.iter().map(|r| plane.drops(*r)).sum();
    assert_eq!(all, full(), "dropped for another reason");

    drop(intruder);
    for pair in &mut pairs {
        while pair.b.receive_within(Duration::from_millis(2)).is_some() {}
        pair.a.send_channel(0x4000, b"back");
        let got = pair.b.receive();
        assert_eq!(got, Received::Data(pair.at_a, b"back".to_vec()));
    }
}

fn hairpin_bytes(plane: &Plane) -> u64 {
    plane.sum(|worker| worker.traffic(Path::Hairpin, Direction::In).bytes.total())
}

/// With one worker there is nobody to hand a packet to.
#[test]
fn one_worker_misdirects_nothing() {
    let mut plane = Setup::relay(1).start();
    let mut pairs = pairs(&mut plane, V4, PAIRS);
    let intruder = intruder(plane.listener(V4));
    let mut lost = 0;
    for pair in &mut pairs {
        pair.a.send_channel(0x4000, b"?");
        let short = Duration::from_millis(2);
        if !delivered(&intruder, || pair.b.receive_within(short).is_some()) {
            lost += 1;
        }
    }
    assert!((1..PAIRS).contains(&lost), "{lost} of {PAIRS} lost");
    assert_eq!(plane.misdirected(), 0);
}
