//! The verdict on a proof, in exact integers: every opened unit is computed anew from the seeds.

use std::fmt;

use gristmill_protocol::hardware::UnitPosition;
use thiserror::Error;

use super::bookkeeping::unit_number;
use super::commitment::{Opening, OpeningError};
use super::dimension::Dimension;
use super::fold::{Rounding, Unit, unit_value};
use super::matrices::Matrices;
use super::openings::place;
use super::proof::{Proof, ProofError, encoded_bytes};
use super::recomputation::Recomputation;
use super::residency::Weights;
use super::transcript::{Transcript, TranscriptError};
use super::{chain, permutation};

/// Which kind of unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnitKind {
    /// A unit of a stage.
    Computed,
    /// A unit of what stayed in memory.
    Resident,
}

impl fmt::Display for UnitKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Computed => "computed",
            Self::Resident => "resident",
        })
    }
}

/// Why a proof shows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// What was said before is of no challenge.
    #[error("the transcript is of no challenge: {0}")]
    Transcript(#[from] TranscriptError),
    /// The bytes are no proof.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// Openings are missing, or too many.
    #[error("the proof opens {actual} {kind} units where {expected} were asked for")]
    Count {
        /// Of which kind.
        kind: UnitKind,
        /// How many are opened.
        actual: usize,
        /// How many were asked for.
        expected: usize,
    },
    /// An opening does not belong to the unit that was asked for.
    #[error("the opening of the {kind} {} shows nothing: {error}", place(unit))]
    Opening {
        /// Of which kind.
        kind: UnitKind,
        /// Which unit.
        unit: UnitPosition,
        /// What is wrong with it.
        error: OpeningError,
    },
    /// A unit was committed to that is not the right one.
    #[error(
        "the {kind} {} is {actual} where {expected} is right: it was not computed as asked",
        place(unit)
    )]
    Value {
        /// Of which kind.
        kind: UnitKind,
        /// Which unit.
        unit: UnitPosition,
        /// What was committed to.
        actual: i32,
        /// What is right.
        expected: i32,
    },
}

/// What a proof that holds has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Units of the stages that were computed anew, one for each opening.
    pub units: usize,
    /// Units of what stayed in memory that were computed anew, one for each opening.
    pub resident_units: usize,
}

/// A unit that was asked for, with the round of its stage that it belongs to.
#[derive(Clone, Copy, Debug)]
struct Asked<'proof> {
    kind: UnitKind,
    position: UnitPosition,
    /// As in the transcript, but counted from the stage's first round also for what stayed in memory.
    round: u32,
    opening: &'proof Opening,
}

/// Verifies a proof. No floats, no clock, no randomness: whoever verifies comes to the same verdict.
///
/// # Errors
/// [`VerifyError`] naming the first thing that is wrong.
pub fn verify(transcript: &Transcript, proof: &[u8]) -> Result<Verified, VerifyError> {
    let dimension = transcript.check()?;
    let asked_for = transcript.units.len() + transcript.resident_units.len();
    let limit = encoded_bytes(dimension, asked_for);
    if proof.len() > limit {
        let (actual, limit) = (proof.len() as u64, limit as u64);
        return Err(ProofError::TooLarge { actual, limit }.into());
    }
    let proof = Proof::decode(proof)?;
    count(UnitKind::Computed, proof.openings.len(), transcript.units.len())?;
    count(
        UnitKind::Resident,
        proof.resident_openings.len(),
        transcript.resident_units.len(),
    )?;
    let all = asked(transcript, &proof);
    Verification::new(transcript, dimension).check_all(&all)?;
    Ok(Verified {
        units: transcript.units.len(),
        resident_units: transcript.resident_units.len(),
    })
}

const fn count(kind: UnitKind, actual: usize, expected: usize) -> Result<(), VerifyError> {
    if actual == expected {
        Ok(())
    } else {
        Err(VerifyError::Count {
            kind,
            actual,
            expected,
        })
    }
}

