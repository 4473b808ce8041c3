//! The long-term credential mechanism (RFC 8489 §9.2) as every request but Binding goes through
//! it: who asks, and with which key the answer is signed.
//!
//! An unknown user and a wrong password cost the same work and get the same answer. An allocation
//! keeps the key it was made with, and what follows on its 5-tuple is tried
//! with that first: of two secrets, CreatePermission and ChannelBind took 8.4 µs together when each
//! derived all keys, and 3.7 to 4.7 µs in two runs since (`cargo bench --bench control`, HMACs having
//! taken their keys in as well). Keys are kept with allocations alone and not by username, so that the time
//! of an answer tells something only to who is at the 5-tuple of a living allocation, and knows.
//!
//! Two algorithms are offered for the key, so the nonce cookie's "Password algorithms" bit is set,
//! and a client that was shown another list than ours (a bid-down) is refused. "Username anonymity"
//! is set where users are static alone; then USERHASH may stand for USERNAME.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::proto::{
    Algorithm, AttributeType, Integrity, LongTermKey, Message, Nonce, PasswordAlgorithm,
    PasswordAlgorithms, Realm, Userhash, Username,
};
use crate::turn::clock::Clock;
use crate::turn::credential::{
    self, Candidates, Claims, Credentials, Found, Origin, Subject, Voucher,
};
use crate::turn::revocation::{Issued, UsernameDigest, When};
use crate::turn::server_config::ServerConfig;
use crate::turn::stats::AuthFailure;

/// What PASSWORD-ALGORITHMS offers, the preferred one first.
pub(crate) const OFFERED: &[PasswordAlgorithm<'static>] = &[
    PasswordAlgorithm {
        algorithm: Algorithm::Sha256,
        parameters: &[],
    },
    PasswordAlgorithm {
        algorithm: Algorithm::Md5,
        parameters: &[],
    },
];

/// The username an allocation belongs to, as half a digest: the name itself is not kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner([u8; 16]);

impl Owner {
    pub(crate) fn new(username: &str) -> Self {
        let digest = Sha256::digest(username.as_bytes());
        let mut owner = [0; 16];
        owner.copy_from_slice(&digest[..16]);
        Self(owner)
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// What a revocation calls it.
    pub(crate) fn digest(&self) -> UsernameDigest {
        let mut digest = [0; 16];
        digest.copy_from_slice(&self.0[..16]);
        UsernameDigest::from_bytes(digest)
    }
}

/// Which attribute signs the answer: the one that fits the algorithm the client chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    Sha1,
    Sha256,
}

/// The key that an allocation was made with. In a box, so that it is wiped where it lay.
#[derive(Debug)]
pub(crate) struct KnownKey {
    owner: Owner,
    key: LongTermKey,
    voucher: Voucher,
    /// The end of time for a credential that does not end, so that it takes less room.
    expires: u64,
}

impl KnownKey {
    /// The username that it belongs to.
    pub(crate) const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What vouched for it.
    pub(crate) const fn voucher(&self) -> Voucher {
        self.voucher
    }

    /// When the credential ends, in seconds since 1970, if it does.
    pub(crate) fn expires(&self) -> Option<u64> {
        Some(self.expires).filter(|expires| *expires < u64::MAX)
    }
}

/// Whose requests are expected on a 5-tuple, and the key that signed them so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) subject: Subject,
    pub(crate) known: &'a KnownKey,
    pub(crate) claims: Option<&'a Arc<Claims>>,
}

impl Expected<'_> {
    /// A request that was signed with the known key.
    fn authenticated(self, signature: Signature) -> Authenticated {
        Authenticated {
            key: self.known.key.clone(),
            signature,
            owner: self.known.owner,
            subject: self.subject,
            expires: self.known.expires(),
            claims: self.claims.map(Arc::clone),
            voucher: self.known.voucher,
        }
    }
}

/// A request whose sender knows a password.
#[derive(Debug)]
pub(crate) struct Authenticated {
    pub(crate) key: LongTermKey,
    pub(crate) signature: Signature,
    pub(crate) owner: Owner,
    pub(crate) subject: Subject,
    /// When the credential ends, in seconds since 1970.
    pub(crate) expires: Option<u64>,
    /// What a sealed username says of its holder.
    pub(crate) claims: Option<Arc<Claims>>,
    /// What vouches for the password.
    voucher: Voucher,
}

/// A request that did not authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unauthenticated {
    pub(crate) failure: AuthFailure,
    /// Whether the source proved by its nonce that it receives at its address.
    pub(crate) source: Source,
}

