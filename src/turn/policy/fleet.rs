//! The relays of the other nodes: who they are and under which address their packets arrive.
//!
//! Policy judges addresses of the fleet through [`FleetMap`] alone, so that where the list comes from
//! (configuration, DNS) matters to nobody else.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// A relay IP of another node of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetNode {
    /// The relay IP as clients name it.
    pub addr: IpAddr,
    /// The IP from which its packets reach this node, if another.
    pub seen_as: Option<IpAddr>,
    /// Its relay ports.
    pub ports: RangeInclusive<u16>,
}

/// The fleet without this node; sorted, for a lookup per packet.
#[derive(Clone, Debug, Default)]
pub(super) struct FleetMap {
    relays: Vec<(IpAddr, RangeInclusive<u16>)>,
    seen: Vec<(IpAddr, IpAddr, RangeInclusive<u16>)>,
}

impl FleetMap {
    /// Nodes with an address in `own` are left out: what is ours is judged as ours, with our ports.
    pub(super) fn new(nodes: Vec<FleetNode>, own: &[IpAddr]) -> Self {
        let mut map = Self::default();
        for FleetNode {
            addr,
            seen_as,
            ports,
        } in nodes
        {
            let addr = addr.to_canonical();
            let seen_as = seen_as.map(|ip| ip.to_canonical());
            if own.contains(&addr) || seen_as.is_some_and(|ip| own.contains(&ip)) {
                continue;
            }
            if let Some(seen_as) = seen_as.filter(|seen_as| *seen_as != addr) {
                map.seen.push((seen_as, addr, ports.clone()));
            }
            map.relays.push((addr, ports));
        }
        map.relays.sort_unstable_by_key(|(addr, _)| *addr);
        map.seen.sort_by_key(|(seen_as, _, _)| *seen_as);
        map
    }

    /// Whether `ip` is a relay IP of the fleet.
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.relays
            .binary_search_by_key(&ip, |(addr, _)| *addr)
            .is_ok()
    }

    /// Whether `address` is a relayed transport address of the fleet. One IP may stand in several entries.
    pub(super) fn is_relay(&self, address: SocketAddr) -> bool {
        let first = self
            .relays
            .partition_point(|(addr, _)| *addr < address.ip());
        self.relays
            .iter()
            .skip(first)
            .take_while(|(addr, _)| *addr == address.ip())
            .any(|(_, ports)| ports.contains(&address.port()))
    }

    /// The address by which clients name the sender. Several nodes behind one NAT are told apart by their ports.
    pub(super) fn named(&self, source: SocketAddr) -> SocketAddr {
        let first = self
            .seen
            .partition_point(|(seen_as, _, _)| *seen_as < source.ip());
        self.seen
            .iter()
            .skip(first)
            .take_while(|(seen_as, _, _)| *seen_as == source.ip())
            .find(|(_, _, ports)| ports.contains(&source.port()))
            .map_or(source, |(_, addr, _)| SocketAddr::new(*addr, source.port()))
    }
}
