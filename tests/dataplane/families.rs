//! Clients of one family with relayed addresses of the other (RFC 8656 §7.2, §13).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use taciturn::proto::AddressFamily;
use taciturn::turn::stats::Path;

use crate::loopback::PATIENCE;
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4, V6, loopback_of_its_own};

const CROSSED: [(AddressFamily, AddressFamily); 2] = [(V4, V6), (V6, V4)];

/// A client over one family with a relayed address of the other.
fn crossed(plane: &mut Plane, client: AddressFamily, relay: AddressFamily) -> (Client, SocketAddr) {
    let mut client = plane.client(client);
    let relayed = client.allocate(relay);
    assert_ne!(client.addr().is_ipv4(), relayed.is_ipv4());
    (client, relayed)
}

#[test]
fn a_client_reaches_peers_of_the_other_family_and_they_it() {
    for workers in [1, 4] {
        let mut plane = Setup::any(workers).start();
        for (over, family) in CROSSED {
            let (mut client, relayed) = crossed(&mut plane, over, family);
            let ip: IpAddr = match family {
                V4 => loopback_of_its_own().into(),
                V6 => Ipv6Addr::LOCALHOST.into(),
            };
            let peer = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            let to = peer.local_addr().unwrap();
            let mut buf = [0; 2_000];

            assert_eq!(client.permit(to), SUCCESS);
            for size in [0, 1, 1_200] {
                client.send_to(to, &vec![7; size]);
                let (len, from) = peer.recv_from(&mut buf).unwrap();
                assert_eq!((from, &buf[..len]), (relayed, vec![7; size].as_slice()));
                peer.send_to(&vec![9; size], relayed).unwrap();
                assert_eq!(client.receive(), Received::Data(to, vec![9; size]));
            }
            assert_eq!(client.bind(0x4000, to), SUCCESS);
            client.send_channel(0x4000, b"in a channel");
            let (len, from) = peer.recv_from(&mut buf).unwrap();
            assert_eq!((from, &buf[..len]), (relayed, b"in a channel".as_slice()));
            peer.send_to(b"and back", relayed).unwrap();
            let got = client.receive();
            assert_eq!(got, Received::Channel(0x4000, b"and back".to_vec()));
            // The client's own family has no relayed address.
            assert_eq!(client.permit(client.addr()), 443);
            assert_eq!(client.bind(0x4001, client.addr()), 443);
        }
    }
}

#[test]
fn parties_of_either_family_meet_at_relayed_addresses_of_one() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        for (over, family) in CROSSED {
            let (mut a, at_a) = crossed(&mut plane, over, family);
            let (mut b, at_b) = plane.party(family);
            let before = plane.both_ways(Path::Hairpin);
            assert_eq!((a.permit(at_b), b.bind(0x4000, at_a)), (SUCCESS, SUCCESS));
            a.send_to(at_b, b"from the one");
            assert_eq!(
                b.receive(),
                Received::Channel(0x4000, b"from the one".to_vec())
            );
            b.send_channel(0x4000, b"from the other");
            assert_eq!(
                a.receive(),
                Received::Data(at_b, b"from the other".to_vec())
            );
            let after = plane.both_ways(Path::Hairpin);
            assert_eq!([after[0] - before[0], after[1] - before[1]], [2, 2]);
        }
    }
}
