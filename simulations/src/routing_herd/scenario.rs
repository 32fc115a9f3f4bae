//! The herd's scenario: a TOML file whose first line is the question that it asks.

use serde::Deserialize;
use thiserror::Error;

use crate::scenario::{Bounded, question};

/// The scenario that runs unless another one is named.
pub const ROUTING_HERD: &str = include_str!("../../scenarios/routing_herd.toml");

/// Why a text is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScenarioError {
    /// The first line is no question.
    #[error(
        "line 1: the first line must be a comment with the question that the scenario asks, ending in '?'"
    )]
    Question,
    /// A field is missing, unknown or out of bounds.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// The shortest job is longer than the longest.
    #[error("job_min_ms is above job_max_ms")]
    JobTimes,
}

/// A herd and its providers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The first line of the file.
    #[serde(skip)]
    pub question: String,
    /// How long the run takes, in seconds of virtual time.
    pub duration_s: Bounded<1, 3_600>,
    /// Who serves.
    pub providers: Providers,
    /// Who asks.
    pub consumers: Consumers,
}

/// Providers that differ in price alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Providers {
    /// How many.
    pub count: Bounded<1, 200>,
    /// Jobs that each runs at once.
    pub slots: Bounded<1, 1_000>,
    /// The dearest one costs so many percent more than the cheapest.
    pub price_spread_percent: Bounded<0, 1_000>,
    /// Seconds between two listings of one provider.
    pub publish_every_s: Bounded<5, 600>,
}

/// Consumers that ask again and again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumers {
    /// How many.
    pub count: Bounded<1, 10_000>,
    /// Seconds between two requests of one consumer, on average.
    pub ask_every_s: Bounded<1, 3_600>,
    /// How much older than the newest what a consumer sees is at most, in seconds.
    pub view_age_max_s: Bounded<0, 600>,
    /// The shortest job, in milliseconds.
    pub job_min_ms: Bounded<1, 600_000>,
    /// The longest job, in milliseconds.
    pub job_max_ms: Bounded<1, 600_000>,
    /// How many providers are asked for one request.
    pub attempts: Bounded<1, 16>,
}

impl Consumers {
    /// The shortest and the longest job, in milliseconds.
    #[must_use]
    pub const fn job_ms(&self) -> (u64, u64) {
        (self.job_min_ms.get(), self.job_max_ms.get())
    }
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`] saying what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario = Self {
            question: question(text).ok_or(ScenarioError::Question)?,
            ..toml::from_str(text)?
        };
        let (least_ms, most_ms) = scenario.consumers.job_ms();
        if least_ms > most_ms {
            return Err(ScenarioError::JobTimes);
        }
        Ok(scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_scenario_reads_and_mistakes_are_named() {
        let scenario = Scenario::parse(ROUTING_HERD).unwrap();
        assert!(scenario.question.starts_with("How hard"));
        assert_eq!(Scenario::parse(""), Err(ScenarioError::Question));
        let changed = |from: &str, to: &str| Scenario::parse(&ROUTING_HERD.replace(from, to)).unwrap_err();
        assert_eq!(
            changed("job_min_ms = 500", "job_min_ms = 5000"),
            ScenarioError::JobTimes
        );
        let error = changed("slots = 8", "slots = 0").to_string();
        assert!(error.contains("from 1 to 1000"), "{error}");
    }
}
