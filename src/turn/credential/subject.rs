//! The name under which quota, API, events and billing know a user.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Keyed hash of the platform's user id: stable, and of no use to who lacks the key. Meant to be printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject([u8; 16]);

impl Subject {
    /// For storing; the other way round is [`Subject::from_bytes`].
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// A subject that was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({self})")
    }
}

/// An HMAC that has taken the key in; wiped when it is dropped.
#[derive(Clone)]
pub(super) struct SubjectKey(Hmac<Sha256>);

impl SubjectKey {
    pub(super) fn new(key: [u8; 32]) -> Self {
        let key = Zeroizing::new(key);
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        Self(Hmac::new_from_slice(key.as_slice()).expect("any length"))
    }

    pub(super) fn subject(&self, user: &str) -> Subject {
        self.labelled(user.as_bytes())
    }

    fn labelled(&self, data: &[u8]) -> Subject {
        let mac = self.mac(data);
        let mut subject = [0; 16];
        for (to, from) in subject.iter_mut().zip(mac.iter()) {
            *to = *from;
        }
        Subject(subject)
    }

    /// The subject of a static user. Whoever mints chooses user ids freely, and no such id is spelled
    /// like this, which isn't UTF-8: so minting makes nobody a static user's namesake.
    pub(super) fn static_user(&self, name: &str) -> Subject {
        self.labelled(&[b"\xffstatic ", name.as_bytes()].concat())
    }

    /// The secret of those who don't exist. No user id is spelled like its label, which isn't UTF-8.
    pub(super) fn nobody(&self) -> Zeroizing<[u8; 32]> {
        self.mac(b"\xffnobody")
    }

    fn mac(&self, data: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut mac = self.0.clone();
        mac.update(data);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}
