//! The fold of results that stayed on the device, with weights that nobody knew while they were made.
//!
//! A resident entry is the low 16 bits of the exact sum, as two bytes: small enough to keep no redundancy worth
//! packing. The weights come from a nonce after the last commitment, so all bytes must still be there, or be made anew
//! within the time that is measured.

use super::dimension::{Dimension, SLICES};
use super::fold::{Unit, fold_units, weighted};

const WEIGHTS_CONTEXT: &str = "gristmill hardware residency weights 1";

/// What is added to the low and to the high bytes of each slice of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Added to low bytes; one for each slice of rows.
    pub low: [u8; SLICES],
    /// Added to high bytes; one for each slice of rows.
    pub high: [u8; SLICES],
}

impl Weights {
    /// The weights of a nonce: the first eight bytes of its derived key for low bytes, the next eight for high ones.
    #[must_use]
    pub fn new(nonce: &[u8; 32]) -> Self {
        let digest = blake3::derive_key(WEIGHTS_CONTEXT, nonce);
        Self {
            low: std::array::from_fn(|slice| digest[slice]),
            high: std::array::from_fn(|slice| digest[SLICES + slice]),
        }
    }

    /// The value of one unit of exact sums.
    #[inline]
    #[must_use]
    pub fn unit_value(&self, unit: &Unit) -> i32 {
        let mut sums = [0; SLICES];
        for (p, row) in unit.iter().enumerate() {
            for (sum, &entry) in sums.iter_mut().zip(row) {
                let [low, high] = resident(entry);
                *sum +=
                    (i32::from(low) + i32::from(self.low[p])) * (i32::from(high) + i32::from(self.high[p]));
            }
        }
        weighted(sums)
    }
}

/// The two bytes that stay of an exact sum: the low and the high one of its value modulo 2^16.
#[inline]
#[must_use]
pub const fn resident(sum: i32) -> [u8; 2] {
    let bytes = sum.to_le_bytes();
    [bytes[0], bytes[1]]
}

/// The unit values of a whole resident result, as the reference that a device is compared with. `result` holds the
/// rows of exact sums one after another.
#[must_use]
pub fn fold(result: &[i32], dimension: Dimension, weights: &Weights) -> Vec<i32> {
    fold_units(result, dimension, |unit| weights.unit_value(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_determine_weights() {
        let weights = Weights::new(&[1; 32]);
        assert_eq!(weights, Weights::new(&[1; 32]));
        assert_ne!(weights, Weights::new(&[2; 32]));
        assert_ne!(weights.low, weights.high);
    }

    #[test]
    fn a_known_unit() {
        let weights = Weights {
            low: [1; 8],
            high: [2; 8],
        };
        // Empty entries: 8 slices of rows, 1 * 2 each, times the 64 of the weights of columns.
        assert_eq!(weights.unit_value(&[[0; 8]; 8]), 8 * 2 * 64);
        let mut unit = [[0; 8]; 8];
        // -1 is 255 and 255; 256 is 0 and 1.
        unit[3][2] = -1;
        unit[0][0] = 256;
        let changed = 5 * (256 * 257 - 2) + (3 - 2);
        assert_eq!(weights.unit_value(&unit), 8 * 2 * 64 + changed);
        // 2^16 more is the same entry.
        unit[0][0] += 1 << 16;
        assert_eq!(weights.unit_value(&unit), 8 * 2 * 64 + changed);
    }

    #[test]
    fn the_largest_sums_are_taken_modulo_two_to_the_18() {
        let weights = Weights {
            low: [255; 8],
            high: [255; 8],
        };
        let sum: i32 = 8 * 510 * 510;
        let centred = sum - ((sum + (1 << 17)) >> 18 << 18);
        assert_eq!(weights.unit_value(&[[-1; 8]; 8]), 64 * centred);
        assert!(sum < 1 << 24, "exact in f32");
    }

    #[test]
    fn fold_and_unit_agree() {
        let weights = Weights::new(&[3; 32]);
        let result: Vec<i32> = (0..256 * 256)
            .map(|at| (at * 7919) % 2_000_003 - 1_000_000)
            .collect();
        let values = fold(&result, Dimension::SMALLEST, &weights);
        let unit = std::array::from_fn(|p| std::array::from_fn(|q| result[(9 + 32 * p) * 256 + 4 + 32 * q]));
        assert_eq!(values[9 * 32 + 4], weights.unit_value(&unit));
    }
}
