use std::sync::Arc;

use gristmill_protocol::hardware::{ChallengeParameters, METHOD, NextStep, Stage};
use gristmill_protocol::ids::ChallengeId;

use super::super::self_check;
use super::super::{AlwaysOpen, Budget, BudgetError, ClaimPercent, Gate, Interruption, StopToken};
use super::*;
use crate::inventory::{Device, DeviceKind};
use crate::probe;

fn cpu() -> Device {
    let mut cpu = probe::inventory().devices.pop().unwrap();
    // What is free changes while the tests run.
    cpu.memory_free_bytes = Some(1 << 30);
    cpu
}

fn prover() -> Prover {
    Prover::open(&cpu(), &Budget::default()).unwrap()
}

fn opened(stages: &[(Precision, u32)]) -> ChallengeOpened {
    let stage = |&(precision, rounds)| Stage { precision, rounds };
    ChallengeOpened {
        challenge: ChallengeId::from_bytes([2; 16]),
        method: METHOD.into(),
        parameters: ChallengeParameters {
            dimension: 256,
            stages: stages.iter().map(stage).collect(),
            resident_rounds: 1,
            openings: 1,
            resident_openings: 1,
        },
        setup_seed: seed(1),
        next: NextStep::Prepare { within_ms: 1 },
    }
}

fn seed(byte: u8) -> ChallengeSeed {
    ChallengeSeed::from_bytes([byte; 32])
}

fn two_stages() -> RunningChallenge {
    let opened = opened(&[(Precision::Bf16, 1), (Precision::F32, 2)]);
    RunningChallenge::prepare(&prover(), opened, &Control::default()).unwrap()
}

#[test]
fn steps_out_of_order_are_refused_and_do_no_harm() {
    let control = Control::default();
    let mut challenge = two_stages();
    let out_of_order =
        |result: Result<Vec<UnitsRoot>, ProverError>| matches!(result, Err(ProverError::Challenge(_)));
    assert!(out_of_order(challenge.stage(1, &seed(3), &control)));
    assert!(out_of_order(challenge.residency(&seed(4), &control)));
    assert_eq!(challenge.stage(0, &seed(3), &control).unwrap().len(), 1);
    assert!(out_of_order(challenge.stage(0, &seed(3), &control)));
    assert_eq!(challenge.resident_bytes(), 0, "only the last stage stays");
    assert_eq!(challenge.stage(1, &seed(5), &control).unwrap().len(), 2);
    assert_eq!(
        challenge.resident_bytes(),
        2 * 256 * 256,
        "two bytes for each entry of one result"
    );
    assert!(out_of_order(challenge.stage(2, &seed(6), &control)));
    assert_eq!(challenge.residency(&seed(4), &control).unwrap().len(), 1);
    let unit = |round, row| UnitPosition {
        stage: 1,
        round,
        row,
        column: 0,
    };
    assert!(challenge.prove(&[unit(1, 31)], &[unit(0, 31)]).is_ok());
    for (computed, resident) in [
        (unit(2, 0), unit(0, 0)),
        (unit(0, 32), unit(0, 0)),
        (unit(0, 0), unit(1, 0)),
    ] {
        let proof = challenge.prove(&[computed], &[resident]);
        assert!(matches!(proof, Err(ProverError::Challenge(_))));
    }
}

#[test]
fn challenges_that_make_no_sense_or_do_not_fit_are_refused() {
    let prepare = |opened| RunningChallenge::prepare(&prover(), opened, &Control::default()).map(|_| ());
    let rounded = prepare(opened(&[(Precision::F32, 1), (Precision::Bf16, 1)]));
    assert!(matches!(rounded, Err(ProverError::Challenge(reason)) if reason.contains("rounds")));
    let mut odd = opened(&[(Precision::F32, 1)]);
    odd.parameters.dimension = 300;
    assert!(matches!(prepare(odd), Err(ProverError::Challenge(_))));
    let mut large = opened(&[(Precision::F32, 1)]);
    large.parameters.dimension = 16_384;
    assert!(matches!(
        prepare(large),
        Err(ProverError::Budget(BudgetError::Memory { rows: 16_384, .. }))
    ));
    let mut many = opened(&[(Precision::F32, 8_000)]);
    many.parameters.resident_rounds = 8_000;
    assert!(matches!(
        prepare(many),
        Err(ProverError::Budget(BudgetError::Memory { .. }))
    ));
}

