//! Whatever stands in a value or a file, loading ends with an error and never with a panic.

use super::*;

#[test]
fn hostile_values_never_panic() {
    let long = "9".repeat(100_000);
    let values = [
        "",
        "\0",
        "a\r\nb",
        "\u{202e}\u{feff}é",
        "-1",
        "18446744073709551616",
        "99999999999999999999999999y",
        "1e999",
        "[[[[[[[[",
        "{{{{",
        "\"\"\"",
        "x\"\nrealm = \"y",
        "[]\nrealm = 1",
        long.as_str(),
    ];
    let tree = default_tree();
    let mut keys = vec!["TACITURN_REALM".to_owned()];
    for (section, value) in &tree {
        for key in value.as_dict().into_iter().flat_map(|keys| keys.keys()) {
            keys.push(format!("TACITURN_{section}__{key}").to_ascii_uppercase());
        }
    }
    keys.push("TACITURN_AUTH__SECRETS__FILE".to_owned());
    assert!(keys.len() > 20, "the keys were found");
    for key in &keys {
        for value in values {
            if let Err(error) = from_env(&[(key, value)]) {
                let text = error.to_string();
                assert!(text.len() < 2000, "{key}: {} bytes of error", text.len());
                assert!(
                    !text.contains(['\0', '\r', '\n', '\u{202e}']),
                    "{key}: {text:?}"
                );
            }
        }
    }
}

#[test]
fn a_hostile_file_never_panics() {
    let nested = format!("realm = {}", "[".repeat(100_000));
    let huge = format!("realm = \"{}\"", "x".repeat(1 << 20));
    for text in [
        "\0",
        "realm",
        "= 1",
        "[a.b.c]",
        "realm = 1979-05-27",
        &nested,
        &huge,
    ] {
        let error = from_text(text).unwrap_err();
        assert!(error.to_string().contains("config.toml"), "{error}");
        assert!(error.to_string().len() < 2000);
    }
}
