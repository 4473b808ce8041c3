//! Peer policies as an allocation lives under them, the fleet, and when sockets are opened.

use std::net::SocketAddr;

use taciturn::turn::Bind;
use taciturn::turn::policy::{FleetNode, PeerPolicy};
use taciturn::turn::stats::DropReason;

use crate::world::call::{ALICE, Call, Framing};
use crate::world::client::SUCCESS;
use crate::world::message::Received;
use crate::world::servers::{Setup, at, ip};

const FLEET: &str = "203.0.113.8:50000";

fn with_fleet(seen_as: Option<&str>) -> Setup {
    Setup {
        fleet: vec![FleetNode {
            addr: ip("203.0.113.8"),
            seen_as: seen_as.map(ip),
            ports: 50_000..=50_999,
        }],
        ..Setup::default()
    }
}

#[test]
fn the_first_permission_for_the_fleet_opens_the_socket() {
    let mut call = Call::permitted(with_fleet(None));
    assert!(!call.world.has_socket(call.a));
    assert_eq!(call.alice.permit(&mut call.world, &[at(FLEET)]), SUCCESS);
    assert!(call.world.has_socket(call.a));
    assert!(!call.world.has_socket(call.b));
    let sent = call
        .alice
        .send_to(&mut call.world, at(FLEET), b"out")
        .outside();
    assert_eq!(sent, (call.a, at(FLEET), b"out".to_vec()));
    let received = call
        .world
        .receive_from_peer(call.a, FLEET, b"in")
        .at(&call.alice);
    assert_eq!(received, Received::Data(at(FLEET), b"in".to_vec()));

    // It stays, and the hairpin still goes without it.
    assert_eq!(
        call.alice
            .permit(&mut call.world, &[at("203.0.113.8:50001")]),
        SUCCESS
    );
    call.alice_says(b"x").at(&call.bob);
}

#[test]
fn a_channel_to_the_fleet_opens_the_socket() {
    let mut call = Call::new(with_fleet(None));
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, at(FLEET)), SUCCESS);
    assert!(call.world.has_socket(call.a));
    call.alice
        .channel_data(&mut call.world, 0x4000, b"x")
        .outside();
}

/// T42
#[test]
fn without_a_socket_for_the_fleet_nothing_is_permitted() {
    let mut call = Call::new(with_fleet(None));
    let peers = [call.b, at(FLEET)];
    for exhausted in [true, false] {
        {
            let mut house = call.world.house.borrow_mut();
            house.exhausted = exhausted;
            house.taken = [call.a.port()].into();
        }
        assert_eq!(call.alice.permit(&mut call.world, &peers), 508);
        assert_eq!(call.alice.bind(&mut call.world, 0x4000, at(FLEET)), 508);
        for peer in peers {
            let outcome = call.alice.send_to(&mut call.world, peer, b"x").dropped();
            assert_eq!(outcome, Some(DropReason::NoPermission));
        }
        let outcome = call
            .alice
            .channel_data(&mut call.world, 0x4000, b"x")
            .dropped();
        assert_eq!(outcome, Some(DropReason::NoChannel));
    }
    call.world.house.borrow_mut().taken.clear();
    assert_eq!(call.alice.permit(&mut call.world, &peers), SUCCESS);
}

#[test]
fn the_fleet_is_reached_on_its_relay_ports_only() {
    let mut call = Call::new(with_fleet(None));
    assert_eq!(
        call.alice.permit(&mut call.world, &[at("203.0.113.8:0")]),
        SUCCESS
    );
    for (port, open) in [
        (49_999, false),
        (50_000, true),
        (50_999, true),
        (51_000, false),
        (22, false),
    ] {
        let peer = SocketAddr::new(ip("203.0.113.8"), port);
        let sent = call.alice.send_to(&mut call.world, peer, b"x").dropped();
        assert_eq!(sent.is_none(), open, "{port}: {sent:?}");
        let inbound = call
            .world
            .receive_from_peer(call.a, &peer.to_string(), b"x");
        let refused = (!open).then_some(DropReason::PolicyRefused);
        assert_eq!(inbound.dropped(), refused, "{port}");
        let code = call
            .alice
            .bind(&mut call.world, 0x4000 + port % 0x1000, peer);
        assert_eq!(code, if open { SUCCESS } else { 403 }, "{port}");
    }
}

