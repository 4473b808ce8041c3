//! From one relayed address of this server to another, across workers and in every framing.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use taciturn::proto::AddressFamily;
use taciturn::turn::stats::{Counters, Direction, DropReason, Path};

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4, V6};

/// Clients of each worker.
const EACH: usize = 16;
/// Payloads that go each way: none, odd, audio, the largest of a usual path.
const SIZES: [usize; 4] = [0, 1, 171, 1_200];

/// How a side talks about the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Channel(u16),
    Indication,
}

struct Party {
    client: Client,
    relayed: SocketAddr,
    worker: usize,
    channels: u16,
}

impl Party {
    /// Lets packets of `peer` in, by a channel of the next number or by a permission.
    fn admit(&mut self, peer: SocketAddr, with_channel: bool) -> Side {
        if !with_channel {
            assert_eq!(self.client.permit(peer), SUCCESS);
            return Side::Indication;
        }
        self.channels += 1;
        let number = 0x4000 + self.channels;
        assert_eq!(self.client.bind(number, peer), SUCCESS);
        Side::Channel(number)
    }

    fn send(&mut self, side: Side, peer: SocketAddr, data: &[u8]) {
        match side {
            Side::Channel(number) => self.client.send_channel(number, data),
            Side::Indication => self.client.send_to(peer, data),
        }
    }
}

/// As many clients for each of the workers; which worker a client has, the kernel decides and
/// the counters tell.
fn parties(plane: &mut Plane, clients: AddressFamily, relayed: AddressFamily) -> Vec<Party> {
    let workers = plane.counters().len();
    let mut parties: Vec<Party> = Vec::new();
    while parties.len() < workers * EACH {
        let before = plane.allocations();
        let mut client = plane.client(clients);
        let relayed = client.allocate(relayed);
        let after = plane.allocations();
        let worker = (0..workers).find(|i| after[*i] > before[*i]).unwrap();
        if after[worker] > EACH as u64 {
            assert_eq!(client.refresh(0).code(), SUCCESS);
        } else {
            parties.push(Party {
                client,
                relayed,
                worker,
                channels: 0,
            });
        }
    }
    parties
}

/// Two parties, the first on one worker and the second on another, that were not paired before.
fn pair(parties: &[Party], workers: [usize; 2], paired: &mut HashSet<[usize; 2]>) -> [usize; 2] {
    let of = |worker| (0..parties.len()).filter(move |i| parties[*i].worker == worker);
    let [first, second] = workers;
    of(first)
        .flat_map(|a| of(second).map(move |b| [a, b]))
        .find(|[a, b]| a != b && paired.insert([*a.min(b), *a.max(b)]))
        .expect("enough clients on each worker")
}

/// `from` sends every size to `to`, which must receive them unchanged, from the relayed address
/// of `from`. Returns how many packets that were.
fn exchange(from: &mut Party, sends: Side, to: &mut Party, receives: Side) -> u64 {
    for (place, size) in (0_u8..).zip(SIZES) {
        let data: Vec<u8> = (0..=250)
            .cycle()
            .take(size)
            .map(|i: u8| i ^ place)
            .collect();
        from.send(sends, to.relayed, &data);
        let expected = match receives {
            Side::Channel(number) => Received::Channel(number, data),
            Side::Indication => Received::Data(from.relayed, data),
        };
        assert_eq!(to.client.receive(), expected);
    }
    SIZES.len() as u64
}

/// What a worker has counted on the hairpin: packets in and out, bytes in and out.
fn hairpinned(worker: &Counters) -> [u64; 4] {
    let [inbound, outbound] =
        [Direction::In, Direction::Out].map(|d| worker.traffic(Path::Hairpin, d));
    [
        inbound.packets.total(),
        outbound.packets.total(),
        inbound.bytes.total(),
        outbound.bytes.total(),
    ]
}

/// Every pairing of workers, in every pairing of channel and indication.
fn all_pairings(workers: usize, clients: AddressFamily, relayed: AddressFamily) {
    let mut plane = Setup::relay(workers).start();
    let mut parties = parties(&mut plane, clients, relayed);
    let bytes_of_one: usize = SIZES.iter().sum();
    let mut table = vec![vec![0_u64; workers]; workers];
    let mut paired = HashSet::new();
    for first in 0..workers {
        for second in 0..workers {
            for (a_binds, b_binds) in [(true, true), (true, false), (false, true), (false, false)] {
                let places = pair(&parties, [first, second], &mut paired);
                let [a, b] = parties.get_disjoint_mut(places).unwrap();
                let (a_side, b_side) = (a.admit(b.relayed, a_binds), b.admit(a.relayed, b_binds));
                let counters: Vec<Arc<Counters>> = plane.counters().to_vec();
                for (from, to, sends, receives) in [(0, 1, a_side, b_side), (1, 0, b_side, a_side)]
                {
                    let mut both = [&mut *a, &mut *b];
                    let [from, to] = both.get_disjoint_mut([from, to]).unwrap();
                    let before = hairpinned(&counters[from.worker]);
                    let sent = exchange(from, sends, to, receives);
                    let bytes = bytes_of_one as u64;
                    let more = [sent, sent, bytes, bytes];
                    let expected: Vec<u64> = before.iter().zip(more).map(|(a, b)| a + b).collect();
                    assert_eq!(hairpinned(&counters[from.worker])[..], expected[..]);
                    table[from.worker][to.worker] += sent;
                }
            }
        }
    }
    let all: u64 = table.iter().flatten().sum();
    assert_eq!(plane.both_ways(Path::Hairpin), [all, all]);
    assert_eq!(plane.misdirected(), 0);
    let dropped: Vec<_> = DropReason::ALL
        .iter()
        .filter(|r| plane.drops(**r) > 0)
        .collect();
    assert!(dropped.is_empty(), "{dropped:?}");
    assert!(table.iter().flatten().all(|count| *count > 0), "{table:?}");
    eprintln!("packets from worker (row) to worker (column): {table:?}");
}

