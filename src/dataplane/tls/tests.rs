use std::os::unix::fs::symlink;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind,
    ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use tempfile::TempDir;

use super::*;

const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A certificate and its key in PEM.
fn made(names: &[&str]) -> [String; 2] {
    made_with(names, &KeyPair::generate().unwrap())
}

fn made_with(names: &[&str], key: &KeyPair) -> [String; 2] {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    [params.self_signed(key).unwrap().pem(), key.serialize_pem()]
}

/// Files in a directory of their own.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn files(&self, name: &str) -> KeyFiles {
        let path = |end| self.0.path().join(format!("{name}.{end}"));
        KeyFiles {
            cert: path("crt"),
            key: path("key"),
        }
    }

    fn write(&self, name: &str, [cert, key]: &[String; 2]) -> KeyFiles {
        let files = self.files(name);
        std::fs::write(&files.cert, cert).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    /// Keys with a pair for each of these lists of names.
    fn keys(&self, pairs: &[&[&str]]) -> TlsKeys {
        let files = pairs.iter().enumerate();
        let files = files.map(|(index, names)| self.write(&index.to_string(), &made(names)));
        TlsKeys::load(files.collect()).unwrap()
    }
}

/// A client that takes any certificate that its owner has the key of.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn client_config(versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// Both ends of a connection.
struct Line {
    client: ClientConnection,
    server: ServerConnection,
}

impl Line {
    /// A client that asks for `name`, after its handshake; or what it was told instead.
    fn open(keys: &TlsKeys, config: &Arc<ClientConfig>, name: &str) -> Result<Self, Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut line = Self {
            client: ClientConnection::new(Arc::clone(config), name).unwrap(),
            server: ServerConnection::new(keys.server_config()).unwrap(),
        };
        line.settle()?;
        assert!(!line.client.is_handshaking() && !line.server.is_handshaking());
        Ok(line)
    }

    /// Carries bytes until neither end has any.
    fn settle(&mut self) -> Result<(), Error> {
        while self.client.wants_write() || self.server.wants_write() {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                self.server.read_tls(&mut rest).unwrap();
                // What is wrong is for the client to hear.
                self.server.process_new_packets().ok();
            }
            let mut bytes = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                self.client.read_tls(&mut rest).unwrap();
                self.client.process_new_packets()?;
            }
        }
        Ok(())
    }

    /// The first name of the certificate that the client saw.
    fn served(&self) -> String {
        let own = &self.client.peer_certificates().unwrap()[0];
        Certificate::parse(own).unwrap().names[0].clone()
    }

    /// Sends a text to the server and finds it there.
    fn carries(&mut self, text: &str) -> bool {
        use std::io::Write;
        self.client.writer().write_all(text.as_bytes()).unwrap();
        self.settle().unwrap();
        let mut heard = vec![0; text.len()];
        self.server.reader().read_exact(&mut heard).is_ok() && heard == text.as_bytes()
    }
}

fn asked_for(keys: &TlsKeys, name: &str) -> String {
    let config = Arc::new(client_config(&BOTH, &[]));
    Line::open(keys, &config, name).unwrap().served()
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let home = Home::new();
    let names: [&[&str]; 4] = [
        &["first.example"],
        &["*.calls.example"],
        &["turn.calls.example", "stun.example"],
        &["calls.example"],
    ];
    let keys = home.keys(&names);
    for (name, served) in [
        ("first.example", "first.example"),
        ("stun.example", "turn.calls.example"),
        ("STUN.example", "turn.calls.example"),
        ("a.calls.example", "*.calls.example"),
        ("turn.calls.example", "turn.calls.example"),
        ("calls.example", "calls.example"),
        ("a.b.calls.example", "first.example"),
        ("nobody.example", "first.example"),
        ("192.0.2.1", "first.example"),
    ] {
        assert_eq!(asked_for(&keys, name), served, "{name}");
    }
}

