//! System calls: batches that are received and sent from where they stand, single datagrams,
//! readiness. Errors that a peer can provoke lose the datagram and nothing else.
#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg and epoll have no safe wrapper"
)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{from_ref, null_mut};

use libc::{c_int, c_uint, iovec, mmsghdr, sockaddr_in, socklen_t};

use super::control;

/// Room in front of every datagram, for a ChannelData header.
pub(crate) const ROOM: usize = 4;
/// The largest datagram without merging.
pub(crate) const DATAGRAM: usize = 2048;
/// The largest merged run.
const RUN: usize = 65_536;
/// Bytes of receive buffer asked for, as for every other server measured.
const RECEIVE_BUFFER: c_int = 4 << 20;
/// Microseconds for `SO_BUSY_POLL`.
const BUSY_POLL: c_int = 50;

/// One control message: the segment size of a merged run.
#[repr(C)]
#[derive(Clone, Copy)]
struct SegmentSize {
    header: libc::cmsghdr,
    size: c_int,
    padding: c_int,
}

/// Memory for a batch. A slot is received, aimed, and sent without moving a byte.
pub(crate) struct Slots {
    memory: Vec<u8>,
    names: Vec<sockaddr_in>,
    controls: Vec<SegmentSize>,
    iovecs: Vec<iovec>,
    headers: Vec<mmsghdr>,
    size: usize,
    gso: bool,
}

impl Slots {
    pub(crate) fn new(count: usize, gso: bool) -> Self {
        let size = if gso { RUN } else { DATAGRAM };
        let empty = iovec {
            iov_base: null_mut(),
            iov_len: 0,
        };
        let mut slots = Self {
            memory: vec![0; count * (ROOM + size)],
            names: vec![name(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)); count],
            // SAFETY: integers only, for which zero is a value.
            controls: vec![unsafe { zeroed() }; count],
            iovecs: vec![empty; count],
            // SAFETY: integers and pointers only, for which zero is a value.
            headers: (0..count).map(|_| unsafe { zeroed() }).collect(),
            size,
            gso,
        };
        slots.recycle(0, count);
        slots
    }

    pub(crate) fn len(&self) -> usize {
        self.headers.len()
    }

    /// Makes slots ready for the next receive.
    pub(crate) fn recycle(&mut self, first: usize, count: usize) {
        for slot in first..first + count {
            self.iovecs[slot] = iovec {
                iov_base: self.memory[slot * (ROOM + self.size) + ROOM..]
                    .as_mut_ptr()
                    .cast(),
                iov_len: self.size,
            };
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_iov = &raw mut self.iovecs[slot];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.names[slot]).cast();
            header.msg_namelen = NAME_LEN;
            if self.gso {
                header.msg_control = (&raw mut self.controls[slot]).cast();
                header.msg_controllen = size_of::<SegmentSize>();
            }
        }
    }

    /// Receives into at most `count` slots from `first` on; how many.
    pub(crate) fn receive(
        &mut self,
        socket: &UdpSocket,
        first: usize,
        count: usize,
        flags: c_int,
    ) -> usize {
        let headers = &mut self.headers[first..first + count];
        let length = c_uint::try_from(count).unwrap_or(c_uint::MAX);
        // SAFETY: `headers` has `length` elements that point into vectors of `self`, which never
        // grow, with the lengths that `recycle` wrote.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                length,
                flags,
                null_mut(),
            )
        };
        usize::try_from(received).unwrap_or(0)
    }

    /// Receives into `slot` with the plain call; whether there was something.
    pub(crate) fn receive_one(&mut self, socket: &UdpSocket, slot: usize) -> bool {
        let header = &mut self.headers[slot];
        // SAFETY: as in `receive`.
        let received = unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                &raw mut header.msg_hdr,
                libc::MSG_DONTWAIT,
            )
        };
        header.msg_len = c_uint::try_from(received).unwrap_or(0);
        received >= 0
    }

    /// Who sent what is in `slot`, as the key of a table.
    pub(crate) fn source(&self, slot: usize) -> u64 {
        source_key(&self.names[slot])
    }

    pub(crate) fn source_address(&self, slot: usize) -> SocketAddrV4 {
        address(&self.names[slot])
    }

    /// What was received into `slot`.
    pub(crate) fn datagram(&self, slot: usize) -> &[u8] {
        let start = slot * (ROOM + self.size) + ROOM;
        &self.memory[start..start + self.received(slot)]
    }

    fn received(&self, slot: usize) -> usize {
        usize::try_from(self.headers[slot].msg_len).unwrap_or(0)
    }

    /// What is in `slot` is to go to `target`, as it is.
    pub(crate) fn aim(&mut self, slot: usize, target: &sockaddr_in) {
        self.names[slot] = *target;
        self.iovecs[slot].iov_len = self.received(slot);
        let header = &mut self.headers[slot].msg_hdr;
        if self.gso && header.msg_controllen > 0 {
            let control = &mut self.controls[slot];
            let whole = control.size;
            control.header.cmsg_level = libc::SOL_UDP;
            control.header.cmsg_type = libc::UDP_SEGMENT;
            control.header.cmsg_len = size_of::<libc::cmsghdr>() + size_of::<u16>();
            control.size = c_int::from(u16::try_from(whole).unwrap_or(0));
        }
    }

    /// Puts another channel number into the ChannelData header in `slot`, or those of a run that
    /// was aimed.
    pub(crate) fn set_channel(&mut self, slot: usize, channel: u16) {
        let start = slot * (ROOM + self.size) + ROOM;
        let run = &mut self.memory[start..start + self.iovecs[slot].iov_len];
        let segment = match self.headers[slot].msg_hdr.msg_controllen {
            size if self.gso && size > 0 => usize::try_from(self.controls[slot].size).unwrap_or(0),
            _ => run.len(),
        };
        for segment in run.chunks_mut(segment.max(1)) {
            if let Some(number) = segment.first_chunk_mut() {
                *number = channel.to_be_bytes();
            }
        }
    }

    /// The same, without the ChannelData header in front of it.
    pub(crate) fn aim_stripped(&mut self, slot: usize, target: &sockaddr_in) {
        self.aim(slot, target);
        let bytes = &mut self.iovecs[slot];
        bytes.iov_base = bytes.iov_base.wrapping_byte_add(ROOM);
        bytes.iov_len = bytes.iov_len.saturating_sub(ROOM);
    }

    /// The same, with a ChannelData header written in front of it.
    pub(crate) fn aim_framed(&mut self, slot: usize, channel: u16, target: &sockaddr_in) {
        self.aim(slot, target);
        let start = slot * (ROOM + self.size);
        let length = u16::try_from(self.received(slot)).unwrap_or(u16::MAX);
        self.memory[start..start + 2].copy_from_slice(&channel.to_be_bytes());
        self.memory[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        let bytes = &mut self.iovecs[slot];
        bytes.iov_base = bytes.iov_base.wrapping_byte_sub(ROOM);
        bytes.iov_len += ROOM;
    }

    /// Sends what was aimed. A refused datagram costs itself, a full buffer the rest.
    pub(crate) fn send(&mut self, socket: &UdpSocket, mut first: usize, end: usize) {
        while first < end {
            let headers = &mut self.headers[first..end];
            let length = c_uint::try_from(headers.len()).unwrap_or(c_uint::MAX);
            // SAFETY: as in `receive`; the lengths are those that `aim` wrote.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    length,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => first += sent,
                Err(_) if would_block() => return,
                Err(_) => first += 1,
            }
        }
    }
}

