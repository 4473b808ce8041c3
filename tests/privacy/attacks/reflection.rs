//! What a server tells a client of the client itself, and of its own inside.

use std::net::SocketAddr;

use taciturn::proto::{
    AddressFamily, AttributeType, EvenPort, Method, RequestedAddressFamily, RequestedTransport,
    Reserve, XorPeerAddress,
};
use taciturn::turn::Transport;

use crate::lab::packet::Packet;
use crate::lab::search::in_packets;
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::{Build, Received};
use crate::loopback::plane::{V4, V6};
use crate::report::Report;
use crate::stage::{INNER, Party, SERVICE, Stage};

use super::names::Mint;
use super::{SOON, inside as named_inside, reaching};

const BINDING: Method = Method::BINDING;
const METHODS: [Method; 7] = [
    Method::BINDING,
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
    Method::CONNECT,
    Method::CONNECTION_BIND,
];

/// L4
pub(super) fn binding(stage: &Stage) -> Report {
    let mut report = Report::default();
    for rule in ["off", "authenticated"] {
        let daemon = stage.serve(&[("features.binding", &format!("{rule:?}"))]);
        let mut clients: Vec<Client> = [V4, V6]
            .map(|family| stage.client(Party::Alice, family, "alice"))
            .into();
        clients.push(stage.client_over(Party::Alice, Transport::Tcp, "alice"));
        let capture = stage.capture(Party::Alice);
        for client in &mut clients {
            let request = Build::request(BINDING, [7; 12]).bytes();
            client.send_raw(&request);
            client.send_raw(&Build::request(BINDING, [8; 12]).fingerprint().bytes());
            // No cookie, as RFC 3489 has it.
            let classic = [&request[..4], &[9; 16]].concat();
            if client.stream.is_none() {
                client.send_raw(&classic);
            }
            let answer = client.receive_within(SOON);
            report.holds(answer.is_none(), format!("{rule}: answered with data"));
        }
        let packets = reaching(Party::Alice, &capture.finish());
        report.found(rule, &named_inside(Party::Alice, &packets));
        let answers = packets
            .iter()
            .filter(|packet| packet.udp_payload().is_some());
        let answers = answers.count();
        report.holds(
            rule != "off" || answers == 0,
            format!("off: {answers} answers"),
        );
        // The control: who allocates is told, and the search sees it.
        let capture = stage.capture(Party::Alice);
        clients[0].allocate(V4);
        let told = reaching(Party::Alice, &capture.finish());
        assert!(!named_inside(Party::Alice, &told).is_empty());
        report.looked(format!("{} packets ({rule})", packets.len()));
        drop(daemon);
    }
    report
}

/// L3: T66
pub(super) fn masked(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[]);
    let mint = Mint::of(&daemon);
    for family in [V4, V6] {
        let credential = mint.sealed("alice", |_, claims| claims.masked = true);
        let mut alice = stage.client_at(Party::Alice, Party::Alice.at(family), credential);
        let mut bob = stage.client(Party::Bob, family, "bob");
        let at_bob = bob.allocate(family);
        let capture = stage.capture(Party::Alice);
        let wanted = |r: Build| {
            r.with(&RequestedTransport::UDP)
                .with(&RequestedAddressFamily(family))
        };
        let answer = alice.request(Method::ALLOCATE, wanted);
        let relayed = answer.relayed()[0];
        let told = answer.mapped();
        report.holds(told == Some(relayed), format!("Allocate tells {told:?}"));
        alice.try_allocate(family);
        let told = alice.request(BINDING, |r| r).mapped();
        report.holds(
            told == Some(relayed),
            format!("Binding with it tells {told:?}"),
        );
        poke(&mut alice, BINDING, |r| r);
        alice.send_raw(&Build::request(BINDING, [7; 12]).bytes());
        assert_eq!(alice.refresh(600).code(), SUCCESS);
        assert_eq!(alice.bind(0x4000, at_bob), SUCCESS);
        assert_eq!(bob.permit(relayed), SUCCESS);
        alice.send_channel(0x4000, b"hello");
        let heard = Received::Data(relayed, b"hello".to_vec());
        report.holds(bob.receive() == heard, "Bob hears another address");
        let packets = reaching(Party::Alice, &capture.finish());
        report.found("to alice", &named_inside(Party::Alice, &packets));
        report.looked(format!("{} packets", packets.len()));
        // The control: on another 5-tuple she is told, as by any STUN server.
        let mut beside = stage.client(Party::Alice, family, "alice");
        let told = beside.request(BINDING, |r| r).mapped();
        assert_eq!(told, Some(beside.addr()));
    }
    report
}

