//! What a session takes, measured. Run alone, for the whole process is weighed:
//! `cargo test --features dtls --lib memory_of_a_session -- --ignored --nocapture`, and the same
//! with `time_of_a_record`.
#![expect(
    unsafe_code,
    reason = "OpenSSL takes its memory from libc, which says how much it gave"
)]

use std::time::{Duration, Instant};

use super::harness::{Client, Shaken, World, address, plain_context};
use crate::dataplane::dtls::Limits;

/// What libc gave to this process and did not get back.
fn taken() -> usize {
    // SAFETY: reads the allocator's own counters, behind its locks.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// What one more session takes, over so many.
const MANY: u16 = 500;

fn weigh(mut each: impl FnMut(&mut World, u16)) -> usize {
    let limits = Limits {
        half_open: 10_000,
        half_open_per_network: 10_000,
        handshake: Duration::from_secs(3_600),
        ..Limits::default()
    };
    let mut world = World::new(plain_context(), limits);
    // What is needed once is there before the scale is read.
    (60_000..60_100).for_each(|port| each(&mut world, port));
    let before = taken();
    (1..=MANY).for_each(|port| each(&mut world, port));
    assert_eq!(world.dtls.len(), usize::from(MANY) + 100);
    (taken() - before) / usize::from(MANY)
}

#[test]
#[ignore = "weighs the whole process, so it must be alone"]
fn memory_of_a_session() {
    let open = weigh(|world, port| {
        let mut client = world.connect(address(1, port));
        assert!(world.passes(&mut client));
    });
    println!("open and idle: {open} bytes");
    let half_open = weigh(|world, port| {
        let mut client = Client::new(address(1, port));
        for _ in 0..2 {
            assert_eq!(client.shake(), Shaken::Waiting);
            world.deliver(client.addr, &client.sent().concat());
            for datagram in world.sent_to(client.addr) {
                client.receive(&datagram);
            }
        }
    });
    println!("in its handshake: {half_open} bytes");
    let stuffed = weigh(|world, port| {
        let mut client = Client::new(address(2, port));
        for _ in 0..2 {
            assert_eq!(client.shake(), Shaken::Waiting);
            world.deliver(client.addr, &client.sent().concat());
            for datagram in world.sent_to(client.addr) {
                client.receive(&datagram);
            }
        }
        // Whatever it may leave behind: records of the next epoch, messages that never end.
        let mut record = [0; 1_200];
        record[..5].copy_from_slice(&[22, 0xfe, 0xfd, 0, 1]);
        record[11..13].copy_from_slice(&1_187_u16.to_be_bytes());
        for n in 0..20 {
            record[10] = n;
            world.deliver(client.addr, &record);
        }
        for seq in 2..=3 {
            let fragment = [
                22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 50, 0, 13, 16, 0, 16, 0, 0, seq, 0, 0, 9, 0,
                0, 1, 0,
            ];
            world.deliver(client.addr, &fragment);
        }
        assert_eq!(world.dtls.counts().failed, 0);
    });
    println!("in its handshake, stuffed: {stuffed} bytes");
    assert!(open < 45_000 && half_open < 100_000 && stuffed < 230_000);
}

#[test]
#[ignore = "measures, and asserts nothing about time"]
fn time_of_a_record() {
    const RECORDS: u32 = 100_000;
    let mut world = World::plain();
    let mut client = world.connect(address(1, 1));
    let sealed: Vec<_> = (0..RECORDS).map(|_| client.seal(&[0; 172])).collect();
    let mut plain = [0; 2_048];
    let mut out = |_, _: &[u8]| ();
    let mut read = 0;
    let began = Instant::now();
    for datagram in &sealed {
        world
            .dtls
            .receive(client.addr, datagram, world.now, &mut out);
        while world.dtls.read(&mut plain, &mut out).is_some() {
            read += 1;
        }
    }
    println!("receive and read: {:?}", began.elapsed() / RECORDS);
    assert_eq!(read, RECORDS);
    let began = Instant::now();
    for _ in 0..RECORDS {
        let sent = world
            .dtls
            .send(client.addr, &[&plain[..4], &plain[..172]], &mut out);
        assert_eq!(sent, Ok(()));
    }
    println!("send: {:?}", began.elapsed() / RECORDS);
    let hello = {
        let mut client = Client::new(address(1, 2));
        assert_eq!(client.shake(), Shaken::Waiting);
        client.sent().concat()
    };
    let began = Instant::now();
    for _ in 0..RECORDS {
        world
            .dtls
            .receive(address(1, 2), &hello, world.now, &mut out);
    }
    println!("a hello without a cookie: {:?}", began.elapsed() / RECORDS);
    let began = Instant::now();
    for port in 0..200 {
        world.connect(address(3, port));
    }
    println!("a handshake, both sides: {:?}", began.elapsed() / 200);
}
