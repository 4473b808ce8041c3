//! What each packet of the traffic carries, and what of it arrived.
//!
//! ```text
//!  0               4               8               12              16              24
//! +---------------+---------------+---------------+---------------+-------------------+
//! | token of run  |     step      |     flow      |    number     | nanoseconds, sent |  zeroes …
//! +---------------+---------------+---------------+---------------+-------------------+
//! ```

use crate::proto::{Data, Message, Method, XorPeerAddress};
use std::net::SocketAddr;

/// Bytes that tell a packet from the others.
pub(super) const STAMP_LEN: usize = 24;

/// What tells a packet from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) token: u32,
    pub(super) step: u32,
    pub(super) flow: u32,
    pub(super) number: u32,
    pub(super) sent: u64,
}

impl Stamp {
    pub(super) fn write(&self, room: &mut [u8]) {
        if let Some(room) = room.first_chunk_mut::<STAMP_LEN>() {
            room[..4].copy_from_slice(&self.token.to_ne_bytes());
            room[4..8].copy_from_slice(&self.step.to_ne_bytes());
            room[8..12].copy_from_slice(&self.flow.to_ne_bytes());
            room[12..16].copy_from_slice(&self.number.to_ne_bytes());
            room[16..].copy_from_slice(&self.sent.to_ne_bytes());
        }
    }

    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let stamp = payload.first_chunk::<STAMP_LEN>()?;
        let word = |at| stamp[at..].first_chunk().copied().map(u32::from_ne_bytes);
        Some(Self {
            token: word(0)?,
            step: word(4)?,
            flow: word(8)?,
            number: word(12)?,
            sent: u64::from_ne_bytes(*stamp.last_chunk()?),
        })
    }
}

/// How a flow's packets are framed on their way to the server, or to an allocation from a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framing {
    head: [u8; Self::ROOM],
    len: u8,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Channel,
    Indication,
}

impl Framing {
    /// A header, an IPv6 peer address, and the header of DATA.
    const ROOM: usize = 20 + 24 + 4;

    /// None at all, from a peer.
    pub(super) const PLAIN: Self = Self {
        head: [0; Self::ROOM],
        len: 0,
        kind: Kind::Plain,
    };

    /// ChannelData on `channel`.
    pub(super) fn channel(channel: u16) -> Self {
        let mut head = [0; Self::ROOM];
        head[..2].copy_from_slice(&channel.to_be_bytes());
        Self {
            head,
            len: 4,
            kind: Kind::Channel,
        }
    }

    /// A Send indication to `peer`.
    pub(super) fn indication(peer: SocketAddr, id: [u8; 12]) -> Option<Self> {
        use crate::proto::{AttributeType, Class, TransactionId, Writer};
        let mut head = [0; Self::ROOM];
        let id = TransactionId::new(id);
        let mut writer = Writer::new(&mut head, Class::Indication, Method::SEND, id).ok()?;
        writer.push(&XorPeerAddress(peer)).ok()?;
        let end = writer.finish();
        let kind = AttributeType::DATA.value().to_be_bytes();
        head.get_mut(end..end + 2)?.copy_from_slice(&kind);
        Some(Self {
            head,
            len: u8::try_from(end + 4).ok()?,
            kind: Kind::Indication,
        })
    }

    /// The length of a datagram with so much payload.
    pub(super) fn framed(&self, payload: u16) -> usize {
        let payload = usize::from(payload);
        usize::from(self.len)
            + match self.kind {
                Kind::Plain | Kind::Channel => payload,
                // RFC 8489 §14: attributes are padded to a multiple of four.
                Kind::Indication => payload.next_multiple_of(4),
            }
    }

    /// Writes one datagram at the beginning of `room`; returns its length. Whatever follows the
    /// stamp is left as it is.
    pub(super) fn write(&self, room: &mut [u8], payload: u16, stamp: &Stamp) -> usize {
        let framed = self.framed(payload);
        let head = usize::from(self.len);
        if let Some(room) = room.get_mut(..framed) {
            room[..head].copy_from_slice(&self.head[..head]);
            match self.kind {
                Kind::Plain => {}
                Kind::Channel => room[2..4].copy_from_slice(&payload.to_be_bytes()),
                Kind::Indication => {
                    let body = u16::try_from(framed - 20).unwrap_or(u16::MAX);
                    room[2..4].copy_from_slice(&body.to_be_bytes());
                    room[head - 2..head].copy_from_slice(&payload.to_be_bytes());
                }
            }
            stamp.write(&mut room[head..]);
        }
        framed
    }
}

/// How a datagram reached a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// By ChannelData on this channel.
    Channel(u16),
    /// By a Data indication.
    Indication,
    /// At a peer.
    Plain,
}

