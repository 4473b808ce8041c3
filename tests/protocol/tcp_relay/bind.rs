//! ConnectionBind (RFC 6062 §5.4).

use taciturn::proto::{ConnectionId, Method};
use taciturn::turn::stats::{Direction, Path};
use taciturn::turn::{Transport, WorkerId};

use super::{PEER, alone, any, begin, bind, closed, connect, data_connection, over, party};
use crate::world::call::{ALICE, BOB};
use crate::world::client::{Client, SUCCESS};
use crate::world::message::Answer;
use crate::world::servers::{BEGIN_UNIX, Outcome, Setup, World, at};

/// Binds, and says how that was answered and which connection it is.
#[track_caller]
pub(super) fn spliced(
    world: &mut World,
    client: &mut Client,
    connection: ConnectionId,
) -> (Answer, ConnectionId) {
    let outcome = bind(world, client, connection);
    let Outcome::Spliced(answer, id) = outcome else {
        panic!("not bound: {outcome:?}");
    };
    assert!(client.has_signed(&answer));
    (answer, id)
}

#[test]
fn a_new_connection_is_bound_once_and_then_has_no_deadline_of_its_own() {
    let (mut world, mut alice, _) = alone(any());
    let connection = connect(&mut world, &mut alice, at(PEER));
    let mut data = data_connection(&alice, 1001);
    let (answer, id) = spliced(&mut world, &mut data, connection);
    assert_eq!((answer.code(), id), (SUCCESS, connection));
    world.advance(500);
    assert!(closed(&world).is_empty());
    let mut second = data_connection(&alice, 1002);
    assert_eq!(
        bind(&mut world, &mut second, connection).answer().code(),
        400
    );
}

#[test]
fn what_names_no_pending_connection_is_a_bad_request() {
    let (mut world, mut alice, _) = alone(any());
    let connection = connect(&mut world, &mut alice, at(PEER));
    let mut data = data_connection(&alice, 1001);
    let unknown = ConnectionId(connection.0 ^ 1);
    assert_eq!(bind(&mut world, &mut data, unknown).answer().code(), 400);
    let answer = data.request(&mut world, Method::CONNECTION_BIND, |request| request);
    assert_eq!(answer.code(), 400);
    // One that is still being made is not pending yet.
    let (begun, _) = begin(&mut world, &mut alice, at("192.0.9.9:8081"));
    assert_eq!(bind(&mut world, &mut data, begun).answer().code(), 400);
    // A datagram is no connection, and a control connection carries no data.
    for transport in [Transport::Udp, Transport::Dtls] {
        let mut packet = over(transport, data_connection(&alice, 1003));
        let answer = bind(&mut world, &mut packet, connection).answer();
        assert_eq!(answer.code(), 400, "{transport:?}");
    }
    let answer = bind(&mut world, &mut alice, connection).answer();
    assert_eq!(answer.code(), 400);
    assert_eq!(spliced(&mut world, &mut data, connection).1, connection);
}

/// T19
#[test]
fn another_users_credential_binds_nothing_and_learns_nothing() {
    let (mut world, mut alice, _) = alone(any());
    let connection = connect(&mut world, &mut alice, at(PEER));
    let mut mallory = over(Transport::Tcp, world.client("mallory", BOB));
    for id in [connection, ConnectionId(connection.0 ^ 1)] {
        assert_eq!(bind(&mut world, &mut mallory, id).answer().code(), 400);
    }
    let bare = mallory
        .build(Method::CONNECTION_BIND)
        .with(&connection)
        .bytes();
    assert_eq!(world.send(&mallory, &bare).answer().code(), 401);
    let mut data = data_connection(&alice, 1001);
    spliced(&mut world, &mut data, connection);
}

#[test]
fn an_expired_credential_binds_what_it_made_unless_it_is_strict() {
    for (strict, code) in [(false, SUCCESS), (true, 401)] {
        let setup = Setup { strict, ..any() };
        let mut world = setup.world();
        let expires = BEGIN_UNIX + 100;
        let mut alice = over(Transport::Tcp, world.client_until("alice", ALICE, expires));
        assert_eq!(
            super::allocate_with(&mut world, &mut alice, |r| r).code(),
            SUCCESS
        );
        // Past the expiry and its leeway, but within the thirty seconds.
        world.advance(150);
        let connection = connect(&mut world, &mut alice, at(PEER));
        world.advance(20);
        let mut data = data_connection(&alice, 1001);
        let outcome = bind(&mut world, &mut data, connection);
        assert_eq!(super::code(outcome), code, "strict: {strict}");
    }
}

#[test]
fn a_connection_of_another_worker_is_handed_over_once_its_client_is_known() {
    let mut world = Setup {
        workers: 2,
        ..any()
    }
    .world();
    let mut alice = over(Transport::Tcp, world.client("alice", ALICE)).on(1);
    assert_eq!(
        super::allocate_with(&mut world, &mut alice, |r| r).code(),
        SUCCESS
    );
    let connection = connect(&mut world, &mut alice, at(PEER));
    let mut data = data_connection(&alice, 1001).on(0);
    let bare = data
        .build(Method::CONNECTION_BIND)
        .with(&connection)
        .bytes();
    assert_eq!(world.send(&data, &bare).answer().code(), 401);
    let outcome = bind(&mut world, &mut data, connection);
    assert_eq!(outcome, Outcome::HandOver(WorkerId(1)));
    let mut data = data.on(1);
    assert_eq!(spliced(&mut world, &mut data, connection).1, connection);

    // There is no third worker.
    let mut data = data_connection(&alice, 1002).on(0);
    let nobodys = ConnectionId(connection.0 | (2 << 20));
    assert_eq!(bind(&mut world, &mut data, nobodys).answer().code(), 400);
}

#[test]
fn what_flows_is_counted_on_the_allocation_and_is_a_sign_of_life() {
    let (mut world, mut alice, relayed) = alone(any());
    let connection = connect(&mut world, &mut alice, at(PEER));
    let mut data = data_connection(&alice, 1001);
    spliced(&mut world, &mut data, connection);
    let server = &world.servers[0];
    let account = server.account(connection).unwrap();
    let later = world.clock.now.plus(std::time::Duration::from_secs(5));
    account.from_client(100, later, server.counters());
    account.from_client(20, later, server.counters());
    account.from_peer(3, later, server.counters());
    assert!(account.until().holds(later));
    for (direction, counted) in [(Direction::In, (2, 120)), (Direction::Out, (1, 3))] {
        assert_eq!(world.meters(relayed, Path::Relay, direction), counted);
        assert_eq!(world.traffic(Path::Relay, direction), counted);
    }
    let landing = world.house.borrow().landings.values().next().cloned();
    assert_eq!(landing.unwrap().meters().last_heard(), later);
}

#[test]
fn two_clients_of_one_user_bind_each_what_is_theirs_or_the_others() {
    let mut world = any().world();
    let (mut first, _) = party(&mut world, "alice", ALICE);
    let (second, _) = party(&mut world, "alice", BOB);
    let connection = connect(&mut world, &mut first, at(PEER));
    // RFC 6062 §4.3 asks for the same credentials, and for nothing else.
    let mut data = data_connection(&second, 1001);
    spliced(&mut world, &mut data, connection);
}
