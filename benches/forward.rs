//! What the server itself costs per packet, without a socket: `cargo bench --bench forward`.
//! The environment is the tests' (plain maps), so the directory's share is not in the figures.

#[path = "../tests/world/mod.rs"]
mod world;

use std::time::Duration;

use divan::{Bencher, black_box};
use taciturn::proto::{DATA_INDICATION_HEADROOM as HEADROOM, Message, Method};
use taciturn::turn::Handled;

use world::call::{Call, Framing};
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

/// Packets of one call in a batch, and how far apart they were sent.
const BATCH: u16 = 4;
const PTIME: Duration = Duration::from_millis(20);

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
        timestamp = timestamp.wrapping_add(960);
        buf[HEADROOM..HEADROOM + 2].copy_from_slice(&[0x40, 0x01]);
        buf[HEADROOM + 6..HEADROOM + 8].copy_from_slice(&number.to_be_bytes());
        buf[HEADROOM + 8..HEADROOM + 12].copy_from_slice(&timestamp.to_be_bytes());
        let range = HEADROOM..HEADROOM + 176;
        let handled = server.handle_client(tuple, &mut buf, range, clock);
        assert!(matches!(handled, Handled::Forward(_)));
        if number.is_multiple_of(BATCH) {
            server.settle();
            clock.now = clock.now.plus(PTIME * BATCH.into());
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
