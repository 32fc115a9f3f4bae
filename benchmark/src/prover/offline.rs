//! A challenge without a coordinator: every seed, and which units are opened, follow from a digest over all that was
//! committed to before, so that anybody can check the file afterwards (Fiat and Shamir, "How to Prove Yourself",
//! CRYPTO 1986).
//!
//! It shows that the work was done, not when, how fast, or by which device: there is no clock but the prover's own, and
//! a prover may begin again until the draw suits it. Only a coordinator's certificate shows those.

mod draw;
mod file;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use gristmill_protocol::hardware::{
    ChallengeOpened, ChallengeParameters, ChallengeRequest, ChallengeSeed, ChallengeStep, HardwareClaim,
    METHOD, NextStep, Precision, ROUNDS_MAX, Stage,
};
use gristmill_protocol::ids::ChallengeId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::show::{Challenger, ChallengerError};
use crate::challenge::dimension::Dimension;
use crate::challenge::transcript::{StageTranscript, Transcript, TranscriptError};
use crate::challenge::verifier::{self, Verified, VerifyError};

pub use draw::expected_draw;
pub use file::{FileError, OFFLINE_FILE_MAX_BYTES};

/// No deadline counts here.
const WITHIN_MS: u64 = 600_000;

/// Rounds for so many milliseconds at the claimed rate, and at least one: nobody times them, so more show no more.
const STAGE_MS: u64 = 3_000;
/// For each stage, as a coordinator asks for: one in 2^20 who skips 5 % of it is missed.
const OPENINGS: u32 = 271;

/// A challenge for what is claimed. The matrices are those that the claim was measured with.
#[must_use]
pub fn parameters(claim: &HardwareClaim, dimension: Dimension) -> ChallengeParameters {
    let rounds = |rate: u64| {
        let rounds = u128::from(rate) * u128::from(STAGE_MS) / 1_000 / u128::from(dimension.multiply_adds());
        u32::try_from(rounds).unwrap_or(ROUNDS_MAX).clamp(1, ROUNDS_MAX)
    };
    let mut stages: Vec<Stage> = claim
        .throughput
        .iter()
        .map(|one| Stage {
            precision: one.precision,
            rounds: rounds(one.multiply_adds_per_second),
        })
        .collect();
    // Rounded results take less than their room: they can't come last.
    stages.sort_by_key(|stage| stage.precision != Precision::Bf16);
    let fitting = u32::try_from(claim.memory_bytes / dimension.resident_bytes()).unwrap_or(ROUNDS_MAX);
    let last = stages.last().map_or(1, |stage| stage.rounds);
    let count = u32::try_from(stages.len()).unwrap_or(u32::MAX);
    ChallengeParameters {
        dimension: dimension.get(),
        stages,
        resident_rounds: fitting.clamp(1, last),
        openings: OPENINGS.saturating_mul(count),
        resident_openings: OPENINGS,
    }
}

/// A proof that was made without a coordinator, with everything to check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineProof {
    /// All but the openings.
    pub header: OfflineHeader,
    /// The openings.
    pub proof: Vec<u8>,
}

/// What stands before the openings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfflineHeader {
    /// What was said.
    pub transcript: Transcript,
    /// What the prover says of its device. Nothing shows it.
    pub claim: HardwareClaim,
    /// How long each stage took by the prover's own clock, in milliseconds.
    pub stage_ms: Vec<u64>,
    /// How long the fold of what stayed in memory took by the prover's own clock, in milliseconds.
    pub residency_ms: u64,
}

/// Why an offline proof shows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OfflineError {
    /// The transcript is of no challenge.
    #[error("the transcript is of no challenge: {0}")]
    Transcript(#[from] TranscriptError),
    /// A seed is not the one that follows from what was committed to.
    #[error("the {0} does not follow from what was committed to before: somebody chose it")]
    Chosen(&'static str),
    /// The openings.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl OfflineProof {
    /// Checks that nothing was chosen by the prover, and verifies the openings.
    ///
    /// # Errors
    /// [`OfflineError`] naming what is wrong.
    pub fn verify(&self) -> Result<Verified, OfflineError> {
        let transcript = &self.header.transcript;
        transcript.check()?;
        let expected = expected_draw(transcript);
        if transcript.setup_seed != expected.setup_seed {
            return Err(OfflineError::Chosen("seed of the matrices"));
        }
        let seeds = transcript.stages.iter().map(|stage| &stage.round_seed);
        if !seeds.eq(&expected.round_seeds) {
            return Err(OfflineError::Chosen("seed of a stage"));
        }
        if transcript.nonce != expected.nonce {
            return Err(OfflineError::Chosen("nonce"));
        }
        if transcript.units != expected.units || transcript.resident_units != expected.resident_units {
            return Err(OfflineError::Chosen("choice of the units"));
        }
        Ok(verifier::verify(transcript, &self.proof)?)
    }
}

/// Poses the challenge, and keeps what is said.
#[derive(Debug)]
pub struct OfflineChallenger {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    header: Option<OfflineHeader>,
    parameters: ChallengeParameters,
    began: Instant,
    proof: Option<Vec<u8>>,
}

/// A prover did something else than it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the prover did something else than it was asked for")]
struct OutOfOrder;

impl OfflineChallenger {
    /// Poses a challenge of these parameters.
    #[must_use]
    pub fn new(parameters: ChallengeParameters) -> Self {
        Self {
            state: Mutex::new(State {
                header: None,
                parameters,
                began: Instant::now(),
                proof: None,
            }),
        }
    }

    /// What came of it, once the prover is done.
    #[must_use]
    pub fn finish(self) -> Option<OfflineProof> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some(OfflineProof {
            header: state.header?,
            proof: state.proof?,
        })
    }

    fn with_state<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, OutOfOrder>,
    ) -> Result<T, ChallengerError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(change(&mut state)?)
    }
}

