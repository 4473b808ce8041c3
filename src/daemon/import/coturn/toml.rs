//! Our configuration as text, in the order in which it is filled.

use std::fmt;

/// Sections with their keys.
#[derive(Debug, Default)]
pub(super) struct Document {
    top: Vec<(&'static str, String)>,
    sections: Vec<(&'static str, Vec<(&'static str, String)>)>,
}

impl Document {
    /// Sets a key of the top level.
    pub(super) fn top(&mut self, key: &'static str, value: String) {
        self.top.push((key, value));
    }

    /// Sets a key of a section.
    pub(super) fn set(&mut self, section: &'static str, key: &'static str, value: String) {
        let place = self.sections.iter().position(|(name, _)| *name == section);
        let place = place.unwrap_or_else(|| {
            self.sections.push((section, Vec::new()));
            self.sections.len() - 1
        });
        if let Some((_, keys)) = self.sections.get_mut(place) {
            keys.push((key, value));
        }
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Made by `taciturn import coturn`. `taciturn check` tells what it does."
        )?;
        for (key, value) in &self.top {
            writeln!(f, "{key} = {value}")?;
        }
        for (section, keys) in &self.sections {
            writeln!(f, "\n[{section}]")?;
            for (key, value) in keys {
                writeln!(f, "{key} = {value}")?;
            }
        }
        Ok(())
    }
}

/// A basic string.
pub(super) fn text(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An array of strings.
pub(super) fn list(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|value| text(value)).collect();
    format!("[{}]", values.join(", "))
}

/// An inline table of strings.
pub(super) fn table(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{} = {}", text(key), text(value)))
        .collect();
    format!("{{ {} }}", pairs.join(", "))
}
