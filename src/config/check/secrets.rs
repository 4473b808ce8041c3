//! Secrets shared with the platform's backend, read from files, and static users' passwords.
//! None of them is ever shown.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::Checker;
use crate::config::Secret;
use crate::config::file;
use crate::config::key::Key;
use crate::config::parse::Fault;
use crate::config::sources::{escaped_path, read_text};

/// The longest file of a secret.
const MAX_SECRET: u64 = 4096;

/// RFC 8489 §14.3: a USERNAME has fewer than 509 bytes.
const MAX_USERNAME: usize = 508;

/// The longest id of a secret.
const MAX_ID: usize = 32;

impl Checker<'_> {
    pub(super) fn secrets(&mut self, typed: &[file::Secret]) -> Vec<Secret> {
        let mut ids = BTreeSet::new();
        let mut secrets = Vec::new();
        for (index, secret) in typed.iter().enumerate() {
            let key = Key::new("auth", "secrets").at(index);
            let id = self.parse(&key.entry("id"), id(&secret.id), String::new());
            if !id.is_empty() && !ids.insert(id.clone()) {
                let fault = Fault::new("two secrets have this id", "give each its own");
                self.refuse(&key.entry("id"), fault);
            }
            let file = secret.file.as_deref();
            if let Some(value) = self.file_or_value(&key, file, secret.value.as_ref()) {
                secrets.push(Secret { id, value });
            }
        }
        secrets
    }

    /// The secret that stands under `key`, in a file or as it is.
    pub(super) fn file_or_value(
        &mut self,
        key: &Key,
        file: Option<&str>,
        value: Option<&SecretString>,
    ) -> Option<SecretString> {
        let (at, value) = match (file, value) {
            (Some(path), None) => {
                let at = key.entry("file");
                let value = read_secret(Path::new(path), &mut self.warnings);
                (at, value)
            }
            (None, Some(value)) => (key.entry("value"), sound(value.clone())),
            (Some(_), Some(_)) => (
                key.clone(),
                Err(Fault::new("it has a file and a value", "keep one of them")),
            ),
            (None, None) => (
                key.clone(),
                Err(Fault::new("it has neither file nor value", "name a file")),
            ),
        };
        value
            .map_err(|fault| self.refuse_secret(&at, fault, file))
            .ok()
    }

    /// Refuses a secret. A variable that was to name its file may hold the secret itself, so that
    /// only what is plainly a path is shown.
    pub(super) fn refuse_secret(&mut self, at: &Key, fault: Fault, path: Option<&str>) {
        let is_path = |text: &str| text.contains('/') && text.starts_with(['/', '.']);
        self.refuse(at, fault);
        if let Some(problem) = self.problems.last_mut()
            && problem.source.starts_with("environment variable")
            && !path.is_some_and(is_path)
        {
            problem.value = None;
        }
    }

    pub(super) fn users(
        &mut self,
        users: BTreeMap<String, SecretString>,
    ) -> BTreeMap<String, SecretString> {
        for (name, password) in &users {
            let key = Key::new("auth", "users").entry(name);
            let fault = if name.is_empty() {
                Some(Fault::new("the name is empty", "name the user"))
            } else if name.len() > MAX_USERNAME {
                Some(Fault::new(
                    "the name is too long",
                    format!("use at most {MAX_USERNAME} bytes"),
                ))
            } else if name.contains(':') || name.starts_with('~') {
                Some(Fault::new(
                    "the name could be taken for a time-limited or sealed one",
                    "use no colon, and no ~ at the front",
                ))
            } else if name.chars().any(char::is_control) {
                Some(Fault::new(
                    "the name has control characters",
                    "use printable ones",
                ))
            } else if password.expose_secret().is_empty() {
                Some(Fault::new(
                    "the password is empty",
                    "give the user a password",
                ))
            } else if password.expose_secret().chars().any(char::is_control) {
                Some(Fault::new(
                    "the password has control characters",
                    "use printable ones",
                ))
            } else {
                None
            };
            if let Some(fault) = fault {
                self.refuse(&key, fault);
            }
        }
        users
    }

    /// Warns when the configuration file itself holds secrets that everybody can read.
    pub(super) fn warn_of_a_readable_file(&mut self) {
        if let Some(path) = self.layers.file()
            && self.layers.file_holds_secrets()
            && is_world_readable(path)
        {
            self.warnings.push(format!(
                "{} holds secrets or passwords and every user of this machine can read it; \
                 chmod o-r it",
                escaped_path(path)
            ));
        }
    }
}

/// The only line of a file.
pub(in crate::config) fn read_secret(
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<SecretString, Fault> {
    let remedy = "name a readable file with the secret as its only line";
    let text = read_text(path, MAX_SECRET)
        .map(Zeroizing::new)
        .map_err(|error| Fault::new(format!("the file cannot be read: {error}"), remedy))?;
    if is_world_readable(path) {
        warnings.push(format!(
            "every user of this machine can read the secret in {}; chmod o-r it",
            escaped_path(path)
        ));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    sound(SecretString::from(line))
}

fn sound(secret: SecretString) -> Result<SecretString, Fault> {
    let text = secret.expose_secret();
    if text.is_empty() {
        Err(Fault::new(
            "the secret is empty",
            "make one with: openssl rand -base64 32",
        ))
    } else if text.chars().any(char::is_control) {
        Err(Fault::new(
            "the secret has control characters or several lines",
            "write one line of text, such as openssl rand -base64 32 prints",
        ))
    } else {
        Ok(secret)
    }
}

fn id(text: &str) -> Result<String, Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > MAX_ID || !text.chars().all(plain) {
        return Err(Fault::new(
            "a secret needs an id that can stand in logs and metrics",
            format!("use 1 to {MAX_ID} letters, digits, '-', '_' or '.', such as \"2026-11\""),
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn is_world_readable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}
