//! What is never shown: clients' addresses and secrets, at the loudest log level.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Signal, geteuid};
use taciturn::proto::Method;

use crate::house::{Daemon, House, SECRET, credential};
use crate::lab::Addresses;
use crate::lab::search::{assert_nothing, in_text};
use crate::loopback::client::{Client, Credential, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::V4;

/// Where the clients are; loopback has no such choice of IPv6 addresses.
const CLIENTS: Addresses = Addresses {
    v4: Ipv4Addr::new(127, 9, 8, 7),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 9, 8, 7, 6, 5, 4),
};
const PASSWORD: &str = "gatekeeper-of-old/9";

/// A house that logs all there is to log, in this format, and knows a static user.
fn house(format: &str) -> House {
    let house = House::new(&format!(
        "log = {{ level = \"trace\", format = \"{format}\" }}"
    ));
    let config = fs::read_to_string(house.config()).unwrap();
    let users = format!("[auth]\nusers = {{ gateway = \"{PASSWORD}\" }}");
    house.write(&config.replace("[auth]", &users));
    house
}

fn client(house: &House, daemon: &Daemon, user: &str) -> Client {
    let credential = credential(&house.mint(user));
    Client::at(IpAddr::V4(CLIENTS.v4), daemon.listener(V4), credential)
}

/// A call, and much of what can go wrong in one.
fn live(house: &House, daemon: &Daemon) {
    // A platform may call its users by their addresses.
    let [mut a, mut b] = ["127.9.8.7", "bob"].map(|user| client(house, daemon, user));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_channel(0x4000, b"hello");
    assert_eq!(b.receive(), Received::Data(at_a, b"hello".to_vec()));
    b.send_to(at_a, b"127.9.8.7");
    a.receive();

    let own = b.addr();
    assert_eq!((a.permit(own), a.bind(0x4001, own)), (403, 403));
    a.send_to(own, b"no permission");
    a.send_channel(0x4FFF, b"no channel");
    let dead = [61_000, 61_001, 61_002].map(|port| SocketAddr::new(at_a.ip(), port));
    let dead = dead.into_iter().find(|p| ![at_a, at_b].contains(p));
    a.send_to(dead.unwrap(), b"no landing");
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 20],
        &[0x40],
        &[0xff; 300],
    ] {
        a.send_raw(noise);
    }
    assert_eq!(a.try_allocate(V4).code(), 437);
    assert_eq!(a.request(Method::BINDING, |r| r).mapped(), Some(a.addr()));
    let mut wrong = client(house, daemon, "mallory");
    wrong.credential.password = "wrong".to_owned();
    assert_eq!(wrong.try_allocate(V4).code(), 401);
    let mut other = client(house, daemon, "carol");
    std::mem::swap(&mut other.socket, &mut a.socket);
    assert_eq!(other.refresh(600).code(), 441);
    std::mem::swap(&mut other.socket, &mut a.socket);
    assert_eq!((a.refresh(0).code(), a.refresh(0).code()), (SUCCESS, 437));
    a.send_to(at_b, b"no allocation");
    let gateway = Credential {
        username: "gateway".to_owned(),
        password: PASSWORD.to_owned(),
    };
    Client::new(daemon.listener(V4), gateway).allocate(V4);
}

/// All that it says when asked, and all that it has ever written.
fn everything(daemon: &mut Daemon) -> String {
    eventually("the last packet is counted", || {
        let metrics = daemon.get("/metrics").body;
        metrics.contains("taciturn_drops_total{reason=\"no_allocation\"} 1\n")
    });
    let paths = [
        "/metrics",
        "/metrics/allocations",
        "/v1/allocations",
        "/healthz",
        "/",
    ];
    let answers = paths.map(|path| {
        let answer = daemon.get(path);
        answer.head + &answer.body
    });
    let answers = answers.join("\n");
    for reason in ["no_permission", "no_channel", "no_landing"] {
        let counted = format!("taciturn_drops_total{{reason=\"{reason}\"}} 1\n");
        assert!(answers.contains(&counted), "no {reason} in {answers}");
    }
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let (out, err) = (daemon.stdout(), daemon.stderr());
    assert!(
        err.contains("allocation closed") && err.contains("DEBUG"),
        "{err}"
    );
    format!("{answers}\n{out}\n{err}")
}

