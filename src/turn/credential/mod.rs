//! Who may ask: from a USERNAME to the passwords it may have, and the minting of such pairs.
//!
//! Owns the secrets ring, static users, REST usernames and subjects. It verifies no MESSAGE-INTEGRITY and reads no
//! clock: the long-term mechanism (RFC 8489 §9.2) tries each candidate and takes the first that fits.
//!
//! Names and passwords are never printable; what stands for a user everywhere else is the [`Subject`].
//!
//! A user id that begins with `~` belongs to sealed usernames, `<unix-expiry>:~1.<sealed claims>`, whose [`Claims`]
//! say more of their holder than a name. [`Credentials::find`] is the only reader of names.

mod claims;
mod nodes;
mod rest;
mod sealed;
mod secret;
mod subject;
#[cfg(test)]
mod tests;
mod userhash;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

pub use claims::{CLAIMED_NETWORKS, CallId, ClaimedLimits, Claims, LABEL_MAX, Label};
pub use nodes::choose;
pub use rest::{
    DEFAULT_MAX_TTL, EXPIRY_LEEWAY, MintError, Minted, RestUsername, USERNAME_MAX, expired, mint,
    parse_rest, too_long,
};
pub use sealed::{SealedBy, SealingKeys};
pub use secret::{Secret, SecretsRing, Voucher};
pub use subject::Subject;
use subject::SubjectKey;
use userhash::Userhashes;

/// Users with a password of their own, who never expire. For tests, gateways and machines; calls use REST usernames.
#[derive(Clone, Default)]
pub struct StaticUsers(HashMap<String, StaticUser>);

#[derive(Clone)]
struct StaticUser {
    password: Zeroizing<String>,
    voucher: Voucher,
}

/// Why a static user is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticUserError {
    /// No client could send the name, or it is reserved.
    #[error("the username cannot be used: {0}")]
    Username(MintError),
    /// Anybody could guess it.
    #[error("the password is empty")]
    NoPassword,
    /// The name already has a password.
    #[error("the username is there twice")]
    Twice,
}

impl StaticUsers {
    /// Adds a user.
    ///
    /// # Errors
    /// When the name is empty, too long, reserved, has control characters or is there already, or the password is
    /// empty.
    pub fn add(
        &mut self,
        username: &str,
        password: Zeroizing<String>,
    ) -> Result<(), StaticUserError> {
        rest::check_user(username).map_err(StaticUserError::Username)?;
        if username.len() > USERNAME_MAX {
            return Err(StaticUserError::Username(MintError::TooLong));
        }
        if password.is_empty() {
            return Err(StaticUserError::NoPassword);
        }
        if self.0.contains_key(username) {
            return Err(StaticUserError::Twice);
        }
        let voucher = Voucher::of_static_user(username, &password);
        let user = StaticUser { password, voucher };
        self.0.insert(username.to_owned(), user);
        Ok(())
    }
}

impl fmt::Debug for StaticUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticUsers({})", self.0.len())
    }
}

/// All that decides whether a username is known.
#[derive(Clone)]
pub struct Credentials {
    ring: SecretsRing,
    users: StaticUsers,
    subject_key: SubjectKey,
    nobody: Secret,
    userhashes: Userhashes,
    sealing: SealingKeys,
    realm: String,
}

impl Credentials {
    /// `subject_key` is the server's own and never changes with a rotation of secrets: subjects would change with it.
    #[must_use]
    pub fn new(ring: SecretsRing, users: StaticUsers, subject_key: [u8; 32]) -> Self {
        let subject_key = SubjectKey::new(subject_key);
        let nobody = Secret::new("nobody", subject_key.nobody());
        Self {
            ring,
            users,
            subject_key,
            nobody,
            userhashes: Userhashes::default(),
            sealing: SealingKeys::default(),
            realm: String::new(),
        }
    }

    /// The same, where usernames that were sealed with one of these keys in `realm` are known too.
    #[must_use]
    pub fn with_sealing(mut self, keys: SealingKeys, realm: &str) -> Self {
        self.sealing = keys;
        self.realm = realm.to_owned();
        self
    }

    /// The hash of a platform's call id; none without a key to seal with.
    #[must_use]
    pub fn call(&self, id: &str) -> Option<CallId> {
        self.sealing.call(id)
    }

    /// That hash under each key that is still good, for those who look for a call.
    pub fn calls<'a>(&'a self, id: &'a str) -> impl Iterator<Item = CallId> + 'a {
        self.sealing.calls(id)
    }

