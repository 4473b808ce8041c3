//! The search for an address in captured packets and in text, in every form
//! in which one could have been written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::Addresses;
use super::packet::Packet;

/// RFC 8489 §5.
const MAGIC_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// How an address can be written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// As source or destination of a packet.
    Header,
    /// Its bytes.
    Raw,
    /// Its bytes under XOR, as in XOR-MAPPED-ADDRESS.
    Xored,
    /// As people write it, or as a list of its bytes.
    Text,
    /// Its bytes in hexadecimal digits.
    Hex,
    /// Its bytes, or its text, in base64.
    Base64,
    /// Backwards: as bytes, as digits, as the kernel lists sockets, or as DNS asks for a name.
    Reversed,
}

/// An address that was found, and where.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) form: Form,
    pub(crate) address: IpAddr,
    place: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {:?} {}", self.address, self.form, self.place)
    }
}

/// Looks for one address.
struct Search {
    address: IpAddr,
    needles: Vec<(Form, Vec<u8>)>,
}

impl Search {
    fn new(address: IpAddr) -> Self {
        let mut needles = match address {
            IpAddr::V4(address) => needles_v4(address),
            IpAddr::V6(address) => needles_v6(address),
        };
        needles.iter_mut().for_each(|(form, needle)| {
            if is_caseless(*form) {
                needle.make_ascii_lowercase();
            }
        });
        Self { address, needles }
    }

    /// Looks through all of a packet, headers included.
    fn in_packet(&self, packet: &Packet) -> Vec<Finding> {
        let ends = [packet.source, packet.destination];
        let mut findings: Vec<_> = ends
            .iter()
            .filter(|end| **end == self.address)
            .map(|_| self.finding(Form::Header, packet, 0))
            .collect();
        // All after the IP header: ICMP errors quote what they complain about.
        for (form, at) in self.offsets(&packet.body) {
            findings.push(self.finding(form, packet, at));
        }
        findings
    }

    /// Looks through text, or what should be text: a log, or metrics.
    fn in_text(&self, text: &[u8]) -> Vec<Finding> {
        self.offsets(text)
            .into_iter()
            .map(|(form, at)| {
                let begin = text[..at].iter().rposition(|byte| *byte == b'\n');
                let line = &text[begin.map_or(0, |end| end + 1)..];
                let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let place = format!("in {:?}", String::from_utf8_lossy(line));
                Finding {
                    form,
                    address: self.address,
                    place,
                }
            })
            .collect()
    }

    fn finding(&self, form: Form, packet: &Packet, at: usize) -> Finding {
        let context = &packet.body[at.saturating_sub(32)..packet.body.len().min(at + 32)];
        let place = format!(
            "in {} -> {} at byte {at} of {}: {}",
            packet.source,
            packet.destination,
            packet.body.len(),
            hex(context)
        );
        Finding {
            form,
            address: self.address,
            place,
        }
    }

    /// Every form found in `bytes`, and where it begins.
    fn offsets(&self, bytes: &[u8]) -> Vec<(Form, usize)> {
        let lowercase = bytes.to_ascii_lowercase();
        let mut found = Vec::new();
        for (form, needle) in &self.needles {
            let hay = if is_caseless(*form) {
                &lowercase
            } else {
                bytes
            };
            found.extend(positions(hay, needle).map(|at| (*form, at)));
        }
        if let IpAddr::V6(address) = self.address {
            // A STUN message may stand inside ChannelData or a DATA attribute,
            // so every cookie is taken for the head of one.
            for cookie in positions(bytes, &MAGIC_COOKIE) {
                let Some(transaction) = bytes.get(cookie + 4..cookie + 16) else {
                    continue;
                };
                let needle = xored_v6(address, transaction);
                found.extend(positions(bytes, &needle).map(|at| (Form::Xored, at)));
            }
        }
        found
    }
}

/// Every finding of one of `addresses` in one of `packets`.
pub(crate) fn in_packets<'a>(
    addresses: Addresses,
    packets: impl IntoIterator<Item = &'a Packet>,
) -> Vec<Finding> {
    let searches = addresses.all().map(Search::new);
    let each = |packet| {
        searches
            .iter()
            .flat_map(move |search| search.in_packet(packet))
    };
    packets.into_iter().flat_map(each).collect()
}

/// Every finding of one of `addresses` in `text`.
pub(crate) fn in_text(addresses: Addresses, text: impl AsRef<[u8]>) -> Vec<Finding> {
    let searches = addresses.all().map(Search::new);
    searches
        .iter()
        .flat_map(|search| search.in_text(text.as_ref()))
        .collect()
}

