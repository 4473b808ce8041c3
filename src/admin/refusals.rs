//! Whom this server refuses, as it is written down: `revocations` and `bans` in the state
//! directory, one JSON line for each change. They are read before anybody is served; what can no
//! longer matter is left out then and when the files have grown.
//!
//! A file names nobody: users and calls stand there as the server's keyed hashes of them, addresses
//! as hashes under the list's own key.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::admin::ledger::{Ledger, LedgerError};
use crate::turn::ban::{Banned, BannedNetwork, Bans, Prefix};
use crate::turn::credential::{CallId, DEFAULT_MAX_TTL, Subject};
use crate::turn::revocation::{Reach, Revocations, Revoked, UsernameDigest};

/// Lines beyond twice those that still matter, at which a file is written anew.
const GROWN: usize = 10_000;
/// How often what no longer matters is looked for, in seconds.
const TIDY: u64 = 3_600;

/// 16 bytes as hexadecimal digits.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex([u8; 16]);

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| is_hex);
        number
            .map(|number| Self(number.to_be_bytes()))
            .ok_or("an id is 32 hexadecimal digits")
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        format!("{:032x}", u128::from_be_bytes(hex.0))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Taken {
    Credential,
    User,
    Call,
}

/// A line of `revocations`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationLine {
    at: u64,
    revoked: Taken,
    id: Hex,
    /// The longest that a credential might last then, in seconds; none is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_ttl: Option<u64>,
}

impl RevocationLine {
    fn new(revoked: &Revoked, reach: Reach) -> Self {
        let (revoked, id) = match revoked {
            Revoked::Credential(name) => (Taken::Credential, name.to_bytes()),
            Revoked::User(subject) => (Taken::User, subject.to_bytes()),
            Revoked::Call(call) => (Taken::Call, call.to_bytes()),
        };
        let max_ttl = Some(reach.max_ttl());
        let max_ttl = max_ttl.filter(|max_ttl| *max_ttl != DEFAULT_MAX_TTL);
        Self {
            at: reach.at(),
            revoked,
            id: Hex(id),
            max_ttl: max_ttl.map(|max_ttl| max_ttl.as_secs()),
        }
    }

    fn read(&self) -> (Revoked, Reach) {
        let Hex(id) = self.id;
        let revoked = match self.revoked {
            Taken::Credential => Revoked::Credential(UsernameDigest::from_bytes(id)),
            Taken::User => Revoked::User(Subject::from_bytes(id)),
            Taken::Call => Revoked::Call(CallId::from_bytes(id)),
        };
        let max_ttl = self.max_ttl.map_or(DEFAULT_MAX_TTL, Duration::from_secs);
        (revoked, Reach::new(self.at, max_ttl))
    }
}

/// What was taken back, and where that is written down.
#[derive(Debug)]
pub(super) struct RevocationBook {
    pub(super) revocations: Revocations,
    ledger: Ledger,
    tidied: u64,
}

impl RevocationBook {
    /// Reads what was taken back and may still matter at `now`.
    pub(super) fn open(
        directory: Option<&Path>,
        max_ttl: Duration,
        now: u64,
    ) -> Result<Self, LedgerError> {
        let (ledger, lines) = Ledger::open::<RevocationLine>(directory, "revocations")?;
        let revocations = Revocations::default();
        revocations.add_all(lines.iter().map(RevocationLine::read));
        revocations.forget(max_ttl, now);
        let mut book = Self {
            revocations,
            ledger,
            tidied: now,
        };
        if book.revocations.len() < lines.len() {
            book.rewrite()?;
        }
        Ok(book)
    }

    /// Whether what is written down outlives the process.
    pub(super) const fn is_durable(&self) -> bool {
        self.ledger.is_durable()
    }

    /// Writes these down; they are in force already.
    pub(super) fn write(&mut self, revoked: &[Revoked], reach: Reach) -> io::Result<()> {
        let line = |revoked| RevocationLine::new(revoked, reach);
        self.ledger
            .append(&revoked.iter().map(line).collect::<Vec<_>>())
    }

    /// From time to time forgets what can no longer matter.
    pub(super) fn tidy(&mut self, max_ttl: Duration, now: u64) -> Result<(), LedgerError> {
        if now.saturating_sub(self.tidied) < TIDY {
            return Ok(());
        }
        self.tidied = now;
        self.revocations.forget(max_ttl, now);
        if self.ledger.lines() > 2 * self.revocations.len() + GROWN {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), LedgerError> {
        let all = self.revocations.all();
        self.ledger.rewrite(
            all.iter()
                .map(|(revoked, reach)| RevocationLine::new(revoked, *reach)),
        )
    }
}

/// Names a ban; the same for the same ban each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BanId(pub u64);

impl BanId {
    /// The name as it is printed, 16 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        number.map(Self)
    }

    fn of(banned: &Banned) -> Self {
        let mut digest = Sha256::new();
        match banned {
            Banned::Subject(subject) => {
                digest.update([0]);
                digest.update(subject.to_bytes());
            }
            Banned::Network(BannedNetwork { prefix, hash }) => {
                digest.update([prefix.family(), prefix.length()]);
                digest.update(hash);
            }
        }
        let mut first = [0; 8];
        first.copy_from_slice(&digest.finalize()[..8]);
        Self(u64::from_be_bytes(first))
    }
}

