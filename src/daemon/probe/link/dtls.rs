//! DTLS 1.2 to a server (RFC 8489 §6.2.3), by OpenSSL: one record carries one message.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use openssl::error::ErrorStack;
use openssl::ssl::{
    ErrorCode, HandshakeError, MidHandshakeSslStream, Ssl, SslContext, SslMethod, SslOptions,
    SslStream, SslVerifyMode,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509CheckFlags;
use openssl::x509::{X509, X509VerifyResult};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use webrtc_util::{Conn, Error};

use super::certificate::Certificate;
use super::trust::Rigour;
use super::{ALPN, Ending, Failure, Link, Secured, Stage, Way, tame};

/// How often OpenSSL is asked whether it wants to send a flight again.
const TICK: Duration = Duration::from_millis(50);
/// What fits every path that TURN is used on, headers left out.
const MTU: u32 = 1200;

/// Secures a socket that is connected to the server.
///
/// # Errors
/// With what an operator should know.
pub(super) async fn connect(
    way: &Way,
    socket: UdpSocket,
    patience: Duration,
) -> Result<Link, Failure> {
    let internal = |error: ErrorStack| {
        let text = format!("OpenSSL cannot begin a DTLS handshake: {}", tame(&error));
        Failure::new(Stage::Speech, text)
    };
    let ssl = session(way).map_err(internal)?;
    let socket = Arc::new(socket);
    let began = Instant::now();
    let shaken = timeout(patience, shake(ssl, &socket)).await;
    let took = began.elapsed();
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(broken)) => return Err(explain(way, &broken)),
        Err(_) => {
            let text = format!(
                "{} did not answer a DTLS handshake within {patience:?}. Does the server speak \
                 DTLS on this port, and does every firewall between let UDP to port {} through?",
                way.server,
                way.server.port()
            );
            return Err(Failure::new(Stage::Reach, text));
        }
    };
    let certificate = judged(way, stream.ssl())?;
    let secured = Secured {
        protocol: stream.ssl().version_str().replace("DTLSv", "DTLS "),
        alpn: stream.ssl().selected_alpn_protocol() == Some(ALPN),
        took,
        certificate,
    };
    let ending = Arc::<Ending>::default();
    let conn = Records {
        stream: Mutex::new(stream),
        socket,
        server: way.server,
        ending: Arc::clone(&ending),
    };
    Ok(Link {
        conn: Arc::new(conn),
        ending,
        connected: None,
        secured: Some(secured),
    })
}

fn session(way: &Way) -> Result<Ssl, ErrorStack> {
    let mut roots = X509StoreBuilder::new()?;
    for root in &way.trust.roots {
        // Systems carry a few twice, and others that OpenSSL does not take.
        if let Ok(root) = X509::from_der(root) {
            roots.add_cert(root).ok();
        }
    }
    let mut context = SslContext::builder(SslMethod::dtls_client())?;
    context.set_cert_store(roots.build());
    // The handshake comes to its end whatever the certificate is, so that it can be told; nothing
    // is sent before it is judged.
    context.set_verify(SslVerifyMode::NONE);
    // The socket is not OpenSSL's to ask.
    context.set_options(SslOptions::NO_QUERY_MTU);
    let length = u8::try_from(ALPN.len()).unwrap_or(u8::MAX);
    context.set_alpn_protos(&[&[length], ALPN].concat())?;
    let mut ssl = Ssl::new(&context.build())?;
    ssl.set_mtu(MTU)?;
    let names = ssl.param_mut();
    names.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
    if let Ok(ip) = way.host.parse::<IpAddr>() {
        names.set_ip(ip)?;
    } else {
        names.set_host(&way.host)?;
        ssl.set_hostname(&way.host)?;
    }
    Ok(ssl)
}

/// What ended a handshake.
enum Broken {
    Io(io::Error),
    Ssl(String),
}

async fn shake(ssl: Ssl, socket: &Arc<UdpSocket>) -> Result<SslStream<Datagrams>, Broken> {
    let mut outcome = ssl.connect(Datagrams(Arc::clone(socket)));
    loop {
        let waiting = match outcome {
            Ok(stream) => return Ok(stream),
            Err(HandshakeError::WouldBlock(waiting)) => waiting,
            Err(HandshakeError::Failure(failed)) => return Err(broken(failed)),
            Err(HandshakeError::SetupFailure(error)) => return Err(Broken::Ssl(error.to_string())),
        };
        // OpenSSL sends a flight again when it is asked after its time; it tells nobody when.
        if let Ok(Err(error)) = timeout(TICK, socket.readable()).await {
            return Err(Broken::Io(error));
        }
        outcome = waiting.handshake();
    }
}

