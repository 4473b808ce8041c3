//! `taciturn serve`: from start by way of a call to a good end.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};

use crate::house::{Daemon, House, credential};
use crate::http::{Samples, parse};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{V4, V6};
use crate::loopback::stream::Stream;

/// Packets that each party of a call sends.
pub(crate) const PACKETS: u8 = 25;

/// Two clients that have exchanged packets, and are still there.
pub(crate) fn call(house: &House, daemon: &Daemon) -> [Client; 2] {
    let [mut a, mut b] = ["alice", "bob"].map(|user| house.client(daemon, user));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    for turn in 0..PACKETS {
        a.send_channel(0x4000, &[turn; 160]);
        assert_eq!(b.receive(), Received::Data(at_a, vec![turn; 160]));
        b.send_to(at_a, &[turn; 160]);
        assert_eq!(a.receive(), Received::Channel(0x4000, vec![turn; 160]));
    }
    [a, b]
}

fn scrape(daemon: &Daemon) -> Samples {
    let answer = daemon.get("/metrics");
    assert_eq!(answer.status, 200);
    let kind = "content-type: text/plain; version=0.0.4";
    assert!(answer.head.contains(kind), "{}", answer.head);
    parse(&answer.body)
}

#[test]
fn a_call_goes_through_and_the_metrics_tell_of_it_while_it_lives() {
    let house = House::new("");
    let daemon = house.serve();
    let health = daemon.get("/healthz");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    assert_eq!(daemon.get("/nothing").status, 404);
    let before = scrape(&daemon);
    assert_eq!(before["taciturn_allocations{transport=\"udp\"}"], 0.0);

    let [mut a, _b] = call(&house, &daemon);
    let during = scrape(&daemon);
    let sent = 2.0 * f64::from(PACKETS);
    for (series, value) in [
        ("allocations{transport=\"udp\"}", 2.0),
        ("allocations_total{transport=\"udp\"}", 2.0),
        ("packets_total{direction=\"in\",path=\"hairpin\"}", sent),
        ("packets_total{direction=\"out\",path=\"hairpin\"}", sent),
        (
            "bytes_total{direction=\"in\",path=\"hairpin\"}",
            160.0 * sent,
        ),
        ("packets_total{direction=\"in\",path=\"relay\"}", 0.0),
        ("requests_total{code=\"0\",method=\"allocate\"}", 2.0),
        ("requests_total{code=\"401\",method=\"allocate\"}", 2.0),
        ("ports{family=\"ipv4\",relay=\"0\",state=\"held\"}", 2.0),
        ("ports{family=\"ipv6\",relay=\"1\",state=\"held\"}", 0.0),
        ("misdirected_total", 0.0),
    ] {
        let found = during.get(&format!("taciturn_{series}"));
        assert_eq!(found, Some(&value), "{series} in {during:?}");
    }

    assert_eq!(a.refresh(0).code(), SUCCESS);
    let after = scrape(&daemon);
    assert_eq!(after["taciturn_allocations{transport=\"udp\"}"], 1.0);
    let resting = "taciturn_ports{family=\"ipv4\",relay=\"0\",state=\"resting\"}";
    assert_eq!(after[resting], 1.0);
}

/// The log's lines with this message.
fn lines(daemon: &Daemon, message: &str) -> Vec<Value> {
    let log = daemon.log().into_iter();
    log.filter(|line| line["message"] == message).collect()
}

