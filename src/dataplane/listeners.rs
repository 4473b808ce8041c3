//! Which addresses are listened on. A wildcard stands for one socket per local address of its
//! family, so that replies and relayed packets leave from the address that the client used. All
//! sockets of a group (one per worker, `SO_REUSEPORT`) are bound at once and never change: the
//! kernel's hash would move living flows to other workers.

use std::io;
use std::net::SocketAddr;

use crate::dataplane::StartError;
use crate::dataplane::sys::{SocketOptions, UdpSocket, local_addresses};

/// A transport address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) address: SocketAddr,
    pub(crate) origin: Origin,
}

/// How it came to be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The operator named it: it must be there.
    Named,
    /// A wildcard stands for it: it may be there in a moment (an IPv6 address is tentative at
    /// first), and may be gone the next.
    Wildcard,
}

impl Wanted {
    /// Whether `error`, met when binding, only means that the address is not there yet.
    pub(crate) fn may_come_later(&self, error: &StartError) -> bool {
        let StartError::Listen { source, .. } = error else {
            return false;
        };
        self.origin == Origin::Wildcard && source.kind() == io::ErrorKind::AddrNotAvailable
    }
}

/// The transport addresses to listen on, wildcards expanded, each once, in the order configured.
pub(crate) fn expand(configured: &[SocketAddr]) -> io::Result<Vec<Wanted>> {
    let local = local_addresses()?;
    let mut all: Vec<Wanted> = Vec::new();
    for address in configured {
        let each: Vec<Wanted> = if address.ip().is_unspecified() {
            local
                .iter()
                .filter(|ip| ip.is_ipv4() == address.is_ipv4())
                .map(|ip| SocketAddr::new(*ip, address.port()))
                .map(|address| Wanted {
                    address,
                    origin: Origin::Wildcard,
                })
                .collect()
        } else {
            vec![Wanted {
                address: *address,
                origin: Origin::Named,
            }]
        };
        for wanted in each {
            if !all.iter().any(|other| other.address == wanted.address) {
                all.push(wanted);
            }
        }
    }
    Ok(all)
}

/// Binds one socket per worker on `address`; port 0 means one port for all of them, the kernel's
/// choice.
pub(crate) fn bind(
    address: SocketAddr,
    workers: usize,
    options: &SocketOptions,
) -> Result<Vec<UdpSocket>, StartError> {
    let failed = |source| StartError::Listen { address, source };
    // With SO_REUSEPORT a second daemon would join the group of the first and take half its
    // flows; a socket without it finds out whether somebody is there.
    drop(UdpSocket::relay(address, options).map_err(failed)?);
    let first = UdpSocket::listener(address, options).map_err(failed)?;
    let address = first.local_addr();
    let mut group = vec![first];
    for _ in 1..workers {
        group.push(UdpSocket::listener(address, options).map_err(failed)?);
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: SocketOptions = SocketOptions {
        receive_buffer: 65_536,
        dscp: 0,
    };

    #[test]
    fn a_second_daemon_does_not_join_the_listeners_of_the_first() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let group = bind(any, 4, &OPTIONS).unwrap();
        let address = group[0].local_addr();
        assert!(group.iter().all(|socket| socket.local_addr() == address));
        let refused = bind(address, 4, &OPTIONS).unwrap_err();
        assert!(
            refused.to_string().contains(&address.to_string()),
            "{refused}"
        );
    }

    #[test]
    fn a_wildcard_stands_for_each_local_address_of_its_family_once() {
        let port = 3478;
        let wildcard = SocketAddr::from(([0, 0, 0, 0], port));
        let named = SocketAddr::from(([127, 0, 0, 1], port));
        let all = expand(&[named, wildcard]).unwrap();
        let loopback: Vec<_> = all
            .iter()
            .filter(|wanted| wanted.address == named)
            .collect();
        assert_eq!(loopback.len(), 1);
        assert_eq!(loopback[0].origin, Origin::Named);
        assert!(all.iter().all(|wanted| wanted.address.is_ipv4()));
        assert!(
            !all.iter()
                .any(|wanted| wanted.address.ip().is_unspecified())
        );
    }

    #[test]
    fn only_a_wildcards_address_may_come_later() {
        let address = SocketAddr::from(([192, 0, 2, 77], 3478));
        let error = bind(address, 1, &OPTIONS).unwrap_err();
        assert!(
            Wanted {
                address,
                origin: Origin::Wildcard
            }
            .may_come_later(&error)
        );
        assert!(
            !Wanted {
                address,
                origin: Origin::Named
            }
            .may_come_later(&error)
        );
    }
}
