//! A server that this test runs, with certificates of its own making.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::turn::Transport;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server's certificate, and the authority that issued it.
struct Paper {
    leaf: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    authority: CertificateDer<'static>,
}

fn paper(name: &str, until_year: i32) -> Paper {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    // Two of one name are mistaken for each other.
    let called = format!("authority of {name} until {until_year}");
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, called);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(until_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    Paper {
        leaf: leaf.signed_by(&key, &authority).unwrap().der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        authority: authority.der().clone(),
    }
}

/// What a server of TLS with this paper, which speaks `alpn`, is to a client that calls it
/// "localhost" and trusts `roots`.
async fn met(
    paper: &Paper,
    alpn: &[u8],
    roots: &[&Paper],
    rigour: Rigour,
) -> Result<Secured, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![paper.leaf.clone()], paper.key.clone_key())
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Whether it succeeds is the client's to say; the connection stays until it has.
        TlsAcceptor::from(Arc::new(config)).accept(stream).await
    });
    let roots = roots.iter().map(|paper| paper.authority.clone()).collect();
    let outcome = meets(server, Trust { roots, rigour }).await;
    serving.abort();
    outcome
}

async fn meets(server: SocketAddr, trust: Trust) -> Result<Secured, Failure> {
    let way = Way {
        transport: Transport::Tls,
        server,
        host: "localhost".to_owned(),
        trust: Arc::new(trust),
    };
    let stream = TcpStream::connect(server).await.unwrap();
    connect(&way, stream, PATIENCE)
        .await
        .map(|(_, secured)| secured)
}

fn nobody() -> Trust {
    Trust {
        roots: Vec::new(),
        rigour: Rigour::Strict,
    }
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_for_this_host_is_believed() {
    let paper = paper("localhost", 2100);
    let secured = met(&paper, b"stun.turn", &[&paper], Rigour::Strict).await;
    let secured = secured.unwrap();
    assert_eq!((secured.protocol.as_str(), secured.alpn), ("TLS 1.3", true));
    assert_eq!(secured.certificate.named(), "localhost");
    assert_eq!(secured.certificate.doubt, None);
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_with_the_certificate() {
    let fine = paper("localhost", 2100);
    for (paper, roots, word) in [
        (paper("localhost", 2021), None, "has expired"),
        (
            paper("turn.example.org", 2100),
            None,
            "not for localhost: it names turn.example.org",
        ),
        (paper("localhost", 2101), Some(&fine), "--ca FILE"),
    ] {
        let roots = [roots.unwrap_or(&paper)];
        let failure = met(&paper, b"stun.turn", &roots, Rigour::Strict)
            .await
            .unwrap_err();
        assert_eq!(failure.stage, Stage::Certificate, "{}", failure.text);
        assert!(failure.text.contains(word), "{}", failure.text);
        assert!(failure.certificate.unwrap().doubt.is_some());

        let secured = met(&paper, b"stun.turn", &roots, Rigour::Insecure)
            .await
            .unwrap();
        let cell = secured
            .certificate
            .cell(crate::dataplane::sys::unix_seconds());
        assert!(cell.ends_with("NOT VERIFIED"), "{cell}");
    }
}

#[tokio::test]
async fn where_nobody_is_trusted_no_certificate_is_believed() {
    let paper = paper("localhost", 2100);
    for (rigour, believed) in [(Rigour::Strict, false), (Rigour::Insecure, true)] {
        let outcome = met(&paper, b"stun.turn", &[], rigour).await;
        assert_eq!(outcome.is_ok(), believed);
    }
}

#[tokio::test]
async fn an_alert_is_told_by_its_name() {
    let paper = paper("localhost", 2100);
    let failure = met(&paper, b"h2", &[&paper], Rigour::Strict)
        .await
        .unwrap_err();
    assert_eq!(failure.stage, Stage::Speech);
    assert!(failure.text.contains("alert 120"), "{}", failure.text);
    assert!(failure.text.contains("stun.turn"), "{}", failure.text);
}

#[tokio::test]
async fn what_is_no_tls_is_told() {
    for (answer, word) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "no TLS"),
        (b"", "broke off"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        let failure = meets(server, nobody()).await.unwrap_err();
        serving.await.unwrap();
        assert_eq!(failure.stage, Stage::Speech);
        assert!(failure.text.contains(word), "{}", failure.text);
    }
}
