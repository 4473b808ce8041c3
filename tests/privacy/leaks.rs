//! Every way in which an endpoint's address, or who it is, is known to leak from a relayed call.

/// A leak, and what somebody learns by it.
pub(crate) struct Leak {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
}

/// What the server enforces against. Each has an attack.
pub(crate) const ENFORCED: [Leak; 17] = [
    leak(
        "L1",
        "a peer's own address in XOR-PEER-ADDRESS, or by what it sends",
    ),
    leak(
        "L2",
        "a permission for an IP lets everybody behind that relay IP in",
    ),
    leak(
        "L3",
        "the own address in XOR-MAPPED-ADDRESS, on its way into signalling",
    ),
    leak(
        "L4",
        "open Binding where an application wanted relaying alone",
    ),
    leak(
        "L5",
        "the server's inside: origins, private addresses, software, reasons",
    ),
    leak("L6", "ICMP: whether the other party is there, and how far"),
    leak("L7", "TTL, DSCP, flow label, IP-ID of the hidden side"),
    leak("L8", "the relay's place, which follows its client's"),
    leak(
        "L9",
        "neighbouring ports, ports used again, live ports told from free ones",
    ),
    leak("L10", "USERNAME in clear ties an account to an address"),
    leak("L11", "logs"),
    leak("L12", "labels of metrics, and groups of one"),
    leak("L13", "hooks, events, API and command line"),
    leak("L14", "the PROXY header, forged or in clear"),
    leak(
        "L15",
        "cores, memory, /proc, process titles, connected sockets",
    ),
    leak("L16", "a hairpin that shows private addresses behind NAT"),
    leak("L17", "moving: the old 5-tuple, or a new relayed address"),
];

/// What no relay can hide.
pub(crate) const OUT_OF_REACH: [Leak; 2] = [
    leak("L18", "times and sizes, compared by who sees both legs"),
    leak(
        "L19",
        "what the parties' media and signalling say themselves",
    ),
];

const fn leak(id: &'static str, what: &'static str) -> Leak {
    Leak { id, what }
}
