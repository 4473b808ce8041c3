//! The policies that credentials claim, and above all `call`: who is of the same call, and who is
//! not.

use std::net::SocketAddr;

use taciturn::turn::Bind;
use taciturn::turn::credential::Claims;
use taciturn::turn::policy::{FleetNode, PeerPolicy};
use taciturn::turn::stats::{Direction, DropReason, Path};

use crate::world::call::{ALICE, BOB, CAROL};
use crate::world::client::{Client, SUCCESS};
use crate::world::message::Received;
use crate::world::servers::{Setup, World, at, ip};

const FLEET: &str = "203.0.113.8:50000";

/// Where credentials may claim whatever they like.
fn open() -> Setup {
    Setup {
        ceiling: Some(PeerPolicy::Any),
        fleet: vec![FleetNode {
            addr: ip("203.0.113.8"),
            seen_as: None,
            ports: 50_000..=50_999,
        }],
        ..Setup::default()
    }
}

fn under(world: &World, policy: PeerPolicy, user: &str, call: &str) -> Claims {
    Claims {
        policy: Some(policy),
        ..world.claims_in(user, call)
    }
}

/// A client with an allocation.
fn party(world: &mut World, claims: &Claims, addr: &str) -> (Client, SocketAddr) {
    let mut client = world.sealed(claims, addr);
    let relayed = client.allocate(world);
    (client, relayed)
}

/// A number of its own for each peer.
fn channel(peer: SocketAddr) -> u16 {
    0x4000 + peer.port() % 0x1000
}

/// Each has a channel to the other; what becomes of a packet each way, by channel and not.
fn exchange(
    world: &mut World,
    [(alice, a), (bob, b)]: [&mut (Client, SocketAddr); 2],
) -> [Option<DropReason>; 4] {
    assert_eq!(alice.bind(world, channel(*b), *b), SUCCESS);
    assert_eq!(bob.bind(world, channel(*a), *a), SUCCESS);
    [
        alice.channel_data(world, channel(*b), b"x").dropped(),
        bob.channel_data(world, channel(*a), b"x").dropped(),
        alice.send_to(world, *b, b"x").dropped(),
        bob.send_to(world, *a, b"x").dropped(),
    ]
}

#[test]
fn parties_of_one_call_reach_each_other() {
    let mut world = open().world();
    let [alice, bob] = ["alice", "bob"].map(|u| under(&world, PeerPolicy::Call, u, "one"));
    let mut alice = party(&mut world, &alice, ALICE);
    let mut bob = party(&mut world, &bob, BOB);
    assert_eq!(exchange(&mut world, [&mut alice, &mut bob]), [None; 4]);
    let sent = alice.0.channel_data(&mut world, channel(bob.1), b"hello");
    let received = Received::Channel(channel(alice.1), b"hello".to_vec());
    assert_eq!(sent.at(&bob.0), received);
}

/// T65: either side's policy is enough to keep two calls apart, and who is of no call is of
/// nobody's.
#[test]
fn whoever_keeps_to_a_call_meets_that_call_alone() {
    use PeerPolicy::{Any, Call, Relay};
    let networks = PeerPolicy::Networks(vec!["10.20.0.0/16".parse().unwrap()]);
    let apart = [Some(DropReason::OtherCall); 4];
    for (one, other, fate) in [
        ((Call, Some("one")), (Call, Some("one")), [None; 4]),
        ((Call, Some("one")), (Call, Some("two")), apart),
        ((Call, Some("one")), (Call, None), apart),
        ((Call, None), (Call, None), apart),
        ((Call, Some("one")), (Relay, Some("one")), [None; 4]),
        ((Call, Some("one")), (Relay, Some("two")), apart),
        ((Call, Some("one")), (Relay, None), apart),
        ((Call, None), (Relay, None), apart),
        ((Call, Some("one")), (networks, Some("two")), apart),
        ((Call, Some("one")), (Any, Some("two")), apart),
        ((Call, Some("one")), (Any, Some("one")), [None; 4]),
        ((Relay, Some("one")), (Relay, Some("two")), [None; 4]),
        ((Any, Some("one")), (Relay, None), [None; 4]),
    ] {
        let mut world = open().world();
        let claims = |user: &str, (policy, call): &(PeerPolicy, Option<&str>)| Claims {
            policy: Some(policy.clone()),
            call: call.and_then(|call| world.config.credentials.call(call)),
            ..world.claims(user)
        };
        let [first, second] = [claims("alice", &one), claims("bob", &other)];
        let mut alice = party(&mut world, &first, ALICE);
        let mut bob = party(&mut world, &second, BOB);
        let seen = exchange(&mut world, [&mut alice, &mut bob]);
        assert_eq!(seen, fate, "{one:?} and {other:?}");
    }
}

