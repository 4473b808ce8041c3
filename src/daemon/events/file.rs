//! Events in a file, a line each, appended. Before each write the path is looked at, so that a file
//! that was moved away or deleted, as log rotation does, is followed by a new one: no signal is
//! needed, and none is harmful.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;

use crate::admin::events::Counts;

/// The file at one path.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    file: Option<File>,
    /// Whether the last write failed, perhaps in the middle of a line.
    is_torn: bool,
}

impl LineFile {
    /// Opens it, or makes it, for its owner to write and its group to read.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = open(path).with_context(|| {
            let path = path.to_string_lossy().escape_debug().to_string();
            format!("cannot open events.file {path}")
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            is_torn: false,
        })
    }

    /// Appends lines; those that cannot be written are dropped and counted.
    pub(super) fn write(&mut self, lines: &[Arc<str>], counts: &Counts) {
        let mut text = String::new();
        if self.is_torn {
            text.push('\n');
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        let number = lines.len() as u64;
        match self.append(text.as_bytes()) {
            Ok(()) => {
                counts.delivered.fetch_add(number, Ordering::Relaxed);
                if std::mem::take(&mut self.is_torn) {
                    tracing::info!("events are written again");
                }
            }
            Err(error) => {
                counts.dropped.fetch_add(number, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_torn, true) {
                    tracing::error!(%error, "events cannot be written");
                }
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.is_there() {
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(&self.path)?),
        };
        file.write_all(bytes)
    }

    /// Whether what stands at the path is the file that is open.
    fn is_there(&self) -> bool {
        let Some(open) = &self.file else {
            return false;
        };
        let same = |at: std::fs::Metadata, open: std::fs::Metadata| {
            (at.dev(), at.ino()) == (open.dev(), open.ino())
        };
        match (std::fs::metadata(&self.path), open.metadata()) {
            (Ok(at), Ok(open)) => same(at, open),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<Arc<str>> {
        text.iter().map(|line| Arc::from(*line)).collect()
    }

    #[test]
    fn a_file_that_was_moved_away_is_followed_by_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let [path, old] = ["events.jsonl", "events.1"].map(|name| directory.path().join(name));
        std::fs::write(&path, "before\n").unwrap();
        let mut file = LineFile::open(&path).unwrap();
        let counts = Counts::default();
        file.write(&lines(&["one", "two"]), &counts);
        std::fs::rename(&path, &old).unwrap();
        file.write(&lines(&["three"]), &counts);
        std::fs::remove_file(&path).unwrap();
        file.write(&lines(&["four"]), &counts);
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&old), "before\none\ntwo\n");
        assert_eq!(read(&path), "four\n");
        assert_eq!(counts.delivered.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_next_line_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("events.jsonl");
        let mut file = LineFile::open(&path).unwrap();
        let counts = Counts::default();
        std::fs::remove_dir_all(&folder).unwrap();
        file.write(&lines(&["lost", "lost too"]), &counts);
        std::fs::create_dir(&folder).unwrap();
        file.write(&lines(&["found"]), &counts);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\nfound\n");
        let [delivered, dropped] =
            [&counts.delivered, &counts.dropped].map(|count| count.load(Ordering::Relaxed));
        assert_eq!((delivered, dropped), (1, 2));
    }
}
