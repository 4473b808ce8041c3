//! The configuration files we ship say what they claim to say.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers stop at the first surprise"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use serde_json::Value;
use taciturn::config::{self, Error, Loaded, Sources};
use taciturn::turn::Transport;

#[test]
fn the_reference_file_has_every_key_with_its_default() {
    let file = parse(&path("taciturn.toml"));
    assert_same("", &file, &config::defaults());
}

#[test]
fn the_reference_file_misses_a_secret_and_nothing_else() {
    let error = load("taciturn.toml", &[]).unwrap_err();
    let [problem] = error.problems() else {
        panic!("not one problem: {error}")
    };
    assert_eq!(problem.key, "auth");
    assert!(
        problem.source.ends_with("config/taciturn.toml"),
        "{problem}"
    );
    assert!(
        problem.reason.contains("neither secrets nor users"),
        "{problem}"
    );
}

#[test]
fn the_reference_file_with_a_secret_means_the_defaults() {
    let secret = [("TACITURN_AUTH__SECRETS", "for-this-test")];
    let from_file = load("taciturn.toml", &secret).unwrap();
    let from_nothing = config::load(&sources(None, &secret)).unwrap();
    assert_eq!(
        format!("{:#?}", from_file.settings),
        format!("{:#?}", from_nothing.settings)
    );
    assert_eq!(from_file.warnings, Vec::<String>::new());
}

#[test]
fn every_key_of_the_reference_file_has_a_comment() {
    let text = std::fs::read_to_string(path("taciturn.toml")).unwrap();
    let bare: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter(|line| !line.contains(" # "))
        .collect();
    assert_eq!(bare, Vec::<&str>::new());
}

#[test]
fn the_minimal_file_needs_only_its_secret() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "for-this-test\n").unwrap();
    restrict(&secret);
    let text = std::fs::read_to_string(path("minimal.toml")).unwrap();
    assert!(text.contains("\"/etc/taciturn/secret\""));
    let text = text.replace("/etc/taciturn/secret", secret.to_str().unwrap());
    let file = directory.path().join("minimal.toml");
    std::fs::write(&file, text).unwrap();

    let Loaded { settings, warnings } = config::load(&sources(Some(file), &[])).unwrap();

    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(settings.realm, "calls.example.org");
    assert_eq!(
        settings.ice_urls(&[(Transport::Udp, settings.listen.udp[0])]),
        ["turn:turn.example.org:3478?transport=udp"]
    );
    assert_eq!(settings.auth.secrets.len(), 1);
    assert_eq!(settings.state.dir, Some(PathBuf::from("/var/lib/taciturn")));
}

#[test]
fn the_minimal_file_without_its_secret_names_the_file_it_wants() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent");
    let text = std::fs::read_to_string(path("minimal.toml")).unwrap();
    let text = text.replace("/etc/taciturn/secret", absent.to_str().unwrap());
    let file = directory.path().join("minimal.toml");
    std::fs::write(&file, text).unwrap();

    let error = config::load(&sources(Some(file), &[])).unwrap_err();

    let [problem] = error.problems() else {
        panic!("not one problem: {error}")
    };
    assert_eq!(problem.key, "auth.secrets.0.file");
    assert!(
        error.to_string().contains(absent.to_str().unwrap()),
        "{error}"
    );
}

/// Names the first key that differs, is missing, or is too many.
fn assert_same(key: &str, file: &Value, defaults: &Value) {
    let (Some(ours), Some(theirs)) = (file.as_object(), defaults.as_object()) else {
        assert_eq!(file, defaults, "the default of {key}");
        return;
    };
    for (name, value) in theirs {
        let path = format!("{key}.{name}");
        let found = ours.get(name);
        assert!(found.is_some(), "taciturn.toml has no {path}");
        assert_same(&path, found.unwrap(), value);
    }
    for name in ours.keys() {
        assert!(
            theirs.contains_key(name),
            "taciturn.toml invents {key}.{name}"
        );
    }
}

fn parse(path: &Path) -> Value {
    Toml::from_path(path).unwrap()
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name)
}

fn load(name: &str, environment: &[(&str, &str)]) -> Result<Loaded, Error> {
    config::load(&sources(Some(path(name)), environment))
}

fn sources(file: Option<PathBuf>, environment: &[(&str, &str)]) -> Sources {
    Sources {
        file,
        environment: environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect(),
        ..Sources::default()
    }
}

fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
