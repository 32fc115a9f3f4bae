//! What a provider says its device is, before it has shown anything.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::hardware::{HardwareDigest, STAGES_MAX};

/// Most bytes of a device's name, of its vendor, of its driver's version, and of its UUID.
pub(crate) const TEXT_MAX_BYTES: usize = 96;
/// The largest index of a device.
const INDEX_MAX: u32 = 1_023;
/// Most memory that can be claimed: 64 TiB.
const MEMORY_MAX_BYTES: u64 = 64 << 40;
/// Most multiply-adds per second that can be claimed: 10^17, a hundred times what one device reaches today.
const RATE_MAX: u64 = 100_000_000_000_000_000;

/// In which numbers a device multiplies. The result is the same integer in each, rounded once in `bf16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// IEEE 754 binary32 inputs and sums.
    F32,
    /// Binary32 inputs of which the multiplier reads 10 bits of the fraction; binary32 sums.
    Tf32,
    /// bfloat16 inputs, binary32 sums, bfloat16 results.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// Its name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// By which interface a device computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HardwareKind {
    /// An NVIDIA GPU.
    Cuda,
    /// An Apple GPU.
    Metal,
    /// The processor itself.
    Cpu,
}

impl fmt::Display for HardwareKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Cpu => "cpu",
        })
    }
}

/// How fast a device multiplies in one precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Throughput {
    /// In which numbers.
    pub precision: Precision,
    /// Multiply-adds per second; twice as many floating-point operations.
    pub multiply_adds_per_second: u64,
}

/// What a device is said to be, and what it is said to do while it is challenged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HardwareClaim {
    /// By which interface it computes.
    pub kind: HardwareKind,
    /// Its number among the account's devices of this kind, from 0.
    pub index: u32,
    /// The maker's name for the model.
    pub name: String,
    /// Who makes it; empty where unknown.
    #[serde(default)]
    pub vendor: String,
    /// The driver's lasting name for this very device, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The version of the driver, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Memory that shall be shown, in bytes: what the owner lets the challenge fill.
    pub memory_bytes: u64,
    /// How fast it multiplies, once for each precision that shall be shown.
    pub throughput: Vec<Throughput>,
    /// The digest over everything that identifies the device.
    pub fingerprint: HardwareDigest,
}

/// A claim that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClaimError {
    /// A text that can't be shown.
    #[error(
        "the device's {field} must have at most {TEXT_MAX_BYTES} bytes, no control characters, and not be blank"
    )]
    Text {
        /// Which one.
        field: &'static str,
    },
    /// An index that no device has.
    #[error("the device's index is {0}; it is at most {INDEX_MAX}")]
    Index(u32),
    /// No memory, or too much.
    #[error("the claimed memory is {0} bytes; it must be 1 to {MEMORY_MAX_BYTES}")]
    Memory(u64),
    /// No precision, or one twice.
    #[error("a claim names 1 to {STAGES_MAX} precisions, each once")]
    Precisions,
    /// No speed, or too much.
    #[error(
        "the claimed throughput in {precision} is {rate} multiply-adds per second; it must be 1 to {RATE_MAX}"
    )]
    Rate {
        /// In which numbers.
        precision: Precision,
        /// What was claimed.
        rate: u64,
    },
}

impl HardwareClaim {
    /// Checks the bounds of a claim.
    ///
    /// # Errors
    /// [`ClaimError`] naming the field that makes no sense.
    pub fn check(&self) -> Result<(), ClaimError> {
        let text = |field, text: &str, may_be_blank: bool| match is_text(text, may_be_blank) {
            true => Ok(()),
            false => Err(ClaimError::Text { field }),
        };
        text("name", &self.name, false)?;
        text("vendor", &self.vendor, true)?;
        if let Some(uuid) = &self.uuid {
            text("uuid", uuid, false)?;
        }
        if let Some(driver) = &self.driver {
            text("driver", driver, true)?;
        }
        if self.index > INDEX_MAX {
            return Err(ClaimError::Index(self.index));
        }
        if !(1..=MEMORY_MAX_BYTES).contains(&self.memory_bytes) {
            return Err(ClaimError::Memory(self.memory_bytes));
        }
        let is_twice = |(at, one): (usize, &Throughput)| {
            self.throughput[..at]
                .iter()
                .any(|other| other.precision == one.precision)
        };
        if !(1..=STAGES_MAX).contains(&self.throughput.len())
            || self.throughput.iter().enumerate().any(is_twice)
        {
            return Err(ClaimError::Precisions);
        }
        for one in &self.throughput {
            if !(1..=RATE_MAX).contains(&one.multiply_adds_per_second) {
                return Err(ClaimError::Rate {
                    precision: one.precision,
                    rate: one.multiply_adds_per_second,
                });
            }
        }
        Ok(())
    }

