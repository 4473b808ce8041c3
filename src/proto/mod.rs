//! The wire: bytes to types and back, for STUN (RFC 8489), TURN (RFC 8656, and RFC 5766 for the
//! channel numbers of older clients), and the attributes of RFC 5780, RFC 6062 and RFC 8016.
//!
//! Decoding borrows from the datagram, allocates nothing and cannot panic, whatever the bytes.
//! Encoding writes into the caller's buffer and zeroes all padding. Nothing here knows a clock, a
//! socket or an allocation; what a decoded value means is judged by the layers above.
//!
//! An address that arrives in a message may be an endpoint's, so no type here prints one.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![forbid(unsafe_code)]

mod attribute;
mod channel_data;
mod frame;
mod integrity;
mod message;
mod stream;
mod writer;

pub use attribute::address::{
    AlternateServer, MappedAddress, OtherAddress, ResponseOrigin, XorMappedAddress, XorPeerAddress,
    XorRelayedAddress,
};
pub use attribute::behaviour::{ChangeRequest, Padding, ResponsePort};
pub use attribute::channel::{ChannelNumberAttribute, ConnectionId, Data};
pub use attribute::error_code::{AddressErrorCode, ErrorCode, Icmp, UnknownAttributes};
pub use attribute::lifetime::{Lifetime, MobilityTicket};
pub use attribute::security::{Algorithm, PasswordAlgorithm, PasswordAlgorithms, Userhash};
pub use attribute::text::{AlternateDomain, Nonce, Realm, Software, Username};
pub use attribute::transport::{
    AdditionalAddressFamily, AddressFamily, DontFragment, EvenPort, RequestedAddressFamily,
    RequestedTransport, ReservationToken, Reserve,
};
pub use attribute::{Attribute, AttributeError, AttributeType, RawAttribute};
pub use channel_data::{ChannelData, ChannelDataError, ChannelNumber, ChannelRange};
pub use frame::{
    CHANNEL_DATA_HEADROOM, DATA_INDICATION_HEADROOM, data_indication_headroom, frame_channel_data,
    frame_data_indication, write_channel_data_head, write_data_indication_head,
};
pub use integrity::{Fingerprint, Integrity, LongTermKey};
pub use message::{
    Attributes, Class, DecodeError, HEADER_LEN, MAGIC_COOKIE, Message, Method, TransactionId,
};
pub use stream::{Border, MAX_STREAM_MESSAGE, next_border};
pub use writer::{Full, Sink, Writer};

/// What the first byte of a datagram, or of a message in a stream, announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A STUN message.
    Stun,
    /// A ChannelData message.
    ChannelData,
    /// Another protocol, or noise: not for this server.
    Neither,
}

/// Tells STUN from ChannelData by the first byte.
#[must_use]
pub const fn classify(first: u8, range: ChannelRange) -> Kind {
    // RFC 8656 §12, table 3 (RFC 7983): 0 to 3 is STUN, 64 to 79 a channel, the rest is dropped.
    // RFC 5766 §11: 0b01 in the first two bits is a channel.
    match (first, range) {
        (0x00..=0x03, _) => Kind::Stun,
        (0x40..=0x4F, ChannelRange::Rfc8656) | (0x40..=0x7F, ChannelRange::Rfc5766) => {
            Kind::ChannelData
        }
        _ => Kind::Neither,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_stun_from_channel_data() {
        for first in 0..=u8::MAX {
            let (rfc8656, rfc5766) = match first {
                0x00..=0x03 => (Kind::Stun, Kind::Stun),
                0x40..=0x4F => (Kind::ChannelData, Kind::ChannelData),
                0x50..=0x7F => (Kind::Neither, Kind::ChannelData),
                _ => (Kind::Neither, Kind::Neither),
            };
            assert_eq!(
                classify(first, ChannelRange::Rfc8656),
                rfc8656,
                "{first:#x}"
            );
            assert_eq!(
                classify(first, ChannelRange::Rfc5766),
                rfc5766,
                "{first:#x}"
            );
        }
    }

    /// T50
    #[test]
    fn http_is_no_message_in_a_datagram() {
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "POST /x HTTP/1.1\r\n\r\n",
            "HEAD / HTTP/1.0\r\n\r\n",
        ] {
            assert!(Message::decode(request.as_bytes()).is_err());
            let decoded = ChannelData::decode_datagram(request.as_bytes());
            assert_eq!(decoded, Err(ChannelDataError::TooShort));
        }
        // POST, PUT, PRI, TRACE, and a TLS handshake do not even begin like one.
        for first in *b"PT\x16" {
            assert_eq!(classify(first, ChannelRange::Rfc8656), Kind::Neither);
        }
    }
}
