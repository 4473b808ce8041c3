//! Between clients and peers that are no relayed addresses, by relay sockets.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use taciturn::proto::AddressFamily;
use taciturn::turn::stats::{DropReason, Path};

use crate::loopback::client::SUCCESS;
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4, V6, loopback_of_its_own};
use crate::loopback::{PATIENCE, eventually};

/// A plain program with a UDP socket.
struct Peer(UdpSocket);

impl Peer {
    fn at(ip: IpAddr) -> Self {
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// On an address of its own; IPv6 loopback has but one, which is the relay's too.
    fn of(family: AddressFamily) -> Self {
        Self::at(match family {
            AddressFamily::V4 => loopback_of_its_own().into(),
            AddressFamily::V6 => Ipv6Addr::LOCALHOST.into(),
        })
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next datagram must be `data`, from `source`.
    #[track_caller]
    fn expect(&self, source: SocketAddr, data: &[u8]) {
        let mut buf = [0; 2_000];
        let (len, from) = self.0.recv_from(&mut buf).unwrap();
        assert_eq!((from, &buf[..len]), (source, data));
    }

    fn send(&self, to: SocketAddr, data: &[u8]) {
        assert_eq!(self.0.send_to(data, to).unwrap(), data.len());
    }
}

fn for_each(check: impl Fn(&mut Plane, AddressFamily)) {
    for workers in [1, 4] {
        let mut plane = Setup::any(workers).start();
        for family in [V4, V6] {
            check(&mut plane, family);
        }
    }
}

/// More packets on the paths by relay socket since `before`.
fn counted(plane: &Plane, before: [[u64; 2]; 2]) -> [[u64; 2]; 2] {
    let now = [Path::Relay, Path::Indication].map(|path| plane.both_ways(path));
    [0, 1].map(|path| [0, 1].map(|way| now[path][way] - before[path][way]))
}

#[test]
fn a_peer_is_reached_by_indications_and_answers_with_them() {
    for_each(|plane, family| {
        let (peer, (mut client, relayed)) = (Peer::of(family), plane.party(family));
        assert_eq!(client.permit(peer.addr()), SUCCESS);
        let before = counted(plane, [[0; 2]; 2]);
        client.send_to(peer.addr(), b"ping");
        peer.expect(relayed, b"ping");
        peer.send(relayed, b"pong");
        let got = client.receive();
        assert_eq!(got, Received::Data(peer.addr(), b"pong".to_vec()));
        assert_eq!(counted(plane, before), [[0, 0], [1, 1]]);
    });
}

#[test]
fn a_peer_is_reached_by_a_channel_and_answers_in_it() {
    for_each(|plane, family| {
        let (peer, (mut client, relayed)) = (Peer::of(family), plane.party(family));
        assert_eq!(client.bind(0x4001, peer.addr()), SUCCESS);
        let before = counted(plane, [[0; 2]; 2]);
        for size in [0, 1, 1_200] {
            client.send_channel(0x4001, &vec![7; size]);
            peer.expect(relayed, &vec![7; size]);
            peer.send(relayed, &vec![9; size]);
            assert_eq!(client.receive(), Received::Channel(0x4001, vec![9; size]));
        }
        assert_eq!(counted(plane, before), [[3, 3], [0, 0]]);
        // What comes in the channel's peer's stead from another port has no channel.
        let other = Peer::at(peer.addr().ip());
        other.send(relayed, b"from another port");
        let got = client.receive();
        assert_eq!(
            got,
            Received::Data(other.addr(), b"from another port".to_vec())
        );
        assert_eq!(counted(plane, before), [[3, 3], [0, 1]]);
    });
}

/// T53
#[test]
fn without_a_permission_nothing_passes_in_either_direction() {
    for_each(|plane, family| {
        let (peer, (mut client, relayed)) = (Peer::of(family), plane.party(family));
        plane.drops_by(DropReason::NoPermission, 2, || {
            peer.send(relayed, b"let me in");
            client.send_to(peer.addr(), b"let me out");
        });
        assert_eq!(client.permit(peer.addr()), SUCCESS);
        // Had anything passed, it would come first.
        client.send_to(peer.addr(), b"first");
        peer.expect(relayed, b"first");
        peer.send(relayed, b"second");
        let got = client.receive();
        assert_eq!(got, Received::Data(peer.addr(), b"second".to_vec()));
    });
}

/// An application server on the relay's own IP, opened by `allow`, is a peer like others; a
/// relayed address of the same IP goes on to be one, by the same permission.
#[test]
fn a_peer_on_the_relays_own_ip_is_reached_by_indications_too() {
    for_each(|plane, family| {
        let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(family));
        let peer = Peer::at(at_a.ip());
        assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        for channel in [0x4000, 0x4001] {
            a.send_to(peer.addr(), b"to the program");
            peer.expect(at_a, b"to the program");
            peer.send(at_a, b"from the program");
            let got = a.receive();
            assert_eq!(
                got,
                Received::Data(peer.addr(), b"from the program".to_vec())
            );
            a.send_to(at_b, b"to the party");
            assert_eq!(b.receive(), Received::Data(at_a, b"to the party".to_vec()));
            // A channel to another program changes neither.
            let other = Peer::at(at_a.ip());
            assert_eq!(a.bind(channel, other.addr()), SUCCESS);
        }
    });
}

/// A hairpin never comes by the kernel: what has the source of a relayed address does not have it
/// from this server.
#[test]
fn a_packet_that_seems_to_come_from_a_relayed_address_is_dropped_at_a_relay_socket() {
    for_each(|plane, family| {
        let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(family));
        assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        let port = (61_000..=65_535)
            .map(|port| SocketAddr::new(at_a.ip(), port))
            .find_map(|free| UdpSocket::bind(free).ok())
            .unwrap();
        plane.drops_by(DropReason::ByKernel, 1, || {
            port.send_to(b"forged", at_a).unwrap();
        });
        b.send_to(at_a, b"genuine");
        assert_eq!(a.receive(), Received::Data(at_b, b"genuine".to_vec()));
    });
}