impl fmt::Display for BanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Somebody who may not allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// Its name.
    pub id: BanId,
    /// Who.
    pub banned: Banned,
    /// Since when, in Unix seconds.
    pub since: u64,
    /// Until when, in Unix seconds; none is for good.
    pub until: Option<u64>,
}

impl Ban {
    pub(super) fn new(banned: Banned, since: u64, until: Option<u64>) -> Self {
        Self {
            id: BanId::of(&banned),
            banned,
            since,
            until,
        }
    }

    fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Ban,
    Lift,
}

/// A line of `bans`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BanLine {
    at: u64,
    change: Change,
    /// 4 or 6 for a network, which has a prefix length then; none for a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<(u8, u8)>,
    id: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

impl BanLine {
    fn new(change: Change, ban: &Ban, at: u64) -> Self {
        let (network, id) = match ban.banned {
            Banned::Subject(subject) => (None, subject.to_bytes()),
            Banned::Network(BannedNetwork { prefix, hash }) => {
                (Some((prefix.family(), prefix.length())), hash)
            }
        };
        Self {
            at,
            change,
            network,
            id: Hex(id),
            until: ban.until,
        }
    }

    fn read(&self) -> Option<Ban> {
        let Hex(id) = self.id;
        let banned = match self.network {
            None => Banned::Subject(Subject::from_bytes(id)),
            Some((family, length)) => Banned::Network(BannedNetwork {
                prefix: Prefix::new(family, length)?,
                hash: id,
            }),
        };
        Some(Ban::new(banned, self.at, self.until))
    }
}

/// Who is banned, and where that is written down.
#[derive(Debug)]
pub(super) struct BanBook {
    pub(super) bans: Bans,
    all: BTreeMap<BanId, Ban>,
    ledger: Ledger,
}

impl BanBook {
    /// Reads who is banned at `now`; `key` is what addresses are hashed with.
    pub(super) fn open(
        directory: Option<&Path>,
        key: &[u8; 32],
        now: u64,
    ) -> Result<Self, LedgerError> {
        let name = "bans";
        let (ledger, lines) = Ledger::open::<BanLine>(directory, name)?;
        let mut all = BTreeMap::new();
        for (index, line) in lines.iter().enumerate() {
            let ban = line.read().ok_or_else(|| LedgerError::Garbled {
                path: directory.unwrap_or_else(|| Path::new("")).join(name),
                line: index + 1,
                reason: "there is no such network".to_owned(),
            })?;
            match line.change {
                Change::Ban => all.insert(ban.id, ban),
                Change::Lift => all.remove(&ban.id),
            };
        }
        all.retain(|_, ban| !ban.is_over(now));
        let bans = Bans::new(key);
        bans.add(all.values().map(|ban| (ban.banned, ban.until)));
        let mut book = Self { bans, all, ledger };
        if book.all.len() < lines.len() {
            book.rewrite()?;
        }
        Ok(book)
    }

    /// Whether what is written down outlives the process.
    pub(super) const fn is_durable(&self) -> bool {
        self.ledger.is_durable()
    }

    /// Puts these on the list; they are written down by [`write`](Self::write).
    pub(super) fn add(&mut self, bans: &[Ban]) {
        self.all.extend(bans.iter().map(|ban| (ban.id, *ban)));
        self.bans
            .add(bans.iter().map(|ban| (ban.banned, ban.until)));
    }

    /// Writes these down.
    pub(super) fn write(&mut self, bans: &[Ban]) -> io::Result<()> {
        let line = |ban: &Ban| BanLine::new(Change::Ban, ban, ban.since);
        self.ledger
            .append(&bans.iter().map(line).collect::<Vec<_>>())
    }

    /// Takes one off the list, once that is written down; false if it is not there.
    pub(super) fn lift(&mut self, id: BanId, now: u64) -> io::Result<bool> {
        let Some(ban) = self.all.get(&id) else {
            return Ok(false);
        };
        self.ledger
            .append(&[BanLine::new(Change::Lift, ban, now)])?;
        let lifted = ban.banned;
        self.all.remove(&id);
        self.bans.remove(|banned, _| *banned == lifted);
        Ok(true)
    }

    /// Those in force at `now`, by their names.
    pub(super) fn list(&self, now: u64) -> Vec<Ban> {
        let all = self.all.values().copied();
        all.filter(|ban| !ban.is_over(now)).collect()
    }

    /// Forgets those that are over.
    pub(super) fn tidy(&mut self, now: u64) -> Result<(), LedgerError> {
        if self.all.values().any(|ban| ban.is_over(now)) {
            self.all.retain(|_, ban| !ban.is_over(now));
            self.bans
                .remove(|_, until| until.is_some_and(|until| until <= now));
        }
        if self.ledger.lines() > 2 * self.all.len() + GROWN {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), LedgerError> {
        let line = |ban: &Ban| BanLine::new(Change::Ban, ban, ban.since);
        self.ledger.rewrite(self.all.values().map(line))
    }
}

#[cfg(test)]
mod tests;
