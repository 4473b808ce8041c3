//! Allocations per tenant and in all, what a credential claims, permissions and channels of one
//! allocation, and how many allocations a network may ask for.

use taciturn::proto::{Method, ReservationToken};
use taciturn::turn::credential::{Claims, Label};
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::quota::Quotas;
use taciturn::turn::stats::{DropReason, Limit};
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{Limits, ListenerId, NONCE_LIFETIME, Transport};

use crate::world::call::{ALICE, BOB, Call};
use crate::world::client::{Client, SUCCESS};
use crate::world::servers::{Outcome, Setup, World, at};

fn quotas(user: Option<u32>, tenant: Option<u32>, total: Option<u32>) -> World {
    let quotas = Quotas {
        user,
        tenant,
        total,
    };
    Setup {
        limits: Limits {
            quotas,
            ..Limits::default()
        },
        workers: 2,
        ..Setup::default()
    }
    .world()
}

fn of_tenant(world: &World, user: &str, tenant: &str, n: u16) -> Client {
    let addr = format!("198.51.{}.{}:{n}", n / 200, n % 200 + 1);
    let client = world.sealed_client(user, &addr, |claims| claims.tenant = Label::new(tenant));
    client.on(n % 2)
}

fn allocate(world: &mut World, client: &mut Client) -> u16 {
    client.allocate_with(world, |r| r).code()
}

fn counted(world: &World) -> (usize, usize, usize) {
    let users = &world.house.borrow().users;
    (users.len(), users.tenants(), users.total())
}

/// T31: over workers and users, whatever ends and fails in between.
#[test]
fn a_tenants_allocations_are_counted_exactly() {
    let mut world = quotas(None, Some(3), None);
    let mut north: Vec<_> = (1..=5)
        .map(|n| of_tenant(&world, &format!("user-{n}"), "north", n))
        .collect();
    let mut south = of_tenant(&world, "user-1", "south", 9);
    let mut nobodys = world.client("user-1", BOB);
    for client in &mut north[..3] {
        assert_eq!(allocate(&mut world, client), SUCCESS);
    }
    assert_eq!(allocate(&mut world, &mut north[3]), 486);
    assert_eq!(allocate(&mut world, &mut south), SUCCESS);
    assert_eq!(allocate(&mut world, &mut nobodys), SUCCESS);
    assert_eq!(counted(&world), (3, 2, 5));
    assert_eq!(world.limited(Limit::TenantAllocations), 1);

    for round in 0..20 {
        let (going, coming) = (round % 5, (round + 3) % 5);
        north[going].refresh(&mut world, Some(0));
        let failed = north[coming].allocate_with(&mut world, |request| {
            request.with(&ReservationToken([7; 8]))
        });
        assert_eq!(failed.code(), 508);
        assert_eq!(allocate(&mut world, &mut north[coming]), SUCCESS);
        let next = (round + 4) % 5;
        assert_eq!(allocate(&mut world, &mut north[next]), 486, "round {round}");
        let label = Label::new("north").unwrap();
        assert_eq!(world.house.borrow().users.held_by(&label), 3);
    }
    world.advance(600);
    assert_eq!(counted(&world), (0, 0, 0));
}

/// T31
#[test]
fn all_allocations_are_counted_exactly() {
    let mut world = quotas(None, None, Some(2));
    let [mut a, mut b] = ["198.51.100.1:1", "198.51.100.1:2"].map(|at| world.client("alice", at));
    let mut c = of_tenant(&world, "carol", "north", 3);
    assert_eq!(allocate(&mut world, &mut a), SUCCESS);
    assert_eq!(allocate(&mut world, &mut c), SUCCESS);
    assert_eq!(allocate(&mut world, &mut b), 486);
    assert_eq!(world.limited(Limit::TotalAllocations), 1);
    c.refresh(&mut world, Some(0));
    assert_eq!(allocate(&mut world, &mut b), SUCCESS);
    assert_eq!(counted(&world), (1, 0, 2));
    // A retransmission is no second one, also when all is full.
    let mut again = b.moved("198.51.100.1:2");
    assert_eq!(allocate(&mut world, &mut again), 437);
    assert_eq!(world.limited(Limit::TotalAllocations), 1);
}