fn allocations(lines: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = lines
        .iter()
        .map(|line| line["allocation"].to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn sigterm_and_sigint_end_it_well_while_a_call_is_on() {
    for signal in [Signal::TERM, Signal::INT] {
        let house = House::new("");
        let mut daemon = house.serve();
        let _clients = call(&house, &daemon);
        eventually("two allocations in the log", || {
            lines(&daemon, "allocation opened").len() == 2
        });
        assert!(lines(&daemon, "allocation closed").is_empty());
        let status = daemon.stop(signal);
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", daemon.stderr());

        let closed = lines(&daemon, "allocation closed");
        let opened = lines(&daemon, "allocation opened");
        assert_eq!(allocations(&closed), allocations(&opened));
        for line in closed {
            assert_eq!(
                (&line["level"], &line["reason"]),
                (&json!("INFO"), &json!("stopped"))
            );
            let packets = (&line["packets_in"], &line["packets_out"]);
            assert_eq!(packets, (&json!(PACKETS), &json!(PACKETS)));
        }
        assert_eq!(daemon.log().last().unwrap()["message"], "stopped");
    }
}

/// A free port below those that relays have unless told otherwise.
fn port_outside_the_relays() -> SocketAddr {
    let offset = std::process::id() % 12_000;
    (0..12_000)
        .map(|n| u16::try_from(20_000 + (offset + n) % 12_000).unwrap())
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|free| UdpSocket::bind(free).is_ok())
        .unwrap()
}

#[test]
fn without_a_configuration_it_prints_a_credential_that_works() {
    let house = House::new("");
    // The printed URL names the port, so that it must be known beforehand.
    let free = port_outside_the_relays();
    let mut command = house.command(&["serve", "--listen-udp", &free.to_string()]);
    command.env("TACITURN_ADMIN__LISTEN", "127.0.0.1:0");
    let daemon = house.start(command);

    let said = daemon.stdout();
    let (begin, end) = (said.find('{').unwrap(), said.rfind('}').unwrap());
    let configuration: Value = serde_json::from_str(&said[begin..=end]).unwrap();
    let urls = ["udp", "tcp"].map(|transport| format!("turn:{free}?transport={transport}"));
    assert_eq!(configuration["iceServers"][0]["urls"], json!(urls));
    assert_eq!(configuration["iceTransportPolicy"], "relay");
    let credential = credential(&configuration);
    let mut a = Client::new(free, credential.clone());
    let mut b = Client::over(Stream::tcp(free), credential.clone());
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_to(at_b, b"hello");
    assert_eq!(b.receive(), Received::Data(at_a, b"hello".to_vec()));
    let log = daemon.stderr();
    assert!(
        !log.contains(&credential.password),
        "the log shows the password: {log}"
    );
}

#[test]
fn clients_of_either_family_get_relayed_addresses_of_either() {
    let house = House::new("");
    let daemon = house.serve();
    for (listener, relayed) in [(V4, V4), (V6, V6), (V6, V4), (V4, V6)] {
        let credential = credential(&house.mint("carol"));
        let mut client = Client::new(daemon.listener(listener), credential);
        let at = client.allocate(relayed);
        assert_eq!(client.permit(at), SUCCESS);
        client.send_to(at, b"to myself");
        assert_eq!(client.receive(), Received::Data(at, b"to myself".to_vec()));
    }
}

#[test]
fn an_address_that_is_taken_ends_the_start_and_is_named() {
    let house = House::new("");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = udp.local_addr().unwrap().to_string();
    let serve = ["serve", "--config", "taciturn.toml", "--listen-udp", &taken];
    let output = house.run(&serve);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("cannot listen on {taken}")),
        "{said}"
    );

    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = tcp.local_addr().unwrap().to_string();
    let mut command = house.command(&serve[..3]);
    command.env("TACITURN_ADMIN__LISTEN", &taken);
    let output = house.finish(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("admin.listen {taken}")), "{said}");
}

/// T42: a daemon without descriptors goes on with the calls it has, also when it looks for new
/// addresses of this machine, which it does every ten seconds.
#[test]
fn want_of_descriptors_ends_no_call() {
    let house = House::new("");
    let mut daemon = house.serve();
    let [a, mut b] = call(&house, &daemon);
    let limited = Rlimit {
        current: Some(4),
        maximum: Some(4),
    };
    prlimit(Some(daemon.pid()), Resource::Nofile, limited).unwrap();
    eventually("the daemon noticed", || {
        daemon.stderr().contains("were not followed")
    });
    a.send_channel(0x4000, b"still here");
    let Received::Data(_, heard) = b.receive() else {
        panic!("no indication")
    };
    assert_eq!(heard, b"still here");
    assert!(daemon.stop(Signal::TERM).success());
}

#[test]
fn a_limit_of_descriptors_below_the_relay_sockets_is_told_at_start() {
    let house = House::new("[policy]\npeers = \"any\"");
    let limited = |files: u32| {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")])
            .arg(&house.binary)
            .args(["serve", "--config", "taciturn.toml"])
            .env_clear()
            .current_dir(house.directory.path());
        command
    };
    let daemon = house.start(limited(300));
    let log = daemon.stderr();
    // 2 addresses of 4,536 ports each.
    assert!(
        log.contains("may open 300 files") && log.contains("not 9072"),
        "{log}"
    );
    drop(daemon);
    let enough = house.start(limited(10_000));
    assert!(!enough.stderr().contains("may open"), "{}", enough.stderr());
}

#[test]
#[ignore = "needs promtool; .ci/run runs it"]
fn promtool_finds_nothing_to_mend_in_the_metrics() {
    let house = House::new("");
    let daemon = house.serve();
    let _call = call(&house, &daemon);
    for page in ["/metrics", "/metrics/allocations"] {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let metrics = daemon.get(page).body;
        let mut stdin = promtool.stdin.take().unwrap();
        stdin.write_all(metrics.as_bytes()).unwrap();
        drop(stdin);
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{page}: {said}");
    }
}
