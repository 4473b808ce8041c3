//! `taciturn diagnose`: a bundle that helps, and that anybody may read.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;

use crate::house::{House, SECRET, credential};
use crate::lab::Addresses;
use crate::lab::search::{assert_nothing, in_text};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::plane::V4;

/// Where one party is; the IPv6 address is nobody's.
const CLIENT: Addresses = Addresses {
    v4: Ipv4Addr::new(127, 31, 32, 33),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0x31, 0x32, 0x33, 0, 0, 1),
};

/// What an operator would not want read, by every way into a configuration.
const PRIVATE: &str = r#"
realm = "calls.hidden-company.example"
public = { host = "turn.hidden-company.example" }
policy = { peers = ["198.51.100.0/24"], fleet = ["203.0.113.8"], deny = ["192.0.2.64/26"] }
alternate = { servers = ["203.0.113.9:3478"] }
state = { dir = "hidden-state" }
proxy_protocol = { trusted = ["10.77.0.0/16"] }
limits = { user_allocations = 7, user_rate = "4Mbit/s" }
events = { file = "hidden-events.jsonl" }
[api]
listen = "off"
keys = [{ id = "hidden-key-name", value = "hidden-key-of-the-platform", scopes = ["read"] }]
node = "hidden-node"
nodes = [{ id = "hidden-node", urls = ["turn:turn.hidden-company.example:3478"] }]
"#;

/// Whatever of it must be nowhere, and what stands in the environment.
const HIDDEN: &[&str] = &[
    "hidden-company",
    "hidden-state",
    "hidden-events",
    "hidden-key",
    "hidden-node",
    "198.51.100",
    "203.0.113",
    "192.0.2.64",
    "10.77.",
    SECRET,
    "hiddenuser",
    "hidden-password",
];

fn diagnose(house: &House, more: &[&str]) -> (Value, String) {
    let mut command = house.command(&[&["diagnose", "--config", "taciturn.toml"], more].concat());
    command.env("TACITURN_AUTH__USERS__HIDDENUSER", "hidden-password");
    let output = house.finish(command);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    (
        serde_json::from_slice(&output.stdout).unwrap_or_default(),
        said,
    )
}

#[test]
fn a_bundle_tells_what_a_bug_hangs_on_and_nothing_of_anybody() {
    let house = House::new(PRIVATE);
    let daemon = house.serve();
    let mut a = Client::at(
        IpAddr::V4(CLIENT.v4),
        daemon.listener(V4),
        credential(&house.mint("alice")),
    );
    let mut b = house.client(&daemon, "bob");
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_channel(0x4000, b"hello");
    b.receive();

    let (bundle, _) = diagnose(&house, &[]);
    assert_eq!(bundle["build"]["version"], env!("CARGO_PKG_VERSION"));
    let machine = &bundle["machine"];
    assert!(
        machine["kernel"].is_string() && machine["cpus"].as_u64().unwrap() > 0,
        "{machine}"
    );
    assert!(
        machine["sysctls"]["net.core.rmem_max"].is_string(),
        "{machine}"
    );
    assert!(machine["descriptors_hard_limit"].is_u64(), "{machine}");
    let granted = &bundle["granted"]["listen_receive_buffer"];
    assert!(
        granted["asked"].as_u64() >= granted["granted"].as_u64(),
        "{granted}"
    );
    let configuration = &bundle["configuration"];
    assert_eq!(configuration["problems"], 0, "{configuration}");
    assert_eq!(configuration["from_file"], true);
    let settings = &configuration["settings"];
    assert_eq!(settings["limits"]["user_allocations"], 7);
    assert_eq!(settings["limits"]["user_rate"], "4Mbit/s");
    assert_eq!(settings["policy"]["peers"][0], "<IPv4 network>/24");
    assert_eq!(settings["listen"]["udp"][1], "<IPv6 loopback>:0");
    assert_eq!(settings["api"]["keys"][0]["scopes"][0], "read");
    let told = &bundle["daemon"];
    assert_eq!(
        (&told["ready"], &told["allocations"]),
        (&true.into(), &2.into()),
        "{told}"
    );
    assert!(
        told["drops"]["no_channel"].is_u64() && told["reloads"]["applied"].is_u64(),
        "{told}"
    );
    assert!(
        told["buffers"][0]["receive"].as_u64().unwrap() > 0,
        "{told}"
    );

    let text = serde_json::to_string(&bundle).unwrap();
    assert_nothing(&in_text(CLIENT, &text), "in the bundle");
    let ours = ["alice", "bob", house.directory.path().to_str().unwrap()];
    for hidden in HIDDEN.iter().chain(&ours) {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    // The search sees what is there.
    let written = fs::read_to_string(house.config()).unwrap();
    let in_file = HIDDEN.iter().filter(|hidden| written.contains(**hidden));
    assert_eq!(in_file.count(), HIDDEN.len() - 2, "{written}");
}

#[test]
fn without_a_daemon_or_a_good_configuration_a_bundle_says_so_and_has_the_rest() {
    let house = House::new(PRIVATE);
    let mut daemon = house.serve();
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let (bundle, said) = diagnose(&house, &[]);
    let missing = |part: &Value| part["missing"].as_str().unwrap_or_default().to_owned();
    assert!(
        missing(&bundle["daemon"]).contains("no daemon answers"),
        "{bundle}"
    );
    assert!(said.contains("no taciturn runs there"), "{said}");
    assert!(bundle["configuration"]["settings"].is_object());

    let file = house.directory.path().join("bundle.json");
    let (nothing, _) = diagnose(&house, &["--output", "bundle.json"]);
    assert!(nothing.is_null());
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["configuration"], bundle["configuration"]);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = house.run(&["diagnose", "--output", "bundle.json"]);
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{said}");
    assert!(said.contains("must not be there yet"), "{said}");

    // What does not fit is counted and not quoted; what is no TOML is not there.
    house.write(&format!(
        "{PRIVATE}\n[listen]\nudp = ['turn.hidden-company.example']\n"
    ));
    let (bundle, _) = diagnose(&house, &[]);
    assert_eq!(bundle["configuration"]["problems"], 1, "{bundle}");
    assert_eq!(
        bundle["configuration"]["settings"]["listen"]["udp"][0],
        "<text>"
    );
    house.write("hidden-company =");
    let (broken, _) = diagnose(&house, &[]);
    assert!(
        missing(&broken["configuration"]).contains("taciturn check"),
        "{broken}"
    );
    assert!(broken["machine"]["kernel"].is_string());
    for bundle in [bundle, broken] {
        assert!(!bundle.to_string().contains("hidden-company"), "{bundle}");
    }
}