/// T31 and T56: who comes again from another port takes its own place, under every limit.
#[test]
fn a_silent_allocation_makes_way_for_its_user_alone() {
    for (user, tenant, total) in [
        (Some(1), None, None),
        (None, Some(2), None),
        (None, None, Some(2)),
        (Some(1), Some(2), Some(2)),
    ] {
        let mut world = quotas(user, tenant, total);
        let mut alice = of_tenant(&world, "alice", "north", 1);
        let mut bob = of_tenant(&world, "bob", "north", 2);
        let mut carol = of_tenant(&world, "carol", "north", 3);
        let mut back = of_tenant(&world, "alice", "north", 4);
        assert_eq!(allocate(&mut world, &mut alice), SUCCESS);
        assert_eq!(allocate(&mut world, &mut bob), SUCCESS);
        world.advance(29);
        assert_eq!(allocate(&mut world, &mut back), 486);
        world.advance(1);
        if tenant.or(total).is_some() {
            assert_eq!(allocate(&mut world, &mut carol), 486, "nobody else's place");
        }
        assert_eq!(allocate(&mut world, &mut back), SUCCESS);
        assert_eq!(counted(&world), (2, 1, 2));
        world.settle();
        assert_eq!(counted(&world), (2, 1, 2), "it is taken off once");
        assert_eq!(alice.refresh(&mut world, None).code(), 437);
        assert_eq!(world.allocations(), 2);
    }
}

/// T31: a place under one tenant is none under another.
#[test]
fn a_silent_allocation_of_another_tenant_makes_no_way() {
    let mut world = quotas(None, Some(1), None);
    let mut south = of_tenant(&world, "alice", "south", 1);
    let mut bob = of_tenant(&world, "bob", "north", 2);
    let mut north = of_tenant(&world, "alice", "north", 3);
    assert_eq!(allocate(&mut world, &mut south), SUCCESS);
    assert_eq!(allocate(&mut world, &mut bob), SUCCESS);
    world.advance(60);
    assert_eq!(allocate(&mut world, &mut north), 486);
    assert_eq!(counted(&world), (2, 2, 2));
}

#[test]
fn a_credential_may_claim_less_than_the_configuration_and_not_more() {
    for (configured, claimed, most) in [
        (Some(3), Some(1), 1),
        (Some(1), Some(3), 1),
        (None, Some(2), 2),
        (None, Some(0), 0),
        (Some(2), None, 2),
    ] {
        let mut world = quotas(configured, None, None);
        let granted = (1..=5).filter(|n| {
            let addr = format!("198.51.100.1:{n}");
            let mut client = world.sealed_client("alice", &addr, |claims| {
                claims.limits.allocations = claimed;
            });
            allocate(&mut world, &mut client) == SUCCESS
        });
        assert_eq!(granted.count(), most, "{configured:?} and {claimed:?}");
    }
}

/// T35
#[test]
fn permissions_and_channels_are_as_many_as_configured() {
    let limits = Limits {
        permissions: 3,
        channels: 2,
        ..Limits::default()
    };
    let mut world = Setup {
        limits,
        policy: PeerPolicy::Any,
        ..Setup::default()
    }
    .world();
    let mut alice = world.client("alice", ALICE);
    alice.allocate(&mut world);
    let peers: Vec<_> = (1..=4).map(|n| at(&format!("1.1.1.{n}:9"))).collect();
    assert_eq!(alice.permit(&mut world, &peers), 508);
    assert_eq!(alice.permit(&mut world, &peers[..2]), SUCCESS);
    assert_eq!(alice.bind(&mut world, 0x4000, peers[0]), SUCCESS);
    assert_eq!(alice.bind(&mut world, 0x4001, peers[1]), SUCCESS);
    assert_eq!(alice.bind(&mut world, 0x4002, peers[2]), 508);
    assert_eq!(alice.bind(&mut world, 0x4001, peers[1]), SUCCESS);
    assert_eq!(alice.permit(&mut world, &peers[2..3]), SUCCESS);
    assert_eq!(alice.permit(&mut world, &peers[3..]), 508);
    assert_eq!(world.limited(Limit::Permissions), 2);
    assert_eq!(world.limited(Limit::Channels), 1);

    // What is there is refreshed, also when the limit has become smaller.
    let fewer = Limits {
        permissions: 1,
        channels: 1,
        ..Limits::default()
    };
    world.reconfigure(&Setup {
        limits: fewer,
        policy: PeerPolicy::Any,
        ..Setup::default()
    });
    assert_eq!(alice.permit(&mut world, &peers[..1]), SUCCESS);
    assert_eq!(alice.bind(&mut world, 0x4001, peers[1]), SUCCESS);
}

