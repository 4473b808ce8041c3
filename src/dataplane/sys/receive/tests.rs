use super::super::send_to;
use super::super::testing::{LOOPBACKS, receive_one, refill, socket, wait_readable};
use super::*;

/// A batch whose first `receive` found `expected` datagrams.
fn received(batch: &mut RecvBatch, socket: &UdpSocket, expected: usize) {
    wait_readable(socket);
    assert_eq!(refill(batch, socket), expected);
}

fn payload(batch: &mut RecvBatch, index: usize) -> Vec<u8> {
    let (slot, datagram) = batch.slot(index);
    slot[datagram].to_vec()
}

#[test]
fn datagrams_of_all_sizes_arrive_in_order_from_their_sources() {
    for ip in LOOPBACKS {
        let (to, senders) = (socket(ip), [socket(ip), socket(ip)]);
        let payloads: Vec<_> = (0_u8..)
            .zip([0, 1, 172, 1_200, 65_507, 0, 20])
            .map(|(fill, len)| vec![fill; len])
            .collect();
        for (index, payload) in payloads.iter().enumerate() {
            send_to(&senders[index % 2], payload, to.local_addr(), Ecn::NotEct).unwrap();
        }

        let mut batch = RecvBatch::new(32, 65_535);
        received(&mut batch, &to, payloads.len());

        for (index, expected) in payloads.iter().enumerate() {
            let datagram = batch.datagram(index);
            assert_eq!(datagram.source, senders[index % 2].local_addr());
            assert_eq!(datagram.len, expected.len());
            assert!(!datagram.truncated);
            assert!(payload(&mut batch, index) == *expected, "datagram {index}");
        }
        assert_eq!(refill(&mut batch, &to), 0);
    }
}

