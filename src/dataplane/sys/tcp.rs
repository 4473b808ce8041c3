//! TCP sockets of clients, and the options that keep what waits in the kernel short: no delay, and
//! little unsent data (`TCP_NOTSENT_LOWAT`, tcp(7)), so that a reader that has fallen behind is
//! noticed after milliseconds and not after a send buffer. And those of relayed transport addresses
//! (RFC 6062), where one socket listens and others connect from the same port.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::udp::{SocketOptions, set_option};

/// Connections that may wait to be accepted; the kernel may allow fewer.
const BACKLOG: i32 = 4_096;
/// Bytes that may wait in the kernel before they are sent for the first time.
const UNSENT_MAX: libc::c_int = 16 * 1_024;
/// Peers' connections that may wait at one relayed transport address.
const RELAY_BACKLOG: i32 = 64;
/// For how long sent data may go without an acknowledgement (RFC 5482).
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// When an idle connection is asked whether it is still there, and how often again.
const KEEPALIVE: Duration = Duration::from_secs(60);
const TTL: u32 = 64;

/// A listening, non-blocking TCP socket.
pub struct TcpListener {
    socket: Socket,
    local_addr: SocketAddr,
    traffic_class: u32,
}

/// Whether other sockets of this process share the port, and the kernel spreads connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One of a group, one for each worker.
    Group,
    /// Nobody else may listen there; for finding out whether somebody does.
    Alone,
}

impl TcpListener {
    /// Listens on `addr`; a wildcard takes connections to every local address of its family.
    ///
    /// # Errors
    /// If the kernel refuses the address or an option.
    pub fn bind(addr: SocketAddr, sharing: Sharing, options: &SocketOptions) -> io::Result<Self> {
        let socket = open(addr)?;
        if sharing == Sharing::Group {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        Self::listen(socket, BACKLOG, options)
    }

    /// Listens on a relayed transport address that nobody else holds. Connections may leave from it
    /// all the same, by [`TcpStream::connect`].
    ///
    /// # Errors
    /// If the kernel refuses the address or an option.
    pub fn relay(addr: SocketAddr, options: &SocketOptions) -> io::Result<Self> {
        let socket = open(addr)?;
        socket.bind(&addr.into())?;
        // Not before: bind(2) has refused a port on which anybody listens, and lets those in that
        // come later.
        socket.set_reuse_port(true)?;
        Self::listen(socket, RELAY_BACKLOG, options)
    }

    fn listen(socket: Socket, backlog: i32, options: &SocketOptions) -> io::Result<Self> {
        socket.listen(backlog)?;
        let local_addr = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self {
            socket,
            local_addr,
            traffic_class: u32::from(options.dscp) << 2,
        })
    }

    /// The address it is bound to, with the port the kernel chose if 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Marks what connections send that it takes from now on.
    pub fn mark(&mut self, dscp: u8) {
        self.traffic_class = u32::from(dscp) << 2;
    }

    /// The next connection that waits, and where it comes from.
    ///
    /// # Errors
    /// `WouldBlock` if none waits; the connection's own error if it has failed already; else that of
    /// a process without descriptors or memory.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, from) = self.socket.accept_raw()?;
        let from = from.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        let stream = TcpStream { socket };
        stream.prepare(from, self.traffic_class)?;
        Ok((stream, from))
    }
}

/// A socket that is not bound yet.
fn open(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a former process may still be closing.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener")
            .field("fd", &self.socket.as_raw_fd())
            .finish_non_exhaustive()
    }
}

/// A non-blocking TCP connection, or one end of a pair that stands for one.
pub struct TcpStream {
    socket: Socket,
}

impl TcpStream {
    /// Begins to connect `from` to `to`. It can be written to once that is done, and
    /// [`outcome`](Self::outcome) says how.
    ///
    /// # Errors
    /// If the kernel refuses at once.
    pub fn connect(from: SocketAddr, to: SocketAddr, options: &SocketOptions) -> io::Result<Self> {
        let socket = open(from)?;
        socket.set_reuse_port(true)?;
        socket.bind(&from.into())?;
        let stream = Self { socket };
        stream.prepare(to, u32::from(options.dscp) << 2)?;
        match stream.socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            Ok(()) | Err(_) => Ok(stream),
        }
    }

    /// Two ends of a connection within this process.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let (one, other) = Socket::pair(Domain::UNIX, kind, None)?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// What came of [`connect`](Self::connect).
    ///
    /// # Errors
    /// Why it is not connected.
    pub fn outcome(&self) -> io::Result<()> {
        self.socket.take_error()?.map_or(Ok(()), Err)
    }

    /// Whether it has ended in both directions, or was reset; what has come may still be read.
    pub fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let ready = poll(&mut fds, Some(&Timespec::default()));
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        ready.is_ok_and(|ready| ready > 0) && fds[0].revents().intersects(gone)
    }

    /// Lets the other side be as slow as it likes: what it does not take waits with the sender.
    ///
    /// # Errors
    /// If the kernel refuses, as it does for one of a pair, which has no such limit.
    pub fn bear_slow_readers(&self) -> io::Result<()> {
        self.socket.set_tcp_user_timeout(None)
    }

    /// What all connections have in common.
    fn prepare(&self, peer: SocketAddr, traffic_class: u32) -> io::Result<()> {
        let socket = &self.socket;
        socket.set_tcp_nodelay(true)?;
        let (level, lowat) = (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT);
        set_option(socket, level, lowat, UNSENT_MAX)?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE / 6);
        socket.set_tcp_keepalive(&keepalive)?;
        if peer.is_ipv4() {
            socket.set_ttl_v4(TTL)?;
            socket.set_tos_v4(traffic_class)
        } else {
            socket.set_unicast_hops_v6(TTL)?;
            socket.set_tclass_v6(traffic_class)
        }
    }

    /// Marks what it sends with this DSCP from now on; one of a pair sends nothing that could be.
    pub fn mark(&self, dscp: u8) {
        let traffic_class = u32::from(dscp) << 2;
        let address = self.socket.local_addr();
        let marked = match address.map(|address| address.as_socket()) {
            Ok(Some(SocketAddr::V4(_))) => self.socket.set_tos_v4(traffic_class),
            Ok(Some(SocketAddr::V6(_))) => self.socket.set_tclass_v6(traffic_class),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = marked {
            tracing::debug!(%error, "a connection keeps its DSCP");
        }
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(std::net::Shutdown::Write)
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(buf)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send_with_flags(bytes, libc::MSG_NOSIGNAL)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket
            .send_vectored_with_flags(parts, libc::MSG_NOSIGNAL)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("fd", &self.socket.as_raw_fd())
            .finish_non_exhaustive()
    }
}
