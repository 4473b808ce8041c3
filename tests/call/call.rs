//! One call from beginning to end, and all that was seen of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::{self, Browser, Opened};
use crate::lab::capture::Capture;
use crate::lab::relay::{Kind, PORT, Peers, Relay, credential};
use crate::lab::{Lab, Party, SERVICE};
use crate::leg::{Leg, is_check, is_media};
use crate::reach::{Urls, Via};
use crate::sealed;
use crate::signalling::Signalling;
use crate::tls::Secrets;

/// A party's `iceTransportPolicy`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    All,
    Relay,
}

/// One party's browser, and what it is told.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) browser: Browser,
    pub(crate) policy: Policy,
    pub(crate) urls: Urls,
    pub(crate) username: Username,
}

/// What a party's credential says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Username {
    /// Whose it is.
    Rest,
    /// Sealed: that it is of the call of this test and of no other, and that it is masked.
    Masked,
}

impl Caller {
    /// Relays only, and by `urls`.
    pub(crate) fn relaying(browser: Browser, urls: Urls) -> Self {
        Self {
            browser,
            policy: Policy::Relay,
            urls,
            username: Username::Rest,
        }
    }

    /// The same with a sealed username.
    pub(crate) fn masked(self) -> Self {
        Self {
            username: Username::Masked,
            ..self
        }
    }

    /// Chromium over UDP.
    pub(crate) fn of_policy(policy: Policy) -> Self {
        Self {
            browser: Browser::Chromium,
            policy,
            urls: Urls::Only(Via::Udp),
            username: Username::Rest,
        }
    }
}

/// What one browser reports.
#[derive(Clone)]
pub(crate) struct Observation {
    pub(crate) party: Party,
    /// The browser's user agent.
    pub(crate) browser: String,
    pub(crate) frames_decoded: u64,
    pub(crate) audio_packets: u64,
    /// Types of the selected pair's candidates.
    pub(crate) local: String,
    pub(crate) remote: String,
    pub(crate) remote_address: String,
    /// How the selected pair's local candidate reaches the relay.
    pub(crate) via: String,
}

/// All that was seen of a call.
pub(crate) struct Call {
    pub(crate) observations: [Observation; 2],
    /// What each party told the other in signalling.
    told: [String; 2],
    callers: [Caller; 2],
    legs: [Leg; 2],
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
    pub(crate) fn leg(&self, party: Party) -> &Leg {
        &self.legs[party as usize]
    }

    /// What `party` told the other in signalling.
    pub(crate) fn told(&self, party: Party) -> &str {
        &self.told[party as usize]
    }

    /// What `party`'s browser was told.
    pub(crate) fn caller(&self, party: Party) -> Caller {
        self.callers[party as usize]
    }

    /// Application datagrams that the browsers handed to the relay: all of them, and those among
    /// them that are RTP and RTCP, or connectivity checks.
    pub(crate) fn packets_to_relay(&self) -> [usize; 3] {
        let all = || self.legs.iter().flat_map(Leg::sent);
        let media = all().filter(|data| is_media(data));
        let checks = all().filter(|data| is_check(data));
        [all().count(), media.count(), checks.count()]
    }
}

/// Alice's and Bob's browsers call each other for `seconds`.
pub(crate) fn run(peers: Peers, callers: [Caller; 2], seconds: u32) -> Call {
    let mut tools = callers.map(|caller| caller.browser.program()).to_vec();
    tools.push("certutil");
    let lab = Lab::new(&tools);
    let state = sealed::state(&lab);
    let mut settings = vec![("TACITURN_STATE__DIR", state.as_str())];
    // Chromium asks by a Binding request, before it allocates.
    if callers.iter().any(|c| c.username == Username::Masked) {
        settings.push(("TACITURN_FEATURES__BINDING", "off"));
    }
    let relay = Relay::start_with(&lab, Kind::under_test(), peers, "rfc8656", &settings);
    let captures = Party::BOTH.map(|party| lab.capture(party));
    let each = [(Party::Alice, callers[0]), (Party::Bob, callers[1])];
    let tasks = each.map(|(party, caller)| (party, task(party, caller, seconds)));
    let signalling = Signalling::start(&lab, tasks);
    let browsers = each.map(|(party, caller)| browser::open(&lab, party, caller.browser));

    let deadline = Instant::now() + Duration::from_secs(60 + u64::from(seconds));
    let results = Party::BOTH.map(|party| signalling.result(party, deadline));
    let logs = browsers.each_ref().map(Opened::last_words);
    let told = Party::BOTH.map(|party| signalling.told(party));
    let mut numbers = relay.numbers();
    drop(browsers);
    let packets = captures.map(Capture::finish);
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
    let [to_alice, to_bob] = packets;
    let leg = |party, packets| Leg::of(packets, &Secrets::read(&browser::secrets(&lab, party)));
    let legs = [leg(Party::Alice, to_alice), leg(Party::Bob, to_bob)];
    Call {
        observations,
        told,
        callers,
        legs,
        by_taciturn,
        output,
        numbers,
        last_numbers,
        _lab: lab,
    }
}

fn task(party: Party, caller: Caller, seconds: u32) -> Value {
    let (username, credential) = match caller.username {
        Username::Rest => credential(party.name()),
        Username::Masked => sealed::credential(party.name()),
    };
    let (v4, v6) = (SERVICE.v4, SERVICE.v6);
    let mut urls = caller.urls.list();
    if caller.policy == Policy::All {
        urls.push(format!("stun:{v4}:{PORT}"));
        urls.push(format!("stun:[{v6}]:{PORT}"));
    }
    json!({
        "isOfferer": party == Party::Alice,
        "seconds": seconds,
        "configuration": {
            "iceTransportPolicy": match caller.policy {
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
        browser: result["browser"].as_str()?.to_owned(),
        frames_decoded: result["framesDecoded"].as_u64()?,
        audio_packets: result["audioPacketsReceived"].as_u64()?,
        local: result["local"].as_str()?.to_owned(),
        remote: result["remote"].as_str()?.to_owned(),
        remote_address: result["remoteAddress"].as_str()?.to_owned(),
        via: result["via"].as_str()?.to_owned(),
    })
}
