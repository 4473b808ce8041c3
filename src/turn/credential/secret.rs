//! Secrets shared with the platforms that mint, several at once so that they can be rotated.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::sealed::SealedBy;

/// The length of 20 bytes in base64.
const PASSWORD_LENGTH: usize = 28;

/// Stands for a secret or a static user's password where an allocation remembers what vouched for
/// it. Of no use to who has it: it authenticates nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Voucher(u64);

impl Voucher {
    /// A user who gets another password is somebody else.
    pub(super) fn of_static_user(name: &str, password: &str) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha1>::new_from_slice(password.as_bytes()).expect("any length");
        mac.update(b"\xffstatic voucher ");
        mac.update(name.as_bytes());
        Self::from_mac(mac)
    }

    fn from_mac(mac: Hmac<Sha1>) -> Self {
        let mac = mac.finalize().into_bytes();
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&mac[..8]);
        Self(u64::from_be_bytes(bytes))
    }
}

impl fmt::Debug for Voucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Voucher(hidden)")
    }
}

/// A secret with the name by which logs, metrics and the operator call it. Of its value there is
/// an HMAC that has taken it in, which is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret {
    id: String,
    mac: Hmac<Sha1>,
    is_empty: bool,
}

impl Secret {
    /// An empty `value` admits nobody.
    #[must_use]
    pub fn new(id: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mac = Hmac::new_from_slice(value.as_ref()).expect("any length");
        Self {
            id: id.into(),
            mac,
            is_empty: value.as_ref().is_empty(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// What stands for its value, and for the key with which the name it vouches for was sealed. No
    /// username is spelled like the label, which isn't UTF-8.
    pub(super) fn voucher(&self, sealed_by: Option<SealedBy>) -> Voucher {
        let mut mac = self.mac.clone();
        mac.update(b"\xffvoucher");
        if let Some(SealedBy(key)) = sealed_by {
            mac.update(&key);
        }
        Voucher::from_mac(mac)
    }

    /// base64(HMAC-SHA1(secret, username)), as every REST API for TURN does.
    pub(super) fn password(&self, username: &str) -> Zeroizing<String> {
        let mut mac = self.mac.clone();
        mac.update(username.as_bytes());
        let mac = Zeroizing::new(<[u8; 20]>::from(mac.finalize().into_bytes()));
        // Reserved at once: growing would leave pieces behind.
        let mut password = Zeroizing::new(String::with_capacity(PASSWORD_LENGTH));
        STANDARD.encode_string(mac.as_slice(), &mut password);
        password
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.id)
    }
}

/// The secrets in force, the one to mint with first. Removing one refuses whom it vouched for.
#[derive(Clone, Debug, Default)]
pub struct SecretsRing(Vec<Secret>);

impl SecretsRing {
    /// Candidates are tried in this order.
    #[must_use]
    pub const fn new(secrets: Vec<Secret>) -> Self {
        Self(secrets)
    }

    /// The secret in a place, as an origin names it.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Secret> {
        self.0.get(place)
    }

    /// The secret called `id`.
    #[must_use]
    pub fn named(&self, id: &str) -> Option<&Secret> {
        self.0.iter().find(|secret| secret.id == id)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether only static users can come.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Secret> for SecretsRing {
    fn from_iter<I: IntoIterator<Item = Secret>>(secrets: I) -> Self {
        Self(secrets.into_iter().collect())
    }
}
