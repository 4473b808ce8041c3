//! Limits of the configuration, at the real binary.

use std::collections::BTreeSet;

use taciturn::proto::{Method, RequestedTransport};

use crate::house::House;
use crate::http::parse;
use crate::loopback::client::SUCCESS;
use crate::loopback::eventually;
use crate::loopback::plane::V4;

#[test]
fn configured_limits_hold_and_are_counted_by_name() {
    let house = House::new(
        "[limits]\nuser_allocations = 2\ntotal_allocations = 3\nallocation_packets = \"5/s\"\n\
         permissions = 1\n",
    );
    let daemon = house.serve();
    let code = |user: &str| {
        let mut client = house.client(&daemon, user);
        (client.try_allocate(V4).code(), client)
    };
    let (first, second) = (code("alice"), code("alice"));
    assert_eq!((first.0, second.0), (SUCCESS, SUCCESS));
    assert_eq!(code("alice").0, 486);
    let _bob = code("bob");
    assert_eq!(code("carol").0, 486);
    let metrics = parse(&daemon.get("/metrics").body);
    for (limit, count) in [
        ("user_allocations", 1.0),
        ("total_allocations", 1.0),
        ("tenant_allocations", 0.0),
    ] {
        let series = format!("taciturn_limited_total{{limit=\"{limit}\"}}");
        assert_eq!(metrics[&series], count, "{series}");
    }
    assert_eq!(metrics["taciturn_drops_total{reason=\"over_rate\"}"], 0.0);
}

/// T40: the number of series does not grow with users.
#[test]
fn users_who_come_and_go_add_no_series() {
    let house = House::new("[limits]\nuser_allocations = 1\nuser_rate = \"4Mbit/s\"\n");
    let daemon = house.serve();
    let series = || -> BTreeSet<String> {
        let metrics = parse(&daemon.get("/metrics").body);
        metrics.into_keys().collect()
    };
    let come = |user: &str| {
        let mut client = house.client(&daemon, user);
        client.allocate(V4);
        assert_eq!(client.refresh(0).code(), SUCCESS);
    };
    come("first");
    let before = series();
    (0..60).for_each(|n| come(&format!("user-{n}")));
    assert_eq!(series(), before);
}

/// T28: who guesses passwords is told so often that they are wrong, and others there are let in.
#[test]
fn failed_authentications_of_a_network_are_answered_so_often_and_counted_by_name() {
    let house = House::new("[limits]\nprefix_failures = \"1/s burst 3\"\n");
    let daemon = house.serve();
    let mut guessing = house.client(&daemon, "alice");
    guessing.credential.password = "guessed".to_owned();
    assert_eq!(guessing.try_allocate(V4).code(), 401);
    for _ in 0..20 {
        let request = guessing.build(Method::ALLOCATE, |r| r.with(&RequestedTransport::UDP));
        guessing.send_raw(&request.bytes());
    }
    let count = |series: &str| parse(&daemon.get("/metrics").body)[series];
    eventually("all of them are counted", || {
        count("taciturn_auth_failures_total{reason=\"wrong\"}") >= 21.0
    });
    let dropped = count("taciturn_drops_total{reason=\"prefix_failures\"}");
    let limited = count("taciturn_limited_total{limit=\"prefix_failures\"}");
    // However slow this is, most of them come within a few seconds.
    assert!((1.0..=18.0).contains(&dropped), "{dropped}");
    assert_eq!(dropped.to_bits(), limited.to_bits());
    house.client(&daemon, "alice").allocate(V4);
}
