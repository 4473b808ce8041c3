use super::*;

mod embedded;
mod own;
mod properties;
mod ranges;

const POLICIES: [fn() -> PeerPolicy; 4] = [
    || PeerPolicy::Relay,
    || PeerPolicy::Call,
    || PeerPolicy::Networks(nets(&["198.41.0.0/16", "2606:4700::/32"])),
    || PeerPolicy::Any,
];

/// T1
#[test]
fn loopback_and_this_network_are_refused_under_every_policy() {
    let judge = judge();
    for ip in [
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
    ] {
        refused_everywhere(&judge, ip);
    }
}

/// T1
#[test]
fn networks_alone_do_not_open_loopback() {
    let all = PeerPolicy::Networks(nets(&["0.0.0.0/0", "::/0"]));
    for ip in ["127.0.0.1", "127.8.8.8", "::1"] {
        assert_eq!(
            judge().permission(&all, addr(ip)),
            refused(Refusal::OwnAddress),
            "{ip}"
        );
    }
}

/// T11
#[test]
fn multicast_broadcast_and_unspecified_are_refused_even_when_allowed() {
    let judge = PeerJudge::new(PeerRules {
        allow: nets(&["0.0.0.0/0", "::/0"]),
        ..rules()
    });
    let listed = || PeerPolicy::Networks(nets(&["0.0.0.0/0", "::/0"]));
    for ip in [
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "0.0.0.0",
        "::",
        "ff02::1",
        "ff0e::1",
        "64:ff9b::224.0.0.1",
        "2002:e000:1::1",
        "::ffff:255.255.255.255",
    ] {
        refused_everywhere(&judge, ip);
        let verdict = judge.permission(&listed(), addr(ip));
        assert_eq!(verdict, refused(Refusal::NotUnicast), "{ip}");
    }
}

/// T12
#[test]
fn relay_policies_refuse_every_peer_that_is_no_relay() {
    let judge = PeerJudge::new(PeerRules {
        allow: nets(&["0.0.0.0/0", "::/0"]),
        ..rules()
    });
    for policy in [PeerPolicy::Relay, PeerPolicy::Call] {
        for ip in [
            "8.8.8.8",
            "192.168.1.1",
            "2a00:1::1",
            "198.41.0.2",
            "10.0.0.5",
            "127.0.0.1",
        ] {
            assert_eq!(
                judge.permission(&policy, addr(ip)),
                refused(Refusal::Policy),
                "{ip}"
            );
            assert_eq!(
                judge.peer(&policy, at(ip)),
                refused(Refusal::Policy),
                "{ip}"
            );
        }
    }
}

/// T30
#[test]
fn port_0_is_no_peer() {
    for policy in POLICIES {
        for ip in ["198.41.0.1", "198.41.7.1", "8.8.8.8"] {
            let verdict = judge().peer(&policy(), SocketAddr::new(addr(ip), 0));
            assert_eq!(verdict, refused(Refusal::PortZero), "{ip}");
        }
    }
}

#[test]
fn allow_spares_the_registry_but_widens_no_list_of_networks() {
    let judge = PeerJudge::new(PeerRules {
        allow: nets(&["192.168.5.0/24"]),
        ..rules()
    });
    let networks = POLICIES[2]();
    assert_eq!(
        judge.permission(&PeerPolicy::Any, addr("192.168.5.1")),
        Verdict::Foreign
    );
    let outside = judge.permission(&PeerPolicy::Any, addr("192.168.6.1"));
    assert_eq!(outside, refused(Refusal::Registry));
    assert_eq!(
        judge.permission(&networks, addr("192.168.5.1")),
        refused(Refusal::Policy)
    );
}

#[test]
fn deny_wins_over_allow_and_over_listed_networks() {
    let judge = PeerJudge::new(PeerRules {
        allow: nets(&["192.168.0.0/16"]),
        deny: nets(&["192.168.1.0/24", "198.41.3.0/24"]),
        ..rules()
    });
    let denied = refused(Refusal::Denied);
    assert_eq!(
        judge.permission(&PeerPolicy::Any, addr("192.168.1.1")),
        denied
    );
    assert_eq!(judge.permission(&POLICIES[2](), addr("198.41.3.1")), denied);
}

#[test]
fn listed_networks_open_what_the_registry_would_refuse() {
    let policy = PeerPolicy::Networks(nets(&["10.7.0.0/16", "64:ff9b::/96"]));
    let judge = judge();
    assert_eq!(
        judge.permission(&policy, addr("10.7.1.1")),
        Verdict::Foreign
    );
    assert_eq!(
        judge.permission(&policy, addr("10.8.1.1")),
        refused(Refusal::Policy)
    );
    assert_eq!(
        judge.permission(&policy, addr("64:ff9b::8.8.8.8")),
        Verdict::Foreign
    );
    assert_eq!(
        judge.permission(&policy, addr("64:ff9b::10.7.1.1")),
        Verdict::Foreign
    );
    assert_eq!(
        judge.permission(&policy, addr("64:ff9b::10.8.1.1")),
        refused(Refusal::Registry)
    );
}

#[test]
fn only_open_policies_need_a_socket_at_allocate() {
    let open: Vec<bool> = POLICIES
        .iter()
        .map(|policy| policy().opens_at_allocate())
        .collect();
    assert_eq!(open, [false, false, true, true]);
}

#[test]
fn labels_are_distinct() {
    let labels: std::collections::HashSet<_> = Refusal::ALL.iter().map(|r| r.label()).collect();
    assert_eq!(labels.len(), Refusal::ALL.len());
}

fn rules() -> PeerRules {
    let node = |ip, seen_as: Option<&str>, ports| FleetNode {
        addr: addr(ip),
        seen_as: seen_as.map(addr),
        ports,
    };
    PeerRules {
        relay: RelayRange {
            addresses: vec![addr("198.41.0.1"), addr("2606:4700::1")],
            ports: 20_000..=29_999,
        },
        own_sockets: Vec::new(),
        own_senders: Vec::new(),
        own_addresses: vec![addr("10.0.0.5"), addr("2a00:5::5")],
        fleet: vec![
            node("198.41.7.2", Some("172.20.0.7"), 50_000..=50_999),
            node("198.41.7.1", None, 40_000..=40_999),
            node("198.41.7.2", Some("172.20.0.7"), 60_000..=60_999),
            node("192.168.9.9", None, 40_000..=40_999),
        ],
        allow: Vec::new(),
        deny: Vec::new(),
    }
}

fn judge() -> PeerJudge {
    PeerJudge::new(rules())
}

fn addr(ip: &str) -> IpAddr {
    ip.parse().unwrap()
}

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(addr(ip), 4000)
}

fn nets(networks: &[&str]) -> Vec<IpNet> {
    networks.iter().map(|n| n.parse().unwrap()).collect()
}

const fn refused(refusal: Refusal) -> Verdict {
    Verdict::Refused(refusal)
}

fn refused_everywhere(judge: &PeerJudge, ip: &str) {
    for policy in POLICIES {
        let policy = policy();
        assert!(
            !judge.permission(&policy, addr(ip)).is_admitted(),
            "{ip} under {policy:?}"
        );
        assert!(
            !judge.peer(&policy, at(ip)).is_admitted(),
            "{ip} under {policy:?}"
        );
    }
}
