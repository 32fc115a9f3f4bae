//! Who is connected to whom, worked out when it is asked and stored nowhere.
//!
//! Each link number is one perfect matching of all nodes: a permutation that the seed gives puts them in a row, and the row is cut
//! into pairs. So a link has the same number at both of its ends, and `degree` matchings together are a random graph that is as
//! good as a random regular one (source: N. Wormald, "Models of random regular graphs", 1999, section 4.3: the two are contiguous).
//! The permutation is a Feistel network with cycle walking (source: J. Black and P. Rogaway, "Ciphers with arbitrary finite
//! domains", 2002).

use super::{LINKS_MAX, Link};

const ROUNDS: u64 = 4;

/// A random graph of nodes with as many links each as there are matchings, fewer where two matchings make the same pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph {
    seed: u64,
    nodes: u32,
    degree: u8,
    half_bits: u32,
}

/// Mixes 64 bits so that each depends on all (source: SplitMix64's finalizer, S. Vigna, public domain).
#[must_use]
pub const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

impl Graph {
    /// A graph of nodes 0 to `nodes - 1` with at most `degree` links each, itself at most [`LINKS_MAX`].
    #[must_use]
    pub const fn new(seed: u64, nodes: u32, degree: u8) -> Self {
        let bits = u32::BITS - nodes.saturating_sub(1).leading_zeros();
        let half_bits = if bits < 2 { 1 } else { bits.div_ceil(2) };
        Self {
            seed,
            nodes,
            degree: if degree < LINKS_MAX { degree } else { LINKS_MAX },
            half_bits,
        }
    }

    const fn key(&self, link: Link, round: u64) -> u64 {
        mix(self.seed ^ mix((link as u64) << 8 | round))
    }

    fn once(&self, place: u64, link: Link, inverse: bool) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (place >> self.half_bits, place & mask);
        for round in 0..ROUNDS {
            if inverse {
                let key = self.key(link, ROUNDS - 1 - round);
                (left, right) = (right ^ (mix(left ^ key) & mask), left);
            } else {
                let key = self.key(link, round);
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
        }
        left << self.half_bits | right
    }

    /// The permutation, or its inverse. It ends: walking a cycle comes back to the nodes at the latest where it started.
    fn permuted(&self, node: u32, link: Link, inverse: bool) -> u32 {
        let mut place = u64::from(node);
        loop {
            place = self.once(place, link, inverse);
            match u32::try_from(place) {
                Ok(place) if place < self.nodes => return place,
                _ => {}
            }
        }
    }

    /// Who is at the other end of a link, where it is one of [`Graph::links`].
    #[must_use]
    pub fn peer(&self, node: u32, link: Link) -> u32 {
        let place = self.permuted(node, link, false);
        // The last of an odd number has nobody.
        let other = (place ^ 1).min(self.nodes.saturating_sub(1));
        self.permuted(other, link, true)
    }

    /// The links of a node: their numbers, who is at the other end, and whether this node dials.
    pub fn links(&self, node: u32) -> impl Iterator<Item = (Link, u32, bool)> {
        let peers: Vec<u32> = (0..self.degree).map(|link| self.peer(node, link)).collect();
        (0..self.degree).filter_map(move |link| {
            let place = usize::from(link);
            let peer = peers[place];
            let new = peer != node && !peers[..place].contains(&peer);
            let dials = self.permuted(node, link, false).is_multiple_of(2);
            new.then_some((link, peer, dials))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn links_have_two_ends(seed: u64, nodes in 2u32..300, degree in 1u8..30) {
            let graph = Graph::new(seed, nodes, degree);
            for node in 0..nodes {
                let links: Vec<_> = graph.links(node).collect();
                for (link, peer, dials) in &links {
                    prop_assert!(*peer < nodes && *peer != node);
                    prop_assert!(graph.links(*peer).any(|back| back == (*link, node, !dials)));
                    prop_assert_eq!(links.iter().filter(|(_, other, _)| other == peer).count(), 1);
                }
            }
        }
    }

    #[test]
    fn a_large_graph_is_connected_regular_and_dialled_by_halves() {
        let graph = Graph::new(7, 20_000, 20);
        let (mut reached, mut to_visit) = (vec![false; 20_000], vec![0]);
        let (mut links, mut dialled) = (0, 0);
        while let Some(node) = to_visit.pop() {
            if std::mem::replace(&mut reached[node as usize], true) {
                continue;
            }
            for (_, peer, dials) in graph.links(node) {
                links += 1;
                dialled += u32::from(dials);
                to_visit.push(peer);
            }
        }
        assert!(reached.iter().all(|reached| *reached));
        assert!((399_000..=400_000).contains(&links), "{links}");
        assert_eq!(dialled * 2, links);
    }
}
