use std::sync::LazyLock;

use gristmill_protocol::hardware::{ChallengeParameters, ChallengeSeed, METHOD, Precision, Stage, UnitsRoot};
use gristmill_protocol::ids::ChallengeId;
use proptest::prelude::*;

use super::*;
use crate::challenge::bookkeeping::Bookkeeping;
use crate::challenge::recomputation::{Recomputation, Reference};
use crate::challenge::transcript::StageTranscript;
use crate::challenge::{fold, permutation, residency};

const STAGES: [(Precision, u32); 2] = [(Precision::Bf16, 2), (Precision::F32, 3)];
const RESIDENT: u32 = 2;
const OPENINGS: u32 = 40;

fn seed(byte: u8) -> ChallengeSeed {
    ChallengeSeed::from_bytes([byte; 32])
}

fn position(at: u32, stage: u32, rounds: u32) -> UnitPosition {
    UnitPosition {
        stage,
        round: at % rounds,
        row: at * 7 % 32,
        column: at * 11 % 32,
    }
}

/// An honest challenge of the smallest dimension.
fn honest() -> (Transcript, Bookkeeping) {
    static HONEST: LazyLock<(Transcript, Bookkeeping)> = LazyLock::new(make_honest);
    HONEST.clone()
}

fn make_honest() -> (Transcript, Bookkeeping) {
    let dimension = Dimension::SMALLEST;
    let challenge = ChallengeId::from_bytes([4; 16]);
    let mut prover = Bookkeeping::new(challenge, dimension);
    let reference = Reference::new(&Matrices::new(seed(1).bytes(), dimension));
    let mut results = Vec::new();
    let mut stages = Vec::new();
    for (at, (precision, rounds)) in (0..).zip(STAGES) {
        let round_seed = seed(2 + at);
        prover.begin_stage(&round_seed);
        results.clear();
        let mut roots = Vec::new();
        for _ in 0..rounds {
            let result = reference.result(&prover.order());
            roots.push(prover.commit(&fold::fold(&result, dimension, precision.into())));
            results.push(result);
        }
        stages.push(StageTranscript { round_seed, roots });
    }
    prover.begin_residency(&seed(9));
    let weights = Weights::new(seed(9).bytes());
    let resident_roots = results[1..]
        .iter()
        .map(|result| prover.commit_resident(&residency::fold(result, dimension, &weights)))
        .collect();
    let transcript = Transcript {
        method: METHOD.into(),
        challenge,
        parameters: ChallengeParameters {
            dimension: 256,
            stages: STAGES
                .map(|(precision, rounds)| Stage { precision, rounds })
                .to_vec(),
            resident_rounds: RESIDENT,
            openings: OPENINGS,
            resident_openings: OPENINGS,
        },
        setup_seed: seed(1),
        stages,
        nonce: seed(9),
        resident_roots,
        units: (0..OPENINGS).map(|at| position(at, at % 2, 2 + at % 2)).collect(),
        resident_units: (0..OPENINGS).map(|at| position(at, 1, RESIDENT)).collect(),
    };
    (transcript, prover)
}

fn proof(transcript: &Transcript, prover: &Bookkeeping) -> Proof {
    prover
        .prove(&transcript.units, &transcript.resident_units)
        .unwrap()
}

#[test]
fn an_honest_proof_holds() {
    let (transcript, prover) = honest();
    let verified = verify(&transcript, &proof(&transcript, &prover).encode());
    let all = OPENINGS as usize;
    assert_eq!(
        verified,
        Ok(Verified {
            units: all,
            resident_units: all
        })
    );
}

