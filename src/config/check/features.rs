//! What of STUN and its extensions is served, and at which listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::Checker;
use crate::config::Features;
use crate::config::Listen;
use crate::config::file::{self, TextOr};
use crate::config::key::Key;
use crate::config::parse::{self, Fault};
use crate::turn::{BindingRequests, BindingRules, Rectangle, Transport};

const MODES: [(&str, BindingRequests); 3] = [
    ("open", BindingRequests::Open),
    ("authenticated", BindingRequests::Authenticated),
    ("off", BindingRequests::Off),
];

impl Checker<'_> {
    /// `listeners` are the configured addresses of all transports.
    pub(super) fn features(
        &mut self,
        typed: &file::Features,
        listeners: &[SocketAddr],
    ) -> Features {
        Features {
            binding: self.binding(&typed.binding, listeners),
            tcp_relay: typed.tcp_relay,
            mobility: typed.mobility,
            nat_discovery: typed.nat_discovery,
        }
    }

    /// RFC 5780 §6: two IP addresses with the same two ports on each.
    pub(super) fn nat_discovery_has_its_listeners(&mut self, features: &Features, listen: &Listen) {
        if !features.nat_discovery || !Rectangle::among(&listen.udp).is_empty() {
            return;
        }
        let named: Vec<&SocketAddr> = listen
            .udp
            .iter()
            .filter(|at| !at.ip().is_unspecified() && at.port() != 0)
            .collect();
        let (ips, ports): (BTreeSet<_>, BTreeSet<_>) =
            named.iter().map(|at| (at.ip(), at.port())).unzip();
        let reason = if named.is_empty() {
            "it takes two addresses of this machine by name, and listen.udp names none"
        } else if ips.len() < 2 {
            "it takes two IP addresses of one family, and listen.udp names one"
        } else if ports.len() < 2 {
            "it takes two ports, and listen.udp names one"
        } else {
            "it takes two IP addresses of one family with the same two ports on each, and \
             listen.udp lacks one of the four"
        };
        let fault = Fault::new(
            reason,
            "list all four, such as listen.udp = [\"192.0.2.1:3478\", \"192.0.2.1:3479\", \
             \"192.0.2.2:3478\", \"192.0.2.2:3479\"], or turn it off",
        );
        self.refuse(&Key::new("features", "nat_discovery"), fault);
    }

    fn binding(
        &mut self,
        typed: &TextOr<BTreeMap<String, String>>,
        listeners: &[SocketAddr],
    ) -> BindingRules {
        let key = Key::new("features", "binding");
        let mut binding = BindingRules::default();
        let table = match typed {
            TextOr::Text(text) => {
                binding.default = self.choice(&key, text, &MODES, BindingRequests::Open);
                return binding;
            }
            TextOr::Full(table) => table,
        };
        for (place, text) in table {
            let entry = key.entry(place);
            let mode = self.choice(&entry, text, &MODES, BindingRequests::Open);
            let transport = Transport::ALL.into_iter().find(|t| t.label() == place);
            match (place.as_str(), transport) {
                ("default", _) => binding.default = mode,
                (_, Some(transport)) => {
                    binding.transports.insert(transport, mode);
                }
                (address, None) => match listener(address, listeners) {
                    Ok(address) if binding.listeners.contains_key(&address) => {
                        self.refuse(&entry, Fault::new("its key stands twice", "keep one"));
                    }
                    Ok(address) => {
                        binding.listeners.insert(address, mode);
                    }
                    Err(fault) => self.refuse(&entry, fault),
                },
            }
        }
        binding
    }
}

/// The address of one of our listeners, or one that a wildcard among them stands for.
fn listener(text: &str, listeners: &[SocketAddr]) -> Result<SocketAddr, Fault> {
    let remedy = "write \"default\", \"udp\", \"tcp\", \"tls\", \"dtls\", or an address \
                  that stands under [listen]";
    let address = parse::listener(text)
        .map_err(|_| Fault::new("its key is neither a transport nor an address", remedy))?;
    let stands_for = |wanted: &SocketAddr| {
        *wanted == address
            || wanted.ip().is_unspecified()
                && wanted.is_ipv4() == address.is_ipv4()
                && wanted.port() == address.port()
    };
    if listeners.iter().any(stands_for) {
        Ok(address)
    } else {
        Err(Fault::new("nothing listens at its key", remedy))
    }
}
