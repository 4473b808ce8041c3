//! What works today and may be regretted tomorrow. Each warning says what is so, why it matters
//! and what to do.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use bytesize::ByteSize;

use super::facts::Facts;
use super::{opens_relay_sockets, relayed_addresses};
use crate::config::Settings;
use crate::dataplane::RelayAddress;
use crate::turn::Transport;

/// Descriptors besides those of sockets: epoll, wake-ups, the log, HTTP of operators.
const OTHER_DESCRIPTORS: u64 = 64;

/// Every warning about these settings on this machine.
pub(super) fn of(settings: &Settings, relays: &[RelayAddress], facts: &Facts) -> Vec<String> {
    let sockets = opens_relay_sockets(settings);
    let mut found = Vec::new();
    found.extend(absent_relays(relays, facts));
    found.extend(no_ipv4(relays));
    found.extend(only_loopback(relays));
    found.extend(refused_by_browsers(settings));
    found.extend(uncovered_host(settings));
    let listen_buffer = settings.listen.receive_buffer;
    let granted = facts.listen_buffer;
    found.extend(clamped(
        "listen.receive_buffer",
        listen_buffer,
        granted,
        facts,
    ));
    if sockets {
        let relay_buffer = settings.relay.receive_buffer;
        let granted = facts.relay_buffer;
        found.extend(clamped(
            "relay.receive_buffer",
            relay_buffer,
            granted,
            facts,
        ));
        found.extend(shared_ports(&settings.relay.ports, facts));
        found.extend(telling_ports(&settings.relay.ports, facts));
    }
    found.extend(few_descriptors(settings, relays, facts));
    found.extend(low_ports(settings, facts));
    found.extend(state_directory(facts));
    // A static user's password has no hour.
    if !settings.auth.secrets.is_empty() || settings.auth.is_empty() {
        found.extend(unkept_clock(facts));
    }
    found
}

fn absent_relays(relays: &[RelayAddress], facts: &Facts) -> Option<String> {
    let absent = relays.iter().map(|relay| relay.local);
    let absent = joined(absent.filter(|local| !is_here(*local, facts)))?;
    Some(format!(
        "relay.addresses names {absent}, which is no address of this machine: no socket can be \
         bound to it, so no peer outside this process is reached. Behind 1:1 NAT write the \
         machine's own address there, and the public one under relay.external."
    ))
}

fn no_ipv4(relays: &[RelayAddress]) -> Option<String> {
    let none = !relays.iter().any(|relay| relay.advertised.is_ipv4());
    // RFC 8656 §7.2: without REQUESTED-ADDRESS-FAMILY, IPv4 is what a client asks for.
    none.then(|| {
        "no relay address is IPv4: clients that do not ask for IPv6, and browsers do not, are \
         refused with 440. Add an IPv4 address to relay.addresses."
            .to_owned()
    })
}

fn only_loopback(relays: &[RelayAddress]) -> Option<String> {
    let all = relays.iter().all(|relay| relay.advertised.is_loopback());
    (all && !relays.is_empty()).then(|| {
        "every relay address is loopback: that is for trying out on one machine, not for calls \
         between two. Name the machine's address in relay.addresses."
            .to_owned()
    })
}

/// The ports of listeners that are so, by the keys that name them.
fn ports_of(settings: &Settings, are: impl Fn(u16) -> bool) -> Option<String> {
    let mut told: Vec<u16> = Vec::new();
    let keys: Vec<String> = Transport::ALL
        .into_iter()
        .filter_map(|transport| {
            let ports = settings.listen.of(transport).iter().map(SocketAddr::port);
            let new: Vec<u16> = ports.filter(|p| are(*p) && !told.contains(p)).collect();
            told.extend(&new);
            let ports = joined(new.into_iter())?;
            Some(format!("listen.{} has port {ports}", transport.label()))
        })
        .collect();
    (!keys.is_empty()).then(|| keys.join(" and "))
}

