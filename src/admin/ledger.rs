//! Files of JSON lines that outlive the process: each line is on the disk before whoever asked for
//! it hears so, and all of them are read before anybody is served. A file that cannot be understood
//! is never passed over, since what it says is whom to refuse.
//!
//! The last line alone may be half a line: the process or the machine ended while it was written,
//! so that nobody was told of it. It is cut off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest line in bytes.
const MAX_LINE: u64 = 4_096;

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{}, line {line}: {reason}; mend the line, or move the file away to start without it, and \
         what it refuses is refused no longer",
        path.display()
    )]
    Garbled {
        /// The file.
        path: PathBuf,
        /// The first line that is not understood, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// One file, or none: then what it is told lives as long as the process.
#[derive(Debug, Default)]
pub(super) struct Ledger(Option<Open>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    len: u64,
    lines: usize,
    /// Whether a line may be cut short in the middle of the file.
    is_torn: bool,
}

impl Ledger {
    /// The ledger `name` in `directory`, and its lines.
    pub(super) fn open<T: DeserializeOwned>(
        directory: Option<&Path>,
        name: &str,
    ) -> Result<(Self, Vec<T>), LedgerError> {
        let Some(directory) = directory else {
            return Ok((Self::default(), Vec::new()));
        };
        let path = directory.join(name);
        let failed = |what| {
            let path = path.clone();
            move |source| LedgerError::System { what, path, source }
        };
        let file = options().open(&path).map_err(failed("open"))?;
        let read = read(&file, &path)?;
        let open = Open {
            file,
            len: read.whole,
            lines: read.lines.len(),
            is_torn: false,
            path: path.clone(),
        };
        if read.is_torn {
            let cut = open.file.set_len(read.whole);
            cut.and_then(|()| open.file.sync_all())
                .map_err(failed("cut off the half line at the end of"))?;
            tracing::warn!(
                file = %path.display(),
                "its last line was cut short, so that nobody was told of it; it is left out"
            );
        }
        sync_directory(directory).map_err(failed("keep"))?;
        Ok((Self(Some(open)), read.lines))
    }

    /// Whether what it is told outlives the process.
    pub(super) const fn is_durable(&self) -> bool {
        self.0.is_some()
    }

    /// How many lines it has.
    pub(super) fn lines(&self) -> usize {
        self.0.as_ref().map_or(0, |open| open.lines)
    }

    /// Writes these down and returns when they are on the disk.
    pub(super) fn append<T: Serialize>(&mut self, more: &[T]) -> io::Result<()> {
        let Some(open) = &mut self.0 else {
            return Ok(());
        };
        if open.is_torn {
            return Err(io::Error::other("an earlier line could not be taken back"));
        }
        let text = text(more.iter())?;
        let written = open.file.write_all(&text);
        if let Err(error) = written.and_then(|()| open.file.sync_data()) {
            // What was written of it is no line; without it the next one would be none either.
            open.is_torn = open.file.set_len(open.len).is_err();
            return Err(error);
        }
        open.len += text.len() as u64;
        open.lines += more.len();
        Ok(())
    }

    /// Begins anew with these lines alone.
    pub(super) fn rewrite<T: Serialize>(
        &mut self,
        all: impl Iterator<Item = T>,
    ) -> Result<(), LedgerError> {
        let Some(open) = &mut self.0 else {
            return Ok(());
        };
        let path = open.path.clone();
        let rewritten = open.rewrite(all);
        rewritten.map_err(|source| LedgerError::System {
            what: "write anew",
            path,
            source,
        })
    }
}

impl Open {
    fn rewrite<T: Serialize>(&mut self, all: impl Iterator<Item = T>) -> io::Result<()> {
        // Whole under another name first, so that a crash leaves the one or the other.
        let draft = self.path.with_extension("new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut lines = 0;
        let text = text(all.inspect(|_| lines += 1))?;
        let mut file = options().open(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        if let Some(directory) = self.path.parent() {
            sync_directory(directory)?;
        }
        self.file = file;
        self.len = text.len() as u64;
        self.lines = lines;
        self.is_torn = false;
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn text<T: Serialize>(lines: impl Iterator<Item = T>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
    }
    Ok(text)
}

struct Found<T> {
    lines: Vec<T>,
    /// How many bytes its whole lines take.
    whole: u64,
    is_torn: bool,
}

fn read<T: DeserializeOwned>(file: &File, path: &Path) -> Result<Found<T>, LedgerError> {
    let mut reader = BufReader::new(file);
    let mut found = Found {
        lines: Vec::new(),
        whole: 0,
        is_torn: false,
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut line);
        let read = read.map_err(|source| LedgerError::System {
            what: "read",
            path: path.to_owned(),
            source,
        })? as u64;
        let garbled = |reason: String| LedgerError::Garbled {
            path: path.to_owned(),
            line: found.lines.len() + 1,
            reason,
        };
        if read == 0 {
            return Ok(found);
        }
        if line.last() != Some(&b'\n') {
            if read == MAX_LINE {
                return Err(garbled(format!("it is longer than {MAX_LINE} bytes")));
            }
            found.is_torn = true;
            return Ok(found);
        }
        let parsed = serde_json::from_slice(&line).map_err(|error| {
            // Without the place, which would be that within the line.
            let said = error.to_string();
            let (reason, _) = said.split_once(" at line ").unwrap_or((&said, ""));
            garbled(format!("it is not what this file holds ({reason})"))
        })?;
        found.lines.push(parsed);
        found.whole += read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open(directory: &Path) -> Result<(Ledger, Vec<u64>), LedgerError> {
        Ledger::open(Some(directory), "numbers")
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_and_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, found) = open(directory.path()).unwrap();
        assert!(found.is_empty() && ledger.is_durable());
        ledger.append(&[1, 2]).unwrap();
        ledger.append(&[3]).unwrap();
        let (mut ledger, found) = open(directory.path()).unwrap();
        assert_eq!((found, ledger.lines()), (vec![1, 2, 3], 3));
        ledger.rewrite([3].iter()).unwrap();
        ledger.append(&[4]).unwrap();
        assert_eq!(open(directory.path()).unwrap().1, [3, 4]);
        let metadata = fs::metadata(directory.path().join("numbers")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn half_a_line_at_the_end_is_cut_off_and_what_follows_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("numbers");
        fs::write(&file, "1\n2\n3").unwrap();
        let (mut ledger, found) = open(directory.path()).unwrap();
        assert_eq!(found, [1, 2]);
        ledger.append(&[5]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "1\n2\n5\n");
    }

    #[test]
    fn a_garbled_line_is_named_with_its_file_and_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("numbers");
        let long = "9".repeat(5_000);
        for (text, line) in [
            ("1\nx\n3\n", "line 2"),
            ("\n1\n", "line 1"),
            ("1\n2\n-3\n", "line 3"),
            ("1\n\u{0}\n", "line 2"),
            (&*long, "line 1"),
        ] {
            fs::write(&file, text).unwrap();
            let said = open(directory.path()).unwrap_err().to_string();
            assert!(
                said.contains(line) && said.contains("move the file away"),
                "{said}"
            );
            assert!(said.contains("numbers") && !said.contains('\n'), "{said}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn a_ledger_that_cannot_be_opened_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("numbers")).unwrap();
        let said = open(directory.path()).unwrap_err().to_string();
        assert!(said.contains("numbers"), "{said}");
    }

    #[test]
    fn without_a_directory_nothing_is_durable() {
        let (mut ledger, found) = Ledger::open::<u64>(None, "numbers").unwrap();
        ledger.append(&[1]).unwrap();
        assert!(found.is_empty() && !ledger.is_durable());
    }
}
