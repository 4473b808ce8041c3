//! What a platform or an operator may do to a running server: take back what was issued, ban, end.
//!
//! Each change is in force before it is written down, and written down before it is answered. An
//! Allocate that races with a revocation does not survive it: first nothing new is let in, then
//! workers end what is there. Who may ask, and by which way, is not decided here.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::admin::events::{Event, Events};
use crate::admin::ledger::LedgerError;
use crate::admin::refusals::{Ban, BanBook, BanId, RevocationBook};
use crate::dataplane::{Handle, sys};
use crate::turn::ban::{Banned, Bans};
use crate::turn::credential::Subject;
use crate::turn::revocation::{Reach, Revocations, Revoked, UsernameDigest};
use crate::turn::{AllocationId, ClientAddr, Pseudonym, Pseudonymizer};

/// IPv6 addresses that are banned by pseudonym are banned with their subscriber's network, in which
/// a client draws a new one as often as it likes.
const SUBSCRIBER: u8 = 64;

/// Whom this server refuses, read before it serves anybody.
#[derive(Debug)]
pub struct Refusals {
    revocations: RevocationBook,
    bans: BanBook,
}

impl Refusals {
    /// Reads what is kept in `directory`; without one, everything begins empty and ends with the
    /// process. `max_ttl` is the longest that a credential is good, `ban_key` what the addresses of
    /// bans are hashed with.
    ///
    /// # Errors
    /// When a file there cannot be read or understood.
    pub fn open(
        directory: Option<&Path>,
        ban_key: &[u8; 32],
        max_ttl: Duration,
    ) -> Result<Self, LedgerError> {
        let now = sys::unix_seconds();
        Ok(Self {
            revocations: RevocationBook::open(directory, max_ttl, now)?,
            bans: BanBook::open(directory, ban_key, now)?,
        })
    }

    /// What is taken back, as every server of this process is told.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        self.revocations.revocations.clone()
    }

    /// Who is banned, as every server of this process is told.
    #[must_use]
    pub fn bans(&self) -> Bans {
        self.bans.bans.clone()
    }
}

/// For how many seconds more than `max_ttl` a credential is remembered that was taken back: ten years.
const LONGEST: u64 = 10 * 31_557_600;

/// How long a worker may take to end an allocation before nobody waits for it any more.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// The key of address pseudonyms of one day, counted from 1970.
pub type KeyOfDay = (u64, Pseudonymizer);

/// Where the keys of address pseudonyms are found that live.
pub struct PseudonymKeys(Box<dyn Fn() -> Vec<KeyOfDay> + Send + Sync>);

impl PseudonymKeys {
    /// `living` gives all of them.
    #[must_use]
    pub fn new(living: impl Fn() -> Vec<KeyOfDay> + Send + Sync + 'static) -> Self {
        Self(Box::new(living))
    }
}

impl fmt::Debug for PseudonymKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKeys(hidden)")
    }
}

/// Whom a ban means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BanTarget {
    /// A user, by what stands for them in logs and events.
    Subject(Subject),
    /// A user, by the platform's own id, or the name of a static one.
    User(String),
    /// An address or a network.
    Network(IpNet),
    /// Whoever is at the address behind this pseudonym, while they have an allocation.
    Pseudonym(Pseudonym),
}

/// A change is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it outlives this process: it is on the disk. Without a state directory nothing does.
    pub durable: bool,
}

/// Somebody is banned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banning {
    /// The bans: more than one where several addresses or users were meant.
    pub bans: Vec<Ban>,
    /// As in [`Outcome::durable`].
    pub durable: bool,
}

/// Why nothing was done, or not all.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody's credential is named so: it is no time-limited one, or was not minted for this
    /// server.
    #[error("this names no time-limited credential of this server")]
    NoCredential,
    /// Nobody has an empty id.
    #[error("the id is empty")]
    Empty,
    /// There is no key to hash call ids with.
    #[error("this server knows no call ids")]
    NoCalls,
    /// No allocation lives whose client has this pseudonym.
    #[error("nobody with this pseudonym has an allocation now, or its day's key is gone")]
    NobodyThere,
    /// It is in force until the process ends, and not beyond.
    #[error("it is in force, but could not be written down, and ends with this process: {0}")]
    NotKept(io::Error),
    /// Nothing was changed.
    #[error("it could not be written down, and nothing is changed: {0}")]
    NotDone(io::Error),
    /// The process is ending.
    #[error("the server stops")]
    Stopping,
}