/// A client that verifies the certificate of a turns: URL looks for the URL's host in it.
fn uncovered_host(settings: &Settings) -> Option<String> {
    let keys = settings.tls.keys.as_ref()?;
    if settings.listen.tls.is_empty() && settings.listen.dtls.is_empty() {
        return None;
    }
    let Some(host) = &settings.public.host else {
        return settings.public.urls.is_empty().then(|| {
            "public.host is not set: minted turns: URLs name an address, and clients look for it \
             in the certificate. Name the certificate's host there."
                .to_owned()
        });
    };
    let pairs = keys.current();
    (!pairs.iter().any(|pair| pair.certificate().covers(host))).then(|| {
        format!(
            "public.host is {host}, which no certificate of tls.cert is for: clients refuse it. \
             Name a host of the certificate, or use one for this host."
        )
    })
}

fn refused_by_browsers(settings: &Settings) -> Option<String> {
    let refused = |port| (1..1024).contains(&port) && ![53, 80, 443].contains(&port);
    let ports = ports_of(settings, refused)?;
    Some(format!(
        "{ports}: browsers connect to TURN servers below 1024 only on 53, 80 \
         and 443. Use one of these, or 3478."
    ))
}

/// What `check` is granted says nothing of the service when only `check` has the privilege.
fn clamped(key: &str, asked: usize, granted: Option<usize>, facts: &Facts) -> Option<String> {
    let size = |bytes: usize| ByteSize::b(bytes as u64).display().iec();
    let sysctl = format!("`sysctl -w net.core.rmem_max={asked}` (and in /etc/sysctl.d)");
    let granted = granted?;
    if granted < asked {
        return Some(format!(
            "{key} asks for {}, the kernel grants {}: bursts of packets are lost beyond that. \
             {sysctl}, or give the process CAP_NET_ADMIN.",
            size(asked),
            size(granted),
        ));
    }
    let unprivileged = facts.rmem_max.filter(|most| *most < asked)?;
    Some(format!(
        "{key} asks for {}, which the kernel grants to this process: a service without \
         CAP_NET_ADMIN would get {}, and bursts of packets are lost beyond that. {sysctl}, or \
         give the service CAP_NET_ADMIN.",
        size(asked),
        size(unprivileged),
    ))
}

fn low_ports(settings: &Settings, facts: &Facts) -> Option<String> {
    let least = facts.unprivileged_port?;
    if facts.binds_low_ports? {
        return None;
    }
    let ports = ports_of(settings, |port| (1..least).contains(&port))?;
    Some(format!(
        "{ports}, and below {least} a process needs CAP_NET_BIND_SERVICE, \
         which this one has not. AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or \
         `sysctl -w net.ipv4.ip_unprivileged_port_start`, or a higher port."
    ))
}

/// Who can replace the keys in it can tell which allocations are whose.
fn state_directory(facts: &Facts) -> Option<String> {
    let place = facts.state.as_ref().filter(|place| place.is_directory)?;
    let shown: String = place.nearest.to_string_lossy().escape_debug().collect();
    let others = place.mode & 0o022;
    if !place.is_writable {
        let made = if place.is_there {
            ""
        } else {
            ", where it is to be made"
        };
        Some(format!(
            "state.dir: this user may not write in {shown}{made}. If `serve` is to run as this \
             user, give them the directory: `install -d -m 700 -o USER`."
        ))
    } else if others != 0 && place.is_there {
        Some(format!(
            "state.dir: others than its owner may write in {shown} (mode {:04o}), and so replace \
             the keys in it. `chmod go-w` it.",
            place.mode
        ))
    } else {
        None
    }
}

fn shared_ports(ports: &RangeInclusive<u16>, facts: &Facts) -> Option<String> {
    let ephemeral = facts.ephemeral.as_ref()?;
    let first = *ports.start().max(ephemeral.start());
    let last = *ports.end().min(ephemeral.end());
    let reserved = |port: u16| facts.reserved.iter().any(|range| range.contains(&port));
    if (first..=last).all(reserved) {
        return None;
    }
    Some(format!(
        "relay.ports overlaps the ports {}-{} that the kernel gives to other programs, which may \
         hold one when an allocation needs it. \
         `sysctl -w net.ipv4.ip_local_reserved_ports={}` (and in /etc/sysctl.d).",
        ephemeral.start(),
        ephemeral.end(),
        with_reserved(&(first..=last), &facts.reserved),
    ))
}

