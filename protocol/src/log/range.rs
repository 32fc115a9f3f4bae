//! Ranges of leaves as the fewest perfect subtrees: the arithmetic under frontiers, proofs and evidence.
//!
//! A node is named by its height above the leaves and its number among the nodes of that height; it covers the
//! leaves `[index · 2^height, (index + 1) · 2^height)`.

use crate::log::hash::{LogHash, empty_root, node_hash};

/// A perfect subtree: `2^height` leaves from `index · 2^height` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    /// Levels above the leaves.
    pub(super) height: u32,
    /// Its number among the nodes of its height, from zero.
    pub(super) index: u64,
}

/// The perfect subtrees that make up the leaves `[start, end)`, from left to right: the largest that are aligned.
/// Never more than twice 64. An empty range has none.
pub(super) fn nodes_of(start: u64, end: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut position = start;
    while position < end {
        let fits = (end - position).ilog2();
        // Zero is aligned to everything.
        let height = position.trailing_zeros().min(fits);
        nodes.push(Node {
            height,
            index: position >> height,
        });
        position += 1 << height;
    }
    nodes
}

/// The root over perfect subtrees of falling size, from left to right; [`empty_root`] over none.
///
/// Source: RFC 6962 section 2.1: a tree is split at the largest power of two below its size.
pub(super) fn fold(hashes: &[LogHash]) -> LogHash {
    let mut rest = hashes.iter().rev();
    match rest.next() {
        Some(last) => rest.fold(*last, |right, left| node_hash(left, &right)),
        None => empty_root(),
    }
}

/// The root over the leaves of a perfect subtree, of which there are a power of two; [`empty_root`] over none.
pub(super) fn perfect_root(hashes: &[LogHash]) -> LogHash {
    let mut hashes = hashes.to_vec();
    while hashes.len() > 1 {
        hashes = hashes
            .chunks(2)
            .filter_map(|pair| Some(node_hash(pair.first()?, pair.last()?)))
            .collect();
    }
    hashes.first().copied().unwrap_or_else(empty_root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::virtual_tree::{defined_root, leaves};
    use proptest::prelude::*;

    #[test]
    fn ranges_are_covered_without_gap_and_with_the_fewest_nodes() {
        for end in 0..130u64 {
            for start in 0..=end {
                let nodes = nodes_of(start, end);
                let mut position = start;
                for node in &nodes {
                    assert_eq!(node.index << node.height, position);
                    position += 1 << node.height;
                }
                assert_eq!(position, end);
                // Two neighbours of one height that are siblings would be one node.
                for pair in nodes.windows(2) {
                    let siblings = pair[0].height == pair[1].height && pair[0].index % 2 == 0;
                    assert!(!siblings, "{start}..{end}: {pair:?}");
                }
            }
        }
    }

    #[test]
    fn folding_gives_the_root_by_definition() {
        let leaves = leaves(130);
        for size in 0..=leaves.len() {
            let hashes: Vec<_> = nodes_of(0, size as u64)
                .iter()
                .map(|node| {
                    let start = usize::try_from(node.index << node.height).unwrap();
                    perfect_root(&leaves[start..start + (1 << node.height)])
                })
                .collect();
            assert_eq!(fold(&hashes), defined_root(&leaves[..size]), "{size}");
        }
    }

    proptest! {
        #[test]
        fn any_range_has_at_most_two_nodes_a_level(start: u64, end: u64) {
            let nodes = nodes_of(start, end);
            prop_assert!(nodes.len() <= 128);
            let covered: u128 = nodes.iter().map(|node| 1u128 << node.height).sum();
            prop_assert_eq!(covered, u128::from(end.saturating_sub(start)));
        }
    }
}