fn broken(failed: MidHandshakeSslStream<Datagrams>) -> Broken {
    let error = failed.into_error();
    let text = error.to_string();
    match error.into_io_error() {
        Ok(error) => Broken::Io(error),
        Err(_) => Broken::Ssl(text),
    }
}

fn explain(way: &Way, broken: &Broken) -> Failure {
    match broken {
        Broken::Io(error) => Failure::new(Stage::Reach, way.explain(error)),
        // It names the alert, such as "sslv3 alert handshake failure".
        Broken::Ssl(error) if error.contains("alert") => {
            let text = format!("the server refused the DTLS handshake: {}", tame(error));
            Failure::new(Stage::Speech, text)
        }
        Broken::Ssl(error) => {
            let text = format!("the DTLS handshake failed: {}", tame(error));
            Failure::new(Stage::Speech, text)
        }
    }
}

fn judged(way: &Way, ssl: &openssl::ssl::SslRef) -> Result<Certificate, Failure> {
    let der = ssl.peer_certificate().and_then(|leaf| leaf.to_der().ok());
    let mut certificate = der
        .and_then(|der| Certificate::decode(&der))
        .ok_or_else(|| Failure::new(Stage::Speech, "the certificate cannot be read"))?;
    let verdict = ssl.verify_result();
    if verdict == X509VerifyResult::OK {
        return Ok(certificate);
    }
    let why = verdict.error_string();
    certificate.doubt = Some(why.to_owned());
    match way.trust.rigour {
        Rigour::Insecure => Ok(certificate),
        Rigour::Strict => Err(Failure {
            stage: Stage::Certificate,
            text: format!(
                "the certificate is not accepted: {why}. It names {}; for an authority of your \
                 own give --ca FILE",
                certificate.named()
            ),
            certificate: Some(certificate),
        }),
    }
}

/// A connected socket as OpenSSL reads and writes one: a datagram each time.
#[derive(Debug)]
struct Datagrams(Arc<UdpSocket>);

impl Read for Datagrams {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.try_recv(room)
    }
}

impl Write for Datagrams {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.try_send(datagram)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection of messages over DTLS records.
struct Records {
    stream: Mutex<SslStream<Datagrams>>,
    socket: Arc<UdpSocket>,
    server: SocketAddr,
    ending: Arc<Ending>,
}

impl Records {
    /// None when it has to wait.
    fn attempt(
        &self,
        what: impl FnOnce(&mut SslStream<Datagrams>) -> Result<usize, openssl::ssl::Error>,
    ) -> Option<Result<usize, Error>> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match what(&mut stream) {
            Ok(length) => return Some(Ok(length)),
            Err(error) => error,
        };
        let reason = match error.code() {
            ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => return None,
            ErrorCode::ZERO_RETURN => "the server closed the connection".to_owned(),
            _ => format!("the connection broke: {}", tame(&error)),
        };
        self.ending.because(reason.as_str());
        let error = io::Error::new(io::ErrorKind::ConnectionAborted, reason);
        Some(Err(error.into()))
    }
}

#[async_trait]
impl Conn for Records {
    /// It is.
    async fn connect(&self, _: SocketAddr) -> Result<(), Error> {
        Ok(())
    }

    async fn recv(&self, room: &mut [u8]) -> Result<usize, Error> {
        loop {
            if let Some(received) = self.attempt(|stream| stream.ssl_read(room)) {
                return received;
            }
            self.socket.readable().await?;
        }
    }

    async fn recv_from(&self, room: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        Ok((self.recv(room).await?, self.server))
    }

    async fn send(&self, message: &[u8]) -> Result<usize, Error> {
        loop {
            if let Some(sent) = self.attempt(|stream| stream.ssl_write(message)) {
                return sent;
            }
            self.socket.writable().await?;
        }
    }

    async fn send_to(&self, message: &[u8], _: SocketAddr) -> Result<usize, Error> {
        self.send(message).await
    }

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        Ok(self.socket.local_addr()?)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.server)
    }

    async fn close(&self) -> Result<(), Error> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // Who does not hear the alert forgets us later.
        stream.shutdown().ok();
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}
