//! Where clients are listened to, and who may not share a transport address with whom.

use std::net::SocketAddr;

use super::Checker;
use crate::config::file::{self, TextOr};
use crate::config::key::Key;
use crate::config::parse::{self, Fault};
use crate::config::{Admin, Listen, Relay};
use crate::turn::Transport;

/// What `listen.tcp` is when it is as `listen.udp`.
const SAME: &str = "same";

impl Checker<'_> {
    pub(super) fn listen(&mut self, typed: &file::Listen) -> Listen {
        let key = key_of(Transport::Udp);
        let udp = self.list(&key, &typed.udp, parse::listener);
        if typed.udp.is_empty() {
            let fault = Fault::new(
                "without a listener no client can reach us",
                "write at least one address, such as [\"0.0.0.0:3478\"]",
            );
            self.refuse(&key, fault);
        }
        let tcp = uncovered(self.listen_tcp(&typed.tcp, &udp));
        let tls = self.listen_tls(&typed.tls, &tcp);
        let dtls = self.listen_dtls(&typed.dtls, &udp);
        let buffer = parse::buffer(&typed.receive_buffer);
        Listen {
            udp,
            tcp,
            tls,
            dtls,
            receive_buffer: self.parse(&Key::new("listen", "receive_buffer"), buffer, 0),
        }
    }

    fn listen_tcp(&mut self, typed: &TextOr<Vec<String>>, udp: &[SocketAddr]) -> Vec<SocketAddr> {
        let key = key_of(Transport::Tcp);
        match typed {
            TextOr::Text(text) if text == SAME => udp.to_vec(),
            TextOr::Full(list) => self.list(&key, list, parse::listener),
            TextOr::Text(_) => {
                let fault = Fault::new(
                    "no list of addresses",
                    "write a list such as [\"0.0.0.0:3478\"], [] for none, or \"same\" for the \
                     addresses of listen.udp",
                );
                self.refuse(&key, fault);
                Vec::new()
            }
        }
    }

    fn listen_tls(&mut self, typed: &[String], tcp: &[SocketAddr]) -> Vec<SocketAddr> {
        let tls = self.list(&key_of(Transport::Tls), typed, |text| {
            let listener = parse::listener(text)?;
            let other = |tcp: &&SocketAddr| meet(listener, **tcp) && listener != **tcp;
            match tcp.iter().find(other) {
                Some(other) => Err(Fault::new(
                    format!("listen.tcp has {other}, and one of them covers the other"),
                    "write the same address in both, and it serves both, or another port in one",
                )),
                None => Ok(listener),
            }
        });
        uncovered(tls)
    }

    fn listen_dtls(&mut self, typed: &[String], udp: &[SocketAddr]) -> Vec<SocketAddr> {
        let key = key_of(Transport::Dtls);
        if !cfg!(feature = "dtls") && !typed.is_empty() {
            let fault = Fault::new(
                "this taciturn has no DTLS: it was built without the cargo feature `dtls`",
                "use one built with `--features dtls`, or empty the list",
            );
            self.refuse(&key, fault);
            return Vec::new();
        }
        self.list(&key, typed, |text| {
            let listener = parse::listener(text)?;
            // Nothing in a first datagram tells ChannelData that came late from a DTLS record.
            match udp.iter().find(|other| meet(listener, **other)) {
                Some(other) => Err(Fault::new(
                    format!("listen.udp has {other}, and both would be on the same UDP port"),
                    "give DTLS a port of its own, such as 5349; with TLS it may share one",
                )),
                None => Ok(listener),
            }
        })
    }

    /// A relayed address on a listener's port would be a client's way to speak in our name.
    pub(super) fn listeners_apart_from_relay_ports(&mut self, listen: &Listen, relay: &Relay) {
        let mut clashing: Vec<SocketAddr> = Vec::new();
        let mut whose = None;
        for (transport, listener) in under_relay_ports(listen, relay) {
            whose.get_or_insert(transport);
            if !clashing.contains(&listener) {
                clashing.push(listener);
            }
        }
        let Some(transport) = whose else { return };
        let clashing: Vec<String> = clashing.iter().map(ToString::to_string).collect();
        let (first, last) = (relay.ports.start(), relay.ports.end());
        let fault = Fault::new(
            format!(
                "the relay ports {first}-{last} cover the listener {}",
                clashing.join(", ")
            ),
            "choose relay ports without it, or another port for the listener",
        );
        let ports = Key::new("relay", "ports");
        if self.layers.is_set(&ports) {
            self.refuse(&ports, fault);
        } else {
            self.refuse(&key_of(transport), fault);
        }
    }

    /// Both are TCP.
    pub(super) fn admin_apart_from_listeners(&mut self, admin: &Admin, listen: &Listen) {
        let Some(admin) = admin.listen else { return };
        let streams = listen.tcp.iter().chain(&listen.tls);
        if let Some(taken) = streams.into_iter().find(|other| meet(admin, **other)) {
            let fault = Fault::new(
                format!("clients are listened to at {taken}, and both would be on one TCP port"),
                "give one of them another port",
            );
            self.refuse(&Key::new("admin", "listen"), fault);
        }
    }
}

/// The listeners whose ports are relay ports too.
pub(in crate::config) fn under_relay_ports<'l>(
    listen: &'l Listen,
    relay: &'l Relay,
) -> impl Iterator<Item = (Transport, SocketAddr)> + 'l {
    listen.all().filter(|(_, listener)| {
        let same_host = listener.ip().is_unspecified()
            || relay.addresses.is_empty()
            || relay.addresses.contains(&listener.ip());
        same_host && relay.ports.contains(&listener.port())
    })
}

pub(super) fn key_of(transport: Transport) -> Key {
    Key::new("listen", transport.label())
}

/// The listeners without those that a wildcard among them stands for: of streams one socket serves
/// them all, since each connection has a local address of its own.
fn uncovered(listeners: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let covers = |wide: &SocketAddr, one: &SocketAddr| {
        wide.ip().is_unspecified() && !one.ip().is_unspecified() && meet(*wide, *one)
    };
    let is_covered = |one: &SocketAddr| listeners.iter().any(|wide| covers(wide, one));
    let kept = listeners.iter().filter(|one| !is_covered(one));
    kept.copied().collect()
}

/// Whether two listeners would want the same transport address. A wildcard stands for the
/// addresses of its family; port 0 is any free one.
pub(super) fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}
