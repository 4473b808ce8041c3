//! Clients on TCP and TLS: every transport reaches every other one through the same hairpin, and
//! what a connection may cost is bounded.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use taciturn::dataplane::Record;
use taciturn::proto::{Method, RequestedTransport};
use taciturn::turn::stats::{DropReason, Path};
use taciturn::turn::{EndReason, Transport};

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4, loopback_of_its_own};
use crate::loopback::stream::Stream;
use crate::loopback::{PATIENCE, eventually};

const TRANSPORTS: &[Transport] = if cfg!(feature = "dtls") {
    &Transport::ALL
} else {
    &[Transport::Udp, Transport::Tcp, Transport::Tls]
};
const CHANNEL: u16 = 0x4abc;

/// Two parties that admit each other, the first by a channel, the second by a permission.
fn pair(plane: &mut Plane, over: [Transport; 2]) -> [(Client, SocketAddr); 2] {
    let [(mut a, at_a), (mut b, at_b)] = over.map(|transport| plane.party_over(transport));
    assert_eq!(a.bind(CHANNEL, at_b), SUCCESS);
    assert_eq!(b.permit(at_a), SUCCESS);
    [(a, at_a), (b, at_b)]
}

#[test]
fn every_transport_reaches_every_other_one_by_hairpin() {
    for workers in [1, 4] {
        let mut plane = Setup::streams(workers).start();
        let mut sent = 0;
        for one in TRANSPORTS.iter().copied() {
            for other in TRANSPORTS.iter().copied() {
                let [(mut a, at_a), (mut b, at_b)] = pair(&mut plane, [one, other]);
                for size in [0, 1, 171, 1_200, 9_001] {
                    let data = vec![7; size];
                    a.send_channel(CHANNEL, &data);
                    let expected = Received::Data(at_a, data.clone());
                    assert_eq!(b.receive(), expected, "{one:?} to {other:?}, {size} bytes");
                    b.send_to(at_a, &data);
                    let expected = Received::Channel(CHANNEL, data);
                    assert_eq!(a.receive(), expected, "{other:?} to {one:?}, {size} bytes");
                    sent += 1;
                }
                assert_ne!(at_a, at_b);
            }
        }
        eventually("all are counted", || {
            plane.both_ways(Path::Hairpin) == [2 * sent, 2 * sent]
        });
    }
}

#[test]
fn an_allocation_ends_with_its_connection() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut plane = Setup::streams(1).start();
        let (a, _) = plane.party_over(transport);
        assert!(matches!(plane.record(), Record::Opened { .. }));
        drop(a);
        let Record::Closed {
            transport: told,
            reason,
            ..
        } = plane.record()
        else {
            panic!("opened twice");
        };
        assert_eq!((told, reason), (transport, EndReason::Disconnected));
    }
}

#[cfg(feature = "dtls")]
#[test]
fn an_allocation_ends_with_its_dtls_session() {
    let mut plane = Setup::streams(1).start();
    let (mut a, _) = plane.party_over(Transport::Dtls);
    assert!(matches!(plane.record(), Record::Opened { .. }));
    a.dtls.as_mut().unwrap().close();
    let closed = plane.record();
    let Record::Closed { reason, .. } = closed else {
        panic!("opened twice");
    };
    assert_eq!(reason, EndReason::Disconnected);
}

#[test]
fn messages_may_be_cut_anywhere_and_follow_each_other_without_gaps() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut plane = Setup::streams(2).start();
        let [(mut a, at_a), (mut b, _)] = pair(&mut plane, [transport, Transport::Udp]);
        let packets: Vec<Vec<u8>> = (1..=40).map(|n| vec![n; usize::from(n) * 7]).collect();
        let mut bytes = Vec::new();
        for packet in &packets {
            let framed = crate::loopback::client::channel_data(CHANNEL, packet);
            bytes.extend_from_slice(&framed);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let stream = a.stream.as_mut().unwrap();
        // In one go, byte by byte at first, then in odd pieces.
        stream.write(&bytes);
        let (slow, rest) = bytes.split_at(64);
        slow.chunks(1).for_each(|byte| stream.write(byte));
        rest.chunks(13).for_each(|piece| stream.write(piece));
        for round in 0..2 {
            for packet in &packets {
                let expected = Received::Data(at_a, packet.clone());
                assert_eq!(b.receive(), expected, "{transport:?}, round {round}");
            }
        }
    }
}

