//! Certificates and keys, and the listeners that take them.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use crate::turn::policy::{PeerPolicy, Refusal, Verdict};

/// Files with a certificate for `names` and its key, in `directory`.
pub(super) fn certificate(directory: &TempDir, name: &str, names: &[&str]) -> [String; 2] {
    until(directory, name, names, 2090)
}

fn until(directory: &TempDir, name: &str, names: &[&str], year: i32) -> [String; 2] {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    [
        write(directory, &format!("{name}.crt"), &cert.pem(), 0o644),
        write(
            directory,
            &format!("{name}.key"),
            &key.serialize_pem(),
            0o600,
        ),
    ]
}

fn with(cert: &str, key: &str, more: &str) -> Result<Loaded, Error> {
    from_text(&format!(
        "{SECRET}[tls]\ncert = {cert:?}\nkey = {key:?}\n[listen]\n{more}\n"
    ))
}

/// The only problem there is.
#[track_caller]
fn refused(loaded: Result<Loaded, Error>) -> Problem {
    let error = loaded.unwrap_err();
    let [problem] = error.problems() else {
        panic!("not one problem: {error}")
    };
    problem.clone()
}

const TLS: &str = "tls = ['127.0.0.1:5349']";

#[test]
fn one_pair_or_several_are_read() {
    let home = TempDir::new().unwrap();
    let [cert, key] = certificate(&home, "a", &["a.example"]);
    let loaded = with(&cert, &key, TLS).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.settings.tls.keys.unwrap().files().len(), 1);

    let [other_cert, other_key] = certificate(&home, "b", &["b.example"]);
    let env = [
        ("TACITURN_LISTEN__TLS", "127.0.0.1:5349"),
        ("TACITURN_TLS__CERT", &format!("{cert},{other_cert}")),
        ("TACITURN_TLS__KEY", &format!("[{key:?}, {other_key:?}]")),
    ];
    let keys = from_env(&env).unwrap().settings.tls.keys.unwrap();
    let names: Vec<_> = keys
        .current()
        .iter()
        .map(|pair| pair.certificate().names.clone())
        .collect();
    assert_eq!(names, [["a.example"], ["b.example"]]);

    let flags = Flags {
        listen_tls: vec!["127.0.0.1:5349".to_owned()],
        tls_cert: vec![cert],
        tls_key: vec![key],
        ..Flags::default()
    };
    let keys = from_all(SECRET, &env, &flags)
        .unwrap()
        .settings
        .tls
        .keys
        .unwrap();
    assert_eq!(keys.files().len(), 1);
}

#[test]
fn a_key_of_another_certificate_is_refused_by_name() {
    let home = TempDir::new().unwrap();
    let [cert, key] = certificate(&home, "a", &["a.example"]);
    let [other, _] = certificate(&home, "b", &["b.example"]);
    let problem = refused(with(&other, &key, TLS));
    assert_eq!(
        (problem.key.as_str(), problem.value),
        ("tls.key", Some(format!("{key:?}")))
    );
    assert!(problem.reason.contains("does not fit") && problem.reason.contains(&other));
    assert!(problem.source.ends_with("/config.toml"));

    let lists = format!("{SECRET}[tls]\ncert = [{cert:?}, {other:?}]\nkey = [{key:?}, {key:?}]\n");
    assert_eq!(refused(from_text(&lists)).key, "tls.key.1");
}

/// T26
#[test]
fn what_is_no_pem_is_refused_without_a_word_of_it() {
    let home = TempDir::new().unwrap();
    let [cert, key] = certificate(&home, "a", &["a.example"]);
    let text = std::fs::read_to_string(&key).unwrap();
    let spoilt = text.replacen('\n', "\n hunter2! ", 1);
    let cut = &text[..text.len() / 2];
    let hidden = text.replace("PRIVATE", "ENCRYPTED PRIVATE");
    for (content, reason) in [
        ("", "no private key"),
        ("hunter2", "no private key"),
        ("-----BEGIN hunter2", "not PEM, or damaged"),
        (&spoilt, "not PEM, or damaged"),
        (cut, "not PEM, or damaged"),
        (&hidden, "encrypted"),
        (&"hunter2\n".repeat(10_000), "longer than 65536"),
    ] {
        let bad = write(&home, "bad", content, 0o600);
        let error = with(&cert, &bad, TLS).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("tls.key") && said.contains(reason),
            "{reason}: {said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
        let problem = refused(with(&bad, &key, TLS));
        assert_eq!(problem.key, "tls.cert", "{problem}");
        assert!(!problem.to_string().contains("hunter2"), "{problem}");
    }
}

