//! What of a client's datagrams reaches OpenSSL before the handshake is through. OpenSSL would
//! keep a hundred records of the next epoch, each in a buffer of 17 KB, and begin ten handshake
//! messages of any length; here it gets what a handshake needs and not more.

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
        let mut rest = Reader(datagram);
        while !rest.0.is_empty() {
            if self.take_record(&mut rest).is_none() {
                return false;
            }
        }
        true
    }

    fn take_record(&mut self, rest: &mut Reader<'_>) -> Option<()> {
        let [content, MAJOR, _] = *rest.array()? else {
            return None;
        };
        let epoch = rest.u16()?;
        let _sequence: &[u8; 6] = rest.array()?;
        let len = rest.u16()?;
        let body = rest.bytes(usize::from(len))?;
        match (epoch, content) {
            (0, CHANGE_CIPHER_SPEC | ALERT) => Some(()),
            (0, HANDSHAKE) => are_messages(body),
            (1, CHANGE_CIPHER_SPEC | ALERT | HANDSHAKE | APPLICATION_DATA) => {
                self.encrypted = self.encrypted.checked_sub(1)?;
                Some(())
            }
            _ => None,
        }
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
