//! Builds a STUN message into the caller's buffer, attribute by attribute (RFC 8489 §5, §14).
//!
//! After every step the header's length field is right, so that what has been written so far is a
//! message. Padding and reserved bits are zero, whatever the buffer held before.

use std::fmt;

use super::attribute::{Attribute, AttributeType};
use super::integrity::{self, LongTermKey};
use super::message::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, encode_type};

/// The buffer, the message or the attribute has no room for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for the value")]
pub struct Full;

/// Where an attribute writes its value.
pub struct Sink<'b> {
    buf: &'b mut [u8],
    len: usize,
}

impl Sink<'_> {
    /// Appends `bytes` to the value.
    ///
    /// # Errors
    /// When they do not fit; nothing is appended then.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.len.checked_add(bytes.len()).ok_or(Full)?;
        self.buf
            .get_mut(self.len..end)
            .ok_or(Full)?
            .copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Appends zeroes up to a multiple of four.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn pad(&mut self) -> Result<(), Full> {
        let missing = self.len.next_multiple_of(4) - self.len;
        self.put([0; 3].get(..missing).ok_or(Full)?)
    }
}

impl fmt::Debug for Sink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// A message under construction in a borrowed buffer.
pub struct Writer<'b> {
    buf: &'b mut [u8],
    /// The length of the message so far, header included.
    len: usize,
    id: TransactionId,
}

impl<'b> Writer<'b> {
    /// Writes the header at the beginning of `buf`.
    ///
    /// # Errors
    /// When `buf` is shorter than a header.
    pub fn new(
        buf: &'b mut [u8],
        class: Class,
        method: Method,
        id: TransactionId,
    ) -> Result<Self, Full> {
        let header = buf.first_chunk_mut::<HEADER_LEN>().ok_or(Full)?;
        *header = encode_header(class, method, 0, id);
        Ok(Self {
            buf,
            len: HEADER_LEN,
            id,
        })
    }

    /// Appends an attribute.
    ///
    /// What follows [`integrity`](Self::integrity) is ignored by the receiver, so call that last.
    ///
    /// # Errors
    /// When the buffer or the message is full, or the value is longer than its attribute allows;
    /// the message is unchanged then.
    pub fn push<'a, A: Attribute<'a>>(&mut self, attribute: &A) -> Result<(), Full> {
        let id = self.id;
        self.append(A::TYPE, |sink| attribute.encode(id, sink))
    }

    /// Appends MESSAGE-INTEGRITY over what has been written so far.
    ///
    /// # Errors
    /// When the buffer or the message is full.
    pub fn integrity(&mut self, key: &LongTermKey) -> Result<(), Full> {
        let covered =
            self.append_placeholder::<{ integrity::SHA1_LEN }>(AttributeType::MESSAGE_INTEGRITY)?;
        let mac = integrity::hmac_sha1(
            self.buf.get(..covered).ok_or(Full)?,
            integrity::SHA1_LEN,
            key,
        );
        self.fill_last(&mac)
    }

    /// Appends MESSAGE-INTEGRITY-SHA256 (never truncated) over what has been written so far.
    ///
    /// # Errors
    /// When the buffer or the message is full.
    pub fn integrity_sha256(&mut self, key: &LongTermKey) -> Result<(), Full> {
        let covered = self.append_placeholder::<{ integrity::SHA256_LEN }>(
            AttributeType::MESSAGE_INTEGRITY_SHA256,
        )?;
        let mac = integrity::hmac_sha256(
            self.buf.get(..covered).ok_or(Full)?,
            integrity::SHA256_LEN,
            key,
        );
        self.fill_last(&mac)
    }

    /// Appends FINGERPRINT; nothing may follow it.
    ///
    /// # Errors
    /// When the buffer or the message is full.
    pub fn fingerprint(&mut self) -> Result<(), Full> {
        let covered = self.append_placeholder::<4>(AttributeType::FINGERPRINT)?;
        let crc = integrity::fingerprint(self.buf.get(..covered).ok_or(Full)?);
        self.fill_last(&crc.to_be_bytes())
    }

    /// The length of the message so far.
    #[must_use]
    pub const fn written(&self) -> usize {
        self.len
    }

    /// The length of the whole message.
    #[must_use]
    pub const fn finish(self) -> usize {
        self.len
    }

    /// Appends a value of `N` zero bytes; returns the length of the message before it.
    fn append_placeholder<const N: usize>(&mut self, kind: AttributeType) -> Result<usize, Full> {
        let covered = self.len;
        self.append(kind, |sink| sink.put(&[0; N]))?;
        Ok(covered)
    }

    /// Overwrites the end of the message, where a placeholder of this length stands.
    fn fill_last(&mut self, value: &[u8]) -> Result<(), Full> {
        let start = self.len.checked_sub(value.len()).ok_or(Full)?;
        self.buf
            .get_mut(start..self.len)
            .ok_or(Full)?
            .copy_from_slice(value);
        Ok(())
    }

