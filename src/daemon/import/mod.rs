//! `taciturn import`: another server's configuration, written anew as ours. What has no counterpart
//! here is listed by its name with the reason, never passed over.

mod coturn;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::daemon::cli::{Import, ImportFrom};
use crate::daemon::{Usage, print};

/// The longest file that is read.
const LONGEST: u64 = 1 << 20;

/// Writes our configuration to standard output or a new file, and what is left to standard error.
///
/// # Errors
/// When the file cannot be read or is no text, or the new file is there already.
pub(crate) fn run(arguments: &Import) -> anyhow::Result<()> {
    let ImportFrom::Coturn { file, output } = &arguments.from;
    let imported = coturn::import(&read(file)?);
    match output {
        Some(output) => write_new(output, &imported.config)?,
        None => print(imported.config.trim_end())?,
    }
    let mut stderr = std::io::stderr();
    for note in &imported.notes {
        writeln!(stderr, "{note}")?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > LONGEST {
        let text = format!("{} is no configuration: it is too long", path.display());
        return Err(Usage(text).into());
    }
    String::from_utf8(bytes).map_err(|_| {
        Usage(format!(
            "{} is no configuration: it is no text",
            path.display()
        ))
        .into()
    })
}

/// Writes a new file, for its owner alone: in a configuration there are secrets.
pub(crate) fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| {
            format!(
                "cannot write {}, which must not be there yet",
                path.display()
            )
        })
}
