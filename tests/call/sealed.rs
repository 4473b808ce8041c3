//! Credentials for one call, sealed with the key that the relay finds in its state directory.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::time::{Duration, SystemTime};

use taciturn::turn::credential::{
    Claims, Credentials, SealingKeys, Secret, SecretsRing, StaticUsers,
};
use taciturn::turn::policy::PeerPolicy;
use zeroize::Zeroizing;

use crate::lab::Lab;
use crate::lab::relay::{REALM, SECRET};

const SEALING_KEY: [u8; 32] = [4; 32];

/// The relay's state directory, made with that key in it.
pub(crate) fn state(lab: &Lab) -> String {
    let directory = lab.file("state");
    let mut builder = DirBuilder::new();
    builder.mode(0o700).recursive(true);
    builder
        .create(&directory)
        .expect("the lab's directory is writable");
    let key = directory.join("sealing.key");
    fs::remove_file(&key).ok();
    let mut file = OpenOptions::new();
    let mut file = file
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(key)
        .expect("a new file");
    file.write_all(&SEALING_KEY).expect("the key is written");
    directory.display().to_string()
}

/// A username and a password for an hour: policy `call`, this test's call, masked.
pub(crate) fn credential(user: &str) -> (String, String) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("it is later than 1970");
    let ring = SecretsRing::new(vec![Secret::new("lab", SECRET)]);
    let keys = SealingKeys::new(&[Zeroizing::new(SEALING_KEY)]);
    let credentials =
        Credentials::new(ring, StaticUsers::default(), [5; 32]).with_sealing(keys, REALM);
    let claims = Claims {
        call: credentials.call("the call of this test"),
        policy: Some(PeerPolicy::Call),
        masked: true,
        ..Claims::new(credentials.subject(user), now.as_secs())
    };
    let nonce = now.as_nanos().to_be_bytes();
    let expires = now + Duration::from_secs(3_600);
    let minted = credentials
        .mint_sealed(&claims, expires.as_secs(), nonce)
        .expect("the claims fit a username");
    (minted.username, minted.password.as_str().to_owned())
}
