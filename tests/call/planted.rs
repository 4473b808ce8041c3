//! Addresses as a careless relay would write them, each form on its own: what the search for them
//! must find. Written without the search's own list of forms.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

use crate::lab::search::Form;

/// A line to plant, and the form in which it names the address.
pub(crate) struct Planted {
    pub(crate) form: Form,
    pub(crate) line: Vec<u8>,
}

fn line(form: Form, line: impl Into<Vec<u8>>) -> Planted {
    let line = line.into();
    Planted { form, line }
}

/// Every form of `address`.
pub(crate) fn every_form(address: IpAddr) -> Vec<Planted> {
    let text = address.to_string();
    let mut planted = match address {
        IpAddr::V4(address) => forms_v4(address),
        IpAddr::V6(address) => forms_v6(address),
    };
    planted.extend([
        line(Form::Text, format!("from={text}")),
        line(Form::Text, format!("from={}", text.to_uppercase())),
        line(Form::Text, format!("from=[{text}]:50000")),
        line(Form::Text, format!("{{\"from\":\"{text}:50000\"}}")),
    ]);
    planted.extend(["", "a", "ab"].map(|before| {
        let encoded = STANDARD.encode(format!("{before}{text}:50000"));
        line(Form::Base64, encoded)
    }));
    planted
}

/// The forms of the bytes of an address, whichever family.
fn forms_of_bytes(bytes: &[u8]) -> Vec<Planted> {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let pairs = pairs.concat();
    let backwards: Vec<u8> = bytes.iter().rev().copied().collect();
    let turned: Vec<String> = backwards.iter().map(|byte| format!("{byte:02x}")).collect();
    let turned = turned.concat();
    vec![
        line(Form::Raw, [b"from=", bytes, b" to"].concat()),
        line(Form::Text, format!("from={bytes:?}")),
        line(Form::Hex, format!("from=0x{pairs}")),
        line(Form::Hex, format!("from={}", pairs.to_uppercase())),
        line(Form::Base64, STANDARD.encode(bytes)),
        line(Form::Base64, STANDARD_NO_PAD.encode(bytes)),
        line(Form::Base64, URL_SAFE.encode(bytes)),
        line(Form::Reversed, [b"from=", &backwards[..], b" to"].concat()),
        line(Form::Reversed, format!("from={turned}")),
        line(Form::Reversed, format!("from={}", turned.to_uppercase())),
    ]
}

fn forms_v4(address: Ipv4Addr) -> Vec<Planted> {
    let mut planted = forms_of_bytes(&address.octets());
    // RFC 8489 §14.2
    let xored = u32::from(address) ^ 0x2112_A442;
    let bytes = xored.to_be_bytes();
    planted.extend([
        line(Form::Text, format!("from={}", u32::from(address))),
        line(Form::Text, format!("value={bytes:?}")),
        line(Form::Hex, format!("value={xored:08x}")),
        line(Form::Hex, format!("value={xored:08X}")),
        line(Form::Xored, [b"value=", &bytes[..], b"."].concat()),
    ]);
    planted
}

fn forms_v6(address: Ipv6Addr) -> Vec<Planted> {
    let mut planted = forms_of_bytes(&address.octets());
    let [a, b, c, d, e, f, g, h] = address.segments();
    let plain = format!("{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}:{g:x}:{h:x}");
    let long = format!("{a:04x}:{b:04x}:{c:04x}:{d:04x}:{e:04x}:{f:04x}:{g:04x}:{h:04x}");
    // RFC 8489 §14.2: with the cookie and the transaction id of the message it stands in.
    let id = u128::from_be_bytes(*b"\x21\x12\xa4\x42transaction!");
    let xored = (u128::from(address) ^ id).to_be_bytes();
    let mut message = b"\x01\x01\x00\x18".to_vec();
    message.extend(id.to_be_bytes());
    message.extend(b"\x00\x20\x00\x14\x00\x02\xc3\x50");
    message.extend(xored);
    planted.extend([
        line(Form::Text, plain),
        line(Form::Text, long),
        line(Form::Xored, message),
    ]);
    planted
}
