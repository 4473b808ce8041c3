//! A client's DTLS session: one message in each record.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use openssl::ssl::{
    HandshakeError, SslConnector, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion,
};

/// How long one try to receive takes.
const TRY: Duration = Duration::from_millis(50);

/// A connected socket, as OpenSSL reads and writes it.
#[derive(Debug)]
struct Datagrams(UdpSocket);

impl Read for Datagrams {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf)
    }
}

impl Write for Datagrams {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A session.
pub(crate) struct Dtls {
    pub(crate) socket: UdpSocket,
    session: Mutex<SslStream<Datagrams>>,
}

impl Dtls {
    pub(crate) fn connect(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(SocketAddr::new([127, 0, 0, 1].into(), 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(TRY)).unwrap();
        let mut connector = SslConnector::builder(SslMethod::dtls_client()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        connector.set_options(SslOptions::NO_QUERY_MTU);
        connector
            .set_min_proto_version(Some(SslVersion::DTLS1_2))
            .unwrap();
        let mut ssl = connector
            .build()
            .configure()
            .unwrap()
            .verify_hostname(false)
            .into_ssl("turn.test")
            .unwrap();
        ssl.set_mtu(1_400).unwrap();
        let began = Instant::now();
        let mut tried = ssl.connect(Datagrams(socket.try_clone().unwrap()));
        let session = loop {
            match tried {
                Ok(session) => break session,
                Err(HandshakeError::WouldBlock(going)) if began.elapsed() < super::PATIENCE => {
                    tried = going.handshake();
                }
                Err(error) => unreachable!("no handshake: {error}"),
            }
        };
        Self {
            socket,
            session: Mutex::new(session),
        }
    }

    pub(crate) fn send(&self, message: &[u8]) {
        let sent = self.session.lock().unwrap().ssl_write(message).unwrap();
        assert_eq!(sent, message.len());
    }

    /// The next message, if one comes in time.
    pub(crate) fn receive(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        let mut room = vec![0; 20_000];
        while Instant::now() < deadline {
            match self.session.get_mut().unwrap().ssl_read(&mut room) {
                Ok(len) => return Some(room[..len].to_vec()),
                Err(error) if error.io_error().is_some() => {}
                Err(error) => unreachable!("the session ended: {error}"),
            }
        }
        None
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self) {
        self.session.get_mut().unwrap().shutdown().unwrap();
    }
}
