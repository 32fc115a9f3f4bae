//! How many there are of each kind, and draws that follow from the seed.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer};

use crate::engine::NodeId;
use crate::scenario::Bounded;

/// A kind of something, of which there are few.
pub trait Kind: Copy + Ord + 'static {
    /// All of them, and how many parts of the whole each is unless a scenario says otherwise.
    const ALL: &'static [(Self, u16)];
}

/// How many there are of each kind, in parts of all. A scenario that names some kinds has no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights<K> {
    parts: Vec<u16>,
    total: u64,
    kind: PhantomData<K>,
}

impl<K: Kind> Weights<K> {
    fn new(parts: Vec<u16>) -> Self {
        let total = parts.iter().map(|part| u64::from(*part)).sum();
        Self {
            parts,
            total,
            kind: PhantomData,
        }
    }

    /// All parts together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The kinds that there are.
    pub fn present(&self) -> impl Iterator<Item = K> {
        let parts = self.parts.iter();
        parts
            .zip(K::ALL)
            .filter(|(part, _)| **part > 0)
            .map(|(_, (kind, _))| *kind)
    }

    /// The kind that 64 random bits stand for.
    #[must_use]
    pub fn pick(&self, bits: u64) -> K {
        // The product is below the total, which is far below 2^32.
        let mut left = (u128::from(bits) * u128::from(self.total)) >> 64;
        for (part, (kind, _)) in self.parts.iter().zip(K::ALL) {
            if left < u128::from(*part) {
                return *kind;
            }
            left -= u128::from(*part);
        }
        K::ALL[0].0
    }
}

impl<K: Kind> Default for Weights<K> {
    fn default() -> Self {
        Self::new(K::ALL.iter().map(|(_, part)| *part).collect())
    }
}

impl<'de, K: Kind + Deserialize<'de>> Deserialize<'de> for Weights<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = BTreeMap::<K, Bounded<0, 10_000>>::deserialize(deserializer)?;
        let part = |kind: &K| parts.get(kind).map_or(0, |part| part.get());
        let parts = K::ALL
            .iter()
            .map(|(kind, _)| u16::try_from(part(kind)).unwrap_or(0));
        Ok(Self::new(parts.collect()))
    }
}

/// 64 bits that follow from a seed, a purpose and a node.
pub(super) const fn derived(seed: u64, purpose: u64, node: NodeId) -> u64 {
    use crate::gossip::graph::mix;
    mix(mix(seed ^ mix(purpose)) ^ node as u64)
}