    /// What is claimed in one precision, in multiply-adds per second.
    #[must_use]
    pub fn rate_in(&self, precision: Precision) -> Option<u64> {
        let of = self.throughput.iter().find(|one| one.precision == precision);
        of.map(|one| one.multiply_adds_per_second)
    }

    /// The digest of the device's UUID, where it has one.
    #[must_use]
    pub fn uuid_digest(&self) -> Option<HardwareDigest> {
        self.uuid.as_deref().map(HardwareDigest::of_uuid)
    }
}

/// Whether a text can be shown: bounded, without control characters.
pub(crate) fn is_text(text: &str, may_be_blank: bool) -> bool {
    text.len() <= TEXT_MAX_BYTES
        && !text.chars().any(char::is_control)
        && (may_be_blank || !text.trim().is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn claim() -> HardwareClaim {
        HardwareClaim {
            kind: HardwareKind::Cuda,
            index: 0,
            name: "NVIDIA H200".into(),
            vendor: "NVIDIA".into(),
            uuid: Some("GPU-6f2d4a9c".into()),
            driver: Some("570.86.15".into()),
            memory_bytes: 24 << 30,
            throughput: vec![Throughput {
                precision: Precision::F32,
                multiply_adds_per_second: 25_000_000_000_000,
            }],
            fingerprint: HardwareDigest::from_bytes([7; 32]),
        }
    }

    #[test]
    fn each_bound_of_a_claim_holds() {
        assert_eq!(claim().check(), Ok(()));
        let changed = |change: fn(&mut HardwareClaim)| {
            let mut claim = claim();
            change(&mut claim);
            claim.check()
        };
        assert!(changed(|claim| claim.name = "x".repeat(TEXT_MAX_BYTES)).is_ok());
        assert!(changed(|claim| claim.name = "x".repeat(TEXT_MAX_BYTES + 1)).is_err());
        assert!(changed(|claim| claim.name = " ".into()).is_err());
        assert!(changed(|claim| claim.vendor = "a\nb".into()).is_err());
        assert!(changed(|claim| claim.uuid = Some(String::new())).is_err());
        assert!(changed(|claim| claim.uuid = None).is_ok());
        assert!(changed(|claim| claim.index = INDEX_MAX + 1).is_err());
        assert!(changed(|claim| claim.memory_bytes = 0).is_err());
        assert!(changed(|claim| claim.memory_bytes = MEMORY_MAX_BYTES).is_ok());
        assert!(changed(|claim| claim.memory_bytes = MEMORY_MAX_BYTES + 1).is_err());
        assert!(changed(|claim| claim.throughput.clear()).is_err());
        assert!(changed(|claim| claim.throughput.push(claim.throughput[0])).is_err());
        assert!(changed(|claim| claim.throughput[0].multiply_adds_per_second = 0).is_err());
        assert!(changed(|claim| claim.throughput[0].multiply_adds_per_second = u64::MAX).is_err());
    }

    #[test]
    fn unknown_fields_and_other_types_are_refused() {
        let json = serde_json::to_string(&claim()).unwrap();
        assert_eq!(serde_json::from_str::<HardwareClaim>(&json).unwrap(), claim());
        for (from, to) in [
            (r#""index":0"#, r#""index":0,"speed":1"#),
            (r#""index":0"#, r#""index":-1"#),
            (r#""precision":"f32""#, r#""precision":"f64""#),
        ] {
            assert!(json.contains(from));
            assert!(
                serde_json::from_str::<HardwareClaim>(&json.replace(from, to)).is_err(),
                "{to}"
            );
        }
    }
}