#[test]
fn a_device_that_computes_something_else_is_told_so() {
    let control = Control::default();
    let dimension = Dimension::SMALLEST;
    let of = |byte| Matrices::new(&[byte; 32], dimension);
    let mut workload = prover().workload(&of(1), &control).unwrap();
    for precision in Precision::ALL {
        assert!(self_check::check(&mut workload, &of(1), precision, &control).is_ok());
        let other = self_check::check(&mut workload, &of(2), precision, &control);
        assert!(matches!(other, Err(ProverError::Inexact { dimension: 256, .. })));
    }
}

#[test]
fn what_this_build_has_no_support_for_is_refused_at_once() {
    for (kind, usable) in [(DeviceKind::Rocm, true), (DeviceKind::Cpu, false)] {
        let device = Device {
            kind,
            usable,
            ..cpu()
        };
        let opened = Prover::open(&device, &Budget::default());
        assert!(matches!(opened, Err(ProverError::NotInThisBuild(_))));
    }
    let watts = Budget {
        power_max_milliwatts: Some(10_000),
        ..Budget::default()
    };
    let silent = Device {
        power_milliwatts: None,
        power_limit_milliwatts: None,
        ..cpu()
    };
    assert!(matches!(
        Prover::open(&silent, &watts),
        Err(ProverError::Budget(BudgetError::PowerUnknown(_)))
    ));
}

#[test]
fn a_measurement_claims_less_than_it_saw_and_stops_when_told() {
    let stop = StopToken::default();
    let mut prover = prover();
    let measurement = prover.measure(&Control::default()).unwrap();
    assert_eq!(measurement.rates.len(), 1);
    assert!(measurement.inexact.is_empty() && measurement.memory_bytes < 1 << 30);
    assert_eq!(measurement.remarks().count(), 0);
    let fingerprint = gristmill_protocol::hardware::HardwareDigest::from_bytes([1; 32]);
    let claim = |percent| {
        let percent = ClaimPercent::new(percent).unwrap();
        let claim = prover.claim(&measurement, percent, 0, fingerprint);
        assert_eq!(claim.check(), Ok(()));
        claim.rate_in(Precision::F32).unwrap()
    };
    let measured = &measurement.rates[0];
    assert!(measured.slowest > 0 && measured.slowest <= measured.throughput.multiply_adds_per_second);
    assert_eq!(claim(100), measured.slowest);
    assert_eq!(claim(25), measured.slowest / 4);
    stop.stop();
    let stopped = prover.measure(&Control::new(stop, Arc::new(AlwaysOpen)));
    assert!(matches!(
        stopped,
        Err(ProverError::Interrupted(Interruption::Stopped))
    ));
}

#[test]
fn a_job_that_comes_ends_a_stage_and_a_pause() {
    struct Closed;
    impl Gate for Closed {
        fn is_open(&self) -> bool {
            false
        }
    }
    let closed = Control::new(StopToken::default(), Arc::new(Closed));
    let mut challenge = two_stages();
    let ended = challenge.stage(0, &seed(3), &closed);
    assert!(matches!(
        ended,
        Err(ProverError::Interrupted(Interruption::GateClosed))
    ));
    let started = Instant::now();
    let rule = PowerRule::DutyCycle { busy_permille: 100 };
    pause(rule, Duration::from_secs(600), &closed);
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "the pause of 90 minutes was not slept"
    );
}