    fn append(
        &mut self,
        kind: AttributeType,
        encode: impl FnOnce(&mut Sink<'_>) -> Result<(), Full>,
    ) -> Result<(), Full> {
        let free = self.buf.get_mut(self.len..).ok_or(Full)?;
        let (header, buf) = free.split_first_chunk_mut::<4>().ok_or(Full)?;
        let mut sink = Sink { buf, len: 0 };
        encode(&mut sink)?;
        let length = u16::try_from(sink.len).map_err(|_| Full)?;
        // RFC 8489 §14: padding bits are zero; the length is that of the value without them.
        sink.pad()?;
        let end = self.len + header.len() + sink.len;
        let body = u16::try_from(end - HEADER_LEN).map_err(|_| Full)?;
        let [t0, t1] = kind.value().to_be_bytes();
        let [l0, l1] = length.to_be_bytes();
        *header = [t0, t1, l0, l1];
        self.buf
            .get_mut(2..4)
            .ok_or(Full)?
            .copy_from_slice(&body.to_be_bytes());
        self.len = end;
        Ok(())
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// The header of a message with `length` bytes of attributes.
pub(super) const fn encode_header(
    class: Class,
    method: Method,
    length: u16,
    id: TransactionId,
) -> [u8; HEADER_LEN] {
    let [t0, t1] = encode_type(class, method).to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    let [k0, k1, k2, k3] = MAGIC_COOKIE.to_be_bytes();
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *id.as_bytes();
    [
        t0, t1, l0, l1, k0, k1, k2, k3, a, b, c, d, e, f, g, h, i, j, k, l,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Data, EvenPort, Fingerprint, Integrity, Message, Realm, Reserve, Username};

    const ID: TransactionId = TransactionId::new([3; 12]);

    /// T45
    #[test]
    fn padding_is_zero_whatever_the_buffer_held() {
        let mut buf = [0xAA; 100];
        let mut writer = Writer::new(&mut buf, Class::Request, Method::ALLOCATE, ID).expect("room");
        writer.push(&Username("a")).expect("room");
        writer
            .push(&EvenPort {
                reserve_next: Reserve::Yes,
            })
            .expect("room");
        writer.push(&Realm("ab")).expect("room");
        writer.push(&Data(&[1, 2, 3])).expect("room");
        let len = writer.finish();

        let expected = [
            0, 6, 0, 1, b'a', 0, 0, 0, //
            0, 0x18, 0, 1, 0x80, 0, 0, 0, //
            0, 0x14, 0, 2, b'a', b'b', 0, 0, //
            0, 0x13, 0, 3, 1, 2, 3, 0,
        ];
        assert_eq!(buf[HEADER_LEN..len], expected);
        assert!(buf[len..].iter().all(|&byte| byte == 0xAA));
    }

    #[test]
    fn what_is_written_is_a_message_at_every_moment() {
        let key = LongTermKey::md5("user", "realm", "pass");
        type Step = fn(&mut Writer<'_>, &LongTermKey) -> Result<(), Full>;
        let steps: [Step; 4] = [
            |writer, _| writer.push(&Realm("realm")),
            |writer, key| writer.integrity(key),
            |writer, key| writer.integrity_sha256(key),
            |writer, _| writer.fingerprint(),
        ];
        for count in 0..=steps.len() {
            let mut buf = [0xAA; 200];
            let mut writer =
                Writer::new(&mut buf, Class::Success, Method::REFRESH, ID).expect("room");
            for step in &steps[..count] {
                step(&mut writer, &key).expect("room");
            }
            let len = writer.finish();
            let message = Message::decode(&buf[..len]).expect("a message");
            assert_eq!(message.attributes().count(), count);
        }
    }

    #[test]
    fn a_push_without_room_leaves_the_message_as_it_was() {
        let whole = HEADER_LEN + 4 + 4 + 24 + 36 + 8;
        let key = LongTermKey::short_term("key");
        for size in 0..=whole {
            let mut buf = vec![0xAA; size];
            let Ok(mut writer) = Writer::new(&mut buf, Class::Error, Method::BINDING, ID) else {
                assert!(size < HEADER_LEN);
                continue;
            };
            let all = writer
                .push(&Realm("r"))
                .and_then(|()| writer.integrity(&key))
                .and_then(|()| writer.integrity_sha256(&key))
                .and_then(|()| writer.fingerprint());
            let len = writer.finish();
            let message = Message::decode(&buf[..len]).expect("a message");
            assert_eq!(all, if size == whole { Ok(()) } else { Err(Full) });
            assert_ne!(message.verify_integrity(&key), Integrity::Invalid);
            assert_ne!(message.verify_integrity_sha256(&key), Integrity::Invalid);
            assert_ne!(message.fingerprint(), Fingerprint::Invalid);
        }
    }

    /// T46
    #[test]
    fn a_message_longer_than_its_length_field_is_not_written() {
        let (mut buf, long) = (vec![0; 200_000], vec![0; 65_536]);
        let mut writer = Writer::new(&mut buf, Class::Indication, Method::DATA, ID).expect("room");
        assert_eq!(writer.push(&Data(&long[..65_536])), Err(Full));
        assert_eq!(writer.push(&Data(&long[..65_529])), Err(Full));
        assert_eq!(writer.push(&Data(&long[..65_528])), Ok(()));
        assert_eq!(writer.push(&Data(&[])), Err(Full));
        let len = writer.finish();
        assert!(Message::decode(&buf[..len]).is_ok());
    }
}
