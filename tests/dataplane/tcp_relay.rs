//! TCP allocations (RFC 6062) with real connections: what clients and peers say to each other
//! arrives whole, in order and on time, and nothing is connected that may not be.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use taciturn::proto::{ConnectionId, Message, Method, RequestedTransport, XorPeerAddress};
use taciturn::turn::policy::PeerPolicy;
use taciturn::turn::stats::{Direction, DropReason, Path};
use taciturn::turn::{Bind, Transport};

use crate::loopback::client::{Client, Credential, SUCCESS};
use crate::loopback::message::Build;
use crate::loopback::plane::{Plane, Setup};
use crate::loopback::stream::Stream;
use crate::loopback::{PATIENCE, eventually};

const STREAMS: [Transport; 2] = [Transport::Tcp, Transport::Tls];
/// Long enough for what must not happen to have happened.
const MEANWHILE: Duration = Duration::from_millis(300);

/// Peers on loopback are admitted.
pub(crate) fn any(workers: usize) -> Setup {
    Setup {
        tcp_relay: true,
        stream_workers: workers,
        ..Setup::any(workers)
    }
}

/// Relayed addresses only.
fn relay(workers: usize) -> Setup {
    Setup {
        tcp_relay: true,
        ..Setup::streams(workers)
    }
}

/// A client with a TCP allocation.
#[track_caller]
pub(crate) fn party(plane: &mut Plane, transport: Transport) -> (Client, SocketAddr) {
    let mut client = plane.client_over(transport);
    let answer = client.request(Method::ALLOCATE, |request| {
        request.with(&RequestedTransport::TCP)
    });
    assert_eq!(answer.code(), SUCCESS);
    let relayed = answer.relayed()[0];
    (client, relayed)
}

/// Connects to a peer; the code, or the connection.
fn connect(client: &mut Client, peer: SocketAddr) -> Result<ConnectionId, u16> {
    let answer = client.request(Method::CONNECT, |request| {
        request.with(&XorPeerAddress(peer))
    });
    match answer.code() {
        SUCCESS => Ok(answer.find().unwrap()),
        code => Err(code),
    }
}

/// The next ConnectionAttempt.
#[track_caller]
fn attempt(client: &mut Client) -> (ConnectionId, SocketAddr) {
    let bytes = client.receive_bytes();
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(message.method(), Method::CONNECTION_ATTEMPT);
    let connection = message.find::<ConnectionId>().unwrap().unwrap();
    let peer = message.find::<XorPeerAddress>().unwrap().unwrap();
    (connection, peer.0)
}

/// A client of the same user on a connection of its own, which knows the nonce.
fn another(plane: &Plane, client: &Client, transport: Transport) -> Client {
    let server = plane.reached_over(transport);
    let stream = if transport == Transport::Tls {
        Stream::tls(server)
    } else {
        Stream::tcp(server)
    };
    let mut other = Client::over(stream, Credential::clone(&client.credential));
    other.realm.clone_from(&client.realm);
    other.nonce.clone_from(&client.nonce);
    other
}

/// Binds a new connection of the client's, which carries data from then on.
#[track_caller]
fn bind(plane: &Plane, client: &Client, transport: Transport, connection: ConnectionId) -> Stream {
    let mut data = another(plane, client, transport);
    let answer = data.request(Method::CONNECTION_BIND, |request| request.with(&connection));
    assert_eq!(answer.code(), SUCCESS, "ConnectionBind");
    data.stream.take().unwrap()
}

/// A peer that takes connections.
fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[track_caller]
fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    eventually("somebody connects to the peer", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, from) = accepted.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream, from)
}

/// A client's data connection to a peer that listens, and the peer's side of it.
#[track_caller]
pub(crate) fn spliced(
    plane: &Plane,
    client: &mut Client,
    relayed: SocketAddr,
    transport: Transport,
) -> (Stream, TcpStream) {
    let (listener, addr) = listening();
    let connection = connect(client, addr).unwrap();
    let (peer, from) = accept(&listener);
    assert_eq!(from, relayed, "the local endpoint is the relayed address");
    (bind(plane, client, transport, connection), peer)
}

#[track_caller]
fn reads(mut from: impl Read, expected: &[u8]) {
    let mut read = vec![0; expected.len()];
    from.read_exact(&mut read).unwrap();
    assert!(read == expected, "other bytes came");
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0_u32..)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .take(len)
        .collect()
}

