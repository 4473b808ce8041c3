//! OpenSSL's TLS client against the daemon: protocol names, versions, and certificates that are
//! renewed.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::certificates::{certificate, hang_up, served, tls_listener};
use crate::house::{Daemon, House};

/// A Binding request (RFC 8489 §5) without attributes.
const BINDING: [u8; 20] = [
    0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, b'o', b'p', b'e', b'n', b's', b's', b'l', 1, 2, 3, 4, 5,
];

fn s_client(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &tls_listener(daemon).to_string()])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// What it says when it has nothing to send.
fn says(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = s_client(daemon, arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[track_caller]
fn assert_has(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

/// Reads one whole message; its type.
fn answer(from: &mut impl Read) -> u16 {
    let mut header = [0; 20];
    from.read_exact(&mut header).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
    from.read_exact(&mut body).unwrap();
    u16::from_be_bytes([header[0], header[1]])
}

#[test]
#[ignore = "needs the openssl program; .ci/run runs it"]
fn s_client_agrees_on_protocol_names_and_versions() {
    let house = House::new("");
    let (daemon, _) = served(&house);
    for name in ["stun.turn", "stun.nat-discovery"] {
        let said = says(&daemon, &["-alpn", &format!("h2,{name}")]);
        assert_has(&said, &["TLSv1.3", &format!("ALPN protocol: {name}")]);
    }
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        assert_has(&says(&daemon, &[flag]), &[version, "No ALPN negotiated"]);
    }
    // RFC 7301 §3.2: no_application_protocol.
    assert_has(&says(&daemon, &["-alpn", "h2"]), &["alert number 120"]);
    for old in ["-tls1_1", "-tls1"] {
        let said = says(&daemon, &[old, "-cipher", "ALL:@SECLEVEL=0"]);
        assert_has(&said, &["SSL alert number", "Cipher is (NONE)"]);
    }
}

#[test]
#[ignore = "needs the openssl program; .ci/run runs it"]
fn s_client_sees_a_renewed_certificate_and_one_from_before_keeps_its_connection() {
    let house = House::new("");
    let (daemon, first) = served(&house);
    let mut before = s_client(&daemon, &["-quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = before.stdin.take().unwrap();
    let mut heard = before.stdout.take().unwrap();
    pipe.write_all(&BINDING).unwrap();
    assert_eq!(answer(&mut heard), 0x0101);
    let pem = |der: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        text[..64].to_owned()
    };
    let before_pem = pem(&first);
    assert_has(&says(&daemon, &[]), &[&before_pem]);

    let second = certificate(&house.directory.path().join("first"), "second.example");
    hang_up(&daemon, "a new certificate is served");

    let said = says(&daemon, &[]);
    // Certificates of one maker begin alike; these lines end in the serial number.
    assert_ne!(pem(&second), before_pem);
    assert_has(&said, &[&pem(&second)]);
    pipe.write_all(&BINDING).unwrap();
    assert_eq!(answer(&mut heard), 0x0101);
    drop(pipe);
    before.kill().unwrap();
    before.wait().unwrap();
}
