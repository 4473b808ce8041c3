//! What relay ports tell: by their order, by coming again, and by how they answer.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use taciturn::proto::AddressFamily;

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::plane::{V4, V6};
use crate::report::Report;
use crate::source::root;
use crate::stage::{Party, Stage};

use super::SOON;

const DRAWS: u32 = 1_600;
/// 15 degrees of freedom: exceeded once in three million runs.
const CHI_SQUARE: f64 = 60.0;

/// L9: T68, T69
pub(super) fn adjacency(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[("log.level", r#""warn""#)]);
    let mut client = stage.client(Party::Alice, V4, "alice");
    let mut seen = BTreeSet::new();
    let mut buckets = [0_u32; 16];
    let (mut last, mut neighbours) = (0_u16, 0);
    for _ in 0..DRAWS {
        let port = client.allocate(V4).port();
        assert_eq!(client.refresh(0).code(), SUCCESS);
        report.holds(
            seen.insert(port),
            format!("{port} comes again before its rest is over"),
        );
        neighbours += u32::from(port.abs_diff(last) == 1);
        // The range has 2^14 ports.
        buckets[usize::from(port.wrapping_sub(last) & 0x3fff) >> 10] += 1;
        last = port;
    }
    let expected = f64::from(DRAWS) / 16.0;
    let chi: f64 = buckets
        .iter()
        .map(|count| (f64::from(*count) - expected).powi(2) / expected)
        .sum();
    report.holds(
        chi < CHI_SQUARE,
        format!("distances are not even: {buckets:?}"),
    );
    report.holds(neighbours < 10, format!("{neighbours} neighbours"));
    assert!(daemon.metric("taciturn_ports{", "resting") >= u64::from(DRAWS) - 1);
    report.looked(format!(
        "{DRAWS} ports, chi-square {chi:.1}, {neighbours} neighbours"
    ));
    report
}

/// How a port answers a stranger who knocks a few times.
fn knock(stage: &Stage, port: SocketAddr) -> Vec<Option<ErrorKind>> {
    let from = match port {
        SocketAddr::V4(_) => Party::Mallory.at(V4),
        SocketAddr::V6(_) => Party::Mallory.at(V6),
    };
    let socket = stage
        .party(Party::Mallory)
        .enter(|| UdpSocket::bind((from, 0)).unwrap());
    socket.connect(port).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let knocks = (0..3).map(|_| {
        socket.send(b"is anybody there?").ok();
        match socket.recv(&mut [0; 1_500]) {
            Ok(_) => None,
            Err(error) => Some(error.kind()),
        }
    });
    knocks.collect()
}

/// Whether what a permitted peer sends to a relayed address arrives.
fn hears_a_peer(stage: &Stage, client: &mut Client, live: SocketAddr) -> bool {
    let from = (Party::Bob.at(AddressFamily::of(live.ip())), 0);
    let peer = stage
        .party(Party::Bob)
        .enter(|| UdpSocket::bind(from).unwrap());
    assert_eq!(client.permit(peer.local_addr().unwrap()), SUCCESS);
    peer.send_to(b"a friend", live).unwrap();
    client.receive().payload() == b"a friend"
}

/// L9: T72
pub(super) fn probes(stage: &Stage) -> Report {
    let mut report = Report::default();
    let rule = root().join("deploy/nftables/taciturn.nft");
    let rule = rule.to_str().unwrap();
    for (sockets, changes) in [
        ("none", ("relay.bind", r#""auto""#)),
        ("always", ("relay.bind", r#""always""#)),
        ("any", ("policy.peers", r#""any""#)),
    ] {
        let _daemon = stage.serve(&[changes]);
        for family in [V4, V6] {
            let mut client = stage.client(Party::Alice, family, "alice");
            let live = client.allocate(family);
            let free = [50_001, 50_002].map(|port| SocketAddr::new(live.ip(), port));
            let free = free.into_iter().find(|free| *free != live).unwrap();
            let differ = || knock(stage, live) != knock(stage, free);
            if sockets != "none" {
                // The control: without the rule a live port is told from a free one.
                assert!(differ(), "no difference without the rule ({sockets})");
                stage.relay.run(&["nft", "-f", rule]);
            }
            report.holds(
                !differ(),
                format!("{family:?}, sockets {sockets}: live and free differ"),
            );
            report.holds(client.receive_within(SOON).is_none(), "a knock is let in");
            if sockets == "any" {
                assert!(
                    hears_a_peer(stage, &mut client, live),
                    "the rule closes live ports"
                );
            }
            if sockets != "none" {
                stage
                    .relay
                    .run(&["nft", "delete", "table", "inet", "taciturn"]);
            }
        }
        report.looked(format!(
            "knocks at live and free ports (sockets: {sockets})"
        ));
    }
    report
}
