//! Two calls between the same browsers, of which the platform revokes one.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::browser::{self, Browser, Opened};
use crate::lab::relay::{Kind, Peers, Relay};
use crate::lab::{Lab, Party};
use crate::signalling::Signalling;

/// For how long both calls are watched once they stand.
const SECONDS: u64 = 12;

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is later than 1970").as_millis();
    u64::try_from(now).expect("it is earlier than the year 500,000,000")
}

/// What `party`'s page reports once `key` is in it.
fn reported(signalling: &Signalling, party: Party, key: &str, deadline: Instant) -> Value {
    loop {
        let result = signalling.result(party, deadline).unwrap_or_default();
        if !result[key].is_null() {
            return result;
        }
        let name = party.name();
        assert!(result["error"].is_null(), "{name}: {result}");
        assert!(Instant::now() < deadline, "{name}: no {key}: {result}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// An `RTCConfiguration` for `party` in `call`, as the platform's backend gets it.
fn minted(relay: &Relay<'_>, party: Party, call: &str) -> Value {
    let body = json!({ "user": party.name(), "call": call, "policy": "call" });
    let (status, answer) = relay.api("POST /v1/credentials", Some(&body));
    assert!((200..300).contains(&status), "{status} {answer}");
    let answer: Value = serde_json::from_str(&answer).expect("the answer is JSON");
    json!({
        "iceServers": answer["iceServers"],
        "iceTransportPolicy": answer["iceTransportPolicy"],
    })
}

/// T25
#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn a_revoked_call_ends_within_a_second_while_another_goes_on() {
    let lab = Lab::new(&[Browser::Chromium.program(), "certutil"]);
    let relay = Relay::start(&lab, Kind::Taciturn, Peers::Relay, "rfc8656");
    let task = |party| {
        let configurations = ["first", "second"].map(|call| minted(&relay, party, call));
        json!({
            "isOfferer": party == Party::Alice,
            "seconds": SECONDS,
            "configurations": configurations,
        })
    };
    let tasks = Party::BOTH.map(|party| (party, task(party)));
    let signalling = Signalling::start_with(&lab, tasks, include_str!("two.js"));
    let browsers = Party::BOTH.map(|party| browser::open(&lab, party, Browser::Chromium));
    let deadline = Instant::now() + Duration::from_secs(60);
    for party in Party::BOTH {
        reported(&signalling, party, "connected", deadline);
    }
    thread::sleep(Duration::from_secs(4));
    let (status, answer) = relay.api("DELETE /v1/calls/first", None);
    let revoked = unix_millis();
    assert!((200..300).contains(&status), "{status} {answer}");
    let deadline = Instant::now() + Duration::from_secs(30);
    let seen = Party::BOTH.map(|party| reported(&signalling, party, "heard", deadline));
    let logs = browsers.each_ref().map(Opened::last_words);
    for ((party, seen), log) in Party::BOTH.into_iter().zip(&seen).zip(logs) {
        let name = party.name();
        let heard = |call: usize| seen["heard"][call].as_u64().unwrap_or_default();
        let ended = seen["ended"].as_u64().unwrap_or_default();
        eprintln!(
            "{name}: the revoked call was heard until {} ms after, the other until {} ms before the end",
            i128::from(heard(0)) - i128::from(revoked),
            ended.saturating_sub(heard(1)),
        );
        assert!(
            heard(0) + 1_000 > revoked,
            "{name}: the first call was silent before: {seen}\n{log}"
        );
        assert!(
            heard(0) <= revoked + 1_000,
            "{name}: the first call goes on: {seen} {revoked}"
        );
        assert!(
            heard(1) + 1_000 > ended,
            "{name}: the second call ended too: {seen}"
        );
        assert!(
            ended > revoked + 3_000,
            "{name}: nothing was watched: {seen}"
        );
    }
    relay.stop();
}
