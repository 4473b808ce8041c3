//! The quality of media in metrics, rows of allocations and events of the real binary.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::house::{Daemon, House};
use crate::http::{families, parse};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::plane::V4;
use crate::loopback::{PATIENCE, eventually};
use crate::metrics::{PAGE, opened, row, scrape};

/// A packet of an RTP stream (RFC 3550 §5.1).
fn rtp(number: u8) -> [u8; 172] {
    let mut packet = [0xE5; 172];
    packet[..4].copy_from_slice(&[0x80, 111, 0, number]);
    packet
}

/// These packets of a stream go from one to the other, on the channel that there is.
pub(crate) fn talk(a: &Client, b: &mut Client, numbers: impl IntoIterator<Item = u8>) {
    for number in numbers {
        a.send_channel(0x4000, &rtp(number));
        b.receive();
    }
}

/// Two clients, of whom the first may talk to the second.
fn parties(house: &House, daemon: &Daemon) -> [Client; 2] {
    let [mut a, mut b] = ["alice", "bob"].map(|user| house.client(daemon, user));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    [a, b]
}

/// A stream of which each fifth packet is lost: 101 that count, 81 that come.
fn lossy() -> impl Iterator<Item = u8> {
    (0..=101).filter(|number| *number < 2 || number % 5 != 0)
}

/// What the metrics say after that stream.
fn after_a_stream(house: &House) -> String {
    let daemon = house.serve();
    let [a, mut b] = parties(house, &daemon);
    talk(&a, &mut b, lossy());
    daemon.get("/metrics").body
}

#[test]
fn the_metrics_tell_how_much_of_a_stream_was_lost() {
    let samples = parse(&after_a_stream(&House::new("")));
    for direction in ["in", "out"] {
        for (name, value) in [
            ("streams_total", 1.0),
            ("expected_packets_total", 101.0),
            ("packets_total", 81.0),
            ("reordered_packets_total", 0.0),
            ("duplicate_packets_total", 0.0),
            ("unmeasured_packets_total", 1.0),
            ("rtcp_packets_total", 0.0),
        ] {
            let series = format!("taciturn_media_{name}{{direction=\"{direction}\"}}");
            assert_eq!(samples[&series], value, "{series}");
        }
    }
}

#[test]
fn nothing_of_media_is_counted_where_the_configuration_says_so() {
    let samples = parse(&after_a_stream(&House::new("[metrics]\nquality = false\n")));
    let media = samples
        .iter()
        .filter(|(series, _)| series.starts_with("taciturn_media_"));
    let sum: f64 = media.clone().map(|(_, value)| value).sum();
    assert!(media.count() > 0);
    assert_eq!(sum, 0.0);
}

#[test]
fn every_metric_of_media_is_documented_and_no_other_is() {
    let text = after_a_stream(&House::new(""));
    let mut exported = families(&text);
    exported.retain(|name, _| name.starts_with("taciturn_media_"));
    let rows = include_str!("../../docs/media-quality.md").lines();
    let rows = rows.filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let documented: BTreeMap<String, (String, BTreeSet<String>)> = rows
        .map(|(name, rest)| {
            let mut cells = rest.split(" | ");
            let kind = cells.next().unwrap().to_owned();
            let labels = cells.next().unwrap().split(", ");
            let labels = labels.map(|label| label.trim_matches('`').to_owned());
            (name.to_owned(), (kind, labels.collect()))
        })
        .collect();
    assert_eq!(exported, documented);
}

/// The names of two allocations, in the order in which they were made.
fn names(daemon: &Daemon) -> [String; 2] {
    eventually("both are in the log", || opened(daemon).len() == 2);
    opened(daemon).try_into().unwrap()
}

