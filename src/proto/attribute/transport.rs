//! What a client asks of its relayed transport address (RFC 8656 §18.6 to §18.11).

use std::fmt;
use std::net::IpAddr;

use super::{Attribute, AttributeError, AttributeType, exactly};
use crate::proto::message::TransactionId;
use crate::proto::writer::{Full, Sink};

/// IPv4 or IPv6 (RFC 8489 §14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl AddressFamily {
    /// The family of `ip`.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(super) const fn value(self) -> u8 {
        match self {
            Self::V4 => 0x01,
            Self::V6 => 0x02,
        }
    }

    pub(super) const fn from_value(value: u8) -> Result<Self, AttributeError> {
        match value {
            0x01 => Ok(Self::V4),
            0x02 => Ok(Self::V6),
            _ => Err(AttributeError::UnknownFamily),
        }
    }
}

macro_rules! family_attribute {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub AddressFamily);

        impl<'a> Attribute<'a> for $name {
            const TYPE: AttributeType = AttributeType::$kind;

            fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
                // RFC 8656 §18.6: 24 reserved bits follow, ignored on reception.
                let &[family, _, _, _] = exactly(value)?;
                AddressFamily::from_value(family).map(Self)
            }

            fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
                out.put(&[self.0.value(), 0, 0, 0])
            }
        }
    };
}

family_attribute!(
    /// REQUESTED-ADDRESS-FAMILY: the one family wanted.
    RequestedAddressFamily, REQUESTED_ADDRESS_FAMILY
);
family_attribute!(
    /// ADDITIONAL-ADDRESS-FAMILY: a family wanted besides IPv4. That only IPv6 makes sense is
    /// judged by the server.
    AdditionalAddressFamily, ADDITIONAL_ADDRESS_FAMILY
);

/// REQUESTED-TRANSPORT: the protocol between server and peer, by its IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedTransport(pub u8);

impl RequestedTransport {
    /// UDP, the one protocol of RFC 8656.
    pub const UDP: Self = Self(17);
    /// TCP (RFC 6062).
    pub const TCP: Self = Self(6);
}

impl<'a> Attribute<'a> for RequestedTransport {
    const TYPE: AttributeType = AttributeType::REQUESTED_TRANSPORT;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        // RFC 8656 §18.8: three reserved bytes follow, ignored on reception.
        let &[protocol, _, _, _] = exactly(value)?;
        Ok(Self(protocol))
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(&[self.0, 0, 0, 0])
    }
}

/// Whether the port after an even one is to be held for a later allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Hold it.
    Yes,
    /// Do not.
    No,
}

/// EVEN-PORT: the relayed port is to be even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvenPort {
    /// The R bit.
    pub reserve_next: Reserve,
}

impl<'a> Attribute<'a> for EvenPort {
    const TYPE: AttributeType = AttributeType::EVEN_PORT;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        // RFC 8656 §18.7: the other seven bits are ignored on reception.
        let &[bits] = exactly(value)?;
        let reserve_next = if bits & 0x80 == 0 {
            Reserve::No
        } else {
            Reserve::Yes
        };
        Ok(Self { reserve_next })
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(match self.reserve_next {
            Reserve::Yes => &[0x80],
            Reserve::No => &[0x00],
        })
    }
}

/// DONT-FRAGMENT: packets to the peer are to carry the DF bit. It has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DontFragment;

impl<'a> Attribute<'a> for DontFragment {
    const TYPE: AttributeType = AttributeType::DONT_FRAGMENT;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        exactly::<0>(value).map(|_| Self)
    }

    fn encode(&self, _id: TransactionId, _out: &mut Sink<'_>) -> Result<(), Full> {
        Ok(())
    }
}

/// RESERVATION-TOKEN: names a port held by EVEN-PORT. `Debug` hides it: who holds it can take the
/// port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReservationToken(pub [u8; 8]);

impl<'a> Attribute<'a> for ReservationToken {
    const TYPE: AttributeType = AttributeType::RESERVATION_TOKEN;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        exactly(value).copied().map(Self)
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(&self.0)
    }
}

impl fmt::Debug for ReservationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReservationToken(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId::new([0; 12]);

    #[test]
    fn reserved_bits_are_ignored() {
        let family = RequestedAddressFamily::decode(&[2, 0xFF, 0xFF, 0xFF], ID);
        assert_eq!(family, Ok(RequestedAddressFamily(AddressFamily::V6)));
        let transport = RequestedTransport::decode(&[17, 0xFF, 0xFF, 0xFF], ID);
        assert_eq!(transport, Ok(RequestedTransport::UDP));
        let port = EvenPort::decode(&[0x7F], ID);
        assert_eq!(
            port,
            Ok(EvenPort {
                reserve_next: Reserve::No
            })
        );
    }

    /// T55
    #[test]
    fn an_unknown_family_is_named() {
        let family = RequestedAddressFamily::decode(&[3, 0, 0, 0], ID);
        assert_eq!(family, Err(AttributeError::UnknownFamily));
        let family = AdditionalAddressFamily::decode(&[0, 0, 0, 0], ID);
        assert_eq!(family, Err(AttributeError::UnknownFamily));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let bad = AttributeError::BadLength;
        for value in [&[][..], &[1, 0, 0], &[1, 0, 0, 0, 0]] {
            assert_eq!(RequestedAddressFamily::decode(value, ID), Err(bad));
            assert_eq!(RequestedTransport::decode(value, ID), Err(bad));
            assert_eq!(EvenPort::decode(value, ID), Err(bad));
            assert_eq!(ReservationToken::decode(value, ID), Err(bad));
        }
        assert_eq!(DontFragment::decode(&[0], ID), Err(bad));
        assert_eq!(DontFragment::decode(&[], ID), Ok(DontFragment));
    }
}