#[test]
fn a_client_connects_to_a_peer_and_each_hears_the_other() {
    for workers in [1, 4] {
        let mut plane = any(workers).start();
        for control in STREAMS {
            for data in STREAMS {
                let (mut client, relayed) = party(&mut plane, control);
                let (mut stream, mut peer) = spliced(&plane, &mut client, relayed, data);
                for size in [1, 20, 4_000, 100_000] {
                    let bytes = pattern(size);
                    stream.write(&bytes);
                    reads(&mut peer, &bytes);
                    peer.write_all(&bytes).unwrap();
                    assert!(
                        stream.read_raw(size) == bytes,
                        "{control:?} {data:?} {size}"
                    );
                }
                // The control connection goes on meanwhile.
                assert_eq!(client.refresh(600).code(), SUCCESS);
            }
        }
        assert!(plane.both_ways(Path::Relay).iter().all(|n| *n >= 16));
    }
}

#[test]
fn a_permitted_peer_connects_and_what_it_says_before_it_is_bound_is_kept() {
    for workers in [1, 4] {
        let mut plane = any(workers).start();
        let (mut client, relayed) = party(&mut plane, Transport::Tcp);
        assert_eq!(client.permit("127.0.0.1:1".parse().unwrap()), SUCCESS);
        let mut peer = TcpStream::connect(relayed).unwrap();
        let early = pattern(50_000);
        peer.write_all(&early).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let (connection, from) = attempt(&mut client);
        assert_eq!(from, peer.local_addr().unwrap());
        let mut stream = bind(&plane, &client, Transport::Tls, connection);
        assert!(stream.read_raw(early.len()) == early);
        stream.write(b"heard");
        reads(&mut peer, b"heard");
    }
}

/// T9, T53: a peer without a permission is closed at once, and its client hears nothing of it.
#[test]
fn a_peer_without_a_permission_is_closed_at_once() {
    let mut plane = any(1).start();
    let (mut client, relayed) = party(&mut plane, Transport::Tcp);
    plane.drops_by(DropReason::NoPermission, 1, || {
        let mut peer = TcpStream::connect(relayed).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let ended = peer.read(&mut [0; 1]);
        assert!(matches!(ended, Ok(0)) || ended.unwrap_err().kind() == ErrorKind::ConnectionReset);
    });
    assert_eq!(client.receive_within(MEANWHILE), None);
}

/// T9, T10: to a denied peer not even a SYN goes, so that nobody is asked whether it listens.
#[test]
fn a_denied_peer_sees_no_connection() {
    let mut setup = any(1);
    setup.allow.clear();
    let mut plane = setup.start();
    let (mut client, _) = party(&mut plane, Transport::Tcp);
    let (listener, addr) = listening();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(connect(&mut client, addr), Err(403));
    thread::sleep(MEANWHILE);
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "a connection was made"
    );
    // Nor does the answer tell whether anybody listens.
    drop(listener);
    assert_eq!(connect(&mut client, addr), Err(403));
}

#[test]
fn a_peer_that_refuses_is_answered_with_447_and_may_be_tried_again() {
    let mut plane = any(1).start();
    let (mut client, _) = party(&mut plane, Transport::Tls);
    let (listener, addr) = listening();
    drop(listener);
    assert_eq!(connect(&mut client, addr), Err(447));
    let listener = TcpListener::bind(addr).unwrap();
    assert!(connect(&mut client, addr).is_ok());
    assert_eq!(connect(&mut client, addr), Err(446));
    drop(listener);
}

#[test]
fn data_right_behind_the_connection_bind_reaches_the_peer() {
    for workers in [1, 4] {
        let mut plane = any(workers).start();
        let (mut client, _) = party(&mut plane, Transport::Tcp);
        for transport in STREAMS {
            let (listener, addr) = listening();
            let connection = connect(&mut client, addr).unwrap();
            let (mut peer, _) = accept(&listener);
            let mut data = another(&plane, &client, transport);
            let request = data.build(Method::CONNECTION_BIND, |r: Build| r.with(&connection));
            // Not a multiple of four, and nothing that could be taken for a message.
            let bytes = [request.bytes(), b"\xff\xfe raw".to_vec()].concat();
            data.stream.as_ref().unwrap().write(&bytes);
            reads(&mut peer, b"\xff\xfe raw");
        }
    }
}

