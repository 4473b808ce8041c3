use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::turn::Tick;
use crate::turn::credential::{CallId, Label};
use crate::turn::media::{Media, Shape, Tally};
use crate::turn::revocation::UsernameDigest;
use crate::turn::stats::Meters;

const SCHEMA_TEXT: &str = include_str!("../../../docs/events.schema.json");
const TRANSPORTS: [Transport; 4] = Transport::ALL;
const REASONS: [EndReason; 8] = [
    EndReason::Expired,
    EndReason::Closed,
    EndReason::Disconnected,
    EndReason::Replaced,
    EndReason::Revoked,
    EndReason::Banned,
    EndReason::Refused,
    EndReason::Stopped,
];

fn schema() -> Value {
    serde_json::from_str(SCHEMA_TEXT).unwrap()
}

fn party(transport: Transport, is_sealed: bool) -> Party {
    let subject = Subject::from_bytes([7; 16]);
    let claims = Claims {
        tenant: Label::new("north"),
        call: Some(CallId::from_bytes([9; 16])),
        session_max: Some(Duration::from_secs(60)),
        ..Claims::new(subject, 1_800_000_000)
    };
    Party {
        id: AllocationId(0xAB),
        subject,
        claims: is_sealed.then(|| Arc::new(claims)),
        transport,
    }
}

/// What went through an allocation whose client sent an RTP stream, of which these packets came;
/// from the second one on it was a stream.
fn with_media(numbers: &[u8]) -> Meters {
    let meters = Meters::default();
    let (mut media, mut tally) = (Media::default(), Tally::default());
    for number in numbers {
        let header = [0x80, 111, 0, *number, 0, 0, 0, 0, 1, 2, 3, 4];
        let shape = Shape::of(&header).unwrap();
        media.take(Direction::In, shape, Tick::default(), &mut tally);
    }
    meters.media_received(&tally);
    meters
}

/// One of every kind, with every label in it.
fn all() -> Vec<Event> {
    let at = 1_800_000_100;
    let mut events = Vec::new();
    for transport in TRANSPORTS {
        for is_sealed in [true, false] {
            let party = party(transport, is_sealed);
            events.push(Event::Opened { at, party });
        }
    }
    for reason in REASONS {
        events.push(Event::Closed {
            at,
            party: party(Transport::Udp, true),
            reason,
            seconds: 100,
            totals: Totals::of_meters(&Meters::default()),
        });
    }
    for numbers in [&[1, 2][..], &[1, 2, 4, 3, 9], &[1]] {
        events.push(Event::Closed {
            at,
            party: party(Transport::Udp, true),
            reason: EndReason::Closed,
            seconds: 100,
            totals: Totals::of_meters(&with_media(numbers)),
        });
    }
    for reason in AuthFailure::ALL {
        if *reason != AuthFailure::Missing {
            events.push(Event::AuthFailures {
                at,
                reason: *reason,
                count: 3,
                seconds: 60,
            });
        }
    }
    for what in [
        Revoked::Credential(UsernameDigest::of("a username")),
        Revoked::User(Subject::from_bytes([1; 16])),
        Revoked::Call(CallId::from_bytes([2; 16])),
    ] {
        events.push(Event::Revoked { at, what });
    }
    events
}

#[test]
fn every_event_is_as_the_schema_says() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for event in all() {
        let line = event.line();
        let value: Value = serde_json::from_str(&line).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| error.to_string())
            .collect();
        assert_eq!(errors, Vec::<String>::new(), "{line}");
        assert!(!line.contains('\n'));
    }
}

/// A schema that takes anything says nothing.
#[test]
fn the_schema_refuses_what_no_event_is() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let good: Value = serde_json::from_str(&all()[0].line()).unwrap();
    for (key, value) in [
        ("schema", json!(2)),
        ("event", json!("allocation.closed")),
        ("client", json!("203.0.113.7:5000")),
        ("allocation", json!("203.0.113.7")),
        ("transport", json!("quic")),
        ("tenant", json!("a b")),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(!validator.is_valid(&bad), "{bad}");
    }
    for key in [
        "schema",
        "event",
        "at",
        "allocation",
        "subject",
        "transport",
    ] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(key);
        assert!(!validator.is_valid(&bad), "without {key}");
    }
}

