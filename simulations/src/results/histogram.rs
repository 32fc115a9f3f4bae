//! Counts of values in buckets that grow with the value, so that a million values take little memory and a quantile
//! read from them is off by 3 % at most. Whole numbers only: the same on every machine.

use serde::{Deserialize, Serialize};

use super::Distribution;

/// Buckets to each doubling, as a power of two.
const PRECISION: u32 = 5;
const IN_A_DOUBLING: u64 = 1 << PRECISION;

/// How often values of some size were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// By bucket. As long as the largest value asks, 1,920 at most.
    counts: Vec<u64>,
}

/// The bucket of a value: exact below 64, then 32 to each doubling.
fn bucket(value: u64) -> usize {
    let doublings = value.checked_ilog2().unwrap_or(0).saturating_sub(PRECISION);
    let place = u64::from(doublings) * IN_A_DOUBLING + (value >> doublings);
    // Below 64 * 32 whatever the value is.
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let place = bucket as u64;
    let doublings = (place / IN_A_DOUBLING).saturating_sub(1);
    let first = (place - doublings * IN_A_DOUBLING) << doublings;
    first + ((1 << doublings) - 1)
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        let bucket = bucket(value);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
    }

    /// Counts what another one has counted.
    pub fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value that a share of all values is not above, from 0 to 1; `None` where nothing was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let wanted = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            seen += count;
            if seen as f64 >= wanted {
                return Some(upper(bucket));
            }
        }
        None
    }

    /// The counts under a name, each bucket's limit multiplied by `scale`, such as 1e-6 from microseconds to seconds.
    #[must_use]
    pub fn distribution(&self, name: &str, unit: &str, scale: f64) -> Distribution {
        let used = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        Distribution {
            name: name.to_owned(),
            unit: unit.to_owned(),
            buckets: used
                .map(|(bucket, count)| (upper(bucket) as f64 * scale, *count))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_values_are_exact_and_the_largest_fits() {
        let mut histogram = Histogram::default();
        for value in [0, 1, 63, 63, u64::MAX] {
            histogram.record(value);
        }
        assert_eq!(histogram.quantile(0.0), Some(0));
        assert_eq!(histogram.quantile(0.8), Some(63));
        assert_eq!(histogram.quantile(1.0), Some(u64::MAX));
        assert!(histogram.counts.len() <= 1_920);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn a_value_is_at_most_3_percent_below_its_buckets_limit(value: u64) {
            let limit = upper(bucket(value));
            prop_assert!(limit >= value && limit - value <= value / 32);
            prop_assert!(limit == u64::MAX || bucket(limit + 1) == bucket(value) + 1);
        }

        #[test]
        fn adding_is_counting_both(values in prop::collection::vec(any::<u32>(), 0..50), split in 0usize..50) {
            let (mut all, mut first, mut second) = Default::default();
            for (index, value) in values.iter().enumerate() {
                Histogram::record(&mut all, u64::from(*value));
                let part: &mut Histogram = if index < split { &mut first } else { &mut second };
                part.record(u64::from(*value));
            }
            first.add(&second);
            prop_assert_eq!(first.count(), values.len() as u64);
            prop_assert_eq!(first, all);
        }
    }
}
