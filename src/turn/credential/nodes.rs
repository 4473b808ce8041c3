//! Which node of several a call goes to: the same for both of its parties, whoever mints for them,
//! without asking anybody (rendezvous hashing).

use sha2::{Digest as _, Sha256};

use super::claims::{CallId, Label};

/// The node for `call` among those that take calls; none if there is none. A node that is being
/// emptied is left out by the caller: its calls, and no others, go to what remains.
#[must_use]
pub fn choose<'n>(call: CallId, nodes: impl IntoIterator<Item = &'n Label>) -> Option<&'n Label> {
    nodes
        .into_iter()
        .max_by_key(|node| (weight(call, node), *node))
}

fn weight(call: CallId, node: &Label) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(call.to_bytes());
    hash.update(node.as_str());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(count: usize) -> Vec<Label> {
        let node = |n| Label::new(&format!("node-{n}")).unwrap();
        (0..count).map(node).collect()
    }

    proptest! {
        #[test]
        fn a_node_that_goes_takes_only_its_own_calls_along(
            call in any::<[u8; 16]>(),
            count in 1_usize..12,
            gone in 0_usize..12,
        ) {
            let (call, nodes) = (CallId::from_bytes(call), nodes(count));
            let gone = gone % count;
            let before = choose(call, &nodes).unwrap();
            let left = nodes.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, node)| node);
            let after = choose(call, left);
            if *before == nodes[gone] {
                prop_assert_ne!(after, Some(before));
                prop_assert_eq!(after.is_some(), count > 1);
            } else {
                prop_assert_eq!(after, Some(before));
            }
        }

        #[test]
        fn the_order_of_the_nodes_does_not_matter(call in any::<[u8; 16]>(), count in 1_usize..12) {
            let (call, nodes) = (CallId::from_bytes(call), nodes(count));
            prop_assert_eq!(choose(call, &nodes), choose(call, nodes.iter().rev()));
        }
    }

    #[test]
    fn calls_are_spread_evenly() {
        let nodes = nodes(4);
        let mut counts = [0_u32; 4];
        for n in 0..4_000_u128 {
            let chosen = choose(CallId::from_bytes(n.to_be_bytes()), &nodes).unwrap();
            counts[nodes.iter().position(|node| node == chosen).unwrap()] += 1;
        }
        // A thousand each; the standard deviation is 27.
        assert!(
            counts.iter().all(|count| (850..1_150).contains(count)),
            "{counts:?}"
        );
        assert_eq!(choose(CallId::from_bytes([0; 16]), &[]), None);
    }

    /// The API and other minters must agree, whatever version they are of.
    #[test]
    fn the_choice_never_changes() {
        let nodes = ["ams-1", "fra-1", "fra-2"].map(|node| Label::new(node).unwrap());
        let of = |n| {
            choose(CallId::from_bytes([n; 16]), &nodes)
                .unwrap()
                .as_str()
        };
        assert_eq!([0, 1, 2, 3].map(of), ["fra-1", "fra-1", "ams-1", "fra-1"]);
    }
}
