//! Which payloads are media, by their first bytes (RFC 7983 §7, RFC 5761 §4), and what an RTP header
//! says (RFC 3550 §5.1).

/// What of an RTP header a stream is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
}

/// A payload that is media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Rtp(Header),
    /// Encrypted behind its first eight bytes where it is SRTCP.
    Rtcp,
}

/// RFC 3550 §6.4: an RTCP packet has at least its header and an SSRC.
const RTCP_LEN: usize = 8;

impl Shape {
    /// What `payload` is; STUN, DTLS, TURN channels and anything else are none of these.
    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        // RFC 7983 §7: 128 to 191 is RTP or RTCP. That is version 2 of both.
        let [first, second, ..] = *payload else {
            return None;
        };
        if first & 0xc0 != 0x80 {
            return None;
        }
        // RFC 5761 §4: payload types 64 to 95 are not used, so that these are RTCP packet types.
        if (192..=223).contains(&second) {
            return (payload.len() >= RTCP_LEN).then_some(Self::Rtcp);
        }
        let [_, _, a, b, c, d, e, f, g, h, i, j] = *payload.first_chunk()?;
        Some(Self::Rtp(Header {
            sequence: u16::from_be_bytes([a, b]),
            timestamp: u32::from_be_bytes([c, d, e, f]),
            ssrc: u32::from_be_bytes([g, h, i, j]),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, second: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![first, second, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn a_first_byte_from_128_to_191_is_media_and_no_other() {
        for first in 0..=u8::MAX {
            let is_media = Shape::of(&packet(first, 111, 13)).is_some();
            assert_eq!(is_media, (128..=191).contains(&first), "{first}");
        }
    }

    #[test]
    fn an_rtcp_packet_type_is_told_from_a_payload_type() {
        for second in 0..=u8::MAX {
            let shape = Shape::of(&packet(0x80, second, 13));
            let is_rtcp = shape == Some(Shape::Rtcp);
            assert_eq!(is_rtcp, (192..=223).contains(&second), "{second}");
        }
    }

    #[test]
    fn a_header_is_read_where_it_stands_and_half_a_one_is_none() {
        let header = Header {
            sequence: 0x0102,
            timestamp: 0x0304_0506,
            ssrc: 0x0708_090a,
        };
        assert_eq!(Shape::of(&packet(0x90, 0xef, 12)), Some(Shape::Rtp(header)));
        for len in 0..12 {
            assert_eq!(Shape::of(&packet(0x80, 0, len)), None);
        }
        for len in 0..8 {
            assert_eq!(Shape::of(&packet(0x80, 200, len)), None);
        }
    }
}
