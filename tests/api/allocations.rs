//! What `GET /v1/allocations` shows of what is live, and what it keeps to itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::ask::{self, KEY, ask};
use crate::house::{Daemon, credential};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::plane::{V4, unix};

fn client(daemon: &Daemon, wanted: &Value) -> Client {
    let minted = ask(daemon, "POST", "/v1/credentials", Some(KEY), Some(wanted)).json();
    Client::new(daemon.listener(V4), credential(&minted))
}

fn get(daemon: &Daemon, query: &str) -> Value {
    let answer = ask(
        daemon,
        "GET",
        &format!("/v1/allocations{query}"),
        Some(KEY),
        None,
    );
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    answer.json()
}

fn ids(page: &Value) -> Vec<String> {
    let list = page["allocations"].as_array().unwrap().iter();
    list.map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_live_allocation_is_shown_with_its_usage_and_without_an_address() {
    let (_house, daemon) = ask::open("");
    let party = |user: &str| json!({ "user": user, "call": "c-1", "tenant": "north" });
    let [mut a, mut b] = ["alice", "bob"].map(|user| client(&daemon, &party(user)));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_channel(0x4000, b"hello");
    b.receive();

    let of_alice = get(&daemon, "?user=alice");
    assert_eq!(
        (&of_alice["scope"], &of_alice["next"]),
        (&"node".into(), &Value::Null)
    );
    let one = &of_alice["allocations"][0];
    assert_eq!(of_alice["allocations"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&one["tenant"], &one["transport"]),
        (&"north".into(), &"udp".into())
    );
    assert_eq!(
        (&one["permissions"], &one["channels"]),
        (&1.into(), &1.into())
    );
    eventually("the packet is counted", || {
        let one = &get(&daemon, "?user=alice")["allocations"][0];
        one["received"] == json!({ "packets": 1, "bytes": 5 })
    });
    let of_bob = &get(&daemon, "?user=bob")["allocations"][0];
    assert_eq!(of_bob["sent"], json!({ "packets": 1, "bytes": 5 }));
    assert_eq!(
        (&of_bob["call"], of_bob["call"].is_string()),
        (&one["call"], true)
    );
    let opened = one["opened"].as_u64().unwrap();
    assert!(
        unix() - opened < 60 && one["until"].as_u64().unwrap() > unix() + 500,
        "{one}"
    );

    // No address of a client, and no name that the platform gave.
    let text = get(&daemon, "").to_string();
    for hidden in [
        "127.0.0.1",
        "alice",
        "bob",
        "c-1",
        &a.addr().port().to_string(),
    ] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    let path = format!("/v1/allocations/{}", one["id"].as_str().unwrap());
    let alone = ask(&daemon, "GET", &path, Some(KEY), None);
    assert_eq!(
        (alone.status, &alone.json()["subject"]),
        (200, &one["subject"])
    );

    assert_eq!(a.refresh(0).code(), SUCCESS);
    eventually("it is gone", || {
        ask(&daemon, "GET", &path, Some(KEY), None).status == 404
    });
}

/// A packet of an RTP stream (RFC 3550 §5.1).
fn rtp(number: u8) -> [u8; 32] {
    let mut packet = [0xE5; 32];
    packet[..4].copy_from_slice(&[0x80, 111, 0, number]);
    packet
}

#[test]
fn the_quality_of_a_stream_is_shown_with_both_of_its_parties() {
    let (_house, daemon) = ask::open("");
    let [mut a, mut b] = ["alice", "bob"].map(|user| client(&daemon, &json!({ "user": user })));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    let media = |user| get(&daemon, &format!("?user={user}"))["allocations"][0]["media"].clone();
    assert_eq!(media("alice"), Value::Null);
    for number in (0..10).filter(|number| *number != 5) {
        a.send_channel(0x4000, &rtp(number));
        b.receive();
    }
    let sent = json!({
        "streams": 1, "packets": 8, "lost": 1, "reordered": 0, "duplicates": 0, "gaps": 0,
        "gap_seconds": 0.0, "jitter_seconds": 0.0, "unmeasured": 1, "rtcp": 0,
    });
    let mut shown = media("alice");
    // A slow machine may well make one.
    for key in ["gaps", "gap_seconds"] {
        shown["received"][key] = sent[key].clone();
    }
    assert_eq!(shown["received"], sent);
    assert_eq!(media("bob")["sent"]["lost"], 1);
    assert_eq!(media("bob")["received"]["packets"], 0);
}

#[test]
fn a_filter_admits_those_that_fit_it_alone() {
    let (_house, daemon) = ask::open("");
    let mut clients = Vec::new();
    for (user, call, tenant) in [
        ("a", "1", "north"),
        ("b", "1", "south"),
        ("c", "2", "north"),
    ] {
        let wanted = json!({ "user": user, "call": call, "tenant": tenant });
        let mut client = client(&daemon, &wanted);
        client.allocate(V4);
        clients.push(client);
    }
    let count = |query: &str| ids(&get(&daemon, query)).len();
    for (query, wanted) in [
        ("", 3),
        ("?user=a", 1),
        ("?user=nobody", 0),
        ("?call=1", 2),
        ("?call=3", 0),
        ("?tenant=north", 2),
        ("?tenant=north&call=1", 1),
        ("?transport=udp", 3),
        ("?transport=tls", 0),
        ("?user=b&tenant=north", 0),
    ] {
        assert_eq!(count(query), wanted, "{query}");
    }
    let subject = get(&daemon, "?user=a")["allocations"][0]["subject"].clone();
    let query = format!("?subject={}", subject.as_str().unwrap());
    assert_eq!(count(&query), 1);
}

#[test]
fn pages_together_hold_each_allocation_once() {
    let (_house, daemon) = ask::open("");
    let mut clients = Vec::new();
    for n in 0..7 {
        let mut client = client(&daemon, &json!({ "user": format!("user-{n}") }));
        client.allocate(V4);
        clients.push(client);
    }
    let (mut seen, mut query) = (Vec::new(), "?limit=3".to_owned());
    for pages in 1.. {
        let page = get(&daemon, &query);
        seen.extend(ids(&page));
        let Some(next) = page["next"].as_str() else {
            assert_eq!(pages, 3);
            break;
        };
        query = format!("?limit=3&cursor={next}");
    }
    assert_eq!(seen.len(), 7);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 7);
    assert_eq!(get(&daemon, "?limit=7")["next"], Value::Null);
}

