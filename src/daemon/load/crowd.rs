//! The clients' side of the wire: one UDP socket that speaks for all of them, one for each, or a
//! connection for each.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use slab::Slab;

use super::sources::Network;
use super::streams::{Speech, Streams};
use crate::dataplane::sys::{CrowdSocket, Inbox, Outbox, Poller, Posted, Ready};

/// As much as the kernel gives: a search must lose packets at the server, not here.
const SHARED_BUFFER: usize = 64 << 20;
const OWN_BUFFER: usize = 1 << 20;
/// Messages of one send, and runs of one receive.
const BATCH: usize = 64;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    /// A client on the other half's transport, where there is one.
    Callee,
    Peer,
}

/// From where one client speaks.
#[derive(Clone, Copy)]
pub(super) struct Seat {
    socket: usize,
    source: Option<IpAddr>,
}

enum Kind {
    Shared {
        socket: CrowdSocket,
        /// None for a socket that speaks for itself alone.
        network: Option<Network>,
        next: u64,
    },
    Own {
        sockets: Slab<CrowdSocket>,
        poller: Poller,
        ready: Option<Box<Ready>>,
    },
    Streams(Streams),
}

/// All clients, or all peers.
pub(super) struct Crowd {
    kind: Kind,
    /// The socket of what waits in the outbox.
    current: usize,
    outbox: Outbox,
    inbox: Inbox,
    posted: Posted,
}

impl Crowd {
    /// Clients with addresses of `network`, on one port.
    pub(super) fn shared(network: Network) -> io::Result<Self> {
        let any: IpAddr = if network.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = CrowdSocket::open(SocketAddr::new(any, 0), SHARED_BUFFER)?;
        Ok(Self::new(Kind::Shared {
            socket,
            network: Some(network),
            next: 0,
        }))
    }

    /// Clients with a socket each.
    pub(super) fn own() -> io::Result<Self> {
        Ok(Self::new(Kind::Own {
            sockets: Slab::new(),
            poller: Poller::new()?,
            ready: None,
        }))
    }

    /// Clients with a connection each, from addresses of `network` or of the system's choice.
    pub(super) fn streams(speech: Speech, network: Option<Network>) -> io::Result<Self> {
        Ok(Self::new(Kind::Streams(Streams::new(speech, network)?)))
    }

