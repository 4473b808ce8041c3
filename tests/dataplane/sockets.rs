//! Which sockets there are, as the kernel lists them: a relayed address has one only where a
//! packet may have to go outside, and no socket names a client.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use taciturn::dataplane::RelayAddress;
use taciturn::turn::Bind;
use taciturn::turn::policy::FleetNode;
use taciturn::turn::stats::{DropReason, Path};

use crate::loopback::PATIENCE;
use crate::loopback::client::SUCCESS;
use crate::loopback::kernel::{is_bound, udp_sockets};
use crate::loopback::message::Received;
use crate::loopback::plane::{PORTS, Setup, V4, V6, loopback_of_its_own};

fn peer(ip: IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(ip, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// T72: an allocation without a socket is told from a free port by nobody.
#[test]
fn between_relayed_addresses_no_relay_port_is_bound() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        for family in [V4, V6] {
            let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(family));
            assert_eq!((a.permit(at_b), b.bind(0x4000, at_a)), (SUCCESS, SUCCESS));
            a.send_to(at_b, b"hello");
            assert_eq!(b.receive(), Received::Channel(0x4000, b"hello".to_vec()));
            assert!(!is_bound(at_a) && !is_bound(at_b));
        }
        assert!(is_bound(plane.listener(V4)) && is_bound(plane.listener(V6)));
    }
}

#[test]
fn the_first_permission_for_a_fleet_address_binds_the_relay_port() {
    for workers in [1, 4] {
        let node = IpAddr::from(loopback_of_its_own());
        let mut setup = Setup::relay(workers);
        setup.fleet = vec![FleetNode {
            addr: node,
            seen_as: None,
            ports: PORTS,
        }];
        let mut plane = setup.start();
        let (mut client, relayed) = plane.party(V4);
        let (_, local) = plane.party(V4);
        assert_eq!(client.permit(local), SUCCESS);
        assert!(!is_bound(relayed));

        let far = peer(node, 61_000);
        let at_far = far.local_addr().unwrap();
        assert_eq!(client.permit(at_far), SUCCESS);
        assert!(
            is_bound(relayed),
            "success was sent before the socket was there"
        );
        client.send_to(at_far, b"to the other node");
        let mut buf = [0; 100];
        let (len, from) = far.recv_from(&mut buf).unwrap();
        assert_eq!(
            (from, &buf[..len]),
            (relayed, b"to the other node".as_slice())
        );
        far.send_to(b"from it", relayed).unwrap();
        assert_eq!(
            client.receive(),
            Received::Data(at_far, b"from it".to_vec())
        );
        assert_eq!(plane.both_ways(Path::Indication), [1, 1]);

        // A service of that machine is no relayed address.
        let service = peer(node, 0);
        plane.drops_by(DropReason::PolicyRefused, 2, || {
            client.send_to(service.local_addr().unwrap(), b"who are you?");
            service.send_to(b"who are you?", relayed).unwrap();
        });
        assert_eq!(client.bind(0x4000, service.local_addr().unwrap()), 403);
    }
}

#[test]
fn under_policy_any_the_port_is_bound_with_the_allocation_and_freed_with_it() {
    for workers in [1, 4] {
        let mut plane = Setup::any(workers).start();
        for family in [V4, V6] {
            let (mut client, relayed) = plane.party(family);
            assert!(is_bound(relayed));
            assert_eq!(client.refresh(0).code(), SUCCESS);
            assert!(!is_bound(relayed));
        }
    }
}

#[test]
fn bind_always_binds_between_relayed_addresses_too() {
    let mut setup = Setup::relay(1);
    setup.bind = Bind::Always;
    let mut plane = setup.start();
    let (mut client, relayed) = plane.party(V4);
    assert!(is_bound(relayed));
    assert_eq!(client.refresh(0).code(), SUCCESS);
    assert!(!is_bound(relayed));
}

#[test]
fn a_port_that_another_process_holds_is_passed_over() {
    let mut setup = Setup::any(1);
    setup.ports = 61_000..=61_002;
    let held = peer(setup.v4.local, 61_001);
    let mut plane = setup.start();
    let mut ports: Vec<u16> = [(); 2].map(|()| plane.party(V4).1.port()).to_vec();
    ports.sort_unstable();
    assert_eq!(ports, [61_000, 61_002]);
    assert_eq!(plane.client(V4).try_allocate(V4).code(), 508);
    // Somebody else's port is not ours to keep.
    drop(held);
    assert_eq!(plane.party(V4).1.port(), 61_001);
}

