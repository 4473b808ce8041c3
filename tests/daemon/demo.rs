//! `taciturn demo` over HTTP: whom its page answers, and what its credentials are good for. That a
//! call passes between two windows of it, tests/demo shows in a browser.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::house::{Daemon, House, credential};
use crate::http::Answer;
use crate::loopback::PATIENCE;
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::V4;

const JSON: &str = "Content-Type: application/json\r\n";

/// A demo beside others: its page is on a port of the kernel's choice.
fn demo(house: &House) -> (Daemon, SocketAddr) {
    let arguments = ["demo", "--page", "127.0.0.1:0", "--log-level", "info"];
    let daemon = house.start(house.command(&arguments));
    let said = daemon.stdout();
    let (_, rest) = said.split_once("http://").unwrap();
    let page = rest.split('/').next().unwrap().parse().unwrap();
    (daemon, page)
}

/// The answer to `<method> <path>` with these header lines.
fn ask(page: SocketAddr, request: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(page).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have heard enough before all is said.
    stream.write_all(text.as_bytes()).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// The same as a browser of this machine asks for the page itself.
fn own(page: SocketAddr, request: &str, body: &str) -> Answer {
    let headers = format!("Host: {page}\r\nOrigin: http://{page}\r\n{JSON}");
    ask(page, request, &headers, body)
}

fn configuration(page: SocketAddr, party: &str) -> Value {
    let answer = own(page, &format!("POST /credentials/{party}"), "null");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn its_parties_get_short_credentials_with_which_they_reach_each_other_and_nobody_else() {
    let house = House::new("");
    let (mut daemon, page) = demo(&house);
    let [of_a, of_b] = ["a", "b"].map(|party| configuration(page, party));
    assert_eq!(of_a["iceTransportPolicy"], "relay");
    assert_eq!(of_a["relayedAddresses"], json!(["127.0.34.78"]));

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for configuration in [&of_a, &of_b] {
        let username = credential(configuration).username;
        let (expiry, name) = username.split_once(':').unwrap();
        assert!(name.starts_with("~1."), "{username} is not sealed");
        let expiry = Duration::from_secs(expiry.parse().unwrap());
        assert!(expiry <= now + Duration::from_secs(660), "{username}");
    }

    let server = daemon.listener(V4);
    let mut a = Client::new(server, credential(&of_a));
    let mut b = Client::new(server, credential(&of_b));
    let (answer, at_b) = (a.try_allocate(V4), b.allocate(V4));
    let at_a = answer.relayed()[0];
    // Masked: what a browser might tell of it in signalling is the relayed address again.
    assert_eq!(answer.mapped(), Some(at_a));
    assert_eq!(at_a.ip().to_string(), "127.0.34.78");
    assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_to(at_b, b"hello");
    assert_eq!(b.receive(), Received::Data(at_a, b"hello".to_vec()));
    for elsewhere in ["127.0.0.1:9", "192.0.2.1:9", "198.51.100.20:9"] {
        assert_eq!(a.permit(elsewhere.parse().unwrap()), 403, "{elsewhere}");
    }
    // Nobody's `taciturn probe` finds the demo in place of a server.
    assert!(!house.directory.path().join("taciturn").exists());
    assert!(daemon.stop(Signal::TERM).success());
}

#[test]
fn a_configuration_of_the_environment_does_not_open_it() {
    let house = House::new("");
    let arguments = ["demo", "--page", "127.0.0.1:0", "--log-level", "info"];
    let mut command = house.command(&arguments);
    command
        .env("TACITURN_POLICY__PEERS", "any")
        .env("TACITURN_LISTEN__UDP", "0.0.0.0:0");
    let daemon = house.start(command);
    let listening = daemon.addresses("listening");
    assert!(
        listening
            .iter()
            .all(|at| at.ip().to_string() == "127.0.34.78")
    );
}

#[test]
fn the_page_is_whole_and_asks_nobody_else_for_anything() {
    let house = House::new("");
    let (_daemon, page) = demo(&house);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/panel.js", "text/javascript"),
        ("/call.js", "text/javascript"),
        ("/picture.js", "text/javascript"),
    ] {
        let answer = own(page, &format!("GET {path}"), "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.head.contains(&format!("content-type: {kind}")),
            "{path}"
        );
        let elsewhere = answer.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("://"), "{path} names another place");
    }
    // Whatever is answered may load nothing from elsewhere and stands in nobody's frame.
    for (request, status) in [
        ("GET /", 200),
        ("GET /../Cargo.toml", 404),
        ("GET /nothing/here", 404),
        ("DELETE /page.js", 405),
        ("POST /credentials/c", 400),
        ("GET /credentials/a", 405),
    ] {
        let answer = own(page, request, "");
        assert_eq!(answer.status, status, "{request}: {answer:?}");
        for part in [
            "content-security-policy: default-src 'none'; script-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(answer.head.contains(part), "{request}: {part} is missing");
        }
        assert!(!answer.head.contains("access-control-allow"), "{request}");
    }
}

