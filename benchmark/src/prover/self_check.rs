//! Whether a device computes what the method asks for: a few units of a product beside exact integers.
//!
//! A library may split a product over the inner index and add the parts in BF16, or use another unit than was asked
//! for. A prover offers a precision only where this finds no difference, so that an honest owner is never refused for
//! the habits of a library.

use gristmill_protocol::hardware::Precision;

use super::ProverError;
use super::control::{Control, Phase};
use super::strips::Strip;
use super::workload::Workload;
use crate::challenge::dimension::Dimension;
use crate::challenge::fold::{Rounding, unit_value};
use crate::challenge::matrices::Matrices;
use crate::challenge::permutation;
use crate::challenge::recomputation::Recomputation;

/// Units that are compared in each strip that is looked at: 64 entries each.
const UNITS: usize = 16;
/// Any chain value will do; the challenge's own are not known yet.
const CHAIN_VALUE: [u8; 32] = *b"gristmill hardware self-check 01";

/// Compares some units of the first, the middle and the last strip.
///
/// # Errors
/// [`ProverError::Inexact`] where a unit differs, and what kept the device from computing.
pub(super) fn check(
    workload: &mut Workload,
    matrices: &Matrices,
    precision: Precision,
    control: &Control,
) -> Result<(), ProverError> {
    let dimension = matrices.dimension();
    let order = permutation::of_round(&CHAIN_VALUE, dimension);
    let last = workload.strips() - 1;
    let mut strips = vec![0, last / 2, last];
    strips.dedup();
    control.tell(Phase::Checking(precision), 0, strips.len());
    let mut exact = Recomputation::new(*matrices);
    let rounding = Rounding::from(precision);
    let computed = workload.some_strips(precision, &order, &strips, control)?;
    for (at, (strip, values)) in computed.into_iter().enumerate() {
        control.check()?;
        for number in 0..UNITS {
            let (row, column) = position(strip, number, dimension);
            let is = values.get(row * dimension.units_per_side() + column);
            let sums = exact.unit(strip.first_unit_row + row, column, &order);
            let should = unit_value(&sums.map(|row| row.map(|sum| rounding.apply(sum))));
            if is != Some(&should) {
                return Err(ProverError::Inexact {
                    precision,
                    dimension: dimension.get(),
                });
            }
        }
        control.tell(Phase::Checking(precision), at + 1, strips.len());
    }
    Ok(())
}

/// Where the units lie that are compared: spread over the strip, the corners among them.
fn position(strip: Strip, number: usize, dimension: Dimension) -> (usize, usize) {
    let (rows, columns) = (strip.unit_rows - 1, dimension.units_per_side() - 1);
    let spread = |range: usize, step: usize| (range * (number * step % UNITS)) / (UNITS - 1);
    (spread(rows, 1), spread(columns, 11))
}
