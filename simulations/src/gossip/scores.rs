//! What a peer thinks of its neighbours (gossipsub v1.1's score function, the parts that the shipped mesh uses).

use serde::{Deserialize, Serialize};

use super::configuration::{FORGOTTEN_BELOW, Settings, power};
use super::peer::Peer;
use super::{Link, Links};

/// What is held for and against a neighbour beyond its time in the mesh. Counts fade with each heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) link: Link,
    /// The heartbeat up to which the counts have faded.
    pub(super) beat: u32,
    pub(super) first_deliveries: f32,
    pub(super) invalid: f32,
    pub(super) bad_manners: f32,
}

impl Standing {
    const fn new(link: Link, beat: u32) -> Self {
        Self {
            link,
            beat,
            first_deliveries: 0.0,
            invalid: 0.0,
            bad_manners: 0.0,
        }
    }

    /// As it is at a later heartbeat.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a score needs no more than seven digits"
    )]
    pub(super) fn faded(self, beat: u32, settings: &Settings) -> Self {
        let left = power(settings.decay, u64::from(beat.saturating_sub(self.beat)));
        let fade = |count: f32| {
            let count = (f64::from(count) * left) as f32;
            if count < FORGOTTEN_BELOW { 0.0 } else { count }
        };
        Self {
            link: self.link,
            beat: self.beat.max(beat),
            first_deliveries: fade(self.first_deliveries),
            invalid: fade(self.invalid),
            bad_manners: fade(self.bad_manners),
        }
    }

    pub(super) const fn is_blank(&self) -> bool {
        self.first_deliveries == 0.0 && self.invalid == 0.0 && self.bad_manners == 0.0
    }
}

impl Peer {
    /// The score of a neighbour at a heartbeat, in points.
    #[must_use]
    pub fn score(&self, link: Link, beat: u32, settings: &Settings) -> f64 {
        if !settings.config.judge {
            return 0.0;
        }
        let config = &settings.config.scores;
        let mut points = self.time_points(link, beat, settings);
        let standing = self
            .memory
            .as_ref()
            .and_then(|memory| memory.standings.iter().find(|standing| standing.link == link));
        let Some(standing) = standing.map(|standing| standing.faded(beat, settings)) else {
            return points.min(whole(config.topic_max.get()));
        };
        let first = f64::from(standing.first_deliveries).min(whole(config.first_deliveries_max.get()));
        let invalid = f64::from(standing.invalid);
        points += first * config.first_delivery.get();
        points -= invalid * invalid * whole(config.invalid_cost.get());
        points = points.min(whole(config.topic_max.get()));
        let excess = f64::from(standing.bad_manners) - whole(config.manners_free.get());
        if excess > 0.0 {
            points -= excess * excess * whole(config.manners_cost.get());
        }
        points
    }

    fn time_points(&self, link: Link, beat: u32, settings: &Settings) -> f64 {
        let config = &settings.config.scores;
        let beats = self.beats_in_mesh(link, beat).unwrap_or(0);
        let seconds = u64::from(beats) * settings.heartbeat_us / 1_000_000;
        whole(seconds.min(config.seconds_in_mesh_max.get())) * config.second_in_mesh.get()
    }

    /// Those of some neighbours whose score is at least so many points.
    pub(super) fn with_score(&self, links: Links, points: f64, beat: u32, settings: &Settings) -> Links {
        // Whom nothing is held against has no negative score, and nearly all are asked for that.
        if points <= 0.0
            && self
                .memory
                .as_ref()
                .is_none_or(|memory| memory.standings.is_empty())
        {
            return links;
        }
        links.filter(|link| self.score(link, beat, settings) >= points)
    }

    /// The median score of the mesh.
    pub(super) fn median_score(&self, beat: u32, settings: &Settings) -> f64 {
        let mut scores: Vec<f64> = self
            .mesh()
            .iter()
            .map(|link| self.score(link, beat, settings))
            .collect();
        scores.sort_by(f64::total_cmp);
        let middle = scores.len() / 2;
        match (scores.len() % 2, scores.get(middle)) {
            (_, None) => 0.0,
            (1, Some(score)) => *score,
            (_, Some(score)) => (scores[middle - 1] + score) / 2.0,
        }
    }

    /// Changes what is held for or against a neighbour.
    pub(super) fn judge(
        &mut self,
        link: Link,
        beat: u32,
        settings: &Settings,
        change: impl FnOnce(&mut Standing),
    ) {
        if !settings.config.judge {
            return;
        }
        let standings = &mut self.memory.get_or_insert_default().standings;
        let place = standings
            .iter()
            .position(|standing| standing.link == link)
            .unwrap_or_else(|| {
                standings.push(Standing::new(link, beat));
                standings.len() - 1
            });
        let standing = &mut standings[place];
        *standing = standing.faded(beat, settings);
        change(standing);
    }
}

/// A number of points or of anything else that is far below 2^52.
pub(super) fn whole(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}
