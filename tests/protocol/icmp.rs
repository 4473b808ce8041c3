//! ICMP errors about datagrams to peers (RFC 8656 §11.5): told to their sender, if the peer is no
//! hidden one.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

use std::net::{IpAddr, SocketAddr};

use taciturn::proto::{AddressFamily, AttributeType, Icmp, Message, RequestedAddressFamily};
use taciturn::turn::Bind;
use taciturn::turn::policy::{FleetNode, PeerPolicy};
use taciturn::turn::stats::{Direction, DropReason, Path};

use crate::world::call::{ALICE, Call};
use crate::world::client::{Client, SUCCESS};
use crate::world::message::Received;
use crate::world::servers::{Outcome, Setup, World, at, ip};

const PEER: &str = "1.1.1.1:5000";
const PEER_V6: &str = "[2606:4700::1111]:5000";
/// Destination unreachable, port unreachable.
const UNREACHABLE: Icmp = icmp(3, 3);

const fn icmp(kind: u8, code: u8) -> Icmp {
    Icmp {
        kind,
        code,
        data: [0; 4],
    }
}

/// The peer and the error that a client was told of; panics if it was told of none, or of more.
#[track_caller]
fn told(outcome: Outcome, client: &Client) -> (SocketAddr, Icmp) {
    if let Outcome::Client { bytes, .. } = &outcome {
        let message = Message::decode(bytes).unwrap();
        let kinds: Vec<_> = message.attributes().map(|raw| raw.kind).collect();
        let expected = [AttributeType::XOR_PEER_ADDRESS, AttributeType::ICMP];
        assert_eq!(kinds, expected);
    }
    let received = outcome.at(client);
    let Received::Icmp(peer, error) = received else {
        panic!("not an error: {received:?}");
    };
    (peer, error)
}
/// A world and a client with a relayed address of a family and a permission for `peer`.
fn permitted(setup: Setup, client: &str, peer: &str) -> (World, Client, SocketAddr) {
    let mut world = setup.world();
    let mut alice = world.client("alice", client);
    let family = AddressFamily::of(at(peer).ip());
    let answer = alice.allocate_with(&mut world, |r| r.with(&RequestedAddressFamily(family)));
    assert_eq!(alice.permit(&mut world, &[at(peer)]), SUCCESS);
    let relayed = answer.relayed()[0];
    (world, alice, relayed)
}

#[test]
fn an_error_from_a_foreign_peer_is_told_with_its_type_and_code() {
    let v6 = "[2001:db8:c::1]:1000";
    for (client, peer, error) in [
        (ALICE, PEER, UNREACHABLE),
        (ALICE, PEER, icmp(11, 0)),
        (ALICE, PEER_V6, icmp(1, 4)),
        (v6, PEER_V6, icmp(3, 0)),
        (v6, PEER, icmp(3, 13)),
    ] {
        let (mut world, alice, relayed) = permitted(Setup::any(), client, peer);
        let outcome = world.receive_icmp(relayed, peer, error);
        assert_eq!(told(outcome, &alice), (at(peer), error));
        // It is no data of anybody's.
        assert_eq!(world.traffic(Path::Indication, Direction::Out), (0, 0));
    }
}

/// A channel is for data; an error comes in an indication all the same (RFC 8656 §12.7).
#[test]
fn an_error_from_a_peer_with_a_channel_is_told_in_an_indication() {
    let (mut world, mut alice, relayed) = permitted(Setup::any(), ALICE, PEER);
    assert_eq!(alice.bind(&mut world, 0x4000, at(PEER)), SUCCESS);
    let outcome = world.receive_icmp(relayed, PEER, UNREACHABLE);
    assert_eq!(told(outcome, &alice), (at(PEER), UNREACHABLE));
}

#[test]
fn the_mtu_is_told_where_the_error_carries_one() {
    let mtu = |kind, code| Icmp {
        kind,
        code,
        data: 1_400_u32.to_be_bytes(),
    };
    for (peer, error, data) in [
        (PEER, mtu(3, 4), 1_400_u32),
        (PEER, mtu(3, 3), 0),
        (PEER, mtu(11, 1), 0),
        (PEER_V6, mtu(2, 0), 1_400),
        (PEER_V6, mtu(1, 0), 0),
    ] {
        let (mut world, alice, relayed) = permitted(Setup::any(), ALICE, peer);
        let outcome = world.receive_icmp(relayed, peer, error);
        assert_eq!(told(outcome, &alice).1.data, data.to_be_bytes());
    }
}

/// RFC 8656 §11.5: the other types, those of the other family among them.
#[test]
fn errors_of_other_types_are_discarded() {
    for (peer, kinds) in [
        (PEER, [0, 1, 4, 5, 12, 255]),
        (PEER_V6, [0, 4, 11, 128, 137, 255]),
    ] {
        let (mut world, _, relayed) = permitted(Setup::any(), ALICE, peer);
        for kind in kinds {
            let outcome = world.receive_icmp(relayed, peer, icmp(kind, 0));
            assert_eq!(outcome.dropped(), Some(DropReason::Icmp), "{kind}");
        }
    }
}

