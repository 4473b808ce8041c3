//! A connection that was accepted and is not known yet: whether a load balancer's PROXY header comes
//! first, and whether TLS or plain TURN follows where one address serves both. It holds no more
//! than a header's length of bytes.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;

use crate::dataplane::proxy::{self, Parsed};
use crate::dataplane::sys::TcpStream;
use crate::turn::{ClientAddr, Tick, Transport};

/// Bytes looked at before the transport is known: the longest PROXY header, or the first of what
/// follows.
const SEEN_MAX: usize = proxy::MAX_HEADER;
/// RFC 8446 §5.1: the first byte of a TLS handshake. No STUN message and no ChannelData begins so
/// (RFC 7983 §7).
const HANDSHAKE: u8 = 22;

/// What is spoken at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// TURN over TCP.
    Plain,
    /// TURN over TLS.
    Tls,
    /// Either, told apart by the first byte.
    Both,
}

impl Spoken {
    /// What a connection counts as until more is known.
    pub(crate) const fn transport(self) -> Transport {
        match self {
            Self::Plain | Self::Both => Transport::Tcp,
            Self::Tls => Transport::Tls,
        }
    }
}

/// Whether a header precedes everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// A trusted load balancer sends one.
    Expected,
    None,
}

/// A connection before its first message.
pub(crate) struct Newcomer {
    pub(crate) stream: TcpStream,
    /// The acceptor that it came by.
    pub(crate) place: u16,
    pub(crate) since: Tick,
    client: SocketAddr,
    header: Header,
    spoken: Spoken,
    seen: Vec<u8>,
}

/// What is known of a newcomer.
pub(crate) enum Known {
    /// Not enough yet.
    NotYet,
    /// Who it is, how it speaks, and what it said so far.
    All(ClientAddr, Transport, Vec<u8>),
    /// Gone, or no client of ours.
    Nobody,
}

impl Newcomer {
    pub(crate) const fn new(
        stream: TcpStream,
        place: u16,
        client: SocketAddr,
        header: Header,
        spoken: Spoken,
        since: Tick,
    ) -> Self {
        Self {
            stream,
            place,
            since,
            client,
            header,
            spoken,
            seen: Vec::new(),
        }
    }

    /// As [`Spoken::transport`].
    pub(crate) const fn transport(&self) -> Transport {
        self.spoken.transport()
    }

    /// Reads what has come, if anything has to be read to know it.
    pub(crate) fn look(&mut self) -> Known {
        loop {
            if let Some(known) = self.judge() {
                return known;
            }
            match self.read_more() {
                Ok(0) => return Known::Nobody,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Known::NotYet,
                Err(_) => return Known::Nobody,
            }
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut room = [0; SEEN_MAX];
        let free = room.get_mut(self.seen.len()..).unwrap_or_default();
        // Without room nothing is read, as at the end of the stream.
        let len = (&self.stream).read(free)?;
        self.seen
            .extend_from_slice(free.get(..len).unwrap_or_default());
        Ok(len)
    }

    fn judge(&mut self) -> Option<Known> {
        if self.header == Header::Expected {
            match proxy::parse_stream(&self.seen) {
                Parsed::NeedMore => return None,
                Parsed::Header { len, client } => {
                    if let Some(client) = client {
                        self.client = client.expose();
                    }
                    self.seen.drain(..len.min(self.seen.len()));
                    self.header = Header::None;
                }
                Parsed::Absent | Parsed::Invalid => return Some(Known::Nobody),
            }
        }
        let transport = match (self.spoken, self.seen.first()) {
            (Spoken::Plain, _) => Transport::Tcp,
            (Spoken::Tls, _) | (Spoken::Both, Some(&HANDSHAKE)) => Transport::Tls,
            (Spoken::Both, Some(_)) => Transport::Tcp,
            (Spoken::Both, None) => return None,
        };
        let client = ClientAddr::new(self.client);
        let seen = std::mem::take(&mut self.seen);
        Some(Known::All(client, transport, seen))
    }
}

impl fmt::Debug for Newcomer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Newcomer")
            .field("place", &self.place)
            .field("seen", &self.seen.len())
            .finish_non_exhaustive()
    }
}
