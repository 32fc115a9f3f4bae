//! Drives one challenge from the claim to the certificate: what the coordinator says next is done on a thread of its
//! own, and the owner is heard all the while.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_protocol::hardware::{ChallengeOpened, ChallengeRequest, ChallengeStep, METHOD, NextStep};
use gristmill_protocol::ids::ChallengeId;
use gristmill_transport::CoordinatorClient;
use thiserror::Error;

use super::ProverError;
use super::challenge::RunningChallenge;
use super::control::{Control, Interruption};
use super::measure::Prover;

/// How often the owner is heard while a coordinator is waited for.
const LISTEN: Duration = Duration::from_millis(50);
/// How long to wait before a coordinator is asked again whether it has verified a proof.
const VERIFYING: Duration = Duration::from_millis(100);
/// Most steps of one challenge: a coordinator that never comes to an end is given up. At one answer per second from a
/// barrier, that is half an hour.
const STEPS_MAX: u32 = 2_000;

/// What went wrong on the way to a coordinator, in its own words.
pub type ChallengerError = Box<dyn Error + Send + Sync>;

/// Who poses challenges: a coordinator over HTTP, or the offline one. Every call may be repeated.
#[async_trait]
pub trait Challenger: Send + Sync {
    /// Asks for a challenge.
    ///
    /// # Errors
    /// Where it was refused, or can't be reached.
    async fn open(&self, request: &ChallengeRequest) -> Result<ChallengeOpened, ChallengerError>;

    /// Tells what was done, and hears what is next.
    ///
    /// # Errors
    /// Where it was refused, or can't be reached.
    async fn step(&self, challenge: ChallengeId, step: &ChallengeStep) -> Result<NextStep, ChallengerError>;

    /// Hands the proof in, and hears what is next.
    ///
    /// # Errors
    /// Where it was refused, or can't be reached.
    async fn prove(&self, challenge: ChallengeId, proof: Vec<u8>) -> Result<NextStep, ChallengerError>;
}

/// The challenges of a coordinator over HTTP.
#[async_trait]
impl Challenger for CoordinatorClient {
    async fn open(&self, request: &ChallengeRequest) -> Result<ChallengeOpened, ChallengerError> {
        Ok(self.open_challenge(request).await?)
    }

    async fn step(&self, challenge: ChallengeId, step: &ChallengeStep) -> Result<NextStep, ChallengerError> {
        Ok(self.challenge_step(challenge, step).await?)
    }

    async fn prove(&self, challenge: ChallengeId, proof: Vec<u8>) -> Result<NextStep, ChallengerError> {
        Ok(self.challenge_proof(challenge, proof).await?)
    }
}

/// Why a challenge ended without a certificate.
#[derive(Debug, Error)]
pub enum ShowError {
    /// The device, or its owner.
    #[error(transparent)]
    Prover(#[from] ProverError),
    /// The coordinator's answer to a call.
    #[error("the coordinator: {0}")]
    Challenger(ChallengerError),
    /// The coordinator poses challenges of another method.
    #[error("the coordinator asks for the method '{0}'; this program knows {METHOD}; update the older one")]
    Method(String),
    /// The coordinator said no.
    #[error("the coordinator refused the challenge ({code}): {message}")]
    Refused {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// A step that makes no sense here.
    #[error("the coordinator asked for {0} out of order")]
    OutOfOrder(&'static str),
    /// It never comes to an end.
    #[error("the coordinator did not come to an end after {STEPS_MAX} steps")]
    Endless,
}

impl From<Interruption> for ShowError {
    fn from(interruption: Interruption) -> Self {
        Self::Prover(interruption.into())
    }
}

/// Asks for a challenge, answers it, and gives the certificate.
///
/// # Errors
/// [`ShowError`] where the owner stopped it, the device failed, or the coordinator refused.
pub async fn show(
    prover: Arc<Prover>,
    challenger: &dyn Challenger,
    request: &ChallengeRequest,
    control: &Control,
) -> Result<String, ShowError> {
    let opened = heard(control, challenger.open(request)).await?;
    if opened.method != METHOD {
        return Err(ShowError::Method(opened.method));
    }
    let id = opened.challenge;
    let mut next = opened.next.clone();
    let mut setup = Some(opened);
    let mut running: Option<RunningChallenge> = None;
    for _ in 0..STEPS_MAX {
        let step = match next {
            NextStep::Echo { nonce } => ChallengeStep::Echo { nonce },
            NextStep::Wait { .. } => ChallengeStep::Wait,
            NextStep::Verifying => {
                tokio::time::sleep(VERIFYING).await;
                control.check()?;
                ChallengeStep::Wait
            }
            NextStep::Prepare { .. } => {
                // A repeated call to prepare finds everything as it is.
                if let Some(opened) = setup.take() {
                    let (prover, control) = (prover.clone(), control.clone());
                    let prepare = move || RunningChallenge::prepare(&prover, opened, &control);
                    running = Some(on_a_thread(prepare).await?);
                }
                ChallengeStep::Ready
            }
            NextStep::Stage {
                stage, round_seed, ..
            } => {
                let control = control.clone();
                let work =
                    move |challenge: &mut RunningChallenge| challenge.stage(stage, &round_seed, &control);
                let roots = with(&mut running, "a stage", work).await?;
                ChallengeStep::StageCommitment { stage, roots }
            }
            NextStep::Residency { nonce, .. } => {
                let control = control.clone();
                let work = move |challenge: &mut RunningChallenge| challenge.residency(&nonce, &control);
                let roots = with(&mut running, "what stayed in memory", work).await?;
                ChallengeStep::ResidencyCommitment { roots }
            }
            NextStep::Open {
                units,
                resident_units,
                ..
            } => {
                let work = move |challenge: &mut RunningChallenge| challenge.prove(&units, &resident_units);
                let proof = with(&mut running, "openings", work).await?;
                next = heard(control, challenger.prove(id, proof)).await?;
                continue;
            }
            NextStep::Certified { certificate } => return Ok(certificate),
            NextStep::Refused { code, message } => return Err(ShowError::Refused { code, message }),
        };
        next = heard(control, challenger.step(id, &step)).await?;
    }
    Err(ShowError::Endless)
}

/// Waits for a coordinator's answer, unless the owner stops the challenge first.
async fn heard<T>(
    control: &Control,
    answer: impl Future<Output = Result<T, ChallengerError>>,
) -> Result<T, ShowError> {
    let mut answer = std::pin::pin!(answer);
    loop {
        control.check()?;
        if let Ok(answer) = tokio::time::timeout(LISTEN, &mut answer).await {
            return answer.map_err(ShowError::Challenger);
        }
    }
}

/// Lends the challenge to a thread for something that computes.
async fn with<T: Send + 'static>(
    running: &mut Option<RunningChallenge>,
    what: &'static str,
    work: impl FnOnce(&mut RunningChallenge) -> Result<T, ProverError> + Send + 'static,
) -> Result<T, ShowError> {
    let mut challenge = running.take().ok_or(ShowError::OutOfOrder(what))?;
    let (challenge, result) = on_a_thread(move || {
        let result = work(&mut challenge)?;
        Ok((challenge, result))
    })
    .await?;
    *running = Some(challenge);
    Ok(result)
}

/// Computes where it holds up no other task. A panic there is one of the driver's library.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProverError> + Send + 'static,
) -> Result<T, ProverError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ProverError::DriverGaveUp(error.to_string()))?
}