/// Loopback leads to no other machine, and an IPv4 datagram holds less than an IPv6 one: two ways to
/// ask for what no kernel does.
#[test]
fn what_the_kernel_refuses_to_send_is_counted_and_what_follows_is_sent() {
    for workers in [1, 4] {
        let mut setup = Setup::any(workers);
        setup.allow.push("203.0.113.0/24");
        let mut plane = setup.start();
        let (peer, far) = (Peer::of(V4), SocketAddr::from(([203, 0, 113, 9], 9)));
        let mut client = plane.client(V6);
        let relayed = client.allocate(V4);
        assert_eq!(client.permit(far), SUCCESS);
        assert_eq!(client.bind(0x4000, peer.addr()), SUCCESS);
        plane.drops_by(DropReason::SendRefused, 3, || {
            client.send_to(far, b"out into the world");
            client.send_whole(far, b"the same with DF");
            client.send_channel(0x4000, &vec![7; 65_508]);
        });
        for size in [65_507, 1] {
            client.send_channel(0x4000, &vec![9; size]);
            let mut buf = vec![0; 65_536];
            let (len, from) = peer.0.recv_from(&mut buf).unwrap();
            assert_eq!((from, &buf[..len]), (relayed, &vec![9; size][..]));
        }
    }
}

/// T42: a peer's "port unreachable" ends no relay socket.
#[test]
fn a_peer_that_vanished_disturbs_no_other_peer() {
    for_each(|plane, family| {
        let (gone, peer) = (Peer::of(family), Peer::of(family));
        let (mut client, relayed) = plane.party(family);
        for to in [gone.addr(), peer.addr()] {
            assert_eq!(client.permit(to), SUCCESS);
        }
        let lost = gone.addr();
        drop(gone);
        for turn in 0..20 {
            client.send_to(lost, b"into the void");
            client.send_to(peer.addr(), &[turn]);
            peer.expect(relayed, &[turn]);
            peer.send(relayed, &[turn]);
            let mut received = client.receive();
            while let Received::Icmp(about, _) = received {
                assert_eq!(about, lost);
                received = client.receive();
            }
            assert_eq!(received, Received::Data(peer.addr(), vec![turn]));
        }
    });
}

/// The client that was sent to is gone: its relay socket still drains, and others are served.
#[test]
fn a_peer_that_floods_a_silent_client_disturbs_nobody() {
    for_each(|plane, family| {
        let peer = Peer::of(family);
        let [(mut silent, at_silent), (mut client, relayed)] =
            [(); 2].map(|()| plane.party(family));
        assert_eq!(
            (silent.permit(peer.addr()), client.permit(peer.addr())),
            (SUCCESS, SUCCESS)
        );
        drop(silent);
        for turn in 0..200_u8 {
            peer.send(at_silent, &[turn; 1_000]);
        }
        peer.send(relayed, b"heard");
        assert_eq!(
            client.receive(),
            Received::Data(peer.addr(), b"heard".to_vec())
        );
        peer.0.set_nonblocking(true).unwrap();
        let error = peer.0.recv_from(&mut [0; 100]).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::WouldBlock,
            "the flood was answered"
        );
    });
}

/// More than the queue holds comes before the worker has a look: what the kernel drops is counted at
/// the latest when the socket closes.
#[test]
fn what_finds_the_queue_of_a_relay_socket_full_is_counted() {
    let mut plane = Setup {
        relay_buffer: 4_096,
        ..Setup::any(1)
    }
    .start();
    let peer = Peer::of(V4);
    let dropped = |plane: &Plane| plane.sum(|worker| worker.calls.relay_queue_drops.total());
    eventually("the queue was full", || {
        let (mut client, relayed) = plane.party(V4);
        (0..500).for_each(|_| peer.send(relayed, &[0; 1_400]));
        assert_eq!(client.refresh(0).code(), SUCCESS);
        dropped(&plane) > 0
    });
}