#[test]
fn a_strangers_page_gets_nothing_by_whatever_name() {
    let house = House::new("");
    let (_daemon, page) = demo(&house);
    let rebound = format!("evil.example:{}", page.port());
    let cases = [
        (
            format!("Host: {rebound}\r\nOrigin: http://{rebound}\r\n"),
            421,
        ),
        (String::new(), 400),
        (
            format!("Host: {page}\r\nOrigin: https://evil.example\r\n"),
            403,
        ),
        (format!("Host: {page}\r\nOrigin: null\r\n"), 403),
    ];
    for (headers, status) in cases {
        for request in [
            "GET /",
            "POST /credentials/a",
            "GET /signals/a",
            "POST /signals/a",
        ] {
            let answer = ask(page, request, &format!("{headers}{JSON}"), "{}");
            // HTTP/1.1 without Host is refused by us or before us.
            let statuses = if status == 400 {
                [400, 421]
            } else {
                [status, status]
            };
            assert!(
                statuses.contains(&answer.status),
                "{request} {headers}: {answer:?}"
            );
            assert!(!answer.body.contains("credential\""), "{answer:?}");
        }
    }
    // Nothing of that was left in a mailbox.
    assert_eq!(own(page, "GET /signals/a", "").body, "[]");
}

#[test]
fn tabs_hear_each_other_and_nobody_fills_the_memory() {
    let house = House::new("");
    let (_daemon, page) = demo(&house);
    assert_eq!(
        own(page, "POST /signals/b", r#"{"ask":"relay"}"#).status,
        204
    );
    assert_eq!(own(page, "GET /signals/a", "").body, "[]");
    assert_eq!(own(page, "GET /signals/b", "").body, r#"[{"ask":"relay"}]"#);
    assert_eq!(own(page, "GET /signals/b", "").body, "[]");

    let long = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    assert_eq!(own(page, "POST /signals/b", &long(32 << 10)).status, 204);
    assert_eq!(
        own(page, "POST /signals/b", &long((32 << 10) + 1)).status,
        413
    );
    let deep = "[".repeat(20_000);
    assert_eq!(own(page, "POST /signals/b", &deep).status, 400);
    let plain = format!("Host: {page}\r\nContent-Type: text/plain\r\n");
    assert_eq!(ask(page, "POST /signals/b", &plain, "{}").status, 415);
    let statuses: Vec<u16> = (0..80)
        .map(|_| own(page, "POST /signals/b", "{}").status)
        .collect();
    // One stands there already.
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 63);
    assert_eq!(statuses.last(), Some(&429));

    for noise in ["\0\0\0\0", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let mut stream = TcpStream::connect(page).unwrap();
        stream.write_all(noise.as_bytes()).unwrap();
    }
    let many = "X: y\r\n".repeat(1_000);
    let answer = ask(page, "GET /", &format!("Host: {page}\r\n{many}"), "");
    assert_eq!(answer.status, 431, "{answer:?}");
    assert_eq!(own(page, "GET /", "").status, 200);
}

#[test]
fn a_page_whose_port_is_taken_says_what_to_do() {
    let house = House::new("");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let output = house.run(&["demo", "--page", &at]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&at) && said.contains("--page"), "{said}");
}