/// L5
pub(super) fn inside(stage: &Stage) -> Report {
    let mut report = Report::default();
    let _daemon = stage.serve(&behind_nat());
    let capture = stage.capture(Party::Alice);
    for family in [V4, V6] {
        let mut client = stage.client(Party::Alice, family, "alice");
        zoo(&mut client, family);
        let mut wrong = stage.client(Party::Alice, family, "mallory");
        wrong.credential.password = "wrong".to_owned();
        assert_eq!(wrong.try_allocate(family).code(), 401);
    }
    let packets = reaching(Party::Alice, &capture.finish());
    report.found("to alice", &in_packets(INNER, &packets));
    let told: Vec<&[u8]> = packets.iter().filter_map(Packet::udp_payload).collect();
    assert!(told.len() > 40, "{} answers", told.len());
    let banners = [
        "taciturn",
        env!("CARGO_PKG_VERSION"),
        "rust",
        "Rust",
        "/src/",
    ];
    for banner in banners {
        let shows = |told: &&&[u8]| told.windows(banner.len()).any(|w| w == banner.as_bytes());
        let count = told.iter().filter(shows).count();
        report.holds(count == 0, format!("{banner:?} in {count} answers"));
    }
    // RFC 8489 §14.14, RFC 5780 §7.3 and §7.4, RFC 8489 §14.15
    for (name, kind) in [
        ("SOFTWARE", 0x8022),
        ("RESPONSE-ORIGIN", 0x802b),
        ("OTHER-ADDRESS", 0x802c),
        ("ALTERNATE-SERVER", 0x8023),
    ] {
        let has = |told: &&&[u8]| {
            taciturn::proto::Message::decode(told)
                .is_ok_and(|message| message.attributes().any(|raw| raw.kind.value() == kind))
        };
        let count = told.iter().filter(has).count();
        report.holds(count == 0, format!("{name} in {count} answers"));
    }
    report.looked(format!("{} answers", told.len()));
    report
}

/// Relay sockets on private addresses, clients told of public ones.
pub(super) fn behind_nat() -> [(&'static str, &'static str); 2] {
    // INNER and SERVICE as text: tables of the configuration take constants.
    let texts = (
        r#"["10.77.66.7", "fd77:66::7"]"#,
        r#"{ "10.77.66.7" = "192.0.2.1", "fd77:66::7" = "2001:db8:7::1" }"#,
    );
    for (addresses, text) in [(INNER, texts.0), (INNER, texts.1), (SERVICE, texts.1)] {
        let all = addresses.all();
        assert!(
            all.iter()
                .all(|address| text.contains(&format!("\"{address}\"")))
        );
    }
    [("relay.addresses", texts.0), ("relay.external", texts.1)]
}

/// A request, and whatever comes of it.
fn poke(client: &mut Client, method: Method, fill: impl Fn(Build) -> Build) {
    let request = client.build(method, fill).bytes();
    client.send_raw(&request);
    // The answer is read from the capture.
    client.receive_within(SOON / 30);
}

/// Requests of every method, good and bad, without a credential and with one.
fn zoo(client: &mut Client, family: AddressFamily) {
    let strange = |client: &mut Client| {
        for method in METHODS {
            poke(client, method, |r| r);
            poke(client, method, |r| r.raw_number(0x7ffe, b"what is this?"));
            poke(client, method, |r| {
                r.raw(AttributeType::XOR_PEER_ADDRESS, b"short")
            });
        }
    };
    strange(client);
    let relayed = client.allocate(family);
    strange(client);
    poke(client, Method::ALLOCATE, |r| {
        r.with(&RequestedTransport::UDP)
    });
    let reserve_next = Reserve::Yes;
    poke(client, Method::ALLOCATE, |r| {
        r.with(&EvenPort { reserve_next })
    });
    assert_eq!(client.permit(relayed), SUCCESS);
    for address in INNER.all().into_iter().chain(SERVICE.all()) {
        let peer: SocketAddr = (address, 50_000).into();
        poke(client, Method::CREATE_PERMISSION, |r| {
            r.with(&XorPeerAddress(peer))
        });
        poke(client, Method::CHANNEL_BIND, |r| {
            r.with(&XorPeerAddress(peer))
        });
        poke(client, Method::CONNECT, |r| r.with(&XorPeerAddress(peer)));
        client.send_to(peer, b"what is there?");
    }
    client.refresh(0);
    client.refresh(0);
}
