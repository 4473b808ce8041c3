//! The TURN client of webrtc-rs, on loopback: two clients talk, refresh and part.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use crate::lab::process::Process;
use crate::lab::relay::{SECRET, credential};

/// Packets that each client sends.
const PACKETS: u32 = 200;
/// Packets on their way at once, few enough for every buffer.
const AT_ONCE: u32 = 20;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);
const REALM: &str = "webrtc.test";
/// May be lost.
const GREETING: &[u8] = b"greeting";

/// A daemon for this test, on ports of the kernel's choice.
fn relay(directory: &std::path::Path) -> (Process, SocketAddr) {
    let file = directory.join("taciturn.toml");
    let config = format!(
        r#"realm = "{REALM}"
listen = {{ udp = ["127.0.0.1:0"] }}
relay = {{ addresses = ["127.0.0.1"], ports = "61000-65535" }}
auth = {{ secrets = [{{ id = "test", value = "{SECRET}" }}] }}
workers = {{ count = 2 }}
admin = {{ listen = "off" }}
log = {{ format = "json" }}
"#
    );
    fs::write(&file, config).expect("the directory is writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_taciturn"));
    command.arg("serve").arg("--config").arg(file);
    let mut process = Process::spawn("relay", command, directory);
    let rest = process.expect_line("\"message\":\"listening\",\"address\":\"", LIMIT);
    let (address, _) = rest.split_once('"').expect("a quoted address");
    process.expect_line("\"message\":\"ready\"", LIMIT);
    (process, address.parse().expect("an address"))
}

async fn client(server: SocketAddr, user: &str) -> Client {
    let (username, password) = credential(user);
    let conn = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let client = Client::new(ClientConfig {
        stun_serv_addr: server.to_string(),
        turn_serv_addr: server.to_string(),
        username,
        password,
        realm: REALM.to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(conn),
        vnet: None,
    })
    .await
    .expect("a client");
    client.listen().await.expect("a client that reads");
    client
}

/// Numbered packets from one relayed address to the other; every one must arrive, in order.
async fn send(from: &impl Conn, to: &impl Conn) {
    let source = from.local_addr().expect("a relayed address");
    let target = to.local_addr().expect("a relayed address");
    let mut buf = [0; 2_000];
    for first in (0..PACKETS).step_by(AT_ONCE as usize) {
        for number in first..first + AT_ONCE {
            let packet = [number.to_be_bytes(); 40].concat();
            from.send_to(&packet, target).await.expect("a send");
        }
        for number in first..first + AT_ONCE {
            let (mut len, mut peer) = to.recv_from(&mut buf).await.expect("a packet");
            if &buf[..len] == GREETING {
                (len, peer) = to.recv_from(&mut buf).await.expect("a packet");
            }
            assert_eq!(peer, source);
            assert_eq!(buf[..len], [number.to_be_bytes(); 40].concat());
        }
    }
}

async fn call(server: SocketAddr) {
    let (a, b) = (client(server, "alice").await, client(server, "bob").await);
    let own = a.send_binding_request().await.expect("a binding");
    assert!(own.ip().is_loopback() && own.port() != server.port());
    let at_a = a.allocate().await.expect("an allocation");
    let at_b = b.allocate().await.expect("an allocation");
    let relayed = [&at_a as &dyn Conn, &at_b].map(|conn| conn.local_addr().expect("an address"));
    assert!(relayed.iter().all(|relayed| relayed.port() >= 61_000));

    // A client asks for a permission when it first sends, so that the first packet may be early.
    for (conn, peer) in [(&at_a as &dyn Conn, relayed[1]), (&at_b, relayed[0])] {
        conn.send_to(GREETING, peer).await.expect("a send");
    }
    send(&at_b, &at_a).await;
    send(&at_a, &at_b).await;
    send(&at_b, &at_a).await;
    for conn in [&at_a as &dyn Conn, &at_b] {
        conn.close().await.expect("an end");
    }
    for client in [a, b] {
        client.close().await.expect("an end");
    }
}

#[test]
fn two_clients_of_webrtc_rs_exchange_packets_without_loss() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut relay, server) = relay(directory.path());
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { timeout(2 * LIMIT, call(server)).await })
        .expect("the call comes to its end in time");

    // Each closed its allocation itself, by a Refresh with a lifetime of 0.
    let closed = "\"message\":\"allocation closed\"";
    let deadline = std::time::Instant::now() + LIMIT;
    while relay.output().matches(closed).count() < 2 {
        assert!(std::time::Instant::now() < deadline, "{}", relay.output());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(relay.stop(Signal::TERM).success());
    let log = relay.output();
    let of_clients = log.lines().filter(|line| line.contains(closed));
    for line in of_clients {
        assert!(line.contains("\"reason\":\"closed\""), "{line}");
    }
}
