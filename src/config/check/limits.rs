//! `[limits]`: counts, rates of bits and of packets.

use super::Checker;
use super::{DAY, MINUTE};
use crate::config::file;
use crate::config::key::Key;
use crate::config::parse::{self, Fault};
use crate::config::{Limits, Rate, Relaying};

/// The most allocations that a limit may say.
const MOST_ALLOCATIONS: i64 = 1_000_000;
/// The most permissions or channels of one allocation: each packet looks through them.
const MOST_PEERS: i64 = 1_024;
/// The most packets a second.
const MOST_PACKETS: u32 = 100_000_000;

fn key(name: &str) -> Key {
    Key::new("limits", name)
}

impl Checker<'_> {
    pub(super) fn limits(&mut self, typed: &file::Limits) -> Limits {
        let rate = parse::rate(&typed.unvalidated);
        let no_rate = Rate {
            per_second: 1,
            burst: 1,
        };
        let lifetime = key("allocation_lifetime");
        Limits {
            allocation_lifetime: self.duration(&lifetime, &typed.allocation_lifetime, MINUTE..=DAY),
            user_allocations: self.allocations("user_allocations", typed.user_allocations),
            tenant_allocations: self.allocations("tenant_allocations", typed.tenant_allocations),
            total_allocations: self.allocations("total_allocations", typed.total_allocations),
            permissions: self.peers_of_one("permissions", typed.permissions),
            channels: self.peers_of_one("channels", typed.channels),
            allocation: Relaying {
                bits: self.bits("allocation_rate", &typed.allocation_rate),
                packets: self.packets("allocation_packets", &typed.allocation_packets),
            },
            user: Relaying {
                bits: self.bits("user_rate", &typed.user_rate),
                packets: self.packets("user_packets", &typed.user_packets),
            },
            tenant: Relaying {
                bits: self.bits("tenant_rate", &typed.tenant_rate),
                packets: self.packets("tenant_packets", &typed.tenant_packets),
            },
            prefix_allocates: self.some("prefix_allocates", &typed.prefix_allocates, parse::rate),
            prefix_failures: self.some("prefix_failures", &typed.prefix_failures, parse::rate),
            unvalidated: self.parse(&key("unvalidated"), rate, no_rate),
        }
    }

    fn allocations(&mut self, name: &str, number: i64) -> Option<u32> {
        let number: u32 = self.number(&key(name), number, MOST_ALLOCATIONS, 0);
        (number > 0).then_some(number)
    }

    fn peers_of_one(&mut self, name: &str, number: i64) -> u16 {
        let value = u16::try_from(number)
            .ok()
            .filter(|_| (1..=MOST_PEERS).contains(&number))
            .ok_or_else(|| {
                let remedy = format!("write a number from 1 to {MOST_PEERS}");
                Fault::new("out of range", remedy)
            });
        self.parse(&key(name), value, 1)
    }

    fn bits(&mut self, name: &str, text: &str) -> Option<u64> {
        self.some(name, text, parse::bit_rate)
    }

    fn packets(&mut self, name: &str, text: &str) -> Option<Rate> {
        self.some(name, text, |text| parse::rate_up_to(text, MOST_PACKETS))
    }

    /// What `text` says, if it says anything.
    fn some<T>(
        &mut self,
        name: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = (!text.is_empty()).then(|| parse(text)).transpose();
        self.parse(&key(name), value, None)
    }
}