#[test]
fn sixty_four_clients_on_four_workers_reach_each_other_over_ipv4_in_every_pairing() {
    all_pairings(4, V4, V4);
}

#[test]
fn sixty_four_clients_on_four_workers_reach_each_other_over_ipv6_in_every_pairing() {
    all_pairings(4, V6, V6);
}

#[test]
fn a_client_over_ipv6_may_have_a_relayed_ipv4_address() {
    all_pairings(2, V6, V4);
}

#[test]
fn one_worker_relays_in_every_pairing_of_framings() {
    all_pairings(1, V4, V4);
    all_pairings(1, V6, V6);
}

/// The packet leaves by the listener of the receiver, not by the sender's.
#[test]
fn clients_over_different_families_reach_each_other() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        let (mut a, mut b) = (plane.client(V4), plane.client(V6));
        let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
        assert_eq!((a.permit(at_b), b.bind(0x4000, at_a)), (SUCCESS, SUCCESS));
        a.send_to(at_b, b"from IPv4");
        assert_eq!(
            b.receive(),
            Received::Channel(0x4000, b"from IPv4".to_vec())
        );
        b.send_channel(0x4000, b"from IPv6");
        assert_eq!(a.receive(), Received::Data(at_b, b"from IPv6".to_vec()));
    }
}

/// T57
#[test]
fn a_client_that_is_its_own_peer_gets_its_packet_back_once() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        for family in [V4, V6] {
            let (mut client, relayed) = plane.party(family);
            assert_eq!(client.permit(relayed), SUCCESS);
            let before = plane.both_ways(Path::Hairpin);
            client.send_to(relayed, b"hello, me");
            assert_eq!(
                client.receive(),
                Received::Data(relayed, b"hello, me".to_vec())
            );
            assert_eq!(client.bind(0x4000, relayed), SUCCESS);
            client.send_channel(0x4000, b"again");
            assert_eq!(
                client.receive(),
                Received::Channel(0x4000, b"again".to_vec())
            );
            assert_eq!(
                plane.both_ways(Path::Hairpin),
                before.map(|count| count + 2)
            );
        }
    }
}

/// Firefox never binds a channel.
#[test]
fn two_clients_that_only_use_indications_exchange_packets() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        for family in [V4, V6] {
            let ((mut a, at_a), (mut b, at_b)) = (plane.party(family), plane.party(family));
            assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
            for turn in 0..20_u8 {
                a.send_to(at_b, &[turn; 100]);
                assert_eq!(b.receive(), Received::Data(at_a, vec![turn; 100]));
                b.send_to(at_a, &[turn; 50]);
                assert_eq!(a.receive(), Received::Data(at_b, vec![turn; 50]));
            }
        }
    }
}

/// T42: what the kernel reports of a client that is gone ends nobody else's listener.
#[test]
fn a_client_that_vanished_disturbs_nobody() {
    for workers in [1, 4] {
        let mut plane = Setup::relay(workers).start();
        for family in [V4, V6] {
            let [(mut a, at_a), (mut b, at_b), (mut gone, at_gone)] =
                [(); 3].map(|()| plane.party(family));
            for peer in [at_b, at_gone] {
                assert_eq!(a.permit(peer), SUCCESS);
            }
            assert_eq!((b.permit(at_a), gone.permit(at_a)), (SUCCESS, SUCCESS));
            drop(gone);
            let before = plane.packets(Path::Hairpin, Direction::Out);
            for turn in 0..50_u8 {
                a.send_to(at_gone, b"into the void");
                a.send_to(at_b, &[turn]);
                assert_eq!(b.receive(), Received::Data(at_a, vec![turn]));
                b.send_to(at_a, &[turn]);
                assert_eq!(a.receive(), Received::Data(at_b, vec![turn]));
            }
            assert_eq!(a.refresh(600).code(), SUCCESS);
            let after = plane.packets(Path::Hairpin, Direction::Out);
            assert_eq!(after, before + 150);
        }
    }
}

#[test]
fn stopping_closes_every_allocation() {
    let mut plane = Setup::relay(4).start();
    let parties: Vec<_> = (0..8).map(|_| plane.party(V4)).collect();
    eventually("eight allocations", || {
        plane.allocations().iter().sum::<u64>() == 8
    });
    plane.stop();
    assert_eq!(plane.allocations().iter().sum::<u64>(), 0);
    drop(parties);
}
