//! Shapes the kernel reads and writes: socket addresses, control messages, and arrays whose
//! elements it is given pointers to.
//!
//! Addresses and control messages are read and written as bytes at offsets checked at compile
//! time, which needs no unsafe code.

use std::io;
use std::mem::{offset_of, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use libc::{c_int, cmsghdr, sockaddr_in, sockaddr_in6};

/// The outcome of a system call that returns a count or -1.
pub(super) fn outcome(returned: c_int) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// An array that never moves or changes its length, so that the kernel may be given pointers
/// into it again and again.
///
/// Every access derives from one root pointer, so that a slice taken in between does not
/// invalidate the pointers handed out.
pub(super) struct Fixed<T> {
    items: NonNull<[T]>,
}

impl<T> Fixed<T> {
    pub(super) fn new(items: Vec<T>) -> Self {
        Self {
            items: NonNull::from(Box::leak(items.into_boxed_slice())),
        }
    }

    /// A pointer to element `index`, valid as long as `self`.
    pub(super) fn pointer(&self, index: usize) -> *mut T {
        assert!(index < self.items.len(), "index out of range");
        self.items.cast::<T>().as_ptr().wrapping_add(index)
    }
}

impl<T> Deref for Fixed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `items` came from a leaked box that only `drop` takes back; the kernel writes to
        // it only during calls that borrow the owner mutably.
        unsafe { self.items.as_ref() }
    }
}

impl<T> DerefMut for Fixed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { self.items.as_mut() }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: `items` came from `Box::leak` and is taken back only here.
        drop(unsafe { Box::from_raw(self.items.as_ptr()) });
    }
}

