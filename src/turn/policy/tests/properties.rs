//! What holds for any address, held against arithmetic on big integers.

use proptest::prelude::*;

use super::*;

proptest! {
    /// T5
    #[test]
    fn membership_equals_comparison_of_big_integers(row in any_row(), ip in any_ip(), near in -2_i128..=2, end: bool) {
        let (first, last) = ends(row.network);
        let edge = if end { last } else { first };
        let beside = like(row.network, edge.wrapping_add_signed(near));
        for ip in [ip, beside] {
            let expected = registry::rows().any(|row| holds(row.network, ip));
            prop_assert_eq!(registry::contains(ip), expected, "{}", ip);
            prop_assert_eq!(registry::find(ip).is_some(), expected, "{}", ip);
            if let Some(row) = registry::find(ip) {
                prop_assert!(holds(row.network, ip), "{}", ip);
            }
            prop_assert_eq!(row.network.contains(&ip), holds(row.network, ip), "{} in {}", ip, row.network);
        }
    }

    /// T12
    #[test]
    fn a_closer_policy_only_narrows(ip in any_ip(), port: u16, networks in any_networks()) {
        let judge = judge();
        prop_assume!(!registry::contains(ip));
        let peer = SocketAddr::new(ip, port);
        let networks = PeerPolicy::Networks(networks);
        let policies = [PeerPolicy::Call, PeerPolicy::Relay, networks, PeerPolicy::Any];
        let permitted = policies.each_ref().map(|policy| judge.permission(policy, ip).is_admitted());
        let reached = policies.each_ref().map(|policy| judge.peer(policy, peer).is_admitted());
        for admitted in [permitted, reached] {
            prop_assert!(admitted.is_sorted(), "{}: {:?}", peer, admitted);
        }
    }

    /// T12: whatever is claimed, nobody is reached whom the ceiling alone would not admit.
    #[test]
    fn a_claimed_policy_never_goes_beyond_the_ceiling(
        ip in any_ip(), port: u16, claimed in any_policy(), ceiling in any_policy(),
    ) {
        let judge = PeerJudge::new(PeerRules { allow: nets(&["192.168.5.0/24"]), ..rules() });
        let peer = SocketAddr::new(ip, port);
        let left = claimed.narrowed(&ceiling);
        let mut bounds = vec![&ceiling];
        // What the operator lists is open to whoever may reach everybody.
        if claimed != PeerPolicy::Any {
            bounds.push(&claimed);
        }
        for bound in bounds {
            if judge.permission(&left, ip).is_admitted() {
                prop_assert!(judge.permission(bound, ip).is_admitted(), "{:?} lets {} through", left, ip);
            }
            if judge.peer(&left, peer).is_admitted() {
                prop_assert!(judge.peer(bound, peer).is_admitted(), "{:?} lets {} through", left, peer);
            }
        }
        prop_assert!(left.is_within(&ceiling), "{:?} under {:?}", left, ceiling);
        if claimed.is_within(&ceiling) {
            // Then nothing is taken from it that both admit.
            let admitted = [&claimed, &ceiling].map(|policy| judge.peer(policy, peer).is_admitted());
            prop_assert_eq!(judge.peer(&left, peer).is_admitted(), admitted == [true; 2], "{}", peer);
        }
    }

    /// T12
    #[test]
    fn relay_policies_admit_exactly_the_relays(ip in any_ip(), port: u16) {
        let judge = PeerJudge::new(PeerRules { allow: nets(&["0.0.0.0/0", "::/0"]), ..rules() });
        let peer = SocketAddr::new(ip, port);
        let is_relay = port != 0 && judge.is_relay_source(peer) && judge.named(peer) == peer;
        prop_assert_eq!(judge.peer(&PeerPolicy::Relay, peer).is_admitted(), is_relay, "{}", peer);
        let is_own = judge.peer(&PeerPolicy::Relay, peer) == Verdict::OwnRelay;
        prop_assert_eq!(judge.peer(&PeerPolicy::Call, peer).is_admitted(), is_own, "{}", peer);
    }

    #[test]
    fn a_peer_with_a_port_is_never_admitted_without_its_permission(ip in any_ip(), port: u16) {
        let judge = judge();
        for policy in POLICIES {
            let policy = policy();
            if judge.peer(&policy, SocketAddr::new(ip, port)).is_admitted() {
                prop_assert!(judge.permission(&policy, ip).is_admitted(), "{}:{}", ip, port);
            }
        }
    }

    /// T3
    #[test]
    fn any_private_address_stays_refused_in_any_disguise(
        private in prop_oneof![net("10.0.0.0/8"), net("192.168.0.0/16"), net("127.0.0.0/8"), net("169.254.0.0/16")],
        noise: u128,
    ) {
        let judge = PeerJudge::new(PeerRules { allow: nets(&["::/0"]), ..rules() });
        for disguise in disguises(private, noise) {
            let verdict = judge.permission(&PeerPolicy::Any, disguise.into());
            prop_assert!(!verdict.is_admitted(), "{} hides {}", disguise, private);
        }
    }
}

