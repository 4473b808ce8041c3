//! The client against answers as servers give them.

use secrecy::SecretString;

use super::super::crowd::Crowd;
use super::super::login::Credentials;
use super::*;
use crate::proto::{AttributeType, Integrity, LongTermKey};

const SECOND: u64 = 1_000_000_000;
const TOKEN: u32 = 7;

fn relayed() -> SocketAddr {
    "192.0.2.1:50000".parse().unwrap()
}

/// A desk with one client.
fn desk() -> Desk {
    desk_over(Way::Datagrams)
}

fn desk_over(way: Way) -> Desk {
    let credentials = Credentials::Fixed {
        username: "alice".to_owned(),
        password: SecretString::from("hunter2"),
    };
    let logins = credentials.logins(1, 0).unwrap();
    let mut desk = Desk::new(logins, AddressFamily::V4, TOKEN);
    let server = "127.0.0.1:3478".parse().unwrap();
    let (seat, to) = Crowd::alone("127.0.0.1".parse().unwrap())
        .unwrap()
        .seat(server)
        .unwrap();
    desk.add(Side::Client, seat, to, way);
    desk
}

fn sent(desk: &mut Desk) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    desk.transmit(|_, bytes| all.push(bytes.to_vec()));
    all
}

/// An answer to `request` of this class, with what `write` adds.
fn answer(request: &[u8], class: Class, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let request = Message::decode(request).unwrap();
    let mut bytes = vec![0; 500];
    let id = request.transaction_id();
    let mut writer = Writer::new(&mut bytes, class, request.method(), id).unwrap();
    write(&mut writer);
    let length = writer.finish();
    bytes.truncate(length);
    bytes
}

fn refusal(request: &[u8], code: u16, nonce: &str) -> Vec<u8> {
    answer(request, Class::Error, |writer| {
        let reason = "no\u{1b}[31m";
        writer.push(&ErrorCode { code, reason }).unwrap();
        writer.push(&Realm("house")).unwrap();
        writer.push(&Nonce(nonce)).unwrap();
    })
}

fn grant(request: &[u8]) -> Vec<u8> {
    answer(request, Class::Success, |writer| {
        writer.push(&XorRelayedAddress(relayed())).unwrap();
    })
}

fn signed_with(request: &[u8], nonce: &str) -> bool {
    let message = Message::decode(request).unwrap();
    let key = LongTermKey::md5("alice", "house", "hunter2");
    message.verify_integrity(&key) == Integrity::Valid
        && message.find() == Some(Ok(Nonce(nonce)))
        && message.find() == Some(Ok(Realm("house")))
}

#[test]
fn an_allocation_takes_two_requests() {
    let mut desk = desk();
    desk.ask(0, Request::Allocate, 0);
    let [first] = &sent(&mut desk)[..] else {
        panic!("one request")
    };
    let message = Message::decode(first).unwrap();
    assert_eq!(message.find(), Some(Ok(RequestedTransport::UDP)));
    assert!(!message.has(AttributeType::USERNAME));

    assert!(desk.handle(&refusal(first, 401, "n1"), 0).is_none());
    let [second] = &sent(&mut desk)[..] else {
        panic!("one request")
    };
    assert!(signed_with(second, "n1"));

    let answer = desk.handle(&grant(second), 0).unwrap();
    assert!(answer.outcome.is_ok() && matches!(answer.request, Request::Allocate));
    assert!(desk.client(0).unwrap().relayed == Some(relayed()));
    assert_eq!(desk.outstanding(), 0);
    // The next request has credentials at once.
    desk.ask(0, Request::Bind(0x4000, relayed()), 0);
    assert!(signed_with(&sent(&mut desk)[0], "n1"));
}

#[test]
fn a_stale_nonce_is_replaced_but_not_for_ever() {
    let mut desk = desk();
    desk.ask(0, Request::Allocate, 0);
    let first = sent(&mut desk).remove(0);
    assert!(desk.handle(&refusal(&first, 401, "n0"), 0).is_none());
    for nonce in 1..=STALE_MAX {
        let request = sent(&mut desk).remove(0);
        let nonce = format!("n{nonce}");
        assert!(desk.handle(&refusal(&request, 438, &nonce), 0).is_none());
    }
    let request = sent(&mut desk).remove(0);
    assert!(signed_with(&request, "n3"));
    let answer = desk.handle(&refusal(&request, 438, "n4"), 0).unwrap();
    assert!(matches!(
        answer.outcome,
        Err(Failure::Refused { code: 438, .. })
    ));
}

