//! What an owner lets a challenge use: memory and power.
//!
//! Memory is a matter of not asking for more. Power is kept by duty cycle: the device's own limit bounds what it draws
//! while it computes, so pauses bound the average. Nothing is set on the device: that needs an administrator, and
//! would outlive the challenge. Where the limit can't be read, a challenge under a power budget is refused.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::challenge::dimension::Dimension;
use crate::inventory::{Device, DeviceKind};

/// The least share of the time in which a device computes that is worth a challenge, in thousandths.
const BUSY_MIN_PERMILLE: u32 = 100;
/// What a CUDA context and cuBLAS take beside everything that is asked for.
const CUDA_CONTEXT_BYTES: u64 = 768 << 20;
/// What a strip's temporary values take, as a multiple of the strip itself.
const STRIP_TEMPORARIES: u64 = 7;
/// A strip takes at most this part of the memory.
const STRIP_SHARE: u64 = 64;

/// The matrices that a measurement begins with.
pub(super) const FIRST_ROWS: u32 = 1_024;
/// The fewest results that a coordinator fills memory with.
const RESULTS_MIN: u64 = 4;
/// Longer than any coordinator lets a stage take.
const FILLED_WITHIN_SECONDS: u64 = 60;

/// What an owner lets a challenge use of one device. Nothing is limited by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Most memory of the device, in bytes; all that is free where absent, and half of it where the device shares it
    /// with everything else on the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
    /// Most power of the device in milliwatts, averaged over a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_max_milliwatts: Option<u32>,
}

/// A budget that can't be kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BudgetError {
    /// Nothing tells how much memory there is.
    #[error("{0} does not tell how much memory is free; say how much the challenge may use (--memory-max)")]
    MemoryUnknown(String),
    /// Too little for the matrices of any challenge.
    #[error("a challenge of {rows} rows needs {needed} bytes of memory on {device}, but may use {allowed}")]
    Memory {
        /// On which device.
        device: String,
        /// How large the matrices are.
        rows: u32,
        /// What they need.
        needed: u64,
        /// What may be used.
        allowed: u64,
    },
    /// Nothing bounds what the device draws while it computes.
    #[error(
        "{0} does not tell its power limit, so a power budget can't be kept on it; leave --power-max out, or the \
         device"
    )]
    PowerUnknown(String),
    /// The device draws more while idle, or nearly.
    #[error(
        "{device} draws {idle_milliwatts} mW before it computes anything and up to {limit_milliwatts} mW while it \
         does; {allowed_milliwatts} mW leave too little for a challenge"
    )]
    Power {
        /// Which device.
        device: String,
        /// What it draws now.
        idle_milliwatts: u32,
        /// What it may draw at most.
        limit_milliwatts: u32,
        /// What the owner allows.
        allowed_milliwatts: u32,
    },
}

/// What a device tells about its power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerReading {
    /// What it draws before it computes.
    pub idle_milliwatts: u32,
    /// What it may draw at most.
    pub limit_milliwatts: u32,
}

/// How a power budget is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRule {
    /// The device's own limit is within the budget, or there is no budget.
    AsFastAsItGoes,
    /// The device computes for this share of the time.
    DutyCycle {
        /// In thousandths.
        busy_permille: u32,
    },
}

impl PowerRule {
    /// How long to pause after the device was busy for `busy_micros`, in microseconds.
    #[must_use]
    pub fn pause_micros(self, busy_micros: u64) -> u64 {
        match self {
            Self::AsFastAsItGoes => 0,
            Self::DutyCycle { busy_permille } => {
                let busy = u64::from(busy_permille.clamp(1, 1_000));
                busy_micros.saturating_mul(1_000 - busy).div_ceil(busy)
            }
        }
    }
}

impl Budget {
    /// How the power budget is kept on a device.
    ///
    /// # Errors
    /// [`BudgetError`] where it can't be.
    pub fn power_rule(&self, device: &Device) -> Result<PowerRule, BudgetError> {
        let Some(allowed) = self.power_max_milliwatts else {
            return Ok(PowerRule::AsFastAsItGoes);
        };
        let (Some(limit), Some(idle)) = (device.power_limit_milliwatts, device.power_milliwatts) else {
            return Err(BudgetError::PowerUnknown(device.summary()));
        };
        let reading = PowerReading {
            idle_milliwatts: idle,
            limit_milliwatts: limit,
        };
        rule(allowed, reading).ok_or_else(|| BudgetError::Power {
            device: device.summary(),
            idle_milliwatts: idle,
            limit_milliwatts: limit,
            allowed_milliwatts: allowed,
        })
    }

    /// Whether a challenge can be done on a device within it: the smallest matrices that a measurement begins with fit, and
    /// the power can be kept. Gives the bytes of memory that a challenge may use.
    ///
    /// # Errors
    /// [`BudgetError`] where it can't.
    pub fn check(&self, device: &Device) -> Result<u64, BudgetError> {
        let (allowed, rows) = (self.memory(device)?, FIRST_ROWS);
        self.power_rule(device)?;
        let needed = Dimension::new(rows).map_or(0, |dimension| {
            working_bytes(dimension, allowed).saturating_add(dimension.resident_bytes())
        });
        if needed > allowed {
            let device = device.summary();
            return Err(BudgetError::Memory {
                device,
                rows,
                needed,
                allowed,
            });
        }
        Ok(allowed)
    }

