//! How large a challenge is: what the coordinator demands, in bounds that the provider checks too.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::hardware::{DIMENSION_MAX, DIMENSION_MIN, OPENINGS_MAX, Precision, ROUNDS_MAX, STAGES_MAX};

/// Rounds in one precision, timed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// In which numbers is multiplied.
    pub precision: Precision,
    /// How many products, each chained to the one before.
    pub rounds: u32,
}

/// The size of one challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChallengeParameters {
    /// Rows and columns of the matrices, a power of two.
    pub dimension: u32,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// How many results of the last stage stay in the device's memory: its last ones.
    pub resident_rounds: u32,
    /// How many units of the stages are opened; the stages take turns.
    pub openings: u32,
    /// How many units of what stayed in memory are opened.
    pub resident_openings: u32,
}

/// Parameters that no challenge has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParametersError {
    /// No such dimension.
    #[error("the dimension is {0}; it is a power of two from {DIMENSION_MIN} to {DIMENSION_MAX}")]
    Dimension(u32),
    /// No stages, too many, or one precision twice.
    #[error("a challenge has 1 to {STAGES_MAX} stages, each of another precision")]
    Stages,
    /// A stage of no rounds, or of too many.
    #[error("a stage has {0} rounds; it must be 1 to {ROUNDS_MAX}")]
    Rounds(u32),
    /// More results stay than there are.
    #[error("{resident} results shall stay in memory, but the last stage has {rounds}")]
    Resident {
        /// How many shall stay.
        resident: u32,
        /// How many there are.
        rounds: u32,
    },
    /// No openings, or too many.
    #[error("{0} units shall be opened; it must be 1 to {OPENINGS_MAX}")]
    Openings(u32),
}

impl ChallengeParameters {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`ParametersError`] naming what is out of bounds.
    pub fn check(&self) -> Result<(), ParametersError> {
        if !self.dimension.is_power_of_two() || !(DIMENSION_MIN..=DIMENSION_MAX).contains(&self.dimension) {
            return Err(ParametersError::Dimension(self.dimension));
        }
        let is_twice = |(at, stage): (usize, &Stage)| {
            self.stages[..at]
                .iter()
                .any(|other| other.precision == stage.precision)
        };
        let last = self.stages.last().ok_or(ParametersError::Stages)?;
        if self.stages.len() > STAGES_MAX || self.stages.iter().enumerate().any(is_twice) {
            return Err(ParametersError::Stages);
        }
        for stage in &self.stages {
            if !(1..=ROUNDS_MAX).contains(&stage.rounds) {
                return Err(ParametersError::Rounds(stage.rounds));
            }
        }
        if !(1..=last.rounds).contains(&self.resident_rounds) {
            return Err(ParametersError::Resident {
                resident: self.resident_rounds,
                rounds: last.rounds,
            });
        }
        for openings in [self.openings, self.resident_openings] {
            if !(1..=OPENINGS_MAX).contains(&openings) {
                return Err(ParametersError::Openings(openings));
            }
        }
        Ok(())
    }

    /// Multiply-adds of one round: the third power of the dimension.
    #[must_use]
    pub fn multiply_adds_per_round(&self) -> u64 {
        u64::from(self.dimension).saturating_pow(3)
    }

    /// Units of one result in each direction: an eighth of the dimension.
    #[must_use]
    pub const fn units_per_side(&self) -> u32 {
        self.dimension / 8
    }

    /// Bytes that one result takes in the device's memory: two for each entry.
    #[must_use]
    pub fn resident_bytes_per_round(&self) -> u64 {
        2 * u64::from(self.dimension) * u64::from(self.dimension)
    }

    /// Bytes that all results take that stay.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        u64::from(self.resident_rounds) * self.resident_bytes_per_round()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn parameters() -> ChallengeParameters {
        let stage = |precision, rounds| Stage { precision, rounds };
        ChallengeParameters {
            dimension: 4_096,
            stages: vec![stage(Precision::F32, 8), stage(Precision::Bf16, 16)],
            resident_rounds: 16,
            openings: 271,
            resident_openings: 271,
        }
    }

    #[test]
    fn each_bound_holds_at_n_and_at_n_plus_one() {
        let changed = |change: fn(&mut ChallengeParameters)| {
            let mut parameters = parameters();
            change(&mut parameters);
            parameters.check().is_ok()
        };
        assert!(changed(|_| {}));
        for (dimension, is_good) in [
            (256, true),
            (16_384, true),
            (128, false),
            (32_768, false),
            (300, false),
        ] {
            let mut parameters = parameters();
            parameters.dimension = dimension;
            assert_eq!(parameters.check().is_ok(), is_good, "{dimension}");
        }
        assert!(!changed(|parameters| parameters.stages.clear()));
        assert!(!changed(
            |parameters| parameters.stages[1].precision = Precision::F32
        ));
        assert!(!changed(|parameters| parameters.stages[0].rounds = 0));
        assert!(changed(|parameters| parameters.stages[0].rounds = ROUNDS_MAX));
        assert!(!changed(|parameters| parameters.stages[0].rounds = ROUNDS_MAX + 1));
        assert!(!changed(|parameters| parameters.resident_rounds = 17));
        assert!(!changed(|parameters| parameters.resident_rounds = 0));
        assert!(!changed(|parameters| parameters.openings = 0));
        assert!(!changed(
            |parameters| parameters.resident_openings = OPENINGS_MAX + 1
        ));
    }

    #[test]
    fn sizes_follow_the_dimension() {
        let parameters = parameters();
        assert_eq!(parameters.multiply_adds_per_round(), 1 << 36);
        assert_eq!(parameters.units_per_side(), 512);
        assert_eq!(parameters.resident_bytes(), 16 * 2 * 4_096 * 4_096);
    }
}