fn with_prefix_limit() -> World {
    Setup {
        limits: Limits {
            prefix_allocates: Some(Rate {
                per_second: 2,
                burst: 5,
            }),
            ..Limits::default()
        },
        ..Setup::default()
    }
    .world()
}

#[test]
fn a_network_may_ask_for_so_many_allocations() {
    let mut world = with_prefix_limit();
    let mut codes = |third: u8, hosts: std::ops::Range<u8>| -> Vec<u16> {
        hosts
            .map(|host| {
                let user = format!("user-{host}");
                let mut client = world.client(&user, &format!("198.51.{third}.{host}:1"));
                allocate(&mut world, &mut client)
            })
            .collect()
    };
    let [first, other] = [codes(100, 1..9), codes(101, 1..4)];
    assert_eq!(first, [0, 0, 0, 0, 0, 486, 486, 486]);
    assert_eq!(other, [0, 0, 0], "another network's budget");
    world.advance(1);
    let mut later = world.client("later", "198.51.100.77:1");
    assert_eq!(allocate(&mut world, &mut later), SUCCESS);
    assert_eq!(world.limited(Limit::PrefixAllocates), 3);
}

/// Whoever does not authenticate takes nothing off a network's budget.
#[test]
fn failed_authentications_take_no_allocations_from_a_network() {
    let mut world = with_prefix_limit();
    let mut wrong = world.client("alice", ALICE);
    wrong.password = "wrong".to_owned();
    wrong.fetch_nonce(&mut world);
    for _ in 0..50 {
        let answer = wrong.request_once(&mut world, Method::ALLOCATE, |r| r);
        assert_eq!(answer.code(), 401);
    }
    let mut right = world.client("alice", ALICE);
    assert_eq!(allocate(&mut world, &mut right), SUCCESS);
    assert_eq!(world.limited(Limit::PrefixAllocates), 0);
}

fn over_tcp(mut client: Client) -> Client {
    client.tuple.listener = ListenerId::new(Transport::Tcp, 0);
    client
}

fn with_failure_limit(per_second: u32, burst: u32) -> World {
    Setup {
        limits: Limits {
            prefix_failures: Some(Rate { per_second, burst }),
            ..Limits::default()
        },
        ..Setup::default()
    }
    .world()
}

/// What becomes of each of these: the code of an answer, or why there is none.
fn outcome(world: &mut World, client: &mut Client) -> Result<u16, DropReason> {
    let request = client.build(Method::ALLOCATE);
    let bytes = client.sign(request);
    told(world.send(client, &bytes))
}

fn told(outcome: Outcome) -> Result<u16, DropReason> {
    match outcome.dropped() {
        Some(reason) => Err(reason),
        None => Ok(outcome.answer().code()),
    }
}

/// T28: whoever guesses passwords from addresses that it has is told so as often as its network may
/// be, by whatever it fails, and then nothing.
#[test]
fn a_network_is_told_of_so_many_failed_authentications() {
    let mut world = with_failure_limit(2, 6);
    let early = |claims: &mut Claims| claims.issued -= 864_000;
    let mut failing: Vec<Client> = vec![
        world.client("alice", "198.51.100.1:1"),
        world.sealed_client("bob", "198.51.100.2:1", |claims| {
            claims.audience = Label::new("elsewhere");
        }),
        world.sealed_client("carol", "198.51.100.3:1", early),
    ];
    failing[0].password = "guessed".to_owned();
    for client in &mut failing {
        client.fetch_nonce(&mut world);
    }
    let mut outcomes = Vec::new();
    for n in 0..30 {
        outcomes.push(outcome(&mut world, &mut failing[n % 3]));
    }
    assert_eq!(outcomes[..6], [Ok(401); 6]);
    assert_eq!(outcomes[6..], [Err(DropReason::PrefixFailures); 24]);
    assert_eq!(world.drops(DropReason::PrefixFailures), 24);
    assert_eq!(world.limited(Limit::PrefixFailures), 24);
    assert_eq!(world.drops(DropReason::Unvalidated), 0);

    // Another network has its own, and this one what comes back.
    let mut other = failing[0].moved("198.51.101.1:1");
    other.nonce = None;
    other.fetch_nonce(&mut world);
    assert_eq!(outcome(&mut world, &mut other), Ok(401));
    world.advance(1);
    let again: Vec<_> = (0..4)
        .map(|_| outcome(&mut world, &mut failing[0]))
        .collect();
    let silence = Err(DropReason::PrefixFailures);
    assert_eq!(again, [Ok(401), Ok(401), silence, silence]);
}

