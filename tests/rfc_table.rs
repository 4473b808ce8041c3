//! The README's table of RFCs: each line with a tick names tests that show it, and each of them is
//! there.

#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::fs;

use source::{root, rust_files};

mod source;

const TICK: &str = "✔";
const CROSS: &str = "✘";

/// The rows of the table below a heading, each as its cells; without the head.
fn rows<'r>(readme: &'r str, heading: &str) -> Vec<Vec<&'r str>> {
    let rest = readme.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|row| row.split('|').map(str::trim).collect())
        .skip(2)
        .collect()
}

/// What stands between backticks in a cell: tests as `file::name`.
fn tests(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether `text` has a function of this name with `#[test]` among its attributes.
fn has_test(text: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let Some(at) = text
        .lines()
        .position(|line| line.trim_start().starts_with(&head))
    else {
        return false;
    };
    let before: Vec<&str> = text.lines().take(at).map(str::trim).collect();
    let attributes = before
        .iter()
        .rev()
        .take_while(|line| line.starts_with("#["));
    attributes.into_iter().any(|line| *line == "#[test]")
}

/// What is wrong with a table.
fn faults(rows: &[Vec<&str>], read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for row in rows {
        let &[mark, .., shown_by] = row.as_slice() else {
            faults.push(format!("no cells: {row:?}"));
            continue;
        };
        let tests = tests(shown_by);
        if mark != TICK && mark != CROSS {
            faults.push(format!("neither ticked nor crossed: {row:?}"));
        }
        if (mark == TICK) == tests.is_empty() {
            faults.push(format!(
                "a tick and no test, or a test and no tick: {row:?}"
            ));
        }
        for test in tests {
            let found = test
                .rsplit_once("::")
                .and_then(|(file, name)| Some(has_test(&read(file)?, name)));
            if found != Some(true) {
                faults.push(format!("no such test: {test}"));
            }
        }
    }
    faults
}

#[test]
fn each_tick_of_the_readme_names_tests_that_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rows = rows(&readme, "What it speaks");
    assert!(rows.len() > 5, "{rows:?}");
    let files = ["src", "tests"].map(|top| rust_files(&root().join(top)));
    let files = files.concat();
    let read = |file: &str| {
        let path = root().join(file);
        files
            .contains(&path)
            .then(|| fs::read_to_string(path).unwrap())
    };
    let faults = faults(&rows, read);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_tick_without_a_test_and_a_test_that_is_not_there_are_seen() {
    let file = "/// T1\n#[test]\n#[cfg(unix)]\nfn it_works() {}\n\nfn helper() {}\n";
    let read = |name: &str| (name == "tests/a.rs").then(|| file.to_owned());
    let table = |row: &str| format!("\n## T\n| | RFC | | |\n|---|---|---|---|\n{row}\n## U\n");
    for (row, good) in [
        ("| ✔ | 1 | x | `tests/a.rs::it_works` |", true),
        ("| ✘ | 1 | x | |", true),
        ("| ✔ | 1 | x | |", false),
        ("| ✘ | 1 | x | `tests/a.rs::it_works` |", false),
        ("| | 1 | x | `tests/a.rs::it_works` |", false),
        ("| ✔ | 1 | x | `tests/a.rs::helper` |", false),
        ("| ✔ | 1 | x | `tests/a.rs::it_works_not` |", false),
        (
            "| ✔ | 1 | x | `tests/a.rs::it_works` `tests/b.rs::it_works` |",
            false,
        ),
        ("| ✔ | 1 | x | `it_works` |", false),
    ] {
        let table = table(row);
        let rows = rows(&table, "T");
        assert_eq!(rows.len(), 1);
        assert_eq!(faults(&rows, read).is_empty(), good, "{row}");
    }
}
