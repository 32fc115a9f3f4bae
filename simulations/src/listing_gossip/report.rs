//! What a run measured, and the answer to its question in a sentence.

use std::collections::BTreeMap;

use serde::Serialize;

use super::actors::Lie;
use super::checker::Breach;
use super::{ListingGossip, RunError, Stop};
use crate::heap_engine::Outcome;

/// How often each value occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Distribution {
    pub(super) fn add(&mut self, value: u64) {
        *self.counts.entry(value).or_insert(0) += 1;
        self.total += 1;
    }

    /// The smallest value that at least so many of a hundred values do not exceed.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let needed = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        self.counts.iter().find_map(|(value, count)| {
            seen += count;
            (seen >= needed).then_some(*value)
        })
    }
}

/// A part of a whole, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How many it was.
    pub part: u64,
    /// Of how many.
    pub whole: u64,
}

impl Share {
    pub(crate) fn count(&mut self, counts: bool) {
        self.whole += 1;
        self.part += u64::from(counts);
    }

    /// In percent with two digits, rounded down; what is not all is never 100 %.
    #[must_use]
    pub fn percent(self) -> String {
        if self.whole == 0 {
            return "none".to_owned();
        }
        let basis_points = u128::from(self.part) * 10_000 / u128::from(self.whole);
        format!("{}.{:02} %", basis_points / 100, basis_points % 100)
    }
}

/// The middle and the tail of a distribution of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// Half of the values are at most so many milliseconds. Absent where there are none.
    pub p50_ms: Option<u64>,
    /// 99 of 100 values are at most so many milliseconds. Absent where there are none.
    pub p99_ms: Option<u64>,
}

impl From<&Distribution> for Times {
    fn from(distribution: &Distribution) -> Self {
        Self {
            p50_ms: distribution.percentile(50),
            p99_ms: distribution.percentile(99),
        }
    }
}

/// What a run counts while it goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) published: u64,
    pub(super) messages_sent: u64,
    pub(super) messages_lost: u64,
    pub(super) expected_deliveries: u64,
    pub(super) deliveries_in_time: u64,
    pub(super) delivery_ms: Distribution,
    pub(super) age_ms: Distribution,
    pub(super) gone: Share,
    pub(super) known: Share,
    pub(super) lies_sent: BTreeMap<Lie, u64>,
    pub(super) refused: u64,
}

/// A breach and where it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreachReport {
    /// The event that broke the rule, counted from 1.
    pub event: u64,
    /// When, in milliseconds of virtual time.
    pub at_ms: u64,
    /// The rule, in words.
    pub message: String,
    /// The rule and who broke it.
    #[serde(flatten)]
    pub breach: Breach,
}

/// Everything that a run found out. The same scenario and seed give the same report on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the scenario asks.
    pub question: String,
    /// The answer, in a sentence or three.
    pub answer: String,
    /// How many peers there were.
    pub nodes: u64,
    /// The seed of the run.
    pub seed: u64,
    /// How many events happened.
    pub events: u64,
    /// Virtual time that passed, in milliseconds.
    pub duration_ms: u64,
    /// BLAKE3 over everything that happened, in hexadecimal.
    pub digest: String,
    /// The rules that were broken. The first breach stops a run.
    pub breaches: Vec<BreachReport>,
    /// Listings that honest providers published, farewells included.
    pub published: u64,
    /// Messages sent over links.
    pub messages_sent: u64,
    /// Messages that links lost.
    pub messages_lost: u64,
    /// Of every listing and every honest peer that ran: how many were on that peer's board within 5 s.
    pub delivered: Share,
    /// From publication to a board.
    pub delivery: Times,
    /// Since when the listings that consumers were shown hold.
    pub age: Times,
    /// Listings shown to consumers whose provider had already gone.
    pub gone_shown: Share,
    /// Of every question and every running provider: how many consumers knew.
    pub running_known: Share,
    /// What liars sent, by kind.
    pub lies_sent: BTreeMap<String, u64>,
    /// How often an honest peer refused an invalid message.
    pub invalid_refused: u64,
    /// How often an honest peer forwarded an invalid message: zero, or the run stopped there.
    pub invalid_forwarded: u64,
    /// How often a board showed an invalid listing: zero, or the run stopped there.
    pub invalid_shown: u64,
}

