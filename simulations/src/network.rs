//! The network between nodes: where they are, how they are connected, and what a message on its way meets.
//!
//! # Where the numbers are from
//! - **Between regions**: round trips between Azure regions, 95th percentile of the 30 days to 30 July 2026, one-minute probes, as
//!   Microsoft publishes them under CC BY 4.0 (<https://learn.microsoft.com/azure/networking/azure-network-latency>). Each region
//!   here is one of theirs, see [`Region`]; of the two directions the slower one is taken. It is a backbone: a home's way to it is
//!   added by [`Access`].
//! - **Shares of regions**: those of Bitcoin's nodes in 2019, as in `SimBlock` (Aoki and others, "`SimBlock`: A Blockchain Network
//!   Simulator", 2019); how North America and Asia are split up is ours.
//! - **Hole punching** succeeds for 70 % of pairs: Trautwein and others, "Large Scale Measurement Campaign on Decentralized NAT
//!   Traversal", 2025 (arXiv 2510.27500), of libp2p's DCUtR.
//! - **Disks**: `fdatasync` of 16 kB on SSDs with and without protection against power loss by M. Callaghan (Small Datum, 7 January
//!   2026); a hard disk's by half a turn and a seek.
//! - **Last mile, bandwidth, NAT kinds, clocks, hours of the day** are round numbers of our own, no measurement: a scenario that
//!   hangs on them should vary them.
//!
//! # Loss
//! Gossip and jobs travel in QUIC streams, which are reliable: a lost packet is sent again. So loss costs time, never a message: one
//! probe timeout, of a round trip and a quarter and 25 ms of delayed acknowledgement (RFC 9002, section 6.2), doubled each time. What
//! does lose messages: a partition, and an uplink with more than five seconds of messages waiting (libp2p drops what waits longer).

use serde::Deserialize;
use thiserror::Error;

use crate::engine::NodeId;
use crate::engine::random::Random;
use crate::scenario::{Bounded, Fraction};

mod access;
mod churn;
mod disk;
mod nat;
mod partition;
mod region;
mod weights;

pub use access::Access;
pub use churn::{Churn, ChurnConfig};
pub use disk::Disk;
pub use nat::{Nat, Traversal};
pub use partition::Partition;
pub use region::Region;
use weights::{Weights, derived};

/// Bytes of content in one packet.
const PACKET_BYTES: u64 = 1_200;
/// Bytes of IP, UDP and QUIC around it.
const HEADER_BYTES: u64 = 60;
/// Delay of acknowledgements that a probe timeout allows for (RFC 9002's `max_ack_delay`).
const ACK_DELAY_US: u64 = 25_000;
/// How often one message may be lost in a row. More is a broken connection, which is the world's to model.
const LOSSES_MAX: u32 = 6;
/// Longest time that messages may wait for an uplink.
const BACKLOG_MAX_US: u64 = 5_000_000;

/// The network of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// One latency for all pairs of nodes, in milliseconds, instead of the measured ones: no last mile and no jitter.
    pub equal_latency_ms: Option<Bounded<1, 60_000>>,
    /// How many nodes are in each region, in parts of all. Default: as Bitcoin's.
    pub regions: Weights<Region>,
    /// How many have each kind of access, in parts of all.
    pub access: Weights<Access>,
    /// How many are behind each kind of NAT, in parts of all. Data centres have none.
    pub nat: Weights<Nat>,
    /// What nodes do about NAT. Default: nothing, as the shipped mesh.
    pub traversal: Traversal,
    /// Packets lost, in parts of a million. Default: 2,000.
    pub loss: Loss,
    /// Times at which parts of the network cannot reach each other.
    pub partitions: Vec<Partition>,
    /// Clocks.
    pub clocks: Clocks,
}

/// Packets lost, in parts of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Loss(pub Bounded<0, 500_000>);

impl Default for Loss {
    fn default() -> Self {
        Self(Bounded::nearest(2_000))
    }
}

