//! One call from beginning to end, and all that was seen of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser;
use crate::lab::capture::Capture;
use crate::lab::packet::Packet;
use crate::lab::process::Process;
use crate::lab::relay::{Kind, PORT, Peers, Relay, credential};
use crate::lab::{Lab, Party, SERVICE};
use crate::signalling::Signalling;

/// A party's `iceTransportPolicy`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    All,
    Relay,
}

/// What one browser reports.
#[derive(Clone)]
pub(crate) struct Observation {
    pub(crate) party: Party,
    pub(crate) frames_decoded: u64,
    pub(crate) audio_packets: u64,
    /// Types of the selected pair's candidates.
    pub(crate) local: String,
    pub(crate) remote: String,
}

/// All that was seen of a call.
pub(crate) struct Call {
    pub(crate) observations: [Observation; 2],
    legs: [Vec<Packet>; 2],
    /// Whether the relay was this project's.
    pub(crate) by_taciturn: bool,
    /// All that the relay wrote, byte for byte.
    pub(crate) output: Vec<u8>,
    /// All that it showed to operators, during the call and after.
    pub(crate) numbers: String,
    /// What it showed after the call.
    pub(crate) last_numbers: String,
    /// Keeps logs and captures if the verdict is bad.
    _lab: Lab,
}

impl Call {
    /// What passed between the relay and `party`.
    pub(crate) fn leg(&self, party: Party) -> &[Packet] {
        match party {
            Party::Alice => &self.legs[0],
            Party::Bob => &self.legs[1],
        }
    }

    /// Application datagrams that the browsers handed to the relay: all of them, and those among
    /// them that are RTP and RTCP.
    pub(crate) fn packets_to_relay(&self) -> [usize; 2] {
        let servers = SERVICE
            .all()
            .map(|address| SocketAddr::from((address, PORT)));
        let all = self.legs.iter().flatten().filter_map(|packet| {
            servers
                .iter()
                .find_map(|server| packet.application_data_to(*server))
        });
        // RFC 7983 §7: the first byte of RTP and RTCP.
        let is_media = |data: &&[u8]| matches!(data, [128..192, ..]);
        [all.clone().count(), all.filter(is_media).count()]
    }
}

/// Alice's and Bob's browsers call each other for `seconds`.
pub(crate) fn run(peers: Peers, policies: [Policy; 2], seconds: u32) -> Call {
    let lab = Lab::new(&["chromium"]);
    let relay = Relay::start(&lab, Kind::under_test(), peers, "rfc8656");
    let captures = Party::BOTH.map(|party| lab.capture(party));
    let tasks = [
        (Party::Alice, task(Party::Alice, policies[0], seconds)),
        (Party::Bob, task(Party::Bob, policies[1], seconds)),
    ];
    let signalling = Signalling::start(&lab, tasks);
    let browsers = Party::BOTH.map(|party| browser::open(&lab, party));

    let deadline = Instant::now() + Duration::from_secs(60 + u64::from(seconds));
    let results = Party::BOTH.map(|party| signalling.result(party, deadline));
    let logs = browsers.each_ref().map(Process::last_words);
    let mut numbers = relay.numbers();
    drop(browsers);
    let legs = captures.map(Capture::finish);
    let last_numbers = relay.numbers();
    numbers.push_str(&last_numbers);
    let by_taciturn = relay.is_taciturn();
    let output = relay.stop();

    let observe = |at: usize| {
        let (party, result) = (Party::BOTH[at], &results[at]);
        result
            .as_ref()
            .and_then(|result| observation(party, result))
            .unwrap_or_else(|| panic!("{} reports {result:?}\n{}", party.name(), logs[at]))
    };
    let observations = [observe(0), observe(1)];
    Call {
        observations,
        legs,
        by_taciturn,
        output,
        numbers,
        last_numbers,
        _lab: lab,
    }
}

fn task(party: Party, policy: Policy, seconds: u32) -> Value {
    let (username, credential) = credential(party.name());
    let (v4, v6) = (SERVICE.v4, SERVICE.v6);
    let mut urls = vec![
        format!("turn:{v4}:{PORT}?transport=udp"),
        format!("turn:[{v6}]:{PORT}?transport=udp"),
    ];
    if policy == Policy::All {
        urls.push(format!("stun:{v4}:{PORT}"));
        urls.push(format!("stun:[{v6}]:{PORT}"));
    }
    json!({
        "isOfferer": party == Party::Alice,
        "seconds": seconds,
        "configuration": {
            "iceTransportPolicy": match policy {
                Policy::All => "all",
                Policy::Relay => "relay",
            },
            "iceServers": [{ "urls": urls, "username": username, "credential": credential }],
        },
    })
}

/// `None` where the page reports an error instead.
fn observation(party: Party, result: &Value) -> Option<Observation> {
    Some(Observation {
        party,
        frames_decoded: result["framesDecoded"].as_u64()?,
        audio_packets: result["audioPacketsReceived"].as_u64()?,
        local: result["local"].as_str()?.to_owned(),
        remote: result["remote"].as_str()?.to_owned(),
    })
}
