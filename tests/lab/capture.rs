//! `tcpdump` on one leg, and its file read back.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::namespace::Namespace;
use super::packet::Packet;
use super::process::Process;

/// The TCP port of the signalling server. Its messages carry the parties'
/// addresses when they want them to, so it is not captured.
pub(crate) const SIGNALLING_PORT: u16 = 8080;

/// A capture under way.
pub(crate) struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Returns once `tcpdump` listens.
    pub(crate) fn start(namespace: &Namespace, interface: &str, directory: &Path) -> Self {
        let name = format!("capture-{interface}");
        let file = directory.join(format!("{name}.pcap"));
        let mut command = namespace.command("tcpdump");
        command
            .args(["-i", interface, "-n", "-U", "--immediate-mode", "-s", "0"])
            .args(["-B", "32768", "-Z", "root", "-w"])
            .arg(&file)
            .arg(format!("not tcp port {SIGNALLING_PORT}"));
        let mut tcpdump = Process::spawn(&name, command, directory);
        tcpdump.expect_line("tcpdump: listening on", Duration::from_secs(10));
        Self { tcpdump, file }
    }

    /// Ends the capture; every IP packet seen. Panics if any was missed.
    pub(crate) fn finish(mut self) -> Vec<Packet> {
        // What is on its way through the kernel's ring arrives within this time.
        thread::sleep(Duration::from_millis(300));
        self.tcpdump.stop(Signal::INT);
        let output = self.tcpdump.output();
        assert!(
            output.contains("\n0 packets dropped by kernel"),
            "the capture is incomplete:\n{output}"
        );
        let bytes = fs::read(&self.file).expect("tcpdump wrote its file");
        read_pcap(&bytes)
    }
}

/// Reads a capture file of `tcpdump`: records in this machine's byte order,
/// Ethernet frames.
fn read_pcap(file: &[u8]) -> Vec<Packet> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const ETHERNET: u32 = 1;

    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(word(0), MAGIC, "not a capture file with microseconds");
    assert_eq!(word(20), ETHERNET, "not a capture of Ethernet frames");
    let mut packets = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let (kept, sent) = (word(at + 8) as usize, word(at + 12));
        assert_eq!(kept, sent as usize, "a frame was cut short");
        let frame = &file[at + 16..at + 16 + kept];
        packets.extend(Packet::of_frame(frame));
        at += 16 + kept;
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_packet() {
        let frame = super::super::packet::tests::udp_frame(b"payload");
        let length = u32::try_from(frame.len()).unwrap();
        let mut file = Vec::new();
        for word in [
            0xa1b2_c3d4,
            0x0004_0002,
            0,
            0,
            262_144,
            1,
            0,
            0,
            length,
            length,
        ] {
            file.extend(u32::to_ne_bytes(word));
        }
        file.extend(&frame);
        let packets = read_pcap(&file);
        assert_eq!(packets.len(), 1);
        assert_eq!(packets[0].udp_payload().unwrap(), b"payload");
    }
}