/// What TLS has decrypted is in no socket, so that nothing but the worker itself looks at it again. A
/// message that fills the buffer ends in the last record that is read in one turn, and another
/// message with it.
#[test]
fn what_came_within_tls_is_heard_though_its_socket_has_nothing_more() {
    let mut plane = Setup::streams(1).start();
    let [(mut a, at_a), (mut b, _)] = pair(&mut plane, [Transport::Tls, Transport::Udp]);
    let framed = crate::loopback::client::channel_data;
    let unbound = CHANNEL + 1;
    let stream = a.stream.as_mut().unwrap();
    for n in 0..50_u8 {
        let last = [n; 60];
        let begin = 8_000;
        let long = [framed(unbound, &vec![7; 65_532]), framed(CHANNEL, &last)].concat();
        let (first, rest) = long.split_at(begin);
        // All at once, as far as the kernel lets a sender say so.
        let socket = socket2::Socket::from(stream.socket.try_clone().unwrap());
        socket.set_tcp_cork(true).unwrap();
        for _ in 0..3 {
            stream.write(&framed(unbound, &[7; 8_000]));
        }
        stream.write(first);
        rest.chunks(16_384).for_each(|record| stream.write(record));
        socket.set_tcp_cork(false).unwrap();
        assert_eq!(b.receive(), Received::Data(at_a, last.to_vec()), "{n}");
    }
}

#[test]
fn tls_and_plain_turn_are_told_apart_on_one_port() {
    let mut setup = Setup::streams(1);
    setup.one_port = true;
    let mut plane = setup.start();
    let at = plane.reached_over(Transport::Tcp);
    assert_eq!(at, plane.reached_over(Transport::Tls), "one port for both");
    let [(a, at_a), (mut b, _)] = pair(&mut plane, [Transport::Tcp, Transport::Tls]);
    a.send_channel(CHANNEL, b"through");
    assert_eq!(b.receive(), Received::Data(at_a, b"through".to_vec()));
}

#[test]
fn both_versions_of_tls_are_spoken() {
    let mut plane = Setup::streams(1).start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = plane.client_over(Transport::Tls);
        client.stream = Some(Stream::tls_with(client.server, &[version]));
        assert_eq!(client.request(Method::BINDING, |r| r).code(), SUCCESS);
    }
}

/// What is neither STUN nor ChannelData, and what claims to be long, ends a stranger's connection
/// at once.
#[test]
fn a_connection_that_loses_its_borders_is_closed() {
    let plane = Setup::streams(1).start();
    let long = [0x40, 0, 0xff, 0xff];
    let texts: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 20], &long, &[0, 1, 0, 3]];
    for text in texts {
        let mut stream = Stream::tcp(plane.reached_over(Transport::Tcp));
        stream.write(text);
        assert!(stream.is_closed_within(PATIENCE), "{text:?}");
    }
    assert!(plane.drops(DropReason::Malformed) >= 4);
}

