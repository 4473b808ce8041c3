//! Two ends of rustls talk in memory, and are overheard.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivateKeyDer;
use rustls::{
    ClientConfig, ClientConnection, KeyLog, RootCertStore, ServerConfig, ServerConnection,
};

use super::*;

/// Keeps secrets as a browser's file would.
#[derive(Debug, Default)]
struct Notebook(Mutex<String>);

impl KeyLog for Notebook {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let mut text = self.0.lock().unwrap();
        writeln!(text, "{label} {} {}", hex(client_random), hex(secret)).unwrap();
    }
}

/// A conversation, as it passed on the wire, and the client's notes of its secrets.
struct Overheard {
    wire: [Vec<u8>; 2],
    notes: String,
}

fn overhear(
    version: &'static rustls::SupportedProtocolVersion,
    suite: rustls::CipherSuite,
) -> Overheard {
    let issued = rcgen::generate_simple_self_signed(["turn.calls.test".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .retain(|offered| offered.suite() == suite);
    let provider = Arc::new(provider);
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let notebook = Arc::new(Notebook::default());
    client.key_log = Arc::clone(&notebook) as Arc<dyn KeyLog>;
    let name = "turn.calls.test".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut wire = [Vec::new(), Vec::new()];
    for (from_client, from_server) in [
        (&b""[..], &b""[..]),
        (b"how ", b"fine"),
        (b"are you", b", thanks"),
    ] {
        client.writer().write_all(from_client).unwrap();
        server.writer().write_all(from_server).unwrap();
        while client.wants_write() || server.wants_write() {
            let mut sent = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
            wire[0].extend(&sent);
            let mut rest = &sent[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut sent = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut sent).unwrap();
            }
            wire[1].extend(&sent);
            let mut rest = &sent[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
            }
        }
    }
    let notes = notebook.0.lock().unwrap().clone();
    Overheard { wire, notes }
}

#[test]
fn what_was_said_is_read_with_each_suite() {
    for suite in [
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384,
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ] {
        let Overheard {
            wire: [client, server],
            notes,
        } = overhear(&rustls::version::TLS13, suite);
        let opened = Secrets::parse(&notes).open(&client, &server);
        let [from_client, from_server] = opened.unwrap();
        assert_eq!(from_client, b"how are you", "{suite:?}");
        assert_eq!(from_server, b"fine, thanks", "{suite:?}");
    }
}

#[test]
fn what_cannot_be_read_is_not_taken_for_silence() {
    let suite = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    let Overheard {
        wire: [client, mut server],
        notes,
    } = overhear(&rustls::version::TLS13, suite);
    assert!(Secrets::parse("").open(&client, &server).is_none());
    // The last record is not what was sent.
    *server.last_mut().unwrap() ^= 1;
    assert!(Secrets::parse(&notes).open(&client, &server).is_none());

    let suite = rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let Overheard {
        wire: [client, server],
        notes,
    } = overhear(&rustls::version::TLS12, suite);
    assert!(Secrets::parse(&notes).open(&client, &server).is_none());
}

/// The first records of a stream.
fn first(stream: &[u8], count: usize) -> Vec<u8> {
    let records = records(stream).into_iter().take(count);
    records
        .flat_map(|(header, content)| [header, content].concat())
        .collect()
}

#[test]
fn a_client_that_gave_up_in_the_handshake_said_nothing_and_only_an_alert_goes_unread() {
    const HEADER: [u8; 4] = [23, 3, 3, 0];
    let suite = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    let Overheard {
        wire: [client, server],
        notes,
    } = overhear(&rustls::version::TLS13, suite);
    let of_handshake = |line: &&str| line.contains("_HANDSHAKE_");
    let notes: Vec<&str> = notes.lines().filter(of_handshake).collect();
    let secrets = Secrets::parse(&notes.join("\n"));
    let hello = first(&client, 1);
    let open = |count: usize, more: &[u8]| {
        let server = [first(&server, count), more.to_vec()].concat();
        secrets.open(&hello, &server)
    };
    let nothing = Some([Vec::new(), Vec::new()]);
    let all = records(&server).len();
    let of_handshake = (1..=all).take_while(|count| open(*count, b"") == nothing);
    let of_handshake = of_handshake.count();
    assert!((2..all).contains(&of_handshake), "{of_handshake} of {all}");
    let alert = |length: u8| {
        let content = vec![7; length.into()];
        [&HEADER[..], &[length], &content].concat()
    };
    assert_eq!(open(of_handshake, &alert(19)), nothing);
    assert_eq!(open(of_handshake, &alert(20)), None);
    assert_eq!(open(of_handshake, &[alert(19), alert(19)].concat()), None);
    assert_eq!(open(all, b""), None);
    // One that has finished may have said something.
    let server = first(&server, of_handshake);
    assert_eq!(secrets.open(&client, &server), None);
    assert_eq!(Secrets::parse("").open(&hello, &server), None);
}

#[test]
fn a_connection_without_an_answer_said_nothing() {
    let nothing = Some([Vec::new(), Vec::new()]);
    assert_eq!(Secrets::parse("").open(b"", b""), nothing);
}