/// T65: she has a valid credential, a relayed address of the same IP, and the name of the party; the
/// party has even named hers.
#[test]
fn a_stranger_is_dropped_silently_and_counted_on_the_receiver() {
    let mut world = open().world();
    let [alice, bob] = ["alice", "bob"].map(|u| under(&world, PeerPolicy::Call, u, "one"));
    let mut alice = party(&mut world, &alice, ALICE);
    let mut bob = party(&mut world, &bob, BOB);
    assert_eq!(exchange(&mut world, [&mut alice, &mut bob]), [None; 4]);
    let stranger = under(&world, PeerPolicy::Relay, "mallory", "another");
    let mut mallory = party(&mut world, &stranger, CAROL);
    let before = world.traffic(Path::Hairpin, Direction::Out);
    let dropped = exchange(&mut world, [&mut mallory, &mut alice]);
    assert_eq!(dropped, [Some(DropReason::OtherCall); 4]);
    assert_eq!(world.drops(DropReason::OtherCall), 4);
    assert_eq!(world.traffic(Path::Hairpin, Direction::Out), before);
    let drops_of = |world: &World, relayed| {
        let house = world.house.borrow();
        let relayed = taciturn::turn::RelayedAddr::new(relayed);
        house.landings[&relayed].meters().drops.total()
    };
    assert_eq!(drops_of(&world, alice.1), 2);
    assert_eq!(drops_of(&world, mallory.1), 2);
    assert_eq!(drops_of(&world, bob.1), 0);
    bob.0.send_to(&mut world, alice.1, b"x").at(&alice.0);
}

/// Another allocation of a user whom Alice has named is admitted by naming; not if it is of another
/// call.
#[test]
fn a_named_users_other_call_is_another_call() {
    let mut world = open().world();
    let claims = |call: &str| under(&world, PeerPolicy::Relay, "bob", call);
    let [ones, others] = ["one", "two"].map(claims);
    let alice = under(&world, PeerPolicy::Call, "alice", "one");
    let (mut alice, a) = party(&mut world, &alice, ALICE);
    let (_, b) = party(&mut world, &ones, BOB);
    assert_eq!(alice.permit(&mut world, &[b]), SUCCESS);
    for (claims, addr, fate) in [
        (&ones, "198.51.100.2:2001", None),
        (&others, "198.51.100.2:2002", Some(DropReason::OtherCall)),
    ] {
        let (mut bob, _) = party(&mut world, claims, addr);
        assert_eq!(bob.permit(&mut world, &[a]), SUCCESS);
        assert_eq!(bob.send_to(&mut world, a, b"x").dropped(), fate);
    }
}

/// Never a silent fallback to `relay`: what the other node's allocation is of, is not known here.
#[test]
fn under_the_call_policy_the_fleet_is_shut() {
    for bind in [Bind::Auto, Bind::Always] {
        let mut world = Setup { bind, ..open() }.world();
        let alice = under(&world, PeerPolicy::Call, "alice", "one");
        let (mut alice, a) = party(&mut world, &alice, ALICE);
        assert_eq!(alice.permit(&mut world, &[at(FLEET)]), 403);
        assert_eq!(alice.bind(&mut world, 0x4000, at(FLEET)), 403);
        assert_eq!(world.has_socket(a), bind == Bind::Always);
        let sent = alice.send_to(&mut world, at(FLEET), b"x").dropped();
        assert_eq!(sent, Some(DropReason::PolicyRefused));
        if bind == Bind::Always {
            let inbound = world.receive_from_peer(a, FLEET, b"x").dropped();
            assert_eq!(inbound, Some(DropReason::PolicyRefused));
        }
        // Its own relay IP tells nobody which ports live.
        assert_eq!(
            alice.permit(&mut world, &[at("203.0.113.7:50000")]),
            SUCCESS
        );
        // The control: under `relay` that node is open.
        let bob = under(&world, PeerPolicy::Relay, "bob", "one");
        let (mut bob, b) = party(&mut world, &bob, BOB);
        assert_eq!(bob.permit(&mut world, &[at(FLEET)]), SUCCESS);
        bob.send_to(&mut world, at(FLEET), b"x").outside();
        world.receive_from_peer(b, FLEET, b"x").at(&bob);
    }
}

