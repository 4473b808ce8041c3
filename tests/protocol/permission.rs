//! Permissions: whom they may be for, what they let through, and for how long.

use std::net::SocketAddr;

use taciturn::proto::{AttributeType, Method, XorPeerAddress};
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::stats::DropReason;

use crate::world::call::{ALICE, Call};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{RELAY_V6, Setup, World, at, ip};

/// A client with a relayed address of each family.
fn dual(setup: Setup) -> (World, Client, [SocketAddr; 2]) {
    let mut world = setup.world();
    let mut alice = world.client("alice", ALICE);
    let relayed = alice.allocate_dual(&mut world);
    (world, alice, relayed)
}

/// Neither CreatePermission nor ChannelBind nor Send reaches any of these IPs, and nothing comes
/// from them.
#[track_caller]
fn refused_everywhere(setup: Setup, ips: &[&str]) {
    let (mut world, mut alice, [a4, a6]) = dual(setup);
    for text in ips {
        let peer = SocketAddr::new(ip(text), 5_000);
        assert_eq!(alice.permit(&mut world, &[peer]), 403, "{text}");
        assert_eq!(alice.bind(&mut world, 0x4000, peer), 403, "{text}");
        let sent = alice.send_to(&mut world, peer, b"x").dropped();
        assert_eq!(sent, Some(DropReason::NoPermission), "{text}");
        let sent = alice.channel_data(&mut world, 0x4000, b"x").dropped();
        assert_eq!(sent, Some(DropReason::NoChannel), "{text}");
        let relayed = if peer.is_ipv4() { a4 } else { a6 };
        if world.has_socket(relayed) {
            let inbound = world.receive_from_peer(relayed, &peer.to_string(), b"x");
            assert!(inbound.dropped().is_some(), "{text}: {inbound:?}");
        }
    }
}

/// The control: the same steps reach a peer that the policy admits.
#[test]
fn a_public_peer_is_reached_by_every_method() {
    let (mut world, mut alice, [a4, a6]) = dual(Setup::any());
    for (number, text, relayed) in [(0x4000, "1.1.1.1", a4), (0x4001, "2606:4700::1111", a6)] {
        let peer = SocketAddr::new(ip(text), 5_000);
        assert_eq!(alice.permit(&mut world, &[peer]), SUCCESS);
        alice.send_to(&mut world, peer, b"x").outside();
        assert_eq!(alice.bind(&mut world, number, peer), SUCCESS);
        alice.channel_data(&mut world, number, b"x").outside();
        world
            .receive_from_peer(relayed, &peer.to_string(), b"x")
            .at(&alice);
    }
}

/// T1
#[test]
fn loopback_and_unspecified_peers_are_refused() {
    let ips = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "::1",
        "::",
    ];
    refused_everywhere(Setup::any(), &ips);
}

/// T2
#[test]
fn peers_written_as_ipv4_mapped_ipv6_are_refused() {
    let ips = [
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "::ffff:203.0.113.7",
        "::ffff:1.1.1.1",
    ];
    refused_everywhere(Setup::any(), &ips);
}

/// T3
#[test]
fn peers_that_hide_a_private_ipv4_address_are_refused() {
    let ips = [
        "::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "2002:0a00:0001::1",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe",
        "2606:4700::5efe:10.0.0.1",
    ];
    refused_everywhere(Setup::any(), &ips);
}

/// T4
#[test]
fn metadata_services_are_refused() {
    let ips = [
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
    ];
    refused_everywhere(Setup::any(), &ips);
}

/// T5
#[test]
fn special_purpose_peers_are_refused() {
    let ips = [
        "10.1.2.3",
        "100.64.0.1",
        "169.254.1.1",
        "172.16.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.99",
        "240.0.0.1",
        "100::1",
        "2001:2::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fe80::1",
    ];
    refused_everywhere(Setup::any(), &ips);
}

/// T7
#[test]
fn this_machine_is_refused() {
    refused_everywhere(Setup::any(), &["10.0.0.5", "127.0.0.1"]);
    let (mut world, mut alice, _) = dual(Setup::any());
    for own in [
        "203.0.113.7:3478",
        "[2001:db8:7::7]:3478",
        "203.0.113.7:22",
        "127.0.0.1:9641",
    ] {
        assert_eq!(alice.bind(&mut world, 0x4000, at(own)), 403, "{own}");
    }
    // The relay IPs themselves stay open: a permission leaves the port open.
    assert_eq!(alice.permit(&mut world, &[at("203.0.113.7:3478")]), SUCCESS);
    let outcome = alice
        .send_to(&mut world, at("203.0.113.7:3478"), b"x")
        .dropped();
    assert_eq!(outcome, Some(DropReason::NoLanding));
}

