//! Connections to a server over every transport, as the client wants them: whole messages in and
//! out, whatever carries them (RFC 8489 §6.2, RFC 8656 §3.1).
//!
//! `framed` finds the messages in a byte stream, `tls` and `dtls` secure one, `trust` says whose
//! certificates are believed and `certificate` what one says. An error is told as a person needs
//! it who wants to know what to repair.

pub(super) mod certificate;
#[cfg(feature = "dtls")]
mod dtls;
mod framed;
mod tls;
pub(super) mod trust;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use webrtc_util::Conn;

use super::url;
use crate::turn::Transport;

use certificate::Certificate;
use trust::Trust;

/// The protocol that RFC 7443 §3 names for TURN.
const ALPN: &[u8] = b"stun.turn";

/// How a server is reached.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) transport: Transport,
    pub(super) server: SocketAddr,
    /// The name or address by which it was called, which its certificate must have.
    pub(super) host: String,
    pub(super) trust: Arc<Trust>,
}

/// A connection that is ready for messages.
pub(super) struct Link {
    pub(super) conn: Arc<dyn Conn + Send + Sync>,
    pub(super) ending: Arc<Ending>,
    /// How long a connection took, where there is one.
    pub(super) connected: Option<Duration>,
    pub(super) secured: Option<Secured>,
}

/// What a handshake agreed on.
#[derive(Debug, Clone)]
pub(super) struct Secured {
    /// Such as "TLS 1.3".
    pub(super) protocol: String,
    /// Whether the server took the protocol we offered (RFC 7443).
    pub(super) alpn: bool,
    pub(super) took: Duration,
    pub(super) certificate: Certificate,
}

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    /// For a person.
    pub(super) text: String,
    pub(super) certificate: Option<Certificate>,
}

/// How far it came, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// This build cannot say.
    #[cfg_attr(
        all(feature = "dtls", not(test)),
        expect(dead_code, reason = "everything is built in")
    )]
    NotBuiltIn,
    /// The server is not heard.
    Reach,
    /// It is, but does not speak as it should.
    Speech,
    /// It has a certificate that must not be believed.
    Certificate,
}

impl Failure {
    pub(super) fn new(stage: Stage, text: impl Into<String>) -> Self {
        Self {
            stage,
            text: text.into(),
            certificate: None,
        }
    }
}

/// Why a connection ended that was ready, once it has.
#[derive(Debug, Default)]
pub(super) struct Ending {
    reason: OnceLock<String>,
    notify: Notify,
}

impl Ending {
    /// Says so; the first reason stays.
    fn because(&self, reason: impl Into<String>) {
        self.reason.get_or_init(|| reason.into());
        self.notify.notify_waiters();
    }

    /// Why it ended, if it has.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Waits for it.
    pub(super) async fn reached(&self) -> &str {
        loop {
            let notified = self.notify.notified();
            if let Some(reason) = self.reason() {
                return reason;
            }
            notified.await;
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Way {
    /// Connects.
    ///
    /// # Errors
    /// With what an operator should know.
    pub(super) async fn open(&self, patience: Duration) -> Result<Link, Failure> {
        match self.transport {
            Transport::Udp => self.udp().await,
            Transport::Tcp => {
                let (stream, connected) = self.tcp(patience).await?;
                let here = stream.local_addr().map_err(|error| self.failed(&error))?;
                Ok(self.framed(stream, here, connected, None))
            }
            Transport::Tls => {
                let (stream, connected) = self.tcp(patience).await?;
                let here = stream.local_addr().map_err(|error| self.failed(&error))?;
                let (stream, secured) = tls::connect(self, stream, patience).await?;
                Ok(self.framed(stream, here, connected, Some(secured)))
            }
            Transport::Dtls => self.dtls(patience).await,
        }
    }

    #[cfg(feature = "dtls")]
    async fn dtls(&self, patience: Duration) -> Result<Link, Failure> {
        let connected = async {
            let socket = self.socket().await?;
            // A connected socket hears of ICMP port unreachable.
            socket.connect(self.server).await?;
            io::Result::Ok(socket)
        };
        let socket = connected.await.map_err(|error| self.failed(&error))?;
        dtls::connect(self, socket, patience).await
    }

    #[cfg(not(feature = "dtls"))]
    #[expect(clippy::unused_async, reason = "as with the feature")]
    async fn dtls(&self, _: Duration) -> Result<Link, Failure> {
        let text = "this build does not speak DTLS: it was made without the cargo feature \
                    `dtls`, so nothing is known of it";
        Err(Failure::new(Stage::NotBuiltIn, text))
    }

    async fn udp(&self) -> Result<Link, Failure> {
        let socket = self.socket().await;
        Ok(Link {
            conn: Arc::new(socket.map_err(|error| self.failed(&error))?),
            ending: Arc::default(),
            connected: None,
            secured: None,
        })
    }

    async fn socket(&self) -> io::Result<UdpSocket> {
        let any: IpAddr = if self.server.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        UdpSocket::bind((any, 0)).await
    }

    async fn tcp(&self, patience: Duration) -> Result<(TcpStream, Duration), Failure> {
        let began = Instant::now();
        let connected = match timeout(patience, TcpStream::connect(self.server)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let stream = connected.map_err(|error| self.failed(&error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| self.failed(&error))?;
        Ok((stream, began.elapsed()))
    }

    fn framed<S>(
        &self,
        stream: S,
        here: SocketAddr,
        connected: Duration,
        secured: Option<Secured>,
    ) -> Link
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    {
        let ending = Arc::<Ending>::default();
        let conn = framed::Framed::new(stream, here, self.server, Arc::clone(&ending));
        Link {
            conn: Arc::new(conn),
            ending,
            connected: Some(connected),
            secured,
        }
    }

    /// Why the server is not reached.
    fn failed(&self, error: &io::Error) -> Failure {
        Failure::new(Stage::Reach, self.explain(error))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others have no remedy of their own"
    )]
    pub(super) fn explain(&self, error: &io::Error) -> String {
        let (server, carrier) = (self.server, url::carrier(self.transport));
        match error.kind() {
            io::ErrorKind::ConnectionRefused => format!(
                "{server} refused: nothing listens on that {carrier} port. Is the server running, \
                 and is this its port?"
            ),
            io::ErrorKind::TimedOut => format!(
                "{server} did not take a connection. Is the server running, and does every \
                 firewall between let {carrier} to port {} through?",
                server.port()
            ),
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable => {
                let family = if server.is_ipv4() { "IPv4" } else { "IPv6" };
                format!(
                    "{server} cannot be reached: this machine has no way there ({error}). Has it \
                     {family} at all?"
                )
            }
            _ => format!("{server} cannot be reached: {error}"),
        }
    }
}

/// What somebody else wrote, neither long nor able to steer a terminal.
fn tame(text: &impl fmt::Display) -> String {
    text.to_string().escape_debug().take(200).collect()
}
