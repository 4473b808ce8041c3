//! What is made from the definition of the command line.

use crate::user::User;

const COMMANDS: [&str; 9] = [
    "demo",
    "serve",
    "check",
    "mint",
    "whois",
    "probe",
    "load",
    "completions",
    "man",
];

#[test]
fn completions_of_each_shell_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = User::new().runs(&["completions", shell]).ended(0);
        said.out_has(&COMMANDS);
        said.out_has(&["listen-udp", "ice"]);
    }
}

#[test]
fn an_unknown_shell_is_refused_with_the_known_ones() {
    User::new()
        .runs(&["completions", "tcsh"])
        .ended(64)
        .err_has(&["tcsh", "bash", "zsh", "fish"]);
}

#[test]
fn manual_pages_render() {
    let user = User::new();
    let all = user.runs(&["man"]).ended(0);
    all.out_has(&[".TH taciturn 1", ".SH SYNOPSIS"]);
    for command in COMMANDS {
        all.out_has(&[&format!("taciturn\\-{command}(1)")]);
        let page = user.runs(&["man", command]).ended(0);
        page.out_has(&[".TH taciturn", ".SH OPTIONS", ".SH EXAMPLES\n.nf\n"]);
    }
    user.runs(&["man", "fly"])
        .ended(64)
        .err_has(&["fly", "serve"]);
}

#[test]
fn help_shows_examples_and_exits_well() {
    let user = User::new();
    user.runs(&["--help"]).ended(0).out_has(&COMMANDS);
    for command in COMMANDS {
        let said = user.runs(&[command, "--help"]).ended(0);
        said.out_has(&[
            "Usage: taciturn",
            "Examples:",
            &format!("taciturn {command}"),
        ]);
        assert!(!said.out.contains('\u{1b}'), "{}", said.out);
    }
}

#[test]
fn a_command_line_that_means_nothing_is_bad_usage() {
    let user = User::new();
    for arguments in [
        vec![],
        vec!["fly"],
        vec!["serve", "--secret", "x"],
        vec!["mint"],
    ] {
        user.runs(&arguments)
            .ended(64)
            .err_has(&["Usage: taciturn"]);
    }
}

#[cfg(not(feature = "probe"))]
#[test]
fn a_build_without_the_probe_says_so() {
    let user = User::new();
    user.runs(&["--help"])
        .ended(0)
        .out_has(&["Not in this build"]);
    user.runs(&["probe"])
        .ended(64)
        .err_has(&["this build has no probe", "feature"]);
}
