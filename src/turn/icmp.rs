//! ICMP errors about what was sent to a peer, told to the client that sent it (RFC 8656 §11.5,
//! §18.13).
//!
//! Only of foreign peers, whom the client knows by their address anyhow: what an error says of a
//! hidden one (that it lives, what its path carries) is nobody's. Anybody may forge one, so that
//! they are few, and change nothing in this server.

use std::net::SocketAddr;

use crate::proto::{AddressFamily, Icmp, TransactionId};
use crate::turn::address::PeerAddr;
use crate::turn::allocation::Allocation;
use crate::turn::clock::Tick;
use crate::turn::environment::Environment;
use crate::turn::outcome::{Forward, Head, Target};
use crate::turn::policy::Verdict;
use crate::turn::route::AllocationId;
use crate::turn::stats::DropReason;
use crate::turn::{Handled, Server, random};

/// Nanoseconds in which an allocation may be told of one error,
const SPACING: u64 = 100_000_000;
/// after so many at once.
const BURST: u64 = 20;

/// How much an allocation was told of errors lately: the moment from which it may be told of
/// [`BURST`] at once (the generic cell rate algorithm).
#[derive(Debug, Default)]
pub(crate) struct Told(Tick);

impl Told {
    fn may_be_told(&mut self, now: Tick) -> bool {
        let next = self.0.nanos().max(now.nanos()).saturating_add(SPACING);
        let fits = next <= now.nanos().saturating_add(SPACING * BURST);
        if fits {
            self.0 = Tick::from_nanos(next);
        }
        fits
    }
}

impl<E: Environment> Server<E> {
    /// An ICMP error reached the relay socket of allocation `id`, about a datagram that was sent to
    /// `peer`.
    pub fn handle_icmp(
        &mut self,
        id: AllocationId,
        peer: PeerAddr,
        error: Icmp,
        now: Tick,
    ) -> Handled {
        self.settle();
        let peer = peer.expose();
        let Some(error) = relevant(peer, error) else {
            return self.drop(DropReason::Icmp);
        };
        let judge = &self.config.judge;
        let named = judge.named(judge.outer(peer));
        let found = self.table.index_of_id(id);
        let allocation = found.and_then(|index| self.table.at_mut(index));
        let Some(allocation) = allocation.filter(|a| a.may_hear_of(named, now)) else {
            return self.drop(DropReason::Icmp);
        };
        let verdict = judge.peer(&allocation.policy, named);
        if verdict != Verdict::Foreign || !allocation.told.may_be_told(now) {
            return self.drop(DropReason::Icmp);
        }
        let client = allocation.tuple;
        let transaction = TransactionId::new(random(&mut self.rng));
        if self.aside.write_icmp(peer, error, transaction).is_err() {
            return self.drop(DropReason::TooLarge);
        }
        Handled::Forward(Forward {
            head: Head::Aside,
            range: 0..0,
            padding: 0,
            to: Target::Client(client),
        })
    }
}

impl Allocation {
    /// RFC 8656 §11.5: the permission is that of the datagram's destination, whatever its port.
    fn may_hear_of(&self, peer: SocketAddr, now: Tick) -> bool {
        self.relay(AddressFamily::of(peer.ip()), now).is_some()
            && self.permission(peer.ip(), now).is_some()
            && !self.tuple.is_nowhere()
    }
}

/// RFC 8656 §11.5, §18.13: which errors are told, and the MTU only with those that carry one.
fn relevant(peer: SocketAddr, error: Icmp) -> Option<Icmp> {
    let has_mtu = match (peer, error.kind, error.code) {
        // RFC 792: destination unreachable, of which 4 is fragmentation needed; time exceeded.
        (SocketAddr::V4(_), 3, code) => code == 4,
        (SocketAddr::V4(_), 11, _) => false,
        // RFC 4443: destination unreachable, packet too big, time exceeded.
        (SocketAddr::V6(_), 2, _) => true,
        (SocketAddr::V6(_), 1 | 3, _) => false,
        _ => return None,
    };
    let data = if has_mtu { error.data } else { [0; 4] };
    Some(Icmp { data, ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_goes_with_packet_too_big_alone() {
        let [v4, v6] = ["192.0.2.1:9", "[2001:db8::1]:9"].map(|at| at.parse().unwrap());
        let data = |peer, kind, code| {
            let data = [0, 0, 5, 0];
            relevant(peer, Icmp { kind, code, data }).map(|error| error.data)
        };
        let (mtu, none) = (Some([0, 0, 5, 0]), Some([0; 4]));
        for (peer, kind, code, expected) in [
            (v4, 3, 3, none),
            (v4, 3, 4, mtu),
            (v4, 11, 0, none),
            (v4, 11, 4, none),
            (v4, 0, 0, None),
            (v4, 1, 0, None),
            (v4, 4, 0, None),
            (v4, 5, 0, None),
            (v4, 12, 0, None),
            (v6, 1, 4, none),
            (v6, 2, 0, mtu),
            (v6, 3, 0, none),
            (v6, 4, 0, None),
            (v6, 11, 0, None),
            (v6, 128, 0, None),
        ] {
            assert_eq!(data(peer, kind, code), expected, "{kind} {code}");
        }
    }

    #[test]
    fn a_storm_is_told_in_a_burst_and_then_at_its_rate() {
        let mut told = Told::default();
        let at = |ms: u64| Tick::from_nanos(1_000_000_000_000 + ms * 1_000_000);
        let mut count = |ms| (0..1_000).filter(|_| told.may_be_told(at(ms))).count();
        assert_eq!(count(0), 20);
        assert_eq!(count(99), 0);
        assert_eq!(count(1_000), 10);
        assert_eq!(count(600_000), 20);
    }
}
