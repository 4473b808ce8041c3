//! A headless browser with a fake camera and a fake microphone, which trusts the lab's authority
//! and writes down the secrets of its TLS connections.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bidi::Session;
use crate::lab::process::Process;
use crate::lab::{Lab, Party};
use crate::signalling::Signalling;

/// Whose browser it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Browser {
    Chromium,
    Firefox,
}

impl Browser {
    /// Its program, which is its package too.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox-esr",
        }
    }

    /// How it names itself in its user agent.
    pub(crate) fn agent(self) -> &'static str {
        match self {
            Self::Chromium => "Chrome/",
            Self::Firefox => "Firefox/",
        }
    }
}

/// A browser on the call's page.
pub(crate) struct Opened {
    process: Process,
    /// Kept for as long as the browser is.
    _session: Option<Session>,
}

impl Opened {
    /// The last lines that it wrote.
    pub(crate) fn last_words(&self) -> String {
        self.process.last_words()
    }
}

/// Where `party`'s browser writes the secrets of its TLS connections.
pub(crate) fn secrets(lab: &Lab, party: Party) -> PathBuf {
    lab.file(&format!("secrets-{}", party.name()))
}

/// Opens the call's page in `party`'s namespace.
pub(crate) fn open(lab: &Lab, party: Party, browser: Browser) -> Opened {
    let name = format!("{}-{}", browser.program(), party.name());
    let home = lab.file(&name);
    let mut command = lab.party(party).command(browser.program());
    command.env("HOME", &home);
    command.env("SSLKEYLOGFILE", secrets(lab, party));
    match browser {
        Browser::Chromium => {
            trust_authority(lab, &home.join(".pki/nssdb"));
            chromium(&mut command, &home);
            command.arg(Signalling::page(party));
            Opened {
                process: Process::spawn(&name, command, lab.directory()),
                _session: None,
            }
        }
        Browser::Firefox => {
            let profile = home.join("profile");
            trust_authority(lab, &profile);
            firefox(&mut command, &profile);
            let mut process = Process::spawn(&name, command, lab.directory());
            let address =
                process.expect_line("WebDriver BiDi listening on ws://", Duration::from_secs(60));
            let address = address.parse().expect("an address stands behind ws://");
            let mut session = Session::begin(lab.party(party), address);
            session.open(&Signalling::page(party));
            Opened {
                process,
                _session: Some(session),
            }
        }
    }
}

/// Makes a certificate database in which the lab's authority vouches for servers.
fn trust_authority(lab: &Lab, database: &Path) {
    fs::create_dir_all(database).expect("the lab's directory is writable");
    let database = format!("sql:{}", database.display());
    let authority = lab.file("authority.pem");
    for arguments in [
        &["-N", "--empty-password"][..],
        &[
            "-A",
            "-n",
            "lab",
            "-t",
            "C,,",
            "-i",
            &authority.to_string_lossy(),
        ],
    ] {
        let output = Command::new("certutil")
            .args(["-d", &database])
            .args(arguments)
            .output()
            .expect("certutil is installed");
        assert!(
            output.status.success(),
            "certutil {arguments:?}: {output:?}"
        );
    }
}

fn chromium(command: &mut Command, profile: &Path) {
    command
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            "--autoplay-policy=no-user-gesture-required",
            // Host candidates show real addresses instead of mDNS names.
            "--disable-features=WebRtcHideLocalIpsWithMdns",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        // Cameras are for secure contexts only.
        .arg(format!(
            "--unsafely-treat-insecure-origin-as-secure={}",
            Signalling::origin()
        ));
}

/// Port 0 lets it choose; what else automation needs it sets by itself.
fn firefox(command: &mut Command, profile: &Path) {
    let mut preferences = String::new();
    for (name, value) in [
        ("media.navigator.streams.fake", "true"),
        ("media.navigator.permission.disabled", "true"),
        // Cameras are for secure contexts only.
        ("media.devices.insecure.enabled", "true"),
        ("media.getusermedia.insecure.enabled", "true"),
        // Host candidates show real addresses instead of mDNS names.
        ("media.peerconnection.ice.obfuscate_host_addresses", "false"),
        // Milliseconds to wait for the other party's candidates: on a slow machine they are late.
        ("media.peerconnection.ice.trickle_grace_period", "30000"),
        ("network.captive-portal-service.enabled", "false"),
        ("network.connectivity-service.enabled", "false"),
    ] {
        writeln!(preferences, "user_pref(\"{name}\", {value});").expect("a string takes all");
    }
    fs::write(profile.join("user.js"), preferences).expect("the profile is writable");
    command
        .args(["--headless", "--no-remote", "--remote-debugging-port=0"])
        .arg("--profile")
        .arg(profile);
}
