//! One challenge on one device: its stages, what stays in memory, and the openings.

use std::thread;
use std::time::{Duration, Instant};

use gristmill_protocol::hardware::{ChallengeOpened, ChallengeSeed, Precision, UnitPosition, UnitsRoot};

use super::budget::PowerRule;
use super::control::{Control, Phase};
use super::measure::Prover;
use super::workload::{Kept, Profile, Workload};
use super::{ProverError, self_check};
use crate::challenge::commitment::{Commitment, Opening};
use crate::challenge::dimension::Dimension;
use crate::challenge::matrices::Matrices;
use crate::challenge::residency::Weights;
use crate::challenge::{chain, permutation};

/// The longest sleep between two looks at whether the owner wants the prover to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// A challenge whose matrices are on the device.
#[derive(Debug)]
pub struct RunningChallenge {
    opened: ChallengeOpened,
    workload: Workload,
    dimension: Dimension,
    power: PowerRule,
    /// The commitments of each stage that is done, round by round.
    stages: Vec<Vec<Commitment>>,
    /// The results that stay on the device.
    kept: Vec<Kept>,
    /// The commitments to what stayed.
    residency: Vec<Commitment>,
}

impl RunningChallenge {
    /// Expands the matrices, brings them onto the device, and checks every precision that the challenge asks for.
    /// Nothing is timed before it is done.
    ///
    /// # Errors
    /// [`ProverError`] where the challenge makes no sense, does not fit, or the device does not compute exactly.
    pub fn prepare(prover: &Prover, opened: ChallengeOpened, control: &Control) -> Result<Self, ProverError> {
        let parameters = &opened.parameters;
        let senseless = |reason: String| ProverError::Challenge(reason);
        parameters.check().map_err(|error| senseless(error.to_string()))?;
        let dimension = Dimension::new(parameters.dimension).map_err(|error| senseless(error.to_string()))?;
        let last = parameters.stages.last().map(|stage| stage.precision);
        if last == Some(Precision::Bf16) {
            // Rounded results repeat themselves: they would show more memory than they take.
            return Err(senseless("its last stage rounds what shall stay in memory".into()));
        }
        prover.fits(dimension, parameters.resident_bytes())?;
        let matrices = Matrices::new(opened.setup_seed.bytes(), dimension);
        let mut workload = prover.workload(&matrices, control)?;
        for stage in &parameters.stages {
            self_check::check(&mut workload, &matrices, stage.precision, control)?;
        }
        if let Some(first) = parameters.stages.first() {
            workload.convert(first.precision)?;
        }
        Ok(Self {
            opened,
            workload,
            dimension,
            power: prover.power_rule(),
            stages: Vec::new(),
            kept: Vec::new(),
            residency: Vec::new(),
        })
    }

    /// Does the rounds of the next stage, and gives the commitment to each.
    ///
    /// # Errors
    /// [`ProverError`] where it was stopped, the device failed, or `stage` is not the next one.
    pub fn stage(
        &mut self,
        stage: u32,
        round_seed: &ChallengeSeed,
        control: &Control,
    ) -> Result<Vec<UnitsRoot>, ProverError> {
        let index = stage as usize;
        let (Some(asked), true) = (
            self.opened.parameters.stages.get(index).copied(),
            index == self.stages.len(),
        ) else {
            return Err(ProverError::Challenge(format!("stage {stage} is not the next one")));
        };
        let is_last = index + 1 == self.opened.parameters.stages.len();
        let kept_from = match is_last {
            true => asked.rounds.saturating_sub(self.opened.parameters.resident_rounds),
            false => asked.rounds,
        };
        let phase = Phase::Stage {
            index,
            precision: asked.precision,
        };
        let mut value = chain::start(self.opened.challenge.bytes(), stage, round_seed.bytes());
        let mut commitments = Vec::new();
        for round in 0..asked.rounds {
            let mut kept = (round >= kept_from).then(Kept::new);
            let values = self.round(asked.precision, &value, kept.as_mut(), control, &|done, of| {
                control.tell(phase, round as usize * of + done, asked.rounds as usize * of);
            })?;
            let commitment = Commitment::new(chain::commitment_key(&value), &values);
            value = chain::next(&value, commitment.root());
            commitments.push(commitment);
            self.kept.extend(kept);
        }
        let roots = roots(&commitments);
        self.stages.push(commitments);
        Ok(roots)
    }