/// T62
#[test]
fn a_clients_address_is_in_no_output() {
    for format in ["json", "text"] {
        let house = house(format);
        let mut daemon = house.serve();
        live(&house, &daemon);
        let said = everything(&mut daemon);
        assert_nothing(&in_text(CLIENTS, &said), "in what the daemon said");
    }
}

#[test]
fn the_search_for_a_clients_address_finds_it_in_every_form() {
    let plain = CLIENTS.v4.octets();
    let xored = [
        plain[0] ^ 0x21,
        plain[1] ^ 0x12,
        plain[2] ^ 0xa4,
        plain[3] ^ 0x42,
    ];
    let hex = |bytes: [u8; 4]| -> String { bytes.iter().map(|b| format!("{b:02X}")).collect() };
    for form in [
        "127.9.8.7".to_owned(),
        hex(plain),
        hex(xored),
        u32::from(CLIENTS.v4).to_string(),
        STANDARD.encode(plain),
        STANDARD.encode("client 127.9.8.7:4000"),
        STANDARD.encode("a client 127.9.8.7:4000"),
    ] {
        let said = format!("{{\"level\":\"TRACE\",\"from\":\"{form}\"}}\n");
        assert!(!in_text(CLIENTS, &said).is_empty(), "{form} is not found");
    }
}

/// T26
#[test]
fn secrets_are_in_no_argument_and_no_output() {
    for format in ["json", "text"] {
        let house = house(format);
        let mut daemon = house.serve();
        let arguments = fs::read(format!("/proc/{}/cmdline", daemon.child.id())).unwrap();
        live(&house, &daemon);
        let said = everything(&mut daemon) + &String::from_utf8_lossy(&arguments);
        assert!(
            said.contains("taciturn.toml"),
            "the arguments are not there"
        );
        for secret in [SECRET, PASSWORD] {
            let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            for form in [secret.to_owned(), STANDARD.encode(secret), hex] {
                assert!(!said.contains(&form), "{form} in\n{said}");
            }
        }
    }
}

/// T71
#[test]
fn it_leaves_no_core() {
    let house = House::new("");
    let daemon = house.serve();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).unwrap();
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let both: Vec<&str> = core.unwrap().split_whitespace().take(2).collect();
    assert_eq!(both, ["0", "0"]);
}

/// T71: what a process that may not be dumped has in `/proc` is root's, not its user's.
#[test]
fn its_memory_is_closed_to_its_own_user() {
    let mut house = House::new("");
    let mut other = Command::new("sleep");
    other.arg("60");
    let mut user = geteuid().as_raw();
    if geteuid().is_root() {
        // Root may look at everything, so the daemon runs as another user, with files of its own.
        user = 65_534;
        other.uid(user).gid(user);
        let binary = house.directory.path().join("taciturn");
        fs::copy(&house.binary, &binary).unwrap();
        house.binary = binary;
        for path in [house.directory.path(), &house.config(), &house.binary] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let mut command = house.command(&["serve", "--config", "taciturn.toml"]);
    if geteuid().is_root() {
        // The directory is root's, so no socket can be laid there.
        command
            .uid(user)
            .gid(user)
            .env("TACITURN_CONTROL__SOCKET", "off");
    }
    let daemon = house.start(command);
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    assert_eq!(owner(daemon.child.id()), 0);

    let mut other = other.spawn().unwrap();
    eventually("another program is its user's", || {
        owner(other.id()) == user
    });
    other.kill().unwrap();
    other.wait().unwrap();
}
