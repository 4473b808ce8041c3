//! Where coturn listens and relays, and what clients are told of it.

use std::net::{IpAddr, SocketAddr};

use super::Import;
use super::toml::{self, list, text};

/// Where coturn listens for clients of one transport.
struct Sockets {
    plain: Vec<String>,
    secure: Vec<String>,
}

impl Import {
    pub(super) fn listeners(&mut self) {
        let port = self.port("listening-port", 3478);
        let secure_port = self.port("tls-listening-port", 5349);
        let ips = self.all("listening-ip");
        let (mut addresses, mut bad) = (Vec::new(), false);
        for ip in &ips {
            match ip.parse::<IpAddr>() {
                Ok(ip) => addresses.push(ip),
                Err(_) => bad = true,
            }
        }
        if bad {
            self.note(
                "listening-ip",
                "one of its values is no IP address and is left out",
            );
        }
        if addresses.is_empty() {
            addresses = vec![[0; 4].into(), [0; 16].into()];
        }
        let at = |port| -> Vec<String> {
            let sockets = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
            sockets.map(|socket| socket.to_string()).collect()
        };
        let sockets = Sockets {
            plain: at(port),
            secure: at(secure_port),
        };
        let [no_udp, no_tcp, no_tls, no_dtls] =
            ["no-udp", "no-tcp", "no-tls", "no-dtls"].map(|option| self.has(option));
        if no_udp {
            self.note(
                "no-udp",
                "here UDP is always listened on; a firewall can shut it",
            );
        }
        self.document.set("listen", "udp", list(&sockets.plain));
        self.document.set(
            "listen",
            "tcp",
            list(if no_tcp { &[] } else { &sockets.plain }),
        );
        self.certificates(&sockets, no_tls, no_dtls);
    }

    fn certificates(&mut self, sockets: &Sockets, no_tls: bool, no_dtls: bool) {
        match (self.last("cert"), self.last("pkey")) {
            (Some(cert), Some(key)) => {
                if !no_tls {
                    self.document.set("listen", "tls", list(&sockets.secure));
                }
                if !no_dtls {
                    self.document.set("listen", "dtls", list(&sockets.secure));
                    self.note(
                        "cert",
                        "coturn serves DTLS with it too, so listen.dtls is set; that takes a build \
                         with the feature `dtls`",
                    );
                }
                if !no_tls || !no_dtls {
                    self.document.set("tls", "cert", text(&cert));
                    self.document.set("tls", "key", text(&key));
                }
            }
            (None, None) => {}
            _ => self.note(
                "cert",
                "it takes both cert and pkey, so TLS and DTLS are left out",
            ),
        }
    }

    pub(super) fn port(&mut self, option: &'static str, default: u16) -> u16 {
        match self.last(option).map(|port| port.parse()) {
            None => default,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => {
                self.note(option, format!("it is no port, so {default} is taken"));
                default
            }
        }
    }

    pub(super) fn relay(&mut self) {
        let (mut addresses, mut bad) = (Vec::new(), false);
        for ip in self.all("relay-ip") {
            match ip.parse::<IpAddr>() {
                Ok(ip) => addresses.push(ip),
                Err(_) => bad = true,
            }
        }
        if bad {
            self.note(
                "relay-ip",
                "one of its values is no IP address and is left out",
            );
        }
        self.external(&addresses);
        if !addresses.is_empty() {
            let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            self.document.set("relay", "addresses", list(&addresses));
        }
        let first = self.port("min-port", 49_152);
        let last = self.port("max-port", 65_535);
        if first > last || first < 1_024 {
            self.note(
                "min-port",
                "relay ports here are from 1024 up, so 49152-65535 is left",
            );
        } else {
            self.document
                .set("relay", "ports", text(&format!("{first}-{last}")));
        }
    }

    /// `external-ip=<public>` or `<public>/<private>`.
    fn external(&mut self, addresses: &[IpAddr]) {
        let mut pairs = Vec::new();
        for value in self.all("external-ip") {
            let (public, private) = match value.split_once('/') {
                Some((public, private)) => (public, Some(private)),
                None => (value.as_str(), None),
            };
            let private = match private {
                Some(private) => private.parse().ok(),
                None => public.parse().ok().and_then(|public: IpAddr| {
                    let mut same = addresses
                        .iter()
                        .filter(|ip| ip.is_ipv4() == public.is_ipv4());
                    same.next().copied().filter(|_| same.next().is_none())
                }),
            };
            match (public.parse::<IpAddr>(), private) {
                (Ok(public), Some(private)) if public.is_ipv4() == private.is_ipv4() => {
                    pairs.push((private.to_string(), public.to_string()));
                }
                (Ok(public), None) if addresses.is_empty() => {
                    // The relay address is that of the default route, in both servers.
                    self.document
                        .set("relay", "external", text(&public.to_string()));
                    return;
                }
                _ => self.note(
                    "external-ip",
                    "it is not clear which relay address it stands for; write relay.external = \
                     { \"<private>\" = \"<public>\" }",
                ),
            }
        }
        if !pairs.is_empty() {
            if addresses.is_empty() {
                let private: Vec<String> =
                    pairs.iter().map(|(private, _)| private.clone()).collect();
                self.document.set("relay", "addresses", list(&private));
            }
            self.document.set("relay", "external", toml::table(&pairs));
        }
    }
}
