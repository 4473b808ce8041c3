//! Configurations that it does not start from.

use std::process::Output;

use crate::house::House;

const AUTH: &str = "auth = { secrets = [{ id = \"a\", value = \"b\" }] }\n";

/// Exit code 64, and on standard error everything of `words`.
#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(output.stdout.is_empty());
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[track_caller]
fn refuses(config: &str, words: &[&str]) {
    let house = House::new("");
    house.write(config);
    let file = house.config();
    let file = file.to_str().unwrap();
    let output = house.run(&["serve", "--config", file]);
    assert_refused(&output, &[&[file], words].concat());
}

#[test]
fn an_unknown_key_is_named_with_those_that_are_known() {
    let config = format!("{AUTH}[relay]\nport = 5");
    refuses(
        &config,
        &["relay.port: unknown key", "addresses, external, ports"],
    );
}

#[test]
fn a_policy_wider_than_its_ceiling_is_refused() {
    let config = format!("{AUTH}[policy]\nceiling = \"call\"");
    let words = [
        "policy.ceiling = \"call\"",
        "policy.peers is wider",
        "leave it out",
    ];
    refuses(&config, &words);
}

/// T6
#[test]
fn a_malformed_entry_of_an_access_list_is_refused() {
    for key in ["allow", "deny"] {
        for entry in [
            "10.0.0.0/33",
            "10.0.0.0-10.0.0.9",
            "10.0.0",
            "fe80::/129",
            "all",
            "",
        ] {
            let config = format!("{AUTH}[policy]\n{key} = [\"192.0.2.0/24\", \"{entry}\"]");
            let named = format!("policy.{key}.1 = \"{entry}\"");
            refuses(&config, &[&named, "write a network such as"]);
        }
    }
}

#[test]
fn a_configuration_that_lets_nobody_in_is_refused() {
    let words = ["auth: neither secrets nor users", "write secrets = ["];
    refuses("realm = \"calls.test\"", &words);
}

#[test]
fn every_problem_is_told_at_once() {
    let config = "[relay]\nports = \"9-1\"\ndscp = 64\n[log]\nlevel = \"loud\"";
    let words = [
        "auth: ",
        "relay.ports = \"9-1\"",
        "relay.dscp = 64",
        "log.level = \"loud\"",
    ];
    refuses(config, &words);
}

#[test]
fn the_source_of_a_bad_value_is_named_whatever_it_is() {
    let house = House::new("");
    let serve = ["serve", "--config", "taciturn.toml"];
    let mut command = house.command(&serve);
    command.env("TACITURN_RELAY__DSCP", "64");
    let output = house.finish(command);
    assert_refused(&output, &["TACITURN_RELAY__DSCP", "64"]);
    let output = house.run(&[&serve[..], &["--log-level", "loud"]].concat());
    assert_refused(&output, &["--log-level", "loud"]);
    let output = house.run(&["serve", "--config", "no-such-file.toml"]);
    assert_refused(&output, &["no-such-file.toml"]);
}

/// T26
#[test]
fn a_secret_in_a_wrong_place_is_not_shown() {
    let secret = "hunter2-hunter2";
    for config in [
        format!("[auth]\nsecret = \"{secret}\""),
        format!("[auth]\nsecrets = \"{secret}\""),
        format!("[auth]\nsecrets = [\"{secret}\"]"),
        format!("[auth]\nsecrets = [{{ id = \"a\", key = \"{secret}\" }}]"),
        format!("[auth]\nsecrets = [{{ id = \"a\", value = \"{secret}\\u0007\" }}]"),
        format!("[auth]\nusers = {{ \"a:b\" = \"{secret}\" }}"),
        format!("[auth]\nusers = [\"{secret}\"]"),
        format!("[auth\nsecrets = [{{ id = \"a\", value = \"{secret}\" }}]"),
        format!("[auth]\nsecrets = [{{ id = \"a\", value = \"{secret}\" }}"),
        format!("[auth]\nsecrets = [{{ id = \"a\", value = {secret} }}]"),
    ] {
        let house = House::new("");
        house.write(&config);
        for command in [&["serve"][..], &["mint", "--user", "a"]] {
            let output = house.run(&[command, &["--config", "taciturn.toml"]].concat());
            assert_refused(&output, &["taciturn.toml"]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains("hunter2"), "{config}: {said}");
        }
    }
}
