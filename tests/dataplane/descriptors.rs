//! What happens when the process has no descriptor left.

use std::net::Ipv4Addr;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::{Setup, V4, credential, unix};

const ALONE: &str = "TACITURN_TEST_ALONE";

/// Says whether this is the child that has the process, and with it the limit, to itself; if not,
/// runs it and panics unless it succeeds.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    false
}

/// Leaves room for about `more` descriptors. Inherited ones may have high numbers, so that the
/// lowest free number counts.
fn limit(more: u64) {
    let number = |fd: &str| std::fs::exists(format!("/proc/self/fd/{fd}")).unwrap();
    let free = (0..).find(|fd: &u64| !number(&fd.to_string())).unwrap();
    let now = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: Some(free + more),
        maximum: now.maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// T42
#[test]
fn without_descriptors_an_allocate_gets_508_and_what_lives_goes_on() {
    if !alone("descriptors::without_descriptors_an_allocate_gets_508_and_what_lives_goes_on") {
        return;
    }
    for workers in [1, 4] {
        let before = getrlimit(Resource::Nofile);
        let mut plane = Setup::any(workers).start();
        let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(V4));
        assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        let mut clients: Vec<_> = (0..20).map(|_| plane.client(V4)).collect();
        limit(8);

        let answers: Vec<_> = clients
            .iter_mut()
            .map(|client| client.try_allocate(V4))
            .collect();
        let codes: Vec<u16> = answers.iter().map(|answer| answer.code()).collect();
        let served = codes.iter().take_while(|code| **code == SUCCESS).count();
        assert!((1..15).contains(&served), "{codes:?}");
        assert!(codes[served..].iter().all(|code| *code == 508), "{codes:?}");
        let held = plane.handle.ports().held;
        assert_eq!(held, 2 + served, "a port is lost with each refusal");

        a.send_to(at_b, b"still here");
        assert_eq!(b.receive(), Received::Data(at_a, b"still here".to_vec()));
        assert_eq!(a.refresh(600).code(), SUCCESS);

        // One descriptor comes back, and with it one allocation.
        assert_eq!(clients[0].refresh(0).code(), SUCCESS);
        assert_eq!(clients[19].try_allocate(V4).code(), SUCCESS);
        assert_eq!(clients[18].try_allocate(V4).code(), 508);
        setrlimit(Resource::Nofile, before).unwrap();
        assert_eq!(clients[18].try_allocate(V4).code(), SUCCESS);
    }
}

/// Each allocation with a socket of its own, as many of ten thousand as this machine lets one
/// process open.
#[test]
fn ten_thousand_allocations_have_their_sockets_as_far_as_the_limit_goes() {
    const TEST: &str =
        "descriptors::ten_thousand_allocations_have_their_sockets_as_far_as_the_limit_goes";
    if !alone(TEST) {
        return;
    }
    let limit = taciturn::dataplane::sys::raise_descriptor_limit().unwrap();
    let mut plane = Setup {
        ports: 50_000..=61_999,
        ..Setup::any(2)
    }
    .start();
    // What is left for the test and the rest of the plane.
    let count = limit.saturating_sub(200).min(10_000);
    assert!(count > 500, "{limit} descriptors are no measure");
    for user in 1..=count {
        // A client's socket is gone before the next one comes, and its port may be the next one's:
        // each has an address of its own.
        let [.., high, low] = user.to_be_bytes();
        let local = Ipv4Addr::new(127, 64, high, low).into();
        let credential = credential(&format!("user-{user}"), unix() + 3_600);
        Client::at(local, plane.listener(V4), credential).allocate(V4);
    }
    assert_eq!(plane.allocations().iter().sum::<u64>(), count);
    let sockets = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    assert!(sockets >= count, "{sockets} descriptors");
    plane.stop();
}