impl ListingGossip {
    pub(super) fn report(self, outcome: Outcome<Stop>) -> Result<Report, RunError> {
        let breaches = match outcome.breach {
            None => vec![],
            Some(Stop::Listing(error)) => return Err(error.into()),
            Some(Stop::Breach(breach)) => {
                let (event, at_ms) = (outcome.events, outcome.stopped_at_us / 1_000);
                vec![BreachReport {
                    event,
                    at_ms,
                    message: breach.to_string(),
                    breach,
                }]
            }
        };
        let counted =
            |counts: fn(&Breach) -> bool| breaches.iter().filter(|it| counts(&it.breach)).count() as u64;
        let invalid_forwarded = counted(|breach| matches!(breach, Breach::InvalidForwarded { .. }));
        let invalid_shown =
            counted(|breach| matches!(breach, Breach::InvalidTaken { .. } | Breach::InvalidShown { .. }));
        let duration_ms = if breaches.is_empty() {
            self.end_us()
        } else {
            outcome.stopped_at_us
        } / 1_000;
        let figures = self.figures;
        let report = Report {
            question: self.scenario.question,
            answer: String::new(),
            nodes: self.peers.len() as u64,
            seed: self.seed,
            events: outcome.events,
            duration_ms,
            digest: outcome.digest,
            breaches,
            published: figures.published,
            messages_sent: figures.messages_sent,
            messages_lost: figures.messages_lost,
            delivered: Share {
                part: figures.deliveries_in_time,
                whole: figures.expected_deliveries,
            },
            delivery: (&figures.delivery_ms).into(),
            age: (&figures.age_ms).into(),
            gone_shown: figures.gone,
            running_known: figures.known,
            lies_sent: figures
                .lies_sent
                .into_iter()
                .map(|(lie, sent)| (lie.to_string(), sent))
                .collect(),
            invalid_refused: figures.refused,
            invalid_forwarded,
            invalid_shown,
        };
        Ok(report.answered())
    }
}

impl Report {
    fn answered(mut self) -> Self {
        self.answer = self.answer();
        self
    }

    fn answer(&self) -> String {
        if let Some(breach) = self.breaches.first() {
            return format!(
                "The run stopped at event {} ({} ms) because {}. The same scenario with --seed {} breaks again.",
                breach.event, breach.at_ms, breach.message, self.seed
            );
        }
        let seconds = |ms: Option<u64>| {
            ms.map_or_else(
                || "unknown".to_owned(),
                |ms| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
            )
        };
        let lies: u64 = self.lies_sent.values().sum();
        format!(
            "Half of what consumers see is at most {} old and 99 % at most {}; {} of it is of providers already \
             gone. {} of all listings reach a peer within 5 s. Liars sent {lies} messages; none that was invalid was \
             forwarded or shown by an honest peer.",
            seconds(self.age.p50_ms),
            seconds(self.age.p99_ms),
            self.gone_shown.percent(),
            self.delivered.percent(),
        )
    }

    /// The figures for people, as names and values.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, String)> {
        let times = |times: Times| {
            let show = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
            format!("{} / {} ms", show(times.p50_ms), show(times.p99_ms))
        };
        let share = |share: Share| format!("{} ({} of {})", share.percent(), share.part, share.whole);
        let mut rows = vec![
            ("Peers".to_owned(), self.nodes.to_string()),
            (
                "Virtual time".to_owned(),
                format!("{} s", self.duration_ms / 1_000),
            ),
            ("Listings published".to_owned(), self.published.to_string()),
            (
                "Messages sent (lost)".to_owned(),
                format!("{} ({})", self.messages_sent, self.messages_lost),
            ),
            ("On boards within 5 s".to_owned(), share(self.delivered)),
            ("Time to a board, p50 / p99".to_owned(), times(self.delivery)),
            ("Age of what consumers see, p50 / p99".to_owned(), times(self.age)),
            ("Seen, but already gone".to_owned(), share(self.gone_shown)),
            ("Running providers known".to_owned(), share(self.running_known)),
        ];
        rows.extend(
            self.lies_sent
                .iter()
                .map(|(lie, sent)| (format!("Lies sent: {lie}"), sent.to_string())),
        );
        rows.extend([
            (
                "Invalid messages refused".to_owned(),
                self.invalid_refused.to_string(),
            ),
            (
                "Invalid messages forwarded".to_owned(),
                self.invalid_forwarded.to_string(),
            ),
            (
                "Invalid listings shown".to_owned(),
                self.invalid_shown.to_string(),
            ),
            ("Events".to_owned(), self.events.to_string()),
            ("Seed".to_owned(), self.seed.to_string()),
            ("Digest".to_owned(), self.digest.clone()),
        ]);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut distribution = Distribution::default();
        assert_eq!(distribution.percentile(50), None);
        (1..=100).rev().for_each(|value| distribution.add(value));
        assert_eq!(
            (distribution.percentile(50), distribution.percentile(99)),
            (Some(50), Some(99))
        );
        assert_eq!(
            (distribution.percentile(0), distribution.percentile(100)),
            (Some(1), Some(100))
        );
        let mut one = Distribution::default();
        one.add(7);
        assert_eq!((one.percentile(1), one.percentile(99)), (Some(7), Some(7)));
    }

    #[test]
    fn shares_never_flatter() {
        let percent = |part, whole| Share { part, whole }.percent();
        assert_eq!(percent(99_999, 100_000), "99.99 %");
        assert_eq!(percent(1, 1), "100.00 %");
        assert_eq!(percent(1, 3), "33.33 %");
        assert_eq!(percent(0, 0), "none");
    }
}