/// Every part of what was said counts: with any other, the same proof shows nothing.
#[test]
fn a_proof_is_for_its_own_transcript() {
    let (transcript, prover) = honest();
    let bytes = proof(&transcript, &prover).encode();
    let changed = |change: fn(&mut Transcript)| {
        let mut transcript = transcript.clone();
        change(&mut transcript);
        verify(&transcript, &bytes)
    };
    let is_opening = |verdict| {
        matches!(
            verdict,
            Err(VerifyError::Opening {
                error: OpeningError::Root,
                ..
            })
        )
    };
    assert!(is_opening(changed(
        |transcript| transcript.challenge = ChallengeId::from_bytes([5; 16])
    )));
    assert!(is_opening(changed(
        |transcript| transcript.stages[0].round_seed = seed(99)
    )));
    assert!(is_opening(changed(
        |transcript| transcript.stages[1].round_seed = seed(99)
    )));
    assert!(is_opening(changed(|transcript| transcript.stages[1]
        .roots
        .swap(0, 1))));
    assert!(is_opening(changed(|transcript| transcript
        .resident_roots
        .swap(0, 1))));
    assert!(is_opening(changed(|transcript| transcript.units.swap(0, 1))));
    assert!(is_opening(changed(|transcript| transcript.nonce = seed(99))));
    let other_matrices = changed(|transcript| transcript.setup_seed = seed(99));
    assert!(matches!(other_matrices, Err(VerifyError::Value { .. })));
    let other_precision = changed(|transcript| transcript.parameters.stages[0].precision = Precision::Tf32);
    assert!(matches!(
        other_precision,
        Err(VerifyError::Value {
            kind: UnitKind::Computed,
            ..
        })
    ));
    let same_numbers = changed(|transcript| transcript.parameters.stages[1].precision = Precision::Tf32);
    assert!(same_numbers.is_ok(), "TF32 gives the same bits as f32");
}

