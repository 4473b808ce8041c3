//! What arrives at a crowd's socket, with merged runs taken apart.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_uint, iovec, mmsghdr};

use super::super::abi::{ControlRoom, Fixed, control_messages, outcome};
use super::super::receive::{CALL_MAX, empty_header};
use super::{CrowdSocket, RUN_MAX, stride};

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
