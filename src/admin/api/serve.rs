//! Connections of the API: over TCP, over TLS, and from this machine over a Unix socket.
//!
//! At most so many are open at a time, a head that dawdles or does not end closes its connection,
//! and none lives for ever: who is slow or many takes from others of their kind only.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::Api;

/// Connections that are open at a time.
const CONNECTIONS: usize = 256;
/// How long a handshake, the head of a request or the pause between two may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection lives, however busy.
const LIFE: Duration = Duration::from_secs(600);
/// How much of a head is read.
const HEAD: usize = 16 << 10;
/// How many headers one may have.
const HEADERS: usize = 64;

/// From where a request comes; it carries this as an extension.
#[derive(Clone, Copy)]
pub enum Origin {
    /// From this machine, and its user or root.
    Control,
    /// From the network.
    Network {
        /// Whence.
        source: IpAddr,
        /// Whether it showed a certificate that was asked for.
        certified: bool,
    },
}

impl std::fmt::Debug for Origin {
    /// Without the address.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Control => "Control",
            Self::Network { .. } => "Network(hidden)",
        })
    }
}

/// TLS around HTTP.
#[derive(Clone, Debug)]
pub struct Tls {
    /// What rustls is told.
    pub config: Arc<ServerConfig>,
    /// Whether it takes a certificate to come in.
    pub certified: bool,
}

/// What is around HTTP for who comes by the network: TLS, or nothing. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Around(watch::Sender<Option<Tls>>);

impl Around {
    /// This is.
    #[must_use]
    pub fn new(tls: Option<Tls>) -> Self {
        Self(watch::Sender::new(tls))
    }

    /// From now on it is this. Connections from before are closed behind what they are answered: what
    /// was good to come in need not be any more.
    pub fn change(&self, tls: Option<Tls>) {
        self.0.send_replace(tls);
    }
}

/// By what connections come.
pub enum Door {
    /// TCP.
    Network(TcpListener, Around),
    /// A Unix socket, for the user this process runs as, and root.
    Control(UnixListener, u32),
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Network(..) => "Network",
            Self::Control(..) => "Control",
        })
    }
}

impl Door {
    /// The door of a Unix socket that lies at `path`: who owns it may come in, and root.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn control(listener: UnixListener, path: &Path) -> io::Result<Self> {
        Ok(Self::Control(listener, std::fs::metadata(path)?.uid()))
    }
}

impl Api {
    /// Answers whoever comes by `door`, until the task is dropped.
    pub async fn serve(self, door: Door) {
        let router = match &door {
            Door::Network(..) => self.router(),
            Door::Control(..) => self.router_of_control(),
        };
        answer(door, router).await;
    }
}

/// Answers whoever comes by `door` from `router`, until the task is dropped.
pub async fn answer(door: Door, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let come = match &door {
            Door::Network(listener, _) => {
                let come = listener.accept().await;
                come.map(|(stream, source)| (Stream::Tcp(stream), Some(source.ip())))
            }
            Door::Control(listener, _) => {
                let come = listener.accept().await;
                come.map(|(stream, _)| (Stream::Unix(stream), None))
            }
        };
        let (stream, source) = match come {
            Ok(come) => come,
            Err(error) => {
                // Out of descriptors, or a client that is gone already.
                tracing::debug!(%error, "a connection to the API was not taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Who comes while it is full finds the connection closed, and may come again.
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        enter(&door, stream, source, router.clone(), permit);
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

fn enter(
    door: &Door,
    stream: Stream,
    source: Option<IpAddr>,
    router: Router,
    permit: OwnedSemaphorePermit,
) {
    let source = source.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    let network = move |certified| Origin::Network { source, certified };
    match (door, stream) {
        (Door::Network(_, around), Stream::Tcp(stream)) => {
            let mut changes = around.0.subscribe();
            let tls = changes.borrow_and_update().clone();
            let changed = async move {
                changes.changed().await.ok();
            };
            tokio::spawn(async move {
                let Some(Tls { config, certified }) = tls else {
                    converse(stream, network(false), router, changed).await;
                    drop(permit);
                    return;
                };
                let acceptor = TlsAcceptor::from(config);
                let handshake = tokio::time::timeout(PATIENCE, acceptor.accept(stream));
                if let Ok(Ok(stream)) = handshake.await {
                    converse(stream, network(certified), router, changed).await;
                }
                drop(permit);
            });
        }
        (Door::Control(_, owner), Stream::Unix(stream)) => {
            let user = stream.peer_cred().map(|user| user.uid());
            if !user.is_ok_and(|user| user == *owner || user == 0) {
                return;
            }
            tokio::spawn(async move {
                converse(stream, Origin::Control, router, std::future::pending()).await;
                drop(permit);
            });
        }
        (Door::Network(..), Stream::Unix(_)) | (Door::Control(..), Stream::Tcp(_)) => {}
    }
}

/// HTTP/1.1 on a connection until either side has enough, or `over` is.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    origin: Origin,
    router: Router,
    over: impl Future<Output = ()>,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(origin);
        TowerToHyperService::new(router.clone()).call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let conversation = async {
        tokio::select! {
            // What a client does wrong concerns nobody here.
            _ = connection.as_mut() => return,
            () = over => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await.ok();
    };
    tokio::time::timeout(LIFE, conversation).await.ok();
}
