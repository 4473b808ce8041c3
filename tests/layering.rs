//! Arrows between layers point one way: each layer may use what stands to its left, nothing to
//! its right.

#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::fs;
use std::path::Path;

use source::{root, rust_files};

mod source;

const LAYERS: [&str; 6] = ["proto", "turn", "dataplane", "admin", "config", "daemon"];

/// The name at the beginning of `rest`.
fn name(rest: &str) -> &str {
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    &rest[..end]
}

/// What `line` reaches from the crate's root, by `crate::…` or by as many `super::` as lead there
/// from a module `depth` below it.
fn reached(line: &str, depth: usize) -> Vec<&str> {
    const UP: &str = "super::";
    let mut found: Vec<&str> = line.split("crate::").skip(1).map(name).collect();
    let mut rest = line;
    while let Some(at) = rest.find(UP) {
        rest = &rest[at..];
        let mut steps = 0;
        while let Some(further) = rest.strip_prefix(UP) {
            rest = further;
            steps += 1;
        }
        if steps >= depth {
            found.push(name(rest));
        }
    }
    found
}

/// How far below the crate's root the module of a file in `src` stands.
fn depth(file: &Path) -> usize {
    let own = usize::from(!file.ends_with("mod.rs"));
    file.parent().map_or(0, |folder| folder.iter().count()) + own
}

/// What `text`, the file at `file` in `src`, reaches that its layer may not use. Modules inside
/// the file are told by their indentation, which rustfmt keeps.
fn up_arrows(file: &str, text: &str) -> Vec<String> {
    let rank = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let file = Path::new(file);
    let own = rank(file.iter().next().unwrap().to_str().unwrap()).unwrap();
    let mut inner: Vec<String> = Vec::new();
    let mut up = Vec::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap();
        let indent = &code[..code.len() - code.trim_start().len()];
        if inner.last().is_some_and(|end| end == code) {
            inner.pop();
        } else if code.contains("mod ") && code.ends_with('{') {
            inner.push(format!("{indent}}}"));
        }
        let names = reached(code, depth(file) + inner.len());
        let bad = names
            .into_iter()
            .filter(|name| rank(name).is_none_or(|other| other > own));
        up.extend(bad.map(str::to_owned));
    }
    up
}

#[test]
fn no_layer_reaches_to_its_right() {
    let source = root().join("src");
    let mut count = 0;
    for layer in LAYERS {
        for file in rust_files(&source.join(layer)) {
            count += 1;
            let text = fs::read_to_string(&file).unwrap();
            let below = file.strip_prefix(&source).unwrap().to_str().unwrap();
            let up = up_arrows(below, &text);
            assert!(up.is_empty(), "{below} reaches {up:?}");
        }
    }
    assert!(count > LAYERS.len(), "the layers were not found");
}

#[test]
fn every_folder_of_the_source_is_a_layer() {
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let known = if path.is_dir() {
            LAYERS.contains(&name)
        } else {
            ["lib.rs", "main.rs"].contains(&name)
        };
        assert!(known, "{name} stands outside the layers");
    }
}

#[test]
fn an_arrow_to_the_right_is_seen() {
    for (file, text, up) in [
        (
            "turn/mod.rs",
            "use crate::dataplane::Handle;",
            &["dataplane"][..],
        ),
        ("turn/mod.rs", "use crate::{admin, proto};", &[""]),
        ("turn/mod.rs", "use crate::proto::Message;", &[]),
        ("turn/mod.rs", "// use crate::admin::Metrics;", &[]),
        // By `super::`, from each depth.
        ("turn/mod.rs", "use super::admin::Metrics;", &["admin"]),
        ("turn/mod.rs", "use super::proto::Message;", &[]),
        ("turn/mod.rs", "pub(super) fn server() {}", &[]),
        (
            "turn/nonce.rs",
            "use super::super::admin::Metrics;",
            &["admin"],
        ),
        ("turn/nonce.rs", "use super::clock::Tick;", &[]),
        (
            "turn/policy/mod.rs",
            "super::super::config::load()",
            &["config"],
        ),
        ("turn/policy/mod.rs", "use super::address::PeerAddr;", &[]),
        (
            "turn/policy/fleet.rs",
            "super::super::super::config::load()",
            &["config"],
        ),
        (
            "turn/policy/fleet.rs",
            "super::super::super::super::config",
            &["config"],
        ),
        (
            "turn/policy/fleet.rs",
            "use super::super::address::PeerAddr;",
            &[],
        ),
        ("turn/mod.rs", "use super::*;", &[""]),
        // A module inside the file is one deeper, until it ends.
        ("turn/mod.rs", "mod tests {\n    use super::*;\n}", &[]),
        (
            "turn/mod.rs",
            "mod tests {\n    use super::super::daemon;\n}",
            &["daemon"],
        ),
        (
            "turn/mod.rs",
            "mod a {\n    mod b {\n    }\n}\nuse super::daemon;",
            &["daemon"],
        ),
        ("admin/mod.rs", "use super::dataplane::Handle;", &[]),
    ] {
        assert_eq!(up_arrows(file, text), up, "{file}: {text}");
    }
}