#[test]
fn the_rows_of_a_call_tell_how_much_of_its_stream_was_lost() {
    let house = House::new("");
    let daemon = house.serve();
    let [mut a, mut b] = parties(&house, &daemon);
    let [first, second] = names(&daemon);
    assert!(
        !daemon
            .get(PAGE)
            .body
            .contains(&format!("media_packets_total{{allocation=\"{first}"))
    );
    talk(&a, &mut b, lossy());
    let of = |family: &str, id: &str, direction: &str| {
        let direction = format!("direction=\"{direction}\"");
        let family = format!("taciturn_allocation_media_{family}");
        row(&scrape(&daemon, PAGE), &family, &[id, &direction])
    };
    for (family, value) in [
        ("expected_packets_total", 101.0),
        ("packets_total", 81.0),
        ("reordered_packets_total", 0.0),
        ("jitter_seconds", 0.0),
    ] {
        assert_eq!(of(family, &first, "in"), value, "{family}");
        assert_eq!(of(family, &second, "out"), value, "{family}");
        assert_eq!(of(family, &first, "out"), 0.0, "{family}");
        assert_eq!(of(family, &second, "in"), 0.0, "{family}");
    }
    // What came before the series began is there too, so that the next packets are the increase.
    let other = |family: &str| of(family, "\"other\"", "in");
    assert_eq!(other("expected_packets_total"), 101.0);
    assert_eq!(other("packets_total"), 81.0);

    // Four more, of which two come, and nobody looks before the end.
    talk(&a, &mut b, [102, 105]);
    assert_eq!(a.refresh(0).code(), SUCCESS);
    eventually("what nobody saw is in the other row", || {
        other("expected_packets_total") == 105.0 && other("packets_total") == 83.0
    });
    assert!(!daemon.get(PAGE).body.contains(&first));
    assert_eq!(of("packets_total", &second, "out"), 83.0);
}

#[test]
fn the_rows_of_a_call_tell_the_jitter_of_its_stream() {
    let house = House::new("");
    let daemon = house.serve();
    let [a, mut b] = parties(&house, &daemon);
    let [first, second] = names(&daemon);
    let began = Instant::now();
    let jitter = |id: &str, direction: &str| {
        let family = "taciturn_allocation_media_jitter_seconds";
        row(&scrape(&daemon, PAGE), family, &[id, direction])
    };
    let mut packet = rtp(0);
    for number in 0_u16.. {
        // Sent when it says, at 48,000 Hz, as far as this machine can.
        let stamp = u32::try_from(began.elapsed().as_millis()).unwrap() * 48;
        packet[2..4].copy_from_slice(&number.to_be_bytes());
        packet[4..8].copy_from_slice(&stamp.to_be_bytes());
        a.send_channel(0x4000, &packet);
        b.receive();
        let looks = number % 50 == 49;
        if looks && jitter(&first, "direction=\"in\"") > 0.0 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "no jitter yet");
        thread::sleep(Duration::from_millis(10));
    }
    let found = jitter(&first, "direction=\"in\"");
    assert_eq!(jitter(&second, "direction=\"out\""), found);
    assert_eq!(jitter(&first, "direction=\"out\""), 0.0);
}

#[test]
fn the_event_of_an_end_tells_what_its_stream_came_to() {
    let house = House::new("[events]\nfile = \"events.jsonl\"\n");
    let daemon = house.serve();
    let mut all = parties(&house, &daemon);
    let [first, second] = names(&daemon);
    let [a, b] = &mut all;
    talk(a, b, lossy());
    let mut third = house.client(&daemon, "carol");
    third.allocate(V4);
    for client in all.iter_mut().chain([&mut third]) {
        assert_eq!(client.refresh(0).code(), SUCCESS);
    }
    let closed = || -> Vec<Value> {
        let file = house.directory.path().join("events.jsonl");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let events = events.filter(|event: &Value| event["event"] == "allocation.closed");
        events.collect()
    };
    eventually("all three are told of", || closed().len() == 3);
    let stream = json!({
        "streams": 1,
        "packets": 81,
        "lost": 20,
        "reordered": 0,
    });
    for mut event in closed() {
        let id = event["allocation"].as_str().unwrap().to_owned();
        let media = &mut event["media"];
        for direction in media.as_object_mut().into_iter().flatten() {
            // A busy machine makes gaps.
            for key in ["gaps", "gap_seconds"] {
                assert!(direction.1.as_object_mut().unwrap().remove(key).is_some());
            }
        }
        match id {
            id if id == first => assert_eq!(*media, json!({ "in": stream })),
            id if id == second => assert_eq!(*media, json!({ "out": stream })),
            _ => assert_eq!(*media, Value::Null, "no stream was there"),
        }
    }
}
