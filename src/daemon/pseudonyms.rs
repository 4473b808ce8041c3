//! The daily keys of address pseudonyms: random, in the state directory (0600), and deleted after
//! some days. Without a directory a key lives as long as its day, or the process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::admin::control::KeyOfDay;
use crate::daemon::keys;
use crate::turn::Pseudonymizer;
use crate::turn::{ClientAddr, Pseudonym};

/// In seconds.
pub(crate) const DAY: u64 = 24 * 3_600;
const PREFIX: &str = "pseudonym-";
const SUFFIX: &str = ".key";

/// Makes today's pseudonyms.
#[derive(Debug)]
pub(crate) struct Pseudonyms {
    directory: Option<PathBuf>,
    /// How many days a key is kept, today included.
    days: u64,
    today: u64,
    pseudonymizer: Pseudonymizer,
}

impl Pseudonyms {
    /// Reads or makes the key of the day of `unix`, and deletes keys that are too old.
    pub(crate) fn load(directory: Option<&Path>, days: u64, unix: u64) -> anyhow::Result<Self> {
        let today = unix / DAY;
        let pseudonymizer = key_of(directory, today)?;
        let pseudonyms = Self {
            directory: directory.map(Path::to_owned),
            days,
            today,
            pseudonymizer,
        };
        pseudonyms.forget_old()?;
        Ok(pseudonyms)
    }

    /// The keys that live, by their days: today's, and those of days before that are still kept.
    pub(crate) fn living(&self) -> Vec<KeyOfDay> {
        let mut keys = vec![(self.today, self.pseudonymizer.clone())];
        if let Some(directory) = self.directory.as_deref() {
            let oldest = (self.today + 1).saturating_sub(self.days);
            for day in oldest..self.today {
                let is_kept = directory.join(format!("{PREFIX}{day}{SUFFIX}")).exists();
                if let Some(key) = is_kept.then(|| key_of(Some(directory), day).ok()).flatten() {
                    keys.push((day, key));
                }
            }
        }
        keys
    }

    /// The pseudonym of `client` on the day of `unix`.
    pub(crate) fn of(&mut self, client: ClientAddr, unix: u64) -> anyhow::Result<Pseudonym> {
        self.begin_day_of(unix)?;
        Ok(self.pseudonymizer.of(client))
    }

    /// Takes up the key of the day of `unix`, if it is another day, and forgets old ones.
    pub(crate) fn begin_day_of(&mut self, unix: u64) -> anyhow::Result<()> {
        let day = unix / DAY;
        if day != self.today {
            self.pseudonymizer = key_of(self.directory.as_deref(), day)?;
            self.today = day;
            self.forget_old()?;
        }
        Ok(())
    }

    /// Keeps keys for so many days from now on, today included, and deletes those that are older now.
    pub(crate) fn keep_for(&mut self, days: u64) -> anyhow::Result<()> {
        self.days = days;
        self.forget_old()
    }

    /// Deletes keys that are too old.
    pub(crate) fn forget_old(&self) -> anyhow::Result<()> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let oldest = (self.today + 1).saturating_sub(self.days);
        for entry in fs::read_dir(directory).context("cannot list the state directory")? {
            let path = entry.context("cannot list the state directory")?.path();
            if day_of(&path).is_some_and(|day| day < oldest) {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error)
                            .with_context(|| format!("cannot delete {}", path.display()));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// The days, counted from 1970, whose keys are still in `directory`, in their order. Nothing is made
/// or deleted.
///
/// # Errors
/// When the directory or a key in it cannot be read.
pub(crate) fn kept(directory: &Path) -> anyhow::Result<Vec<KeyOfDay>> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("cannot list the state directory {}", directory.display()))?;
    let mut days = Vec::new();
    for entry in entries {
        let path = entry.context("cannot list the state directory")?.path();
        if let Some(day) = day_of(&path) {
            days.push((day, Pseudonymizer::new(keys::kept(&path)?)));
        }
    }
    days.sort_unstable_by_key(|(day, _)| *day);
    Ok(days)
}

/// The key of a day, counted from 1970.
fn key_of(directory: Option<&Path>, day: u64) -> anyhow::Result<Pseudonymizer> {
    keys::key(directory, &format!("{PREFIX}{day}{SUFFIX}")).map(Pseudonymizer::new)
}

fn day_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn client() -> ClientAddr {
        ClientAddr::new(SocketAddr::from(([192, 0, 2, 1], 1)))
    }

    #[test]
    fn a_pseudonym_survives_a_restart_and_not_its_day() {
        let state = tempfile::tempdir().unwrap();
        let mut first = Pseudonyms::load(Some(state.path()), 7, 10 * DAY).unwrap();
        let monday = first.of(client(), 10 * DAY).unwrap();
        let mut second = Pseudonyms::load(Some(state.path()), 7, 10 * DAY + 5).unwrap();
        assert_eq!(second.of(client(), 10 * DAY + 6).unwrap(), monday);
        assert_ne!(second.of(client(), 11 * DAY).unwrap(), monday);
    }

    #[test]
    fn keys_are_deleted_at_once_that_were_to_be_kept_for_longer() {
        let state = tempfile::tempdir().unwrap();
        let mut pseudonyms = Pseudonyms::load(Some(state.path()), 7, 10 * DAY).unwrap();
        for day in 11..14 {
            pseudonyms.begin_day_of(day * DAY).unwrap();
        }
        pseudonyms.keep_for(2).unwrap();
        let days: Vec<u64> = kept(state.path()).unwrap().iter().map(|k| k.0).collect();
        assert_eq!(days, [12, 13]);
        pseudonyms.keep_for(7).unwrap();
        pseudonyms.begin_day_of(18 * DAY).unwrap();
        assert_eq!(kept(state.path()).unwrap().len(), 3);
    }

    #[test]
    fn the_keys_of_all_days_that_are_kept_are_found_and_no_others() {
        let state = tempfile::tempdir().unwrap();
        assert!(kept(state.path()).unwrap().is_empty());
        let mut pseudonyms = Pseudonyms::load(Some(state.path()), 7, 10 * DAY).unwrap();
        let told = [10, 11].map(|day| pseudonyms.of(client(), day * DAY).unwrap());
        fs::write(state.path().join("nonce.key"), [0; 32]).unwrap();
        let found: Vec<(u64, Pseudonym)> = kept(state.path())
            .unwrap()
            .iter()
            .map(|(day, key)| (*day, key.of(client())))
            .collect();
        assert_eq!(found, [(10, told[0]), (11, told[1])]);
    }

    #[test]
    fn a_key_is_deleted_when_its_days_are_over() {
        let state = tempfile::tempdir().unwrap();
        let mut pseudonyms = Pseudonyms::load(Some(state.path()), 7, 10 * DAY).unwrap();
        let key = state.path().join("pseudonym-10.key");
        pseudonyms.of(client(), 16 * DAY).unwrap();
        assert!(key.exists());
        pseudonyms.of(client(), 17 * DAY).unwrap();
        assert!(!key.exists());
        assert!(state.path().join("pseudonym-17.key").exists());
    }
}
