//! What `serve` tells whoever started it without a configuration: where it listens, how to use it
//! right now, whom it relays for, and what is left to do.

use std::fmt::Write;
use std::net::SocketAddr;

use serde_json::Value;

use crate::turn::Transport;

/// The text, for a person who started `program`; the same with and without a terminal.
pub(crate) fn text(
    program: &str,
    listening: &[(Transport, SocketAddr)],
    admin: Option<SocketAddr>,
    policy: &str,
    servers: &Value,
) -> String {
    let mut text = String::from("taciturn is relaying. Without a configuration it listens on\n\n");
    for (transport, address) in listening {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "    {} {address}", transport.label());
    }
    if let Some(admin) = admin {
        let _written = writeln!(
            text,
            "    http {admin} (for you: /healthz, /readyz, /metrics)"
        );
    }
    let _written = write!(
        text,
        "\nand made a secret for this run. Give this RTCConfiguration to both parties of a call;\n\
         it is good for 24 hours:\n\n{servers:#}\n\n\
         Policy: {policy}.\n\n\
         Try it:          {program} probe   (in another terminal)\n\
         For production:  copy config/minimal.toml, name your host and a secret of your own in it,\n\
         \x20                then {program} serve --config FILE, and {program} mint for credentials.\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_listeners_credential_policy_and_what_comes_next() {
        let address = SocketAddr::from(([192, 0, 2, 7], 3478));
        let listening = [(Transport::Udp, address), (Transport::Tcp, address)];
        let servers = serde_json::json!({ "iceServers": [{ "credential": "c" }] });
        let text = text(
            "taciturn",
            &listening,
            Some(SocketAddr::from(([127, 0, 0, 1], 9641))),
            "closed",
            &servers,
        );
        for part in [
            "udp 192.0.2.7:3478",
            "tcp 192.0.2.7:3478",
            "127.0.0.1:9641",
            "\"credential\": \"c\"",
            "Policy: closed.",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(text.contains("config/minimal.toml") && !text.contains('\u{1b}'));
    }
}
