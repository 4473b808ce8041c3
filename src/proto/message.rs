//! A STUN message over borrowed bytes: header, class, method, and the attributes that count
//! (RFC 8489 §5 and §14).
//!
//! [`Message::decode`] checks the whole frame once, so that reading attributes afterwards cannot
//! fail on bounds. Values are decoded on demand, by type.

use std::fmt;

use super::attribute::{Attribute, AttributeError, AttributeType, RawAttribute};
use super::integrity::{self, Fingerprint, Integrity, LongTermKey};

/// The length of the STUN header.
pub const HEADER_LEN: usize = 20;

/// The fixed value at offset 4 of every message (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// Identifies a transaction; also the mask of IPv6 addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId([u8; 12]);

impl TransactionId {
    /// The transaction id made of `bytes`.
    #[must_use]
    pub const fn new(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The id as it stands on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransactionId(")?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// What a message is within its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for none.
    Indication,
    /// Grants a request.
    Success,
    /// Refuses a request.
    Error,
}

impl Class {
    const fn bits(self) -> u16 {
        match self {
            Self::Request => 0b00,
            Self::Indication => 0b01,
            Self::Success => 0b10,
            Self::Error => 0b11,
        }
    }
}

/// The primary function of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(u16);

impl Method {
    /// Binding (RFC 8489).
    pub const BINDING: Self = Self(0x001);
    /// Allocate (RFC 8656).
    pub const ALLOCATE: Self = Self(0x003);
    /// Refresh (RFC 8656).
    pub const REFRESH: Self = Self(0x004);
    /// Send, an indication only (RFC 8656).
    pub const SEND: Self = Self(0x006);
    /// Data, an indication only (RFC 8656).
    pub const DATA: Self = Self(0x007);
    /// CreatePermission (RFC 8656).
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// ChannelBind (RFC 8656).
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// Connect (RFC 6062).
    pub const CONNECT: Self = Self(0x00A);
    /// ConnectionBind (RFC 6062).
    pub const CONNECTION_BIND: Self = Self(0x00B);
    /// ConnectionAttempt, an indication only (RFC 6062).
    pub const CONNECTION_ATTEMPT: Self = Self(0x00C);

    /// The method numbered `value`, unless it needs more than twelve bits.
    #[must_use]
    pub const fn new(value: u16) -> Option<Self> {
        if value <= 0xFFF {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The number of the method.
    #[must_use]
    pub const fn value(self) -> u16 {
        self.0
    }

    /// A name for metric labels; `"other"` for every method not listed here.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BINDING => "binding",
            Self::ALLOCATE => "allocate",
            Self::REFRESH => "refresh",
            Self::SEND => "send",
            Self::DATA => "data",
            Self::CREATE_PERMISSION => "create_permission",
            Self::CHANNEL_BIND => "channel_bind",
            Self::CONNECT => "connect",
            Self::CONNECTION_BIND => "connection_bind",
            Self::CONNECTION_ATTEMPT => "connection_attempt",
            _ => "other",
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Method({:#05x} {})", self.0, self.name())
    }
}

/// The message type: the bits of class and method, interleaved.
///
/// ```text
///   0 0 M11 M10 M9 M8 M7 C1 M6 M5 M4 C0 M3 M2 M1 M0
/// ```
pub(super) const fn encode_type(class: Class, method: Method) -> u16 {
    let (c, m) = (class.bits(), method.0);
    (m & 0x000F) | (m & 0x0070) << 1 | (m & 0x0F80) << 2 | (c & 0b01) << 4 | (c & 0b10) << 7
}

const fn decode_type(bits: u16) -> (Class, Method) {
    let class = match (bits & 0x0100 != 0, bits & 0x0010 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    };
    let method = bits & 0x000F | (bits & 0x00E0) >> 1 | (bits & 0x3E00) >> 2;
    (class, Method(method))
}

/// Why a datagram is not a STUN message of RFC 8489.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a header.
    #[error("shorter than a STUN header")]
    TooShort,
    /// The first two bits are not zero.
    #[error("not STUN")]
    NotStun,
    /// No magic cookie: another protocol, or the classic STUN of RFC 3489.
    #[error("no magic cookie")]
    BadCookie,
    /// The length field is no multiple of four, or not the length of the datagram.
    #[error("length field does not fit the datagram")]
    BadLength,
    /// An attribute reaches beyond the message.
    #[error("attribute reaches beyond the message")]
    BadAttribute,
    /// Something follows FINGERPRINT.
    #[error("FINGERPRINT is not the last attribute")]
    FingerprintNotLast,
}

/// A STUN message whose frame has been checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: Method,
    id: TransactionId,
}

impl<'a> Message<'a> {
    /// Decodes a message that fills `bytes`: a datagram, or what
    /// [`next_border`](super::next_border) cut out of a stream.
    ///
    /// # Errors
    /// When the header, the bounds of an attribute or the place of FINGERPRINT is wrong. Values of
    /// attributes are not looked at.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, body) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(DecodeError::TooShort)?;
        let &[t0, t1, l0, l1, k0, k1, k2, k3, ref id @ ..] = header;
        // RFC 8489 §5: the most significant two bits of every message are zero.
        if t0 & 0xC0 != 0 {
            return Err(DecodeError::NotStun);
        }
        if u32::from_be_bytes([k0, k1, k2, k3]) != MAGIC_COOKIE {
            return Err(DecodeError::BadCookie);
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if !length.is_multiple_of(4) || length != body.len() {
            return Err(DecodeError::BadLength);
        }
        let mut walk = Walk { bytes, rest: body };
        while let Some((_, attribute)) = walk.next() {
            // RFC 8489 §14.7: FINGERPRINT is the last attribute.
            if attribute.kind == AttributeType::FINGERPRINT && !walk.rest.is_empty() {
                return Err(DecodeError::FingerprintNotLast);
            }
        }
        if !walk.rest.is_empty() {
            return Err(DecodeError::BadAttribute);
        }
        let (class, method) = decode_type(u16::from_be_bytes([t0, t1]));
        Ok(Self {
            bytes,
            class,
            method,
            id: TransactionId(*id),
        })
    }

    /// What the message is within its transaction.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The method.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The transaction id.
    #[must_use]
    pub const fn transaction_id(&self) -> TransactionId {
        self.id
    }

    /// The whole message.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes that count, in their order: without those that a receiver ignores because
    /// they follow MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            walk: Walk {
                bytes: self.bytes,
                rest: self.bytes.get(HEADER_LEN..).unwrap_or_default(),
            },
            place: Place::Open,
        }
    }

