//! The load balancers that clients on UDP come through, each transport address of theirs under a
//! number that a client's address carries. They come from networks that the operator trusts, and a
//! balancer uses its ports again, so that they are few; there is a limit all the same.
//!
//! No packet waits for a lock: a worker asks for a number once and remembers it, and the address
//! behind a number is written once and then only read.

use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use hashbrown::HashMap;

use crate::turn::Via;

/// Transport addresses of load balancers; clients behind more are not served.
const MOST: usize = 65_536;

type Numbers = HashMap<SocketAddr, Via, foldhash::quality::RandomState>;

/// Their transport addresses, shared by all workers.
#[derive(Default)]
pub(crate) struct Balancers {
    numbers: Mutex<Numbers>,
    /// There as soon as there is a balancer.
    addresses: OnceLock<Box<[OnceLock<SocketAddr>]>>,
}

/// What one worker remembers of them.
#[derive(Default)]
pub(crate) struct KnownBalancers(Numbers);

impl Balancers {
    /// The number of `address`, from its first datagram on; `None` when there are too many.
    pub(crate) fn number(&self, address: SocketAddr, known: &mut KnownBalancers) -> Option<Via> {
        if let Some(via) = known.0.get(&address) {
            return Some(*via);
        }
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let via = match numbers.get(&address) {
            Some(via) => *via,
            None => {
                let place = numbers.len();
                self.places().get(place)?.set(address).ok()?;
                // 0 is the way without a balancer.
                let via = Via(u32::try_from(place + 1).ok()?);
                numbers.insert(address, via);
                via
            }
        };
        known.0.insert(address, via);
        Some(via)
    }

    /// The transport address behind a number.
    pub(crate) fn address(&self, via: Via) -> Option<SocketAddr> {
        let place = usize::try_from(via.0.checked_sub(1)?).ok()?;
        self.addresses.get()?.get(place)?.get().copied()
    }

    fn places(&self) -> &[OnceLock<SocketAddr>] {
        self.addresses
            .get_or_init(|| (0..MOST).map(|_| OnceLock::new()).collect())
    }
}

impl std::fmt::Debug for Balancers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Balancers").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for KnownBalancers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownBalancers")
            .field("known", &self.0.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_has_the_same_number_for_every_worker() {
        let balancers = Balancers::default();
        let mut workers = [KnownBalancers::default(), KnownBalancers::default()];
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let one = balancers.number(address(1), &mut workers[0]).unwrap();
        let other = balancers.number(address(2), &mut workers[0]).unwrap();
        assert_ne!(one, Via::DIRECT);
        assert_ne!(one, other);
        for worker in &mut workers {
            assert_eq!(balancers.number(address(1), worker), Some(one));
        }
        assert_eq!(balancers.address(other), Some(address(2)));
        assert_eq!(balancers.address(Via::DIRECT), None);
        assert_eq!(balancers.address(Via(3)), None);
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let balancers = Balancers::default();
        let mut worker = KnownBalancers::default();
        let address = |n: u32| SocketAddr::from((n.to_be_bytes(), 1));
        let most = u32::try_from(MOST).unwrap();
        assert!((0..most).all(|n| balancers.number(address(n), &mut worker).is_some()));
        assert_eq!(balancers.number(address(most), &mut worker), None);
        assert_eq!(balancers.address(Via(most)), Some(address(most - 1)));
    }
}
