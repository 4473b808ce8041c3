//! What `/metrics` and `/metrics/allocations` say of calls while they live, that it is what
//! docs/observability.md says.
#![expect(clippy::panic, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use taciturn::turn::credential::{Claims, Credentials, Label};
use taciturn::turn::stats::{AuthFailure, DropReason, Limit, Path};

use crate::certificates;
use crate::house::{Daemon, House};
use crate::http::{Samples, families, parse};
use crate::loopback::client::SUCCESS;
use crate::loopback::eventually;
use crate::loopback::plane::{V4, unix};
use crate::media::talk;
use crate::nodes::{node, sealed};
use crate::serve::{PACKETS, call};

pub(crate) const PAGE: &str = "/metrics/allocations";

pub(crate) fn scrape(daemon: &Daemon, path: &str) -> Samples {
    let answer = daemon.get(path);
    assert_eq!(answer.status, 200);
    let kind = "content-type: text/plain; version=0.0.4";
    assert!(answer.head.contains(kind), "{}", answer.head);
    parse(&answer.body)
}

/// The rows of the tables in docs/observability.md: name, type, labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = concat!(
        include_str!("../../docs/observability.md"),
        include_str!("../../docs/media-quality.md"),
    );
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| row.split_once("` | "));
    let mut all = BTreeMap::new();
    for (name, rest) in rows {
        let cells: Vec<&str> = rest.trim_end_matches(" |").split(" | ").collect();
        let [kind, labels, meaning] = cells[..] else {
            let is_word = cells.len() == 1;
            assert!(is_word, "{name} is neither a metric nor a word: {cells:?}");
            continue;
        };
        assert!(meaning.len() > 10, "{name} says nothing");
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        let row = (kind.to_owned(), labels.collect());
        assert!(all.insert(name.to_owned(), row).is_none(), "{name} twice");
    }
    all
}

#[test]
fn every_word_of_a_label_is_documented_and_no_other_is() {
    let text = include_str!("../../docs/observability.md");
    let (_, tables) = text.split_once("## What the words of labels mean").unwrap();
    let (tables, _) = tables.split_once("\n## ").unwrap();
    let rows = tables.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut documented: Vec<&str> = rows.map(|row| row.split_once("` | ").unwrap().0).collect();
    let drops = DropReason::ALL.iter().map(|one| one.label());
    let limits = Limit::ALL.iter().map(|one| one.label());
    let failures = AuthFailure::ALL.iter().map(|one| one.label());
    let paths = Path::ALL.iter().map(|one| one.label());
    let mut words: Vec<&str> = drops.chain(limits).chain(failures).chain(paths).collect();
    documented.sort_unstable();
    words.sort_unstable();
    assert_eq!(documented, words);
}

#[test]
fn every_metric_is_documented_and_nothing_else_is() {
    let house = House::new("");
    let (daemon, _) = certificates::served(&house);
    let [a, mut b] = call(&house, &daemon);
    talk(&a, &mut b, [0, 1, 2]);
    let pages = ["/metrics", PAGE].map(|path| {
        let text = daemon.get(path).body;
        parse(&text);
        text
    });
    let exported = families(&pages.concat());
    let documented = documented();
    for (name, family) in &exported {
        assert_eq!(documented.get(name), Some(family), "{name} in the docs");
    }
    let missing: Vec<&String> = documented
        .keys()
        .filter(|n| !exported.contains_key(*n))
        .collect();
    assert!(missing.is_empty(), "documented, but not there: {missing:?}");
}

