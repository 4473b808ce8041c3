//! The environment as a source: `TACITURN_SECTION__KEY`, and `TACITURN_REALM` at the top.
//!
//! A variable's text takes the shape that the key's default has: a text stays a text (so that a
//! realm may be `123456`), a list is a TOML array or separated by commas, a table is a TOML inline
//! table, a number or a truth value is read as one. `TACITURN_AUTH__SECRETS` is one secret as it
//! stands, or a TOML array; `TACITURN_AUTH__SECRETS__FILE` names a file that holds one. Either
//! stands in for the whole list of the configuration file, under the id `env`. A static user is
//! `TACITURN_AUTH__USERS__NAME`, the name in lower case; `TACITURN_AUTH__USERS__NAME__FILE` names a
//! file that holds the password.

use std::ffi::OsString;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use secrecy::ExposeSecret;

use super::check::read_secret;
use super::error::{Problem, escaped};
use super::key::Key;

/// What every variable of ours begins with.
const PREFIX: &str = "TACITURN_";

/// The id of a secret that came by the environment.
const SECRET_ID: &str = "env";

/// What the environment says.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) variables: Vec<Variable>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

/// One variable, understood.
pub(super) struct Variable {
    /// How the source is named in an error.
    pub(super) source: String,
    pub(super) key: Key,
    pub(super) value: Value,
}

/// Reads the variables that are ours; `defaults` gives each key its shape.
pub(super) fn read(variables: &[(OsString, OsString)], defaults: &Dict) -> Environment {
    let mut found = Environment::default();
    let mut foreign = Vec::new();
    for (name, text) in variables {
        let name = name.to_string_lossy();
        let Some(path) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if is_service_link(path) {
            foreign.push(escaped(&name));
            continue;
        }
        let warnings = &mut found.warnings;
        match variable(&name, path, text.to_str(), defaults, warnings) {
            Ok(variable) if found.variables.iter().any(|v| v.key == variable.key) => {
                found.problems.push(twice(&variable));
            }
            Ok(variable) => found.variables.push(variable),
            Err(problem) => found.problems.push(problem),
        }
    }
    if !foreign.is_empty() {
        foreign.sort();
        foreign.truncate(20);
        found.warnings.push(format!(
            "ignored the variables that Kubernetes sets for a service called taciturn ({}); \
             `enableServiceLinks: false` in the pod keeps them out",
            foreign.join(", ")
        ));
    }
    found
}

/// Whether Kubernetes made this variable for a service whose name begins with ours, in the way of
/// Docker's links: `SERVICE_HOST`, `SERVICE_PORT_TURN`, `PORT`, `PORT_3478_UDP_ADDR`, each also
/// behind the rest of a longer name. A section of ours is followed by two underscores, theirs never.
fn is_service_link(path: &str) -> bool {
    if path.contains("__") {
        return false;
    }
    let words: Vec<&str> = path.split('_').collect();
    (0..words.len()).any(|start| match &words[start..] {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] | ["PORT"] => true,
        ["PORT", number, "TCP" | "UDP" | "SCTP", rest @ ..] => {
            number.parse::<u16>().is_ok() && matches!(rest, [] | ["PROTO" | "PORT" | "ADDR"])
        }
        _ => false,
    })
}

fn variable(
    name: &str,
    path: &str,
    text: Option<&str>,
    defaults: &Dict,
    warnings: &mut Vec<String>,
) -> Result<Variable, Problem> {
    let source = format!("environment variable {}", escaped(name));
    let segments: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let key = Key::from_segments(segments.clone());
    let shown = key.to_string();
    let problem = |reason: &str, remedy: &str| Problem {
        source: source.clone(),
        key: shown.clone(),
        value: None,
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    };
    let Some(text) = text else {
        return Err(problem("the value is not UTF-8", "write plain text"));
    };
    let (key, value) = match words.as_slice() {
        ["auth", "secrets"] => (
            key,
            secrets(text).ok_or_else(|| {
                problem(
                    "it begins like a list but is no TOML array",
                    "put the secret in a file and name that in TACITURN_AUTH__SECRETS__FILE",
                )
            })?,
        ),
        ["auth", "secrets", "file"] => (
            Key::new("auth", "secrets"),
            Value::from(vec![one_secret("file", text)]),
        ),
        ["auth", "users", "file"] => {
            return Err(problem(
                "it may mean a user called file or a file of users",
                "write users in the configuration file",
            ));
        }
        ["auth", "users", name, "file"] if !name.is_empty() => {
            let password = read_secret(Path::new(text), warnings)
                .map_err(|fault| problem(&fault.reason, &fault.remedy))?;
            let key = Key::new("auth", "users").entry(name);
            (key, Value::from(password.expose_secret()))
        }
        ["auth", "users", name] if !name.is_empty() => (key, Value::from(text)),
        ["listen", "tcp"] if text.trim() != "same" => (key, list(text)),
        ["features", "binding"] if text.trim_start().starts_with('{') => {
            (key, toml(text).unwrap_or_else(|| Value::from(text)))
        }
        ["policy", "peers" | "ceiling"] if text.contains([',', '/', '[']) => (key, list(text)),
        _ => match default_of(&words, defaults) {
            Some(default) => (key, shaped(text, default)),
            None => return Err(problem("unknown key", &known(&words, defaults))),
        },
    };
    Ok(Variable { source, key, value })
}

