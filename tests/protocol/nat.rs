//! Behind 1:1 NAT: relay sockets are bound to one address, clients are told another.

use taciturn::turn::stats::DropReason;

use crate::world::call::{Call, Framing};
use crate::world::client::SUCCESS;
use crate::world::servers::{Setup, at};

const INNER: &str = "10.0.0.7";

/// The operator opens the network that the inner address lies in, for a gateway of theirs.
fn open_house() -> Setup {
    Setup {
        inner: Some(INNER),
        allow: vec!["10.0.0.0/8"],
        ..Setup::any()
    }
}

#[test]
fn two_relayed_addresses_reach_each_other_by_the_address_that_clients_know() {
    let mut call = Call::permitted(open_house());
    let received = call.alice_says(b"hello").at(&call.bob);
    assert_eq!(received.payload(), b"hello");
    call.admit(Framing::Channel(0x4001), Framing::Indication);
}

/// T57: no way to a relayed address leads through the kernel.
#[test]
fn the_inner_address_is_no_way_to_a_relayed_address() {
    let mut call = Call::permitted(open_house());
    let inner = at(&format!("{INNER}:{}", call.b.port()));
    assert_eq!(call.alice.bind(&mut call.world, 0x4001, inner), 403);
    let gateway = at(&format!("{INNER}:5004"));
    assert_eq!(call.alice.permit(&mut call.world, &[gateway]), SUCCESS);
    let sent = call.alice.send_to(&mut call.world, inner, b"x");
    assert_eq!(sent.dropped(), Some(DropReason::PolicyRefused));
    let sent = call.alice.send_to(&mut call.world, gateway, b"x").outside();
    assert_eq!(sent.1, gateway);
}

#[test]
fn what_comes_by_the_kernel_from_the_inner_address_is_dropped() {
    let mut call = Call::permitted(open_house());
    let gateway = at(&format!("{INNER}:5004"));
    assert_eq!(call.bob.permit(&mut call.world, &[gateway]), SUCCESS);
    let from_alice = format!("{INNER}:{}", call.a.port());
    let heard = call.world.receive_from_peer(call.b, &from_alice, b"x");
    assert_eq!(heard.dropped(), Some(DropReason::ByKernel));
    let heard = call
        .world
        .receive_from_peer(call.b, &format!("{INNER}:5004"), b"x");
    assert_eq!(heard.at(&call.bob).payload(), b"x");
}

/// T30
#[test]
fn a_relay_socket_is_no_client_behind_nat_either() {
    let mut call = Call::permitted(open_house());
    let from_alice = format!("{INNER}:{}", call.a.port());
    let mut loops = call.world.client("carol", &from_alice);
    let request = loops.build(taciturn::proto::Method::BINDING).bytes();
    let heard = call.world.send(&loops, &request);
    assert_eq!(heard.dropped(), Some(DropReason::BadSource));
}
