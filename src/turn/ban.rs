//! Who may not allocate, whatever credential they show: users, and addresses and networks.
//!
//! An address or a network is kept as a keyed hash with its prefix length, never in clear: the list
//! tells who holds it only whether an address they have in mind is on it. The key is the list's
//! own, since pseudonyms change with their day. All workers read one [`Bans`] when a client
//! allocates or refreshes, without a lock, and never for a packet. It knows no file; `admin` keeps
//! one.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ipnet::IpNet;
use sha2::Sha256;

use super::credential::Subject;

/// An IP network that is banned, without its address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BannedNetwork {
    /// Its family and the length of its prefix.
    pub prefix: Prefix,
    /// The keyed hash of the rest.
    pub hash: [u8; 16],
}

impl fmt::Debug for BannedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BannedNetwork")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// What of an address a network looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prefix {
    /// So many bits of an IPv4 address.
    V4(u8),
    /// So many bits of an IPv6 address.
    V6(u8),
}

impl Prefix {
    /// The prefix, if there is one of that family (4 or 6) and length.
    #[must_use]
    pub const fn new(family: u8, length: u8) -> Option<Self> {
        match (family, length) {
            (4, 0..=32) => Some(Self::V4(length)),
            (6, 0..=128) => Some(Self::V6(length)),
            _ => None,
        }
    }

    /// 4 or 6.
    #[must_use]
    pub const fn family(self) -> u8 {
        match self {
            Self::V4(_) => 4,
            Self::V6(_) => 6,
        }
    }

    /// Its length in bits.
    #[must_use]
    pub const fn length(self) -> u8 {
        let (Self::V4(length) | Self::V6(length)) = self;
        length
    }

    /// The network of this prefix that `ip` is in, if it is of its family.
    fn of(self, ip: IpAddr) -> Option<IpNet> {
        let is_family = match self {
            Self::V4(_) => ip.is_ipv4(),
            Self::V6(_) => ip.is_ipv6(),
        };
        let network = IpNet::new(ip, self.length()).ok()?;
        is_family.then(|| network.trunc())
    }
}

/// Who is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Banned {
    /// A user.
    Subject(Subject),
    /// An address or a network.
    Network(BannedNetwork),
}

#[derive(Default)]
struct List {
    /// Each with the moment of its end in Unix seconds, if it has one.
    all: HashMap<Banned, Option<u64>, foldhash::quality::RandomState>,
    /// Those of its networks, each once.
    prefixes: Vec<Prefix>,
}

impl List {
    fn new(all: HashMap<Banned, Option<u64>, foldhash::quality::RandomState>) -> Self {
        let mut prefixes: Vec<Prefix> = Vec::new();
        for banned in all.keys() {
            if let Banned::Network(network) = banned {
                prefixes.push(network.prefix);
            }
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        Self { all, prefixes }
    }
}

struct Inner {
    key: Hmac<Sha256>,
    list: ArcSwap<List>,
}

/// Who may not allocate; clones are the same one.
#[derive(Clone)]
pub struct Bans(Arc<Inner>);

impl Default for Bans {
    /// An empty list whose key is known to everybody: for who bans nobody.
    fn default() -> Self {
        Self::new(&[0; 32])
    }
}

impl Bans {
    /// An empty list; `key` is what addresses are hashed with.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let key = Hmac::new_from_slice(key).expect("any length");
        Self(Arc::new(Inner {
            key,
            list: ArcSwap::default(),
        }))
    }

    /// What stands for a network on this list. An IPv6 network of mapped IPv4 addresses is the IPv4
    /// one, as clients' addresses are.
    #[must_use]
    pub fn network(&self, network: IpNet) -> BannedNetwork {
        let network = canonical(network).trunc();
        let length = network.prefix_len();
        let mut mac = self.0.key.clone();
        let prefix = match network.addr() {
            IpAddr::V4(ip) => {
                mac.update(&[4, length]);
                mac.update(&ip.octets());
                Prefix::V4(length)
            }
            IpAddr::V6(ip) => {
                mac.update(&[6, length]);
                mac.update(&ip.octets());
                Prefix::V6(length)
            }
        };
        let mac = mac.finalize().into_bytes();
        let mut hash = [0; 16];
        hash.copy_from_slice(&mac[..16]);
        BannedNetwork { prefix, hash }
    }

