//! A UDP socket that speaks for many local addresses, for the load generator: a batch of datagrams
//! leaves by one system call though each comes from another client.
//!
//! The source of each datagram is chosen by `IP_PKTINFO` or `IPV6_PKTINFO`, runs of equal
//! datagrams leave as one (`UDP_SEGMENT`), and what the kernel merged on the way in (`UDP_GRO`) is
//! taken apart. Where a datagram came from and which address it reached is not asked for: that is
//! read from the datagram itself, and costs nothing here.

use std::fmt;
use std::io;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_uint, cmsghdr, in_pktinfo, in6_pktinfo, iovec, mmsghdr};
use socket2::{Domain, Protocol, Socket, Type};

use super::abi::{ControlRoom, Fixed, SocketName, control_messages, outcome};
use super::receive::{CALL_MAX, empty_header};
use super::udp::set_option;

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

const _: () = {
    assert!(size_of::<in_pktinfo>() == 12 && offset_of!(in_pktinfo, ipi_spec_dst) == 4);
    assert!(size_of::<in6_pktinfo>() == 20 && offset_of!(in6_pktinfo, ipi6_addr) == 0);
    assert!(size_of::<cmsghdr>() == CMSG_HEADER);
};
const CMSG_HEADER: usize = 16;
const CMSG_ALIGN: usize = size_of::<usize>();
/// Room for an `in6_pktinfo` and a segment size.
const CONTROL_LEN: usize = 64;

/// The control messages of one datagram to be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