    /// Mints a sealed credential, with a password of the ring's first secret. `nonce` is random,
    /// another one each time.
    ///
    /// # Errors
    /// When there is no key or no secret, or the claims do not fit a USERNAME.
    pub fn mint_sealed(
        &self,
        claims: &Claims,
        expires: u64,
        nonce: [u8; 16],
    ) -> Result<Minted, MintError> {
        let secret = self.ring.get(0).ok_or(MintError::EmptySecret)?;
        if secret.is_empty() {
            return Err(MintError::EmptySecret);
        }
        let username = self.sealing.seal(claims, expires, &self.realm, nonce)?;
        let password = secret.password(&username);
        Ok(Minted { username, password })
    }

    /// The same, where static users may name themselves by the hash of their names in `realm` too.
    /// Only where no secret mints names, since those are not known before they come.
    #[must_use]
    pub fn with_userhashes(mut self, realm: &str) -> Self {
        self.userhashes = if self.ring.is_empty() {
            Userhashes::new(self.users.0.keys(), realm)
        } else {
            Userhashes::default()
        };
        self
    }

    /// Whether a client may be offered "Username anonymity" (RFC 8489 §9.2).
    #[must_use]
    pub const fn knows_userhashes(&self) -> bool {
        !self.userhashes.is_empty()
    }

    /// As [`find`](Self::find), for a user who is named by a hash; with the name, which is none for
    /// a hash that nobody has. Such a one costs as much as a known one.
    #[must_use]
    pub fn find_by_hash(&self, hash: &[u8; 32]) -> HashFound<'_> {
        let (username, is_known) = self.userhashes.find(hash);
        let mut found = self.find(username);
        if !is_known {
            found.candidates.known = Known::Nobody;
        }
        HashFound {
            username,
            is_known,
            found,
        }
    }

    /// The passwords `username` may have.
    ///
    /// There are always as many candidates as there are secrets, and at least one, and each costs the same: so known,
    /// unknown, static and malformed names take the same time to refuse. Who is [`Origin::Nobody`] stays refused even
    /// if its password fits, which takes knowing the server's key.
    ///
    /// A static user wins over a REST username of the same spelling: the operator wrote it down, and whoever holds
    /// a secret must not take it over by minting.
    #[must_use]
    pub fn find<'a>(&'a self, username: &'a str) -> Found<'a> {
        let sendable = username.len() <= USERNAME_MAX;
        let user = self.users.0.get(username).filter(|_| sendable);
        let password = user.map(|user| &user.password);
        let rest = parse_rest(username).filter(|_| sendable && password.is_none());
        let sealed = self
            .sealing
            .unseal(username, &self.realm)
            .filter(|_| sendable && password.is_none());
        // Asked of every name, so that one whose seal holds takes no less than one whose does not.
        let subject = self.subject(rest.as_ref().map_or(username, |rest| rest.user));
        let (expires, sealed_by, claims) = match sealed {
            Some((expires, key, claims)) => (Some(expires), Some(key), Some(Arc::new(claims))),
            None => (rest.as_ref().map(|rest| rest.expires), None, None),
        };
        Found {
            expires,
            sealed_by,
            subject: match (password, &claims) {
                (Some(_), _) => self.subject_key.static_user(username),
                (None, Some(claims)) => claims.subject,
                (None, None) => subject,
            },
            candidates: Candidates {
                credentials: self,
                username,
                known: match (password, rest.is_some() || claims.is_some()) {
                    (Some(password), _) => Known::Static(password),
                    (None, true) => Known::Rest,
                    (None, false) => Known::Nobody,
                },
                next: 0,
            },
            claims,
        }
    }

    /// The subject of a user id, the part of a REST username behind the expiry.
    ///
    /// One id is one person: who shares an id shares a quota, and counts as the same user where an
    /// allocation admits the other addresses of somebody it has named. The secrets of the ring are
    /// one platform's, for rotation; ids that several of them vouch for are the same person.
    #[must_use]
    pub fn subject(&self, user: &str) -> Subject {
        self.subject_key.subject(user)
    }

    /// The subject of a static user.
    #[must_use]
    pub fn static_subject(&self, username: &str) -> Subject {
        self.subject_key.static_user(username)
    }

    /// Whether there is a static user of this name.
    #[must_use]
    pub fn has_static(&self, username: &str) -> bool {
        self.users.0.contains_key(username)
    }

    /// What vouches for a password of `username` that has this origin: a secret, and for a sealed name
    /// also the key that sealed it.
    #[must_use]
    pub fn voucher(&self, username: &str, origin: Origin, sealed_by: Option<SealedBy>) -> Voucher {
        let found = match origin {
            Origin::Rest { secret } => {
                let secret = self.ring.get(secret);
                secret.map(|secret| secret.voucher(sealed_by))
            }
            Origin::Static => self.users.0.get(username).map(|user| user.voucher),
            Origin::Nobody => None,
        };
        found.unwrap_or_else(|| self.nobody.voucher(None))
    }

    /// All that vouches for anybody.
    pub fn vouchers(&self) -> impl Iterator<Item = Voucher> + '_ {
        let secrets = self.ring.iter().filter(|secret| !secret.is_empty());
        let keys = std::iter::once(None).chain(self.sealing.all().map(Some));
        let users = self.users.0.values().map(|user| user.voucher);
        secrets
            .flat_map(move |secret| keys.clone().map(move |key| secret.voucher(key)))
            .chain(users)
    }

    /// The secrets, to mint with and to name an [`Origin::Rest`] by its id.
    #[must_use]
    pub const fn ring(&self) -> &SecretsRing {
        &self.ring
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("ring", &self.ring)
            .field("users", &self.users)
            .finish_non_exhaustive()
    }
}

