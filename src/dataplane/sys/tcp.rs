//! TCP sockets of clients, and the options that keep what waits in the kernel short: no delay, and
//! little unsent data (`TCP_NOTSENT_LOWAT`, tcp(7)), so that a reader that has fallen behind is
//! noticed after milliseconds and not after a send buffer.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::udp::{SocketOptions, set_option};

/// Connections that may wait to be accepted; the kernel may allow fewer.
const BACKLOG: i32 = 4_096;
/// Bytes that may wait in the kernel before they are sent for the first time.
const UNSENT_MAX: libc::c_int = 16 * 1_024;
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
        if sharing == Sharing::Group {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
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

/// A non-blocking TCP connection.
pub struct TcpStream {
    socket: Socket,
}

impl TcpStream {
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