    /// How much memory of a device a challenge may use, in bytes.
    ///
    /// # Errors
    /// [`BudgetError::MemoryUnknown`] where neither the device nor the owner says.
    pub fn memory(&self, device: &Device) -> Result<u64, BudgetError> {
        let free = device.memory_free_bytes.or(device.memory_total_bytes);
        let usable = free.map(|free| match device.kind {
            DeviceKind::Cuda | DeviceKind::Rocm => free.saturating_sub(CUDA_CONTEXT_BYTES),
            DeviceKind::Metal | DeviceKind::Cpu => free / 2,
        });
        match (usable, self.memory_max_bytes) {
            (Some(usable), Some(most)) => Ok(usable.min(most)),
            (Some(usable), None) => Ok(usable),
            (None, Some(most)) => Ok(most),
            (None, None) => Err(BudgetError::MemoryUnknown(device.summary())),
        }
    }
}

/// The rule that keeps the average below `allowed`, where there is one.
fn rule(allowed: u32, reading: PowerReading) -> Option<PowerRule> {
    if reading.limit_milliwatts <= allowed {
        return Some(PowerRule::AsFastAsItGoes);
    }
    let above_idle = u64::from(allowed.checked_sub(reading.idle_milliwatts)?);
    let range = u64::from(reading.limit_milliwatts.checked_sub(reading.idle_milliwatts)?);
    let busy_permille = u32::try_from(above_idle * 1_000 / range.max(1)).ok()?;
    (busy_permille >= BUSY_MIN_PERMILLE).then_some(PowerRule::DutyCycle { busy_permille })
}

/// Most bytes of a strip, as 32-bit values, where so much memory may be used.
pub(super) const fn strip_bytes(memory: u64) -> u64 {
    memory / STRIP_SHARE
}

/// What the matrices and the temporary values of a challenge take: everything but what shall stay.
pub(super) const fn working_bytes(dimension: Dimension, memory: u64) -> u64 {
    let entries = dimension.rows() as u64 * dimension.rows() as u64;
    // A, B and B with its rows permuted. While they are converted to another type there is no permuted one.
    let matrices = 3 * entries * size_of::<f32>() as u64;
    let strip = strip_bytes(memory);
    let result = entries * size_of::<f32>() as u64;
    matrices + STRIP_TEMPORARIES * if strip < result { strip } else { result }
}

