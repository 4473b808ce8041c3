//! Data connections between two relayed addresses of one server: both gates of a hairpin, and no
//! way through the kernel.

use std::net::SocketAddr;

use taciturn::proto::ConnectionId;
use taciturn::turn::RelayedAddr;
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::route::PeerKind;
use taciturn::turn::stats::{Direction, DropReason, Path};

use super::{
    allocate_with, attempt, bind, closed, connect, connects, data_connection, messages,
    one_message, over, party, refused, relay,
};
use crate::world::call::{ALICE, BOB, CAROL};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{Outcome, Setup, World};

/// Alice and Bob with TCP allocations, each on a worker of their own.
fn call(setup: Setup) -> (World, Client, SocketAddr, Client, SocketAddr) {
    let mut world = Setup {
        workers: 2,
        ..setup
    }
    .world();
    let (alice, a) = party(&mut world, "alice", ALICE);
    let mut bob = over(taciturn::turn::Transport::Tls, world.client("bob", BOB)).on(1);
    let answer = allocate_with(&mut world, &mut bob, |request| request);
    let b = answer.relayed()[0];
    (world, alice, a, bob, b)
}

/// The other end reaches the worker of `client`.
fn link(
    world: &mut World,
    client: &Client,
    target: SocketAddr,
    sender: SocketAddr,
) -> Result<ConnectionId, DropReason> {
    let [target, sender] = [target, sender].map(RelayedAddr::new);
    let now = world.clock.now;
    world.servers[usize::from(client.worker.0)].handle_linked(target, sender, now)
}

#[test]
fn each_side_sees_the_others_relayed_address_and_nothing_else() {
    let (mut world, mut alice, a, mut bob, b) = call(relay());
    assert_eq!(bob.permit(&mut world, &[a]), SUCCESS);
    let of_alice = connect(&mut world, &mut alice, b);
    assert_eq!(connects(&world), [(of_alice, a, b, PeerKind::Own)]);
    let of_bob = link(&mut world, &bob, b, a).unwrap();
    let (to, indication) = one_message(&mut world, &bob);
    assert_eq!((to, attempt(&indication)), (bob.tuple, (of_bob, a)));
    // T63: neither plain nor XORed.
    let address = alice.addr();
    let XorBytes(plain, xored) = XorBytes::of(address);
    for hidden in [plain, xored] {
        assert!(!indication.0.windows(4).any(|four| four == hidden));
    }
    for (client, connection) in [(&alice, of_alice), (&bob, of_bob)] {
        let mut data = data_connection(client, 1001);
        let bound = bind(&mut world, &mut data, connection);
        assert!(matches!(bound, Outcome::Spliced(..)));
    }
    let account = world.servers[0].account(of_alice).unwrap();
    account.from_client(7, world.clock.now, world.servers[0].counters());
    assert_eq!(world.meters(a, Path::Hairpin, Direction::In), (1, 7));
    assert!(world.house.borrow().listening.is_empty());
}

/// An IPv4 address as it stands in memory, and as it stands in an XOR attribute.
struct XorBytes([u8; 4], [u8; 4]);

impl XorBytes {
    fn of(address: SocketAddr) -> Self {
        let SocketAddr::V4(address) = address else {
            panic!("not IPv4");
        };
        let plain = address.ip().octets();
        let cookie = 0x2112_A442_u32.to_be_bytes();
        Self(plain, std::array::from_fn(|n| plain[n] ^ cookie[n]))
    }
}

/// T72, T65: a dead port, a UDP allocation's and one that does not admit us answer alike.
#[test]
fn who_does_not_admit_us_is_as_if_nobody_was_there() {
    let (mut world, mut alice, a, mut bob, b) = call(relay());
    let mut carol = world.client("carol", CAROL);
    let udp = carol.allocate(&mut world);
    assert_eq!(carol.permit(&mut world, &[a]), SUCCESS);
    let dead = SocketAddr::new(b.ip(), if b.port() == 50_000 { 50_001 } else { 50_000 });
    for peer in [dead, udp, b, a] {
        assert_eq!(refused(&mut world, &mut alice, peer), 447);
    }
    // Permitted by IP, but named is somebody else's.
    assert_eq!(bob.permit(&mut world, &[udp]), SUCCESS);
    assert_eq!(refused(&mut world, &mut alice, b), 447);
    assert_eq!(connects(&world), []);
    assert_eq!(world.drops(DropReason::NotNamed), 1);
    assert_eq!(bob.permit(&mut world, &[a]), SUCCESS);
    connect(&mut world, &mut alice, b);
}

