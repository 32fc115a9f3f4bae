//! Randomness that costs no memory: the numbers of an event follow from the seed, the node and the event itself, so
//! that one more draw by one node leaves the luck of all others as it was, and nothing has to be kept in between.

use std::convert::Infallible;

use rand::rand_core::TryRng;

use super::NodeId;

/// The step of SplitMix64: the golden ratio's odd 64-bit fraction.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A small generator (SplitMix64; G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators",
/// OOPSLA 2014). Not for keys.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The finalizer of SplitMix64, a bijection that spreads every bit over all.
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Random {
    /// The numbers of one node at one event.
    pub(crate) const fn of_event(seed: u64, node: NodeId, at_us: u64, tie: u64) -> Self {
        let word = mix(seed.wrapping_add(STEP)) ^ mix((node as u64).wrapping_mul(STEP));
        let word = mix(word.wrapping_add(at_us)) ^ mix(tie.wrapping_add(STEP));
        Self(mix(word))
    }

    /// The numbers of a purpose and an actor at the beginning of a run.
    ///
    /// The purpose is hashed, so that two purposes never share numbers.
    #[must_use]
    pub fn of_purpose(seed: u64, purpose: &str, actor: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("gristmill simulations: numbers of a purpose");
        hasher
            .update(&seed.to_le_bytes())
            .update(&actor.to_le_bytes())
            .update(purpose.as_bytes());
        let digest = hasher.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(digest.as_bytes().get(..8).unwrap_or(&[0; 8]));
        Self(u64::from_le_bytes(first))
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A whole number below `bound`; zero where the bound is zero. Biased by less than `bound / 2^64`.
    #[must_use]
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.bits() as u128 * bound as u128) >> 64) as u64
    }

    /// A whole number from `low` to `high`, both included.
    #[must_use]
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low.saturating_add(self.below(high.saturating_sub(low).saturating_add(1)))
    }

    /// A number from 0 up to and without 1, of 53 bits.
    #[must_use]
    pub fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let bits = (self.bits() >> 11) as f64;
        bits / 9_007_199_254_740_992.0
    }

    /// Whether something of this probability happens.
    #[must_use]
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A whole number of an exponential distribution with this mean: the time to the next of independent events.
    ///
    /// The logarithm is made of `+ - * /` alone, since libraries differ in the last digit of theirs.
    #[must_use]
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let word = self.bits() | 1;
        // -ln(u) for u = word / 2^64: halvings are whole multiples of ln 2, the rest is a series.
        let halvings = f64::from(word.leading_zeros());
        let mantissa = word << word.leading_zeros();
        #[expect(clippy::cast_precision_loss, reason = "the lowest bits do not matter")]
        let fraction = mantissa as f64 / 18_446_744_073_709_551_616.0;
        let minus_logarithm = halvings * std::f64::consts::LN_2 - logarithm(fraction);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a mean of over 2^53 microseconds is 285 years"
        )]
        let drawn = minus_logarithm * mean as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and at most 45 times the mean"
        )]
        let whole = drawn as u64;
        whole
    }
}

/// The natural logarithm of a number from a half to one, by the series of the inverse hyperbolic tangent: the same
/// bits on every machine.
fn logarithm(number: f64) -> f64 {
    let ratio = (number - 1.0) / (number + 1.0);
    let square = ratio * ratio;
    let (mut power, mut sum) = (ratio, 0.0);
    for odd in 0..12_u32 {
        sum += power / f64::from(2 * odd + 1);
        power *= square;
    }
    2.0 * sum
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let upper = (self.bits() >> 32) as u32;
        Ok(upper)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.bits())
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        for chunk in destination.chunks_mut(8) {
            let bytes = self.bits().to_le_bytes();
            chunk.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

/// Draws of ranks by Zipf's law: rank `r` (from 0) is drawn with a weight of `1 / (r + 1)^exponent`.
///
/// Source: G. K. Zipf, "Human Behavior and the Principle of Least Effort", 1949. The exponent is a multiple of a
/// half, so that weights need roots alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zipf {
    /// Sums of the weights up to each rank, in parts of 2^32 of the first one.
    sums: Vec<u64>,
}

