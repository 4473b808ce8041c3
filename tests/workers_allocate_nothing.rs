//! Workers ask the allocator for nothing while they relay, packet after packet.
#![expect(
    unsafe_code,
    reason = "an allocator cannot be counted without being one"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use taciturn::turn::Transport;
use taciturn::turn::stats::Path;

#[path = "loopback/mod.rs"]
mod loopback;

use loopback::client::SUCCESS;
use loopback::message::Received;
use loopback::plane::{Setup, V4, V6};

/// Packets of each framing.
const PACKETS: u64 = 5_000;
/// Packets on their way at once, few enough for every buffer.
const AT_ONCE: u64 = 25;

/// The same to a connection, so few that they fit into what a queue keeps for good.
const STREAM_AT_ONCE: u64 = 10;

/// Allocations by all threads but the test's.
static ELSEWHERE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_TEST: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

// SAFETY: hands every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !IS_TEST.get() {
            ELSEWHERE.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same, and `alloc` took it from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, since all threads but its own are counted.
#[test]
fn ten_thousand_hairpinned_packets_cost_no_allocation() {
    IS_TEST.set(true);
    between_udp_clients();
    between_udp_and_tcp_clients();
}

fn between_udp_clients() {
    for (workers, family) in [(1, V4), (4, V4), (4, V6)] {
        let mut plane = Setup::relay(workers).start();
        let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(family));
        let [(mut c, at_c), (mut d, at_d)] = [(); 2].map(|()| plane.party(family));
        assert_eq!(
            (a.bind(0x4000, at_b), b.bind(0x4001, at_a)),
            (SUCCESS, SUCCESS)
        );
        assert_eq!((c.permit(at_d), d.permit(at_c)), (SUCCESS, SUCCESS));
        let mut number = 0;
        let mut exchange = |packets: u64| {
            for _ in 0..packets / AT_ONCE {
                let data = media(&mut number);
                for _ in 0..AT_ONCE {
                    a.send_channel(0x4000, &data);
                    c.send_to(at_d, &data);
                }
                for _ in 0..AT_ONCE {
                    assert_eq!(b.receive(), Received::Channel(0x4001, data.to_vec()));
                    assert_eq!(d.receive(), Received::Data(at_c, data.to_vec()));
                }
            }
        };
        exchange(10 * AT_ONCE);
        let (allocated, relayed) = (
            ELSEWHERE.load(Ordering::Relaxed),
            plane.both_ways(Path::Hairpin),
        );
        exchange(PACKETS);
        let allocated = ELSEWHERE.load(Ordering::Relaxed) - allocated;
        assert_eq!(
            plane.both_ways(Path::Hairpin),
            relayed.map(|n| n + 2 * PACKETS)
        );
        assert_eq!(allocated, 0, "with {workers} workers");

        assert_counted(|| drop(plane.party(family)));
    }
}

/// Between a UDP worker and a stream worker, by ring and queue, in channels and in indications. TLS
/// is left out: rustls allocates for each record.
fn between_udp_and_tcp_clients() {
    for workers in [1, 2] {
        let mut plane = Setup::streams(workers).start();
        let (mut a, at_a) = plane.party(V4);
        let (mut b, at_b) = plane.party_over(Transport::Tcp);
        let (mut c, at_c) = plane.party(V4);
        let (mut d, at_d) = plane.party_over(Transport::Tcp);
        assert_eq!(
            (a.bind(0x4000, at_b), b.bind(0x4001, at_a)),
            (SUCCESS, SUCCESS)
        );
        assert_eq!((c.permit(at_d), d.permit(at_c)), (SUCCESS, SUCCESS));
        let mut number = 0;
        let mut exchange = |packets: u64| {
            for _ in 0..packets / STREAM_AT_ONCE {
                let data = media(&mut number);
                for _ in 0..STREAM_AT_ONCE {
                    a.send_channel(0x4000, &data);
                    b.send_channel(0x4001, &data);
                    c.send_to(at_d, &data);
                    d.send_to(at_c, &data);
                }
                for _ in 0..STREAM_AT_ONCE {
                    assert_eq!(b.receive(), Received::Channel(0x4001, data.to_vec()));
                    assert_eq!(a.receive(), Received::Channel(0x4000, data.to_vec()));
                    assert_eq!(d.receive(), Received::Data(at_c, data.to_vec()));
                    assert_eq!(c.receive(), Received::Data(at_d, data.to_vec()));
                }
            }
        };
        exchange(10 * AT_ONCE);
        let before = (
            ELSEWHERE.load(Ordering::Relaxed),
            plane.both_ways(Path::Hairpin),
        );
        exchange(PACKETS);
        let allocated = ELSEWHERE.load(Ordering::Relaxed) - before.0;
        assert_eq!(
            plane.both_ways(Path::Hairpin),
            before.1.map(|n| n + 4 * PACKETS)
        );
        assert_eq!(allocated, 0, "with {workers} workers of each kind");
        assert_counted(|| drop(plane.party_over(Transport::Tcp)));
    }
}

/// The next packet of an RTP stream (RFC 3550 §5.1), of an odd length. It is measured from its second
/// packet on.
fn media(number: &mut u16) -> Vec<u8> {
    *number = number.wrapping_add(1);
    let [high, low] = number.to_be_bytes();
    let mut data = vec![7; 171];
    data[..4].copy_from_slice(&[0x80, 111, high, low]);
    data
}

/// What a request takes is counted, so that the count is not blind.
fn assert_counted(request: impl FnOnce()) {
    let before = ELSEWHERE.load(Ordering::Relaxed);
    request();
    assert!(
        ELSEWHERE.load(Ordering::Relaxed) > before,
        "nothing is counted"
    );
}
