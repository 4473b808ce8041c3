//! Where a `serve` without configuration leaves its credential, so that `probe` finds the server
//! of this machine: `taciturn/ice.json` in the runtime directory, for its owner alone, as long as
//! the server runs. The server holds a lock on it meanwhile, so that what a killed one left behind
//! is told from what a living one left.

use std::ffi::OsString;
#[cfg(any(feature = "probe", test))]
use std::fs::TryLockError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Our directory within a runtime directory.
const DIRECTORY: &str = "taciturn";
const FILE: &str = "ice.json";

/// The places where it may be, the best first.
pub(crate) fn places() -> Vec<PathBuf> {
    places_of(
        std::env::var_os("RUNTIME_DIRECTORY"),
        std::env::var_os("XDG_RUNTIME_DIR"),
    )
}

fn places_of(service: Option<OsString>, user: Option<OsString>) -> Vec<PathBuf> {
    // systemd.exec(5): a list with colons, whose directories may be named after the service.
    let service = service.as_deref().and_then(|list| {
        let first = std::env::split_paths(list).next()?;
        Some(if first.ends_with(DIRECTORY) {
            first
        } else {
            first.join(DIRECTORY)
        })
    });
    let user = user.map(|directory| PathBuf::from(directory).join(DIRECTORY));
    let machine = Path::new("/run").join(DIRECTORY);
    [service, user, Some(machine)]
        .into_iter()
        .flatten()
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(FILE))
        .collect()
}

/// A credential that lies in a file as long as this is kept.
#[derive(Debug)]
pub(crate) struct Left {
    path: PathBuf,
    text: String,
    /// Its lock goes with the process, however that ends.
    _held: File,
}

/// Opens what a server that still runs left at `path`.
///
/// # Errors
/// When it cannot be opened; as one that is not there when nobody holds it any more.
#[cfg(any(feature = "probe", test))]
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Ok(file),
        Ok(()) => Err(io::ErrorKind::NotFound.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Leaves `text` in the first of `places` that can be written; `None` if there is none, which
/// keeps nobody from relaying.
pub(crate) fn leave(places: Vec<PathBuf>, text: &str) -> Option<Left> {
    for path in places {
        match write(&path, text) {
            Ok(file) => {
                return Some(Left {
                    path,
                    text: text.to_owned(),
                    _held: file,
                });
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "the credential is not left here");
            }
        }
    }
    None
}

impl Drop for Left {
    fn drop(&mut self) {
        // Another server may have left its own since.
        let ours = fs::read_to_string(&self.path).is_ok_and(|text| text == self.text);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the credential stays behind");
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.is_dir()) {
        DirBuilder::new().mode(0o700).create(directory)?;
    }
    // Written whole under another name first, so that nobody reads half of it.
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.lock()?;
    file.write_all(text.as_bytes())?;
    fs::rename(&draft, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn place(directory: &Path) -> Vec<PathBuf> {
        vec![directory.join(DIRECTORY).join(FILE)]
    }

    #[test]
    fn what_is_left_is_its_owners_alone_and_goes_with_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = place(directory.path()).remove(0);
        let left = leave(place(directory.path()), "{}").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(left);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_server_left_is_nobodys() {
        let directory = tempfile::tempdir().unwrap();
        let path = place(directory.path()).remove(0);
        let left = leave(place(directory.path()), "{}").unwrap();
        assert!(open(&path).is_ok());
        // As a process that is killed: the file stays, its lock goes.
        let copy = fs::read(&path).unwrap();
        drop(left);
        fs::write(&path, copy).unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_a_later_server_left_stays() {
        let directory = tempfile::tempdir().unwrap();
        let first = leave(place(directory.path()), "first").unwrap();
        let second = leave(place(directory.path()), "second").unwrap();
        drop(first);
        let path = place(directory.path()).remove(0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent");
        let places = [place(&absent), place(directory.path())].concat();
        let left = leave(places, "{}").unwrap();
        assert!(left.path.starts_with(directory.path().join(DIRECTORY)));
        assert!(leave(place(&absent), "{}").is_none());
    }

    #[test]
    fn the_services_own_directory_comes_first() {
        let places = |service: Option<&str>, user: Option<&str>| -> Vec<String> {
            places_of(service.map(Into::into), user.map(Into::into))
                .iter()
                .map(|path| path.display().to_string())
                .collect()
        };
        assert_eq!(places(None, None), ["/run/taciturn/ice.json"]);
        assert_eq!(
            places(Some("/run/relay:/run/other"), Some("/run/user/1000")),
            [
                "/run/relay/taciturn/ice.json",
                "/run/user/1000/taciturn/ice.json",
                "/run/taciturn/ice.json"
            ]
        );
        assert_eq!(
            places(Some("/run/taciturn"), Some("")),
            ["/run/taciturn/ice.json", "/run/taciturn/ice.json"]
        );
    }
}
