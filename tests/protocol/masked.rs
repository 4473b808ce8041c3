//! The claim `masked`: a client that is not told where it is.

use taciturn::proto::{AddressFamily, Method, RequestedAddressFamily, RequestedTransport};
use taciturn::turn::credential::Claims;
use taciturn::turn::{BindingRequests, BindingRules, ListenerId, Transport};

use crate::world::call::{ALICE, BOB};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{Outcome, Setup, World};

const ALICE_V6: &str = "[2001:db8:c::20]:4242";

fn masked(world: &World, addr: &str) -> Client {
    let claims = Claims {
        masked: true,
        ..world.claims("alice")
    };
    world.sealed(&claims, addr)
}

fn with_binding(default: BindingRequests) -> Setup {
    Setup {
        binding: BindingRules {
            default,
            ..BindingRules::default()
        },
        ..Setup::default()
    }
}

/// What a bare Binding request on the 5-tuple of `client` is told.
fn bound(world: &mut World, client: &mut Client) -> Option<std::net::SocketAddr> {
    let request = client.build(Method::BINDING).bytes();
    world.send(client, &request).answer().mapped()
}

/// T66
#[test]
fn a_masked_client_is_told_its_relayed_address_wherever_it_asks() {
    let mut world = World::new();
    let mut alice = masked(&world, ALICE);
    alice.fetch_nonce(&mut world);
    let request = alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP);
    let bytes = alice.sign(request);
    let first = world.send(&alice, &bytes).answer();
    assert_eq!(first.code(), SUCCESS);
    let relayed = first.relayed()[0];
    assert_eq!(first.mapped(), Some(relayed));
    let again = world.send(&alice, &bytes).answer();
    assert_eq!(again.mapped(), Some(relayed), "a retransmission");
    assert_eq!(bound(&mut world, &mut alice), Some(relayed));

    // The control: who is not masked is told the truth, and so is a masked client's neighbour.
    let mut bob = world.client("bob", BOB);
    let answer = bob.allocate_with(&mut world, |r| r);
    assert_eq!(answer.mapped(), Some(bob.addr()));
    assert_eq!(bound(&mut world, &mut bob), Some(bob.addr()));
    let mut beside = alice.moved("198.51.100.1:1001");
    assert_eq!(bound(&mut world, &mut beside), Some(beside.addr()));
    // Nor is a 5-tuple masked whose allocation is gone.
    alice.refresh(&mut world, Some(0));
    assert_eq!(bound(&mut world, &mut alice), Some(alice.addr()));
}

#[test]
fn the_mask_is_of_the_clients_own_family_if_there_is_one() {
    for (addr, place) in [(ALICE, 0), (ALICE_V6, 1)] {
        let mut world = World::new();
        let mut alice = masked(&world, addr);
        let both = taciturn::proto::AdditionalAddressFamily(AddressFamily::V6);
        let answer = alice.allocate_with(&mut world, |r| r.with(&both));
        let relayed = answer.relayed();
        assert_eq!(relayed.len(), 2);
        assert_eq!(answer.mapped(), Some(relayed[place]), "{addr}");
        assert_eq!(bound(&mut world, &mut alice), Some(relayed[place]));
    }
    let mut world = World::new();
    let mut alice = masked(&world, ALICE_V6);
    let v4 = RequestedAddressFamily(AddressFamily::V4);
    let answer = alice.allocate_with(&mut world, |r| r.with(&v4));
    assert_eq!(answer.mapped(), Some(answer.relayed()[0]));
}

/// A Binding request is answered by the worker that has the allocation.
#[test]
fn a_binding_request_at_another_worker_tells_no_more() {
    let setup = Setup {
        workers: 2,
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = masked(&world, ALICE);
    alice.allocate(&mut world);
    let mut elsewhere = alice.clone().on(1);
    let request = elsewhere.build(Method::BINDING).bytes();
    let outcome = world.send(&elsewhere, &request);
    assert_eq!(outcome, Outcome::Elsewhere(alice.worker));
}

#[test]
fn a_masked_credential_learns_nothing_by_an_authenticated_binding_before_it_has_an_allocation() {
    let mut world = with_binding(BindingRequests::Authenticated).world();
    let mut alice = masked(&world, ALICE);
    let answer = alice.request(&mut world, Method::BINDING, |r| r);
    assert_eq!((answer.code(), answer.mapped()), (403, None));
    let relayed = alice.allocate(&mut world);
    let answer = alice.request(&mut world, Method::BINDING, |r| r);
    assert_eq!(answer.mapped(), Some(relayed));
    let mut bob = world.client("bob", BOB);
    let answer = bob.request(&mut world, Method::BINDING, |r| r);
    assert_eq!(answer.mapped(), Some(bob.addr()));
}

/// All that reaches a masked client on a connection, from its first request to its last.
#[test]
fn a_masked_client_is_sent_its_own_address_by_no_transport() {
    for transport in Transport::ALL {
        let mut world = with_binding(BindingRequests::Off).world();
        let mut alice = masked(&world, ALICE);
        alice.tuple.listener = ListenerId::new(transport, 0);
        let mut all = vec![alice.allocate_with(&mut world, |r| r).0];
        all.push(alice.refresh(&mut world, None).0);
        all.push(alice.refresh(&mut world, Some(0)).0);
        let std::net::IpAddr::V4(own) = alice.addr().ip() else {
            unreachable!("it is IPv4");
        };
        let xored = (own.to_bits() ^ taciturn::proto::MAGIC_COOKIE).to_be_bytes();
        for bytes in all {
            for form in [own.octets(), xored] {
                assert!(bytes.windows(4).all(|window| window != form));
            }
        }
    }
}
