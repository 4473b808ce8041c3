//! What of a client's datagrams reaches OpenSSL, by the headers that anybody can write.
//!
//! Before the handshake is finished OpenSSL would keep a hundred records of the next epoch, each
//! in a buffer of 17 KB, and begin ten handshake messages of any length; here it gets what a
//! handshake needs and not more. Afterwards it would end the session for a record that is too
//! short to be decrypted, which anybody can send with a client's address.

use super::hello::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, HANDSHAKE_HEADER, MAJOR, Reader,
};

/// A handshake takes two datagrams of the client, each of which may be sent anew a few times and
/// cut into fragments.
const DATAGRAMS: u8 = 64;
/// Of encrypted records a handshake takes one, Finished, and one more each time it is sent anew.
const ENCRYPTED: u8 = 6;
/// No message of a client without a certificate is longer.
const MESSAGE_MAX: usize = 4_096;
/// ClientHello with the cookie is 1, ClientKeyExchange 2, Finished 3.
const MESSAGE_SEQ_MAX: u16 = 3;

/// The least that an encrypted record adds to its content: the tag of ChaCha20-Poly1305.
pub(super) const TAG: usize = 16;
/// What it adds with AES-GCM, an explicit nonce being before the tag.
pub(super) const NONCE_AND_TAG: usize = 8 + TAG;

/// What one client may still send of a handshake.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    datagrams: u8,
    encrypted: u8,
}

impl Allowance {
    /// A whole handshake's.
    pub(super) const WHOLE: Self = Self {
        datagrams: DATAGRAMS,
        encrypted: ENCRYPTED,
    };

    /// Takes one datagram off; false if it has no place in a handshake or too many came.
    pub(super) fn take(&mut self, datagram: &[u8]) -> bool {
        let Some(datagrams) = self.datagrams.checked_sub(1) else {
            return false;
        };
        self.datagrams = datagrams;
        // An empty read would be the end of a stream to OpenSSL.
        if datagram.is_empty() {
            return false;
        }
        let mut rest = Reader(datagram);
        while !rest.0.is_empty() {
            if Record::take(&mut rest)
                .and_then(|it| self.admit(&it))
                .is_none()
            {
                return false;
            }
        }
        true
    }

    fn admit(&mut self, record: &Record<'_>) -> Option<()> {
        match (record.epoch, record.content) {
            (0, CHANGE_CIPHER_SPEC | ALERT) => Some(()),
            (0, HANDSHAKE) => are_messages(record.body),
            (1, CHANGE_CIPHER_SPEC | ALERT | HANDSHAKE | APPLICATION_DATA) => {
                self.encrypted = self.encrypted.checked_sub(1)?;
                (record.body.len() >= NONCE_AND_TAG).then_some(())
            }
            _ => None,
        }
    }
}

/// Whether a datagram of a finished handshake is made of whole records, and those that are
/// encrypted can be decrypted as far as their length goes.
///
/// RFC 6347 §4.1.2.7: an invalid record ends nothing, or anybody could end everything.
pub(super) fn are_whole(datagram: &[u8], overhead: usize) -> bool {
    let mut rest = Reader(datagram);
    while !rest.0.is_empty() {
        match Record::take(&mut rest) {
            Some(record) if record.epoch == 0 || record.body.len() >= overhead => {}
            Some(_) | None => return false,
        }
    }
    // An empty read would be the end of a stream to OpenSSL.
    !datagram.is_empty()
}

struct Record<'d> {
    content: u8,
    epoch: u16,
    body: &'d [u8],
}

impl<'d> Record<'d> {
    fn take(rest: &mut Reader<'d>) -> Option<Self> {
        let [content, MAJOR, _] = *rest.array()? else {
            return None;
        };
        let epoch = rest.u16()?;
        let _sequence: &[u8; 6] = rest.array()?;
        let len = rest.u16()?;
        let body = rest.bytes(usize::from(len))?;
        Some(Self {
            content,
            epoch,
            body,
        })
    }
}

/// Looks at the headers of all handshake messages of a record.
fn are_messages(body: &[u8]) -> Option<()> {
    let mut rest = Reader(body);
    while !rest.0.is_empty() {
        let mut header = Reader(rest.bytes(HANDSHAKE_HEADER)?);
        let _kind: &[u8; 1] = header.array()?;
        let len = header.u24()?;
        let message_seq = header.u16()?;
        let (offset, fragment_len) = (header.u24()?, header.u24()?);
        if len > MESSAGE_MAX || message_seq > MESSAGE_SEQ_MAX || offset + fragment_len > len {
            return None;
        }
        rest.bytes(fragment_len)?;
    }
    Some(())
}
