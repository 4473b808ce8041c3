//! The stateless half of the handshake (RFC 6347 §4.2.1): a ClientHello as it stands in a
//! datagram, HelloVerifyRequest, and the alert for those who speak only DTLS 1.0. Written here so
//! that nothing of OpenSSL runs for a source that has not proved that it receives.
//!
//! ```text
//! record    type 1 | version 2 | epoch 2 | sequence number 6 | length 2
//! handshake type 1 | length 3 | message_seq 2 | fragment_offset 3 | fragment_length 3
//! hello     version 2 | random 32 | session_id <1> | cookie <1> | cipher_suites …
//! ```

use super::cookie::COOKIE_LEN;

pub(super) const HANDSHAKE: u8 = 22;
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const APPLICATION_DATA: u8 = 23;
/// The first byte of every DTLS version since 1.0.
pub(super) const MAJOR: u8 = 0xfe;

const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
const FATAL: u8 = 2;
const PROTOCOL_VERSION: u8 = 70;
const DTLS_1_0: [u8; 2] = [MAJOR, 0xff];
/// Versions count downwards: a smaller number is a later version.
const DTLS_1_2: u16 = 0xfefd;

pub(super) const RECORD_HEADER: usize = 13;
pub(super) const HANDSHAKE_HEADER: usize = 12;
pub(super) const RANDOM_LEN: usize = 32;
const VERIFY_BODY: usize = 2 + 1 + COOKIE_LEN;
/// Length of a HelloVerifyRequest, less than that of the shortest ClientHello.
pub(super) const VERIFY_LEN: usize = RECORD_HEADER + HANDSHAKE_HEADER + VERIFY_BODY;
/// Length of an alert that is not encrypted.
pub(super) const ALERT_LEN: usize = RECORD_HEADER + 2;

/// What a ClientHello says as far as its cookie; the rest may stand in another fragment.
#[derive(Clone, Copy)]
pub(super) struct Hello<'d> {
    sequence: &'d [u8; 6],
    version: u16,
    /// The client's random value.
    pub random: &'d [u8; RANDOM_LEN],
    /// The session the client would like to resume.
    pub session_id: &'d [u8],
    /// Empty in the first one.
    pub cookie: &'d [u8],
}

impl<'d> Hello<'d> {
    /// Reads a datagram that begins with an unencrypted ClientHello, or with its first fragment.
    pub(super) fn parse(datagram: &'d [u8]) -> Option<Self> {
        let mut rest = Reader(datagram);
        let [HANDSHAKE, MAJOR, _, 0, 0] = *rest.array()? else {
            return None;
        };
        let sequence = rest.array()?;
        let record_len = rest.u16()?;
        let mut rest = Reader(rest.bytes(usize::from(record_len))?);
        let [CLIENT_HELLO] = *rest.array()? else {
            return None;
        };
        let message_len = rest.u24()?;
        let message_seq = rest.u16()?;
        let (offset, len) = (rest.u24()?, rest.u24()?);
        // RFC 6347 §4.2.2: the first hello is message 0, the one with the cookie message 1.
        if message_seq > 1 || offset != 0 || len > message_len || len != rest.0.len() {
            return None;
        }
        let version = rest.u16()?;
        let random = rest.array()?;
        let session_id = rest.vector()?;
        let cookie = rest.vector()?;
        let hello = Self {
            sequence,
            version,
            random,
            session_id,
            cookie,
        };
        (version.to_be_bytes()[0] == MAJOR).then_some(hello)
    }

    /// Whether the client speaks nothing later than DTLS 1.0.
    pub(super) const fn is_too_old(&self) -> bool {
        self.version > DTLS_1_2
    }

    /// The version in the two bytes of the wire.
    pub(super) const fn version(&self) -> [u8; 2] {
        self.version.to_be_bytes()
    }

    /// The answer to a hello without a good cookie.
    #[expect(clippy::cast_possible_truncation, reason = "lengths below 50")]
    pub(super) fn verify_request(&self, cookie: &[u8; COOKIE_LEN]) -> [u8; VERIFY_LEN] {
        const MESSAGE_LEN: [u8; 2] = ((HANDSHAKE_HEADER + VERIFY_BODY) as u16).to_be_bytes();
        const BODY_LEN: u8 = VERIFY_BODY as u8;
        const COOKIE_LEN_BYTE: u8 = COOKIE_LEN as u8;
        let mut out = [0; VERIFY_LEN];
        self.record_header(&mut out, HANDSHAKE, MESSAGE_LEN);
        // RFC 6347 §4.2.2: the server's first message is message 0.
        out[RECORD_HEADER..][..HANDSHAKE_HEADER].copy_from_slice(&[
            HELLO_VERIFY_REQUEST,
            0,
            0,
            BODY_LEN,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            BODY_LEN,
        ]);
        let body = &mut out[RECORD_HEADER + HANDSHAKE_HEADER..];
        // RFC 6347 §4.2.1: DTLS 1.0 here, whatever will be negotiated.
        body[..2].copy_from_slice(&DTLS_1_0);
        body[2] = COOKIE_LEN_BYTE;
        body[3..].copy_from_slice(cookie);
        out
    }

    /// The answer to a client that speaks nothing later than DTLS 1.0, so that it does not wait.
    pub(super) fn protocol_version_alert(&self) -> [u8; ALERT_LEN] {
        let mut out = [0; ALERT_LEN];
        self.record_header(&mut out, ALERT, [0, 2]);
        out[RECORD_HEADER..].copy_from_slice(&[FATAL, PROTOCOL_VERSION]);
        out
    }

    fn record_header(&self, out: &mut [u8], content: u8, len: [u8; 2]) {
        out[0] = content;
        out[1..3].copy_from_slice(&DTLS_1_0);
        // RFC 6347 §4.2.1: the record's number is that of the hello; nothing is remembered.
        out[5..11].copy_from_slice(self.sequence);
        out[11..RECORD_HEADER].copy_from_slice(&len);
    }
}

/// Takes bytes off the front.
pub(super) struct Reader<'d>(pub &'d [u8]);

impl<'d> Reader<'d> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<&'d [u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(head)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'d [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().copied().map(u16::from_be_bytes)
    }

    pub(super) fn u24(&mut self) -> Option<usize> {
        let [a, b, c] = *self.array()?;
        Some(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c))
    }

    /// What is preceded by one byte of length.
    fn vector(&mut self) -> Option<&'d [u8]> {
        let [len] = *self.array()?;
        self.bytes(usize::from(len))
    }
}