    /// Puts these on the list, each until its moment in Unix seconds, or for good.
    pub fn add(&self, more: impl IntoIterator<Item = (Banned, Option<u64>)>) {
        let mut all = self.0.list.load().all.clone();
        all.extend(more);
        self.0.list.store(Arc::new(List::new(all)));
    }

    /// Takes those off the list that `is_over` names.
    pub fn remove(&self, is_over: impl Fn(&Banned, Option<u64>) -> bool) {
        let mut all = self.0.list.load().all.clone();
        let before = all.len();
        all.retain(|banned, until| !is_over(banned, *until));
        if all.len() < before {
            self.0.list.store(Arc::new(List::new(all)));
        }
    }

    /// Whether somebody at `ip` is banned at `unix`. An address is hashed once for each length of
    /// prefix on the list.
    #[must_use]
    pub fn cover(&self, subject: Subject, ip: IpAddr, unix: u64) -> bool {
        let list = self.0.list.load();
        if list.all.is_empty() {
            return false;
        }
        let holds = |banned: &Banned| {
            let until = list.all.get(banned);
            until.is_some_and(|until| until.is_none_or(|until| unix < until))
        };
        let ip = ip.to_canonical();
        let networks = list.prefixes.iter().filter_map(|prefix| prefix.of(ip));
        holds(&Banned::Subject(subject))
            || networks
                .map(|network| Banned::Network(self.network(network)))
                .any(|network| holds(&network))
    }

    /// How many are on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.list.load().all.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Bans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bans({})", self.len())
    }
}

/// The IPv4 network that an IPv6 network of mapped addresses stands for.
fn canonical(network: IpNet) -> IpNet {
    let ip = network.addr().to_canonical();
    match (network, ip) {
        (IpNet::V6(v6), IpAddr::V4(v4)) if v6.prefix_len() >= 96 => {
            IpNet::new(IpAddr::V4(v4), v6.prefix_len() - 96).unwrap_or(network)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn subject(byte: u8) -> Subject {
        Subject::from_bytes([byte; 16])
    }

    fn bans(networks: &[&str]) -> Bans {
        let bans = Bans::new(&[7; 32]);
        let network = |text: &&str| {
            let network = bans.network(text.parse().unwrap());
            (Banned::Network(network), None)
        };
        bans.add(networks.iter().map(network));
        bans
    }

    #[test]
    fn who_is_in_a_banned_network_is_covered_and_the_neighbour_is_not() {
        let bans = bans(&["192.0.2.0/24", "198.51.100.7/32", "2001:db8:1::/48"]);
        for (ip, is_covered) in [
            ("192.0.2.1", true),
            ("192.0.3.1", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("2001:db8:1:ffff::1", true),
            ("2001:db8:2::1", false),
            ("::ffff:192.0.2.9", true),
            ("c000:201::", false),
        ] {
            let found = bans.cover(subject(1), ip.parse().unwrap(), NOW);
            assert_eq!(found, is_covered, "{ip}");
        }
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_one() {
        let bans = bans(&["::ffff:192.0.2.0/120"]);
        assert!(bans.cover(subject(1), "192.0.2.200".parse().unwrap(), NOW));
        assert!(!bans.cover(subject(1), "192.0.3.200".parse().unwrap(), NOW));
        let list = bans.network("192.0.2.0/24".parse().unwrap());
        assert_eq!(bans.network("192.0.2.99/24".parse().unwrap()), list);
    }

    #[test]
    fn a_ban_ends_at_its_moment_and_one_without_lasts() {
        let bans = bans(&[]);
        let ip = "192.0.2.1".parse().unwrap();
        bans.add([
            (Banned::Subject(subject(1)), Some(NOW)),
            (Banned::Subject(subject(2)), None),
        ]);
        assert!(bans.cover(subject(1), ip, NOW - 1));
        assert!(!bans.cover(subject(1), ip, NOW));
        assert!(bans.cover(subject(2), ip, u64::MAX));
        assert!(!bans.cover(subject(3), ip, NOW));
        bans.remove(|_, until| until.is_some_and(|until| until <= NOW));
        assert_eq!(bans.len(), 1);
    }

    #[test]
    fn a_list_shows_no_address_and_another_key_another_hash() {
        let list = bans(&["192.0.2.1/32"]);
        let network = list.network("192.0.2.1/32".parse().unwrap());
        let shown = format!("{list:?} {network:?}");
        assert!(!shown.contains("192"), "{shown}");
        let other = Bans::new(&[8; 32]).network("192.0.2.1/32".parse().unwrap());
        assert_ne!(network.hash, other.hash);
    }
}
