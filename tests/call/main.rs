//! A call between two browsers, through the relay, watched on both legs.
//!
//! Two processes of Chromium, or one of Firefox, with fake cameras and
//! microphones, each in a network namespace of its own, call each other through
//! a relay in a third, which they reach over UDP, TCP or TLS. Then everything
//! that passed on either leg (TCP put together again and TLS opened),
//! everything that the relay wrote, and everything that it showed to operators
//! is searched for the addresses of those who must not be seen there.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says why it cannot go on, and ends"
)]

#[path = "../lab/mod.rs"]
mod lab;

mod bidi;
mod browser;
mod call;
mod leg;
mod planted;
mod reach;
mod revoked;
mod sealed;
mod signalling;
mod stream;
mod tls;
mod verdict;

use std::io::{self, Write};
use std::time::Duration;

use browser::Browser;
use call::{Call, Caller, Policy};
use lab::process::Process;
use lab::relay::{Kind, PORT, Peers, Relay, SECRET};
use lab::search::{Form, assert_nothing, in_packets, in_text};
use lab::{Lab, Party, SERVICE};
use planted::Planted;
use reach::{Urls, Via};

/// What the relay wrote, and what it showed to operators, names neither party.
fn assert_silence(call: &Call) {
    if !call.by_taciturn {
        return;
    }
    let places = [
        (&call.output[..], "in the relay's output"),
        (call.numbers.as_bytes(), "in its numbers"),
    ];
    for (text, place) in places {
        for party in Party::BOTH {
            assert_nothing(&in_text(party.addresses(), text), place);
            assert_search_sees(party, text, place);
        }
    }
    let own = in_text(SERVICE, &call.output);
    assert!(
        !own.is_empty(),
        "the output holds addresses at all: the relay's own"
    );
    let output = String::from_utf8_lossy(&call.output);
    let fine = ["DEBUG", "TRACE"]
        .iter()
        .any(|level| output.contains(level));
    assert!(fine, "the output has no line below INFO");
}

/// The control: each form of each address of `party`, planted alone in the midst of `text`, is
/// found, and as that form.
fn assert_search_sees(party: Party, text: &[u8], place: &str) {
    let middle = text.len() / 2;
    // Of a long text its middle is enough.
    let before = &text[middle.saturating_sub(2_000)..middle];
    let after = &text[middle..text.len().min(middle + 2_000)];
    for address in party.addresses().all() {
        for Planted { form, line } in planted::every_form(address) {
            let told = [before, &line, after].concat();
            let found = in_text(party.addresses(), told);
            let seen = found
                .iter()
                .any(|finding| (finding.form, finding.address) == (form, address));
            let line = line.escape_ascii();
            assert!(seen, "the search is blind {place}: {form:?} as {line}");
        }
    }
}

/// The control of the whole: a relay that does name its clients, in the same lab, is found out by
/// the same search in the same output. It logs where a TCP connection came from when that ends.
#[test]
#[ignore = "needs root and coturn; .ci/run runs it"]
fn the_search_finds_the_client_of_a_relay_that_logs_it() {
    let lab = Lab::new(&["turnserver", "turnutils_uclient"]);
    let relay = Relay::start(&lab, Kind::Coturn, Peers::Relay, "rfc8656");
    let mut command = lab.party(Party::Alice).command("turnutils_uclient");
    command
        .args(["-t", "-y", "-c", "-n", "1", "-m", "1"])
        .args(["-u", "alice", "-W", SECRET])
        .args(["-p", &PORT.to_string(), &SERVICE.v4.to_string()]);
    let mut client = Process::spawn("uclient", command, lab.directory());
    client.wait(Duration::from_secs(30));
    let output = relay.stop();

    let named = in_text(Party::Alice.addresses(), &output);
    assert!(!named.is_empty(), "turnserver's log names nobody?");
    assert_nothing(
        &in_text(Party::Bob.addresses(), &output),
        "of bob, who is not there",
    );
}

/// The same forms in a text of one line, which takes no lab.
#[test]
fn every_planted_form_is_found() {
    for party in Party::BOTH {
        assert_search_sees(party, b"{\"level\":\"INFO\"}\n", "in a line");
    }
}

/// A relay-only call of ten seconds, which must hide either party from the other.
fn assert_hidden(callers: [Caller; 2]) {
    let call = call::run(Peers::Relay, callers, 10);
    writeln!(io::stderr(), "{call}").ok();
    call.assert_media_flowed();
    call.assert_relayed();
    call.assert_ways();
    call.assert_hairpin();
    call.assert_neither_is_shown();
    assert_silence(&call);
}

