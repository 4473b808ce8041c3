//! A configuration without what it tells of anybody: no secret, name, address, path or URL of the
//! operator's own. What is left is what a bug may hang on: numbers, sizes, times, words that the
//! configuration knows, and of the rest what kind of thing it is. What no rule knows is taken out.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::{Map, Value};

/// Words that the configuration knows, and that are nobody's.
const WORDS: &[&str] = &[
    "always",
    "any",
    "auto",
    "authenticated",
    "call",
    "cloudflare",
    "debug",
    "draining",
    "error",
    "info",
    "json",
    "matrix",
    "metered",
    "mint",
    "off",
    "open",
    "read",
    "relay",
    "rest",
    "revoke",
    "rfc5766",
    "rfc8656",
    "same",
    "stunner",
    "text",
    "trace",
    "twilio",
    "warn",
    "xirsys",
];
/// Keys within lists, and of tables that may be a text instead.
const FIELDS: &[&str] = &[
    "addr", "ca", "default", "drained", "dtls", "file", "id", "ports", "scopes", "seen_as", "tcp",
    "tls", "udp", "url", "urls",
];
/// Tables whose keys are the operator's.
const TABLES: [[&str; 2]; 2] = [["auth", "users"], ["relay", "external"]];

/// `written` as it may be shown to anybody, where `defaults` is what stands there unless it is
/// changed.
pub(super) fn redacted(written: &Value, defaults: &Value) -> Value {
    shown(written, Some(defaults), &mut Vec::new())
}

fn shown(value: &Value, default: Option<&Value>, path: &mut Vec<String>) -> Value {
    if default == Some(value) {
        return value.clone();
    }
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) => {
            let kind = kind(text);
            // A number in a list may be anybody's, and a setting's own is a size or a time.
            match default {
                Some(Value::String(_)) if is_quantity(text) => text.as_str().into(),
                Some(_) | None => kind.into(),
            }
        }
        Value::Array(list) => list.iter().map(|one| shown(one, None, path)).collect(),
        Value::Object(table) => {
            let known = default.and_then(Value::as_object);
            let is_operators = TABLES.iter().any(|table| path == table);
            let mut out = Map::new();
            for (place, (key, value)) in table.iter().enumerate() {
                let default = known.and_then(|known| known.get(key));
                let is_known = default.is_some() || FIELDS.contains(&key.as_str());
                let name = if is_known && !is_operators {
                    key.clone()
                } else {
                    format!("{} #{place}", kind(key))
                };
                path.push(key.clone());
                out.insert(name, shown(value, default, path));
                path.pop();
            }
            out.into()
        }
    }
}

/// A size, a time, a rate or a range of ports.
fn is_quantity(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | ' ' | '-');
    let numbers = text.split(|c: char| !c.is_ascii_digit());
    let letters = text.split(|c: char| !c.is_ascii_alphabetic());
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(is_plain)
        && numbers.clone().all(|number| number.len() <= 12)
        && letters
            .filter(|word| !word.is_empty())
            .all(|word| UNITS.contains(&word))
}

/// What sizes, times and rates are counted in.
const UNITS: &[&str] = &[
    "B", "KB", "MB", "GB", "KiB", "MiB", "GiB", "K", "M", "G", "ms", "s", "sec", "second",
    "seconds", "m", "min", "minute", "minutes", "h", "hour", "hours", "d", "day", "days", "w",
    "week", "weeks", "month", "months", "y", "year", "years", "bit", "kbit", "Mbit", "Gbit",
    "burst",
];

/// What kind of thing a text is; a text that says nothing of anybody is itself.
fn kind(text: &str) -> String {
    let family = |ip: IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    // Everybody's.
    let is_common = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback();
    if text.is_empty() || WORDS.contains(&text) {
        return text.to_owned();
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        let (ip, port) = (address.ip(), address.port());
        return match is_common(ip) {
            true => format!("<{} {}>:{port}", family(ip), common(ip)),
            false => format!("<{} address>:{port}", family(ip)),
        };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return match is_common(ip) {
            true => format!("<{} {}>", family(ip), common(ip)),
            false => format!("<{} address>", family(ip)),
        };
    }
    if let Ok(network) = text.parse::<IpNet>() {
        let (ip, length) = (network.addr(), network.prefix_len());
        return format!("<{} network>/{length}", family(ip));
    }
    let is_url = ["turn:", "turns:", "stun:", "http://", "https://"];
    if is_url.iter().any(|scheme| text.starts_with(scheme)) {
        return "<URL>".to_owned();
    }
    if text.starts_with('/') {
        return "<path>".to_owned();
    }
    "<text>".to_owned()
}

const fn common(ip: IpAddr) -> &'static str {
    if ip.is_unspecified() {
        "wildcard"
    } else {
        "loopback"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_nobodys_stays_and_the_rest_is_told_by_its_kind() {
        for (text, wanted) in [
            ("", ""),
            ("rfc5766", "rfc5766"),
            ("0.0.0.0:443", "<IPv4 wildcard>:443"),
            ("[::1]:443", "<IPv6 loopback>:443"),
            ("127.9.8.7:443", "<IPv4 loopback>:443"),
            ("203.0.113.7:443", "<IPv4 address>:443"),
            ("2001:db8::7", "<IPv6 address>"),
            ("192.0.2.0/24", "<IPv4 network>/24"),
            ("turn:turn.example.org:3478?transport=udp", "<URL>"),
            ("/home/alice/turn.key", "<path>"),
            ("turn.example.org", "<text>"),
            ("alice", "<text>"),
        ] {
            assert_eq!(kind(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_quantity_is_a_number_with_a_unit_and_nothing_more() {
        for fine in [
            "8MiB",
            "1h 30m",
            "4Mbit/s",
            "50/s burst 200",
            "49152-65535",
            "90s",
            "1day",
        ] {
            assert!(is_quantity(fine), "{fine}");
        }
        for other in [
            "",
            "alice",
            "203.0.113.7",
            "4a1f9c",
            "0123456789012345",
            "2001:db8::1",
            "5 alice",
        ] {
            assert!(!is_quantity(other), "{other}");
        }
    }

    #[test]
    fn the_defaults_are_shown_as_they_are() {
        let defaults = crate::config::defaults();
        assert_eq!(redacted(&defaults, &defaults), defaults);
    }

    #[test]
    fn keys_that_an_operator_made_up_are_hidden_and_those_of_settings_are_not() {
        let defaults = crate::config::defaults();
        let mut written = defaults.clone();
        written["auth"]["users"] = json!({ "id": "hidden", "alice": "hidden" });
        written["auth"]["secrets"] = json!([{ "id": "5551234", "file": "/run/turn" }]);
        written["relay"]["external"] = json!({ "10.9.8.7": "203.0.113.7" });
        written["features"]["binding"] = json!({ "default": "open", "10.9.8.7:3478": "off" });
        written["limits"]["user_rate"] = "4Mbit/s".into();
        let shown = redacted(&written, &defaults);
        assert_eq!(
            shown["auth"]["secrets"],
            json!([{ "id": "<text>", "file": "<path>" }])
        );
        assert_eq!(shown["limits"]["user_rate"], "4Mbit/s");
        let binding = &shown["features"]["binding"];
        assert_eq!(binding["default"], "open");
        assert_eq!(binding["<IPv4 address>:3478 #0"], "off", "{binding}");
        let text = shown.to_string();
        for hidden in [
            "alice",
            "\"id\":\"hidden\"",
            "10.9.8.7",
            "203.0.113.7",
            "5551234",
        ] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
}
