//! Rounds on one device: permute, multiply strip by strip, fold, and keep what shall stay in its memory.

use std::time::{Duration, Instant};

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use gristmill_protocol::hardware::Precision;

use super::control::Control;
use super::operands::Operands;
use super::strips::Strip;
use super::{ProverError, fold, host_fold, precision};
use crate::challenge::dimension::Dimension;
use crate::challenge::matrices::Matrices;
use crate::challenge::residency::Weights;

/// The matrices of a challenge on a device, ready to be multiplied.
#[derive(Debug)]
pub(super) struct Workload {
    device: Device,
    dimension: Dimension,
    strips: Vec<Strip>,
    operands: Operands,
    /// How long each part of the rounds took, where that is measured.
    profile: Option<Profile>,
}

/// The result of a round that stays on the device: two bytes per entry, strip by strip.
#[derive(Debug)]
pub(super) struct Kept(Vec<(Tensor, Tensor)>);

/// How long the parts of all rounds took so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Profile {
    /// Bringing the rows of B into the order of the round.
    pub permuting: Duration,
    /// Multiplying.
    pub multiplying: Duration,
    /// Folding, and bringing the unit values to the host.
    pub folding: Duration,
}

/// The parts that [`Profile`] tells apart.
#[derive(Clone, Copy)]
enum Part {
    Permuting,
    Multiplying,
    Folding,
}

impl Workload {
    /// Expands the matrices and brings them onto the device.
    pub(super) fn prepare(
        matrices: &Matrices,
        strips: Vec<Strip>,
        device: &Device,
        control: &Control,
    ) -> Result<Self, ProverError> {
        let operands = Operands::expand(matrices, &strips, device, control)?;
        device.synchronize()?;
        Ok(Self {
            device: device.clone(),
            dimension: matrices.dimension(),
            strips,
            operands,
            profile: None,
        })
    }

    /// How large the matrices are.
    pub(super) const fn dimension(&self) -> Dimension {
        self.dimension
    }

    /// How many strips a round has.
    pub(super) const fn strips(&self) -> usize {
        self.strips.len()
    }

    /// From now on measures the parts of rounds, which costs a wait for the device after each.
    pub(super) fn start_profile(&mut self) {
        self.profile = Some(Profile::default());
    }

    /// What was measured since [`Self::start_profile`]; nothing is from now on.
    pub(super) fn stop_profile(&mut self) -> Profile {
        self.profile.take().unwrap_or_default()
    }

    /// What was measured since [`Self::start_profile`].
    pub(super) fn profile(&self) -> Profile {
        self.profile.unwrap_or_default()
    }

    /// Holds the matrices in the numbers of a precision, which changes no entry.
    pub(super) fn convert(&mut self, precision: Precision) -> Result<(), ProverError> {
        let dtype = precision::dtype(precision);
        if self.operands.dtype() != dtype {
            self.operands = self.operands.to_dtype(dtype)?;
            self.device.synchronize()?;
        }
        Ok(())
    }

