//! This node's own sockets, interfaces and relays, and those of its fleet.

use super::*;

/// T7
#[test]
fn own_sockets_are_refused_even_when_allowed() {
    let judge = PeerJudge::new(PeerRules {
        own_sockets: vec![
            "[::]:3478".parse().unwrap(),
            "127.0.0.1:9641".parse().unwrap(),
            "10.0.0.5:8443".parse().unwrap(),
        ],
        allow: nets(&["0.0.0.0/0", "::/0"]),
        ..rules()
    });
    let everywhere = PeerPolicy::Networks(nets(&["0.0.0.0/0", "::/0"]));
    for policy in [
        PeerPolicy::Relay,
        PeerPolicy::Call,
        everywhere,
        PeerPolicy::Any,
    ] {
        for socket in [
            "10.0.0.5:3478",
            "[2a00:5::5]:3478",
            "127.0.0.1:3478",
            "127.1.2.3:3478",
            "[::1]:3478",
            "198.41.0.1:3478",
            "127.0.0.1:9641",
            "10.0.0.5:8443",
            // Behind NAT the relay IP leads to the same socket.
            "198.41.0.1:8443",
        ] {
            let verdict = judge.peer(&policy, socket.parse().unwrap());
            assert_eq!(
                verdict,
                refused(Refusal::OwnSocket),
                "{socket} under {policy:?}"
            );
        }
    }
    let neighbour = judge.peer(&PeerPolicy::Any, "10.0.0.5:8444".parse().unwrap());
    assert_eq!(neighbour, Verdict::Foreign);
}

/// T7
#[test]
fn scope_and_flow_label_do_not_hide_an_own_socket() {
    use std::net::SocketAddrV6;
    let judge = PeerJudge::new(PeerRules {
        own_sockets: vec!["[2a00:5::5]:3478".parse().unwrap()],
        allow: nets(&["::/0"]),
        ..rules()
    });
    let peer = SocketAddrV6::new("2a00:5::5".parse().unwrap(), 3478, 7, 9);
    assert_eq!(
        judge.peer(&PeerPolicy::Any, peer.into()),
        refused(Refusal::OwnSocket)
    );
}

/// T7
#[test]
fn interface_addresses_are_opened_by_allow_alone() {
    let lan = PeerPolicy::Networks(nets(&["10.0.0.0/8"]));
    let shut = judge();
    assert_eq!(
        shut.permission(&lan, addr("10.0.0.5")),
        refused(Refusal::OwnAddress)
    );
    assert_eq!(shut.permission(&lan, addr("10.0.0.6")), Verdict::Foreign);
    assert_eq!(
        shut.permission(&PeerPolicy::Any, addr("2a00:5::5")),
        refused(Refusal::OwnAddress)
    );

    let open = PeerJudge::new(PeerRules {
        allow: nets(&["10.0.0.5/32", "127.0.0.1/32"]),
        ..rules()
    });
    for ip in ["10.0.0.5", "127.0.0.1"] {
        assert_eq!(
            open.permission(&PeerPolicy::Any, addr(ip)),
            Verdict::Foreign,
            "{ip}"
        );
        for policy in [PeerPolicy::Relay, PeerPolicy::Call] {
            assert_eq!(
                open.permission(&policy, addr(ip)),
                refused(Refusal::Policy),
                "{ip}"
            );
        }
    }
    assert_eq!(open.permission(&lan, addr("10.0.0.5")), Verdict::Foreign);
    assert_eq!(
        open.permission(&lan, addr("127.0.0.1")),
        refused(Refusal::Policy)
    );
    assert_eq!(
        open.permission(&PeerPolicy::Any, addr("127.0.0.2")),
        refused(Refusal::OwnAddress)
    );
}

/// T7
#[test]
fn an_own_socket_makes_its_ip_an_interface_address() {
    let judge = PeerJudge::new(PeerRules {
        own_sockets: vec!["9.9.9.9:3478".parse().unwrap()],
        ..rules()
    });
    let verdict = judge.permission(&PeerPolicy::Any, addr("9.9.9.9"));
    assert_eq!(verdict, refused(Refusal::OwnAddress));
}

