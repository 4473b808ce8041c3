//! What the headers of packets show of who sent them.

use std::net::{SocketAddr, UdpSocket};

use socket2::SockRef;
use taciturn::proto::AddressFamily;

use crate::loopback::client::SUCCESS;
use crate::loopback::plane::{V4, V6};
use crate::loopback::wire::{Header, Wire};
use crate::report::Report;
use crate::stage::{Party, Stage, listener};
use taciturn::turn::Transport;

use super::{CHANNEL, Call};

/// Expedited forwarding, as calls ask for it.
const EF: u8 = 46;

/// Makes what `socket` sends recognisable. A flow label it has by default.
fn mark(socket: &UdpSocket, ecn: u8) {
    let socket = SockRef::from(socket);
    let traffic_class = u32::from(EF << 2 | ecn);
    if socket.local_addr().unwrap().is_ipv4() {
        socket.set_ttl_v4(17).unwrap();
        socket.set_tos_v4(traffic_class).unwrap();
    } else {
        socket.set_unicast_hops_v6(17).unwrap();
        socket.set_tclass_v6(traffic_class).unwrap();
    }
}

const fn plain(ecn: u8) -> Header {
    Header {
        hops: 64,
        traffic_class: ecn,
        flow_label: 0,
        dont_fragment: false,
    }
}

fn wire(stage: &Stage, party: Party, family: AddressFamily) -> Wire {
    stage.party(party).enter(|| Wire::open(family))
}

/// L7
pub(super) fn headers(stage: &Stage) -> Report {
    let mut report = Report::default();
    let _daemon = stage.serve(&[("policy.peers", r#""any""#)]);
    let mut seen = 0;
    for family in [V4, V6] {
        let mut call = Call::new(stage, family);
        let server = listener(family, Transport::Udp);
        let at = SocketAddr::new(Party::Bob.at(family), 0);
        let peer = stage
            .party(Party::Bob)
            .enter(|| UdpSocket::bind(at).unwrap());
        let to_peer = peer.local_addr().unwrap();
        assert_eq!(call.a.bind(0x4001, to_peer), SUCCESS);
        let (to_alice, to_bob) = (call.a.addr(), call.b.addr());
        let mut at_relay = stage.relay.enter(|| Wire::open(family));
        let (mut at_alice, mut at_bob) = (
            wire(stage, Party::Alice, family),
            wire(stage, Party::Bob, family),
        );
        for ecn in 0..4 {
            mark(&call.a.socket, ecn);
            mark(&peer, ecn);
            let sent = at_relay.see(to_alice, server, || call.a.send_channel(CHANNEL, b"marked"));
            let is_marked = sent.traffic_class == EF << 2 | ecn && sent.hops == 17;
            assert!(
                is_marked && (family == V4 || sent.flow_label != 0),
                "{sent:?}"
            );
            let hairpin = at_bob.see(server, to_bob, || {
                call.a.send_channel(CHANNEL, b"by hairpin")
            });
            let outward = at_bob.see(call.at_a, to_peer, || call.a.send_channel(0x4001, b"out"));
            let inward = at_alice.see(server, to_alice, || {
                peer.send_to(b"in", call.at_a).unwrap();
            });
            for (way, header) in [
                ("hairpin", hairpin),
                ("to a peer", outward),
                ("to a client", inward),
            ] {
                let told = format!("{family:?} {way}: {header:?}");
                report.holds(header == plain(ecn), told);
                seen += 1;
            }
        }
    }
    report.looked(format!("{seen} headers"));
    report
}