#[test]
fn of_two_keys_for_one_name_a_client_gets_the_one_that_it_can_verify() {
    let home = Home::new();
    let curve = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let files = vec![
        home.write("a", &made_with(&["turn.example", "ed25519"], &curve)),
        home.write("b", &made(&["turn.example", "ecdsa"])),
    ];
    let keys = TlsKeys::load(files).unwrap();
    let pairs = keys.current();
    let second = |pair: &Pair| pair.certificate.names[1] == "ecdsa";
    let names = |pair: &Pair| pair.certificate.names[1].clone();
    assert_eq!(
        names(pairs.choose(Some("turn.example"), |_| true)),
        "ed25519"
    );
    assert_eq!(names(pairs.choose(Some("turn.example"), second)), "ecdsa");
    assert_eq!(names(pairs.choose(None, |_| false)), "ed25519");
    // rustls offers Ed25519 in TLS 1.3 and both where it may.
    assert_eq!(asked_for(&keys, "turn.example"), "turn.example");
}

#[test]
fn both_versions_are_spoken_and_the_better_one_is_chosen() {
    let home = Home::new();
    let keys = home.keys(&[&["a.example"]]);
    for (versions, spoken) in [
        (&BOTH[..1], rustls::ProtocolVersion::TLSv1_2),
        (&BOTH[1..], rustls::ProtocolVersion::TLSv1_3),
        (&BOTH[..], rustls::ProtocolVersion::TLSv1_3),
    ] {
        let config = Arc::new(client_config(versions, &[]));
        let mut line = Line::open(&keys, &config, "a.example").unwrap();
        assert_eq!(line.server.protocol_version(), Some(spoken));
        assert!(line.carries("hello"));
    }
}

#[test]
fn a_protocol_name_of_rfc_7443_is_agreed_on_and_none_is_needed() {
    let home = Home::new();
    let keys = home.keys(&[&["a.example"]]);
    let (turn, nat) = (ALPN[0], ALPN[1]);
    for (offered, agreed) in [
        (&[][..], None),
        (&[turn][..], Some(turn)),
        (&[nat], Some(nat)),
        (&[b"h2", nat, b"http/1.1"], Some(nat)),
    ] {
        for version in BOTH {
            let config = Arc::new(client_config(&[version], offered));
            let line = Line::open(&keys, &config, "a.example").unwrap();
            assert_eq!(line.client.alpn_protocol(), agreed);
            assert_eq!(line.server.alpn_protocol(), agreed);
        }
    }
}

#[test]
fn a_client_of_other_protocols_alone_is_refused() {
    let home = Home::new();
    let keys = home.keys(&[&["a.example"]]);
    for version in BOTH {
        let config = Arc::new(client_config(&[version], &[b"h2", b"http/1.1"]));
        let refused = Line::open(&keys, &config, "a.example").err();
        let alert = AlertDescription::NoApplicationProtocol;
        assert_eq!(u8::from(alert), 120);
        assert_eq!(refused, Some(Error::AlertReceived(alert)));
    }
}

#[test]
fn a_session_is_resumed_from_what_the_client_kept() {
    let home = Home::new();
    let keys = home.keys(&[&["a.example"]]);
    assert!(!keys.server_config().session_storage.can_cache());
    for version in BOTH {
        let config = Arc::new(client_config(&[version], &[]));
        let kinds: Vec<_> = (0..2)
            .map(|_| {
                let mut line = Line::open(&keys, &config, "a.example").unwrap();
                assert!(line.carries("hello"));
                line.server.handshake_kind()
            })
            .collect();
        assert!(
            matches!(
                kinds[..],
                [
                    Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest),
                    Some(HandshakeKind::Resumed)
                ]
            ),
            "{kinds:?}"
        );
    }
    assert_eq!(keys.server_config().max_early_data_size, 0);
}

