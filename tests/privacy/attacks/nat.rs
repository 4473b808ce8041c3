//! Addresses that change, or stand for others: load balancers, NAT, and clients on the move.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use taciturn::proto::{
    AddressFamily, Method, MobilityTicket, RequestedAddressFamily, RequestedTransport,
};
use taciturn::turn::Transport;

use crate::lab::capture::Capture;
use crate::lab::search::{in_packets, in_text};
use crate::loopback::client::{Client, SUCCESS, channel_data};
use crate::loopback::message::Received;
use crate::loopback::plane::{V4, V6};
use crate::report::Report;
use crate::stage::{AWAY, BALANCED, INNER, Party, SERVICE, Stage, of};

use super::reflection::behind_nat;
use super::{CHANNEL, Call, SOON, reaching};

/// A PROXY protocol header, version 2, for UDP over IPv4.
fn header(source: SocketAddrV4) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c".to_vec();
    header.extend(source.ip().octets());
    header.extend(SERVICE.v4.octets());
    header.extend(source.port().to_be_bytes());
    header.extend(3478_u16.to_be_bytes());
    header
}

fn trusted() -> String {
    format!(r#"["{}"]"#, Party::Mallory.at(V4))
}

/// L14: T61
pub(super) fn proxy(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[("proxy_protocol.trusted", &trusted())]);
    let captures = [Party::Alice, Party::Bob].map(|party| stage.capture(party));
    let told = SocketAddrV4::new(BALANCED.v4, 4_242);

    // Who is not trusted is not believed, on either transport.
    let mut forger = stage.client(Party::Alice, V4, "alice");
    forger.prefix = header(told);
    let binding = crate::loopback::message::Build::request(Method::BINDING, [7; 12]).bytes();
    forger.send_raw(&binding);
    report.holds(
        forger.receive_within(SOON).is_none(),
        "a forged header is let in",
    );
    let mut stream = stage.client_over(Party::Alice, Transport::Tcp, "alice");
    let connection = stream.stream.as_mut().unwrap();
    connection.write(format!("PROXY TCP4 {} {} 4242 3478\r\n", told.ip(), SERVICE.v4).as_bytes());
    connection.write(&binding);
    let is_closed = connection.is_closed_within(SOON * 10);
    report.holds(is_closed, "a connection with a forged header is kept");

    // The balancer's client calls Bob, who sees neither of them; nor does the log.
    let mut balanced = stage.client(Party::Mallory, V4, "carol");
    balanced.prefix = header(told);
    let at_balanced = balanced.allocate(V4);
    let mapped = balanced.request(Method::BINDING, |r| r).mapped();
    assert_eq!(
        mapped,
        Some(told.into()),
        "the control: a trusted header is believed"
    );
    let mut bob = stage.client(Party::Bob, V4, "bob");
    let at_bob = bob.allocate(V4);
    assert_eq!(
        (balanced.bind(CHANNEL, at_bob), bob.permit(at_balanced)),
        (SUCCESS, SUCCESS)
    );
    balanced.send_channel(CHANNEL, b"through the balancer");
    let heard = Received::Data(at_balanced, b"through the balancer".to_vec());
    report.holds(bob.receive() == heard, "Bob hears another address");
    // Without its header even the balancer is nobody.
    balanced.prefix.clear();
    balanced.send_raw(&channel_data(CHANNEL, b"without"));
    report.holds(
        bob.receive_within(SOON).is_none(),
        "a datagram without a header is let in",
    );

    let [to_alice, to_bob] = captures.map(Capture::finish);
    let (to_alice, to_bob) = (
        reaching(Party::Alice, &to_alice),
        reaching(Party::Bob, &to_bob),
    );
    for hidden in [BALANCED, Party::Mallory.addresses()] {
        report.found("to bob", &in_packets(hidden, &to_bob));
        report.found("to alice", &in_packets(hidden, &to_alice));
    }
    let count = to_alice.len() + to_bob.len();
    let log = daemon.stop();
    for hidden in [BALANCED, Party::Alice.addresses()] {
        report.found("log", &in_text(hidden, &log));
    }
    report.looked(format!("{count} packets, {} KiB of log", log.len() / 1024));
    report
}

