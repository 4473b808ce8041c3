//! The fuzz targets' bodies on seeded random bytes, for machines without cargo-fuzz. The bytes
//! lean towards what a message is made of.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::fuzz_bodies;

const ROUNDS: u64 = 3000;

/// T44
#[test]
fn decode_survives_random_input() {
    for seed in 0..ROUNDS {
        println!("seed {seed}");
        fuzz_bodies::decode(&input(seed));
    }
}

/// T44
#[test]
fn stream_border_survives_random_input() {
    for seed in 0..ROUNDS {
        println!("seed {seed}");
        fuzz_bodies::stream_border(&input(seed));
    }
}

/// Pieces of noise, attribute headers, message headers and channel headers.
fn input(seed: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut bytes = Vec::new();
    for _ in 0..rng.random_range(0..8) {
        let len = rng.random_range(0..40_u16);
        match rng.random_range(0..5) {
            0 => bytes.extend((0..len).map(|_| rng.random::<u8>())),
            1 => {
                bytes.extend([0, rng.random_range(0..0x2B)]);
                bytes.extend(len.to_be_bytes());
                bytes.resize(
                    bytes.len() + usize::from(len).next_multiple_of(4),
                    rng.random(),
                );
            }
            2 => {
                bytes.extend([0x80, rng.random_range(0..0x31)]);
                bytes.extend((len / 4).to_be_bytes());
                bytes.resize(bytes.len() + usize::from(len / 4).next_multiple_of(4), 0);
            }
            3 => {
                bytes.extend([0, 1, 0]);
                bytes.push(rng.random_range(0..10) * 4);
                bytes.extend([0x21, 0x12, 0xA4, 0x42]);
                bytes.extend(rng.random::<[u8; 12]>());
            }
            _ => {
                bytes.extend([0x40, rng.random()]);
                bytes.extend(len.to_be_bytes());
                bytes.resize(bytes.len() + usize::from(len), rng.random());
            }
        }
    }
    bytes
}