#[test]
fn who_has_ended_an_allocation_does_not_find_it_again() {
    let (_house, daemon) = ask::open("");
    let mut clients: Vec<Client> = (0..50)
        .map(|n| client(&daemon, &json!({ "user": format!("user-{n}") })))
        .collect();
    for client in &mut clients {
        client.allocate(V4);
    }
    let all = ids(&get(&daemon, ""));
    assert_eq!(all.len(), clients.len());
    for id in all {
        let path = format!("/v1/allocations/{id}");
        let said = |method| ask(&daemon, method, &path, Some(KEY), None).status;
        assert_eq!((said("DELETE"), said("GET")), (204, 404), "{id}");
    }
    assert_eq!(ids(&get(&daemon, "")), Vec::<String>::new());
}

/// They wait for each other inside, and none is turned away.
#[test]
fn all_who_ask_at_the_same_time_are_answered_alike() {
    let (_house, daemon) = ask::open("");
    let mut client = client(&daemon, &json!({ "user": "alice" }));
    client.allocate(V4);
    let expected = ids(&get(&daemon, ""));
    assert_eq!(expected.len(), 1);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..40)
            .map(|n| {
                let (daemon, one) = (&daemon, &expected[0]);
                scope.spawn(move || {
                    if n % 2 == 0 {
                        return ids(&get(daemon, ""));
                    }
                    let path = format!("/v1/allocations/{one}");
                    let answer = ask(daemon, "GET", &path, Some(KEY), None);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    vec![answer.json()["id"].as_str().unwrap().to_owned()]
                })
            })
            .collect();
        for one in asking {
            assert_eq!(one.join().unwrap(), expected);
        }
    });
}

#[test]
fn a_query_that_cannot_be_meant_is_refused() {
    let (_house, daemon) = ask::open("");
    for (query, status) in [
        ("?limit=0", 422),
        ("?limit=10001", 422),
        ("?limit=x", 400),
        ("?limit=-1", 400),
        ("?cursor=x", 422),
        ("?cursor=0123456789ABCDEF", 422),
        ("?subject=1", 422),
        ("?tenant=a%20b", 422),
        ("?user=", 422),
        ("?user=a&subject=00000000000000000000000000000000", 422),
        ("?usr=a", 400),
        ("?user=a&user=b", 400),
        ("?transport=smoke", 400),
    ] {
        let path = format!("/v1/allocations{query}");
        let answer = ask(&daemon, "GET", &path, Some(KEY), None);
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        answer.detail();
    }
    for id in [
        "x",
        "0123456789abcdef",
        "0123456789ABCDEF",
        "%00",
        "+0123456789abcde",
    ] {
        let path = format!("/v1/allocations/{id}");
        assert_eq!(
            ask(&daemon, "GET", &path, Some(KEY), None).status,
            404,
            "{id}"
        );
    }
}
