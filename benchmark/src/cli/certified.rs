//! Challenges of a coordinator over HTTP, and the certificates that come of them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use gristmill_protocol::hardware::{
    ChallengeOpened, ChallengeRequest, ChallengeStep, HardwareCertificate, NextStep,
};
use gristmill_protocol::ids::ChallengeId;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_service::clock::unix_ms;
use gristmill_service::installation::identity_path;
use gristmill_transport::{CoordinatorClient, key_file};
use serde_json::{Value, json};

use super::amounts::{gibibytes, teraflops};
use crate::inventory::Device;
use crate::prover::{Challenger, ChallengerError};

/// A coordinator that poses challenges to this installation's account.
#[derive(Debug)]
pub(super) struct Coordinator(CoordinatorClient);

impl Coordinator {
    /// The coordinator at an address. Certificates are for the installation's account, which serves jobs; its key is
    /// made where there is none.
    pub(super) fn new(url: &str, data_dir: &Path) -> anyhow::Result<Self> {
        let keypair = key_file::load_or_create(&identity_path(data_dir))?;
        let client = CoordinatorClient::new(url, None, keypair, Arc::new(unix_ms))?;
        Ok(Self(client.with_known_keys_in(data_dir)?))
    }

    /// The keys that its certificates are checked with.
    pub(super) async fn keys(&self) -> anyhow::Result<LogKeys> {
        Ok(self.0.log_keys().await?)
    }
}

#[async_trait]
impl Challenger for Coordinator {
    async fn open(&self, request: &ChallengeRequest) -> Result<ChallengeOpened, ChallengerError> {
        Ok(self.0.open_challenge(request).await?)
    }

    async fn step(&self, challenge: ChallengeId, step: &ChallengeStep) -> Result<NextStep, ChallengerError> {
        Ok(self.0.challenge_step(challenge, step).await?)
    }

    async fn prove(&self, challenge: ChallengeId, proof: Vec<u8>) -> Result<NextStep, ChallengerError> {
        Ok(self.0.challenge_proof(challenge, proof).await?)
    }
}

/// What a certificate says, once it was checked: a row for people and an object for programs.
pub(super) fn told(device: &Device, text: &str, keys: &LogKeys) -> anyhow::Result<([String; 4], Value)> {
    let now_ms = unix_ms();
    let certificate = HardwareCertificate::open(text, keys, now_ms)
        .context("the coordinator's certificate does not pass the check that consumers make")?;
    let rates: Vec<String> = certificate
        .throughput
        .iter()
        .map(|one| format!("{} in {}", teraflops(one.multiply_adds_per_second), one.precision))
        .collect();
    let minutes = certificate.exp.saturating_sub(now_ms / 1_000) / 60;
    let row = [
        device.summary(),
        gibibytes(certificate.memory_bytes),
        rates.join(", "),
        format!("a certificate for {minutes} minutes, score {}", certificate.score),
    ];
    let value = json!({ "device": device, "certificate": text, "shown": certificate });
    Ok((row, value))
}
