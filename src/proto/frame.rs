//! Frames application data where it lies: the header is written into the headroom in front of the
//! payload, so that the data path copies nothing. Where there is no room, a `write_…_head` function
//! makes the header alone, to be sent in front of the payload from elsewhere.
//!
//! ```text
//!          headroom                     payload
//! ........[header, XOR-PEER-ADDRESS, DATA][application data][zeroed padding]....
//! ............................[ChannelData][application data]...................
//! ```

use std::net::SocketAddr;
use std::ops::Range;

use super::attribute::AttributeType;
use super::attribute::address::XoredAddress;
use super::channel_data::{ChannelData, ChannelNumber};
use super::message::{Class, HEADER_LEN, Method, TransactionId};
use super::writer::{Full, encode_header};

/// The headroom that [`frame_channel_data`] needs.
pub const CHANNEL_DATA_HEADROOM: usize = ChannelData::HEADER_LEN;

/// The headroom with which [`frame_data_indication`] serves a peer of either family.
pub const DATA_INDICATION_HEADROOM: usize = HEADER_LEN + 4 + 20 + 4;

/// The headroom that [`frame_data_indication`] needs for this peer.
#[must_use]
pub const fn data_indication_headroom(peer: SocketAddr) -> usize {
    match peer {
        SocketAddr::V4(_) => DATA_INDICATION_HEADROOM - 12,
        SocketAddr::V6(_) => DATA_INDICATION_HEADROOM,
    }
}

/// Makes a Data indication of the payload that lies at `payload` in `buf`; returns where the whole
/// message lies.
///
/// # Errors
/// When there is too little room in front or behind (padding), or the payload is too long for the
/// length fields; `buf` is unchanged then.
pub fn frame_data_indication(
    buf: &mut [u8],
    payload: Range<usize>,
    peer: SocketAddr,
    id: TransactionId,
) -> Result<Range<usize>, Full> {
    let length = buf.get(payload.clone()).ok_or(Full)?.len();
    let start = payload
        .start
        .checked_sub(data_indication_headroom(peer))
        .ok_or(Full)?;
    let end = payload.end + (length.next_multiple_of(4) - length);
    buf.get(payload.end..end).ok_or(Full)?;
    let head = buf.get_mut(start..payload.start).ok_or(Full)?;
    write_data_indication_head(head, length, peer, id)?;
    buf.get_mut(payload.end..end).ok_or(Full)?.fill(0);
    Ok(start..end)
}

/// Writes what stands in front of `payload` bytes of application data in a Data indication, and
/// says how long that is. Behind the data comes padding to a multiple of four bytes.
///
/// # Errors
/// When there is too little room, or the payload is too long for the length fields; `head` is
/// unchanged then.
pub fn write_data_indication_head(
    head: &mut [u8],
    payload: usize,
    peer: SocketAddr,
    id: TransactionId,
) -> Result<usize, Full> {
    let headroom = data_indication_headroom(peer);
    let data_length = u16::try_from(payload).map_err(|_| Full)?;
    let whole = headroom + payload.next_multiple_of(4);
    let length = u16::try_from(whole - HEADER_LEN).map_err(|_| Full)?;
    let address = XoredAddress::new(peer, id);

    let head = head.get_mut(..headroom).ok_or(Full)?;
    let (header, head) = head.split_first_chunk_mut::<HEADER_LEN>().ok_or(Full)?;
    let (peer_header, head) = head.split_first_chunk_mut::<4>().ok_or(Full)?;
    let (peer_value, data_header) = head.split_at_mut_checked(address.len()).ok_or(Full)?;
    let data_header = data_header.first_chunk_mut::<4>().ok_or(Full)?;
    *header = encode_header(Class::Indication, Method::DATA, length, id);
    *peer_header = attribute_header(AttributeType::XOR_PEER_ADDRESS, address.len_field());
    peer_value.copy_from_slice(address.as_bytes());
    *data_header = attribute_header(AttributeType::DATA, data_length);
    Ok(headroom)
}

/// Makes a ChannelData message of the payload that lies at `payload` in `buf`; returns where the
/// whole message lies. It is not padded: a stream's padding is the stream's.
///
/// # Errors
/// When there is too little room in front, or the payload is longer than 65535 bytes; `buf` is
/// unchanged then.
pub fn frame_channel_data(
    buf: &mut [u8],
    payload: Range<usize>,
    channel: ChannelNumber,
) -> Result<Range<usize>, Full> {
    let length = buf.get(payload.clone()).ok_or(Full)?.len();
    let start = payload
        .start
        .checked_sub(CHANNEL_DATA_HEADROOM)
        .ok_or(Full)?;
    let head = buf.get_mut(start..payload.start).ok_or(Full)?;
    write_channel_data_head(head, length, channel)?;
    Ok(start..payload.end)
}

