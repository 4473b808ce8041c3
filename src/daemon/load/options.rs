//! The command line of `taciturn load`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use ipnet::IpNet;

/// The longest step, well below the lifetime of a permission (RFC 8656 §9: 300 s).
const LONGEST: Duration = Duration::from_secs(180);

/// `taciturn load`
#[derive(Debug, Clone, Args)]
#[command(
    group = ArgGroup::new("credentials").required(true).args(["secret_file", "user", "ice"]),
    after_help = "\
It drives any TURN server over UDP, TCP or TLS and counts what arrives. In call mode two allocations
send to each other's relayed address; in peer mode each allocation exchanges packets with a plain
UDP peer of this process. Loss is counted at the receiver; what arrives within 200 ms counts.
Latency is one way, on one clock. All allocations are deleted at the end.

Clients on one machine: for a server on loopback, and with --sources, one socket speaks for all
clients, each with an address of its own. Otherwise each client has a socket, which costs a system
call for each packet. Any network can be made local: `ip route add local 10.9.0.0/16 dev lo`.

The ceiling is what a bare echo on another CPU carries with the same payload, flows and bursts. A
result above 80 % of it, or one whose rate could not be kept, says more about the generator than
about the server, and is marked as limited by the load. The generator spins on its CPU while it
measures; the machine's CPU time is given without that.

Over TCP and TLS each client has a connection, made and secured before anything counts; with
--callee-transport the two parties of a call differ. A packet is lost when it arrives more than
200 ms after it was sent, or when its connection takes nothing more. Any certificate is accepted:
`taciturn probe` judges them. There is no bare echo to compare with; a run in which the generator
was busier than the server is marked as limited by the load.

Bursts leave as one segmented send, as they would arrive on a network card that merges them;
--gso=off sends each packet alone.

Memory is what the server's resident memory grew by while the allocations were made, which says
something on a server that was just started: later ones find memory that is free again.

The allocation rate is taken in rounds of --allocations: the time from the first request without a
credential to the last success. Between rounds the allocations are deleted by a Refresh with
lifetime 0, which does not count.

What matters on the server:
  quota per user       each allocation has a user of its own unless --users or --user is given
                       (taciturn: limits.user_allocations; coturn: user-quota, total-quota)
  unauthenticated      each client begins with a request without credentials; a server may cap
  replies              the answers for each address (taciturn: limits.unvalidated)
  relay ports          one for each allocation (taciturn: relay.ports; coturn: min-port, max-port)
  port rest            a freed port may be kept back for a while (taciturn: relay.port_rest)
  peer policy          peer mode needs the peer's address allowed (taciturn: policy.peers and
                       policy.allow; coturn: allow-loopback-peers)
  receive buffers      a listener with a small one loses bursts (taciturn: listen.receive_buffer)

Exit code: 0 done, 1 failed, 64 the command line is bad.

Examples:
  taciturn load --server 127.0.0.1:3478 --secret-file secret --pairs 1000 --search
      The highest rate of a thousand calls with less than 0.1 % loss.
  taciturn load --server turn.example.org:3478 --ice ice.json --payload call --pairs 10
      Ten video calls at their natural rate, with a credential that `taciturn mint` printed.
  taciturn load --server 127.0.0.1:3478 --secret-file secret --rate 20000 --json
      Latency and CPU at a fixed rate, for a script.
  taciturn load --server 127.0.0.1:443 --transport tls --secret-file secret --search
      The highest rate of a hundred calls over TLS.
  taciturn load --server 127.0.0.1:3478 --secret-file secret --measure allocate
      How many allocations a second."
)]
pub struct Load {
    /// The server.
    #[arg(long, value_name = "HOST:PORT")]
    pub server: String,
    /// What the clients speak to it.
    #[arg(long, value_enum, default_value_t = Transport::Udp)]
    pub transport: Transport,
    /// What those speak who are called, half of the clients, if it is something else.
    #[arg(long, value_enum, value_name = "TRANSPORT")]
    pub callee_transport: Option<Transport>,
    /// Where those reach the server, if elsewhere than the callers.
    #[arg(long, value_name = "HOST:PORT", requires = "callee_transport")]
    pub callee_server: Option<String>,
    /// File with the server's REST secret, to mint a user for each allocation.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// How many users share the allocations; without it each has its own.
    #[arg(long, value_name = "NUMBER", requires = "secret_file",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub users: Option<u32>,
    /// A user of the server; the password comes from a file.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub user: Option<String>,
    /// File with the password of --user.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// File with an RTCConfiguration, as `mint` prints; "-" is standard input.
    #[arg(long, value_name = "FILE")]
    pub ice: Option<PathBuf>,

