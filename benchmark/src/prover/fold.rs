//! The fold of a product into unit values, with nothing but candle's element-wise operations on f32: the same bits on
//! CPU, CUDA and Metal.
//!
//! A strip of a product holds whole unit rows: `8 h` rows of `n` values, the eight row slices of `h` unit rows one
//! after the other. Every value and every intermediate is an integer below 2^24 in magnitude, or a power of two
//! times one, so f32 holds it exactly, and no operation here can round except those that are meant to.

use candle_core::{D, DType, Result, Tensor};

use crate::challenge::dimension::SLICES;
use crate::challenge::residency::Weights;

/// Adding and subtracting this rounds an f32 to multiples of 2^11, half to even: its unit in the last place is 2^11.
pub(super) const ROUND_2_POW_11: f64 = (3_u64 << 33) as f64;

/// The same for multiples of 2^18.
pub(super) const ROUND_2_POW_18: f64 = (3_u64 << 40) as f64;

/// 2^-11, exactly.
pub(super) const INVERSE_2_POW_11: f64 = 1.0 / 2048.0;

/// Folds a strip: `8 h × n` values of a product become `h × n/8` unit values.
///
/// # Errors
/// Where the device refuses an operation, or the shape is not one of whole unit rows.
pub(super) fn unit_values(product: &Tensor) -> Result<Tensor> {
    let rows = unit_rows(product)?;
    let mut sum: Option<Tensor> = None;
    for slice in 0..SLICES {
        let value = product.narrow(0, slice * rows, rows)?.to_dtype(DType::F32)?;
        let shifted = value.affine(1.0, ROUND_2_POW_11)?;
        let low = value.sub(&shifted.affine(1.0, -ROUND_2_POW_11)?)?;
        // shifted / 2^11 is high + 3 * 2^22: the subtraction is exact.
        let offset = odd(slice) - ROUND_2_POW_11 * INVERSE_2_POW_11;
        let high = shifted.affine(INVERSE_2_POW_11, offset)?;
        let term = low.mul(&high)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    across_columns(sum)
}

/// The low and the high byte of each value modulo 2^16: what stays on the device of a resident round.
///
/// # Errors
/// Where the device refuses an operation.
pub(super) fn low_bytes(product: &Tensor) -> Result<(Tensor, Tensor)> {
    let value = product.to_dtype(DType::F32)?;
    let above = value.affine(1.0 / 256.0, 0.0)?.floor()?;
    let low = value.sub(&above.affine(256.0, 0.0)?)?;
    let carried = above.affine(1.0 / 256.0, 0.0)?.floor()?;
    let high = above.sub(&carried.affine(256.0, 0.0)?)?;
    Ok((low.to_dtype(DType::U8)?, high.to_dtype(DType::U8)?))
}

/// Folds a resident strip with the weights of a nonce: `h × n/8` unit values.
///
/// # Errors
/// Where the device refuses an operation, or the shape is not one of whole unit rows.
pub(super) fn resident_unit_values(low: &Tensor, high: &Tensor, weights: &Weights) -> Result<Tensor> {
    let rows = unit_rows(low)?;
    let mut sum: Option<Tensor> = None;
    for slice in 0..SLICES {
        let part = |bytes: &Tensor, weight: u8| {
            bytes
                .narrow(0, slice * rows, rows)?
                .to_dtype(DType::F32)?
                .affine(1.0, f64::from(weight))
        };
        let term = part(low, weights.low[slice])?.mul(&part(high, weights.high[slice])?)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    across_columns(sum)
}

/// The sum over the column slices of the centred remainders modulo 2^18, times 1, 3, 5 and so on.
fn across_columns(sum: Option<Tensor>) -> Result<Tensor> {
    let Some(sum) = sum else {
        candle_core::bail!("a strip without slices")
    };
    let multiple = sum.affine(1.0, ROUND_2_POW_18)?.affine(1.0, -ROUND_2_POW_18)?;
    let centred = sum.sub(&multiple)?;
    let columns = centred.dim(D::Minus1)? / SLICES;
    let mut units: Option<Tensor> = None;
    for slice in 0..SLICES {
        let term = centred
            .narrow(D::Minus1, slice * columns, columns)?
            .affine(odd(slice), 0.0)?;
        units = Some(match units {
            Some(units) => units.add(&term)?,
            None => term,
        });
    }
    match units {
        Some(units) => Ok(units),
        None => candle_core::bail!("a strip without columns"),
    }
}

/// How many unit rows a strip holds.
fn unit_rows(strip: &Tensor) -> Result<usize> {
    let (rows, columns) = strip.dims2()?;
    if !rows.is_multiple_of(SLICES) || !columns.is_multiple_of(SLICES) {
        candle_core::bail!("a strip of {rows} × {columns} values does not hold whole units")
    }
    Ok(rows / SLICES)
}

/// The weight of a slice: 1, 3, 5 and so on.
#[expect(clippy::cast_precision_loss, reason = "there are eight slices")]
const fn odd(slice: usize) -> f64 {
    (2 * slice + 1) as f64
}

#[cfg(test)]
mod tests;
