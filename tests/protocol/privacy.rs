//! What is never shown: an endpoint's address, to the other party or in anything printable, and
//! credentials to anybody.

use std::net::{IpAddr, SocketAddr};

use taciturn::proto::{AddressFamily, MAGIC_COOKIE, Method, XorPeerAddress};
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::stats::DropReason;
use taciturn::turn::{Handled, PeerAddr, RelayedAddr, Target};

use crate::world::call::{Call, Framing};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{Outcome, SECRETS, STATIC_USER, Setup, World, at};

/// The ways in which the octets of `ip` may be hidden in a message with that transaction id.
fn forms(ip: IpAddr, id: &[u8]) -> Vec<Vec<u8>> {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mask = [&MAGIC_COOKIE.to_be_bytes(), id].concat();
    let xored = octets.iter().zip(mask).map(|(a, b)| a ^ b).collect();
    vec![octets, xored]
}

fn names(bytes: &[u8], ip: IpAddr) -> bool {
    let id = bytes.get(8..20).unwrap_or_default();
    forms(ip, id)
        .iter()
        .any(|form| bytes.windows(form.len()).any(|window| window == form))
}

/// Sends a request and returns everything that came back.
fn ask(client: &mut Client, world: &mut World, method: Method, peer: SocketAddr) -> Vec<u8> {
    let answer = client.request(world, method, |r| {
        let r = r.with(&XorPeerAddress(peer));
        match method {
            Method::CHANNEL_BIND => r.with(&taciturn::proto::ChannelNumberAttribute(0x4000)),
            _ => r,
        }
    });
    assert_eq!(answer.code(), SUCCESS);
    answer.0
}

/// T63: all that reaches one party during a call, whatever the framings.
#[test]
fn neither_party_is_sent_the_others_address() {
    for family in [AddressFamily::V4, AddressFamily::V6] {
        for of_alice in [Framing::Channel(0x4000), Framing::Indication] {
            let mut call = Call::of_family(Setup::any(), family);
            let Call {
                world,
                alice,
                bob,
                a,
                b,
            } = &mut call;
            let mut to_alice = vec![ask(alice, world, Method::CREATE_PERMISSION, *b)];
            let mut to_bob = vec![ask(bob, world, Method::CREATE_PERMISSION, *a)];
            if of_alice != Framing::Indication {
                to_alice.push(ask(alice, world, Method::CHANNEL_BIND, *b));
                to_bob.push(ask(bob, world, Method::CHANNEL_BIND, *a));
            }
            for _ in 0..50 {
                for outcome in [
                    of_alice.send(alice, world, *b, &[0; 40]),
                    of_alice.send(bob, world, *a, &[0; 41]),
                ] {
                    let Outcome::Client { to, bytes } = outcome else {
                        panic!("not delivered: {outcome:?}");
                    };
                    if to == alice.tuple {
                        to_alice.push(bytes);
                    } else {
                        to_bob.push(bytes);
                    }
                }
            }
            to_alice.push(alice.refresh(world, Some(0)).0);
            assert!(to_alice.len() > 50 && to_bob.len() > 50);
            assert!(to_alice.iter().all(|bytes| !names(bytes, bob.addr().ip())));
            assert!(to_bob.iter().all(|bytes| !names(bytes, alice.addr().ip())));
        }
    }
    // The control: a client is told its own address, and the search finds it there.
    let mut world = World::new();
    let mut alice = world.client("alice", "198.51.100.1:1000");
    let answer = alice.allocate_with(&mut world, |r| r);
    assert!(names(&answer.0, alice.addr().ip()));
}

/// How a log, a metric or a panic might spell an address.
fn spellings(addr: SocketAddr) -> Vec<String> {
    let octets = match addr.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let id = [0; 12];
    let mut spellings = vec![addr.to_string(), addr.ip().to_string()];
    for form in forms(addr.ip(), &id) {
        let hex: Vec<String> = form.iter().map(|byte| format!("{byte:02x}")).collect();
        let decimal: Vec<String> = form.iter().map(u8::to_string).collect();
        spellings.extend([
            hex.concat(),
            hex.join(" "),
            hex.join(":"),
            decimal.join(", "),
        ]);
    }
    let number = octets
        .iter()
        .fold(0_u128, |number, octet| number << 8 | u128::from(*octet));
    spellings.push(number.to_string());
    spellings
}

#[track_caller]
fn assert_hidden(shown: &str, hidden: &[SocketAddr]) {
    for addr in hidden {
        for spelling in spellings(*addr) {
            let around = shown
                .find(&spelling)
                .map(|at| &shown[at.saturating_sub(80)..at]);
            assert_eq!(around, None, "stands before {spelling}");
        }
    }
}