/// T7
#[test]
fn own_relays_are_reachable_under_every_policy_even_if_denied() {
    let judge = PeerJudge::new(PeerRules {
        deny: nets(&["0.0.0.0/0", "::/0"]),
        own_addresses: vec![addr("198.41.0.1")],
        ..rules()
    });
    for policy in POLICIES {
        for ip in ["198.41.0.1", "2606:4700::1"] {
            assert_eq!(judge.permission(&policy(), addr(ip)), Verdict::OwnRelay);
            assert_eq!(
                judge.peer(&policy(), SocketAddr::new(addr(ip), 20_000)),
                Verdict::OwnRelay
            );
            assert_eq!(
                judge.peer(&policy(), SocketAddr::new(addr(ip), 29_999)),
                Verdict::OwnRelay
            );
        }
    }
}

/// T7
#[test]
fn own_relay_ip_outside_the_relay_ports_is_refused() {
    for policy in POLICIES {
        for peer in ["198.41.0.1:19999", "198.41.0.1:30000", "[2606:4700::1]:22"] {
            let verdict = judge().peer(&policy(), peer.parse().unwrap());
            assert_eq!(verdict, refused(Refusal::RelayPort), "{peer}");
        }
    }
}

#[test]
fn fleet_relays_are_open_within_their_ports_under_every_policy_but_call() {
    let judge = judge();
    for policy in POLICIES {
        for (peer, verdict) in [
            ("198.41.7.1:40000", Verdict::FleetRelay),
            ("198.41.7.1:40999", Verdict::FleetRelay),
            ("198.41.7.1:41000", refused(Refusal::FleetPort)),
            ("198.41.7.1:20000", refused(Refusal::FleetPort)),
            ("198.41.7.2:50500", Verdict::FleetRelay),
            ("198.41.7.2:60500", Verdict::FleetRelay),
            ("198.41.7.2:55000", refused(Refusal::FleetPort)),
            ("192.168.9.9:40000", Verdict::FleetRelay),
        ] {
            let peer: SocketAddr = peer.parse().unwrap();
            let (bound, permitted) = match policy() {
                PeerPolicy::Call => [refused(Refusal::OtherNode); 2].into(),
                PeerPolicy::Relay
                | PeerPolicy::Networks(_)
                | PeerPolicy::AnyOf(_)
                | PeerPolicy::Any => (verdict, Verdict::FleetRelay),
            };
            assert_eq!(judge.peer(&policy(), peer), bound, "{peer}");
            assert_eq!(judge.permission(&policy(), peer.ip()), permitted, "{peer}");
        }
    }
}

#[test]
fn a_denied_fleet_node_is_denied() {
    let judge = PeerJudge::new(PeerRules {
        deny: nets(&["198.41.7.1/32"]),
        ..rules()
    });
    let verdict = judge.permission(&PeerPolicy::Relay, addr("198.41.7.1"));
    assert_eq!(verdict, refused(Refusal::Denied));
}

#[test]
fn a_fleet_list_that_contains_this_node_opens_none_of_its_other_ports() {
    let mut rules = rules();
    rules.fleet.push(FleetNode {
        addr: addr("198.41.0.1"),
        seen_as: None,
        ports: 1..=65_535,
    });
    let verdict = PeerJudge::new(rules).peer(&PeerPolicy::Relay, "198.41.0.1:22".parse().unwrap());
    assert_eq!(verdict, refused(Refusal::RelayPort));
}

#[test]
fn packets_of_a_fleet_node_are_named_by_its_advertised_address() {
    let judge = judge();
    for (source, name) in [
        ("172.20.0.7:50001", "198.41.7.2:50001"),
        ("172.20.0.7:60001", "198.41.7.2:60001"),
        ("172.20.0.7:22", "172.20.0.7:22"),
        ("198.41.7.1:40000", "198.41.7.1:40000"),
        ("8.8.8.8:53", "8.8.8.8:53"),
    ] {
        assert_eq!(judge.named(source.parse().unwrap()), name.parse().unwrap());
    }
    // A client cannot name a node by its inner address.
    for policy in POLICIES {
        assert!(
            !judge
                .permission(&policy(), addr("172.20.0.7"))
                .is_admitted()
        );
    }
}

#[test]
fn own_and_fleet_relayed_addresses_are_no_clients() {
    let judge = judge();
    for (source, relay) in [
        ("198.41.0.1:20000", true),
        ("198.41.0.1:3478", false),
        ("[2606:4700::1]:29999", true),
        ("198.41.7.1:40000", true),
        ("198.41.7.1:39999", false),
        ("172.20.0.7:50001", true),
        ("172.20.0.7:49999", false),
        ("8.8.8.8:20000", false),
        ("10.0.0.5:20000", false),
    ] {
        assert_eq!(
            judge.is_relay_source(source.parse().unwrap()),
            relay,
            "{source}"
        );
    }
}
