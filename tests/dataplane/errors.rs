//! ICMP errors about datagrams to peers, and datagrams that may not be fragmented.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use taciturn::proto::{AddressFamily, Icmp};
use taciturn::turn::policy::FleetNode;
use taciturn::turn::stats::DropReason;

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::{PORTS, Setup, V4, V6, loopback_of_its_own};
use crate::loopback::{PATIENCE, eventually};
use crate::network::Network;

const FAMILIES: [AddressFamily; 2] = [V4, V6];

/// A peer on an address that is not the relay's, as far as there is one.
fn peer(family: AddressFamily) -> UdpSocket {
    let ip: IpAddr = match family {
        V4 => loopback_of_its_own().into(),
        V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next that `client` is told: a peer and an error.
#[track_caller]
fn told(client: &mut Client) -> (SocketAddr, Icmp) {
    let received = client.receive();
    let Received::Icmp(peer, error) = received else {
        panic!("not an error: {received:?}");
    };
    (peer, error)
}

#[test]
fn a_client_is_told_that_a_peers_port_is_closed() {
    for workers in [1, 4] {
        let mut plane = Setup::any(workers).start();
        for (family, kind, code) in [(V4, 3, 3), (V6, 1, 4)] {
            let gone = peer(family).local_addr().unwrap();
            let (mut client, _) = plane.party(family);
            assert_eq!(client.bind(0x4000, gone), SUCCESS);
            for turn in 0..5 {
                if turn % 2 == 0 {
                    client.send_channel(0x4000, b"anyone?");
                } else {
                    client.send_to(gone, b"anyone?");
                }
                let (named, error) = told(&mut client);
                assert_eq!(named, gone);
                assert_eq!((error.kind, error.code, error.data), (kind, code, [0; 4]));
            }
        }
    }
}

/// Under the default policy nobody is told anything, of a node of the fleet neither.
#[test]
fn nobody_is_told_of_a_hidden_peer() {
    let node = IpAddr::from(loopback_of_its_own());
    let fleet = FleetNode {
        addr: node,
        seen_as: None,
        ports: PORTS,
    };
    for mut setup in [Setup::relay(1), Setup::any(1)] {
        setup.fleet = vec![fleet.clone()];
        let mut plane = setup.start();
        let (mut client, relayed) = plane.party(V4);
        let far = SocketAddr::new(node, 61_000);
        assert_eq!(client.permit(far), SUCCESS);
        assert_eq!(client.permit(relayed), SUCCESS);
        for turn in 0..20 {
            client.send_to(far, b"anyone?");
            client.send_to(relayed, &[turn]);
            // Had anything been told, it would come in between.
            assert_eq!(client.receive(), Received::Data(relayed, vec![turn]));
        }
        let quiet = client.receive_within(Duration::from_millis(200));
        assert_eq!(quiet, None);
    }
}

/// An error for each of a thousand datagrams: few are told, and the relay goes on.
#[test]
fn a_storm_of_errors_disturbs_nobody() {
    for workers in [1, 4] {
        let mut plane = Setup::any(workers).start();
        for family in FAMILIES {
            let (gone, peer) = (peer(family).local_addr().unwrap(), peer(family));
            let [(mut noisy, _), (mut client, relayed)] = [(); 2].map(|()| plane.party(family));
            let to = peer.local_addr().unwrap();
            assert_eq!((noisy.permit(gone), client.permit(to)), (SUCCESS, SUCCESS));
            let before = plane.drops(DropReason::Icmp);
            for turn in 0..50_u8 {
                // Each longer than the one before, so that none are sent in one piece.
                for len in 1..=20 {
                    noisy.send_to(gone, &[7; 20][..len]);
                }
                client.send_to(to, &[turn]);
                let mut buf = [0; 10];
                assert_eq!(peer.recv_from(&mut buf).unwrap(), (1, relayed));
                assert_eq!(buf[0], turn);
                peer.send_to(&[turn], relayed).unwrap();
                assert_eq!(client.receive(), Received::Data(to, vec![turn]));
            }
            eventually("errors that are not told", || {
                plane.drops(DropReason::Icmp) > before + 100
            });
        }
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    let folded = (folded & 0xFFFF) + (folded >> 16);
    (!u16::try_from(folded).unwrap()).to_be_bytes()
}

/// "Fragmentation needed" or "packet too big" about a datagram from `from` to `to`.
fn too_big(from: SocketAddr, to: SocketAddr, mtu: u32) -> Vec<u8> {
    let ports = [from.port(), to.port(), 8, 0]
        .map(u16::to_be_bytes)
        .concat();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![3, 4, 0, 0, 0, 0];
            packet.extend(&mtu.to_be_bytes()[2..]);
            packet.extend([0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(ports);
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            // The kernel fills in the checksum.
            let mut packet = vec![2, 0, 0, 0];
            packet.extend(mtu.to_be_bytes());
            packet.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(ports);
            packet
        }
        _ => panic!("two families"),
    }
}

/// In a namespace of its own: the kernel keeps a path MTU that it is told.
#[test]
#[ignore = "needs root; .ci/run runs it"]
fn a_client_is_told_the_mtu_of_the_path_to_a_peer() {
    Network::with_mtu(65_536).enter(|| {
        let mut plane = Setup::any(1).start();
        for (family, kind, code) in [(V4, 3, 4), (V6, 2, 0)] {
            let (domain, protocol) = match family {
                V4 => (Domain::IPV4, Protocol::ICMPV4),
                V6 => (Domain::IPV6, Protocol::ICMPV6),
            };
            let forge = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
            let peer = peer(family);
            let to = peer.local_addr().unwrap();
            let (mut client, relayed) = plane.party(family);
            assert_eq!(client.permit(to), SUCCESS);
            client.send_whole(to, b"must stay whole");
            peer.recv_from(&mut [0; 100]).unwrap();
            forge
                .send_to(
                    &too_big(relayed, to, 1_400),
                    &SocketAddr::new(relayed.ip(), 0).into(),
                )
                .unwrap();
            let (named, error) = told(&mut client);
            assert_eq!(named, to);
            assert_eq!((error.kind, error.code), (kind, code));
            assert_eq!(u32::from_be_bytes(error.data), 1_400);
            // A permission is what counts, so that a forged error tells of nobody else.
            let stranger = match family {
                V4 => SocketAddr::new(loopback_of_its_own().into(), 9),
                V6 => "[2001:db8::9]:9".parse().unwrap(),
            };
            plane.drops_by(DropReason::Icmp, 1, || {
                let bytes = too_big(relayed, stranger, 1_400);
                let at = SocketAddr::new(relayed.ip(), 0).into();
                forge.send_to(&bytes, &at).unwrap();
            });
        }
    });
}

/// RFC 8656 §14, and the same for IPv6: what does not fit the link whole is not sent.
#[test]
#[ignore = "needs root; .ci/run runs it"]
fn a_datagram_with_dont_fragment_is_whole_or_not_sent_in_both_families() {
    Network::with_mtu(1_500).enter(|| {
        let mut plane = Setup::any(1).start();
        for family in FAMILIES {
            let peer = peer(family);
            let to = peer.local_addr().unwrap();
            let (mut client, relayed) = plane.party(family);
            assert_eq!(client.permit(to), SUCCESS);
            let mut buf = [0; 4_000];
            for _ in 0..2 {
                client.send_to(to, &[7; 2_000]);
                assert_eq!(peer.recv_from(&mut buf).unwrap(), (2_000, relayed));
                plane.drops_by(DropReason::SendRefused, 1, || {
                    client.send_whole(to, &[8; 2_000]);
                });
                client.send_whole(to, &[9; 1_400]);
                assert_eq!(peer.recv_from(&mut buf).unwrap(), (1_400, relayed));
                assert!(buf[..1_400].iter().all(|byte| *byte == 9));
            }
        }
    });
}
