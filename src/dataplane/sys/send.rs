//! Sends many datagrams with one system call, from where they were received.
//!
//! A refused datagram costs itself alone: it is dropped and counted by kind, and the rest go on.
//! Nothing is queued; what the socket has no room for is dropped, as a router would.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_uint, iovec, mmsghdr};
use socket2::{MsgHdr, SockAddr};

use super::abi::{ControlRoom, Fixed, INT_MESSAGE, SocketName, int_message, outcome};
use super::receive::{CALL_MAX, RecvBatch, empty_header};
use super::udp::{Ecn, UdpSocket, set_option};

const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// Calls repeated because of an error that does not concern the datagram at hand.
const RETRIES_MAX: usize = 16;

/// Datagrams that were not sent, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// The socket's send buffer was full.
    pub would_block: u64,
    /// Too long for a datagram, or for the link with DF set.
    pub too_large: u64,
    /// No route, or the network or host is down.
    pub unreachable: u64,
    /// A firewall or the kernel's policy said no.
    pub denied: u64,
    /// The kernel was out of buffers.
    pub no_buffers: u64,
    /// The batch was full.
    pub batch_full: u64,
    /// Anything else, such as an address of the other family.
    pub other: u64,
}

impl Refused {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.would_block
            + self.too_large
            + self.unreachable
            + self.denied
            + self.no_buffers
            + self.batch_full
            + self.other
    }

    const fn count(&mut self, error: i32) {
        let kind = match error {
            libc::EMSGSIZE => &mut self.too_large,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
                &mut self.unreachable
            }
            libc::EPERM | libc::EACCES => &mut self.denied,
            libc::ENOBUFS | libc::ENOMEM => &mut self.no_buffers,
            _ => &mut self.other,
        };
        *kind += 1;
    }
}

/// What became of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Datagrams the kernel took.
    pub packets: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
    /// Those it did not take.
    pub refused: Refused,
}

/// One datagram to be: bytes at `range` of a slot, resolved when the batch is flushed.
#[derive(Clone, Default)]
struct Entry {
    slot: usize,
    range: Range<usize>,
    ecn: Ecn,
}

/// Datagrams on their way out through one socket.
pub struct SendBatch {
    entries: Box<[Entry]>,
    names: Fixed<SocketName>,
    controls: Fixed<ControlRoom>,
    iovecs: Fixed<iovec>,
    /// Their `iovecs` point at bytes only between the start and the end of a flush.
    headers: Fixed<mmsghdr>,
    len: usize,
    overflow: u64,
}

// SAFETY: the pointers inside lead only to memory that the batch owns, and move with it; those of
// the iovecs are written anew before each use.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Room for `capacity` datagrams (1 to 1024).
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, CALL_MAX);
        let names = Fixed::new(vec![SocketName::EMPTY; capacity]);
        let controls = Fixed::new(vec![ControlRoom::EMPTY; capacity]);
        let nowhere = iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        let iovecs = Fixed::new(vec![nowhere; capacity]);
        let headers = Fixed::new(
            (0..capacity)
                .map(|index| {
                    let mut header = empty_header();
                    header.msg_hdr.msg_name = names.pointer(index).cast();
                    header.msg_hdr.msg_iov = iovecs.pointer(index);
                    header.msg_hdr.msg_iovlen = 1;
                    header.msg_hdr.msg_control = controls.pointer(index).cast();
                    header
                })
                .collect(),
        );
        Self {
            entries: vec![Entry::default(); capacity].into_boxed_slice(),
            names,
            controls,
            iovecs,
            headers,
            len: 0,
            overflow: 0,
        }
    }

    /// Datagrams waiting for the flush.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether a flush would send nothing.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it must be flushed before the next push.
    pub const fn is_full(&self) -> bool {
        self.len == self.entries.len()
    }

    /// Adds the bytes at `range` of the whole slot `slot`, headroom counted. They must stay as they
    /// are until the flush. A full batch drops the datagram, and the next flush counts it.
    pub fn push(&mut self, slot: usize, range: Range<usize>, to: SocketAddr, ecn: Ecn) {
        let Some(entry) = self.entries.get_mut(self.len) else {
            self.overflow += 1;
            return;
        };
        *entry = Entry { slot, range, ecn };
        self.headers[self.len].msg_hdr.msg_namelen = self.names[self.len].set(to);
        self.len += 1;
    }

    /// Sends what was pushed, in order, and empties the batch.
    pub fn flush(&mut self, from: &RecvBatch, socket: &UdpSocket) -> Sent {
        let mut sent = Sent::default();
        sent.refused.batch_full = self.overflow;
        self.resolve(from, socket);
        let mut next = 0;
        let mut retries = 0;
        while next < self.len {
            let error = match self.call(next, socket) {
                Ok(taken) if taken > 0 => {
                    for header in &self.headers[next..next + taken] {
                        sent.packets += 1;
                        sent.bytes += u64::from(header.msg_len);
                    }
                    next += taken;
                    continue;
                }
                Ok(_) => 0,
                Err(error) => error.raw_os_error().unwrap_or(0),
            };
            match error {
                libc::EAGAIN => {
                    sent.refused.would_block += count(self.len - next);
                    break;
                }
                // An ICMP error left on the socket says nothing about this datagram.
                libc::EINTR | libc::ECONNREFUSED if retries < RETRIES_MAX => retries += 1,
                error => {
                    sent.refused.count(error);
                    next += 1;
                }
            }
        }
        self.len = 0;
        self.overflow = 0;
        sent
    }

    /// Points the iovecs at the bytes.
    fn resolve(&mut self, from: &RecvBatch, socket: &UdpSocket) {
        for (index, entry) in self.entries[..self.len].iter().enumerate() {
            let header = &mut self.headers[index].msg_hdr;
            let bytes = from.bytes(entry.slot, entry.range.clone());
            if bytes.is_none() {
                // Without an address the kernel refuses it, and it is counted in its turn.
                header.msg_namelen = 0;
            }
            let bytes = bytes.unwrap_or_default();
            self.iovecs[index] = iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            header.msg_controllen = if entry.ecn == Ecn::NotEct {
                0
            } else {
                let message = traffic_class_message(socket, entry.ecn);
                self.controls[index].0[..INT_MESSAGE].copy_from_slice(&message);
                INT_MESSAGE
            };
        }
    }

    /// Hands datagrams `next..len` to the kernel; says how many it took.
    fn call(&mut self, next: usize, socket: &UdpSocket) -> io::Result<usize> {
        let count = c_uint::try_from(self.len - next).unwrap_or(c_uint::MAX);
        // SAFETY: `next + count` is at most the length of `headers`; what they point at lives in
        // `self` or in the `RecvBatch` that `flush` borrows, and the kernel only reads the latter.
        let returned = unsafe {
            libc::sendmmsg(
                socket.socket.as_raw_fd(),
                self.headers.pointer(next),
                count,
                FLAGS,
            )
        };
        outcome(returned)
    }
}

