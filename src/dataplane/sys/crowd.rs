//! A UDP socket that speaks for many local addresses, for the load generator: a batch of datagrams
//! leaves by one system call though each comes from another client.
//!
//! The source of each datagram is chosen by `IP_PKTINFO` or `IPV6_PKTINFO`, runs of equal
//! datagrams leave as one (`UDP_SEGMENT`), and what the kernel merged on the way in (`UDP_GRO`) is
//! taken apart. Where a datagram came from and which address it reached is not asked for: that is
//! read from the datagram itself, and costs nothing here.

mod inbox;
mod outbox;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libc::c_int;
use socket2::{Domain, Protocol, Socket, Type};

use super::udp::set_option;

pub use inbox::Inbox;
pub use outbox::{Outbox, Posted};

/// The longest datagram, and the longest run that leaves or arrives as one.
pub const RUN_MAX: usize = 65_535;
/// The most segments of one run (`UDP_MAX_SEGMENTS` of older kernels).
pub const SEGMENTS_MAX: usize = 64;

/// A non-blocking UDP socket whose datagrams may come from any address of this machine.
pub struct CrowdSocket {
    socket: Socket,
    local: SocketAddr,
}

impl CrowdSocket {
    /// Binds `local`, with buffers of `buffer` bytes or as many as the kernel grants. With an
    /// unspecified address it receives for all addresses of the machine.
    ///
    /// # Errors
    /// If the kernel refuses the address or an option.
    pub fn open(local: SocketAddr, buffer: usize) -> io::Result<Self> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(local), kind, Some(Protocol::UDP))?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
            // Without it the kernel refuses sources that are local by a route only.
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1)?;
        } else {
            // With DF the kernel draws no identification for each packet, a tenth of what a send
            // costs.
            let (level, name) = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
            set_option(&socket, level, name, libc::IP_PMTUDISC_PROBE)?;
        }
        let bytes = c_int::try_from(buffer).unwrap_or(c_int::MAX);
        for (forced, asked) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            set_option(&socket, libc::SOL_SOCKET, forced, bytes)
                .or_else(|_| set_option(&socket, libc::SOL_SOCKET, asked, bytes))?;
        }
        set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
        socket.bind(&local.into())?;
        let local = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { socket, local })
    }

    /// Sends to `server` what names no destination, and receives from it alone.
    ///
    /// # Errors
    /// If there is no route.
    pub fn connect(&self, server: SocketAddr) -> io::Result<()> {
        self.socket.connect(&server.into())
    }

    /// The address it is bound to.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The address it speaks from, once connected.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn connected_addr(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?.as_socket();
        address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Bytes of receive buffer granted.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        // The kernel reports twice what was asked for: half is for its own bookkeeping.
        Ok(self.socket.recv_buffer_size()? / 2)
    }
}

impl AsFd for CrowdSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for CrowdSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrowdSocket")
            .field("fd", &self.socket.as_raw_fd())
            .finish_non_exhaustive()
    }
}

/// A distance between slots that spreads their beginnings over all sets of a cache.
const fn stride(size: usize) -> usize {
    const LINE: usize = 64;
    let lines = size.div_ceil(LINE);
    if lines.is_multiple_of(2) {
        (lines + 1) * LINE
    } else {
        lines * LINE
    }
}

#[cfg(test)]
mod tests;
