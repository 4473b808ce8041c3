//! Where settings come from, and which source a value came from in the end.
//!
//! Later ones win: the embedded defaults, the file, the environment, the flags. Tables are merged,
//! lists are replaced.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::environment;
use super::error::{Problem, escaped, quoted};
use super::file::File;
use super::key::Key;

/// The longest configuration file that is read.
const MAX_FILE: u64 = 1 << 20;
/// As much as is looked at of a file that the configuration names.
const MAX_NAMED: u64 = 64 << 10;

/// Everything that may set a value.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration file, if one was named.
    pub file: Option<PathBuf>,
    /// The environment; only variables that begin with `TACITURN_` are looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// What the command line sets.
    pub flags: Flags,
}

impl Sources {
    /// The file and flags given, and this process's environment.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Flags) -> Self {
        Self {
            file,
            environment: std::env::vars_os().collect(),
            flags,
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// The settings that have a flag. None of them is a secret: arguments are seen by every user of
/// the machine.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--log-level`: `log.level`.
    pub log_level: Option<String>,
    /// `--listen-udp`, each time it is given: `listen.udp`.
    pub listen_udp: Vec<String>,
    /// `--listen-tcp`: `listen.tcp`.
    pub listen_tcp: Vec<String>,
    /// `--listen-tls`: `listen.tls`.
    pub listen_tls: Vec<String>,
    /// `--listen-dtls`: `listen.dtls`.
    pub listen_dtls: Vec<String>,
    /// `--tls-cert`: `tls.cert`.
    pub tls_cert: Vec<String>,
    /// `--tls-key`, the path of one: `tls.key`.
    pub tls_key: Vec<String>,
}

impl Flags {
    /// The flags that were given, with their keys and values.
    fn given(&self) -> impl Iterator<Item = (&'static str, Key, Value)> + '_ {
        let level = self.log_level.as_deref().map(Value::from);
        let lists = [
            ("--listen-udp", Key::new("listen", "udp"), &self.listen_udp),
            ("--listen-tcp", Key::new("listen", "tcp"), &self.listen_tcp),
            ("--listen-tls", Key::new("listen", "tls"), &self.listen_tls),
            (
                "--listen-dtls",
                Key::new("listen", "dtls"),
                &self.listen_dtls,
            ),
            ("--tls-cert", Key::new("tls", "cert"), &self.tls_cert),
            ("--tls-key", Key::new("tls", "key"), &self.tls_key),
        ];
        let lists = lists.into_iter().filter(|(_, _, list)| !list.is_empty());
        level
            .map(|level| ("--log-level", Key::new("log", "level"), level))
            .into_iter()
            .chain(lists.map(|(name, key, list)| (name, key, Value::from(list.clone()))))
    }
}

/// What was typed in all sources, and who typed it.
pub(super) struct Layers {
    figment: Figment,
    /// All of it in one tree, each value tagged with its source.
    merged: Value,
    file: Option<PathBuf>,
    /// The configuration file that was named, be it readable or not.
    named: Option<PathBuf>,
    file_holds_secrets: bool,
}

/// The sources read: their layers, what was wrong with them, and what is only odd.
pub(super) struct Gathered {
    pub(super) layers: Layers,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

/// Reads all sources. A source or variable that cannot be read is left out and named.
pub(super) fn gather(sources: &Sources, defaults: &Dict) -> Gathered {
    let mut problems = Vec::new();
    let mut figment = Figment::new();
    let mut file = None;
    let mut file_holds_secrets = false;
    if let Some(path) = &sources.file {
        match read_file(path) {
            Ok(dict) => {
                file_holds_secrets = holds_secrets(&dict);
                figment = figment.merge(Layer::new(escaped_path(path), dict));
                file = Some(path.clone());
            }
            Err(problem) => problems.push(problem),
        }
    }
    let environment = environment::read(&sources.environment, defaults);
    problems.extend(environment.problems);
    for variable in environment.variables {
        let dict = nested(&variable.key, variable.value);
        figment = figment.merge(Layer::new(variable.source, dict));
    }
    for (name, key, value) in sources.flags.given() {
        figment = figment.merge(Layer::new(format!("flag {name}"), nested(&key, value)));
    }
    let merged = figment
        .find_value("")
        .unwrap_or_else(|_| Value::from(Dict::new()));
    Gathered {
        layers: Layers {
            figment,
            merged,
            file,
            named: sources.file.clone(),
            file_holds_secrets,
        },
        problems,
        warnings: environment.warnings,
    }
}

impl Layers {
    /// The typed form.
    pub(super) fn extract(&self) -> Result<File, Problem> {
        self.figment
            .extract::<File>()
            .map_err(|error| self.problem_of(error))
    }