/// T68
#[test]
fn a_freed_port_rests_and_late_packets_for_it_reach_nobody() {
    for bind in [Bind::Auto, Bind::Always] {
        let mut setup = Setup::relay(1);
        setup.bind = bind;
        setup.ports = 61_000..=61_002;
        let mut plane = setup.start();
        let (mut caller, at_caller) = plane.party(V4);
        let (mut old, at_old) = plane.party(V4);
        assert_eq!(
            (caller.permit(at_old), old.permit(at_caller)),
            (SUCCESS, SUCCESS)
        );
        assert_eq!(old.refresh(0).code(), SUCCESS);
        let v4_resting = plane.handle.ports().resting;
        assert_eq!(v4_resting, 1);

        let (mut new, at_new) = plane.party(V4);
        assert_ne!(at_new, at_old);
        assert_eq!(
            (new.permit(at_caller), caller.permit(at_new)),
            (SUCCESS, SUCCESS)
        );
        plane.drops_by(DropReason::NoLanding, 1, || caller.send_to(at_old, b"late"));
        caller.send_to(at_new, b"in time");
        assert_eq!(
            new.receive(),
            Received::Data(at_caller, b"in time".to_vec())
        );
    }
}

/// T71: a connected socket would show its client to every user of the machine.
#[test]
fn no_socket_names_a_client() {
    let mut plane = Setup::any(4).start();
    let peer = peer(loopback_of_its_own().into(), 0);
    let to = peer.local_addr().unwrap();
    let mut clients = Vec::new();
    for family in [V4, V6] {
        for _ in 0..8 {
            let (mut client, relayed) = plane.party(family);
            assert_eq!(client.permit(relayed), SUCCESS);
            client.send_to(relayed, b"hello");
            client.receive();
            clients.push(client);
        }
    }
    assert_eq!(clients[0].permit(to), SUCCESS);
    clients[0].send_to(to, b"hello");
    peer.recv_from(&mut [0; 100]).unwrap();

    let named = |addr: SocketAddr| udp_sockets().iter().any(|socket| socket.remote == addr);
    assert!(!named(to), "a peer is named");
    assert!(clients.iter().all(|client| !named(client.addr())));

    for client in [&clients[0], &clients[15]] {
        let connected = UdpSocket::bind(SocketAddr::new(client.addr().ip(), 0)).unwrap();
        connected.connect(client.addr()).unwrap();
        assert!(named(client.addr()), "a connected socket is not seen");
    }
}

/// Behind 1:1 NAT clients are told the outer address, and sockets have the inner one.
#[test]
fn behind_nat_clients_know_the_advertised_address_and_sockets_the_local_one() {
    for workers in [1, 4] {
        let mut setup = Setup::any(workers);
        let local = setup.v4.local;
        let advertised: IpAddr = [203, 0, 113, 7].into();
        setup.v4 = RelayAddress { local, advertised };
        let mut plane = setup.start();
        let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(V4));
        assert_eq!([at_a.ip(), at_b.ip()], [advertised; 2]);

        assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        a.send_channel(0x4000, b"hairpin");
        assert_eq!(b.receive(), Received::Data(at_a, b"hairpin".to_vec()));
        b.send_to(at_a, b"and back");
        assert_eq!(a.receive(), Received::Channel(0x4000, b"and back".to_vec()));
        assert_eq!(plane.both_ways(Path::Hairpin), [2, 2]);

        let inside = SocketAddr::new(local, at_a.port());
        assert!(is_bound(inside));
        let peer = peer(loopback_of_its_own().into(), 0);
        let to = peer.local_addr().unwrap();
        assert_eq!(a.permit(to), SUCCESS);
        a.send_to(to, b"outside");
        let mut buf = [0; 100];
        let (len, from) = peer.recv_from(&mut buf).unwrap();
        assert_eq!((from, &buf[..len]), (inside, b"outside".as_slice()));
        peer.send_to(b"inside", inside).unwrap();
        assert_eq!(a.receive(), Received::Data(to, b"inside".to_vec()));
    }
}
