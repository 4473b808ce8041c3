//! UDP sockets and the options that decide what our packets look like on the wire.
//!
//! IPv4 and IPv6 have a socket each; an IPv6 socket never carries IPv4.

use std::fmt;
use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libc::c_int;
use socket2::{Domain, Protocol, Socket, Type};

/// TTL and hop limit of every packet we send, whatever it had when it came in.
const HOP_LIMIT: u32 = 64;
/// No DF, and no path MTU kept: a relayed packet is fragmented on its way, as RFC 8656 §15 has it
/// without DONT-FRAGMENT. `IP_PMTUDISC_DONT` would do so too, but keep back an ICMP error that says
/// that a datagram with DF was too long.
pub(super) const MAY_BE_FRAGMENTED: c_int = libc::IP_PMTUDISC_OMIT;
/// The largest value of the six DSCP bits.
const DSCP_MAX: u8 = 0x3f;

/// What `SO_MEMINFO` tells, each 32 bits (`linux/sock_diag.h`).
const MEMINFO_VALUES: usize = 9;
const MEMINFO_LENGTH: libc::socklen_t = 36;
/// `SK_MEMINFO_DROPS`
const MEMINFO_DROPS: usize = 8;

/// The explicit congestion notification bits of an IP header (RFC 3168 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ecn {
    /// The sender does not speak ECN.
    #[default]
    NotEct,
    /// ECN-capable, codepoint 01.
    Ect1,
    /// ECN-capable, codepoint 10.
    Ect0,
    /// Congestion experienced.
    Ce,
}

impl Ecn {
    /// The two bits as the header carries them.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }

    /// The low two bits of a type of service or traffic class; the DSCP above them is ignored.
    pub const fn from_bits(traffic_class: u8) -> Self {
        match traffic_class & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// What configuration says about sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// Bytes of receive buffer to ask for; the kernel may grant less.
    pub receive_buffer: usize,
    /// The DSCP of every packet sent, 0 to 63.
    pub dscp: u8,
}

/// A bound, non-blocking UDP socket.
pub struct UdpSocket {
    pub(super) socket: Socket,
    local_addr: SocketAddr,
    dscp: u8,
    merges: bool,
    /// Whether ICMP errors are in its error queue, and fail a send that they have nothing to do
    /// with.
    pub(super) reports_errors: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    /// Other sockets of this user may bind it too; the kernel spreads datagrams over them.
    Shared,
    Exclusive,
}

impl UdpSocket {
    /// Binds a socket for clients; several may share `addr`, one for each worker.
    ///
    /// # Errors
    /// If the kernel refuses the address or an option, or the DSCP has more than six bits.
    pub fn listener(addr: SocketAddr, options: &SocketOptions) -> io::Result<Self> {
        Self::open(addr, options, Port::Shared)
    }

    /// Binds a socket for a relayed transport address, which nobody else can bind meanwhile.
    ///
    /// # Errors
    /// As [`listener`](Self::listener); `AddrInUse` if the port is taken by anyone.
    pub fn relay(addr: SocketAddr, options: &SocketOptions) -> io::Result<Self> {
        Self::open(addr, options, Port::Exclusive)
    }

