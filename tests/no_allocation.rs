//! The data path asks the allocator for nothing, packet after packet.
#![expect(
    unsafe_code,
    reason = "an allocator cannot be counted without being one"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use taciturn::dataplane::sys::{
    Ecn, HEADROOM, Packet, Poller, RecvBatch, SendBatch, SocketOptions, UdpSocket, send_to,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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

#[test]
fn receiving_and_sending_batches_allocates_nothing() {
    let options = SocketOptions {
        receive_buffer: 1 << 20,
        dscp: 0,
    };
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let any: SocketAddr = any.parse().unwrap();
        let [client, relay, peer] = [(); 3].map(|()| UdpSocket::relay(any, &options).unwrap());
        let mut poller = Poller::new().unwrap();
        poller.add(&relay, 1).unwrap();
        let mut received = RecvBatch::new(32, 65_535);
        let mut sends = SendBatch::new(32);

        let before = ALLOCATIONS.get();
        let mut relayed = 0;
        for _ in 0..10 {
            for _ in 0..16 {
                send_to(&client, &[7; 172], relay.local_addr(), Ecn::Ect0).unwrap();
            }
            let ready = poller.wait(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(ready.count(), 1);
            received.clear();
            for slot in received.receive(&relay, 32).unwrap() {
                let datagram = received.datagram(slot);
                let packet = Packet {
                    head: b"head",
                    slot,
                    range: HEADROOM..HEADROOM + datagram.len,
                    padding: 3,
                };
                sends.push(&received, &packet, (), peer.local_addr(), datagram.ecn);
                // Refused, which must not cost an allocation either.
                sends.push(&received, &Packet::default(), (), any, datagram.ecn);
            }
            relayed += sends.flush(&received, |()| Some(&relay)).packets;
        }
        assert_eq!(ALLOCATIONS.get(), before);
        assert!(relayed >= 100, "{relayed}");
        drop(black_box(Box::new(relayed)));
        assert!(ALLOCATIONS.get() > before, "nothing is counted");
    }
}
