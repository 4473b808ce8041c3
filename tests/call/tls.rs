//! Captured TLS 1.3 (RFC 8446) opened with the secrets that a browser wrote down (RFC 9850), so
//! that what passes inside can be searched.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use aws_lc_rs::aead::{self, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, KeyType, Prk};

const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The secrets of a browser's connections, by label and client random.
pub(crate) struct Secrets(HashMap<(String, Vec<u8>), Vec<u8>>);

impl Secrets {
    /// No file, no secrets: a browser makes one when it needs one.
    pub(crate) fn read(file: &Path) -> Self {
        Self::parse(&fs::read_to_string(file).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let entries = text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let label = words.next()?.to_owned();
            Some(((label, unhex(words.next()?)?), unhex(words.next()?)?))
        });
        Self(entries.collect())
    }

    /// What client and server said to each other inside of TLS; `None` where that cannot be read.
    pub(crate) fn open(&self, client: &[u8], server: &[u8]) -> Option<[Vec<u8>; 2]> {
        let (Some(random), Some(suite)) = (client_random(client), cipher_suite(server)) else {
            // A connection that ended before anything was said.
            return Some([Vec::new(), Vec::new()]);
        };
        let secret = |label: &str| self.0.get(&(label.to_owned(), random.to_vec()));
        let side = |handshake, traffic, bytes| {
            let keys = [handshake, traffic].map(|label| Keys::of(suite, secret(label)?));
            application_data(bytes, keys)
        };
        let server = if gave_up(client) {
            without_alert(server)
        } else {
            server
        };
        let client = side(
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_TRAFFIC_SECRET_0",
            client,
        )?;
        let server = side(
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_TRAFFIC_SECRET_0",
            server,
        )?;
        Some([client, server])
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Header and content of each whole record.
fn records(mut bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut records = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(5) {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let Some((content, rest)) = rest.split_at_checked(length) else {
            break;
        };
        records.push((header, content));
        bytes = rest;
    }
    records
}

/// The hello with which a stream begins, from its random on.
fn hello(stream: &[u8]) -> Option<&[u8]> {
    let (header, content) = *records(stream).first()?;
    // RFC 8446 §4: type and length; §4.1.2: version.
    (header[0] == HANDSHAKE).then(|| content.get(6..))?
}

/// Whether a client left before it had finished the handshake, as browsers do with what they began
/// beside the way that they took. It said nothing then, and has no secrets of the traffic that would
/// have followed.
fn gave_up(client: &[u8]) -> bool {
    let records = records(client);
    records
        .iter()
        .all(|(header, _)| header[0] != APPLICATION_DATA)
}

/// What the server said but for an alert at its end, which is protected with the traffic's keys
/// and too short to name anybody (RFC 8446 §6): two bytes, their type, and the tag.
fn without_alert(server: &[u8]) -> &[u8] {
    const ALERT: usize = 2 + 1 + 16;
    let records = records(server);
    match records.split_last() {
        Some(((header, content), before))
            if header[0] == APPLICATION_DATA && content.len() == ALERT =>
        {
            let whole: usize = before.iter().map(|(_, content)| 5 + content.len()).sum();
            &server[..whole]
        }
        _ => server,
    }
}

fn client_random(client: &[u8]) -> Option<&[u8]> {
    hello(client)?.get(..32)
}

/// RFC 8446 §4.1.3: behind the random and the echoed session id.
fn cipher_suite(server: &[u8]) -> Option<u16> {
    let hello = hello(server)?.get(32..)?;
    let at = 1 + usize::from(*hello.first()?);
    Some(u16::from_be_bytes([*hello.get(at)?, *hello.get(at + 1)?]))
}

/// What protects one direction.
struct Keys {
    key: LessSafeKey,
    iv: [u8; 12],
}

/// How many bytes to derive.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// RFC 8446 §7.1: HKDF-Expand-Label with an empty context.
fn expand_label(secret: &Prk, label: &str, out: &mut [u8]) -> Option<()> {
    let length = u16::try_from(out.len()).ok()?;
    let label = format!("tls13 {label}");
    let label_length = u8::try_from(label.len()).ok()?;
    let parts = [
        &length.to_be_bytes()[..],
        &[label_length],
        label.as_bytes(),
        &[0],
    ];
    let expanded = secret.expand(&parts, Length(out.len())).ok()?;
    expanded.fill(out).ok()
}

impl Keys {
    /// `None` for a suite of another version.
    fn of(suite: u16, secret: &[u8]) -> Option<Self> {
        // RFC 8446 §B.4
        let (cipher, hash) = match suite {
            0x1301 => (&aead::AES_128_GCM, hkdf::HKDF_SHA256),
            0x1302 => (&aead::AES_256_GCM, hkdf::HKDF_SHA384),
            0x1303 => (&aead::CHACHA20_POLY1305, hkdf::HKDF_SHA256),
            _ => return None,
        };
        let secret = Prk::new_less_safe(hash, secret);
        let mut key = vec![0; cipher.key_len()];
        let mut iv = [0; 12];
        // RFC 8446 §7.3
        expand_label(&secret, "key", &mut key)?;
        expand_label(&secret, "iv", &mut iv)?;
        let key = LessSafeKey::new(UnboundKey::new(cipher, &key).ok()?);
        Some(Self { key, iv })
    }

    /// RFC 8446 §5.2, §5.3: the record's inner type and content.
    fn open_record(&self, number: u64, header: &[u8], content: &[u8]) -> Option<(u8, Vec<u8>)> {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut content = content.to_vec();
        let inner = self
            .key
            .open_in_place(nonce, aead::Aad::from(header), &mut content)
            .ok()?;
        let end = inner.iter().rposition(|byte| *byte != 0)?;
        Some((inner[end], inner[..end].to_vec()))
    }
}

/// The application data of a whole stream, whose records are protected with the handshake's keys
/// first and with those of the traffic from then on. `None` if one of them does not open.
fn application_data(stream: &[u8], keys: [Option<Keys>; 2]) -> Option<Vec<u8>> {
    let [handshake, traffic] = keys;
    let (mut keys, mut is_traffic, mut number) = (handshake?, false, 0);
    let mut traffic = traffic;
    let mut plain = Vec::new();
    for (header, content) in records(stream) {
        // Hellos and the like are not protected.
        if header[0] != APPLICATION_DATA {
            continue;
        }
        let mut opened = keys.open_record(number, header, content);
        if opened.is_none() && !is_traffic {
            (keys, is_traffic, number) = (traffic.take()?, true, 0);
            opened = keys.open_record(number, header, content);
        }
        let (kind, content) = opened?;
        number += 1;
        if kind == APPLICATION_DATA {
            plain.extend(content);
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests;