/// RFC 6062 §3: while one side does not take what it gets, the other is not read; nothing is lost,
/// and nothing piles up here.
#[test]
fn a_slow_reader_holds_up_its_sender_and_loses_nothing() {
    let whole = pattern(24 << 20);
    for transport in STREAMS {
        let mut plane = any(1).start();
        let (mut client, relayed) = party(&mut plane, Transport::Tcp);
        let (mut stream, peer) = spliced(&plane, &mut client, relayed, transport);
        let (mut other, other_relayed) = party(&mut plane, Transport::Tcp);
        let (other_stream, other_peer) = spliced(&plane, &mut other, other_relayed, Transport::Tcp);

        // To the client, which does not read at first.
        let (sent, bytes) = (whole.clone(), peer.try_clone().unwrap());
        let writer = thread::spawn(move || (&bytes).write_all(&sent).unwrap());
        thread::sleep(MEANWHILE);
        assert!(!writer.is_finished(), "everything was taken");
        // Others go on.
        other_stream.write(b"meanwhile");
        reads(&other_peer, b"meanwhile");
        assert!(stream.read_raw(whole.len()) == whole, "{transport:?}");
        writer.join().unwrap();

        // To the peer, the same.
        let sent = whole.clone();
        let writer = thread::spawn(move || stream.write(&sent));
        thread::sleep(MEANWHILE);
        assert!(!writer.is_finished(), "everything was taken");
        reads(&peer, &whole);
        writer.join().unwrap();
        let bytes =
            |direction| plane.sum(|worker| worker.traffic(Path::Relay, direction).bytes.total());
        let len = whole.len() as u64;
        assert_eq!(bytes(Direction::Out), len);
        assert_eq!(bytes(Direction::In), len + 9);
    }
}

#[test]
fn the_end_of_one_direction_is_passed_on_and_the_other_goes_on() {
    let mut plane = any(1).start();
    let (mut client, relayed) = party(&mut plane, Transport::Tcp);
    // The client ends first, then the peer, and the reverse.
    let (mut stream, mut peer) = spliced(&plane, &mut client, relayed, Transport::Tcp);
    stream.write(b"question");
    stream.socket.shutdown(Shutdown::Write).unwrap();
    reads(&mut peer, b"question");
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    peer.write_all(&pattern(300_000)).unwrap();
    assert!(stream.read_raw(300_000) == pattern(300_000));
    drop(peer);
    assert!(stream.is_closed_within(PATIENCE));

    let (mut stream, mut peer) = spliced(&plane, &mut client, relayed, Transport::Tls);
    peer.write_all(b"all").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read_raw(3), b"all");
    assert!(stream.is_closed_within(PATIENCE), "no end within TLS");
    stream.write(b"thanks");
    reads(&mut peer, b"thanks");
}

#[test]
fn a_reset_on_one_side_ends_the_other_and_frees_the_peer_for_another_connect() {
    let mut plane = any(1).start();
    let (mut client, _) = party(&mut plane, Transport::Tcp);
    let (listener, addr) = listening();
    let connection = connect(&mut client, addr).unwrap();
    let (peer, _) = accept(&listener);
    let mut stream = bind(&plane, &client, Transport::Tcp, connection);
    reset(peer);
    assert!(stream.is_closed_within(PATIENCE));
    let mut again = Err(446);
    eventually("the connection is forgotten", || {
        again = connect(&mut client, addr);
        again != Err(446)
    });
    let (mut peer, _) = accept(&listener);
    let stream = bind(&plane, &client, Transport::Tls, again.unwrap());
    reset(stream.socket.try_clone().unwrap());
    drop(stream);
    let ended = peer.read(&mut [0; 1]);
    assert!(matches!(ended, Ok(0)) || ended.unwrap_err().kind() == ErrorKind::ConnectionReset);
}

/// Ends a connection without ceremony.
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    stream.shutdown(Shutdown::Both).ok();
}