/// T7
#[test]
fn not_even_an_allowed_network_opens_a_listener() {
    let setup = Setup {
        allow: vec!["0.0.0.0/0", "::/0"],
        ..Setup::any()
    };
    let (mut world, mut alice, _) = dual(setup);
    for own in ["203.0.113.7:3478", "[2001:db8:7::7]:3478", "127.0.0.1:9641"] {
        assert_eq!(alice.bind(&mut world, 0x4000, at(own)), 403, "{own}");
    }
}

/// T11
#[test]
fn multicast_and_broadcast_peers_are_refused() {
    let ips = [
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "ff02::1",
        "ff0e::1",
    ];
    refused_everywhere(Setup::any(), &ips);
    let open = Setup {
        allow: vec!["0.0.0.0/0", "::/0"],
        ..Setup::any()
    };
    refused_everywhere(open, &ips);
}

/// T12
#[test]
fn under_the_relay_policy_nobody_else_is_a_peer() {
    let ips = [
        "1.1.1.1",
        "8.8.8.8",
        "203.0.113.8",
        "10.0.0.1",
        "2606:4700::1111",
    ];
    refused_everywhere(Setup::default(), &ips);
    let allowed = Setup {
        allow: vec!["1.1.1.0/24"],
        ..Setup::default()
    };
    refused_everywhere(allowed, &["1.1.1.1"]);
}

#[test]
fn denied_networks_are_refused_even_if_they_are_allowed() {
    let setup = Setup {
        allow: vec!["1.0.0.0/8"],
        deny: vec!["1.1.0.0/16"],
        ..Setup::any()
    };
    refused_everywhere(setup, &["1.1.1.1"]);
}

/// T64
#[test]
fn the_other_partys_own_address_is_no_peer() {
    for bind in [taciturn::turn::Bind::Auto, taciturn::turn::Bind::Always] {
        let setup = Setup {
            bind,
            ..Setup::default()
        };
        let mut call = Call::permitted(setup);
        let srflx = call.bob.addr();
        assert_eq!(call.alice.permit(&mut call.world, &[srflx]), 403);
        assert_eq!(call.alice.bind(&mut call.world, 0x4000, srflx), 403);
        if call.world.has_socket(call.a) {
            let inbound = call
                .world
                .receive_from_peer(call.a, &srflx.to_string(), b"direct");
            assert_eq!(inbound.dropped(), Some(DropReason::NoPermission));
        }
    }
}

#[test]
fn any_port_of_a_relay_ip_is_permitted_whether_it_lives_or_not() {
    for policy in [PeerPolicy::Relay, PeerPolicy::Call, PeerPolicy::Any] {
        let setup = Setup {
            policy,
            ..Setup::default()
        };
        let mut call = Call::new(setup);
        let answers: Vec<_> = [
            call.b,
            at("203.0.113.7:65535"),
            at("203.0.113.7:0"),
            at("203.0.113.7:80"),
        ]
        .map(|peer| {
            call.alice
                .request(&mut call.world, Method::CREATE_PERMISSION, |r| {
                    r.with(&XorPeerAddress(peer))
                })
        })
        .to_vec();
        assert!(answers.iter().all(|answer| answer.code() == SUCCESS));
        assert!(
            answers
                .iter()
                .all(|answer| answer.0.len() == answers[0].0.len())
        );
    }
}

#[test]
fn of_several_peers_all_are_permitted_or_none() {
    let mut call = Call::new(Setup::any());
    let good = at("1.1.1.1:1");
    let code = call
        .alice
        .permit(&mut call.world, &[good, at("10.0.0.1:1"), call.b]);
    assert_eq!(code, 403);
    for peer in [good, call.b] {
        let outcome = call.alice.send_to(&mut call.world, peer, b"x").dropped();
        assert_eq!(outcome, Some(DropReason::NoPermission));
    }
    let peers = [good, at("8.8.8.8:1"), call.b];
    assert_eq!(call.alice.permit(&mut call.world, &peers), SUCCESS);
    call.alice
        .send_to(&mut call.world, at("8.8.8.8:53"), b"x")
        .outside();
    call.alice.send_to(&mut call.world, good, b"x").outside();
}