/// Panics with the first few of `findings`.
pub(crate) fn assert_nothing(findings: &[Finding], place: &str) {
    let first: Vec<String> = findings.iter().take(10).map(Finding::to_string).collect();
    assert!(
        first.is_empty(),
        "{} found {place}:\n{}",
        findings.len(),
        first.join("\n")
    );
}

/// Whether letters of this form mean the same in upper and lower case.
fn is_caseless(form: Form) -> bool {
    matches!(form, Form::Text | Form::Hex | Form::Reversed)
}

fn needles_v4(address: Ipv4Addr) -> Vec<(Form, Vec<u8>)> {
    let raw = address.octets();
    let xored: Vec<u8> = raw.iter().zip(MAGIC_COOKIE).map(|(a, b)| a ^ b).collect();
    let mut needles = vec![
        (Form::Text, u32::from(address).to_string().into_bytes()),
        (Form::Text, list(&xored).into_bytes()),
        (Form::Hex, hex(&xored).into_bytes()),
        (Form::Raw, raw.to_vec()),
        (Form::Xored, xored),
    ];
    needles.extend(needles_of_both(&raw, &[address.to_string()]));
    let [a, b, c, d] = raw;
    // RFC 1035 §3.5
    needles.push((Form::Reversed, format!("{d}.{c}.{b}.{a}").into_bytes()));
    let number = u32::from_le_bytes(raw).to_string();
    needles.push((Form::Reversed, number.into_bytes()));
    needles
}

fn needles_v6(address: Ipv6Addr) -> Vec<(Form, Vec<u8>)> {
    let raw = address.octets();
    let long: Vec<String> = address
        .segments()
        .iter()
        .map(|s| format!("{s:04x}"))
        .collect();
    let plain: Vec<String> = address
        .segments()
        .iter()
        .map(|s| format!("{s:x}"))
        .collect();
    let mut needles = vec![(Form::Raw, raw.to_vec())];
    let texts = [address.to_string(), long.join(":"), plain.join(":")];
    needles.extend(needles_of_both(&raw, &texts));
    // As in /proc/net/udp6: words of 32 bits, each backwards.
    let words: Vec<u8> = raw
        .chunks(4)
        .flat_map(|word| word.iter().rev().copied())
        .collect();
    needles.push((Form::Reversed, hex(&words).into_bytes()));
    // RFC 3596 §2.5
    let nibbles = hex(&raw);
    let nibbles: Vec<String> = nibbles.chars().rev().map(String::from).collect();
    needles.push((Form::Reversed, nibbles.join(".").into_bytes()));
    needles
}

fn needles_of_both(raw: &[u8], texts: &[String]) -> Vec<(Form, Vec<u8>)> {
    let mut needles = vec![
        (Form::Text, list(raw).into_bytes()),
        (Form::Hex, hex(raw).into_bytes()),
        (Form::Base64, STANDARD_NO_PAD.encode(raw).into_bytes()),
        (Form::Base64, URL_SAFE_NO_PAD.encode(raw).into_bytes()),
    ];
    let backwards: Vec<u8> = raw.iter().rev().copied().collect();
    needles.push((Form::Reversed, hex(&backwards).into_bytes()));
    needles.push((Form::Reversed, backwards));
    for text in texts {
        needles.push((Form::Text, text.clone().into_bytes()));
        for before in 0..3 {
            needles.push((Form::Base64, base64_after(before, text)));
        }
    }
    needles.dedup();
    needles
}

/// The base64 letters that depend on `text` alone where it stands behind
/// `before` other bytes (modulo 3).
fn base64_after(before: usize, text: &str) -> Vec<u8> {
    let bytes = [&vec![0; before], text.as_bytes()].concat();
    let letters = STANDARD_NO_PAD.encode(&bytes).into_bytes();
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    letters[first..end].to_vec()
}

/// RFC 8489 §14.2: XOR with the cookie and the transaction id.
fn xored_v6(address: Ipv6Addr, transaction: &[u8]) -> Vec<u8> {
    let key = MAGIC_COOKIE.iter().chain(transaction);
    address
        .octets()
        .iter()
        .zip(key)
        .map(|(a, b)| a ^ b)
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As `{:?}` writes bytes.
fn list(bytes: &[u8]) -> String {
    format!("{bytes:?}")
}

fn positions<'a>(hay: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    // Without optimisation, comparing whole windows takes seconds over a call's packets.
    let begins = move |(_, byte): &(usize, &u8)| needle.first() == Some(byte);
    let candidates = hay.iter().enumerate().filter(begins);
    candidates
        .map(|(at, _)| at)
        .filter(move |at| hay[*at..].starts_with(needle))
}

#[cfg(test)]
mod tests;