/// What is known of a datagram's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// It may be forged.
    Unvalidated,
    /// It echoed a nonce that was sent to it.
    Validated,
}

/// How a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signed {
    Sha1,
    Sha256,
    /// Too short to be taken, but as dear as the others.
    Truncated,
}

impl Signed {
    /// RFC 8489 §9.2.4: MESSAGE-INTEGRITY-SHA256 decides when it is there.
    fn of(message: &Message<'_>) -> Option<Self> {
        let sha256 = message
            .attributes()
            .find(|a| a.kind == AttributeType::MESSAGE_INTEGRITY_SHA256);
        match sha256 {
            // RFC 8489 §14.6: all 32 bytes, unless the usage allows fewer, which TURN does not.
            Some(attribute) if attribute.value.len() == 32 => Some(Self::Sha256),
            Some(_) => Some(Self::Truncated),
            None => message
                .has(AttributeType::MESSAGE_INTEGRITY)
                .then_some(Self::Sha1),
        }
    }

    /// Whether it was signed with this key.
    fn fits(self, message: &Message<'_>, key: &LongTermKey) -> bool {
        let integrity = match self {
            Self::Sha1 => message.verify_integrity(key),
            Self::Sha256 | Self::Truncated => message.verify_integrity_sha256(key),
        };
        integrity == Integrity::Valid && self != Self::Truncated
    }
}

/// Who a request says that it is from.
struct Claim<'a> {
    username: &'a str,
    /// False where nobody can be meant.
    is_known: bool,
    /// What had to be found out to know the name.
    found: Option<Found<'a>>,
}

impl<'a> Claim<'a> {
    /// RFC 8489 §9.2.4: either USERNAME or USERHASH. With both it would be unclear who is meant.
    fn of(credentials: &'a Credentials, message: &Message<'a>) -> Option<Self> {
        let username = message.find::<Username<'_>>();
        match (username, message.find::<Userhash>()) {
            (Some(Ok(Username(username))), None) => Some(Self {
                username,
                is_known: true,
                found: None,
            }),
            (None, Some(Ok(Userhash(hash)))) => {
                let by_hash = credentials.find_by_hash(&hash);
                Some(Self {
                    username: by_hash.username,
                    is_known: by_hash.is_known,
                    found: Some(by_hash.found),
                })
            }
            _ => None,
        }
    }
}

/// RFC 8489 §9.2.4: the checks, in its order.
pub(crate) fn authenticate(
    config: &ServerConfig,
    message: &Message<'_>,
    source: IpAddr,
    expected: Option<Expected<'_>>,
    clock: Clock,
) -> Result<Authenticated, Unauthenticated> {
    let unvalidated = |failure| Unauthenticated {
        failure,
        source: Source::Unvalidated,
    };
    let Some(signed) = Signed::of(message) else {
        return Err(unvalidated(AuthFailure::Missing));
    };
    let (Some(claim), Some(Ok(Realm(realm))), Some(Ok(Nonce(nonce)))) = (
        Claim::of(&config.credentials, message),
        message.find::<Realm<'_>>(),
        message.find::<Nonce<'_>>(),
    ) else {
        return Err(unvalidated(AuthFailure::Incomplete));
    };
    let fresh = config.nonce_key.is_fresh(nonce, source, clock.unix);
    let source = if fresh {
        Source::Validated
    } else {
        Source::Unvalidated
    };
    let refused = |failure| Unauthenticated { failure, source };
    let Some((algorithm, signature)) = chosen_algorithm(message) else {
        return Err(refused(AuthFailure::Incomplete));
    };

    let Claim {
        username,
        is_known,
        found,
    } = claim;
    let is_realm = realm == config.realm;
    let judge_nonce = |authenticated| {
        if fresh {
            Ok(authenticated)
        } else {
            Err(refused(AuthFailure::StaleNonce))
        }
    };
    let by_sha256 = algorithm == Algorithm::Sha256;
    let is_comparable = |known: &KnownKey| is_realm && known.key.is_sha256() == by_sha256;
    let as_expected = expected.filter(|expected| {
        is_known
            && is_comparable(expected.known)
            && expected.known.owner.is(&Owner::new(username))
            && signed.fits(message, &expected.known.key)
    });
    if let Some(expected) = as_expected {
        return judge_nonce(expected.authenticated(signature));
    }

    let mut found = found.unwrap_or_else(|| config.credentials.find(username));
    let who = (username, algorithm);
    let fitting = fitting(&config.realm, message, signed, who, &mut found.candidates);
    let owner = Owner::new(username);
    let is_revoked = is_revoked(config, owner, &found);
    let is_for_us = found.is_for(config.node.as_ref());
    let Some((key, origin)) = fitting.filter(|_| is_realm) else {
        return Err(refused(AuthFailure::Wrong));
    };
    // Counted apart and answered alike: the operator is to see what is sent to the wrong node.
    if !is_for_us {
        return Err(refused(AuthFailure::OtherNode));
    }
    if is_revoked {
        return Err(refused(AuthFailure::Revoked));
    }
    judge_nonce(Authenticated {
        key,
        signature,
        owner,
        subject: found.subject,
        expires: found.expires,
        claims: found.claims,
        voucher: config
            .credentials
            .voucher(username, origin, found.sealed_by),
    })
}

