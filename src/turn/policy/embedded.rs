//! IPv4 addresses hidden in IPv6 ones, in every form a translator, tunnel or kernel may undo.
//!
//! An address may be read in several ways at once (ISATAP inside 6to4, a NAT64 prefix of unknown length);
//! all readings are yielded, and whoever judges takes the strictest. Prefixes that an operator chose for NAT64 or 6rd
//! cannot be told from other addresses: they belong on the deny list (RFC 6052 §5.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// The IPv4 addresses that `ip` hides; none for IPv4 itself.
pub(super) fn hidden(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let readings = match ip {
        IpAddr::V4(_) => [None; 8],
        IpAddr::V6(ip) => readings(ip),
    };
    readings.into_iter().flatten().map(IpAddr::V4)
}

fn readings(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 8] {
    let [local_48, local_56, local_64, local_96] = local_nat64(ip);
    let (teredo_server, teredo_client) = teredo(ip).unzip();
    [
        in_last_32_bits(ip),
        six_to_four(ip),
        teredo_server,
        teredo_client.or_else(|| isatap(ip)),
        local_48,
        local_56,
        local_64,
        local_96,
    ]
}

/// IPv4-compatible (RFC 4291 §2.5.5.1), IPv4-mapped (§2.5.5.2), IPv4-translated (RFC 2765 §2.1) and the well-known
/// NAT64 prefix (RFC 6052 §2.1).
fn in_last_32_bits(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _]
        | [0, 0, 0, 0, 0xffff, 0, _, _]
        | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(bits(ip, 96)),
        _ => None,
    }
}

/// RFC 3056 §2: the IPv4 address of the site's router follows `2002::/16`.
fn six_to_four(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    (ip.segments()[0] == 0x2002).then(|| bits(ip, 16))
}

/// RFC 4380 §4: the server, and the client's NAT with its bits inverted.
fn teredo(ip: Ipv6Addr) -> Option<(Ipv4Addr, Ipv4Addr)> {
    matches!(ip.segments(), [0x2001, 0, ..]).then(|| {
        let client = Ipv4Addr::from_bits(!bits(ip, 96).to_bits());
        (bits(ip, 32), client)
    })
}

/// RFC 5214 §6.1: under any prefix, an interface identifier `[02]00:5efe` with the IPv4 address behind it.
fn isatap(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, _, _, _, head, tail, _, _] = ip.segments();
    // Both flag bits are ignored, as kernels do.
    (head & !0x0300 == 0 && tail == 0x5efe).then(|| bits(ip, 96))
}

/// RFC 8215: translators of any prefix length of RFC 6052 §2.2 may work inside `64:ff9b:1::/48`.
///
/// The right reading is unknown. Readings in 0.0.0.0/8 are left out, as they are the zeros around the address in
/// another one, unless nothing else remains.
fn local_nat64(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    if !matches!(ip.segments(), [0x64, 0xff9b, 1, ..]) {
        return [None; 4];
    }
    // The octet in bits 64 to 71 belongs to no address.
    let [_, _, _, _, _, _, a, b, _, c, d, e, f, ..] = ip.octets();
    let readings = [
        Ipv4Addr::new(a, b, c, d),
        Ipv4Addr::new(b, c, d, e),
        Ipv4Addr::new(c, d, e, f),
        bits(ip, 96),
    ];
    if readings.iter().all(|reading| reading.octets()[0] == 0) {
        return [Some(Ipv4Addr::UNSPECIFIED), None, None, None];
    }
    readings.map(|reading| (reading.octets()[0] != 0).then_some(reading))
}

/// The 32 bits that follow the first `skip` ones.
fn bits(ip: Ipv6Addr, skip: u32) -> Ipv4Addr {
    let [a, b, c, d, ..] = (ip.to_bits() << skip).to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

/// A network, and if it lies in IPv4-mapped IPv6 also the IPv4 network it means.
pub(super) fn both_forms(network: IpNet) -> impl Iterator<Item = IpNet> {
    let mapped = match network {
        IpNet::V4(_) => None,
        IpNet::V6(network) => network
            .addr()
            .to_ipv4_mapped()
            .zip(network.prefix_len().checked_sub(96))
            .and_then(|(ip, length)| Ipv4Net::new(ip, length).ok())
            .map(IpNet::V4),
    };
    std::iter::once(network).chain(mapped)
}
