//! The path of a key, from the top of the configuration down.

use std::fmt;

use super::error::escaped;

/// `relay.ports`, `listen.udp.1`, `relay.external."10.0.0.7"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(Vec<String>);

impl Key {
    /// The key `name` of `section`.
    pub(super) fn new(section: &str, name: &str) -> Self {
        Self(vec![section.to_owned(), name.to_owned()])
    }

    /// A key of the top level, or a whole section.
    pub(super) fn top(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    pub(super) const fn from_segments(segments: Vec<String>) -> Self {
        Self(segments)
    }

    /// One element of a list.
    pub(super) fn at(&self, index: usize) -> Self {
        self.entry(&index.to_string())
    }

    /// One entry of a table.
    pub(super) fn entry(&self, name: &str) -> Self {
        let mut segments = self.0.clone();
        segments.push(name.to_owned());
        Self(segments)
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether a value found here may be a secret. Whole tables of secrets are, because a value of
    /// the wrong type stands where the table should.
    pub(super) fn is_secret(&self) -> bool {
        let path: Vec<&str> = self.segments().collect();
        match path.as_slice() {
            ["auth", "secrets", _, "id" | "file"] => false,
            ["api", "keys", _, "id" | "file" | "scopes", ..] => false,
            ["events", "webhooks", _, "url" | "file" | "ca"] => false,
            ["auth"] | ["auth", "secrets" | "users", ..] => true,
            ["events"] | ["events", "webhooks", ..] => true,
            ["api"] | ["api", "keys", ..] => true,
            _ => false,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if !segment.is_empty() && segment.chars().all(bare) {
                f.write_str(&escaped(segment))?;
            } else {
                write!(f, "\"{}\"", escaped(segment))?;
            }
        }
        Ok(())
    }
}