#[test]
fn distributions_tell_of_a_call() {
    let house = House::new("");
    let daemon = house.serve();
    let before = scrape(&daemon, "/metrics");
    let [mut a, _b] = call(&house, &daemon);
    assert_eq!(a.refresh(0).code(), SUCCESS);
    let after = scrape(&daemon, "/metrics");
    let more = |series: &str| after[series] - before[series];
    let sent = 2.0 * f64::from(PACKETS);
    for direction in ["in", "out"] {
        let series = |what: &str, le: &str| {
            format!("taciturn_packet_size_bytes_{what}{{direction=\"{direction}\"{le}}}")
        };
        for (bound, count) in [("128", 0.0), ("256", sent), ("1472", sent), ("+Inf", sent)] {
            assert_eq!(
                more(&series("bucket", &format!(",le=\"{bound}\""))),
                count,
                "{bound}"
            );
        }
        assert_eq!(more(&series("count", "")), sent);
        assert_eq!(more(&series("sum", "")), 160.0 * sent);
    }
    assert_eq!(more("taciturn_allocation_setup_seconds_count"), 2.0);
    assert!(more("taciturn_allocation_setup_seconds_sum") > 0.0);
    assert_eq!(more("taciturn_allocation_lifetime_seconds_count"), 1.0);
    assert_eq!(
        more("taciturn_allocations_ended_total{reason=\"closed\"}"),
        1.0
    );
    // Each worker's turns and batches are its own.
    let of_workers = |name: &str| -> f64 {
        let all = after.iter().filter(|(series, _)| series.starts_with(name));
        all.map(|(_, value)| value).sum()
    };
    assert!(of_workers("taciturn_worker_turns_total{") > 0.0);
    // A message for each packet and request at least; none came merged.
    assert!(of_workers("taciturn_worker_batch_size_sum{") >= sent);
    assert_eq!(
        after["taciturn_udp_datagrams_total{direction=\"in\",offload=\"none\"}"],
        of_workers("taciturn_worker_datagrams_total{")
    );
    assert!(after["taciturn_udp_datagrams_total{direction=\"out\",offload=\"none\"}"] >= sent);
    assert!(after["process_cpu_seconds_total"] > before["process_cpu_seconds_total"]);
    // Within a scrape one is read after the other, and a turn may end between the two.
    eventually("each turn is measured", || {
        let now = scrape(&daemon, "/metrics");
        let sum = |name: &str| -> f64 {
            let all = now.iter().filter(|(series, _)| series.starts_with(name));
            all.map(|(_, value)| value).sum()
        };
        sum("taciturn_worker_turn_seconds_count{") == sum("taciturn_worker_turns_total{")
    });
}

/// The one row of this family whose labels have all of `parts` in them.
pub(crate) fn row(samples: &Samples, family: &str, parts: &[&str]) -> f64 {
    let found: Vec<f64> = samples
        .iter()
        .filter(|(series, _)| series.split('{').next() == Some(family))
        .filter(|(series, _)| parts.iter().all(|part| series.contains(part)))
        .map(|(_, value)| *value)
        .collect();
    let [value] = found[..] else {
        panic!("{parts:?} of {family}: {found:?} in {samples:#?}")
    };
    value
}

