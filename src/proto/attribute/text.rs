//! Attributes that carry text: USERNAME, REALM, NONCE, SOFTWARE (RFC 8489 §14.3, §14.9, §14.10,
//! §14.14) and ALTERNATE-DOMAIN (§14.16).
//!
//! The text is hostile until proven otherwise: only its length and UTF-8 are checked here.

use std::fmt;

use super::{Attribute, AttributeError, AttributeType};
use crate::proto::message::TransactionId;
use crate::proto::writer::{Full, Sink};

/// RFC 8489 §14: what a receiver must be able to parse, for the sake of RFC 5389.
const MAX_DECODED: usize = 763;

/// RFC 8489 §14: fewer than 128 characters, as long as 509 bytes.
const MAX_ENCODED_CHARS: usize = 127;
const MAX_ENCODED: usize = 509;

/// RFC 8489 §14.3: fewer than 509 bytes.
const MAX_ENCODED_USERNAME: usize = 508;

/// RFC 8489 §14.16: 255 or fewer ASCII characters.
const MAX_DOMAIN: usize = 255;

/// Text of at most 763 bytes; the limit in characters binds the sender, not the receiver.
pub(super) fn decode(value: &[u8]) -> Result<&str, AttributeError> {
    if value.len() > MAX_DECODED {
        return Err(AttributeError::BadLength);
    }
    str::from_utf8(value).map_err(|_| AttributeError::NotUtf8)
}

pub(super) fn encode(text: &str, out: &mut Sink<'_>) -> Result<(), Full> {
    if text.len() > MAX_ENCODED || text.chars().count() > MAX_ENCODED_CHARS {
        return Err(Full);
    }
    out.put(text.as_bytes())
}

fn encode_username(text: &str, out: &mut Sink<'_>) -> Result<(), Full> {
    if text.len() > MAX_ENCODED_USERNAME {
        return Err(Full);
    }
    out.put(text.as_bytes())
}

fn decode_domain(value: &[u8]) -> Result<&str, AttributeError> {
    if value.len() > MAX_DOMAIN {
        return Err(AttributeError::BadLength);
    }
    if !value.is_ascii() {
        return Err(AttributeError::BadValue);
    }
    str::from_utf8(value).map_err(|_| AttributeError::NotUtf8)
}

fn encode_domain(text: &str, out: &mut Sink<'_>) -> Result<(), Full> {
    if text.len() > MAX_DOMAIN || !text.is_ascii() {
        return Err(Full);
    }
    out.put(text.as_bytes())
}

macro_rules! text_attribute {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $decode:ident, $encode:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name<'a>(pub &'a str);

        impl<'a> Attribute<'a> for $name<'a> {
            const TYPE: AttributeType = AttributeType::$kind;

            fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
                $decode(value).map(Self)
            }

            fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
                $encode(self.0, out)
            }
        }
    };
}

text_attribute!(
    /// USERNAME: at most 508 bytes when sent, 763 when received. `Debug` hides it: a username may
    /// name its user.
    Username, USERNAME, decode, encode_username
);
text_attribute!(
    /// REALM: fewer than 128 characters when sent, at most 763 bytes when received.
    #[derive(Debug)]
    Realm, REALM, decode, encode
);
text_attribute!(
    /// NONCE: fewer than 128 characters when sent, at most 763 bytes when received.
    #[derive(Debug)]
    Nonce, NONCE, decode, encode
);
text_attribute!(
    /// SOFTWARE: fewer than 128 characters when sent, at most 763 bytes when received.
    #[derive(Debug)]
    Software, SOFTWARE, decode, encode
);
text_attribute!(
    /// ALTERNATE-DOMAIN: the name by which TLS verifies ALTERNATE-SERVER; at most 255 ASCII
    /// characters.
    #[derive(Debug)]
    AlternateDomain, ALTERNATE_DOMAIN, decode_domain, encode_domain
);

impl fmt::Debug for Username<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Username(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Class, Method, Writer};

    const ID: TransactionId = TransactionId::new([0; 12]);

    fn push<'a>(attribute: &impl Attribute<'a>) -> Result<(), Full> {
        let mut buf = [0; 1024];
        let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, ID)?;
        writer.push(attribute)
    }

    /// T21
    #[test]
    fn text_longer_than_763_bytes_is_refused() {
        let value = [b'a'; 764];
        assert_eq!(Realm::decode(&value, ID), Err(AttributeError::BadLength));
        assert_eq!(Username::decode(&value, ID), Err(AttributeError::BadLength));
        assert!(Username::decode(&value[..763], ID).is_ok());
    }

    /// T21
    #[test]
    fn text_that_is_not_utf8_is_refused() {
        for value in [&[0xFF][..], &[0xC3], &[0xED, 0xA0, 0x80], &[0xC0, 0x80]] {
            assert_eq!(Username::decode(value, ID), Err(AttributeError::NotUtf8));
        }
    }

    #[test]
    fn text_beyond_the_senders_limit_is_not_written() {
        let long = "a".repeat(509);
        assert_eq!(push(&Username(&long)), Err(Full));
        assert_eq!(push(&Username(&long[..508])), Ok(()));
        assert_eq!(push(&Realm(&long[..128])), Err(Full));
        assert_eq!(push(&Realm(&long[..127])), Ok(()));
        assert_eq!(push(&AlternateDomain(&long[..256])), Err(Full));
        assert_eq!(push(&AlternateDomain("d\u{e9}")), Err(Full));
    }

    #[test]
    fn debug_hides_the_username() {
        assert_eq!(format!("{:?}", Username("alice")), "Username(hidden)");
    }
}