/// T55
#[test]
fn a_malformed_create_permission_is_a_bad_request() {
    let mut call = Call::new(Setup::default());
    assert_eq!(call.alice.permit(&mut call.world, &[]), 400);
    for value in [&[][..], &[0, 1, 0, 0], &[0, 9, 0, 0, 1, 2, 3, 4]] {
        let answer = call
            .alice
            .request(&mut call.world, Method::CREATE_PERMISSION, |r| {
                r.with(&XorPeerAddress(call.b))
                    .raw(AttributeType::XOR_PEER_ADDRESS, value)
            });
        assert_eq!(answer.code(), 400, "{value:?}");
    }
    let outcome = call.alice_says(b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NoPermission));
}

/// T53
#[test]
fn without_a_permission_nothing_comes_in() {
    let mut call = Call::new(Setup::any());
    let inbound = call.world.receive_from_peer(call.a, "1.1.1.1:5000", b"x");
    assert_eq!(inbound.dropped(), Some(DropReason::NoPermission));
    call.alice.permit(&mut call.world, &[at("1.1.1.1:1")]);
    let inbound = call.world.receive_from_peer(call.a, "1.1.1.2:5000", b"x");
    assert_eq!(inbound.dropped(), Some(DropReason::NoPermission));
    call.world
        .receive_from_peer(call.a, "1.1.1.1:5000", b"x")
        .at(&call.alice);
}

#[test]
fn a_permission_lasts_three_hundred_seconds() {
    let mut call = Call::permitted(Setup::any());
    let peer = at("1.1.1.1:5000");
    call.alice.permit(&mut call.world, &[peer]);
    call.world.advance(299);
    call.alice_says(b"x").at(&call.bob);
    call.world
        .receive_from_peer(call.a, "1.1.1.1:5000", b"x")
        .at(&call.alice);
    call.alice.send_to(&mut call.world, peer, b"x").outside();

    // Neither of these packets has refreshed it.
    call.world.advance(1);
    let out = call.alice_says(b"x").dropped();
    assert_eq!(out, Some(DropReason::NoPermission));
    let inbound = call.world.receive_from_peer(call.a, "1.1.1.1:5000", b"x");
    assert_eq!(inbound.dropped(), Some(DropReason::NoPermission));
}

#[test]
fn a_permission_is_refreshed_by_another_port_of_its_ip() {
    let mut call = Call::permitted(Setup::default());
    call.world.advance(200);
    let other = at("203.0.113.7:60000");
    assert_eq!(call.alice.permit(&mut call.world, &[other]), SUCCESS);
    assert_eq!(call.bob.permit(&mut call.world, &[call.a]), SUCCESS);
    call.world.advance(200);
    call.alice_says(b"x").at(&call.bob);
}

/// T35
#[test]
fn permissions_beyond_the_limit_get_508() {
    let mut world = Setup::any().world();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    let peers: Vec<_> = (0..=128)
        .map(|n| at(&format!("1.1.{}.{}:9", n / 200, n % 200 + 1)))
        .collect();
    assert_eq!(alice.permit(&mut world, &peers), 508);
    assert_eq!(alice.permit(&mut world, &peers[..100]), SUCCESS);
    assert_eq!(alice.permit(&mut world, &peers[100..]), 508);
    assert_eq!(alice.permit(&mut world, &peers[100..128]), SUCCESS);
    assert_eq!(alice.permit(&mut world, &peers[128..]), 508);
    assert_eq!(alice.bind(&mut world, 0x4000, peers[128]), 508);
    assert_eq!(
        alice.permit(&mut world, &peers[..50]),
        SUCCESS,
        "those are refreshed"
    );
    world.advance(300);
    assert_eq!(alice.permit(&mut world, &peers[128..]), SUCCESS);
}

#[test]
fn the_other_family_of_a_relay_needs_a_permission_of_its_own() {
    let (mut world, mut alice, _) = dual(Setup::default());
    assert_eq!(
        alice.permit(&mut world, &[at("203.0.113.7:50000")]),
        SUCCESS
    );
    let peer = SocketAddr::new(ip(RELAY_V6), 50_000);
    let outcome = alice.send_to(&mut world, peer, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NoPermission));
}
