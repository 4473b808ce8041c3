//! Channel bindings (RFC 8656 §12).

use taciturn::proto::{
    AttributeType, ChannelNumberAttribute, ChannelRange, Method, XorPeerAddress,
};
use taciturn::turn::stats::DropReason;

use crate::world::call::{ALICE, Call};
use crate::world::client::SUCCESS;
use crate::world::message::Received;
use crate::world::servers::{Setup, at};

/// T51
#[test]
fn channel_numbers_outside_the_range_are_bad_requests() {
    for (range, numbers) in [
        (
            ChannelRange::Rfc8656,
            [(0x4000, 0), (0x4FFF, 0), (0x5000, 400), (0x7FFE, 400)],
        ),
        (
            ChannelRange::Rfc5766,
            [(0x4000, 0), (0x4FFF, 0), (0x5000, 0), (0x7FFE, 0)],
        ),
    ] {
        let never = [
            (0x0000, 400),
            (0x3FFF, 400),
            (0x7FFF, 400),
            (0x8000, 400),
            (0xFFFF, 400),
        ];
        for (number, code) in numbers.into_iter().chain(never) {
            let setup = Setup {
                channels: range,
                ..Setup::default()
            };
            let mut call = Call::new(setup);
            assert_eq!(
                call.alice.bind(&mut call.world, number, call.b),
                code,
                "{number:#x}"
            );
            if code == SUCCESS {
                assert_eq!(call.bob.permit(&mut call.world, &[call.a]), SUCCESS);
                call.alice
                    .channel_data(&mut call.world, number, b"x")
                    .at(&call.bob);
            }
        }
    }
}

/// T51
#[test]
fn channel_data_on_a_number_outside_the_range_is_not_even_looked_up() {
    let mut call = Call::new(Setup::default());
    let outcome = call
        .alice
        .channel_data(&mut call.world, 0x5000, b"x")
        .dropped();
    assert_eq!(outcome, Some(DropReason::Malformed));
}

/// T51
#[test]
fn number_and_peer_belong_together() {
    let mut call = Call::new(Setup::default());
    let other = at("203.0.113.7:60000");
    let Call {
        world, alice, b, ..
    } = &mut call;
    assert_eq!(alice.bind(world, 0x4000, *b), SUCCESS);
    assert_eq!(alice.bind(world, 0x4000, *b), SUCCESS, "a refresh");
    assert_eq!(alice.bind(world, 0x4000, other), 400, "the number is bound");
    assert_eq!(alice.bind(world, 0x4001, *b), 400, "the peer is bound");
    assert_eq!(alice.bind(world, 0x4001, other), SUCCESS);
    assert_eq!(alice.bind(world, 0x4001, *b), 400, "both are, to others");
}

/// T51
#[test]
fn an_expired_pair_cools_down_for_five_minutes() {
    let mut call = Call::new(Setup::default());
    let other = at("203.0.113.7:60000");
    let Call {
        world, alice, b, ..
    } = &mut call;
    alice.refresh(world, Some(3_600));
    assert_eq!(alice.bind(world, 0x4000, *b), SUCCESS);
    world.advance(600 + 299);
    assert_eq!(alice.bind(world, 0x4000, other), 400);
    assert_eq!(alice.bind(world, 0x4001, *b), 400);
    world.advance(1);
    assert_eq!(alice.bind(world, 0x4000, other), SUCCESS);
    assert_eq!(alice.bind(world, 0x4001, *b), SUCCESS);
}

/// T51
#[test]
fn an_expired_pair_may_be_bound_again_at_once() {
    let mut call = Call::new(Setup::default());
    call.alice.refresh(&mut call.world, Some(3_600));
    call.bob.refresh(&mut call.world, Some(3_600));
    call.alice.bind(&mut call.world, 0x4000, call.b);
    call.world.advance(700);
    call.bob.permit(&mut call.world, &[call.a]);
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, call.b), SUCCESS);
    call.alice
        .channel_data(&mut call.world, 0x4000, b"x")
        .at(&call.bob);
}

#[test]
fn a_channel_lasts_six_hundred_seconds_in_both_directions() {
    let mut call = Call::new(Setup::default());
    for client in [&mut call.alice, &mut call.bob] {
        client.refresh(&mut call.world, Some(3_600));
    }
    call.alice.bind(&mut call.world, 0x4000, call.b);
    for _ in 0..2 {
        call.world.advance(299);
        call.alice.permit(&mut call.world, &[call.b]);
        call.bob.permit(&mut call.world, &[call.a]);
    }
    call.world.advance(1);
    call.alice
        .channel_data(&mut call.world, 0x4000, b"x")
        .at(&call.bob);
    let received = call.bob_says(b"y").at(&call.alice);
    assert_eq!(received, Received::Channel(0x4000, b"y".to_vec()));

    call.world.advance(1);
    let outcome = call
        .alice
        .channel_data(&mut call.world, 0x4000, b"x")
        .dropped();
    assert_eq!(outcome, Some(DropReason::NoChannel));
    let received = call.bob_says(b"y").at(&call.alice);
    assert_eq!(
        received,
        Received::Data(call.b, b"y".to_vec()),
        "the permission holds"
    );
}

