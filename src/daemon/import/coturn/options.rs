//! The lines of `turnserver.conf`: `option`, `option=value` or `option value`, and comments.

use std::collections::BTreeMap;

/// What was written, by option.
#[derive(Debug, Default)]
pub(super) struct Options {
    set: BTreeMap<String, Vec<Value>>,
    unread: Vec<usize>,
}

#[derive(Debug)]
struct Value {
    line: usize,
    text: String,
}

impl Options {
    /// As coturn reads it: the name ends at a blank or the first `=`, quotes around a value go, and
    /// dashes before a name, as on a command line, are passed over.
    pub(super) fn parse(text: &str) -> Self {
        let mut options = Self::default();
        for (line, raw) in (1..).zip(text.lines()) {
            let trimmed = raw.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let bare = trimmed.trim_start_matches('-');
            let end = bare
                .find(|c: char| c == '=' || c.is_whitespace())
                .unwrap_or(bare.len());
            let (name, rest) = bare.split_at(end);
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if name.is_empty() || !name.chars().all(is_name) {
                options.unread.push(line);
                continue;
            }
            let rest = rest.trim_start();
            let rest = rest.strip_prefix('=').unwrap_or(rest).trim();
            let value = Value {
                line,
                text: unquoted(rest).to_owned(),
            };
            options.set.entry(name.to_owned()).or_default().push(value);
        }
        options
    }

    /// Every value, in order; an option without one has none.
    pub(super) fn all(&self, option: &str) -> Vec<String> {
        let values = self.set.get(option).into_iter().flatten();
        values
            .map(|value| value.text.clone())
            .filter(|text| !text.is_empty())
            .collect()
    }

    /// Whether an option is there and not switched off.
    pub(super) fn is_set(&self, option: &str) -> bool {
        self.set
            .get(option)
            .and_then(|values| values.last())
            .is_some_and(|value| !matches!(value.text.as_str(), "0" | "false" | "no" | "off"))
    }

    /// Where an option stands last.
    pub(super) fn line(&self, option: &str) -> Option<usize> {
        Some(self.set.get(option)?.last()?.line)
    }

    /// Every option that is written.
    pub(super) fn names(&self) -> Vec<String> {
        self.set.keys().cloned().collect()
    }

    /// Lines that are no options.
    pub(super) fn unread(&self) -> &[usize] {
        &self.unread
    }
}

fn unquoted(text: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}