const _: () = {
    assert!(size_of::<sockaddr_in>() == 16 && size_of::<sockaddr_in6>() == 28);
    assert!(offset_of!(sockaddr_in, sin_port) == 2 && offset_of!(sockaddr_in, sin_addr) == 4);
    assert!(offset_of!(sockaddr_in6, sin6_port) == 2 && offset_of!(sockaddr_in6, sin6_addr) == 8);
    assert!(offset_of!(sockaddr_in6, sin6_scope_id) == 24);
    assert!(libc::AF_INET == AF_INET as c_int && libc::AF_INET6 == AF_INET6 as c_int);
};
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Room for a `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub(super) struct SocketName([u8; Self::SIZE]);

impl SocketName {
    const SIZE: usize = size_of::<sockaddr_in6>();
    /// What the kernel is told about the room for a name.
    pub(super) const ROOM: u32 = 28;
    pub(super) const EMPTY: Self = Self([0; Self::SIZE]);

    /// Writes `address`; returns the length for `msg_namelen`. The flow label is left 0.
    pub(super) fn set(&mut self, address: SocketAddr) -> u32 {
        self.0 = [0; Self::SIZE];
        self.0[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                self.0[..2].copy_from_slice(&AF_INET.to_ne_bytes());
                self.0[4..8].copy_from_slice(&address.ip().octets());
                16
            }
            SocketAddr::V6(address) => {
                self.0[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                self.0[8..24].copy_from_slice(&address.ip().octets());
                self.0[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                28
            }
        }
    }

    /// The address the kernel wrote in the first `length` bytes. The flow label is left out: it is
    /// no part of who sent the datagram.
    pub(super) fn address(&self, length: u32) -> Option<SocketAddr> {
        let bytes = self.0.get(..usize::try_from(length).ok()?)?;
        let port = u16::from_be_bytes(chunk(bytes, 2)?);
        match u16::from_ne_bytes(chunk(bytes, 0)?) {
            AF_INET => {
                let ip = Ipv4Addr::from(chunk::<4>(bytes, 4)?);
                Some(SocketAddrV4::new(ip, port).into())
            }
            AF_INET6 => {
                let ip = Ipv6Addr::from(chunk::<16>(bytes, 8)?);
                let scope = u32::from_ne_bytes(chunk(bytes, 24)?);
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            _ => None,
        }
    }
}

const CMSG_HEADER: usize = size_of::<cmsghdr>();
const CMSG_ALIGN: usize = size_of::<usize>();
const _: () = {
    assert!(offset_of!(cmsghdr, cmsg_len) == 0 && CMSG_HEADER == 16);
    assert!(offset_of!(cmsghdr, cmsg_level) == 8 && offset_of!(cmsghdr, cmsg_type) == 12);
};

/// Bytes that one control message with an `int` takes.
pub(super) const INT_MESSAGE: usize = CMSG_HEADER + CMSG_ALIGN;

/// Room for the control messages of one datagram: the type of service, and the segment size of
/// merged datagrams, with one to spare.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlRoom(pub(super) [u8; Self::SIZE]);

impl ControlRoom {
    pub(super) const SIZE: usize = 3 * INT_MESSAGE;
    pub(super) const EMPTY: Self = Self([0; Self::SIZE]);
}

/// A control message that carries one `int`.
pub(super) fn int_message(level: c_int, kind: c_int, value: c_int) -> [u8; INT_MESSAGE] {
    let mut message = [0; INT_MESSAGE];
    let length = CMSG_HEADER + size_of::<c_int>();
    message[..8].copy_from_slice(&length.to_ne_bytes());
    message[8..12].copy_from_slice(&level.to_ne_bytes());
    message[12..16].copy_from_slice(&kind.to_ne_bytes());
    message[16..20].copy_from_slice(&value.to_ne_bytes());
    message
}

/// A control message that carries one `u16`; it takes as many bytes as one with an `int`.
pub(super) fn short_message(level: c_int, kind: c_int, value: u16) -> [u8; INT_MESSAGE] {
    let mut message = int_message(level, kind, 0);
    let length = CMSG_HEADER + size_of::<u16>();
    message[..8].copy_from_slice(&length.to_ne_bytes());
    message[16..18].copy_from_slice(&value.to_ne_bytes());
    message
}

/// One control message as the kernel wrote it.
pub(super) struct ControlMessage<'a> {
    pub(super) level: c_int,
    pub(super) kind: c_int,
    pub(super) data: &'a [u8],
}

impl ControlMessage<'_> {
    /// The value of a message that carries an `int`.
    pub(super) fn int(&self) -> Option<c_int> {
        chunk(self.data, 0).map(c_int::from_ne_bytes)
    }
}

/// The control messages in `bytes`, up to the first malformed one.
pub(super) fn control_messages(mut bytes: &[u8]) -> impl Iterator<Item = ControlMessage<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from_ne_bytes(chunk(bytes, 0)?);
        let message = ControlMessage {
            level: c_int::from_ne_bytes(chunk(bytes, 8)?),
            kind: c_int::from_ne_bytes(chunk(bytes, 12)?),
            data: bytes.get(CMSG_HEADER..length)?,
        };
        bytes = bytes
            .get(length.next_multiple_of(CMSG_ALIGN)..)
            .unwrap_or_default();
        Some(message)
    })
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_back_the_address_written_to_it() {
        for text in ["192.0.2.7:3478", "[2001:db8::7]:65535", "[fe80::7%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = SocketName::EMPTY;
            let length = name.set(address);
            assert_eq!(name.address(length), Some(address));
        }
    }

    #[test]
    fn a_name_that_is_short_or_of_another_family_is_no_address() {
        let mut name = SocketName::EMPTY;
        name.set("[2001:db8::7]:1".parse().unwrap());
        assert_eq!(name.address(27), None);
        assert_eq!(name.address(u32::MAX), None);
        name.0[..2].copy_from_slice(&1_u16.to_ne_bytes());
        assert_eq!(name.address(28), None);
    }

    #[test]
    fn control_messages_are_read_one_after_the_other() {
        let bytes = [int_message(1, 2, 3), int_message(4, 5, -6)].concat();
        let read: Vec<_> = control_messages(&bytes)
            .map(|message| (message.level, message.kind, message.int()))
            .collect();
        assert_eq!(read, [(1, 2, Some(3)), (4, 5, Some(-6))]);
    }

    #[test]
    fn a_control_message_with_a_false_length_ends_the_list() {
        for length in [0, CMSG_HEADER - 1, INT_MESSAGE + 1, usize::MAX] {
            let mut bytes = int_message(1, 2, 3);
            bytes[..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(control_messages(&bytes).count(), 0, "length {length}");
        }
        assert_eq!(control_messages(&int_message(1, 2, 3)[..10]).count(), 0);
    }
}
