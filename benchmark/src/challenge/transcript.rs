//! All that was said in a challenge before the proof: with the proof it is what a verifier needs, now or years later.

use gristmill_protocol::hardware::{
    ChallengeParameters, ChallengeSeed, METHOD, ParametersError, Precision, UnitPosition, UnitsRoot,
};
use gristmill_protocol::ids::ChallengeId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::dimension::{Dimension, NotADimension};
use super::openings::place;

/// What coordinator and prover said to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    /// The name and version of the method: [`METHOD`].
    pub method: String,
    /// The name of the challenge.
    pub challenge: ChallengeId,
    /// How large it is.
    pub parameters: ChallengeParameters,
    /// From which the matrices are made.
    pub setup_seed: ChallengeSeed,
    /// One entry for each stage of the parameters.
    pub stages: Vec<StageTranscript>,
    /// From which the weights of the fold of what stayed in memory are made.
    pub nonce: ChallengeSeed,
    /// The commitments to what stayed in memory, one for each resident round.
    pub resident_roots: Vec<UnitsRoot>,
    /// The units of the stages that are asked for, in the order of the proof.
    pub units: Vec<UnitPosition>,
    /// The units of what stayed in memory that are asked for, in the order of the proof.
    pub resident_units: Vec<UnitPosition>,
}

/// What was said about one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageTranscript {
    /// From which the chain of the stage begins.
    pub round_seed: ChallengeSeed,
    /// The commitments, one for each round.
    pub roots: Vec<UnitsRoot>,
}

/// A transcript that is of no challenge of this method.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TranscriptError {
    /// Another method.
    #[error(
        "the challenge is of the method '{0}', this program knows {METHOD}; the older one needs an update"
    )]
    Method(String),
    /// Parameters out of bounds.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// Matrices of a size that there is none of.
    #[error(transparent)]
    Dimension(#[from] NotADimension),
    /// The results that shall stay in memory are rounded, so they could be packed into less.
    #[error("the last stage is in bf16, whose rounded results can't show memory; end with f32 or tf32")]
    RoundedResults,
    /// Commitments or seeds are missing or too many.
    #[error("there are {actual} {what} where the parameters ask for {expected}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        actual: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A unit is asked for that there is none of.
    #[error("the {} is outside of the challenge", place(.0))]
    Unit(UnitPosition),
}

impl Transcript {
    /// Checks that all parts are there and fit each other. Returns the dimension.
    ///
    /// # Errors
    /// [`TranscriptError`] naming what does not fit.
    pub fn check(&self) -> Result<Dimension, TranscriptError> {
        if self.method != METHOD {
            return Err(TranscriptError::Method(self.method.chars().take(64).collect()));
        }
        let parameters = &self.parameters;
        parameters.check()?;
        let dimension = Dimension::new(parameters.dimension)?;
        if parameters
            .stages
            .last()
            .is_some_and(|stage| stage.precision == Precision::Bf16)
        {
            return Err(TranscriptError::RoundedResults);
        }
        count("stages", self.stages.len(), parameters.stages.len())?;
        for (stage, asked) in self.stages.iter().zip(&parameters.stages) {
            count("commitments to rounds", stage.roots.len(), asked.rounds as usize)?;
        }
        let resident = parameters.resident_rounds as usize;
        count(
            "commitments to resident rounds",
            self.resident_roots.len(),
            resident,
        )?;
        count("units", self.units.len(), parameters.openings as usize)?;
        count(
            "resident units",
            self.resident_units.len(),
            parameters.resident_openings as usize,
        )?;
        self.check_units(dimension)?;
        Ok(dimension)
    }

    fn check_units(&self, dimension: Dimension) -> Result<(), TranscriptError> {
        let side = dimension.units_per_side();
        let is_inside = |unit: &UnitPosition| (unit.row as usize) < side && (unit.column as usize) < side;
        for unit in &self.units {
            let rounds = self
                .stages
                .get(unit.stage as usize)
                .map_or(0, |stage| stage.roots.len());
            if !is_inside(unit) || unit.round as usize >= rounds {
                return Err(TranscriptError::Unit(*unit));
            }
        }
        for unit in &self.resident_units {
            let is_last = unit.stage as usize + 1 == self.stages.len();
            if !is_inside(unit) || !is_last || unit.round as usize >= self.resident_roots.len() {
                return Err(TranscriptError::Unit(*unit));
            }
        }
        Ok(())
    }

    /// Rounds of the last stage before the first one whose result stays in memory.
    #[must_use]
    pub fn rounds_before_resident(&self) -> u32 {
        let rounds = self.parameters.stages.last().map_or(0, |stage| stage.rounds);
        rounds.saturating_sub(self.parameters.resident_rounds)
    }
}

const fn count(what: &'static str, actual: usize, expected: usize) -> Result<(), TranscriptError> {
    if actual == expected {
        Ok(())
    } else {
        Err(TranscriptError::Count {
            what,
            actual,
            expected,
        })
    }
}
