//! Receives many datagrams with one system call, into memory laid out once.
//!
//! Each datagram has room in front of it, so that a TURN header is written where it stands and the
//! packet leaves without being copied. Slot memory is never cleared: pages that no datagram has
//! reached are never touched.

use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_uint, iovec, mmsghdr};

use super::abi::{ControlRoom, Fixed, SocketName, control_messages, outcome};
use super::udp::{Ecn, UdpSocket};

/// Bytes in front of every received datagram, enough for any TURN framing.
pub const HEADROOM: usize = 64;
/// Bytes behind the longest datagram, enough for padding.
pub const TAILROOM: usize = 8;

/// The kernel takes no more messages in one call (`UIO_MAXIOV`).
pub(super) const CALL_MAX: usize = 1024;
/// Slots start at multiples of a cache line.
const CACHE_LINE: usize = 64;
/// Errors of a socket that are passed over in one call before it counts as empty.
const ERRORS_MAX: usize = 8;

/// The source of a datagram that the kernel does not name.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What the kernel says of one received datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Who sent it; port 0 if the kernel did not say.
    pub source: SocketAddr,
    /// Bytes in the slot.
    pub len: usize,
    /// Where the bytes are several datagrams of one flow that the kernel merged (`UDP_GRO`): the
    /// length of each but the last, which may be shorter. Else `len`.
    pub segment: usize,
    /// The ECN bits it arrived with.
    pub ecn: Ecn,
    /// It was longer than the slot, and its end is lost.
    pub truncated: bool,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("len", &self.len)
            .field("segment", &self.segment)
            .field("ecn", &self.ecn)
            .field("truncated", &self.truncated)
            .finish_non_exhaustive()
    }
}

/// Memory for one batch of datagrams, and for the sends that leave from it.
pub struct RecvBatch {
    /// `slots` times `stride` bytes; `iovecs` point into it.
    memory: Fixed<u8>,
    names: Fixed<SocketName>,
    controls: Fixed<ControlRoom>,
    /// `headers` point at it.
    _iovecs: Fixed<iovec>,
    headers: Fixed<mmsghdr>,
    stride: usize,
    slot_len: usize,
    received: usize,
    socket_errors: u64,
}

// SAFETY: the pointers inside lead only to memory that the batch owns, and move with it.
unsafe impl Send for RecvBatch {}