/// How far clocks are off. A clock of the usual kind is off by at most so much, early or late, each deviation as likely.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clocks {
    /// Milliseconds by which usual clocks are off at most. Default: 50.
    pub skew_ms: Bounded<0, 60_000>,
    /// Share of nodes whose clock is wrong. Default: 1 %.
    pub wrong: Fraction,
    /// Seconds by which those are off at most. Default: 300.
    pub wrong_by_s: Bounded<0, 86_400>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            skew_ms: Bounded::nearest(50),
            wrong: Fraction::percent(1),
            wrong_by_s: Bounded::nearest(300),
        }
    }
}

/// A network that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// No parts at all.
    #[error("[network] {key}: all parts are 0; give at least one kind a part above 0")]
    NoParts {
        /// Of what.
        key: &'static str,
    },
    /// A partition that is over before it begins.
    #[error("[[network.partitions]] number {number}: until_s must be above from_s")]
    PartitionOver {
        /// Which, from 1.
        number: usize,
    },
    /// A partition whose sides are not clear.
    #[error("[[network.partitions]] number {number}: give either regions or share, to say who is cut off")]
    PartitionSides {
        /// Which, from 1.
        number: usize,
    },
}

/// Where a node is. It follows from the seed and is stored nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which part of the world.
    pub region: Region,
    /// Behind which kind of line.
    pub access: Access,
    /// Behind which kind of NAT.
    pub nat: Nat,
}

/// The network of a run.
#[derive(Clone, Debug)]
pub struct Network {
    config: NetworkConfig,
    seed: u64,
}

impl Network {
    /// The network of a scenario with a seed.
    ///
    /// # Errors
    /// [`NetworkError`] where the parts make no sense together.
    pub fn new(config: NetworkConfig, seed: u64) -> Result<Self, NetworkError> {
        let parts = [
            ("regions", config.regions.total()),
            ("access", config.access.total()),
            ("nat", config.nat.total()),
        ];
        for (key, total) in parts {
            if total == 0 {
                return Err(NetworkError::NoParts { key });
            }
        }
        for (place, partition) in config.partitions.iter().enumerate() {
            partition.check(place + 1)?;
        }
        Ok(Self { config, seed })
    }

    /// Where a node is.
    #[must_use]
    pub fn place(&self, node: NodeId) -> Place {
        let draw = |purpose| derived(self.seed, purpose, node);
        let access = self.config.access.pick(draw(2));
        let nat = self.config.nat.pick(draw(3));
        Place {
            region: self.config.regions.pick(draw(1)),
            access,
            nat: if access == Access::DataCentre {
                Nat::Open
            } else {
                nat
            },
        }
    }

    /// A time that every message between two nodes takes at least, in microseconds.
    #[must_use]
    pub fn lookahead_us(&self) -> u64 {
        if let Some(equal) = self.config.equal_latency_ms {
            return equal.get() * 1_000;
        }
        let regions = || self.config.regions.present();
        let between = regions().flat_map(|one| regions().map(move |other| one.one_way_us(other)));
        let last_mile = self.config.access.present().map(Access::last_mile_us).min();
        between.min().unwrap_or(0) + 2 * last_mile.unwrap_or(0)
    }

    /// How long a message takes, in microseconds, or nothing where it does not arrive. `uplink_free_at_us` is the sender's: when what
    /// it sent before has left its line.
    pub fn delay(
        &self,
        (from, to): (NodeId, NodeId),
        bytes: u64,
        now_us: u64,
        uplink_free_at_us: &mut u64,
        random: &mut Random,
    ) -> Option<u64> {
        let (sender, receiver) = (self.place(from), self.place(to));
        let waiting_us = uplink_free_at_us.saturating_sub(now_us);
        if waiting_us > BACKLOG_MAX_US || self.is_partitioned(from, to, now_us) {
            return None;
        }
        let packets = bytes.div_ceil(PACKET_BYTES).max(1);
        let bits = (bytes + packets * HEADER_BYTES) * 8;
        let sending_us = bits / sender.access.up_mbit_s();
        let receiving_us = bits / receiver.access.down_mbit_s();
        *uplink_free_at_us = now_us + waiting_us + sending_us;
        let flight_us = self.flight_us(sender, receiver);
        let jitter_us = if self.config.equal_latency_ms.is_some() {
            0
        } else {
            random.below(sender.access.jitter_us()) + random.below(receiver.access.jitter_us())
        };
        let again_us = self.retransmission_us(packets, 2 * flight_us, random);
        Some(waiting_us + sending_us.max(receiving_us) + flight_us + jitter_us + again_us)
    }

