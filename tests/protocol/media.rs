//! The quality of RTP streams: on whose account it is, and what is no RTP at all.

use std::time::Duration;

use taciturn::turn::media::{Quality, Sign};
use taciturn::turn::stats::Direction;
use taciturn::turn::{RelayedAddr, Tick};

use crate::world::call::{Call, Framing};
use crate::world::servers::{Setup, World};

use Direction::{In, Out};

const CHANNEL: Framing = Framing::Channel(0x4000);
/// A peer that is no relayed address.
const PEER: &str = "8.8.4.4:5000";
const PTIME: Duration = Duration::from_millis(20);

/// RFC 3550 §5.1: packet `number` of an Opus stream.
fn rtp(number: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend(number.to_be_bytes());
    packet.extend((u32::from(number) * 960).to_be_bytes());
    packet.extend([1, 2, 3, 4]);
    packet.extend([0xE5; 80]);
    packet
}

fn quality(world: &World, relayed: std::net::SocketAddr, direction: Direction) -> Option<Quality> {
    let house = world.house.borrow();
    let landing = &house.landings[&RelayedAddr::new(relayed)];
    landing.meters().quality(direction)
}

fn pass(world: &mut World, time: Duration) {
    world.clock.now = world.clock.now.plus(time);
}

/// A packet every 20 ms, of which each tenth is lost and each odd one is 10 ms late; two that are
/// alike follow each other where one is lost.
fn talk(call: &mut Call, packets: u16, of_alice: Framing) {
    let began: Tick = call.world.clock.now;
    for number in 0..packets {
        let late = Duration::from_millis(if number % 2 == 1 { 10 } else { 0 });
        call.world.clock.now = began.plus(PTIME * number.into() + late);
        if number < 2 || number % 10 != 0 {
            let Call {
                world,
                alice,
                bob,
                b,
                ..
            } = call;
            of_alice.send(alice, world, *b, &rtp(number)).at(bob);
        }
    }
    call.world.settle();
}

#[test]
fn a_stream_between_two_parties_is_on_the_account_of_both_in_every_framing() {
    for of_alice in [CHANNEL, Framing::Indication] {
        for of_bob in [CHANNEL, Framing::Indication] {
            let mut call = Call::new(Setup::default());
            call.admit(of_alice, of_bob);
            assert_eq!(quality(&call.world, call.a, In), None);
            talk(&mut call, 1_000, of_alice);
            let sent = quality(&call.world, call.a, In).unwrap();
            let received = quality(&call.world, call.b, Out).unwrap();
            assert_eq!(sent, received);
            assert_eq!((sent.streams, sent.expected, sent.lost()), (1, 999, 99));
            assert_eq!((sent.reordered, sent.duplicates, sent.gaps), (0, 0, 0));
            let jitter = sent.jitter.as_micros();
            assert!((8_000..10_000).contains(&jitter), "{jitter} µs");
            // Bob said nothing.
            assert_eq!(quality(&call.world, call.b, In), Some(Quality::default()));
            assert_eq!(quality(&call.world, call.a, Out), Some(Quality::default()));
        }
    }
}

#[test]
fn a_stream_to_a_peer_outside_and_one_from_it_are_apart() {
    let setup = Setup::any();
    let mut call = Call::new(setup);
    let peer = PEER.parse().unwrap();
    CHANNEL.admit(&mut call.alice, &mut call.world, peer);
    for number in 0..100 {
        let outcome = call
            .alice
            .channel_data(&mut call.world, 0x4000, &rtp(number));
        assert_eq!(outcome.outside().2, rtp(number));
        if number % 2 == 0 || number < 2 {
            call.world
                .receive_from_peer(call.a, PEER, &rtp(number))
                .at(&call.alice);
        }
        pass(&mut call.world, PTIME);
    }
    call.world.settle();
    let (there, back) = (
        quality(&call.world, call.a, In).unwrap(),
        quality(&call.world, call.a, Out).unwrap(),
    );
    assert_eq!((there.expected, there.packets), (99, 99));
    assert_eq!((back.expected, back.packets), (98, 50));
}

/// Every worker's totals and histograms have what its allocations have.
#[test]
fn what_is_measured_is_in_the_workers_totals_too() {
    let mut call = Call::new(Setup::default());
    call.admit(CHANNEL, CHANNEL);
    talk(&mut call, 1_000, CHANNEL);
    for direction in [In, Out] {
        let media = call.world.servers[0].counters().media(direction);
        assert_eq!(media.signs.total(Sign::Expected), 999);
        assert_eq!(media.signs.total(Sign::Packets), 900);
        // Three times five seconds, each with a tenth lost, and less than 10 ms of jitter since what
        // is lost lies between two that are late alike.
        let (loss, jitter) = (media.loss.read(), media.jitter.read());
        assert_eq!((loss.count(), jitter.count()), (3, 3));
        let mean = loss.sum / 3;
        assert!((96_000..104_000).contains(&mean), "{mean}");
        let mean = jitter.sum / 3;
        assert!((8_000_000..10_000_000).contains(&mean), "{mean}");
    }
}

/// RFC 7983 §7: STUN, DTLS, ZRTP, and what merely has the length of it.
#[test]
fn what_is_no_rtp_is_not_measured() {
    let mut call = Call::new(Setup::default());
    call.admit(CHANNEL, CHANNEL);
    for first in (0..128).chain(192..=255) {
        for number in 0..10 {
            let mut packet = rtp(number);
            packet[0] = first;
            call.alice
                .channel_data(&mut call.world, 0x4000, &packet)
                .at(&call.bob);
        }
    }
    for len in 0..12 {
        call.alice
            .channel_data(&mut call.world, 0x4000, &rtp(1)[..len])
            .at(&call.bob);
    }
    call.world.settle();
    assert_eq!(quality(&call.world, call.a, In), None);
    assert_eq!(quality(&call.world, call.b, Out), None);
}

#[test]
fn nothing_is_measured_where_that_is_off() {
    let setup = Setup {
        media_quality: false,
        ..Setup::default()
    };
    let mut call = Call::new(setup);
    call.admit(CHANNEL, CHANNEL);
    talk(&mut call, 100, CHANNEL);
    assert_eq!(quality(&call.world, call.a, In), None);
    let media = call.world.servers[0].counters().media(In);
    assert_eq!(media.signs.total(Sign::Packets), 0);
}

/// The place of an allocation that ended passes to another one.
#[test]
fn a_new_allocation_has_nothing_of_the_stream_of_an_old_one() {
    let mut call = Call::new(Setup::default());
    call.admit(CHANNEL, CHANNEL);
    talk(&mut call, 50, CHANNEL);
    call.alice.refresh(&mut call.world, Some(0));
    call.a = call.alice.allocate(&mut call.world);
    call.admit(CHANNEL, Framing::Indication);
    call.alice
        .channel_data(&mut call.world, 0x4000, &rtp(500))
        .at(&call.bob);
    call.world.settle();
    let quality = quality(&call.world, call.a, In).unwrap();
    assert_eq!((quality.packets, quality.unmeasured), (0, 1));
}
