//! Messages by hand: a builder that writes anything, however malformed, and what a client reads
//! of an answer. Integrity and fingerprint are computed here a second time, not by `proto`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::SocketAddr;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use taciturn::proto::{
    AddressErrorCode, Algorithm, Attribute, AttributeType, ChannelData, Class, Data, ErrorCode,
    HEADER_LEN, Icmp, Lifetime, Message, Method, MobilityTicket, Nonce, PasswordAlgorithm, Realm,
    ReservationToken, TransactionId, Writer, XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};

/// The algorithms that this server offers, the preferred one first.
pub const OFFERED: &[PasswordAlgorithm<'static>] = &[algorithm(Algorithm::Sha256), MD5];
pub const MD5: PasswordAlgorithm<'static> = algorithm(Algorithm::Md5);
pub const SHA256: PasswordAlgorithm<'static> = algorithm(Algorithm::Sha256);

const fn algorithm(algorithm: Algorithm) -> PasswordAlgorithm<'static> {
    PasswordAlgorithm {
        algorithm,
        parameters: &[],
    }
}

/// RFC 8489 §18.5.1: a key from a password.
pub fn key(algorithm: Algorithm, username: &str, realm: &str, password: &str) -> Vec<u8> {
    let text = format!("{username}:{realm}:{password}");
    if algorithm == Algorithm::Sha256 {
        Sha256::digest(text).to_vec()
    } else {
        Md5::digest(text).to_vec()
    }
}

/// A message under construction; nothing is checked.
#[derive(Clone)]
pub struct Build {
    bytes: Vec<u8>,
    class: Class,
    method: Method,
    id: TransactionId,
}

impl Build {
    pub fn new(class: Class, method: Method, id: [u8; 12]) -> Self {
        let id = TransactionId::new(id);
        let mut bytes = vec![0; HEADER_LEN];
        let len = Writer::new(&mut bytes, class, method, id).unwrap().finish();
        assert_eq!(len, HEADER_LEN);
        Self {
            bytes,
            class,
            method,
            id,
        }
    }

    pub fn request(method: Method, id: [u8; 12]) -> Self {
        Self::new(Class::Request, method, id)
    }

    /// Appends a typed attribute.
    pub fn with<'a>(mut self, attribute: &impl Attribute<'a>) -> Self {
        let mut scratch = vec![0; 70_000];
        let mut writer = Writer::new(&mut scratch, self.class, self.method, self.id).unwrap();
        writer.push(attribute).unwrap();
        let len = writer.finish();
        self.bytes.extend_from_slice(&scratch[HEADER_LEN..len]);
        self.set_length(0);
        self
    }

    /// Appends an attribute as raw bytes, padded with zeroes.
    pub fn raw(self, kind: AttributeType, value: &[u8]) -> Self {
        self.raw_number(kind.value(), value)
    }

    pub fn raw_number(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).unwrap();
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_length(0);
        self
    }

    /// Appends MESSAGE-INTEGRITY.
    pub fn integrity(mut self, key: &[u8]) -> Self {
        self.set_length(24);
        let mac = hmac_sha1(key, &self.bytes);
        self.raw(AttributeType::MESSAGE_INTEGRITY, &mac)
    }

    /// Appends MESSAGE-INTEGRITY-SHA256.
    pub fn integrity_sha256(self, key: &[u8]) -> Self {
        self.truncated_sha256(key, 32)
    }

    /// The same with the first `len` bytes of the HMAC only.
    pub fn truncated_sha256(mut self, key: &[u8], len: usize) -> Self {
        self.set_length(4 + len);
        let mac = hmac_sha256(key, &self.bytes);
        self.raw(AttributeType::MESSAGE_INTEGRITY_SHA256, &mac[..len])
    }

    /// Appends FINGERPRINT.
    pub fn fingerprint(mut self) -> Self {
        self.set_length(8);
        let crc = crc32fast::hash(&self.bytes) ^ 0x5354_554E;
        self.raw(AttributeType::FINGERPRINT, &crc.to_be_bytes())
    }

    pub fn id(&self) -> [u8; 12] {
        *self.id.as_bytes()
    }

    pub fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Sets the length field to what is there and `more`.
    fn set_length(&mut self, more: usize) {
        let length = u16::try_from(self.bytes.len() - HEADER_LEN + more).unwrap();
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

impl From<Vec<u8>> for Build {
    /// Takes up a finished message again.
    fn from(bytes: Vec<u8>) -> Self {
        let message = Message::decode(&bytes).unwrap();
        Self {
            class: message.class(),
            method: message.method(),
            id: message.transaction_id(),
            bytes,
        }
    }
}

fn hmac_sha1(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

fn hmac_sha256(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

/// Whether the last attribute of `bytes` is an integrity attribute of that type made with `key`.
pub fn is_signed(bytes: &[u8], kind: AttributeType, key: &[u8]) -> bool {
    let len = match kind {
        AttributeType::MESSAGE_INTEGRITY => 20,
        _ => 32,
    };
    let Some(covered) = bytes.len().checked_sub(len + 4) else {
        return false;
    };
    let mac = match kind {
        AttributeType::MESSAGE_INTEGRITY => hmac_sha1(key, &bytes[..covered]),
        _ => hmac_sha256(key, &bytes[..covered]),
    };
    bytes[covered..covered + 2] == kind.value().to_be_bytes() && bytes[covered + 4..] == mac
}

/// A response as a client reads it.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer(pub Vec<u8>);

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.code(), self.message())
    }
}

