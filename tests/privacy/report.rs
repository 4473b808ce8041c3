//! What an attack came to, and the table of all.

use std::fmt;

use crate::lab::search::Finding;
use crate::leaks::{ENFORCED, OUT_OF_REACH};
use crate::stage::Stage;

/// One attack on a leak.
pub(crate) struct Attack {
    pub(crate) leak: &'static str,
    pub(crate) how: &'static str,
    pub(crate) run: fn(&Stage) -> Report,
}

/// What an attack looked at, and what it found there.
#[derive(Default)]
pub(crate) struct Report {
    looked: Vec<String>,
    found: Vec<String>,
}

impl Report {
    /// Says what was looked at.
    pub(crate) fn looked(&mut self, at: impl Into<String>) {
        self.looked.push(at.into());
    }

    /// A leak, unless `holds`.
    pub(crate) fn holds(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.found.push(otherwise.into());
        }
    }

    /// Leaks, if there are any.
    pub(crate) fn found(&mut self, place: &str, findings: &[Finding]) {
        let told = findings.iter().take(3);
        self.found
            .extend(told.map(|finding| format!("{place}: {finding}")));
    }

    /// What stopped the attack.
    pub(crate) fn broken(why: &str) -> Self {
        // It may quote a whole log, which the panic has printed.
        let first = why.lines().next().unwrap_or_default();
        Self {
            looked: Vec::new(),
            found: vec![format!("the attack broke off: {first}")],
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found.is_empty() {
            return write!(f, "nothing in {}", self.looked.join(", "));
        }
        write!(f, "LEAK: {}", self.found.join("; "))
    }
}

/// The table, of attacks in the order of the leaks.
pub(crate) struct Table<'a>(pub(crate) &'a [(&'a Attack, Report)]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for leak in &ENFORCED {
            writeln!(f, "\n{:4} {}", leak.id, leak.what)?;
            for (attack, report) in self.0.iter().filter(|(a, _)| a.leak == leak.id) {
                writeln!(f, "     attacked: {}", attack.how)?;
                writeln!(f, "     found:    {report}")?;
            }
        }
        for leak in &OUT_OF_REACH {
            writeln!(f, "\n{:4} {}", leak.id, leak.what)?;
            writeln!(
                f,
                "     not enforced: out of a relay's reach (docs/privacy.md)"
            )?;
        }
        Ok(())
    }
}
