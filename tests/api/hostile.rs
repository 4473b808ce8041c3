//! Bytes that no platform sends: long, slow, many, or no HTTP at all. The API goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::ask::{self, KEY, ask, raw};
use crate::house::Daemon;
use crate::loopback::PATIENCE;

fn is_well(daemon: &Daemon) {
    let wanted = json!({ "user": "alice" });
    let answer = ask(daemon, "POST", "/v1/credentials", Some(KEY), Some(&wanted));
    assert_eq!(answer.status, 201, "{answer:?}");
}

/// What comes back for these bytes until the connection is closed.
fn thrown(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(ask::at(daemon)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).ok();
    stream.shutdown(std::net::Shutdown::Write).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_body_is_taken_up_to_64_kib_and_not_a_byte_beyond() {
    let (_house, daemon) = ask::open("");
    let body = |length: usize| {
        let frame = json!({ "user": "alice" }).to_string();
        frame.clone() + &" ".repeat(length - frame.len())
    };
    let head = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
    let post = |length| {
        raw(
            ask::at(&daemon),
            "POST",
            "/v1/credentials",
            &head,
            &body(length),
        )
    };
    assert_eq!(post(64 << 10).status, 201);
    let answer = post((64 << 10) + 1);
    assert_eq!(answer.status, 413, "{answer:?}");

    // One that does not say how long it is.
    let chunk = "x".repeat(0x1000);
    let mut chunked = format!(
        "POST /v1/credentials HTTP/1.1\r\nHost: a\r\n{head}Transfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n"
    );
    for _ in 0..17 {
        chunked.push_str(&format!("1000\r\n{chunk}\r\n"));
    }
    chunked.push_str("0\r\n\r\n");
    let answer = thrown(&daemon, chunked.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    is_well(&daemon);
}

/// T50
#[test]
fn noise_harms_nobody() {
    let (_house, daemon) = ask::open("");
    let many = "X: y\r\n".repeat(1_000);
    let long = format!("X: {}\r\n", "y".repeat(1 << 20));
    for bytes in [
        b"\x00\x01\x00\x00\x21\x12\xa4\x42aaaaaaaaaaaa".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{long}\r\n").into_bytes(),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100_000)).into_bytes(),
        b"POST /v1/credentials HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}".to_vec(),
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nAuthorization: \xff\xfe\r\nConnection: close\r\n\r\n".to_vec(),
    ] {
        let answer = thrown(&daemon, &bytes);
        let is_refused = answer.is_empty()
            || ["400", "401", "414", "431", "505", "200"]
                .iter()
                .any(|code| answer.starts_with(&format!("HTTP/1.1 {code}")) || answer.starts_with(&format!("HTTP/1.0 {code}")));
        assert!(is_refused, "{answer}");
    }
    is_well(&daemon);
}

#[test]
fn who_is_slow_or_many_holds_up_nobody_for_long() {
    let (_house, daemon) = ask::open("");
    let head = format!(
        "POST /v1/credentials HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n"
    );
    let open = |bytes: &str| {
        let mut stream = TcpStream::connect(ask::at(&daemon)).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    };
    // A head that does not end, a body that does not come, and nothing at all.
    let mut slow: Vec<TcpStream> = (0..60)
        .map(|n| open(&[head.clone(), format!("{head}\r\n{{"), String::new()][n % 3]))
        .collect();
    is_well(&daemon);
    for stream in &mut slow {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut answer = Vec::new();
        // Closed, with or without an answer; a time-out would be an error.
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
    }
}

/// Connections that may be open at a time.
const CONNECTIONS: usize = 256;

/// Each of those who came in time is served; who comes then finds the connection closed, and what is
/// let go of is somebody else's.
#[test]
fn two_hundred_and_fifty_six_connections_are_served_and_one_more_is_closed() {
    let (house, daemon) = ask::open("");
    let request = format!(
        "GET /v1/allocations HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\
         Connection: close\r\n\r\n"
    );
    let mut crowd: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(ask::at(&daemon)).unwrap())
        .collect();
    for _ in 0..20 {
        assert_eq!(thrown(&daemon, request.as_bytes()), "", "one too many");
    }
    // Who has the control socket is not shut out by who is many elsewhere.
    let bans = house.run(&["bans", "--socket", "control.sock"]);
    assert_eq!(bans.status.code(), Some(0), "{bans:?}");
    for last in [true, false] {
        let place = if last { crowd.len() - 1 } else { 0 };
        let mut one = crowd.remove(place);
        one.set_read_timeout(Some(PATIENCE)).unwrap();
        one.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        one.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    crate::loopback::eventually("there is room again", || {
        thrown(&daemon, request.as_bytes()).starts_with("HTTP/1.1 200")
    });
}
