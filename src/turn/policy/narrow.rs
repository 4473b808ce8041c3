//! Two policies at once: what a credential claims, within what the server allows.

use ipnet::IpNet;

use super::PeerPolicy;

impl PeerPolicy {
    /// What is left of this policy under `ceiling`: a peer must pass both. The order is `call`, `relay`, networks,
    /// `any`; of two lists it is what they have in common.
    ///
    /// A list that comes under `any` opens nothing in spite of the registry, since `any` would not.
    #[must_use]
    pub fn narrowed(&self, ceiling: &Self) -> Self {
        match (self, ceiling) {
            (Self::Call, _) | (_, Self::Call) => Self::Call,
            (Self::Relay, _) | (_, Self::Relay) => Self::Relay,
            (Self::Any, _) => ceiling.clone(),
            (Self::Networks(claimed) | Self::AnyOf(claimed), Self::Any) => {
                Self::AnyOf(claimed.clone())
            }
            (Self::Networks(claimed), Self::Networks(allowed)) => {
                common(claimed, allowed).map_or(Self::Relay, Self::Networks)
            }
            (
                Self::Networks(claimed) | Self::AnyOf(claimed),
                Self::Networks(allowed) | Self::AnyOf(allowed),
            ) => common(claimed, allowed).map_or(Self::Relay, Self::AnyOf),
        }
    }

    /// Whether this policy is no wider than `ceiling`, so that it may be minted. Each network of a list must lie in
    /// one of the ceiling's.
    #[must_use]
    pub fn is_within(&self, ceiling: &Self) -> bool {
        match (self, ceiling) {
            (Self::Call, _) | (_, Self::Any) => true,
            (Self::Relay, _) => *ceiling != Self::Call,
            (
                Self::Networks(claimed) | Self::AnyOf(claimed),
                Self::Networks(allowed) | Self::AnyOf(allowed),
            ) => claimed
                .iter()
                .all(|network| allowed.iter().any(|wide| wide.contains(network))),
            (Self::Networks(_) | Self::AnyOf(_), Self::Call | Self::Relay)
            | (Self::Any, Self::Call | Self::Relay | Self::Networks(_) | Self::AnyOf(_)) => false,
        }
    }
}

/// What two lists of networks have in common, if anything. Two networks are apart, or one lies in the other.
fn common(claimed: &[IpNet], allowed: &[IpNet]) -> Option<Vec<IpNet>> {
    let mut both = Vec::new();
    for claimed in claimed {
        for allowed in allowed {
            let smaller = if allowed.contains(claimed) {
                claimed
            } else if claimed.contains(allowed) {
                allowed
            } else {
                continue;
            };
            if !both.contains(smaller) {
                both.push(*smaller);
            }
        }
    }
    (!both.is_empty()).then_some(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> PeerPolicy {
        PeerPolicy::Networks(nets(texts))
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_narrower_of_two_policies_stands() {
        use PeerPolicy::{Any, AnyOf, Call, Relay};
        let list = networks(&["10.0.0.0/8", "2001:db8::/32"]);
        for (claimed, ceiling, left) in [
            (Any, Any, Any),
            (Any, list.clone(), list.clone()),
            (Any, Relay, Relay),
            (Any, Call, Call),
            (
                list.clone(),
                Any,
                AnyOf(nets(&["10.0.0.0/8", "2001:db8::/32"])),
            ),
            (list.clone(), list.clone(), list.clone()),
            (
                networks(&["10.1.0.0/16", "192.0.2.0/24"]),
                list.clone(),
                networks(&["10.1.0.0/16"]),
            ),
            (
                networks(&["0.0.0.0/0"]),
                list.clone(),
                networks(&["10.0.0.0/8"]),
            ),
            (networks(&["192.0.2.0/24"]), list.clone(), Relay),
            (list.clone(), Relay, Relay),
            (list.clone(), Call, Call),
            (Relay, Any, Relay),
            (Relay, list.clone(), Relay),
            (Relay, Relay, Relay),
            (Relay, Call, Call),
            (Call, Any, Call),
            (Call, Relay, Call),
            (Call, Call, Call),
            (Call, list, Call),
        ] {
            assert_eq!(
                claimed.narrowed(&ceiling),
                left,
                "{claimed:?} under {ceiling:?}"
            );
            // A list under `any` stays a list of those networks.
            let stays =
                claimed == left || matches!((&claimed, &left), (PeerPolicy::Networks(_), AnyOf(_)));
            assert_eq!(
                claimed.is_within(&ceiling),
                stays,
                "{claimed:?} under {ceiling:?}"
            );
        }
    }
}