/// An office behind one address: whatever fails there, its other clients come in as if nothing did,
/// and take nothing off the budget of failures.
#[test]
fn five_hundred_good_clients_of_one_network_never_notice_failures() {
    let mut world = with_failure_limit(1, 1);
    let office = |user: &str, n: u16| (user.to_owned(), format!("198.51.100.7:{}", 2_000 + n));
    let mut wrong = world.client("mallory", "198.51.100.7:1");
    wrong.password = "guessed".to_owned();
    wrong.fetch_nonce(&mut world);
    assert_eq!(outcome(&mut world, &mut wrong), Ok(401));
    for n in 0..500 {
        // What one address is answered without a credential is another budget: it holds 200, and
        // fifty come back each second, for which clients on UDP ask again.
        if n % 50 == 49 {
            world.advance(1);
            assert_eq!(outcome(&mut world, &mut wrong), Ok(401), "after {n}");
        }
        let silence = Err(DropReason::PrefixFailures);
        assert_eq!(outcome(&mut world, &mut wrong), silence, "after {n}");
        let (user, at) = office(&format!("user-{n}"), n);
        let mut client = world.client(&user, &at);
        assert_eq!(allocate(&mut world, &mut client), SUCCESS, "{user}");
    }
    assert_eq!(world.drops(DropReason::Unvalidated), 0);
    assert_eq!(world.allocations(), 500);
}

/// A stale nonce is no failure: whoever comes back with a good credential is told to take another.
#[test]
fn a_stale_nonce_takes_nothing_off_a_networks_failures() {
    let mut world = with_failure_limit(1, 1);
    let mut alice = over_tcp(world.client("alice", ALICE));
    alice.fetch_nonce(&mut world);
    world.advance(NONCE_LIFETIME);
    for _ in 0..5 {
        assert_eq!(outcome(&mut world, &mut alice), Ok(438));
    }
    let mut wrong = world.client("mallory", "198.51.100.8:1");
    wrong.password = "guessed".to_owned();
    wrong.fetch_nonce(&mut world);
    assert_eq!(outcome(&mut world, &mut wrong), Ok(401));
}

/// On a connection, where nothing that is dropped is sent again, each client of a network is told
/// that it needs a credential, and none without end.
#[test]
fn connected_clients_are_challenged_as_often_as_their_network_may_be() {
    let mut world = Setup {
        unvalidated: Rate {
            per_second: 1,
            burst: 5,
        },
        ..Setup::default()
    }
    .world();
    let mut ask = |addr: &str, transport: Transport| {
        let mut client = world.client("alice", addr);
        client.tuple.listener = ListenerId::new(transport, 0);
        let bytes = client.build(Method::ALLOCATE).bytes();
        told(world.send(&client, &bytes))
    };
    // Datagrams, which may be forged, take nothing off what is for connections.
    let silence = Err(DropReason::Unvalidated);
    for host in 0..100 {
        for n in 0..6 {
            let told = ask(&format!("198.51.100.{host}:9"), Transport::Udp);
            assert_eq!(told == Ok(401), host < 20 && n < 5, "{host} {n}");
        }
    }
    for n in 0..100 {
        let addr = format!("198.51.100.7:{}", 1 + n);
        assert_eq!(ask(&addr, Transport::Tcp), Ok(401), "{n}");
    }
    assert_eq!(ask("198.51.100.8:1", Transport::Tls), silence);
    assert_eq!(ask("198.51.101.8:1", Transport::Tls), Ok(401));
}

