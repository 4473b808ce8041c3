//! The policy `call` with real sockets: who is of one call talks, others do not, on one node and
//! on two that know each other.

use std::net::SocketAddr;

use taciturn::turn::credential::{Claims, Label};
use taciturn::turn::policy::{FleetNode, PeerPolicy};
use taciturn::turn::stats::{AuthFailure, DropReason, Path};

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4, claims};

fn party(plane: &Plane, claims: &Claims) -> (Client, SocketAddr) {
    let mut client = plane.sealed(claims);
    let relayed = client.allocate(V4);
    (client, relayed)
}

fn in_call(user: &str, call: &str) -> Claims {
    Claims {
        policy: Some(PeerPolicy::Call),
        ..claims(user, call)
    }
}

/// A packet each way arrives, behind which nothing else can be on its way.
#[track_caller]
fn they_talk([(a, at_a), (b, at_b)]: [&mut (Client, SocketAddr); 2]) {
    assert_eq!((a.permit(*at_b), b.permit(*at_a)), (SUCCESS, SUCCESS));
    a.send_to(*at_b, b"from a");
    assert_eq!(b.receive(), Received::Data(*at_a, b"from a".to_vec()));
    b.send_to(*at_a, b"from b");
    assert_eq!(a.receive(), Received::Data(*at_b, b"from b".to_vec()));
}

/// T65: on the same relay IP, named by the party, and by channel as well as by indication.
#[test]
fn a_stranger_from_another_call_is_not_heard() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        let [mut a, mut b] = ["a", "b"].map(|user| party(&plane, &in_call(user, "one")));
        they_talk([&mut a, &mut b]);
        let relay = Claims {
            policy: Some(PeerPolicy::Relay),
            ..claims("stranger", "one")
        };
        let strangers = [
            party(&plane, &in_call("stranger", "two")),
            party(
                &plane,
                &Claims {
                    call: None,
                    ..relay.clone()
                },
            ),
            plane.party(V4),
        ];
        for (mut stranger, at_stranger) in strangers {
            assert_eq!(a.0.permit(at_stranger), SUCCESS);
            assert_eq!(stranger.bind(0x4000, a.1), SUCCESS);
            let before = plane.both_ways(Path::Hairpin);
            plane.drops_by(DropReason::OtherCall, 3, || {
                stranger.send_to(a.1, b"pst");
                stranger.send_channel(0x4000, b"pst");
                a.0.send_to(at_stranger, b"who is there?");
            });
            assert_eq!(plane.both_ways(Path::Hairpin), before);
            they_talk([&mut a, &mut b]);
        }
        // The control: the call id decides, not the policy of who calls.
        let mut friend = party(&plane, &relay);
        they_talk([&mut a, &mut friend]);
    }
}

/// Two nodes of a fleet, which share their keys.
fn nodes(workers: usize) -> [Plane; 2] {
    let mut setups = ["a", "b"].map(|node| Setup {
        node: Some(node),
        ..Setup::relay(workers)
    });
    let [of_a, of_b] = setups.each_ref().map(|setup| FleetNode {
        addr: setup.v4.advertised,
        seen_as: None,
        ports: setup.ports.clone(),
    });
    setups[0].fleet = vec![of_b];
    setups[1].fleet = vec![of_a];
    setups.map(Setup::start)
}

/// What the minting API does: both parties of a call are sent to one node, and pinned there.
#[test]
fn parties_who_are_pinned_to_one_node_talk_there_and_are_unknown_elsewhere() {
    for workers in [1, 4] {
        let [a, b] = nodes(workers);
        let pinned = |user| Claims {
            audience: Label::new("a"),
            ..in_call(user, "one")
        };
        let [mut alice, mut bob] = ["alice", "bob"].map(|user| party(&a, &pinned(user)));
        they_talk([&mut alice, &mut bob]);
        let mut astray = b.sealed(&pinned("bob"));
        assert_eq!(astray.try_allocate(V4).code(), 401);
        assert_eq!(
            b.sum(|worker| worker.auth_failures(AuthFailure::OtherNode)),
            1
        );
        assert_eq!(b.allocations().iter().sum::<u64>(), 0);
    }
}

/// Never as under `relay`, where the same parties on the same nodes do reach each other.
#[test]
fn parties_of_one_call_on_two_nodes_are_refused_and_counted() {
    for workers in [1, 4] {
        let [a, b] = nodes(workers);
        let refused = |plane: &Plane| {
            plane.sum(|worker| {
                let requests = worker.requests();
                requests.filter(|row| row.1 == 403).map(|row| row.2).sum()
            })
        };
        let (mut alice, at_alice) = party(&a, &in_call("alice", "one"));
        let (mut bob, at_bob) = party(&b, &in_call("bob", "one"));
        for (plane, client, peer) in [(&a, &mut alice, at_bob), (&b, &mut bob, at_alice)] {
            assert_eq!(client.permit(peer), 403);
            assert_eq!(client.bind(0x4000, peer), 403);
            plane.drops_by(DropReason::PolicyRefused, 1, || client.send_to(peer, b"x"));
            eventually("the requests are counted", || refused(plane) == 2);
            assert_eq!(plane.both_ways(Path::Indication), [0, 0]);
        }
        let relay = |user| Claims {
            policy: Some(PeerPolicy::Relay),
            ..claims(user, "one")
        };
        let mut alice = party(&a, &relay("alice"));
        let mut bob = party(&b, &relay("bob"));
        they_talk([&mut alice, &mut bob]);
    }
}
