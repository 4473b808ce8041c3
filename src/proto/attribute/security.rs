//! How a client names itself and derives its key: USERHASH, PASSWORD-ALGORITHMS and
//! PASSWORD-ALGORITHM (RFC 8489 §14.4, §14.11, §14.12).

use std::fmt;

use super::{Attribute, AttributeError, AttributeType, exactly};
use crate::proto::integrity;
use crate::proto::message::TransactionId;
use crate::proto::writer::{Full, Sink};

/// USERHASH: stands for USERNAME. `Debug` hides it: it names a user.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Userhash(pub [u8; 32]);

impl Userhash {
    /// The hash of a username within a realm.
    #[must_use]
    pub fn of(username: &str, realm: &str) -> Self {
        Self(integrity::userhash(username, realm))
    }
}

impl<'a> Attribute<'a> for Userhash {
    const TYPE: AttributeType = AttributeType::USERHASH;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        exactly(value).copied().map(Self)
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(&self.0)
    }
}

impl fmt::Debug for Userhash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Userhash(hidden)")
    }
}

/// How the long-term key is derived from the password (RFC 8489 §18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// [`LongTermKey::md5`](crate::proto::LongTermKey::md5).
    Md5,
    /// [`LongTermKey::sha256`](crate::proto::LongTermKey::sha256).
    Sha256,
    /// One this server does not know, by its number.
    Other(u16),
}

impl Algorithm {
    const fn value(self) -> u16 {
        match self {
            Self::Md5 => 0x0001,
            Self::Sha256 => 0x0002,
            Self::Other(value) => value,
        }
    }

    const fn from_value(value: u16) -> Self {
        match value {
            0x0001 => Self::Md5,
            0x0002 => Self::Sha256,
            other => Self::Other(other),
        }
    }
}

/// PASSWORD-ALGORITHM: the algorithm a client chose, and one entry of PASSWORD-ALGORITHMS.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-------------------------------+-------------------------------+
/// |           algorithm           |       parameters length       |
/// +-------------------------------+-------------------------------+
/// |              parameters, padded to 32 bits                    |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordAlgorithm<'a> {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Empty for MD5 and SHA-256.
    pub parameters: &'a [u8],
}

impl<'a> PasswordAlgorithm<'a> {
    /// Splits one entry off the front of `bytes`.
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), AttributeError> {
        let (&[a0, a1, l0, l1], rest) =
            bytes.split_first_chunk().ok_or(AttributeError::BadLength)?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let parameters = rest.get(..length).ok_or(AttributeError::BadLength)?;
        // The padding of the last entry may be the attribute's own, which the value leaves out.
        let rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let algorithm = Algorithm::from_value(u16::from_be_bytes([a0, a1]));
        Ok((
            Self {
                algorithm,
                parameters,
            },
            rest,
        ))
    }

    fn put(&self, out: &mut Sink<'_>) -> Result<(), Full> {
        let length = u16::try_from(self.parameters.len()).map_err(|_| Full)?;
        out.put(&self.algorithm.value().to_be_bytes())?;
        out.put(&length.to_be_bytes())?;
        out.put(self.parameters)?;
        out.pad()
    }
}

impl<'a> Attribute<'a> for PasswordAlgorithm<'a> {
    const TYPE: AttributeType = AttributeType::PASSWORD_ALGORITHM;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        match Self::split(value)? {
            (entry, []) => Ok(entry),
            _ => Err(AttributeError::BadLength),
        }
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        self.put(out)
    }
}

/// PASSWORD-ALGORITHMS: what the server can verify, best first, and echoed by the client.
#[derive(Clone, Copy)]
pub struct PasswordAlgorithms<'a>(List<'a>);

#[derive(Clone, Copy)]
enum List<'a> {
    Listed(&'a [PasswordAlgorithm<'a>]),
    /// As received; every entry has been checked.
    Wire(&'a [u8]),
}

