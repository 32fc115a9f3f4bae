//! Scenarios: TOML files in which a researcher says what world to run. The first line is the question it asks.

pub mod answer;
pub mod document;
pub mod faults;
pub mod library;
pub mod plan;

use std::ops::Range;

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

/// The scenario that runs unless another one is named.
pub const LISTING_GOSSIP: &str = include_str!("../scenarios/listing_gossip.toml");

/// A whole number that must lie from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u64")]
pub struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number in the bounds that is nearest to this one, for defaults.
    #[must_use]
    pub const fn nearest(number: u64) -> Self {
        Self(if number < MIN {
            MIN
        } else if number > MAX {
            MAX
        } else {
            number
        })
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Bounded<MIN, MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        if (MIN..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!(
                "{number} is out of bounds; it must be from {MIN} to {MAX}"
            ))
        }
    }
}

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "f64")]
pub struct Fraction(f64);

impl Fraction {
    /// The share.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// So many hundredths, at most all, for defaults.
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        Self(if percent > 100 {
            1.0
        } else {
            percent as f64 / 100.0
        })
    }
}

impl TryFrom<f64> for Fraction {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(format!(
                "{share} is out of bounds; a share must be from 0.0 to 1.0"
            ))
        }
    }
}

/// How many peers of one kind there may be.
pub type Count = Bounded<0, 1_000>;

/// The question that a scenario asks: its first line, a comment that ends in a question mark.
pub(crate) fn question(text: &str) -> Option<String> {
    let line = text.lines().next()?.strip_prefix('#')?.trim();
    line.ends_with('?').then(|| line.to_owned())
}

/// A world and how long it runs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The first line of the file.
    #[serde(skip)]
    pub question: String,
    /// How long the run takes, in seconds of virtual time.
    pub duration_s: Bounded<1, 86_400>,
    /// How messages travel.
    pub network: Network,
    /// The honest providers.
    pub providers: Providers,
    /// Peers that lie and forward nothing.
    pub liars: Liars,
    /// Peers that ask their boards who can serve.
    pub consumers: Consumers,
}

/// How messages travel: over a random graph, each peer with the same number of neighbours.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// How many neighbours each peer has.
    pub degree: Spanned<Bounded<3, 64>>,
    /// Shortest latency of a link in milliseconds.
    pub latency_min_ms: Bounded<0, 60_000>,
    /// Longest latency of a link in milliseconds.
    pub latency_max_ms: Spanned<Bounded<0, 60_000>>,
    /// How much longer than its link's latency a message takes at most, in milliseconds.
    pub jitter_ms: Bounded<0, 60_000>,
    /// Share of messages that a link loses.
    pub loss: Fraction,
}

/// Honest providers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Providers {
    /// How many.
    pub count: Bounded<1, 1_000>,
    /// Seconds between two listings of one provider. The protocol allows no less than 5.
    pub publish_every_s: Bounded<5, 600>,
    /// How long a listing holds, in seconds. The protocol allows no more than 600.
    pub ttl_s: Bounded<1, 600>,
    /// How many of them take leave at a random time.
    pub leaving: Count,
    /// How many of them vanish without a word at a random time.
    pub crashing: Spanned<Count>,
}

/// Peers that lie.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Liars {
    /// How many.
    pub count: Count,
    /// Seconds between two lies of one liar.
    pub lie_every_s: Bounded<1, 3_600>,
}

/// Peers that ask.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumers {
    /// How many.
    pub count: Bounded<1, 1_000>,
    /// Seconds between two questions of one consumer.
    pub ask_every_s: Bounded<1, 3_600>,
}

