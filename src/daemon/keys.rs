//! Keys that outlive the process: 32 random bytes each, in the state directory, readable by their
//! owner alone. Without a directory they live as long as the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::config::Keys;
use crate::turn::ban::Bans;
use crate::turn::credential::SealingKeys;
use crate::turn::revocation::Revocations;
use crate::turn::{NonceKey, TicketKey};

/// A key as it is kept.
const LEN: usize = 32;

/// Reads the keys of `directory`, and makes those that are not there yet.
///
/// # Errors
/// When the directory or a file in it cannot be used, or a file is not a key.
pub(crate) fn load(directory: Option<&Path>) -> anyhow::Result<Keys> {
    if let Some(directory) = directory {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("cannot make the state directory {}", directory.display()))?;
        let metadata = fs::metadata(directory).context("cannot look at the state directory")?;
        refuse_if_others_may_use(&metadata, 0o022)
            .with_context(|| format!("the state directory {} is not safe", directory.display()))?;
    }
    Ok(Keys {
        nonce: NonceKey::new(*key(directory, "nonce.key")?),
        subject: key(directory, "subject.key")?,
        ticket: TicketKey::new(key(directory, "ticket.key")?),
        sealing: sealing(directory)?,
        revocations: Revocations::default(),
        bans: Bans::default(),
    })
}

/// The key that seals.
const SEALING: &str = "sealing.key";
/// What this one sealed is still good while it is there.
const PREVIOUS: &str = "sealing.previous.key";

/// The keys that usernames are sealed with.
pub(crate) fn sealing(directory: Option<&Path>) -> anyhow::Result<SealingKeys> {
    let mut keys = vec![key(directory, SEALING)?];
    if directory.is_some_and(|directory| directory.join(PREVIOUS).exists()) {
        keys.push(key(directory, PREVIOUS)?);
    }
    Ok(SealingKeys::new(&keys))
}

/// Changes when these do; it says nothing of them to who does not have them.
pub(crate) fn sealing_fingerprint(directory: Option<&Path>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for name in [SEALING, PREVIOUS] {
        let mut bytes = Zeroizing::new([0; LEN]);
        let file = directory.and_then(|directory| File::open(directory.join(name)).ok());
        let is_whole = file.is_some_and(|mut file| file.read_exact(bytes.as_mut()).is_ok());
        digest.update([u8::from(is_whole)]);
        digest.update(bytes.as_ref());
    }
    digest.finalize().into()
}

/// The key kept as `name` in `directory`, made if it is not there yet.
///
/// # Errors
/// When the file cannot be used, or is not a key.
pub(crate) fn key(directory: Option<&Path>, name: &str) -> anyhow::Result<Zeroizing<[u8; LEN]>> {
    let Some(directory) = directory else {
        return random();
    };
    let path = directory.join(name);
    read_or_make(&path).with_context(|| format!("cannot use the key file {}", path.display()))
}

/// 32 random bytes.
pub(crate) fn random() -> anyhow::Result<Zeroizing<[u8; LEN]>> {
    let mut bytes = Zeroizing::new([0; LEN]);
    getrandom::fill(bytes.as_mut()).context("cannot get random bytes")?;
    Ok(bytes)
}

/// A key that others can read or replace is no secret.
fn refuse_if_others_may_use(metadata: &fs::Metadata, forbidden: u32) -> anyhow::Result<()> {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & forbidden == 0 {
        return Ok(());
    }
    bail!("others may use it (mode {mode:03o}); chmod go-rwx it, and trust no key in it until then")
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The key that is kept at `path`.
///
/// # Errors
/// When there is none, or others may use it.
pub(crate) fn kept(path: &Path) -> anyhow::Result<Zeroizing<[u8; LEN]>> {
    let file = File::open(path);
    file.map_err(Into::into)
        .and_then(read)
        .with_context(|| format!("cannot use the key file {}", path.display()))
}

fn read(mut file: File) -> anyhow::Result<Zeroizing<[u8; LEN]>> {
    refuse_if_others_may_use(&file.metadata()?, 0o077)?;
    let mut bytes = Zeroizing::new([0; LEN]);
    file.read_exact(bytes.as_mut()).context(
        "it is no key of 32 bytes; remove it, and a new one is made, with which subjects \
         and nonces change",
    )?;
    Ok(bytes)
}

fn read_or_make(path: &Path) -> anyhow::Result<Zeroizing<[u8; LEN]>> {
    match File::open(path) {
        Ok(file) => read(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = random()?;
            // Written whole under another name first, so that a crash leaves no half a key.
            let draft = path.with_extension("new");
            remove_if_there(&draft)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(key.as_ref())?;
            file.sync_all()?;
            fs::rename(&draft, path)?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_the_same_and_are_their_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let first = load(Some(&state)).unwrap();
        assert_eq!(load(Some(&state)).unwrap().subject, first.subject);
        for name in ["subject.key", "nonce.key", "ticket.key", "sealing.key"] {
            let path = state.join(name);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let before = fs::read(&path).unwrap();
            load(Some(&state)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), before, "{name}");
        }
        assert_ne!(load(None).unwrap().subject, first.subject);
    }

    #[test]
    fn a_key_or_a_directory_that_others_may_use_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let chmod = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        load(Some(directory.path())).unwrap();
        let key = directory.path().join("nonce.key");
        chmod(&key, 0o644);
        let error = format!("{:#}", load(Some(directory.path())).unwrap_err());
        assert!(
            error.contains("nonce.key") && error.contains("644"),
            "{error}"
        );
        chmod(&key, 0o600);
        chmod(directory.path(), 0o777);
        let error = format!("{:#}", load(Some(directory.path())).unwrap_err());
        assert!(
            error.contains("state directory") && error.contains("777"),
            "{error}"
        );
    }

    #[test]
    fn a_draft_that_somebody_laid_out_does_not_become_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let draft = directory.path().join("nonce.new");
        fs::write(&draft, b"").unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o666)).unwrap();
        load(Some(directory.path())).unwrap();
        let key = fs::metadata(directory.path().join("nonce.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_truncated_key_is_refused_and_its_file_named() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("nonce.key");
        fs::write(&key, b"short").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let error = format!("{:#}", load(Some(directory.path())).unwrap_err());
        assert!(
            error.contains("nonce.key") && error.contains("32 bytes"),
            "{error}"
        );
    }
}
