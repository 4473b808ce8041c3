//! What sources cost that never authenticate. A process of its own, whose memory and descriptors are
//! nobody else's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use taciturn::proto::{Method, Nonce, Realm, Username};
use taciturn::turn::stats::AuthFailure;

#[path = "loopback/mod.rs"]
mod loopback;

use loopback::client::SUCCESS;
use loopback::message::Build;
use loopback::plane::{Setup, V4};

/// T27 and T28: sources that ask without a credential, or with garbage for a signature, cost neither
/// memory nor descriptors. `tests/protocol/limits.rs` has a million of them, without sockets.
#[test]
fn sources_that_do_not_authenticate_cost_neither_memory_nor_descriptors() {
    let mut plane = Setup::relay(2).start();
    let server = plane.listener(V4);
    let bare = Build::request(Method::ALLOCATE, [1; 12]).bytes();
    let garbage = {
        let client = plane.client(V4);
        let name = Username(&client.credential.username);
        Build::request(Method::ALLOCATE, [2; 12])
            .with(&name)
            .with(&Realm("loopback.test"))
            .with(&Nonce("obMatJos2gAAAnonsense"))
            .integrity(b"garbage")
            .bytes()
    };
    let flood = |sources: std::ops::Range<u16>| {
        for n in sources {
            let [high, low] = n.to_be_bytes();
            let own = IpAddr::from(Ipv4Addr::new(127, 77, high, low));
            let socket = UdpSocket::bind(SocketAddr::new(own, 0)).unwrap();
            for _ in 0..20 {
                // Some find the listener's buffer full, which harms nothing here.
                socket.send_to(&bare, server).ok();
                socket.send_to(&garbage, server).ok();
            }
        }
    };
    // Buffers and tables take their size with the first of them.
    flood(0..200);
    let before = (resident(), descriptors());
    flood(200..3_000);
    let (mut party, _) = plane.party(V4);
    assert_eq!(party.refresh(600).code(), SUCCESS);
    let (memory, files) = (resident(), descriptors());
    assert!(
        files <= before.1 + 2,
        "{files} descriptors, {} before",
        before.1
    );
    let grown = memory.saturating_sub(before.0);
    assert!(grown < 4_096, "{grown} kB more");
    assert_eq!(plane.allocations().iter().sum::<u64>(), 1);
    let failures = |why| plane.sum(|worker| worker.auth_failures(why));
    let missing = failures(AuthFailure::Missing);
    assert!(missing > 1_000, "{missing} came");
}

/// Memory of this process that is in use, in kilobytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
