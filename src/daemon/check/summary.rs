//! What `serve` would do, in plain words. Secrets are named by their ids; no value of one is
//! reached for.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use bytesize::ByteSize;
use humantime::format_duration;

use super::facts::Facts;
use super::warnings::stream_workers;
use super::{Line, opens_relay_sockets, relayed_addresses};
use crate::admin::api::ApiKey;
use crate::config::{Alternate, Auth, Channels, LogFormat, Peers, Policy, Rate, Settings};
use crate::daemon::reached;
use crate::dataplane::RelayAddress;
use crate::dataplane::tls::Certificate;
use crate::turn::{BindingRequests, BindingRules, Redirect, Transport};

/// The lines, in the order of a packet's way and then of an operator's interest.
pub(super) fn of(settings: &Settings, relays: &[RelayAddress], facts: &Facts) -> Vec<Line> {
    let mut lines = Vec::new();
    for (transport, listener) in settings.listen.all() {
        let text = listens(transport, listener, &facts.addresses);
        lines.push(("Listens", text));
    }
    if let Some(keys) = &settings.tls.keys {
        for (files, pair) in keys.files().iter().zip(keys.current().iter()) {
            let text = certificate(&files.cert, pair.certificate(), facts.now);
            lines.push(("Certificate", text));
        }
    }
    if !settings.proxy_protocol.trusted.is_empty() {
        let trusted = list(&settings.proxy_protocol.trusted);
        let text = format!("PROXY protocol headers are believed, and wanted, from {trusted}");
        lines.push(("Behind", text));
    }
    for url in reached::ice_urls(settings, &[]) {
        lines.push(("Minted URL", url));
    }
    for relay in relays {
        lines.push(("Relays from", relays_from(relay)));
    }
    lines.push(("Ports", ports(settings, relays)));
    lines.push(("Policy", policy(&settings.policy)));
    lines.push(("Credentials", credentials(&settings.auth)));
    lines.push(("Sessions", sessions(settings)));
    lines.push(("Realm", settings.realm.clone()));
    if settings.compat.channels == Channels::Rfc5766 {
        let text = "channels 0x4000 to 0x7FFE of RFC 5766, for old clients";
        lines.push(("Compatibility", text.to_owned()));
    }
    if settings.features.binding != BindingRules::default() {
        lines.push(("Binding", binding(&settings.features.binding)));
    }
    if !settings.alternate.servers.is_empty() {
        lines.push(("Redirects", redirects(&settings.alternate)));
    }
    lines.push(("Keys", keys(settings)));
    lines.push(("Workers", workers(settings, facts)));
    lines.push(("Admin", admin(settings)));
    lines.push(("API", api(settings)));
    lines.push(("Control", control(settings)));
    lines.push(("Log", log(settings)));
    lines
}

fn listens(transport: Transport, listener: SocketAddr, addresses: &[IpAddr]) -> String {
    let mut text = format!("{} {listener}", transport.label().to_ascii_uppercase());
    if listener.ip().is_unspecified() {
        let family = addresses
            .iter()
            .filter(|address| address.is_ipv4() == listener.is_ipv4());
        let each: Vec<IpAddr> = family.copied().collect();
        let each = if each.is_empty() {
            "no address".to_owned()
        } else {
            list(&each)
        };
        text.push_str(&format!(", which today stands for {each}"));
    }
    if listener.port() == 0 {
        text.push_str("; port 0 is any free one");
    }
    text
}

fn certificate(path: &Path, certificate: &Certificate, now: u64) -> String {
    let shown: String = path.to_string_lossy().escape_debug().collect();
    let names = match certificate.names.as_slice() {
        [] => "no name".to_owned(),
        names => list(names),
    };
    match certificate.days_left(now) {
        Some(1) => format!("{shown} for {names}, valid for 1 more day"),
        Some(days) => format!("{shown} for {names}, valid for {days} more days"),
        None => format!("{shown} for {names}, expired"),
    }
}

fn relays_from(relay: &RelayAddress) -> String {
    if relay.local == relay.advertised {
        relay.local.to_string()
    } else {
        format!(
            "{}, of which clients are told {}",
            relay.local, relay.advertised
        )
    }
}

fn ports(settings: &Settings, relays: &[RelayAddress]) -> String {
    let relay = &settings.relay;
    let sockets = if opens_relay_sockets(settings) {
        "with a socket each when a peer may be outside this process"
    } else {
        "without sockets, since no peer is outside this process"
    };
    let sockets = match relay.bind {
        crate::config::RelayBind::Always => "with a socket each",
        crate::config::RelayBind::Auto => sockets,
    };
    format!(
        "{} to {}, {} relayed addresses in all, {sockets}; a freed port rests {}",
        relay.ports.start(),
        relay.ports.end(),
        relayed_addresses(settings, relays),
        format_duration(relay.port_rest),
    )
}