    fn round(
        &mut self,
        precision: Precision,
        chain_value: &[u8; 32],
        kept: Option<&mut Kept>,
        control: &Control,
        tell: &dyn Fn(usize, usize),
    ) -> Result<Vec<i32>, ProverError> {
        let order = permutation::of_round(chain_value, self.dimension);
        let (power, strips) = (self.power, self.workload.strips());
        let mut busy_since = Instant::now();
        self.workload.round(precision, &order, kept, control, &mut |done| {
            tell(done, strips);
            pause(power, busy_since.elapsed(), control);
            busy_since = Instant::now();
        })
    }

    /// Folds everything that stayed on the device with weights from the nonce, and gives the commitment to each result.
    ///
    /// # Errors
    /// [`ProverError`] where it was stopped, the device failed, or a stage is missing.
    pub fn residency(
        &mut self,
        nonce: &ChallengeSeed,
        control: &Control,
    ) -> Result<Vec<UnitsRoot>, ProverError> {
        if self.stages.len() != self.opened.parameters.stages.len() {
            return Err(ProverError::Challenge("a nonce came before the last stage was done".into()));
        }
        let weights = Weights::new(nonce.bytes());
        let of = self.kept.len();
        self.residency.clear();
        for (round, kept) in (0_u32..).zip(&self.kept) {
            let busy_since = Instant::now();
            let values = self.workload.fold_kept(kept, &weights, control)?;
            self.residency
                .push(Commitment::new(chain::residency_key(nonce.bytes(), round), &values));
            control.tell(Phase::Residency, self.residency.len(), of);
            pause(self.power, busy_since.elapsed(), control);
        }
        Ok(roots(&self.residency))
    }

    /// Opens units of the stages, and of what stayed in memory.
    ///
    /// # Errors
    /// [`ProverError::Challenge`] where there is no such unit.
    pub fn openings(
        &self,
        units: &[UnitPosition],
        resident: &[UnitPosition],
    ) -> Result<(Vec<Opening>, Vec<Opening>), ProverError> {
        let of_stage = |unit: &UnitPosition| {
            let stage = self.stages.get(unit.stage as usize)?;
            stage.get(unit.round as usize)
        };
        let of_residency = |unit: &UnitPosition| self.residency.get(unit.round as usize);
        Ok((self.open(units, &of_stage)?, self.open(resident, &of_residency)?))
    }

    /// Each unit's opening, in the order in which they were asked for. Each round's tree is made once.
    fn open<'commitment>(
        &'commitment self,
        units: &[UnitPosition],
        commitment_of: &dyn Fn(&UnitPosition) -> Option<&'commitment Commitment>,
    ) -> Result<Vec<Opening>, ProverError> {
        let mut order: Vec<usize> = (0..units.len()).collect();
        order.sort_unstable_by_key(|&at| units[at]);
        let mut openings: Vec<Option<Opening>> = vec![None; units.len()];
        for same_round in order.chunk_by(|&left, &right| round_of(&units[left]) == round_of(&units[right])) {
            let missing = || ProverError::Challenge("a unit is asked for that there is none of".into());
            let commitment = commitment_of(&units[same_round[0]]).ok_or_else(missing)?;
            let tree = commitment.tree();
            for &at in same_round {
                openings[at] = Some(self.unit_of(&units[at]).and_then(|unit| tree.open(unit)).ok_or_else(missing)?);
            }
        }
        Ok(openings.into_iter().flatten().collect())
    }

    /// The number of a unit in its round.
    fn unit_of(&self, unit: &UnitPosition) -> Option<usize> {
        let side = self.dimension.units_per_side();
        let (row, column) = (unit.row as usize, unit.column as usize);
        (row < side && column < side).then_some(row * side + column)
    }

    /// From now on measures how long the parts of each round take, which slows the rounds a little.
    pub fn start_profile(&mut self) {
        self.workload.start_profile();
    }

    /// What was measured since [`Self::start_profile`].
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.workload.profile()
    }

    /// How many bytes stay on the device so far.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.kept.iter().map(Kept::bytes).sum()
    }

    /// The challenge.
    #[must_use]
    pub const fn opened(&self) -> &ChallengeOpened {
        &self.opened
    }
}

const fn round_of(unit: &UnitPosition) -> (u32, u32) {
    (unit.stage, unit.round)
}

fn roots(commitments: &[Commitment]) -> Vec<UnitsRoot> {
    commitments
        .iter()
        .map(|commitment| UnitsRoot::from_bytes(*commitment.root()))
        .collect()
}

/// Leaves the device alone for as long as the power budget asks after it was busy, or until the owner stops it.
pub(super) fn pause(power: PowerRule, busy: Duration, control: &Control) {
    let micros = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
    let mut left = Duration::from_micros(power.pause_micros(micros));
    while !left.is_zero() && control.check().is_ok() {
        let nap = left.min(LONGEST_SLEEP);
        thread::sleep(nap);
        left -= nap;
    }
}