impl Answer {
    pub fn message(&self) -> Message<'_> {
        Message::decode(&self.0).unwrap()
    }

    /// The code of an error response; 0 for success.
    pub fn code(&self) -> u16 {
        if self.message().class() == Class::Success {
            return 0;
        }
        self.find::<ErrorCode<'_>>().unwrap().code
    }

    pub fn find<'a, A: Attribute<'a>>(&'a self) -> Option<A> {
        self.message().find::<A>().map(Result::unwrap)
    }

    /// Every relayed transport address, in the order of the response.
    pub fn relayed(&self) -> Vec<SocketAddr> {
        self.message()
            .all::<XorRelayedAddress>()
            .map(|address| address.unwrap().0)
            .collect()
    }

    pub fn mapped(&self) -> Option<SocketAddr> {
        self.find::<XorMappedAddress>().map(|address| address.0)
    }

    pub fn lifetime(&self) -> Option<u32> {
        self.find::<Lifetime>().map(|lifetime| lifetime.0)
    }

    pub fn token(&self) -> Option<[u8; 8]> {
        self.find::<ReservationToken>().map(|token| token.0)
    }

    /// The mobility ticket.
    pub fn ticket(&self) -> Option<Vec<u8>> {
        self.find::<MobilityTicket<'_>>()
            .map(|ticket| ticket.0.to_vec())
    }

    pub fn nonce(&self) -> Option<String> {
        self.find::<Nonce<'_>>().map(|nonce| nonce.0.to_owned())
    }

    pub fn realm(&self) -> Option<String> {
        self.find::<Realm<'_>>().map(|realm| realm.0.to_owned())
    }

    pub fn address_error(&self) -> Option<AddressErrorCode<'_>> {
        self.find()
    }
}

/// What a client gets from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// ChannelData.
    Channel(u16, Vec<u8>),
    /// A Data indication with XOR-PEER-ADDRESS.
    Data(SocketAddr, Vec<u8>),
    /// A Data indication with XOR-PEER-ADDRESS and ICMP in the place of DATA.
    Icmp(SocketAddr, Icmp),
}

impl Received {
    /// Reads what reached a client as a datagram.
    pub fn decode(bytes: &[u8]) -> Self {
        if bytes[0] >= 0x40 {
            let data = ChannelData::decode_datagram(bytes).unwrap();
            assert_eq!(bytes.len(), data.encoded_len(), "bytes after the data");
            return Self::Channel(data.channel, data.payload.to_vec());
        }
        let message = Message::decode(bytes).unwrap();
        assert_eq!(message.class(), Class::Indication);
        assert_eq!(message.method(), Method::DATA);
        let peer = message.find::<XorPeerAddress>().unwrap().unwrap().0;
        if let Some(error) = message.find::<Icmp>() {
            assert!(!message.has(AttributeType::DATA), "an error with data");
            return Self::Icmp(peer, error.unwrap());
        }
        let data = message.find::<Data<'_>>().unwrap().unwrap().0;
        Self::Data(peer, data.to_vec())
    }

    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Channel(_, payload) | Self::Data(_, payload) => payload,
            Self::Icmp(..) => &[],
        }
    }
}
