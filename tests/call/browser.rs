//! A headless Chromium with a fake camera and a fake microphone.

use crate::lab::process::Process;
use crate::lab::{Lab, Party};
use crate::signalling::Signalling;

/// Opens the call's page in `party`'s namespace.
pub(crate) fn open(lab: &Lab, party: Party) -> Process {
    let name = format!("chromium-{}", party.name());
    let origin = Signalling::origin();
    let mut command = lab.party(party).command("chromium");
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
        .arg(format!("--user-data-dir={}", lab.file(&name).display()))
        // Cameras are for secure contexts only.
        .arg(format!(
            "--unsafely-treat-insecure-origin-as-secure={origin}"
        ))
        .arg(Signalling::page(party));
    Process::spawn(&name, command, lab.directory())
}