    /// The time that the first bit takes without jitter.
    fn flight_us(&self, sender: Place, receiver: Place) -> u64 {
        self.config.equal_latency_ms.map_or_else(
            || {
                let last_miles_us = sender.access.last_mile_us() + receiver.access.last_mile_us();
                sender.region.one_way_us(receiver.region) + last_miles_us
            },
            |equal| equal.get() * 1_000,
        )
    }

    /// How much later the last of some packets is because of those that were lost.
    fn retransmission_us(&self, mut packets: u64, round_trip_us: u64, random: &mut Random) -> u64 {
        let lost = self.config.loss.0.get();
        if lost == 0 {
            return 0;
        }
        let (mut timeout_us, mut all_us) = (round_trip_us * 5 / 4 + ACK_DELAY_US, 0);
        for _ in 0..LOSSES_MAX {
            if !random.chance(1.0 - all_arrive(lost, packets)) {
                break;
            }
            all_us += timeout_us;
            timeout_us *= 2;
            // About as many as were lost are sent again.
            packets = (packets * lost / 1_000_000).max(1);
        }
        all_us
    }

    /// Whether a partition keeps two nodes apart at a time.
    #[must_use]
    pub fn is_partitioned(&self, one: NodeId, other: NodeId, now_us: u64) -> bool {
        self.config
            .partitions
            .iter()
            .enumerate()
            .any(|(number, partition)| {
                partition.is_on(now_us) && {
                    let side = |node| partition.cuts_off(self.seed, number, node, || self.place(node).region);
                    side(one) != side(other)
                }
            })
    }

    /// When a partition last kept two nodes apart, in microseconds: now, where one does; nothing, where none ever did.
    #[must_use]
    pub fn last_partitioned_us(&self, one: NodeId, other: NodeId, now_us: u64) -> Option<u64> {
        let partitions = self.config.partitions.iter().enumerate();
        let apart = partitions.filter(|(number, partition)| {
            let side = |node| partition.cuts_off(self.seed, *number, node, || self.place(node).region);
            partition.from_s.get() * 1_000_000 <= now_us && side(one) != side(other)
        });
        apart
            .map(|(_, partition)| (partition.until_s.get() * 1_000_000).min(now_us))
            .max()
    }

    /// Whether two nodes can have a connection, whichever of them dials.
    #[must_use]
    pub fn can_connect(&self, one: NodeId, other: NodeId) -> bool {
        let (nat, other_nat) = (self.place(one).nat, self.place(other).nat);
        let (low, high) = (one.min(other), one.max(other));
        let luck = derived(derived(self.seed, 4, low), 5, high);
        self.config.traversal.connects(nat, other_nat, luck)
    }

    /// How far a node's clock is ahead, in milliseconds; below zero where it is behind.
    #[must_use]
    pub fn clock_skew_ms(&self, node: NodeId) -> i64 {
        let clocks = &self.config.clocks;
        let mut random = Random::of_purpose(self.seed, "clock", node.into());
        let most = if random.chance(clocks.wrong.get()) {
            clocks.wrong_by_s.get() * 1_000
        } else {
            clocks.skew_ms.get()
        };
        let skew = i64::try_from(random.between(0, 2 * most)).unwrap_or(0);
        skew - i64::try_from(most).unwrap_or(0)
    }
}

/// The probability that so many packets all arrive, of whom so many in a million are lost.
fn all_arrive(lost: u64, mut packets: u64) -> f64 {
    let lost = u32::try_from(lost).unwrap_or(u32::MAX);
    let (mut base, mut product) = (1.0 - f64::from(lost) / 1_000_000.0, 1.0);
    while packets > 0 {
        if packets % 2 == 1 {
            product *= base;
        }
        base *= base;
        packets /= 2;
    }
    product
}

#[cfg(test)]
mod tests;
