//! What the arguments mean: which server, as whom, from where, and what is done.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use anyhow::Context;
use secrecy::SecretString;

use super::login::Credentials;
use super::options::{Load, Measure, Mode, Payload, Switch, Transport};
use super::pace::{self, Stream};
use super::sources::Network;
use crate::daemon::{Usage, ice};
use crate::turn::credential::Secret;

/// Pairs, or allocations of mode peer, when nobody says how many.
const DEFAULT: u32 = 100;
/// Allocations of a round when nobody says how many.
const DEFAULT_ROUND: u32 = 2000;

/// What is done with the traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    Fixed(f64),
    Search,
}

/// What is to be done.
pub(super) struct Plan {
    pub(super) server: SocketAddr,
    pub(super) transport: Transport,
    pub(super) callees: Option<Callees>,
    /// The name or address that the certificate of --server is for.
    pub(super) host: String,
    pub(super) credentials: Credentials,
    /// None for a socket of each client's own.
    pub(super) network: Option<Network>,
    pub(super) peer: IpAddr,
    pub(super) mode: Mode,
    pub(super) measure: Measure,
    /// Allocations: two for each pair, or as many as a round has.
    pub(super) allocations: usize,
    pub(super) streams: Vec<Stream>,
    pub(super) segmented: bool,
    pub(super) pace: Pace,
}

/// The half of the clients that is called, where it differs from the other.
pub(super) struct Callees {
    pub(super) transport: Transport,
    pub(super) server: SocketAddr,
}

impl Plan {
    /// Whether any client has a connection.
    pub(super) fn has_connections(&self) -> bool {
        let of_callees = self.callees.as_ref().map(|callees| callees.transport);
        let connects = |transport: Transport| transport != Transport::Udp;
        connects(self.transport) || of_callees.is_some_and(connects)
    }
}

/// What these arguments mean.
///
/// # Errors
/// When they cannot be meant, or name a file that cannot be read.
pub(super) fn of(load: &Load) -> anyhow::Result<Plan> {
    let server = resolve("--server", &load.server)?;
    let callees = callees(load, server)?;
    let streams = pace::streams(load.payload, load.burst);
    let allocations = allocations(load)?;
    let mix = !matches!(load.payload, Payload::Bytes(_));
    if mix && load.burst.is_some() {
        return Err(usage(
            "--burst goes with a payload in bytes: a mix has bursts of its own",
        ));
    }
    let network = network(load, server)?;
    if let Some(network) = &network
        && network.capacity() < u64::try_from(allocations).unwrap_or(u64::MAX)
    {
        return Err(usage(&format!(
            "--sources has {} addresses, and {allocations} are needed",
            network.capacity()
        )));
    }
    let bursts = streams.iter().any(|stream| stream.burst > 1);
    // Both ends of every pair send.
    let flows = 2 * if load.mode == Mode::Peer {
        allocations
    } else {
        allocations / 2
    };
    let pace = match (load.search, load.rate) {
        (true, _) => Pace::Search,
        (false, Some(rate)) => Pace::Fixed(rate),
        (false, None) if mix => Pace::Fixed(pace::natural(&streams, flows)),
        (false, None) if load.measure != Measure::Traffic => Pace::Search,
        (false, None) => {
            return Err(usage(
                "how fast? Give --rate PACKETS or --search, or --payload audio, video or call for \
                 their natural rate",
            ));
        }
    };
    let (host, _) = load.server.rsplit_once(':').unwrap_or((&load.server, ""));
    Ok(Plan {
        server,
        transport: load.transport,
        callees,
        host: host.trim_matches(['[', ']']).to_owned(),
        credentials: credentials(load)?,
        network,
        peer: peer(load, server)?,
        mode: load.mode,
        measure: load.measure,
        allocations,
        segmented: load.gso.map_or(bursts, |gso| gso == Switch::On),
        streams,
        pace,
    })
}

fn usage(text: &str) -> anyhow::Error {
    Usage(text.to_owned()).into()
}

