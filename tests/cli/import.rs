//! `taciturn import coturn`: from coturn's file to one that `check` takes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::user::User;

const CONFIG: &str = "listening-port=3479\nrealm=turn.example.org\nuse-auth-secret\n\
                      static-auth-secret=hunter2\nno-multicast-peers\nno-cli\nfrobnicate\n";

#[test]
fn what_is_imported_passes_the_check_and_what_is_left_is_named() {
    let user = User::new();
    let coturn = user.file("turnserver.conf", CONFIG);
    let ours = coturn.replace("turnserver.conf", "taciturn.toml");
    let said = user
        .runs(&["import", "coturn", &coturn, "--output", &ours])
        .ended(0);
    said.err_has(&[
        "line 6: no-cli: ",
        "line 7: frobnicate: ",
        "policy.peers: coturn relays to everybody",
    ]);
    // T26
    assert!(
        !said.err.contains("hunter2") && said.out.is_empty(),
        "{said:?}"
    );
    let mode = std::fs::metadata(&ours).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let checked = user.runs(&["check", "--config", &ours]).ended(0);
    checked.out_has(&["3479", "turn.example.org", "with the secret \"coturn-1\""]);
    // What is there already may be somebody's work.
    user.runs(&["import", "coturn", &coturn, "--output", &ours])
        .ended(1)
        .err_has(&["must not be there yet"]);
}

#[test]
fn without_a_file_to_write_it_goes_to_standard_output() {
    let user = User::new();
    let coturn = user.file("turnserver.conf", CONFIG);
    let said = user.runs(&["import", "coturn", &coturn]).ended(0);
    said.out_has(&[
        "realm = \"turn.example.org\"",
        "[auth]",
        "value = \"hunter2\"",
    ]);
}

#[test]
fn what_is_no_configuration_is_refused() {
    let user = User::new();
    let absent = user.file("absent", "");
    std::fs::remove_file(Path::new(&absent)).unwrap();
    user.runs(&["import", "coturn", &absent])
        .ended(1)
        .err_has(&["cannot read", "absent"]);
    user.runs(&["import", "coturn", "/dev/zero"])
        .ended(64)
        .err_has(&["too long"]);
    user.runs(&["import", "xyz", &absent]).ended(64);
}
