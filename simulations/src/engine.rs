//! Virtual time: a discrete-event engine that gives the same digest for the same seed, on every machine and with any
//! number of threads. Knows nothing of the market.
//!
//! Nodes are spread over [`SHARDS`] shards, whatever the number of threads. What one node sends to another takes at
//! least the world's lookahead, so during a window of that length no shard can hear of what happens in another one,
//! and each handles its events alone. Events are ordered by time, then by the node that scheduled them and that
//! node's own count: an order that does not depend on who is faster.
//!
//! Source: K. M. Chandy, J. Misra, "Distributed Simulation", IEEE TSE 5(5), 1979; windows: B. Lubachevsky,
//! "Efficient Distributed Event-Driven Simulations", CACM 32(1), 1989.

mod context;
mod parallel;
pub mod queue;
pub mod random;
mod shard;
mod simulation;
mod snapshot;
pub mod story;
mod trace;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

pub use self::context::Context;
pub use self::random::Random;
pub use self::simulation::{Ended, LimitError, Limits, Simulation, Stop};
pub use self::snapshot::SnapshotError;
pub use self::story::{Interest, Story};
pub use self::trace::EpochDigest;

/// The number of a node in a run, from 0.
pub type NodeId = u32;
/// In how many parts nodes are handled.
pub const SHARDS: usize = 16;
/// How long an epoch is, in microseconds of virtual time: digests are chained, snapshots taken and rules of the whole
/// looked at between epochs.
pub const EPOCH_US: u64 = 1_000_000;

/// The shard of a node.
#[must_use]
pub const fn shard_of(node: NodeId) -> usize {
    node as usize % SHARDS
}

/// The place of a node in its shard.
#[must_use]
pub const fn slot_of(node: NodeId) -> usize {
    node as usize / SHARDS
}

/// The node of a shard at a place.
#[must_use]
pub fn node_at(shard: usize, slot: usize) -> NodeId {
    NodeId::try_from(slot * SHARDS + shard).unwrap_or(NodeId::MAX)
}

/// How many of so many nodes are in a shard.
#[must_use]
pub const fn nodes_of_shard(nodes: NodeId, shard: usize) -> usize {
    (nodes as usize + SHARDS - 1 - shard) / SHARDS
}

/// What events happen to.
pub trait World: Sync {
    /// What can happen to a node. Small: what is larger than 24 bytes goes into a box.
    type Event: Send + Serialize + DeserializeOwned;
    /// The states of a shard's nodes, and what they have counted.
    type Shard: Send + Serialize + DeserializeOwned;
    /// What all shards share and snapshots need.
    type Shared: Serialize + DeserializeOwned;

    /// The least delay of what one node sends to another, in microseconds, at least 1.
    fn lookahead_us(&self) -> u64;

    /// Lets an event happen to a node.
    ///
    /// # Errors
    /// The rule that it broke; the run stops.
    fn handle(
        &self,
        shard: &mut Self::Shard,
        node: NodeId,
        event: Self::Event,
        context: &mut Context<'_, Self::Event>,
    ) -> Result<(), Breach>;

    /// Looks at everything between two epochs.
    ///
    /// # Errors
    /// The rule that was found broken; the run stops.
    fn survey(&mut self, shards: &mut [&mut Self::Shard], now_us: u64) -> Result<(), Breach>;

    /// What all shards share, for a snapshot.
    fn shared(&self) -> Self::Shared;

    /// Takes back what all shards share.
    fn restore(&mut self, shared: Self::Shared);
}

/// A rule of the market that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, serde::Deserialize)]
#[error("{rule}: {message}")]
pub struct Breach {
    /// Which one, a short name.
    pub rule: String,
    /// What happened.
    pub message: String,
    /// At which node it was seen.
    pub node: NodeId,
    /// When, in microseconds of virtual time.
    pub at_us: u64,
}
