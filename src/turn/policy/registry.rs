//! Address ranges that are no place for a stranger's packets.
//!
//! The complete IANA special-purpose registries for IPv4 and IPv6 (RFC 6890, RFC 8190), reachable entries included,
//! and besides them multicast, deprecated and unassigned space, and the metadata services of clouds.
//! IPv6 is open only inside `2000::/3`: outside it live overlay networks such as `200::/7` and nothing public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range with its name and the document that says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The range.
    pub network: IpNet,
    /// What it is for, in the registry's words where there are any.
    pub name: &'static str,
    /// The RFC, or whose manual.
    pub document: &'static str,
}

/// The narrowest range that contains `ip`.
#[must_use]
pub fn find(ip: IpAddr) -> Option<&'static Row> {
    rows_of(ip)
        .iter()
        .filter(|row| row.network.contains(&ip))
        .max_by_key(|row| row.network.prefix_len())
}

/// Whether any range contains `ip`.
#[must_use]
pub fn contains(ip: IpAddr) -> bool {
    rows_of(ip).iter().any(|row| row.network.contains(&ip))
}

/// All rows, IPv4 first.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    V4.iter().chain(V6)
}

const fn rows_of(ip: IpAddr) -> &'static [Row] {
    match ip {
        IpAddr::V4(_) => V4,
        IpAddr::V6(_) => V6,
    }
}

const fn v4(ip: [u8; 4], prefix_len: u8, name: &'static str, document: &'static str) -> Row {
    let [a, b, c, d] = ip;
    Row {
        network: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix_len)),
        name,
        document,
    }
}

const fn v6(ip: u128, prefix_len: u8, name: &'static str, document: &'static str) -> Row {
    Row {
        network: IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(ip), prefix_len)),
        name,
        document,
    }
}

#[rustfmt::skip] // one row a line, as in the registry
const V4: &[Row] = &[
    v4([0, 0, 0, 0], 8, "\"This network\"", "RFC 791 §3.2"),
    v4([0, 0, 0, 0], 32, "\"This host on this network\"", "RFC 1122 §3.2.1.3"),
    v4([10, 0, 0, 0], 8, "Private-Use", "RFC 1918"),
    v4([100, 64, 0, 0], 10, "Shared Address Space", "RFC 6598"),
    v4([100, 100, 100, 200], 32, "metadata service", "Alibaba Cloud"),
    v4([127, 0, 0, 0], 8, "Loopback", "RFC 1122 §3.2.1.3"),
    v4([168, 63, 129, 16], 32, "metadata service", "Microsoft Azure"),
    v4([169, 254, 0, 0], 16, "Link Local", "RFC 3927"),
    v4([169, 254, 169, 254], 32, "metadata service", "AWS, Google Cloud, Azure, OpenStack and others"),
    v4([169, 254, 170, 2], 32, "metadata service", "AWS ECS"),
    v4([172, 16, 0, 0], 12, "Private-Use", "RFC 1918"),
    v4([192, 0, 0, 0], 24, "IETF Protocol Assignments", "RFC 6890 §2.1"),
    v4([192, 0, 0, 0], 29, "IPv4 Service Continuity Prefix", "RFC 7335"),
    v4([192, 0, 0, 8], 32, "IPv4 dummy address", "RFC 7600"),
    v4([192, 0, 0, 9], 32, "Port Control Protocol Anycast", "RFC 7723"),
    v4([192, 0, 0, 10], 32, "Traversal Using Relays around NAT Anycast", "RFC 8155"),
    v4([192, 0, 0, 170], 32, "NAT64/DNS64 Discovery", "RFC 8880, RFC 7050 §2.2"),
    v4([192, 0, 0, 171], 32, "NAT64/DNS64 Discovery", "RFC 8880, RFC 7050 §2.2"),
    v4([192, 0, 0, 192], 32, "metadata service", "Oracle Cloud"),
    v4([192, 0, 2, 0], 24, "Documentation (TEST-NET-1)", "RFC 5737"),
    v4([192, 31, 196, 0], 24, "AS112-v4", "RFC 7535"),
    v4([192, 52, 193, 0], 24, "AMT", "RFC 7450"),
    v4([192, 88, 99, 0], 24, "Deprecated (6to4 Relay Anycast)", "RFC 7526"),
    v4([192, 88, 99, 2], 32, "6a44-relay anycast address", "RFC 6751"),
    v4([192, 168, 0, 0], 16, "Private-Use", "RFC 1918"),
    v4([192, 175, 48, 0], 24, "Direct Delegation AS112 Service", "RFC 7534"),
    v4([198, 18, 0, 0], 15, "Benchmarking", "RFC 2544"),
    v4([198, 51, 100, 0], 24, "Documentation (TEST-NET-2)", "RFC 5737"),
    v4([203, 0, 113, 0], 24, "Documentation (TEST-NET-3)", "RFC 5737"),
    v4([224, 0, 0, 0], 4, "Multicast", "RFC 5771"),
    v4([240, 0, 0, 0], 4, "Reserved", "RFC 1112 §4"),
    v4([255, 255, 255, 255], 32, "Limited Broadcast", "RFC 8190, RFC 919 §7"),
];

