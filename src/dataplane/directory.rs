//! The only state that workers share on the data path: for each relay IP an array, indexed by
//! port, of the landing published there, in pages that are made once and never go. Reading takes no lock and waits for nobody; a sender reads
//! it once, and from then on only asks the landing in its hand whether it is still current.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use crate::turn::RelayedAddr;
use crate::turn::route::{Landing, Landings};

/// Landings by relayed transport address.
#[derive(Debug)]
pub(crate) struct Directory {
    relays: Vec<Slots>,
}

/// Ports on one page.
const PAGE: usize = 1 << 10;
/// Pages for all ports.
const PAGES: usize = (1 << 16) / PAGE;

type Page = Box<[ArcSwapOption<Landing>]>;

#[derive(Debug)]
struct Slots {
    ip: IpAddr,
    pages: [OnceLock<Page>; PAGES],
}

impl Directory {
    /// An empty directory for these relay IPs (as clients are told them) and ports.
    pub(crate) fn new(addresses: &[IpAddr], ports: &RangeInclusive<u16>) -> Self {
        let slots = |ip: &IpAddr| Slots {
            ip: *ip,
            pages: [const { OnceLock::new() }; PAGES],
        };
        let directory = Self {
            relays: addresses.iter().map(slots).collect(),
        };
        directory.cover(ports);
        directory
    }

    /// Makes room for these ports too.
    pub(crate) fn cover(&self, ports: &RangeInclusive<u16>) {
        let [first, last] = [*ports.start(), *ports.end()].map(|port| usize::from(port) / PAGE);
        for relay in &self.relays {
            for page in relay.pages.iter().take(last + 1).skip(first) {
                page.get_or_init(|| (0..PAGE).map(|_| ArcSwapOption::empty()).collect());
            }
        }
    }

    /// Makes `landing` what everyone finds at its address; where no room was made for it nothing
    /// happens.
    pub(crate) fn publish(&self, landing: Arc<Landing>) {
        if let Some(slot) = self.slot(landing.relayed) {
            slot.store(Some(landing));
        }
    }

    /// Takes it away.
    pub(crate) fn withdraw(&self, relayed: RelayedAddr) {
        if let Some(slot) = self.slot(relayed) {
            slot.store(None);
        }
    }

    /// Looks at every landing, which takes a while: not for workers.
    pub(crate) fn each(&self, mut look: impl FnMut(&Landing)) {
        self.any(|landing| {
            look(landing);
            false
        });
    }

    /// Whether there is a landing that `is_it` says yes to. Not for workers.
    pub(crate) fn any(&self, mut is_it: impl FnMut(&Landing) -> bool) -> bool {
        let pages = self.relays.iter().flat_map(|relay| &relay.pages);
        let mut slots = pages.filter_map(OnceLock::get).flatten();
        slots.any(|slot| slot.load().as_deref().is_some_and(&mut is_it))
    }

    fn slot(&self, relayed: RelayedAddr) -> Option<&ArcSwapOption<Landing>> {
        let ip = relayed.ip();
        let relay = self.relays.iter().find(|relay| relay.ip == ip)?;
        let port = usize::from(relayed.port());
        relay.pages.get(port / PAGE)?.get()?.get(port % PAGE)
    }
}

impl Landings for Directory {
    fn find(&self, relayed: RelayedAddr) -> Option<Arc<Landing>> {
        self.slot(relayed)?.load_full()
    }

    fn with<R>(&self, relayed: RelayedAddr, look: impl FnOnce(&Landing) -> R) -> Option<R> {
        self.slot(relayed)?.load().as_deref().map(look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use smallvec::SmallVec;

    use crate::turn::Tick;
    use crate::turn::credential::Subject;
    use crate::turn::route::{Current, RelayProtocol, Standing};
    use crate::turn::stats::Meters;
    use crate::turn::{AllocationId, ClientAddr, FiveTuple, ListenerId, WorkerId};

    fn landing(relayed: RelayedAddr) -> Arc<Landing> {
        let client = ClientAddr::new(SocketAddr::from(([192, 0, 2, 1], 1)));
        Arc::new(Landing {
            relayed,
            subject: Subject::from_bytes([0; 16]),
            call: None,
            same_call_only: false,
            client: FiveTuple {
                client,
                listener: ListenerId(0),
            },
            protocol: RelayProtocol::Udp,
            has_socket: false,
            standing: Arc::new(Standing {
                id: AllocationId(1),
                worker: WorkerId(0),
                opened: Tick::default(),
                claims: None,
                until: Default::default(),
                meters: Meters::default(),
            }),
            permissions: SmallVec::new(),
            channels: SmallVec::new(),
            rates: None,
            current: Current::default(),
        })
    }

    #[test]
    fn a_landing_is_found_where_it_was_published_and_nowhere_else() {
        let ips = ["203.0.113.7", "2001:db8::7"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let directory = Directory::new(&ips, &(50_000..=50_009));
        let at = |ip: usize, port| RelayedAddr::new(SocketAddr::new(ips[ip], port));
        for (ip, port) in [(0, 50_000), (1, 50_009)] {
            directory.publish(landing(at(ip, port)));
            assert_eq!(
                directory.with(at(ip, port), |l| l.relayed),
                Some(at(ip, port))
            );
            assert!(directory.with(at(1 - ip, port), |_| ()).is_none());
        }
        for port in [0, 40_000, 65_535] {
            directory.publish(landing(at(0, port)));
            assert!(directory.with(at(0, port), |_| ()).is_none());
        }
        directory.withdraw(at(0, 50_000));
        assert!(directory.with(at(0, 50_000), |_| ()).is_none());
    }

    #[test]
    fn room_for_more_ports_is_made_beside_what_is_there() {
        let ip: IpAddr = [203, 0, 113, 7].into();
        let directory = Directory::new(&[ip], &(50_000..=50_009));
        let at = |port| RelayedAddr::new(SocketAddr::new(ip, port));
        directory.publish(landing(at(50_000)));
        directory.cover(&(1_024..=65_535));
        for port in [1_024, 40_000, 65_535] {
            directory.publish(landing(at(port)));
        }
        let mut found = Vec::new();
        directory.each(|landing| found.push(landing.relayed.port()));
        assert_eq!(found, [1_024, 40_000, 50_000, 65_535]);
    }
}