#[test]
fn a_node_behind_nat_is_known_by_its_advertised_address() {
    let mut call = Call::new(with_fleet(Some("10.8.0.8")));
    assert_eq!(call.alice.permit(&mut call.world, &[at(FLEET)]), SUCCESS);
    let received = call
        .world
        .receive_from_peer(call.a, "10.8.0.8:50000", b"in")
        .at(&call.alice);
    assert_eq!(received, Received::Data(at(FLEET), b"in".to_vec()));
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, at(FLEET)), SUCCESS);
    let received = call
        .world
        .receive_from_peer(call.a, "10.8.0.8:50000", b"in")
        .at(&call.alice);
    assert_eq!(received, Received::Channel(0x4000, b"in".to_vec()));
    let outcome = call
        .world
        .receive_from_peer(call.a, "10.8.0.8:22", b"in")
        .dropped();
    assert!(outcome.is_some(), "not a relay port of that node");
}

#[test]
fn a_hairpin_never_comes_by_the_kernel() {
    let setup = Setup {
        bind: Bind::Always,
        ..Setup::default()
    };
    for setup in [setup, Setup::any()] {
        let mut call = Call::permitted(setup);
        for source in [call.b, call.a, at("203.0.113.7:60000")] {
            let inbound = call
                .world
                .receive_from_peer(call.a, &source.to_string(), b"x");
            assert_eq!(inbound.dropped(), Some(DropReason::ByKernel));
        }
    }
}

/// REST usernames say nothing of a call, so nobody is of the same.
#[test]
fn under_the_call_policy_who_names_no_call_reaches_nobody() {
    let setup = Setup {
        policy: PeerPolicy::Call,
        ..Setup::default()
    };
    let mut call = Call::new(setup);
    call.admit(Framing::Channel(0x4000), Framing::Channel(0x4000));
    for outcome in [
        call.alice.channel_data(&mut call.world, 0x4000, b"x"),
        call.alice_says(b"x"),
        call.bob.channel_data(&mut call.world, 0x4000, b"x"),
        call.bob_says(b"x"),
    ] {
        assert_eq!(outcome.dropped(), Some(DropReason::OtherCall));
    }
    assert_eq!(call.alice.permit(&mut call.world, &[at("1.1.1.1:1")]), 403);
}

#[test]
fn networks_are_open_besides_relays() {
    let setup = Setup {
        policy: PeerPolicy::Networks(vec!["10.20.0.0/16".parse().unwrap()]),
        ..Setup::default()
    };
    let mut call = Call::permitted(setup);
    call.alice_says(b"x").at(&call.bob);
    let sfu = at("10.20.1.1:7000");
    assert_eq!(call.alice.permit(&mut call.world, &[sfu]), SUCCESS);
    call.alice.send_to(&mut call.world, sfu, b"x").outside();
    call.world
        .receive_from_peer(call.a, "10.20.1.1:7000", b"x")
        .at(&call.alice);
    for refused in ["10.21.0.1:7000", "1.1.1.1:7000", "10.0.0.5:22"] {
        assert_eq!(
            call.alice.permit(&mut call.world, &[at(refused)]),
            403,
            "{refused}"
        );
    }
}

#[test]
fn under_any_policy_a_relayed_address_is_a_hairpin() {
    let mut call = Call::permitted(Setup::any());
    assert!(call.world.has_socket(call.a) && call.world.has_socket(call.b));
    let received = call.alice_says(b"x").at(&call.bob);
    assert_eq!(received, Received::Data(call.a, b"x".to_vec()));
}

#[test]
fn a_socket_of_one_family_is_not_opened_for_the_other() {
    let setup = Setup {
        fleet: vec![FleetNode {
            addr: ip("2001:db8:8::8"),
            seen_as: None,
            ports: 50_000..=50_999,
        }],
        ..Setup::default()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let [a4, a6] = alice.allocate_dual(&mut world);
    assert_eq!(
        alice.permit(&mut world, &[at("[2001:db8:8::8]:50000")]),
        SUCCESS
    );
    assert!(!world.has_socket(a4) && world.has_socket(a6));
}