#[test]
fn what_does_not_fit_in_a_batch_waits_for_the_next() {
    let [from, to] = [socket(LOOPBACKS[0]), socket(LOOPBACKS[0])];
    for number in 0..5 {
        send_to(&from, &[number], to.local_addr(), Ecn::NotEct).unwrap();
    }
    let mut batch = RecvBatch::new(2, 100);
    let mut seen = Vec::new();
    for expected in [2, 2, 1] {
        received(&mut batch, &to, expected);
        seen.extend((0..expected).flat_map(|index| payload(&mut batch, index)));
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    assert_eq!(refill(&mut batch, &to), 0);
}

#[test]
fn a_batch_takes_from_one_socket_after_the_other_until_it_is_full() {
    let [from, one, two] = [(); 3].map(|()| socket(LOOPBACKS[0]));
    for (number, to) in (0..).zip([&one, &two, &two, &two]) {
        send_to(&from, &[number], to.local_addr(), Ecn::NotEct).unwrap();
    }
    let mut batch = RecvBatch::new(3, 100);
    let mut receive = |socket, limit| batch.receive(socket, limit).unwrap();
    assert_eq!(receive(&one, 1), 0..1);
    assert_eq!(receive(&one, 1), 1..1);
    assert_eq!(receive(&two, 1), 1..2);
    assert_eq!(receive(&two, 9), 2..3);
    assert_eq!(receive(&two, 9), 3..3);
    assert_eq!(batch.free(), 0);
    let seen: Vec<_> = (0..3)
        .flat_map(|index| payload(&mut batch, index))
        .collect();
    assert_eq!(seen, [0, 1, 2]);
    assert_eq!(refill(&mut batch, &two), 1);
    assert_eq!(payload(&mut batch, 0), [3]);
}

#[test]
fn one_batch_serves_sockets_of_both_families_in_turn() {
    let mut batch = RecvBatch::new(4, 100);
    for ip in [LOOPBACKS[0], LOOPBACKS[1], LOOPBACKS[0], LOOPBACKS[1]] {
        let [from, to] = [socket(ip), socket(ip)];
        for ecn in [Ecn::Ce, Ecn::NotEct] {
            send_to(&from, b"hello", to.local_addr(), ecn).unwrap();
        }
        received(&mut batch, &to, 2);
        assert_eq!(batch.datagram(0).source, from.local_addr());
        assert_eq!(batch.datagram(0).ecn, Ecn::Ce);
        assert_eq!(batch.datagram(1).ecn, Ecn::NotEct);
    }
}

#[test]
fn ecn_is_read_after_a_batch_that_came_without_it() {
    let [from, to, silent] = [(); 3].map(|()| socket(LOOPBACKS[0]));
    silent.socket.set_recv_tos_v4(false).unwrap();
    let mut batch = RecvBatch::new(1, 100);
    for (to, expected) in [(&silent, Ecn::NotEct), (&to, Ecn::Ce)] {
        send_to(&from, b"hello", to.local_addr(), Ecn::Ce).unwrap();
        received(&mut batch, to, 1);
        assert_eq!(batch.datagram(0).ecn, expected);
    }
}

#[test]
fn a_datagram_longer_than_its_slot_is_marked() {
    let [from, to] = [socket(LOOPBACKS[0]), socket(LOOPBACKS[0])];
    send_to(&from, &[7; 101], to.local_addr(), Ecn::NotEct).unwrap();
    send_to(&from, &[7; 100], to.local_addr(), Ecn::NotEct).unwrap();
    let mut batch = RecvBatch::new(2, 100);
    received(&mut batch, &to, 2);
    let [first, second] = [batch.datagram(0), batch.datagram(1)];
    assert_eq!((first.len, first.truncated), (100, true));
    assert_eq!((second.len, second.truncated), (100, false));
}

#[test]
fn every_slot_has_its_room_before_and_behind() {
    let mut batch = RecvBatch::new(3, 101);
    let mut ends = Vec::new();
    for index in 0..3 {
        let (slot, _) = batch.slot(index);
        assert_eq!(slot.len(), HEADROOM + 101 + TAILROOM);
        slot.fill(1 + u8::try_from(index).unwrap());
        ends.push(slot.as_ptr_range());
    }
    assert!(ends.is_sorted_by(|one, next| one.end <= next.start));
    for index in 0..3 {
        let whole = batch.bytes(index, 0..HEADROOM + 101 + TAILROOM).unwrap();
        assert!(whole.iter().all(|byte| usize::from(*byte) == index + 1));
    }
}

#[test]
fn bytes_outside_a_slot_are_none() {
    let batch = RecvBatch::new(2, 100);
    let len = HEADROOM + 100 + TAILROOM;
    assert!(batch.bytes(1, len..len).is_some());
    assert!(batch.bytes(1, 0..len + 1).is_none());
    assert!(batch.bytes(2, 0..1).is_none());
    assert!(batch.bytes(usize::MAX, 0..1).is_none());
}

/// T42
#[test]
fn a_port_unreachable_does_not_end_receiving() {
    for ip in LOOPBACKS {
        let relay = socket(ip);
        let gone = socket(ip);
        let addr = gone.local_addr();
        drop(gone);
        // Only a connected socket is told of ICMP errors.
        relay.socket.connect(&addr.into()).unwrap();
        send_to(&relay, b"anyone?", addr, Ecn::NotEct).unwrap();

        let mut batch = RecvBatch::new(4, 100);
        received(&mut batch, &relay, 0);
        assert_eq!(batch.socket_errors(), 1);

        let back = UdpSocket::relay(addr, &super::super::testing::OPTIONS).unwrap();
        send_to(&back, b"here", relay.local_addr(), Ecn::NotEct).unwrap();
        assert_eq!(receive_one(&relay), (b"here".to_vec(), addr));
    }
}

#[test]
fn debug_shows_no_address() {
    let [from, to] = [socket(LOOPBACKS[0]), socket(LOOPBACKS[0])];
    send_to(&from, b"x", to.local_addr(), Ecn::NotEct).unwrap();
    let mut batch = RecvBatch::new(1, 100);
    received(&mut batch, &to, 1);
    for text in [format!("{batch:?}"), format!("{:?}", batch.datagram(0))] {
        assert!(text.starts_with("Rec"));
        assert!(!text.contains("127") && !text.contains(&from.local_addr().port().to_string()));
    }
}
