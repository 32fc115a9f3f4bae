//! The calls by which an account shows its hardware and renews its certificates.

use std::time::Duration;

use gristmill_protocol::hardware::{
    ChallengeOpened, ChallengeRequest, ChallengeStep, HardwareStatus, NextStep, RenewalAnswer, RenewalRequest,
};
use gristmill_protocol::ids::ChallengeId;

use super::call::Request;
use super::{CoordinatorCallError, CoordinatorClient};

/// Longest time of one upload of a proof: a megabyte on a slow line.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(75);

impl CoordinatorClient {
    /// Asks for a challenge of the account's hardware.
    ///
    /// # Errors
    /// [`CoordinatorCallError`]; code `uuid_taken` where another account has a certificate for the device,
    /// `rate_limit_exceeded` where the account has too many challenges.
    pub async fn open_challenge(
        &self,
        request: &ChallengeRequest,
    ) -> Result<ChallengeOpened, CoordinatorCallError> {
        self.post("/v1/hardware/challenges", request).await
    }

    /// Tells what was done in a challenge, and hears what is next. The coordinator may hold the answer back for some
    /// seconds, until there is something to do.
    ///
    /// # Errors
    /// [`CoordinatorCallError`]; code `not_found` where the challenge is over and forgotten.
    pub async fn challenge_step(
        &self,
        challenge: ChallengeId,
        step: &ChallengeStep,
    ) -> Result<NextStep, CoordinatorCallError> {
        let path = format!("/v1/hardware/challenges/{challenge}/steps");
        self.post(&path, step).await
    }

    /// Uploads the proof of a challenge, and hears what is next.
    ///
    /// # Errors
    /// [`CoordinatorCallError`]; code `request_too_large` where the proof has too many bytes.
    pub async fn challenge_proof(
        &self,
        challenge: ChallengeId,
        proof: Vec<u8>,
    ) -> Result<NextStep, CoordinatorCallError> {
        let path = format!("/v1/hardware/challenges/{challenge}/proof");
        self.call(Request::upload(path, proof, UPLOAD_TIMEOUT)).await
    }

    /// Asks for a later expiry of a certificate. The answer may be that the hardware has to be shown again.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn renew_certificate(&self, certificate: &str) -> Result<RenewalAnswer, CoordinatorCallError> {
        let request = RenewalRequest {
            certificate: certificate.to_owned(),
        };
        self.post("/v1/hardware/renewals", &request).await
    }

    /// How the account's devices stand: their certificates, and whether one is wanted for a challenge.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn hardware_status(&self) -> Result<HardwareStatus, CoordinatorCallError> {
        self.call(Request::get("/v1/hardware")).await
    }
}
