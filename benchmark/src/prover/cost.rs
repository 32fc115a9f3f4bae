//! What rounds cost, for benchmarks: whole ones where that is quick, some strips of one where it isn't.

use gristmill_protocol::hardware::Precision;

use super::ProverError;
use super::control::Control;
use super::measure::Prover;
use super::workload::{Profile, Workload};
use crate::challenge::commitment::Commitment;
use crate::challenge::dimension::Dimension;
use crate::challenge::matrices::Matrices;
use crate::challenge::permutation;

const SEED: [u8; 32] = *b"gristmill hardware cost matrices";

/// Matrices on a device, to be multiplied for a benchmark.
#[derive(Debug)]
pub struct CostedRounds {
    workload: Workload,
    dimension: Dimension,
}

impl CostedRounds {
    /// Brings matrices onto the device.
    ///
    /// # Errors
    /// [`ProverError`] where they don't fit, or the device failed.
    pub fn prepare(prover: &Prover, dimension: Dimension, control: &Control) -> Result<Self, ProverError> {
        prover.fits(dimension, 0)?;
        let matrices = Matrices::new(&SEED, dimension);
        Ok(Self {
            workload: prover.workload(&matrices, control)?,
            dimension,
        })
    }

    /// How many strips of equal work a round has.
    #[must_use]
    pub const fn strips(&self) -> usize {
        self.workload.strips()
    }

    /// Brings B into the order of a round and multiplies and folds the first `strips` strips of it; commits where these
    /// are all.
    ///
    /// # Errors
    /// [`ProverError`] where the device failed.
    pub fn run(&mut self, precision: Precision, strips: usize, control: &Control) -> Result<(), ProverError> {
        let order = permutation::of_round(&SEED, self.dimension);
        if strips >= self.strips() {
            let values = self
                .workload
                .round(precision, &order, None, control, &mut |_| {})?;
            std::hint::black_box(Commitment::new(SEED, &values));
        } else {
            let first: Vec<usize> = (0..strips).collect();
            std::hint::black_box(self.workload.some_strips(precision, &order, &first, control)?);
        }
        Ok(())
    }

    /// From now on measures how long the parts of whole rounds take.
    pub fn start_profile(&mut self) {
        self.workload.start_profile();
    }

    /// What was measured since [`Self::start_profile`].
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.workload.profile()
    }
}