/// T26
#[test]
fn a_key_in_the_place_of_its_path_is_not_shown() {
    let home = TempDir::new().unwrap();
    let [cert, key] = certificate(&home, "a", &["a.example"]);
    let text = std::fs::read_to_string(key).unwrap();
    let env = [
        ("TACITURN_TLS__CERT", cert.as_str()),
        ("TACITURN_TLS__KEY", text.as_str()),
    ];
    let error = from_env(&env).unwrap_err().to_string();
    assert!(
        error.contains("TACITURN_TLS__KEY: tls.key: it is a key"),
        "{error}"
    );
    let inside = text.lines().nth(1).unwrap();
    assert!(!error.contains(&inside[..20]), "{error}");
}

#[test]
fn a_certificate_near_or_past_its_end_is_warned_of_and_served() {
    let home = TempDir::new().unwrap();
    let [cert, key] = until(&home, "old", &["a.example"], 2001);
    let loaded = with(&cert, &key, TLS).unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains(&cert) && loaded.warnings[0].contains("has expired"));
    assert!(loaded.settings.tls.keys.is_some());
}

#[test]
fn a_key_for_everybody_and_a_certificate_for_nobody_are_warned_of() {
    let home = TempDir::new().unwrap();
    let [cert, key] = certificate(&home, "a", &["a.example"]);
    set_mode(Path::new(&key), 0o644);
    let warnings = with(&cert, &key, "").unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains(&key) && warnings[0].contains("chmod o-r"));
    assert!(warnings[1].contains("not used"));
}

#[test]
fn who_may_share_an_address_and_a_port_and_who_may_not() {
    let home = TempDir::new().unwrap();
    let [cert, key] = certificate(&home, "a", &["a.example"]);
    let fine = "udp = ['127.0.0.1:3478']\ntcp = ['127.0.0.1:443']\ntls = ['127.0.0.1:443']\n";
    let listen = with(&cert, &key, fine).unwrap().settings.listen;
    assert_eq!(listen.tcp, listen.tls);
    if !cfg!(feature = "dtls") {
        return;
    }
    let shared = format!("{fine}dtls = ['127.0.0.1:443', '[::]:3478', '127.0.0.2:3478']");
    let listen = with(&cert, &key, &shared).unwrap().settings.listen;
    assert_eq!(listen.dtls.len(), 3);
    for (udp, dtls) in [
        ("127.0.0.1:443", "127.0.0.1:443"),
        ("0.0.0.0:443", "127.0.0.1:443"),
        ("[::1]:443", "[::]:443"),
    ] {
        let both = format!("udp = ['127.0.0.9:9', '{udp}']\ntcp = []\ndtls = ['{dtls}']");
        let problem = refused(with(&cert, &key, &both));
        assert_eq!(problem.key, "listen.dtls.0");
        assert!(problem.reason.contains(udp), "{problem}");
    }
}

