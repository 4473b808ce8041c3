//! Who is not let in: strangers on the same relay IP, and parties whose client tells the truth
//! about them.

use std::net::SocketAddr;

use taciturn::turn::Bind;
use taciturn::turn::stats::{DropReason, Path};

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4, V6};

/// A packet that arrives, behind which nothing else can be on its way.
#[track_caller]
fn hears_only(to: &mut Client, at_to: SocketAddr, from: &mut Client, at_from: SocketAddr) {
    from.send_to(at_to, b"the only one");
    assert_eq!(
        to.receive(),
        Received::Data(at_from, b"the only one".to_vec())
    );
}

fn callers(plane: &mut Plane) -> [(Client, SocketAddr); 2] {
    let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(V4));
    assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    [(a, at_a), (b, at_b)]
}

/// T65
#[test]
fn a_stranger_with_a_valid_credential_on_the_same_relay_ip_is_not_heard() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        for family in [V4, V6] {
            let [(mut a, at_a), (mut b, at_b), (mut stranger, at_stranger)] =
                [(); 3].map(|()| plane.party(family));
            assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
            assert_eq!(stranger.permit(at_a), SUCCESS);
            assert_eq!(stranger.bind(0x4000, at_a), SUCCESS);
            let before = plane.both_ways(Path::Hairpin);
            plane.drops_by(DropReason::NotNamed, 2, || {
                stranger.send_to(at_a, b"pst");
                stranger.send_channel(0x4000, b"pst");
            });
            assert_eq!(plane.both_ways(Path::Hairpin), before);
            hears_only(&mut a, at_a, &mut b, at_b);

            // Once A calls the stranger by name, they talk.
            assert_eq!(a.permit(at_stranger), SUCCESS);
            hears_only(&mut a, at_a, &mut stranger, at_stranger);
        }
    }
}

/// Other candidates, and an ICE restart.
#[test]
fn another_allocation_of_a_user_who_was_named_is_heard() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        let [(mut a, at_a), (b, _)] = callers(&mut plane);
        let mut again = Client::new(plane.listener(V4), b.credential.clone());
        let at_again = again.allocate(V4);
        assert_eq!(again.permit(at_a), SUCCESS);
        hears_only(&mut a, at_a, &mut again, at_again);
    }
}

/// T64, T12: a party that learnt the other's own address by signalling gets nowhere with it.
#[test]
fn a_modified_client_cannot_send_to_the_other_partys_own_address() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        let [(mut a, at_a), (mut b, at_b)] = callers(&mut plane);
        let own = b.addr();
        assert_eq!(a.permit(own), 403);
        assert_eq!(a.bind(0x4000, own), 403);
        plane.drops_by(DropReason::NoPermission, 1, || {
            a.send_to(own, b"is it you?")
        });
        plane.drops_by(DropReason::NoChannel, 1, || {
            a.send_channel(0x4000, b"is it you?")
        });
        hears_only(&mut b, at_b, &mut a, at_a);
    }
}

/// T64, the other direction: B is not relay-only and sends to A's relayed address by itself.
#[test]
fn a_packet_from_a_partys_own_address_to_a_relayed_address_is_not_heard() {
    for workers in [1, 4] {
        for bind in [Bind::Auto, Bind::Always] {
            let mut setup = Setup::relay(workers);
            setup.bind = bind;
            let mut plane = setup.start();
            let [(mut a, at_a), (mut b, at_b)] = callers(&mut plane);
            let dropped = u64::from(bind == Bind::Always);
            plane.drops_by(DropReason::NoPermission, dropped, || {
                b.socket.send_to(b"straight", at_a).unwrap();
            });
            hears_only(&mut a, at_a, &mut b, at_b);
            assert_eq!(plane.both_ways(Path::Indication), [0, 0]);
        }
    }
}

#[test]
fn data_to_a_port_that_nobody_holds_is_dropped_like_any_other() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        let [(mut a, at_a), (mut b, at_b)] = callers(&mut plane);
        let free = |port| SocketAddr::new(at_a.ip(), port);
        let dead = (61_000..)
            .map(free)
            .find(|p| *p != at_a && *p != at_b)
            .unwrap();
        assert_eq!(a.permit(dead), SUCCESS, "the answer tells which ports live");
        assert_eq!(
            a.bind(0x4000, dead),
            SUCCESS,
            "the answer tells which ports live"
        );
        plane.drops_by(DropReason::NoLanding, 3, || {
            a.send_to(dead, b"anybody?");
            a.send_channel(0x4000, b"anybody?");
            a.send_to(free(80), b"anybody?");
        });
        hears_only(&mut b, at_b, &mut a, at_a);
    }
}
