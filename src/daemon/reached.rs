//! Where clients reach this server when the configuration does not say: what minted URLs name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::Settings;
use crate::dataplane::sys;
use crate::turn::Transport;

/// RFC 8656 §3.1: the default port of TURN over UDP.
const DEFAULT_PORT: u16 = 3478;

/// The URLs that a credential goes with, one for each transport that clients may use. A listener
/// on port 0 has a port only once it is bound; `listening` says where that is, if this server runs.
pub(crate) fn ice_urls(settings: &Settings, listening: &[(Transport, SocketAddr)]) -> Vec<String> {
    let local = sys::local_addresses().unwrap_or_default();
    let routed = sys::default_route_addresses();
    let configured: Vec<(Transport, SocketAddr)> = settings.listen.all().collect();
    let listening = if listening.is_empty() {
        &configured
    } else {
        listening
    };
    let reached = Transport::ALL.into_iter().filter_map(|transport| {
        let here = listening.iter().filter(|(other, _)| *other == transport);
        let here: Vec<SocketAddr> = here.map(|(_, address)| *address).collect();
        (!here.is_empty()).then(|| (transport, address(settings, &here, &local, &routed)))
    });
    settings.ice_urls(&reached.collect::<Vec<_>>())
}

/// One of the addresses that are listened on: that of the default route if it is among them, else
/// one that is not loopback; and behind 1:1 NAT its outer face.
fn address(
    settings: &Settings,
    listening: &[SocketAddr],
    local: &[IpAddr],
    routed: &[IpAddr],
) -> SocketAddr {
    let listens_at = |listener: &SocketAddr| {
        let stands_for: Vec<IpAddr> = if listener.ip().is_unspecified() {
            let of_family = |ip: &&IpAddr| ip.is_ipv4() == listener.is_ipv4();
            routed
                .iter()
                .chain(local)
                .filter(of_family)
                .copied()
                .collect()
        } else {
            vec![listener.ip()]
        };
        let port = listener.port();
        stands_for
            .into_iter()
            .map(move |ip| SocketAddr::new(ip, port))
            .collect::<Vec<_>>()
    };
    let all: Vec<SocketAddr> = listening.iter().flat_map(listens_at).collect();
    let found = all
        .iter()
        .find(|at| routed.contains(&at.ip()))
        .or_else(|| all.iter().find(|at| !at.ip().is_loopback()))
        .or_else(|| all.first())
        .copied()
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
    SocketAddr::new(settings.relay.external.of(found.ip()), found.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{External, Sources, load};

    const ROUTED: &str = "192.0.2.7";

    fn settings(listen: &[&str]) -> Settings {
        let mut settings = load(&Sources::default()).unwrap().settings;
        settings.listen.udp = listen.iter().map(|text| text.parse().unwrap()).collect();
        settings
    }

    fn reached(settings: &Settings) -> String {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let local = ["127.0.0.1", "10.1.1.1", ROUTED, "::1", "2001:db8::7"].map(ip);
        address(
            settings,
            &settings.listen.udp,
            &local,
            &[ip(ROUTED), ip("2001:db8::7")],
        )
        .to_string()
    }

    #[test]
    fn a_url_names_an_address_that_is_listened_on_and_not_loopback_if_there_is_one() {
        for (listen, expected) in [
            (&["0.0.0.0:3478", "[::]:3478"][..], "192.0.2.7:3478"),
            (&["0.0.0.0:443", "[::]:80"], "192.0.2.7:443"),
            (&["[::]:34780"], "[2001:db8::7]:34780"),
            (&["127.0.0.1:1", "192.0.2.7:2"], "192.0.2.7:2"),
            (&["127.0.0.1:1", "10.1.1.1:2"], "10.1.1.1:2"),
            (&["127.0.0.1:5"], "127.0.0.1:5"),
        ] {
            assert_eq!(reached(&settings(listen)), expected, "{listen:?}");
        }
    }

    #[test]
    fn each_transport_that_is_listened_on_has_a_url() {
        let at = |transport, text: &str| (transport, text.parse().unwrap());
        let settings = settings(&["127.0.0.1:0"]);
        let bound = [
            at(Transport::Udp, "127.0.0.1:5"),
            at(Transport::Tcp, "127.0.0.1:6"),
            at(Transport::Tls, "[::1]:7"),
            at(Transport::Tls, "[::1]:8"),
        ];
        assert_eq!(
            ice_urls(&settings, &bound),
            [
                "turn:127.0.0.1:5?transport=udp",
                "turn:127.0.0.1:6?transport=tcp",
                "turns:[::1]:7?transport=tcp",
            ]
        );
    }

    #[test]
    fn behind_nat_a_url_names_the_outer_address() {
        let mut settings = settings(&["0.0.0.0:3478"]);
        settings.relay.external = External::One("203.0.113.7".parse().unwrap());
        assert_eq!(reached(&settings), "203.0.113.7:3478");
    }
}
