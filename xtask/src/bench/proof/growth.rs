//! Larger matrices, whose rounds take minutes on a processor: some strips of one, and a real verification. Every strip
//! is the same work, so what a round costs follows exactly but for noise.

use anyhow::Context;
use gristmill_benchmark::challenge::bookkeeping::Bookkeeping;
use gristmill_benchmark::challenge::dimension::Dimension;
use gristmill_benchmark::challenge::fold::unit_value;
use gristmill_benchmark::challenge::matrices::Matrices;
use gristmill_benchmark::challenge::recomputation::Recomputation;
use gristmill_benchmark::challenge::residency::Weights;
use gristmill_benchmark::challenge::transcript::{StageTranscript, Transcript};
use gristmill_benchmark::challenge::verifier::verify;
use gristmill_benchmark::prover::{Control, CostedRounds};
use gristmill_protocol::hardware::{
    ChallengeParameters, ChallengeSeed, METHOD, Precision, Stage, UnitPosition,
};
use gristmill_protocol::ids::ChallengeId;
use serde::Serialize;

use super::processor;
use super::whole::{OPENINGS, processor_prover};

/// What larger matrices cost.
#[derive(Debug, Serialize)]
pub(super) struct Growth {
    pub(super) rows: u32,
    pub(super) rounds: u32,
    pub(super) strips_measured: usize,
    pub(super) strips_of_a_round: usize,
    pub(super) round_processor_seconds: f64,
    pub(super) verifier_processor_seconds: f64,
    pub(super) proof_bytes: usize,
}

impl Growth {
    pub(super) fn ratio(&self) -> f64 {
        self.round_processor_seconds * f64::from(self.rounds) / self.verifier_processor_seconds
    }
}

pub(super) fn measure(rows: u32, strips: usize, rounds: u32) -> anyhow::Result<Growth> {
    let dimension = Dimension::new(rows)?;
    let (prover, ..) = processor_prover()?;
    let control = Control::default();
    let mut costed = CostedRounds::prepare(&prover, dimension, &control)?;
    let strips = strips.max(1).min(costed.strips());
    // Warm: pages and threads.
    costed.run(Precision::F32, 1, &control)?;
    let (ran, permuting) = processor::of_process(|| costed.run(Precision::F32, 0, &control));
    ran?;
    let (ran, some) = processor::of_process(|| costed.run(Precision::F32, strips, &control));
    ran?;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand strips")]
    let per_strip = (some - permuting).max(0.0) / strips as f64;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand strips")]
    let round_processor_seconds = permuting + per_strip * costed.strips() as f64;
    let (verifier_processor_seconds, proof_bytes) = verification(dimension, rounds)?;
    Ok(Growth {
        rows,
        rounds,
        strips_measured: strips,
        strips_of_a_round: costed.strips(),
        round_processor_seconds,
        verifier_processor_seconds,
        proof_bytes,
    })
}

/// Verifies a proof whose opened units are right and whose others were never computed: it takes what any takes, and
/// none of the rounds had to be done.
fn verification(dimension: Dimension, rounds: u32) -> anyhow::Result<(f64, usize)> {
    let seed = |byte: u8| ChallengeSeed::from_bytes([byte; 32]);
    let challenge = ChallengeId::from_bytes([1; 16]);
    let side = u32::try_from(dimension.units_per_side())?;
    let position = |at: u32| UnitPosition {
        stage: 0,
        round: at % rounds,
        // Odd multipliers: no two of the first units share a row or a column.
        row: at.wrapping_mul(2_654_435_761) % side,
        column: at.wrapping_mul(2_246_822_519) % side,
    };
    let units: Vec<UnitPosition> = (0..OPENINGS).map(position).collect();
    let number = |unit: &UnitPosition| unit.row as usize * dimension.units_per_side() + unit.column as usize;
    let mut exact = Recomputation::new(Matrices::new(seed(1).bytes(), dimension));
    let mut prover = Bookkeeping::new(challenge, dimension);
    let weights = Weights::new(seed(3).bytes());
    prover.begin_stage(&seed(2));
    let (mut roots, mut resident) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let order = prover.order();
        let (mut values, mut kept) = (vec![0; dimension.units()], vec![0; dimension.units()]);
        for unit in units.iter().filter(|unit| unit.round == round) {
            let sums = exact.unit(unit.row as usize, unit.column as usize, &order);
            values[number(unit)] = unit_value(&sums);
            kept[number(unit)] = weights.unit_value(&sums);
        }
        roots.push(prover.commit(&values));
        resident.push(kept);
    }
    prover.begin_residency(&seed(3));
    let resident_roots = resident
        .iter()
        .map(|values| prover.commit_resident(values))
        .collect();
    let transcript = Transcript {
        method: METHOD.to_owned(),
        challenge,
        parameters: ChallengeParameters {
            dimension: dimension.get(),
            stages: vec![Stage {
                precision: Precision::F32,
                rounds,
            }],
            resident_rounds: rounds,
            openings: OPENINGS,
            resident_openings: OPENINGS,
        },
        setup_seed: seed(1),
        stages: vec![StageTranscript {
            round_seed: seed(2),
            roots,
        }],
        nonce: seed(3),
        resident_roots,
        units: units.clone(),
        resident_units: units,
    };
    let proof = prover
        .prove(&transcript.units, &transcript.resident_units)?
        .encode();
    verify(&transcript, &proof).context("a proof that was made to hold does not")?;
    let seconds = processor::of_thread_per_run(|| {
        assert!(verify(&transcript, &proof).is_ok(), "it was verified before");
    });
    Ok((seconds, proof.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_matrices_are_measured_and_their_proof_holds() {
        let growth = measure(256, 3, 2).unwrap();
        assert!(growth.strips_measured >= 1 && growth.proof_bytes > 271 * 2 * 1024);
        assert!(growth.verifier_processor_seconds > 0.0);
    }
}
