//! One device and what it may claim: measured before a coordinator is asked for a challenge.

use std::time::{Duration, Instant};

use candle_core::Device;
use gristmill_protocol::hardware::{HardwareClaim, HardwareDigest, HardwareKind, Precision, Throughput};

use super::budget::{self, Budget, BudgetError, PowerRule};
use super::challenge::pause;
use super::claiming::{Calibration, ClaimPercent, rate};
use super::control::Control;
use super::offered::{LeftOut, Offered, offered};
use super::workload::Workload;
use super::{ProverError, self_check, strips};
use crate::challenge::commitment::Commitment;
use crate::challenge::dimension::Dimension;
use crate::challenge::matrices::Matrices;
use crate::challenge::permutation;
use crate::inventory::{self, DeviceKind};

/// How fast a device is taken to be before anything is known, in multiply-adds per second: a slow processor.
const FIRST_SPEED: u64 = 2_000_000_000;
/// Larger matrices are tried as long as a round takes less than this: larger ones use a device better.
const LONG_ROUND: Duration = Duration::from_millis(250);
/// How long a part of a measurement is, at least one round.
const PART: Duration = Duration::from_millis(130);
/// Most bytes of a text in a claim.
const TEXT_MAX_BYTES: usize = 96;
/// What the matrices of a measurement are made from. Nothing depends on them.
const SEED: [u8; 32] = *b"gristmill hardware measurement 1";

/// One device, open for challenges within its owner's budget.
#[derive(Debug)]
pub struct Prover {
    device: Device,
    description: inventory::Device,
    kind: HardwareKind,
    memory: u64,
    power: PowerRule,
    /// The speed by which products are cut into strips, in multiply-adds per second.
    speed: u64,
}

/// What a device may claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// How large the matrices were.
    pub dimension: Dimension,
    /// What was measured in each precision that the device computes exactly in, with everything around the products.
    pub rates: Vec<MeasuredRate>,
    /// The precisions that it offers but does not compute exactly in.
    pub inexact: Vec<Precision>,
    /// The precisions that it refuses to compute in, and why.
    pub left_out: Vec<LeftOut>,
    /// Memory that a challenge of these matrices can fill, in bytes.
    pub memory_bytes: u64,
}

impl Measurement {
    /// What the owner should know of precisions that are not offered, a sentence each.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let inexact = self
            .inexact
            .iter()
            .map(|precision| format!("{precision} is not shown: the device's products are not exact in it"));
        let left_out = self.left_out.iter().map(|LeftOut { precision, reason }| {
            format!("{precision} is not shown: the device or its driver can't compute in it ({reason})")
        });
        inexact.chain(left_out)
    }
}

/// What was measured in one precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredRate {
    /// How fast it was, all in all.
    pub throughput: Throughput,
    /// How fast it was in the slowest part of the measurement, in multiply-adds per second: what a claim is a part of.
    pub slowest: u64,
    /// What part of a round was multiplying, in thousandths, where each part is waited for.
    pub multiplying_permille: u32,
}

impl Prover {
    /// Opens a device. Loads its driver, which can take seconds: call it outside of async tasks.
    ///
    /// # Errors
    /// [`ProverError`] where this build or the driver can't, or the budget can't be kept.
    pub fn open(description: &inventory::Device, budget: &Budget) -> Result<Self, ProverError> {
        if !description.usable {
            return Err(ProverError::NotInThisBuild(description.summary()));
        }
        let memory = budget.memory(description)?;
        let power = budget.power_rule(description)?;
        let index = description.index as usize;
        let Some(kind) = hardware_kind(description.kind) else {
            return Err(ProverError::NotInThisBuild(description.summary()));
        };
        // On a thread of its own: a library of the driver that is missing ends in a panic inside of cudarc.
        let opening = std::thread::spawn(move || match kind {
            HardwareKind::Cuda => Device::new_cuda(index),
            HardwareKind::Metal => Device::new_metal(index),
            HardwareKind::Cpu => Ok(Device::Cpu),
        });
        let device = opening
            .join()
            .map_err(|panic| ProverError::DriverGaveUp(panic_text(&*panic)))??;
        Ok(Self {
            device,
            description: description.clone(),
            kind,
            memory,
            power,
            speed: FIRST_SPEED,
        })
    }

    /// The device as the inventory shows it.
    #[must_use]
    pub const fn description(&self) -> &inventory::Device {
        &self.description
    }

    pub(super) const fn power_rule(&self) -> PowerRule {
        self.power
    }

    /// Whether matrices of this size and so many resident bytes are within the budget.
    pub(super) fn fits(&self, dimension: Dimension, resident_bytes: u64) -> Result<(), ProverError> {
        let needed = budget::working_bytes(dimension, self.memory).saturating_add(resident_bytes);
        if needed > self.memory {
            return Err(BudgetError::Memory {
                device: self.description.summary(),
                rows: dimension.get(),
                needed,
                allowed: self.memory,
            }
            .into());
        }
        Ok(())
    }

    /// Matrices on the device, cut into strips by what is known of its speed.
    pub(super) fn workload(&self, matrices: &Matrices, control: &Control) -> Result<Workload, ProverError> {
        let strips = strips::strips(matrices.dimension(), self.speed, budget::strip_bytes(self.memory));
        Workload::prepare(matrices, strips, &self.device, control)
    }

