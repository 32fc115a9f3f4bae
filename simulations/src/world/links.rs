//! How long messages travel, and which do not arrive: the network, with a coordinator in a data centre.

use super::config::MarketConfig;
use super::roster::{Part, Roster};
use crate::engine::NodeId;
use crate::engine::random::Random;
use crate::network::{Access, Network, NetworkConfig, Region};

/// A connection on which nothing came for so long is given up, in microseconds: QUIC's idle timeout as libp2p sets it.
const SILENCE_US: u64 = 10_000_000;
/// Places are looked through for a data centre from this number on, which no node has.
const STAND_INS: NodeId = 1 << 31;
/// How many of them.
const LOOKS_MAX: NodeId = 100_000;

/// The network between the nodes of a market.
#[derive(Clone, Debug)]
pub struct Links {
    network: Network,
    /// The number whose place the coordinator has: one in a data centre, where there is any.
    coordinator: Option<NodeId>,
    lookahead_us: u64,
}

impl Links {
    /// The network of a market with a seed.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "the default network is a network, and a test builds it"
    )]
    pub fn new(config: &MarketConfig, roster: &Roster, seed: u64) -> Self {
        let network = Network::new(config.network.clone(), seed)
            .or_else(|_| Network::new(NetworkConfig::default(), seed))
            // A scenario's network was checked when it was read.
            .expect("the parts of the default network are above 0");
        let mut looked_at = STAND_INS..STAND_INS + LOOKS_MAX;
        let in_data_centre = looked_at.find(|number| network.place(*number).access == Access::DataCentre);
        let has_coordinator = roster.nodes() > 0 && roster.part(0) == Part::Coordinator;
        Self {
            lookahead_us: network.lookahead_us().max(1),
            coordinator: in_data_centre.filter(|_| has_coordinator),
            network,
        }
    }

    /// What every message takes at least.
    #[must_use]
    pub const fn lookahead_us(&self) -> u64 {
        self.lookahead_us
    }

    /// After what silence a connection is given up.
    #[must_use]
    pub const fn silence_us(&self) -> u64 {
        SILENCE_US
    }

    fn place(&self, node: NodeId) -> NodeId {
        self.coordinator.filter(|_| node == 0).unwrap_or(node)
    }

    /// How long a message of so many bytes takes now; nothing where it does not arrive. `uplink_us` is when the sender's line
    /// is free again.
    #[must_use]
    pub fn delay_us(
        &self,
        (from, to): (NodeId, NodeId),
        bytes: u64,
        now_us: u64,
        uplink_us: &mut u64,
        random: &mut Random,
    ) -> Option<u64> {
        let ends = (self.place(from), self.place(to));
        let delay_us = self.network.delay(ends, bytes, now_us, uplink_us, random)?;
        Some(delay_us.max(self.lookahead_us))
    }

    /// Whether two nodes can have a connection, whatever kinds of NAT they are behind.
    #[must_use]
    pub fn can_connect(&self, one: NodeId, other: NodeId) -> bool {
        self.network.can_connect(self.place(one), self.place(other))
    }

    /// When a partition last kept two nodes apart, in microseconds.
    #[must_use]
    pub fn last_partitioned_us(&self, one: NodeId, other: NodeId, now_us: u64) -> Option<u64> {
        self.network
            .last_partitioned_us(self.place(one), self.place(other), now_us)
    }

    /// In which part of the world a node is.
    #[must_use]
    pub fn region(&self, node: NodeId) -> Region {
        self.network.place(self.place(node)).region
    }

    /// How far a node's clock is ahead, in milliseconds. The coordinator's is right.
    #[must_use]
    pub fn clock_skew_ms(&self, node: NodeId) -> i64 {
        if self.coordinator.is_some() && node == 0 {
            return 0;
        }
        self.network.clock_skew_ms(node)
    }
}
