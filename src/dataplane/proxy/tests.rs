use proptest::prelude::*;

use super::*;

const V1_LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n";
const V1_SIX: &[u8] = b"PROXY TCP6 2001:db8::1 2001:db8::9 56324 443\r\n";
/// Section 2.1: the longest there is.
const V1_LONGEST: &[u8] = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
      ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";

/// A header of version 2: command, family and transport, what follows.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap();
    [V2, &[command, family], &len.to_be_bytes(), rest].concat()
}

const FOUR: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 9, 0xdc, 0x04, 0x01, 0xbb];

fn six() -> Vec<u8> {
    let ip = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let ports = [0xdc, 0x04, 0x01, 0xbb];
    [&ip("2001:db8::1")[..], &ip("2001:db8::9"), &ports].concat()
}

fn header(len: usize, client: Option<&str>) -> Parsed {
    Parsed::Header {
        len,
        client: client.map(|text| ClientAddr::new(text.parse().unwrap())),
    }
}

fn stream_headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let (four, six_addr) = (Some("192.0.2.1:56324"), Some("[2001:db8::1]:56324"));
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::9 56324 443\r\n";
    let tlv = [&FOUR[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    vec![
        (V1_LINE.to_vec(), four),
        (V1_SIX.to_vec(), six_addr),
        (mapped.to_vec(), four),
        (V1_LONGEST.to_vec(), None),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (v2(0x21, 0x11, &FOUR), four),
        (v2(0x21, 0x21, &six()), six_addr),
        (v2(0x21, 0x11, &tlv), four),
        (v2(0x21, 0x00, b""), None),
        // LOCAL, with and without what it does not need.
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, b""), None),
        (v2(0x20, 0x11, &FOUR), None),
        (v2(0x20, 0xff, b"whatever"), None),
        // AF_UNIX: nobody whom TURN could answer.
        (v2(0x21, 0x31, &[0; 216]), None),
    ]
}

#[test]
fn headers_of_both_versions_tell_the_client_and_leave_the_rest() {
    for (bytes, client) in stream_headers() {
        let expected = header(bytes.len(), client);
        assert_eq!(parse_stream(&bytes), expected, "{bytes:?}");
        let followed = [&bytes[..], b"\x16\x03\x01PROXY \r\n\r\n"].concat();
        assert_eq!(parse_stream(&followed), expected, "{followed:?}");
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    for (bytes, _) in stream_headers() {
        for end in 0..bytes.len() {
            assert_eq!(
                parse_stream(&bytes[..end]),
                Parsed::NeedMore,
                "{end} of {bytes:?}"
            );
        }
    }
}

/// T61
#[test]
fn what_begins_otherwise_has_no_header() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"\x00\x01\x00\x00\x21\x12\xa4\x42",
        b"\x00\x03",
        b"\x40\x00\x00\x04",
        b"P0",
        b"PROXY\r",
        b"\r\n\r\n\0\r\nQUIX",
        b"\n",
    ] {
        assert_eq!(parse_stream(bytes), Parsed::Absent, "{bytes:?}");
    }
}

#[test]
fn what_begins_like_a_header_and_is_none_is_invalid() {
    for line in [
        "PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.9 65536 443\r\n",
        "PROXY TCP4 192.0.2.256 192.0.2.9 56324 443\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::9 56324 443\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.9 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 more\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.9 56324 443\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.9 56324 443\r\n",
    ] {
        assert_eq!(parse_stream(line.as_bytes()), Parsed::Invalid, "{line}");
    }
    let endless = [V1, &[b'x'; 200]].concat();
    assert_eq!(parse_stream(&endless[..V1_MOST - 1]), Parsed::NeedMore);
    assert_eq!(parse_stream(&endless[..V1_MOST]), Parsed::Invalid);
    assert_eq!(parse_stream(&endless), Parsed::Invalid);
    let late = [V1, b"UNKNOWN ", &[b'x'; 200], b"\r\n"].concat();
    assert_eq!(parse_stream(&late), Parsed::Invalid);

    for bytes in [
        v2(0x11, 0x11, &FOUR),
        v2(0x31, 0x11, &FOUR),
        v2(0x22, 0x11, &FOUR),
        v2(0x21, 0x13, &FOUR),
        v2(0x21, 0x41, &FOUR),
        // Too short for what they say, with enough behind them.
        [v2(0x21, 0x11, &FOUR[..11]), vec![0; 64]].concat(),
        [v2(0x21, 0x21, &FOUR), vec![0; 64]].concat(),
        [v2(0x21, 0x31, &FOUR), vec![0; 256]].concat(),
        // Datagrams in a stream.
        v2(0x21, 0x12, &FOUR),
        v2(0x21, 0x22, &six()),
    ] {
        assert_eq!(parse_stream(&bytes), Parsed::Invalid, "{bytes:?}");
    }
}