#[test]
fn a_refusal_is_told_without_what_confuses_a_terminal() {
    let mut desk = desk();
    desk.ask(0, Request::Allocate, 0);
    let first = sent(&mut desk).remove(0);
    desk.handle(&refusal(&first, 401, "n"), 0);
    let second = sent(&mut desk).remove(0);
    let answer = desk.handle(&refusal(&second, 401, "n"), 0).unwrap();
    let expected = Failure::Refused {
        code: 401,
        reason: "no[31m".to_owned(),
    };
    assert_eq!(answer.outcome, Err(expected));
}

#[test]
fn only_the_answer_to_a_request_counts() {
    let mut desk = desk();
    desk.ask(0, Request::Allocate, 0);
    let request = sent(&mut desk).remove(0);
    let good = grant(&request);
    // The method, then each part of the transaction id.
    for at in [1, 8, 11, 12, 15, 16, 19] {
        let mut other = good.clone();
        other[at] ^= 0x04;
        assert!(desk.handle(&other, 0).is_none(), "byte {at}");
    }
    assert!(desk.handle(&request, 0).is_none(), "the request itself");
    assert!(desk.handle(b"noise", 0).is_none());
    assert!(desk.handle(&good, 0).is_some());
    assert!(desk.handle(&good, 0).is_none(), "twice");
}

#[test]
fn a_success_without_a_relayed_address_is_nonsense() {
    let mut desk = desk();
    desk.ask(0, Request::Allocate, 0);
    let request = sent(&mut desk).remove(0);
    let empty = answer(&request, Class::Success, |_| {});
    let answer = desk.handle(&empty, 0).unwrap();
    assert!(matches!(answer.outcome, Err(Failure::Nonsense(_))));
}

#[test]
fn a_lost_request_is_sent_again_as_the_rfc_says() {
    let mut desk = desk();
    desk.ask(0, Request::Allocate, 0);
    let first = sent(&mut desk).remove(0);
    let mut times = Vec::new();
    let mut silent = Vec::new();
    for tenth in 0..=450 {
        let now = tenth * SECOND / 10;
        silent.extend(desk.sweep(now));
        for request in sent(&mut desk) {
            assert_eq!(request, first);
            times.push(tenth);
        }
    }
    // RFC 8489 §6.2.1: 0, 500, 1500, 3500, 7500, 15500 and 31500 ms, given up at 39500 ms.
    assert_eq!(times, [5, 15, 35, 75, 155, 315]);
    assert_eq!(silent.len(), 1);
    assert_eq!(silent[0].outcome, Err(Failure::Silence));
    assert_eq!(desk.outstanding(), 0);
}

/// RFC 8489 §6.2.2
#[test]
fn over_a_stream_nothing_is_sent_twice() {
    let mut desk = desk_over(Way::Stream);
    desk.ask(0, Request::Allocate, 0);
    assert_eq!(sent(&mut desk).len(), 1);
    for second in 1..39 {
        assert!(desk.sweep(second * SECOND).is_empty());
        assert!(sent(&mut desk).is_empty(), "at {second} s");
    }
    let silent = desk.sweep(40 * SECOND);
    assert_eq!(silent[0].outcome, Err(Failure::Silence));
}

#[test]
fn a_release_forgets_the_relayed_address() {
    let mut desk = desk();
    desk.ask(0, Request::Allocate, 0);
    let request = sent(&mut desk).remove(0);
    desk.handle(&grant(&request), 0);
    desk.ask(0, Request::Release, 0);
    let release = sent(&mut desk).remove(0);
    let message = Message::decode(&release).unwrap();
    assert_eq!(message.find(), Some(Ok(Lifetime(0))));
    desk.handle(&answer(&release, Class::Success, |_| {}), 0);
    assert!(desk.client(0).unwrap().relayed.is_none());
}