    /// The first attribute of type `A`.
    pub fn find<A: Attribute<'a>>(&self) -> Option<Result<A, AttributeError>> {
        // RFC 8489 §14: only the first occurrence needs to be processed.
        self.all().next()
    }

    /// Every attribute of type `A`, for those that may repeat (XOR-PEER-ADDRESS in
    /// CreatePermission).
    pub fn all<A: Attribute<'a>>(
        &self,
    ) -> impl Iterator<Item = Result<A, AttributeError>> + use<'a, A> {
        let id = self.id;
        self.attributes()
            .filter(|attribute| attribute.kind == A::TYPE)
            .map(move |attribute| A::decode(attribute.value, id))
    }

    /// Whether an attribute of that type is there and counts.
    #[must_use]
    pub fn has(&self, kind: AttributeType) -> bool {
        self.attributes().any(|attribute| attribute.kind == kind)
    }

    /// The comprehension-required types of this message that are not among `known`, in the order
    /// of the message; a repeated type is repeated.
    pub fn unknown_required<'k>(
        &self,
        known: &'k [AttributeType],
    ) -> impl Iterator<Item = AttributeType> + use<'a, 'k> {
        self.attributes()
            .map(|attribute| attribute.kind)
            .filter(|kind| kind.is_comprehension_required() && !known.contains(kind))
    }

    /// Whether FINGERPRINT is there and right.
    pub fn fingerprint(&self) -> Fingerprint {
        match self.locate(AttributeType::FINGERPRINT) {
            None => Fingerprint::Absent,
            Some((covered, value)) => integrity::check_fingerprint(covered, value),
        }
    }

    /// Whether MESSAGE-INTEGRITY is there and made with `key`, compared in constant time.
    pub fn verify_integrity(&self, key: &LongTermKey) -> Integrity {
        match self.locate(AttributeType::MESSAGE_INTEGRITY) {
            None => Integrity::Absent,
            Some((covered, value)) => integrity::check_sha1(covered, value, key),
        }
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there and made with `key`, compared in constant time.
    /// A value truncated to no less than 16 bytes is held against the beginning of the HMAC.
    pub fn verify_integrity_sha256(&self, key: &LongTermKey) -> Integrity {
        match self.locate(AttributeType::MESSAGE_INTEGRITY_SHA256) {
            None => Integrity::Absent,
            Some((covered, value)) => integrity::check_sha256(covered, value, key),
        }
    }

    /// The bytes before the first attribute of that type, and its value.
    fn locate(&self, kind: AttributeType) -> Option<(&'a [u8], &'a [u8])> {
        let mut attributes = self.attributes();
        while let Some((offset, attribute)) = attributes.next_located() {
            if attribute.kind == kind {
                return Some((self.bytes.get(..offset)?, attribute.value));
            }
        }
        None
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Kinds<'a>(Attributes<'a>);
        impl fmt::Debug for Kinds<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list()
                    .entries(self.0.clone().map(|attribute| attribute.kind))
                    .finish()
            }
        }
        f.debug_struct("Message")
            .field("class", &self.class)
            .field("method", &self.method)
            .field("attributes", &Kinds(self.attributes()))
            .finish_non_exhaustive()
    }
}

