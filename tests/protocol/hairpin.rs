//! Packets between two relayed addresses of one server: one receive, one send, no socket.

use taciturn::proto::{AddressFamily, AttributeType, Data, DontFragment};
use taciturn::turn::Bind;
use taciturn::turn::stats::{Direction, DropReason, Path};

use crate::world::call::{Call, Framing};
use crate::world::client::{SUCCESS, channel_data};
use crate::world::message::Received;
use crate::world::servers::{LISTENER_V4, Outcome, Setup, at};

const CHANNEL: Framing = Framing::Channel(0x4001);
const OTHER_CHANNEL: Framing = Framing::Channel(0x4FFF);

/// What a receiver gets from `peer` in this framing.
fn as_received(framing: Framing, peer: std::net::SocketAddr, data: &[u8]) -> Received {
    match framing {
        Framing::Channel(number) => Received::Channel(number, data.to_vec()),
        Framing::Indication => Received::Data(peer, data.to_vec()),
    }
}

#[test]
fn either_side_uses_channels_or_indications_in_either_family() {
    for family in [AddressFamily::V4, AddressFamily::V6] {
        for of_alice in [CHANNEL, Framing::Indication] {
            for of_bob in [OTHER_CHANNEL, Framing::Indication] {
                let mut call = Call::of_family(Setup::default(), family);
                call.admit(of_alice, of_bob);
                let Call {
                    mut world,
                    mut alice,
                    mut bob,
                    a,
                    b,
                } = call;
                let there = of_alice.send(&mut alice, &mut world, b, b"ping").at(&bob);
                assert_eq!(there, as_received(of_bob, a, b"ping"));
                let back = of_bob.send(&mut bob, &mut world, a, b"pong").at(&alice);
                assert_eq!(back, as_received(of_alice, b, b"pong"));
            }
        }
    }
}

#[test]
fn a_hairpin_needs_no_socket() {
    let mut call = Call::permitted(Setup::default());
    call.alice_says(b"x").at(&call.bob);
    assert!(call.world.house.borrow().sockets.is_empty());
}

#[test]
fn between_channels_only_the_header_changes() {
    let mut call = Call::new(Setup::default());
    call.admit(CHANNEL, OTHER_CHANNEL);
    let data = [0xC3; 1_200];
    let outcome = call.alice.channel_data(&mut call.world, 0x4001, &data);
    assert_eq!(
        outcome,
        Outcome::Client {
            to: call.bob.tuple,
            bytes: channel_data(0x4FFF, &data),
        }
    );
}

#[test]
fn every_packet_is_counted_on_both_allocations_and_on_its_path() {
    let mut call = Call::new(Setup::default());
    call.admit(CHANNEL, Framing::Indication);
    call.alice
        .channel_data(&mut call.world, 0x4001, &[1; 100])
        .at(&call.bob);
    call.alice_says(&[1; 20]).at(&call.bob);
    call.bob_says(&[1; 3]).at(&call.alice);

    let Call { world, a, b, .. } = &call;
    use Direction::{In, Out};
    assert_eq!(world.meters(*a, Path::Hairpin, In), (2, 120));
    assert_eq!(world.meters(*b, Path::Hairpin, Out), (2, 120));
    assert_eq!(world.meters(*b, Path::Hairpin, In), (1, 3));
    assert_eq!(world.meters(*a, Path::Hairpin, Out), (1, 3));
    assert_eq!(world.traffic(Path::Hairpin, In), (3, 123));
    assert_eq!(world.traffic(Path::Hairpin, Out), (3, 123));
    for path in [Path::Relay, Path::Indication] {
        for direction in [In, Out] {
            assert_eq!(world.traffic(path, direction), (0, 0));
        }
    }
}

#[test]
fn a_receiver_without_a_permission_gets_nothing() {
    let mut call = Call::new(Setup::default());
    CHANNEL.admit(&mut call.alice, &mut call.world, call.b);
    for outcome in [
        call.alice.channel_data(&mut call.world, 0x4001, b"x"),
        call.alice.send_to(&mut call.world, call.b, b"x"),
    ] {
        assert_eq!(outcome.dropped(), Some(DropReason::NotPermitted));
    }
    let house = call.world.house.borrow();
    let bob = &house.landings[&taciturn::turn::RelayedAddr::new(call.b)];
    assert_eq!(bob.meters().dropped(Direction::Out), 2);
    assert_eq!(bob.meters().dropped(Direction::In), 0);
    let alice = &house.landings[&taciturn::turn::RelayedAddr::new(call.a)];
    assert_eq!(alice.meters().dropped(Direction::In), 2);
    assert_eq!(alice.meters().dropped(Direction::Out), 0);
    assert_eq!(bob.meters().packets(Direction::Out), 0);
}

