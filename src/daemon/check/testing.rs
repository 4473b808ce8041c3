//! A machine on which nothing is to be warned of, and configurations for it.

use std::ffi::OsString;
use std::path::Path;

use super::Facts;
use crate::config::{self, Settings, Sources};
use crate::dataplane::RelayAddress;

/// A server with one address of each family, every limit high.
pub(super) fn facts() -> Facts {
    Facts {
        addresses: ["127.0.0.1", "203.0.113.7", "::1", "2001:db8::7"]
            .map(|address| address.parse().unwrap())
            .to_vec(),
        listen_buffer: Some(8 << 20),
        relay_buffer: Some(1 << 20),
        rmem_max: Some(8 << 20),
        ephemeral: Some(32768..=49151),
        reserved: Vec::new(),
        descriptors: Some(1 << 20),
        unprivileged_port: Some(1024),
        binds_low_ports: Some(true),
        state: None,
        silent_ports: Some(vec![49152..=65535]),
        clock_synchronised: Some(true),
        now: 1_800_000_000,
        cores: 2,
    }
}

/// What these variables mean, on top of a secret and one relay address.
pub(super) fn settings(variables: &[(&str, &str)]) -> Settings {
    let base = [
        ("TACITURN_AUTH__SECRETS", "hunter2"),
        ("TACITURN_RELAY__ADDRESSES", "203.0.113.7"),
    ];
    let theirs = |name: &str| variables.iter().any(|(other, _)| *other == name);
    let environment = base
        .iter()
        .filter(|(name, _)| !theirs(name))
        .chain(variables)
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    config::load(&sources).unwrap().settings
}

/// The relay addresses of `settings`.
pub(super) fn relays(settings: &Settings) -> Vec<RelayAddress> {
    settings.relays(&[]).unwrap()
}

/// Files with a certificate for these names and its key.
pub(super) fn certificate_files(directory: &Path, names: &[&str]) -> [String; 2] {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    [
        ("cert.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
    ]
    .map(|(name, text)| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    })
}
