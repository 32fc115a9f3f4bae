//! What a prover keeps of a challenge besides the matrices: commitments, the chain, and with them the openings.

use gristmill_protocol::hardware::{ChallengeSeed, Precision, UnitPosition, UnitsRoot};
use gristmill_protocol::ids::ChallengeId;
use thiserror::Error;

use super::commitment::{Commitment, Opening};
use super::dimension::Dimension;
use super::fold::Rounding;
use super::openings::place;
use super::proof::Proof;
use super::{chain, permutation};

impl From<Precision> for Rounding {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 | Precision::Tf32 => Self::Exact,
            Precision::Bf16 => Self::Bfloat16,
        }
    }
}

/// A unit is asked for that the prover never committed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the {} is asked for, but nothing was committed to there", place(.0))]
pub struct NoSuchUnit(pub UnitPosition);

/// The commitments of one challenge, stage by stage and round by round.
#[derive(Clone, Debug)]
pub struct Bookkeeping {
    challenge: ChallengeId,
    dimension: Dimension,
    chain_value: [u8; 32],
    stages: Vec<Vec<Commitment>>,
    nonce: ChallengeSeed,
    resident: Vec<Commitment>,
}

impl Bookkeeping {
    /// Nothing is committed to yet.
    #[must_use]
    pub const fn new(challenge: ChallengeId, dimension: Dimension) -> Self {
        Self {
            challenge,
            dimension,
            chain_value: [0; 32],
            stages: Vec::new(),
            nonce: ChallengeSeed::from_bytes([0; 32]),
            resident: Vec::new(),
        }
    }

    /// The next stage begins.
    pub fn begin_stage(&mut self, round_seed: &ChallengeSeed) {
        let stage = u32::try_from(self.stages.len()).unwrap_or(u32::MAX);
        self.chain_value = chain::start(self.challenge.bytes(), stage, round_seed.bytes());
        self.stages.push(Vec::new());
    }

    /// How many stages have begun.
    #[must_use]
    pub const fn stages_begun(&self) -> usize {
        self.stages.len()
    }

    /// In which order the next round takes the rows of B.
    #[must_use]
    pub fn order(&self) -> Vec<u32> {
        permutation::of_round(&self.chain_value, self.dimension)
    }

    /// Commits to the unit values of a round. Without a stage that began there is nothing to commit to: then the
    /// values are dropped.
    pub fn commit(&mut self, values: &[i32]) -> UnitsRoot {
        let commitment = Commitment::new(chain::commitment_key(&self.chain_value), values);
        let root = *commitment.root();
        self.chain_value = chain::next(&self.chain_value, &root);
        if let Some(stage) = self.stages.last_mut() {
            stage.push(commitment);
        }
        UnitsRoot::from_bytes(root)
    }

    /// The nonce came: what stayed in memory is committed to anew.
    pub fn begin_residency(&mut self, nonce: &ChallengeSeed) {
        self.nonce = *nonce;
        self.resident.clear();
    }

    /// Commits to the unit values of the next resident round.
    pub fn commit_resident(&mut self, values: &[i32]) -> UnitsRoot {
        let round = u32::try_from(self.resident.len()).unwrap_or(u32::MAX);
        let commitment = Commitment::new(chain::residency_key(self.nonce.bytes(), round), values);
        let root = *commitment.root();
        self.resident.push(commitment);
        UnitsRoot::from_bytes(root)
    }

    /// Opens units of the stages and of what stayed in memory.
    ///
    /// # Errors
    /// [`NoSuchUnit`] where one was never committed to.
    pub fn prove(&self, units: &[UnitPosition], resident: &[UnitPosition]) -> Result<Proof, NoSuchUnit> {
        let of_stage = |unit: &UnitPosition| {
            let stage = self.stages.get(unit.stage as usize)?;
            stage.get(unit.round as usize)
        };
        let of_residency = |unit: &UnitPosition| self.resident.get(unit.round as usize);
        Ok(Proof {
            openings: open(units, self.dimension, of_stage)?,
            resident_openings: open(resident, self.dimension, of_residency)?,
        })
    }
}

/// The opening of each unit, in the order in which they were asked for. The tree of each round is made once.
///
/// # Errors
/// [`NoSuchUnit`] for the first that `commitment_of` knows no commitment of, or that is outside of the matrices.
pub fn open<'commitment>(
    units: &[UnitPosition],
    dimension: Dimension,
    commitment_of: impl Fn(&UnitPosition) -> Option<&'commitment Commitment>,
) -> Result<Vec<Opening>, NoSuchUnit> {
    let round_of = |at: usize| (units[at].stage, units[at].round);
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|&at| round_of(at));
    let mut openings: Vec<Option<Opening>> = vec![None; units.len()];
    for same_round in order.chunk_by(|&left, &right| round_of(left) == round_of(right)) {
        let first = &units[same_round[0]];
        let tree = commitment_of(first).ok_or(NoSuchUnit(*first))?.tree();
        for &at in same_round {
            let number = unit_number(&units[at], dimension).ok_or(NoSuchUnit(units[at]))?;
            openings[at] = Some(tree.open(number).ok_or(NoSuchUnit(units[at]))?);
        }
    }
    Ok(openings.into_iter().flatten().collect())
}

/// The number of a unit in its round, row by row. `None` where it is outside.
#[must_use]
pub fn unit_number(unit: &UnitPosition, dimension: Dimension) -> Option<usize> {
    let side = dimension.units_per_side();
    let (row, column) = (unit.row as usize, unit.column as usize);
    (row < side && column < side).then_some(row * side + column)
}
