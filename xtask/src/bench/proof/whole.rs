//! A whole challenge on this processor, without a coordinator, and its verification.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use gristmill_benchmark::challenge::dimension::Dimension;
use gristmill_benchmark::prover::offline::{OfflineChallenger, OfflineProof};
use gristmill_benchmark::prover::{Challenger, ClaimPercent, Control, Prover, RunningChallenge};
use gristmill_protocol::hardware::{
    ChallengeParameters, ChallengeRequest, ChallengeStep, NextStep, Precision, Stage,
};
use gristmill_protocol::ids::ChallengeId;
use serde::Serialize;

use super::processor;

/// As many openings as a coordinator asks for.
pub(super) const OPENINGS: u32 = 271;

/// What a challenge cost.
#[derive(Debug, Serialize)]
pub(super) struct Whole {
    pub(super) rows: u32,
    pub(super) rounds: u32,
    pub(super) openings: u32,
    pub(super) prover_processor_seconds: f64,
    pub(super) verifier_processor_seconds: f64,
    pub(super) multiplying_share: f64,
    pub(super) permuting_share: f64,
    pub(super) folding_share: f64,
    pub(super) proof_bytes: usize,
    /// From the matrices on the device to the bytes of the proof, by the clock.
    pub(super) seconds: f64,
}

impl Whole {
    pub(super) fn ratio(&self) -> f64 {
        self.prover_processor_seconds / self.verifier_processor_seconds
    }
}

/// This machine's processor, open for challenges, with its speed known.
pub(super) fn processor_prover() -> anyhow::Result<(Prover, ChallengeRequest, Dimension)> {
    let inventory = gristmill_benchmark::probe::inventory();
    let cpu = inventory.devices.last().context("there is no processor")?;
    let mut prover = Prover::open(cpu, &gristmill_benchmark::prover::Budget::default())?;
    let measurement = prover.measure(&Control::default())?;
    let fingerprint = gristmill_benchmark::fingerprint::Fingerprint::of(cpu).digest();
    let request = ChallengeRequest {
        challenge: ChallengeId::from_bytes([1; 16]),
        claim: prover.claim(
            &measurement,
            ClaimPercent::DEFAULT,
            0,
            gristmill_protocol::hardware::HardwareDigest::from_bytes(fingerprint),
        ),
    };
    Ok((prover, request, measurement.dimension))
}

pub(super) async fn measure(rows: u32, rounds: u32) -> anyhow::Result<Whole> {
    let (prover, request, _) = processor_prover()?;
    let challenger = OfflineChallenger::new(ChallengeParameters {
        dimension: rows,
        stages: vec![Stage {
            precision: Precision::F32,
            rounds,
        }],
        resident_rounds: rounds,
        openings: OPENINGS,
        resident_openings: OPENINGS,
    });
    let opened = match challenger.open(&request).await {
        Ok(opened) => opened,
        Err(error) => anyhow::bail!("{error}"),
    };
    let control = Control::default();
    let mut challenge = RunningChallenge::prepare(&Arc::new(prover), opened, &control)?;
    challenge.start_profile();
    let started = Instant::now();
    let (costs, prover_processor_seconds) = {
        let before = super::super::report::processor_seconds();
        let costs = answer(&challenger, &mut challenge, &request, &control).await?;
        let after = super::super::report::processor_seconds();
        (costs, before.zip(after).map(|(before, after)| after - before))
    };
    let seconds = started.elapsed().as_secs_f64();
    let proof = challenger.finish().context("the challenge came to no end")?;
    let shown = proof.verify()?;
    anyhow::ensure!(shown.units == OPENINGS as usize, "not every unit was verified");
    let parts = challenge.profile();
    let share = |part: std::time::Duration| part.as_secs_f64() / costs.stage_seconds;
    Ok(Whole {
        rows,
        rounds,
        openings: OPENINGS,
        prover_processor_seconds: prover_processor_seconds.unwrap_or(seconds),
        verifier_processor_seconds: verification(&proof),
        multiplying_share: share(parts.multiplying),
        permuting_share: share(parts.permuting),
        folding_share: share(parts.folding),
        proof_bytes: proof.proof.len(),
        seconds,
    })
}

/// What verifying takes, in processor seconds.
pub(super) fn verification(proof: &OfflineProof) -> f64 {
    processor::of_thread_per_run(|| {
        let verdict =
            gristmill_benchmark::challenge::verifier::verify(&proof.header.transcript, &proof.proof);
        assert!(verdict.is_ok(), "it was verified before");
    })
}

struct Costs {
    stage_seconds: f64,
}

/// Everything that the prover does once its matrices are on the device.
async fn answer(
    challenger: &OfflineChallenger,
    challenge: &mut RunningChallenge,
    request: &ChallengeRequest,
    control: &Control,
) -> anyhow::Result<Costs> {
    let id = request.challenge;
    let mut step = ChallengeStep::Ready;
    let mut stage_seconds = 0.0;
    loop {
        let next = challenger
            .step(id, &step)
            .await
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        step = match next {
            NextStep::Stage {
                stage, round_seed, ..
            } => {
                let started = Instant::now();
                let roots = challenge.stage(stage, &round_seed, control)?;
                stage_seconds += started.elapsed().as_secs_f64();
                ChallengeStep::StageCommitment { stage, roots }
            }
            NextStep::Residency { nonce, .. } => ChallengeStep::ResidencyCommitment {
                roots: challenge.residency(&nonce, control)?,
            },
            NextStep::Open {
                units,
                resident_units,
                ..
            } => {
                let proof = challenge.prove(&units, &resident_units)?;
                challenger
                    .prove(id, proof)
                    .await
                    .map_err(|error| anyhow::anyhow!("{error}"))?;
                return Ok(Costs { stage_seconds });
            }
            other => anyhow::bail!("an offline challenge asked for {other:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_small_challenge_is_answered_and_verified() {
        let whole = measure(256, 2).await.unwrap();
        assert!(whole.proof_bytes > 271 * 2 * 1024 && whole.verifier_processor_seconds > 0.0);
        assert!(whole.multiplying_share > 0.0 && whole.multiplying_share < 1.0);
    }
}