/// T36: who drips bytes, or says nothing at all, is let go on a deadline, and keeps nobody else from
/// being served.
#[test]
fn slow_and_silent_connections_are_closed_on_deadlines() {
    let mut plane = Setup::streams(1).start();
    let tls = plane.reached_over(Transport::Tls);
    let tcp = plane.reached_over(Transport::Tcp);
    let silent = std::net::TcpStream::connect(tls).unwrap();
    let mut half = Stream::tcp(tcp);
    half.write(&[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42]);
    let mut dripping = Stream::tcp(tcp);
    let drip = thread::spawn(move || {
        let began = Instant::now();
        let message = [0, 1, 0, 0x80, 0x21, 0x12, 0xA4, 0x42];
        let mut bytes = message.into_iter().chain(std::iter::repeat(0));
        while began.elapsed() < PATIENCE {
            let Some(byte) = bytes.next() else { break };
            use std::io::Write;
            if dripping.socket.write_all(&[byte]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(200));
        }
        false
    });
    let [(a, at_a), (mut b, _)] = pair(&mut plane, [Transport::Tcp, Transport::Tls]);
    a.send_channel(CHANNEL, b"meanwhile");
    assert_eq!(b.receive(), Received::Data(at_a, b"meanwhile".to_vec()));
    assert!(half.is_closed_within(PATIENCE), "half a message");
    assert!(drip.join().unwrap(), "byte by byte");
    assert!(
        Stream::of(silent).is_closed_within(PATIENCE),
        "no handshake"
    );
}

/// T38: a reader that has stopped loses packets, which are counted; its sender, and everybody else,
/// goes on.
#[test]
fn a_reader_that_stops_loses_packets_and_holds_up_nobody() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut plane = Setup::streams(1).start();
        let [(a, at_a), (b, _)] = pair(&mut plane, [Transport::Udp, transport]);
        let [(c, at_c), (mut d, _)] = pair(&mut plane, [Transport::Udp, transport]);
        // Far more than the kernel's buffers on both sides hold.
        let packet = [1; 1_200];
        for n in 0..20_000 {
            a.send_channel(CHANNEL, &packet);
            if n % 100 == 0 {
                c.send_channel(CHANNEL, b"meanwhile");
                let expected = Received::Data(at_c, b"meanwhile".to_vec());
                assert_eq!(d.receive(), expected, "{transport:?}");
            }
        }
        assert!(plane.drops(DropReason::SlowReader) > 0, "nothing was lost");
        // What it gets when it reads on is whole.
        let mut b = b;
        let first = b.receive();
        assert_eq!(first, Received::Data(at_a, packet.to_vec()));
        assert_eq!(b.refresh(600).code(), SUCCESS);
    }
}

#[test]
fn a_client_that_comes_from_the_same_port_again_begins_anew() {
    let mut plane = Setup::streams(1).start();
    let server = plane.reached_over(Transport::Tcp);
    let connect = |local: SocketAddr| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&local.into()).unwrap();
        socket.connect(&server.into()).unwrap();
        // A reset when it is dropped, so that the port is free at once.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        Stream::of(socket.into())
    };
    // Nobody else takes a port of this address meanwhile.
    let mut local = SocketAddr::new(loopback_of_its_own().into(), 0);
    for _ in 0..2 {
        let mut client = plane.client_over(Transport::Tcp);
        client.stream = Some(connect(local));
        local = client.addr();
        assert_eq!(client.try_allocate(V4).code(), SUCCESS);
    }
}