    /// One peer at `ip`.
    pub(super) fn alone(ip: IpAddr) -> io::Result<Self> {
        let socket = CrowdSocket::open(SocketAddr::new(ip, 0), SHARED_BUFFER)?;
        Ok(Self::new(Kind::Shared {
            socket,
            network: None,
            next: 0,
        }))
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            current: 0,
            outbox: Outbox::new(BATCH, crate::dataplane::sys::RUN_MAX),
            inbox: Inbox::new(BATCH),
            posted: Posted::default(),
        }
    }

    /// The address of the one socket, if there is but one.
    pub(super) const fn local_addr(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Shared { socket, .. } => Some(socket.local_addr()),
            Kind::Own { .. } | Kind::Streams(_) => None,
        }
    }

    /// The clients' connections, if they have any.
    pub(super) const fn connections(&self) -> Option<&Streams> {
        match &self.kind {
            Kind::Streams(streams) => Some(streams),
            Kind::Shared { .. } | Kind::Own { .. } => None,
        }
    }

    /// A place for one more client of `server`, and where it has to send.
    pub(super) fn seat(&mut self, server: SocketAddr) -> io::Result<(Seat, Option<SocketAddr>)> {
        match &mut self.kind {
            Kind::Shared { network, next, .. } => {
                let source = network.map(|network| network.address(*next));
                *next += 1;
                Ok((Seat { socket: 0, source }, Some(server)))
            }
            Kind::Own {
                sockets, poller, ..
            } => {
                let any: IpAddr = if server.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                let socket = CrowdSocket::open(SocketAddr::new(any, 0), OWN_BUFFER)?;
                socket.connect(server)?;
                let key = sockets.insert(socket);
                // Lossless: usize has 64 bits here.
                poller.add(&sockets[key], key as u64)?;
                let source = None;
                Ok((
                    Seat {
                        socket: key,
                        source,
                    },
                    None,
                ))
            }
            Kind::Streams(streams) => {
                let (socket, source) = (streams.seat(server)?, None);
                Ok((Seat { socket, source }, None))
            }
        }
    }

    /// Where a place is reached from this machine.
    pub(super) fn address(&self, seat: Seat) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Shared { socket, .. } => {
                let local = socket.local_addr();
                Some(SocketAddr::new(
                    seat.source.unwrap_or_else(|| local.ip()),
                    local.port(),
                ))
            }
            // A connected socket knows by which address it reaches the server.
            Kind::Own { sockets, .. } => sockets.get(seat.socket)?.connected_addr().ok(),
            Kind::Streams(streams) => streams.address(seat.socket),
        }
    }

    /// Takes a place back.
    pub(super) fn leave(&mut self, seat: Seat) {
        match &mut self.kind {
            Kind::Shared { .. } => {}
            Kind::Own { sockets, .. } => {
                // Closing it takes it out of the poller.
                sockets.try_remove(seat.socket);
            }
            Kind::Streams(streams) => streams.leave(seat.socket),
        }
    }

    /// Puts a datagram, or a run of them, in the outbox; `fill` writes it and says how long it is.
    pub(super) fn post(
        &mut self,
        seat: Seat,
        to: Option<SocketAddr>,
        segment: Option<u16>,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        if let Kind::Streams(streams) = &mut self.kind {
            return streams.post(seat.socket, segment, fill);
        }
        if self.outbox.is_full() || self.current != seat.socket {
            self.flush();
            self.current = seat.socket;
        }
        if let Some(room) = self.outbox.vacant() {
            let length = fill(room);
            self.outbox.push(length, seat.source, to, segment);
        }
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        if let Kind::Streams(streams) = &mut self.kind {
            return streams.flush();
        }
        if self.outbox.is_empty() {
            return;
        }
        let socket = match &self.kind {
            Kind::Shared { socket, .. } => Some(socket),
            Kind::Own { sockets, .. } => sockets.get(self.current),
            Kind::Streams(_) => None,
        };
        let Some(socket) = socket else { return };
        let posted = self.outbox.flush(socket);
        self.posted.sent += posted.sent;
        self.posted.blocked += posted.blocked;
        self.posted.refused += posted.refused;
        self.posted.error = posted.error.or(self.posted.error);
    }

    /// What became of everything posted since this was last asked.
    pub(super) fn take_posted(&mut self) -> Posted {
        if let Kind::Streams(streams) = &mut self.kind {
            return streams.take_posted();
        }
        std::mem::take(&mut self.posted)
    }

    /// Hands over what is waiting, at most about a batch; returns how many datagrams.
    pub(super) fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<usize> {
        let inbox = &mut self.inbox;
        let mut drain = |socket: &CrowdSocket| {
            let mut count = 0;
            for index in 0..inbox.receive(socket)? {
                for datagram in inbox.datagrams(index) {
                    each(datagram);
                    count += 1;
                }
            }
            io::Result::Ok(count)
        };
        match &mut self.kind {
            Kind::Shared { socket, .. } => drain(socket),
            Kind::Own {
                sockets,
                poller,
                ready,
            } => {
                let mut count = 0;
                if ready.as_ref().is_none_or(|ready| ready.len() == 0) {
                    *ready = Some(Box::new(poller.wait(Some(Duration::ZERO))?));
                }
                // In slices, so that sending goes on between them.
                for token in ready.iter_mut().flatten().take(BATCH) {
                    let key = usize::try_from(token).unwrap_or(usize::MAX);
                    if let Some(socket) = sockets.get(key) {
                        count += drain(socket)?;
                    }
                }
                Ok(count)
            }
            Kind::Streams(streams) => streams.receive(each),
        }
    }
}
