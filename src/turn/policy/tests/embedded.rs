//! IPv4 addresses inside IPv6 addresses.

use super::*;

/// T2
#[test]
fn mapped_addresses_are_refused_under_every_policy() {
    let judge = judge();
    for ip in [
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
    ] {
        refused_everywhere(&judge, ip);
    }
}

/// T2
#[test]
fn mapped_addresses_stay_refused_when_their_range_is_allowed() {
    let rules = PeerRules {
        allow: nets(&["::ffff:0:0/96"]),
        ..rules()
    };
    let judge = PeerJudge::new(rules);
    for (ip, verdict) in [
        ("::ffff:127.0.0.1", refused(Refusal::Disguised)),
        ("::ffff:0.0.0.0", refused(Refusal::NotUnicast)),
        ("::ffff:169.254.169.254", refused(Refusal::Registry)),
        ("::ffff:10.0.0.1", refused(Refusal::Registry)),
        ("::ffff:8.8.8.8", Verdict::Foreign),
    ] {
        assert_eq!(
            judge.permission(&PeerPolicy::Any, addr(ip)),
            verdict,
            "{ip}"
        );
    }
}

/// T3
#[test]
fn every_embedding_is_judged_by_the_ipv4_address_inside() {
    // All of IPv6 is allowed, so that only what is inside can refuse.
    let judge = PeerJudge::new(PeerRules {
        allow: nets(&["::/0"]),
        ..rules()
    });
    for [inside, outside] in [
        ["::10.0.0.1", "::8.8.8.8"],
        ["::ffff:0:10.0.0.1", "::ffff:0:8.8.8.8"],
        ["64:ff9b::192.168.0.1", "64:ff9b::8.8.8.8"],
        ["64:ff9b:1::10.0.0.1", "64:ff9b:1::8.8.8.8"],
        ["64:ff9b:1:a00:0:100::", "64:ff9b:1:808:8:800::"],
        ["64:ff9b:1:c0a8:1:200::", "64:ff9b:1:808:8:800::"],
        ["64:ff9b:1:a:0:1::", "64:ff9b:1:8:8:808::"],
        ["64:ff9b:1:0:a:0:100:0", "64:ff9b:1:0:8:808:800:0"],
        ["2002:a00:1::1", "2002:808:808::1"],
        // Teredo: the server in the clear, the client inverted.
        ["2001:0:a00:1:0:0:f7f7:f7f7", "2001:0:808:808:0:0:f7f7:f7f7"],
        [
            "2001:0:808:808:0:0:f5ff:fffe",
            "2001:0:808:808:0:0:f7f7:f7f7",
        ],
        ["2a00:1:2:3:0:5efe:10.0.0.1", "2a00:1:2:3:0:5efe:8.8.8.8"],
        [
            "2a00:1:2:3:200:5efe:10.0.0.1",
            "2a00:1:2:3:200:5efe:8.8.8.8",
        ],
        // ISATAP inside 6to4: both addresses count.
        [
            "2002:808:808:1:0:5efe:10.0.0.1",
            "2002:808:808:1:0:5efe:8.8.8.8",
        ],
    ] {
        let any = PeerPolicy::Any;
        assert_eq!(
            judge.permission(&any, addr(inside)),
            refused(Refusal::Registry),
            "{inside}"
        );
        assert_eq!(
            judge.peer(&any, at(inside)),
            refused(Refusal::Registry),
            "{inside}"
        );
        assert_eq!(
            judge.permission(&any, addr(outside)),
            Verdict::Foreign,
            "{outside}"
        );
    }
}

/// T3
#[test]
fn every_embedding_is_refused_by_default() {
    for ip in [
        "::8.8.8.8",
        "::ffff:8.8.8.8",
        "::ffff:0:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::8.8.8.8",
        "2002:808:808::1",
        "2001:0:808:808:0:0:f7f7:f7f7",
        "2a00:1:2:3:0:5efe:10.0.0.1",
    ] {
        refused_everywhere(&judge(), ip);
    }
}

/// T3
#[test]
fn a_denied_ipv4_address_is_denied_in_every_disguise() {
    let judge = PeerJudge::new(PeerRules {
        allow: nets(&["::/0"]),
        deny: nets(&["8.8.8.0/24", "::ffff:9.9.9.0/120"]),
        ..rules()
    });
    for ip in [
        "8.8.8.8",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "9.9.9.9",
        "::ffff:9.9.9.9",
        "64:ff9b::9.9.9.9",
    ] {
        for policy in POLICIES {
            let verdict = judge.permission(&policy(), addr(ip));
            assert_eq!(verdict, refused(Refusal::Denied), "{ip}");
        }
    }
    assert_eq!(
        judge.permission(&PeerPolicy::Any, addr("64:ff9b::8.8.4.4")),
        Verdict::Foreign
    );
}

/// T7
#[test]
fn own_and_fleet_addresses_in_disguise_are_refused_even_if_allowed() {
    let judge = PeerJudge::new(PeerRules {
        allow: nets(&["0.0.0.0/0", "::/0"]),
        ..rules()
    });
    for ip in [
        "::ffff:198.41.0.1",
        "64:ff9b::198.41.0.1",
        "2002:c629:1::1",
        "64:ff9b::10.0.0.5",
        "64:ff9b::127.0.0.1",
        "64:ff9b::198.41.7.2",
        "2a00::5efe:198.41.0.1",
    ] {
        let verdict = judge.permission(&PeerPolicy::Any, addr(ip));
        assert_eq!(verdict, refused(Refusal::Disguised), "{ip}");
        let with_port = judge.peer(&PeerPolicy::Any, SocketAddr::new(addr(ip), 20_000));
        assert_eq!(with_port, refused(Refusal::Disguised), "{ip}");
        for policy in [PeerPolicy::Relay, PeerPolicy::Call] {
            assert_eq!(
                judge.permission(&policy, addr(ip)),
                refused(Refusal::Policy),
                "{ip}"
            );
        }
    }
}