/// What is to be told of has its bound in what lives.
#[test]
fn while_too_much_waits_to_be_told_of_nobody_allocates_and_what_lives_goes_on() {
    let mut call = Call::permitted(Setup::default());
    call.world.house.borrow_mut().behind = true;
    let mut late = call.world.client("carol", "192.0.2.77:1");
    assert_eq!(allocate(&mut call.world, &mut late), 508);
    assert_eq!(call.world.limited(Limit::Journal), 1);
    assert_eq!(counted(&call.world), (2, 0, 2));
    assert_eq!(call.alice.refresh(&mut call.world, None).code(), SUCCESS);
    let bob = call.bob.clone();
    call.alice_says(b"x").at(&bob);
    assert_eq!(call.bob.refresh(&mut call.world, Some(0)).code(), SUCCESS);
    call.world.house.borrow_mut().behind = false;
    assert_eq!(allocate(&mut call.world, &mut late), SUCCESS);
}

/// T27 and T28: a million sources that ask without a credential or with garbage for a signature
/// leave no table larger than it was, and get no more replies than the cap says.
#[test]
fn a_million_forged_sources_leave_nothing_behind() {
    const SOURCES: u32 = 1_000_000;
    let mut call = Call::new(Setup::default());
    let alice = call.alice.clone();
    let mut stranger = alice.moved("192.0.2.1:9");
    let bare = stranger.build(Method::ALLOCATE).bytes();
    stranger.nonce = Some("obMatJos2gAAAnonsense".to_owned());
    let garbage = stranger.build(Method::ALLOCATE);
    let garbage = stranger.credentials(garbage).integrity(b"garbage").bytes();
    let tables = |world: &World| {
        let house = world.house.borrow();
        let users = &house.users;
        let sizes = [users.len(), users.total(), users.tenants()];
        (sizes, house.owners.len(), house.landings.len())
    };
    let before = (tables(&call.world), call.world.allocations());
    let (mut answered, mut longest) = (0_u64, 0);
    for n in 0..SOURCES {
        // Sixteen networks, so that most are over their cap.
        let [_, b, c, d] = n.to_be_bytes();
        let source = format!("100.{}.{}.{}:{}", 64 + b, c & 0xF, d, 1_024 + u16::from(c));
        let client = stranger.moved(&source);
        let bytes = if n % 16 == 0 { &garbage } else { &bare };
        let outcome = call.world.send(&client, bytes);
        if let Outcome::Answer(answer) = &outcome {
            answered += 1;
            longest = longest.max(answer.0.len());
        } else {
            assert!(outcome.dropped().is_some(), "{outcome:?}");
        }
    }
    assert_eq!((tables(&call.world), call.world.allocations()), before);
    assert!(longest <= 128, "{longest} bytes");
    // 256 networks of 4,000 replies at most, in buckets that some share.
    assert!(
        (100_000..=16 * 16 * 4_000).contains(&answered),
        "{answered}"
    );
}

/// T40: users who come and go leave no table larger than it was; `turn/quota.rs` holds it of a
/// hundred thousand.
#[test]
fn users_who_come_and_go_leave_nothing_behind() {
    const USERS: u32 = 3_000;
    let mut world = quotas(Some(2), Some(1_000), Some(2_000));
    for n in 0..USERS {
        let [_, b, c, d] = n.to_be_bytes();
        let addr = format!("100.{}.{}.{}:9", 64 + b, c, d);
        let user = format!("user-{n}");
        let mut client = world.sealed_client(&user, &addr, |claims| {
            claims.tenant = Label::new(&format!("tenant-{}", n % 100));
        });
        assert_eq!(allocate(&mut world, &mut client), SUCCESS);
        assert_eq!(client.refresh(&mut world, Some(0)).code(), SUCCESS);
        if n % 500 == 0 {
            // Ports rest.
            world.advance(60);
            world.events(0);
        }
    }
    assert_eq!(counted(&world), (0, 0, 0));
    let house = world.house.borrow();
    assert!(house.landings.is_empty() && house.owners.is_empty());
}