fn twice(variable: &Variable) -> Problem {
    Problem {
        source: variable.source.clone(),
        key: variable.key.to_string(),
        value: None,
        reason: "another variable sets the same key".to_owned(),
        remedy: "keep one of them".to_owned(),
    }
}

/// The default of a key, unless the path leads nowhere or to a whole section.
fn default_of<'a>(path: &[&str], defaults: &'a Dict) -> Option<&'a Value> {
    match path {
        [name] => defaults
            .get(*name)
            .filter(|value| value.as_dict().is_none()),
        [section, name] => defaults.get(*section)?.as_dict()?.get(*name),
        _ => None,
    }
}

fn known(path: &[&str], defaults: &Dict) -> String {
    let section = path
        .first()
        .and_then(|name| defaults.get(*name)?.as_dict().map(|d| (name, d)));
    match section {
        Some((name, keys)) => {
            let mut keys: Vec<String> = keys
                .keys()
                .map(|key| format!("{PREFIX}{}__{}", name, key).to_ascii_uppercase())
                .collect();
            if *name == "auth" {
                keys.extend(
                    ["SECRETS__FILE", "USERS__NAME", "USERS__NAME__FILE"]
                        .map(|more| format!("{PREFIX}AUTH__{more}")),
                );
            }
            format!("known are {}", keys.join(", "))
        }
        None => {
            let names: Vec<&str> = defaults.keys().map(String::as_str).collect();
            format!(
                "it is written {PREFIX}SECTION__KEY with two underscores, or {PREFIX}REALM; \
                 sections and top-level keys are {}",
                names.join(", ")
            )
        }
    }
}

fn shaped(text: &str, default: &Value) -> Value {
    match default {
        Value::Array(..) => list(text),
        Value::Dict(..) => toml(text).unwrap_or_else(|| Value::from(text)),
        // What does not parse stays a text, which the typed layer then refuses by name.
        Value::Bool(..) => text
            .trim()
            .parse::<bool>()
            .map_or_else(|_| text.into(), Value::from),
        Value::Num(..) => text
            .trim()
            .parse::<i64>()
            .map_or_else(|_| text.into(), Value::from),
        Value::String(..) | Value::Char(..) | Value::Empty(..) => Value::from(text),
    }
}

/// `["a", "b"]` or `a, b`. `[::]:3478` begins like the former but is the latter.
fn list(text: &str) -> Value {
    match toml(text) {
        Some(value @ Value::Array(..)) => value,
        _ if text.trim().is_empty() => Value::from(Vec::<Value>::new()),
        _ => Value::from(
            text.split(',')
                .map(str::trim)
                .map(Value::from)
                .collect::<Vec<_>>(),
        ),
    }
}

fn secrets(text: &str) -> Option<Value> {
    if text.trim_start().starts_with('[') {
        toml(text).filter(|value| value.as_array().is_some())
    } else {
        Some(Value::from(vec![one_secret("value", text)]))
    }
}

fn one_secret(kind: &str, text: &str) -> Value {
    let entry = [("id", SECRET_ID), (kind, text)];
    Value::from(entry.into_iter().collect::<figment::value::Map<_, _>>())
}

fn toml(text: &str) -> Option<Value> {
    let mut document = Toml::from_str::<Dict>(&format!("value = {text}")).ok()?;
    let value = document.remove("value")?;
    document.is_empty().then_some(value)
}