/// Behind a load balancer, a client's next connection may come before the end of its former one is
/// seen, and with its first message in the same segment: the former's allocation is not its own.
#[test]
fn the_first_message_of_a_connection_finds_nothing_of_the_one_whose_place_it_takes() {
    let mut setup = Setup::streams(1);
    setup.trusted = vec!["127.0.0.1/32"];
    let mut plane = setup.start();
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 3478\r\n";
    let mut a = plane.client_over(Transport::Tcp);
    a.stream.as_ref().unwrap().write(header);
    let at_a = a.allocate(V4);
    let mut b = plane.client_over(Transport::Tcp);
    b.stream.as_ref().unwrap().write(b"PROXY UNKNOWN\r\n");
    let at_b = b.allocate(V4);
    assert_eq!((a.bind(CHANNEL, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_channel(CHANNEL, b"mine");
    assert_eq!(b.receive(), Received::Data(at_a, b"mine".to_vec()));
    let again = Stream::tcp(a.server);
    plane.drops_by(DropReason::NoAllocation, 1, || {
        let message = crate::loopback::client::channel_data(CHANNEL, b"whose?!!");
        again.write(&[header, &message[..]].concat());
    });
    let stream = a.stream.as_mut().unwrap();
    assert!(stream.is_closed_within(PATIENCE), "two have one 5-tuple");
}

/// The sources of connections are validated by TCP itself, so that the cap on answers to strangers
/// does not concern them.
#[test]
fn a_connection_is_answered_however_often_it_asks() {
    let mut plane = Setup::streams(1).start();
    let mut client = plane.client_over(Transport::Tcp);
    for _ in 0..2_000 {
        let answer = client.request_once(Method::ALLOCATE, |r| r.with(&RequestedTransport::UDP));
        assert_eq!(answer.code(), 401);
        client.nonce = None;
    }
    assert_eq!(plane.drops(DropReason::Unvalidated), 0);
}

/// The PROXY header of a trusted load balancer says who the client is, and must be there.
#[test]
fn a_trusted_load_balancer_says_for_whom_it_speaks() {
    let mut setup = Setup::streams(1);
    setup.trusted = vec!["127.0.0.1/32"];
    let mut plane = setup.start();
    let mut headers: Vec<Vec<u8>> =
        vec![b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 3478\r\n".to_vec()];
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend_from_slice(&[192, 0, 2, 7, 198, 51, 100, 1]);
    v2.extend_from_slice(&[4_242_u16.to_be_bytes(), 3_478_u16.to_be_bytes()].concat());
    headers.push(v2);
    for header in headers {
        for pieces in [1, 1_000] {
            let mut client = plane.client_over(Transport::Tcp);
            let stream = client.stream.as_mut().unwrap();
            header.chunks(pieces).for_each(|piece| stream.write(piece));
            let answer = client.request(Method::BINDING, |r| r);
            let told = SocketAddr::from(([192, 0, 2, 7], 4_242));
            assert_eq!(answer.mapped(), Some(told), "{header:?}");
            // One client at a time has this address.
            drop(client);
        }
    }
    let mut client = plane.client_over(Transport::Tcp);
    let stream = client.stream.as_mut().unwrap();
    stream.send(&[
        0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    assert!(stream.is_closed_within(PATIENCE), "no header");
}

/// PROXY protocol version 2 on UDP: every datagram says for which client it is, the answer goes back
/// to the load balancer, and two clients behind one port of it are two.
#[test]
fn datagrams_of_a_trusted_load_balancer_say_for_whom_they_are() {
    let mut setup = Setup::streams(1);
    setup.trusted = vec!["127.0.0.0/8"];
    let mut plane = setup.start();
    let header = |host: u8| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c".to_vec();
        header.extend_from_slice(&[192, 0, 2, host, 198, 51, 100, 1]);
        header.extend_from_slice(&[4_242_u16.to_be_bytes(), 3_478_u16.to_be_bytes()].concat());
        header
    };
    let mut clients = [1, 2].map(|host| {
        let mut client = plane.client(V4);
        client.prefix = header(host);
        (host, client)
    });
    let shared = clients[0].1.socket.try_clone().unwrap();
    clients[1].1.socket = shared;
    let mut relayed = Vec::new();
    for (host, client) in &mut clients {
        let answer = client.request(Method::BINDING, |r| r);
        let told = SocketAddr::from(([192, 0, 2, *host], 4_242));
        assert_eq!(answer.mapped(), Some(told));
        relayed.push(client.allocate(V4));
    }
    let [(_, a), (_, b)] = &mut clients;
    assert_eq!(a.bind(CHANNEL, relayed[1]), SUCCESS);
    assert_eq!(b.permit(relayed[0]), SUCCESS);
    a.send_channel(CHANNEL, b"through the balancer");
    let expected = Received::Data(relayed[0], b"through the balancer".to_vec());
    assert_eq!(b.receive(), expected);
    let stranger = plane.client(V4);
    plane.drops_by(DropReason::NoProxyHeader, 1, || {
        stranger.send_raw(&[
            0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
    });
}