/// L16: T57
pub(super) fn hairpin(stage: &Stage) -> Report {
    let mut report = Report::default();
    for bind in [r#""auto""#, r#""always""#] {
        let changes = [&behind_nat()[..], &[("relay.bind", bind)]].concat();
        let daemon = stage.serve(&changes);
        let captures = [Party::Alice, Party::Bob].map(|party| stage.capture(party));
        for family in [V4, V6] {
            let mut call = Call::new(stage, family);
            let public = of(SERVICE, family);
            let told = [call.at_a.ip(), call.at_b.ip()];
            report.holds(told == [public; 2], format!("clients are told {told:?}"));
            for _ in 0..10 {
                call.a.send_channel(CHANNEL, b"to bob");
                let heard = Received::Data(call.at_a, b"to bob".to_vec());
                report.holds(call.b.receive() == heard, "Bob hears another address");
                report.holds(call.alice_hears_only_bob(), "Alice hears another address");
            }
            // The private face of Bob's relayed address is no way to him.
            let private = SocketAddr::new(of(INNER, family), call.at_b.port());
            let code = call.a.permit(private);
            report.holds(code == 403, format!("{code} for a private relay address"));
            call.a.send_to(private, b"by the private address");
            report.holds(
                call.b.receive_within(SOON).is_none(),
                "Bob is reached by it",
            );
        }
        let packets = captures.map(Capture::finish);
        for (party, packets) in [Party::Alice, Party::Bob].into_iter().zip(&packets) {
            let packets = reaching(party, packets);
            report.found(party.name(), &in_packets(INNER, &packets));
            let other = if party == Party::Alice {
                Party::Bob
            } else {
                Party::Alice
            };
            report.found(party.name(), &in_packets(other.addresses(), &packets));
            report.looked(format!(
                "{} packets to {} (bind {bind})",
                packets.len(),
                party.name()
            ));
        }
        let by_hairpin = daemon.metric("taciturn_packets_total", r#"path="hairpin""#);
        assert!(by_hairpin >= 80, "{by_hairpin} packets by hairpin");
    }
    report
}

/// A socket of Alice's, somewhere else.
fn elsewhere(stage: &Stage, family: AddressFamily) -> UdpSocket {
    let at = SocketAddr::new(of(AWAY, family), 0);
    stage
        .party(Party::Alice)
        .enter(|| UdpSocket::bind(at).unwrap())
}

/// An allocation with a mobility ticket (RFC 8016).
fn mobile(alice: &mut Client, family: AddressFamily) -> (SocketAddr, Vec<u8>) {
    let answer = alice.request(Method::ALLOCATE, |r| {
        r.with(&RequestedTransport::UDP)
            .with(&RequestedAddressFamily(family))
            .with(&MobilityTicket(b""))
    });
    (answer.relayed()[0], answer.ticket().unwrap())
}

/// L17
pub(super) fn moved(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[("features.mobility", "true")]);
    let capture = stage.capture(Party::Bob);
    for family in [V4, V6] {
        let mut alice = stage.client(Party::Alice, family, "alice");
        let (at_a, ticket) = mobile(&mut alice, family);
        let mut bob = stage.client(Party::Bob, family, "bob");
        let at_b = bob.allocate(family);
        assert_eq!(
            (alice.bind(CHANNEL, at_b), bob.permit(at_a)),
            (SUCCESS, SUCCESS)
        );
        let hears =
            |bob: &mut Client, data: &[u8]| bob.receive() == Received::Data(at_a, data.to_vec());
        alice.send_channel(CHANNEL, b"from home");
        report.holds(
            hears(&mut bob, b"from home"),
            "Bob hears another relayed address",
        );

        // From elsewhere, before she has shown her ticket: nobody.
        let home = std::mem::replace(&mut alice.socket, elsewhere(stage, family));
        alice.send_channel(CHANNEL, b"too soon");
        report.holds(
            bob.receive_within(SOON).is_none(),
            "another 5-tuple is let in",
        );
        let resumed = alice.request(Method::REFRESH, |r| r.with(&MobilityTicket(&ticket)));
        assert_eq!(resumed.code(), SUCCESS);
        alice.send_channel(CHANNEL, b"from away");
        report.holds(hears(&mut bob, b"from away"), "Bob sees that Alice moved");
        bob.send_to(at_a, b"where are you?");
        let heard = alice.receive() == Received::Channel(CHANNEL, b"where are you?".to_vec());
        report.holds(heard, "Alice is not reached where she is");

        // What stayed behind, and who found it there.
        let away = std::mem::replace(&mut alice.socket, home);
        alice.send_channel(CHANNEL, b"too late");
        let stray = bob.receive_within(SOON);
        report.holds(stray.is_none(), "the old 5-tuple is still let in");
        bob.send_to(at_a, b"only away");
        let stray = alice.receive_within(SOON);
        report.holds(stray.is_none(), "the old 5-tuple still hears");
        drop(away);
    }
    let packets = reaching(Party::Bob, &capture.finish());
    for hidden in [Party::Alice.addresses(), AWAY] {
        report.found("to bob", &in_packets(hidden, &packets));
    }
    assert_eq!(daemon.metric("taciturn_allocations_moved_total", ""), 2);
    report.looked(format!("{} packets to Bob", packets.len()));
    report
}