#[async_trait]
impl Challenger for OfflineChallenger {
    async fn open(&self, request: &ChallengeRequest) -> Result<ChallengeOpened, ChallengerError> {
        self.with_state(|state| Ok(state.open(request)))
    }

    async fn step(&self, _: ChallengeId, step: &ChallengeStep) -> Result<NextStep, ChallengerError> {
        self.with_state(|state| state.step(step))
    }

    async fn prove(&self, _: ChallengeId, proof: Vec<u8>) -> Result<NextStep, ChallengerError> {
        self.with_state(|state| {
            state.proof = Some(proof);
            // Nobody signs: the file is checked instead.
            Ok(NextStep::Certified {
                certificate: String::new(),
            })
        })
    }
}

impl State {
    fn open(&mut self, request: &ChallengeRequest) -> ChallengeOpened {
        let mut transcript = Transcript {
            method: METHOD.to_owned(),
            challenge: request.challenge,
            parameters: self.parameters.clone(),
            setup_seed: ChallengeSeed::from_bytes([0; 32]),
            stages: Vec::new(),
            nonce: ChallengeSeed::from_bytes([0; 32]),
            resident_roots: Vec::new(),
            units: Vec::new(),
            resident_units: Vec::new(),
        };
        transcript.setup_seed = draw::setup_seed(&transcript);
        let opened = ChallengeOpened {
            challenge: request.challenge,
            method: METHOD.to_owned(),
            parameters: self.parameters.clone(),
            setup_seed: transcript.setup_seed,
            next: NextStep::Prepare { within_ms: WITHIN_MS },
        };
        self.header = Some(OfflineHeader {
            transcript,
            claim: request.claim.clone(),
            stage_ms: Vec::new(),
            residency_ms: 0,
        });
        opened
    }

    fn step(&mut self, step: &ChallengeStep) -> Result<NextStep, OutOfOrder> {
        let took_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let header = self.header.as_mut().ok_or(OutOfOrder)?;
        let transcript = &mut header.transcript;
        let next = match step {
            ChallengeStep::Ready if transcript.stages.is_empty() => begin_stage(transcript),
            ChallengeStep::StageCommitment { roots, .. } => {
                transcript
                    .stages
                    .last_mut()
                    .ok_or(OutOfOrder)?
                    .roots
                    .clone_from(roots);
                header.stage_ms.push(took_ms);
                if transcript.stages.len() < transcript.parameters.stages.len() {
                    begin_stage(transcript)
                } else {
                    transcript.nonce = draw::nonce(transcript);
                    NextStep::Residency {
                        nonce: transcript.nonce,
                        within_ms: WITHIN_MS,
                    }
                }
            }
            ChallengeStep::ResidencyCommitment { roots } => {
                transcript.resident_roots.clone_from(roots);
                header.residency_ms = took_ms;
                (transcript.units, transcript.resident_units) = draw::units(transcript);
                NextStep::Open {
                    units: transcript.units.clone(),
                    resident_units: transcript.resident_units.clone(),
                    within_ms: WITHIN_MS,
                }
            }
            ChallengeStep::Ready | ChallengeStep::Echo { .. } | ChallengeStep::Wait => {
                return Err(OutOfOrder);
            }
        };
        self.began = Instant::now();
        Ok(next)
    }
}

fn begin_stage(transcript: &mut Transcript) -> NextStep {
    let round_seed = draw::round_seed(transcript);
    let stage = u32::try_from(transcript.stages.len()).unwrap_or(u32::MAX);
    transcript.stages.push(StageTranscript {
        round_seed,
        roots: Vec::new(),
    });
    NextStep::Stage {
        stage,
        round_seed,
        within_ms: WITHIN_MS,
    }
}

#[cfg(test)]
mod tests;