impl<'a> PasswordAlgorithms<'a> {
    /// The attribute that lists `algorithms`.
    #[must_use]
    pub const fn new(algorithms: &'a [PasswordAlgorithm<'a>]) -> Self {
        Self(List::Listed(algorithms))
    }

    /// The listed algorithms.
    pub fn iter(&self) -> impl Iterator<Item = PasswordAlgorithm<'a>> + use<'a> {
        let (listed, wire) = match self.0 {
            List::Listed(algorithms) => (algorithms, &[][..]),
            List::Wire(bytes) => (&[][..], bytes),
        };
        listed
            .iter()
            .copied()
            .chain(Entries(wire).map_while(Result::ok))
    }
}

struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Result<PasswordAlgorithm<'a>, AttributeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let split = PasswordAlgorithm::split(self.0);
        self.0 = split.map_or(&[], |(_, rest)| rest);
        Some(split.map(|(entry, _)| entry))
    }
}

impl<'a> Attribute<'a> for PasswordAlgorithms<'a> {
    const TYPE: AttributeType = AttributeType::PASSWORD_ALGORITHMS;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        if value.is_empty() {
            return Err(AttributeError::BadLength);
        }
        Entries(value).try_for_each(|entry| entry.map(drop))?;
        Ok(Self(List::Wire(value)))
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        self.iter().try_for_each(|entry| entry.put(out))
    }
}

impl PartialEq for PasswordAlgorithms<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for PasswordAlgorithms<'_> {}

impl fmt::Debug for PasswordAlgorithms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId::new([0; 12]);
    const MD5: PasswordAlgorithm<'_> = PasswordAlgorithm {
        algorithm: Algorithm::Md5,
        parameters: &[],
    };
    const UNKNOWN: PasswordAlgorithm<'_> = PasswordAlgorithm {
        algorithm: Algorithm::Other(9),
        parameters: &[1, 2, 3],
    };

    #[test]
    fn parameters_are_padded_within_the_list() {
        let value = [0, 9, 0, 3, 1, 2, 3, 0xEE, 0, 1, 0, 0];
        let decoded = PasswordAlgorithms::decode(&value, ID);
        assert_eq!(decoded, Ok(PasswordAlgorithms::new(&[UNKNOWN, MD5])));
    }

    #[test]
    fn the_last_padding_may_be_left_to_the_attribute() {
        let value = [0, 9, 0, 3, 1, 2, 3];
        assert_eq!(PasswordAlgorithm::decode(&value, ID), Ok(UNKNOWN));
        let decoded = PasswordAlgorithms::decode(&value, ID);
        assert_eq!(decoded, Ok(PasswordAlgorithms::new(&[UNKNOWN])));
    }

    /// T46
    #[test]
    fn parameters_beyond_the_value_are_refused() {
        for value in [
            &[0, 1, 0][..],
            &[0, 1, 0, 4, 1, 2, 3],
            &[0, 1, 0xFF, 0xFF, 1, 2, 3, 4],
        ] {
            assert_eq!(
                PasswordAlgorithm::decode(value, ID),
                Err(AttributeError::BadLength)
            );
            let decoded = PasswordAlgorithms::decode(value, ID);
            assert_eq!(decoded, Err(AttributeError::BadLength));
        }
    }

    /// T22
    #[test]
    fn a_list_in_another_order_or_shortened_is_another_list() {
        let sent = [UNKNOWN, MD5];
        assert_ne!(
            PasswordAlgorithms::new(&sent),
            PasswordAlgorithms::new(&[MD5, UNKNOWN])
        );
        assert_ne!(
            PasswordAlgorithms::new(&sent),
            PasswordAlgorithms::new(&[UNKNOWN])
        );
    }

    #[test]
    fn one_algorithm_means_one() {
        let value = [0, 1, 0, 0, 0, 2, 0, 0];
        assert_eq!(
            PasswordAlgorithm::decode(&value, ID),
            Err(AttributeError::BadLength)
        );
    }
}
