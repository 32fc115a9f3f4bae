//! When consumers ask, and for what: a Poisson process whose rate follows the day and bursts, drawn by thinning
//! (P. A. W. Lewis, G. S. Shedler, "Simulation of Nonhomogeneous Poisson Processes by Thinning", 1979).

use serde::{Deserialize, Serialize};

use super::popularity::{ModelSize, Popularity, PopularityConfig};
use crate::engine::Random;

/// Requests of each hour of the local day, in parts of a thousand of the busiest: quiet before dawn, busiest in working
/// hours, with a second rise in the evening. An assumption in the shape that traces of language models show (Y. Wang et
/// al., "BurstGPT", arXiv:2401.17644), not any one's figures.
pub const DAY_PER_MILLE: [u32; 24] = [
    420, 300, 210, 150, 130, 150, 220, 350, 550, 780, 920, 960, 850, 880, 1_000, 990, 950, 880, 760, 740,
    780, 760, 680, 550,
];
const HOUR_US: u64 = 3_600_000_000;
const DAY_US: u64 = 24 * HOUR_US;
/// Most draws for one request. By then a consumer of the quietest hours has asked with near certainty; the rest asks at
/// the end of them.
const DRAWS_MAX: u32 = 1_000;

/// A time in which all consumers ask more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// When it begins, in seconds.
    pub from_s: u64,
    /// How long it takes, in seconds.
    pub for_s: u64,
    /// How many times as often they ask, at least 1.
    pub times: u32,
}

/// What a scenario says about demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DemandConfig {
    /// Seconds from one request of a consumer to the next, on average at the busiest hour.
    pub every_s: u32,
    /// Whether the day counts: if not, every hour is the busiest.
    pub follows_day: bool,
    /// Bursts.
    pub bursts: Vec<Burst>,
    /// Which models are asked for.
    pub popularity: PopularityConfig,
    /// What kind of requests they are.
    pub kind: RequestKind,
}

impl Default for DemandConfig {
    fn default() -> Self {
        Self {
            every_s: 60,
            follows_day: true,
            bursts: Vec::new(),
            popularity: PopularityConfig::default(),
            kind: RequestKind::Conversation,
        }
    }
}

/// How long prompts and answers are, after two production traces (P. Patel et al., "Splitwise", ISCA 2024; the
/// medians are the paper's, 1,020 and 129 tokens of conversations, 1,500 and 13 of code; the other points are assumptions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// People talk with a model.
    #[default]
    Conversation,
    /// A program completes code.
    Code,
}

impl RequestKind {
    /// Tokens at the quantiles 0, 0.25, 0.5, 0.75, 0.9 and 1: of the prompt, then of the answer.
    const fn quantiles(self) -> ([u32; 6], [u32; 6]) {
        match self {
            Self::Conversation => (
                [50, 400, 1_020, 1_800, 3_000, 4_096],
                [10, 80, 129, 250, 430, 1_000],
            ),
            Self::Code => ([200, 900, 1_500, 2_900, 4_800, 7_400], [4, 8, 13, 28, 60, 400]),
        }
    }
}

/// What a consumer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Of which model.
    pub model: ModelSize,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
}

/// When a consumer asks, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    config: DemandConfig,
    popularity: Popularity,
}

impl Demand {
    /// The demand of a scenario.
    #[must_use]
    pub fn new(config: &DemandConfig) -> Self {
        Self {
            popularity: Popularity::new(&config.popularity),
            config: config.clone(),
        }
    }

    /// When a consumer asks next, in microseconds of virtual time, after `now_us`. `utc_offset_minutes` says how far its
    /// clock is ahead of virtual time's first hour, which is midnight in UTC.
    #[must_use]
    pub fn next_request_us(&self, now_us: u64, utc_offset_minutes: i32, random: &mut Random) -> u64 {
        let most = self.times_max();
        // A gap is a microsecond at least, so that time passes whatever a scenario says.
        let mean_us = (u64::from(self.config.every_s) * 1_000_000 / u64::from(most)).max(1);
        let mut at_us = now_us;
        for _ in 0..DRAWS_MAX {
            at_us = at_us.saturating_add(random.exponential(mean_us).max(1));
            let rate = self.rate_per_mille(at_us, utc_offset_minutes);
            if random.below(1_000 * u64::from(most)) < rate {
                return at_us;
            }
        }
        at_us
    }

    /// How often a consumer asks at a time, in parts of a thousand of the busiest hour without bursts.
    #[must_use]
    pub fn rate_per_mille(&self, at_us: u64, utc_offset_minutes: i32) -> u64 {
        let day = match self.config.follows_day {
            true => day_per_mille(at_us, utc_offset_minutes),
            false => 1_000,
        };
        day * u64::from(self.times(at_us))
    }

    /// What a consumer asks for.
    #[must_use]
    pub fn request(&self, random: &mut Random) -> Request {
        let (inputs, outputs) = self.config.kind.quantiles();
        Request {
            model: self.popularity.draw(random),
            input_tokens: of_quantiles(&inputs, random),
            output_tokens: of_quantiles(&outputs, random),
        }
    }

