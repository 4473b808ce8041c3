//! What leaves through a crowd's socket, each datagram from the address that its message names.

use std::fmt;
use std::io;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_int, c_uint, cmsghdr, in_pktinfo, in6_pktinfo, iovec, mmsghdr};

use super::super::abi::{Fixed, SocketName, outcome};
use super::super::receive::{CALL_MAX, empty_header};
use super::{CrowdSocket, RUN_MAX, stride};

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
    pub fn vacant(&mut self) -> Option<&mut [u8]> {
        let start = self.len * self.stride;
        if self.is_full() {
            return None;
        }
        self.memory.get_mut(start..start + self.stride)
    }

    /// Adds the first `length` bytes of the [`vacant`](Self::vacant) memory: from `source`, or the
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
