//! `aioice`: two parties in two namespaces exchange datagrams, once over the
//! bare TURN client and once as ICE agents that only relay.

use std::io::{PipeWriter, Write};
use std::time::Duration;

use crate::lab::capture::Capture;
use crate::lab::packet::Packet;
use crate::lab::process::Process;
use crate::lab::relay::{Kind, PORT, Peers, Relay, credential};
use crate::lab::search::{assert_nothing, in_packets, in_text};
use crate::lab::{Lab, Party, SERVICE};

/// Datagrams that each party sends.
const DATAGRAMS: usize = 200;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/interop/aioice_client.py"
);

/// A running script.
struct Client {
    process: Process,
    stdin: PipeWriter,
}

impl Client {
    fn start(lab: &Lab, party: Party, mode: &str) -> Self {
        let (username, password) = credential(party.name());
        let (stdin_of_script, stdin) = std::io::pipe().expect("a pipe");
        // Debian's own: the one that Debian's aioice belongs to.
        let mut command = lab.party(party).command("/usr/bin/python3");
        command
            .stdin(stdin_of_script)
            .args([SCRIPT, mode, party.name()])
            .args([SERVICE.v4.to_string(), PORT.to_string()])
            .args([username, password, DATAGRAMS.to_string()]);
        let name = format!("aioice-{}", party.name());
        let process = Process::spawn(&name, command, lab.directory());
        Self { process, stdin }
    }

    fn hear(&mut self, mark: &str) -> String {
        self.process.expect_line(mark, LIMIT)
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the script reads");
    }

    fn finish(mut self) {
        let status = self.process.wait(LIMIT);
        assert!(status.success(), "{}", self.process.output());
    }
}

/// Both parties send all their datagrams to the other, which counts them.
fn exchange(mode: &str) -> String {
    let lab = Lab::new(&["/usr/bin/python3"]);
    let relay = Relay::start(&lab, Kind::under_test(), Peers::Relay, "rfc8656");
    let captures = Party::BOTH.map(|party| lab.capture(party));

    let mut alice = Client::start(&lab, Party::Alice, mode);
    let mut bob = Client::start(&lab, Party::Bob, mode);
    bob.say(&alice.hear("OFFER "));
    alice.say(&bob.hear("OFFER "));
    for client in [&mut alice, &mut bob] {
        client.hear("READY");
    }
    for client in [&mut alice, &mut bob] {
        client.say("GO");
    }
    let received = [&mut alice, &mut bob].map(|client| client.hear("RECEIVED "));
    let numbers = relay.numbers();
    alice.finish();
    bob.finish();
    let legs = captures.map(Capture::finish);
    let (by_taciturn, output) = (relay.is_taciturn(), relay.stop());

    let all = DATAGRAMS.to_string();
    assert_eq!(
        received,
        [all.clone(), all],
        "datagrams received by alice and bob"
    );
    for (party, leg) in Party::BOTH.iter().zip(&legs) {
        let name = party.name();
        let relayed = relayed(leg);
        assert!(
            relayed >= DATAGRAMS,
            "{name} handed the relay {relayed} datagrams"
        );
        let found = in_packets(party.other().addresses(), leg);
        assert_nothing(&found, &format!("on the leg of {name}"));
        if by_taciturn {
            assert_nothing(
                &in_text(party.addresses(), &output),
                "in the relay's output",
            );
            assert_nothing(
                &in_text(party.addresses(), &numbers),
                "in the relay's numbers",
            );
        }
    }
    format!("aioice, {mode}: {DATAGRAMS} of {DATAGRAMS} datagrams arrived on both sides")
}

/// Datagrams that the client handed the relay for the other party.
fn relayed(leg: &[Packet]) -> usize {
    let server = (SERVICE.v4, PORT).into();
    leg.iter()
        .filter_map(|packet| packet.application_data_to(server))
        .count()
}

#[test]
#[ignore = "needs root and aioice; .ci/run runs it"]
fn two_turn_clients_of_aioice_exchange_datagrams() {
    eprintln!("{}", exchange("turn"));
}

#[test]
#[ignore = "needs root and aioice; .ci/run runs it"]
fn two_relay_only_ice_agents_of_aioice_connect() {
    eprintln!("{}", exchange("ice"));
}
