//! What is wrong with a configuration, and how an operator is told.
//!
//! A [`Problem`] names the source, the key, the value and what would be right. The value of a
//! secret is never part of one, nor is the value of a key nobody knows: it may be a secret under a
//! misspelt name.

use std::fmt;

/// How much of a value is shown.
const SHOWN: usize = 80;

/// Every problem found in one configuration.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    problems: Vec<Problem>,
}

impl Error {
    pub(super) const fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// The problems, in the order of the configuration's keys.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the value was written: a file, an environment variable, a flag, or the defaults.
    pub source: String,
    /// The key's path, `relay.ports`; empty when it is the source itself that cannot be read.
    pub key: String,
    /// The value as written, escaped and cut short; `None` for secrets and unknown keys.
    pub value: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match (self.key.as_str(), &self.value) {
            ("", _) => {}
            (key, Some(value)) => write!(f, "{key} = {value}: ")?,
            (key, None) => write!(f, "{key}: ")?,
        }
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

/// Text from outside as it may stand in a message: quoted, without control characters, short.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}

/// As [`quoted`], without the quotes.
pub(super) fn escaped(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(SHOWN)
        .collect::<String>()
        .escape_debug()
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}
