//! NAT behaviour discovery (RFC 5780 §6, §7).

use taciturn::proto::{
    AttributeType, ChangeRequest, MappedAddress, Method, OtherAddress, Padding, ResponseOrigin,
    ResponsePort, UnknownAttributes,
};
use taciturn::turn::stats::DropReason;
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{BindingRequests, BindingRules, FiveTuple};

use crate::world::client::{Client, SUCCESS};
use crate::world::message::{Answer, Build};
use crate::world::servers::{self, LISTENER_V4, LISTENERS, Outcome, Setup, World, at};

const CLIENT: &str = "198.51.100.20:4000";
const CLIENT_V6: &str = "[2001:db8:20::1]:4000";
const BEHAVIOUR: [AttributeType; 3] = [
    AttributeType::CHANGE_REQUEST,
    AttributeType::RESPONSE_PORT,
    AttributeType::PADDING,
];

fn discovering() -> Setup {
    Setup {
        nat_discovery: LISTENERS.to_vec(),
        ..Setup::default()
    }
}

/// A Binding request that `fill` completes reaches the listener at `listener`.
fn ask(
    world: &mut World,
    client: &mut Client,
    listener: &str,
    fill: impl Fn(Build) -> Build,
) -> Outcome {
    client.tuple.listener = servers::listener(listener);
    let request = fill(client.build(Method::BINDING)).bytes();
    world.send(client, &request)
}

const fn change(change_ip: bool, change_port: bool) -> ChangeRequest {
    ChangeRequest {
        change_ip,
        change_port,
    }
}

/// As [`Outcome::left`], with the listener's address.
#[track_caller]
fn left(outcome: Outcome, asked: FiveTuple) -> (FiveTuple, &'static str, Answer) {
    let (by, answer) = outcome.left(asked);
    (by, LISTENERS[usize::from(by.listener.place())], answer)
}

/// RFC 5780 §6.1, table 1.
#[test]
fn a_changed_address_or_port_is_where_the_answer_comes_from() {
    let mut world = discovering().world();
    let v4 = [LISTENERS[0], LISTENERS[2], LISTENERS[3], LISTENERS[4]];
    let v6 = [LISTENERS[1], LISTENERS[5], LISTENERS[6], LISTENERS[7]];
    for (source, listeners) in [(CLIENT, v4), (CLIENT_V6, v6)] {
        let mut client = world.client("alice", source);
        for da in listeners {
            let here = at(da);
            let opposite = listeners
                .map(at)
                .into_iter()
                .find(|at| at.ip() != here.ip() && at.port() != here.port())
                .unwrap();
            for (ip, port) in [(false, false), (true, false), (false, true), (true, true)] {
                let outcome = ask(&mut world, &mut client, da, |r| r.with(&change(ip, port)));
                let (by, from, answer) = left(outcome, client.tuple);
                let from = at(from);
                assert_eq!(from.ip() != here.ip(), ip, "{da} {ip} {port}");
                assert_eq!(from.port() != here.port(), port, "{da} {ip} {port}");
                assert_eq!(by.client, client.tuple.client);
                assert_eq!(answer.code(), SUCCESS);
                assert_eq!(answer.find::<ResponseOrigin>().unwrap().0, from);
                assert_eq!(answer.find::<OtherAddress>().unwrap().0, opposite);
            }
        }
    }
}

#[test]
fn an_answer_names_its_origin_and_the_other_address_unasked() {
    let mut world = discovering().world();
    let mut client = world.client("alice", CLIENT);
    let answer = ask(&mut world, &mut client, LISTENER_V4, |r| r).answer();
    assert_eq!(answer.mapped(), Some(at(CLIENT)));
    assert_eq!(answer.find::<MappedAddress>().unwrap().0, at(CLIENT));
    assert_eq!(answer.find::<ResponseOrigin>().unwrap().0, at(LISTENER_V4));
    assert_eq!(
        answer.find::<OtherAddress>().unwrap().0,
        at("203.0.113.77:3479")
    );
    assert!(!answer.message().has(AttributeType::PADDING));
}

