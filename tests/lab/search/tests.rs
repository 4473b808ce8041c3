//! A search that finds nothing proves nothing unless it can find: each form,
//! planted in a packet, is found, and nothing is found where none is planted.

use super::super::packet::tests::udp_frame;
use super::*;

const V4: &str = "198.51.100.20";
const V6: &str = "2001:db8:b::20";
const TRANSACTION: [u8; 12] = *b"transaction!";

fn forms(address: &str, payload: &[u8]) -> Vec<Form> {
    let packet = Packet::of_frame(&udp_frame(payload)).unwrap();
    let found = Search::new(address.parse().unwrap()).in_packet(&packet);
    let mut forms: Vec<_> = found.iter().map(|finding| finding.form).collect();
    forms.dedup();
    forms
}

fn forms_in_text(address: &str, text: &str) -> Vec<Form> {
    let found = Search::new(address.parse().unwrap()).in_text(text.as_bytes());
    found.iter().map(|finding| finding.form).collect()
}

/// A Binding success response with one XOR-MAPPED-ADDRESS.
fn binding_response(family: u8, xored: &[u8]) -> Vec<u8> {
    let mut message = vec![0x01, 0x01, 0, u8::try_from(xored.len()).unwrap() + 8];
    message.extend(MAGIC_COOKIE);
    message.extend(TRANSACTION);
    message.extend([
        0,
        0x20,
        0,
        u8::try_from(xored.len()).unwrap() + 4,
        0,
        family,
        0x32,
        0x56,
    ]);
    message.extend(xored);
    message
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    let payload: Vec<u8> = (0..=255).collect();
    assert_eq!(forms(V4, &payload), []);
    assert_eq!(forms(V6, &payload), []);
    assert_eq!(forms_in_text(V4, "198.51.100.2 and 98.51.100.20"), []);
}

#[test]
fn the_raw_bytes_are_found_between_other_bytes() {
    assert_eq!(forms(V4, &[1, 198, 51, 100, 20, 2]), [Form::Raw]);
    let v6: Ipv6Addr = V6.parse().unwrap();
    assert_eq!(
        forms(V6, &[&[7], &v6.octets()[..], &[8]].concat()),
        [Form::Raw]
    );
}

#[test]
fn the_xored_ipv4_address_is_found() {
    // 198.51.100.20 is c6336414, the cookie 2112a442.
    let payload = binding_response(1, &[0xe7, 0x21, 0xc0, 0x56]);
    assert_eq!(forms(V4, &payload), [Form::Xored]);
}

#[test]
fn the_xored_ipv6_address_is_found_also_in_a_message_inside_channel_data() {
    let v6: Ipv6Addr = V6.parse().unwrap();
    let mut xored = v6.octets();
    for (at, byte) in xored.iter_mut().enumerate() {
        *byte ^= [&MAGIC_COOKIE[..], &TRANSACTION].concat()[at];
    }
    let message = binding_response(2, &xored);
    assert_eq!(forms(V6, &message), [Form::Xored]);
    let inside = [&[0x40, 0, 0, 44], &message[..]].concat();
    assert_eq!(forms(V6, &inside), [Form::Xored]);
}

#[test]
fn text_is_found_in_each_spelling() {
    assert_eq!(forms(V4, b"from=198.51.100.20:5000"), [Form::Text]);
    assert_eq!(forms(V4, b"3325256724"), [Form::Text]);
    assert_eq!(forms(V6, b"[2001:DB8:B::20]:5000"), [Form::Text]);
    assert_eq!(
        forms(V6, b"2001:0db8:000b:0000:0000:0000:0000:0020"),
        [Form::Text]
    );
    assert_eq!(forms(V6, b"2001:db8:b:0:0:0:0:20"), [Form::Text]);
    assert_eq!(forms(V4, b"from: [198, 51, 100, 20]"), [Form::Text]);
    assert_eq!(forms(V4, b"value: [231, 33, 192, 86]"), [Form::Text]);
    let list = b"[32, 1, 13, 184, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]";
    assert_eq!(forms(V6, list), [Form::Text]);
}

#[test]
fn hexadecimal_is_found_plain_and_xored() {
    assert_eq!(forms(V4, b"addr=C6336414"), [Form::Hex]);
    assert_eq!(forms(V4, b"e721c056"), [Form::Hex]);
    assert_eq!(forms(V6, b"20010db8000b00000000000000000020"), [Form::Hex]);
}

#[test]
fn reversed_it_is_found_as_bytes_digits_and_names() {
    assert_eq!(forms(V4, &[1, 20, 100, 51, 198, 2]), [Form::Reversed]);
    assert_eq!(forms(V4, b"20.100.51.198.in-addr.arpa"), [Form::Reversed]);
    // In /proc/net/udp.
    assert_eq!(
        forms_in_text(V4, "  2: 00000000:0035 146433C6:C350 07"),
        [Form::Reversed]
    );
    assert_eq!(forms_in_text(V4, "from=342111174"), [Form::Reversed]);
    assert_eq!(
        forms_in_text(V6, "B80D012000000B000000000020000000:0035"),
        [Form::Reversed]
    );
    let name = "0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.b.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    assert_eq!(forms_in_text(V6, name), [Form::Reversed]);
}

#[test]
fn base64_is_found_of_bytes_and_of_text_at_every_offset() {
    assert_eq!(forms(V4, b"xjNkFA=="), [Form::Base64]);
    for before in ["", "a", "ab", "abc"] {
        for address in [V4, V6] {
            let line = STANDARD_NO_PAD.encode(format!("{before}{address}:5000"));
            assert_eq!(forms_in_text(address, &line), [Form::Base64], "{line}");
        }
    }
}

#[test]
fn the_header_counts_on_either_end() {
    assert_eq!(forms("192.0.2.10", b""), [Form::Header]);
    assert_eq!(forms("203.0.113.7", b""), [Form::Header]);
}

#[test]
fn a_finding_in_text_quotes_its_line() {
    let found = Search::new(V4.parse().unwrap()).in_text(b"one\ntwo 198.51.100.20\nthree");
    assert_eq!(
        found[0].to_string(),
        "198.51.100.20 as Text in \"two 198.51.100.20\""
    );
}