/// The payload of a datagram that a client received, unless it is an answer or noise.
pub(super) fn unframe(datagram: &[u8]) -> Option<(Arrival, &[u8])> {
    let &[first, second, l0, l1, ref rest @ ..] = datagram else {
        return None;
    };
    match first >> 6 {
        0b01 => {
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let channel = u16::from_be_bytes([first, second]);
            Some((Arrival::Channel(channel), rest.get(..length)?))
        }
        0b00 => {
            let message = Message::decode(datagram).ok()?;
            if message.method() != Method::DATA {
                return None;
            }
            let Data(payload) = message.find::<Data<'_>>()?.ok()?;
            Some((Arrival::Indication, payload))
        }
        _ => None,
    }
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is the newest of its flow.
    InOrder,
    /// A newer one came first.
    Reordered,
    /// It came before.
    Duplicate,
}

/// What arrived of one flow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Track {
    /// The number after the newest that arrived.
    next: u32,
    /// Which of the 64 before it arrived, the newest in the lowest bit.
    seen: u64,
}

impl Track {
    /// Counts packet `number`. One that lies further back than 64 counts as late, not as twice.
    pub(super) fn arrive(&mut self, number: u32) -> Fate {
        if number >= self.next {
            let ahead = (number - self.next).saturating_add(1);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.next = number.saturating_add(1);
            return Fate::InOrder;
        }
        match 1_u64.checked_shl(self.next - 1 - number) {
            Some(bit) if self.seen & bit != 0 => Fate::Duplicate,
            bit => {
                self.seen |= bit.unwrap_or(0);
                Fate::Reordered
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ChannelData, Class};

    const STAMP: Stamp = Stamp {
        token: 1,
        step: 2,
        flow: 3,
        number: 4,
        sent: u64::MAX - 5,
    };

    #[test]
    fn a_stamp_gives_back_what_was_written() {
        let mut payload = [0xff; 30];
        STAMP.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(STAMP));
        assert_eq!(Stamp::read(&payload[..STAMP_LEN - 1]), None);
    }

    #[test]
    fn channel_data_is_what_a_server_decodes() {
        let mut room = [0; 300];
        let length = Framing::channel(0x4abc).write(&mut room, 173, &STAMP);
        assert_eq!(length, 177);
        let decoded = ChannelData::decode_datagram(&room[..length]).unwrap();
        assert_eq!((decoded.channel, decoded.payload.len()), (0x4abc, 173));
        let (arrival, payload) = unframe(&room[..length]).unwrap();
        assert_eq!(arrival, Arrival::Channel(0x4abc));
        assert_eq!(Stamp::read(payload), Some(STAMP));
    }

    #[test]
    fn send_indications_are_what_a_server_decodes() {
        for peer in ["192.0.2.1:5", "[2001:db8::1]:5"] {
            let peer: SocketAddr = peer.parse().unwrap();
            let framing = Framing::indication(peer, [7; 12]).unwrap();
            for payload in [24, 25, 1200] {
                let mut room = [0; 1300];
                let length = framing.write(&mut room, payload, &STAMP);
                assert_eq!(length, framing.framed(payload));
                let message = Message::decode(&room[..length]).unwrap();
                assert_eq!(message.class(), Class::Indication);
                assert_eq!(message.method(), Method::SEND);
                let XorPeerAddress(named) = message.find().unwrap().unwrap();
                assert!(named == peer);
                let Data(data) = message.find().unwrap().unwrap();
                assert_eq!(data.len(), usize::from(payload));
                assert_eq!(Stamp::read(data), Some(STAMP));
            }
        }
    }

    #[test]
    fn answers_and_noise_are_no_traffic() {
        let mut room = [0; 300];
        let framing = Framing::indication("192.0.2.1:5".parse().unwrap(), [7; 12]).unwrap();
        let length = framing.write(&mut room, 100, &STAMP);
        assert_eq!(unframe(&room[..length]), None, "a Send indication");
        assert_eq!(unframe(&[]), None);
        assert_eq!(unframe(&[0x40, 0, 0, 9, 1]), None);
        assert_eq!(unframe(&[0xff; 100]), None);
    }

    #[test]
    fn loss_reordering_and_duplicates_are_told_apart() {
        let mut track = Track::default();
        let fates = [0, 2, 1, 1, 2, 200, 3, 199, 199].map(|number| track.arrive(number));
        let expected = [
            Fate::InOrder,
            Fate::InOrder,
            Fate::Reordered,
            Fate::Duplicate,
            Fate::Duplicate,
            Fate::InOrder,
            Fate::Reordered,
            Fate::Reordered,
            Fate::Duplicate,
        ];
        assert_eq!(fates, expected);
        // No flow comes so far, and a stranger who does breaks nothing.
        assert_eq!(track.arrive(u32::MAX), Fate::InOrder);
        track.arrive(u32::MAX);
        track.arrive(u32::MAX - 1);
    }
}