/// The hand on a running server; clones are the same one.
#[derive(Clone)]
pub struct Control(Arc<Desk>);

struct Desk {
    handle: Handle,
    /// Where others hear of what is taken back.
    events: Events,
    pseudonyms: PseudonymKeys,
    refusals: Mutex<Refusals>,
}

impl Control {
    /// A hand on the workers behind `handle`, which were told of `refusals` at their start.
    #[must_use]
    pub fn new(
        refusals: Refusals,
        handle: Handle,
        pseudonyms: PseudonymKeys,
        events: Events,
    ) -> Self {
        Self(Arc::new(Desk {
            handle,
            events,
            pseudonyms,
            refusals: Mutex::new(refusals),
        }))
    }

    /// Takes back one credential, by its username.
    ///
    /// # Errors
    /// When it is none of this server's, or could not be written down.
    pub async fn revoke_credential(&self, username: &str) -> Result<Outcome, ControlError> {
        let rules = self.0.handle.rules();
        // Static users go with the configuration.
        let expires = rules.credentials.find(username).expires;
        let expires = expires.ok_or(ControlError::NoCredential)?;
        let name = UsernameDigest::of(username);
        // It is remembered until then, although a REST name of more than max_ttl is good only in
        // its last hours.
        self.revoke_until(vec![Revoked::Credential(name)], expires)
            .await
    }

    /// Takes back all that was issued so far for a user, by the platform's own id. A static user
    /// of that name is somebody else, and goes with the configuration.
    ///
    /// # Errors
    /// When the id is empty, or it could not be written down.
    pub async fn revoke_user(&self, id: &str) -> Result<Outcome, ControlError> {
        if id.is_empty() {
            return Err(ControlError::Empty);
        }
        let subject = self.0.handle.rules().credentials.subject(id);
        self.revoke(vec![Revoked::User(subject)]).await
    }

    /// Takes back all that was issued so far for a call, by the platform's own id.
    ///
    /// # Errors
    /// When the id is empty, or it could not be written down.
    pub async fn revoke_call(&self, id: &str) -> Result<Outcome, ControlError> {
        if id.is_empty() {
            return Err(ControlError::Empty);
        }
        let rules = self.0.handle.rules();
        let calls: Vec<Revoked> = rules.credentials.calls(id).map(Revoked::Call).collect();
        if calls.is_empty() {
            return Err(ControlError::NoCalls);
        }
        self.revoke(calls).await
    }

    /// Ends an allocation; false if there is none of that name. Its client may make another. Waits
    /// for its worker to have done it, so that who asks afterwards does not find it any more; a
    /// worker that takes longer than that does it later.
    ///
    /// # Errors
    /// When the process is ending.
    pub async fn end(&self, id: AllocationId) -> Result<bool, ControlError> {
        self.blocking(move |desk| {
            let was_live = desk.handle.end(id);
            let begun = Instant::now();
            while was_live && desk.handle.is_live(id) && begun.elapsed() < ENDS_WITHIN {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(was_live)
        })
        .await
    }

    /// Bans somebody until a moment in Unix seconds, or for good. Who is banned already is banned
    /// until then instead.
    ///
    /// # Errors
    /// When nobody is meant, or it could not be written down.
    pub async fn ban(
        &self,
        target: BanTarget,
        until: Option<u64>,
    ) -> Result<Banning, ControlError> {
        self.blocking(move |desk| desk.ban(&target, until)).await
    }

    /// Lifts a ban; false if there is none of that name.
    ///
    /// # Errors
    /// When it could not be written down; then it is still in force.
    pub async fn unban(&self, id: BanId) -> Result<bool, ControlError> {
        self.blocking(move |desk| {
            let lifted = desk.refusals().bans.lift(id, sys::unix_seconds());
            lifted.map_err(ControlError::NotDone)
        })
        .await
    }

    /// The bans in force.
    ///
    /// # Errors
    /// When the process is ending.
    pub async fn bans(&self) -> Result<Vec<Ban>, ControlError> {
        self.blocking(|desk| Ok(desk.refusals().bans.list(sys::unix_seconds())))
            .await
    }

    /// The name of the ban of an address or a network, for whoever wants to know whether there is
    /// one, or to lift it.
    #[must_use]
    pub fn ban_of(&self, network: IpNet) -> BanId {
        let banned = Banned::Network(self.0.handle.rules().bans.network(network));
        Ban::new(banned, 0, None).id
    }

    /// Whether `pseudonym` stood for `address`, on each day whose key lives: the day, counted from
    /// 1970, and the answer.
    ///
    /// # Errors
    /// When the process is ending.
    pub async fn whois(
        &self,
        pseudonym: Pseudonym,
        address: IpAddr,
    ) -> Result<Vec<(u64, bool)>, ControlError> {
        let client = ClientAddr::new(SocketAddr::new(address, 0));
        self.blocking(move |desk| {
            let keys = (desk.pseudonyms.0)().into_iter();
            let mut days: Vec<(u64, bool)> = keys
                .map(|(day, key)| (day, key.of(client) == pseudonym))
                .collect();
            days.sort_unstable();
            Ok(days)
        })
        .await
    }

    async fn revoke(&self, revoked: Vec<Revoked>) -> Result<Outcome, ControlError> {
        self.revoke_until(revoked, 0).await
    }

    /// The same, of what ends at `expires`, if that is later than anything else may last.
    async fn revoke_until(
        &self,
        revoked: Vec<Revoked>,
        expires: u64,
    ) -> Result<Outcome, ControlError> {
        self.blocking(move |desk| desk.revoke(&revoked, expires))
            .await
    }

    /// Does what waits for workers and for the disk on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Desk) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let desk = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&desk)).await;
        done.unwrap_or(Err(ControlError::Stopping))
    }
}

