//! Packets that take the same way within one batch: judged by their first, counted at their last.

use taciturn::proto::{DATA_INDICATION_HEADROOM as ROOM, Method};
use taciturn::turn::stats::{Direction, DropReason, Path};
use taciturn::turn::{Handled, Head, WorkerId};

use crate::world::call::{Call, Framing};
use crate::world::client::channel_data;
use crate::world::environment::forwarded;
use crate::world::message::Answer;
use crate::world::servers::{Outcome, Setup};

const CHANNEL: Framing = Framing::Channel(0x4000);

/// Hands Alice's datagram to her server within a batch that goes on.
fn hand(call: &mut Call, bytes: &[u8]) -> Handled {
    let mut buf = [&[0; ROOM][..], bytes, &[0; 3]].concat();
    let (tuple, clock) = (call.alice.tuple, call.world.clock);
    let range = ROOM..ROOM + bytes.len();
    call.world.servers[0].handle_client(tuple, &mut buf, range, clock)
}

fn call() -> Call {
    let mut call = Call::new(Setup::default());
    call.admit(CHANNEL, CHANNEL);
    call
}

#[test]
fn a_run_is_counted_packet_by_packet_when_its_batch_ends() {
    let mut call = call();
    for data in [b"1".as_slice(), b"22", b"333"] {
        let handled = hand(&mut call, &channel_data(0x4000, data));
        assert!(matches!(handled, Handled::Forward(_)));
    }
    let count = |call: &Call| {
        (
            call.world.meters(call.a, Path::Hairpin, Direction::In),
            call.world.meters(call.b, Path::Hairpin, Direction::Out),
            call.world.traffic(Path::Hairpin, Direction::In),
            call.world.traffic(Path::Hairpin, Direction::Out),
        )
    };
    assert_eq!(count(&call), ((0, 0), (0, 0), (0, 0), (0, 0)));
    call.world.servers[0].settle();
    assert_eq!(count(&call), ((3, 6), (3, 6), (3, 6), (3, 6)));
}

#[test]
fn runs_of_several_ways_in_one_batch_are_kept_apart() {
    let mut call = call();
    assert_eq!(call.alice.bind(&mut call.world, 0x4001, call.a), 0);
    for (number, data) in [
        (0x4000, b"to Bob".as_slice()),
        (0x4001, b"me"),
        (0x4000, b"Bob"),
    ] {
        let handled = hand(&mut call, &channel_data(number, data));
        assert!(matches!(handled, Handled::Forward(_)));
    }
    let lost = hand(&mut call, &channel_data(0x4002, b"nobody"));
    assert!(matches!(lost, Handled::Dropped(DropReason::NoChannel)));
    call.world.servers[0].settle();
    let out = |relayed| call.world.meters(relayed, Path::Hairpin, Direction::Out);
    assert_eq!(out(call.b), (2, 9));
    assert_eq!(out(call.a), (1, 2));
}

#[test]
fn a_request_ends_the_run_so_that_nothing_goes_on_to_what_it_took_away() {
    let mut call = call();
    let data = channel_data(0x4000, b"hello");
    assert!(matches!(hand(&mut call, &data), Handled::Forward(_)));
    let request = call.bob.build(Method::REFRESH);
    let request = call.bob.sign(request.with(&taciturn::proto::Lifetime(0)));
    let mut buf = [&[0; ROOM][..], &request].concat();
    let (tuple, clock) = (call.bob.tuple, call.world.clock);
    let range = ROOM..buf.len();
    let server = &mut call.world.servers[0];
    let handled = server.handle_client(tuple, &mut buf, range, clock);
    assert!(matches!(handled, Handled::Answer));
    assert_eq!(Answer(server.answer().to_vec()).code(), 0);
    // In the same batch, at the same moment.
    let handled = hand(&mut call, &data);
    assert!(matches!(handled, Handled::Dropped(DropReason::NoLanding)));
}

#[test]
fn a_run_does_not_outlive_its_moment() {
    let mut call = call();
    let data = channel_data(0x4000, b"hello");
    assert!(matches!(hand(&mut call, &data), Handled::Forward(_)));
    // The data plane stalls within a batch, and the channel ends meanwhile.
    call.world.stall(601);
    let handled = hand(&mut call, &data);
    assert!(matches!(handled, Handled::Dropped(DropReason::NoChannel)));
}

/// What a segment of a merged run looks like: no byte around the datagram is its own.
#[test]
fn a_packet_without_room_around_it_arrives_the_same() {
    for framing in [CHANNEL, Framing::Indication] {
        for length in 1..=9 {
            let mut call = Call::new(Setup::default());
            call.admit(CHANNEL, framing);
            let data = vec![7; length];
            let bytes = channel_data(0x4000, &data);
            let mut buf = bytes.clone();
            let (tuple, clock) = (call.alice.tuple, call.world.clock);
            let server = &mut call.world.servers[0];
            let handled = server.handle_client(tuple, &mut buf, 0..bytes.len(), clock);
            let Handled::Forward(forward) = handled else {
                unreachable!("{handled:?}");
            };
            let head = if framing == CHANNEL {
                Head::InPlace
            } else {
                Head::Aside
            };
            assert_eq!(forward.head, head);
            let tight = forwarded(server, &buf, &forward);
            if framing == CHANNEL {
                assert_eq!(
                    tight, bytes,
                    "the same number on both sides: no byte changes"
                );
            }
            let outcome = Outcome::Client {
                to: call.bob.tuple,
                bytes: tight,
            };
            let expected = call.world.receive(WorkerId(0), tuple, &bytes).at(&call.bob);
            assert_eq!(outcome.at(&call.bob), expected);
        }
    }
}
