//! GET, and the text format of Prometheus read strictly.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::loopback::PATIENCE;

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Header lines, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn get(server: SocketAddr, path: &str) -> Answer {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // HTTP/1.0, so that the body ends with the connection and is never chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// Values by series, as written: `name{label="value"}`.
pub(crate) type Samples = BTreeMap<String, f64>;

/// Parses the text format, version 0.0.4; panics where `promtool check metrics` would complain.
pub(crate) fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line is not ended");
    let (mut helped, mut types) = (BTreeSet::new(), BTreeMap::new());
    let mut samples = Samples::new();
    let mut family = "";
    // What stands in front of `le`, and the count there.
    let mut bucket = ("", 0.0);
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(!words.trim().is_empty(), "{name} has no help");
            assert!(helped.insert(name), "{name} has two helps");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name} has no help");
            check_kind(name, kind);
            assert!(types.insert(name, kind).is_none(), "{name} has two types");
            family = name;
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(
                is_of(name, family, types[family]),
                "outside its family: {line}"
            );
            assert!(is_name(name), "{line}");
            check_labels(labels.strip_suffix('}').unwrap(), line);
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0 && value.is_finite(), "{line}");
            if let Some((before, _)) = series.split_once("le=\"") {
                let falls = before == bucket.0 && value < bucket.1;
                assert!(!falls, "fewer than up to the bound before: {line}");
                bucket = (before, value);
            }
            let before = samples.insert(series.to_owned(), value);
            assert!(before.is_none(), "twice: {line}");
        }
    }
    samples
}

fn check_kind(name: &str, kind: &str) {
    let is_total = name.ends_with("_total");
    match kind {
        "counter" => assert!(is_total, "{name}"),
        "gauge" | "histogram" => assert!(!is_total, "{name}"),
        // coturn's.
        "untyped" => assert!(
            name.starts_with("turn_") || name.starts_with("stun_"),
            "{name}"
        ),
        _ => panic!("{name} is a {kind}"),
    }
}

/// Whether a sample called `name` is of this family.
fn is_of(name: &str, family: &str, kind: &str) -> bool {
    match name.strip_prefix(family) {
        Some(rest) if kind == "histogram" => ["_bucket", "_sum", "_count"].contains(&rest),
        Some(rest) => rest.is_empty(),
        None => false,
    }
}

/// The families of a text by name: their type, and the names of their labels but `le`.
pub(crate) fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            last = name.to_owned();
            families.insert(last.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let (labels, _) = labels.rsplit_once('}').unwrap();
            let names = labels
                .split(',')
                .map(|pair| pair.split_once('=').unwrap().0);
            let (_, known) = families.get_mut(&last).unwrap();
            known.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    families
}

/// No value of ours has a quote, a comma or an escape in it.
fn check_labels(labels: &str, line: &str) {
    for pair in labels.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        assert!(is_name(name), "{line}");
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        let value = value.unwrap_or_else(|| panic!("a label without quotes: {line}"));
        assert!(!value.contains(['"', '\\']), "{line}");
    }
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain)
}

#[test]
fn the_reader_is_strict() {
    let good = "# HELP a_total Words.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n";
    assert_eq!(parse(good)["a_total{b=\"c\"}"], 1.0);
    let buckets = |second: &str| {
        format!(
            "# HELP a Words.\n# TYPE a histogram\na_bucket{{le=\"1\"}} 1\n\
             a_bucket{{le=\"+Inf\"}} {second}\na_sum 3\na_count 2\n"
        )
    };
    assert_eq!(parse(&buckets("2"))["a_count"], 2.0);
    assert!(std::panic::catch_unwind(|| parse(&buckets("0"))).is_err());
    for (part, instead) in [
        ("# HELP a_total Words.\n", ""),
        ("counter", "histogram"),
        ("counter", "gauge"),
        ("counter", "untyped"),
        ("a_total{", "b_total{"),
        ("\"c\"", "c"),
        (" 1\n", " 1"),
        (" 1\n", " NaN\n"),
        (" 1\n", " 1\na_total{b=\"c\"} 1\n"),
    ] {
        let bad = good.replacen(part, instead, 1);
        assert!(std::panic::catch_unwind(|| parse(&bad)).is_err(), "{bad}");
    }
}
