//! Pseudonyms of the log, and the two ways back to an address: `whois`, and break-glass.

use std::fs;
use std::net::IpAddr;

use rustix::process::Signal;
use serde_json::Value;

use crate::house::{Daemon, House, credential};
use crate::lab::Addresses;
use crate::lab::search::{assert_nothing, in_text};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::plane::V4;

/// Where the client is; the IPv6 address is nobody's.
const CLIENT: Addresses = Addresses {
    v4: std::net::Ipv4Addr::new(127, 21, 22, 23),
    v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x21, 0x22, 0x23, 0, 0, 1),
};

/// A client who allocates, and the log line of that.
fn opened(house: &House, daemon: &Daemon) -> (Client, Value) {
    let credential = credential(&house.mint("alice"));
    let mut client = Client::at(IpAddr::V4(CLIENT.v4), daemon.listener(V4), credential);
    client.allocate(V4);
    let mut line = None;
    eventually("the allocation is logged", || {
        let lines = daemon.log().into_iter();
        line = lines
            .into_iter()
            .find(|line| line["message"] == "allocation opened");
        line.is_some()
    });
    (client, line.unwrap())
}

fn whois(house: &House, pseudonym: &str, address: &str) -> (Option<i32>, String) {
    let output = house.run(&["whois", pseudonym, address, "--config", "taciturn.toml"]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn whois_confirms_a_suspicion_while_the_key_lives_and_says_which_day() {
    let house = House::new("state = { dir = \"state\" }\nlog = { format = \"json\" }");
    let daemon = house.serve();
    let (_client, line) = opened(&house, &daemon);
    let pseudonym = line["client"].as_str().unwrap();
    let today = &line["timestamp"].as_str().unwrap()[..10];

    let (code, said) = whois(&house, pseudonym, "127.21.22.23");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("yes: on ") && said.contains(today),
        "{said}"
    );
    // Said without the address, which may be nobody's business who reads over a shoulder.
    assert!(!said.contains("127.21"), "{said}");
    let (code, said) = whois(&house, pseudonym, "127.21.22.24");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("no: ") && said.contains(today), "{said}");

    // Yesterday's key is tried too.
    let keys: Vec<_> = fs::read_dir(house.directory.path().join("state"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("pseudonym-")
        })
        .collect();
    let [key] = keys.as_slice() else {
        panic!("not one key: {keys:?}")
    };
    let name = key.file_stem().unwrap().to_str().unwrap();
    let day: u64 = name.strip_prefix("pseudonym-").unwrap().parse().unwrap();
    let yesterday = key.with_file_name(format!("pseudonym-{}.key", day - 1));
    fs::rename(key, &yesterday).unwrap();
    let (code, said) = whois(&house, pseudonym, "127.21.22.23");
    assert_eq!((code, said.contains(today)), (Some(0), false), "{said}");
    assert!(!key.exists(), "whois made a key");

    // And when it is gone, nobody knows.
    fs::remove_file(&yesterday).unwrap();
    let (code, said) = whois(&house, pseudonym, "127.21.22.23");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("holds no key"), "{said}");
    fs::remove_dir_all(house.directory.path().join("state")).unwrap();
    let (code, said) = whois(&house, pseudonym, "127.21.22.23");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("cannot list the state directory"), "{said}");
}

/// What no directory keeps, the daemon that has it tells, to its own user by its own socket alone.
#[test]
fn without_a_state_directory_whois_asks_the_running_daemon() {
    let house = House::new("log = { format = \"json\" }");
    let mut daemon = house.serve();
    let (_client, line) = opened(&house, &daemon);
    let pseudonym = line["client"].as_str().unwrap();
    let today = &line["timestamp"].as_str().unwrap()[..10];

    let (code, said) = whois(&house, pseudonym, "127.21.22.23");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("yes: on ") && said.contains(today),
        "{said}"
    );
    assert!(!said.contains("127.21"), "{said}");
    let (code, said) = whois(&house, pseudonym, "127.21.22.24");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("no: ") && said.contains(today), "{said}");
    assert!(!daemon.stderr().contains("127.21"), "{}", daemon.stderr());

    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let (code, said) = whois(&house, pseudonym, "127.21.22.23");
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("cannot reach a daemon") && said.contains("state.dir"),
        "{said}"
    );
    // The key went with its process.
    let _daemon = house.serve();
    let (code, said) = whois(&house, pseudonym, "127.21.22.23");
    assert_eq!(code, Some(1), "{said}");
    let off = house.config();
    let text = fs::read_to_string(&off).unwrap();
    house.write(&format!("control = {{ socket = \"off\" }}\n{text}"));
    let mut command = house.command(&[
        "whois",
        pseudonym,
        "127.21.22.23",
        "--config",
        "taciturn.toml",
    ]);
    command.env_remove("TACITURN_CONTROL__SOCKET");
    let output = house.finish(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("control.socket is off"), "{said}");
}

#[test]
fn whois_says_what_it_lacks_and_what_it_does_not_understand() {
    let house = House::new("");
    let (code, said) = whois(&house, "0123456789abcdef", "192.0.2.1");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("state.dir"), "{said}");
    for (pseudonym, address) in [
        ("hidden", "192.0.2.1"),
        ("0123456789abcde", "192.0.2.1"),
        ("+123456789abcdef", "192.0.2.1"),
        ("0123456789abcdef", "alice"),
    ] {
        let (code, said) = whois(&house, pseudonym, address);
        assert_eq!(code, Some(64), "{said}");
    }
}

/// What a daemon with broken glass says besides its log, at every level.
#[test]
fn broken_glass_shows_addresses_in_the_log_alone_and_says_so() {
    let house = House::new(
        "state = { dir = \"state\" }\n\
         log = { format = \"json\", level = \"trace\", show_addresses = true }",
    );
    let mut daemon = house.serve();
    let (mut client, line) = opened(&house, &daemon);
    let shown = line["client_address"].as_str().unwrap();
    assert_eq!(shown, client.addr().to_string());
    assert_eq!(line["client"].as_str().unwrap().len(), 16);

    let warned = |line: &Value| {
        line["level"] == "WARN" && line["message"].as_str().unwrap().contains("show_addresses")
    };
    assert!(daemon.log().iter().any(warned), "{}", daemon.stderr());
    let metrics = daemon.get("/metrics").body;
    assert!(
        metrics.contains("\ntaciturn_addresses_shown 1\n"),
        "{metrics}"
    );
    for path in ["/metrics", "/healthz", "/readyz", "/v1/allocations"] {
        let answer = daemon.get(path);
        assert_nothing(&in_text(CLIENT, answer.head + &answer.body), path);
    }
    let check = house.run(&["check", "--config", "taciturn.toml"]);
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.contains("log.show_addresses"), "{said}");

    assert_eq!(client.refresh(0).code(), SUCCESS);
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    // Every other line is as silent as ever.
    for line in daemon.log() {
        if line["message"] != "allocation opened" {
            assert_nothing(&in_text(CLIENT, line.to_string()), "in another line");
        }
    }
}

#[test]
fn whole_glass_is_told_by_the_metric_too() {
    let house = House::new("");
    let daemon = house.serve();
    let metrics = daemon.get("/metrics").body;
    assert!(
        metrics.contains("\ntaciturn_addresses_shown 0\n"),
        "{metrics}"
    );
}