    fn times(&self, at_us: u64) -> u32 {
        let at_s = at_us / 1_000_000;
        let now = |burst: &&Burst| at_s >= burst.from_s && at_s - burst.from_s < burst.for_s;
        let bursts = self.config.bursts.iter().filter(now);
        bursts.map(|burst| burst.times).max().unwrap_or(1).max(1)
    }

    fn times_max(&self) -> u32 {
        let bursts = self.config.bursts.iter().map(|burst| burst.times);
        bursts.max().unwrap_or(1).max(1)
    }
}

/// The day's course at a time, with straight lines between the hours.
fn day_per_mille(at_us: u64, utc_offset_minutes: i32) -> u64 {
    let offset_us = i64::from(utc_offset_minutes) * 60_000_000;
    let at_us = (at_us % DAY_US)
        .saturating_add(DAY_US)
        .saturating_add_signed(offset_us)
        % DAY_US;
    let hour = usize::try_from(at_us / HOUR_US).unwrap_or(0);
    let value = |hour: usize| u64::from(DAY_PER_MILLE.get(hour % 24).copied().unwrap_or(0));
    let into_us = at_us % HOUR_US;
    (value(hour) * (HOUR_US - into_us) + value(hour + 1) * into_us) / HOUR_US
}

/// A number between two neighbouring quantiles, drawn evenly.
fn of_quantiles(points: &[u32; 6], random: &mut Random) -> u32 {
    const BOUNDS: [u64; 6] = [0, 250, 500, 750, 900, 1_000];
    let at = random.below(1_000);
    let next = BOUNDS.partition_point(|bound| *bound <= at).min(5);
    let (low, high) = (u64::from(points[next - 1]), u64::from(points[next]));
    let drawn = low + (high - low) * (at - BOUNDS[next - 1]) / (BOUNDS[next] - BOUNDS[next - 1]);
    u32::try_from(drawn).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests_by_hour(config: &DemandConfig, consumers: u64, offset: i32) -> [u32; 24] {
        let demand = Demand::new(config);
        let mut hours = [0; 24];
        for consumer in 0..consumers {
            let mut random = Random::of_purpose(7, "demand", consumer);
            let mut at_us = 0;
            loop {
                at_us = demand.next_request_us(at_us, offset, &mut random);
                if at_us >= DAY_US {
                    break;
                }
                hours[(at_us / HOUR_US) as usize] += 1;
            }
        }
        hours
    }

    #[test]
    fn requests_follow_the_day_of_the_place() {
        let config = DemandConfig::default();
        let hours = requests_by_hour(&config, 100, 0);
        // 6,000 requests an hour at 1,000 per mille: between the points lies the mean of both ends.
        for (hour, asked) in hours.iter().enumerate() {
            let expected = 3 * (DAY_PER_MILLE[hour] + DAY_PER_MILLE[(hour + 1) % 24]);
            assert!(asked.abs_diff(expected) < 250, "{hour}: {asked} {expected}");
        }
        let shifted = requests_by_hour(&config, 100, -8 * 60);
        assert!(shifted[12] < hours[12] / 3, "{shifted:?}");
    }

    #[test]
    fn a_burst_multiplies_what_is_asked() {
        let config = DemandConfig {
            every_s: 600,
            follows_day: false,
            bursts: vec![Burst {
                from_s: 10 * 3_600,
                for_s: 3_600,
                times: 20,
            }],
            ..DemandConfig::default()
        };
        let hours = requests_by_hour(&config, 100, 0);
        assert!(hours[9].abs_diff(600) < 120, "{hours:?}");
        assert!(hours[10].abs_diff(12_000) < 500, "{hours:?}");
        assert!(hours[11].abs_diff(600) < 120, "{hours:?}");
    }

    #[test]
    fn lengths_have_their_medians() {
        for (kind, input, output) in [
            (RequestKind::Conversation, 1_020, 129),
            (RequestKind::Code, 1_500, 13),
        ] {
            let demand = Demand::new(&DemandConfig {
                kind,
                ..DemandConfig::default()
            });
            let mut random = Random::of_purpose(7, "lengths", 0);
            let requests: Vec<_> = (0..10_001).map(|_| demand.request(&mut random)).collect();
            let median = |field: fn(&Request) -> u32| {
                let mut all: Vec<_> = requests.iter().map(field).collect();
                all.sort_unstable();
                all[5_000]
            };
            assert!(median(|request| request.input_tokens).abs_diff(input) < input / 20);
            assert!(median(|request| request.output_tokens).abs_diff(output) <= output / 10);
        }
    }

    #[test]
    fn time_passes_whatever_a_scenario_says() {
        let demand = Demand::new(&DemandConfig {
            every_s: 0,
            ..DemandConfig::default()
        });
        let mut random = Random::of_purpose(7, "demand", 0);
        assert!(demand.next_request_us(5, 14 * 60, &mut random) > 5);
        assert!(demand.next_request_us(u64::MAX, -12 * 60, &mut random) == u64::MAX);
    }
}
