//! What is billed by: that every allocation that opened and closed is told of, with what went through
//! it, however many end at once and however late anybody reads of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use taciturn::dataplane::{Record, Totals};
use taciturn::turn::revocation::Revoked;
use taciturn::turn::stats::{Direction, Path};
use taciturn::turn::{AllocationId, EndReason};

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup, V4, credential, credentials, unix};

/// Packets and bytes from and to a client.
type Volume = [(u64, u64); 2];

/// Two parties, of whom the first sends the other one what differs from pair to pair; what each has
/// had relayed, by its address.
fn pair(plane: &Plane, number: u32, billed: &mut HashMap<SocketAddr, Volume>) {
    // A loopback address of its own, since the kernel gives ports anew.
    let [_, high, mid, low] = number.to_be_bytes();
    let local = IpAddr::from(Ipv4Addr::new(127, 32 | high, mid, low));
    let credential = credential("alice", unix() + 3_600);
    let client = || Client::at(local, plane.listener(V4), credential.clone());
    let [mut a, mut b] = [client(), client()];
    let at_a = a.allocate(V4);
    (b.realm, b.nonce) = (a.realm.clone(), a.nonce.clone());
    let at_b = b.allocate(V4);
    assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    let (packets, bytes) = (number % 4, 10 + number % 90);
    let data = vec![7; usize::try_from(bytes).unwrap()];
    for _ in 0..packets {
        a.send_to(at_b, &data);
        assert_eq!(b.receive(), Received::Data(at_a, data.clone()));
    }
    let volume = (u64::from(packets), u64::from(packets * bytes));
    billed.insert(a.addr(), [volume, (0, 0)]);
    billed.insert(b.addr(), [(0, 0), volume]);
}

/// What `totals` say of the hairpin, on which all went.
fn volume(totals: &Totals) -> Volume {
    assert_eq!(
        totals.packets(Direction::In),
        totals.of(Path::Hairpin, Direction::In).0
    );
    [Direction::In, Direction::Out].map(|direction| totals.of(Path::Hairpin, direction))
}

/// So many pairs, all ended at once, are told of to the last after that.
#[track_caller]
fn all_are_told_of(pairs: u32, reason: EndReason, end: impl FnOnce(&mut Plane)) {
    let mut plane = Setup {
        ports: 50_000..=61_999,
        ..Setup::relay(2)
    }
    .start();
    let mut billed = HashMap::new();
    (1..=pairs).for_each(|number| pair(&plane, number, &mut billed));
    end(&mut plane);
    assert_eq!(plane.allocations().iter().sum::<u64>(), 0);

    let mut open: HashMap<AllocationId, Volume> = HashMap::new();
    let mut closed = 0;
    eventually("all that closed is told of", || {
        // In sips.
        for record in plane.records(100) {
            match record {
                Record::Opened { id, tuple, .. } => {
                    let volume = billed.remove(&tuple.client.expose()).unwrap();
                    assert!(open.insert(id, volume).is_none());
                }
                Record::Closed {
                    id,
                    totals,
                    reason: why,
                    ..
                } => {
                    assert_eq!((open.remove(&id), why), (Some(volume(&totals)), reason));
                    closed += 1;
                }
                Record::Moved { .. } => unreachable!("nobody moved"),
            }
        }
        closed == 2 * pairs
    });
    assert_eq!((billed.len(), open.len()), (0, 0));
    assert_eq!(plane.handle.lost_records(), 0);
    assert!(plane.records(1).is_empty());
}

#[test]
fn ten_thousand_allocations_that_are_revoked_at_once_are_all_billed() {
    all_are_told_of(5_000, EndReason::Revoked, |plane| {
        let subject = credentials().subject("alice");
        plane.handle.revoke(&[Revoked::User(subject)]);
        eventually("all have ended", || {
            plane.allocations().iter().sum::<u64>() == 0
        });
    });
}

#[test]
fn what_lives_when_the_server_stops_is_billed_after_that() {
    all_are_told_of(2_500, EndReason::Stopped, Plane::stop);
}
