//! Texts into values: durations, sizes, rates, ports, addresses, networks.
//!
//! Each returns what is wrong and what would be right, without quoting the text.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;

use super::Rate;

/// What is wrong, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: String,
    pub(super) remedy: String,
}

impl Fault {
    pub(super) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Fault> {
    let remedy = || {
        format!(
            "write a duration such as \"90s\" or \"24h\", from {} to {}",
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end())
        )
    };
    let value =
        humantime::parse_duration(text).map_err(|_| Fault::new("not a duration", remedy()))?;
    if value < *range.start() {
        Err(Fault::new("too short", remedy()))
    } else if value > *range.end() {
        Err(Fault::new("too long", remedy()))
    } else {
        Ok(value)
    }
}

/// The size of a socket buffer.
pub(super) fn buffer(text: &str) -> Result<usize, Fault> {
    const LEAST: u64 = 4 << 10;
    const MOST: u64 = 1 << 30;
    let remedy = "write a size such as \"8MiB\", from 4KiB to 1GiB";
    let size = text
        .parse::<ByteSize>()
        .map_err(|_| Fault::new("not a size", remedy))?;
    match size.as_u64() {
        0..LEAST => Err(Fault::new("too small", remedy)),
        LEAST..=MOST => usize::try_from(size.as_u64()).map_err(|_| Fault::new("too large", remedy)),
        _ => Err(Fault::new("too large", remedy)),
    }
}

/// `4Mbit/s`: whole bits a second.
pub(super) fn bit_rate(text: &str) -> Result<u64, Fault> {
    const LEAST: u64 = 1_000;
    const MOST: u64 = 1_000_000_000_000;
    let remedy = "write a rate such as \"4Mbit/s\", from 1kbit/s to 1000Gbit/s";
    let not_a_rate = || Fault::new("not a rate of bits", remedy);
    let number = text.strip_suffix("bit/s").ok_or_else(not_a_rate)?;
    let (number, unit) = match number.as_bytes().last() {
        Some(b'k') => (&number[..number.len() - 1], 1_000),
        Some(b'M') => (&number[..number.len() - 1], 1_000_000),
        Some(b'G') => (&number[..number.len() - 1], 1_000_000_000),
        _ => (number, 1),
    };
    let is_plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain {
        return Err(not_a_rate());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|bits| (LEAST..=MOST).contains(bits))
        .ok_or_else(|| Fault::new("out of range", remedy))
}

/// `50/s` or `50/s burst 200`; without a burst, one second's worth.
pub(super) fn rate(text: &str) -> Result<Rate, Fault> {
    rate_up_to(text, 1_000_000)
}

/// The same with numbers up to `most`.
pub(super) fn rate_up_to(text: &str, most: u32) -> Result<Rate, Fault> {
    let remedy =
        || format!("write a rate such as \"50/s burst 200\", each number from 1 to {most}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let (rate, burst) = match words.as_slice() {
        [rate] => (*rate, None),
        [rate, "burst", burst] => (*rate, Some(*burst)),
        _ => return Err(Fault::new("not a rate", remedy())),
    };
    let number = |text: &str| match text.parse::<u32>() {
        Ok(n) if (1..=most).contains(&n) => Ok(n),
        Ok(_) => Err(Fault::new("out of range", remedy())),
        Err(_) => Err(Fault::new("not a rate", remedy())),
    };
    let per_second = number(rate.strip_suffix("/s").unwrap_or_default())?;
    let burst = burst.map_or(Ok(per_second), number)?;
    Ok(Rate { per_second, burst })
}

/// `49152-65535`, or one port.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, Fault> {
    let remedy = "write a range such as \"49152-65535\", from 1024 up";
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>();
    let (Ok(first), Ok(last)) = (port(first), port(last)) else {
        return Err(Fault::new("not a range of ports", remedy));
    };
    if first > last {
        Err(Fault::new(
            "the range is empty, its end is below its start",
            remedy,
        ))
    } else if first < 1024 {
        Err(Fault::new(
            "the range reaches below 1024, where system services live",
            remedy,
        ))
    } else {
        Ok(first..=last)
    }
}

/// An address of one host: not a wildcard, multicast or broadcast, and IPv4 written as such.
pub(super) fn host_address(text: &str) -> Result<IpAddr, Fault> {
    let remedy = "write the address of one host, such as \"203.0.113.7\" or \"2001:db8::7\"";
    let address: IpAddr = text
        .parse()
        .map_err(|_| Fault::new("not an IP address", remedy))?;
    if address.is_unspecified() {
        return Err(Fault::new("a wildcard is nobody's address", remedy));
    }
    if address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) {
        return Err(Fault::new(
            "a multicast or broadcast address is nobody's own",
            remedy,
        ));
    }
    unmapped(address)?;
    Ok(address)
}

/// Where a socket listens; the port may be 0, for any free one.
pub(super) fn listener(text: &str) -> Result<SocketAddr, Fault> {
    let remedy = "write an address and a port, such as \"0.0.0.0:3478\" or \"[::]:3478\"";
    let address: SocketAddr = text
        .parse()
        .map_err(|_| Fault::new("not an address with a port", remedy))?;
    if address.ip().is_multicast() {
        return Err(Fault::new(
            "a server cannot listen on a multicast address",
            remedy,
        ));
    }
    unmapped(address.ip())?;
    Ok(address)
}

fn unmapped(address: IpAddr) -> Result<(), Fault> {
    match address.to_canonical() {
        canonical if canonical == address => Ok(()),
        canonical => Err(Fault::new(
            "an IPv4 address in IPv6 clothes",
            format!("write the IPv4 address, {canonical}"),
        )),
    }
}

/// A network, `192.0.2.0/24`, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    let remedy = "write a network such as \"192.0.2.0/24\" or \"2001:db8::/32\", or one address";
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(
            text.parse::<IpAddr>()
                .map_err(|_| Fault::new("not a network", remedy))?,
        ),
    };
    if net.trunc() != net {
        return Err(Fault::new(
            "the address has bits set outside its prefix",
            format!(
                "write {} if the network is meant, or the address alone",
                net.trunc()
            ),
        ));
    }
    // Peers are judged by the IPv4 address that an IPv6 address carries, so a rule about the
    // carrier would never match.
    if let IpAddr::V6(v6) = net.network()
        && v6.to_ipv4_mapped().is_some()
    {
        return Err(Fault::new(
            "IPv4 in IPv6 clothes would never match",
            "write the IPv4 network, such as \"192.0.2.0/24\"",
        ));
    }
    Ok(net)
}
