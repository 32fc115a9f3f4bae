//! A product in strips: parts that are short enough to stop between them and small enough that what they need beside
//! the matrices hardly counts. Each strip holds whole unit rows, so its unit values are complete when it is.

use crate::challenge::dimension::{Dimension, SLICES};

/// How long a strip should take: stopping takes at most two of them, one under way and one queued.
const STRIP_MILLISECONDS: u64 = 80;

/// Rows of A that are multiplied at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strip {
    /// The first unit row in it.
    pub(super) first_unit_row: usize,
    /// How many unit rows it holds.
    pub(super) unit_rows: usize,
}

impl Strip {
    /// Where it starts among the rows of A as they lie on the device.
    pub(super) const fn first_row(self) -> usize {
        self.first_unit_row * SLICES
    }

    /// How many rows it has.
    pub(super) const fn rows(self) -> usize {
        self.unit_rows * SLICES
    }

    /// Which row of A lies at a place of this strip: slice after slice, unit row after unit row.
    pub(super) const fn row_of_a(self, place: usize, dimension: Dimension) -> usize {
        let (slice, unit_row) = (place / self.unit_rows, place % self.unit_rows);
        slice * dimension.units_per_side() + self.first_unit_row + unit_row
    }
}

/// Cuts a product into strips of equal height, a power of two: what takes a device of this speed a fraction of a
/// second, and no more than `most_bytes` for one value of 32 bits per entry.
pub(super) fn strips(dimension: Dimension, multiply_adds_per_second: u64, most_bytes: u64) -> Vec<Strip> {
    let side = dimension.units_per_side();
    let rows = dimension.rows() as u64;
    let per_unit_row = SLICES as u64 * rows * rows;
    let by_time = multiply_adds_per_second / 1_000 * STRIP_MILLISECONDS / per_unit_row;
    let by_memory = most_bytes / (SLICES as u64 * rows * size_of::<f32>() as u64);
    let height = usize::try_from(by_time.min(by_memory)).map_or(side, |height| height.clamp(1, side));
    // Half of what the next power of two would be where it is none: kernels like round numbers.
    let height = 1 << height.ilog2();
    (0..side)
        .step_by(height)
        .map(|first_unit_row| Strip {
            first_unit_row,
            unit_rows: height,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_cover_every_row_once_at_every_speed() {
        for rows in [256, 1024, 16_384] {
            let dimension = Dimension::new(rows).unwrap();
            for (speed, memory) in [
                (0, u64::MAX),
                (1, 0),
                (50_000_000_000, u64::MAX),
                (u64::MAX, u64::MAX),
            ] {
                let mut seen = vec![false; dimension.rows()];
                let mut next = 0;
                for strip in strips(dimension, speed, memory) {
                    assert_eq!(strip.first_row(), next);
                    next += strip.rows();
                    for place in 0..strip.rows() {
                        let row = strip.row_of_a(place, dimension);
                        assert!(!std::mem::replace(&mut seen[row], true));
                    }
                }
                assert!(next == dimension.rows() && seen.iter().all(|seen| *seen));
            }
        }
    }

    #[test]
    fn a_strip_takes_its_time_and_its_memory() {
        let dimension = Dimension::new(4096).unwrap();
        // 60 · 10^9 · 0.08 / (8 · 4096²) is 35 unit rows.
        assert_eq!(strips(dimension, 60_000_000_000, u64::MAX)[0].unit_rows, 32);
        // A mebibyte holds 8 unit rows of 4096 values.
        assert_eq!(strips(dimension, 60_000_000_000, 1 << 20)[0].unit_rows, 8);
        assert_eq!(strips(dimension, u64::MAX, u64::MAX).len(), 1);
    }
}
