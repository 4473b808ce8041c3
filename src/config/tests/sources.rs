//! File, environment and flags: which one wins, and how each is read.

use super::*;

#[test]
fn a_later_source_wins() {
    let file = format!("{SECRET}[log]\nlevel = \"error\"\n[listen]\nudp = [\"127.0.0.1:1111\"]\n");
    let env = [
        ("TACITURN_LOG__LEVEL", "warn"),
        ("TACITURN_LISTEN__UDP", "127.0.0.1:2222"),
    ];
    let flags = Flags {
        log_level: Some("trace".to_owned()),
        listen_udp: vec!["127.0.0.1:3333".to_owned(), "127.0.0.1:4444".to_owned()],
        ..Flags::default()
    };
    let levels = |env: &[(&str, &str)], flags: &Flags| {
        let settings = from_all(&file, env, flags).unwrap().settings;
        (settings.log.level, settings.listen.udp)
    };
    let none = Flags::default();

    assert_eq!(
        levels(&[], &none),
        (tracing::Level::ERROR, addresses(&["127.0.0.1:1111"]))
    );
    assert_eq!(
        levels(&env, &none),
        (tracing::Level::WARN, addresses(&["127.0.0.1:2222"]))
    );
    assert_eq!(
        levels(&env, &flags),
        (
            tracing::Level::TRACE,
            addresses(&["127.0.0.1:3333", "127.0.0.1:4444"])
        )
    );
}

#[test]
fn the_environment_takes_the_shape_of_each_key() {
    let env = [
        ("TACITURN_REALM", "123456"),
        ("TACITURN_LISTEN__UDP", "[::]:3478, 0.0.0.0:3479"),
        (
            "TACITURN_RELAY__ADDRESSES",
            "[\"192.0.2.1\", \"2001:db8::1\"]",
        ),
        (
            "TACITURN_RELAY__EXTERNAL",
            "{ \"192.0.2.1\" = \"203.0.113.7\" }",
        ),
        ("TACITURN_RELAY__DSCP", "10"),
        ("TACITURN_RELAY__PORTS", "50000"),
        ("TACITURN_AUTH__STRICT", "true"),
        ("TACITURN_AUTH__USERS__ALICE", "42"),
        ("TACITURN_POLICY__PEERS", "192.0.2.0/24,198.51.100.0/24"),
        ("TACITURN_POLICY__FLEET", "203.0.113.8,203.0.113.9"),
        ("TACITURN_POLICY__DENY", ""),
        ("TACITURN_WORKERS__COUNT", " 3 "),
        ("PATH", "/bin"),
    ];

    let Loaded { settings, warnings } = from_env(&env).unwrap();

    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(settings.realm, "123456");
    assert_eq!(
        settings.listen.udp,
        addresses(&["[::]:3478", "0.0.0.0:3479"])
    );
    assert_eq!(settings.relay.addresses.len(), 2);
    assert!(matches!(settings.relay.external, External::Each(_)));
    assert_eq!(
        (settings.relay.dscp, settings.relay.ports),
        (10, 50000..=50000)
    );
    assert!(settings.auth.strict);
    assert_eq!(settings.auth.users["alice"].expose_secret(), "42");
    assert!(matches!(settings.policy.peers, Peers::Networks(nets) if nets.len() == 2));
    assert_eq!(settings.policy.fleet.len(), 2);
    assert_eq!(settings.workers.count, Some(3));
}

