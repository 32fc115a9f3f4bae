//! Sets of links to neighbours, each a bit of one word.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The number of a link at one of its ends, below [`LINKS_MAX`].
pub type Link = u8;

/// Most links of a peer.
pub const LINKS_MAX: u8 = 64;

/// A set of links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links(u64);

impl Links {
    /// The empty set.
    #[must_use]
    pub const fn of_none() -> Self {
        Self(0)
    }

    const fn bit(link: Link) -> u64 {
        1 << (link % LINKS_MAX)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether one is in.
    #[must_use]
    pub const fn contains(self, link: Link) -> bool {
        self.0 & Self::bit(link) != 0
    }

    /// Adds one and says whether it is new.
    pub const fn insert(&mut self, link: Link) -> bool {
        let new = !self.contains(link);
        self.0 |= Self::bit(link);
        new
    }

    /// Takes one out and says whether it was in.
    pub const fn remove(&mut self, link: Link) -> bool {
        let old = self.contains(link);
        self.0 &= !Self::bit(link);
        old
    }

    /// Those that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are in any.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// How many are below one.
    pub(super) const fn rank(self, link: Link) -> usize {
        (self.0 & (Self::bit(link) - 1)).count_ones() as usize
    }

    /// Each, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Link> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let link = left.trailing_zeros();
            left &= left - 1;
            u8::try_from(link).ok()
        })
    }

    /// Those of which something is true.
    #[must_use]
    pub fn filter(self, mut keep: impl FnMut(Link) -> bool) -> Self {
        self.iter().filter(|link| keep(*link)).collect()
    }

    /// So many of them, drawn at random, or all where there are not as many.
    #[must_use]
    pub fn choose(self, count: u32, random: &mut impl Rng) -> Self {
        let mut left = self;
        let mut chosen = Self::default();
        while chosen.len() < count && !left.is_empty() {
            let place = random.random_range(0..left.len());
            // The set has more links than `place`.
            let Some(link) = left.iter().nth(place as usize) else {
                break;
            };
            left.remove(link);
            chosen.insert(link);
        }
        chosen
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        let mut set = Self::default();
        for link in links {
            set.insert(link);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::random::Random;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_is_a_set(links in proptest::collection::btree_set(0u8..LINKS_MAX, 0..64), count in 0u32..70, seed: u64) {
            let set: Links = links.iter().copied().collect();
            prop_assert_eq!(&set.iter().collect::<BTreeSet<_>>(), &links);
            prop_assert_eq!(set.len() as usize, links.len());
            for (rank, link) in links.iter().enumerate() {
                prop_assert_eq!(set.rank(*link), rank);
            }
            let chosen = set.choose(count, &mut Random::of_purpose(seed, "choose", 0));
            prop_assert_eq!(chosen.len(), count.min(set.len()));
            prop_assert!(chosen.without(set).is_empty());
        }
    }

    #[test]
    fn every_link_is_chosen_as_often() {
        let set: Links = [1, 5, 9, 63].into_iter().collect();
        let mut counts = [0u32; 64];
        let mut random = Random::of_purpose(1, "choose", 0);
        for _ in 0..4_000 {
            set.choose(1, &mut random)
                .iter()
                .for_each(|link| counts[usize::from(link)] += 1);
        }
        assert!(
            set.iter()
                .all(|link| (900..1_100).contains(&counts[usize::from(link)]))
        );
    }
}
