//! Nonces without memory (RFC 8489 §9.2): a nonce says when it was made and proves, by a keyed
//! hash, that this server made it for the source it comes back from. Nothing is kept about a
//! source before it echoes one.
//!
//! ```text
//! "obMatJos2" | security features (4) | base64(unix seconds (4) | random (3) | hash (8))
//! ```
//! Bound to the source's IP address (/64 for IPv6), never its port: NATs change ports, and
//! browsers give up on a 438 to an Allocate. The key is a secret of its own, so that rotating
//! credentials makes no nonce stale.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// RFC 8489 §9.2: what a nonce begins with that carries security features.
const COOKIE: &str = "obMatJos2";

/// RFC 8489 §18.1: the security features that a client is offered, as the nonce says them: 24 bits
/// in base64, bit 0 on the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features(&'static str);

impl Features {
    /// Bit 0, "Password algorithms": `80 00 00`.
    pub(crate) const ALGORITHMS: Self = Self("gAAA");
    /// And bit 1, "Username anonymity": `c0 00 00`.
    pub(crate) const ALGORITHMS_AND_ANONYMITY: Self = Self("wAAA");

    /// What stands in front of a nonce's body, if this server says it at times. What it says now
    /// may have changed since.
    fn split(text: &str) -> Option<(Self, &str)> {
        [Self::ALGORITHMS, Self::ALGORITHMS_AND_ANONYMITY]
            .into_iter()
            .find_map(|features| Some((features, text.strip_prefix(features.0)?)))
    }
}

/// Seconds for which a nonce is good.
pub const NONCE_LIFETIME: u64 = 3_600;
/// Seconds by which another node of the fleet may be ahead of this one's clock.
const AHEAD: u64 = 60;
const HASH_LEN: usize = 8;
const BODY_LEN: usize = 4 + 3 + HASH_LEN;
/// Characters in a nonce.
pub const NONCE_LEN: usize = COOKIE.len() + Features::ALGORITHMS.0.len() + BODY_LEN / 3 * 4;

/// The key nonces are made with: an HMAC that has taken it in, which is half the work of a short
/// hash. It is wiped when it is dropped.
#[derive(Clone)]
pub struct NonceKey(Hmac<Sha256>);

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(hidden)")
    }
}

impl NonceKey {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(mut key: [u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mac = Hmac::new_from_slice(&key).expect("any length");
        key.zeroize();
        Self(mac)
    }

    /// Makes a nonce for `source`; `random` tells two of the same second apart.
    pub(crate) fn make(
        &self,
        source: IpAddr,
        unix: u64,
        features: Features,
        random: [u8; 3],
    ) -> String {
        let mut body = [0; BODY_LEN];
        body[..4].copy_from_slice(&seconds(unix));
        body[4..7].copy_from_slice(&random);
        let hash = self.hash(source, features, &body[..7]);
        body[7..].copy_from_slice(&hash);
        format!("{COOKIE}{}{}", features.0, URL_SAFE_NO_PAD.encode(body))
    }

    /// Whether `nonce` was made for `source` and is not too old.
    pub(crate) fn is_fresh(&self, nonce: &str, source: IpAddr, unix: u64) -> bool {
        let Some((features, text)) = nonce.strip_prefix(COOKIE).and_then(Features::split) else {
            return false;
        };
        let mut body = [0; BODY_LEN];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut body) != Ok(BODY_LEN) {
            return false;
        }
        let hash = self.hash(source, features, &body[..7]);
        let made = u64::from(u32::from_be_bytes([body[0], body[1], body[2], body[3]]));
        bool::from(hash.ct_eq(&body[7..]))
            && made <= unix.saturating_add(AHEAD)
            && unix.saturating_sub(made) < NONCE_LIFETIME
    }

    fn hash(&self, source: IpAddr, features: Features, body: &[u8]) -> [u8; HASH_LEN] {
        let mut mac = self.0.clone();
        mac.update(features.0.as_bytes());
        mac.update(body);
        match source {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()[..8]),
        }
        let mut hash = [0; HASH_LEN];
        hash.copy_from_slice(&mac.finalize().into_bytes()[..HASH_LEN]);
        hash
    }
}

/// Seconds since 1970 in 32 bits; good until 2106.
fn seconds(unix: u64) -> [u8; 4] {
    u32::try_from(unix).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn made() -> (NonceKey, String, IpAddr) {
        let key = NonceKey::new([9; 32]);
        let source = IpAddr::from([192, 0, 2, 1]);
        let nonce = key.make(source, NOW, Features::ALGORITHMS, [1, 2, 3]);
        (key, nonce, source)
    }

    /// T15
    #[test]
    fn a_nonce_ages_out() {
        let (key, nonce, source) = made();
        assert_eq!(nonce.len(), NONCE_LEN);
        assert!(key.is_fresh(&nonce, source, NOW + NONCE_LIFETIME - 1));
        assert!(!key.is_fresh(&nonce, source, NOW + NONCE_LIFETIME));
        assert!(!key.is_fresh(&nonce, source, NOW - AHEAD - 1));
    }

    /// T14
    #[test]
    fn a_nonce_of_another_source_or_key_is_not_fresh() {
        let (key, nonce, source) = made();
        assert!(!key.is_fresh(&nonce, IpAddr::from([192, 0, 2, 2]), NOW));
        assert!(!NonceKey::new([8; 32]).is_fresh(&nonce, source, NOW));
        for at in 0..nonce.len() {
            let mut forged = nonce.clone().into_bytes();
            forged[at] ^= 1;
            let forged = String::from_utf8(forged).unwrap();
            assert!(!key.is_fresh(&forged, source, NOW), "altered at {at}");
        }
        for text in ["", "obMatJos2", "obMatJos2gAAA", "nonsense"] {
            assert!(!key.is_fresh(text, source, NOW));
        }
    }

    /// T22: what a client is told of this server it must echo as it was told.
    #[test]
    fn a_nonce_with_altered_security_features_is_not_fresh() {
        let (key, nonce, source) = made();
        let features = Features::ALGORITHMS_AND_ANONYMITY;
        let anonymous = key.make(source, NOW, features, [1, 2, 3]);
        assert_eq!(anonymous.len(), NONCE_LEN);
        assert!(key.is_fresh(&anonymous, source, NOW));
        for altered in [
            nonce.replacen("gAAA", "wAAA", 1),
            nonce.replacen("gAAA", "AAAA", 1),
            anonymous.replacen("wAAA", "gAAA", 1),
            anonymous.replacen("wAAA", "QAAA", 1),
        ] {
            assert!(!key.is_fresh(&altered, source, NOW), "{altered}");
        }
    }

    #[test]
    fn an_ipv6_nonce_holds_for_the_subscribers_network() {
        let key = NonceKey::new([9; 32]);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let nonce = key.make(ip("2001:db8:1:2::3"), NOW, Features::ALGORITHMS, [0; 3]);
        assert!(key.is_fresh(&nonce, ip("2001:db8:1:2:ffff::1"), NOW));
        assert!(!key.is_fresh(&nonce, ip("2001:db8:1:3::3"), NOW));
    }

    /// T23: nonces of one second for one source differ.
    #[test]
    fn two_nonces_of_one_second_differ() {
        let (key, nonce, source) = made();
        let other = key.make(source, NOW, Features::ALGORITHMS, [1, 2, 4]);
        assert_ne!(nonce, other);
    }
}