#[test]
fn what_changed_on_the_way_is_seen_by_the_other_worker() {
    let (mut world, mut alice, a, mut bob, b) = call(relay());
    bob.permit(&mut world, &[a]);
    connect(&mut world, &mut alice, b);
    world.advance(299);
    assert!(link(&mut world, &bob, b, a).is_ok());
    world.advance(30);
    let outcome = link(&mut world, &bob, b, a);
    assert_eq!(outcome, Err(DropReason::NotPermitted));
    bob.permit(&mut world, &[a]);
    alice.refresh(&mut world, Some(0));
    let outcome = link(&mut world, &bob, b, a);
    assert_eq!(outcome, Err(DropReason::NoLanding));
    bob.refresh(&mut world, Some(0));
    let outcome = link(&mut world, &bob, b, a);
    assert_eq!(outcome, Err(DropReason::NoLanding));
    messages(&mut world, &bob);
}

/// Alice and Bob with TCP allocations of these calls, which Bob permits to Alice.
fn in_calls(setup: Setup, calls: [&str; 2]) -> (World, Client, SocketAddr, Client, SocketAddr) {
    let mut world = setup.world();
    let mut made = Vec::new();
    for ((user, addr), call) in [("alice", ALICE), ("bob", BOB)].into_iter().zip(calls) {
        let client = world.sealed(&world.claims_in(user, call), addr);
        let mut client = over(taciturn::turn::Transport::Tcp, client);
        let answer = allocate_with(&mut world, &mut client, |request| request);
        made.push((client, answer.relayed()[0]));
    }
    let (mut bob, b) = made.remove(1);
    let (alice, a) = made.remove(0);
    assert_eq!(bob.permit(&mut world, &[a]), SUCCESS);
    (world, alice, a, bob, b)
}

fn within_calls() -> Setup {
    Setup {
        policy: PeerPolicy::Call,
        ..relay()
    }
}

/// T65: whoever is of another call is as if nobody was there, and counted.
#[test]
fn relayed_addresses_are_connected_within_a_call_and_not_beyond() {
    let (mut world, mut alice, a, bob, b) = in_calls(within_calls(), ["one", "two"]);
    assert_eq!(refused(&mut world, &mut alice, b), 447);
    assert_eq!(connects(&world), []);
    assert_eq!(world.drops(DropReason::OtherCall), 1);
    assert_eq!(link(&mut world, &bob, b, a), Err(DropReason::OtherCall));

    let (mut world, mut alice, a, bob, b) = in_calls(within_calls(), ["one", "one"]);
    connect(&mut world, &mut alice, b);
    assert!(link(&mut world, &bob, b, a).is_ok());
}

/// T8
#[test]
fn connections_between_calls_end_when_the_policy_keeps_them_apart() {
    for (calls, ends) in [(["one", "two"], 2), (["one", "one"], 0)] {
        let (mut world, mut alice, a, bob, b) = in_calls(relay(), calls);
        connect(&mut world, &mut alice, b);
        link(&mut world, &bob, b, a).unwrap();
        messages(&mut world, &bob);
        world.reconfigure(&within_calls());
        assert_eq!(closed(&world).len(), ends, "{calls:?}");
    }
}

#[test]
fn one_pair_of_relayed_addresses_has_one_connection() {
    let (mut world, mut alice, a, mut bob, b) = call(relay());
    alice.permit(&mut world, &[b]);
    bob.permit(&mut world, &[a]);
    connect(&mut world, &mut alice, b);
    link(&mut world, &bob, b, a).unwrap();
    messages(&mut world, &bob);
    assert_eq!(refused(&mut world, &mut alice, b), 446);
    assert_eq!(refused(&mut world, &mut bob, a), 446);
    let outcome = link(&mut world, &bob, b, a);
    assert_eq!(outcome, Err(DropReason::Connections));
}
