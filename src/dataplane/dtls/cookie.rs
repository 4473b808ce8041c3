//! Cookies without memory (RFC 6347 §4.2.1): a keyed hash of where a hello came from and of what
//! it said, so that only who receives at that address can echo it.
//!
//! ```text
//! period (1) | HMAC-SHA256 of period, address and hello (19)
//! ```
//! The period counts the minutes of the worker's clock. A cookie is good in its own period and in
//! the next, so for one to two minutes.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::hello::Hello;
use crate::turn::{ClientAddr, Tick};

/// Length of a cookie.
pub(super) const COOKIE_LEN: usize = 20;
/// For how long one period's cookies are made.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// Makes and recognises cookies. The key changes with every period: each hashes with one of its
/// own, made from a secret that never leaves and is wiped in the end.
pub(super) struct Cookies {
    secret: Hmac<Sha256>,
    /// The key of the period that was asked for last, as nearly every hello is of the present.
    latest: (u64, Hmac<Sha256>),
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookies(hidden)")
    }
}

impl Cookies {
    /// Takes 32 random bytes.
    pub(super) fn new(mut secret: [u8; 32]) -> Self {
        let keyed = keyed(&secret);
        secret.zeroize();
        let first = period_key(&keyed, 0);
        Self {
            secret: keyed,
            latest: (0, first),
        }
    }

    /// The cookie that `client` has to echo.
    pub(super) fn make(
        &mut self,
        client: ClientAddr,
        hello: &Hello<'_>,
        now: Tick,
    ) -> [u8; COOKIE_LEN] {
        self.of(client, hello, period(now))
    }

    /// Whether `hello` echoes what [`make`](Self::make) gave to the same client for the same hello.
    pub(super) fn verify(&mut self, client: ClientAddr, hello: &Hello<'_>, now: Tick) -> bool {
        let Ok(cookie) = <&[u8; COOKIE_LEN]>::try_from(hello.cookie) else {
            return false;
        };
        let present = period(now);
        let Some(made) = [Some(present), present.checked_sub(1)]
            .into_iter()
            .flatten()
            .find(|period| low_byte(*period) == cookie[0])
        else {
            return false;
        };
        self.of(client, hello, made).ct_eq(cookie).into()
    }

    fn of(&mut self, client: ClientAddr, hello: &Hello<'_>, period: u64) -> [u8; COOKIE_LEN] {
        if self.latest.0 != period {
            self.latest = (period, period_key(&self.secret, period));
        }
        let mut mac = self.latest.1.clone();
        let address = client.expose();
        match address.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&address.port().to_be_bytes());
        mac.update(&hello.version());
        mac.update(hello.random);
        // RFC 6347 §4.2.1 would have the cipher suites too; they may stand in a fragment that has
        // not come yet, and the random value already tells hellos apart.
        mac.update(hello.session_id);
        let hash = mac.finalize().into_bytes();
        let mut cookie = [0; COOKIE_LEN];
        cookie[0] = low_byte(period);
        cookie[1..].copy_from_slice(&hash[..COOKIE_LEN - 1]);
        cookie
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    Hmac::new_from_slice(key).expect("any length")
}

fn period_key(secret: &Hmac<Sha256>, period: u64) -> Hmac<Sha256> {
    let mut mac = secret.clone();
    mac.update(&period.to_be_bytes());
    keyed(&mac.finalize().into_bytes())
}

const fn period(now: Tick) -> u64 {
    now.since(Tick::from_nanos(0)).as_secs() / PERIOD.as_secs()
}

const fn low_byte(period: u64) -> u8 {
    period.to_be_bytes()[7]
}