/// A relay socket drops in silence, while the kernel answers for a port that nobody holds.
fn telling_ports(ports: &RangeInclusive<u16>, facts: &Facts) -> Option<String> {
    const REMEDY: &str = "Set relay.ports in deploy/nftables/taciturn.nft and load it with \
                          `nft -f` (and from /etc/nftables.conf).";
    let said = match &facts.silent_ports {
        None => "and this user may not see, or has no `nft` to see, whether a firewall hides that",
        Some(silent) => {
            let covers = |range: &RangeInclusive<u16>| {
                range.contains(ports.start()) && range.contains(ports.end())
            };
            if silent.iter().any(covers) {
                return None;
            }
            "and no table `inet taciturn` of nftables hides that for all of relay.ports"
        }
    };
    Some(format!(
        "relayed addresses have sockets, so whoever knocks at relay ports can tell live ones, \
         which are silent, from free ones, for which the kernel answers \"port unreachable\", \
         {said}. {REMEDY}"
    ))
}

/// The list of reserved ports with `more` in it: a sysctl replaces the whole list.
fn with_reserved(more: &RangeInclusive<u16>, reserved: &[RangeInclusive<u16>]) -> String {
    let kept = reserved
        .iter()
        .filter(|range| !(more.contains(range.start()) && more.contains(range.end())));
    let ranges: Vec<String> = kept
        .chain([more])
        .map(|range| format!("{}-{}", range.start(), range.end()))
        .collect();
    ranges.join(",")
}

/// Stream workers, if a client may come otherwise than by UDP.
pub(super) fn stream_workers(settings: &Settings, facts: &Facts) -> usize {
    let listen = &settings.listen;
    if listen.tcp.is_empty() && listen.tls.is_empty() && listen.dtls.is_empty() {
        return 0;
    }
    let workers = settings.workers.count.map_or(facts.cores, usize::from);
    let streams = settings.workers.streams;
    streams.map_or_else(|| workers.min(8), usize::from)
}

/// Sockets that listen: each worker has one of its own for each address.
pub(super) fn listening_sockets(settings: &Settings, facts: &Facts) -> u64 {
    let workers = settings.workers.count.map_or(facts.cores, usize::from);
    let addresses = |listener: &SocketAddr| {
        let family = |address: &&IpAddr| address.is_ipv4() == listener.is_ipv4();
        if listener.ip().is_unspecified() {
            facts.addresses.iter().filter(family).count()
        } else {
            1
        }
    };
    let listen = &settings.listen;
    let datagrams: usize = listen.udp.iter().map(addresses).sum();
    // A listener that is both TCP and TLS has one socket.
    let tls = listen.tls.iter().filter(|tls| !listen.tcp.contains(tls));
    let streams = listen.tcp.iter().chain(tls).chain(&listen.dtls);
    let streams: usize = streams.map(addresses).sum();
    (datagrams * workers + streams * stream_workers(settings, facts)) as u64
}

/// Fewer files than relay sockets and the rest take.
pub(super) fn few_descriptors(
    settings: &Settings,
    relays: &[RelayAddress],
    facts: &Facts,
) -> Option<String> {
    let limit = facts.descriptors?;
    let listeners = listening_sockets(settings, facts);
    let others = listeners + OTHER_DESCRIPTORS;
    if limit < others {
        // Below the listeners alone nothing starts, and that is told elsewhere.
        return (limit > listeners).then(|| {
            format!(
                "this process may open {limit} files, and `serve` opens about {others} at its \
                 start: {listeners} listeners, each worker's counted, and {OTHER_DESCRIPTORS} \
                 besides. LimitNOFILE={} in the systemd unit, or `ulimit -Hn`, or fewer \
                 workers.count.",
                others.next_power_of_two(),
            )
        });
    }
    let needed = relayed_addresses(settings, relays) + others;
    (opens_relay_sockets(settings) && limit < needed).then(|| {
        format!(
            "this process may open {limit} files, and each allocation opens a socket: about {} \
             allocations at a time, not {}. LimitNOFILE={} in the systemd unit, or `ulimit -Hn`, \
             or fewer relay.ports.",
            limit - others,
            relayed_addresses(settings, relays),
            needed.next_power_of_two(),
        )
    })
}

