//! One number per device, so that devices can be compared. The raw figures always stand beside it.
//!
//! The score is the geometric mean of what decides about serving a model: how fast the device multiplies matrices, and
//! how much memory it has shown. A device with ten times both scores ten times as much; ten times only one of them
//! scores about three times as much (the root of ten). So neither a fast chip without memory nor much memory without a
//! fast chip comes first. Integers only: everybody computes the same score from the same certificate.
//!
//! docs/PROOF.md, "Score", is the specification.

/// Multiply-adds a second that score [`REFERENCE_SCORE`] together with [`REFERENCE_MEMORY_BYTES`]: 10¹².
pub const REFERENCE_MULTIPLY_ADDS_PER_SECOND: u64 = 1_000_000_000_000;
/// Memory that scores [`REFERENCE_SCORE`] together with [`REFERENCE_MULTIPLY_ADDS_PER_SECOND`]: 10 GiB.
pub const REFERENCE_MEMORY_BYTES: u64 = 10 << 30;
/// The score of a device that has shown exactly the reference.
pub const REFERENCE_SCORE: u64 = 1_000;

/// What one unit under the root stands for: reference throughput times reference memory over the score's square.
const UNIT: u128 = REFERENCE_MULTIPLY_ADDS_PER_SECOND as u128 * REFERENCE_MEMORY_BYTES as u128
    / (REFERENCE_SCORE as u128 * REFERENCE_SCORE as u128);

/// The score of a device from the throughput it has shown in each precision (multiply-adds a second, in any order) and
/// the memory it has shown (bytes).
///
/// The fastest precision counts: models are served in the one that suits the device best, and showing a slower one
/// besides must not cost anything. Who has shown no throughput or no memory scores 0.
#[must_use]
pub fn score(multiply_adds_per_second: impl IntoIterator<Item = u64>, memory_bytes: u64) -> u64 {
    let fastest = multiply_adds_per_second.into_iter().max().unwrap_or(0);
    // Two numbers of 64 bits: their product fits in 128, and the root of it, divided by more than 1, in 64.
    let root = (u128::from(fastest) * u128::from(memory_bytes) / UNIT).isqrt();
    u64::try_from(root).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERA: u64 = 1_000_000_000_000;

    #[test]
    fn the_reference_scores_a_thousand_and_known_devices_come_in_their_order() {
        assert_eq!(
            score([REFERENCE_MULTIPLY_ADDS_PER_SECOND], REFERENCE_MEMORY_BYTES),
            REFERENCE_SCORE
        );
        // About what such devices show: a laptop's processor, a card for players, one for computing centres.
        let devices = [
            score([TERA / 5], 8 << 30),
            score([30 * TERA, 70 * TERA], 22 << 30),
            score([25 * TERA, 200 * TERA, 380 * TERA], 130 << 30),
        ];
        assert_eq!(devices, [400, 12_409, 70_285]);
    }

    #[test]
    fn nothing_shown_is_no_score_and_the_largest_numbers_do_not_overflow() {
        assert_eq!(score([], 80 << 30), 0);
        assert_eq!(score([TERA], 0), 0);
        assert_eq!(score([0, 0], 80 << 30), 0);
        let largest = score([u64::MAX, 1], u64::MAX);
        assert!(largest > score([u64::MAX / 2], u64::MAX));
        assert_eq!(
            u128::from(largest),
            (u128::from(u64::MAX) * u128::from(u64::MAX) / UNIT).isqrt()
        );
    }

    proptest! {
        #[test]
        fn more_of_anything_never_scores_less(
            shown in prop::collection::vec(any::<u64>(), 0..4),
            memory in any::<u64>(),
            more in any::<u64>(),
            place in any::<prop::sample::Index>(),
        ) {
            let before = score(shown.iter().copied(), memory);
            prop_assert!(score(shown.iter().copied(), memory.saturating_add(more)) >= before);
            prop_assert!(score(shown.iter().copied().chain([more]), memory) >= before);
            if !shown.is_empty() {
                let mut faster = shown;
                let place = place.index(faster.len());
                faster[place] = faster[place].saturating_add(more);
                prop_assert!(score(faster, memory) >= before);
            }
        }

        #[test]
        fn the_order_of_precisions_does_not_matter(
            mut shown in prop::collection::vec(any::<u64>(), 0..4),
            memory in any::<u64>(),
        ) {
            let before = score(shown.iter().copied(), memory);
            shown.reverse();
            prop_assert_eq!(score(shown, memory), before);
        }

        /// Twice of both is twice the score, but for what rounding down takes away.
        #[test]
        fn twice_the_device_is_twice_the_score(speed in 0..u64::MAX / 2, memory in 0..u64::MAX / 2) {
            let once = score([speed], memory);
            let twice = score([2 * speed], 2 * memory);
            prop_assert!((2 * once..=2 * once + 2).contains(&twice), "{} and {}", once, twice);
        }

        #[test]
        fn throughput_and_memory_weigh_the_same(speed in 1..1u64 << 40, memory in 1..1u64 << 40, times in 1..1u64 << 20) {
            prop_assert_eq!(score([speed * times], memory), score([speed], memory * times));
        }
    }
}