    fn open(addr: SocketAddr, options: &SocketOptions, port: Port) -> io::Result<Self> {
        if options.dscp > DSCP_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let socket = Socket::new(
            Domain::for_address(addr),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        let traffic_class = u32::from(options.dscp) << 2;
        if addr.is_ipv4() {
            socket.set_ttl_v4(HOP_LIMIT)?;
            socket.set_tos_v4(traffic_class)?;
            socket.set_recv_tos_v4(true)?;
            let (level, name) = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
            set_option(&socket, level, name, MAY_BE_FRAGMENTED)?;
        } else {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(HOP_LIMIT)?;
            socket.set_tclass_v6(traffic_class)?;
            socket.set_recv_tclass_v6(true)?;
            let level = libc::IPPROTO_IPV6;
            set_option(
                &socket,
                level,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_DONT,
            )?;
            // RFC 6437 §3 permits 0; a label of the kernel's would tell flows apart.
            set_option(&socket, level, libc::IPV6_AUTOFLOWLABEL, 0)?;
        }
        set_receive_buffer(&socket, options.receive_buffer)?;
        // Datagrams of one flow that came in one after the other are handed over in one piece
        // (udp(7), Linux 5.0). A kernel that cannot merge hands them over one by one.
        let merges = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        if !merges {
            tracing::debug!("this kernel does not merge UDP datagrams on receipt");
        }
        if port == Port::Shared {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        let local_addr = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self {
            socket,
            local_addr,
            dscp: options.dscp,
            merges,
            reports_errors: false,
        })
    }

    /// Marks what it sends with this DSCP from now on. A socket that shares it has its own mark, which
    /// goes with each packet.
    pub fn mark(&mut self, dscp: u8) {
        let traffic_class = u32::from(dscp) << 2;
        let marked = if self.local_addr.is_ipv4() {
            self.socket.set_tos_v4(traffic_class)
        } else {
            self.socket.set_tclass_v6(traffic_class)
        };
        match marked {
            Ok(()) => self.dscp = dscp,
            Err(error) => tracing::warn!(%error, "a socket keeps its DSCP"),
        }
    }

    /// The same socket once more, for another thread to send by.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            local_addr: self.local_addr,
            dscp: self.dscp,
            merges: self.merges,
            reports_errors: self.reports_errors,
        })
    }

    /// Has the kernel keep ICMP errors about what this socket sends, for
    /// [`receive_errors`](super::receive_errors). A wait finds the socket failed until they are
    /// taken.
    ///
    /// # Errors
    /// If the kernel refuses the option.
    pub fn report_errors(&mut self) -> io::Result<()> {
        let (level, name) = if self.local_addr.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_RECVERR)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        };
        set_option(&self.socket, level, name, 1)?;
        self.reports_errors = true;
        Ok(())
    }

    /// The address it is bound to, with the port the kernel chose if 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Whether the kernel hands over datagrams of one flow in one piece.
    pub const fn merges(&self) -> bool {
        self.merges
    }

    /// How many datagrams found the receive queue full since the socket was made (`SO_MEMINFO`,
    /// Linux 4.12). The count begins anew after 2^32.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn queue_drops(&self) -> io::Result<u32> {
        let mut memory = [0_u32; MEMINFO_VALUES];
        let mut length = MEMINFO_LENGTH;
        // SAFETY: the kernel writes at most `length` bytes to `memory`, which has as many.
        let returned = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                (&raw mut memory).cast(),
                &raw mut length,
            )
        };
        super::abi::outcome(returned)?;
        if length < MEMINFO_LENGTH {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(memory[MEMINFO_DROPS])
    }

    /// Bytes of receive buffer granted, in the unit of [`SocketOptions::receive_buffer`].
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        // The kernel reports twice what was asked for: half is for its own bookkeeping.
        Ok(self.socket.recv_buffer_size()? / 2)
    }

    /// The same of what waits to be sent.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn send_buffer(&self) -> io::Result<usize> {
        Ok(self.socket.send_buffer_size()? / 2)
    }

    /// Type of service or traffic class of a packet with these ECN bits.
    pub(super) fn traffic_class(&self, ecn: Ecn) -> c_int {
        c_int::from(self.dscp << 2 | ecn.bits())
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("fd", &self.socket.as_raw_fd())
            .finish_non_exhaustive()
    }
}

/// `SO_RCVBUFFORCE` passes `net.core.rmem_max` but needs `CAP_NET_ADMIN`; without it the kernel
/// grants up to that limit.
fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, value))
}

/// Sets an option that takes an `int`.
pub(super) fn set_option(
    socket: &Socket,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    const LENGTH: libc::socklen_t = 4;
    const _: () = assert!(size_of::<c_int>() == 4);
    // SAFETY: the kernel reads `LENGTH` bytes of `value`, which lives through the call.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            LENGTH,
        )
    };
    super::abi::outcome(returned).map(|_| ())
}

#[cfg(test)]
mod tests;
