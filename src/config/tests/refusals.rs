//! Each refusal names source, key, value and remedy.

use super::*;

mod access;
mod addresses;
mod platform;

/// A text of the file; the key, the value as shown, a part of the reason, a part of the remedy.
type Case = (
    &'static str,
    &'static str,
    Option<&'static str>,
    &'static str,
    &'static str,
);

#[test]
fn each_names_source_key_value_and_remedy() {
    let cases = addresses::CASES.iter().chain(access::CASES);
    for (text, key, value, reason, remedy) in cases.chain(platform::CASES) {
        let text = if ["auth =", "auth.secrets", "auth.users"]
            .iter()
            .any(|own| text.starts_with(own))
        {
            (*text).to_owned()
        } else {
            format!("{text}\nauth.users.alice = 'password'\n")
        };
        let error = from_text(&text).unwrap_err();
        let [problem] = error.problems() else {
            panic!("not one problem with {text}:\n{error}")
        };
        let case = format!("{text}\n{problem}");
        assert!(problem.source.ends_with("/config.toml"), "source of {case}");
        assert_eq!(problem.key, *key, "key of {case}");
        assert_eq!(problem.value.as_deref(), *value, "value of {case}");
        assert!(problem.reason.contains(reason), "reason of {case}");
        assert!(problem.remedy.contains(remedy), "remedy of {case}");
        let line = problem.to_string();
        for part in [
            &problem.source,
            &problem.key,
            &problem.reason,
            &problem.remedy,
        ] {
            assert!(line.contains(part.as_str()), "{part} in {line}");
        }
    }
}

/// T6
#[test]
fn a_malformed_rule_about_peers_is_refused() {
    for key in ["peers", "allow", "deny"] {
        for rule in [
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0/8",
            "10.0.0.0-10.0.0.255",
            "10.0.0.5/8",
            "example.org",
            "",
            " 10.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
            "fe80::1%eth0",
        ] {
            let text = format!("{SECRET}[policy]\n{key} = [\"192.0.2.0/24\", \"{rule}\"]\n");
            let error = from_text(&text).unwrap_err();
            let [problem] = error.problems() else {
                panic!("not one problem with {key} {rule:?}: {error}")
            };
            assert_eq!(problem.key, format!("policy.{key}.1"));
            assert_eq!(problem.value, Some(format!("{rule:?}")));
        }
    }
}

#[test]
fn an_unknown_key_is_named_at_each_level() {
    for (text, key, known) in [
        ("relm = 'x'", "relm", "realm"),
        ("[relai]\nports = '1'", "relai", "relay"),
        ("[relay]\nport = '1'", "relay.port", "ports"),
        ("[listen]\nupd = []", "listen.upd", "udp"),
        (
            "[auth]\nsecrets = [{ id = 'a', vlaue = 'x' }]",
            "auth.secrets.0.vlaue",
            "value",
        ),
        (
            "[policy]\nfleet = [{ address = '::1' }]",
            "policy.fleet.0.address",
            "addr",
        ),
    ] {
        let error = from_text(text).unwrap_err();
        let [problem] = error.problems() else {
            panic!("not one problem with {text}: {error}")
        };
        assert_eq!(problem.key, key);
        assert_eq!(problem.reason, "unknown key");
        assert!(problem.remedy.contains(known), "{problem}");
        assert!(problem.source.ends_with("/config.toml"), "{problem}");
    }
}

#[test]
fn an_unknown_key_of_every_section_is_refused() {
    for section in default_tree()
        .iter()
        .filter(|(_, value)| value.as_dict().is_some())
    {
        let error = from_text(&format!("[{}]\nno_such_key = 1\n", section.0)).unwrap_err();
        let named = format!("{}.no_such_key", section.0);
        assert!(
            error.problems().iter().any(|problem| problem.key == named),
            "{error}"
        );
        let variable = format!("TACITURN_{}__NO_SUCH_KEY", section.0.to_ascii_uppercase());
        let error = from_env(&[(&variable, "1")]).unwrap_err();
        let [problem] = error.problems() else {
            panic!("not one problem: {error}")
        };
        assert_eq!(problem.key, named);
        assert_eq!(problem.source, format!("environment variable {variable}"));
    }
}

#[test]
fn a_problem_names_the_variable_or_flag_it_came_from() {
    let env = [
        ("TACITURN_RELAY__DSCP", "99"),
        ("TACITURN_LISTEN__UDP", "0.0.0.0:1,nonsense"),
        ("TACITURN_WORKERS__COUNT", "1025"),
        ("TACITURN_ADMIN__LISTEN", "everywhere"),
    ];
    let flags = Flags {
        log_level: Some("loud".to_owned()),
        ..Flags::default()
    };

    let error = from_all(SECRET, &env, &flags).unwrap_err();

    let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    for start in [
        "environment variable TACITURN_RELAY__DSCP: relay.dscp = 99: out of range; ",
        "environment variable TACITURN_LISTEN__UDP: listen.udp.1 = \"nonsense\": ",
        "environment variable TACITURN_WORKERS__COUNT: workers.count = 1025: ",
        "environment variable TACITURN_ADMIN__LISTEN: admin.listen = \"everywhere\": ",
        "flag --log-level: log.level = \"loud\": ",
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(start)),
            "{start}\n{error}"
        );
    }
    assert_eq!(lines.len(), 5, "{error}");
}

#[test]
fn a_number_that_is_none_names_its_variable() {
    let error = from_env(&[("TACITURN_WORKERS__COUNT", "many")]).unwrap_err();
    let start = "environment variable TACITURN_WORKERS__COUNT: workers.count = \"many\": ";
    assert!(error.to_string().starts_with(start), "{error}");
}

#[test]
fn all_problems_are_told_at_once() {
    let text = "realm = ''\n[relay]\nports = 'x'\ndscp = 64\n[log]\nlevel = 'x'\n";
    let error = from_all(text, &[("TACITURN_FOO", "1")], &Flags::default()).unwrap_err();
    let keys: Vec<&str> = error.problems().iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "foo",
            "realm",
            "relay.ports",
            "relay.dscp",
            "auth",
            "log.level"
        ]
    );
}

#[test]
fn a_file_that_lets_nobody_allocate_is_refused() {
    let error = from_text("realm = 'x'").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("auth: neither secrets nor users"),
        "{error}"
    );
    let with = [("TACITURN_AUTH__SECRETS", "from-the-environment")];
    assert!(from_all("realm = 'x'", &with, &Flags::default()).is_ok());
}

#[test]
fn a_file_that_is_not_there_is_refused_by_name() {
    let sources = Sources {
        file: Some("/nonexistent/taciturn.toml".into()),
        ..Sources::default()
    };
    let error = load(&sources).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/taciturn.toml: cannot be read"),
        "{error}"
    );
}

#[test]
fn a_slip_in_the_file_is_named_by_line() {
    let error = from_text("realm = \"x\"\n[relay]\nports = = 1\n").unwrap_err();
    assert!(error.to_string().contains("line 3, column 9"), "{error}");
}

#[test]
fn two_variables_for_one_key_are_refused() {
    let env = [
        ("TACITURN_AUTH__SECRETS", "a"),
        ("TACITURN_AUTH__SECRETS__FILE", "/etc/taciturn/secret"),
    ];
    let error = from_env(&env).unwrap_err();
    assert!(error.to_string().contains("another variable"), "{error}");
}