/// T52
#[test]
fn data_on_a_channel_that_is_not_bound_refreshes_nothing() {
    let mut call = Call::permitted(Setup::default());
    for _ in 0..10 {
        call.world.advance(30);
        let outcome = call
            .alice
            .channel_data(&mut call.world, 0x4000, b"x")
            .dropped();
        assert_eq!(outcome, Some(DropReason::NoChannel));
    }
    let outcome = call.alice_says(b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NoPermission));
}

/// T52: data on a bound channel does not refresh the permission either; only requests do.
#[test]
fn data_on_a_bound_channel_refreshes_no_permission() {
    let mut call = Call::new(Setup::default());
    call.alice.bind(&mut call.world, 0x4000, call.b);
    call.bob.bind(&mut call.world, 0x4000, call.a);
    for _ in 0..3 {
        call.world.advance(99);
        call.alice
            .channel_data(&mut call.world, 0x4000, b"x")
            .at(&call.bob);
        call.bob
            .channel_data(&mut call.world, 0x4000, b"y")
            .at(&call.alice);
    }
    call.world.advance(3);
    let outcome = call
        .alice
        .channel_data(&mut call.world, 0x4000, b"x")
        .dropped();
    assert_eq!(outcome, Some(DropReason::NotPermitted));
    call.bob.bind(&mut call.world, 0x4000, call.a);
    call.alice
        .channel_data(&mut call.world, 0x4000, b"x")
        .at(&call.bob);
}

/// T12 and T57
#[test]
fn a_channel_to_no_relay_port_is_forbidden() {
    let mut call = Call::new(Setup::default());
    for peer in [
        "203.0.113.7:3478",
        "203.0.113.7:80",
        "203.0.113.7:49151",
        "203.0.113.7:0",
        "1.1.1.1:50000",
    ] {
        assert_eq!(
            call.alice.bind(&mut call.world, 0x4000, at(peer)),
            403,
            "{peer}"
        );
    }
    let dead = at("203.0.113.7:49152");
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, dead), SUCCESS);
    let outcome = call
        .alice
        .channel_data(&mut call.world, 0x4000, b"x")
        .dropped();
    assert_eq!(outcome, Some(DropReason::NoLanding));
}

/// T55
#[test]
fn a_malformed_channel_bind_is_a_bad_request() {
    let mut call = Call::new(Setup::default());
    let b = call.b;
    let number = ChannelNumberAttribute(0x4000);
    let codes = [
        call.alice
            .request(&mut call.world, Method::CHANNEL_BIND, |r| r),
        call.alice
            .request(&mut call.world, Method::CHANNEL_BIND, |r| r.with(&number)),
        call.alice
            .request(&mut call.world, Method::CHANNEL_BIND, |r| {
                r.with(&XorPeerAddress(b))
            }),
        call.alice
            .request(&mut call.world, Method::CHANNEL_BIND, |r| {
                r.raw(AttributeType::CHANNEL_NUMBER, &[0x40])
                    .with(&XorPeerAddress(b))
            }),
        call.alice
            .request(&mut call.world, Method::CHANNEL_BIND, |r| {
                r.with(&number)
                    .raw(AttributeType::XOR_PEER_ADDRESS, &[0, 7, 1, 1, 1, 1, 1, 1])
            }),
    ]
    .map(|answer| answer.code());
    assert_eq!(codes, [400; 5]);
}

/// T35
#[test]
fn channels_beyond_the_limit_get_508() {
    let mut call = Call::new(Setup::default());
    let peer = |n: u16| at(&format!("203.0.113.7:{}", 50_000 + n));
    for n in 0..128 {
        let code = call.alice.bind(&mut call.world, 0x4000 + n, peer(n));
        assert_eq!(code, SUCCESS);
    }
    assert_eq!(call.alice.bind(&mut call.world, 0x4500, peer(500)), 508);
    assert_eq!(call.alice.bind(&mut call.world, 0x4000, peer(0)), SUCCESS);
}

/// T46
#[test]
fn channel_data_shorter_than_it_announces_is_dropped() {
    let mut call = Call::new(Setup::default());
    call.alice.bind(&mut call.world, 0x4000, call.b);
    call.bob.permit(&mut call.world, &[call.a]);
    for bytes in [
        &[0x40][..],
        &[0x40, 0, 0],
        &[0x40, 0, 0, 1],
        &[0x40, 0, 0xFF, 0xFF, 1],
    ] {
        let outcome = call.world.send(&call.alice, bytes).dropped();
        assert_eq!(outcome, Some(DropReason::Malformed), "{bytes:?}");
    }
    let padded = [0x40, 0, 0, 1, 7, 0, 0, 0];
    let received = call.world.send(&call.alice, &padded).at(&call.bob);
    assert_eq!(received, Received::Data(call.a, vec![7]));
}

#[test]
fn data_without_an_allocation_is_dropped() {
    let mut world = Setup::default().world();
    let mut alice = world.client("alice", ALICE);
    let outcome = alice.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(outcome, Some(DropReason::NoAllocation));
    let outcome = alice
        .send_to(&mut world, at("203.0.113.7:50000"), b"x")
        .dropped();
    assert_eq!(outcome, Some(DropReason::NoAllocation));
}
