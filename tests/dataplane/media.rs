//! RTP streams with a known loss, through a relay with real sockets: what is measured is what was
//! lost.

use std::net::{SocketAddr, UdpSocket};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use taciturn::turn::media::Quality;
use taciturn::turn::stats::Direction;

use crate::loopback::PATIENCE;
use crate::loopback::client::SUCCESS;
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4, loopback_of_its_own};

/// Packets of each stream.
const PACKETS: usize = 4_000;
/// Packets on their way at once, few enough for every buffer.
const AT_ONCE: usize = 20;
/// How far what is measured may be from the truth.
const WITHIN: f64 = 0.01;

/// What is left of a stream on its way to the relay.
struct Stream {
    arriving: Vec<Vec<u8>>,
    loss: f64,
    reordered: u64,
}

/// A stream that loses this part of its packets, while every fiftieth of the others comes late.
fn stream(seed: u64, loss: f64) -> Stream {
    let mut random = StdRng::seed_from_u64(seed);
    let first = random.random_range(..1_u16 << 15) + 30_000;
    let ssrc: u32 = random.random();
    let mut arriving = Vec::new();
    for number in 0..PACKETS {
        if number > 1 && random.random_bool(loss) {
            continue;
        }
        let late = if number > 1 && random.random_bool(0.02) {
            random.random_range(2..8)
        } else {
            0
        };
        arriving.push((number + late, number));
    }
    arriving.sort_by_key(|(place, _)| *place);
    let mut reordered = 0;
    let mut highest = 0;
    for (_, number) in &arriving {
        reordered += u64::from(*number < highest);
        highest = highest.max(*number);
    }
    let whole = (highest + 1) as f64;
    Stream {
        loss: 1.0 - arriving.len() as f64 / whole,
        reordered,
        arriving: arriving
            .iter()
            .map(|(_, number)| rtp(first, ssrc, *number))
            .collect(),
    }
}

/// RFC 3550 §5.1: 20 ms of Opus.
fn rtp(first: u16, ssrc: u32, number: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    let sequence = first.wrapping_add(u16::try_from(number).unwrap());
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::try_from(number).unwrap() * 960).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xE5; 160]);
    packet
}

/// What is known of the one allocation that has media in this direction.
#[track_caller]
fn quality(plane: &Plane, direction: Direction) -> Quality {
    let all = plane.handle.allocations();
    let found = all
        .iter()
        .filter_map(|seen| seen.standing.meters.quality(direction))
        .filter(|quality| quality.packets > 0)
        .collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "allocations with media");
    found[0]
}

#[track_caller]
fn is_true(quality: &Quality, stream: &Stream) {
    let off = (quality.loss_ratio() - stream.loss).abs();
    assert!(
        off <= WITHIN,
        "measured {}, lost {}",
        quality.loss_ratio(),
        stream.loss
    );
    assert_eq!((quality.streams, quality.duplicates), (1, 0));
    assert_eq!(quality.reordered, stream.reordered);
    assert!(stream.reordered > 10, "nothing was out of order");
}

#[test]
fn the_loss_of_a_stream_between_two_parties_is_measured_within_one_percent_on_both() {
    for workers in [1, 4] {
        for (seed, loss) in [(1, 0.0), (2, 0.05), (3, 0.2)] {
            let mut plane = Setup::relay(workers).start();
            let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(V4));
            assert_eq!(
                (a.bind(0x4000, at_b), b.bind(0x4001, at_a)),
                (SUCCESS, SUCCESS)
            );
            let stream = stream(seed, loss);
            assert!((stream.loss - loss).abs() < 0.02, "{}", stream.loss);
            for some in stream.arriving.chunks(AT_ONCE) {
                some.iter()
                    .for_each(|packet| a.send_channel(0x4000, packet));
                for packet in some {
                    assert_eq!(b.receive(), Received::Channel(0x4001, packet.clone()));
                }
            }
            is_true(&quality(&plane, Direction::In), &stream);
            is_true(&quality(&plane, Direction::Out), &stream);
        }
    }
}

/// A program with a UDP socket, on an address of its own.
fn peer() -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(loopback_of_its_own().into(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn the_loss_of_streams_to_and_from_a_peer_outside_is_measured_within_one_percent() {
    for workers in [1, 4] {
        for (seed, there, back) in [(4, 0.05, 0.2), (5, 0.2, 0.05)] {
            let mut plane = Setup::any(workers).start();
            let (peer, (mut client, relayed)) = (peer(), plane.party(V4));
            let at_peer = peer.local_addr().unwrap();
            assert_eq!(client.bind(0x4000, at_peer), SUCCESS);
            let [there, back] = [stream(seed, there), stream(seed + 10, back)];
            let mut buf = [0; 2_000];
            for some in there.arriving.chunks(AT_ONCE) {
                for packet in some {
                    client.send_channel(0x4000, packet);
                }
                for packet in some {
                    let len = peer.recv(&mut buf).unwrap();
                    assert_eq!(&buf[..len], packet);
                }
            }
            for some in back.arriving.chunks(AT_ONCE) {
                for packet in some {
                    peer.send_to(packet, relayed).unwrap();
                }
                for packet in some {
                    let got = client.receive();
                    assert_eq!(got, Received::Channel(0x4000, packet.clone()));
                }
            }
            is_true(&quality(&plane, Direction::In), &there);
            is_true(&quality(&plane, Direction::Out), &back);
        }
    }
}