#[rustfmt::skip] // one row a line, as in the registry
const V6: &[Row] = &[
    v6(0x0000_0000_0000_0000_0000_0000_0000_0000, 3, "Reserved by IETF", "RFC 4291 §2.4"),
    v6(0x0000_0000_0000_0000_0000_0000_0000_0000, 96, "IPv4-compatible address", "RFC 4291 §2.5.5.1"),
    v6(0x0000_0000_0000_0000_0000_0000_0000_0000, 128, "Unspecified Address", "RFC 4291 §2.5.2"),
    v6(0x0000_0000_0000_0000_0000_0000_0000_0001, 128, "Loopback Address", "RFC 4291 §2.5.3"),
    v6(0x0000_0000_0000_0000_0000_ffff_0000_0000, 96, "IPv4-mapped Address", "RFC 4291 §2.5.5.2"),
    v6(0x0000_0000_0000_0000_ffff_0000_0000_0000, 96, "IPv4-translated address", "RFC 2765 §2.1"),
    v6(0x0064_ff9b_0000_0000_0000_0000_0000_0000, 96, "IPv4-IPv6 Translation", "RFC 6052"),
    v6(0x0064_ff9b_0001_0000_0000_0000_0000_0000, 48, "IPv4-IPv6 Translation", "RFC 8215"),
    v6(0x0100_0000_0000_0000_0000_0000_0000_0000, 64, "Discard-Only Address Block", "RFC 6666"),
    v6(0x0100_0000_0000_0001_0000_0000_0000_0000, 64, "Dummy IPv6 Prefix", "RFC 9780"),
    v6(0x2001_0000_0000_0000_0000_0000_0000_0000, 23, "IETF Protocol Assignments", "RFC 2928"),
    v6(0x2001_0000_0000_0000_0000_0000_0000_0000, 32, "TEREDO", "RFC 4380, RFC 8190"),
    v6(0x2001_0001_0000_0000_0000_0000_0000_0001, 128, "Port Control Protocol Anycast", "RFC 7723"),
    v6(0x2001_0001_0000_0000_0000_0000_0000_0002, 128, "Traversal Using Relays around NAT Anycast", "RFC 8155"),
    v6(0x2001_0001_0000_0000_0000_0000_0000_0003, 128, "DNS-SD Service Registration Protocol Anycast", "RFC 9665"),
    v6(0x2001_0002_0000_0000_0000_0000_0000_0000, 48, "Benchmarking", "RFC 5180"),
    v6(0x2001_0003_0000_0000_0000_0000_0000_0000, 32, "AMT", "RFC 7450"),
    v6(0x2001_0004_0112_0000_0000_0000_0000_0000, 48, "AS112-v6", "RFC 7535"),
    v6(0x2001_0010_0000_0000_0000_0000_0000_0000, 28, "Deprecated (previously ORCHID)", "RFC 4843"),
    v6(0x2001_0020_0000_0000_0000_0000_0000_0000, 28, "ORCHIDv2", "RFC 7343"),
    v6(0x2001_0030_0000_0000_0000_0000_0000_0000, 28, "Drone Remote ID Protocol Entity Tags", "RFC 9374"),
    v6(0x2001_0db8_0000_0000_0000_0000_0000_0000, 32, "Documentation", "RFC 3849"),
    v6(0x2002_0000_0000_0000_0000_0000_0000_0000, 16, "6to4", "RFC 3056"),
    v6(0x2620_004f_8000_0000_0000_0000_0000_0000, 48, "Direct Delegation AS112 Service", "RFC 7534"),
    v6(0x3fff_0000_0000_0000_0000_0000_0000_0000, 20, "Documentation", "RFC 9637"),
    v6(0x4000_0000_0000_0000_0000_0000_0000_0000, 2, "Reserved by IETF", "RFC 4291 §2.4"),
    v6(0x5f00_0000_0000_0000_0000_0000_0000_0000, 16, "Segment Routing (SRv6) SIDs", "RFC 9602"),
    v6(0x8000_0000_0000_0000_0000_0000_0000_0000, 1, "Reserved by IETF", "RFC 4291 §2.4"),
    v6(0xfc00_0000_0000_0000_0000_0000_0000_0000, 7, "Unique-Local", "RFC 4193, RFC 8190"),
    v6(0xfd00_0ec2_0000_0000_0000_0000_0000_0254, 128, "metadata service", "AWS"),
    v6(0xfd20_00ce_0000_0000_0000_0000_0000_0254, 128, "metadata service", "Google Cloud"),
    v6(0xfe80_0000_0000_0000_0000_0000_0000_0000, 10, "Link-Local Unicast", "RFC 4291 §2.5.6"),
    v6(0xfec0_0000_0000_0000_0000_0000_0000_0000, 10, "Deprecated (Site-Local Unicast)", "RFC 3879"),
    v6(0xff00_0000_0000_0000_0000_0000_0000_0000, 8, "Multicast", "RFC 4291 §2.7"),
];