/// RFC 6062 §5.5
#[test]
fn data_connections_end_with_their_allocation() {
    let mut plane = any(4).start();
    let (mut client, relayed) = party(&mut plane, Transport::Tcp);
    let (mut stream, mut peer) = spliced(&plane, &mut client, relayed, Transport::Tls);
    let (listener, addr) = listening();
    connect(&mut client, addr).unwrap();
    let (mut pending, _) = accept(&listener);
    assert_eq!(client.refresh(0).code(), SUCCESS);
    assert!(stream.is_closed_within(PATIENCE));
    for peer in [&mut peer, &mut pending] {
        let ended = peer.read(&mut [0; 1]);
        assert!(matches!(ended, Ok(0)) || ended.unwrap_err().kind() == ErrorKind::ConnectionReset);
    }
    // Nobody listens at the relayed address any more.
    assert!(TcpStream::connect(relayed).is_err());

    let (client, relayed) = party(&mut plane, Transport::Tcp);
    TcpStream::connect(relayed).unwrap();
    drop(client);
    eventually("the relayed address is closed", || {
        TcpStream::connect(relayed).is_err()
    });
}

/// T57, T72: between two relayed addresses of one server nothing goes through the kernel's TCP, so
/// that no port is open for anybody to find.
#[test]
fn two_relayed_addresses_are_connected_without_a_port() {
    for workers in [1, 4] {
        for of_alice in STREAMS {
            let mut plane = relay(workers).start();
            let (mut alice, a) = party(&mut plane, of_alice);
            let (mut bob, b) = party(&mut plane, Transport::Tcp);
            assert_eq!(connect(&mut alice, b), Err(447), "not permitted yet");
            assert_eq!(bob.permit(a), SUCCESS);
            let of_alices = connect(&mut alice, b).unwrap();
            let (of_bobs, from) = attempt(&mut bob);
            assert_eq!(from, a);
            let mut at_alice = bind(&plane, &alice, Transport::Tls, of_alices);
            at_alice.write(b"early");
            let mut at_bob = bind(&plane, &bob, Transport::Tcp, of_bobs);
            assert_eq!(at_bob.read_raw(5), b"early");
            let bytes = pattern(1 << 20);
            let sent = bytes.clone();
            let writer = thread::spawn(move || {
                at_bob.write(&sent);
                at_bob
            });
            assert!(at_alice.read_raw(bytes.len()) == bytes);
            let mut at_bob = writer.join().unwrap();
            for relayed in [a, b] {
                let refused = TcpStream::connect(relayed).unwrap_err().kind();
                assert_eq!(refused, ErrorKind::ConnectionRefused);
            }
            drop(at_alice);
            assert!(at_bob.is_closed_within(PATIENCE));
            assert!(plane.both_ways(Path::Hairpin).iter().all(|n| *n > 0));
            assert_eq!(plane.both_ways(Path::Relay), [0, 0]);
        }
    }
}

#[test]
fn another_user_binds_nothing_and_the_peers_connection_ends_unbound() {
    let mut plane = any(4).start();
    let (mut client, _) = party(&mut plane, Transport::Tcp);
    let (listener, addr) = listening();
    let connection = connect(&mut client, addr).unwrap();
    let (mut peer, _) = accept(&listener);
    let mut mallory = plane.client_over(Transport::Tcp);
    let answer = mallory.request(Method::CONNECTION_BIND, |request| request.with(&connection));
    assert_eq!(answer.code(), 400);
    let began = Instant::now();
    peer.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    assert!(began.elapsed() > Duration::from_secs(20), "ended too early");
}

#[test]
fn a_relayed_address_both_listens_and_connects() {
    let mut setup = any(1);
    setup.bind = Bind::Always;
    setup.policy = PeerPolicy::Any;
    let mut plane = setup.start();
    let (mut client, relayed) = party(&mut plane, Transport::Tcp);
    assert_eq!(client.permit("127.0.0.1:1".parse().unwrap()), SUCCESS);
    let (_first, mut first_peer) = spliced(&plane, &mut client, relayed, Transport::Tcp);
    let (_second, second_peer) = spliced(&plane, &mut client, relayed, Transport::Tcp);
    let third_peer = TcpStream::connect(relayed).unwrap();
    let (connection, from) = attempt(&mut client);
    assert_eq!(from, third_peer.local_addr().unwrap());
    let third = bind(&plane, &client, Transport::Tcp, connection);
    third.write(b"third");
    reads(&third_peer, b"third");
    // Nobody else gets the port.
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    other.set_reuse_address(true).unwrap();
    assert!(
        other
            .bind(&relayed.into())
            .and_then(|()| other.listen(1))
            .is_err()
    );
    first_peer.write_all(b"x").unwrap();
    drop(second_peer);
}