/// Why a text is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScenarioError {
    /// Not TOML, an unknown or missing key, or a value out of its bounds. The message names the line.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// The first line asks nothing.
    #[error("line 1: the first line of a scenario is the question it asks, as a comment: '# How …?'")]
    Question,
    /// Two values that do not go together.
    #[error("line {line}: {problem}")]
    Contradiction {
        /// The line of one of them, from 1.
        line: usize,
        /// What is wrong and how to mend it.
        problem: String,
    },
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`] naming the line.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario = Self {
            question: question(text).ok_or(ScenarioError::Question)?,
            ..toml::from_str(text)?
        };
        scenario.check(text)?;
        Ok(scenario)
    }

    /// How many peers there are.
    #[must_use]
    pub const fn peers(&self) -> u64 {
        self.providers.count.get() + self.liars.count.get() + self.consumers.count.get()
    }

    fn check(&self, text: &str) -> Result<(), ScenarioError> {
        let contradiction = |span: Range<usize>, problem: String| {
            let line = text
                .get(..span.start)
                .map_or(1, |before| before.matches('\n').count() + 1);
            Err(ScenarioError::Contradiction { line, problem })
        };
        let Network {
            degree,
            latency_min_ms,
            latency_max_ms,
            ..
        } = &self.network;
        let (peers, neighbours) = (self.peers(), degree.get_ref().get());
        if neighbours >= peers || (neighbours * peers) % 2 == 1 {
            let problem = format!(
                "{peers} peers cannot have {neighbours} neighbours each; \
                 degree must be below the number of peers, and one of both even"
            );
            return contradiction(degree.span(), problem);
        }
        if latency_max_ms.get_ref().get() < latency_min_ms.get() {
            let problem = format!(
                "latency_max_ms is below latency_min_ms = {}",
                latency_min_ms.get()
            );
            return contradiction(latency_max_ms.span(), problem);
        }
        let Providers {
            count,
            leaving,
            crashing,
            ..
        } = &self.providers;
        let gone = leaving.get() + crashing.get_ref().get();
        if gone > count.get() {
            let problem = format!(
                "leaving and crashing are {gone} together, more than count = {}",
                count.get()
            );
            return contradiction(crashing.span(), problem);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(from: &str, to: &str) -> String {
        assert!(LISTING_GOSSIP.contains(from), "{from}");
        Scenario::parse(&LISTING_GOSSIP.replacen(from, to, 1))
            .unwrap_err()
            .to_string()
    }

    fn line_of(part: &str) -> String {
        let line = LISTING_GOSSIP
            .lines()
            .position(|line| line.starts_with(part))
            .unwrap()
            + 1;
        format!("line {line}")
    }

    #[test]
    fn the_embedded_scenario_reads_and_asks() {
        let scenario = Scenario::parse(LISTING_GOSSIP).unwrap();
        assert!(scenario.question.starts_with("How stale") && scenario.question.ends_with('?'));
        assert_eq!(scenario.peers(), 100);
    }

    #[test]
    fn mistakes_name_their_line() {
        let cases = [
            ("loss = 0.02", "lost = 0.02", "loss", "unknown field `lost`"),
            ("loss = 0.02", "loss = 1.01", "loss", "from 0.0 to 1.0"),
            ("loss = 0.02", "loss = nan", "loss", "from 0.0 to 1.0"),
            (
                "publish_every_s = 30",
                "publish_every_s = 4",
                "publish_every_s",
                "from 5 to 600",
            ),
            (
                "publish_every_s = 30",
                "publish_every_s = -1",
                "publish_every_s",
                "-1",
            ),
            (
                "publish_every_s = 30",
                "publish_every_s = \"30\"",
                "publish_every_s",
                "string",
            ),
            (
                "duration_s = 300",
                "duration_s = 0",
                "duration_s",
                "from 1 to 86400",
            ),
            ("degree = 6", "degree = 65", "degree", "from 3 to 64"),
            (
                "latency_max_ms = 150",
                "latency_max_ms = 9",
                "latency_max_ms",
                "below latency_min_ms",
            ),
            ("crashing = 6", "crashing = 600", "crashing", "more than count"),
        ];
        for (from, to, key, part) in cases {
            let error = error(from, to);
            assert!(
                error.contains(&line_of(key)) && error.contains(part),
                "{to}: {error}"
            );
        }
        let odd = LISTING_GOSSIP
            .replace("degree = 6", "degree = 3")
            .replacen("count = 30", "count = 31", 1);
        let error = Scenario::parse(&odd).unwrap_err().to_string();
        assert!(
            error.contains(&line_of("degree")) && error.contains("cannot have 3 neighbours"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_key_and_a_missing_question_are_errors() {
        assert!(error("loss = 0.02", "").contains("missing field `loss`"));
        assert_eq!(
            Scenario::parse(&format!("\n{LISTING_GOSSIP}")),
            Err(ScenarioError::Question)
        );
        assert_eq!(Scenario::parse(""), Err(ScenarioError::Question));
    }
}
