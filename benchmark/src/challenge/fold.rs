//! The fold of a round's result: 64 entries become one number, with no way to it but through each of them.
//!
//! Unit (u, v) takes the entries at rows u + p n/8 and columns v + q n/8 for p, q below 8. With `low` and `high` the
//! two halves of an entry around 2^11, it is the sum over q of (2q + 1) times, centred modulo 2^18, the sum over p of
//! low * (high + 2p + 1). The products make it nonlinear, so A * (B * r) is no shortcut. Every step fits the 24 bits
//! of an f32, so a device gets the same numbers by adding and taking off 3 * 2^(22 + bits), which rounds as
//! [`halves`] does.

use super::dimension::{Dimension, SLICES};

/// Bits of the lower half of an entry.
pub const LOW_BITS: u32 = 11;
/// The sums over slices of rows are taken modulo two to this.
pub const SUM_BITS: u32 = 18;

/// The entries of one unit: slice of rows, then slice of columns.
pub type Unit = [[i32; SLICES]; SLICES];

/// What a precision does to an exact sum before it is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// The sum comes out as it is: f32 and TF32 inputs, f32 outputs.
    Exact,
    /// The sum is rounded once, half to even, to the eight significant bits of bfloat16.
    Bfloat16,
}

impl Rounding {
    /// The sum as the device returns it. `sum` is below 2^21 by magnitude.
    #[inline]
    #[must_use]
    pub const fn apply(self, sum: i32) -> i32 {
        match self {
            Self::Exact => sum,
            Self::Bfloat16 => {
                let surplus_bits = (i32::BITS - sum.unsigned_abs().leading_zeros()).saturating_sub(8);
                if surplus_bits == 0 {
                    sum
                } else {
                    halves(sum, surplus_bits).1 << surplus_bits
                }
            }
        }
    }
}

/// Splits a number into a centred remainder and a quotient modulo 2^bits; the quotient is rounded half to even.
/// `bits` is from 1 to 30 and `value` below 2^30 by magnitude.
#[inline]
#[must_use]
pub const fn halves(value: i32, bits: u32) -> (i32, i32) {
    let is_odd = (value >> bits) & 1;
    let quotient = (value + (1 << (bits - 1)) - 1 + is_odd) >> bits;
    (value - (quotient << bits), quotient)
}

/// Adds up what the slices of columns gave: each sum modulo 2^18, times 1, 3, 5, ..., 15. At most 2^23 by magnitude.
#[inline]
#[must_use]
pub(super) fn weighted(sums: [i32; SLICES]) -> i32 {
    let weights = (1_i32..).step_by(2);
    sums.into_iter()
        .zip(weights)
        .map(|(sum, weight)| weight * halves(sum, SUM_BITS).0)
        .sum()
}

/// The value of one unit. Entries are below 2^21 by magnitude, or 2^21 where they were rounded.
#[inline]
#[must_use]
pub fn unit_value(unit: &Unit) -> i32 {
    let mut sums = [0; SLICES];
    for (row, odd) in unit.iter().zip((1_i32..).step_by(2)) {
        for (sum, &entry) in sums.iter_mut().zip(row) {
            let (low, high) = halves(entry, LOW_BITS);
            *sum += low * (high + odd);
        }
    }
    weighted(sums)
}

/// Calls `value` with the entries of each unit of a result, row by row of units, and gathers what it returns.
///
/// `result` holds the rows of the result one after another. Entries that it lacks count as 0.
pub(super) fn fold_units(result: &[i32], dimension: Dimension, value: impl Fn(&Unit) -> i32) -> Vec<i32> {
    let rows = dimension.rows();
    let side = dimension.units_per_side();
    let mut values = Vec::with_capacity(dimension.units());
    for u in 0..side {
        for v in 0..side {
            let unit: Unit = std::array::from_fn(|p| {
                std::array::from_fn(|q| {
                    result
                        .get((u + p * side) * rows + v + q * side)
                        .copied()
                        .unwrap_or_default()
                })
            });
            values.push(value(&unit));
        }
    }
    values
}