    /// Measures what the device may claim, at the pace that its power budget allows. Takes a second or two.
    ///
    /// # Errors
    /// [`ProverError`] where it was stopped, does not fit, or computes exactly in no precision.
    pub fn measure(&mut self, control: &Control) -> Result<Measurement, ProverError> {
        let mut rows = budget::FIRST_ROWS;
        let (dimension, mut workload, matrices) = loop {
            let dimension =
                Dimension::new(rows).map_err(|error| ProverError::Challenge(error.to_string()))?;
            self.fits(dimension, dimension.resident_bytes())?;
            let matrices = Matrices::new(&SEED, dimension);
            let mut workload = self.workload(&matrices, control)?;
            self_check::check(&mut workload, &matrices, Precision::F32, control)?;
            let (rounds, took) = self.rounds(&mut workload, Precision::F32, Duration::ZERO, control)?;
            self.speed = rate(work(dimension, rounds), took);
            let larger = Dimension::new(rows * 2)
                .is_ok_and(|larger| self.fits(larger, 4 * larger.resident_bytes()).is_ok());
            if took >= LONG_ROUND || !larger {
                break (dimension, workload, matrices);
            }
            rows *= 2;
        };
        let Offered {
            rates,
            inexact,
            left_out,
        } = offered(precisions(self.kind), |precision| {
            self_check::check(&mut workload, &matrices, precision, control)?;
            self.measure_precision(&mut workload, precision, control)
        })?;
        let rates_only = rates
            .iter()
            .map(|one: &MeasuredRate| one.throughput.multiply_adds_per_second);
        let fastest = rates_only.max().unwrap_or_default();
        Ok(Measurement {
            dimension,
            rates,
            inexact,
            left_out,
            memory_bytes: budget::claimable(self.memory, dimension, fastest),
        })
    }

    fn measure_precision(
        &self,
        workload: &mut Workload,
        precision: Precision,
        control: &Control,
    ) -> Result<MeasuredRate, ProverError> {
        let dimension = workload.dimension();
        let mut calibration = Calibration::default();
        while !calibration.is_enough() {
            let (rounds, took) = self.rounds(workload, precision, PART, control)?;
            calibration.add(work(dimension, rounds), took);
        }
        workload.start_profile();
        let (_, took) = self.rounds(workload, precision, Duration::ZERO, control)?;
        let multiplying = workload.stop_profile().multiplying;
        Ok(MeasuredRate {
            throughput: Throughput {
                precision,
                multiply_adds_per_second: calibration.average(),
            },
            slowest: calibration.slowest(),
            multiplying_permille: permille(multiplying, took),
        })
    }

    /// Does rounds as a challenge does, at least one and for at least so long.
    fn rounds(
        &self,
        workload: &mut Workload,
        precision: Precision,
        at_least: Duration,
        control: &Control,
    ) -> Result<(u64, Duration), ProverError> {
        let (start, mut rounds) = (Instant::now(), 0);
        loop {
            let mut value = SEED;
            value[..8].copy_from_slice(&u64::to_le_bytes(rounds));
            let order = permutation::of_round(&value, workload.dimension());
            let mut busy_since = Instant::now();
            let values = workload.round(precision, &order, None, control, &mut |_| {
                pause(self.power, busy_since.elapsed(), control);
                busy_since = Instant::now();
            })?;
            // Part of every round of a challenge, so part of what it takes.
            std::hint::black_box(Commitment::new(value, &values));
            rounds += 1;
            if start.elapsed() >= at_least {
                return Ok((rounds, start.elapsed()));
            }
        }
    }

    /// What is claimed of this device after a measurement: so much of the slowest that was seen. `index` counts the
    /// owner's devices of this kind.
    #[must_use]
    pub fn claim(
        &self,
        measurement: &Measurement,
        percent: ClaimPercent,
        index: u32,
        fingerprint: HardwareDigest,
    ) -> HardwareClaim {
        let claimed = |one: &MeasuredRate| Throughput {
            precision: one.throughput.precision,
            multiply_adds_per_second: percent.of(one.slowest),
        };
        let device = &self.description;
        let name = text(&device.name);
        HardwareClaim {
            kind: self.kind,
            index,
            name: if name.is_empty() { "unknown".into() } else { name },
            vendor: text(&device.vendor),
            uuid: device.uuid.as_deref().map(text).filter(|uuid| !uuid.is_empty()),
            driver: device.driver_version.as_deref().map(text),
            memory_bytes: measurement.memory_bytes,
            throughput: measurement.rates.iter().map(claimed).collect(),
            fingerprint,
        }
    }
}

/// The precisions that are tried on a kind of device. A processor gains nothing from the narrow ones.
const fn precisions(kind: HardwareKind) -> &'static [Precision] {
    match kind {
        HardwareKind::Cuda => &[Precision::Bf16, Precision::Tf32, Precision::F32],
        HardwareKind::Metal => &[Precision::Bf16, Precision::F32],
        HardwareKind::Cpu => &[Precision::F32],
    }
}

/// What candle computes on; it has nothing for AMD's GPUs.
const fn hardware_kind(kind: DeviceKind) -> Option<HardwareKind> {
    match kind {
        DeviceKind::Cuda => Some(HardwareKind::Cuda),
        DeviceKind::Metal => Some(HardwareKind::Metal),
        DeviceKind::Cpu => Some(HardwareKind::Cpu),
        DeviceKind::Rocm => None,
    }
}

/// A part of a time, in thousandths.
fn permille(part: Duration, whole: Duration) -> u32 {
    u32::try_from(part.as_nanos() * 1_000 / whole.as_nanos().max(1)).unwrap_or(1_000)
}

/// Multiply-adds of so many rounds.
fn work(dimension: Dimension, rounds: u64) -> u128 {
    u128::from(dimension.multiply_adds()) * u128::from(rounds)
}

/// A text as a claim may carry it: short, and without control characters.
fn text(text: &str) -> String {
    let mut shown: String = text.chars().filter(|character| !character.is_control()).collect();
    while shown.len() > TEXT_MAX_BYTES {
        shown.pop();
    }
    shown.trim().to_owned()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no reason given".to_owned())
}
