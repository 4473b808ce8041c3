//! Sends single datagrams, and says what became of those that were sent or refused.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use socket2::{MsgHdr, SockAddr};

use super::abi::{INT_MESSAGE, int_message};
use super::udp::{Ecn, MAY_BE_FRAGMENTED, UdpSocket, set_option};

pub(super) const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// Calls repeated because of an error that does not concern the datagram at hand.
pub(super) const RETRIES_MAX: usize = 16;

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

    /// Counts `packets` that were refused with this errno.
    pub(super) const fn count(&mut self, error: i32, packets: u64) {
        let kind = match error {
            libc::EMSGSIZE => &mut self.too_large,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
                &mut self.unreachable
            }
            libc::EAGAIN => &mut self.would_block,
            libc::EPERM | libc::EACCES => &mut self.denied,
            libc::ENOBUFS | libc::ENOMEM => &mut self.no_buffers,
            _ => &mut self.other,
        };
        *kind += packets;
    }
}

/// What became of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Datagrams the kernel took.
    pub packets: u64,
    /// Runs among them that left as one send.
    pub runs: u64,
    /// Datagrams that left in those runs.
    pub in_runs: u64,
    /// System calls that took any.
    pub calls: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
    /// Those it did not take.
    pub refused: Refused,
}

/// Sends one datagram without blocking.
///
/// # Errors
/// If the kernel does not take it; `WouldBlock` if the send buffer is full.
pub fn send_to(socket: &UdpSocket, bytes: &[u8], to: SocketAddr, ecn: Ecn) -> io::Result<usize> {
    send_parts(socket, [&[], bytes, &[]], to, ecn)
}

/// As [`send_to`], a datagram that lies in three parts.
///
/// # Errors
/// As [`send_to`].
pub fn send_parts(
    socket: &UdpSocket,
    parts: [&[u8]; 3],
    to: SocketAddr,
    ecn: Ecn,
) -> io::Result<usize> {
    if ecn == Ecn::NotEct {
        send_message(socket, parts, to, &[])
    } else {
        send_message(socket, parts, to, &traffic_class_message(socket, ecn))
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
        return send_message(socket, [&[], bytes, &[]], to, &control);
    }
    let discover = |mode| {
        let (level, name) = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
        set_option(&socket.socket, level, name, mode)
    };
    // PROBE sets DF and, unlike DO, does not let forged ICMP shrink what may be sent.
    discover(libc::IP_PMTUDISC_PROBE)?;
    let sent = send_to(socket, bytes, to, ecn);
    discover(MAY_BE_FRAGMENTED)?;
    sent
}

fn send_message(
    socket: &UdpSocket,
    parts: [&[u8]; 3],
    to: SocketAddr,
    control: &[u8],
) -> io::Result<usize> {
    let to = SockAddr::from(to);
    let buffers = parts.map(IoSlice::new);
    let message = MsgHdr::new()
        .with_addr(&to)
        .with_buffers(&buffers)
        .with_control(control);
    let mut retries = 0;
    let mut is_believed = !socket.reports_errors;
    loop {
        let sent = socket.socket.sendmsg(&message, FLAGS);
        match sent.as_ref().map_err(io::Error::raw_os_error) {
            Err(Some(libc::EINTR | libc::ECONNREFUSED)) if retries < RETRIES_MAX => retries += 1,
            // What an ICMP error says of another datagram looks like a refusal of this one, once.
            Err(Some(error)) if !is_believed && error != libc::EAGAIN => is_believed = true,
            _ => return sent,
        }
    }
}

/// The control message that gives one packet its ECN bits beside the configured DSCP.
pub(super) fn traffic_class_message(socket: &UdpSocket, ecn: Ecn) -> [u8; INT_MESSAGE] {
    let (level, kind) = if socket.local_addr().is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_TOS)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
    };
    int_message(level, kind, socket.traffic_class(ecn))
}

#[cfg(test)]
mod tests;
