use std::sync::Arc;

use gristmill_protocol::hardware::{HardwareDigest, Precision, Stage};
use proptest::prelude::*;

use super::super::{
    AlwaysOpen, Budget, Control, Interruption, Prover, ProverError, ShowError, StopToken, show,
};
use super::*;
use crate::inventory::Device;
use crate::probe;

/// Two stages, the second of which stays: small, and through every path of the processor.
fn parameters() -> ChallengeParameters {
    let stage = |precision, rounds| Stage { precision, rounds };
    ChallengeParameters {
        dimension: 256,
        stages: vec![stage(Precision::Bf16, 2), stage(Precision::F32, 3)],
        resident_rounds: 2,
        openings: 40,
        resident_openings: 40,
    }
}

fn cpu() -> Device {
    let mut cpu = probe::inventory().devices.pop().unwrap();
    // What is free changes while the tests run.
    cpu.memory_free_bytes = Some(1 << 30);
    cpu
}

fn request() -> ChallengeRequest {
    let throughput = gristmill_protocol::hardware::Throughput {
        precision: Precision::F32,
        multiply_adds_per_second: 1,
    };
    let claim = HardwareClaim {
        kind: gristmill_protocol::hardware::HardwareKind::Cpu,
        index: 0,
        name: "a processor".into(),
        vendor: String::new(),
        uuid: None,
        driver: None,
        memory_bytes: 1 << 20,
        throughput: vec![throughput],
        fingerprint: HardwareDigest::from_bytes([1; 32]),
    };
    ChallengeRequest {
        challenge: ChallengeId::from_bytes([7; 16]),
        claim,
    }
}

fn run(control: &Control) -> Result<OfflineProof, ShowError> {
    let prover = Arc::new(Prover::open(&cpu(), &Budget::default())?);
    let challenger = OfflineChallenger::new(parameters());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(show(prover, &challenger, &request(), control))?;
    Ok(challenger.finish().unwrap())
}

/// Candle's products on this processor, its folds and what it kept, against the exact verifier.
#[test]
fn what_this_processor_computes_is_what_the_verifier_expects() {
    let proof = run(&Control::default()).unwrap();
    let shown = Verified {
        units: 40,
        resident_units: 40,
    };
    assert_eq!(proof.verify(), Ok(shown));
    let read = OfflineProof::decode(&proof.encode().unwrap()).unwrap();
    assert_eq!(read, proof);
}

#[test]
fn a_prover_that_chose_anything_is_named() {
    let proof = run(&Control::default()).unwrap();
    let chosen = |change: fn(&mut Transcript)| {
        let mut proof = proof.clone();
        change(&mut proof.header.transcript);
        proof.verify()
    };
    let cases = [
        chosen(|it| it.setup_seed = ChallengeSeed::from_bytes([3; 32])),
        chosen(|it| it.stages[1].round_seed = ChallengeSeed::from_bytes([3; 32])),
        chosen(|it| it.nonce = ChallengeSeed::from_bytes([3; 32])),
        chosen(|it| it.units[0].row ^= 1),
        chosen(|it| it.resident_units[9].column ^= 1),
        chosen(|it| it.stages[0].roots.swap(0, 1)),
        chosen(|it| it.resident_roots.swap(0, 1)),
        chosen(|it| it.challenge = ChallengeId::from_bytes([8; 16])),
        chosen(|it| it.parameters.stages[0].precision = Precision::Tf32),
    ];
    for (at, case) in cases.iter().enumerate() {
        assert!(matches!(case, Err(OfflineError::Chosen(_))), "{at}: {case:?}");
    }
    let mut bytes = proof.clone();
    bytes.proof[100] ^= 1;
    assert!(matches!(bytes.verify(), Err(OfflineError::Verify(_))));
}

#[test]
fn units_are_drawn_from_every_round_and_within_bounds() {
    let mut transcript = run(&Control::default()).unwrap().header.transcript;
    transcript.parameters.openings = 1_000;
    transcript.parameters.resident_openings = 1_000;
    let (units, resident) = draw::units(&transcript);
    for (stage, round) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)] {
        let here = units
            .iter()
            .filter(|unit| (unit.stage, unit.round) == (stage, round))
            .count();
        // 200 expected, standard deviation 12.6.
        assert!((120..280).contains(&here), "{stage} {round}: {here}");
    }
    assert!(resident.iter().all(|unit| unit.stage == 1 && unit.round < 2));
    assert!(
        units
            .iter()
            .chain(&resident)
            .all(|unit| unit.row < 32 && unit.column < 32)
    );
    assert!(units.iter().any(|unit| unit.row == 31) && units.iter().any(|unit| unit.column == 0));
}

#[test]
fn a_stop_ends_a_challenge_between_two_strips() {
    let stop = StopToken::default();
    let token = stop.clone();
    let heard = Arc::new(Mutex::new(0));
    let ears = heard.clone();
    let control = Control::new(stop, Arc::new(AlwaysOpen)).with_listener(Arc::new(move |progress| {
        if matches!(progress.phase, super::super::Phase::Stage { .. }) {
            token.stop();
            *ears.lock().unwrap() += 1;
        }
    }));
    let stopped = run(&control);
    assert!(matches!(
        stopped,
        Err(ShowError::Prover(ProverError::Interrupted(Interruption::Stopped)))
    ));
    assert_eq!(*heard.lock().unwrap(), 1, "no strip was begun after the stop");
}

#[test]
fn other_files_are_refused_by_name() {
    assert!(matches!(OfflineProof::decode(b""), Err(FileError::Name)));
    assert!(matches!(OfflineProof::decode(b"%PDF-1.7"), Err(FileError::Name)));
    let short = b"gristmill offline proof 1\n\x10\0\0\0{}";
    assert!(matches!(OfflineProof::decode(short), Err(FileError::Length)));
    let empty = b"gristmill offline proof 1\n\x02\0\0\0{}";
    assert!(matches!(OfflineProof::decode(empty), Err(FileError::Header(_))));
}

proptest! {
    #[test]
    fn arbitrary_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut file = b"gristmill offline proof 1\n".to_vec();
        file.extend(bytes);
        prop_assert!(OfflineProof::decode(&file).is_err());
    }
}
