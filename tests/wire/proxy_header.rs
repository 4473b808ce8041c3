//! The body of the fuzz target `proxy_header` on headers that are nearly right, and on the seeds that
//! the fuzzer begins with.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::fuzz_bodies;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, with an announced length that mostly fits.
fn binary() -> impl Strategy<Value = Vec<u8>> {
    let command = prop::sample::select(vec![0x20, 0x21, 0x21, 0x21, 0x22, 0x11]);
    let family = prop::sample::select(vec![0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32, 0x13, 0x41]);
    let body = prop_oneof![
        vec(any::<u8>(), 12..=12),
        vec(any::<u8>(), 36..=36),
        vec(any::<u8>(), 0..60),
        vec(any::<u8>(), 216..230),
    ];
    let off = prop_oneof![6 => Just(0_i16), 1 => -20..20_i16, 1 => any::<i16>()];
    (command, family, body, off).prop_map(|(command, family, body, off)| {
        let length = u16::try_from(body.len()).unwrap().wrapping_add_signed(off);
        [SIGNATURE, &[command, family], &length.to_be_bytes(), &body].concat()
    })
}

/// Version 1.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let family = prop::sample::select(vec!["TCP4", "TCP6", "UNKNOWN", "UDP4", ""]);
    let v4 = any::<[u8; 4]>().prop_map(|ip| std::net::Ipv4Addr::from(ip).to_string());
    let v6 = any::<[u8; 16]>().prop_map(|ip| std::net::Ipv6Addr::from(ip).to_string());
    let address = prop_oneof![4 => v4, 4 => v6, 1 => "[0-9a-f:.]{0,50}"].boxed();
    let port = prop_oneof![8 => any::<u16>().prop_map(|port| port.to_string()), 1 => "[0-9+]{0,7}"];
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r", " \r\n", ""]);
    (
        family,
        address.clone(),
        address,
        port.clone().boxed(),
        port,
        end,
    )
        .prop_map(|(family, from, to, p, q, end)| {
            format!("PROXY {family} {from} {to} {p} {q}{end}")
        })
        .prop_map(String::into_bytes)
}

proptest! {
    /// T44, T61
    #[test]
    fn a_header_is_what_its_bytes_say_and_nothing_else(
        header in prop_oneof![binary(), line(), vec(any::<u8>(), 0..40)],
        cut in 0..400_usize,
        tail in vec(any::<u8>(), 0..20),
    ) {
        fuzz_bodies::proxy_header(&header);
        fuzz_bodies::proxy_header(&header[..cut.min(header.len())]);
        fuzz_bodies::proxy_header(&[header, tail].concat());
    }
}

#[test]
fn the_seeds_of_proxy_header_hold() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/proxy_header");
    let mut count = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        fuzz_bodies::proxy_header(&std::fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "there are none");
}
