//! Who gets at a party: by its own address, from the same relay IP, and by what the kernel says.

use crate::lab::capture::Capture;
use crate::lab::search::in_packets;
use crate::loopback::client::SUCCESS;
use crate::loopback::message::Received;
use crate::loopback::plane::{V4, V6};
use crate::report::Report;
use crate::stage::{Party, Stage};

use super::names::Mint;
use super::{CHANNEL, Call, SOON, reaching};

/// L1
pub(super) fn own_addresses(stage: &Stage) -> Report {
    let mut report = Report::default();
    for bind in [r#""auto""#, r#""always""#] {
        let daemon = stage.serve(&[("relay.bind", bind)]);
        let captures = [Party::Alice, Party::Bob].map(|party| stage.capture(party));
        for family in [V4, V6] {
            let mut call = Call::new(stage, family);
            let own = call.b.addr();
            let codes = (call.a.permit(own), call.a.bind(0x4001, own));
            report.holds(
                codes == (403, 403),
                format!("{family:?}: {codes:?} for Bob's own address"),
            );
            call.a.send_to(own, b"is it you?");
            call.a.send_channel(0x4001, b"is it you?");
            call.b.socket.send_to(b"straight", call.at_a).unwrap();
            report.holds(call.alice_hears_only_bob(), "Alice hears Bob's own address");
            let heard = call.b.receive_within(SOON);
            report.holds(
                heard.is_none(),
                "Bob hears what was sent to his own address",
            );
        }
        let [to_alice, to_bob] = captures.map(Capture::finish);
        let (to_alice, to_bob) = (
            reaching(Party::Alice, &to_alice),
            reaching(Party::Bob, &to_bob),
        );
        let count = to_alice.len() + to_bob.len();
        report.found("to alice", &in_packets(Party::Bob.addresses(), &to_alice));
        report.found("to bob", &in_packets(Party::Alice.addresses(), &to_bob));
        let refused = daemon.metric("taciturn_drops_total", "no_permission");
        assert!(refused >= 2, "the attack did not arrive");
        report.looked(format!("{count} packets (bind {bind})"));
    }
    report
}

/// L2
pub(super) fn same_relay_ip(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[]);
    let capture = stage.capture(Party::Alice);
    for family in [V4, V6] {
        let mut call = Call::new(stage, family);
        let mut stranger = stage.client(Party::Mallory, family, "mallory");
        let at_stranger = stranger.allocate(family);
        assert_eq!(at_stranger.ip(), call.at_b.ip());
        assert_eq!(stranger.bind(CHANNEL, call.at_a), SUCCESS);
        for _ in 0..10 {
            stranger.send_to(call.at_a, b"are you there?");
            stranger.send_channel(CHANNEL, b"are you there?");
        }
        report.holds(call.alice_hears_only_bob(), "Alice hears a stranger");
        let answer = stranger.receive_within(SOON);
        report.holds(answer.is_none(), "the stranger is answered");
    }
    let packets = reaching(Party::Alice, &capture.finish());
    report.found(
        "to alice",
        &in_packets(Party::Mallory.addresses(), &packets),
    );
    let dropped = daemon.metric("taciturn_drops_total", "not_named");
    assert_eq!(dropped, 40, "the attack did not arrive");
    report.looked(format!("{} packets, 40 dropped and counted", packets.len()));
    report
}

/// L2, of those who are in no call of Alice's.
pub(super) fn other_call(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[("policy.peers", r#""call""#)]);
    let mint = Mint::of(&daemon);
    let client = |party, family, user: &str, call: Option<&str>| {
        let credential = mint.sealed(user, |credentials, claims| {
            claims.call = call.and_then(|call| credentials.call(call));
        });
        let mut client = stage.client_at(party, Party::at(party, family), credential);
        let relayed = client.allocate(family);
        (client, relayed)
    };
    let capture = stage.capture(Party::Alice);
    for family in [V4, V6] {
        let (mut a, at_a) = client(Party::Alice, family, "alice", Some("monday"));
        let (mut b, at_b) = client(Party::Bob, family, "bob", Some("monday"));
        assert_eq!((a.bind(CHANNEL, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        for (who, user, call) in [
            (Party::Mallory, "mallory", Some("tuesday")),
            (Party::Mallory, "mallory", None),
            (Party::Bob, "bob", Some("tuesday")),
        ] {
            let (mut other, at_other) = client(who, family, user, call);
            // Even called by name.
            assert_eq!((a.permit(at_other), other.permit(at_a)), (SUCCESS, SUCCESS));
            for _ in 0..5 {
                other.send_to(at_a, b"are you there?");
                a.send_to(at_other, b"are you there?");
            }
            let heard = other.receive_within(SOON);
            report.holds(heard.is_none(), format!("{user} of {call:?} hears Alice"));
        }
        b.send_to(at_a, b"only this");
        let heard = a.receive() == Received::Channel(CHANNEL, b"only this".to_vec());
        report.holds(heard, "Alice hears who is in no call of hers");
    }
    let packets = reaching(Party::Alice, &capture.finish());
    report.found(
        "to alice",
        &in_packets(Party::Mallory.addresses(), &packets),
    );
    let dropped = daemon.metric("taciturn_drops_total", "other_call");
    assert_eq!(dropped, 60, "the attack did not arrive");
    report.looked(format!("{} packets, 60 dropped and counted", packets.len()));
    report
}

/// L6
pub(super) fn errors(stage: &Stage) -> Report {
    let mut report = Report::default();
    let _daemon = stage.serve(&[]);
    let captures = [Party::Alice, Party::Bob].map(|party| stage.capture(party));
    for family in [V4, V6] {
        let Call { mut a, b, at_b, .. } = Call::new(stage, family);
        drop(b);
        for _ in 0..10 {
            a.send_channel(CHANNEL, b"are you there?");
            a.send_whole(at_b, &[0; 1_300]);
            std::thread::sleep(SOON / 30);
        }
        let told = a.receive_within(SOON);
        report.holds(told.is_none(), format!("Alice is told {told:02x?}"));
    }
    let [to_alice, on_bobs_leg] = captures.map(Capture::finish);
    let errors = on_bobs_leg
        .iter()
        .filter(|packet| [1, 58].contains(&packet.protocol));
    let errors = errors.filter(|packet| Party::Bob.addresses().all().contains(&packet.source));
    let errors = errors.count();
    assert!(errors >= 20, "Bob's kernel says nothing: {errors}");
    let to_alice = reaching(Party::Alice, &to_alice);
    let icmp = to_alice
        .iter()
        .filter(|packet| packet.protocol == 1)
        .count();
    report.holds(icmp == 0, format!("{icmp} ICMP packets to Alice"));
    report.found("to alice", &in_packets(Party::Bob.addresses(), &to_alice));
    report.looked(format!(
        "{} packets after {errors} ICMP errors",
        to_alice.len()
    ));
    report
}
