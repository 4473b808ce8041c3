//! Where secrets come from, and that none is ever printed.

use super::*;

#[test]
fn a_secret_of_the_environment_stays_text() {
    for text in ["123456", "1e3", "true", "a,b", "{x}", " padded "] {
        let settings = from_env(&[("TACITURN_AUTH__SECRETS", text)])
            .unwrap()
            .settings;
        let [secret] = settings.auth.secrets.as_slice() else {
            panic!("not one secret from {text}")
        };
        assert_eq!(
            (secret.id.as_str(), secret.value.expose_secret()),
            ("env", text)
        );
    }
}

#[test]
fn the_environment_may_list_secrets() {
    let text = r#"[{ id = "new", value = "123" }, { id = "old", value = "456" }]"#;
    let settings = from_env(&[("TACITURN_AUTH__SECRETS", text)])
        .unwrap()
        .settings;
    let ids: Vec<&str> = settings
        .auth
        .secrets
        .iter()
        .map(|s| s.id.as_str())
        .collect();
    assert_eq!(ids, ["new", "old"]);
}

#[test]
fn a_secret_file_loses_its_line_end_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    for (content, secret) in [
        ("123456", "123456"),
        ("123456\n", "123456"),
        ("123456\r\n", "123456"),
        (" spaced \n", " spaced "),
    ] {
        let path = write(&directory, "secret", content, 0o600);
        let env = [("TACITURN_AUTH__SECRETS__FILE", path.as_str())];
        let Loaded { settings, warnings } = from_env(&env).unwrap();
        assert_eq!(settings.auth.secrets[0].id, "env");
        assert_eq!(settings.auth.secrets[0].value.expose_secret(), secret);
        assert_eq!(warnings, Vec::<String>::new());
    }
}

#[test]
fn secrets_that_everybody_can_read_bring_a_warning() {
    let directory = TempDir::new().unwrap();
    let secret = write(&directory, "secret", "abc", 0o604);
    let env = [("TACITURN_AUTH__SECRETS__FILE", secret.as_str())];
    let warnings = from_env(&env).unwrap().warnings;
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains(&secret)),
        "{warnings:?}"
    );

    let config = write(&directory, "config.toml", SECRET, 0o604);
    let sources = Sources {
        file: Some(PathBuf::from(&config)),
        ..Sources::default()
    };
    let warnings = load(&sources).unwrap().warnings;
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains(&config)),
        "{warnings:?}"
    );
}

/// T26
#[test]
fn settings_and_sources_print_no_secret() {
    let text = "[auth]\nsecrets = [{ id = \"1\", value = \"hunter2-a\" }]\n\
                users = { alice = \"hunter2-b\" }\n";
    let env = [("TACITURN_AUTH__USERS__BOB", "hunter2-c")];
    let directory = TempDir::new().unwrap();
    let sources = Sources {
        file: Some(write(&directory, "config.toml", text, 0o600).into()),
        environment: environment_of(&env),
        flags: Flags::default(),
    };

    let loaded = load(&sources).unwrap();

    assert_eq!(
        loaded.settings.auth.users["bob"].expose_secret(),
        "hunter2-c"
    );
    for printed in [
        format!("{loaded:?}"),
        format!("{loaded:#?}"),
        format!("{sources:?}"),
    ] {
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

/// T26
#[test]
fn no_error_prints_a_secret() {
    for text in [
        "auth = \"hunter2\"",
        "[auth]\nsecret = \"hunter2\"",
        "[auth]\nsecrets = \"hunter2\"",
        "[auth]\nsecrets = [\"hunter2\"]",
        "[auth]\nsecrets = [{ id = \"1\", vlaue = \"hunter2\" }]",
        "[auth]\nsecrets = [{ id = \"1\", value = [\"hunter2\"] }]",
        "[auth]\nsecrets = [{ id = \"1\", value = \"hunter2\\u0000\" }]",
        "[auth]\nsecrets = [{ id = \"1\", value = \"hunter2\", file = \"/x\" }]",
        "[auth]\nsecrets = [{ id = \"1\", value = \"hunter2 }]",
        "[auth]\nsecrets = [{ id = \"1\" value = \"hunter2\" }]",
        "[auth]\nusers = \"hunter2\"",
        "[auth]\nusers = { alice = [\"hunter2\"] }",
        "[auth]\nusers = { alice = { password = \"hunter2\" } }",
        "[auth]\nusers = { \"a:b\" = \"hunter2\" }",
        "secret = \"hunter2\"",
    ] {
        let error = from_text(text).unwrap_err();
        for printed in [error.to_string(), format!("{error:?}")] {
            assert!(!printed.contains("hunter2"), "{printed}");
        }
    }
    for name in [
        "TACITURN_AUTH__SECRET",
        "TACITURN_SECRET",
        "TACITURN_AUTH__USERS",
        "TACITURN_AUTH__USERS__FILE",
        "TACITURN_AUTH__SECRETS__0__VALUE",
    ] {
        let error = from_env(&[(name, "hunter2")]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let error = from_env(&[("TACITURN_AUTH__SECRETS", "[hunter2")]).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
