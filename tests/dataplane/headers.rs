//! What the IP header of a relayed packet shows of its sender.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Instant;

use socket2::SockRef;
use taciturn::proto::AddressFamily;

use crate::loopback::client::{Client, SUCCESS, channel_data};
use crate::loopback::plane::{Setup, V4, V6, credential, loopback_of_its_own, unix};
use crate::loopback::wire::{Forge, Header, Wire};

/// Expedited forwarding, as calls ask for it.
const EF: u8 = 46;

/// Makes what `socket` sends recognisable: TTL 17, DSCP EF, this ECN. An IPv6 flow label it has by
/// default.
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

#[track_caller]
fn assert_marked(header: Header, family: AddressFamily, ecn: u8) {
    assert_eq!((header.hops, header.traffic_class), (17, EF << 2 | ecn));
    assert_eq!(header.flow_label != 0, family == V6, "{header:?}");
}

/// What every packet has that this server sends.
fn plain(dscp: u8, ecn: u8) -> Header {
    Header {
        hops: 64,
        traffic_class: dscp << 2 | ecn,
        flow_label: 0,
        dont_fragment: false,
    }
}

/// T67
#[test]
#[ignore = "needs root; .ci/run runs it"]
fn a_hairpinned_packet_shows_nothing_of_its_senders_header_but_ecn() {
    for (dscp, family) in [(0, V4), (EF, V4), (0, V6), (EF, V6)] {
        let mut setup = Setup::relay(2);
        setup.dscp = dscp;
        let mut plane = setup.start();
        let mut wire = Wire::open(family);
        let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(family));
        assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        let (from, server, to) = (a.addr(), a.server, b.addr());
        for ecn in 0..4 {
            mark(&a.socket, ecn);
            let sent = wire.see(from, server, || a.send_channel(0x4000, b"in a channel"));
            assert_marked(sent, family, ecn);
            let seen = wire.see(server, to, || a.send_channel(0x4000, b"in a channel"));
            assert_eq!(seen, plain(dscp, ecn));
            let seen = wire.see(server, to, || a.send_to(at_b, b"in an indication"));
            assert_eq!(seen, plain(dscp, ecn));
        }
        // An answer is nobody's packet.
        let seen = wire.see(server, from, || assert_eq!(a.refresh(600).code(), SUCCESS));
        assert_eq!(seen, plain(dscp, 0));
    }
}

/// T67
#[test]
#[ignore = "needs root; .ci/run runs it"]
fn a_packet_by_relay_socket_shows_nothing_of_its_senders_header_but_ecn() {
    for (dscp, family) in [(0, V4), (EF, V4), (0, V6), (EF, V6)] {
        let mut setup = Setup::any(2);
        setup.dscp = dscp;
        let mut plane = setup.start();
        let mut wire = Wire::open(family);
        let (mut client, relayed) = plane.party(family);
        let peer: IpAddr = match family {
            V4 => loopback_of_its_own().into(),
            V6 => Ipv6Addr::LOCALHOST.into(),
        };
        let peer = UdpSocket::bind(SocketAddr::new(peer, 0)).unwrap();
        let to = peer.local_addr().unwrap();
        assert_eq!(client.permit(to), SUCCESS);
        let (own, server) = (client.addr(), client.server);
        for ecn in 0..4 {
            mark(&client.socket, ecn);
            mark(&peer, ecn);
            let seen = wire.see(relayed, to, || client.send_to(to, b"out"));
            assert_eq!(seen, plain(dscp, ecn));
            let answer = || assert_eq!(peer.send_to(b"in", relayed).unwrap(), 2);
            assert_marked(wire.see(to, relayed, answer), family, ecn);
            assert_eq!(wire.see(server, own, answer), plain(dscp, ecn));
        }
    }
}

/// T67: another DSCP, on sockets that are open and on those that are opened then.
#[test]
#[ignore = "needs root; .ci/run runs it"]
fn another_dscp_marks_what_leaves_from_then_on() {
    for family in [V4, V6] {
        let mut plane = Setup::any(1).start();
        let mut wire = Wire::open(family);
        let (mut early, at_early) = plane.party(family);
        let peer: IpAddr = match family {
            V4 => loopback_of_its_own().into(),
            V6 => Ipv6Addr::LOCALHOST.into(),
        };
        let peer = UdpSocket::bind(SocketAddr::new(peer, 0)).unwrap();
        let to = peer.local_addr().unwrap();
        assert_eq!(early.permit(to), SUCCESS);
        let seen = wire.see(at_early, to, || early.send_to(to, b"before"));
        assert_eq!(seen, plain(0, 0));
        plane.handle.retune(taciturn::dataplane::Tuning {
            ports: crate::loopback::plane::PORTS,
            port_rest: std::time::Duration::from_secs(60),
            relay_buffer: 1 << 20,
            dscp: EF,
            proxy_trusted: [].into(),
            unvalidated: taciturn::turn::unvalidated::Rate {
                per_second: 10_000,
                burst: 10_000,
            },
        });
        assert_eq!(early.refresh(600).code(), SUCCESS);
        let (mut late, at_late) = plane.party(family);
        assert_eq!(late.permit(to), SUCCESS);
        for (client, relayed) in [(&mut early, at_early), (&mut late, at_late)] {
            let seen = wire.see(relayed, to, || client.send_to(to, b"after"));
            assert_eq!(seen, plain(EF, 0));
            let (from, server) = (client.addr(), client.server);
            let seen = wire.see(server, from, || {
                assert_eq!(client.refresh(600).code(), SUCCESS);
            });
            assert_eq!(seen, plain(EF, 0));
        }
    }
}