#[test]
fn variables_of_kubernetes_are_ignored_with_one_warning() {
    let names = [
        "TACITURN_PORT",
        "TACITURN_PORT_3478_UDP",
        "TACITURN_PORT_3478_UDP_ADDR",
        "TACITURN_PORT_3478_UDP_PORT",
        "TACITURN_PORT_3478_UDP_PROTO",
        "TACITURN_SERVICE_HOST",
        "TACITURN_SERVICE_PORT",
        "TACITURN_SERVICE_PORT_TURN_UDP",
        "TACITURN_ADMIN_SERVICE_HOST",
        "TACITURN_ADMIN_PORT_9641_TCP_ADDR",
    ];
    let env: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (*name, "udp://10.0.0.1:3478"))
        .collect();

    let warnings = from_env(&env).unwrap().warnings;

    assert_eq!(warnings.len(), 1);
    for name in names {
        assert!(warnings[0].contains(name), "{name}: {warnings:?}");
    }
    assert!(!warnings[0].contains("10.0.0.1"));
}

#[test]
fn what_only_resembles_a_variable_of_kubernetes_is_refused() {
    for name in [
        "TACITURN_PORTS",
        "TACITURN_PORT_X_UDP",
        "TACITURN_PORT__3478",
        "TACITURN_HOST",
    ] {
        let error = from_env(&[(name, "1")]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_refused_by_name() {
    let sources = Sources {
        environment: vec![(
            "TACITURN_REALM".into(),
            OsString::from_vec(vec![0xff, 0xfe]),
        )],
        ..Sources::default()
    };
    let error = load(&sources).unwrap_err();
    assert!(error.to_string().contains("TACITURN_REALM"), "{error}");
}

#[test]
fn the_issuers_of_clients_change_the_fingerprint_and_events_that_are_written_do_not() {
    let home = tempfile::tempdir().unwrap();
    let [file, issuers, authorities, events, secret] =
        ["taciturn.toml", "issuers.pem", "ca.pem", "events", "secret"]
            .map(|name| home.path().join(name));
    let text = format!(
        "api.tls = {{ client_ca = {issuers:?} }}\n[events]\nfile = {events:?}\n\
         webhooks = [{{ url = 'http://127.0.0.1/', file = {secret:?}, ca = {authorities:?} }}]\n"
    );
    std::fs::write(&file, text).unwrap();
    let sources = Sources {
        file: Some(file),
        environment: Vec::new(),
        flags: Flags::default(),
    };
    let mut before = fingerprint(&sources);
    for (path, matters) in [
        (&issuers, true),
        (&authorities, true),
        (&events, false),
        (&secret, true),
    ] {
        std::fs::write(path, "anything").unwrap();
        let now = fingerprint(&sources);
        assert_eq!(now != before, matters, "{path:?}");
        before = now;
    }
}

#[test]
fn whatever_a_source_says_changes_its_fingerprint_and_a_comment_elsewhere_does_not() {
    let home = tempfile::tempdir().unwrap();
    let [file, secret] = ["taciturn.toml", "secret"].map(|name| home.path().join(name));
    let other = home.path().join("other");
    let path = secret.to_str().unwrap();
    let text = format!("[auth]\nsecrets = [{{ id = 'a', file = '{path}' }}]\n");
    std::fs::write(&file, &text).unwrap();
    let sources = Sources {
        file: Some(file.clone()),
        environment: Vec::new(),
        flags: Flags::default(),
    };
    let mut seen = vec![fingerprint(&sources)];
    let mut look = |change: &dyn Fn()| {
        change();
        let now = fingerprint(&sources);
        assert_eq!(now, fingerprint(&sources));
        assert!(!seen.contains(&now), "after {} changes", seen.len() - 1);
        seen.push(now);
    };
    look(&|| std::fs::write(&secret, "one").unwrap());
    look(&|| std::fs::write(&secret, "two").unwrap());
    look(&|| std::fs::write(&file, format!("{text}[log]\nlevel = 'warn'\n")).unwrap());
    look(&|| std::fs::write(&file, "not TOML [").unwrap());
    look(&|| std::fs::write(&file, "not TOML either [").unwrap());
    look(&|| std::fs::remove_file(&file).unwrap());
    let before = fingerprint(&sources);
    std::fs::write(other, "nobody names this").unwrap();
    assert_eq!(fingerprint(&sources), before);
}
