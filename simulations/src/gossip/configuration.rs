//! The parameters of the mesh, with those of the shipped one as defaults.

use serde::Deserialize;

use crate::scenario::{Bounded, Fraction};

/// The parameters of gossip. The defaults are those of `gristmill-transport`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GossipConfig {
    /// Neighbours in the mesh that a peer aims for (D).
    pub mesh: Bounded<1, 32>,
    /// Below so many it looks for more (D_lo).
    pub mesh_low: Bounded<0, 32>,
    /// From so many on it prunes (D_hi).
    pub mesh_high: Bounded<2, 64>,
    /// So many of them it has dialled itself, as an eclipse is harder then (D_out).
    pub mesh_outbound_min: Bounded<0, 16>,
    /// Neighbours outside the mesh that hear at least of recent messages at each heartbeat (D_lazy).
    pub lazy: Bounded<0, 64>,
    /// Share of the neighbours outside the mesh that hear of them, where that is more.
    pub lazy_share: Fraction,
    /// For so many heartbeats others hear of a message.
    pub history_gossip: Bounded<0, 30>,
    /// For so many heartbeats a message is kept for those who ask.
    pub history_length: Bounded<1, 60>,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: Bounded<100, 60_000>,
    /// Milliseconds before the interval that ends with the first.
    pub heartbeat_initial_delay_ms: Bounded<0, 60_000>,
    /// Seconds in which who was pruned must not graft. 0 switches back-off off.
    pub prune_backoff_s: Bounded<0, 3_600>,
    /// A graft this soon after the prune, in seconds, is a flood and costs twice.
    pub graft_flood_s: Bounded<0, 3_600>,
    /// Seconds for which a message that comes again is dropped unseen.
    pub duplicate_cache_s: Bounded<1, 3_600>,
    /// Whether publishers send to all neighbours and not to the mesh alone.
    pub flood_publish: bool,
    /// Whether peers ask for messages that they hear of.
    pub ask: bool,
    /// How often one neighbour is sent one message that it asks for.
    pub retransmissions_max: Bounded<0, 100>,
    /// Most IHAVEs of one neighbour between two heartbeats that are read.
    pub ihaves_max: Bounded<1, 1_000>,
    /// Seconds in which a message that was asked for must come.
    pub promise_s: Bounded<1, 60>,
    /// Messages of more bytes than this are announced by IDONTWANT as soon as they come.
    pub idontwant_bytes: Bounded<0, 1_000_000>,
    /// Heartbeats between two looks whether the mesh is worth improving.
    pub opportunistic_beats: Bounded<1, 3_600>,
    /// How many neighbours are grafted then.
    pub opportunistic_peers: Bounded<0, 16>,
    /// The best so many neighbours stay when the mesh is pruned.
    pub retain_best: Bounded<0, 32>,
    /// Whether neighbours are judged at all.
    pub judge: bool,
    /// What neighbours earn and lose.
    pub scores: ScoreConfig,
}

