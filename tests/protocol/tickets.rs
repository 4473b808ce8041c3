//! Mobility tickets (RFC 8016 §3.2.2) that lead nowhere: of others, of what has ended, in floods.

use taciturn::proto::{
    AdditionalAddressFamily, AddressFamily, AttributeType, Lifetime, Method, MobilityTicket, Nonce,
    Realm, Username,
};
use taciturn::turn::stats::{AuthFailure, DropReason};
use taciturn::turn::{RelayedAddr, Transport};

use crate::world::call::{ALICE, ASK, CAROL, Call, ELSEWHERE, FURTHER};
use crate::world::client::SUCCESS;
use crate::world::message::Build;
use crate::world::servers::{Outcome, Setup, World};

const UDP: Transport = Transport::Udp;

/// T19
#[test]
fn another_users_ticket_is_of_no_use() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut carol = call.world.client("carol", CAROL);
    assert_eq!(carol.resume(&mut call.world, &ticket).code(), 441);
    assert_eq!(call.world.failures(AuthFailure::OtherUser), 1);
    let mut moved = call.alice.moved(ELSEWHERE);
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), SUCCESS);
}

#[test]
fn what_is_no_ticket_is_a_bad_request() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    let mut forged = ticket.clone();
    forged[20] ^= 1;
    for ticket in [&forged[..], &ticket[1..], b"", &[7; 31], &[7; 2_000]] {
        assert_eq!(moved.resume(&mut call.world, ticket).code(), 400);
    }
}

#[test]
fn the_ticket_of_an_ended_allocation_is_a_mismatch() {
    for ends in ["closed", "expired", "forgotten"] {
        let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
        let mut alice = call.alice.clone();
        match ends {
            "closed" => drop(alice.refresh(&mut call.world, Some(0))),
            "expired" => call.world.stall(700),
            // The key outlives a restart, allocations do not.
            _ => call.world = Setup::mobile().world(),
        }
        let mut moved = call.alice.moved(ELSEWHERE);
        assert_eq!(moved.resume(&mut call.world, &ticket).code(), 437, "{ends}");
    }
}

#[test]
fn an_allocation_without_a_ticket_moves_nowhere() {
    let mut world = Setup::mobile().world();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    let mut moved = alice.moved(ELSEWHERE);
    assert_eq!(moved.refresh(&mut world, None).code(), 437);
}

#[test]
fn a_five_tuple_in_use_is_no_place_to_go_to() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    let (_, other) = moved.allocate_mobile(&mut call.world);
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), 437);
    // Nor is one to which another allocation's client has gone.
    let mut further = call.alice.moved(FURTHER);
    assert_eq!(further.resume(&mut call.world, &ticket).code(), SUCCESS);
    assert_eq!(further.resume(&mut call.world, &other).code(), 437);
    assert_eq!(further.allocate_with(&mut call.world, |r| r).code(), 437);
}

#[test]
fn a_refused_refresh_moves_nothing() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    for (code, kind, value) in [
        (400, AttributeType::LIFETIME.value(), &[0][..]),
        (
            443,
            AttributeType::REQUESTED_ADDRESS_FAMILY.value(),
            &[2, 0, 0, 0],
        ),
        (420, 0x7ABC, &[]),
    ] {
        let answer = moved.request(&mut call.world, Method::REFRESH, |request| {
            let request = request.with(&MobilityTicket(&ticket));
            request.raw_number(kind, value)
        });
        assert_eq!(answer.code(), code);
    }
    let late = call.alice_at(&moved);
    assert_eq!(late.dropped(), Some(DropReason::NoAllocation));
    assert_eq!(moved.resume(&mut call.world, &ticket).code(), SUCCESS);
}

/// T13
#[test]
fn a_strict_allocation_does_not_move_with_an_expired_credential() {
    for (strict, code) in [(true, 437), (false, SUCCESS)] {
        let mut world = Setup {
            strict,
            ..Setup::mobile()
        }
        .world();
        let expires = world.clock.unix + 100;
        let mut alice = world.client_until("alice", ALICE, expires);
        let (_, ticket) = alice.allocate_mobile(&mut world);
        world.stall(200);
        let mut moved = alice.moved(ELSEWHERE);
        assert_eq!(moved.resume(&mut world, &ticket).code(), code);
    }
}

/// T34: RFC 8016 §3.2.1 refreshes or deletes.
#[test]
fn a_lifetime_of_zero_with_a_ticket_ends_the_allocation() {
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    let answer = moved.request(&mut call.world, Method::REFRESH, |request| {
        request.with(&MobilityTicket(&ticket)).with(&Lifetime(0))
    });
    assert_eq!((answer.code(), answer.lifetime()), (SUCCESS, Some(0)));
    assert_eq!(call.world.allocations(), 1);
    assert_eq!(call.world.house.borrow().owners.len(), 1);
}

