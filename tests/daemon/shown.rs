//! The ways to start it that are shown to a newcomer, each as it is shown.

use std::net::SocketAddr;

use serde_json::Value;

use crate::house::{Daemon, House, SECRET, credential};
use crate::http::parse;
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::V4;

/// What an operator's dashboards ask for.
const METRICS: [&str; 20] = [
    "build_info",
    "allocations",
    "allocations_total",
    "allocations_moved_total",
    "packets_total",
    "bytes_total",
    "requests_total",
    "drops_total",
    "limited_total",
    "events_total",
    "event_retries_total",
    "auth_failures_total",
    "misdirected_total",
    "ports",
    "ports_taken_early_total",
    "journal_lost_total",
    "worker_busy_seconds_total",
    "worker_turns_total",
    "worker_datagrams_total",
    "worker_allocations",
];

/// Everything by the environment.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("TACITURN_AUTH__SECRETS", SECRET),
    ("TACITURN_LISTEN__UDP", "127.0.0.1:0"),
    ("TACITURN_RELAY__ADDRESSES", "127.0.0.1"),
    ("TACITURN_RELAY__PORTS", "61000-65535"),
    ("TACITURN_ADMIN__LISTEN", "127.0.0.1:0"),
    ("TACITURN_LOG__FORMAT", "json"),
];

fn serve(house: &House, more: &[(&str, &str)]) -> Daemon {
    let mut command = house.command(&["serve"]);
    command.envs(ENVIRONMENT).envs(more.iter().copied());
    house.start(command)
}

fn mint(house: &House, user: &str) -> Value {
    let mut command = house.command(&["mint", "--user", user]);
    command.envs(ENVIRONMENT);
    let output = house.finish(command);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Two clients, one packet each way.
fn call(server: SocketAddr, minted: &Value) {
    let [mut a, mut b] = [(); 2].map(|()| Client::new(server, credential(minted)));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_to(at_b, b"hello");
    assert_eq!(b.receive(), Received::Data(at_a, b"hello".to_vec()));
}

/// It is ready, and its metrics have every name.
fn assert_well(daemon: &Daemon) -> String {
    assert_eq!(daemon.get("/readyz").status, 200);
    let metrics = daemon.get("/metrics").body;
    let samples = parse(&metrics);
    for name in METRICS {
        let name = format!("taciturn_{name}");
        let of = |series: &String| series.split('{').next() == Some(&name);
        assert!(samples.keys().any(of), "{name} is not in:\n{metrics}");
    }
    metrics
}

#[test]
fn the_environment_alone_is_enough() {
    let house = House::new("");
    let daemon = serve(&house, &[]);
    call(daemon.listener(V4), &mint(&house, "alice"));
    // A failure of each kind has a series only once there was one.
    let mut wrong = credential(&mint(&house, "alice"));
    wrong.password = "wrong".to_owned();
    let mut wrong = Client::new(daemon.listener(V4), wrong);
    assert_eq!(wrong.try_allocate(V4).code(), 401);
    assert_well(&daemon);
}

#[test]
fn variables_of_a_kubernetes_service_bring_one_warning_and_no_harm() {
    let house = House::new("");
    let daemon = serve(
        &house,
        &[
            ("TACITURN_PORT", "udp://10.96.0.7:3478"),
            ("TACITURN_PORT_3478_UDP", "udp://10.96.0.7:3478"),
            ("TACITURN_PORT_3478_UDP_ADDR", "10.96.0.7"),
            ("TACITURN_SERVICE_HOST", "10.96.0.7"),
            ("TACITURN_SERVICE_PORT", "3478"),
            ("TACITURN_SERVICE_PORT_TURN", "3478"),
        ],
    );
    call(daemon.listener(V4), &mint(&house, "alice"));
    let log = daemon.log().into_iter();
    let told = log.filter(|line| line.to_string().contains("Kubernetes"));
    let levels: Vec<Value> = told.map(|line| line["level"].clone()).collect();
    assert_eq!(levels, ["WARN"], "{}", daemon.stderr());
}

/// Below warn, lines are this program's own: a library's may hold what ours never do.
#[test]
fn at_the_loudest_level_there_are_own_lines_only_and_no_user_in_them() {
    let house = House::new("");
    let daemon = serve(&house, &[("TACITURN_LOG__LEVEL", "trace")]);
    call(daemon.listener(V4), &mint(&house, "bob-the-user"));
    let metrics = assert_well(&daemon);
    let log = daemon.log();
    let loud = |line: &Value| line["level"] == "DEBUG" || line["level"] == "TRACE";
    assert!(log.iter().any(loud), "{}", daemon.stderr());
    for line in log {
        let target = line["target"].as_str().unwrap();
        assert!(target.split("::").next() == Some("taciturn"), "{line}");
    }
    for said in [metrics, daemon.stdout(), daemon.stderr()] {
        assert!(!said.contains("bob-the-user"), "{said}");
    }
}