fn unkept_clock(facts: &Facts) -> Option<String> {
    (facts.clock_synchronised == Some(false)).then(|| {
        "the clock is not synchronised, as far as the kernel knows: credentials are good until an \
         hour of the clock, and one that is wrong admits too long or refuses everybody. Run an \
         NTP client, such as chrony or systemd-timesyncd."
            .to_owned()
    })
}

/// Whether sockets can be bound to `address`: every address of 127.0.0.0/8 is at hand.
pub(super) fn is_here(address: IpAddr, facts: &Facts) -> bool {
    facts.addresses.contains(&address) || (address.is_ipv4() && address.is_loopback())
}

pub(super) fn joined(items: impl Iterator<Item = impl ToString>) -> Option<String> {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    (!items.is_empty()).then(|| items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::facts::Place;
    use super::super::testing::{certificate_files, facts, relays, settings};
    use super::*;

    /// The only warning that these variables bring on that machine.
    fn only(variables: &[(&str, &str)], facts: &Facts) -> String {
        let mut found = all(variables, facts);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn all(variables: &[(&str, &str)], facts: &Facts) -> Vec<String> {
        let settings = settings(variables);
        of(&settings, &relays(&settings), facts)
    }

    fn assert_says(warning: &str, parts: &[&str]) {
        for part in parts {
            assert!(warning.contains(part), "{part} is not in: {warning}");
        }
    }

    const OPEN: (&str, &str) = ("TACITURN_POLICY__PEERS", "any");

    #[test]
    fn a_sound_server_brings_no_warning() {
        assert_eq!(all(&[], &facts()), Vec::<String>::new());
        assert_eq!(all(&[OPEN], &facts()), Vec::<String>::new());
    }

    #[test]
    fn a_clamped_buffer_is_told_with_what_was_asked_and_granted() {
        let facts = Facts {
            listen_buffer: Some(212_992),
            relay_buffer: Some(212_992),
            rmem_max: Some(212_992),
            ..facts()
        };
        let warning = only(&[], &facts);
        assert_says(
            &warning,
            &[
                "listen.receive_buffer",
                "8.0 MiB",
                "208.0 KiB",
                "rmem_max=8388608",
            ],
        );
        let both = all(&[OPEN], &facts);
        assert_eq!(both.len(), 2);
        assert_says(&both[1], &["relay.receive_buffer", "1.0 MiB"]);
    }

    #[test]
    fn a_buffer_that_only_a_privileged_process_gets_is_told() {
        let facts = Facts {
            rmem_max: Some(212_992),
            ..facts()
        };
        assert_says(
            &only(&[], &facts),
            &["a service without CAP_NET_ADMIN would get 208.0 KiB"],
        );
    }

    #[test]
    fn a_low_port_is_told_to_who_may_not_bind_it() {
        let listen = ("TACITURN_LISTEN__UDP", "0.0.0.0:443,0.0.0.0:3478");
        let facts = Facts {
            binds_low_ports: Some(false),
            ..facts()
        };
        let warning = only(&[listen], &facts);
        assert_says(
            &warning,
            &["port 443,", "below 1024", "CAP_NET_BIND_SERVICE"],
        );
        let open = Facts {
            unprivileged_port: Some(443),
            ..facts
        };
        assert_eq!(all(&[listen], &open), Vec::<String>::new());
    }

    /// T72
    #[test]
    fn ports_that_tell_whether_they_live_are_told_where_sockets_are_bound() {
        let with = |silent_ports| Facts {
            silent_ports,
            ..facts()
        };
        let always = ("TACITURN_RELAY__BIND", "always");
        for facts in [
            with(None),
            with(Some(Vec::new())),
            with(Some(vec![50_000..=65_535])),
        ] {
            assert_eq!(all(&[], &facts), Vec::<String>::new());
            for open in [OPEN, always] {
                let warning = only(&[open], &facts);
                assert_says(
                    &warning,
                    &["deploy/nftables/taciturn.nft", "port unreachable"],
                );
            }
        }
        assert_says(&only(&[OPEN], &with(None)), &["may not see"]);
        assert_says(&only(&[OPEN], &with(Some(Vec::new()))), &["no table"]);
    }

    #[test]
    fn a_state_directory_that_is_not_its_owners_alone_is_told() {
        let state = |mode, is_writable, is_there| {
            let place = Place {
                nearest: "/state".into(),
                is_there,
                is_directory: true,
                is_writable,
                mode,
            };
            let facts = Facts {
                state: Some(place),
                ..facts()
            };
            all(&[], &facts)
        };
        assert_eq!(state(0o700, true, true), Vec::<String>::new());
        // A directory that `serve` makes is its own, wherever it stands.
        assert_eq!(state(0o1777, true, false), Vec::<String>::new());
        for (mode, word) in [(0o770, "0770"), (0o757, "0757")] {
            assert_says(&state(mode, true, true)[0], &["/state", word, "go-w"]);
        }
        assert_says(&state(0o700, false, true)[0], &["may not write in /state."]);
        assert_says(&state(0o755, false, false)[0], &["/state, where it is"]);
    }

    #[test]
    fn descriptors_too_few_for_the_listeners_are_told_whatever_relays_do() {
        // Two addresses of each family, for two workers.
        let told = |descriptors| {
            let facts = Facts {
                descriptors: Some(descriptors),
                ..facts()
            };
            all(&[], &facts)
        };
        assert_eq!(told(80), Vec::<String>::new());
        for few in [79, 17] {
            assert_says(&told(few)[0], &["about 80 at its start", "16 listeners"]);
        }
    }

    #[test]
    fn relay_ports_that_other_programs_get_are_told_with_the_sysctl() {
        let shared = Facts {
            ephemeral: Some(32768..=60999),
            reserved: vec![8080..=8080, 50000..=50010],
            ..facts()
        };
        let warning = only(&[OPEN], &shared);
        assert_says(
            &warning,
            &[
                "32768-60999",
                "ip_local_reserved_ports=8080-8080,49152-60999",
            ],
        );
        let reserved = Facts {
            reserved: vec![40000..=50000, 50001..=61000],
            ..shared.clone()
        };
        assert_eq!(all(&[OPEN], &reserved), Vec::<String>::new());
        // The hairpin binds nothing, so nobody can be in its way.
        assert_eq!(all(&[], &shared), Vec::<String>::new());
    }

    #[test]
    fn few_descriptors_are_told_when_allocations_open_sockets() {
        let facts = Facts {
            descriptors: Some(1024),
            ..facts()
        };
        let ports = ("TACITURN_RELAY__PORTS", "50000-50999");
        let warning = only(&[OPEN, ports], &facts);
        assert_says(&warning, &["1024", "944 ", "not 1000", "LimitNOFILE=2048"]);
        let fleet = ("TACITURN_POLICY__FLEET", "203.0.113.8");
        let always = ("TACITURN_RELAY__BIND", "always");
        for opens in [fleet, always] {
            assert_says(&only(&[opens, ports], &facts), &["1024"]);
        }
        assert_eq!(all(&[ports], &facts), Vec::<String>::new());
    }

    #[test]
    fn a_port_that_browsers_refuse_is_told() {
        let listen = |udp| all(&[("TACITURN_LISTEN__UDP", udp)], &facts());
        let found = listen("0.0.0.0:1023,0.0.0.0:443,0.0.0.0:500");
        assert_eq!(found.len(), 1);
        assert_says(&found[0], &["1023, 500:", "53, 80 and 443"]);
        for fine in ["0.0.0.0:53", "0.0.0.0:80", "0.0.0.0:1024", "0.0.0.0:0"] {
            assert_eq!(listen(fine), Vec::<String>::new(), "{fine}");
        }
    }

    #[test]
    fn a_port_of_another_transport_is_told_by_its_own_key() {
        let home = tempfile::tempdir().unwrap();
        let [cert, key] = certificate_files(home.path(), &["a.example"]);
        let warning = only(
            &[
                ("TACITURN_LISTEN__UDP", "0.0.0.0:3478,0.0.0.0:99"),
                ("TACITURN_LISTEN__TLS", "0.0.0.0:500"),
                ("TACITURN_TLS__CERT", &cert),
                ("TACITURN_TLS__KEY", &key),
                ("TACITURN_PUBLIC__HOST", "a.example"),
            ],
            &facts(),
        );
        assert_says(
            &warning,
            &["listen.udp has port 99 and listen.tls has port 500: browsers"],
        );
        assert!(!warning.contains("listen.tcp"), "{warning}");
    }

    #[test]
    fn a_host_that_no_certificate_covers_is_told() {
        let home = tempfile::tempdir().unwrap();
        let [cert, key] = certificate_files(home.path(), &["a.example", "*.b.example"]);
        let with = |more: &[(&str, &str)]| {
            let tls = [
                ("TACITURN_LISTEN__TLS", "0.0.0.0:443"),
                ("TACITURN_TLS__CERT", cert.as_str()),
                ("TACITURN_TLS__KEY", key.as_str()),
            ];
            all(&[&tls[..], more].concat(), &facts())
        };
        let host = |name| with(&[("TACITURN_PUBLIC__HOST", name)]);
        assert_eq!(host("a.example"), Vec::<String>::new());
        assert_eq!(host("turn.b.example"), Vec::<String>::new());
        assert_says(
            &host("c.example")[0],
            &["public.host is c.example", "no certificate"],
        );
        assert_says(&with(&[])[0], &["public.host is not set"]);
        let urls = ("TACITURN_PUBLIC__URLS", "turns:c.example");
        assert_eq!(with(&[urls]), Vec::<String>::new());
    }

    #[test]
    fn relays_without_ipv4_are_told() {
        let warning = only(&[("TACITURN_RELAY__ADDRESSES", "2001:db8::7")], &facts());
        assert_says(&warning, &["no relay address is IPv4", "440"]);
        let both = ("TACITURN_RELAY__ADDRESSES", "2001:db8::7,203.0.113.7");
        assert_eq!(all(&[both], &facts()), Vec::<String>::new());
    }

    #[test]
    fn loopback_relays_are_told() {
        let warning = only(&[("TACITURN_RELAY__ADDRESSES", "127.0.0.2")], &facts());
        assert_says(&warning, &["loopback", "relay.addresses"]);
    }

    #[test]
    fn an_address_that_is_not_here_is_told() {
        let warning = only(&[("TACITURN_RELAY__ADDRESSES", "198.51.100.1")], &facts());
        assert_says(
            &warning,
            &["relay.addresses names 198.51.100.1", "external"],
        );
        let nat = [
            ("TACITURN_RELAY__ADDRESSES", "203.0.113.7"),
            ("TACITURN_RELAY__EXTERNAL", "198.51.100.1"),
        ];
        assert_eq!(all(&nat, &facts()), Vec::<String>::new());
    }

    #[test]
    fn a_clock_nobody_keeps_is_told_unless_only_static_users_allocate() {
        let facts = Facts {
            clock_synchronised: Some(false),
            ..facts()
        };
        assert_says(&only(&[], &facts), &["not synchronised", "NTP"]);
        let users = [
            ("TACITURN_AUTH__SECRETS", "[]"),
            ("TACITURN_AUTH__USERS__ALICE", "hunter2"),
        ];
        assert_eq!(all(&users, &facts), Vec::<String>::new());
    }

    #[test]
    fn nothing_is_warned_of_that_the_kernel_does_not_tell() {
        let facts = Facts {
            listen_buffer: None,
            relay_buffer: None,
            rmem_max: None,
            unprivileged_port: None,
            binds_low_ports: None,
            ephemeral: None,
            descriptors: None,
            clock_synchronised: None,
            ..facts()
        };
        assert_eq!(all(&[OPEN], &facts), Vec::<String>::new());
    }
}