/// The unit values of a whole result, as the reference that a device is compared with. `result` holds the rows of
/// exact sums one after another.
#[must_use]
pub fn fold(result: &[i32], dimension: Dimension, rounding: Rounding) -> Vec<i32> {
    fold_units(result, dimension, |unit| {
        unit_value(&unit.map(|row| row.map(|sum| rounding.apply(sum))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: i32 = 1 << 21;

    /// Rounds to a multiple of 2^bits as a device does in f32.
    fn device_round(value: f32, bits: i32) -> f32 {
        let magic = 3.0 * 2_f32.powi(22 + bits);
        (value + magic) - magic
    }

    /// The fold as a device computes it: nothing but f32.
    fn device_unit_value(unit: &[[f32; 8]; 8]) -> f32 {
        let mut value = 0.0;
        for q in 0..8_u8 {
            let mut sum = 0.0_f32;
            for p in 0..8_u8 {
                let entry = unit[usize::from(p)][usize::from(q)];
                let rounded = device_round(entry, 11);
                let (low, high) = (entry - rounded, rounded / 2048.0);
                sum += low * (high + f32::from(2 * p + 1));
            }
            value += f32::from(2 * q + 1) * (sum - device_round(sum, 18));
        }
        value
    }

    #[allow(clippy::cast_precision_loss, reason = "below 2^24")]
    fn f32_of(value: i32) -> f32 {
        value as f32
    }

    #[test]
    fn every_entry_splits_as_on_a_device() {
        for value in -LIMIT..=LIMIT {
            let (low, high) = halves(value, LOW_BITS);
            assert_eq!(low + (high << LOW_BITS), value);
            assert!(low.abs() <= 1 << 10 && high.abs() <= 1 << 10);
            assert_eq!(
                f32_of(high << LOW_BITS),
                device_round(f32_of(value), 11),
                "{value}"
            );
        }
    }

    /// bfloat16 is the upper half of an f32.
    #[test]
    fn every_sum_rounds_to_bfloat16_as_its_bits_do() {
        for value in -LIMIT..=LIMIT {
            let bits = f32_of(value).to_bits();
            let rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
            assert_eq!(
                f32_of(Rounding::Bfloat16.apply(value)),
                f32::from_bits(rounded),
                "{value}"
            );
            assert_eq!(Rounding::Exact.apply(value), value);
        }
    }

    #[test]
    fn extremes_stay_within_24_bits() {
        for entry in [LIMIT, -LIMIT, 1024, -1024, LIMIT - 1024, 1024 - LIMIT] {
            let unit = [[entry; 8]; 8];
            let device = device_unit_value(&unit.map(|row| row.map(f32_of)));
            assert_eq!(f32_of(unit_value(&unit)), device);
            assert!(unit_value(&unit).abs() <= 1 << 23);
        }
    }

    #[test]
    fn a_known_unit() {
        // low = 1, high = 2 in one entry (p = 1, q = 2): 1 * (2 + 3) * 5; and low = -1, high = 1 at (0, 0): -1 * 2 * 1.
        let mut unit = [[0; 8]; 8];
        unit[1][2] = 4097;
        unit[0][0] = 2047;
        assert_eq!(unit_value(&unit), 25 - 2);
    }

    #[test]
    fn units_are_slices_of_the_result() {
        let dimension = Dimension::SMALLEST;
        let mut result = vec![0; 256 * 256];
        // u = 3, p = 2 (row 67) and v = 5, q = 4 (column 133).
        result[67 * 256 + 133] = 1;
        let values = fold(&result, dimension, Rounding::Exact);
        assert_eq!(values.len(), 1024);
        for (at, value) in values.into_iter().enumerate() {
            assert_eq!(value, if at == 3 * 32 + 5 { 5 * 9 } else { 0 });
        }
        assert!(
            fold(&[], dimension, Rounding::Exact)
                .iter()
                .all(|&value| value == 0)
        );
    }

    proptest! {
        #[test]
        fn units_fold_as_on_a_device(unit: [[i32; 8]; 8]) {
            let unit = unit.map(|row| row.map(|entry| entry % LIMIT));
            let device = device_unit_value(&unit.map(|row| row.map(f32_of)));
            prop_assert_eq!(f32_of(unit_value(&unit)), device);
        }

        /// No entry of a unit can be left out, unless its weight is just 0.
        #[test]
        fn any_entry_changes_its_unit(unit: [[i32; 8]; 8], p in 0..8_usize, q in 0..8_usize) {
            let mut unit = unit.map(|row| row.map(|entry| entry % LIMIT));
            let before = unit_value(&unit);
            // One more in the lower half, without a carry.
            if halves(unit[p][q], LOW_BITS).0 < 1000 {
                let (_, high) = halves(unit[p][q], LOW_BITS);
                let weight = high + 2 * i32::try_from(p).unwrap() + 1;
                unit[p][q] += 1;
                prop_assert_eq!(unit_value(&unit) == before, weight == 0);
            }
        }
    }
}