#[test]
fn a_claim_narrows_the_ceiling_and_never_widens_it() {
    use PeerPolicy::{Any, Networks, Relay};
    let (public, private, sfu) = ("1.1.1.1:7000", "10.20.1.1:7000", "10.21.1.1:7000");
    let nets = |texts: &[&str]| Networks(texts.iter().map(|net| net.parse().unwrap()).collect());
    let wide = nets(&["10.0.0.0/8"]);
    for (claim, ceiling, admitted) in [
        (None, Any, vec![]),
        (Some(Relay), Any, vec![]),
        (Some(Any), Any, vec![public]),
        (Some(Any), Relay, vec![]),
        (Some(Any), wide.clone(), vec![private, sfu]),
        (Some(nets(&["10.20.0.0/16"])), wide.clone(), vec![private]),
        (Some(nets(&["0.0.0.0/0"])), wide, vec![private, sfu]),
        (Some(nets(&["10.20.0.0/16"])), Relay, vec![]),
        // `any` would not reach a private network, and no claim opens it.
        (Some(nets(&["10.20.0.0/16"])), Any, vec![]),
        (Some(nets(&["1.0.0.0/8"])), Any, vec![public]),
    ] {
        let setup = Setup {
            ceiling: Some(ceiling.clone()),
            ..Setup::default()
        };
        let mut world = setup.world();
        let claims = Claims {
            policy: claim.clone(),
            ..world.claims("alice")
        };
        let (mut alice, a) = party(&mut world, &claims, ALICE);
        for peer in [public, private, sfu] {
            let expected = if admitted.contains(&peer) {
                SUCCESS
            } else {
                403
            };
            let code = alice.permit(&mut world, &[at(peer)]);
            assert_eq!(code, expected, "{peer} with {claim:?} under {ceiling:?}");
        }
        // Sockets follow the allocation's own policy.
        let opens = matches!(
            (&claim, &ceiling),
            (Some(Any | Networks(_)), Any | Networks(_))
        );
        assert_eq!(world.has_socket(a), opens, "{claim:?} under {ceiling:?}");
    }
}

/// T8: a living allocation's claim stays, and comes under what rules there are now.
#[test]
fn another_ceiling_is_the_ceiling_of_living_allocations_too() {
    let peer = at("1.1.1.1:7000");
    let mut world = open().world();
    let claims = under(&world, PeerPolicy::Any, "alice", "one");
    let (mut alice, a) = party(&mut world, &claims, ALICE);
    let bob = under(&world, PeerPolicy::Relay, "bob", "two");
    let mut bob = party(&mut world, &bob, BOB);
    assert_eq!(alice.permit(&mut world, &[peer]), SUCCESS);
    let mut pair = (alice, a);
    assert_eq!(exchange(&mut world, [&mut pair, &mut bob]), [None; 4]);

    let call_only = Setup {
        policy: PeerPolicy::Call,
        ceiling: Some(PeerPolicy::Call),
        ..open()
    };
    world.reconfigure(&call_only);
    let outside = pair.0.send_to(&mut world, peer, b"x").dropped();
    assert_eq!(outside, Some(DropReason::NoPermission));
    assert_eq!(pair.0.permit(&mut world, &[peer]), 403);
    let apart = [Some(DropReason::OtherCall); 4];
    assert_eq!(exchange(&mut world, [&mut pair, &mut bob]), apart);

    world.reconfigure(&open());
    assert_eq!(pair.0.permit(&mut world, &[peer]), SUCCESS);
    pair.0.send_to(&mut world, peer, b"x").outside();
    assert_eq!(exchange(&mut world, [&mut pair, &mut bob]), [None; 4]);
}

/// A run is within one moment; the next packet after other rules is judged by them.
#[test]
fn other_rules_reach_the_party_that_sends_without_a_pause() {
    let mut world = open().world();
    let mut parties = [("alice", ALICE), ("bob", BOB)].map(|(user, addr)| {
        let claims = world.claims(user);
        party(&mut world, &claims, addr)
    });
    let [alice, bob] = &mut parties;
    assert_eq!(exchange(&mut world, [&mut *alice, &mut *bob]), [None; 4]);
    world.reconfigure(&Setup {
        policy: PeerPolicy::Call,
        ceiling: Some(PeerPolicy::Call),
        ..open()
    });
    let sent = alice.0.channel_data(&mut world, channel(bob.1), b"x");
    assert_eq!(sent.dropped(), Some(DropReason::OtherCall));
}
