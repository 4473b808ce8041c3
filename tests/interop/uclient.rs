//! coturn's load client over every transport: each message that it sends must come back.

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::process::Process;
use crate::lab::relay::{Kind, PORT, Peers, Relay, SECRET, TLS_PORT};
use crate::lab::{Lab, Party, SERVICE};

/// Messages that each client sends.
const MESSAGES: u32 = 50;

/// The port of the peer that echoes.
const ECHO_PORT: u16 = 3480;

/// Whom the clients talk to.
#[derive(Clone, Copy)]
enum Counterpart {
    /// Each other, from relayed address to relayed address.
    Clients,
    /// The same by TCP data connections.
    TcpClients,
    /// Peers of their own, which connect to their relayed addresses.
    TcpPeers,
    /// A plain peer, by its address of this family, that echoes.
    Echo(Family),
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// Over what the clients speak to the relay.
#[derive(Clone, Copy, Debug)]
enum Over {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

impl Over {
    const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Dtls];

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Udp => &[],
            Self::Tcp => &["-t"],
            Self::Tls => &["-t", "-S"],
            Self::Dtls => &["-S"],
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => PORT,
            Self::Tls | Self::Dtls => TLS_PORT,
        }
    }
}

/// Runs `clients` over UDP.
fn run(server: Family, counterpart: Counterpart, clients: u32, flags: &[&str]) -> String {
    run_over(Over::Udp, server, counterpart, clients, flags)
}

/// Runs the same over each transport that this build has. What it saw.
fn run_over_all(server: Family, counterpart: Counterpart, clients: u32, flags: &[&str]) -> String {
    let mut all = String::new();
    for over in Over::ALL {
        let seen = if matches!(over, Over::Dtls) && !cfg!(feature = "dtls") {
            "skipped: this build is without the feature `dtls`".to_owned()
        } else {
            run_over(over, server, counterpart, clients, flags)
        };
        all.push_str(&format!("{over:?}:\n{seen}\n"));
    }
    all
}

/// Runs `clients` in Alice's namespace with further flags of
/// `turnutils_uclient`; panics unless every message comes back. What it saw.
fn run_over(
    over: Over,
    server: Family,
    counterpart: Counterpart,
    clients: u32,
    flags: &[&str],
) -> String {
    let lab = Lab::new(&["turnutils_uclient", "turnutils_peer"]);
    let peers = match counterpart {
        Counterpart::Clients | Counterpart::TcpClients => Peers::Relay,
        Counterpart::TcpPeers | Counterpart::Echo(_) => Peers::Any,
    };
    let moves = flags.contains(&"-M");
    let is_tcp = matches!(counterpart, Counterpart::TcpClients | Counterpart::TcpPeers);
    let settings: &[_] = if moves {
        &[("TACITURN_FEATURES__MOBILITY", "true")]
    } else if is_tcp {
        &[("TACITURN_FEATURES__TCP_RELAY", "true")]
    } else {
        &[]
    };
    let relay = Relay::start_with(&lab, Kind::under_test(), peers, "rfc5766", settings);
    let server: IpAddr = match server {
        Family::V4 => SERVICE.v4.into(),
        Family::V6 => SERVICE.v6.into(),
    };

    let mut command = lab.party(Party::Alice).command("turnutils_uclient");
    command
        .args(["-u", "load", "-W", SECRET, "-p", &over.port().to_string()])
        .args(over.flags())
        .args(["-n", &MESSAGES.to_string(), "-m", &clients.to_string()])
        .args(flags);
    let _echo = match counterpart {
        Counterpart::Clients | Counterpart::TcpClients | Counterpart::TcpPeers => {
            command.arg("-y");
            None
        }
        Counterpart::Echo(family) => {
            let address = match family {
                Family::V4 => IpAddr::from(Party::Bob.addresses().v4),
                Family::V6 => Party::Bob.addresses().v6.into(),
            };
            command.args(["-e", &address.to_string(), "-r", &ECHO_PORT.to_string()]);
            Some(echo(&lab, address))
        }
    };
    command.arg(server.to_string());
    let mut uclient = Process::spawn("uclient", command, lab.directory());
    let status = uclient.wait(Duration::from_secs(90));

    let seen = uclient.output();
    assert!(status.success(), "{status}\n{seen}");
    if moves && relay.is_taciturn() {
        let numbers = relay.numbers();
        let moved = numbers
            .lines()
            .find_map(|line| line.strip_prefix("taciturn_allocations_moved_total "));
        let moved = moved.and_then(|moved| moved.parse::<u32>().ok());
        assert!(moved.is_some_and(|moved| moved >= clients), "{moved:?}");
    }
    relay.stop();
    let sent = clients * MESSAGES;
    let (received, lost) = match counterpart {
        // It counts what comes to one side of each pair; so it does with coturn's own server.
        Counterpart::TcpPeers => (sent / 2, format!("{} (50.000000%)", sent / 2)),
        Counterpart::Clients | Counterpart::TcpClients | Counterpart::Echo(_) => {
            (sent, "0 (0.000000%)".to_owned())
        }
    };
    for total in [
        format!("tot_send_msgs={sent}, tot_recv_msgs={received}\n"),
        format!("Total lost packets {lost}, total send dropped 0 (0.000000%)\n"),
    ] {
        assert!(seen.contains(&total), "no \"{}\" in\n{seen}", total.trim());
    }
    let summary = seen
        .lines()
        .filter(|line| line.contains("otal") || line.contains("verage"));
    summary.map(|line| format!("{line}\n")).collect()
}

