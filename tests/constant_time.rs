//! What is compared with a secret is compared in a time that does not depend on the bytes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail at any step"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use source::{root, rust_files};

mod source;

/// A module that computes or compares something that an attacker must not guess byte by byte.
struct Module {
    path: &'static str,
    /// What its code calls that.
    secrets: &'static [&'static str],
    /// Types that hold it, which must have no equality of their own.
    types: &'static [&'static str],
    compares: bool,
}

const MODULES: [Module; 11] = [
    Module {
        path: "admin/api/keys.rs",
        secrets: &["presented", "place"],
        types: &[],
        compares: true,
    },
    Module {
        path: "daemon/events/webhook.rs",
        secrets: &["mac"],
        types: &["Webhook"],
        compares: false,
    },
    Module {
        path: "dataplane/dtls/cookie.rs",
        secrets: &["mac", "secret", "keyed"],
        types: &["Cookies"],
        compares: true,
    },
    Module {
        path: "proto/integrity.rs",
        secrets: &["mac", "hmac_sha1", "hmac_sha256", "key"],
        types: &["LongTermKey", "Material"],
        compares: true,
    },
    Module {
        path: "turn/nonce.rs",
        secrets: &["hash", "mac", "key"],
        types: &["NonceKey"],
        compares: true,
    },
    Module {
        path: "turn/auth.rs",
        secrets: &["owner", "other", "password", "0"],
        types: &["Owner", "KnownKey"],
        compares: true,
    },
    Module {
        path: "turn/ban.rs",
        secrets: &["mac", "key"],
        types: &["Bans", "Inner"],
        compares: false,
    },
    Module {
        path: "turn/credential/secret.rs",
        secrets: &["mac", "value", "password"],
        types: &["Secret"],
        compares: false,
    },
    Module {
        path: "turn/credential/subject.rs",
        secrets: &["mac", "0"],
        types: &["SubjectKey"],
        compares: false,
    },
    Module {
        path: "turn/credential/userhash.rs",
        secrets: &["hash", "other", "same", "is_known"],
        types: &["Userhashes"],
        compares: true,
    },
    Module {
        path: "turn/pseudonym.rs",
        secrets: &["mac", "0"],
        types: &["Pseudonymizer"],
        compares: false,
    },
];

/// What may stop at the first byte that differs.
const EARLY: [&str; 10] = [
    "==",
    "!=",
    ".eq(",
    ".ne(",
    ".cmp(",
    ".starts_with(",
    ".ends_with(",
    ".contains(",
    "strip_prefix(",
    "matches!(",
];

fn src() -> PathBuf {
    root().join("src")
}

/// The code of a file: no comments, no unit tests.
fn code(text: &str) -> String {
    let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((text, ""));
    code.lines()
        .map(|line| line.split_once("//").map_or(line, |(before, _)| before))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// Statements, roughly: what stands between semicolons and braces.
fn statements(code: &str) -> impl Iterator<Item = &str> {
    code.split([';', '{', '}'])
}

fn words(statement: &str) -> BTreeSet<&str> {
    statement
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect()
}

/// Statements that compare one of `secrets` in a way that may stop early; lengths are public.
fn early_comparisons<'a>(code: &'a str, secrets: &[&str]) -> Vec<&'a str> {
    statements(code)
        .filter(|statement| EARLY.iter().any(|early| statement.contains(early)))
        .filter(|statement| !statement.contains(".len()"))
        .filter(|statement| {
            secrets
                .iter()
                .any(|secret| words(statement).contains(secret))
        })
        .collect()
}

/// Whether `code` gives `name` an equality, derived or written.
fn has_equality(code: &str, name: &str) -> bool {
    let written = code.contains(&format!("PartialEq for {name} "));
    let declared = ["struct", "enum"].iter().find_map(|kind| {
        let marks = ["(", " {", "<"].map(|end| format!("{kind} {name}{end}"));
        marks.iter().find_map(|mark| code.find(mark))
    });
    let before = &code[..declared.unwrap_or_else(|| panic!("{name} is not there"))];
    let attributes = before.rsplit(['}', ';']).next().unwrap();
    written || attributes.contains("PartialEq")
}

/// T18: reads the source, since a clock on a busy machine decides nothing. It shows that the
/// modules known to hold secrets compare by `ct_eq` alone. It cannot show that `subtle` and the
/// compiler keep their promise, nor see a comparison under a name that is not listed above.
#[test]
fn secrets_are_compared_by_ct_eq_and_by_nothing_that_stops_early() {
    for module in MODULES {
        let code = code(&fs::read_to_string(src().join(module.path)).unwrap());
        assert_eq!(code.contains(".ct_eq("), module.compares, "{}", module.path);
        let early = early_comparisons(&code, module.secrets);
        assert!(early.is_empty(), "{}: {early:?}", module.path);
        for name in module.types {
            assert!(!has_equality(&code, name), "{name} has an equality");
        }
    }
}

/// T18: a module that begins to make or compare MACs has to be judged too.
#[test]
fn every_module_that_makes_a_mac_is_known_here() {
    let makers: BTreeSet<PathBuf> = rust_files(&src())
        .into_iter()
        .filter(|file| {
            let code = code(&fs::read_to_string(file).unwrap());
            ["Hmac::", ".ct_eq("].iter().any(|mark| code.contains(mark))
        })
        .map(|file| file.strip_prefix(src()).unwrap().to_owned())
        .collect();
    let known = MODULES.map(|module| PathBuf::from(module.path));
    assert_eq!(makers, BTreeSet::from(known));
}

#[test]
fn a_comparison_that_stops_early_is_seen() {
    let secrets = ["mac"];
    for bad in [
        "if mac == value {",
        "let same = computed\n    .mac\n    .eq(value);",
        "if value != &mac[..20] {",
        "matches!(value, v if v == mac)",
    ] {
        assert_eq!(early_comparisons(bad, &secrets).len(), 1, "{bad}");
    }
    for good in [
        "if bool::from(mac.ct_eq(value)) {",
        "if mac.len() != 20 {",
        "if machine == value {",
        "let mac = 1; if a == b {",
    ] {
        assert!(early_comparisons(good, &secrets).is_empty(), "{good}");
    }
    assert_eq!(code("a // mac == b\nc\n#[cfg(test)]\nmac == d"), "a \nc\n");

    let derived = "use x;\n#[derive(Clone, PartialEq)]\npub struct Key([u8; 32]);";
    let written = "struct Key([u8; 32]);\nimpl PartialEq for Key {}";
    let neither = "#[derive(PartialEq)]\nstruct Other(u8);\n#[derive(Clone)]\nstruct Key(u8);";
    assert!(has_equality(derived, "Key") && has_equality(written, "Key"));
    assert!(!has_equality(neither, "Key"));
}
