//! `taciturn check`: what it says of good configurations.

use std::path::Path;

use crate::user::User;

/// A file that we ship, with its secret where this user may have one.
fn shipped(user: &User, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let secret = user.file("secret", "hunter2\n");
    user.file(name, &text.replace("/etc/taciturn/secret", &secret))
}

#[test]
fn the_minimal_file_is_told_in_plain_words() {
    let user = User::new();
    let config = shipped(&user, "minimal.toml");
    let said = user.runs(&["check", "--config", &config]).ended(0);
    said.out_has(&[
        "UDP 0.0.0.0:3478, which today stands for 127.0.0.1",
        "turn:turn.example.org:3478?transport=udp",
        "49152 to 65535",
        "closed: an allocation exchanges packets with relayed addresses of this server alone",
        "time-limited, with the secret \"1\"",
        "calls.example.org",
        "kept in /var/lib/taciturn",
        "http://127.0.0.1:9641",
        "one for each core",
    ]);
    assert!(
        !said.out.contains("hunter2") && !said.out.contains('\u{1b}'),
        "{said:?}"
    );
    assert!(said.err.is_empty(), "{}", said.err);
}

#[test]
fn the_reference_file_needs_a_secret_from_somewhere() {
    let user = User::new();
    let config = shipped(&user, "taciturn.toml");
    user.runs(&["check", "--config", &config])
        .ended(64)
        .err_has(&["auth: neither secrets nor users"]);
    let user = user.with("TACITURN_AUTH__SECRETS", "hunter2");
    let said = user.runs(&["check", "--config", &config]).ended(0);
    said.out_has(&["with the secret \"env\""]);
    assert!(!said.out.contains("hunter2"), "{}", said.out);
}

#[test]
fn flags_count_as_they_do_for_serve() {
    let user = User::new();
    let flags = ["--listen-udp", "127.0.0.1:500", "--log-level", "debug"];
    let said = user.runs(&[&["check"], &flags[..]].concat()).ended(0);
    said.out_has(&[
        "UDP 127.0.0.1:500\n",
        "debug and above",
        "a secret made for each run",
        "listen.udp has port 500: browsers",
    ]);
}

#[test]
fn an_open_policy_is_told_with_what_it_opens() {
    let user = User::new()
        .with("TACITURN_AUTH__USERS__ALICE", "hunter2")
        .with("TACITURN_POLICY__PEERS", "192.0.2.0/24")
        .with("TACITURN_POLICY__DENY", "192.0.2.1")
        .with("TACITURN_RELAY__ADDRESSES", "198.51.100.7")
        .with("TACITURN_RELAY__EXTERNAL", "203.0.113.7");
    let said = user.runs(&["check"]).ended(0);
    said.out_has(&[
        "198.51.100.7, of which clients are told 203.0.113.7",
        "and with 192.0.2.0/24; closed are 192.0.2.1/32",
        "1 static user\n",
        "relay.addresses names 198.51.100.7",
    ]);
    assert!(!said.out.contains("hunter2"), "{}", said.out);
}

#[test]
fn secrets_and_an_admin_listener_for_everybody_are_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let user = User::new().with("TACITURN_ADMIN__LISTEN", "0.0.0.0:9641");
    let secret = user.file("secret", "hunter2");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let user = user.with("TACITURN_AUTH__SECRETS__FILE", &secret);
    let said = user.runs(&["check"]).ended(0);
    said.out_has(&[
        "every user of this machine can read",
        &secret,
        "admin.listen = 0.0.0.0:9641",
    ]);
}

#[test]
fn a_server_that_could_not_start_here_makes_the_check_fail() {
    let user = User::new();
    let said = user
        .runs(&["check", "--listen-udp", "198.51.100.1:3478"])
        .ended(1);
    said.out_has(&[
        "`serve` could not start here:",
        "198.51.100.1:3478 is to be listened on",
    ]);
    said.err_has(&["`serve` could not start here"]);
    let file = user.file("state", "");
    let user = user.with("TACITURN_STATE__DIR", &file);
    user.runs(&["check"])
        .ended(1)
        .out_has(&[&format!("{file} is no directory")]);
}

#[test]
fn a_state_directory_for_everybody_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let user = User::new();
    let state = user.path("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
    let user = user.with("TACITURN_STATE__DIR", state.display());
    user.runs(&["check"])
        .ended(0)
        .out_has(&["others than its owner", "mode 0777"]);
}

#[test]
fn a_check_binds_no_port() {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    User::new()
        .with("TACITURN_RELAY__PORTS", "20000-20999")
        .runs(&["check", "--listen-udp", &address])
        .ended(0);
}