/// Writes the ChannelData header of `payload` bytes of application data, and says how long it is.
///
/// # Errors
/// As [`frame_channel_data`].
pub fn write_channel_data_head(
    head: &mut [u8],
    payload: usize,
    channel: ChannelNumber,
) -> Result<usize, Full> {
    let length = u16::try_from(payload).map_err(|_| Full)?;
    let head = head.first_chunk_mut().ok_or(Full)?;
    *head = ChannelData::encode_header(channel, length);
    Ok(CHANNEL_DATA_HEADROOM)
}

const fn attribute_header(kind: AttributeType, length: u16) -> [u8; 4] {
    let [t0, t1] = kind.value().to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    [t0, t1, l0, l1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ChannelRange, Data, Message, XorPeerAddress};

    const ID: TransactionId = TransactionId::new([0x5A; 12]);

    fn peers() -> [SocketAddr; 2] {
        [
            SocketAddr::from(([192, 0, 2, 1], 4000)),
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 4000)),
        ]
    }

    /// T45
    #[test]
    fn a_framed_data_indication_decodes_to_what_was_framed() {
        for peer in peers() {
            for len in 0..9 {
                let start = data_indication_headroom(peer) + 3;
                let mut buf = vec![0xAA; start + len + 8];
                let payload = vec![0x77; len];
                buf[start..start + len].copy_from_slice(&payload);

                let range = frame_data_indication(&mut buf, start..start + len, peer, ID);

                let range = range.expect("there is room");
                let message = Message::decode(&buf[range.clone()]).expect("a message");
                assert_eq!(
                    (message.class(), message.method()),
                    (Class::Indication, Method::DATA)
                );
                assert_eq!(message.transaction_id(), ID);
                assert_eq!(message.find(), Some(Ok(XorPeerAddress(peer))));
                assert_eq!(message.find(), Some(Ok(Data(&payload))));
                assert!(
                    buf[start + len..range.end].iter().all(|&byte| byte == 0),
                    "padding"
                );
                assert!(buf[..3].iter().all(|&byte| byte == 0xAA), "in front");
                assert!(buf[range.end..].iter().all(|&byte| byte == 0xAA), "behind");
            }
        }
    }

    #[test]
    fn a_frame_without_room_changes_nothing() {
        for peer in peers() {
            let headroom = data_indication_headroom(peer);
            for (len, payload) in [
                (headroom + 8, headroom - 1..headroom + 3),
                (headroom + 3, headroom..headroom + 3),
                (headroom + 3, headroom..headroom + 4),
            ] {
                let mut buf = vec![0xAA; len];
                assert_eq!(
                    frame_data_indication(&mut buf, payload, peer, ID),
                    Err(Full)
                );
                assert!(buf.iter().all(|&byte| byte == 0xAA));
            }
        }
    }

    /// T46
    #[test]
    fn a_payload_beyond_the_length_fields_is_refused() {
        let mut buf = vec![0; 70_000];
        let channel = ChannelNumber::new(0x4000, ChannelRange::Rfc8656).expect("a channel");
        let framed = frame_channel_data(&mut buf, 100..100 + 65_536, channel);
        assert_eq!(framed, Err(Full));
        let framed = frame_channel_data(&mut buf, 100..100 + 65_535, channel);
        assert_eq!(framed, Ok(96..65_635));
        for (peer, longest) in peers().into_iter().zip([65_516, 65_504]) {
            let framed = frame_data_indication(&mut buf, 100..100 + longest + 1, peer, ID);
            assert_eq!(framed, Err(Full));
            let framed = frame_data_indication(&mut buf, 100..100 + longest, peer, ID);
            assert!(Message::decode(&buf[framed.expect("it fits")]).is_ok());
        }
    }

    #[test]
    fn framed_channel_data_decodes_to_what_was_framed() {
        let mut buf = [0xAA; 12];
        let channel = ChannelNumber::new(0x4ABC, ChannelRange::Rfc8656).expect("a channel");

        let range = frame_channel_data(&mut buf, 5..10, channel);

        assert_eq!(range, Ok(1..10));
        let expected = ChannelData {
            channel: 0x4ABC,
            payload: &[0xAA; 5],
        };
        assert_eq!(ChannelData::decode_datagram(&buf[1..10]), Ok(expected));
        assert_eq!((buf[0], &buf[10..]), (0xAA, &[0xAA; 2][..]));
        assert_eq!(frame_channel_data(&mut buf, 3..10, channel), Err(Full));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    fn a_payload_outside_the_buffer_is_refused() {
        let channel = ChannelNumber::new(0x4000, ChannelRange::Rfc8656).expect("a channel");
        let mut buf = [0; 100];
        for payload in [60..101, 200..201, 70..60, usize::MAX..usize::MAX] {
            assert_eq!(
                frame_channel_data(&mut buf, payload.clone(), channel),
                Err(Full)
            );
            assert_eq!(
                frame_data_indication(&mut buf, payload, peers()[0], ID),
                Err(Full)
            );
        }
    }
}
