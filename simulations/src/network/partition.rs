//! Times at which parts of the network cannot reach each other.

use serde::Deserialize;

use super::weights::derived;
use super::{NetworkError, Region};
use crate::engine::NodeId;
use crate::scenario::{Bounded, Fraction};

/// Some nodes are cut off from all others for a while. They reach each other.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// When it begins, in seconds of virtual time.
    pub from_s: Bounded<0, 31_536_000>,
    /// When it ends.
    pub until_s: Bounded<1, 31_536_000>,
    /// The regions that are cut off.
    #[serde(default)]
    pub regions: Vec<Region>,
    /// Or the share of all nodes, drawn at random.
    pub share: Option<Fraction>,
}

impl Partition {
    pub(super) const fn check(&self, number: usize) -> Result<(), NetworkError> {
        if self.until_s.get() <= self.from_s.get() {
            return Err(NetworkError::PartitionOver { number });
        }
        if self.regions.is_empty() != self.share.is_some() {
            return Err(NetworkError::PartitionSides { number });
        }
        Ok(())
    }

    /// Whether it lasts at a time.
    #[must_use]
    pub const fn is_on(&self, now_us: u64) -> bool {
        let now_s = now_us / 1_000_000;
        self.from_s.get() <= now_s && now_s < self.until_s.get()
    }

    /// Whether a node is one of those that are cut off.
    pub(super) fn cuts_off(
        &self,
        seed: u64,
        number: usize,
        node: NodeId,
        region: impl FnOnce() -> Region,
    ) -> bool {
        self.share.map_or_else(
            || self.regions.contains(&region()),
            |share| {
                let bits = derived(seed, 1_000 + number as u64, node) >> 32;
                u32::try_from(bits).map_or(0.0, f64::from) / 4_294_967_296.0 < share.get()
            },
        )
    }
}
