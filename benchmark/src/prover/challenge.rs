//! One challenge on one device: its stages, what stays in memory, and the openings.

use std::thread;
use std::time::{Duration, Instant};

use gristmill_protocol::hardware::{ChallengeOpened, ChallengeSeed, Precision, UnitPosition, UnitsRoot};

use super::budget::PowerRule;
use super::control::{Control, Phase};
use super::measure::Prover;
use super::workload::{Kept, Profile, Workload};
use super::{ProverError, self_check};
use crate::challenge::bookkeeping::Bookkeeping;
use crate::challenge::dimension::Dimension;
use crate::challenge::matrices::Matrices;
use crate::challenge::residency::Weights;

/// The longest sleep between two looks at whether the owner wants the prover to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// A challenge whose matrices are on the device.
#[derive(Debug)]
pub struct RunningChallenge {
    opened: ChallengeOpened,
    workload: Workload,
    power: PowerRule,
    book: Bookkeeping,
    /// The results that stay on the device.
    kept: Vec<Kept>,
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
            return Err(senseless(
                "its last stage rounds what shall stay in memory".into(),
            ));
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
            book: Bookkeeping::new(opened.challenge, dimension),
            opened,
            workload,
            power: prover.power_rule(),
            kept: Vec::new(),
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
        let parameters = &self.opened.parameters;
        let (Some(asked), true) = (
            parameters.stages.get(index).copied(),
            index == self.book.stages_begun(),
        ) else {
            return Err(ProverError::Challenge(format!(
                "stage {stage} is not the next one"
            )));
        };
        let kept_from = match index + 1 == parameters.stages.len() {
            true => asked.rounds.saturating_sub(parameters.resident_rounds),
            false => asked.rounds,
        };
        let phase = Phase::Stage {
            index,
            precision: asked.precision,
        };
        self.book.begin_stage(round_seed);
        let mut roots = Vec::new();
        for round in 0..asked.rounds {
            let mut kept = (round >= kept_from).then(Kept::new);
            let values = self.round(asked.precision, kept.as_mut(), control, &|done, of| {
                control.tell(phase, round as usize * of + done, asked.rounds as usize * of);
            })?;
            roots.push(self.book.commit(&values));
            self.kept.extend(kept);
        }
        Ok(roots)
    }

    fn round(
        &mut self,
        precision: Precision,
        kept: Option<&mut Kept>,
        control: &Control,
        tell: &dyn Fn(usize, usize),
    ) -> Result<Vec<i32>, ProverError> {
        let order = self.book.order();
        let (power, strips) = (self.power, self.workload.strips());
        let mut busy_since = Instant::now();
        self.workload
            .round(precision, &order, kept, control, &mut |done| {
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
        if self.book.stages_begun() != self.opened.parameters.stages.len() {
            return Err(ProverError::Challenge(
                "a nonce came before the last stage was done".into(),
            ));
        }
        let weights = Weights::new(nonce.bytes());
        self.book.begin_residency(nonce);
        let mut roots = Vec::new();
        for kept in &self.kept {
            let busy_since = Instant::now();
            let values = self.workload.fold_kept(kept, &weights, control)?;
            roots.push(self.book.commit_resident(&values));
            control.tell(Phase::Residency, roots.len(), self.kept.len());
            pause(self.power, busy_since.elapsed(), control);
        }
        Ok(roots)
    }

    /// Opens units of the stages and of what stayed in memory, and gives the bytes of the proof.
    ///
    /// # Errors
    /// [`ProverError::Challenge`] where there is no such unit.
    pub fn prove(&self, units: &[UnitPosition], resident: &[UnitPosition]) -> Result<Vec<u8>, ProverError> {
        let proof = self.book.prove(units, resident);
        Ok(proof
            .map_err(|error| ProverError::Challenge(error.to_string()))?
            .encode())
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

#[cfg(test)]
mod tests;