/// What is known of a username before anything is verified.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Its possible passwords.
    pub candidates: Candidates<'a>,
    /// When the credential expires, Unix seconds; see [`expired`]. Static users don't.
    pub expires: Option<u64>,
    /// Stands for the user. Unverified until a candidate other than nobody's fits.
    pub subject: Subject,
    /// What a sealed username says beyond that.
    pub claims: Option<Arc<Claims>>,
    /// Which key sealed it.
    pub sealed_by: Option<SealedBy>,
}

impl Found<'_> {
    /// Whether it is good on the node of that name; pinned to one, it is good on no other.
    #[must_use]
    pub fn is_for(&self, node: Option<&Label>) -> bool {
        let claims = self.claims.as_ref();
        claims.is_none_or(|claims| claims.is_for(node))
    }
}

/// What is known of a hashed username before anything is verified.
pub struct HashFound<'a> {
    /// The name, or if nobody has this hash, one to spend as much time on.
    pub username: &'a str,
    /// Whether somebody has this hash.
    pub is_known: bool,
    /// What is known of the name.
    pub found: Found<'a>,
}

impl fmt::Debug for HashFound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashFound(hidden)")
    }
}

/// A password to try.
pub struct Candidate {
    /// For the long-term key, MD5(username ":" realm ":" password).
    pub password: Zeroizing<String>,
    /// What vouches for it.
    pub origin: Origin,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// What vouches for a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A secret shared with the platform.
    Rest {
        /// Its place in the ring.
        secret: usize,
    },
    /// The operator's list of users.
    Static,
    /// Nothing: the name is unknown, and the candidate only spends the time a known one would.
    Nobody,
}

#[derive(Clone, Copy)]
enum Known<'a> {
    Rest,
    Static(&'a Zeroizing<String>),
    Nobody,
}

/// Derives one password after the other.
#[derive(Clone)]
pub struct Candidates<'a> {
    credentials: &'a Credentials,
    username: &'a str,
    known: Known<'a>,
    next: usize,
}

impl Iterator for Candidates<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let Credentials { ring, nobody, .. } = self.credentials;
        let place = self.next;
        if place >= ring.len().max(1) {
            return None;
        }
        self.next += 1;
        let (secret, origin) = match (self.known, ring.get(place)) {
            // An empty secret is one that everybody knows.
            (Known::Rest, Some(secret)) if !secret.is_empty() => {
                (secret, Origin::Rest { secret: place })
            }
            (Known::Static(_), _) if place == 0 => (nobody, Origin::Static),
            (Known::Rest | Known::Static(_) | Known::Nobody, _) => (nobody, Origin::Nobody),
        };
        let derived = secret.password(self.username);
        let password = match self.known {
            Known::Static(password) if place == 0 => password.clone(),
            Known::Static(_) | Known::Rest | Known::Nobody => derived,
        };
        Some(Candidate { password, origin })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.credentials.ring.len().max(1) - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Candidates<'_> {}

impl fmt::Debug for Candidates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Candidates({} left)", self.len())
    }
}