/// How much of the memory can be claimed: what is left beside the matrices, whichever a coordinator chooses. It takes
/// the largest with which a handful of results fit into the claim and are done in time; larger matrices need more
/// beside the results, so a claim is either small enough to leave room for them, or too small for them to be chosen.
pub(super) fn claimable(memory: u64, measured: Dimension, multiply_adds_per_second: u64) -> u64 {
    let mut claim = memory.saturating_sub(working_bytes(measured, memory));
    let larger = std::iter::successors(Dimension::new(measured.get() * 2).ok(), |dimension| {
        Dimension::new(dimension.get() * 2).ok()
    });
    for dimension in larger {
        let in_time = multiply_adds_per_second.saturating_mul(FILLED_WITHIN_SECONDS);
        if dimension.multiply_adds().saturating_mul(RESULTS_MIN) > in_time {
            break;
        }
        let chosen_from = RESULTS_MIN * dimension.resident_bytes();
        let beside = memory.saturating_sub(working_bytes(dimension, memory));
        if claim >= chosen_from {
            claim = claim.min(beside.max(chosen_from - 1));
        }
    }
    claim
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_budget_is_checked_before_anything_is_computed() {
        let device = |free| Device {
            memory_free_bytes: Some(free),
            ..Device::new(DeviceKind::Cpu, 0, "CPU", "")
        };
        let budget = |memory_max_bytes, power_max_milliwatts| Budget {
            memory_max_bytes,
            power_max_milliwatts,
        };
        assert_eq!(budget(None, None).check(&device(1 << 30)), Ok(1 << 29));
        assert_eq!(budget(Some(64 << 20), None).check(&device(1 << 30)), Ok(64 << 20));
        assert!(matches!(
            budget(None, None).check(&device(8 << 20)),
            Err(BudgetError::Memory { rows: 1_024, .. })
        ));
        assert!(matches!(
            budget(None, Some(1_000)).check(&device(1 << 30)),
            Err(BudgetError::PowerUnknown(_))
        ));
    }

    use super::*;
    use crate::readings::processor::{CpuReading, cpu_device};

    fn gpu(idle: Option<u32>, limit: Option<u32>) -> Device {
        Device {
            kind: DeviceKind::Cuda,
            memory_free_bytes: Some(24 << 30),
            power_milliwatts: idle,
            power_limit_milliwatts: limit,
            ..cpu_device(&CpuReading::default())
        }
    }

    fn with_power(milliwatts: u32) -> Budget {
        Budget {
            power_max_milliwatts: Some(milliwatts),
            ..Budget::default()
        }
    }

    #[test]
    fn power_is_kept_by_pauses_or_refused() {
        let device = gpu(Some(50_000), Some(450_000));
        let rule = |milliwatts| with_power(milliwatts).power_rule(&device);
        assert_eq!(rule(450_000), Ok(PowerRule::AsFastAsItGoes));
        assert_eq!(rule(250_000), Ok(PowerRule::DutyCycle { busy_permille: 500 }));
        assert_eq!(rule(90_000), Ok(PowerRule::DutyCycle { busy_permille: 100 }));
        for too_little in [89_000, 50_000, 10_000, 0] {
            assert!(
                matches!(rule(too_little), Err(BudgetError::Power { .. })),
                "{too_little}"
            );
        }
        assert_eq!(
            Budget::default().power_rule(&gpu(None, None)),
            Ok(PowerRule::AsFastAsItGoes)
        );
        for silent in [gpu(None, Some(1)), gpu(Some(1), None)] {
            assert!(matches!(
                with_power(400_000).power_rule(&silent),
                Err(BudgetError::PowerUnknown(_))
            ));
        }
    }

    #[test]
    fn pauses_leave_the_average_within_the_budget() {
        let reading = PowerReading {
            idle_milliwatts: 50_000,
            limit_milliwatts: 450_000,
        };
        for allowed in (90_000..450_000).step_by(7_001) {
            let rule = rule(allowed, reading).unwrap();
            let (busy, pause) = (80_000, rule.pause_micros(80_000));
            let average = (450_000 * busy + 50_000 * pause) / (busy + pause);
            assert!(
                average <= u64::from(allowed) && average + 1_000 > u64::from(allowed),
                "{allowed}"
            );
        }
        assert_eq!(PowerRule::AsFastAsItGoes.pause_micros(u64::MAX), 0);
    }

    #[test]
    fn memory_is_what_is_free_and_no_more_than_the_owner_allows() {
        let of = |most, device: &Device| {
            let budget = Budget {
                memory_max_bytes: most,
                ..Budget::default()
            };
            budget.memory(device)
        };
        let device = gpu(None, None);
        assert_eq!(of(None, &device), Ok((24 << 30) - CUDA_CONTEXT_BYTES));
        assert_eq!(of(Some(1 << 30), &device), Ok(1 << 30));
        assert_eq!(of(Some(u64::MAX), &device), Ok((24 << 30) - CUDA_CONTEXT_BYTES));
        let shared = Device {
            kind: DeviceKind::Cpu,
            ..gpu(None, None)
        };
        assert_eq!(of(None, &shared), Ok(12 << 30));
        let silent = Device {
            memory_free_bytes: None,
            memory_total_bytes: None,
            ..gpu(None, None)
        };
        assert!(matches!(of(None, &silent), Err(BudgetError::MemoryUnknown(_))));
        assert_eq!(of(Some(5), &silent), Ok(5));
    }

    #[test]
    fn what_a_challenge_needs_grows_with_it() {
        let dimension = Dimension::new(4_096).unwrap();
        let matrices = 12 * 4_096 * 4_096;
        assert_eq!(working_bytes(dimension, 0), matrices);
        assert_eq!(working_bytes(dimension, 64 << 20), matrices + (7 << 20));
        assert_eq!(working_bytes(dimension, u64::MAX), matrices / 3 * (3 + 7));
    }

    #[test]
    fn whichever_matrices_a_coordinator_chooses_the_claim_fits_beside_them() {
        for memory in (26..38).flat_map(|bits| [1_u64 << bits, 3 << bits, (1 << bits) - 1]) {
            for speed in (30..50).map(|bits| 1_u64 << bits) {
                for rows in [1_024, 4_096, 16_384] {
                    let measured = Dimension::new(rows).unwrap();
                    let claim = claimable(memory, measured, speed);
                    for rows in (8..=14).map(|bits| 1 << bits) {
                        let chosen = Dimension::new(rows).unwrap();
                        let is_chosen = chosen <= measured
                            || (claim >= 4 * chosen.resident_bytes()
                                && 4 * chosen.multiply_adds() <= speed.saturating_mul(60));
                        let fits = working_bytes(chosen, memory).saturating_add(claim) <= memory;
                        assert!(
                            claim == 0 || !is_chosen || fits,
                            "{memory} {speed} {measured:?} {chosen:?}"
                        );
                    }
                }
            }
        }
        let of = |memory, rows, speed| claimable(memory, Dimension::new(rows).unwrap(), speed);
        // A processor: no larger matrices in time, so nothing is held back for them.
        let processor = (8 << 30) - working_bytes(Dimension::new(2_048).unwrap(), 8 << 30);
        assert_eq!(of(8 << 30, 2_048, 1_000_000_000), processor);
        // A large GPU, measured with the largest matrices, claims nearly all.
        assert!(of(128 << 30, 16_384, 1 << 47) > 115 << 30);
    }
}
