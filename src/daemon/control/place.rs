//! The control socket as the daemon lays it out: for its own user alone, and gone with it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::net::UnixListener;

/// A control socket that lies there as long as this is kept.
#[derive(Debug)]
pub(crate) struct Laid {
    path: PathBuf,
}

impl Drop for Laid {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket stays behind");
        }
    }
}

/// Listens at `path`. What a killed daemon left there is replaced; what somebody answers at is not.
///
/// # Errors
/// When another daemon is there, something else is, or the system refuses.
pub(crate) fn lay(path: &Path) -> anyhow::Result<(UnixListener, Laid)> {
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
        && !directory.is_dir()
    {
        fs::DirBuilder::new()
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            bail!("{} is there and is no socket", path.display());
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            bail!("another taciturn answers at {}", path.display());
        }
        Ok(_) | Err(_) => {}
    }
    // Under another name first, so that nobody finds it while others may use it.
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", draft.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&draft)
        .with_context(|| format!("cannot make a socket in place of {}", draft.display()))?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
    fs::rename(&draft, path).with_context(|| format!("cannot lay out {}", path.display()))?;
    let path = path.to_owned();
    Ok((listener, Laid { path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_its_users_alone_and_goes_with_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run").join("control.sock");
        let (listener, laid) = lay(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        let error = lay(&path).unwrap_err().to_string();
        assert!(error.contains("another taciturn"), "{error}");
        drop((listener, laid));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn only_a_socket_at_which_nobody_answers_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let (listener, laid) = lay(&path).unwrap();
        // As a daemon that is killed: the socket stays, and nobody answers at it.
        let kept = directory.path().join("kept.sock");
        fs::rename(&path, &kept).unwrap();
        drop((listener, laid));
        fs::rename(&kept, &path).unwrap();
        assert!(UnixStream::connect(&path).is_err());
        drop(lay(&path).unwrap());
        fs::write(&path, "something dear").unwrap();
        let error = lay(&path).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "something dear");
    }
}
