//! Keys, MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT (RFC 8489 §9.2.2, §14.5 to
//! §14.7, §18.5.1).
//!
//! Usernames, realms and passwords are taken as they are: OpaqueString processing is the caller's.
//! Which algorithm a request may use is judged by the server.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub(super) const SHA1_LEN: usize = 20;
pub(super) const SHA256_LEN: usize = 32;

/// The shortest truncation of MESSAGE-INTEGRITY-SHA256.
const SHA256_MIN_LEN: usize = 16;

const FINGERPRINT_MASK: u32 = 0x5354_554E;

/// The key of a message's HMAC. Wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LongTermKey(Material);

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
enum Material {
    Md5([u8; 16]),
    Sha256([u8; 32]),
    Password(Box<[u8]>),
}

impl LongTermKey {
    /// `MD5(username ":" realm ":" password)`, what every client knows.
    #[must_use]
    pub fn md5(
        username: impl AsRef<[u8]>,
        realm: impl AsRef<[u8]>,
        password: impl AsRef<[u8]>,
    ) -> Self {
        // RFC 8489 §18.5.1.1
        let hash = hash_credentials::<Md5>(username.as_ref(), realm.as_ref(), password.as_ref());
        Self(Material::Md5(hash.finalize().into()))
    }

    /// `SHA-256(username ":" realm ":" password)`, for clients that chose it by
    /// PASSWORD-ALGORITHM.
    #[must_use]
    pub fn sha256(
        username: impl AsRef<[u8]>,
        realm: impl AsRef<[u8]>,
        password: impl AsRef<[u8]>,
    ) -> Self {
        // RFC 8489 §18.5.1.2
        let hash = hash_credentials::<Sha256>(username.as_ref(), realm.as_ref(), password.as_ref());
        Self(Material::Sha256(hash.finalize().into()))
    }

    /// The password itself, the key of short-term credentials (RFC 8489 §9.1.1).
    #[must_use]
    pub fn short_term(password: impl AsRef<[u8]>) -> Self {
        Self(Material::Password(password.as_ref().into()))
    }

    /// Whether it is a hash by SHA-256.
    #[must_use]
    pub const fn is_sha256(&self) -> bool {
        matches!(self.0, Material::Sha256(_))
    }

    /// The bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Material::Md5(key) => key,
            Material::Sha256(key) => key,
            Material::Password(key) => key,
        }
    }
}

impl fmt::Debug for LongTermKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LongTermKey(hidden)")
    }
}

fn hash_credentials<D: md5::Digest>(username: &[u8], realm: &[u8], password: &[u8]) -> D {
    D::new()
        .chain_update(username)
        .chain_update(b":")
        .chain_update(realm)
        .chain_update(b":")
        .chain_update(password)
}

/// `SHA-256(username ":" realm)`, the value of USERHASH (RFC 8489 §14.4).
pub(super) fn userhash(username: &str, realm: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(username)
        .chain_update(b":")
        .chain_update(realm)
        .finalize()
        .into()
}

/// The outcome of a message-integrity check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Integrity {
    /// The message carries no such attribute, or only where it is ignored.
    Absent,
    /// It was made with this key and covers everything before it.
    Valid,
    /// It was not, or its length is not allowed.
    Invalid,
}

/// The outcome of a FINGERPRINT check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fingerprint {
    /// The message carries none.
    Absent,
    /// It matches the message.
    Valid,
    /// It does not.
    Invalid,
}

/// `covered` is the message up to the attribute with value `value`.
pub(super) fn check_sha1(covered: &[u8], value: &[u8], key: &LongTermKey) -> Integrity {
    if value.len() != SHA1_LEN {
        return Integrity::Invalid;
    }
    judge(&hmac_sha1(covered, SHA1_LEN, key), value)
}

pub(super) fn check_sha256(covered: &[u8], value: &[u8], key: &LongTermKey) -> Integrity {
    // RFC 8489 §14.6: at least 16 bytes, at most 32, and a multiple of 4.
    if !(SHA256_MIN_LEN..=SHA256_LEN).contains(&value.len()) || !value.len().is_multiple_of(4) {
        return Integrity::Invalid;
    }
    let mac = hmac_sha256(covered, value.len(), key);
    judge(mac.get(..value.len()).unwrap_or_default(), value)
}

fn judge(mac: &[u8], value: &[u8]) -> Integrity {
    if bool::from(mac.ct_eq(value)) {
        Integrity::Valid
    } else {
        Integrity::Invalid
    }
}

/// HMAC-SHA1 over `covered`, the message before an attribute whose value has `value_len` bytes.
pub(super) fn hmac_sha1(covered: &[u8], value_len: usize, key: &LongTermKey) -> [u8; SHA1_LEN] {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("any key length");
    feed(covered, value_len, |bytes| mac.update(bytes));
    mac.finalize().into_bytes().into()
}

/// As [`hmac_sha1`], with HMAC-SHA256.
pub(super) fn hmac_sha256(covered: &[u8], value_len: usize, key: &LongTermKey) -> [u8; SHA256_LEN] {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key length");
    feed(covered, value_len, |bytes| mac.update(bytes));
    mac.finalize().into_bytes().into()
}

/// The text of the HMAC: `covered`, with the header's length field pointing to the end of the
/// attribute that will hold the HMAC.
fn feed(covered: &[u8], value_len: usize, mut update: impl FnMut(&[u8])) {
    // RFC 8489 §14.5: the length is adjusted, since other attributes may follow.
    let end = covered.len() + 4 + value_len - super::HEADER_LEN;
    if let (Some((kind, rest)), Ok(length)) = (covered.split_first_chunk::<2>(), u16::try_from(end))
        && let Some((_, rest)) = rest.split_first_chunk::<2>()
    {
        update(kind);
        update(&length.to_be_bytes());
        update(rest);
    }
}

pub(super) fn check_fingerprint(covered: &[u8], value: &[u8]) -> Fingerprint {
    if value == fingerprint(covered).to_be_bytes() {
        Fingerprint::Valid
    } else {
        Fingerprint::Invalid
    }
}

/// The value of a FINGERPRINT that follows `covered`, whose length field already includes it.
pub(super) fn fingerprint(covered: &[u8]) -> u32 {
    // RFC 8489 §14.7
    crc32fast::hash(covered) ^ FINGERPRINT_MASK
}
