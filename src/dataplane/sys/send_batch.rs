//! Sends many datagrams with one system call, from where they were received.
//!
//! Datagrams of one length for one destination leave as one send (`UDP_SEGMENT`, udp(7)): the
//! kernel takes the run through its layers once and cuts it as late as it can. A run is made of
//! what one batch holds for a destination, in order; the last of it may be shorter and closes it.
//! Nothing is held back to make a run longer.
//!
//! A refused datagram costs itself alone: it is dropped and counted by kind, and the rest go on.
//! Where a run is refused, its datagrams leave one by one; where the interface cannot cut at all, no
//! runs are made for a while. Nothing is queued; what the socket has no room for is dropped, as a router
//! would.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_int, c_uint, iovec, mmsghdr};

use super::abi::{ControlRoom, Fixed, INT_MESSAGE, SocketName, outcome, short_message};
use super::receive::{CALL_MAX, RecvBatch, empty_header};
use super::send::{FLAGS, RETRIES_MAX, Sent, send_to, traffic_class_message};
use super::udp::{Ecn, UdpSocket};

/// The kernel cuts a run into at most so many (`UDP_MAX_SEGMENTS` before Linux 6.9).
const SEGMENTS_MAX: u16 = 64;
/// The longest datagram that is made part of a run: what a link with an MTU of 1,500 bytes carries
/// over IPv6. The kernel refuses runs whose segments do not fit the link.
const SEGMENT_MAX: usize = 1_452;
/// All of a run is at most one IP packet before it is cut.
const RUN_MAX: [usize; 2] = [65_507, 65_487];
/// Flushes without runs after the interface refused one.
const PAUSE: u32 = 4_096;
/// Bytes of one batch that lie in no slot: heads and whole answers.
const ASIDE: usize = 32 * 1_024;
/// The longest head of a packet.
const HEAD_MAX: usize = 1_024;
/// A datagram has at most a head, a payload and padding.
const PIECES: usize = 3;
/// Destinations of which the batch remembers the message.
const RECENT: usize = 64;
const ZEROS: [u8; 4] = [0; 4];

/// A datagram in the making: a head that lies elsewhere, bytes of a slot, zeros.
#[derive(Debug, Clone, Default)]
pub struct Packet<'a> {
    /// What stands in front; it is copied, and at most 1,024 bytes.
    pub head: &'a [u8],
    /// The slot that holds the payload.
    pub slot: usize,
    /// Where in the whole slot, headroom counted. It must stay as it is until the flush.
    pub range: Range<usize>,
    /// Zero bytes behind it, at most 4.
    pub padding: usize,
}

/// Where the bytes of a piece lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Slots,
    Aside,
    Zeros,
}

/// A part of a message.
#[derive(Clone, Copy)]
struct Piece {
    origin: Origin,
    next: u16,
    start: usize,
    len: usize,
}

/// No piece, or no message.
const NONE: u16 = u16::MAX;

/// One send: a datagram, or a run of them for the same destination.
#[derive(Clone)]
struct Message<V> {
    via: V,
    ecn: Ecn,
    /// Whether another datagram may join.
    open: bool,
    segments: u16,
    first: u16,
    last: u16,
    /// The length of each datagram but the last.
    segment: usize,
    total: usize,
}

/// Datagrams on their way out; `V` says by which socket.
pub struct SendBatch<V> {
    messages: Vec<Message<V>>,
    pieces: Vec<Piece>,
    aside: Vec<u8>,
    scratch: Vec<u8>,
    /// The last message for a destination, by a hash of its address.
    recent: [u16; RECENT],
    names: Fixed<SocketName>,
    controls: Fixed<ControlRoom>,
    iovecs: Fixed<iovec>,
    /// Their `iovecs` point at bytes only between the start and the end of a flush.
    headers: Fixed<mmsghdr>,
    overflow: u64,
    pause: u32,
}