/// RFC 5780 §6: without a second address no OTHER-ADDRESS, and 420 for what asks for it. T47
#[test]
fn where_it_is_off_the_attributes_are_unknown() {
    let three = vec![LISTENERS[0], LISTENERS[2], LISTENERS[3]];
    for nat_discovery in [Vec::new(), three] {
        let mut world = Setup {
            nat_discovery,
            ..Setup::default()
        }
        .world();
        let mut client = world.client("alice", CLIENT);
        let answer = ask(&mut world, &mut client, LISTENER_V4, |r| r).answer();
        assert_eq!(answer.0.len(), 32);
        for kind in BEHAVIOUR {
            let answer = ask(&mut world, &mut client, LISTENER_V4, |r| {
                r.raw(kind, &[0, 0, 0, 6])
            })
            .answer();
            assert_eq!(answer.code(), 420);
            let listed: Vec<_> = answer
                .find::<UnknownAttributes<'_>>()
                .unwrap()
                .iter()
                .collect();
            assert_eq!(listed, [kind]);
        }
    }
}

/// A listener outside the rectangle serves nothing of it; other methods never do.
#[test]
fn elsewhere_the_attributes_are_unknown() {
    let four = [LISTENERS[1], LISTENERS[5], LISTENERS[6], LISTENERS[7]];
    let mut world = Setup {
        nat_discovery: four.to_vec(),
        ..Setup::default()
    }
    .world();
    let mut client = world.client("alice", CLIENT);
    let answer = ask(&mut world, &mut client, LISTENER_V4, |r| {
        r.with(&change(true, false))
    })
    .answer();
    assert_eq!(answer.code(), 420);
    let mut client = world.client("alice", CLIENT_V6);
    for kind in BEHAVIOUR {
        let answer = client.allocate_with(&mut world, |r| r.raw(kind, &[0, 0, 0, 6]));
        assert_eq!(answer.code(), 420);
    }
}

/// T47: an unknown attribute is named alone, not those that are served.
#[test]
fn a_420_does_not_name_what_is_served() {
    let mut world = discovering().world();
    let mut client = world.client("alice", CLIENT);
    let answer = ask(&mut world, &mut client, LISTENER_V4, |r| {
        r.with(&change(true, true)).raw_number(0x7ABC, &[])
    })
    .answer();
    assert_eq!(answer.code(), 420);
    let listed: Vec<_> = answer
        .find::<UnknownAttributes<'_>>()
        .unwrap()
        .iter()
        .collect();
    assert_eq!(listed, [AttributeType::new(0x7ABC)]);
}

#[test]
fn a_response_port_changes_the_port_and_nothing_else() {
    let mut world = discovering().world();
    for (source, listener) in [(CLIENT, LISTENERS[0]), (CLIENT_V6, LISTENERS[1])] {
        let mut client = world.client("alice", source);
        let outcome = ask(&mut world, &mut client, listener, |r| {
            r.with(&ResponsePort(4001))
        });
        let (by, from, answer) = left(outcome, client.tuple);
        let mut expected = at(source);
        expected.set_port(4001);
        assert_eq!(by.client.expose(), expected);
        assert_eq!(from, listener);
        assert_eq!(answer.mapped(), Some(at(source)));
    }
}

/// T30: neither a port that nobody has nor a socket of this server.
#[test]
fn a_response_port_that_no_client_has_is_refused() {
    let mut world = discovering().world();
    let mut client = world.client("alice", CLIENT);
    for (source, port) in [(CLIENT, 0), ("203.0.113.7:4000", 3478)] {
        client = client.moved(source);
        let answer = ask(&mut world, &mut client, LISTENER_V4, |r| {
            r.with(&ResponsePort(port))
        })
        .answer();
        assert_eq!(answer.code(), 400, "{source} {port}");
    }
}

/// RFC 5780 §6.1 and §7.5.
#[test]
fn a_response_port_and_padding_exclude_each_other() {
    let mut world = discovering().world();
    let mut client = world.client("alice", CLIENT);
    let answer = ask(&mut world, &mut client, LISTENER_V4, |r| {
        r.with(&ResponsePort(4001)).with(&Padding(&[7; 1_500]))
    })
    .answer();
    assert_eq!(answer.code(), 400);
}

#[test]
fn a_malformed_attribute_is_refused() {
    let mut world = discovering().world();
    let mut client = world.client("alice", CLIENT);
    for (kind, value) in [
        (AttributeType::CHANGE_REQUEST, &[0; 3][..]),
        (AttributeType::CHANGE_REQUEST, &[0; 8]),
        (AttributeType::RESPONSE_PORT, &[0; 1]),
        (AttributeType::RESPONSE_PORT, &[0; 8]),
    ] {
        let answer = ask(&mut world, &mut client, LISTENER_V4, |r| r.raw(kind, value)).answer();
        assert_eq!(answer.code(), 400);
    }
}

