//! REST usernames, `<unix-expiry>:<user>`, whose password anybody who shares a secret can compute
//! (draft-uberti-behave-turn-rest-00; bit for bit what coturn takes).

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::secret::Secret;

/// The longest USERNAME in bytes (RFC 8489 §14.3: fewer than 509).
pub const USERNAME_MAX: usize = 508;

/// How many seconds past its expiry a credential still counts, since the clocks of backends and of this server differ.
pub const EXPIRY_LEEWAY: u64 = 60;

/// The longest that a credential may last, unless the configuration says otherwise.
pub const DEFAULT_MAX_TTL: Duration = Duration::from_secs(48 * 3_600);

/// Begins the user ids of sealed usernames.
const SEALED: char = '~';

/// Whether a credential that ends at `expires` is over at `unix_now`, both in Unix seconds.
#[must_use]
pub const fn expired(expires: u64, unix_now: u64) -> bool {
    unix_now.saturating_sub(expires) >= EXPIRY_LEEWAY
}

/// Whether a credential that ends at `expires` was minted for longer than `max_ttl`: from `since`,
/// when it was issued, or where it does not say, now, more than that is left of it.
#[must_use]
pub const fn too_long(expires: u64, since: u64, max_ttl: Duration) -> bool {
    expires.saturating_sub(since) > max_ttl.as_secs().saturating_add(EXPIRY_LEEWAY)
}

/// A username taken apart. Nothing is verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RestUsername<'a> {
    /// Unix seconds.
    pub expires: u64,
    /// The platform's user id; may hold any character, colons too.
    pub user: &'a str,
}

impl fmt::Debug for RestUsername<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestUsername")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Takes `<unix-expiry>:<user>` apart: an expiry of ASCII digits that fits 64 bits, and a user id that is neither
/// empty nor sealed.
#[must_use]
pub fn parse_rest(username: &str) -> Option<RestUsername<'_>> {
    let (expires, user) = username.split_once(':')?;
    // `parse` alone would take a sign.
    if !expires.bytes().all(|byte| byte.is_ascii_digit())
        || user.is_empty()
        || user.starts_with(SEALED)
    {
        return None;
    }
    let expires = expires.parse().ok()?;
    Some(RestUsername { expires, user })
}

/// A credential for a client.
#[derive(Clone)]
pub struct Minted {
    /// `<unix-expiry>:<user>`.
    pub username: String,
    /// What belongs to it.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Minted(hidden)")
    }
}

/// Why no credential is minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// A credential belongs to somebody.
    #[error("it is empty")]
    Empty,
    /// `~` begins the user ids of sealed usernames.
    #[error("it begins with `~`, which is reserved")]
    Reserved,
    /// No platform means them, and clients mangle them.
    #[error("it has control characters")]
    Control,
    /// The username would exceed [`USERNAME_MAX`].
    #[error("it is too long for a USERNAME of {USERNAME_MAX} bytes")]
    TooLong,
    /// Everybody could mint with it.
    #[error("the secret is empty")]
    EmptySecret,
    /// There is nothing to seal claims with.
    #[error("there is no key to seal usernames with")]
    NoSealingKey,
    /// A claimed policy lists at most [`CLAIMED_NETWORKS`](super::CLAIMED_NETWORKS), and at least one.
    #[error("a policy of networks lists 1 to 4 of them")]
    TooManyNetworks,
}

/// Mints the credential of `user` until `expires_unix`.
///
/// # Errors
/// When the user id is empty, begins with `~`, has control characters or is too long, or the secret is empty.
pub fn mint(secret: &Secret, user: &str, expires_unix: u64) -> Result<Minted, MintError> {
    check_user(user)?;
    if secret.is_empty() {
        return Err(MintError::EmptySecret);
    }
    let username = format!("{expires_unix}:{user}");
    if username.len() > USERNAME_MAX {
        return Err(MintError::TooLong);
    }
    let password = secret.password(&username);
    Ok(Minted { username, password })
}

pub(super) fn check_user(user: &str) -> Result<(), MintError> {
    if user.is_empty() {
        Err(MintError::Empty)
    } else if user.starts_with(SEALED) {
        Err(MintError::Reserved)
    } else if user.chars().any(char::is_control) {
        Err(MintError::Control)
    } else {
        Ok(())
    }
}