#[test]
fn new_files_are_served_to_new_clients_and_old_connections_live_on() {
    let home = Home::new();
    let keys = home.keys(&[&["old.example"], &["other.example"]]);
    let config = Arc::new(client_config(&BOTH, &[]));
    let mut before = Line::open(&keys, &config, "a.example").unwrap();
    assert!(!keys.reload().unwrap());
    assert_eq!(keys.generation(), 0);

    let new = made(&["new.example"]);
    home.write("0", &new);
    assert!(keys.reload().unwrap());
    assert!(!keys.reload().unwrap());

    assert_eq!(keys.generation(), 1);
    assert_eq!(keys.current().first().chain_pem(), new[0].as_bytes());
    assert_eq!(keys.current().first().key_pem(), new[1].as_bytes());
    assert_eq!(asked_for(&keys, "a.example"), "new.example");
    assert_eq!(asked_for(&keys, "other.example"), "other.example");
    assert!(before.carries("still here"));
    assert_eq!(before.served(), "old.example");
}

#[test]
fn bad_files_change_nothing_and_are_named() {
    let home = Home::new();
    let keys = home.keys(&[&["a.example"]]);
    let files = home.files("0");
    let good = std::fs::read_to_string(&files.key).unwrap();
    let [cert, key] = made(&["b.example"]);
    // A certificate whose key is yet to come, as when both are written one after the other.
    std::fs::write(&files.cert, &cert).unwrap();
    let error = keys.reload().unwrap_err();
    assert!(
        matches!(
            error,
            TlsError::File {
                pair: 0,
                part: Part::Key,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(asked_for(&keys, "x.example"), "a.example");

    for bad in ["", "nonsense", &good[..100]] {
        std::fs::write(&files.key, bad).unwrap();
        let error = keys.reload().unwrap_err().to_string();
        assert!(error.contains(files.key.to_str().unwrap()), "{error}");
    }
    std::fs::remove_file(&files.cert).unwrap();
    let error = keys.reload().unwrap_err();
    assert!(
        matches!(
            error,
            TlsError::File {
                part: Part::Certificate,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        (keys.generation(), asked_for(&keys, "x.example")),
        (0, "a.example".to_owned())
    );

    home.write("0", &[cert, key]);
    assert!(keys.reload().unwrap());
    assert_eq!(asked_for(&keys, "x.example"), "b.example");
}

#[test]
fn a_link_that_is_swapped_is_followed() {
    // As Kubernetes does with a secret: files are links into ..data, a link to a directory that is
    // replaced as a whole.
    let home = Home::new();
    let root = home.0.path();
    for (directory, name) in [("one", "one.example"), ("two", "two.example")] {
        std::fs::create_dir(root.join(directory)).unwrap();
        let [cert, key] = made(&[name]);
        std::fs::write(root.join(directory).join("tls.crt"), cert).unwrap();
        std::fs::write(root.join(directory).join("tls.key"), key).unwrap();
    }
    symlink("one", root.join("..data")).unwrap();
    let link = |name: &str| {
        symlink(format!("..data/{name}"), root.join(name)).unwrap();
        root.join(name)
    };
    let (cert, key) = (link("tls.crt"), link("tls.key"));
    let keys = TlsKeys::load(vec![KeyFiles { cert, key }]).unwrap();
    assert_eq!(asked_for(&keys, "x.example"), "one.example");

    symlink("two", root.join("..tmp")).unwrap();
    std::fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
    assert!(keys.reload().unwrap());
    assert_eq!(asked_for(&keys, "x.example"), "two.example");
}

#[test]
fn all_that_is_wrong_is_told_and_nothing_is_nothing() {
    let home = Home::new();
    let good = home.write("good", &made(&["a.example"]));
    let absent = home.files("absent");
    let errors = TlsKeys::load(vec![absent.clone(), good, absent]).unwrap_err();
    let pairs: Vec<usize> = errors
        .iter()
        .map(|error| match error {
            TlsError::File { pair, .. } => *pair,
            TlsError::Nothing | TlsError::Setup(_) => panic!("{error}"),
        })
        .collect();
    assert_eq!(pairs, [0, 2]);
    assert!(matches!(
        TlsKeys::load(Vec::new()).unwrap_err()[..],
        [TlsError::Nothing]
    ));
}

#[test]
fn one_file_may_hold_both_and_a_pipe_is_none() {
    let home = Home::new();
    let [cert, key] = made(&["a.example"]);
    let path = home.0.path().join("both.pem");
    std::fs::write(&path, format!("{key}{cert}")).unwrap();
    let both = KeyFiles {
        cert: path.clone(),
        key: path,
    };
    let keys = TlsKeys::load(vec![both]).unwrap();
    assert_eq!(asked_for(&keys, "a.example"), "a.example");
    let nothing = KeyFiles {
        cert: "/dev/zero".into(),
        key: "/dev/zero".into(),
    };
    let errors = TlsKeys::load(vec![nothing]).unwrap_err();
    assert!(
        errors[0].to_string().contains("it is no file"),
        "{}",
        errors[0]
    );
}

/// T26
#[test]
fn no_key_is_printed() {
    let home = Home::new();
    let keys = home.keys(&[&["a.example"]]);
    let text = std::fs::read_to_string(home.files("0").key).unwrap();
    let inside = &text.lines().nth(1).unwrap()[..20];
    assert!(!inside.contains('-'));
    let bytes = format!("{:?}", &text.as_bytes()[..20]);
    for shown in [format!("{keys:?}"), format!("{:?}", keys.current())] {
        assert!(
            !shown.contains(inside) && !shown.contains(&bytes),
            "{shown}"
        );
        assert!(!shown.contains("BEGIN"), "{shown}");
    }
}

#[test]
fn a_certificate_says_whom_it_is_for_and_how_long() {
    let home = Home::new();
    let keys = home.keys(&[&[
        "Turn.Example",
        "*.calls.example",
        "192.0.2.7",
        "2001:db8::7",
    ]]);
    let pairs = keys.current();
    let certificate = pairs.first().certificate();
    for host in [
        "turn.example",
        "TURN.example",
        "a.calls.example",
        "192.0.2.7",
        "2001:db8::7",
    ] {
        assert!(certificate.covers(host), "{host}");
    }
    for host in [
        "calls.example",
        "a.b.calls.example",
        "example",
        "",
        "192.0.2.8",
        "*",
    ] {
        assert!(!certificate.covers(host), "{host}");
    }
    // 2000-01-01 and 2090-01-01.
    assert_eq!(certificate.not_before, 946_684_800);
    assert_eq!(certificate.not_after, 3_786_912_000);
    assert_eq!(certificate.days_left(3_786_912_000 - 86_400), Some(1));
    assert_eq!(certificate.days_left(3_786_912_001), None);
}

#[test]
fn other_files_are_served_once_they_are_good_and_looked_at_from_then_on() {
    let home = Home::new();
    let keys = home.keys(&[&["first.example"]]);
    let names = || keys.current().first().certificate().names.clone();
    let before = keys.files();

    let read = |files: Vec<KeyFiles>| TlsKeys::load(files).unwrap();
    assert!(!keys.take_over(&read(before)), "they are the same");
    let second = home.write("second", &made(&["second.example"]));
    let third = home.write("third", &made(&["third.example"]));
    let generation = keys.generation();
    assert!(keys.take_over(&read(vec![second.clone(), third])));
    assert_eq!(names(), ["second.example"]);
    assert_eq!(keys.current().iter().count(), 2);
    assert_ne!(keys.generation(), generation);
    assert!(keys.take_over(&read(vec![second.clone()])), "one is gone");
    assert_eq!(keys.files(), [second]);
    home.write("second", &made(&["renewed.example"]));
    assert!(keys.reload().unwrap());
    assert_eq!(names(), ["renewed.example"]);
}
