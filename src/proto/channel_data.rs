//! ChannelData: a channel number, a length and the application data (RFC 8656 §12.4).
//!
//! Whether a channel is bound, and to whom, is not known here.

use std::fmt;

/// Which channel numbers a server admits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelRange {
    /// 0x4000 to 0x4FFF (RFC 8656 §12).
    #[default]
    Rfc8656,
    /// 0x4000 to 0x7FFE (RFC 5766 §11.2), for clients older than RFC 8656.
    Rfc5766,
}

/// A channel number within the range the server admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The channel number `value`, unless it lies outside `range`.
    #[must_use]
    pub const fn new(value: u16, range: ChannelRange) -> Option<Self> {
        let last = match range {
            ChannelRange::Rfc8656 => 0x4FFF,
            ChannelRange::Rfc5766 => 0x7FFE,
        };
        if 0x4000 <= value && value <= last {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The number as it stands on the wire.
    #[must_use]
    pub const fn value(self) -> u16 {
        self.0
    }
}

/// Why bytes are not a ChannelData message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelDataError {
    /// The datagram ends before the header or the announced data does.
    #[error("ChannelData shorter than it announces")]
    TooShort,
    /// The first two bits are not those of a channel number.
    #[error("not a channel number")]
    NotChannelData,
}

/// A ChannelData message.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-------------------------------+-------------------------------+
/// |         channel number        |            length             |
/// +-------------------------------+-------------------------------+
/// |              application data, `length` bytes                 |
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// The channel number as received: 0x4000 to 0x7FFF, not yet held against a range.
    pub channel: u16,
    /// The application data, without padding.
    pub payload: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// The length of the header.
    pub const HEADER_LEN: usize = 4;

    /// Decodes a ChannelData message that fills a datagram, or that
    /// [`next_border`](super::next_border) cut out of a stream.
    ///
    /// Whatever follows the announced length is ignored.
    ///
    /// # Errors
    /// When the channel number is none, or the datagram is shorter than announced.
    pub fn decode_datagram(bytes: &'a [u8]) -> Result<Self, ChannelDataError> {
        let (&[c0, c1, l0, l1], rest) = bytes
            .split_first_chunk()
            .ok_or(ChannelDataError::TooShort)?;
        let channel = u16::from_be_bytes([c0, c1]);
        if channel >> 14 != 0b01 {
            return Err(ChannelDataError::NotChannelData);
        }
        // RFC 8656 §12.6: a datagram too short for the claimed length is discarded; §12.5 allows
        // padding over UDP, and no rule refuses more of it.
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let payload = rest.get(..length).ok_or(ChannelDataError::TooShort)?;
        Ok(Self { channel, payload })
    }

    /// The header of a message with `length` bytes of application data.
    #[must_use]
    pub const fn encode_header(channel: ChannelNumber, length: u16) -> [u8; 4] {
        let [c0, c1] = channel.0.to_be_bytes();
        let [l0, l1] = length.to_be_bytes();
        [c0, c1, l0, l1]
    }

    /// The length of the message without padding: what a datagram carries.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        Self::HEADER_LEN + self.payload.len()
    }

    /// `length` (of the data or of the whole message) rounded up to a multiple of four.
    #[must_use]
    pub const fn padded_len(length: usize) -> usize {
        // RFC 8656 §12.5: over TCP and TLS the message is padded to a multiple of four bytes.
        length.saturating_add(3) & !3
    }
}

impl fmt::Debug for ChannelData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelData")
            .field("channel", &format_args!("{:#06x}", self.channel))
            .field("len", &self.payload.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T51
    #[test]
    fn channel_numbers_end_where_the_rfcs_say() {
        let admitted = |value, range| ChannelNumber::new(value, range).is_some();
        for (value, rfc8656, rfc5766) in [
            (0x3FFF, false, false),
            (0x4000, true, true),
            (0x4FFF, true, true),
            (0x5000, false, true),
            (0x7FFE, false, true),
            (0x7FFF, false, false),
            (0xFFFF, false, false),
        ] {
            assert_eq!(
                admitted(value, ChannelRange::Rfc8656),
                rfc8656,
                "{value:#x}"
            );
            assert_eq!(
                admitted(value, ChannelRange::Rfc5766),
                rfc5766,
                "{value:#x}"
            );
        }
    }

    #[test]
    fn an_empty_message_is_valid() {
        let decoded = ChannelData::decode_datagram(&[0x40, 0x01, 0, 0]);
        assert_eq!(
            decoded,
            Ok(ChannelData {
                channel: 0x4001,
                payload: &[]
            })
        );
    }

    #[test]
    fn padding_is_not_part_of_the_payload() {
        let decoded = ChannelData::decode_datagram(&[0x40, 0x01, 0, 1, 7, 0, 0, 0]);
        assert_eq!(
            decoded,
            Ok(ChannelData {
                channel: 0x4001,
                payload: &[7]
            })
        );
    }

    /// T46
    #[test]
    fn a_length_beyond_the_datagram_is_refused() {
        for bytes in [
            &[][..],
            &[0x40],
            &[0x40, 0, 0],
            &[0x40, 0, 0, 1],
            &[0x40, 0, 0xFF, 0xFF, 1],
        ] {
            assert_eq!(
                ChannelData::decode_datagram(bytes),
                Err(ChannelDataError::TooShort)
            );
        }
    }

    #[test]
    fn other_first_bits_are_no_channel() {
        for first in [0x00, 0x3F, 0x80, 0xC0] {
            let bytes = [first, 0, 0, 0];
            assert_eq!(
                ChannelData::decode_datagram(&bytes),
                Err(ChannelDataError::NotChannelData)
            );
        }
    }

    #[test]
    fn the_padded_length_is_the_next_multiple_of_four() {
        let padded = [0, 1, 3, 4, 5, 65_535].map(ChannelData::padded_len);
        assert_eq!(padded, [0, 4, 4, 4, 8, 65_536]);
    }

    #[test]
    fn debug_shows_no_payload() {
        let message = ChannelData {
            channel: 0x4000,
            payload: &[77; 3],
        };
        assert_eq!(
            format!("{message:?}"),
            "ChannelData { channel: 0x4000, len: 3 }"
        );
    }
}