/// T53
#[test]
fn a_sender_without_a_permission_sends_nothing() {
    let mut call = Call::new(Setup::default());
    assert_eq!(call.bob.permit(&mut call.world, &[call.a]), SUCCESS);
    let outcome = call.alice_says(b"x");
    assert_eq!(outcome.dropped(), Some(DropReason::NoPermission));
}

#[test]
fn data_to_a_dead_relay_port_is_dropped_and_counted() {
    let mut call = Call::permitted(Setup::default());
    let dead = at("203.0.113.7:65535");
    assert_ne!(call.a, dead);
    assert_ne!(call.b, dead);
    let outcome = call.alice.send_to(&mut call.world, dead, b"x");
    assert_eq!(outcome.dropped(), Some(DropReason::NoLanding));
    assert_eq!(call.world.drops(DropReason::NoLanding), 1);
    assert_eq!(
        call.world.meters(call.a, Path::Hairpin, Direction::In),
        (0, 0)
    );
}

/// T7
#[test]
fn data_to_an_own_socket_goes_nowhere() {
    let mut call = Call::permitted(Setup::any());
    for own in [LISTENER_V4, "203.0.113.7:80", "203.0.113.7:0"] {
        let outcome = call.alice.send_to(&mut call.world, at(own), b"x");
        assert_eq!(outcome.dropped(), Some(DropReason::NoLanding), "{own}");
    }
}

#[test]
fn data_stops_at_the_receivers_deadline_even_if_no_worker_notices() {
    let mut call = Call::permitted(Setup::default());
    assert_eq!(
        call.alice.refresh(&mut call.world, Some(3_600)).code(),
        SUCCESS
    );
    call.world.stall(299);
    call.admit(CHANNEL, OTHER_CHANNEL);
    call.world.stall(300);
    call.alice.channel_data(&mut call.world, 0x4001, b"x");
    call.admit(CHANNEL, OTHER_CHANNEL);
    call.alice
        .channel_data(&mut call.world, 0x4001, b"last")
        .at(&call.bob);
    call.world.stall(1);
    let outcome = call.alice.channel_data(&mut call.world, 0x4001, b"late");
    assert_eq!(outcome.dropped(), Some(DropReason::NoLanding));
    let outcome = call.bob.channel_data(&mut call.world, 0x4FFF, b"late");
    assert_eq!(outcome.dropped(), Some(DropReason::NoChannel));
    assert_eq!(call.world.allocations(), 2, "nobody has noticed yet");
}

/// T57
#[test]
fn a_client_reaches_its_own_relayed_address_in_one_hop() {
    for setup in [
        Setup::default(),
        Setup::any(),
        Setup {
            bind: Bind::Always,
            ..Setup::default()
        },
    ] {
        for framing in [CHANNEL, Framing::Indication] {
            let mut call = Call::new(setup.clone());
            framing.admit(&mut call.alice, &mut call.world, call.a);
            let echo = framing
                .send(&mut call.alice, &mut call.world, call.a, b"echo")
                .at(&call.alice);
            assert_eq!(echo, as_received(framing, call.a, b"echo"));
            let sent = call.world.traffic(Path::Hairpin, Direction::Out);
            assert_eq!(sent, (1, 4));
        }
    }
}

/// T57: what a client got from itself and sends back is data, not a new hop by itself.
#[test]
fn a_hairpinned_packet_that_is_sent_back_is_no_loop() {
    let mut call = Call::permitted(Setup::default());
    let Outcome::Client { bytes, .. } = call.alice_says(b"x") else {
        panic!("not delivered");
    };
    // A Data indication is the server's to send.
    let outcome = call.world.send(&call.bob, &bytes);
    assert_eq!(outcome.dropped(), Some(DropReason::Unexpected));
}