/// First and last address of a network by arithmetic alone.
fn ends(network: IpNet) -> (u128, u128) {
    let (first, width) = match network.addr() {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let size = 1_u128.checked_shl(width - u32::from(network.prefix_len()));
    (first, first + size.map_or(u128::MAX, |size| size - 1))
}

fn holds(network: IpNet, ip: IpAddr) -> bool {
    let (first, last) = ends(network);
    match (network, ip) {
        (IpNet::V4(_), IpAddr::V4(ip)) => (first..=last).contains(&u128::from(ip.to_bits())),
        (IpNet::V6(_), IpAddr::V6(ip)) => (first..=last).contains(&ip.to_bits()),
        (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => false,
    }
}

fn like(network: IpNet, bits: u128) -> IpAddr {
    match network {
        IpNet::V4(_) => {
            let [.., a, b, c, d] = bits.to_be_bytes();
            Ipv4Addr::new(a, b, c, d).into()
        }
        IpNet::V6(_) => std::net::Ipv6Addr::from_bits(bits).into(),
    }
}

fn any_row() -> impl Strategy<Value = &'static registry::Row> {
    prop::sample::select(registry::rows().collect::<Vec<_>>())
}

/// Addresses of every kind, those in the rules often enough to matter.
fn any_ip() -> impl Strategy<Value = IpAddr> {
    let known = [
        "198.41.0.1",
        "2606:4700::1",
        "10.0.0.5",
        "2a00:5::5",
        "198.41.7.1",
        "198.41.7.2",
        "192.168.9.9",
        "198.41.9.9",
        "2606:4700::9",
        "8.8.8.8",
        "172.20.0.7",
    ];
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        any::<u128>().prop_map(|bits| std::net::Ipv6Addr::from_bits(bits).into()),
        (any::<u128>()).prop_map(|bits| std::net::Ipv6Addr::from_bits(bits >> 3 | 1 << 125).into()),
        prop::sample::select(known.map(addr).to_vec()),
        (any_row(), any::<u128>()).prop_map(|(row, noise)| {
            let (first, last) = ends(row.network);
            like(row.network, first | (noise & (last - first)))
        }),
    ]
}

fn any_networks() -> impl Strategy<Value = Vec<IpNet>> {
    prop::collection::vec(
        (any_ip(), 0_u8..=32).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap()),
        0..4,
    )
}

fn any_policy() -> impl Strategy<Value = PeerPolicy> {
    let listed = prop_oneof![
        any_networks(),
        prop::sample::subsequence(
            nets(&[
                "10.0.0.0/8",
                "10.7.0.0/16",
                "8.0.0.0/8",
                "192.168.0.0/16",
                "::/0"
            ]),
            1..4,
        ),
    ];
    prop_oneof![
        Just(PeerPolicy::Call),
        Just(PeerPolicy::Relay),
        listed.prop_map(PeerPolicy::Networks),
        Just(PeerPolicy::Any),
    ]
}

fn net(network: &str) -> impl Strategy<Value = Ipv4Addr> + use<> {
    let (first, last) = ends(network.parse().unwrap());
    (first..=last).prop_map(|bits| Ipv4Addr::from_bits(bits.try_into().unwrap()))
}

/// `inside` in every form, written by RFC rather than by the code under test; `noise` fills what is free.
fn disguises(inside: Ipv4Addr, noise: u128) -> Vec<std::net::Ipv6Addr> {
    let v4 = u128::from(inside.to_bits());
    let (head, tail) = (v4 >> 16, v4 & 0xffff);
    let mut forms = vec![
        v4,
        0xffff << 32 | v4,
        0xffff << 48 | v4,
        0x64_ff9b << 96 | v4,
        0x64_ff9b_0001 << 80 | (noise & 0xffff_ffff_ffff) << 32 | v4,
        // RFC 6052 §2.2: the octet in bits 64 to 71 is skipped.
        0x64_ff9b_0001 << 80 | head << 64 | tail << 40 | noise & 0xff_ffff_ffff,
        0x64_ff9b_0001 << 80 | v4 >> 24 << 64 | (v4 & 0xff_ffff) << 32 | noise & 0xffff_ffff,
        0x64_ff9b_0001 << 80 | v4 << 24 | noise & 0xff_ffff,
        0x2002 << 112 | v4 << 80 | noise & ((1 << 80) - 1),
        0x2001 << 112 | v4 << 64 | noise & u128::from(u64::MAX),
        0x2001 << 112 | (noise & 0xffff_ffff) << 64 | v4 ^ 0xffff_ffff,
    ];
    for flags in [0, 0x100, 0x200, 0x300] {
        forms.push(noise >> 64 << 64 | flags << 48 | 0x5efe << 32 | v4);
    }
    forms
        .into_iter()
        .map(std::net::Ipv6Addr::from_bits)
        .collect()
}
