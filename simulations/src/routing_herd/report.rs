//! What the herd did, and the answer to the scenario's question.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Scenario;
use crate::listing_gossip::Share;

/// What a run counts while it goes.
#[derive(Debug)]
pub(super) struct Figures {
    asked: Vec<u64>,
    /// By second and provider.
    in_second: BTreeMap<(u64, usize), u64>,
    refused: Share,
    unserved: Share,
}

/// What one policy made of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyReport {
    /// How many events happened.
    pub events: u64,
    /// BLAKE3 over everything that happened, in hexadecimal.
    pub digest: String,
    /// How often the provider was asked that was asked most, of how many.
    pub largest_share: Share,
    /// The most that one provider was asked within a second.
    pub most_in_a_second: u64,
    /// How often somebody was asked who had no slot free.
    pub refused: Share,
    /// Requests that nobody took.
    pub unserved: Share,
}

/// Everything that a run found out. The same scenario and seed give the same report on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The scenario's question.
    pub question: String,
    /// The answer in a sentence.
    pub answer: String,
    /// The seed.
    pub seed: u64,
    /// How many asked.
    pub consumers: u64,
    /// How many served.
    pub providers: u64,
    /// With the policy that clients run.
    pub shipped: PolicyReport,
    /// With the one that always asks who looks best.
    pub always_the_best: PolicyReport,
}

impl Figures {
    pub(super) fn new(providers: usize) -> Self {
        Self {
            asked: vec![0; providers],
            in_second: BTreeMap::new(),
            refused: Share::default(),
            unserved: Share::default(),
        }
    }

    pub(super) fn asked(&mut self, provider: usize, second: u64, has_room: bool) {
        self.asked[provider] += 1;
        *self.in_second.entry((second, provider)).or_insert(0) += 1;
        self.refused.count(!has_room);
    }

    pub(super) fn request(&mut self, is_served: bool) {
        self.unserved.count(!is_served);
    }

    pub(super) fn report(&self, events: u64, digest: String) -> PolicyReport {
        PolicyReport {
            events,
            digest,
            largest_share: Share {
                part: self.asked.iter().copied().max().unwrap_or(0),
                whole: self.asked.iter().sum(),
            },
            most_in_a_second: self.in_second.values().copied().max().unwrap_or(0),
            refused: self.refused,
            unserved: self.unserved,
        }
    }
}

impl Report {
    pub(super) fn new(
        scenario: &Scenario,
        seed: u64,
        shipped: PolicyReport,
        always_the_best: PolicyReport,
    ) -> Self {
        let answer = format!(
            "The provider that was asked most got {} of all that was asked, {} times within one second at most; always \
             asking who looks best, {} and {} times.",
            shipped.largest_share.percent(),
            shipped.most_in_a_second,
            always_the_best.largest_share.percent(),
            always_the_best.most_in_a_second,
        );
        Self {
            question: scenario.question.clone(),
            answer,
            seed,
            consumers: scenario.consumers.count.get(),
            providers: scenario.providers.count.get(),
            shipped,
            always_the_best,
        }
    }

    /// The figures of both policies, each with its name.
    #[must_use]
    pub fn rows(&self) -> Vec<[String; 3]> {
        let of = |name: &str, figure: fn(&PolicyReport) -> String| {
            [
                name.to_owned(),
                figure(&self.shipped),
                figure(&self.always_the_best),
            ]
        };
        vec![
            ["".into(), "shipped policy".into(), "always the best".into()],
            of("largest share of one provider", |policy| {
                policy.largest_share.percent()
            }),
            of("most asked of one within a second", |policy| {
                policy.most_in_a_second.to_string()
            }),
            of("asked who had no slot free", |policy| policy.refused.percent()),
            of("requests that nobody took", |policy| policy.unserved.percent()),
            of("digest", |policy| policy.digest.clone()),
        ]
    }
}
