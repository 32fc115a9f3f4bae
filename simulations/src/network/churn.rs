//! Nodes that come and go, by day and by night.

use serde::Deserialize;

use super::Region;
use crate::engine::random::Random;
use crate::scenario::{Bounded, Fraction};

/// How nodes come and go.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChurnConfig {
    /// The median time that a node stays, in minutes.
    pub session_median_min: Bounded<1, 43_200>,
    /// The mean time that it is away in the busiest hour, in minutes.
    pub absence_mean_min: Bounded<1, 43_200>,
    /// How much fewer come back in the quietest hour: 0 is no night, 1 is nobody.
    pub night: Fraction,
    /// Share of those leaving that crash and say nothing.
    pub crash: Fraction,
}

impl Default for ChurnConfig {
    fn default() -> Self {
        Self {
            session_median_min: Bounded::nearest(120),
            absence_mean_min: Bounded::nearest(240),
            night: Fraction::percent(70),
            crash: Fraction::percent(20),
        }
    }
}

/// How busy each local hour is, in hundredths of the busiest. A guess with the shape of home traffic: a low at four in the morning,
/// a high at nine in the evening.
const BUSY: [u8; 24] = [
    60, 40, 20, 8, 0, 4, 12, 25, 40, 50, 55, 60, 65, 65, 65, 68, 72, 78, 85, 92, 98, 100, 95, 80,
];

/// Longest time that a node stays or is away: 30 days.
const LONGEST_US: u64 = 2_592_000_000_000;
const MINUTE_US: u64 = 60_000_000;
/// How often a node that would come back at night looks again.
const LOOKS_MAX: u32 = 1_000;

/// How nodes come and go.
#[derive(Clone, Debug)]
pub struct Churn(ChurnConfig);

impl Churn {
    /// As a scenario says.
    #[must_use]
    pub const fn new(config: ChurnConfig) -> Self {
        Self(config)
    }

    /// How long a node stays, in microseconds: most leave soon, a few stay for days.
    ///
    /// The distribution is Weibull's with a shape of one half; that sessions are about so heavy-tailed was found of three
    /// file-sharing networks (D. Stutzbach and R. Rejaie, "Understanding Churn in Peer-to-Peer Networks", 2006). The square of how
    /// often a random number can be doubled before it reaches one is of that distribution, so no logarithm is needed.
    #[must_use]
    pub fn session_us(&self, random: &mut Random) -> u64 {
        let bits = random.bits() | 1;
        let doublings = u64::from(bits.leading_zeros());
        // What is left of the last doubling, linear between powers of two, in parts of 2^16.
        let rest = (bits << doublings << 1) >> 48;
        let log = u128::from((doublings + 1) * 65_536 - rest);
        let median_us = u128::from(self.0.session_median_min.get() * MINUTE_US);
        let session_us = (median_us * log * log) >> 32;
        u64::try_from(session_us).map_or(LONGEST_US, |us| us.clamp(1, LONGEST_US))
    }

    /// How long a node that leaves now is away, in microseconds. It comes back rather by day than by night.
    #[must_use]
    pub fn absence_us(&self, region: Region, now_us: u64, random: &mut Random) -> u64 {
        let mut away_us = 0_u64;
        for _ in 0..LOOKS_MAX {
            away_us = away_us
                .saturating_add(random.exponential(self.0.absence_mean_min.get() * MINUTE_US))
                .min(LONGEST_US);
            let hour = region.local_hour(now_us.saturating_add(away_us));
            if away_us == LONGEST_US || random.chance(self.busy(hour)) {
                break;
            }
        }
        away_us.max(1)
    }

    /// How busy an hour is, from 0 to 1.
    #[must_use]
    pub fn busy(&self, hour: usize) -> f64 {
        let quiet = 1.0 - f64::from(BUSY[hour % 24]) / 100.0;
        1.0 - self.0.night.get() * quiet
    }

    /// Whether a node that leaves crashes.
    #[must_use]
    pub fn crashes(&self, random: &mut Random) -> bool {
        random.chance(self.0.crash.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_heavy_tailed_around_their_median() {
        let churn = Churn::new(ChurnConfig::default());
        let mut random = Random::of_purpose(3, "session", 0);
        let mut sessions: Vec<u64> = (0..40_000).map(|_| churn.session_us(&mut random)).collect();
        sessions.sort_unstable();
        let minutes = |thousandth: usize| sessions[thousandth * 40] / MINUTE_US;
        // Of a Weibull distribution of shape 1/2: log2(4)^2 = 4 and log2(16)^2 = 16 medians.
        assert!((114..=126).contains(&minutes(500)), "{}", minutes(500));
        assert!((456..=504).contains(&minutes(750)), "{}", minutes(750));
        assert!((1_780..=2_060).contains(&minutes(937)), "{}", minutes(937));
    }

    #[test]
    fn more_come_back_in_the_evening_than_at_night() {
        let config = ChurnConfig {
            absence_mean_min: Bounded::nearest(60),
            night: Fraction::percent(90),
            ..ChurnConfig::default()
        };
        let churn = Churn::new(config);
        let mut random = Random::of_purpose(4, "absence", 0);
        let mut hours = [0_u32; 24];
        for hour in 0..20_000 {
            let now_us = hour * 37 * MINUTE_US;
            let away_us = churn.absence_us(Region::Japan, now_us, &mut random);
            hours[Region::Japan.local_hour(now_us + away_us)] += 1;
        }
        assert!(hours[21] > 3 * hours[4], "{hours:?}");
        assert_eq!(churn.busy(21), 1.0);
    }
}
