//! Which addresses the clients have when one socket speaks for all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A network whose addresses are dealt out so that neighbours in time lie in different /24s or
/// /64s, since servers limit what they answer to one of these.
#[derive(Clone, Copy)]
pub(super) struct Network {
    v4: bool,
    base: u128,
    /// Bits of an address within its cell.
    cell_bits: u32,
    cells: u128,
    /// The first address of a cell that is given to anybody, and how many are.
    first: u128,
    usable: u128,
}

impl Network {
    /// At most so many cells; with more of them the route caches of the machine would be the
    /// thing measured.
    const CELLS_MAX_BITS: u32 = 16;

    /// Addresses that every machine has, apart from those that people use: 127.64.0.0/10.
    pub(super) fn loopback() -> Self {
        let base = Ipv4Addr::new(127, 64, 0, 0);
        let (prefix, cell_bits) = (10, 8);
        Self {
            v4: true,
            base: u128::from(base.to_bits()),
            cell_bits,
            cells: 1 << (32 - prefix - cell_bits),
            first: 1,
            usable: (1 << cell_bits) - 2,
        }
    }

    pub(super) fn new(network: IpNet) -> Self {
        let (v4, base, bits, cell_max) = match network {
            IpNet::V4(net) => {
                let base = u128::from(net.network().to_bits());
                (true, base, 32 - u32::from(net.prefix_len()), 8)
            }
            IpNet::V6(net) => {
                let base = net.network().to_bits();
                (false, base, 128 - u32::from(net.prefix_len()), 64)
            }
        };
        let cell_bits = bits.min(cell_max);
        let cells = 1 << (bits - cell_bits).min(Self::CELLS_MAX_BITS);
        let size: u128 = 1 << cell_bits;
        // Neither the network's own address nor the broadcast one.
        let (first, usable) = if size > 2 { (1, size - 2) } else { (0, size) };
        Self {
            v4,
            base,
            cell_bits,
            cells,
            first,
            usable,
        }
    }

    /// How many addresses there are to give.
    pub(super) fn capacity(&self) -> u64 {
        u64::try_from(self.cells.saturating_mul(self.usable)).unwrap_or(u64::MAX)
    }

    pub(super) const fn is_ipv4(&self) -> bool {
        self.v4
    }

    /// Address `index`, beginning again after the last.
    pub(super) fn address(&self, index: u64) -> IpAddr {
        let index = u128::from(index);
        let cell = index % self.cells;
        let host = index / self.cells % self.usable;
        let bits = self.base + (cell << self.cell_bits) + self.first + host;
        if self.v4 {
            // Lossless: the network has 32 bits.
            Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into()
        } else {
            Ipv6Addr::from_bits(bits).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn network(text: &str) -> Network {
        Network::new(text.parse().unwrap())
    }

    #[test]
    fn every_address_is_given_once_and_lies_within() {
        for text in [
            "10.9.0.0/22",
            "10.9.0.128/25",
            "192.0.2.4/30",
            "192.0.2.4/31",
            "192.0.2.4/32",
        ] {
            let network = network(text);
            let net: IpNet = text.parse().unwrap();
            let all: HashSet<IpAddr> = (0..network.capacity())
                .map(|index| network.address(index))
                .collect();
            assert_eq!(all.len() as u64, network.capacity(), "{text}");
            assert!(all.iter().all(|ip| net.contains(ip)), "{text}");
            assert_eq!(network.address(0), network.address(network.capacity()));
        }
        assert_eq!(network("10.9.0.0/22").capacity(), 4 * 254);
    }

    #[test]
    fn neighbours_lie_in_different_networks() {
        let network = Network::loopback();
        let cells: HashSet<[u8; 3]> = (0..16_384)
            .map(|index| match network.address(index) {
                IpAddr::V4(ip) => [ip.octets()[0], ip.octets()[1], ip.octets()[2]],
                IpAddr::V6(_) => panic!("not IPv4"),
            })
            .collect();
        assert_eq!(cells.len(), 16_384);
        assert_eq!(network.capacity(), 16_384 * 254);
        let last = network.capacity() - 1;
        let net = Network::new("127.64.0.0/10".parse().unwrap());
        assert_eq!(network.address(last), net.address(last));
    }

    #[test]
    fn ipv6_spreads_over_its_64s() {
        let network = network("fd00::/48");
        let expected: [IpAddr; 2] = ["fd00::1", "fd00:0:0:1::1"].map(|ip| ip.parse().unwrap());
        assert_eq!([0, 1].map(|index| network.address(index)), expected);
    }
}