#[test]
fn an_error_is_told_only_under_a_live_permission_for_its_destination() {
    let (mut world, mut alice, relayed) = permitted(Setup::any(), ALICE, PEER);
    let discarded = |world: &mut World, peer| {
        let outcome = world.receive_icmp(relayed, peer, UNREACHABLE);
        assert_eq!(outcome.dropped(), Some(DropReason::Icmp));
    };
    discarded(&mut world, "9.9.9.9:5000");
    // Addresses are compared, ports are not.
    let outcome = world.receive_icmp(relayed, "1.1.1.1:6000", UNREACHABLE);
    assert_eq!(told(outcome, &alice).0, at("1.1.1.1:6000"));
    world.stall(299);
    let outcome = world.receive_icmp(relayed, PEER, UNREACHABLE);
    told(outcome, &alice);
    world.stall(1);
    discarded(&mut world, PEER);
    assert_eq!(alice.permit(&mut world, &[at(PEER)]), SUCCESS);
    let outcome = world.receive_icmp(relayed, PEER, UNREACHABLE);
    told(outcome, &alice);
    world.stall(300);
    discarded(&mut world, PEER);
}

/// Whether a hidden peer lives, and what its path carries, is nobody's to know.
#[test]
fn errors_about_hidden_peers_are_never_told() {
    let node = FleetNode {
        addr: ip("203.0.113.8"),
        seen_as: Some(ip("10.8.0.8")),
        ports: 50_000..=50_999,
    };
    let open = |policy| Setup {
        policy,
        bind: Bind::Always,
        fleet: vec![node.clone()],
        ..Setup::default()
    };
    for policy in [PeerPolicy::Relay, PeerPolicy::Any] {
        let mut call = Call::permitted(open(policy));
        let fleet = "203.0.113.8:50000";
        let Call { world, alice, .. } = &mut call;
        assert_eq!(alice.permit(world, &[at(fleet)]), SUCCESS);
        let other_port = SocketAddr::new(call.b.ip(), 3_478).to_string();
        for peer in [fleet, "10.8.0.8:50000", &call.b.to_string(), &other_port] {
            let outcome = call.world.receive_icmp(call.a, peer, UNREACHABLE);
            assert_eq!(outcome.dropped(), Some(DropReason::Icmp), "{peer}");
        }
    }
}

/// T8: what a reload closes is not heard of again.
#[test]
fn errors_about_a_peer_that_is_denied_by_now_are_not_told() {
    let (mut world, _, relayed) = permitted(Setup::any(), ALICE, PEER);
    let denied = Setup {
        deny: vec!["1.1.1.0/24"],
        ..Setup::any()
    };
    world.reconfigure(&denied);
    let outcome = world.receive_icmp(relayed, PEER, UNREACHABLE);
    assert_eq!(outcome.dropped(), Some(DropReason::Icmp));
}

/// A storm of errors, forged or not, costs a client few packets, and no other client any.
#[test]
fn a_storm_of_errors_is_told_at_a_bounded_rate_for_each_allocation() {
    let mut call = Call::new(Setup::any());
    for client in [&mut call.alice, &mut call.bob] {
        assert_eq!(client.permit(&mut call.world, &[at(PEER)]), SUCCESS);
    }
    let mut storm = |seconds: u64| {
        call.world.stall(seconds);
        let outcomes = (0..1_000).map(|_| call.world.receive_icmp(call.a, PEER, UNREACHABLE));
        outcomes
            .filter(|o| matches!(o, Outcome::Client { .. }))
            .count()
    };
    assert_eq!(storm(0), 20);
    assert_eq!(storm(1), 10);
    assert_eq!(call.world.drops(DropReason::Icmp), 1_970);
    let outcome = call.world.receive_icmp(call.b, PEER, UNREACHABLE);
    told(outcome, &call.bob);
}

#[test]
fn an_error_for_an_allocation_that_ended_is_discarded() {
    let (mut world, mut alice, relayed) = permitted(Setup::any(), ALICE, PEER);
    let id = world.house.borrow().sockets[&taciturn::turn::RelayedAddr::new(relayed)];
    assert_eq!(alice.refresh(&mut world, Some(0)).code(), SUCCESS);
    let (peer, now) = (taciturn::turn::PeerAddr::new(at(PEER)), world.clock.now);
    let handled = world.servers[0].handle_icmp(id, peer, UNREACHABLE, now);
    let dropped = matches!(handled, taciturn::turn::Handled::Dropped(DropReason::Icmp));
    assert!(dropped, "{handled:?}");
}

/// T62: what is told of a peer is told to its client alone.
#[test]
fn an_error_is_not_shown_in_debug() {
    let (mut world, _, relayed) = permitted(Setup::any(), ALICE, PEER);
    world.receive_icmp(relayed, PEER, UNREACHABLE);
    let shown = format!("{:?} {:?}", world.servers, IpAddr::from([0; 4]));
    assert!(!shown.contains("1.1.1.1"), "{shown}");
}
