//! The attacks, in the order of the leaks.

mod names;
mod nat;
mod nodes;
mod outputs;
mod packets;
mod ports;
mod reflection;
mod strangers;

use std::net::SocketAddr;
use std::time::Duration;

use taciturn::proto::AddressFamily;

use crate::lab::packet::Packet;
use crate::lab::search::{Finding, Form, in_packets};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::report::Attack;
use crate::stage::{Party, Stage};

/// After so long, what was sent and not dropped has arrived.
const SOON: Duration = Duration::from_millis(300);

/// All of them; each leak has one at least.
pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        leak: "L1",
        how: "Alice names Bob's own address in every request; Bob sends from it to hers, bound or not",
        run: strangers::own_addresses,
    },
    Attack {
        leak: "L2",
        how: "a stranger with a credential sends to Alice from the relay IP that she permitted (T65)",
        run: strangers::same_relay_ip,
    },
    Attack {
        leak: "L2",
        how: "under policy `call`, a stranger's and even Bob's own credential of another call",
        run: strangers::other_call,
    },
    Attack {
        leak: "L3",
        how: "a masked credential: Allocate, again, Binding with and without it, Refresh; a call goes on",
        run: reflection::masked,
    },
    Attack {
        leak: "L4",
        how: "Binding, with and without credentials, where it is off or authenticated",
        run: reflection::binding,
    },
    Attack {
        leak: "L5",
        how: "a zoo of requests, good and bad, to a server with private relay addresses behind NAT",
        run: reflection::inside,
    },
    Attack {
        leak: "L6",
        how: "Bob's socket closes, and the kernel says so while Alice goes on sending",
        run: strangers::errors,
    },
    Attack {
        leak: "L7",
        how: "TTL 17, DSCP EF, each ECN and a flow label, by hairpin and relay socket, both ways (T67)",
        run: packets::headers,
    },
    Attack {
        leak: "L8",
        how: "both parties of forty calls are minted for, and try the other node's credentials here",
        run: nodes::one_for_both,
    },
    Attack {
        leak: "L9",
        how: "1,600 allocations of one user: distances by chi-square, ports that come again (T68, T69)",
        run: ports::adjacency,
    },
    Attack {
        leak: "L9",
        how: "a stranger probes live and free ports, without sockets and with deploy/nftables (T72)",
        run: ports::probes,
    },
    Attack {
        leak: "L10",
        how: "sealed usernames in a capture: the user, the call, the subject, and two mintings (T70)",
        run: names::sealed,
    },
    Attack {
        leak: "L11",
        how: "a call from 203.0.113.7 and 2001:db8::7 at level trace: text, JSON and journal (T62)",
        run: outputs::logs,
    },
    Attack {
        leak: "L11",
        how: "the glass broken: the log names clients, as a control, and nothing else does",
        run: outputs::broken_glass,
    },
    Attack {
        leak: "L12",
        how: "the same, and the series that fifty users leave behind (T40, T62)",
        run: outputs::metrics,
    },
    Attack {
        leak: "L13",
        how: "the same: every route, good and bad requests, commands, events, webhooks, files (T62)",
        run: outputs::interfaces,
    },
    Attack {
        leak: "L14",
        how: "PROXY headers from who may and who may not send them, on UDP and TCP (T61)",
        run: nat::proxy,
    },
    Attack {
        leak: "L15",
        how: "a crash; /proc of a relaying daemon: sockets, titles, environment, threads, files (T71)",
        run: outputs::host,
    },
    Attack {
        leak: "L16",
        how: "a hairpin between allocations whose sockets have private addresses; captures (T57)",
        run: nat::hairpin,
    },
    Attack {
        leak: "L17",
        how: "Alice moves with her ticket, and without; the old 5-tuple goes on sending",
        run: nat::moved,
    },
];

/// Two parties on `family`, each with a relayed address that the other permits; Alice has a channel.
struct Call {
    a: Client,
    b: Client,
    at_a: SocketAddr,
    at_b: SocketAddr,
}

/// The channel on which Alice sends to Bob.
const CHANNEL: u16 = 0x4000;

impl Call {
    fn new(stage: &Stage, family: AddressFamily) -> Self {
        let mut a = stage.client(Party::Alice, family, "alice");
        let mut b = stage.client(Party::Bob, family, "bob");
        let (at_a, at_b) = (a.allocate(family), b.allocate(family));
        assert_eq!((a.bind(CHANNEL, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        Self { a, b, at_a, at_b }
    }

    /// Whether a packet from Bob is the next that Alice hears: nothing else was let through.
    fn alice_hears_only_bob(&mut self) -> bool {
        self.b.send_to(self.at_a, b"only this");
        self.a.receive() == Received::Channel(CHANNEL, b"only this".to_vec())
    }
}

/// The packets among these that reach a party.
fn reaching(party: Party, packets: &[Packet]) -> Vec<Packet> {
    let own = party.addresses().all();
    let reaches = |packet: &&Packet| own.contains(&packet.destination);
    packets.iter().filter(reaches).cloned().collect()
}

/// What names an address of `party` in what these packets carry; headers name the party's own, and
/// so do neighbours who look for it.
fn inside(party: Party, packets: &[Packet]) -> Vec<Finding> {
    let carrying = packets.iter().filter(|packet| packet.ends().is_some());
    let mut found = in_packets(party.addresses(), carrying);
    found.retain(|finding| finding.form != Form::Header);
    found
}