#[test]
fn a_header_is_no_longer_than_the_buffer_that_waits_for_it() {
    let most = v2(0x20, 0, &[0; MAX_HEADER - V2_FIXED]);
    assert_eq!(parse_stream(&most), header(MAX_HEADER, None));
    let more = v2(0x20, 0, &[0; MAX_HEADER - V2_FIXED + 1]);
    // Refused as soon as its length is there.
    assert_eq!(parse_stream(&more[..V2_FIXED - 1]), Parsed::NeedMore);
    assert_eq!(parse_stream(&more[..V2_FIXED]), Parsed::Invalid);
}

#[test]
fn a_datagram_carries_its_header_whole_and_of_version_2() {
    for (bytes, client) in [
        (v2(0x21, 0x12, &FOUR), Some("192.0.2.1:56324")),
        (v2(0x21, 0x22, &six()), Some("[2001:db8::1]:56324")),
        (v2(0x20, 0x00, b""), None),
        (v2(0x21, 0x00, b""), None),
    ] {
        let datagram = [&bytes[..], b"payload"].concat();
        assert_eq!(parse_datagram(&datagram), header(bytes.len(), client));
        assert_eq!(parse_datagram(&bytes), header(bytes.len(), client));
        for end in 0..bytes.len() {
            let cut = parse_datagram(&bytes[..end]);
            let expected = if end < V2.len() {
                Parsed::Absent
            } else {
                Parsed::Invalid
            };
            assert_eq!(cut, expected, "{end} of {bytes:?}");
        }
    }
    assert_eq!(parse_datagram(&v2(0x21, 0x11, &FOUR)), Parsed::Invalid);
    assert_eq!(parse_datagram(V1_LINE), Parsed::Absent);
    assert_eq!(
        parse_datagram(b"\x00\x01\x00\x00\x21\x12\xa4\x42"),
        Parsed::Absent
    );
}

/// T61
#[test]
fn only_configured_networks_are_believed() {
    let trusted: Vec<IpNet> = ["198.51.100.0/24", "2001:db8:2::1/128"]
        .map(|net| net.parse().unwrap())
        .to_vec();
    let trusts = |ip: &str| trusts(&trusted, ip.parse().unwrap());
    assert!(trusts("198.51.100.7") && trusts("2001:db8:2::1") && trusts("::ffff:198.51.100.7"));
    assert!(!trusts("198.51.101.7") && !trusts("2001:db8:2::2") && !trusts("::1"));
    assert!(!super::trusts(&[], "127.0.0.1".parse().unwrap()));
}

/// T26
#[test]
fn no_client_is_printed() {
    let shown = format!("{:?}", parse_stream(V1_LINE));
    assert!(
        !shown.contains("192") && shown.contains("hidden"),
        "{shown}"
    );
}

/// Bytes that get far: a header's beginning, then what somebody hostile likes.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(Vec::new()),
        Just(V2.to_vec()),
        Just(V1.to_vec()),
        Just(b"PROXY TCP4 ".to_vec()),
        Just(b"PROXY TCP6 1::".to_vec()),
        Just(b"PROXY UNKNOWN".to_vec()),
        (0x1f..0x23u8, any::<u8>(), 0..300u16).prop_map(|(command, family, len)| {
            [V2, &[command, family], &len.to_be_bytes()].concat()
        }),
    ];
    let text = "[ 0-9a-f:.\\r\\n]{0,120}".prop_map(String::into_bytes);
    let rest = prop_oneof![prop::collection::vec(any::<u8>(), 0..400), text];
    (start, rest).prop_map(|(start, rest)| [start, rest].concat())
}

proptest! {
    #[test]
    fn hostile_bytes_are_judged_within_bounds(bytes in hostile()) {
        for parsed in [parse_stream(&bytes), parse_datagram(&bytes)] {
            match parsed {
                Parsed::Header { len, .. } => prop_assert!(len <= bytes.len().min(MAX_HEADER)),
                Parsed::NeedMore => prop_assert!(bytes.len() < MAX_HEADER),
                Parsed::Absent | Parsed::Invalid => {}
            }
        }
        prop_assert_ne!(parse_datagram(&bytes), Parsed::NeedMore);
    }

    /// A slow sender is told the same as a fast one.
    #[test]
    fn a_judgement_stays_when_more_comes(bytes in hostile()) {
        let mut judged = None;
        for end in 0..=bytes.len() {
            let parsed = parse_stream(&bytes[..end]);
            match judged {
                None if parsed == Parsed::NeedMore => {}
                None => judged = Some(parsed),
                Some(before) => prop_assert_eq!(parsed, before, "at {}", end),
            }
        }
    }
}
