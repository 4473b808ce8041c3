//! Bad configurations of every kind: `serve` and `check` refuse each with exit code 64 and name
//! its source, key, value and remedy.

use crate::user::User;

/// Where something wrong may be written.
enum At {
    File(&'static str),
    Variable(&'static str, &'static str),
    Flag(&'static str, &'static str),
}
use At::{File, Flag, Variable};

/// What is wrong, and what of key, value and remedy must be said; the source is looked for by
/// itself.
const CASES: &[(At, &[&str])] = &[
    (File("realm ="), &["not TOML at line 1", "check quotes"]),
    (
        File("reallm = 'a'"),
        &["reallm: unknown key", "known here are realm"],
    ),
    (File("realm = 5"), &["realm = 5", "write a text"]),
    (File("realm = ''"), &["realm = \"\"", "write your domain"]),
    (
        File("[public]\nhost = 'a:1'"),
        &["public.host = \"a:1\"", "turn.example.org"],
    ),
    (
        File("[public]\nurls = ['http://a']"),
        &["public.urls.0 = \"http://a\"", "turn:"],
    ),
    (
        File("[listen]\nudp = []"),
        &["listen.udp = []", "0.0.0.0:3478"],
    ),
    (
        File("[listen]\nudp = ['a']"),
        &["listen.udp.0 = \"a\"", "0.0.0.0:3478"],
    ),
    (
        File("[relay]\nports = '9-1'"),
        &["relay.ports = \"9-1\"", "49152-65535"],
    ),
    (
        File("[relay]\nports = '3000-4000'"),
        &[
            "relay.ports = \"3000-4000\"",
            "another port for the listener",
        ],
    ),
    (
        File("[relay]\naddresses = ['0.0.0.0']"),
        &["relay.addresses.0", "one host"],
    ),
    (
        File("[relay]\ndscp = 64"),
        &["relay.dscp = 64", "from 0 to 63"],
    ),
    (
        File("[policy]\npeers = 'all'"),
        &["policy.peers = \"all\"", "\"relay\", \"any\""],
    ),
    (
        File("[log]\nlevel = 'loud'"),
        &["log.level = \"loud\"", "\"info\""],
    ),
    (
        Variable("TACITURN_RELAY__PORTS", "80-90"),
        &["relay.ports = \"80-90\"", "from 1024 up"],
    ),
    (
        Variable("TACITURN_WORKERS__COUNT", "many"),
        &["workers.count = \"many\"", "a whole number"],
    ),
    (
        Variable("TACITURN_RELAY_PORTS", "1-2"),
        &["relay_ports", "two underscores"],
    ),
    (
        Variable("TACITURN_AUTH__SECRETS__FILE", "/absent/secret"),
        &[
            "auth.secrets.0.file = \"/absent/secret\"",
            "name a readable file",
        ],
    ),
    (
        Variable("TACITURN_AUTH__SECRETS", ""),
        &["auth.secrets.0.value", "openssl rand -base64 32"],
    ),
    (
        Variable("TACITURN_ADMIN__LISTEN", "everywhere"),
        &["admin.listen = \"everywhere\"", "\"off\""],
    ),
    (
        Variable("TACITURN_AUTH__SESSION_MAX", "forever"),
        &["auth.session_max = \"forever\"", "write a duration"],
    ),
    (
        Flag("--listen-udp", "3478"),
        &["listen.udp.0 = \"3478\"", "0.0.0.0:3478"],
    ),
    (
        Flag("--log-level", "loud"),
        &["log.level = \"loud\"", "\"info\""],
    ),
];

#[test]
fn every_kind_of_bad_configuration_is_named_by_serve_and_by_check() {
    assert!(CASES.len() >= 20);
    for command in ["serve", "check"] {
        for (at, parts) in CASES {
            let (user, flags, source) = match at {
                File(text) => {
                    let user = User::new().with("TACITURN_AUTH__SECRETS", "hunter2");
                    let path = user.file("bad.toml", text);
                    (user, vec!["--config".to_owned(), path.clone()], path)
                }
                Variable(name, value) => {
                    let user = User::new().with(name, value);
                    (user, vec![], format!("environment variable {name}"))
                }
                Flag(name, value) => {
                    let flags = vec![(*name).to_owned(), (*value).to_owned()];
                    (User::new(), flags, format!("flag {name}"))
                }
            };
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let said = user.runs(&[&[command], &flags[..]].concat()).ended(64);
            said.err_has(&["taciturn: ", &source]);
            said.err_has(parts);
            assert!(
                said.out.is_empty() && !said.err.contains("hunter2"),
                "{said:?}"
            );
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    for command in ["serve", "check"] {
        User::new()
            .runs(&[command, "--config", "/absent/taciturn.toml"])
            .ended(64)
            .err_has(&["/absent/taciturn.toml", "cannot be read", "name a file"]);
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let user = User::new().with("TACITURN_RELAY__DSCP", 99);
    let config = user.file("bad.toml", "[relay]\nports = '9-1'\n");
    let said = user
        .runs(&["check", "--config", &config, "--log-level", "loud"])
        .ended(64);
    said.err_has(&[
        "relay.ports",
        "relay.dscp = 99",
        "log.level",
        "neither secrets nor users",
    ]);
}
