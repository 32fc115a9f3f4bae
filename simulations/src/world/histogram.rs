//! Counts of whole numbers in parts that grow with the number, so that a million of them take little memory. Whole numbers
//! only: the same on every machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many parts each doubling of a [`Histogram`] is cut into.
const PARTS: u64 = 16;

/// Counts of whole numbers, exact to one part in 16.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    counts: BTreeMap<u16, u64>,
    total: u64,
    sum: u128,
}

impl Histogram {
    /// Counts a number.
    pub fn add(&mut self, number: u64) {
        *self.counts.entry(bucket(number)).or_insert(0) += 1;
        self.total += 1;
        self.sum += u128::from(number);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_insert(0) += count;
        }
        self.total += other.total;
        self.sum += other.sum;
    }

    /// How many numbers were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.total
    }

    /// Their mean; nothing where there are none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn mean(&self) -> Option<f64> {
        (self.total > 0).then(|| self.sum as f64 / self.total as f64)
    }

    /// A number that this share of them is not above; nothing where there are none.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let wanted = ((self.total as f64 * share) as u64).max(1);
        let mut counted = 0;
        self.counts.iter().find_map(|(bucket, count)| {
            counted += count;
            (counted >= wanted).then(|| value(*bucket))
        })
    }

    /// The upper ends of the parts that have any, and how many they have.
    pub fn parts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(bucket, count)| (value(*bucket), *count))
    }
}

/// The part that a number is in.
fn bucket(number: u64) -> u16 {
    if number < PARTS {
        return u16::try_from(number).unwrap_or(0);
    }
    let doubling = u64::from(number.ilog2());
    let part = (number >> (doubling - 4)) - PARTS;
    u16::try_from((doubling - 3) * PARTS + part).unwrap_or(u16::MAX)
}

/// The largest number of a part.
fn value(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    let above = (u128::from(bucket % PARTS + PARTS) + 1) << shift;
    u64::try_from(above - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_part_holds_its_numbers_to_a_sixteenth(number: u64) {
            let upper = value(bucket(number));
            prop_assert!(upper >= number && upper - number <= number / 16);
            prop_assert!(number == 0 || value(bucket(number) - 1) < number);
        }
    }

    #[test]
    fn quantiles_are_what_they_are_called() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.mean()), (None, None));
        (1..=100).for_each(|number| histogram.add(number));
        assert_eq!(histogram.mean(), Some(50.5));
        let median = histogram.quantile(0.5).unwrap();
        assert!((50..=53).contains(&median), "{median}");
        assert!((100..=103).contains(&histogram.quantile(1.0).unwrap()));
    }
}