/// Whom the server relays for, in one sentence without its end.
pub(crate) fn policy(policy: &Policy) -> String {
    let mut text = match &policy.peers {
        Peers::Call => {
            "closed: an allocation exchanges packets with relayed addresses of the same \
                        call on this server alone"
                .to_owned()
        }
        Peers::Relay if policy.fleet.is_empty() => {
            "closed: an allocation exchanges packets with relayed addresses of this server alone"
                .to_owned()
        }
        Peers::Relay => "closed: an allocation exchanges packets with relayed addresses of this \
                         server and its fleet alone"
            .to_owned(),
        Peers::Any => "open: an allocation exchanges packets with every public address".to_owned(),
        Peers::Networks(networks) => format!(
            "an allocation exchanges packets with relayed addresses and with {}",
            list(networks)
        ),
    };
    if policy.ceiling != policy.peers {
        text.push_str("; a credential may claim ");
        text.push_str(&match &policy.ceiling {
            Peers::Call | Peers::Relay => {
                "relayed addresses of this server and its fleet".to_owned()
            }
            Peers::Any => "every public address".to_owned(),
            Peers::Networks(networks) => format!("{} too", list(networks)),
        });
    }
    if !policy.fleet.is_empty() {
        let nodes: Vec<IpAddr> = policy.fleet.iter().map(|node| node.addr).collect();
        text.push_str(&format!("; the fleet is {}", list(&nodes)));
    }
    if !policy.allow.is_empty() {
        text.push_str(&format!("; opened are {}", list(&policy.allow)));
    }
    if !policy.deny.is_empty() {
        text.push_str(&format!("; closed are {}", list(&policy.deny)));
    }
    text
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

fn binding(rules: &BindingRules) -> String {
    let said = |requests| match requests {
        BindingRequests::Open => "answered to everybody",
        BindingRequests::Authenticated => "answered to who has a credential",
        BindingRequests::Off => "not answered",
    };
    let transports = rules.transports.iter();
    let transports = transports.map(|(t, r)| (t.label().to_ascii_uppercase(), *r));
    let listeners = rules.listeners.iter().map(|(l, r)| (l.to_string(), *r));
    let each = transports.chain(listeners);
    let each = each.map(|(place, requests)| format!("; {} on {place}", said(requests)));
    said(rules.default).to_owned() + &each.collect::<String>()
}

fn redirects(alternate: &Alternate) -> String {
    let when = match alternate.redirect {
        Redirect::Draining => "while this server is being emptied",
        Redirect::Always => "always",
    };
    format!("new allocations to {}, {when}", list(&alternate.servers))
}

fn credentials(auth: &Auth) -> String {
    let ids: Vec<String> = auth
        .secrets
        .iter()
        .map(|secret| format!("\"{}\"", secret.id))
        .collect();
    let secrets = match ids.as_slice() {
        [] => None,
        [id] => Some(format!("time-limited, with the secret {id}")),
        ids => Some(format!(
            "time-limited, with {} secrets: {}",
            ids.len(),
            ids.join(", ")
        )),
    };
    let users = match auth.users.len() {
        0 => None,
        1 => Some("1 static user".to_owned()),
        count => Some(format!("{count} static users")),
    };
    match (secrets, users) {
        (None, None) => {
            "a secret made for each run, of which `serve` prints a credential".to_owned()
        }
        (Some(one), None) | (None, Some(one)) => one,
        (Some(secrets), Some(users)) => format!("{secrets}; {users}"),
    }
}

fn sessions(settings: &Settings) -> String {
    let auth = &settings.auth;
    let users = match settings.limits.user_allocations {
        None => "any number".to_owned(),
        Some(number) => number.to_string(),
    };
    let end = if auth.strict {
        "or until its credential expires"
    } else {
        "even past its credential's expiry"
    };
    format!(
        "an allocation may be refreshed for {}, {end}; lifetime up to {}; {users} for one user{}",
        format_duration(auth.session_max),
        format_duration(settings.limits.allocation_lifetime),
        others(settings),
    )
}

/// The limits that most servers do without.
fn others(settings: &Settings) -> String {
    let limits = &settings.limits;
    let mut said = String::new();
    for (limit, of) in [
        (limits.tenant_allocations, "for one tenant"),
        (limits.total_allocations, "in all"),
    ] {
        if let Some(limit) = limit {
            said.push_str(&format!(", {limit} {of}"));
        }
    }
    for (relaying, of) in [
        (limits.allocation, "an allocation"),
        (limits.user, "a user"),
        (limits.tenant, "a tenant"),
    ] {
        let bits = relaying.bits.map(|bits| format!("{bits} bit/s"));
        let packets = relaying.packets.map(|rate| {
            let Rate { per_second, burst } = rate;
            format!("{per_second} packets a second ({burst} at once)")
        });
        let both: Vec<String> = bits.into_iter().chain(packets).collect();
        if !both.is_empty() {
            said.push_str(&format!("; relayed for {of}: {}", both.join(", ")));
        }
    }
    if let Some(Rate { per_second, burst }) = limits.prefix_allocates {
        said.push_str(&format!(
            "; {per_second} allocations a second ({burst} at once) asked for from one network"
        ));
    }
    said
}

fn keys(settings: &Settings) -> String {
    match &settings.state.dir {
        Some(directory) => {
            let shown: String = directory.to_string_lossy().escape_debug().collect();
            format!("kept in {shown}")
        }
        None => "made for each run: after a restart clients must authenticate anew".to_owned(),
    }
}

fn workers(settings: &Settings, facts: &Facts) -> String {
    let buffer = ByteSize::b(settings.listen.receive_buffer as u64);
    let buffer = buffer.display().iec();
    let mut text = match settings.workers.count {
        Some(count) => format!("{count}, {buffer} of receive buffer for each listener"),
        None => format!(
            "{}, one for each core; {buffer} of receive buffer for each listener",
            facts.cores
        ),
    };
    let streams = stream_workers(settings, facts);
    if streams > 0 {
        text.push_str(&format!("; {streams} for clients that do not come by UDP"));
    }
    text
}

fn admin(settings: &Settings) -> String {
    match settings.admin.listen {
        Some(address) => format!("http://{address}, /healthz, /readyz and /metrics"),
        None => "off".to_owned(),
    }
}

fn api(settings: &Settings) -> String {
    let Some(address) = settings.api.door() else {
        return "off: there is no key in api.keys".to_owned();
    };
    let ids: Vec<&str> = settings.api.keys.iter().map(ApiKey::id).collect();
    let keys = if ids.is_empty() {
        "a client certificate".to_owned()
    } else {
        format!("the keys {}", list(&ids))
    };
    let scheme = if settings.api.tls.is_some() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{address}/v1, for {keys}")
}

fn control(settings: &Settings) -> String {
    match &settings.control.socket {
        Some(path) => format!("{}, for this user and root", path.display()),
        None => "off".to_owned(),
    }
}

fn log(settings: &Settings) -> String {
    let format = match settings.log.format {
        LogFormat::Auto => "text at a terminal, else JSON",
        LogFormat::Text => "text",
        LogFormat::Json => "JSON",
    };
    let level = settings.log.level.as_str().to_ascii_lowercase();
    let days = match settings.log.pseudonym_days {
        0 => "no day longer than its own".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let shown = if settings.log.show_addresses {
        ", and by their addresses: the glass is broken"
    } else {
        ""
    };
    format!(
        "{level} and above, {format}, to standard error; clients by pseudonyms whose key is kept \
         {days}{shown}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{certificate_files, facts, relays, settings};
    use super::*;

    fn text(variables: &[(&str, &str)]) -> String {
        let settings = settings(variables);
        let lines = of(&settings, &relays(&settings), &facts());
        let lines: Vec<String> = lines
            .iter()
            .map(|(name, text)| format!("{name}: {text}"))
            .collect();
        lines.join("\n")
    }

    #[test]
    fn a_wildcard_is_expanded_to_the_addresses_of_its_family() {
        let text = text(&[]);
        assert!(
            text.contains("UDP 0.0.0.0:3478, which today stands for 127.0.0.1, 203.0.113.7\n"),
            "{text}"
        );
        let v6 = "UDP [::]:3478, which today stands for ::1, 2001:db8::7\n";
        assert!(text.contains(v6), "{text}");
    }

    #[test]
    fn each_transport_has_its_lines() {
        let home = tempfile::tempdir().unwrap();
        let [cert, key] = certificate_files(home.path(), &["turn.example.org", "*.example.org"]);
        let said = text(&[
            ("TACITURN_LISTEN__UDP", "127.0.0.1:3478"),
            ("TACITURN_LISTEN__TCP", "127.0.0.1:80"),
            ("TACITURN_LISTEN__TLS", "127.0.0.1:443"),
            ("TACITURN_TLS__CERT", &cert),
            ("TACITURN_TLS__KEY", &key),
            ("TACITURN_PUBLIC__HOST", "turn.example.org"),
            ("TACITURN_PROXY_PROTOCOL__TRUSTED", "10.0.0.0/8,::1"),
        ]);
        for line in [
            "Listens: UDP 127.0.0.1:3478",
            "Listens: TCP 127.0.0.1:80",
            "Listens: TLS 127.0.0.1:443",
            "Minted URL: turn:turn.example.org:3478?transport=udp",
            "Minted URL: turn:turn.example.org:80?transport=tcp",
            "Minted URL: turns:turn.example.org:443?transport=tcp",
            &format!("Certificate: {cert} for turn.example.org, *.example.org, valid for "),
            "and wanted, from 10.0.0.0/8, ::1/128",
            "; 2 for clients that do not come by UDP",
        ] {
            assert!(said.contains(line), "{line} is not in:\n{said}");
        }
        let udp = text(&[("TACITURN_LISTEN__TCP", "")]);
        for word in ["TCP", "Certificate", "PROXY", "by UDP"] {
            assert!(!udp.contains(word), "{word} is in:\n{udp}");
        }
    }

    #[test]
    fn an_expired_certificate_is_told_as_one() {
        let certificate = |not_after| Certificate {
            names: Vec::new(),
            not_before: 0,
            not_after,
        };
        let said = |not_after| super::certificate(Path::new("a"), &certificate(not_after), 86_400);
        assert_eq!(said(86_399), "a for no name, expired");
        assert_eq!(said(86_400 * 2), "a for no name, valid for 1 more day");
        assert_eq!(said(86_400 * 3), "a for no name, valid for 2 more days");
    }

    #[test]
    fn an_external_address_is_what_clients_are_told() {
        let text = text(&[("TACITURN_RELAY__EXTERNAL", "198.51.100.1")]);
        let line = "Relays from: 203.0.113.7, of which clients are told 198.51.100.1";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn each_policy_is_one_sentence() {
        for (variables, words) in [
            (
                vec![],
                "closed: an allocation exchanges packets with relayed",
            ),
            (vec![("TACITURN_POLICY__PEERS", "any")], "open: "),
            (
                vec![("TACITURN_POLICY__PEERS", "call")],
                "of the same call on this server alone",
            ),
            (
                vec![("TACITURN_POLICY__CEILING", "192.0.2.0/24, 2001:db8::/32")],
                "a credential may claim 192.0.2.0/24, 2001:db8::/32 too",
            ),
            (
                vec![("TACITURN_POLICY__PEERS", "192.0.2.0/24")],
                "and with 192.0.2.0/24",
            ),
            (
                vec![("TACITURN_POLICY__FLEET", "203.0.113.8")],
                "and its fleet alone; the fleet is 203.0.113.8",
            ),
            (
                vec![
                    ("TACITURN_POLICY__ALLOW", "10.0.0.0/8"),
                    ("TACITURN_POLICY__DENY", "198.51.100.0/24"),
                ],
                "opened are 10.0.0.0/8; closed are 198.51.100.0/24",
            ),
        ] {
            let text = text(&variables);
            assert!(text.contains(words), "{words} is not in:\n{text}");
        }
    }

    /// T26
    #[test]
    fn credentials_are_counted_and_named_but_never_shown() {
        let secrets =
            r#"[{ id = "new", value = "hunter2-a" }, { id = "old", value = "hunter2-b" }]"#;
        let text = text(&[
            ("TACITURN_AUTH__SECRETS", secrets),
            ("TACITURN_AUTH__USERS__ALICE", "hunter2-c"),
        ]);
        let line = "2 secrets: \"new\", \"old\"; 1 static user";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn what_is_not_answered_here_is_said() {
        let silent = text(&[]);
        assert!(!silent.contains("Binding:") && !silent.contains("Redirects:"));
        let text = text(&[
            (
                "TACITURN_FEATURES__BINDING",
                "{ default = \"authenticated\", udp = \"off\", \"[::]:3478\" = \"open\" }",
            ),
            (
                "TACITURN_ALTERNATE__SERVERS",
                "203.0.113.8:3478, [2001:db8::8]:3478",
            ),
        ]);
        for line in [
            "Binding: answered to who has a credential; not answered on UDP; answered to everybody \
             on [::]:3478",
            "Redirects: new allocations to 203.0.113.8:3478, [2001:db8::8]:3478, while this server \
             is being emptied",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn what_is_not_kept_is_said() {
        let kept = text(&[("TACITURN_STATE__DIR", "/var/lib/taciturn")]);
        assert!(kept.contains("Keys: kept in /var/lib/taciturn"), "{kept}");
        let text = text(&[
            ("TACITURN_ADMIN__LISTEN", "off"),
            ("TACITURN_AUTH__STRICT", "true"),
            ("TACITURN_LIMITS__USER_ALLOCATIONS", "4"),
        ]);
        for words in [
            "Keys: made for each run",
            "Admin: off",
            "or until its credential expires",
            "4 for one user",
            "Workers: 2, one for each core",
        ] {
            assert!(text.contains(words), "{words} is not in:\n{text}");
        }
    }
}
