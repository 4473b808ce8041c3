//! RFC 8016 over sockets: an allocation follows its client, whichever worker's socket the kernel
//! gives the new 5-tuple to, and from one transport to another.

use std::sync::atomic::Ordering;

use taciturn::dataplane::Record;
use taciturn::proto::{Method, MobilityTicket, RequestedAddressFamily, RequestedTransport};
use taciturn::turn::Transport;
use taciturn::turn::stats::{Counters, DropReason};

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4};

const CALLS: u8 = 24;
/// Packets each way before and after each move.
const PACKETS: u8 = 5;

struct Call {
    a: Client,
    b: Client,
    ticket: Vec<u8>,
}

impl Call {
    /// A is mobile, and begins on this transport.
    #[track_caller]
    fn new(plane: &mut Plane, transport: Transport) -> Self {
        let (mut a, (mut b, at_b)) = (plane.client_over(transport), plane.party(V4));
        let answer = a.request(Method::ALLOCATE, |request| {
            request
                .with(&RequestedTransport::UDP)
                .with(&RequestedAddressFamily(V4))
                .with(&MobilityTicket(b""))
        });
        let (at_a, ticket) = (answer.relayed()[0], answer.ticket().unwrap());
        assert_eq!(a.bind(0x4000, at_b), SUCCESS);
        assert_eq!(b.bind(0x4001, at_a), SUCCESS);
        Self { a, b, ticket }
    }

    /// Not one packet is lost either way.
    #[track_caller]
    fn talks(&mut self) {
        for n in 0..PACKETS {
            // Longer than what somebody without an allocation may send on a connection.
            let data = vec![n; 3_000];
            self.a.send_channel(0x4000, &data);
            assert_eq!(self.b.receive(), Received::Channel(0x4001, data));
            self.b.send_channel(0x4001, &[n, 2]);
            assert_eq!(self.a.receive(), Received::Channel(0x4000, vec![n, 2]));
        }
    }

    /// A shows its ticket where it is.
    #[track_caller]
    fn resumes(&mut self) {
        let ticket = self.ticket.clone();
        let answer = self.a.request(Method::REFRESH, |request| {
            request.with(&MobilityTicket(&ticket))
        });
        assert_eq!(answer.code(), SUCCESS);
        self.ticket = answer.ticket().unwrap();
    }
}

fn mobile(mut setup: Setup) -> Plane {
    setup.mobility = true;
    setup.start()
}

#[test]
fn calls_go_on_from_other_five_tuples_without_a_lost_packet() {
    for workers in [1, 4] {
        let mut plane = mobile(Setup::relay(workers));
        let mut calls: Vec<Call> = (0..CALLS)
            .map(|_| Call::new(&mut plane, Transport::Udp))
            .collect();
        assert_eq!(plane.misdirected(), 0);
        for call in &mut calls {
            call.talks();
            for _ in 0..3 {
                // Kept, so that the kernel gives its port to nobody else.
                let _old = plane.reconnect(&mut call.a, Transport::Udp);
                call.resumes();
                call.talks();
            }
        }
        let moves = 3 * u64::from(CALLS);
        assert_eq!(plane.sum(|worker| worker.moved.total()), moves);
        assert_eq!(plane.drops(DropReason::NoAllocation), 0);
        assert_eq!(plane.misdirected() > 0, workers > 1);
        let live: u64 = plane.allocations().iter().sum();
        assert_eq!(live, 2 * u64::from(CALLS));
    }
}

fn live_over(plane: &Plane, transport: Transport) -> u64 {
    plane.sum(|worker| worker.over(transport).allocations.load(Ordering::Relaxed))
}

/// From Wi-Fi's UDP to a firewall's TLS and back, the new way first.
#[test]
fn a_call_goes_on_over_another_transport() {
    let ways = [Transport::Tcp, Transport::Tls, Transport::Udp];
    for workers in [1, 4] {
        let mut plane = mobile(Setup::streams(workers));
        let mut call = Call::new(&mut plane, Transport::Udp);
        call.talks();
        for transport in ways.into_iter().chain(ways).chain([Transport::Tls]) {
            let old = plane.reconnect(&mut call.a, transport);
            call.resumes();
            call.talks();
            drop(old);
            call.talks();
        }
        assert_eq!(live_over(&plane, Transport::Tls), 1);
        assert_eq!(live_over(&plane, Transport::Tcp), 0);
        assert_eq!(plane.drops(DropReason::Malformed), 0);
        let live: u64 = plane.allocations().iter().sum();
        assert_eq!(live, 2);
    }
}

fn connections(worker: &Counters) -> u64 {
    let over = Transport::ALL.map(|transport| worker.over(transport));
    let open = over.map(|over| over.connections.load(Ordering::Relaxed));
    open.iter().sum()
}

/// The old way breaks first, and what comes meanwhile is dropped and counted.
#[test]
fn a_client_whose_connection_broke_comes_back() {
    for workers in [1, 4] {
        let mut plane = mobile(Setup::streams(workers));
        let mut call = Call::new(&mut plane, Transport::Tcp);
        for transport in [
            Transport::Tls,
            Transport::Tcp,
            Transport::Tls,
            Transport::Udp,
        ] {
            call.talks();
            drop(call.a.stream.take());
            // Until the owner has been told, the connection's worker drops what is for it.
            let lost = || plane.drops(DropReason::Away) + plane.drops(DropReason::NoLanding);
            let (away, mut before) = (plane.drops(DropReason::Away), lost());
            eventually("the connection's end is noticed", || {
                plane.sum(connections) == 0
            });
            while plane.drops(DropReason::Away) == away {
                call.b.send_channel(0x4001, b"are you there?");
                eventually("a packet is dropped", || lost() > before);
                before = lost();
            }
            plane.reconnect(&mut call.a, transport);
            call.resumes();
        }
        call.talks();
        assert!(matches!(plane.record(), Record::Opened { .. }));
        let live: u64 = plane.allocations().iter().sum();
        assert_eq!(live, 2);
    }
}
