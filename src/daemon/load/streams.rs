//! Clients on TCP or TLS: a connection for each, all of them in one epoll set and on one thread.
//!
//! What is posted between two flushes leaves by one write for each connection, and in one TLS
//! record; what one read brings is handed over message by message. A connection that does not take
//! what is posted keeps a little of it; what comes after that is lost, as it would be to a client
//! that sends live media.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use super::sources::Network;
use crate::dataplane::sys::{Interest, Poller, Posted, RUN_MAX, Ready};
use crate::proto::{Border, ChannelData, ChannelRange, MAX_STREAM_MESSAGE, next_border};

/// How long a connection and its handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// As many bytes wait for a connection that takes no more: a tenth of a second of video.
const BACKLOG: usize = 32 << 10;
/// Connections that are read from before sending goes on.
const SLICE: usize = 64;

/// What the clients speak.
#[derive(Clone)]
pub(super) enum Speech {
    Tcp,
    Tls(Arc<ClientConfig>, ServerName<'static>),
}

/// All clients of one transport.
pub(super) struct Streams {
    speech: Speech,
    network: Option<Network>,
    seated: u64,
    connections: Slab<Connection>,
    poller: Poller,
    ready: Option<Box<Ready>>,
    /// Connections with something new to send.
    due: Vec<usize>,
    /// What was read, behind what had begun before.
    room: Box<[u8]>,
    /// The same, decrypted.
    plain: Vec<u8>,
    posted: Posted,
    /// Connections that ended before they should, and why the first of them did.
    ended: u64,
    reason: Option<String>,
}

struct Connection {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// A message of which not everything has arrived.
    begun: Vec<u8>,
    /// Messages to be sent.
    waiting: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is nothing to send.
    Idle,
    /// It is among those that are due.
    Due,
    /// The kernel says when it takes more.
    Blocked,
    Ended,
}

impl Streams {
    /// Clients with addresses of `network`, or of the system's choice.
    pub(super) fn new(speech: Speech, network: Option<Network>) -> io::Result<Self> {
        Ok(Self {
            speech,
            network,
            seated: 0,
            connections: Slab::new(),
            poller: Poller::new()?,
            ready: None,
            due: Vec::new(),
            room: vec![0; MAX_STREAM_MESSAGE + RUN_MAX].into_boxed_slice(),
            plain: Vec::new(),
            posted: Posted::default(),
            ended: 0,
            reason: None,
        })
    }

    /// Connects one more client; returns its place.
    pub(super) fn seat(&mut self, server: SocketAddr) -> io::Result<usize> {
        let source = self.network.map(|network| network.address(self.seated));
        self.seated += 1;
        let mut socket = connected(server, source)?;
        let tls = match &self.speech {
            Speech::Tcp => None,
            Speech::Tls(config, name) => {
                let mut tls = ClientConnection::new(Arc::clone(config), name.clone())
                    .map_err(io::Error::other)?;
                // The backlog bounds what it holds.
                tls.set_buffer_limit(None);
                while tls.is_handshaking() || tls.wants_write() {
                    tls.complete_io(&mut socket)?;
                }
                Some(Box::new(tls))
            }
        };
        socket.set_nonblocking(true)?;
        let key = self.connections.insert(Connection {
            socket,
            tls,
            begun: Vec::new(),
            waiting: Vec::new(),
            state: State::Idle,
        });
        // Lossless: usize has 64 bits here.
        self.poller.add(&self.connections[key].socket, key as u64)?;
        Ok(key)
    }

    pub(super) fn address(&self, place: usize) -> Option<SocketAddr> {
        self.connections.get(place)?.socket.local_addr().ok()
    }

    /// Ends a client's connection.
    pub(super) fn leave(&mut self, place: usize) {
        // Closing it takes it out of the poller.
        self.connections.try_remove(place);
    }

    /// Puts a message, or a run of them, on its way; `fill` writes it and says how long it is.
    pub(super) fn post(
        &mut self,
        place: usize,
        segment: Option<u16>,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let length = fill(&mut self.room).min(self.room.len());
        let segment = segment.map_or(length, usize::from).max(1);
        let messages = self.room[..length].chunks(segment);
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        // Lossless: usize has 64 bits here.
        let count = messages.len() as u64;
        if connection.state == State::Ended {
            self.posted.refused += count;
            self.posted.error = Some(libc::EPIPE);
            return;
        }
        self.posted.sent += count;
        if connection.waiting.len() > BACKLOG {
            return;
        }
        for message in messages {
            connection.waiting.extend_from_slice(message);
            // RFC 8656 §12.5: over a stream ChannelData is padded.
            let padding = ChannelData::padded_len(message.len()) - message.len();
            connection.waiting.extend_from_slice(&[0; 4][..padding]);
        }
        if connection.state == State::Idle {
            connection.state = State::Due;
            self.due.push(place);
        }
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        for place in due.drain(..) {
            self.push(place);
        }
        self.due = due;
    }