fn echo(lab: &Lab, address: IpAddr) -> Process {
    let mut command = lab.party(Party::Bob).command("turnutils_peer");
    command.args([
        "-v",
        "-L",
        &address.to_string(),
        "-p",
        &ECHO_PORT.to_string(),
    ]);
    let mut echo = Process::spawn("echo", command, lab.directory());
    std::thread::sleep(Duration::from_millis(300));
    echo.assert_alive();
    echo
}

#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn clients_reach_each_other_over_channels() {
    eprintln!(
        "{}",
        run_over_all(Family::V4, Counterpart::Clients, 10, &["-c"])
    );
}

#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn clients_reach_each_other_by_indications() {
    eprintln!(
        "{}",
        run_over_all(Family::V4, Counterpart::Clients, 10, &["-c", "-s"])
    );
}

#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn clients_reach_each_other_from_ipv6_relayed_addresses() {
    eprintln!(
        "{}",
        run_over_all(Family::V6, Counterpart::Clients, 10, &["-c", "-x"])
    );
}

/// RFC 8656 §7.1: EVEN-PORT with a reservation, and RESERVATION-TOKEN. Two
/// clients make a pair and two pairs a conversation, hence a multiple of four.
#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn fifty_two_clients_with_pairs_of_ports_reach_each_other() {
    eprintln!("{}", run(Family::V4, Counterpart::Clients, 52, &[]));
}

#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn fifty_clients_reach_a_plain_peer_over_channels() {
    let echo = Counterpart::Echo(Family::V4);
    eprintln!("{}", run_over_all(Family::V4, echo, 50, &["-c"]));
}

#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn clients_reach_a_plain_peer_by_indications() {
    let echo = Counterpart::Echo(Family::V4);
    eprintln!("{}", run(Family::V4, echo, 10, &["-c", "-s"]));
}

#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn clients_reach_a_plain_ipv6_peer() {
    let echo = Counterpart::Echo(Family::V6);
    eprintln!("{}", run(Family::V6, echo, 10, &["-c", "-x"]));
}

/// RFC 8656 §7: one allocation with a relayed address of each family.
#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn clients_with_a_dual_allocation_reach_each_other() {
    eprintln!(
        "{}",
        run_over_all(Family::V4, Counterpart::Clients, 10, &["-c", "-X"])
    );
}

/// RFC 8016: each client takes its allocation to another port before it sends, and shows its ticket
/// twice, as if the answer had been lost.
#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn clients_that_moved_lose_no_packet() {
    let echo = Counterpart::Echo(Family::V4);
    eprintln!("{}", run(Family::V4, echo, 10, &["-M", "-c"]));
    // Not over TLS and DTLS, where this client frees what it has freed already when it moves.
    for over in [Over::Udp, Over::Tcp] {
        let seen = run_over(over, Family::V4, Counterpart::Clients, 10, &["-M", "-c"]);
        eprintln!("{over:?}:\n{seen}");
    }
    let by_indications = ["-M", "-c", "-s"];
    eprintln!(
        "{}",
        run(Family::V4, Counterpart::Clients, 10, &by_indications)
    );
    eprintln!(
        "{}",
        run(Family::V6, Counterpart::Clients, 10, &["-M", "-c", "-x"])
    );
}

/// RFC 6062: allocations for TCP, and data connections between their relayed addresses, from clients
/// on TCP and on TLS.
#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn clients_reach_each_other_by_tcp_data_connections() {
    for over in [Over::Tcp, Over::Tls] {
        let seen = run_over(over, Family::V4, Counterpart::TcpClients, 4, &["-T"]);
        eprintln!("{over:?}:\n{seen}");
    }
}

/// RFC 6062 §5.3: peers connect to relayed addresses, where the policy admits them. Not over TLS,
/// where this client's peers speak TLS to the relayed address too.
#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn peers_reach_clients_by_tcp_data_connections() {
    // Their permissions are for the address that they are told to come from.
    let local = Party::Alice.addresses().v4.to_string();
    let flags = ["-P", "-L", &local];
    let seen = run_over(Over::Tcp, Family::V4, Counterpart::TcpPeers, 4, &flags);
    eprintln!("{seen}");
}