/// Whether it was taken back. Looked for whether or not the password fits, so that who was revoked
/// is not told from who never was.
fn is_revoked(config: &ServerConfig, owner: Owner, found: &Found<'_>) -> bool {
    config.revocations.covers(&Issued {
        name: owner.digest(),
        subject: found.subject,
        call: found.claims.as_ref().and_then(|claims| claims.call),
        when: When::of(found.claims.as_deref(), found.expires),
    })
}

impl Authenticated {
    /// What an allocation keeps for the requests that follow.
    pub(crate) fn known(&self) -> Box<KnownKey> {
        Box::new(KnownKey {
            owner: self.owner,
            key: self.key.clone(),
            voucher: self.voucher,
            expires: self.expires.unwrap_or(u64::MAX),
        })
    }

    /// Why the credential is not good at this time, where credentials last for `max_ttl` at most.
    pub(crate) fn untimely(&self, clock: Clock, max_ttl: Duration) -> Option<AuthFailure> {
        let (expires, claims) = (self.expires?, self.claims.as_deref());
        if credential::expired(expires, clock.unix) {
            Some(AuthFailure::Expired)
        } else if lasts_too_long(expires, claims, clock, max_ttl) {
            Some(AuthFailure::TooLong)
        } else {
            None
        }
    }
}

/// Whether a credential that ends at `expires` and says `claims` lasts for longer than `max_ttl`.
pub(crate) fn lasts_too_long(
    expires: u64,
    claims: Option<&Claims>,
    clock: Clock,
    max_ttl: Duration,
) -> bool {
    // Who says when it was issued is judged by that: it does not become good in its last hours.
    let issued = claims.map(|claims| claims.issued);
    let since = issued.unwrap_or(clock.unix).min(clock.unix);
    credential::too_long(expires, since, max_ttl)
}

/// The key that fits, and what vouches for it.
fn fitting(
    realm: &str,
    message: &Message<'_>,
    signed: Signed,
    (username, algorithm): (&str, Algorithm),
    candidates: &mut Candidates<'_>,
) -> Option<(LongTermKey, Origin)> {
    let mut fitting = None;
    for candidate in candidates {
        let key = derived(algorithm, username, realm, candidate.password.as_str());
        // Every candidate is tried, so that time does not tell which one fits.
        if signed.fits(message, &key) && candidate.origin != Origin::Nobody && fitting.is_none() {
            fitting = Some((key, candidate.origin));
        }
    }
    fitting
}

/// RFC 8489 §18.5.1: the key of a password.
fn derived(algorithm: Algorithm, username: &str, realm: &str, password: &str) -> LongTermKey {
    match algorithm {
        Algorithm::Sha256 => LongTermKey::sha256(username, realm, password),
        Algorithm::Md5 | Algorithm::Other(_) => LongTermKey::md5(username, realm, password),
    }
}

/// RFC 8489 §9.2.4: neither attribute means MD5; otherwise both must be there, the list must be
/// the one that was sent, and the choice one of it.
fn chosen_algorithm(message: &Message<'_>) -> Option<(Algorithm, Signature)> {
    let list = message.find::<PasswordAlgorithms<'_>>();
    let choice = message.find::<PasswordAlgorithm<'_>>();
    match (list, choice) {
        (None, None) => Some((Algorithm::Md5, Signature::Sha1)),
        (Some(Ok(list)), Some(Ok(choice)))
            if list == PasswordAlgorithms::new(OFFERED) && choice.parameters.is_empty() =>
        {
            match choice.algorithm {
                Algorithm::Md5 | Algorithm::Sha256 => Some((choice.algorithm, Signature::Sha256)),
                Algorithm::Other(_) => None,
            }
        }
        _ => None,
    }
}
