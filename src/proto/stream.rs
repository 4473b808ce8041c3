//! Finds message borders in a TCP or TLS byte stream, where STUN and ChannelData follow each other
//! without gaps (RFC 8489 §6.2.2, RFC 8656 §12.5).
//!
//! Only the border is found; whether the message within is valid is told by its decoder.

use super::message::{HEADER_LEN, MAGIC_COOKIE};
use super::{ChannelData, ChannelRange, Kind, classify};

/// The longest message a stream can carry, padding included: a buffer this long always reaches the
/// next border.
pub const MAX_STREAM_MESSAGE: usize = HEADER_LEN + 0xFFFC;

/// What stands at the beginning of a stream's unread bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// Not yet a whole message.
    NeedMore {
        /// How many bytes, in all, are needed before it pays to look again.
        at_least: usize,
    },
    /// A whole message.
    Whole {
        /// STUN or ChannelData, never [`Kind::Neither`].
        kind: Kind,
        /// How many bytes the message has.
        len: usize,
        /// How many bytes to consume: the message and its padding.
        padded: usize,
    },
    /// Neither STUN nor ChannelData. The borders are lost: close the connection.
    Invalid,
}

/// Finds the end of the first message in `buf`.
///
/// The length of a message that has only begun is the sender's claim: before a client is known, a
/// caller does well not to wait for much (the request line of HTTP claims some 20 KiB of
/// ChannelData).
#[must_use]
pub fn next_border(buf: &[u8], range: ChannelRange) -> Border {
    let Some(&first) = buf.first() else {
        return Border::NeedMore {
            at_least: ChannelData::HEADER_LEN,
        };
    };
    let kind = classify(first, range);
    if kind == Kind::Neither {
        return Border::Invalid;
    }
    let Some((&[_, _, l0, l1], rest)) = buf.split_first_chunk() else {
        return Border::NeedMore {
            at_least: ChannelData::HEADER_LEN,
        };
    };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let len = match kind {
        Kind::ChannelData => ChannelData::HEADER_LEN + length,
        Kind::Stun if may_be_stun(length, rest) => HEADER_LEN + length,
        Kind::Stun | Kind::Neither => return Border::Invalid,
    };
    let padded = ChannelData::padded_len(len);
    if buf.len() < padded {
        Border::NeedMore { at_least: padded }
    } else {
        Border::Whole { kind, len, padded }
    }
}

/// Whether the length field, and as much of the magic cookie as has arrived, are those of STUN.
fn may_be_stun(length: usize, after_length: &[u8]) -> bool {
    // RFC 8489 §5: the length of the attributes is a multiple of four.
    length.is_multiple_of(4)
        && after_length
            .iter()
            .zip(MAGIC_COOKIE.to_be_bytes())
            .all(|(&byte, cookie)| byte == cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: ChannelRange = ChannelRange::Rfc8656;

    #[test]
    fn channel_data_is_consumed_with_its_padding() {
        let buf = [0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0x40];
        let border = Border::Whole {
            kind: Kind::ChannelData,
            len: 9,
            padded: 12,
        };
        assert_eq!(next_border(&buf, RANGE), border);
    }

    #[test]
    fn a_message_is_whole_only_with_its_padding() {
        let buf = [0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0];
        assert_eq!(next_border(&buf, RANGE), Border::NeedMore { at_least: 12 });
    }

    #[test]
    fn stun_ends_where_its_length_says() {
        let mut buf = [0; 30];
        buf[..8].copy_from_slice(&[0, 1, 0, 4, 0x21, 0x12, 0xA4, 0x42]);
        let border = Border::Whole {
            kind: Kind::Stun,
            len: 24,
            padded: 24,
        };
        assert_eq!(next_border(&buf, RANGE), border);
        assert_eq!(
            next_border(&buf[..23], RANGE),
            Border::NeedMore { at_least: 24 }
        );
    }

    #[test]
    fn a_beginning_asks_for_more() {
        for (buf, at_least) in [
            (&[][..], 4),
            (&[0x00], 4),
            (&[0x40, 0, 0], 4),
            (&[0x40, 0, 0, 1], 8),
            (&[0, 1, 0, 8], 28),
            (&[0, 1, 0, 8, 0x21, 0x12], 28),
        ] {
            assert_eq!(
                next_border(buf, RANGE),
                Border::NeedMore { at_least },
                "{buf:?}"
            );
        }
    }

    /// T36
    #[test]
    fn bytes_that_cannot_be_stun_are_refused_at_once() {
        for buf in [
            &[0, 1, 0, 2][..],
            &[0, 1, 0, 8, 0x22],
            &[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x43],
        ] {
            assert_eq!(next_border(buf, RANGE), Border::Invalid);
        }
    }

    /// T50
    #[test]
    fn other_protocols_are_refused_by_their_first_byte() {
        for buf in [
            &b"POST / HTTP/1.1"[..],
            b"\x16\x03\x01\x02\x00",
            b"\x80\x60",
            b"\x14",
        ] {
            assert_eq!(next_border(buf, RANGE), Border::Invalid);
        }
    }

    #[test]
    fn the_longest_message_fits_the_stated_maximum() {
        let stun = next_border(&[0, 1, 0xFF, 0xFC], RANGE);
        assert_eq!(
            stun,
            Border::NeedMore {
                at_least: MAX_STREAM_MESSAGE
            }
        );
        let channel_data = next_border(&[0x40, 0, 0xFF, 0xFF], RANGE);
        assert_eq!(channel_data, Border::NeedMore { at_least: 65_540 });
    }
}
