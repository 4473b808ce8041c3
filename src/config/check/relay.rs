//! Relay addresses, what they are called outside, and their ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Checker, MINUTE, SECOND};
use crate::config::error::{Error, Problem};
use crate::config::file::{self, TextOr};
use crate::config::key::Key;
use crate::config::parse::{self, Fault};
use crate::config::{External, Relay, RelayBind};

impl Checker<'_> {
    pub(super) fn relay(&mut self, typed: &file::Relay) -> Relay {
        let key = |name| Key::new("relay", name);
        let addresses = self.list(&key("addresses"), &typed.addresses, parse::host_address);
        let external = self.external(&typed.external);
        if !typed.addresses.is_empty() {
            for (address, fault) in external_faults(&external, &addresses) {
                let entry = address.and_then(|address| entry_of(&typed.external, address));
                let at = entry.map_or_else(|| key("external"), |e| key("external").entry(&e));
                self.refuse(&at, fault);
            }
        }
        let (auto, always) = (RelayBind::Auto, RelayBind::Always);
        let choices = [("auto", auto), ("always", always)];
        Relay {
            addresses,
            external,
            ports: self.parse(&key("ports"), parse::ports(&typed.ports), 1024..=1024),
            bind: self.choice(&key("bind"), &typed.bind, &choices, auto),
            port_rest: self.duration(&key("port_rest"), &typed.port_rest, SECOND..=MINUTE * 60),
            receive_buffer: {
                let buffer = parse::buffer(&typed.receive_buffer);
                self.parse(&key("receive_buffer"), buffer, 0)
            },
            // RFC 2474 §3: the field has six bits.
            dscp: self.number(&key("dscp"), typed.dscp, 63, 0),
        }
    }

    fn external(&mut self, typed: &TextOr<BTreeMap<String, String>>) -> External {
        let key = Key::new("relay", "external");
        match typed {
            TextOr::Text(text) if text.is_empty() => External::Same,
            TextOr::Text(text) => match parse::host_address(text) {
                Ok(address) => External::One(address),
                Err(fault) => {
                    self.refuse(&key, fault);
                    External::Same
                }
            },
            TextOr::Full(table) if table.is_empty() => External::Same,
            TextOr::Full(table) => {
                let mut each = BTreeMap::new();
                for (inner, outer) in table {
                    let entry = key.entry(inner);
                    let parsed = parse::host_address(inner)
                        .map_err(|fault| {
                            Fault::new(format!("its key is {}", fault.reason), fault.remedy)
                        })
                        .and_then(|inner| Ok((inner, parse::host_address(outer)?)));
                    match parsed {
                        Ok((inner, _)) if each.contains_key(&inner) => {
                            self.refuse(&entry, Fault::new("its key stands twice", "keep one"));
                        }
                        Ok((inner, outer)) => {
                            each.insert(inner, outer);
                        }
                        Err(fault) => self.refuse(&entry, fault),
                    }
                }
                External::Each(each)
            }
        }
    }
}

/// How the operator spelt `address` as a key of `relay.external`.
fn entry_of(typed: &TextOr<BTreeMap<String, String>>, address: IpAddr) -> Option<String> {
    match typed {
        TextOr::Text(_) => None,
        TextOr::Full(table) => table.keys().find(|key| key.parse() == Ok(address)).cloned(),
    }
}

/// Whether `external` fits the relay addresses, found by the daemon when none is configured.
pub(in crate::config) fn external_fits(
    external: &External,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    let faults = external_faults(external, addresses);
    if faults.is_empty() {
        return Ok(());
    }
    let problem = |(address, fault): (Option<IpAddr>, Fault)| Problem {
        source: "this machine's addresses".to_owned(),
        key: match address {
            Some(address) => Key::new("relay", "external").entry(&address.to_string()),
            None => Key::new("relay", "external"),
        }
        .to_string(),
        value: None,
        reason: fault.reason,
        remedy: fault.remedy,
    };
    Err(Error::new(faults.into_iter().map(problem).collect()))
}

/// What is wrong with `external` for these relay addresses, by the entry's key if it has one.
fn external_faults(external: &External, addresses: &[IpAddr]) -> Vec<(Option<IpAddr>, Fault)> {
    match external {
        External::Same => Vec::new(),
        External::One(one) => {
            let family = addresses
                .iter()
                .filter(|a| a.is_ipv4() == one.is_ipv4())
                .count();
            match family {
                0 => vec![(
                    None,
                    Fault::new(
                        "no relay address is of its family",
                        "write an address of the family of relay.addresses",
                    ),
                )],
                1 => Vec::new(),
                _ => vec![(
                    None,
                    Fault::new(
                        "several relay addresses are of its family",
                        "write a table { \"relay address\" = \"external address\" }",
                    ),
                )],
            }
        }
        External::Each(map) => {
            let mut taken = BTreeSet::new();
            let mut faults = Vec::new();
            for (inner, outer) in map {
                let fault = if !addresses.contains(inner) {
                    let known: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                    Fault::new(
                        "its key is no relay address",
                        format!("use one of relay.addresses: {}", known.join(", ")),
                    )
                } else if inner.is_ipv4() != outer.is_ipv4() {
                    Fault::new(
                        "not of the same family as its key",
                        "pair IPv4 with IPv4, IPv6 with IPv6",
                    )
                } else if !taken.insert(outer) {
                    Fault::new(
                        "another relay address has the same external one",
                        "give each its own, since their ports would be confused",
                    )
                } else {
                    continue;
                };
                faults.push((Some(*inner), fault));
            }
            faults
        }
    }
}