impl fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch")
            .field("capacity", &self.entries.len())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Sends one datagram without blocking.
///
/// # Errors
/// If the kernel does not take it; `WouldBlock` if the send buffer is full.
pub fn send_to(socket: &UdpSocket, bytes: &[u8], to: SocketAddr, ecn: Ecn) -> io::Result<usize> {
    if ecn == Ecn::NotEct {
        send_message(socket, bytes, to, &[])
    } else {
        send_message(socket, bytes, to, &traffic_class_message(socket, ecn))
    }
}

/// Sends one datagram that no router may fragment; `EMSGSIZE` if the link cannot carry it whole.
///
/// The IPv4 option belongs to the socket: a datagram that another thread sends through the same
/// socket meanwhile may carry DF too.
///
/// # Errors
/// As [`send_to`].
pub fn send_to_dont_fragment(
    socket: &UdpSocket,
    bytes: &[u8],
    to: SocketAddr,
    ecn: Ecn,
) -> io::Result<usize> {
    if socket.local_addr().is_ipv6() {
        let mut control = [0; 2 * INT_MESSAGE];
        let (class, dont_fragment) = control.split_at_mut(INT_MESSAGE);
        class.copy_from_slice(&traffic_class_message(socket, ecn));
        let message = int_message(libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1);
        dont_fragment.copy_from_slice(&message);
        return send_message(socket, bytes, to, &control);
    }
    let discover = |mode| {
        let (level, name) = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
        set_option(&socket.socket, level, name, mode)
    };
    // PROBE sets DF and, unlike DO, does not let forged ICMP shrink what may be sent.
    discover(libc::IP_PMTUDISC_PROBE)?;
    let sent = send_to(socket, bytes, to, ecn);
    discover(libc::IP_PMTUDISC_DONT)?;
    sent
}

fn send_message(
    socket: &UdpSocket,
    bytes: &[u8],
    to: SocketAddr,
    control: &[u8],
) -> io::Result<usize> {
    let to = SockAddr::from(to);
    let buffers = [IoSlice::new(bytes)];
    let message = MsgHdr::new()
        .with_addr(&to)
        .with_buffers(&buffers)
        .with_control(control);
    let mut retries = 0;
    loop {
        let sent = socket.socket.sendmsg(&message, FLAGS);
        match sent.as_ref().map_err(io::Error::raw_os_error) {
            Err(Some(libc::EINTR | libc::ECONNREFUSED)) if retries < RETRIES_MAX => retries += 1,
            _ => return sent,
        }
    }
}

/// The control message that gives one packet its ECN bits beside the configured DSCP.
fn traffic_class_message(socket: &UdpSocket, ecn: Ecn) -> [u8; INT_MESSAGE] {
    let (level, kind) = if socket.local_addr().is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_TOS)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
    };
    int_message(level, kind, socket.traffic_class(ecn))
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