pub(crate) fn opened(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log().into_iter();
    log.filter(|line| line["message"] == "allocation opened")
        .map(|line| line["allocation"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn each_allocation_of_a_call_has_its_own_row_while_it_lives() {
    let house = House::new("");
    let daemon = house.serve();
    let [mut a, _b] = call(&house, &daemon);
    eventually("both are in the log", || opened(&daemon).len() == 2);
    let [first, second]: [String; 2] = opened(&daemon).try_into().unwrap();
    a.send_channel(0x4001, b"on no channel");
    let dropped = [first.as_str(), "direction=\"in\""];
    eventually("the drop is counted", || {
        row(
            &scrape(&daemon, PAGE),
            "taciturn_allocation_drops_total",
            &dropped,
        ) == 1.0
    });
    let during = scrape(&daemon, PAGE);
    let sent = f64::from(PACKETS);
    for id in [&first, &second] {
        for direction in ["direction=\"in\"", "direction=\"out\""] {
            let parts = [id.as_str(), direction, "transport=\"udp\""];
            assert_eq!(
                row(&during, "taciturn_allocation_packets_total", &parts),
                sent
            );
            assert_eq!(
                row(&during, "taciturn_allocation_bytes_total", &parts),
                160.0 * sent
            );
        }
        assert!(row(&during, "taciturn_allocation_age_seconds", &[id]) < 3_600.0);
    }
    assert_eq!(during["taciturn_allocation_series{series=\"own\"}"], 2.0);
    assert_eq!(during["taciturn_allocation_series{series=\"other\"}"], 0.0);

    assert_eq!(a.refresh(0).code(), SUCCESS);
    eventually("it is gone", || {
        let page = daemon.get(PAGE).body;
        !page.contains(&first) && page.contains(&second)
    });
}

/// Two parties of one call with tenants, whose platform hears of them too.
#[test]
fn rows_say_tenant_and_call_as_events_do() {
    let house = node("a");
    let mut command = house.command(&["serve", "--config", "taciturn.toml"]);
    command.env("TACITURN_EVENTS__FILE", "events.jsonl");
    let daemon = house.start(command);
    let parties = ["alice", "bob"].map(|user| {
        let mut client = sealed(&daemon, |credentials: &Credentials| Claims {
            call: credentials.call("one"),
            tenant: Label::new("acme"),
            ..Claims::new(credentials.subject(user), unix())
        });
        client.allocate(V4);
        client
    });
    let events = || {
        let file = house.directory.path().join("events.jsonl");
        fs::read_to_string(file).unwrap_or_default()
    };
    eventually("both were told of", || events().lines().count() == 2);
    let during = scrape(&daemon, PAGE);
    let mut calls = BTreeSet::new();
    for event in events().lines() {
        let event: Value = serde_json::from_str(event).unwrap();
        let [id, call] = ["allocation", "call"].map(|key| event[key].as_str().unwrap());
        let labels = [
            format!("allocation=\"{id}\""),
            format!("call=\"{call}\""),
            "tenant=\"acme\"".to_owned(),
        ];
        let labels = labels.each_ref().map(String::as_str);
        row(&during, "taciturn_allocation_age_seconds", &labels);
        calls.insert(call.to_owned());
    }
    assert_eq!(calls.len(), 2, "rows tell who is in one call");
    drop(parties);
}

#[test]
fn beyond_the_bound_allocations_are_counted_together() {
    let house = House::new("[metrics]\nallocations = 1\ncoturn_names = false\n");
    let daemon = house.serve();
    let [a, _b] = call(&house, &daemon);
    let packets = |samples: &Samples| {
        let all = samples.iter().filter(|(series, _)| {
            series.starts_with("taciturn_allocation_packets_total") && !series.contains("\"other\"")
        });
        all.map(|(series, value)| (series.clone(), *value))
            .collect::<Samples>()
    };
    let other = |samples: &Samples| {
        let parts = ["allocation=\"other\"", "direction=\"in\""];
        row(samples, "taciturn_allocation_packets_total", &parts)
    };
    let first = scrape(&daemon, PAGE);
    assert_eq!(packets(&first).len(), 2, "one allocation, two directions");
    assert_eq!(first["taciturn_allocation_series{series=\"other\"}"], 1.0);
    let sent = 2.0 * f64::from(PACKETS);
    assert_eq!(other(&first), sent, "rows begin at their first sample");
    a.send_channel(0x4000, b"one more");
    eventually("it is in one row or the other", || {
        let now = scrape(&daemon, PAGE);
        let own: f64 = packets(&now)
            .iter()
            .filter(|(series, _)| series.contains("direction=\"in\""))
            .map(|(series, value)| value - first[series])
            .sum();
        own + other(&now) - sent == 1.0
    });
    let text = daemon.get("/metrics").body;
    assert!(!text.contains("\nturn_") && !text.contains("\nstun_"));
}

#[test]
fn a_reload_changes_what_is_told_and_takes_no_row_away() {
    let house = House::new("");
    let daemon = house.serve();
    let _call = call(&house, &daemon);
    let series = |kind: &str| {
        scrape(&daemon, PAGE)[&format!("taciturn_allocation_series{{series=\"{kind}\"}}")]
    };
    assert_eq!((series("own"), series("other")), (2.0, 0.0));
    let config = fs::read_to_string(house.config()).unwrap();
    house.write(&format!(
        "{config}\n[metrics]\nallocations = 1\ncoturn_names = false\n"
    ));
    certificates::hang_up(&daemon, "the configuration was read again and is in force");
    eventually("coturn's names are gone", || {
        !daemon
            .get("/metrics")
            .body
            .contains("turn_total_allocations")
    });
    let mut third = house.client(&daemon, "carol");
    third.allocate(V4);
    assert_eq!((series("own"), series("other")), (2.0, 1.0));
    drop(third);
}

#[test]
fn coturns_names_have_values_while_a_call_lives() {
    let house = House::new("realm = \"turn.example\"\n");
    let daemon = house.serve();
    let _call = call(&house, &daemon);
    let text = daemon.get("/metrics").body;
    let sent = 2 * u32::from(PACKETS);
    for (series, value) in [
        ("turn_total_allocations{type=\"UDP\"}", 2),
        ("turn_total_allocations{type=\"TLS/TCP\"}", 0),
        ("turn_total_traffic_rcvp", sent),
        ("turn_total_traffic_sentb", 160 * sent),
        ("turn_total_traffic_peer_rcvp", sent),
        ("turn_traffic_rcvb{realm=\"turn.example\"}", 160 * sent),
        ("turn_traffic_peer_sentp{realm=\"turn.example\"}", sent),
        ("turn_unauthenticated_401_requests", 2),
        ("turn_unauthenticated_401_responses", 2),
        ("stun_binding_request", 0),
        ("turn_ratelimit_total_buckets", 65_536),
    ] {
        let line = format!("\n{series} {value}\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[test]
fn a_certificates_expiry_is_told_and_follows_its_renewal() {
    let house = House::new("");
    let (daemon, _) = certificates::served(&house);
    let expiry = |listener: &str| {
        let series =
            format!("taciturn_certificate_expiry_timestamp_seconds{{listener=\"{listener}\"}}");
        scrape(&daemon, "/metrics").get(&series).copied()
    };
    // That of a certificate which rcgen makes unless told otherwise: the year 4096.
    let first = expiry("tls").unwrap();
    assert!(first > 67_000_000_000.0, "{first}");
    assert_eq!((expiry("dtls"), expiry("api")), (None, None));

    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["turn.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    let cert = params.self_signed(&key).unwrap();
    let directory = house.directory.path().join("data");
    fs::write(directory.join("tls.crt"), cert.pem()).unwrap();
    fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    certificates::hang_up(&daemon, "a new certificate is served");
    assert_eq!(expiry("tls"), Some(4_070_908_800.0));
}

#[test]
fn the_bind_mode_and_what_the_kernel_does_are_told() {
    let house = House::new("");
    let daemon = house.serve();
    let samples = scrape(&daemon, "/metrics");
    assert_eq!(samples["taciturn_relay_bind{mode=\"auto\"}"], 1.0);
    assert_eq!(samples["taciturn_relay_bind{mode=\"always\"}"], 0.0);
    assert_eq!(samples["taciturn_offload_active{offload=\"gro\"}"], 1.0);
    assert_eq!(samples["taciturn_offload_active{offload=\"gso\"}"], 1.0);
    assert!(samples["taciturn_receive_buffer_bytes"] >= 4_096.0);
    for worker in ["0", "1", "2", "3"] {
        for socket in ["listener", "relay"] {
            let series = format!(
                "taciturn_receive_queue_drops_total{{socket=\"{socket}\",worker=\"{worker}\"}}"
            );
            assert_eq!(samples[&series], 0.0, "{series}");
        }
    }
}
