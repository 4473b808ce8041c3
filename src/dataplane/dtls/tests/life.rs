//! Sessions whose handshake is finished.

use std::time::Duration;

use openssl::ssl::SslVerifyMode;

use super::harness::{Client, Shaken, World, address};
use crate::dataplane::dtls::{Idle, Limits, PLAIN_MAX, Received, Refused};

#[test]
fn every_message_is_one_datagram_in_both_directions() {
    let mut world = World::plain();
    let mut client = world.connect(address(1, 1));
    for len in [1, 20, 172, 1_200, 1_452, 9_000, PLAIN_MAX] {
        let message = vec![0xa5; len];
        let sealed = client.seal(&message);
        world.deliver(client.addr, &sealed);
        assert_eq!(world.plain.pop(), Some((client.addr, message.clone())));
        assert!(world.plain.is_empty());

        assert!(world.send(client.addr, &[&message[..len / 2], &message[len / 2..]]));
        let sent = world.sent_to(client.addr);
        assert_eq!(sent.len(), 1);
        client.receive(&sent[0]);
        assert_eq!(client.open(), [Some(message)]);
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let mut world = World::plain();
    let mut client = world.connect(address(1, 1));
    let mut refusal = |to, len: usize| {
        let mut out = |_, _: &[u8]| panic!("something was sent");
        world.dtls.send(to, &[&vec![0; len]], &mut out)
    };
    assert_eq!(refusal(address(1, 2), 1), Err(Refused::NoSession));
    assert_eq!(refusal(client.addr, PLAIN_MAX + 1), Err(Refused::TooLong));
    assert!(world.passes(&mut client));
}

#[test]
fn nothing_is_sent_before_the_handshake_is_finished() {
    let mut world = World::plain();
    let mut client = Client::new(address(1, 1));
    while world.dtls.half_open() == 0 {
        assert_eq!(client.shake(), Shaken::Waiting);
        world.deliver(client.addr, &client.sent().concat());
        for datagram in world.sent_to(client.addr) {
            client.receive(&datagram);
        }
    }
    assert!(!world.send(client.addr, &[b"early"]));
    assert!(world.sent.is_empty());
}

#[test]
fn several_records_of_one_datagram_are_read_one_by_one() {
    let mut world = World::plain();
    let mut client = world.connect(address(1, 1));
    let datagram = [client.seal(b"one"), client.seal(b"two"), client.seal(b"3")].concat();
    world.deliver(client.addr, &datagram);
    let read: Vec<_> = world.plain.drain(..).map(|(_, plain)| plain).collect();
    assert_eq!(read, [&b"one"[..], b"two", b"3"]);
}

#[test]
fn a_reader_with_little_room_gets_all_in_pieces() {
    let mut world = World::plain();
    let mut client = world.connect(address(1, 1));
    world.room = 3;
    let sealed = client.seal(b"ten bytes.");
    world.deliver(client.addr, &sealed);
    let read: Vec<_> = world.plain.drain(..).map(|(_, plain)| plain).collect();
    assert_eq!(read, [&b"ten"[..], b" by", b"tes", b"."]);
    world.room = 100;
    assert!(world.passes(&mut client));
}

/// CVE-2024-4741: buffers are not freed while something is in them.
#[test]
fn a_record_read_in_part_survives_a_send_in_between() {
    let mut world = World::plain();
    let mut client = world.connect(address(1, 1));
    let datagram = [client.seal(b"ten bytes."), client.seal(b"more")].concat();
    let mut out = |_, _: &[u8]| ();
    let mut plain = [0; 4];
    world
        .dtls
        .receive(client.addr, &datagram, world.now, &mut out);
    let mut read = Vec::new();
    while let Some(len) = world.dtls.read(&mut plain, &mut out) {
        read.extend_from_slice(&plain[..len]);
        let echo: &[&[u8]] = &[&plain[..len]];
        assert_eq!(world.dtls.send(client.addr, echo, &mut out), Ok(()));
    }
    assert_eq!(read, b"ten bytes.more");
}

#[test]
fn a_record_that_comes_twice_is_read_once_and_disorder_is_no_loss() {
    let mut world = World::plain();
    let mut client = world.connect(address(1, 1));
    let sealed: Vec<_> = (0..40_u8).map(|n| client.seal(&[n])).collect();
    for datagram in sealed.iter().rev().chain(&sealed) {
        world.deliver(client.addr, datagram);
    }
    let mut read: Vec<_> = world.plain.drain(..).map(|(_, plain)| plain[0]).collect();
    read.sort_unstable();
    assert_eq!(read, (0..40).collect::<Vec<_>>());
}

/// Datagrams that somebody without a key can send with a client's address.
fn forgeries(genuine: &[u8]) -> Vec<Vec<u8>> {
    let mut forged = vec![vec![0xff; 1_500], vec![22; 40], Vec::new(), vec![0]];
    for at in 0..genuine.len() {
        let mut datagram = genuine.to_vec();
        datagram[at] ^= 0x40;
        forged.push(datagram);
        forged.push(genuine[..at].to_vec());
    }
    // Alerts, goodbyes and everything else, encrypted in words only.
    for content in (0..=30).chain([255]) {
        for len in (0..50).chain([1_200]) {
            for epoch in [0, 1, 2] {
                let mut record = vec![content, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 9];
                record.extend(u16::to_be_bytes(len));
                record.extend(std::iter::repeat_n(1, usize::from(len)));
                forged.push(record);
            }
        }
    }
    forged
}

/// RFC 6347 §4.1.2.7. A record that is too short for its tag, and an empty datagram, are the end
/// of a session to OpenSSL when they get there.
#[test]
fn what_the_client_did_not_seal_is_dropped_in_silence_and_ends_nothing() {
    for cipher in ["ECDHE+AESGCM", "ECDHE+CHACHA20"] {
        let mut world = World::plain();
        let mut client = Client::with(address(1, 1), "plain.test", |builder| {
            builder.set_verify(SslVerifyMode::NONE);
            builder.set_cipher_list(cipher).unwrap();
        });
        assert_eq!(world.shake(&mut client), Shaken::Done);
        let genuine = client.seal(b"g");
        for datagram in forgeries(&genuine) {
            world.deliver(client.addr, &datagram);
            assert!(world.plain.is_empty());
            assert!(world.sent.is_empty(), "an answer to {datagram:?}");
            assert!(world.closed.is_empty(), "the end by {datagram:?}");
        }
        world.deliver(client.addr, &genuine);
        assert_eq!(world.plain, [(client.addr, b"g".to_vec())]);
        assert!(world.passes(&mut client));
    }
}

#[test]
fn a_client_that_says_goodbye_is_gone() {
    let mut world = World::plain();
    let mut client = world.connect(address(1, 1));
    let goodbye = client.goodbye();
    world.deliver(client.addr, &goodbye);
    assert_eq!(world.closed, [client.addr]);
    assert!(world.dtls.is_empty());
    assert_eq!(world.dtls.poll_timeout(), None);
    // RFC 6347 §4.2.8 by way of RFC 5246 §7.2.1: a goodbye is answered with one.
    for datagram in world.sent_to(client.addr) {
        client.receive(&datagram);
    }
    assert_eq!(client.open(), [None]);
}

#[test]
fn a_client_that_is_told_goodbye_is_gone_without_being_named() {
    let mut world = World::plain();
    let mut clients = [1, 2, 3].map(|port| world.connect(address(1, port)));
    world.close(clients[0].addr);
    assert_eq!(world.dtls.len(), 2);
    let mut datagrams = Vec::new();
    world
        .dtls
        .close_all(&mut |to, datagram| datagrams.push((to, datagram.to_vec())));
    world.sent.append(&mut datagrams);
    assert!(world.dtls.is_empty() && world.closed.is_empty());
    for client in &mut clients {
        for datagram in world.sent_to(client.addr) {
            client.receive(&datagram);
        }
        assert_eq!(client.open(), [None]);
    }
}

#[test]
fn a_silent_client_stays_for_as_long_as_it_is_wanted() {
    let idle = Duration::from_secs(60);
    let limits = Limits {
        idle,
        ..Limits::default()
    };
    let mut world = World::new(super::harness::plain_context(), limits);
    let mut client = world.connect(address(1, 1));
    world.pass(idle - Duration::from_secs(1), Idle::Close);
    assert!(world.passes(&mut client));
    // Not silent for a minute yet.
    world.pass(idle - Duration::from_secs(1), Idle::Close);
    assert_eq!(world.dtls.len(), 1);
    world.pass(idle, Idle::Stay);
    assert_eq!(world.dtls.len(), 1);
    // Records that are not its own do not make it less silent.
    world.pass(idle - Duration::from_secs(1), Idle::Close);
    world.deliver(
        client.addr,
        &[23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 1, 0],
    );
    world.pass(Duration::from_secs(1), Idle::Close);
    assert!(world.dtls.is_empty());
    assert_eq!(world.closed, [client.addr]);
    for datagram in world.sent_to(client.addr) {
        client.receive(&datagram);
    }
    assert_eq!(client.open(), [None]);
}

#[test]
fn a_client_that_did_not_hear_the_end_of_the_handshake_asks_again_and_is_told() {
    let mut world = World::plain();
    let mut client = Client::new(address(1, 1));
    let mut last = Vec::new();
    while world.dtls.counts().finished == 0 {
        assert_eq!(client.shake(), Shaken::Waiting);
        last = client.sent();
        for datagram in &last {
            world.deliver(client.addr, datagram);
        }
        let lost = world.dtls.counts().finished == 1;
        for datagram in world.sent_to(client.addr).iter().filter(|_| !lost) {
            client.receive(datagram);
        }
    }
    // A copy of the client's flight is a replay.
    for datagram in &last {
        assert_eq!(world.deliver(client.addr, datagram), Received::Readable);
    }
    assert!(world.sent.is_empty() && world.closed.is_empty());
    // What the client sends anew of its own, after a second by the system's clock, is not.
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(100));
        if world.shake(&mut client) == Shaken::Done {
            break;
        }
    }
    assert!(world.passes(&mut client));
}