    /// One round: the unit values of A times B with its rows permuted, row of units by row of units. Where `kept` is
    /// given, the result stays on the device, strip by strip in it. `done` hears how many strips are done.
    pub(super) fn round(
        &mut self,
        precision: Precision,
        permutation: &[u32],
        mut kept: Option<&mut Kept>,
        control: &Control,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<i32>, ProverError> {
        self.convert(precision)?;
        control.check()?;
        let order = Tensor::from_slice(permutation, permutation.len(), &self.device)?;
        let start = Instant::now();
        let b = self.operands.b.index_select(&order, 0)?;
        self.measure(Part::Permuting, start)?;
        let mut values = Vec::with_capacity(self.dimension.units());
        for at in 0..self.strips.len() {
            control.check()?;
            let product = self.multiply(precision, self.strips[at], &b)?;
            let start = Instant::now();
            values.extend(unit_values(&product)?);
            if let Some(Kept(strips)) = &mut kept {
                strips.push(low_bytes(&product)?);
            }
            self.measure(Part::Folding, start)?;
            done(at + 1);
        }
        Ok(values)
    }

    /// The unit values of some strips of a round only, for a check of the device.
    pub(super) fn some_strips(
        &mut self,
        precision: Precision,
        permutation: &[u32],
        strips: &[usize],
        control: &Control,
    ) -> Result<Vec<(Strip, Vec<i32>)>, ProverError> {
        self.convert(precision)?;
        let order = Tensor::from_slice(permutation, permutation.len(), &self.device)?;
        let b = self.operands.b.index_select(&order, 0)?;
        let mut values = Vec::with_capacity(strips.len());
        for &at in strips {
            control.check()?;
            let product = self.multiply(precision, self.strips[at], &b)?;
            values.push((self.strips[at], unit_values(&product)?));
        }
        Ok(values)
    }

    /// Folds a resident result with the weights of a nonce.
    pub(super) fn fold_kept(
        &self,
        kept: &Kept,
        weights: &Weights,
        control: &Control,
    ) -> Result<Vec<i32>, ProverError> {
        let mut values = Vec::with_capacity(self.dimension.units());
        for (low, high) in &kept.0 {
            control.check()?;
            values.extend(resident_unit_values(low, high, weights)?);
        }
        Ok(values)
    }

    fn multiply(&mut self, precision: Precision, strip: Strip, b: &Tensor) -> Result<Tensor, ProverError> {
        let start = Instant::now();
        let a = self.operands.a.narrow(0, strip.first_row(), strip.rows())?;
        let product = precision::multiply(precision, &a, b)?;
        self.measure(Part::Multiplying, start)?;
        Ok(product)
    }

    fn measure(&mut self, part: Part, start: Instant) -> Result<(), ProverError> {
        if let Some(profile) = &mut self.profile {
            self.device.synchronize()?;
            let took = start.elapsed();
            match part {
                Part::Permuting => profile.permuting += took,
                Part::Multiplying => profile.multiplying += took,
                Part::Folding => profile.folding += took,
            }
        }
        Ok(())
    }
}

impl Kept {
    /// Room for a result.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many bytes it takes on the device.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        self.0.iter().map(|(low, high)| bytes(low) + bytes(high)).sum()
    }
}

/// The unit values of a strip of a product, on the host.
fn unit_values(product: &Tensor) -> Result<Vec<i32>, ProverError> {
    if product.dtype() == DType::F32
        && let Some(values) = on_host(product, host_fold::unit_values)?
    {
        return Ok(values);
    }
    to_host(&fold::unit_values(product)?)
}

fn low_bytes(product: &Tensor) -> Result<(Tensor, Tensor), ProverError> {
    if product.dtype() == DType::F32
        && let Some((low, high)) = on_host(product, |values, _| host_fold::low_bytes(values))?
    {
        let as_tensor = |bytes| Tensor::from_vec(bytes, product.shape(), &Device::Cpu);
        return Ok((as_tensor(low)?, as_tensor(high)?));
    }
    Ok(fold::low_bytes(product)?)
}

fn resident_unit_values(low: &Tensor, high: &Tensor, weights: &Weights) -> Result<Vec<i32>, ProverError> {
    let (low_storage, _) = low.storage_and_layout();
    let (high_storage, _) = high.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::U8(low_bytes)), Storage::Cpu(CpuStorage::U8(high_bytes))) =
        (&*low_storage, &*high_storage)
    {
        let (_, columns) = low.dims2()?;
        return Ok(host_fold::resident_unit_values(
            low_bytes, high_bytes, columns, weights,
        ));
    }
    to_host(&fold::resident_unit_values(low, high, weights)?)
}

/// Hands the values of a tensor on, where they lie in this process's memory one after the other.
fn on_host<T>(tensor: &Tensor, fold: impl Fn(&[f32], usize) -> T) -> Result<Option<T>, ProverError> {
    let (_, columns) = tensor.dims2()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        return Ok(None);
    };
    Ok(Some(fold(&values[start..end], columns)))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "unit values are integers of at most 2^23"
)]
fn to_host(units: &Tensor) -> Result<Vec<i32>, ProverError> {
    let values = units.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().map(|value| value as i32).collect())
}
