//! Attributes that carry a transport address: plain as in MAPPED-ADDRESS (RFC 8489 §14.1), or
//! masked as in XOR-MAPPED-ADDRESS (§14.2).
//!
//! `Debug` never shows the address: it may be a client's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::transport::AddressFamily;
use super::{Attribute, AttributeError, AttributeType, exactly};
use crate::proto::message::{MAGIC_COOKIE, TransactionId};
use crate::proto::writer::{Full, Sink};

/// The bytes of an address attribute's value.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +---------------+---------------+-------------------------------+
/// |       0       |    family     |             port              |
/// +---------------+---------------+-------------------------------+
/// |                    address, 4 or 16 bytes                     |
/// ```
pub(in crate::proto) struct XoredAddress {
    bytes: [u8; 20],
    len: u16,
}

impl XoredAddress {
    pub(in crate::proto) fn new(address: SocketAddr, id: TransactionId) -> Self {
        Self::masked(address, mask(id))
    }

    fn masked(address: SocketAddr, mask: [u8; 16]) -> Self {
        let mut bytes = [0; 20];
        let [
            _,
            family,
            port @ ..,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
        ] = &mut bytes;
        let port: &mut [u8; 2] = port;
        *family = AddressFamily::of(address.ip()).value();
        *port = xor(address.port().to_be_bytes(), mask);
        let ip = &mut bytes[4..];
        let len = match address.ip() {
            IpAddr::V4(v4) => {
                ip[..4].copy_from_slice(&xor(v4.octets(), mask));
                8
            }
            IpAddr::V6(v6) => {
                ip.copy_from_slice(&xor(v6.octets(), mask));
                20
            }
        };
        Self { bytes, len }
    }

    pub(in crate::proto) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    pub(in crate::proto) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(in crate::proto) const fn len_field(&self) -> u16 {
        self.len
    }
}

const UNMASKED: [u8; 16] = [0; 16];

/// RFC 8489 §14.2: the magic cookie, then the transaction id.
const fn mask(id: TransactionId) -> [u8; 16] {
    let [k0, k1, k2, k3] = MAGIC_COOKIE.to_be_bytes();
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *id.as_bytes();
    [k0, k1, k2, k3, a, b, c, d, e, f, g, h, i, j, k, l]
}

fn xor<const N: usize>(mut bytes: [u8; N], mask: [u8; 16]) -> [u8; N] {
    for (byte, mask) in bytes.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    bytes
}

fn decode(value: &[u8], mask: [u8; 16]) -> Result<SocketAddr, AttributeError> {
    // RFC 8489 §14.1: the first byte is ignored; 32 bits of address for IPv4, 128 for IPv6.
    let (&[_, family, p0, p1], ip) = value.split_first_chunk().ok_or(AttributeError::BadLength)?;
    let ip = match AddressFamily::from_value(family)? {
        AddressFamily::V4 => IpAddr::from(Ipv4Addr::from(xor(*exactly(ip)?, mask))),
        AddressFamily::V6 => IpAddr::from(Ipv6Addr::from(xor(*exactly(ip)?, mask))),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(xor([p0, p1], mask))))
}

macro_rules! address_attribute {
    ($(#[$doc:meta])* $name:ident, $kind:ident, |$id:ident| $mask:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub SocketAddr);

        impl<'a> Attribute<'a> for $name {
            const TYPE: AttributeType = AttributeType::$kind;

            fn decode(value: &'a [u8], $id: TransactionId) -> Result<Self, AttributeError> {
                decode(value, $mask).map(Self)
            }

            fn encode(&self, $id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
                out.put(XoredAddress::masked(self.0, $mask).as_bytes())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(hidden)"))
            }
        }
    };
}

address_attribute!(
    /// MAPPED-ADDRESS: the client's address as the server sees it, for clients of RFC 3489.
    MappedAddress, MAPPED_ADDRESS, |_id| UNMASKED
);
address_attribute!(
    /// XOR-MAPPED-ADDRESS: the client's address as the server sees it.
    XorMappedAddress, XOR_MAPPED_ADDRESS, |id| mask(id)
);
address_attribute!(
    /// XOR-PEER-ADDRESS: the address of a peer as the server sees it.
    XorPeerAddress, XOR_PEER_ADDRESS, |id| mask(id)
);
address_attribute!(
    /// XOR-RELAYED-ADDRESS: the address the server allocated to the client.
    XorRelayedAddress, XOR_RELAYED_ADDRESS, |id| mask(id)
);
address_attribute!(
    /// ALTERNATE-SERVER: another server to try.
    AlternateServer, ALTERNATE_SERVER, |_id| UNMASKED
);
address_attribute!(
    /// RESPONSE-ORIGIN: where the response was sent from (RFC 5780).
    ResponseOrigin, RESPONSE_ORIGIN, |_id| UNMASKED
);
address_attribute!(
    /// OTHER-ADDRESS: where the response would be sent from had CHANGE-REQUEST asked for another
    /// address and port (RFC 5780).
    OtherAddress, OTHER_ADDRESS, |_id| UNMASKED
);

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId::new([7; 12]);

    #[test]
    fn the_first_byte_is_ignored() {
        let value = [0xFF, 1, 0x12, 0x34, 192, 0, 2, 1];
        let expected = SocketAddr::from(([192, 0, 2, 1], 0x1234));
        assert_eq!(
            MappedAddress::decode(&value, ID),
            Ok(MappedAddress(expected))
        );
    }

    #[test]
    fn a_length_that_does_not_fit_the_family_is_refused() {
        for (family, len) in [
            (1, 7),
            (1, 9),
            (1, 20),
            (2, 8),
            (2, 19),
            (2, 21),
            (1, 3),
            (1, 0),
        ] {
            let mut value = vec![0; len];
            if let Some(byte) = value.get_mut(1) {
                *byte = family;
            }
            assert_eq!(
                XorPeerAddress::decode(&value, ID),
                Err(AttributeError::BadLength)
            );
        }
    }

    #[test]
    fn an_unknown_family_is_told_from_a_wrong_length() {
        let value = [0, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            XorPeerAddress::decode(&value, ID),
            Err(AttributeError::UnknownFamily)
        );
    }

    /// T62
    #[test]
    fn debug_hides_the_address() {
        let address = SocketAddr::from(([203, 0, 113, 7], 5000));
        assert_eq!(
            format!("{:?}", XorPeerAddress(address)),
            "XorPeerAddress(hidden)"
        );
        assert_eq!(
            format!("{:?}", MappedAddress(address)),
            "MappedAddress(hidden)"
        );
    }
}
