//! The ranges that are open to no peer by default.

use super::*;

/// T4
#[test]
fn metadata_services_are_refused_under_every_policy() {
    for ip in [
        "169.254.169.254",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "169.254.170.2",
    ] {
        refused_everywhere(&judge(), ip);
        assert_eq!(
            registry::find(addr(ip)).unwrap().name,
            "metadata service",
            "{ip}"
        );
    }
}

/// T5
#[test]
fn the_narrowest_row_explains_a_refusal() {
    for (ip, network, document) in [
        ("10.1.2.3", "10.0.0.0/8", "RFC 1918"),
        ("192.0.0.9", "192.0.0.9/32", "RFC 7723"),
        ("192.0.0.3", "192.0.0.0/29", "RFC 7335"),
        ("192.0.0.99", "192.0.0.0/24", "RFC 6890 §2.1"),
        ("2001:20::1", "2001:20::/28", "RFC 7343"),
        ("2001:1ff::1", "2001::/23", "RFC 2928"),
        ("3fff:fff::1", "3fff::/20", "RFC 9637"),
        ("200::1", "::/3", "RFC 4291 §2.4"),
    ] {
        let row = registry::find(addr(ip)).unwrap();
        assert_eq!(
            (row.network, row.document),
            (network.parse().unwrap(), document),
            "{ip}"
        );
    }
    for ip in [
        "8.8.8.8",
        "172.32.0.0",
        "100.128.0.0",
        "2a00::1",
        "2001:200::",
        "3fff:1000::",
    ] {
        assert_eq!(registry::find(addr(ip)), None, "{ip}");
    }
}

/// T5: the ranges of the registries up to RFC 9780, without rows of our own.
#[test]
fn the_registry_holds_every_range_of_iana() {
    for network in "0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 \
        192.0.0.0/24 192.0.0.0/29 192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 \
        192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.88.99.2/32 192.168.0.0/16 \
        192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32 \
        ::1/128 ::/128 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 \
        2001:1::1/128 2001:1::2/128 2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 \
        2001:20::/28 2001:30::/28 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10"
        .split_whitespace()
        .map(|network| network.parse::<IpNet>().unwrap())
    {
        assert!(registry::rows().any(|row| row.network == network), "{network}");
        for ip in [network.network(), network.broadcast()] {
            refused_everywhere(&judge(), &ip.to_string());
        }
    }
}

#[test]
fn no_row_has_host_bits_or_stands_twice() {
    let mut seen = std::collections::HashSet::new();
    for row in registry::rows() {
        assert_eq!(row.network, row.network.trunc());
        assert!(seen.insert(row.network), "{}", row.network);
    }
}