    fn push(&mut self, place: usize) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        let (state, interest) = match connection.push() {
            Ok(()) => (State::Idle, Interest::Read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                (State::Blocked, Interest::ReadAndWrite)
            }
            Err(error) => return self.end(place, &error),
        };
        let was = std::mem::replace(&mut connection.state, state);
        if (was == State::Blocked) != (state == State::Blocked) {
            let changed = self
                .poller
                .change(&connection.socket, place as u64, interest);
            if let Err(error) = changed {
                self.end(place, &error);
            }
        }
    }

    fn end(&mut self, place: usize, error: &io::Error) {
        if let Some(connection) = self.connections.get_mut(place)
            && connection.state != State::Ended
        {
            connection.state = State::Ended;
            // Else it would be found ready for ever.
            self.poller.remove(&connection.socket).ok();
            self.ended += 1;
            self.reason.get_or_insert_with(|| error.to_string());
        }
    }

    /// What became of everything posted since this was last asked.
    pub(super) fn take_posted(&mut self) -> Posted {
        std::mem::take(&mut self.posted)
    }

    /// How many connections ended before they should, and why the first did.
    pub(super) fn ended(&self) -> Option<(u64, &str)> {
        Some((self.ended, self.reason.as_deref()?))
    }

    /// Such as "TLSv1_3, TLS13_AES_256_GCM_SHA384", of the first client.
    pub(super) fn agreed(&self) -> Option<String> {
        let (_, connection) = self.connections.iter().next()?;
        let tls = connection.tls.as_ref()?;
        let suite = tls.negotiated_cipher_suite()?.suite();
        Some(format!("{:?}, {suite:?}", tls.protocol_version()?))
    }

    /// Hands over what is waiting on some of the connections; returns how many messages.
    pub(super) fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<usize> {
        if self.ready.as_ref().is_none_or(|ready| ready.len() == 0) {
            self.ready = Some(Box::new(self.poller.wait(Some(Duration::ZERO))?));
        }
        let mut count = 0;
        for _ in 0..SLICE {
            let Some(token) = self.ready.as_mut().and_then(|ready| ready.next()) else {
                break;
            };
            let place = usize::try_from(token).unwrap_or(usize::MAX);
            let state = self.connections.get(place).map(|found| found.state);
            if state == Some(State::Blocked) {
                self.push(place);
            }
            match self.read(place, &mut each) {
                Ok(messages) => count += messages,
                Err(error) => self.end(place, &error),
            }
        }
        Ok(count)
    }

    fn read(&mut self, place: usize, each: &mut impl FnMut(&[u8])) -> io::Result<usize> {
        let Some(connection) = self.connections.get_mut(place) else {
            return Ok(0);
        };
        let Connection {
            socket, tls, begun, ..
        } = connection;
        // What has begun is shorter than the longest message, so that there is always room.
        let from = if tls.is_some() { 0 } else { begun.len() };
        let read = match socket.read(&mut self.room[from..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        let bytes = match tls {
            None => {
                self.room[..from].copy_from_slice(begun);
                &self.room[..from + read]
            }
            Some(tls) => {
                self.plain.clear();
                self.plain.extend_from_slice(begun);
                decrypt(tls, &self.room[..read], &mut self.plain)?;
                &self.plain[..]
            }
        };
        let (count, rest) = messages(bytes, each)?;
        begun.clear();
        begun.extend_from_slice(rest);
        Ok(count)
    }
}

impl Connection {
    /// Writes all that waits, or as much as the kernel takes.
    fn push(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            let mut written = 0;
            let outcome = loop {
                match self.socket.write(&self.waiting[written..]) {
                    Ok(count) => written += count,
                    Err(error) => break Err(error),
                }
                if written == self.waiting.len() {
                    break Ok(());
                }
            };
            self.waiting.drain(..written);
            return outcome;
        };
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
            if self.waiting.is_empty() {
                return Ok(());
            }
            tls.writer().write_all(&self.waiting)?;
            self.waiting.clear();
        }
    }
}

fn connected(server: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let domain = Domain::for_address(server);
    let socket = Socket::new(domain, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&server.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

fn decrypt(tls: &mut ClientConnection, mut bytes: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.is_empty() {
        if tls.read_tls(&mut bytes)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let from = plain.len();
        plain.resize(from + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plain[from..])?;
    }
    Ok(())
}

/// Hands over every whole message; returns how many, and what is left.
fn messages<'a>(
    mut bytes: &'a [u8],
    each: &mut impl FnMut(&[u8]),
) -> io::Result<(usize, &'a [u8])> {
    let mut count = 0;
    loop {
        match next_border(bytes, ChannelRange::Rfc8656) {
            Border::Whole { len, padded, .. } => {
                each(&bytes[..len]);
                count += 1;
                bytes = &bytes[padded..];
            }
            Border::NeedMore { .. } => return Ok((count, bytes)),
            Border::Invalid => {
                return Err(io::Error::other("it sends what is no message of TURN"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