    /// What the packets go through.
    #[arg(long, value_enum, default_value_t = Mode::Call)]
    pub mode: Mode,
    /// Calls in modes call, send and mixed; 100 without it.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub pairs: Option<u32>,
    /// Allocations in mode peer (100 without it), or in one round of --measure (2000).
    #[arg(long, value_name = "NUMBER", conflicts_with = "pairs",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub allocations: Option<u32>,
    /// Bytes of application data, or a mix: audio (50 packets/s of 172 B each way), video (30
    /// frames/s of 4 packets of 1,200 B) or call (both).
    #[arg(long, value_name = "BYTES|MIX", default_value = "172", value_parser = Payload::parse)]
    pub payload: Payload,
    /// Packets that a client sends back to back.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub burst: Option<u16>,
    /// Send a burst as one segmented send; on unless the burst is one packet.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true,
          default_missing_value = "on")]
    pub gso: Option<Switch>,

    /// Packets to offer a second, all flows together.
    #[arg(long, value_name = "PACKETS", conflicts_with = "search", value_parser = rate)]
    pub rate: Option<f64>,
    /// Search for the highest rate whose loss is below --max-loss.
    #[arg(long)]
    pub search: bool,
    /// How long to send; in a search, how long the rate found must hold.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub duration: Duration,
    /// Loss that a search allows, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1, value_parser = percent)]
    pub max_loss: f64,

    /// What is measured: traffic, allocations (401 and Allocate) a second, or full sequences
    /// (with CreatePermission and ChannelBind).
    #[arg(long, value_enum, default_value_t = Measure::Traffic)]
    pub measure: Measure,
    /// Requests outstanding while allocations are made.
    #[arg(long, value_name = "NUMBER", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub window: u32,
    /// Allocation sequences to run each second beside the traffic.
    #[arg(long, value_name = "NUMBER", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub background_allocations: u32,

    /// Network whose addresses the clients have, all local to this machine; for a server on
    /// loopback 127.64.0.0/10.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub sources: Option<ClientNetwork>,
    /// Address of the peers in mode peer, as the server reaches it.
    #[arg(long, value_name = "ADDRESS")]
    pub peer_address: Option<IpAddr>,
    /// Process of the server, for its CPU time and memory; may be given several times. Without
    /// it the one that has the server's port on this machine, if it may be seen.
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// CPU to keep the generator on.
    #[arg(long, value_name = "NUMBER")]
    pub cpu: Option<usize>,
    /// Do not measure what the generator itself can do.
    #[arg(long)]
    pub no_ceiling: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What the packets go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Pairs of allocations, each with a channel to the other's relayed address.
    Call,
    /// Allocations with a channel to a plain UDP peer; both directions are driven.
    Peer,
    /// As call, by Send and Data indications.
    Send,
    /// As call, one side with channels and the other with indications.
    Mixed,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
    /// A connection that is secured.
    Tls,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Packets.
    Traffic,
    /// The request without credentials, and the Allocate with them.
    Allocate,
    /// The same with CreatePermission and ChannelBind.
    Sequence,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// What the packets carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Packets of so many bytes.
    Bytes(u16),
    /// As an audio call.
    Audio,
    /// As one-way video each way.
    Video,
    /// Both.
    Call,
}

impl Payload {
    /// Room for what tells each packet from the others.
    pub(super) const SHORTEST: u16 = 24;
    /// What still fits a datagram on an ordinary link after framing, jumbo frames included.
    const LONGEST: u16 = 8_900;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "audio" => Ok(Self::Audio),
            "video" => Ok(Self::Video),
            "call" => Ok(Self::Call),
            _ => match text.parse::<u16>() {
                Ok(bytes) if (Self::SHORTEST..=Self::LONGEST).contains(&bytes) => {
                    Ok(Self::Bytes(bytes))
                }
                Ok(bytes) if bytes < Self::SHORTEST => Err(format!(
                    "at least {}: each packet carries a number and a time",
                    Self::SHORTEST
                )),
                _ => Err(format!(
                    "write {} to {} bytes, audio, video or call",
                    Self::SHORTEST,
                    Self::LONGEST
                )),
            },
        }
    }
}

/// Addresses of clients. What names them is not printed.
#[derive(Clone, Copy)]
pub struct ClientNetwork(pub(super) IpNet);

impl std::fmt::Debug for ClientNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientNetwork(hidden)")
    }
}

fn network(text: &str) -> Result<ClientNetwork, String> {
    text.parse()
        .map(ClientNetwork)
        .map_err(|_| "write a network such as 10.9.0.0/16".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1.0..=100_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("write packets a second, from 1 to 100000000".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..50.0).contains(&percent) => Ok(percent),
        _ => Err("write percent, from 0 to 50".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if (Duration::from_millis(100)..=LONGEST).contains(&duration) => Ok(duration),
        Ok(_) => Err("from 100ms to 3m: permissions end after five minutes".to_owned()),
        Err(_) => Err("write a duration such as 5s".to_owned()),
    }
}
