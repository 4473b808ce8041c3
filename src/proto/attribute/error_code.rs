//! What a response or an indication says went wrong: ERROR-CODE, UNKNOWN-ATTRIBUTES (RFC 8489
//! §14.8, §14.13), ADDRESS-ERROR-CODE and ICMP (RFC 8656 §18.12, §18.13).

use std::fmt;

use super::transport::AddressFamily;
use super::{Attribute, AttributeError, AttributeType, exactly, text};
use crate::proto::message::TransactionId;
use crate::proto::writer::{Full, Sink};

/// ERROR-CODE: why a request was refused.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-----------------------------------------+-----+---------------+
/// |                    0                    |class|    number     |
/// +-----------------------------------------+-----+---------------+
/// |                     reason phrase, UTF-8                      |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    /// 300 to 699.
    pub code: u16,
    /// For people; fewer than 128 characters.
    pub reason: &'a str,
}

impl<'a> Attribute<'a> for ErrorCode<'a> {
    const TYPE: AttributeType = AttributeType::ERROR_CODE;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        let (&[_, _, class, number], reason) =
            value.split_first_chunk().ok_or(AttributeError::BadLength)?;
        Ok(Self {
            code: decode_code(class, number)?,
            reason: text::decode(reason)?,
        })
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        let [class, number] = encode_code(self.code)?;
        out.put(&[0, 0, class, number])?;
        text::encode(self.reason, out)
    }
}

/// ADDRESS-ERROR-CODE: why one of two requested address families was not allocated. Laid out as
/// ERROR-CODE, with the family in the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressErrorCode<'a> {
    /// The family that was not allocated.
    pub family: AddressFamily,
    /// 300 to 699; 440 or 508 in RFC 8656.
    pub code: u16,
    /// For people; fewer than 128 characters.
    pub reason: &'a str,
}

impl<'a> Attribute<'a> for AddressErrorCode<'a> {
    const TYPE: AttributeType = AttributeType::ADDRESS_ERROR_CODE;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        let (&[family, _, class, number], reason) =
            value.split_first_chunk().ok_or(AttributeError::BadLength)?;
        Ok(Self {
            family: AddressFamily::from_value(family)?,
            code: decode_code(class, number)?,
            reason: text::decode(reason)?,
        })
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        let [class, number] = encode_code(self.code)?;
        out.put(&[self.family.value(), 0, class, number])?;
        text::encode(self.reason, out)
    }
}

fn decode_code(class: u8, number: u8) -> Result<u16, AttributeError> {
    // RFC 8489 §14.8: the class is 3 to 6 in three bits, the number 0 to 99; the rest is ignored.
    let class = class & 0b111;
    if !(3..=6).contains(&class) || number > 99 {
        return Err(AttributeError::BadValue);
    }
    Ok(u16::from(class) * 100 + u16::from(number))
}

fn encode_code(code: u16) -> Result<[u8; 2], Full> {
    if !(300..=699).contains(&code) {
        return Err(Full);
    }
    let class = u8::try_from(code / 100).map_err(|_| Full)?;
    let number = u8::try_from(code % 100).map_err(|_| Full)?;
    Ok([class, number])
}

/// UNKNOWN-ATTRIBUTES: the comprehension-required types that a request had and the server did not
/// know.
#[derive(Clone, Copy)]
pub struct UnknownAttributes<'a>(Types<'a>);

#[derive(Clone, Copy)]
enum Types<'a> {
    Listed(&'a [AttributeType]),
    /// As received, of even length.
    Wire(&'a [u8]),
}

impl<'a> UnknownAttributes<'a> {
    /// The attribute that lists `types`.
    #[must_use]
    pub const fn new(types: &'a [AttributeType]) -> Self {
        Self(Types::Listed(types))
    }

    /// The listed types.
    pub fn iter(&self) -> impl Iterator<Item = AttributeType> + use<'a> {
        let (listed, wire) = match self.0 {
            Types::Listed(types) => (types, &[][..]),
            Types::Wire(bytes) => (&[][..], bytes.as_chunks().0),
        };
        let wire = wire
            .iter()
            .map(|&pair| AttributeType::new(u16::from_be_bytes(pair)));
        listed.iter().copied().chain(wire)
    }
}

impl<'a> Attribute<'a> for UnknownAttributes<'a> {
    const TYPE: AttributeType = AttributeType::UNKNOWN_ATTRIBUTES;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        if !value.len().is_multiple_of(2) {
            return Err(AttributeError::BadLength);
        }
        Ok(Self(Types::Wire(value)))
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        self.iter()
            .try_for_each(|kind| out.put(&kind.value().to_be_bytes()))
    }
}

impl PartialEq for UnknownAttributes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UnknownAttributes<'_> {}

impl fmt::Debug for UnknownAttributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// ICMP: why a packet towards a peer was dropped.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-------------------------------+---------------+---------------+
/// |               0               |     type      |     code      |
/// +-------------------------------+---------------+---------------+
/// |                          error data                           |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The ICMP type, in the numbers of the peer's address family.
    pub kind: u8,
    /// The ICMP code.
    pub code: u8,
    /// The next hop's MTU where the type carries one, else zero.
    pub data: [u8; 4],
}

impl<'a> Attribute<'a> for Icmp {
    const TYPE: AttributeType = AttributeType::ICMP;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        let &[_, _, kind, code, a, b, c, d] = exactly(value)?;
        Ok(Self {
            kind,
            code,
            data: [a, b, c, d],
        })
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(&[0, 0, self.kind, self.code])?;
        out.put(&self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId::new([0; 12]);

    #[test]
    fn reserved_bits_of_an_error_code_are_ignored() {
        let decoded = ErrorCode::decode(&[0xFF, 0xFF, 0xFC, 38, b'o'], ID);
        assert_eq!(
            decoded,
            Ok(ErrorCode {
                code: 438,
                reason: "o"
            })
        );
    }

    #[test]
    fn a_class_or_number_out_of_range_is_refused() {
        for (class, number) in [(0, 0), (2, 99), (7, 0), (3, 100), (6, 255)] {
            let value = [0, 0, class, number];
            assert_eq!(ErrorCode::decode(&value, ID), Err(AttributeError::BadValue));
        }
        assert_eq!(
            ErrorCode::decode(&[0, 0, 4], ID),
            Err(AttributeError::BadLength)
        );
    }

    #[test]
    fn half_an_attribute_type_is_refused() {
        assert_eq!(
            UnknownAttributes::decode(&[0, 1, 2], ID),
            Err(AttributeError::BadLength)
        );
    }

    #[test]
    fn a_received_list_equals_the_list_that_was_sent() {
        let types = [AttributeType::DATA, AttributeType::new(0x7FFF)];
        let received = UnknownAttributes::decode(&[0, 0x13, 0x7F, 0xFF], ID);
        assert_eq!(received, Ok(UnknownAttributes::new(&types)));
    }
}