    /// Whether any source set this key.
    pub(super) fn is_set(&self, key: &Key) -> bool {
        self.find(key).1
    }

    /// The configuration file, if one was read.
    pub(super) const fn file(&self) -> Option<&PathBuf> {
        self.file.as_ref()
    }

    /// See [`fingerprint`](super::fingerprint).
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut take = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        // The text too, for what is not TOML is not in the tree.
        let file = self.named.as_deref().map(|path| contents(path, MAX_FILE));
        take(&file.unwrap_or_default());
        take(&Zeroizing::new(
            serde_json::to_vec(&self.merged).unwrap_or_default(),
        ));
        let mut files = Vec::new();
        named_files(&self.merged, &mut files);
        for path in files {
            take(&contents(Path::new(path), MAX_NAMED));
        }
        digest.finalize().into()
    }

    /// Whether the configuration file, rather than the environment, holds a secret or a password.
    pub(super) const fn file_holds_secrets(&self) -> bool {
        self.file_holds_secrets
    }

    /// A problem with the value at `key`.
    pub(super) fn problem(&self, key: &Key, reason: String, remedy: String) -> Problem {
        let (value, exact) = self.find(key);
        let source = match self.figment.get_metadata(value.tag()) {
            Some(metadata) if exact => metadata.name.clone().into_owned(),
            _ => match &self.file {
                Some(path) => escaped_path(path),
                None => "defaults".to_owned(),
            },
        };
        Problem {
            source,
            key: key.to_string(),
            value: if exact { shown(key, value) } else { None },
            reason,
            remedy,
        }
    }

    /// The value at `key`, or else the nearest thing above it and `false`.
    fn find(&self, key: &Key) -> (&Value, bool) {
        let mut value = &self.merged;
        for segment in key.segments() {
            let next = match value {
                Value::Dict(_, dict) => dict.get(segment),
                Value::Array(_, list) => segment.parse().ok().and_then(|i: usize| list.get(i)),
                Value::String(..)
                | Value::Char(..)
                | Value::Bool(..)
                | Value::Num(..)
                | Value::Empty(..) => None,
            };
            match next {
                Some(next) => value = next,
                None => return (value, false),
            }
        }
        (value, true)
    }

    fn problem_of(&self, error: figment::Error) -> Problem {
        let key = Key::from_segments(error.path.clone());
        let (reason, remedy) = match error.kind {
            Kind::UnknownField(_, known) => (
                "unknown key".to_owned(),
                format!("known here are {}", known.join(", ")),
            ),
            Kind::MissingField(name) => (
                format!("{} is missing", escaped(&name)),
                format!("write {}", escaped(&name)),
            ),
            Kind::InvalidType(found, expected) => (
                format!("this is {}", kind_of(&found)),
                format!("write {}", wanted(&expected)),
            ),
            Kind::InvalidValue(_, expected) | Kind::InvalidLength(_, expected) => (
                "this does not fit".to_owned(),
                format!("write {}", wanted(&expected)),
            ),
            // No type of ours ends here, and a text from elsewhere might quote a secret.
            Kind::Message(_)
            | Kind::UnknownVariant(..)
            | Kind::DuplicateField(_)
            | Kind::ISizeOutOfRange(_)
            | Kind::USizeOutOfRange(_)
            | Kind::Unsupported(_)
            | Kind::UnsupportedKey(..) => (
                "this cannot be read".to_owned(),
                "compare config/taciturn.toml".to_owned(),
            ),
        };
        let unknown = reason == "unknown key";
        let mut problem = self.problem(&key, reason, remedy);
        if unknown {
            problem.value = None;
        }
        problem
    }
}

/// What a file holds, or why it cannot be read.
fn contents(path: &Path, limit: u64) -> Zeroizing<Vec<u8>> {
    // Opening a pipe that nobody writes to would wait for ever.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Zeroizing::default();
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    match read {
        Ok(_) => bytes,
        Err(error) => Zeroizing::new(error.kind().to_string().into_bytes()),
    }
}

/// Keys that name a file which is read.
const NAMING: [&str; 3] = ["file", "client_ca", "ca"];

/// The files that one of these keys names, anywhere in the tree.
fn named_files<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    if let Some(dict) = value.as_dict() {
        for (key, value) in dict {
            match value.as_str() {
                Some(path) if NAMING.contains(&key.as_str()) => found.push(path),
                // What events are written to changes with each of them.
                None if key == "events" => {
                    let webhooks = value.as_dict().and_then(|events| events.get("webhooks"));
                    webhooks
                        .into_iter()
                        .for_each(|hooks| named_files(hooks, found));
                }
                _ => named_files(value, found),
            }
        }
    } else if let Some(list) = value.as_array() {
        for value in list {
            named_files(value, found);
        }
    }
}

/// A value as it may be shown, if it may.
fn shown(key: &Key, value: &Value) -> Option<String> {
    if key.is_secret() {
        return None;
    }
    match value {
        Value::String(_, text) => Some(quoted(text)),
        Value::Char(_, c) => Some(quoted(&c.to_string())),
        Value::Bool(_, truth) => Some(truth.to_string()),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_u128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string())),
        Value::Array(_, list) if list.is_empty() => Some("[]".to_owned()),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

/// What serde expected, in an operator's words.
fn wanted(expected: &str) -> &str {
    match expected {
        "i64" => "a whole number",
        "a boolean" => "true or false",
        "a string" | "a borrowed or owned string" => "a text",
        "a sequence" => "a list",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table of keys, as in config/taciturn.toml",
        _ => expected,
    }
}

fn kind_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) | Actual::Bytes(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        Actual::Unit
        | Actual::Option
        | Actual::NewtypeStruct
        | Actual::Enum
        | Actual::UnitVariant
        | Actual::NewtypeVariant
        | Actual::TupleVariant
        | Actual::StructVariant
        | Actual::Other(_) => "something else",
    }
}

