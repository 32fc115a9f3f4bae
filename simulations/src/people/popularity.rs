//! Which models there are, and how often each is asked for.

use gristmill_protocol::credits::Credits;
use serde::{Deserialize, Serialize};

use crate::engine::Random;
use crate::engine::random::Zipf;

/// How large a model is: what speed, memory and price follow from.
///
/// Weights in four bits, of Llama 3 8B and 70B (Q4_K_M: 4.6 and 39.6 GB) and of a model of 32 billion parameters
/// between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSize {
    /// 8 billion parameters.
    Small,
    /// 32 billion parameters.
    Medium,
    /// 70 billion parameters.
    Large,
}

impl ModelSize {
    /// From small to large.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Bytes of its weights.
    #[must_use]
    pub const fn weights_bytes(self) -> u64 {
        match self {
            Self::Small => 4_600_000_000,
            Self::Medium => 18_500_000_000,
            Self::Large => 39_600_000_000,
        }
    }

    /// Its parameters, in billions.
    #[must_use]
    pub const fn billions(self) -> u64 {
        match self {
            Self::Small => 8,
            Self::Medium => 32,
            Self::Large => 70,
        }
    }

    /// What a million output tokens of it usually cost, in US dollars taken for credits: round numbers of what hosters of
    /// open models ask (Llama 3 8B and 70B, 2025).
    #[must_use]
    pub const fn usual_price(self) -> Credits {
        match self {
            Self::Small => Credits::micro(100_000),
            Self::Medium => Credits::micro(300_000),
            Self::Large => Credits::micro(700_000),
        }
    }

    /// Its name in listings and stories.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "model-8b",
            Self::Medium => "model-32b",
            Self::Large => "model-70b",
        }
    }
}

/// How often each model is asked for: by Zipf's law over the list, the first one most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Popularity {
    models: Vec<ModelSize>,
    law: Zipf,
}

/// What a scenario says about popularity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PopularityConfig {
    /// The models, the most popular one first.
    pub models: Vec<ModelSize>,
    /// The exponent of Zipf's law, in halves: 2 is the law as Zipf found it, 0 makes all alike.
    pub exponent_halves: u32,
}

impl Default for PopularityConfig {
    fn default() -> Self {
        Self {
            models: vec![ModelSize::Small, ModelSize::Large, ModelSize::Medium],
            exponent_halves: 2,
        }
    }
}

impl Popularity {
    /// The law over a scenario's models; over the small one alone where it names none.
    #[must_use]
    pub fn new(config: &PopularityConfig) -> Self {
        let models = match config.models.as_slice() {
            [] => vec![ModelSize::Small],
            models => models.to_vec(),
        };
        let law = Zipf::new(models.len(), config.exponent_halves);
        Self { models, law }
    }

    /// A model, by its popularity.
    #[must_use]
    pub fn draw(&self, random: &mut Random) -> ModelSize {
        let rank = self.law.draw(random);
        self.models.get(rank).copied().unwrap_or(ModelSize::Small)
    }

    /// The models, the most popular one first.
    #[must_use]
    pub fn models(&self) -> &[ModelSize] {
        &self.models
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_model_is_asked_for_most() {
        let popularity = Popularity::new(&PopularityConfig::default());
        let mut random = Random::of_purpose(7, "models", 0);
        let mut asked = [0_u32; 3];
        (0..60_000).for_each(|_| asked[popularity.draw(&mut random) as usize] += 1);
        let [small, medium, large] = asked;
        // 1, 1/2 and 1/3 of 11/6.
        assert!(small.abs_diff(32_727) < 600, "{asked:?}");
        assert!(large.abs_diff(16_363) < 600, "{asked:?}");
        assert!(medium.abs_diff(10_909) < 600, "{asked:?}");
    }

    #[test]
    fn a_scenario_without_models_has_the_small_one() {
        let config = PopularityConfig {
            models: Vec::new(),
            exponent_halves: 2,
        };
        let popularity = Popularity::new(&config);
        assert_eq!(popularity.models(), [ModelSize::Small]);
        assert_eq!(
            popularity.draw(&mut Random::of_purpose(7, "models", 0)),
            ModelSize::Small
        );
    }
}
