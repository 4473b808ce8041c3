//! coturn's client of RFC 5780, from behind no NAT at all.

use std::time::Duration;

use crate::lab::process::Process;
use crate::lab::relay::{Kind, Peers, Relay};
use crate::lab::{Lab, Party, SERVICE};

const SECOND: &str = "203.0.113.8";

/// Every answer comes from where it was asked to come from, so that the client finds mapping and
/// filtering to be what they are without a NAT; the same with datagrams that are fragmented.
#[test]
#[ignore = "needs root and coturn's clients; .ci/run runs it"]
fn a_client_without_nat_finds_that_it_has_none() {
    let lab = Lab::new(&["turnutils_natdiscovery"]);
    lab.relay
        .ip(&["address", "add", &format!("{SECOND}/32"), "dev", "lo"]);
    let (first, second) = (SERVICE.v4, SECOND);
    let listen = format!("{first}:3478,{first}:3479,{second}:3478,{second}:3479");
    let settings = [
        ("TACITURN_LISTEN__UDP", listen.as_str()),
        ("TACITURN_FEATURES__NAT_DISCOVERY", "true"),
    ];
    let relay = Relay::start_with(&lab, Kind::Taciturn, Peers::Relay, "rfc8656", &settings);
    for flags in [&["-m"][..], &["-f"], &["-m", "-P"], &["-f", "-P"]] {
        let (verdict, origin) = if flags[0] == "-m" {
            ("Endpoint Independent Mapping!", format!("{SECOND}:3478"))
        } else {
            ("Endpoint Independent Filtering!", format!("{SECOND}:3479"))
        };
        let mut command = lab.party(Party::Alice).command("turnutils_natdiscovery");
        command.args(flags).arg(first.to_string());
        let mut client = Process::spawn("natdiscovery", command, lab.directory());
        let status = client.wait(Duration::from_secs(60));
        let seen = client.output();
        assert!(status.success(), "{flags:?}: {status}\n{seen}");
        let origin = format!("Response origin: : {origin}\n");
        assert!(seen.contains(verdict) && seen.contains(&origin), "{seen}");
    }
    relay.stop();
}