const NAME_LEN: socklen_t = 16;
const _: () = assert!(size_of::<sockaddr_in>() == 16 && size_of::<SegmentSize>() == 24);

/// The kernel's form of `address`.
pub(crate) fn name(address: SocketAddrV4) -> sockaddr_in {
    // SAFETY: integers only, for which zero is a value.
    let mut name: sockaddr_in = unsafe { zeroed() };
    name.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(2);
    name.sin_port = address.port().to_be();
    name.sin_addr.s_addr = address.ip().to_bits().to_be();
    name
}

fn address(name: &sockaddr_in) -> SocketAddrV4 {
    let ip = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
    SocketAddrV4::new(ip, u16::from_be(name.sin_port))
}

fn source_key(name: &sockaddr_in) -> u64 {
    control::key(address(name))
}

/// One datagram from `socket`, and the table key of its source.
pub(crate) fn receive_one(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddrV4)> {
    let mut from = name(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let mut length = NAME_LEN;
    // SAFETY: the kernel writes at most the lengths given, into memory borrowed here.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            (&raw mut from).cast(),
            &raw mut length,
        )
    };
    Some((usize::try_from(received).ok()?, address(&from)))
}

/// Sends one datagram, or loses it.
pub(crate) fn send_one(socket: &UdpSocket, bytes: &[u8], target: &sockaddr_in) {
    // SAFETY: the kernel reads the lengths given, of memory borrowed here.
    unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT,
            from_ref(target).cast(),
            NAME_LEN,
        );
    }
}

fn would_block() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}

/// A socket at `address` with the options asked for.
pub(crate) fn bind(address: SocketAddrV4, gso: bool, busy_poll: bool) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    set(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        RECEIVE_BUFFER,
    )
    .or_else(|_| set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER))?;
    if gso {
        set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    }
    if busy_poll {
        set(&socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, BUSY_POLL)?;
    }
    Ok(socket)
}

fn set(socket: &UdpSocket, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let length = socklen_t::try_from(size_of::<c_int>()).unwrap_or(4);
    let value = (&raw const value).cast();
    // SAFETY: the kernel reads an int.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// As many descriptors as the hard limit allows: a relay socket takes one.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one `rlimit`.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel reads one `rlimit`.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

/// Sockets to wait for, level-triggered.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    timeout: c_int,
}

impl Poller {
    pub(crate) fn new(busy_poll: bool) -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let epoll: RawFd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: the kernel has just made it, and nobody else has seen it.
            epoll: unsafe { OwnedFd::from_raw_fd(epoll) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 256],
            timeout: if busy_poll { 0 } else { -1 },
        })
    }

    pub(crate) fn add(&self, socket: &UdpSocket, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: 1,
            u64: token,
        };
        let (epoll, socket) = (self.epoll.as_raw_fd(), socket.as_raw_fd());
        // SAFETY: the kernel reads one event.
        let done = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &raw mut event) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Waits for sockets; how many tokens are to be had.
    pub(crate) fn wait(&mut self) -> usize {
        let room = c_int::try_from(self.events.len()).unwrap_or(c_int::MAX);
        let events = self.events.as_mut_ptr();
        // SAFETY: the kernel writes at most `room` events.
        let ready = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events, room, self.timeout) };
        usize::try_from(ready).unwrap_or(0)
    }

    pub(crate) fn token(&self, index: usize) -> u64 {
        self.events[index].u64
    }
}