/// What neighbours earn and lose. The defaults are those of `gristmill-transport`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScoreConfig {
    /// Points for each second in the mesh.
    pub second_in_mesh: Fraction,
    /// Seconds in the mesh that count at most.
    pub seconds_in_mesh_max: Bounded<0, 100_000>,
    /// Points for each message that a neighbour brought first.
    pub first_delivery: Fraction,
    /// First deliveries that count at most.
    pub first_deliveries_max: Bounded<0, 10_000>,
    /// Most points for the topic.
    pub topic_max: Bounded<0, 100_000>,
    /// Points lost by invalid messages, times the square of their number.
    pub invalid_cost: Bounded<0, 1_000>,
    /// Points lost by bad manners, times the square of how many there are above the free ones.
    pub manners_cost: Bounded<0, 1_000>,
    /// How many bad manners are free.
    pub manners_free: Bounded<0, 1_000>,
    /// Seconds until something is forgotten.
    pub memory_s: Bounded<1, 86_400>,
    /// A neighbour with fewer points than minus this is neither told of messages nor believed.
    pub gossip_below: Bounded<0, 100_000>,
    /// A neighbour with fewer points than minus this is not sent own messages.
    pub publish_below: Bounded<0, 100_000>,
    /// A neighbour with fewer points than minus this is not heard at all.
    pub graylist_below: Bounded<0, 100_000>,
    /// A mesh whose median has fewer points is worth improving.
    pub opportunistic_below: Bounded<0, 100_000>,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            mesh: Bounded::nearest(6),
            mesh_low: Bounded::nearest(5),
            mesh_high: Bounded::nearest(12),
            mesh_outbound_min: Bounded::nearest(2),
            lazy: Bounded::nearest(6),
            lazy_share: Fraction::percent(25),
            history_gossip: Bounded::nearest(3),
            history_length: Bounded::nearest(5),
            heartbeat_ms: Bounded::nearest(1_000),
            heartbeat_initial_delay_ms: Bounded::nearest(5_000),
            prune_backoff_s: Bounded::nearest(60),
            graft_flood_s: Bounded::nearest(10),
            duplicate_cache_s: Bounded::nearest(120),
            flood_publish: true,
            ask: true,
            retransmissions_max: Bounded::nearest(3),
            ihaves_max: Bounded::nearest(10),
            promise_s: Bounded::nearest(3),
            idontwant_bytes: Bounded::nearest(1_000),
            opportunistic_beats: Bounded::nearest(60),
            opportunistic_peers: Bounded::nearest(2),
            retain_best: Bounded::nearest(4),
            judge: true,
            scores: ScoreConfig::default(),
        }
    }
}

impl Default for ScoreConfig {
    fn default() -> Self {
        Self {
            second_in_mesh: Fraction::percent(1),
            seconds_in_mesh_max: Bounded::nearest(1_000),
            first_delivery: Fraction::percent(50),
            first_deliveries_max: Bounded::nearest(20),
            topic_max: Bounded::nearest(20),
            invalid_cost: Bounded::nearest(10),
            manners_cost: Bounded::nearest(10),
            manners_free: Bounded::nearest(6),
            memory_s: Bounded::nearest(600),
            gossip_below: Bounded::nearest(5),
            publish_below: Bounded::nearest(40),
            graylist_below: Bounded::nearest(60),
            opportunistic_below: Bounded::nearest(2),
        }
    }
}

/// The parameters as peers use them.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// As written.
    pub config: GossipConfig,
    /// What is left of a count after one heartbeat.
    pub(super) decay: f64,
    pub(super) heartbeat_us: u64,
}

/// Counts below this are forgotten (libp2p's `decay_to_zero`).
pub(super) const FORGOTTEN_BELOW: f32 = 0.1;

impl Settings {
    /// Works out what is needed often.
    #[must_use]
    pub fn new(config: GossipConfig) -> Self {
        let heartbeat_us = config.heartbeat_ms.get() * 1_000;
        let beats = (config.scores.memory_s.get() * 1_000_000 / heartbeat_us).max(1);
        Self {
            decay: root(f64::from(FORGOTTEN_BELOW), beats),
            heartbeat_us,
            config,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(GossipConfig::default())
    }
}

/// `base` to the power of `exponent`, the same on every machine.
pub(super) fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut product = 1.0;
    while exponent > 0 {
        if exponent % 2 == 1 {
            product *= base;
        }
        base *= base;
        exponent /= 2;
    }
    product
}

/// The number from 0 to 1 whose `degree`-th power is `value`, found by halving.
fn root(value: f64, degree: u64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if power(middle, degree) < value {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_as_shipped_and_mistakes_are_found() {
        assert_eq!(
            toml::from_str::<GossipConfig>("").unwrap(),
            GossipConfig::default()
        );
        for (text, part) in [
            ("meshes = 6", "unknown field"),
            ("mesh_high = 65", "from 2 to 64"),
            ("lazy_share = 1.5", "from 0.0 to 1.0"),
            ("[scores]\ninvalid_cost = -1", "-1"),
        ] {
            let error = toml::from_str::<GossipConfig>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_count_is_a_tenth_after_the_memory() {
        let decay = Settings::default().decay;
        assert!((power(decay, 600) - 0.1).abs() < 1e-7, "{decay}");
    }
}
