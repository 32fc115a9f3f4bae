//! How large the matrices are, and how large that lets their entries be.

use thiserror::Error;

/// Rows, columns and inner index of the square matrices of a challenge: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dimension(u32);

/// A number that is no [`Dimension`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a challenge's matrices can't have {0} rows; take a power of two from 256 to 16384")]
pub struct NotADimension(pub u32);

/// Slices per side: a unit takes one row from each slice of rows and one column from each slice of columns.
pub const SLICES: usize = 8;

impl Dimension {
    /// The smallest matrices.
    pub const SMALLEST: Self = Self(256);
    /// The largest matrices.
    pub const LARGEST: Self = Self(16_384);

    /// Takes a number of rows.
    ///
    /// # Errors
    /// [`NotADimension`] unless it is a power of two from 256 to 16384.
    pub const fn new(rows: u32) -> Result<Self, NotADimension> {
        if rows.is_power_of_two() && rows >= Self::SMALLEST.0 && rows <= Self::LARGEST.0 {
            Ok(Self(rows))
        } else {
            Err(NotADimension(rows))
        }
    }

    /// Rows of each matrix.
    #[must_use]
    pub const fn rows(self) -> usize {
        self.0 as usize
    }

    /// The same as a number of 32 bits.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The largest entry by magnitude: every partial sum of a product stays below 2^21.
    #[must_use]
    pub const fn max_entry(self) -> u8 {
        // At most 90 for the smallest dimension.
        let root = ((1_u32 << 21) - 1) / self.0;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the root of at most 8191 is at most 90"
        )]
        let max = root.isqrt() as u8;
        max
    }

    /// Units in a row of units, and rows of units.
    #[must_use]
    pub const fn units_per_side(self) -> usize {
        self.rows() / SLICES
    }

    /// Units of one result, each of 64 entries.
    #[must_use]
    pub const fn units(self) -> usize {
        self.units_per_side() * self.units_per_side()
    }

    /// Multiply-adds of one round, as the schoolbook counts them.
    #[must_use]
    pub const fn multiply_adds(self) -> u64 {
        let rows = self.0 as u64;
        rows * rows * rows
    }

    /// Bytes of one resident result: two for each entry.
    #[must_use]
    pub const fn resident_bytes(self) -> u64 {
        let rows = self.0 as u64;
        2 * rows * rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_within_bounds() {
        for rows in [256, 512, 1024, 2048, 4096, 8192, 16_384] {
            assert_eq!(Dimension::new(rows).unwrap().get(), rows);
        }
        for rows in [0, 1, 128, 255, 257, 4095, 32_768, u32::MAX] {
            assert_eq!(Dimension::new(rows), Err(NotADimension(rows)));
        }
    }

    #[test]
    fn every_partial_sum_stays_below_two_to_the_21() {
        for (rows, max) in [(256, 90), (4096, 22), (8192, 15), (16_384, 11)] {
            let dimension = Dimension::new(rows).unwrap();
            assert_eq!(dimension.max_entry(), max);
            let max = u32::from(max);
            assert!(rows * max * max < 1 << 21);
            assert!(
                rows * (max + 1) * (max + 1) >= 1 << 21,
                "{rows}: the largest that fits"
            );
            assert!(max > 7, "entries of four bits don't suffice");
        }
    }
}
