//! The two matrices of a challenge, with random access: any row of A and any column of B without the rest.

use super::dimension::Dimension;
use super::philox::{BLOCK_BYTES, Key};

const CONTEXT: &str = "gristmill hardware matrices 1";
const MATRIX_A: u64 = 0;
const MATRIX_B_TRANSPOSED: u64 = 1;

/// What a setup seed expands to.
#[derive(Clone, Copy, Debug)]
pub struct Matrices {
    key: Key,
    dimension: Dimension,
}

impl Matrices {
    /// The matrices of `setup_seed`.
    #[must_use]
    pub fn new(setup_seed: &[u8; 32], dimension: Dimension) -> Self {
        let mut material = [0; 36];
        material[..32].copy_from_slice(setup_seed);
        material[32..].copy_from_slice(&dimension.get().to_le_bytes());
        Self {
            key: Key::from_digest(&blake3::derive_key(CONTEXT, &material)),
            dimension,
        }
    }

    /// How large the matrices are.
    #[must_use]
    pub const fn dimension(&self) -> Dimension {
        self.dimension
    }

    /// Writes the beginning of a row of A, as much as `row` has room for.
    pub fn row_of_a(&self, index: usize, row: &mut [i8]) {
        self.expand(MATRIX_A, index, row);
    }

    /// Writes the beginning of a column of B, before its rows are permuted, as much as `column` has room for.
    pub fn column_of_b(&self, index: usize, column: &mut [i8]) {
        self.expand(MATRIX_B_TRANSPOSED, index, column);
    }

    fn expand(&self, matrix: u64, row: usize, entries: &mut [i8]) {
        let block = |number| self.block([number, row as u64, matrix, 0]);
        let (whole, rest) = entries.as_chunks_mut();
        let last = whole.len() as u64 + 1;
        for (number, part) in (1..).zip(whole) {
            *part = block(number);
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&block(last)[..rest.len()]);
        }
    }

    /// All of a block at once, so that the compiler does it with vectors.
    fn block(&self, counter: [u64; 4]) -> [i8; BLOCK_BYTES] {
        let max = self.dimension.max_entry();
        let steps = 2 * u16::from(max) + 1;
        self.key
            .block_bytes(counter)
            .map(|byte| entry_of_byte(byte, steps, max))
    }
}

/// Spreads the 256 values of a byte over -max..=max.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the quotient is at most 2 max = 180 before max is taken off"
)]
#[inline]
const fn entry_of_byte(byte: u8, steps: u16, max: u8) -> i8 {
    (((byte as u16).wrapping_mul(steps) >> 8) as u8).wrapping_sub(max) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_fill_their_range_and_no_more() {
        for rows in [256, 4096, 8192, 16_384] {
            let max = Dimension::new(rows).unwrap().max_entry();
            let steps = 2 * u16::from(max) + 1;
            let mut seen: Vec<i8> = (0..=u8::MAX)
                .map(|byte| entry_of_byte(byte, steps, max))
                .collect();
            assert!(seen.is_sorted());
            seen.dedup();
            let max = i8::try_from(max).unwrap();
            assert_eq!(seen, (-max..=max).collect::<Vec<_>>());
        }
    }

    /// Made with numpy 2.4.6 and blake3 1.0.11 as `docs/PROOF.md` shows: seed 0, 1, 2, ..., 31; 4096 rows.
    #[test]
    fn the_same_entries_as_numpy_makes() {
        let seed = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let matrices = Matrices::new(&seed, Dimension::new(4096).unwrap());
        let mut row = vec![0; 4096];
        matrices.row_of_a(4000, &mut row);
        assert_eq!(row[..8], [-16, 6, -14, -5, -4, 10, 18, -13]);
        assert_eq!(row.iter().map(|&entry| i64::from(entry)).sum::<i64>(), -1420);
        matrices.column_of_b(7, &mut row);
        assert_eq!(row[4088..], [17, 12, 6, -16, 4, -9, 19, -8]);
    }

    #[test]
    fn parts_of_a_row_are_its_beginning() {
        let matrices = Matrices::new(&[3; 32], Dimension::SMALLEST);
        let mut whole = [0; 256];
        matrices.row_of_a(9, &mut whole);
        for length in [0, 1, 31, 32, 33, 255] {
            let mut part = vec![0; length];
            matrices.row_of_a(9, &mut part);
            assert_eq!(part, whole[..length]);
        }
    }

    #[test]
    fn other_seeds_dimensions_and_matrices_are_other_numbers() {
        let of = |seed: u8, rows, is_a: bool| {
            let mut entries = [0; 256];
            let matrices = Matrices::new(&[seed; 32], Dimension::new(rows).unwrap());
            if is_a {
                matrices.row_of_a(3, &mut entries);
            } else {
                matrices.column_of_b(3, &mut entries);
            }
            entries
        };
        let all = [
            of(0, 256, true),
            of(1, 256, true),
            of(0, 512, true),
            of(0, 256, false),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other != one));
        }
    }
}
