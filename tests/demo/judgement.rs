//! What the page takes for an own address, tried on its scripts in the browser without a call: what
//! would be alarming never comes about in a call through this relay.

use serde_json::{Value, json};

use crate::chromium::{Chromium, Tab};
use crate::lab::{Lab, Party};
use crate::window::Ask;
use crate::{Demo, PAGE};

/// The verdict of a window that learned these addresses: type and address of each.
fn verdict(tab: &mut Tab, mode: &str, learned: &Value) -> Value {
    tab.ask(&format!(
        r#"(async () => {{
          const {{ Panel }} = await import("/panel.js");
          const panel = new Panel({{ id: "a", name: "Alice" }}, {{ id: "b", name: "Bob" }});
          const found = {learned}.map(([type, address]) => [
            address,
            {{ type, address, ports: new Set([1]) }},
          ]);
          const known = {{ mode: "{mode}", relays: ["203.0.113.7"], camera: true }};
          panel.tell(new Map(found), known);
          return panel.root.dataset.verdict;
        }})()"#
    ))
}

/// What a party learns from a candidate that the other one tells.
fn learned(tab: &mut Tab, candidate: &str) -> Value {
    tab.ask(&format!(
        r#"(async () => {{
          const {{ Party }} = await import("/call.js");
          const party = new Party({{ send() {{}}, hear() {{}} }});
          const stream = new MediaStream();
          party.begin({{ call: "this", configuration: {{}}, stream, offers: false }});
          const candidate = {{ candidate: "candidate:1 1 udp 1 {candidate}", sdpMid: "0" }};
          party.receive({{ call: "this", candidate }});
          const other = candidate.candidate.replaceAll("203", "198");
          party.receive({{ call: "another", candidate: {{ candidate: other, sdpMid: "0" }} }});
          await new Promise((done) => setTimeout(done, 50));
          const found = [...party.learned.values()].map(({{ type, address }}) => [type, address]);
          party.end();
          return found;
        }})()"#
    ))
}

#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn the_page_tells_an_own_address_from_a_relayed_one_and_from_a_stand_in() {
    let lab = Lab::new(&["chromium"]);
    let demo = Demo::start(&lab, &[]);
    let mut browser = Chromium::start(&lab, Party::Alice, PAGE);
    let mut tab = browser.tab();
    tab.open(PAGE);
    for (mode, learned, expected) in [
        ("relay", json!([]), "none"),
        ("relay", json!([["relay", "203.0.113.7"]]), "good"),
        // Another relay's, which is not ours to speak for.
        ("relay", json!([["relay", "203.0.113.8"]]), "bad"),
        // Before signalling told it, a relayed address is peer-reflexive.
        ("relay", json!([["prflx", "203.0.113.7"]]), "good"),
        ("relay", json!([["prflx", "192.0.2.10"]]), "bad"),
        (
            "relay",
            json!([["relay", "203.0.113.7"], ["related", "192.0.2.10"]]),
            "bad",
        ),
        (
            "relay",
            json!([["relay", "203.0.113.7"], ["host", "a-b-c.local"]]),
            "fair",
        ),
        ("direct", json!([["host", "a-b-c.local"]]), "fair"),
        (
            "direct",
            json!([["host", "a-b-c.local"], ["srflx", "198.51.100.1"]]),
            "bad",
        ),
        ("direct", json!([["host", "2001:db8::1"]]), "bad"),
        // The same machine's, and not by the relay.
        ("direct", json!([["host", "203.0.113.7"]]), "bad"),
    ] {
        assert_eq!(
            verdict(&mut tab, mode, &learned),
            expected,
            "{mode}: {learned}"
        );
    }
    let relay = json!(["relay", "203.0.113.7"]);
    for (candidate, expected) in [
        ("203.0.113.7 61000 typ relay", json!([relay])),
        (
            "203.0.113.7 61000 typ relay raddr 0.0.0.0 rport 0",
            json!([relay]),
        ),
        // As a masked client is told.
        (
            "203.0.113.7 61000 typ relay raddr 203.0.113.7 rport 61000",
            json!([relay]),
        ),
        (
            "203.0.113.7 61000 typ relay raddr 192.0.2.10 rport 5",
            json!([["related", "192.0.2.10"], relay]),
        ),
        (
            "2001:db8:203::7 9 typ host tcptype active",
            json!([["host", "2001:db8:203::7"]]),
        ),
        ("no candidate", json!([])),
    ] {
        assert_eq!(learned(&mut tab, candidate), expected, "{candidate}");
    }
    browser.quit();
    demo.end();
}
