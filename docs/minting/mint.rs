//! A time-limited TURN credential, made without asking the server. Takes the crates `base64`,
//! `hmac` and `sha1`.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// Username and password of `user`, good for `ttl`.
pub fn mint(secret: &str, user: &str, ttl: Duration) -> (String, String) {
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock after 1970");
    let username = format!("{}:{user}", (now + ttl).as_secs());
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(username.as_bytes());
    let password = STANDARD.encode(mac.finalize().into_bytes());
    (username, password)
}