/// T45
#[test]
fn padding_of_a_data_indication_is_zero() {
    let mut call = Call::permitted(Setup::default());
    for len in 0..=8 {
        let data = vec![0xEE; len];
        let Outcome::Client { bytes, .. } = call.alice_says(&data) else {
            panic!("not delivered");
        };
        assert!(bytes.len().is_multiple_of(4));
        let padding = len.next_multiple_of(4) - len;
        let (rest, tail) = bytes.split_at(bytes.len() - padding);
        assert!(rest.ends_with(&data));
        assert!(tail.iter().all(|byte| *byte == 0), "{tail:x?}");
    }
}

/// T46
#[test]
fn what_outgrows_the_receivers_framing_is_dropped() {
    // The largest DATA of a datagram on IPv4, behind header, peer and the attribute's own header.
    let largest = (65_507 - 20 - 12 - 4) & !3;
    for (len, fits) in [(largest, true), (largest + 1, false), (65_503, false)] {
        let mut call = Call::new(Setup::default());
        call.admit(CHANNEL, Framing::Indication);
        let outcome = call
            .alice
            .channel_data(&mut call.world, 0x4001, &vec![7; len]);
        let reason = (!fits).then_some(DropReason::TooLarge);
        assert_eq!(outcome.dropped(), reason, "{len}");
        let counted = call.world.traffic(Path::Hairpin, Direction::Out).0;
        assert_eq!(counted, u64::from(fits));
    }
}

#[test]
fn empty_data_is_delivered() {
    let mut call = Call::permitted(Setup::default());
    let received = call.alice_says(b"").at(&call.bob);
    assert_eq!(received, Received::Data(call.a, Vec::new()));
}

#[test]
fn dont_fragment_has_no_hop_to_act_on() {
    let mut call = Call::permitted(Setup::default());
    let bytes = call
        .alice
        .send_indication(call.b, b"x")
        .with(&DontFragment)
        .bytes();
    let received = call.world.send(&call.alice, &bytes).at(&call.bob);
    assert_eq!(received, Received::Data(call.a, b"x".to_vec()));
}

/// T67: what stands in the sender's message besides the data does not reach the receiver.
#[test]
fn attributes_of_a_send_indication_stay_behind() {
    let mut call = Call::permitted(Setup::default());
    let bytes = call
        .alice
        .send_indication(call.b, b"x")
        .raw(AttributeType::SOFTWARE, b"alice's phone")
        .with(&Data(b"second"))
        .fingerprint()
        .bytes();
    let Outcome::Client { bytes, .. } = call.world.send(&call.alice, &bytes) else {
        panic!("not delivered");
    };
    assert_eq!(bytes.len(), 20 + 12 + 8);
}

#[test]
fn parties_on_different_workers_reach_each_other() {
    let mut world = Setup {
        workers: 4,
        ..Setup::default()
    }
    .world();
    let mut alice = world.client("alice", "198.51.100.1:1000").on(1);
    let mut bob = world.client("bob", "198.51.100.2:2000").on(3);
    let (a, b) = (alice.allocate(&mut world), bob.allocate(&mut world));
    CHANNEL.admit(&mut alice, &mut world, b);
    Framing::Indication.admit(&mut bob, &mut world, a);
    let there = alice.channel_data(&mut world, 0x4001, b"there").at(&bob);
    assert_eq!(there, Received::Data(a, b"there".to_vec()));
    let back = bob.send_to(&mut world, a, b"back").at(&alice);
    assert_eq!(back, Received::Channel(0x4001, b"back".to_vec()));
    assert_eq!(world.meters(b, Path::Hairpin, Direction::Out), (1, 5));
}

#[test]
fn a_party_that_came_back_under_another_port_is_found_there() {
    let mut call = Call::permitted(Setup::default());
    let mut bob = call.bob.moved("198.51.100.2:2999");
    call.bob.refresh(&mut call.world, Some(0));
    let b = bob.allocate(&mut call.world);
    Framing::Indication.admit(&mut bob, &mut call.world, call.a);
    let received = call.alice.send_to(&mut call.world, b, b"x").at(&bob);
    assert_eq!(received, Received::Data(call.a, b"x".to_vec()));
    let old = call.alice_says(b"x").dropped();
    assert_eq!(old, Some(DropReason::NoLanding));
}