/// All attributes with their offsets; ends at the first that does not fit.
#[derive(Clone)]
struct Walk<'a> {
    bytes: &'a [u8],
    /// What has not been walked yet; always the end of `bytes`.
    rest: &'a [u8],
}

impl<'a> Iterator for Walk<'a> {
    type Item = (usize, RawAttribute<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[t0, t1, l0, l1], tail) = self.rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let value = tail.get(..length)?;
        let offset = self.bytes.len() - self.rest.len();
        self.rest = tail.get(length.next_multiple_of(4)..)?;
        let kind = AttributeType::new(u16::from_be_bytes([t0, t1]));
        Some((offset, RawAttribute { kind, value }))
    }
}

/// Iterator over the attributes that count; see [`Message::attributes`].
#[derive(Clone)]
pub struct Attributes<'a> {
    walk: Walk<'a>,
    place: Place,
}

/// Where in the message the iterator stands, which decides what still counts.
#[derive(Clone, Copy)]
enum Place {
    Open,
    AfterIntegrity,
    AfterIntegritySha256,
}

impl<'a> Attributes<'a> {
    fn next_located(&mut self) -> Option<(usize, RawAttribute<'a>)> {
        let place = self.place;
        // RFC 8489 §9: after MESSAGE-INTEGRITY only MESSAGE-INTEGRITY-SHA256 and FINGERPRINT
        // count, after MESSAGE-INTEGRITY-SHA256 only FINGERPRINT. A MESSAGE-INTEGRITY behind the
        // other is not read either: it would leave attributes that the other does not cover.
        let (offset, attribute) = self.walk.by_ref().find(|(_, attribute)| match place {
            Place::Open => true,
            Place::AfterIntegrity => {
                attribute.kind == AttributeType::MESSAGE_INTEGRITY_SHA256
                    || attribute.kind == AttributeType::FINGERPRINT
            }
            Place::AfterIntegritySha256 => attribute.kind == AttributeType::FINGERPRINT,
        })?;
        match attribute.kind {
            AttributeType::MESSAGE_INTEGRITY => self.place = Place::AfterIntegrity,
            AttributeType::MESSAGE_INTEGRITY_SHA256 => self.place = Place::AfterIntegritySha256,
            _ => {}
        }
        Some((offset, attribute))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = RawAttribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_located().map(|(_, attribute)| attribute)
    }
}

impl fmt::Debug for Attributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attributes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
