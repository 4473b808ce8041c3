//! Where a call is relayed: nowhere that either party's own place decides.

use std::collections::BTreeSet;

use serde_json::Value;
use taciturn::turn::credential::Label;

use crate::collect::post;
use crate::loopback::plane::V4;
use crate::report::Report;
use crate::stage::{Daemon, Party, Stage};

use super::names::Mint;

const NODES: &str = r#"[{ id = "a", urls = ["turn:a.example.org:3478"] },
    { id = "b", urls = ["turn:b.example.org:3478"] }]"#;

/// Where the platform is told to send `user` for `call`.
fn sent(daemon: &Daemon<'_>, user: &str, call: &str) -> (String, String) {
    let body = format!(r#"{{"user":"{user}","call":"{call}","ttl":600}}"#);
    let answer = post(daemon, "/v1/credentials", &body);
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let minted: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    let text = |at: &str| minted.pointer(at).unwrap().as_str().unwrap().to_owned();
    (text("/iceServers/0/urls/0"), text("/node"))
}

/// L8
pub(super) fn one_for_both(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[("api.node", r#""a""#), ("api.nodes", NODES)]);
    let mut nodes = BTreeSet::new();
    for number in 0..40 {
        let call = format!("call-{number}");
        let [alice, bob] = ["alice", "bob"].map(|user| sent(&daemon, user, &call));
        report.holds(alice == bob, format!("{call}: {alice:?}, {bob:?}"));
        nodes.insert(alice.1);
    }
    assert_eq!(nodes.len(), 2, "every call goes to {nodes:?}");

    // Nor can a party move the call to the node that is nearest to it.
    let mint = Mint::of(&daemon);
    for (audience, code) in [("a", 0), ("b", 401)] {
        for party in [Party::Alice, Party::Bob] {
            let credential = mint.sealed(party.name(), |_, claims| {
                claims.audience = Label::new(audience);
            });
            let mut client = stage.client_at(party, party.at(V4), credential);
            let got = client.try_allocate(V4).code();
            report.holds(
                got == code,
                format!("a credential for {audience} gets {got}"),
            );
        }
    }
    report.looked("80 credentials, 4 Allocates");
    report
}
