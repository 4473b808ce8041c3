//! Against a bare listener: what leaves, what comes in, and what becomes of a reader that stalls.

use std::net::TcpListener;

use super::*;

fn pair() -> (Streams, usize, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut streams = Streams::new(Speech::Tcp, None).unwrap();
    let place = streams.seat(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (streams, place, server)
}

/// Nine bytes of ChannelData, and a padding that says so.
const MESSAGE: [u8; 9] = [0x40, 0, 0, 5, 1, 2, 3, 4, 5];
const PADDING: [u8; 3] = [0; 3];

fn heard(streams: &mut Streams, count: usize) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    while heard.len() < count && streams.ended().is_none() {
        streams
            .receive(|message| heard.push(message.to_vec()))
            .unwrap();
    }
    heard
}

#[test]
fn a_run_leaves_message_by_message_each_padded() {
    let (mut streams, place, mut server) = pair();
    streams.post(place, Some(9), |room| {
        room[..9].copy_from_slice(&MESSAGE);
        room[9..18].copy_from_slice(&MESSAGE);
        18
    });
    streams.flush();
    let mut sent = [0; 24];
    server.read_exact(&mut sent).unwrap();
    let padded = [&MESSAGE[..], &PADDING].concat();
    assert_eq!(sent[..], [&padded[..], &padded].concat());
    assert_eq!(streams.take_posted().sent, 2);
}

#[test]
fn messages_cut_anywhere_are_heard_whole() {
    let (mut streams, _, mut server) = pair();
    let three = [&MESSAGE[..], &PADDING].concat().repeat(3);
    for cut in 1..three.len() {
        server.write_all(&three[..cut]).unwrap();
        let before = cut / 12;
        let mut messages = heard(&mut streams, before);
        server.write_all(&three[cut..]).unwrap();
        messages.extend(heard(&mut streams, 3 - before));
        assert_eq!(messages, [MESSAGE; 3], "cut at {cut}");
    }
}

#[test]
fn a_connection_that_takes_nothing_loses_packets_and_no_memory() {
    let (mut streams, place, mut server) = pair();
    let large = |room: &mut [u8]| {
        room[..4].copy_from_slice(&[0x40, 0, 0x20, 0]);
        4 + 0x2000
    };
    const POSTED: u64 = 4_000;
    for _ in 0..POSTED {
        streams.post(place, None, large);
        streams.flush();
    }
    let held = streams.connections[place].waiting.len();
    assert!(held <= BACKLOG + 4 + 0x2000, "{held} bytes wait");
    assert!(streams.connections[place].state == State::Blocked);
    assert_eq!(
        streams.take_posted().sent,
        POSTED,
        "lost ones were sent too"
    );

    // What was kept arrives whole, and more follows.
    server.set_nonblocking(true).unwrap();
    let mut bytes = vec![0; 1 << 20];
    let mut received = 0;
    while streams.connections[place].state == State::Blocked {
        received += server.read(&mut bytes).unwrap_or(0);
        streams.receive(|_| {}).unwrap();
    }
    server.set_nonblocking(false).unwrap();
    streams.post(place, None, large);
    streams.flush();
    while !received.is_multiple_of(4 + 0x2000) || received == 0 {
        received += server.read(&mut bytes).unwrap();
    }
    assert!((received as u64) < (POSTED + 1) * (4 + 0x2000));
}

#[test]
fn a_connection_that_ended_refuses_what_is_posted() {
    let (mut streams, place, server) = pair();
    drop(server);
    assert!(heard(&mut streams, 1).is_empty());
    let (count, reason) = streams.ended().unwrap();
    assert_eq!(count, 1, "{reason}");
    streams.post(place, None, |_| 9);
    assert_eq!(streams.take_posted().refused, 1);
}

#[test]
fn what_is_no_message_ends_a_connection() {
    let (mut streams, _, mut server) = pair();
    server.write_all(b"\xffnonsense").unwrap();
    heard(&mut streams, 1);
    assert!(streams.ended().unwrap().1.contains("no message"));
}