/// T29: a padded answer is as long as a link takes, or as the request was, and of zeros.
#[test]
fn a_padded_answer_is_no_longer_than_its_request() {
    let mut world = discovering().world();
    for (source, listener) in [(CLIENT, LISTENERS[0]), (CLIENT_V6, LISTENERS[1])] {
        let mut client = world.client("alice", source);
        for length in [100, 101, 255, 1_400, 1_500, 9_000, 60_000] {
            let padding = vec![7; length];
            let request = |r: Build| r.with(&Padding(&padding)).with(&change(true, true));
            let asked = request(client.build(Method::BINDING)).bytes().len();
            let outcome = ask(&mut world, &mut client, listener, request);
            let (_, _, answer) = left(outcome, client.tuple);
            let padding = answer.find::<Padding<'_>>().unwrap().0;
            assert!(padding.iter().all(|byte| *byte == 0));
            assert!(answer.0.len() <= asked, "{} for {asked}", answer.0.len());
            let least = (asked - 3).min(1_500);
            assert!(answer.0.len() >= least, "{} for {asked}", answer.0.len());
            assert!(padding.len() <= 1_500);
        }
        // Where even an empty one makes it longer, there is nothing in it.
        let outcome = ask(&mut world, &mut client, listener, |r| r.with(&Padding(&[])));
        let (_, _, answer) = left(outcome, client.tuple);
        assert_eq!(answer.find::<Padding<'_>>().unwrap().0, b"");
    }
}

/// T29
#[test]
fn answers_by_another_listener_stand_under_the_same_cap() {
    let mut world = Setup {
        unvalidated: Rate {
            per_second: 1,
            burst: 3,
        },
        ..discovering()
    }
    .world();
    let mut client = world.client("alice", CLIENT);
    for _ in 0..3 {
        let outcome = ask(&mut world, &mut client, LISTENER_V4, |r| {
            r.with(&change(true, true))
        });
        assert!(matches!(outcome, Outcome::AnswerBy(..)), "{outcome:?}");
    }
    let outcome = ask(&mut world, &mut client, LISTENER_V4, |r| {
        r.with(&ResponsePort(4001))
    });
    assert_eq!(outcome.dropped(), Some(DropReason::Unvalidated));
}

/// The second listening address stands for the first relay address, as if both were behind NAT.
#[test]
fn behind_nat_the_addresses_are_those_that_clients_know() {
    let mut world = Setup {
        inner: Some("203.0.113.77"),
        ..discovering()
    }
    .world();
    let mut client = world.client("alice", CLIENT);
    let answer = ask(&mut world, &mut client, LISTENER_V4, |r| r).answer();
    let other = answer.find::<OtherAddress>().unwrap().0;
    assert_eq!(other, at("203.0.113.7:3479"));
}

/// Where Binding takes a credential, the answer is signed, and leaves by the same rules.
#[test]
fn with_a_credential_it_is_the_same_but_signed() {
    let mut world = Setup {
        binding: BindingRules {
            default: BindingRequests::Authenticated,
            ..BindingRules::default()
        },
        ..discovering()
    }
    .world();
    let mut client = world.client("alice", CLIENT);
    let bare = ask(&mut world, &mut client, LISTENER_V4, |r| {
        r.with(&change(true, true))
    });
    assert_eq!(bare.answer().code(), 401);
    client.fetch_nonce(&mut world);
    for padding in [vec![7; 1_400], vec![7; 90]] {
        let request = client.build(Method::BINDING).with(&change(true, true));
        let request = client.sign(request.with(&Padding(&padding)));
        let (by, answer) = world.send(&client, &request).left(client.tuple);
        assert_eq!(
            LISTENERS[usize::from(by.listener.place())],
            "203.0.113.77:3479"
        );
        assert!(client.has_signed(&answer) && answer.0.len() <= request.len());
        assert_eq!(answer.mapped(), Some(at(CLIENT)));
    }
    let request = client.build(Method::BINDING).raw_number(0x7ABC, &[]);
    let request = client.sign(request.with(&change(true, true)));
    let answer = world.send(&client, &request).answer();
    let listed = answer.find::<UnknownAttributes<'_>>().unwrap();
    assert_eq!(answer.code(), 420);
    assert_eq!(
        listed.iter().collect::<Vec<_>>(),
        [AttributeType::new(0x7ABC)]
    );
}
