//! What the data plane is told anew while calls are on.

use std::net::SocketAddr;

use taciturn::proto::Method;
use taciturn::turn::Transport;
use taciturn::turn::stats::DropReason;
use taciturn::turn::unvalidated::Rate;

use crate::loopback::client::SUCCESS;
use crate::loopback::message::Received;
use crate::loopback::plane::{Setup, V4};
use crate::loopback::{PATIENCE, eventually};

/// A Binding request.
const BINDING: [u8; 20] = [
    0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn other_relay_ports_are_for_new_allocations_and_calls_go_on_across_both() {
    for workers in [1, 4] {
        let (before, after) = (62_000..=62_099, 63_500..=63_599);
        let mut setup = Setup::relay(workers);
        let addresses = (setup.v4, setup.v6);
        setup.ports = before.clone();
        let mut plane = setup.start();
        let (mut a, at_a) = plane.party(V4);
        let (mut b, at_b) = plane.party(V4);
        assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));

        let mut setup = Setup::relay(workers);
        (setup.v4, setup.v6) = addresses;
        setup.ports = after.clone();
        setup.former_ports = vec![before.clone()];
        plane.retune(&setup, |_| {});
        let (mut c, at_c) = plane.party(V4);
        assert!(before.contains(&at_a.port()) && after.contains(&at_c.port()));
        a.send_channel(0x4000, b"as before");
        assert_eq!(b.receive(), Received::Data(at_a, b"as before".to_vec()));
        assert_eq!(
            (a.bind(0x4001, at_c), c.bind(0x4001, at_a)),
            (SUCCESS, SUCCESS)
        );
        a.send_channel(0x4001, b"into the new");
        assert_eq!(
            c.receive(),
            Received::Channel(0x4001, b"into the new".to_vec())
        );
        c.send_channel(0x4001, b"into the old");
        assert_eq!(
            a.receive(),
            Received::Channel(0x4001, b"into the old".to_vec())
        );

        for client in [&mut a, &mut b] {
            assert_eq!(client.refresh(0).code(), SUCCESS);
        }
        eventually("the former ports are nobody's", || {
            plane.handle.ports().held == 1
        });
        assert_eq!(plane.handle.ports().free, 199);
        let (_d, at_d) = plane.party(V4);
        assert!(after.contains(&at_d.port()));
    }
}

/// T29
#[test]
fn another_cap_on_the_unvalidated_holds_at_once() {
    let plane = Setup::relay(2).start();
    let setup = Setup::relay(2);
    let mut stranger = crate::loopback::client::Client::new(
        plane.listener(V4),
        crate::loopback::plane::credential("stranger", 0),
    );
    plane.retune(&setup, |tuning| {
        tuning.unvalidated = Rate {
            per_second: 0,
            burst: 1,
        };
    });
    plane.drops_by(DropReason::Unvalidated, 1, || stranger.send_raw(&BINDING));
    plane.retune(&setup, |_| {});
    let answer = stranger.request(Method::BINDING, |request| request);
    assert_eq!(answer.code(), SUCCESS);
}

/// T61: from the moment that it is trusted, and no longer than it is.
#[test]
fn another_load_balancer_is_trusted_at_once_and_clients_that_are_there_stay() {
    let mut plane = Setup::streams(1).start();
    let mut setup = Setup::streams(1);
    let (mut early, _) = plane.party_over(Transport::Tcp);
    let datagrams = plane.client(V4);
    setup.trusted = vec!["127.0.0.0/8"];
    plane.retune(&setup, |_| {});
    plane.drops_by(DropReason::NoProxyHeader, 1, || {
        datagrams.send_raw(&BINDING)
    });
    // The mailbox of its worker was read before this is.
    assert_eq!(early.refresh(600).code(), SUCCESS);
    let mut bare = plane.client_over(Transport::Tcp);
    let stream = bare.stream.as_mut().unwrap();
    stream.send(&BINDING);
    assert!(stream.is_closed_within(PATIENCE), "it had no header");
    let mut behind = plane.client_over(Transport::Tcp);
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 3478\r\n";
    behind.stream.as_mut().unwrap().write(header);
    let answer = behind.request(Method::BINDING, |request| request);
    let told = SocketAddr::from(([192, 0, 2, 7], 4_242));
    assert_eq!(answer.mapped(), Some(told));

    setup.trusted = Vec::new();
    plane.retune(&setup, |_| {});
    assert_eq!(early.refresh(600).code(), SUCCESS);
    let mut bare = plane.client_over(Transport::Tcp);
    let answer = bare.request(Method::BINDING, |request| request);
    assert_eq!(answer.mapped(), Some(bare.addr()));
}
