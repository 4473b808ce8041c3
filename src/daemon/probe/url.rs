//! TURN URLs (RFC 7065 §3.1).

use crate::turn::Transport;

/// RFC 8656 §3.1: where TURN is without a port, and where TURN over TLS and DTLS is.
const PORT: u16 = 3478;
const SECURE_PORT: u16 = 5349;

/// A server as a client is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TurnUrl {
    /// As it was written.
    pub(super) text: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) transport: Transport,
}

/// As people call it.
pub(super) const fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
        Transport::Tls => "TLS",
        Transport::Dtls => "DTLS",
    }
}

/// What firewalls and port numbers know of it.
pub(super) const fn carrier(transport: Transport) -> &'static str {
    if transport.is_stream() { "TCP" } else { "UDP" }
}

const fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp | Transport::Tcp => PORT,
        Transport::Tls | Transport::Dtls => SECURE_PORT,
    }
}

impl TurnUrl {
    /// The parts of a `turn:` or `turns:` URL, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no TURN URL; write one such as turn:turn.example.org:3478?transport=udp"
            )
        };
        let (scheme, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let transport = match (scheme, query) {
            ("turn", None | Some("transport=udp")) => Transport::Udp,
            ("turn", Some("transport=tcp")) => Transport::Tcp,
            ("turns", None | Some("transport=tcp")) => Transport::Tls,
            ("turns", Some("transport=udp")) => Transport::Dtls,
            _ => return Err(wrong()),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
            None => match place.find(':') {
                Some(colon) => place.split_at(colon),
                None => (place, ""),
            },
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0),
            None if port.is_empty() => Some(default_port(transport)),
            None => None,
        };
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(sound) {
            return Err(wrong());
        }
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port: port.ok_or_else(wrong)?,
            transport,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        for (text, host, port, transport) in [
            ("turn:a.example", "a.example", 3478, Transport::Udp),
            ("turn:a:1?transport=udp", "a", 1, Transport::Udp),
            ("turn:[2001:db8::1]:80", "2001:db8::1", 80, Transport::Udp),
            ("turn:[::1]", "::1", 3478, Transport::Udp),
            ("turn:a?transport=tcp", "a", 3478, Transport::Tcp),
            ("turns:a", "a", 5349, Transport::Tls),
            ("turns:a:443?transport=tcp", "a", 443, Transport::Tls),
            ("turns:[::1]?transport=udp", "::1", 5349, Transport::Dtls),
        ] {
            let url = TurnUrl::parse(text).unwrap();
            assert_eq!(
                (url.host.as_str(), url.port, url.transport),
                (host, port, transport),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_turn_url_is_refused() {
        for text in [
            "",
            "a.example",
            "a.example:3478",
            "turn:",
            "turn://a",
            "stun:a",
            "turn:a:0",
            "turn:a:65536",
            "turn:a:",
            "turn:[::1",
            "turn:[::1]3478",
            "turn:::1",
            "turn:a?transport=sctp",
            "turn:a b",
            "turn:a\u{1b}[1m",
        ] {
            let error = TurnUrl::parse(text).unwrap_err();
            assert!(error.contains("turn:turn.example.org"), "{text}: {error}");
            assert!(!error.contains('\u{1b}'));
        }
    }
}