/// T31
#[test]
fn moving_neither_takes_nor_gives_quota() {
    let setup = Setup {
        mobility: true,
        ..Setup::with_quota(1)
    };
    let (mut call, mut ticket) = Call::mobile(setup, UDP);
    let subject = call.world.subject("alice");
    for port in 7_000..7_050 {
        let mut moved = call.alice.moved(&format!("192.0.2.77:{port}"));
        ticket = moved.resume(&mut call.world, &ticket).ticket().unwrap();
        if port % 2 == 0 {
            call.alice_at(&moved).at(&call.bob);
        }
        assert_eq!(call.world.house.borrow().users.held(subject), 1);
        let mut other = call.alice.moved(FURTHER);
        assert_eq!(other.allocate_with(&mut call.world, |r| r).code(), 486);
    }
    assert_eq!(call.world.allocations(), 2);
}

#[test]
fn a_dual_allocation_moves_with_both_relayed_addresses() {
    let mut world = Setup::mobile().world();
    let mut alice = world.client("alice", ALICE);
    let answer = alice.allocate_with(&mut world, |request| {
        request
            .with(&ASK)
            .with(&AdditionalAddressFamily(AddressFamily::V6))
    });
    let (relayed, ticket) = (answer.relayed(), answer.ticket().unwrap());
    let mut moved = alice.moved(ELSEWHERE);
    assert_eq!(moved.resume(&mut world, &ticket).code(), SUCCESS);
    assert_eq!(moved.refresh(&mut world, None).code(), SUCCESS);
    let house = world.house.borrow();
    for relayed in relayed {
        let landing = &house.landings[&RelayedAddr::new(relayed)];
        assert_eq!(landing.client, moved.tuple);
    }
}

/// T39: twenty thousand attempts, from sources without a credential and from a user, leave
/// nothing behind, publish nothing, and are answered within the cap.
#[test]
fn a_flood_of_resumes_leaves_nothing_behind() {
    const ROUNDS: u32 = 5_000;
    let (mut call, ticket) = Call::mobile(Setup::mobile(), UDP);
    let mut moved = call.alice.moved(ELSEWHERE);
    let next = moved.resume(&mut call.world, &ticket).ticket().unwrap();
    call.alice_at(&moved).at(&call.bob);
    call.world.events(0);
    let mut carol = call.world.client("carol", CAROL);
    carol.fetch_nonce(&mut call.world);
    let shown = |world: &World| {
        let house = world.house.borrow();
        (house.owners.len(), house.landings.len(), house.published)
    };
    let before = shown(&call.world);
    let mut answered = 0;
    for n in 0..ROUNDS {
        let [_, b, c, d] = n.to_be_bytes();
        let source = format!("203.0.{}.{}:{}", 114 + b, c, 1_024 + u16::from(d));
        let stranger = call.alice.moved(&source);
        let mut request = |fill: &dyn Fn(Build) -> Build| {
            let id = carol.transaction();
            fill(Build::request(Method::REFRESH, id).with(&MobilityTicket(&next)))
        };
        // Nobody; and somebody with a forged signature.
        let bare = request(&|r| r).bytes();
        let forged = request(&|r| {
            r.with(&Username(&stranger.username))
                .with(&Realm(&stranger.realm))
                .with(&Nonce("stale"))
                .integrity(b"not the key")
        })
        .bytes();
        for bytes in [bare, forged] {
            let outcome = call.world.send(&stranger, &bytes);
            if let Outcome::Answer(answer) = &outcome {
                assert!([400, 401].contains(&answer.code()) && answer.0.len() <= 128);
                answered += 1;
            } else {
                assert_eq!(outcome.dropped(), Some(DropReason::Unvalidated));
            }
        }
        // A user: with the ticket of another, and with none that this server made.
        for (ticket, code) in [(&next[..], 441), (&[1; 31], 400)] {
            let answer = carol.request_once(&mut call.world, Method::REFRESH, |request| {
                request.with(&MobilityTicket(ticket))
            });
            assert_eq!(answer.code(), code);
        }
    }
    assert_eq!(shown(&call.world), before);
    assert_eq!(call.world.allocations(), 2);
    assert!(call.world.events(0).is_empty());
    // Twenty sources, each with a burst of 200.
    assert_eq!(answered, 4_000);
    call.bob_talks().at(&moved);
}