fn v4(addr: SocketAddr) -> SocketAddrV4 {
    match addr {
        SocketAddr::V4(addr) => addr,
        SocketAddr::V6(addr) => panic!("{addr} is no IPv4 address"),
    }
}

/// What the sender writes as IP-ID: far apart, each again and again, among them the 0 of a packet
/// with DF.
const IDS: [u16; 8] = [
    0x0101, 0xbeef, 0x2ff0, 0x0000, 0xd00d, 0x5a5a, 0x8001, 0x7ffe,
];

/// IP-IDs on the way out, one for each that went in, must be the kernel's count for `to`: it goes
/// up by one for a packet and by at most a tick for a tick of time, never where the sender's went.
#[track_caller]
fn assert_own_count(out: &[u16], began: Instant) {
    let steps: Vec<u16> = out
        .windows(2)
        .map(|two| two[1].wrapping_sub(two[0]))
        .collect();
    let total: u128 = steps.iter().map(|step| u128::from(*step)).sum();
    // Each packet is sent for each of the two legs; a kernel has at most 1000 ticks a second.
    let most = began.elapsed().as_millis() + 4 * out.len() as u128;
    assert!(steps.iter().all(|step| *step > 0), "no count: {out:04x?}");
    assert!(total <= most, "{total} > {most}: {out:04x?}");
}

/// T67: the IP-ID that B sees on IPv4 is counted by our kernel and is no function of A's, neither
/// by hairpin nor by relay socket. IPv6 has none in packets that are whole.
#[test]
#[ignore = "needs root; .ci/run runs it"]
fn the_ip_id_of_a_relayed_packet_does_not_follow_the_senders() {
    let mut plane = Setup::any(2).start();
    let (mut wire, forge) = (Wire::open(V4), Forge::open());
    let (mut a, at_a) = plane.party(V4);
    // On an address of its own, since the kernel counts by pairs of addresses.
    let own = loopback_of_its_own().into();
    let mut b = Client::at(own, a.server, credential("b", unix() + 3_600));
    let at_b = b.allocate(V4);
    let peer = UdpSocket::bind(SocketAddr::new(loopback_of_its_own().into(), 0)).unwrap();
    let to_peer = peer.local_addr().unwrap();
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    assert_eq!(a.bind(0x4001, to_peer), SUCCESS);

    let (from, server) = (a.addr(), a.server);
    for (channel, source, destination) in [(0x4000, server, b.addr()), (0x4001, at_a, to_peer)] {
        let message = channel_data(channel, b"whose number?");
        let began = Instant::now();
        let mut out = Vec::new();
        for id in IDS.repeat(6) {
            let send = || forge.send(id, v4(from), v4(server), &message);
            let (header, sent) = wire.see_with_id(from, server, send);
            assert_eq!((sent, header.dont_fragment), (id, id == 0));
            let (header, seen) = wire.see_with_id(source, destination, send);
            assert!(!header.dont_fragment);
            out.push(seen);
        }
        assert_own_count(&out, began);
    }

    // And what a peer sends to a client.
    assert_eq!(a.permit(to_peer), SUCCESS);
    let began = Instant::now();
    let mut out = Vec::new();
    for id in IDS.repeat(6) {
        let send = || forge.send(id, v4(to_peer), v4(at_a), b"whose number?");
        let (_, sent) = wire.see_with_id(to_peer, at_a, send);
        assert_eq!(sent, id);
        out.push(wire.see_with_id(server, from, send).1);
    }
    assert_own_count(&out, began);
}

/// The same assertion on what it must refuse.
#[test]
fn ip_ids_that_follow_the_senders_are_told_from_a_count() {
    let copied: Vec<u16> = IDS.repeat(6);
    let shifted: Vec<u16> = copied.iter().map(|id| id.wrapping_add(77)).collect();
    let counted_on: Vec<u16> = (0..)
        .zip(&copied)
        .map(|(n, id)| id.wrapping_add(n))
        .collect();
    let constant = vec![7; copied.len()];
    for out in [copied, shifted, counted_on, constant] {
        let refused = std::panic::catch_unwind(|| assert_own_count(&out, Instant::now()));
        assert!(refused.is_err(), "{out:04x?}");
    }
    let own: Vec<u16> = (0xfff0..=0xffff).chain(0..16).collect();
    assert_own_count(&own, Instant::now());
}

/// RFC 8656 §14.
#[test]
#[ignore = "needs root; .ci/run runs it"]
fn dont_fragment_sets_df_for_that_packet_alone() {
    let mut plane = Setup::any(1).start();
    let mut wire = Wire::open(V4);
    let (mut client, relayed) = plane.party(V4);
    let peer = UdpSocket::bind(SocketAddr::new(loopback_of_its_own().into(), 0)).unwrap();
    let to = peer.local_addr().unwrap();
    assert_eq!(client.permit(to), SUCCESS);
    for _ in 0..2 {
        let seen = wire.see(relayed, to, || client.send_to(to, b"may be cut"));
        assert!(!seen.dont_fragment);
        let seen = wire.see(relayed, to, || client.send_whole(to, b"must stay whole"));
        assert!(seen.dont_fragment);
    }
}
