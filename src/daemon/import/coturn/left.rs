//! Options of coturn that have no counterpart here, and why.

/// Options that share a reason.
const LEFT: &[(&[&str], &str)] = &[
    (
        &["fingerprint"],
        "FINGERPRINT is checked where it comes and sent where it was",
    ),
    (
        &["stale-nonce"],
        "nonces are renewed on their own, without any state",
    ),
    (
        &["channel-lifetime", "permission-lifetime"],
        "RFC 8656 fixes it (ten and five minutes), and clients count on that",
    ),
    (
        &["max-allocate-timeout"],
        "what has not allocated holds no state over UDP, and on a connection little time",
    ),
    (
        &["bps-capacity"],
        "there is no limit of the whole server's rate; tenant_rate limits one platform's",
    ),
    (
        &["stun-only"],
        "a relay relays; a STUN server without TURN is another program",
    ),
    (&["no-udp-relay"], "UDP is what is relayed"),
    (
        &[
            "alt-listening-port",
            "alt-tls-listening-port",
            "no-rfc5780",
            "no-stun-backward-compatibility",
            "response-origin-only-with-rfc5780",
        ],
        "NAT behaviour discovery is off unless features.nat_discovery = true, with two addresses \
         and two ports in listen.udp; classic STUN (RFC 3489) is not answered",
    ),
    (
        &["aux-server"],
        "write the additional address into listen.udp and listen.tcp",
    ),
    (
        &["tcp-proxy-port"],
        "a PROXY header is taken on every listener from networks that are trusted: write the load \
         balancers' into proxy_protocol.trusted",
    ),
    (
        &["tls-alternate-server"],
        "alternate.servers are for clients of every transport",
    ),
    (
        &["listening-device", "relay-device"],
        "sockets are bound to addresses, not to devices",
    ),
    (
        &["server-name", "oauth"],
        "RFC 7635 is not served; a sealed username does its job",
    ),
    (
        &["server-relay"],
        "two relayed addresses of one server reach each other always, within the process",
    ),
    (
        &[
            "cipher-list",
            "dh-file",
            "dh566",
            "dh1066",
            "ec-curve-name",
            "CA-file",
            "pkey-pwd",
            "no-tlsv1",
            "no-tlsv1_1",
            "no-tlsv1_2",
        ],
        "TLS 1.2 and 1.3 with rustls's own choice of ciphers; a key is wanted without a password, \
         and clients need no certificate",
    ),
    (
        &[
            "userdb",
            "psql-userdb",
            "mysql-userdb",
            "mongo-userdb",
            "redis-userdb",
            "secret-key-file",
            "no-dynamic-realms",
            "no-dynamic-ip-list",
        ],
        "there is no database: secrets and users stand in the configuration, and bans and \
         revocations come by the API",
    ),
    (
        &["redis-statsdb"],
        "what allocations carried is told by [events], as JSON lines or webhooks",
    ),
    (
        &[
            "log-file",
            "simple-log",
            "new-log-timestamp",
            "new-log-timestamp-format",
            "syslog",
            "syslog-facility",
            "no-stdout-log",
            "log-binding",
        ],
        "the log goes to standard error, from where systemd or the container's runtime takes it; \
         [log] has its form and level",
    ),
    (
        &[
            "no-cli",
            "cli-ip",
            "cli-port",
            "cli-password",
            "cli-max-output-sessions",
            "web-admin",
            "web-admin-ip",
            "web-admin-port",
            "web-admin-listen-on-workers",
            "acme-redirect",
        ],
        "there is no telnet and no web page: `taciturn allocations`, `revoke` and `ban` reach the \
         daemon by its control socket, and platforms by [api]",
    ),
    (
        &["proc-user", "proc-group", "pidfile", "daemon"],
        "systemd's unit has the user, and no PID file is needed",
    ),
    (
        &["no-software-attribute", "software-attribute"],
        "SOFTWARE is never sent",
    ),
    (
        &[
            "check-origin-consistency",
            "no-auth-pings",
            "ne",
            "udp-self-balance",
            "prod",
        ],
        "it has no counterpart, and none is needed",
    ),
    (
        &["keep-address-family", "allocation-default-address-family"],
        "an Allocate that names no family gets IPv4 (RFC 8656 §7.2)",
    ),
    (
        &["unauthorized-ratelimit", "stateless-nonce-secret"],
        "replies to unauthenticated sources are always limited, by limits.unvalidated, and nonces \
         are always stateless",
    ),
    (
        &[
            "prometheus-path",
            "prometheus-tls",
            "prometheus-username-labels",
        ],
        "metrics are at /metrics over HTTP, and no label ever grows with users",
    ),
    (
        &["drain-min-allocations"],
        "a draining server waits for all its allocations",
    ),
];

/// Why `option` is left out; none for one that is not known.
pub(super) fn why(option: &str) -> Option<&'static str> {
    LEFT.iter()
        .find(|(options, _)| options.contains(&option))
        .map(|(_, why)| *why)
}