/// A call of two masked parties under the policy `call`: it connects, and neither told the other in
/// signalling where it is.
fn assert_masked(callers: [Caller; 2]) {
    let call = call::run(Peers::Relay, callers.map(Caller::masked), 10);
    writeln!(io::stderr(), "{call}").ok();
    call.assert_media_flowed();
    call.assert_relayed();
    call.assert_hairpin();
    call.assert_neither_is_shown();
    assert_silence(&call);
    for party in Party::BOTH {
        let told = call.told(party);
        let name = party.name();
        assert!(
            told.contains("typ relay"),
            "{name} told no candidate: {told}"
        );
        for kind in ["typ srflx", "typ host", "typ prflx"] {
            assert!(
                !told.contains(kind),
                "{name} told a candidate of {kind}: {told}"
            );
        }
        assert_nothing(
            &in_text(party.addresses(), told),
            &format!("in what {name} told"),
        );
        // Nor was it ever sent its own address, in packets as they passed or inside streams.
        assert_eq!(
            call.leg(party).unread,
            0,
            "unread TLS connections of {name}"
        );
        let mut own = call.leg(party).findings(party.addresses());
        own.retain(|finding| finding.form == Form::Xored);
        assert_nothing(&own, &format!("in what was said to {name}"));
    }
}

/// T66
#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn masked_chromiums_call_each_other_and_tell_nobody_where_they_are() {
    assert_masked([chromium(Via::Udp), chromium(Via::Udp)]);
}

/// T66
#[test]
#[ignore = "needs root, Firefox and Chromium; .ci/run runs it"]
fn masked_firefox_and_chromium_call_each_other_and_tell_nobody_where_they_are() {
    let callers = [Browser::Firefox, Browser::Chromium];
    assert_masked(callers.map(|browser| Caller::relaying(browser, Urls::Three)));
}

/// Chromium, relaying, by one way.
fn chromium(via: Via) -> Caller {
    Caller::relaying(Browser::Chromium, Urls::Only(via))
}

#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn a_relay_only_call_shows_neither_party_to_the_other() {
    assert_hidden([chromium(Via::Udp), chromium(Via::Udp)]);
}

#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn a_call_over_tcp_shows_neither_party_to_the_other() {
    assert_hidden([chromium(Via::Tcp), chromium(Via::Tcp)]);
}

#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn a_call_over_tls_shows_neither_party_to_the_other() {
    assert_hidden([chromium(Via::Tls), chromium(Via::Tls)]);
}

#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn a_party_on_udp_and_a_party_on_tls_call_each_other_and_stay_hidden() {
    assert_hidden([chromium(Via::Udp), chromium(Via::Tls)]);
}

/// T58
#[test]
#[ignore = "needs root, Firefox and Chromium; .ci/run runs it"]
fn firefox_and_chromium_call_each_other_with_three_turn_urls_and_stay_hidden() {
    let callers = [Browser::Firefox, Browser::Chromium];
    assert_hidden(callers.map(|browser| Caller::relaying(browser, Urls::Three)));
}

#[test]
#[ignore = "needs root, Firefox and Chromium; .ci/run runs it"]
fn firefox_on_tls_and_chromium_on_udp_call_each_other_and_stay_hidden() {
    let firefox = Caller::relaying(Browser::Firefox, Urls::Only(Via::Tls));
    assert_hidden([firefox, chromium(Via::Udp)]);
}

#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn the_same_search_finds_both_parties_of_a_direct_call() {
    let call = call::run(
        Peers::Any,
        [Policy::All, Policy::All].map(Caller::of_policy),
        3,
    );
    eprintln!("{call}");
    for party in Party::BOTH {
        let told = in_text(party.addresses(), call.told(party));
        assert!(
            !told.is_empty(),
            "{} did not tell where it is",
            party.name()
        );
        let leg = &call.leg(party).packets;
        let found = in_packets(party.other().addresses(), leg);
        for form in [Form::Header, Form::Xored] {
            let count = found.iter().filter(|finding| finding.form == form).count();
            assert!(
                count > 0,
                "{form:?} is not found on the leg of {}",
                party.name()
            );
        }
    }
}

/// Alice gathers all candidates, asks STUN for her address, and tells Bob all
/// of them; the direct path is open. Bob only relays. The relay must not help:
/// Alice learns nothing of Bob, and nothing that the relay sends Bob names
/// Alice, though Bob himself may name her where she told him to.
#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn a_party_that_tries_everything_learns_nothing_and_what_is_relayed_stays_hidden() {
    let call = call::run(
        Peers::Relay,
        [Policy::All, Policy::Relay].map(Caller::of_policy),
        10,
    );
    eprintln!("{call}");
    call.assert_media_flowed();
    call.assert_relayed();
    call.assert_hairpin();

    let (alice, bob) = (Party::Alice.addresses(), Party::Bob.addresses());
    let found = call.leg(Party::Alice).findings(bob);
    assert_nothing(&found, "on the leg of alice");
    let leg_of_bob = call.leg(Party::Bob).packets.iter();
    let to_bob: Vec<_> = leg_of_bob
        .filter(|packet| bob.all().contains(&packet.destination))
        .collect();
    assert!(
        to_bob.len() > 500,
        "only {} packets were sent to bob",
        to_bob.len()
    );
    assert_nothing(&in_packets(alice, to_bob), "in what the relay sent to bob");
    let mut headers = in_packets(alice, &call.leg(Party::Bob).packets);
    headers.retain(|finding| finding.form == Form::Header);
    assert_nothing(&headers, "in headers on the leg of bob");
    assert_silence(&call);
}