#[test]
fn a_wildcard_stands_for_the_addresses_that_it_covers() {
    let home = TempDir::new().unwrap();
    let [cert, key] = certificate(&home, "a", &["a.example"]);
    let more = "udp = ['127.0.0.1:1', '0.0.0.0:1', '127.0.0.1:2', '[::1]:1']\n\
                tls = ['127.0.0.1:443', '0.0.0.0:443', '[::1]:443']";
    let listen = with(&cert, &key, more).unwrap().settings.listen;
    assert_eq!(listen.udp.len(), 4);
    assert_eq!(
        listen.tcp,
        addresses(&["0.0.0.0:1", "127.0.0.1:2", "[::1]:1"])
    );
    assert_eq!(listen.tls, addresses(&["0.0.0.0:443", "[::1]:443"]));

    for (tcp, tls) in [("0.0.0.0:443", "127.0.0.1:443"), ("[::1]:443", "[::]:443")] {
        let problem = refused(with(
            &cert,
            &key,
            &format!("tcp = ['{tcp}']\ntls = ['{tls}']"),
        ));
        assert_eq!(problem.key, "listen.tls.0");
        assert!(problem.reason.contains(tcp) && problem.remedy.contains("same address"));
    }
    let any = "tcp = ['127.0.0.1:0', '0.0.0.0:0']\ntls = ['127.0.0.1:0']";
    let listen = with(&cert, &key, any).unwrap().settings.listen;
    assert_eq!((listen.tcp.len(), listen.tls.len()), (2, 1));
}

#[cfg(not(feature = "dtls"))]
#[test]
fn a_build_without_dtls_says_so() {
    let problem = refused(from_text(&format!(
        "listen.dtls = ['127.0.0.1:5349']\n{SECRET}"
    )));
    assert_eq!(problem.key, "listen.dtls");
    assert!(
        problem.reason.contains("without the cargo feature `dtls`"),
        "{problem}"
    );
}

#[test]
fn tcp_is_where_udp_is_unless_told() {
    let tcp = |env: &[(&str, &str)]| from_env(env).unwrap().settings.listen.tcp;
    let udp = ("TACITURN_LISTEN__UDP", "127.0.0.1:9,[::1]:9");
    assert_eq!(tcp(&[udp]), addresses(&["127.0.0.1:9", "[::1]:9"]));
    let name = "TACITURN_LISTEN__TCP";
    assert_eq!(
        tcp(&[udp, (name, "same")]),
        addresses(&["127.0.0.1:9", "[::1]:9"])
    );
    assert_eq!(
        tcp(&[udp, (name, "[::]:3478, 0.0.0.0:80")]),
        addresses(&["[::]:3478", "0.0.0.0:80"])
    );
    assert_eq!(tcp(&[udp, (name, "")]), []);
}

/// T7
#[test]
fn every_listener_is_no_peer() {
    let home = TempDir::new().unwrap();
    let [cert, key] = certificate(&home, "a", &["a.example"]);
    let more = "udp = ['192.0.2.1:1']\ntcp = ['192.0.2.1:2']\ntls = ['192.0.2.1:3']";
    let settings = with(&cert, &key, more).unwrap().settings;
    let keys = Keys {
        nonce: crate::turn::NonceKey::new([1; 32]),
        subject: zeroize::Zeroizing::new([2; 32]),
        ticket: crate::turn::TicketKey::new(zeroize::Zeroizing::new([3; 32])),
        sealing: crate::turn::credential::SealingKeys::default(),
        revocations: crate::turn::revocation::Revocations::default(),
        bans: crate::turn::ban::Bans::default(),
    };
    let bound = addresses(&["192.0.2.1:4"]);
    let machine = Machine {
        addresses: Vec::new(),
        listening: bound.clone(),
        udp: Vec::new(),
        former_ports: Vec::new(),
    };
    let server = settings
        .server(&keys, settings.secrets(), &[], &machine)
        .unwrap();
    let all: Vec<SocketAddr> = settings.listen.all().map(|(_, address)| address).collect();
    assert_eq!(
        all,
        addresses(&["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"])
    );
    for own in all.into_iter().chain(bound) {
        let verdict = server.judge.peer(&PeerPolicy::Any, own);
        assert_eq!(verdict, Verdict::Refused(Refusal::OwnSocket), "{own}");
    }
}

#[test]
fn headers_from_everybody_are_warned_of() {
    for (trusted, warnings) in [("10.0.0.0/8", 0), ("0.0.0.0/0", 1), ("::/0", 1)] {
        let loaded = from_env(&[("TACITURN_PROXY_PROTOCOL__TRUSTED", trusted)]).unwrap();
        assert_eq!(
            loaded.warnings.len(),
            warnings,
            "{trusted}: {:?}",
            loaded.warnings
        );
    }
}
