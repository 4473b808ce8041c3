//! Ranges of addresses, `a-b`, and the networks that make them up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// From one address to another of the same family, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    is_ipv4: bool,
    first: u128,
    last: u128,
}

impl Range {
    /// `a-b`, `a`, or `a/length`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(network) = text.parse::<IpNet>() {
            return Self::new(network.network(), network.broadcast());
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(first.trim().parse().ok()?, last.trim().parse().ok()?)
    }

    fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let range = Self {
            is_ipv4: first.is_ipv4(),
            first: number(first),
            last: number(last),
        };
        (first.is_ipv4() == last.is_ipv4() && range.first <= range.last).then_some(range)
    }

    /// What is left of it without `other`.
    fn minus(self, other: &Self) -> Vec<Self> {
        if self.is_ipv4 != other.is_ipv4 || other.last < self.first || self.last < other.first {
            return vec![self];
        }
        let before = other.first.checked_sub(1).map(|last| Self { last, ..self });
        let after = other
            .last
            .checked_add(1)
            .map(|first| Self { first, ..self });
        let parts = before.into_iter().chain(after);
        parts.filter(|part| part.first <= part.last).collect()
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// What is left of `ranges` without `others`.
pub(super) fn without(ranges: Vec<Range>, others: &[Range]) -> Vec<Range> {
    others.iter().fold(ranges, |ranges, other| {
        ranges
            .into_iter()
            .flat_map(|range| range.minus(other))
            .collect()
    })
}

/// The fewest networks that make up each range, each once.
pub(super) fn networks(ranges: &[Range]) -> Vec<String> {
    let mut networks: Vec<String> = Vec::new();
    for range in ranges {
        let parts: Vec<String> = if range.is_ipv4 {
            let ip = |number| Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX));
            Ipv4Subnets::new(ip(range.first), ip(range.last), 0)
                .map(|network| network.to_string())
                .collect()
        } else {
            let ip = Ipv6Addr::from;
            Ipv6Subnets::new(ip(range.first), ip(range.last), 0)
                .map(|network| network.to_string())
                .collect()
        };
        for part in parts {
            if !networks.contains(&part) {
                networks.push(part);
            }
        }
    }
    networks
}