impl Zipf {
    /// The law over `ranks` ranks, with an exponent of so many halves.
    #[must_use]
    pub fn new(ranks: usize, exponent_halves: u32) -> Self {
        let mut sum = 0_u64;
        let sums = (1..=ranks)
            .map(|rank| {
                #[expect(clippy::cast_precision_loss, reason = "ranks are few")]
                let root = (rank as f64).sqrt();
                let power = (0..exponent_halves).fold(1.0, |power, _| power * root);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "from 0 to 2^32"
                )]
                let weight = (4_294_967_296.0 / power) as u64;
                sum = sum.saturating_add(weight.max(1));
                sum
            })
            .collect();
        Self { sums }
    }

    /// A rank, from 0; also 0 where there are none.
    #[must_use]
    pub fn draw(&self, random: &mut Random) -> usize {
        let total = self.sums.last().copied().unwrap_or(0);
        let at = random.below(total);
        self.sums.partition_point(|sum| *sum <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGARITHM_STEPS: usize = 1_024;

    fn mean(draws: impl Iterator<Item = u64>) -> f64 {
        let (sum, count) = draws.fold((0.0, 0.0), |(sum, count), draw| (sum + draw as f64, count + 1.0));
        sum / count
    }

    #[test]
    fn the_logarithm_is_that_of_the_library() {
        for step in 0..=LOGARITHM_STEPS {
            let number = 0.5 + step as f64 / (2 * LOGARITHM_STEPS) as f64;
            #[expect(clippy::disallowed_methods, reason = "held against the library's")]
            let expected = number.ln();
            assert!((logarithm(number) - expected).abs() < 1e-12, "{number}");
        }
    }

    #[test]
    fn draws_have_their_means() {
        let mut random = Random::of_purpose(7, "means", 0);
        let exponential = mean((0..100_000).map(|_| random.exponential(1_000_000)));
        assert!((exponential - 1e6).abs() < 2e4, "{exponential}");
        let between = mean((0..100_000).map(|_| random.between(10, 20)));
        assert!((between - 15.0).abs() < 0.1, "{between}");
        let ones = mean((0..100_000).map(|_| u64::from(random.chance(0.25))));
        assert!((ones - 0.25).abs() < 0.01, "{ones}");
        assert_eq!(Random(1).below(0), 0);
        assert_eq!(random.between(5, 5), 5);
    }

    #[test]
    fn a_rank_is_drawn_by_its_weight() {
        let (law, mut random) = (Zipf::new(10, 2), Random::of_purpose(7, "ranks", 0));
        let mut drawn = [0_u32; 10];
        (0..100_000).for_each(|_| drawn[law.draw(&mut random)] += 1);
        let expected_first = 1.0 / (1..=10).map(|rank| 1.0 / f64::from(rank)).sum::<f64>();
        assert!(
            (f64::from(drawn[0]) / 100_000.0 - expected_first).abs() < 0.01,
            "{drawn:?}"
        );
        assert!(
            (f64::from(drawn[0]) / f64::from(drawn[1]) - 2.0).abs() < 0.1,
            "{drawn:?}"
        );
        assert_eq!(Zipf::new(0, 2).draw(&mut random), 0);
    }

    #[test]
    fn numbers_differ_by_seed_node_time_and_event_and_stay_what_they_are() {
        let first = |seed, node, at_us, tie| Random::of_event(seed, node, at_us, tie).bits();
        let all = [
            first(1, 2, 3, 4),
            first(2, 2, 3, 4),
            first(1, 3, 3, 4),
            first(1, 2, 4, 4),
            first(1, 2, 3, 5),
        ];
        assert!((0..5).all(|one| (0..one).all(|other| all[one] != all[other])));
        assert_eq!(first(1, 2, 3, 4), all[0]);
    }
}
