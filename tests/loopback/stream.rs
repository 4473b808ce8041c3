//! A client's connection over TCP or TLS: messages as they would be datagrams.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use taciturn::proto::{Border, ChannelRange, next_border};

trait Bytes: Read + Write + Send {}
impl<T: Read + Write + Send> Bytes for T {}

/// A connection that is read by messages.
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    bytes: Mutex<Box<dyn Bytes>>,
    unread: Vec<u8>,
}

impl Stream {
    pub(crate) fn tcp(server: SocketAddr) -> Self {
        let socket = TcpStream::connect(server).unwrap();
        socket.set_nodelay(true).unwrap();
        Self::of(socket)
    }

    /// A connection that is there already.
    pub(crate) fn of(socket: TcpStream) -> Self {
        let bytes = Mutex::new(Box::new(socket.try_clone().unwrap()) as Box<dyn Bytes>);
        Self {
            socket,
            bytes,
            unread: Vec::new(),
        }
    }

    pub(crate) fn tls(server: SocketAddr) -> Self {
        Self::tls_with(server, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    pub(crate) fn tls_with(
        server: SocketAddr,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let socket = TcpStream::connect(server).unwrap();
        socket.set_nodelay(true).unwrap();
        let tls = Box::new(StreamOwned::new(
            client(versions),
            socket.try_clone().unwrap(),
        ));
        Self {
            socket,
            bytes: Mutex::new(tls),
            unread: Vec::new(),
        }
    }

    /// The certificate that a new client is shown.
    pub(crate) fn shown(server: SocketAddr) -> Vec<u8> {
        let mut socket = TcpStream::connect(server).unwrap();
        let mut tls = client(&[&rustls::version::TLS13]);
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        tls.peer_certificates().unwrap()[0].to_vec()
    }

    /// The same once a TLS handshake is over.
    pub(crate) fn finished(mut self) -> Self {
        // A Binding request, and what comes back.
        let mut request = [0; 20];
        request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
        self.send(&request);
        self.receive(Instant::now() + super::PATIENCE).unwrap();
        self
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut writer = self.bytes.lock().unwrap();
        writer.write_all(bytes).unwrap();
        writer.flush().unwrap();
    }

    /// Sends a message, padded as a stream wants it.
    pub(crate) fn send(&self, message: &[u8]) {
        let padding = message.len().next_multiple_of(4) - message.len();
        self.write(&[message, &[0; 4][..padding]].concat());
    }

    /// The next message without its padding, if one comes in time.
    pub(crate) fn receive(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        loop {
            match next_border(&self.unread, ChannelRange::Rfc5766) {
                Border::Whole { len, padded, .. } => {
                    let message = self.unread[..len].to_vec();
                    self.unread.drain(..padded);
                    return Some(message);
                }
                Border::NeedMore { .. } => {}
                Border::Invalid => unreachable!("the server lost the borders"),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut room = vec![0; 65_536];
            match self.bytes.get_mut().unwrap().read(&mut room) {
                Ok(0) => return None,
                Ok(len) => self.unread.extend_from_slice(&room[..len]),
                Err(error) => {
                    let timeout = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                    assert!(timeout.contains(&error.kind()), "{error}");
                    return None;
                }
            }
        }
    }

    /// So many bytes as they come, after the last message.
    pub(crate) fn read_raw(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.unread);
        self.unread = bytes.split_off(bytes.len().min(len));
        let from = bytes.len();
        bytes.resize(len, 0);
        self.socket.set_read_timeout(Some(super::PATIENCE)).unwrap();
        let reader = self.bytes.get_mut().unwrap();
        reader.read_exact(&mut bytes[from..]).unwrap();
        bytes
    }

    /// Whether the server has closed it, waiting for that.
    pub(crate) fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut room = [0; 4_096];
        loop {
            match self.bytes.get_mut().unwrap().read(&mut room) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    let timeout = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                    return !timeout.contains(&error.kind());
                }
            }
        }
    }
}

/// The client's end of TLS, before its handshake.
fn client(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConnection {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"stun.turn".to_vec()];
    let name = ServerName::try_from("turn.test").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// A self-signed certificate and its key as PEM files in `directory`.
pub(crate) fn certificate(directory: &Path, name: &str) -> [std::path::PathBuf; 2] {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let [cert, key] = ["cert", "key"].map(|part| directory.join(format!("{name}.{part}.pem")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    [cert, key]
}

/// Takes every certificate: what is tested is not whom a client trusts.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