fn holds_secrets(file: &Dict) -> bool {
    let auth = file.get("auth").and_then(Value::as_dict);
    let users = auth.and_then(|auth| auth.get("users")?.as_dict());
    let secrets = auth.and_then(|auth| auth.get("secrets")?.as_array());
    let api = file.get("api").and_then(Value::as_dict);
    let keys = api.and_then(|api| api.get("keys")?.as_array());
    let has_value = |list: &[Value]| list.iter().any(|one| one.find_ref("value").is_some());
    users.is_some_and(|users| !users.is_empty())
        || secrets.is_some_and(has_value)
        || keys.is_some_and(has_value)
}

fn nested(key: &Key, value: Value) -> Dict {
    let mut segments: Vec<&str> = key.segments().collect();
    let mut value = value;
    while segments.len() > 1 {
        if let Some(name) = segments.pop() {
            value = Value::from(Dict::from([(name.to_owned(), value)]));
        }
    }
    segments
        .pop()
        .map(|name| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// A path as it may stand in a message; unlike a value it is never cut short.
pub(super) fn escaped_path(path: &Path) -> String {
    path.to_string_lossy().escape_debug().collect()
}

fn read_file(path: &Path) -> Result<Dict, Problem> {
    let problem = |reason: String, remedy: &str| Problem {
        source: escaped_path(path),
        key: String::new(),
        value: None,
        reason,
        remedy: remedy.to_owned(),
    };
    // Opening a pipe that nobody writes to would wait for ever.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(problem(
            "is a pipe, a socket or a device, not a file".to_owned(),
            "write the configuration to a file and name that",
        ));
    }
    let text = read_text(path, MAX_FILE).map_err(|error| {
        problem(
            format!("cannot be read: {error}"),
            "name a file that this process may read",
        )
    })?;
    // The error's own Display quotes the line, and the line may hold a secret.
    Toml::from_str::<Dict>(&text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| {
            let before = text.get(..span.start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before
                .rsplit('\n')
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                + 1;
            format!(" at line {line}, column {column}")
        });
        problem(
            format!("not TOML{place}"),
            "check quotes, brackets and `=` there, and that no key stands twice",
        )
    })
}

/// Reads a whole small file.
pub(super) fn read_text(path: &Path, limit: u64) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    if file.take(limit + 1).read_to_string(&mut text)? as u64 > limit {
        return Err(std::io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(text)
}

/// One source for figment, named as an error names it.
struct Layer {
    name: String,
    dict: Dict,
}

impl Layer {
    const fn new(name: String, dict: Dict) -> Self {
        Self { name, dict }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}
