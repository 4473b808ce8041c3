//! The local run of everything, `.ci/run`, runs everything.

#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{root, rust_files};

mod source;

/// How cargo selects the tests of a file below the root: `--lib`, or `--test` with a name.
fn target(file: &Path) -> String {
    let mut parts = file.iter().map(|part| part.to_str().unwrap());
    match (parts.next(), parts.next()) {
        (Some("tests"), Some(name)) => format!("--test {}", name.trim_end_matches(".rs")),
        _ => "--lib".to_owned(),
    }
}

/// The functions of the script, and what each of its steps runs, with their calls replaced by the
/// commands behind them.
fn commands(script: &str) -> Vec<String> {
    let functions: BTreeMap<&str, &str> = script
        .lines()
        .filter_map(|line| line.strip_suffix(" }")?.split_once("() { "))
        .collect();
    script
        .lines()
        .filter_map(|line| line.strip_prefix("step "))
        .map(|step| {
            let mut words = step.split_whitespace().skip(1);
            let name = words.next().unwrap();
            let argument = words.next().unwrap_or_default();
            functions.get(name).map_or_else(
                || {
                    step.split_whitespace()
                        .skip(1)
                        .collect::<Vec<_>>()
                        .join(" ")
                },
                |body| body.replace("\"$1\"", argument),
            )
        })
        .collect()
}

/// Whether one of `commands` runs the ignored tests of `target`, and not just some of them.
fn runs_ignored(commands: &[String], target: &str) -> bool {
    commands.iter().any(|command| {
        let Some((cargo, harness)) = command.split_once(" -- ") else {
            return false;
        };
        let options = [
            "--ignored",
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
            ";",
        ];
        let mut words = harness
            .split_whitespace()
            .map(|word| word.trim_end_matches(';'));
        format!("{cargo} ").contains(&format!(" {target} "))
            && harness.contains("ignored")
            && words.all(|word| word.is_empty() || options.contains(&word))
    })
}

#[test]
fn every_ignored_test_is_run_by_a_step() {
    let files = ["src", "tests", "benches"].map(|directory| rust_files(&root().join(directory)));
    let files = files.concat();
    // Not written as one, so that this file is no such file.
    let mark = ["#[", "ignore"].concat();
    let targets: BTreeSet<String> = files
        .iter()
        .filter(|file| fs::read_to_string(file).unwrap().contains(&mark))
        .map(|file| target(file.strip_prefix(root()).unwrap()))
        .collect();
    assert!(targets.contains("--test dataplane"), "{targets:?}");

    let commands = commands(&fs::read_to_string(root().join(".ci/run")).unwrap());
    for target in targets {
        let runs = runs_ignored(&commands, &target);
        assert!(
            runs,
            "ignored tests of {target} are run by none of {commands:#?}"
        );
    }
}

#[test]
fn the_relay_of_the_lab_is_not_chosen_by_who_starts_the_run() {
    let script = fs::read_to_string(root().join(".ci/run")).unwrap();
    let unset = script.find("\nunset TACITURN_LAB_RELAY\n");
    assert!(unset.is_some_and(|at| at < script.find("\nstep ").unwrap()));
}

#[test]
fn a_step_that_runs_ignored_tests_is_told_from_one_that_does_not() {
    let script = "slow() { cargo test --test \"$1\" -- --include-ignored --nocapture; }\n\
                  step call slow call\n\
                  step plain cargo test --test plain -- --nocapture\n\
                  step some cargo test --test some -- --ignored one_of_them\n\
                  step dataplane cargo test --test dataplane -- --ignored\n\
                  # step late cargo test --test late -- --ignored\n";
    let commands = commands(script);
    for (target, runs) in [
        ("--test call", true),
        ("--test dataplane", true),
        ("--test data", false),
        ("--test plain", false),
        ("--test some", false),
        ("--test late", false),
        ("--lib", false),
    ] {
        assert_eq!(runs_ignored(&commands, target), runs, "{target}");
    }
    assert_eq!(target(Path::new("tests/call/main.rs")), "--test call");
    assert_eq!(target(Path::new("tests/readme.rs")), "--test readme");
    assert_eq!(target(Path::new("src/turn/mod.rs")), "--lib");
}
