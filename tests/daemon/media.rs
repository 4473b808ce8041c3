//! The quality of media in the metrics of the real binary.

use std::collections::{BTreeMap, BTreeSet};

use crate::house::House;
use crate::http::{families, parse};
use crate::loopback::client::SUCCESS;
use crate::loopback::plane::V4;

/// A packet of an RTP stream (RFC 3550 §5.1).
fn rtp(number: u8) -> [u8; 172] {
    let mut packet = [0xE5; 172];
    packet[..4].copy_from_slice(&[0x80, 111, 0, number]);
    packet
}

/// What the metrics say after a stream of which each fifth packet was lost.
fn after_a_stream(house: &House) -> String {
    let daemon = house.serve();
    let [mut a, mut b] = ["alice", "bob"].map(|user| house.client(&daemon, user));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    for number in (0..=101).filter(|number| *number < 2 || number % 5 != 0) {
        a.send_channel(0x4000, &rtp(number));
        b.receive();
    }
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