fn callees(load: &Load, server: SocketAddr) -> anyhow::Result<Option<Callees>> {
    let streams = load.transport != Transport::Udp
        || load
            .callee_transport
            .is_some_and(|other| other != Transport::Udp);
    if streams && load.background_allocations > 0 {
        return Err(usage(
            "--background-allocations goes with UDP: making connections would hold up the traffic",
        ));
    }
    let Some(transport) = load.callee_transport else {
        return Ok(None);
    };
    if load.mode == Mode::Peer || load.measure != Measure::Traffic {
        return Err(usage(
            "--callee-transport goes with calls: modes call, send and mixed",
        ));
    }
    let server = match &load.callee_server {
        Some(text) => resolve("--callee-server", text)?,
        None => server,
    };
    Ok(Some(Callees { transport, server }))
}

fn resolve(flag: &str, text: &str) -> anyhow::Result<SocketAddr> {
    let wrong = |reason: String| {
        usage(&format!(
            "cannot use {flag} {text:?}: {reason}; write HOST:PORT, such as 127.0.0.1:3478"
        ))
    };
    text.to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?
        .next()
        .ok_or_else(|| wrong("it has no address".to_owned()))
}

fn allocations(load: &Load) -> anyhow::Result<usize> {
    let number = match (load.measure, load.mode) {
        (Measure::Allocate | Measure::Sequence, _) => {
            if load.pairs.is_some() {
                return Err(usage(
                    "--pairs goes with traffic: the size of a round is --allocations",
                ));
            }
            load.allocations.unwrap_or(DEFAULT_ROUND)
        }
        (Measure::Traffic, Mode::Peer) => {
            if load.pairs.is_some() {
                return Err(usage(
                    "mode peer has no pairs: give --allocations, each has a peer",
                ));
            }
            load.allocations.unwrap_or(DEFAULT)
        }
        (Measure::Traffic, Mode::Call | Mode::Send | Mode::Mixed) => {
            if load.allocations.is_some() {
                return Err(usage(
                    "--allocations goes with mode peer and --measure: here give --pairs, each has \
                     two allocations",
                ));
            }
            2 * load.pairs.unwrap_or(DEFAULT)
        }
    };
    usize::try_from(number).context("too many")
}

fn network(load: &Load, server: SocketAddr) -> anyhow::Result<Option<Network>> {
    let Some(sources) = load.sources else {
        let loopback = matches!(server.ip(), IpAddr::V4(ip) if ip.is_loopback());
        return Ok(loopback.then(Network::loopback));
    };
    let network = Network::new(sources.0);
    if network.is_ipv4() != server.is_ipv4() {
        return Err(usage(
            "--sources and --server are of different families; clients reach the server from \
             addresses of its own",
        ));
    }
    let probe = SocketAddr::new(network.address(network.capacity() - 1), 0);
    if UdpSocket::bind(probe).is_err() {
        return Err(usage(&format!(
            "the addresses of --sources are not this machine's; make them so: ip {}route add \
             local NETWORK dev lo",
            if network.is_ipv4() { "" } else { "-6 " }
        )));
    }
    Ok(Some(network))
}

/// The address of the peers: the one from which this machine reaches the server.
fn peer(load: &Load, server: SocketAddr) -> anyhow::Result<IpAddr> {
    if let Some(peer) = load.peer_address {
        return Ok(peer);
    }
    if server.ip().is_loopback() {
        return Ok(server.ip());
    }
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    let reached = socket.connect(server).and_then(|()| socket.local_addr());
    Ok(reached
        .with_context(|| format!("there is no way to {server}"))?
        .ip())
}

fn credentials(load: &Load) -> anyhow::Result<Credentials> {
    if let Some(file) = &load.secret_file {
        return Ok(Credentials::Minted {
            secret: Secret::new("load", read(file)?.trim_end_matches(['\r', '\n'])),
            users: load.users,
        });
    }
    if let (Some(user), Some(file)) = (&load.user, &load.password_file) {
        return Ok(Credentials::Fixed {
            username: user.clone(),
            password: SecretString::from(read(file)?.trim_end_matches(['\r', '\n'])),
        });
    }
    // clap lets nobody through without one of the three.
    let file = load.ice.as_deref().unwrap_or_else(|| Path::new("-"));
    let server = ice::read(file)?.into_iter().next();
    let credential = server
        .context("there is no TURN server with a credential in it")?
        .credential;
    Ok(Credentials::Fixed {
        username: credential.username,
        password: credential.password,
    })
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file)
        .map_err(|error| usage(&format!("cannot read {}: {error}", file.display())))
}
