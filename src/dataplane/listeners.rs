//! Which addresses are listened on. A wildcard stands for one socket per local address of its
//! family, so that replies and relayed packets leave from the address that the client used. All
//! sockets of a group (one per worker, `SO_REUSEPORT`) are bound at once and never change: the
//! kernel's hash would move living flows to other workers.

use std::io;
use std::net::SocketAddr;

use crate::dataplane::connected::StreamWorkers;
use crate::dataplane::stream::{Acceptor, DtlsSocket, Spoken};
use crate::dataplane::sys::{Sharing, SocketOptions, TcpListener, UdpSocket, local_addresses};
use crate::dataplane::{Config, StartError, system};
use crate::turn::Transport;

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
    bind_for(Transport::Udp, address, workers, options)
}

fn bind_for(
    transport: Transport,
    address: SocketAddr,
    workers: usize,
    options: &SocketOptions,
) -> Result<Vec<UdpSocket>, StartError> {
    let failed = refused(transport, address);
    // With SO_REUSEPORT a second daemon would join the group of the first and take half its
    // flows; a socket without it finds out whether somebody is there.
    drop(UdpSocket::relay(address, options).map_err(&failed)?);
    let first = UdpSocket::listener(address, options).map_err(&failed)?;
    let address = first.local_addr();
    let mut group = vec![first];
    for _ in 1..workers {
        group.push(UdpSocket::listener(address, options).map_err(&failed)?);
    }
    Ok(group)
}

fn refused(transport: Transport, address: SocketAddr) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Listen {
        transport,
        address,
        source,
    }
}

/// The sockets of a group, and for each worker beyond them one more of the first, to send by.
pub(crate) fn for_all(
    mut group: Vec<UdpSocket>,
    workers: usize,
) -> Result<Vec<UdpSocket>, StartError> {
    while group.len() < workers
        && let Some(first) = group.first()
    {
        group.push(first.try_clone().map_err(system("share a listener"))?);
    }
    Ok(group)
}

/// Where clients of other transports than UDP are taken.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    /// By stream worker.
    pub(crate) acceptors: Vec<Vec<Acceptor>>,
    /// By stream worker.
    pub(crate) dtls: Vec<Vec<DtlsSocket>>,
    /// What clients may use, wildcards expanded.
    pub(crate) bound: Vec<(Transport, SocketAddr)>,
}

/// Binds the TCP, TLS and DTLS listeners, a socket of each per stream worker. A connection has a local address of
/// its own, so that one socket serves a wildcard, and addresses that come later with it.
pub(crate) fn open_doors(config: &Config, workers: StreamWorkers) -> Result<Doors, StartError> {
    let options = SocketOptions {
        receive_buffer: config.listen_buffer,
        dscp: config.dscp,
    };
    let mut doors = Doors {
        acceptors: (0..workers.count).map(|_| Vec::new()).collect(),
        dtls: (0..workers.count).map(|_| Vec::new()).collect(),
        bound: Vec::new(),
    };
    for (index, (address, spoken)) in (0..).zip(spoken(config)) {
        let failed = refused(spoken.transport(), address);
        // As with UDP, a second daemon would join the group of the first.
        let alone = TcpListener::bind(address, Sharing::Alone, &options).map_err(&failed)?;
        let address = alone.local_addr();
        drop(alone);
        for (worker, group) in (0..).zip(&mut doors.acceptors) {
            let socket = TcpListener::bind(address, Sharing::Group, &options).map_err(&failed)?;
            group.push(Acceptor {
                socket,
                place: workers.place(index, worker),
                spoken,
            });
        }
        for wanted in expand(&[address]).map_err(system("list addresses"))? {
            if spoken != Spoken::Tls {
                doors.bound.push((Transport::Tcp, wanted.address));
            }
            if spoken != Spoken::Plain {
                doors.bound.push((Transport::Tls, wanted.address));
            }
        }
    }
    let dtls = expand(&config.listen_dtls).map_err(system("list addresses"))?;
    for (index, wanted) in (0..).zip(dtls) {
        let count = usize::from(workers.count);
        let group = match bind_for(Transport::Dtls, wanted.address, count, &options) {
            Ok(group) => group,
            Err(error) if wanted.may_come_later(&error) => continue,
            Err(error) => return Err(error),
        };
        let bound = group.first().map(UdpSocket::local_addr);
        doors
            .bound
            .extend(bound.map(|address| (Transport::Dtls, address)));
        for (worker, (sockets, socket)) in (0..).zip(doors.dtls.iter_mut().zip(group)) {
            let place = workers.place(index, worker);
            sockets.push(DtlsSocket { socket, place });
        }
    }
    Ok(doors)
}

/// Each address once, with what is spoken there. Ports that are still to be chosen differ.
fn spoken(config: &Config) -> Vec<(SocketAddr, Spoken)> {
    let (tcp, tls) = (&config.listen_tcp, &config.listen_tls);
    let is_shared = |address: &SocketAddr| {
        address.port() != 0 && tcp.contains(address) && tls.contains(address)
    };
    let plain = tcp.iter().map(|address| {
        let spoken = if is_shared(address) {
            Spoken::Both
        } else {
            Spoken::Plain
        };
        (*address, spoken)
    });
    let only_tls = tls.iter().filter(|address| !is_shared(address));
    plain
        .chain(only_tls.map(|address| (*address, Spoken::Tls)))
        .collect()
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