/// The schema lists the labels that there are, no more.
#[test]
fn the_schema_knows_every_label_and_no_other() {
    let schema = schema();
    let listed = |path: &str| -> Vec<String> {
        let list = schema.pointer(path).unwrap().as_array().unwrap();
        list.iter()
            .map(|l| l.as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        listed("/$defs/transport/enum"),
        TRANSPORTS.map(Transport::label)
    );
    assert_eq!(
        listed("/$defs/closed/properties/reason/enum"),
        REASONS.map(EndReason::label)
    );
    let failures = AuthFailure::ALL.iter().map(|reason| reason.label());
    let failures: Vec<_> = failures.filter(|label| *label != "missing").collect();
    assert_eq!(listed("/$defs/failures/properties/reason/enum"), failures);
    assert_eq!(schema.pointer("/$defs/schema/const"), Some(&json!(SCHEMA)));
}

#[test]
fn a_closed_allocation_says_what_to_bill() {
    let meters = Meters::default();
    meters
        .traffic(Path::Hairpin, Direction::In)
        .packets
        .add_shared(5);
    meters
        .traffic(Path::Hairpin, Direction::In)
        .bytes
        .add_shared(800);
    meters
        .traffic(Path::Relay, Direction::Out)
        .bytes
        .add_shared(7);
    let event = Event::Closed {
        at: 1_800_000_100,
        party: party(Transport::Tls, true),
        reason: EndReason::Closed,
        seconds: 40,
        totals: Totals::of_meters(&meters),
    };
    let none = json!({ "packets": 0, "bytes": 0 });
    let said: Value = serde_json::from_str(&event.line()).unwrap();
    let expected = json!({
        "schema": 1,
        "event": "allocation.closed",
        "at": 1_800_000_100,
        "allocation": "00000000000000ab",
        "subject": "07".repeat(16),
        "tenant": "north",
        "call": "8eebc862c9c3bac1101a9d6f1f652332",
        "transport": "tls",
        "reason": "closed",
        "opened": 1_800_000_060,
        "seconds": 40,
        "traffic": {
            "hairpin": { "in": { "packets": 5, "bytes": 800 }, "out": none },
            "relay": { "in": none, "out": { "packets": 0, "bytes": 7 } },
            "indication": { "in": none, "out": none },
        },
    });
    assert_eq!(said, expected);
}

#[test]
fn a_closed_allocation_says_what_its_streams_came_to_and_nothing_of_none() {
    let media = |meters: &Meters| -> Value {
        let event = Event::Closed {
            at: 1_800_000_100,
            party: party(Transport::Udp, false),
            reason: EndReason::Closed,
            seconds: 40,
            totals: Totals::of_meters(meters),
        };
        let said: Value = serde_json::from_str(&event.line()).unwrap();
        said["media"].clone()
    };
    let meters = with_media(&[1, 2, 4, 3, 9]);
    let mut expected = json!({
        "in": {
            "streams": 1,
            "packets": 4,
            "lost": 4,
            "reordered": 1,
            "gaps": 0,
            "gap_seconds": 0.0,
        },
    });
    assert_eq!(media(&meters), expected);
    meters.set_jitter(Direction::In, Duration::from_micros(1_500));
    expected["in"]["jitter_seconds"] = json!(0.0015);
    assert_eq!(media(&meters), expected);

    // One packet is no stream.
    assert_eq!(media(&with_media(&[1])), Value::Null);
    assert_eq!(media(&Meters::default()), Value::Null);
}

#[test]
fn lines_of_two_parties_do_not_tell_that_they_are_in_one_call() {
    let call = CallId::from_bytes([9; 16]);
    let [a, b] = [1, 2].map(|n| told(call, Subject::from_bytes([n; 16])));
    assert_ne!(a, b);
    assert_eq!(a, told(call, Subject::from_bytes([1; 16])));
    assert!(![a, b].contains(&call.to_string()));

    // Nor does the line of a revocation have what they could be made from.
    let what = Revoked::Call(call);
    let line = Event::Revoked { at: 0, what }.line();
    assert!(!line.contains(&call.to_string()), "{line}");
    assert!(line.contains(&told_of_revoked(call)), "{line}");
}

#[test]
fn a_queue_that_is_full_drops_and_counts_and_holds_up_nobody() {
    let (events, queues) = Events::new(&[Outlet::File, Outlet::Webhook], 3);
    let event = &all()[0];
    (0..10).for_each(|_| events.send(event));
    for (outlet, queue) in [Outlet::File, Outlet::Webhook].into_iter().zip(&queues) {
        let dropped = events.counts(outlet).dropped.load(Ordering::Relaxed);
        assert_eq!((dropped, queue.try_iter().count()), (7, 3));
    }
    // One that nobody reads any more holds up no other.
    drop(queues);
    events.send(event);
    Events::default().send(event);
}

#[test]
fn a_queue_takes_another_bound_while_lines_are_in_it() {
    let (queue, lines) = Queue::new(Outlet::Webhook, 3);
    let events = Events::default();
    events.write_to(vec![queue.clone()]);
    let event = &all()[0];
    let dropped_of = |number: usize| {
        let dropped = &events.counts(Outlet::Webhook).dropped;
        let before = dropped.load(Ordering::Relaxed);
        (0..number).for_each(|_| events.send(event));
        dropped.load(Ordering::Relaxed) - before
    };
    assert_eq!(dropped_of(4), 1);
    queue.set_room(5);
    assert_eq!(dropped_of(4), 2);
    // What is in it stays, and goes before there is room again.
    queue.set_room(2);
    assert_eq!(lines.try_iter().take(3).count(), 3);
    assert_eq!(dropped_of(1), 1);
    lines.recv().unwrap();
    assert_eq!(dropped_of(2), 1);
    assert_eq!(lines.try_iter().count(), 2);
}
