//! TCP connections put together again from captured packets, and the TURN
//! messages in them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::lab::packet::{Packet, TCP};

/// What one end of a connection sent to the other.
pub(crate) struct Stream {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// A segment that carries something, or begins a stream.
struct Segment<'a> {
    ends: [SocketAddr; 2],
    sequence: u32,
    begins: bool,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    fn of(packet: &'a Packet) -> Option<Self> {
        const SYN: u8 = 2;

        let header = &packet.body;
        if packet.protocol != TCP || header.len() < 20 {
            return None;
        }
        Some(Self {
            ends: packet.ends()?,
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            begins: header[13] & SYN != 0,
            payload: header.get(usize::from(header[12] >> 4) * 4..)?,
        })
    }
}

/// A stream in the making.
struct Pieces<'a> {
    /// The number of its first byte.
    first: u32,
    /// By their offset in the stream.
    segments: BTreeMap<u32, &'a [u8]>,
}

impl<'a> Pieces<'a> {
    fn add(&mut self, sequence: u32, payload: &'a [u8]) {
        let offset = sequence.wrapping_sub(self.first);
        let kept = self.segments.entry(offset).or_default();
        // What is sent again may be longer than at first.
        if kept.len() < payload.len() {
            *kept = payload;
        }
    }

    fn join(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (offset, segment) in &self.segments {
            let offset = usize::try_from(*offset).expect("a word has 64 bits");
            let known = bytes
                .len()
                .checked_sub(offset)
                .expect("the capture has every segment");
            bytes.extend(segment.get(known..).unwrap_or_default());
        }
        bytes
    }
}

/// Every stream among `packets`, which hold all its segments. Panics where one is missing.
pub(crate) fn streams(packets: &[Packet]) -> Vec<Stream> {
    let mut all: BTreeMap<[SocketAddr; 2], Pieces<'_>> = BTreeMap::new();
    for segment in packets.iter().filter_map(Segment::of) {
        if segment.begins {
            all.entry(segment.ends).or_insert_with(|| Pieces {
                first: segment.sequence.wrapping_add(1),
                segments: BTreeMap::new(),
            });
        } else if !segment.payload.is_empty() {
            all.get_mut(&segment.ends)
                .expect("the capture saw the connection begin")
                .add(segment.sequence, segment.payload);
        }
    }
    all.into_iter()
        .map(|([source, destination], pieces)| Stream {
            source,
            destination,
            bytes: pieces.join(),
        })
        .collect()
}

/// The messages of a stream, padding included; what is cut off at the end is left out.
pub(crate) fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let [first, _, high, low, ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let length = match first {
            0x00..0x40 => 20 + length,
            // RFC 8656 §12.5: over a stream, ChannelData is padded to four bytes.
            0x40..0x80 => 4 + length.next_multiple_of(4),
            _ => panic!("a message begins with {first:#04x}"),
        };
        let Some((message, rest)) = bytes.split_at_checked(length) else {
            break;
        };
        messages.push(message);
        bytes = rest;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: ([u8; 4], [u8; 4]) = ([192, 0, 2, 10], [203, 0, 113, 7]);
    const SYN: u8 = 2;
    const PUSH: u8 = 8;

    fn segment(sequence: u32, flags: u8, payload: &[u8]) -> Packet {
        let mut body = 50_000_u16.to_be_bytes().to_vec();
        body.extend(3478_u16.to_be_bytes());
        body.extend(sequence.to_be_bytes());
        body.extend([0, 0, 0, 0, 0x60, flags, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
        body.extend(payload);
        Packet {
            source: ENDS.0.into(),
            destination: ENDS.1.into(),
            protocol: TCP,
            body,
        }
    }

    #[test]
    fn segments_are_joined_in_the_order_of_their_numbers_and_once() {
        let packets = [
            segment(u32::MAX - 1, SYN, b""),
            segment(2, PUSH, b"relay"),
            segment(u32::MAX, PUSH, b"the"),
            segment(u32::MAX, PUSH, b"the"),
            segment(1, PUSH, b"erel"),
            segment(7, PUSH, b""),
        ];
        let streams = streams(&packets);
        let [stream] = &streams[..] else {
            panic!("{} streams", streams.len());
        };
        assert_eq!(stream.bytes, b"therelay");
        assert_eq!(stream.source, (ENDS.0, 50_000).into());
        assert_eq!(stream.destination, (ENDS.1, 3478).into());
    }

    #[test]
    #[should_panic(expected = "every segment")]
    fn a_segment_that_the_capture_missed_is_noticed() {
        let packets = [segment(0, SYN, b""), segment(3, PUSH, b"later")];
        assert!(streams(&packets).is_empty());
    }

    #[test]
    fn messages_follow_each_other_without_borders() {
        let channel_data = [0x40, 0, 0, 2, 8, 9, 0, 0];
        let mut indication = vec![0x00, 0x16, 0, 4, 0x21, 0x12, 0xa4, 0x42];
        indication.extend([7; 16]);
        let bytes = [&channel_data[..], &indication, &channel_data[..7]].concat();
        assert_eq!(messages(&bytes), [&channel_data[..], &indication]);
    }
}
