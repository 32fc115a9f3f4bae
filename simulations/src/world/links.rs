//! How long messages travel.

use super::config::LinksConfig;
use crate::engine::NodeId;
use crate::engine::random::Random;

/// A connection on which nothing came for so long is given up, in microseconds: QUIC's idle timeout as libp2p sets it.
const SILENCE_US: u64 = 10_000_000;

/// Latencies between nodes: each pair has its own, with a tenth of jitter.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    seed: u64,
    least_us: u64,
    most_us: u64,
}

impl Links {
    /// The latencies of a run.
    #[must_use]
    pub fn new(config: &LinksConfig, seed: u64) -> Self {
        let least_us = config.latency_min_ms.get() * 1_000;
        Self {
            seed,
            least_us,
            most_us: (config.latency_max_ms.get() * 1_000).max(least_us),
        }
    }

    /// The shortest of all.
    #[must_use]
    pub const fn least_us(&self) -> u64 {
        self.least_us
    }

    /// After what silence a connection is given up.
    #[must_use]
    pub const fn silence_us(&self) -> u64 {
        SILENCE_US
    }

    /// How long a message takes now; nothing where it does not arrive.
    #[must_use]
    pub fn delay_us(&self, from: NodeId, to: NodeId, random: &mut Random) -> Option<u64> {
        let (low, high) = (from.min(to), from.max(to));
        let mut of_pair = Random::of_event(self.seed, low, u64::from(high), 0);
        let usual_us = of_pair.between(self.least_us, self.most_us);
        Some(usual_us + random.below(usual_us / 10 + 1))
    }
}
