//! Exact entries of a round's result from the seed alone: single units for the verifier, and whole results as the
//! reference that a device is compared with.

use std::collections::HashMap;

use super::dimension::{Dimension, SLICES};
use super::fold::Unit;
use super::matrices::Matrices;

/// Rows and columns that are kept because another unit may need them again, in bytes.
const KEPT_MAX_BYTES: usize = 32 << 20;

/// Makes units. Rows of A and columns of B that it made are kept within a bound.
#[derive(Debug)]
pub struct Recomputation {
    matrices: Matrices,
    kept_max: usize,
    rows: HashMap<usize, Vec<i8>>,
    columns: HashMap<usize, Vec<i8>>,
    /// The rows of a unit.
    widened: Vec<i16>,
    /// The columns of a unit in the order of its round.
    ordered: Vec<i16>,
}

impl Recomputation {
    /// For the matrices of a challenge.
    #[must_use]
    pub fn new(matrices: Matrices) -> Self {
        let slices_bytes = SLICES * matrices.dimension().rows();
        Self {
            matrices,
            kept_max: KEPT_MAX_BYTES / 2 / slices_bytes,
            rows: HashMap::new(),
            columns: HashMap::new(),
            widened: Vec::new(),
            ordered: Vec::new(),
        }
    }

    /// The exact sums of the unit at `row` and `column` of units, in a round whose permutation is `order`.
    pub fn unit(&mut self, row: usize, column: usize, order: &[u32]) -> Unit {
        let matrices = self.matrices;
        let rows = kept(&mut self.rows, self.kept_max, row, || {
            slices(matrices.dimension(), row, |index, entries| {
                matrices.row_of_a(index, entries);
            })
        });
        let columns = kept(&mut self.columns, self.kept_max, column, || {
            slices(matrices.dimension(), column, |index, entries| {
                matrices.column_of_b(index, entries);
            })
        });
        let length = matrices.dimension().rows();
        self.widened.clear();
        self.widened.extend(rows.iter().copied().map(i16::from));
        self.ordered.clear();
        for slice in columns.chunks_exact(length) {
            // A permutation of another dimension has indices that are not there; they count as 0.
            let entry = |&index: &u32| i16::from(slice.get(index as usize).copied().unwrap_or_default());
            self.ordered.extend(order.iter().map(entry));
        }
        let row = |p: usize| &self.widened[p * length..(p + 1) * length];
        let column = |q: usize| &self.ordered[q * order.len()..(q + 1) * order.len()];
        std::array::from_fn(|p| std::array::from_fn(|q| dot(row(p), column(q))))
    }
}

/// What was made for `index`, or makes it. Once `most` are kept, they make room all at once.
fn kept(
    all: &mut HashMap<usize, Vec<i8>>,
    most: usize,
    index: usize,
    make: impl FnOnce() -> Vec<i8>,
) -> &[i8] {
    if all.len() >= most && !all.contains_key(&index) {
        all.clear();
    }
    all.entry(index).or_insert_with(make)
}

/// The eight rows of a unit, one after the other.
fn slices(dimension: Dimension, unit: usize, row: impl Fn(usize, &mut [i8])) -> Vec<i8> {
    let mut all = vec![0; SLICES * dimension.rows()];
    for (slice, entries) in all.chunks_exact_mut(dimension.rows()).enumerate() {
        row(unit + slice * dimension.units_per_side(), entries);
    }
    all
}

/// The sum of products. No partial sum reaches 2^21, so nothing wraps; without the checks for it the compiler takes
/// many products at once.
#[inline]
fn dot(left: &[i16], right: &[i16]) -> i32 {
    let products = left
        .iter()
        .zip(right)
        .map(|(&left, &right)| i32::from(left).wrapping_mul(i32::from(right)));
    products.fold(0, i32::wrapping_add)
}

/// Whole results, for small dimensions: the reference of tests and of the self-test.
#[derive(Debug)]
pub struct Reference {
    dimension: Dimension,
    rows: Vec<i16>,
    columns: Vec<i16>,
}

impl Reference {
    /// Expands both matrices.
    #[must_use]
    pub fn new(matrices: &Matrices) -> Self {
        let dimension = matrices.dimension();
        let mut entries = vec![0; dimension.rows()];
        let mut expand = |row: &dyn Fn(usize, &mut [i8])| {
            let mut all = Vec::with_capacity(dimension.rows() * dimension.rows());
            for index in 0..dimension.rows() {
                row(index, &mut entries);
                all.extend(entries.iter().copied().map(i16::from));
            }
            all
        };
        Self {
            dimension,
            rows: expand(&|index, entries| matrices.row_of_a(index, entries)),
            columns: expand(&|index, entries| matrices.column_of_b(index, entries)),
        }
    }

    /// Takes the nearest entries from -most to most: what hardware of fewer bits would multiply.
    pub fn clamp(&mut self, most: i16) {
        for entry in self.rows.iter_mut().chain(&mut self.columns) {
            *entry = (*entry).clamp(-most, most);
        }
    }

    /// The exact result of a round whose permutation is `order`, its rows one after the other.
    #[must_use]
    pub fn result(&self, order: &[u32]) -> Vec<i32> {
        let length = self.dimension.rows();
        let mut ordered = Vec::with_capacity(length * length);
        for column in self.columns.chunks_exact(length) {
            ordered.extend(
                order
                    .iter()
                    .map(|&index| column.get(index as usize).copied().unwrap_or_default()),
            );
        }
        let columns = ordered.chunks_exact(length);
        let rows = self.rows.chunks_exact(length);
        rows.flat_map(|row| columns.clone().map(move |column| dot(row, column)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::challenge::permutation;

    #[test]
    fn units_are_those_of_the_whole_result() {
        let dimension = Dimension::SMALLEST;
        let matrices = Matrices::new(&[1; 32], dimension);
        let order = permutation::of_round(&[2; 32], dimension);
        let result = Reference::new(&matrices).result(&order);
        let mut recomputation = Recomputation::new(matrices);
        for (row, column) in [(0, 0), (31, 31), (7, 20), (7, 3), (8, 20)] {
            let unit = recomputation.unit(row, column, &order);
            for (p, entries) in unit.iter().enumerate() {
                for (q, &entry) in entries.iter().enumerate() {
                    assert_eq!(entry, result[(row + 32 * p) * 256 + column + 32 * q]);
                }
            }
        }
        assert!(result.iter().all(|entry| entry.abs() < 1 << 21));
    }

    #[test]
    fn the_result_is_the_sum_of_products_in_the_order_of_the_round() {
        let dimension = Dimension::SMALLEST;
        let matrices = Matrices::new(&[1; 32], dimension);
        let order = permutation::of_round(&[2; 32], dimension);
        let (mut row, mut column) = ([0; 256], [0; 256]);
        matrices.row_of_a(5, &mut row);
        matrices.column_of_b(9, &mut column);
        let sum: i32 = row
            .iter()
            .zip(&order)
            .map(|(&entry, &index)| i32::from(entry) * i32::from(column[index as usize]))
            .sum();
        assert_eq!(Reference::new(&matrices).result(&order)[5 * 256 + 9], sum);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut recomputation = Recomputation::new(Matrices::new(&[1; 32], Dimension::SMALLEST));
        recomputation.kept_max = 3;
        let order: Vec<u32> = (0..256).collect();
        let first = recomputation.unit(0, 0, &order);
        for at in 0..20 {
            recomputation.unit(at, at, &order);
            assert!(recomputation.rows.len() <= 3 && recomputation.columns.len() <= 3);
        }
        assert_eq!(recomputation.unit(0, 0, &order), first);
    }
}