// SAFETY: the pointers inside lead only to memory that the batch owns, and move with it; those of
// the iovecs are written anew before each use.
unsafe impl<V: Send> Send for SendBatch<V> {}

impl<V: Copy + PartialEq> SendBatch<V> {
    /// Room for `capacity` messages (1 to 1024), each a datagram or a run.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, CALL_MAX);
        let pieces = capacity * PIECES + usize::from(SEGMENTS_MAX) * PIECES;
        let names = Fixed::new(vec![SocketName::EMPTY; capacity]);
        let controls = Fixed::new(vec![ControlRoom::EMPTY; capacity]);
        let nowhere = iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        let headers = (0..capacity)
            .map(|index| {
                let mut header = empty_header();
                header.msg_hdr.msg_name = names.pointer(index).cast();
                header.msg_hdr.msg_control = controls.pointer(index).cast();
                header
            })
            .collect();
        Self {
            messages: Vec::with_capacity(capacity),
            pieces: Vec::with_capacity(pieces),
            aside: Vec::with_capacity(ASIDE),
            scratch: Vec::with_capacity(RUN_MAX[0]),
            recent: [NONE; RECENT],
            names,
            controls,
            iovecs: Fixed::new(vec![nowhere; pieces]),
            headers: Fixed::new(headers),
            overflow: 0,
            pause: 0,
        }
    }

    /// Messages waiting for the flush.
    pub const fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether a flush would send nothing.
    pub const fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether datagrams leave one by one for a while, because the interface cannot cut runs.
    pub const fn has_given_up_runs(&self) -> bool {
        self.pause > 0
    }

    /// Whether it must be flushed before the next push.
    pub const fn is_full(&self) -> bool {
        self.messages.len() == self.messages.capacity()
            || self.pieces.len() + PIECES > self.pieces.capacity()
            || self.aside.len() + HEAD_MAX > ASIDE
    }

    /// Adds a datagram. A full batch drops it, and so does a range outside the slot; the next
    /// flush counts it.
    pub fn push(
        &mut self,
        from: &RecvBatch,
        packet: &Packet<'_>,
        via: V,
        to: SocketAddr,
        ecn: Ecn,
    ) {
        let place = from.place(packet.slot, &packet.range);
        let (Some((start, len)), false) = (place, self.is_full()) else {
            self.overflow += 1;
            return;
        };
        if packet.head.len() > HEAD_MAX || packet.padding > ZEROS.len() {
            self.overflow += 1;
            return;
        }
        let total = packet.head.len() + len + packet.padding;
        let message = self.message(via, to, ecn, total);
        if !packet.head.is_empty() {
            let at = self.aside.len();
            self.aside.extend_from_slice(packet.head);
            self.add(message, Origin::Aside, at, packet.head.len());
        }
        if len > 0 {
            self.add(message, Origin::Slots, start, len);
        }
        if packet.padding > 0 {
            self.add(message, Origin::Zeros, 0, packet.padding);
        }
    }

    /// The message that takes a datagram of `len` bytes: the last one for this destination if the
    /// datagram continues its run, else a new one.
    fn message(&mut self, via: V, to: SocketAddr, ecn: Ecn, len: usize) -> usize {
        let mut name = SocketName::EMPTY;
        let name_len = name.set(to);
        let bucket = usize::from(to.port()) % RECENT;
        let index = usize::from(self.recent[bucket]);
        if let Some(message) = self.messages.get_mut(index)
            && message.open
            && (1..=message.segment).contains(&len)
            && message.via == via
            && message.ecn == ecn
            && message.segments < SEGMENTS_MAX
            && message.total + len <= RUN_MAX[usize::from(to.is_ipv6())]
            && self.names[index] == name
        {
            message.segments += 1;
            message.total += len;
            message.open = len == message.segment;
            return index;
        }
        let index = self.messages.len();
        self.recent[bucket] = u16::try_from(index).unwrap_or(NONE);
        self.names[index] = name;
        self.headers[index].msg_hdr.msg_namelen = name_len;
        self.messages.push(Message {
            via,
            ecn,
            open: self.pause == 0 && (1..=SEGMENT_MAX).contains(&len),
            segments: 1,
            first: NONE,
            last: NONE,
            segment: len,
            total: len,
        });
        index
    }

    fn add(&mut self, message: usize, origin: Origin, start: usize, len: usize) {
        let message = &mut self.messages[message];
        if let Some(last) = self.pieces.get_mut(usize::from(message.last))
            && last.origin == origin
            && last.start + last.len == start
        {
            last.len += len;
            return;
        }
        let index = u16::try_from(self.pieces.len()).unwrap_or(NONE);
        self.pieces.push(Piece {
            origin,
            next: NONE,
            start,
            len,
        });
        match self.pieces.get_mut(usize::from(message.last)) {
            Some(last) => last.next = index,
            None => message.first = index,
        }
        message.last = index;
    }

    /// Sends what was pushed and empties the batch. What goes to one destination goes in the order
    /// in which it was pushed.
    pub fn flush<'s>(
        &mut self,
        from: &RecvBatch,
        socket: impl Fn(V) -> Option<&'s UdpSocket>,
    ) -> Sent {
        let mut sent = Sent::default();
        sent.refused.batch_full = self.overflow;
        self.resolve(from);
        let mut next = 0;
        while let Some(via) = self.messages.get(next).map(|message| message.via) {
            let same = self.messages[next..].iter().take_while(|m| m.via == via);
            let group = next..next + same.count();
            next = group.end;
            match socket(via) {
                Some(socket) => self.send(group, from, socket, &mut sent),
                None => {
                    let gone = self.messages[group].iter();
                    sent.refused.other += gone.map(|m| u64::from(m.segments)).sum::<u64>();
                }
            }
        }
        self.messages.clear();
        self.pieces.clear();
        self.aside.clear();
        self.recent = [NONE; RECENT];
        self.overflow = 0;
        self.pause = self.pause.saturating_sub(1);
        sent
    }

    /// Points the iovecs at the bytes.
    fn resolve(&mut self, from: &RecvBatch) {
        let mut next = 0;
        for (index, message) in self.messages.iter().enumerate() {
            let begin = next;
            let mut piece = message.first;
            while let Some(part) = self.pieces.get(usize::from(piece)) {
                let bytes = bytes(part, from, &self.aside);
                self.iovecs[next] = iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                };
                next += 1;
                piece = part.next;
            }
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = if next == begin {
                ptr::null_mut()
            } else {
                self.iovecs.pointer(begin)
            };
            header.msg_iovlen = next - begin;
        }
    }

    /// Sends messages that leave by one socket.
    fn send(&mut self, group: Range<usize>, from: &RecvBatch, socket: &UdpSocket, sent: &mut Sent) {
        for index in group.clone() {
            self.control(index, socket);
        }
        let mut next = group.start;
        let mut retries = 0;
        let mut doubted = None;
        while next < group.end {
            let error = match self.call(next..group.end, socket) {
                Ok(taken) if taken > 0 => {
                    sent.calls += 1;
                    for index in next..next + taken {
                        let segments = u64::from(self.messages[index].segments);
                        sent.packets += segments;
                        if segments > 1 {
                            sent.runs += 1;
                            sent.in_runs += segments;
                        }
                        sent.bytes += u64::from(self.headers[index].msg_len);
                    }
                    next += taken;
                    continue;
                }
                Ok(_) => 0,
                Err(error) => error.raw_os_error().unwrap_or(0),
            };
            let segments = u64::from(self.messages[next].segments);
            match error {
                libc::EAGAIN => {
                    let rest = self.messages[next..group.end].iter();
                    sent.refused.would_block += rest.map(|m| u64::from(m.segments)).sum::<u64>();
                    return;
                }
                // An ICMP error left on the socket says nothing about this datagram.
                libc::EINTR | libc::ECONNREFUSED if retries < RETRIES_MAX => retries += 1,
                // One that is reported looks like a refusal of this datagram, once.
                _ if socket.reports_errors && doubted != Some(next) => doubted = Some(next),
                libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP if segments > 1 => {
                    // Without checksum offload on the way out the kernel cuts for nobody. The other
                    // errors are this destination's, whose path may have a smaller MTU: what one
                    // client can provoke costs that client alone.
                    if matches!(error, libc::EIO | libc::EOPNOTSUPP) {
                        self.pause = PAUSE;
                    }
                    self.send_one_by_one(next, from, socket, sent);
                    next += 1;
                }
                error => {
                    sent.refused.count(error, segments);
                    next += 1;
                }
            }
        }
    }

    /// Writes the control messages of message `index`.
    fn control(&mut self, index: usize, socket: &UdpSocket) {
        let message = &self.messages[index];
        let room = &mut self.controls[index].0;
        let mut len = 0;
        if message.segments > 1 {
            let segment = u16::try_from(message.segment).unwrap_or(u16::MAX);
            let control = short_message(libc::SOL_UDP, libc::UDP_SEGMENT, segment);
            room[..INT_MESSAGE].copy_from_slice(&control);
            len += INT_MESSAGE;
        }
        if message.ecn != Ecn::NotEct {
            let control = traffic_class_message(socket, message.ecn);
            room[len..len + INT_MESSAGE].copy_from_slice(&control);
            len += INT_MESSAGE;
        }
        self.headers[index].msg_hdr.msg_controllen = len;
    }

    /// Sends the datagrams of a run that was refused as a whole.
    fn send_one_by_one(
        &mut self,
        index: usize,
        from: &RecvBatch,
        socket: &UdpSocket,
        sent: &mut Sent,
    ) {
        let message = &self.messages[index];
        self.scratch.clear();
        let mut piece = message.first;
        while let Some(part) = self.pieces.get(usize::from(piece)) {
            self.scratch
                .extend_from_slice(bytes(part, from, &self.aside));
            piece = part.next;
        }
        let name_len = self.headers[index].msg_hdr.msg_namelen;
        let Some(to) = self.names[index].address(name_len) else {
            return;
        };
        for datagram in self.scratch.chunks(message.segment.max(1)) {
            match send_to(socket, datagram, to, message.ecn) {
                Ok(len) => {
                    sent.calls += 1;
                    sent.packets += 1;
                    sent.bytes += u64::try_from(len).unwrap_or(0);
                }
                Err(error) => sent.refused.count(error.raw_os_error().unwrap_or(0), 1),
            }
        }
    }

    /// Hands messages to the kernel; says how many it took.
    fn call(&mut self, range: Range<usize>, socket: &UdpSocket) -> io::Result<usize> {
        let count = c_uint::try_from(range.len()).unwrap_or(c_uint::MAX);
        // SAFETY: `range` lies within `headers`; what they point at lives in `self` or in the
        // `RecvBatch` that `flush` borrows, and the kernel only reads the latter.
        let returned: c_int = unsafe {
            libc::sendmmsg(
                socket.socket.as_raw_fd(),
                self.headers.pointer(range.start),
                count,
                FLAGS,
            )
        };
        outcome(returned)
    }
}

fn bytes<'b>(piece: &Piece, from: &'b RecvBatch, aside: &'b [u8]) -> &'b [u8] {
    match piece.origin {
        Origin::Slots => from.memory(piece.start, piece.len),
        Origin::Aside => aside
            .get(piece.start..piece.start + piece.len)
            .unwrap_or_default(),
        Origin::Zeros => ZEROS.get(..piece.len).unwrap_or_default(),
    }
}

impl<V> fmt::Debug for SendBatch<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch")
            .field("capacity", &self.messages.capacity())
            .field("len", &self.messages.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
