//! The body of the fuzz target `stream_server` on bytes that look like what clients send, and on the
//! seeds that the fuzzer begins with.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::sim::fuzz_bodies::stream_server;

/// What a piece begins with: who sends it, and how much time has passed.
fn how() -> impl Strategy<Value = u8> {
    (0..2_u8, 0..4_u8, 0..4_u8).prop_map(|(who, seconds, shift)| who | seconds << 1 | shift << 6)
}

fn channel_data(announced: u16, present: usize) -> Vec<u8> {
    let mut bytes = vec![0x40, 0];
    bytes.extend(announced.to_be_bytes());
    bytes.resize(4 + present.next_multiple_of(4), 7);
    bytes
}

/// A header with a cookie, and attributes that are mostly none.
fn stun(kind: u16, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len() / 4 * 4];
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend([0x21, 0x12, 0xA4, 0x42]);
    bytes.extend([9; 12]);
    bytes.extend(body);
    bytes
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![0x0001, 0x0003, 0x0004, 0x0008, 0x0009, 0x0016, 0x0011]);
    prop_oneof![
        4 => (0..300_u16).prop_map(|len| channel_data(len, len.into())),
        1 => any::<u16>().prop_map(|len| channel_data(len, 100)),
        3 => (kinds, vec(any::<u8>(), 0..60)).prop_map(|(kind, body)| stun(kind, &body)),
        1 => vec(any::<u8>(), 0..30),
        1 => Just(b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

/// Messages in a row, cut without regard to where they end.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let messages = vec(message(), 1..12).prop_map(|messages| messages.concat());
    (messages, vec((how(), 1..200_u8), 1..40)).prop_map(|(bytes, cuts)| {
        let mut data = Vec::new();
        let mut rest = &bytes[..];
        for (how, length) in cuts {
            let (piece, others) = rest.split_at(rest.len().min(usize::from(length)));
            data.extend([how & 0x3F, u8::try_from(piece.len()).unwrap()]);
            data.extend(piece);
            rest = others;
        }
        data
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// T36, T44
    #[test]
    fn a_stream_in_any_pieces_gets_nothing_that_is_not_its_own(data in conversation()) {
        stream_server(&data);
    }
}

#[test]
fn the_seeds_of_stream_server_hold() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/stream_server");
    let mut count = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        stream_server(&std::fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "there are none");
}