impl RecvBatch {
    /// `slots` slots (1 to 1024) for datagrams of up to `slot_size` bytes.
    pub fn new(slots: usize, slot_size: usize) -> Self {
        let slots = slots.clamp(1, CALL_MAX);
        let slot_len = HEADROOM + slot_size + TAILROOM;
        let stride = slot_len.next_multiple_of(CACHE_LINE);
        let memory = Fixed::new(vec![0_u8; slots * stride]);
        let names = Fixed::new(vec![SocketName::EMPTY; slots]);
        let controls = Fixed::new(vec![ControlRoom::EMPTY; slots]);
        let iovecs = Fixed::new(
            (0..slots)
                .map(|slot| iovec {
                    iov_base: memory.pointer(slot * stride + HEADROOM).cast(),
                    iov_len: slot_size,
                })
                .collect(),
        );
        let headers = Fixed::new(
            (0..slots)
                .map(|slot| {
                    let mut header = empty_header();
                    header.msg_hdr.msg_name = names.pointer(slot).cast();
                    header.msg_hdr.msg_namelen = SocketName::ROOM;
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
            names,
            controls,
            _iovecs: iovecs,
            headers,
            stride,
            slot_len,
            received: 0,
            socket_errors: 0,
        }
    }

    /// How many datagrams it holds at most.
    pub fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Forgets what was received.
    pub fn clear(&mut self) {
        // The kernel writes the lengths of the headers it uses, and only those.
        for header in &mut self.headers[..self.received] {
            header.msg_hdr.msg_namelen = SocketName::ROOM;
            header.msg_hdr.msg_controllen = ControlRoom::SIZE;
        }
        self.received = 0;
    }

    /// Slots that hold nothing yet.
    pub fn free(&self) -> usize {
        self.slots() - self.received
    }

    /// Receives what is waiting, at most `limit` datagrams, into slots that are free; says into
    /// which.
    ///
    /// An error that a peer can provoke (an ICMP error left on the socket) ends nothing: it is
    /// counted and passed over. The range is empty when nothing is waiting, or no slot is free.
    ///
    /// # Errors
    /// Only if the call itself is wrong, which no packet can cause.
    pub fn receive(&mut self, socket: &UdpSocket, limit: usize) -> io::Result<Range<usize>> {
        let first = self.received;
        let limit = limit.min(self.free());
        for _ in 0..ERRORS_MAX {
            match self.call(socket, first, limit) {
                Ok(received) => {
                    self.received += received;
                    return Ok(first..self.received);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(first..first),
                    Some(libc::EINTR) => {}
                    Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL) => {
                        return Err(error);
                    }
                    _ => self.socket_errors += 1,
                },
            }
        }
        Ok(first..first)
    }

    /// Has `read` put bytes into the next free slot, as if they had been received there from nobody;
    /// says into which slot, and how many. Reading nothing takes no slot.
    ///
    /// # Errors
    /// That of `read`; `OutOfMemory` when no slot is free.
    pub fn stage(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<(usize, usize)> {
        let index = self.received;
        if self.free() == 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let start = index * self.stride;
        let room = start + HEADROOM..start + self.slot_len - TAILROOM;
        let len = read(&mut self.memory[room])?.min(self.slot_len - HEADROOM - TAILROOM);
        if len > 0 {
            let header = &mut self.headers[index];
            header.msg_len = c_uint::try_from(len).unwrap_or(0);
            header.msg_hdr.msg_namelen = 0;
            header.msg_hdr.msg_controllen = 0;
            header.msg_hdr.msg_flags = 0;
            self.received += 1;
        }
        Ok((index, len))
    }

    fn call(&mut self, socket: &UdpSocket, first: usize, limit: usize) -> io::Result<usize> {
        if limit == 0 {
            return Ok(0);
        }
        let count = c_uint::try_from(limit).unwrap_or(c_uint::MAX);
        // SAFETY: `headers` has `first + count` elements at least, and what they point at is as
        // long as they say and lives in `self`, which is borrowed mutably.
        let returned = unsafe {
            libc::recvmmsg(
                socket.socket.as_raw_fd(),
                self.headers.pointer(first),
                count,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        outcome(returned)
    }

    /// What the kernel said of datagram `index` since the last [`clear`](Self::clear).
    ///
    /// # Panics
    /// If the batch has no such slot.
    pub fn datagram(&self, index: usize) -> Received {
        let header = &self.headers[index];
        let len = self.len(index);
        let told = told(self.control(index));
        Received {
            source: self.source(index),
            len,
            segment: told.segment.filter(|s| *s > 0).unwrap_or(len).min(len),
            ecn: told.ecn,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }

    /// Who sent datagram `index`; port 0 if the kernel did not say.
    ///
    /// # Panics
    /// If the batch has no such slot.
    pub fn source(&self, index: usize) -> SocketAddr {
        let length = self.headers[index].msg_hdr.msg_namelen;
        self.names[index].address(length).unwrap_or(UNKNOWN)
    }

    /// The whole slot `index`, headroom and tailroom included, and where in it the datagram is.
    ///
    /// # Panics
    /// If the batch has no such slot.
    pub fn slot(&mut self, index: usize) -> (&mut [u8], Range<usize>) {
        let datagram = HEADROOM..HEADROOM + self.len(index);
        let start = index * self.stride;
        (&mut self.memory[start..start + self.slot_len], datagram)
    }

    /// The bytes at `range` of the whole slot `index`; none if there are not that many.
    pub fn bytes(&self, index: usize, range: Range<usize>) -> Option<&[u8]> {
        let (start, len) = self.place(index, &range)?;
        self.memory.get(start..start + len)
    }

    /// Where in the batch's memory the bytes at `range` of slot `index` begin, and how many they
    /// are; none if they are not all in the slot.
    pub(super) fn place(&self, index: usize, range: &Range<usize>) -> Option<(usize, usize)> {
        let is_inside = index < self.slots() && range.end <= self.slot_len;
        let len = range.end.checked_sub(range.start)?;
        is_inside.then(|| (index * self.stride + range.start, len))
    }

    /// `len` bytes of the memory from `start` on, as [`place`](Self::place) told them.
    pub(super) fn memory(&self, start: usize, len: usize) -> &[u8] {
        self.memory.get(start..start + len).unwrap_or_default()
    }

    /// Errors of sockets passed over since the batch was made.
    pub const fn socket_errors(&self) -> u64 {
        self.socket_errors
    }

    /// The control messages of datagram `index`.
    pub(super) fn control(&self, index: usize) -> &[u8] {
        let written = self.headers[index].msg_hdr.msg_controllen;
        self.controls[index].0.get(..written).unwrap_or_default()
    }

    fn len(&self, index: usize) -> usize {
        // Lossless: a datagram has less than 2^16 bytes.
        usize::try_from(self.headers[index].msg_len).unwrap_or(0)
    }
}

impl fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBatch")
            .field("slots", &self.slots())
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// What control messages say of a datagram.
#[derive(Default)]
struct Told {
    ecn: Ecn,
    segment: Option<usize>,
}

fn told(control: &[u8]) -> Told {
    let mut told = Told::default();
    for message in control_messages(control) {
        match (message.level, message.kind) {
            // IPv4 gives one byte.
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                told.ecn = message
                    .data
                    .first()
                    .map_or(Ecn::NotEct, |&tos| Ecn::from_bits(tos));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                let class = message.int().and_then(|class| u8::try_from(class).ok());
                told.ecn = class.map_or(Ecn::NotEct, Ecn::from_bits);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                told.segment = message.int().and_then(|size| usize::try_from(size).ok());
            }
            _ => {}
        }
    }
    told
}

/// A header that points nowhere.
pub(super) fn empty_header() -> mmsghdr {
    // SAFETY: every field is an integer or a pointer, for which all zeros is a value.
    unsafe { mem::zeroed() }
}

#[cfg(test)]
mod tests;