#[test]
fn a_transcript_that_does_not_fit_itself_is_refused_by_name() {
    let (transcript, _) = honest();
    let error = |change: fn(&mut Transcript)| {
        let mut transcript = transcript.clone();
        change(&mut transcript);
        match verify(&transcript, &[]) {
            Err(VerifyError::Transcript(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(
        error(|it| it.method = "gristmill-matmul/2".into()),
        TranscriptError::Method(_)
    ));
    assert!(matches!(
        error(|it| it.parameters.dimension = 300),
        TranscriptError::Parameters(_)
    ));
    let rounded = error(|it| {
        it.parameters.stages[1].precision = Precision::Bf16;
        it.parameters.stages[0].precision = Precision::F32;
    });
    assert_eq!(rounded, TranscriptError::RoundedResults);
    for missing in [
        error(|it| it.stages.truncate(1)),
        error(|it| it.stages[0].roots.truncate(1)),
        error(|it| it.stages[1].roots.push(UnitsRoot::from_bytes([0; 32]))),
        error(|it| it.resident_roots.truncate(1)),
        error(|it| it.units.truncate(39)),
        error(|it| it.resident_units.truncate(39)),
    ] {
        assert!(matches!(missing, TranscriptError::Count { .. }), "{missing:?}");
    }
    for outside in [
        error(|it| it.units[3].row = 32),
        error(|it| it.units[3].column = u32::MAX),
        error(|it| it.units[2].round = 2),
        error(|it| it.units[2].stage = 2),
        error(|it| it.resident_units[0].round = 2),
        error(|it| it.resident_units[0].stage = 0),
        error(|it| it.resident_units[0].row = 32),
    ] {
        assert!(matches!(outside, TranscriptError::Unit(_)), "{outside:?}");
    }
}

#[test]
fn other_counts_and_lengths_are_refused_by_name() {
    let (transcript, prover) = honest();
    let whole = proof(&transcript, &prover);
    let mut fewer = whole.clone();
    fewer.openings.pop();
    let verdict = verify(&transcript, &fewer.encode());
    assert!(matches!(
        verdict,
        Err(VerifyError::Count {
            kind: UnitKind::Computed,
            actual: 39,
            expected: 40
        })
    ));
    // As long as allowed, but shared out otherwise.
    fewer.resident_openings.push(whole.openings[0].clone());
    assert!(matches!(
        verify(&transcript, &fewer.encode()),
        Err(VerifyError::Count { .. })
    ));
    let mut longer = whole.encode();
    longer.push(0);
    let verdict = verify(&transcript, &longer);
    assert!(matches!(
        verdict,
        Err(VerifyError::Proof(ProofError::TooLarge { .. }))
    ));
    longer.truncate(longer.len() - 2);
    assert!(matches!(
        verify(&transcript, &longer),
        Err(VerifyError::Proof(ProofError::Malformed(_)))
    ));
}

/// A single wrong value that was committed to is named, and only where it is opened.
#[test]
fn a_wrong_value_is_found_where_it_is_opened() {
    let (transcript, _) = honest();
    let dimension = Dimension::SMALLEST;
    let reference = Reference::new(&Matrices::new(seed(1).bytes(), dimension));
    let mut prover = Bookkeeping::new(transcript.challenge, dimension);
    let mut lying = transcript.clone();
    let mut results = Vec::new();
    for (stage, (precision, rounds)) in STAGES.into_iter().enumerate() {
        prover.begin_stage(&transcript.stages[stage].round_seed);
        results.clear();
        for round in 0..rounds as usize {
            let result = reference.result(&prover.order());
            let mut values = fold::fold(&result, dimension, precision.into());
            if (stage, round) == (1, 2) {
                values[5 * 32 + 6] += 1;
            }
            lying.stages[stage].roots[round] = prover.commit(&values);
            results.push(result);
        }
    }
    prover.begin_residency(&transcript.nonce);
    let weights = Weights::new(transcript.nonce.bytes());
    for (root, result) in lying.resident_roots.iter_mut().zip(&results[1..]) {
        *root = prover.commit_resident(&residency::fold(result, dimension, &weights));
    }
    lying.units[0] = UnitPosition {
        stage: 1,
        round: 2,
        row: 5,
        column: 7,
    };
    assert!(verify(&lying, &proof(&lying, &prover).encode()).is_ok());
    lying.units[0].column = 6;
    match verify(&lying, &proof(&lying, &prover).encode()) {
        Err(VerifyError::Value {
            kind,
            unit,
            actual,
            expected,
        }) => {
            assert_eq!(
                (kind, unit, actual),
                (UnitKind::Computed, lying.units[0], expected + 1)
            );
            let said = VerifyError::Value {
                kind,
                unit,
                actual,
                expected,
            };
            let said = said.to_string();
            let place = format!("the computed unit at row {}, column 6 of round", unit.row);
            assert!(said.contains(&place) && !said.contains("UnitPosition"), "{said}");
        }
        other => panic!("{other:?}"),
    }
}

/// Made by `benchmark/scripts/verify_tile.py` with numpy 2.4.6: seed 0, 1, 2, ..., chain value 7, 7, ..., nonce 9, 9, ...
#[test]
fn units_have_the_values_that_numpy_finds() {
    let seed = std::array::from_fn(|at| u8::try_from(at).unwrap());
    for (rows, row, column, exact, rounded, resident) in [
        (256, 31, 0, -326116, 925200, -591351),
        (4096, 100, 200, 97345, 108229, -441778),
        (16384, 2047, 1024, 102541, 43036, 1622267),
    ] {
        let dimension = Dimension::new(rows).unwrap();
        let order = permutation::of_round(&[7; 32], dimension);
        let sums = Recomputation::new(Matrices::new(&seed, dimension)).unit(row, column, &order);
        assert_eq!(unit_value(&sums), exact);
        assert_eq!(
            unit_value(&sums.map(|row| row.map(|sum| Rounding::Bfloat16.apply(sum)))),
            rounded
        );
        assert_eq!(Weights::new(&[9; 32]).unit_value(&sums), resident);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No bit of a proof can be changed: each is a value, a neighbour or a length.
    #[test]
    fn no_changed_byte_passes(at in 0..usize::MAX, change in 1..=u8::MAX) {
        let (transcript, prover) = honest();
        let mut bytes = proof(&transcript, &prover).encode();
        let at = at % bytes.len();
        bytes[at] ^= change;
        prop_assert!(verify(&transcript, &bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (transcript, _) = honest();
        prop_assert!(verify(&transcript, &bytes).is_err());
    }
}
