//! What the server itself costs per packet, without a socket: `cargo bench --bench forward`.
//! The environment is the tests' (plain maps), so the directory's share is not in the figures.

#[path = "../tests/world/mod.rs"]
mod world;

use std::time::Duration;

use divan::{Bencher, black_box};
use taciturn::proto::{DATA_INDICATION_HEADROOM as HEADROOM, Message, Method};
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{FiveTuple, Handled};

use world::call::{Call, Framing};
use world::client::SUCCESS;
use world::servers::Setup;

/// One Opus packet of 20 ms with its RTP header and authentication tag.
const PAYLOAD: [u8; 172] = [7; 172];

fn main() {
    divan::main();
}

#[divan::bench]
fn decode_an_authenticated_request(bencher: Bencher<'_, '_>) {
    let mut call = Call::permitted(Setup::default());
    let request = call.alice.build(Method::REFRESH);
    let bytes = call.alice.sign(request);
    bencher.bench(|| Message::decode(black_box(&bytes)).is_ok());
}

/// Whether the packet is the first on its way within a batch, or follows another one there.
const PLACES: [Place; 2] = [Place::First, Place::Following];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Following,
}

#[divan::bench(args = PLACES)]
fn hairpin_from_channel_to_channel(bencher: Bencher<'_, '_>, place: Place) {
    let number = 0x4001_u16;
    let mut datagram = number.to_be_bytes().to_vec();
    datagram.extend(172_u16.to_be_bytes());
    datagram.extend(PAYLOAD);
    let framing = Framing::Channel(number);
    forward(bencher, framing, place, |_| datagram.clone());
}

#[divan::bench(args = PLACES)]
fn hairpin_from_indication_to_indication(bencher: Bencher<'_, '_>, place: Place) {
    forward(bencher, Framing::Indication, place, |call| {
        call.alice.send_indication(call.b, &PAYLOAD).bytes()
    });
}

/// Packets of one call in a batch.
const BATCH: u16 = 4;
/// How far apart they are by the clock and by their timestamps, at 48,000 Hz: so little that no
/// permission ends while they go on.
const SPACING: Duration = Duration::from_micros(250);
const STEP: u32 = 12;

/// A packet of a call in its batch, with and without a look at its RTP header; the stream goes on
/// from packet to packet.
#[divan::bench(args = [false, true])]
fn hairpin_of_media(bencher: Bencher<'_, '_>, is_measured: bool) {
    let mut call = Call::new(Setup {
        media_quality: is_measured,
        ..Setup::default()
    });
    let framing = Framing::Channel(0x4001);
    call.admit(framing, framing);
    let (tuple, mut clock) = (call.alice.tuple, call.world.clock);
    let server = &mut call.world.servers[usize::from(call.alice.worker.0)];
    let mut buf = vec![0; HEADROOM];
    buf.extend([0x40, 0x01, 0, 172, 0x80, 111, 0, 0]);
    buf.extend(&PAYLOAD[4..]);
    let (mut number, mut timestamp) = (0_u16, 0_u32);
    bencher.bench_local(|| {
        number = number.wrapping_add(1);
        timestamp = timestamp.wrapping_add(STEP);
        buf[HEADROOM..HEADROOM + 2].copy_from_slice(&[0x40, 0x01]);
        buf[HEADROOM + 6..HEADROOM + 8].copy_from_slice(&number.to_be_bytes());
        buf[HEADROOM + 8..HEADROOM + 12].copy_from_slice(&timestamp.to_be_bytes());
        let range = HEADROOM..HEADROOM + 176;
        let handled = server.handle_client(tuple, &mut buf, range, clock);
        assert!(matches!(handled, Handled::Forward(_)));
        if number.is_multiple_of(BATCH) {
            server.settle();
            clock.now = clock.now.plus(SPACING * BATCH.into());
        }
    });
}

/// Calls whose packets follow each other, so that none finds what it needs in the nearest cache.
const CALLS: u16 = 1_000;
/// Packets of a batch, each of another call.
const OF_OTHERS: u16 = 25;

/// A batch of packets of as many calls, with and without a look at their RTP headers.
#[divan::bench(args = [false, true])]
fn hairpin_of_media_of_a_thousand_calls(bencher: Bencher<'_, '_>, is_measured: bool) {
    let mut world = Setup {
        media_quality: is_measured,
        unvalidated: Rate {
            per_second: 1_000_000,
            burst: 1_000_000,
        },
        ..Setup::default()
    }
    .world();
    let tuples: Vec<FiveTuple> = (0..CALLS)
        .map(|call| {
            let [high, low] = call.to_be_bytes();
            let mut parties = [1, 2].map(|party| {
                let addr = format!("198.{}.{high}.{low}:{party}000", 50 + party);
                world.client(&format!("user-{call}-{party}"), &addr)
            });
            let [a, b] = parties.each_mut().map(|party| party.allocate(&mut world));
            for (party, peer) in parties.iter_mut().zip([b, a]) {
                assert_eq!(party.bind(&mut world, 0x4001, peer), SUCCESS);
            }
            parties[0].tuple
        })
        .collect();
    let mut clock = world.clock;
    let server = &mut world.servers[0];
    let mut slots: Vec<Vec<u8>> = (0..OF_OTHERS)
        .map(|_| [vec![0; HEADROOM], vec![0; 4], PAYLOAD.to_vec()].concat())
        .collect();
    let (mut number, mut place) = (0_u16, 0_usize);
    bencher.bench_local(|| {
        let batch = &tuples[place..place + usize::from(OF_OTHERS)];
        server.look_ahead(batch.iter().copied());
        for (tuple, buf) in batch.iter().zip(&mut slots) {
            buf[HEADROOM..HEADROOM + 6].copy_from_slice(&[0x40, 0x01, 0, 172, 0x80, 111]);
            buf[HEADROOM + 6..HEADROOM + 8].copy_from_slice(&number.to_be_bytes());
            let timestamp = u32::from(number).wrapping_mul(960).to_be_bytes();
            buf[HEADROOM + 8..HEADROOM + 12].copy_from_slice(&timestamp);
            let handled = server.handle_client(*tuple, buf, HEADROOM..HEADROOM + 176, clock);
            assert!(matches!(handled, Handled::Forward(_)));
        }
        server.settle();
        place += usize::from(OF_OTHERS);
        if place == tuples.len() {
            place = 0;
            number = number.wrapping_add(1);
            clock.now = clock.now.plus(Duration::from_millis(20));
        }
    });
}

fn forward(
    bencher: Bencher<'_, '_>,
    framing: Framing,
    place: Place,
    datagram: impl FnOnce(&mut Call) -> Vec<u8>,
) {
    let mut call = Call::new(Setup::default());
    call.admit(framing, framing);
    let datagram = datagram(&mut call);
    let (tuple, clock) = (call.alice.tuple, call.world.clock);
    let server = &mut call.world.servers[usize::from(call.alice.worker.0)];
    let mut buf = vec![0; HEADROOM];
    buf.extend(&datagram);
    buf.extend([0; 8]);
    bencher.bench_local(|| {
        let range = HEADROOM..HEADROOM + datagram.len();
        buf[range.clone()].copy_from_slice(&datagram);
        let handled = server.handle_client(tuple, &mut buf, range, clock);
        assert!(matches!(handled, Handled::Forward(_)));
        if place == Place::First {
            server.settle();
        }
    });
}
