//! How many openings it takes: whoever leaves out a share s of a stage's units is missed by k openings with
//! probability (1 - s)^k. In integers, as bounds that hold, because parameters and verdicts hang on it.

/// Binary digits after the point of a [`Probability`].
const FRACTION_BITS: u32 = 96;
const ONE: u128 = 1 << FRACTION_BITS;

/// A share of the work: a fraction of at most 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    part: u32,
    whole: u32,
}

impl Share {
    /// `part` of `whole`. `None` unless `part` is at most `whole` and `whole` is from 1 to 2^31.
    #[must_use]
    pub const fn new(part: u32, whole: u32) -> Option<Self> {
        if part <= whole && whole >= 1 && whole <= 1 << 31 {
            Some(Self { part, whole })
        } else {
            None
        }
    }

    /// So many hundredths. `None` above 100.
    #[must_use]
    pub const fn percent(percent: u32) -> Option<Self> {
        Self::new(percent, 100)
    }
}

/// A probability between two bounds that differ by far less than 2^-80.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probability {
    low: u128,
    high: u128,
}

impl Probability {
    const CERTAIN: Self = Self { low: ONE, high: ONE };

    /// Whether it is at most 2^-bits, for certain.
    #[must_use]
    pub const fn is_at_most_two_to_minus(self, bits: u32) -> bool {
        bits <= FRACTION_BITS && self.high <= ONE >> bits
    }

    /// Whether it is above 2^-bits, for certain.
    #[must_use]
    pub const fn is_above_two_to_minus(self, bits: u32) -> bool {
        bits <= FRACTION_BITS && self.low > ONE >> bits
    }

    /// Both happen, independently of each other.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            low: scaled_product(self.low, other.low),
            high: scaled_product(self.high, other.high).saturating_add(2),
        }
    }

    /// For reports: close to it, never for a verdict.
    #[allow(clippy::cast_precision_loss, reason = "for people; 53 bits of it are plenty")]
    #[must_use]
    pub fn approximate(self) -> f64 {
        self.high as f64 / ONE as f64
    }

    /// One of the remaining share, rounded down and up.
    const fn step(self, share: Share) -> Self {
        // At most 2^96 times 2^31.
        let (left, whole) = ((share.whole - share.part) as u128, share.whole as u128);
        Self {
            low: self.low * left / whole,
            high: (self.high * left).div_ceil(whole),
        }
    }
}

/// The product of two numbers with 96 digits after the point, at most 1 each, less than 2 * 2^-96 too small.
const fn scaled_product(left: u128, right: u128) -> u128 {
    const HALF: u32 = FRACTION_BITS / 2;
    const MASK: u128 = (1 << HALF) - 1;
    let (left_high, left_low) = (left >> HALF, left & MASK);
    let (right_high, right_low) = (right >> HALF, right & MASK);
    let middle = left_high * right_low + left_low * right_high + ((left_low * right_low) >> HALF);
    left_high * right_high + (middle >> HALF)
}

/// The probability that `openings` units, each drawn uniformly from all of a stage, all miss the share of units that
/// was left out.
#[must_use]
pub fn miss(share: Share, openings: u32) -> Probability {
    (0..openings).fold(Probability::CERTAIN, |probability, _| probability.step(share))
}

/// The fewest openings whose probability to miss a share is at most 2^-bits. `None` where it takes more than `most`.
#[must_use]
pub fn openings_for(share: Share, bits: u32, most: u32) -> Option<u32> {
    let mut probability = Probability::CERTAIN;
    for openings in 0..=most {
        if probability.is_at_most_two_to_minus(bits) {
            return Some(openings);
        }
        probability = probability.step(share);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn five_percent_and_two_to_the_minus_20_take_271() {
        let share = Share::percent(5).unwrap();
        assert_eq!(openings_for(share, 20, 1024), Some(271));
        assert!(miss(share, 271).is_at_most_two_to_minus(20));
        assert!(miss(share, 270).is_above_two_to_minus(20));
        assert_eq!(openings_for(share, 20, 270), None);
        assert_eq!(openings_for(Share::percent(0).unwrap(), 20, 1024), None);
        assert_eq!(openings_for(Share::percent(100).unwrap(), 20, 1024), Some(1));
        assert_eq!(openings_for(Share::percent(1).unwrap(), 20, 2048), Some(1380));
    }

    /// A unit that was left out may be guessed: the largest chance is that of one missing entry of bf16 results, below
    /// 2^-8 (`docs/PROOF.md`). That changes nothing at 271.
    #[test]
    fn guessing_does_not_help() {
        // 5 % left out, of which 2^-8 are right by chance: 5 * 255 of 100 * 256.
        let share = Share::new(5 * 255, 100 * 256).unwrap();
        assert!(miss(share, 272).is_at_most_two_to_minus(20));
        assert!(!miss(share, 271).is_above_two_to_minus(19));
    }

    #[test]
    fn only_fractions_are_shares() {
        assert_eq!(Share::new(1, 0), None);
        assert_eq!(Share::new(2, 1), None);
        assert_eq!(Share::percent(101), None);
        assert!(Share::new(1 << 31, 1 << 31).is_some());
        assert_eq!(Share::new(1, (1 << 31) + 1), None);
    }

    proptest! {
        #[test]
        fn bounds_enclose_what_floats_say(part in 0..=10_000_u32, openings in 0..2_000_u32) {
            let probability = miss(Share::new(part, 10_000).unwrap(), openings);
            prop_assert!(probability.low <= probability.high);
            prop_assert!(probability.high - probability.low <= u128::from(2 * openings));
            let exact = (1.0 - f64::from(part) / 10_000.0).powi(i32::try_from(openings).unwrap());
            prop_assert!((probability.approximate() - exact).abs() < 1e-12);
        }

        #[test]
        fn two_sets_of_openings_are_as_good_as_one(part in 0..=100_u32, first in 0..300_u32, second in 0..300_u32) {
            let share = Share::percent(part).unwrap();
            let both = miss(share, first).and(miss(share, second));
            let one = miss(share, first + second);
            prop_assert!(both.low <= one.high && one.low <= both.high.saturating_add(4));
        }

        #[test]
        fn more_openings_miss_less(part in 1..100_u32, openings in 0..1_000_u32) {
            let share = Share::percent(part).unwrap();
            prop_assert!(miss(share, openings + 1).high <= miss(share, openings).high);
        }
    }
}