impl Desk {
    // What it guards is whole between any two statements.
    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn revoke(&self, revoked: &[Revoked], expires: u64) -> Result<Outcome, ControlError> {
        let now = sys::unix_seconds();
        let max_ttl = self.handle.rules().max_ttl;
        let at = expires.saturating_sub(max_ttl.as_secs());
        let reach = Reach::new(at.clamp(now, now.saturating_add(LONGEST)), max_ttl);
        let mut refusals = self.refusals();
        let book = &mut refusals.revocations;
        for one in revoked {
            book.revocations.add(*one, reach);
        }
        self.handle.revoke(revoked);
        book.write(revoked, reach).map_err(ControlError::NotKept)?;
        for one in revoked {
            self.events.send(&Event::Revoked {
                at: now,
                what: *one,
            });
        }
        tell_untidy(book.tidy(max_ttl, now));
        Ok(Outcome {
            durable: book.is_durable(),
        })
    }

    fn ban(&self, target: &BanTarget, until: Option<u64>) -> Result<Banning, ControlError> {
        let now = sys::unix_seconds();
        let banned = self.meant(target)?;
        let ban = |banned| Ban::new(banned, now, until);
        let bans: Vec<Ban> = banned.into_iter().map(ban).collect();
        let mut refusals = self.refusals();
        let book = &mut refusals.bans;
        book.add(&bans);
        self.handle.enforce_bans();
        book.write(&bans).map_err(ControlError::NotKept)?;
        tell_untidy(book.tidy(now));
        Ok(Banning {
            bans,
            durable: book.is_durable(),
        })
    }

    fn meant(&self, target: &BanTarget) -> Result<Vec<Banned>, ControlError> {
        let rules = self.handle.rules();
        let network = |network| Banned::Network(rules.bans.network(network));
        match target {
            BanTarget::Subject(subject) => Ok(vec![Banned::Subject(*subject)]),
            BanTarget::User(id) if id.is_empty() => Err(ControlError::Empty),
            BanTarget::User(id) => {
                let credentials = &rules.credentials;
                let mut meant = vec![Banned::Subject(credentials.subject(id))];
                if credentials.has_static(id) {
                    meant.push(Banned::Subject(credentials.static_subject(id)));
                }
                Ok(meant)
            }
            BanTarget::Network(meant) => Ok(vec![network(*meant)]),
            BanTarget::Pseudonym(pseudonym) => {
                let keys = (self.pseudonyms.0)();
                let clients = self
                    .handle
                    .clients(|client| keys.iter().any(|(_, key)| key.of(client) == *pseudonym));
                let mut meant: Vec<Banned> = clients
                    .into_iter()
                    .map(|client| {
                        let ip = client.expose().ip().to_canonical();
                        let length = if ip.is_ipv4() { 32 } else { SUBSCRIBER };
                        network(IpNet::new_assert(ip, length))
                    })
                    .collect();
                meant.sort_unstable();
                meant.dedup();
                if meant.is_empty() {
                    return Err(ControlError::NobodyThere);
                }
                Ok(meant)
            }
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

/// A file that is longer than it need be refuses nobody less.
fn tell_untidy(tidied: Result<(), LedgerError>) {
    if let Err(error) = tidied {
        tracing::warn!(%error, "a file of refusals stays longer than it need be");
    }
}
