//! The two matrices on the device: expanded on the host by all threads, brought over as bytes, before anything is
//! timed.

use std::num::NonZero;
use std::thread;

use candle_core::{DType, Device, Tensor};

use super::ProverError;
use super::control::{Control, Phase};
use super::strips::Strip;
use crate::challenge::dimension::Dimension;
use crate::challenge::matrices::Matrices;

/// Into how many parts an expansion is cut, so that it can stop between them.
const PARTS: usize = 16;

/// A and B as a device multiplies them.
#[derive(Debug)]
pub(super) struct Operands {
    /// The rows of A in the order of the strips.
    pub(super) a: Tensor,
    /// B by rows, as the generator makes it.
    pub(super) b: Tensor,
}

impl Operands {
    /// Expands both matrices and brings them onto the device as f32.
    pub(super) fn expand(
        matrices: &Matrices,
        strips: &[Strip],
        device: &Device,
        control: &Control,
    ) -> Result<Self, ProverError> {
        let dimension = matrices.dimension();
        let order: Vec<usize> = strips
            .iter()
            .flat_map(|strip| (0..strip.rows()).map(|place| strip.row_of_a(place, dimension)))
            .collect();
        let a = expand(dimension, control, 0, |place, row| {
            matrices.row_of_a(order[place], row);
        })?;
        let a = to_device(a, dimension, device)?;
        let b = expand(dimension, control, PARTS, |index, column| {
            matrices.column_of_b(index, column);
        })?;
        let b = Tensor::from_vec(b, (dimension.rows(), dimension.rows()), &Device::Cpu)?
            .to_device(device)?
            .t()?
            .contiguous()?;
        Ok(Self {
            a,
            b: entries(&b, dimension)?,
        })
    }

    /// In which type of number they are.
    pub(super) fn dtype(&self) -> DType {
        self.a.dtype()
    }

    /// The same as another type of number, which must hold the entries exactly: they have at most seven bits.
    pub(super) fn to_dtype(&self, dtype: DType) -> Result<Self, ProverError> {
        Ok(Self {
            a: self.a.to_dtype(dtype)?,
            b: self.b.to_dtype(dtype)?,
        })
    }
}

fn to_device(bytes: Vec<u8>, dimension: Dimension, device: &Device) -> Result<Tensor, ProverError> {
    let bytes =
        Tensor::from_vec(bytes, (dimension.rows(), dimension.rows()), &Device::Cpu)?.to_device(device)?;
    entries(&bytes, dimension)
}

/// Bytes from 0 as entries around 0.
fn entries(bytes: &Tensor, dimension: Dimension) -> Result<Tensor, ProverError> {
    let max = f64::from(dimension.max_entry());
    Ok(bytes.to_dtype(DType::F32)?.affine(1.0, -max)?)
}

/// Fills a square matrix of entries, each raised by the largest to be a byte.
fn expand(
    dimension: Dimension,
    control: &Control,
    done_before: usize,
    fill: impl Fn(usize, &mut [i8]) + Sync,
) -> Result<Vec<u8>, ProverError> {
    let rows = dimension.rows();
    let mut bytes = vec![0_u8; rows * rows];
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let part_rows = rows.div_ceil(PARTS);
    for (part, bytes) in bytes.chunks_mut(part_rows * rows).enumerate() {
        control.check()?;
        control.tell(Phase::Expanding, done_before + part, 2 * PARTS);
        let share = part_rows.div_ceil(threads);
        thread::scope(|scope| {
            for (number, bytes) in bytes.chunks_mut(share * rows).enumerate() {
                let fill = &fill;
                scope.spawn(move || {
                    let mut entries = vec![0_i8; rows];
                    for (row, bytes) in bytes.chunks_mut(rows).enumerate() {
                        fill(part * part_rows + number * share + row, &mut entries);
                        raise(&entries, dimension, bytes);
                    }
                });
            }
        });
    }
    control.tell(Phase::Expanding, done_before + PARTS, 2 * PARTS);
    Ok(bytes)
}

/// Adds the largest entry to each, so that none is negative.
fn raise(entries: &[i8], dimension: Dimension, bytes: &mut [u8]) {
    for (byte, &entry) in bytes.iter_mut().zip(entries) {
        *byte = dimension.max_entry().wrapping_add_signed(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::super::strips::strips;
    use super::*;

    #[test]
    fn both_matrices_lie_on_the_device_as_the_generator_makes_them() {
        let dimension = Dimension::SMALLEST;
        let matrices = Matrices::new(&[3; 32], dimension);
        let strips = strips(dimension, 40_000_000, u64::MAX);
        assert!(strips.len() > 1);
        let operands = Operands::expand(&matrices, &strips, &Device::Cpu, &Control::default()).unwrap();
        let a: Vec<Vec<f32>> = operands.a.to_vec2().unwrap();
        let b: Vec<Vec<f32>> = operands.b.to_vec2().unwrap();
        let mut expected = vec![0; dimension.rows()];
        for strip in &strips {
            for place in 0..strip.rows() {
                matrices.row_of_a(strip.row_of_a(place, dimension), &mut expected);
                let row = &a[strip.first_row() + place];
                assert!(
                    row.iter()
                        .zip(&expected)
                        .all(|(&is, &should)| is == f32::from(should))
                );
            }
        }
        for column in 0..dimension.rows() {
            matrices.column_of_b(column, &mut expected);
            assert!(
                b.iter()
                    .zip(&expected)
                    .all(|(row, &should)| row[column] == f32::from(should))
            );
        }
    }

    #[test]
    fn an_expansion_stops_when_told() {
        let control = Control::default();
        let stop = super::super::control::StopToken::default();
        stop.stop();
        let stopped = Control::new(stop, std::sync::Arc::new(super::super::control::AlwaysOpen));
        let dimension = Dimension::SMALLEST;
        let matrices = Matrices::new(&[3; 32], dimension);
        let strips = strips(dimension, u64::MAX, u64::MAX);
        assert!(Operands::expand(&matrices, &strips, &Device::Cpu, &control).is_ok());
        assert!(matches!(
            Operands::expand(&matrices, &strips, &Device::Cpu, &stopped),
            Err(ProverError::Interrupted(_))
        ));
    }
}