impl Control {
    /// Writes a source and a segment size, where given; returns how many bytes that takes.
    fn set(&mut self, source: Option<IpAddr>, segment: Option<u16>) -> usize {
        let mut len = 0;
        match source {
            Some(IpAddr::V4(ip)) => {
                let mut value = [0; 12];
                value[4..8].copy_from_slice(&ip.octets());
                len = self.put(len, libc::IPPROTO_IP, libc::IP_PKTINFO, &value);
            }
            Some(IpAddr::V6(ip)) => {
                let mut value = [0; 20];
                value[..16].copy_from_slice(&ip.octets());
                len = self.put(len, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
            }
            None => {}
        }
        if let Some(segment) = segment {
            let value = segment.to_ne_bytes();
            len = self.put(len, libc::SOL_UDP, libc::UDP_SEGMENT, &value);
        }
        len
    }

    fn put(&mut self, at: usize, level: c_int, kind: c_int, value: &[u8]) -> usize {
        let length = CMSG_HEADER + value.len();
        let room = &mut self.0[at..];
        room[..8].copy_from_slice(&length.to_ne_bytes());
        room[8..12].copy_from_slice(&level.to_ne_bytes());
        room[12..16].copy_from_slice(&kind.to_ne_bytes());
        room[CMSG_HEADER..length].copy_from_slice(value);
        at + length.next_multiple_of(CMSG_ALIGN)
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

/// What became of a batch, in datagrams: a run counts as many as it has segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Posted {
    /// The kernel took them.
    pub sent: u64,
    /// The send buffer was full.
    pub blocked: u64,
    /// The kernel refused them.
    pub refused: u64,
    /// Why it refused the last, as an `errno`.
    pub error: Option<i32>,
}

/// Datagrams on their way out, written where they leave from. What a slot holds stays there, so
/// that only what differs has to be written anew.
pub struct Outbox {
    memory: Fixed<u8>,
    stride: usize,
    names: Fixed<SocketName>,
    controls: Fixed<Control>,
    iovecs: Fixed<iovec>,
    headers: Fixed<mmsghdr>,
    /// Datagrams of each message.
    weights: Box<[u16]>,
    len: usize,
}

// SAFETY: the pointers inside lead only to memory that the outbox owns, and move with it.
unsafe impl Send for Outbox {}

impl Outbox {
    /// `slots` slots (1 to 1024) of `size` bytes, at most [`RUN_MAX`].
    pub fn new(slots: usize, size: usize) -> Self {
        let slots = slots.clamp(1, CALL_MAX);
        let stride = stride(size.clamp(1, RUN_MAX));
        let memory = Fixed::new(vec![0_u8; slots * stride]);
        let names = Fixed::new(vec![SocketName::EMPTY; slots]);
        let controls = Fixed::new(vec![Control([0; CONTROL_LEN]); slots]);
        let iovecs = Fixed::new(
            (0..slots)
                .map(|slot| iovec {
                    iov_base: memory.pointer(slot * stride).cast(),
                    iov_len: 0,
                })
                .collect(),
        );
        let headers = Fixed::new(
            (0..slots)
                .map(|slot| {
                    let mut header = empty_header();
                    header.msg_hdr.msg_iov = iovecs.pointer(slot);
                    header.msg_hdr.msg_iovlen = 1;
                    header
                })
                .collect(),
        );
        Self {
            memory,
            stride,
            names,
            controls,
            iovecs,
            headers,
            weights: vec![0; slots].into_boxed_slice(),
            len: 0,
        }
    }

    /// Whether it must be flushed before the next push.
    pub const fn is_full(&self) -> bool {
        self.len == self.weights.len()
    }

    /// Whether a flush would send nothing.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory of the next datagram or run; none if the outbox is full.
    pub fn next(&mut self) -> Option<&mut [u8]> {
        let start = self.len * self.stride;
        if self.is_full() {
            return None;
        }
        self.memory.get_mut(start..start + self.stride)
    }

    /// Adds the first `length` bytes of the [`next`](Self::next) memory: from `source`, or the
    /// socket's own address; to `to`, or where the socket is connected; as segments of that size.
    /// A full outbox adds nothing.
    pub fn push(
        &mut self,
        length: usize,
        source: Option<IpAddr>,
        to: Option<SocketAddr>,
        segment: Option<u16>,
    ) {
        if self.is_full() {
            return;
        }
        let slot = self.len;
        let length = length.min(self.stride);
        // A run of one segment leaves as a plain datagram.
        let segment = segment.filter(|&segment| segment > 0 && usize::from(segment) < length);
        self.iovecs[slot].iov_len = length;
        let weight = segment.map_or(1, |segment| length.div_ceil(usize::from(segment)));
        self.weights[slot] = u16::try_from(weight).unwrap_or(u16::MAX);
        let controls = self.controls[slot].set(source, segment);
        let name = to.map(|to| self.names[slot].set(to));
        let (name_pointer, control_pointer) =
            (self.names.pointer(slot), self.controls.pointer(slot));
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_namelen = name.unwrap_or(0);
        header.msg_name = name.map_or(ptr::null_mut(), |_| name_pointer.cast());
        header.msg_controllen = controls;
        header.msg_control = if controls == 0 {
            ptr::null_mut()
        } else {
            control_pointer.cast()
        };
        self.len += 1;
    }

    /// Sends what was pushed, in order, and empties the outbox. It never waits: what the socket
    /// has no room for is not sent.
    pub fn flush(&mut self, socket: &CrowdSocket) -> Posted {
        const RETRIES_MAX: usize = 16;
        let mut posted = Posted::default();
        let (mut next, mut retries) = (0, 0);
        while next < self.len {
            let error = match self.call(next, socket) {
                Ok(taken) if taken > 0 => {
                    posted.sent += self.weight(next, next + taken);
                    next += taken;
                    continue;
                }
                Ok(_) => 0,
                Err(error) => error.raw_os_error().unwrap_or(0),
            };
            match error {
                libc::EAGAIN | libc::ENOBUFS => {
                    posted.blocked += self.weight(next, self.len);
                    break;
                }
                // An ICMP error left on the socket says nothing about this datagram.
                libc::EINTR | libc::ECONNREFUSED if retries < RETRIES_MAX => retries += 1,
                error => {
                    posted.refused += self.weight(next, next + 1);
                    posted.error = Some(error);
                    next += 1;
                }
            }
        }
        self.len = 0;
        posted
    }

    fn weight(&self, from: usize, to: usize) -> u64 {
        self.weights[from..to].iter().copied().map(u64::from).sum()
    }

    fn call(&mut self, next: usize, socket: &CrowdSocket) -> io::Result<usize> {
        let count = c_uint::try_from(self.len - next).unwrap_or(c_uint::MAX);
        // SAFETY: `next + count` is at most the length of `headers`, and what they point at lives
        // in `self`.
        let returned = unsafe {
            libc::sendmmsg(
                socket.socket.as_raw_fd(),
                self.headers.pointer(next),
                count,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        outcome(returned)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Memory for a batch of datagrams or merged runs.
pub struct Inbox {
    memory: Fixed<u8>,
    stride: usize,
    controls: Fixed<ControlRoom>,
    /// `headers` point at it.
    _iovecs: Fixed<iovec>,
    headers: Fixed<mmsghdr>,
    received: usize,
    socket_errors: u64,
}

// SAFETY: the pointers inside lead only to memory that the inbox owns, and move with it.
unsafe impl Send for Inbox {}

impl Inbox {
    /// `slots` slots (1 to 1024), each with room for the longest run.
    pub fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, CALL_MAX);
        let stride = stride(RUN_MAX);
        let memory = Fixed::new(vec![0_u8; slots * stride]);
        let controls = Fixed::new(vec![ControlRoom::EMPTY; slots]);
        let iovecs = Fixed::new(
            (0..slots)
                .map(|slot| iovec {
                    iov_base: memory.pointer(slot * stride).cast(),
                    iov_len: RUN_MAX,
                })
                .collect(),
        );
        let headers = Fixed::new(
            (0..slots)
                .map(|slot| {
                    let mut header = empty_header();
                    header.msg_hdr.msg_iov = iovecs.pointer(slot);
                    header.msg_hdr.msg_iovlen = 1;
                    header.msg_hdr.msg_control = controls.pointer(slot).cast();
                    header.msg_hdr.msg_controllen = ControlRoom::SIZE;
                    header
                })
                .collect(),
        );
        Self {
            memory,
            stride,
            controls,
            _iovecs: iovecs,
            headers,
            received: 0,
            socket_errors: 0,
        }
    }

    /// How many runs one call can receive.
    pub fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Receives what is waiting, at most a run for each slot; returns how many, 0 when nothing is.
    ///
    /// # Errors
    /// Only if the call itself is wrong, which no packet can cause.
    pub fn receive(&mut self, socket: &CrowdSocket) -> io::Result<usize> {
        const ERRORS_MAX: usize = 8;
        for header in &mut self.headers[..self.received] {
            header.msg_hdr.msg_controllen = ControlRoom::SIZE;
        }
        self.received = 0;
        for _ in 0..ERRORS_MAX {
            match self.call(socket) {
                Ok(received) => {
                    self.received = received;
                    return Ok(received);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(0),
                    Some(libc::EINTR) => {}
                    Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL) => {
                        return Err(error);
                    }
                    // An ICMP error that a datagram of ours provoked.
                    _ => self.socket_errors += 1,
                },
            }
        }
        Ok(0)
    }

    fn call(&mut self, socket: &CrowdSocket) -> io::Result<usize> {
        let count = c_uint::try_from(self.headers.len()).unwrap_or(c_uint::MAX);
        // SAFETY: `headers` has `count` elements, and what they point at is as long as they say
        // and lives in `self`, which is borrowed mutably.
        let returned = unsafe {
            libc::recvmmsg(
                socket.socket.as_raw_fd(),
                self.headers.pointer(0),
                count,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        outcome(returned)
    }

    /// Run `index` of the last [`receive`](Self::receive), and the size of its segments if it was
    /// merged.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn run(&self, index: usize) -> (&[u8], Option<u16>) {
        let header = &self.headers[index];
        let start = index * self.stride;
        // Lossless: no run is longer than its slot.
        let len = usize::try_from(header.msg_len).unwrap_or(0);
        let run = self.memory.get(start..start + len).unwrap_or_default();
        let written = header.msg_hdr.msg_controllen;
        let control = self.controls[index].0.get(..written).unwrap_or_default();
        let segment = control_messages(control)
            .find(|message| message.level == libc::SOL_UDP && message.kind == libc::UDP_GRO)
            .and_then(|message| message.int())
            .and_then(|segment| u16::try_from(segment).ok())
            .filter(|&segment| segment > 0);
        (run, segment)
    }

    /// The datagrams of run `index`.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn datagrams(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        let (run, segment) = self.run(index);
        run.chunks(segment.map_or(RUN_MAX, usize::from))
    }

    /// Errors of sockets passed over since the inbox was made.
    pub const fn socket_errors(&self) -> u64 {
        self.socket_errors
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
