//! What is claimed of what was measured: a part of the slowest that was seen.
//!
//! A coordinator refuses whoever takes a quarter longer than claimed, and a machine may be slower in a minute than it
//! is now: it warms up, or something else begins to run. Claiming less costs an honest owner little, because a
//! certificate carries the throughput that was reached and not the one that was claimed.

use std::time::Duration;

use thiserror::Error;

/// How many percent of the measured throughput are claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimPercent(u32);

/// A percentage that nobody can claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} % of the measured throughput can't be claimed; say 1 to 100")]
pub struct ClaimPercentError(pub u32);

impl ClaimPercent {
    /// Leaves a fifth: with the quarter that a coordinator allows, a device may become half again as slow.
    pub const DEFAULT: Self = Self(80);

    /// A percentage from 1 to 100.
    ///
    /// # Errors
    /// [`ClaimPercentError`] for any other number.
    pub const fn new(percent: u32) -> Result<Self, ClaimPercentError> {
        match percent {
            1..=100 => Ok(Self(percent)),
            _ => Err(ClaimPercentError(percent)),
        }
    }

    /// As a number from 1 to 100.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Two thirds of it: for a device that was too slow for it.
    #[must_use]
    pub fn lowered(self) -> Self {
        Self((self.0 * 2 / 3).max(1))
    }

    /// So much of a rate, at least one.
    #[must_use]
    pub fn of(self, rate: u64) -> u64 {
        let part = u128::from(rate) * u128::from(self.0) / 100;
        u64::try_from(part).unwrap_or(u64::MAX).max(1)
    }
}

impl Default for ClaimPercent {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Fewest parts of a measurement: a single one says nothing about the next.
const PARTS_MIN: u32 = 2;
/// Most parts of a measurement.
const PARTS_MAX: u32 = 12;
/// How long a measurement takes at least.
const MEASURED_MIN: Duration = Duration::from_millis(400);
/// After this long a measurement is not prolonged any more.
const MEASURED_MAX: Duration = Duration::from_secs(4);

/// The parts of a measurement in one precision, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calibration {
    parts: u32,
    multiply_adds: u128,
    took: Duration,
    slowest: u64,
    fastest: u64,
}

impl Calibration {
    /// One more part: what was computed in it, and in what time.
    pub(super) fn add(&mut self, multiply_adds: u128, took: Duration) {
        let rate = rate(multiply_adds, took);
        self.slowest = match self.parts {
            0 => rate,
            _ => self.slowest.min(rate),
        };
        self.fastest = self.fastest.max(rate);
        self.parts += 1;
        self.multiply_adds = self.multiply_adds.saturating_add(multiply_adds);
        self.took = self.took.saturating_add(took);
    }

    /// Whether that is enough: longer where the parts differ by more than a quarter, because something else runs too.
    pub(super) fn is_enough(&self) -> bool {
        if self.parts < PARTS_MIN || self.took < MEASURED_MIN {
            return false;
        }
        let is_steady = u128::from(self.fastest) * 4 <= u128::from(self.slowest) * 5;
        is_steady || self.parts >= PARTS_MAX || self.took >= MEASURED_MAX
    }

    /// Multiply-adds per second in all.
    pub(super) fn average(&self) -> u64 {
        rate(self.multiply_adds, self.took)
    }

    /// Multiply-adds per second in the slowest part.
    pub(super) const fn slowest(&self) -> u64 {
        self.slowest
    }
}

/// Multiply-adds per second.
pub(super) fn rate(multiply_adds: u128, took: Duration) -> u64 {
    let rate = multiply_adds.saturating_mul(1_000_000_000) / took.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibrated(milliseconds: &[u64]) -> Calibration {
        let mut calibration = Calibration::default();
        for took in milliseconds {
            calibration.add(1_000, Duration::from_millis(*took));
        }
        calibration
    }

    #[test]
    fn percentages_are_bounded_and_never_fall_to_nothing() {
        assert_eq!(ClaimPercent::new(0), Err(ClaimPercentError(0)));
        assert_eq!(ClaimPercent::new(101), Err(ClaimPercentError(101)));
        let mut percent = ClaimPercent::new(100).unwrap();
        for lowered in [66, 44, 29] {
            percent = percent.lowered();
            assert_eq!(percent.get(), lowered);
        }
        assert_eq!(ClaimPercent::new(1).unwrap().lowered().get(), 1);
        assert_eq!(ClaimPercent::DEFAULT.of(1_000), 800);
        assert_eq!(ClaimPercent::DEFAULT.of(0), 1);
        assert_eq!(ClaimPercent::new(100).unwrap().of(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_steady_device_is_measured_briefly_and_any_other_one_longer() {
        assert!(!calibrated(&[]).is_enough());
        assert!(
            !calibrated(&[5_000]).is_enough(),
            "one part says nothing of the next"
        );
        assert!(!calibrated(&[150, 150]).is_enough(), "too short");
        assert!(calibrated(&[160, 160, 200]).is_enough());
        assert!(!calibrated(&[160, 160, 201]).is_enough(), "a quarter apart");
        assert!(
            calibrated(&[160, 160, 4_000]).is_enough(),
            "it comes to an end by time"
        );
        let restless: Vec<u64> = (0..12).map(|part| 40 + part * 10).collect();
        assert!(!calibrated(&restless[..11]).is_enough());
        assert!(calibrated(&restless).is_enough(), "it comes to an end by parts");
    }

    #[test]
    fn the_slowest_part_counts() {
        let calibration = calibrated(&[100, 400, 500]);
        assert_eq!((calibration.slowest(), calibration.average()), (2_000, 3_000));
    }
}
