//! ICMP errors about datagrams that a socket sent, from its error queue (`IP_RECVERR`, ip(7)).
//!
//! Reported errors fail the next send too, whatever it is for; [`send`](super::send) sees to that.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use libc::c_int;

use super::abi::{ControlMessage, SocketName, control_messages, outcome};
use super::receive::empty_header;
use super::udp::UdpSocket;

/// Where an error comes from (`linux/errqueue.h`): `SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6`.
const ORIGINS: [u8; 2] = [2, 3];
/// A `sock_extended_err` with the address of who complained, a type of service, and room to spare.
const ROOM: usize = 192;

/// An ICMP error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Where the datagram was to go that provoked it.
    pub to: SocketAddr,
    /// The ICMP type, in the numbers of the socket's family.
    pub kind: u8,
    /// The ICMP code.
    pub code: u8,
    /// The MTU, where the type carries one.
    pub info: u32,
}

impl fmt::Debug for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IcmpError")
            .field("kind", &self.kind)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// Takes at most `limit` reports off the error queue of `socket`, and appends those that are ICMP
/// errors to `errors`. What this machine itself reports, such as a datagram too long for the link,
/// is let go.
pub fn receive_errors(socket: &UdpSocket, limit: usize, errors: &mut Vec<IcmpError>) {
    for _ in 0..limit {
        let Some(report) = receive(socket) else {
            return;
        };
        errors.extend(report);
    }
}

/// Room for control messages.
#[repr(C, align(8))]
struct Room([u8; ROOM]);

/// The next report, if there is one, and what it says if it is an ICMP error.
fn receive(socket: &UdpSocket) -> Option<Option<IcmpError>> {
    let mut name = SocketName::EMPTY;
    let mut room = Room([0; ROOM]);
    let mut header = empty_header().msg_hdr;
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = SocketName::ROOM;
    header.msg_control = (&raw mut room).cast();
    header.msg_controllen = ROOM;
    // SAFETY: the name and the control messages are as long as the header says and live through
    // the call; there is no room for the datagram itself, which the kernel then leaves out.
    let returned = unsafe {
        libc::recvmsg(
            socket.socket.as_raw_fd(),
            &raw mut header,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    outcome(c_int::try_from(returned).unwrap_or(0)).ok()?;
    let control = room.0.get(..header.msg_controllen).unwrap_or_default();
    let to = name.address(header.msg_namelen);
    Some(to.and_then(|to| control_messages(control).find_map(|message| icmp_error(&message, to))))
}

/// Reads a `sock_extended_err`: errno (4), origin, type, code, padding, info (4), data (4).
fn icmp_error(message: &ControlMessage<'_>, to: SocketAddr) -> Option<IcmpError> {
    let is_error = matches!(
        (message.level, message.kind),
        (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    );
    let &[_, _, _, _, origin, kind, code, _, a, b, c, d] = message.data.first_chunk()?;
    (is_error && ORIGINS.contains(&origin)).then_some(IcmpError {
        to,
        kind,
        code,
        info: u32::from_ne_bytes([a, b, c, d]),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{LOOPBACKS, OPTIONS, receive_one, wait_readable};
    use super::super::{Ecn, RecvBatch, send_to, send_to_dont_fragment};
    use super::*;

    /// A socket that reports errors, and an address on which nobody listens.
    fn reporting(ip: std::net::IpAddr) -> (UdpSocket, SocketAddr) {
        let mut socket = UdpSocket::relay(SocketAddr::new(ip, 0), &OPTIONS).unwrap();
        socket.report_errors().unwrap();
        let gone = UdpSocket::relay(SocketAddr::new(ip, 0), &OPTIONS).unwrap();
        (socket, gone.local_addr())
    }

    #[test]
    fn a_closed_port_is_reported_with_the_address_that_was_sent_to() {
        for (ip, expected) in LOOPBACKS.into_iter().zip([(3, 3), (1, 4)]) {
            let (socket, gone) = reporting(ip);
            let mut errors = Vec::new();
            receive_errors(&socket, 8, &mut errors);
            assert_eq!(errors, []);
            send_to(&socket, b"anyone?", gone, Ecn::NotEct).unwrap();
            wait_readable(&socket);
            receive_errors(&socket, 8, &mut errors);
            let [error] = errors[..] else {
                panic!("one error: {errors:?}");
            };
            assert_eq!((error.to, error.info), (gone, 0));
            assert_eq!((error.kind, error.code), expected);
            errors.clear();
            receive_errors(&socket, 8, &mut errors);
            assert_eq!(errors, []);
        }
    }

    /// T42: neither sends nor receipts fail for what is reported.
    #[test]
    fn a_reported_error_costs_no_datagram() {
        for ip in LOOPBACKS {
            let (socket, gone) = reporting(ip);
            let to = UdpSocket::relay(SocketAddr::new(ip, 0), &OPTIONS).unwrap();
            for round in 0..20_u8 {
                send_to(&socket, b"anyone?", gone, Ecn::NotEct).unwrap();
                wait_readable(&socket);
                send_to(&socket, &[round], to.local_addr(), Ecn::Ect0).unwrap();
                assert_eq!(receive_one(&to).0, [round]);
                send_to(&to, &[round], socket.local_addr(), Ecn::NotEct).unwrap();
                let mut batch = RecvBatch::new(4, 100);
                assert_eq!(batch.receive(&socket, 4).unwrap().len(), 1);
            }
            let mut errors = Vec::new();
            receive_errors(&socket, 8, &mut errors);
            assert_eq!(errors.len(), 8, "a storm is taken in portions");
            receive_errors(&socket, 100, &mut errors);
            assert_eq!(errors.len(), 20);
        }
    }

    #[test]
    fn what_this_machine_reports_itself_is_no_icmp_error() {
        // Over IPv6 a datagram may be longer than what loopback carries.
        let (socket, gone) = reporting(LOOPBACKS[1]);
        let bytes = vec![7; 65_500];
        let refused = send_to_dont_fragment(&socket, &bytes, gone, Ecn::NotEct).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
        let mut errors = Vec::new();
        receive_errors(&socket, 8, &mut errors);
        assert_eq!(errors, []);
        send_to(&socket, b"anyone?", gone, Ecn::NotEct).unwrap();
        wait_readable(&socket);
        receive_errors(&socket, 1, &mut errors);
        assert_eq!(errors.len(), 1, "it was not let go");
    }
}
