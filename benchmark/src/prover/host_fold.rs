//! The same fold on the processor in one pass over the values: candle's operations would go over them some twenty
//! times, on one thread. It exists because the processor would otherwise spend as long on folding as on multiplying.
//!
//! The arithmetic is that of `fold`: f32 that holds integers exactly, rounded by adding and subtracting.

use std::num::NonZero;
use std::thread;

use super::fold;
use crate::challenge::dimension::SLICES;
use crate::challenge::residency::Weights;

/// `fold::ROUND_2_POW_11` in f32.
#[expect(clippy::cast_possible_truncation, reason = "3 times a power of two is exact")]
const ROUND_2_POW_11: f32 = fold::ROUND_2_POW_11 as f32;
/// `fold::ROUND_2_POW_18` in f32.
#[expect(clippy::cast_possible_truncation, reason = "3 times a power of two is exact")]
const ROUND_2_POW_18: f32 = fold::ROUND_2_POW_18 as f32;

/// Folds a strip of `8 h × columns` values into `h × columns/8` unit values.
pub(super) fn unit_values(product: &[f32], columns: usize) -> Vec<i32> {
    fold_rows(product.len() / columns / SLICES, columns, |row, sums| {
        let rows = product.len() / columns / SLICES;
        sums.fill(0.0);
        for slice in 0..SLICES {
            let start = (slice * rows + row) * columns;
            #[expect(clippy::cast_precision_loss, reason = "there are eight slices")]
            let weight = (2 * slice + 1) as f32;
            for (sum, &value) in sums.iter_mut().zip(&product[start..start + columns]) {
                let coarse = (value + ROUND_2_POW_11) - ROUND_2_POW_11;
                *sum += (value - coarse) * (coarse * (1.0 / 2048.0) + weight);
            }
        }
    })
}

/// Folds a resident strip with the weights of a nonce.
pub(super) fn resident_unit_values(low: &[u8], high: &[u8], columns: usize, weights: &Weights) -> Vec<i32> {
    let rows = low.len() / columns / SLICES;
    fold_rows(rows, columns, |row, sums| {
        sums.fill(0.0);
        for slice in 0..SLICES {
            let start = (slice * rows + row) * columns;
            let (add_low, add_high) = (f32::from(weights.low[slice]), f32::from(weights.high[slice]));
            let bytes = low[start..start + columns]
                .iter()
                .zip(&high[start..start + columns]);
            for (sum, (&low, &high)) in sums.iter_mut().zip(bytes) {
                *sum += (f32::from(low) + add_low) * (f32::from(high) + add_high);
            }
        }
    })
}

/// The low and the high byte of each value modulo 2^16.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the values are integers below 2^24, and their low bytes are what is wanted"
)]
pub(super) fn low_bytes(product: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let bytes = |shift: u32| {
        product
            .iter()
            .map(|&value| (value as i32 >> shift) as u8)
            .collect()
    };
    (bytes(0), bytes(8))
}

/// Runs `sum_slices` for every unit row, on all threads, and folds each row of sums into unit values.
fn fold_rows(rows: usize, columns: usize, sum_slices: impl Fn(usize, &mut [f32]) + Sync) -> Vec<i32> {
    let units = columns / SLICES;
    let mut values = vec![0_i32; rows * units];
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = rows.div_ceil(threads).max(1);
    thread::scope(|scope| {
        for (part, values) in values.chunks_mut(share * units).enumerate() {
            let sum_slices = &sum_slices;
            let mut fold = move || {
                let mut sums = vec![0.0; columns];
                for (row, values) in values.chunks_mut(units).enumerate() {
                    sum_slices(part * share + row, &mut sums);
                    across_columns(&sums, values);
                }
            };
            if share >= rows {
                fold();
            } else {
                scope.spawn(fold);
            }
        }
    });
    values
}

/// The sum over the column slices of the centred remainders modulo 2^18, times 1, 3, 5 and so on.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the centred remainders are integers of at most 2^17"
)]
fn across_columns(sums: &[f32], values: &mut [i32]) {
    let units = values.len();
    for (weight, sums) in (1..).step_by(2).zip(sums.chunks(units)) {
        for (value, &sum) in values.iter_mut().zip(sums) {
            let multiple = (sum + ROUND_2_POW_18) - ROUND_2_POW_18;
            *value += weight * ((sum - multiple) as i32);
        }
    }
}
