//! TLS to a server, 1.2 and 1.3 (RFC 8489 §6.2.3), with SNI and the protocol of RFC 7443.
//!
//! The certificate is looked at before it is judged, so that one which must not be believed can be
//! told from another.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error,
    ProtocolVersion, RootCertStore, SignatureScheme,
};

use super::certificate::Certificate;
use super::trust::{Rigour, Trust};
use super::{ALPN, Failure, Secured, Stage, Way, tame};

/// Secures a connection.
///
/// # Errors
/// With what an operator should know.
pub(super) async fn connect(
    way: &Way,
    stream: TcpStream,
    patience: Duration,
) -> Result<(TlsStream<TcpStream>, Secured), Failure> {
    let internal = |text: String| Failure::new(Stage::Speech, text);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let judge = Arc::new(Judge::new(&way.trust, Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| internal(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Judge>::clone(&judge))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let name = ServerName::try_from(way.host.clone())
        .map_err(|_| internal(format!("{:?} is no name for a certificate", way.host)))?;
    let began = Instant::now();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let outcome = timeout(patience, handshake).await;
    let took = began.elapsed();
    let seen = judge
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match outcome {
        Ok(Ok(stream)) => {
            let (_, session) = stream.get_ref();
            let secured = Secured {
                protocol: match session.protocol_version() {
                    Some(ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
                    Some(ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
                    _ => "TLS".to_owned(),
                },
                alpn: session.alpn_protocol() == Some(ALPN),
                took,
                certificate: seen
                    .ok_or_else(|| internal("the certificate cannot be read".to_owned()))?,
            };
            Ok((stream, secured))
        }
        Ok(Err(error)) => Err(explain(way, &error, seen)),
        Err(_) => {
            let server = way.server;
            let text = format!(
                "{server} took a TCP connection and did not answer the TLS handshake within \
                 {patience:?}. Is there TLS on this port, or only plain TCP?"
            );
            Err(internal(text))
        }
    }
}

fn explain(way: &Way, error: &io::Error, certificate: Option<Certificate>) -> Failure {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<Error>());
    let (stage, text) = match cause {
        Some(Error::InvalidCertificate(fault)) => {
            (Stage::Certificate, doubt(way, fault, certificate.as_ref()))
        }
        Some(Error::AlertReceived(alert)) => (Stage::Speech, alerted(*alert)),
        Some(Error::InvalidMessage(_)) => {
            let text = "what answers on this port is no TLS: is it plain TURN? Then write \
                        turn: with ?transport=tcp for it";
            (Stage::Speech, text.to_owned())
        }
        Some(error) => (
            Stage::Speech,
            format!("the TLS handshake failed: {}", tame(error)),
        ),
        None => {
            let text = format!(
                "the server broke off the TLS handshake ({}). Is there TLS on this port, with a \
                 certificate?",
                tame(error)
            );
            (Stage::Speech, text)
        }
    };
    Failure {
        stage,
        text,
        certificate,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others have no remedy of their own"
)]
fn alerted(alert: AlertDescription) -> String {
    let hint = match alert {
        AlertDescription::NoApplicationProtocol => ": it does not know the protocol stun.turn",
        AlertDescription::UnrecognisedName => ": it has no certificate for that name",
        AlertDescription::HandshakeFailure => {
            ": no cipher in common, or it has no certificate that suits"
        }
        AlertDescription::ProtocolVersion => ": it speaks neither TLS 1.2 nor TLS 1.3",
        _ => "",
    };
    format!(
        "the server refused the TLS handshake with the alert {} {alert:?}{hint}",
        u8::from(alert)
    )
}

/// What is wrong with a certificate.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others have no remedy of their own"
)]
fn doubt(way: &Way, fault: &CertificateError, certificate: Option<&Certificate>) -> String {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired: was it renewed, and the server told?".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet: do both clocks agree?".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let named = certificate.map_or_else(String::new, Certificate::named);
            format!("the certificate is not for {}: it names {named}", way.host)
        }
        CertificateError::UnknownIssuer => {
            "nobody whom this system trusts issued the certificate. Does the server send the \
             chain, and not the leaf alone? For an authority of your own give --ca FILE"
                .to_owned()
        }
        CertificateError::Revoked => "the certificate is revoked".to_owned(),
        other => format!(
            "the certificate is not accepted: {}",
            tame(&Error::from(other.clone()))
        ),
    }
}

/// Looks at a certificate, then judges it.
#[derive(Debug)]
struct Judge {
    /// None where nobody is believed.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    rigour: Rigour,
    seen: Mutex<Option<Certificate>>,
}

impl Judge {
    fn new(trust: &Trust, provider: Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        // Systems carry a few that are not what webpki wants.
        roots.add_parsable_certificates(trust.roots.iter().cloned());
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        Self {
            verifier: builder.build().ok(),
            provider,
            rigour: trust.rigour,
            seen: Mutex::new(None),
        }
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = match &self.verifier {
            Some(verifier) => verifier.verify_server_cert(leaf, chain, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let mut certificate = Certificate::decode(leaf);
        if let (Some(certificate), Err(error)) = (&mut certificate, &verdict) {
            certificate.doubt = Some(tame(error));
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = certificate;
        match self.rigour {
            Rigour::Strict => verdict,
            Rigour::Insecure => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
