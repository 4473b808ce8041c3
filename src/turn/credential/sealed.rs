//! Sealed usernames: `<unix-expiry>:~1.<base64url(key id (4) | nonce (16) | sealed claims)>`.
//!
//! The claims are sealed with AES-SIV (RFC 5297, AES-256 with a key of 64 bytes), with three
//! associated data in this order: the expiry as it is spelled, the realm, and the nonce. The result
//! is the synthetic IV (16) and the ciphertext. On the wire such a name says nothing, and it differs
//! at every minting. Its password is made like that of a REST username, so that every client can
//! use it.

use std::fmt;
use std::sync::Arc;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::claims::{CallId, Claims};
use super::rest::{MintError, USERNAME_MAX};

/// What stands between the expiry and the sealed part.
pub(super) const MARK: &str = "~1.";
const KEY_ID: usize = 4;
const NONCE: usize = 16;

/// The key that sealed a username: its id, which stands in the name for everybody to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedBy(pub(super) [u8; KEY_ID]);

/// A key that usernames are sealed with, and call ids hashed.
#[derive(Clone)]
struct SealingKey {
    id: [u8; KEY_ID],
    seal: Zeroizing<[u8; 64]>,
    calls: Zeroizing<[u8; 32]>,
}

impl SealingKey {
    fn new(key: &[u8; 32]) -> Self {
        let derived = |label: &[u8]| -> Zeroizing<[u8; 32]> {
            #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
            let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length");
            mac.update(label);
            Zeroizing::new(mac.finalize().into_bytes().into())
        };
        let mut seal = Zeroizing::new([0; 64]);
        seal[..32].copy_from_slice(derived(b"taciturn seal 1").as_ref());
        seal[32..].copy_from_slice(derived(b"taciturn seal 2").as_ref());
        let name = Sha256::digest(derived(b"taciturn seal id").as_ref());
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&name[..KEY_ID]);
        Self {
            id,
            seal,
            calls: derived(b"taciturn call ids"),
        }
    }
}

/// The keys that usernames are sealed with: one to seal, others to unseal what is still about.
/// Nodes of one fleet share them. Without any, no sealed name is known.
#[derive(Clone, Default)]
pub struct SealingKeys(Arc<[SealingKey]>);

impl SealingKeys {
    /// Keys of 32 random bytes, the one to seal with first.
    #[must_use]
    pub fn new(keys: &[Zeroizing<[u8; 32]>]) -> Self {
        Self(keys.iter().map(|key| SealingKey::new(key)).collect())
    }

    /// The hash of a platform's call id; none without a key.
    #[must_use]
    pub fn call(&self, id: &str) -> Option<CallId> {
        self.calls(id).next()
    }

    /// That hash under each key, the current one first.
    pub fn calls<'a>(&'a self, id: &'a str) -> impl Iterator<Item = CallId> + 'a {
        self.0.iter().map(move |key| {
            #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
            let mut mac =
                <Hmac<Sha256> as KeyInit>::new_from_slice(key.calls.as_ref()).expect("any length");
            mac.update(id.as_bytes());
            let mac = mac.finalize().into_bytes();
            let mut hash = [0; 16];
            hash.copy_from_slice(&mac[..16]);
            CallId::from_bytes(hash)
        })
    }

    /// The sealed username of `claims` until `expires`; `nonce` is drawn anew each time.
    ///
    /// # Errors
    /// When there is no key, or it would be too long.
    pub(super) fn seal(
        &self,
        claims: &Claims,
        expires: u64,
        realm: &str,
        nonce: [u8; NONCE],
    ) -> Result<String, MintError> {
        let key = self.0.first().ok_or(MintError::NoSealingKey)?;
        let claims = Zeroizing::new(claims.encode().ok_or(MintError::TooManyNetworks)?);
        let expiry = expires.to_string();
        let headers = [expiry.as_bytes(), realm.as_bytes(), &nonce];
        let sealed = cipher(key)
            .encrypt(headers, &claims)
            .map_err(|_| MintError::TooLong)?;
        let whole = [&key.id[..], &nonce, &sealed].concat();
        let username = format!("{expiry}:{MARK}{}", URL_SAFE_NO_PAD.encode(whole));
        if username.len() > USERNAME_MAX {
            return Err(MintError::TooLong);
        }
        Ok(username)
    }

    /// What names each key in what it seals.
    pub(super) fn all(&self) -> impl Iterator<Item = SealedBy> + Clone + '_ {
        self.0.iter().map(|key| SealedBy(key.id))
    }

    /// What a username says that was sealed with one of these keys in this realm; with its expiry and
    /// the key.
    pub(super) fn unseal(&self, username: &str, realm: &str) -> Option<(u64, SealedBy, Claims)> {
        let (expiry, rest) = username.split_once(':')?;
        let sealed = URL_SAFE_NO_PAD.decode(rest.strip_prefix(MARK)?).ok()?;
        let (id, rest) = sealed.split_first_chunk::<KEY_ID>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let named = self.0.iter().find(|key| key.id == *id);
        // What no key of ours sealed costs as much as what was altered since.
        let key = named.or_else(|| self.0.first())?;
        let headers = [expiry.as_bytes(), realm.as_bytes(), nonce];
        let claims = Zeroizing::new(cipher(key).decrypt(headers, sealed).ok()?);
        named?;
        // Sealed with the rest: it is spelled as it was minted.
        let claims = Claims::decode(&claims)?;
        Some((expiry.parse().ok()?, SealedBy(*id), claims))
    }
}

fn cipher(key: &SealingKey) -> Aes256Siv {
    Aes256Siv::new((&*key.seal).into())
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKeys({})", self.0.len())
    }
}
