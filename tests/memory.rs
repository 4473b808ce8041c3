//! What ten thousand idle allocations cost in memory, and that one process takes them.
#![expect(
    unsafe_code,
    reason = "an allocator cannot be counted without being one"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};

use taciturn::turn::FiveTuple;
use taciturn::turn::route::{ChannelBinding, Landing, Permission};
use taciturn::turn::stats::Meters;

#[path = "loopback/mod.rs"]
mod loopback;

use loopback::client::{Client, SUCCESS};
use loopback::plane::{Plane, Setup, V4, credential, unix};

/// Where the figures are taken: hash tables of this many entries are 61 % full.
const ALLOCATIONS: i64 = 10_000;
/// Relay ports for them, on an address of their own.
const PORTS: i64 = 12_000;
/// User memory of an idle allocation with a permission and a channel.
const BUDGET: i64 = 1_000;

/// Bytes on the heap that threads other than the test's asked for, as glibc hands them out.
static LIVE: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static IS_TEST: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

/// A chunk of glibc's: eight bytes of header, a multiple of 16, at least 32.
fn chunk(layout: Layout) -> i64 {
    let size = layout.size().max(layout.align());
    i64::try_from((size + 8).next_multiple_of(16).max(32)).unwrap_or(i64::MAX)
}

fn count(bytes: i64) {
    if !IS_TEST.get() {
        LIVE.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: hands every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(chunk(layout));
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-chunk(layout));
        // SAFETY: the caller's promises are the same, and `alloc` took it from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The whole of it: what the workers and their shared tables hold more than before, and the share
/// of the tables by relay port, which were there from the start.
#[test]
fn ten_thousand_idle_allocations_take_less_than_a_kilobyte_each() {
    IS_TEST.set(true);
    let tables = bytes_of_a_relay_port();
    let mut plane = Setup {
        ports: 50_000..=61_999,
        ..Setup::relay(1)
    }
    .start();
    let mut last = open(&plane, 0, None);
    let (heap, resident) = (LIVE.load(Ordering::Relaxed), resident());
    for user in 1..=ALLOCATIONS {
        last = open(&plane, user, Some(last));
        // What waits to be read is no part of an allocation.
        plane.records(10);
    }
    let each = (LIVE.load(Ordering::Relaxed) - heap) / ALLOCATIONS;
    let resident = (self::resident() - resident) / ALLOCATIONS;
    println!(
        "{} bytes each: {each} grown, {tables} by relay port; {resident} resident, with the test's own",
        each + tables
    );
    println!(
        "of these: Meters {}, Landing {}, Permission {}, ChannelBinding {}, FiveTuple {}",
        size_of::<Meters>(),
        size_of::<Landing>(),
        size_of::<Permission>(),
        size_of::<ChannelBinding>(),
        size_of::<FiveTuple>()
    );
    assert_eq!(plane.allocations(), [10_001]);
    assert!(each + tables <= BUDGET, "{} bytes each", each + tables);
    assert!(each > 100, "nothing is counted");
    plane.stop();
}

/// What one more relay port costs in the tables that are made at the start.
fn bytes_of_a_relay_port() -> i64 {
    let [few, many] = [1, PORTS].map(|ports| {
        let before = LIVE.load(Ordering::Relaxed);
        IS_TEST.set(false);
        let plane = Setup {
            ports: 50_000..=u16::try_from(49_999 + ports).unwrap(),
            ..Setup::relay(1)
        }
        .start();
        IS_TEST.set(true);
        let taken = LIVE.load(Ordering::Relaxed) - before;
        drop(plane);
        taken
    });
    // There are two relay addresses, of which the second takes no part.
    (many - few) / (PORTS - 1) / 2
}

/// An allocation of a user of its own, with a channel to the relayed address `peer`.
fn open(plane: &Plane, user: i64, peer: Option<SocketAddr>) -> SocketAddr {
    // Each from a loopback address of its own, since the kernel gives ports anew.
    let user = u32::try_from(user).unwrap();
    let [_, high, mid, low] = user.to_be_bytes();
    let local = IpAddr::from(Ipv4Addr::new(127, 64 | high, mid, low));
    let credential = credential(&format!("user-{user}"), unix() + 3_600);
    let mut client = Client::at(local, plane.listener(V4), credential);
    let relayed = client.allocate(V4);
    if let Some(peer) = peer {
        assert_eq!(client.bind(0x4000, peer), SUCCESS);
    }
    relayed
}

/// Bytes of this process that are in memory.
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4_096
}