/// All units that were asked for, by stage and round: so each permutation is made once.
fn asked<'proof>(transcript: &Transcript, proof: &'proof Proof) -> Vec<Asked<'proof>> {
    let before = transcript.rounds_before_resident();
    let computed = transcript
        .units
        .iter()
        .zip(&proof.openings)
        .map(|(&position, opening)| Asked {
            kind: UnitKind::Computed,
            position,
            round: position.round,
            opening,
        });
    let resident = transcript
        .resident_units
        .iter()
        .zip(&proof.resident_openings)
        .map(|(&position, opening)| Asked {
            kind: UnitKind::Resident,
            position,
            round: before + position.round,
            opening,
        });
    let mut all: Vec<_> = computed.chain(resident).collect();
    all.sort_by_key(|asked| (asked.position.stage, asked.round));
    all
}

struct Verification<'transcript> {
    transcript: &'transcript Transcript,
    dimension: Dimension,
    weights: Weights,
    recomputation: Recomputation,
}

impl<'transcript> Verification<'transcript> {
    fn new(transcript: &'transcript Transcript, dimension: Dimension) -> Self {
        let matrices = Matrices::new(transcript.setup_seed.bytes(), dimension);
        Self {
            transcript,
            dimension,
            weights: Weights::new(transcript.nonce.bytes()),
            recomputation: Recomputation::new(matrices),
        }
    }

    /// `all` is in the order of stages and rounds.
    fn check_all(&mut self, mut all: &[Asked<'_>]) -> Result<(), VerifyError> {
        let transcript = self.transcript;
        let stages = transcript.stages.iter().zip(&transcript.parameters.stages);
        for (number, (stage, asked)) in (0_u32..).zip(stages) {
            let rounding = Rounding::from(asked.precision);
            let mut value = chain::start(transcript.challenge.bytes(), number, stage.round_seed.bytes());
            for (round, root) in (0_u32..).zip(&stage.roots) {
                let is_here = |asked: &Asked<'_>| asked.position.stage == number && asked.round == round;
                let (here, rest) = all.split_at(all.partition_point(is_here));
                all = rest;
                self.check_round(here, &value, root.bytes(), rounding)?;
                value = chain::next(&value, root.bytes());
            }
        }
        // A unit of a round that there is not would otherwise count as verified.
        match all.first() {
            Some(left) => Err(TranscriptError::Unit(left.position).into()),
            None => Ok(()),
        }
    }

    fn check_round(
        &mut self,
        asked: &[Asked<'_>],
        chain_value: &[u8; 32],
        root: &[u8; 32],
        rounding: Rounding,
    ) -> Result<(), VerifyError> {
        if asked.is_empty() {
            return Ok(());
        }
        let key = chain::commitment_key(chain_value);
        let order = permutation::of_round(chain_value, self.dimension);
        for asked in asked {
            let actual = match asked.kind {
                UnitKind::Computed => self.opened(asked, &key, root)?,
                UnitKind::Resident => self.opened_resident(asked)?,
            };
            let expected = self.expected(asked, &order, rounding);
            if actual != expected {
                return Err(VerifyError::Value {
                    kind: asked.kind,
                    unit: asked.position,
                    actual,
                    expected,
                });
            }
        }
        Ok(())
    }

    fn opened(&self, asked: &Asked<'_>, key: &[u8; 32], root: &[u8; 32]) -> Result<i32, VerifyError> {
        let unit =
            unit_number(&asked.position, self.dimension).ok_or(TranscriptError::Unit(asked.position))?;
        asked
            .opening
            .value(key, root, self.dimension, unit)
            .map_err(|error| VerifyError::Opening {
                kind: asked.kind,
                unit: asked.position,
                error,
            })
    }

    fn opened_resident(&self, asked: &Asked<'_>) -> Result<i32, VerifyError> {
        let round = asked.position.round;
        let root = self.transcript.resident_roots.get(round as usize);
        let root = root.ok_or(TranscriptError::Unit(asked.position))?;
        let key = chain::residency_key(self.transcript.nonce.bytes(), round);
        self.opened(asked, &key, root.bytes())
    }

    fn expected(&mut self, asked: &Asked<'_>, order: &[u32], rounding: Rounding) -> i32 {
        let position = asked.position;
        let sums: Unit = self
            .recomputation
            .unit(position.row as usize, position.column as usize, order);
        match asked.kind {
            UnitKind::Computed => unit_value(&sums.map(|row| row.map(|sum| rounding.apply(sum)))),
            UnitKind::Resident => self.weights.unit_value(&sums),
        }
    }
}

#[cfg(test)]
mod tests;
