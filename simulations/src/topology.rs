//! Who is connected to whom: random regular graphs, drawn evenly enough and always connected.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

/// How often a graph is drawn anew before giving up. Of degree 3 and more nearly every draw is connected.
const DRAWS_MAX: usize = 1_000;

/// A graph that could not be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there is no connected graph of {nodes} peers with {degree} neighbours each, or none was found")]
pub struct NoGraph {
    /// How many peers.
    pub nodes: usize,
    /// How many neighbours each.
    pub degree: usize,
}

/// A connected graph in which every node has exactly `degree` neighbours, each listed in ascending order.
///
/// Source: Steger and Wormald, "Generating random regular graphs quickly" (1999): free ends are paired at random,
/// pairs that would make a loop or a double edge are drawn again.
///
/// # Errors
/// [`NoGraph`] where there is none (`nodes * degree` is odd, `degree` is not below `nodes`) or none was found.
pub fn random_regular(nodes: usize, degree: usize, rng: &mut ChaCha8Rng) -> Result<Vec<Vec<usize>>, NoGraph> {
    let impossible = degree >= nodes || (nodes * degree) % 2 == 1;
    let draws = if impossible { 0 } else { DRAWS_MAX };
    (0..draws)
        .filter_map(|_| draw(nodes, degree, rng))
        .find(|neighbours| is_connected(neighbours))
        .ok_or(NoGraph { nodes, degree })
}

fn draw(nodes: usize, degree: usize, rng: &mut ChaCha8Rng) -> Option<Vec<Vec<usize>>> {
    let mut neighbours: Vec<Vec<usize>> = vec![Vec::with_capacity(degree); nodes];
    let mut free_ends: Vec<usize> = (0..nodes)
        .flat_map(|node| std::iter::repeat_n(node, degree))
        .collect();
    free_ends.shuffle(rng);
    while let Some(one) = free_ends.pop() {
        let fits = |other: usize| other != one && !neighbours[one].contains(&other);
        if !free_ends.iter().any(|other| fits(*other)) {
            return None;
        }
        let place = loop {
            let place = rng.random_range(0..free_ends.len());
            if fits(free_ends[place]) {
                break place;
            }
        };
        let other = free_ends.swap_remove(place);
        neighbours[one].push(other);
        neighbours[other].push(one);
    }
    neighbours.iter_mut().for_each(|of_one| of_one.sort_unstable());
    Some(neighbours)
}

fn is_connected(neighbours: &[Vec<usize>]) -> bool {
    let mut reached = vec![false; neighbours.len()];
    let mut to_visit: Vec<usize> = (0..neighbours.len().min(1)).collect();
    while let Some(node) = to_visit.pop() {
        if !std::mem::replace(&mut reached[node], true) {
            to_visit.extend(neighbours[node].iter().filter(|other| !reached[**other]));
        }
    }
    reached.into_iter().all(|reached| reached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap_engine::stream;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn graphs_are_regular_simple_symmetric_and_connected(
            nodes in 4usize..60, degree in 3usize..9, seed: u64,
        ) {
            let graph = random_regular(nodes, degree, &mut stream(seed, "graph", 0));
            if degree >= nodes || nodes * degree % 2 == 1 {
                prop_assert_eq!(graph, Err(NoGraph { nodes, degree }));
                return Ok(());
            }
            let graph = graph.unwrap();
            prop_assert!(is_connected(&graph));
            for (node, neighbours) in graph.iter().enumerate() {
                prop_assert_eq!(neighbours.len(), degree);
                prop_assert!(neighbours.is_sorted_by(|one, other| one < other));
                prop_assert!(neighbours.iter().all(|other| *other != node && graph[*other].contains(&node)));
            }
        }
    }

    #[test]
    fn two_triangles_are_not_connected() {
        let triangles = [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]].map(|pair| pair.to_vec());
        assert!(!is_connected(&triangles));
    }
}