/// T62: a call, and everything of it that has a `Debug`. Bob's own address is Alice's peer too,
/// as ICE would try it under the policy `any`.
#[test]
fn nothing_that_can_be_printed_shows_an_endpoint() {
    let setup = Setup {
        allow: vec!["198.51.100.0/24", "2001:db8:c::/48"],
        ..Setup::any()
    };
    let mut world = setup.world();
    let mut alice = world.client("alice", "198.51.100.20:4242");
    let mut bob = world.client("bob", "[2001:db8:c::21]:4343");
    let (a, b) = (alice.allocate(&mut world), bob.allocate(&mut world));
    let elsewhere = at("198.51.100.33:4444");
    let mut shown = String::new();
    assert_eq!(alice.permit(&mut world, &[b, elsewhere]), SUCCESS);
    assert_eq!(alice.bind(&mut world, 0x4000, elsewhere), SUCCESS);
    assert_eq!(bob.bind(&mut world, 0x4001, a), SUCCESS);
    alice.send_to(&mut world, b, b"x").at(&bob);
    bob.channel_data(&mut world, 0x4001, b"x").at(&alice);

    // The handled packets themselves, in both directions.
    for peer in [elsewhere, b] {
        let bytes = alice.send_indication(peer, b"x").bytes();
        let mut buf = [&[0; 64][..], &bytes, &[0; 3]].concat();
        let range = 64..64 + bytes.len();
        let clock = world.clock;
        let handled = world.servers[0].handle_client(alice.tuple, &mut buf, range, clock);
        assert!(matches!(handled, Handled::Forward(_)));
        shown += &format!("{handled:?}");
    }
    shown += &format!(
        "{:?} {:#?}",
        Target::Client(bob.tuple),
        PeerAddr::new(elsewhere)
    );
    {
        let house = world.house.borrow();
        shown += &format!("{:?} {:#?}", house.landings, house.landings);
        shown += &format!(
            "{:?} {:?} {:?}",
            house.users, house.ports, house.unvalidated
        );
    }
    shown += &format!("{:?} {:#?}", world.servers, world.config);
    bob.refresh(&mut world, Some(0));
    world.advance(600);
    let events = world.events(0);
    assert_eq!(events.len(), 4);
    shown += &format!("{events:?} {:#?}", events);
    shown += &format!("{:?}", world.servers[0].counters());

    // The relayed addresses are this server's own, and the search is able to find one.
    assert!(spellings(a).iter().any(|spelling| shown.contains(spelling)));
    assert_hidden(&shown, &[alice.addr(), bob.addr(), elsewhere]);
}

/// T26
#[test]
fn nothing_that_can_be_printed_shows_a_credential() {
    let mut world = World::new();
    let mut alice = world.client("alice-the-user", "198.51.100.20:4242");
    let mut gateway = Client::new(at("198.51.100.21:1"), STATIC_USER.0, STATIC_USER.1);
    alice.allocate(&mut world);
    gateway.allocate(&mut world);
    let events = world.events(0);
    let house = world.house.borrow();
    let shown = format!("{:?} {events:?} {:?}", world.servers, house.landings);
    for hidden in [
        alice.username.as_str(),
        "alice-the-user",
        alice.password.as_str(),
        SECRETS[1],
        STATIC_USER.1,
        "[7, 7, 7",
        "[9, 9, 9",
    ] {
        assert!(!shown.contains(hidden), "{hidden}");
    }
    let relayed = house.landings.keys().next().map(RelayedAddr::to_string);
    assert!(shown.contains(&relayed.unwrap()));
}

/// T64 and T65: what reaches Alice's relay from outside the call, by any way, is dropped.
#[test]
fn only_the_call_reaches_a_hidden_party() {
    let setup = Setup {
        bind: taciturn::turn::Bind::Always,
        policy: PeerPolicy::Relay,
        ..Setup::default()
    };
    let mut call = Call::permitted(setup);
    let mut mallory = call.world.client("mallory", "198.51.100.66:6");
    mallory.allocate(&mut call.world);
    assert_eq!(mallory.permit(&mut call.world, &[call.a]), SUCCESS);
    let stranger = mallory.send_to(&mut call.world, call.a, b"x");
    assert_eq!(stranger.dropped(), Some(DropReason::NotNamed));
    for source in [call.bob.addr(), mallory.addr(), at("1.1.1.1:1")] {
        let inbound = call
            .world
            .receive_from_peer(call.a, &source.to_string(), b"x");
        assert_eq!(inbound.dropped(), Some(DropReason::NoPermission));
    }
    call.bob_says(b"x").at(&call.alice);
}

/// T72: how a server answers a client that probes ports does not tell which of them live.
#[test]
fn a_live_and_a_dead_relay_port_answer_alike() {
    let mut call = Call::new(Setup::default());
    let mut mallory = call.world.client("mallory", "198.51.100.66:6");
    mallory.allocate(&mut call.world);
    let world = &mut call.world;
    for (number, peer) in [(0x4000, call.a), (0x4001, at("203.0.113.7:65535"))] {
        let permitted = ask(&mut mallory, world, Method::CREATE_PERMISSION, peer);
        assert_eq!(permitted.len(), 20 + 24);
        assert_eq!(mallory.bind(world, number, peer), SUCCESS);
        for outcome in [
            mallory.send_to(world, peer, b"x"),
            mallory.channel_data(world, number, b"x"),
        ] {
            assert!(outcome.dropped().is_some());
        }
    }
}
