//! One challenge from beginning to end, and each way in which it ends early.

use gristmill_protocol::hardware::{ChallengeSeed, ChallengeStep, HardwareKind, NextStep};

use super::desk::{BEGIN_MS, Desk, MEMORY_BYTES, RATE, account, claim, refusal, roots};
use crate::session::{Event, Policy, Problem, Refusal};

#[test]
fn a_device_that_is_alone_shows_what_it_claims() {
    let mut desk = Desk::new();
    let device = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    let parameters = &device.opened.parameters;
    assert_eq!((parameters.dimension, parameters.resident_rounds), (256, 4));
    assert_eq!(parameters.openings, 271);
    assert!(matches!(
        desk.run(&device, 4_010, 110),
        NextStep::Certified { .. }
    ));
    let certificate = desk.certificate_of(&device);
    assert_eq!(certificate.sub, account(1));
    assert_eq!(certificate.throughput[0].multiply_adds_per_second, RATE);
    // A tenth of a second and a quarter of it, twice, of four seconds.
    assert_eq!(certificate.memory_bytes, MEMORY_BYTES - MEMORY_BYTES / 16);
    assert_eq!(certificate.exp - certificate.iat, 6 * 60 * 60);
    assert!(!certificate.fingerprint_changed);
    let status = desk.challenges.status(&account(1), desk.now_ms);
    assert_eq!(status.devices.len(), 1);
    assert!(status.challenges.is_empty() && !status.devices[0].challenge_wanted);
}

#[test]
fn the_clock_decides_to_the_millisecond() {
    for (stage_ms, is_in_time) in [(5_010, true), (5_011, false)] {
        let mut desk = Desk::new();
        let device = desk.open(1, None, claim(None, 0)).unwrap();
        let next = desk.run(&device, stage_ms, 0);
        match is_in_time {
            true => assert!(matches!(next, NextStep::Certified { .. }), "{next:?}"),
            false => assert_eq!(refusal(&next), "slower_than_claimed"),
        }
    }
}

#[test]
fn delayed_echoes_gain_a_quarter_of_a_second_and_no_more() {
    let mut desk = Desk::new();
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    let call = desk.prepare(&device, 4_000);
    let Some(Ok(NextStep::Stage { within_ms, .. })) = desk.answer(call) else {
        panic!("no stage")
    };
    assert_eq!(within_ms, 5_250);
    desk.now_ms += 5_250;
    let call = desk.commit_stage(&device, 0);
    desk.answer(call).unwrap().unwrap();
    desk.commit_residency(&device);
    desk.prove(&device);
    let rate = desk.certificate_of(&device).throughput[0].multiply_adds_per_second;
    assert_eq!(rate, RATE * 4 / 5);
}

#[test]
fn memory_that_could_have_been_computed_anew_is_not_shown() {
    let mut desk = Desk::new();
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    // 0.8 seconds and a quarter of them, twice, are half of four; a millisecond more is too much.
    assert!(matches!(
        desk.run(&device, 4_010, 810),
        NextStep::Certified { .. }
    ));
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    assert_eq!(refusal(&desk.run(&device, 4_010, 811)), "memory_not_shown");
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    let never = desk.run(&device, 4_000, 60_000);
    assert_eq!(refusal(&never), "late");
}

#[test]
fn a_gpu_that_shows_no_tensor_units_may_have_computed_anew_with_them() {
    for (kind, residency_ms, is_shown) in [
        (HardwareKind::Cpu, 28, true),
        (HardwareKind::Cuda, 27, true),
        (HardwareKind::Cuda, 28, false),
    ] {
        let mut desk = Desk::new();
        let mut claim = claim(None, 0);
        claim.kind = kind;
        let device = desk.open(1, None, claim).unwrap();
        // 25 ms at 64 times the rate, and a quarter of that, are half of four seconds; a tenth is put down to the way.
        let ended = desk.run(&device, 4_010, residency_ms);
        assert_eq!(matches!(ended, NextStep::Certified { .. }), is_shown, "{ended:?}");
    }
}

#[test]
fn who_never_answers_is_refused_at_every_step() {
    let policy = Policy::default();
    let in_time = [
        policy.echo_within_ms,
        policy.prepare_within_ms,
        5_010,
        5_010 + policy.residency_slack_ms,
        policy.proof_within_ms,
    ];
    for (steps, in_time) in in_time.into_iter().enumerate() {
        let mut desk = Desk::new();
        let device = desk.open(1, None, claim(None, 0)).unwrap();
        if steps == 1 {
            let mut next = device.opened.next.clone();
            while let NextStep::Echo { nonce } = next {
                next = desk.next(&device, ChallengeStep::Echo { nonce });
            }
        }
        if steps > 1 {
            desk.prepare(&device, 10);
            desk.advance(1_000);
        }
        if steps > 2 {
            desk.commit_stage(&device, 0);
        }
        if steps > 3 {
            desk.commit_residency(&device);
        }
        desk.advance(in_time);
        assert_eq!(desk.challenges.counts().open, 1, "{steps}");
        desk.advance(1);
        assert_eq!(desk.challenges.counts().open, 0, "{steps}");
        let told = desk.now(&device).unwrap();
        assert!(
            ["late", "slower_than_claimed"].contains(&refusal(&told)),
            "{told:?}"
        );
        desk.advance(policy.keep_outcome_ms);
        let call = desk.step(&device, ChallengeStep::Wait);
        assert_eq!(desk.answer(call), Some(Err(Problem::NotFound)));
        assert_eq!(desk.challenges.wake_ms(desk.now_ms), None);
    }
}

#[test]
fn repeated_steps_change_nothing_and_others_are_told_apart() {
    let mut desk = Desk::new();
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    let first = device.opened.next.clone();
    let NextStep::Echo { nonce } = first else { panic!() };
    let call = desk.step(&device, ChallengeStep::Ready);
    assert_eq!(desk.answer(call), Some(Err(Problem::OutOfTurn)));
    let second = desk.next(&device, ChallengeStep::Echo { nonce });
    assert_eq!(desk.next(&device, ChallengeStep::Echo { nonce }), second);
    let wrong = ChallengeSeed::from_bytes([0; 32]);
    assert_eq!(desk.next(&device, ChallengeStep::Echo { nonce: wrong }), second);
    let mut next = second;
    while let NextStep::Echo { nonce } = next {
        next = desk.next(&device, ChallengeStep::Echo { nonce });
    }
    let call = desk.step(
        &device,
        ChallengeStep::StageCommitment {
            stage: 0,
            roots: roots(4),
        },
    );
    assert_eq!(desk.answer(call), Some(Err(Problem::OutOfTurn)));
    desk.step(&device, ChallengeStep::Ready);
    desk.advance(1_000);
    let stage = desk.next(&device, ChallengeStep::Ready);
    for bad in [roots(3), roots(5), Vec::new()] {
        let call = desk.step(&device, ChallengeStep::StageCommitment { stage: 0, roots: bad });
        assert!(matches!(
            desk.answer(call),
            Some(Err(Problem::Roots { expected: 4, .. }))
        ));
    }
    for other in [1, u32::MAX] {
        let call = desk.step(
            &device,
            ChallengeStep::StageCommitment {
                stage: other,
                roots: roots(4),
            },
        );
        assert_eq!(desk.answer(call), Some(Err(Problem::OutOfTurn)));
    }
    assert_eq!(desk.now(&device), Some(stage));
    let call = desk.commit_stage(&device, 0);
    let residency = desk.answer(call).unwrap().unwrap();
    let call = desk.commit_stage(&device, 0);
    assert_eq!(desk.answer(call), Some(Ok(residency)));
    let mut swapped = roots(4);
    swapped.swap(0, 1);
    let call = desk.step(
        &device,
        ChallengeStep::StageCommitment {
            stage: 0,
            roots: swapped,
        },
    );
    assert!(matches!(desk.answer(call), Some(Err(Problem::Conflict(_)))));
    let call = desk.commit_residency(&device);
    let open = desk.answer(call).unwrap().unwrap();
    let call = desk.commit_residency(&device);
    assert_eq!(desk.answer(call), Some(Ok(open)), "the openings are drawn once");
    let certified = desk.prove(&device);
    assert_eq!(desk.prove(&device), certified);
}

#[test]
fn openings_are_drawn_from_everything_and_only_from_what_is() {
    let mut desk = Desk::new();
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    desk.prepare(&device, 10);
    desk.advance(1_000);
    desk.commit_stage(&device, 0);
    let call = desk.commit_residency(&device);
    let Some(Ok(NextStep::Open {
        units,
        resident_units,
        ..
    })) = desk.answer(call)
    else {
        panic!("nothing to open")
    };
    assert_eq!((units.len(), resident_units.len()), (271, 271));
    for unit in units.iter().chain(&resident_units) {
        assert!(unit.stage == 0 && unit.round < 4 && unit.row < 32 && unit.column < 32);
    }
    for round in 0..4 {
        assert!(units.iter().filter(|unit| unit.round == round).count() > 30);
    }
    assert_ne!(units, resident_units);
}

#[test]
fn nobody_else_can_take_a_step_or_learn_anything() {
    let mut desk = Desk::new();
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    for event in [
        |call, challenge| Event::Step {
            call,
            caller: account(2),
            challenge,
            step: ChallengeStep::Wait,
        },
        |call, challenge| Event::Proof {
            call,
            caller: account(2),
            challenge,
            proof: Vec::new(),
        },
    ] {
        let call = desk.call();
        desk.handle(event(call, device.challenge));
        assert_eq!(desk.answer(call), Some(Err(Problem::NotFound)));
    }
}

#[test]
fn a_proof_that_fails_and_a_disk_that_fails_certify_nothing() {
    let mut desk = Desk::new();
    let reason = "unit 3 is another".to_owned();
    desk.verdict = Err(Refusal::Proof { reason });
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    assert_eq!(refusal(&desk.run(&device, 4_000, 0)), "proof");
    desk.verdict = Ok(());
    desk.keeps = false;
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    assert_eq!(refusal(&desk.run(&device, 4_000, 0)), "unavailable");
    assert!(
        desk.challenges
            .status(&account(1), desk.now_ms)
            .devices
            .is_empty()
    );
    assert_eq!(desk.challenges.certified(desk.now_ms).count(), 0);
}

#[test]
fn held_calls_are_answered_when_there_is_something_and_never_later_than_they_are_held() {
    let mut desk = Desk::new();
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    let ready = desk.prepare(&device, 0);
    assert_eq!(desk.answer(ready), None);
    assert_eq!(desk.challenges.counts().held, 1);
    let again = desk.step(&device, ChallengeStep::Wait);
    assert_eq!(
        desk.answer(ready),
        Some(Ok(NextStep::Wait { missing: 0 })),
        "the last one is held"
    );
    assert_eq!(desk.challenges.wake_ms(desk.now_ms), Some(BEGIN_MS + 1_000));
    desk.advance(999);
    assert_eq!(desk.answer(again), None);
    desk.advance(1);
    assert!(matches!(desk.answer(again), Some(Ok(NextStep::Stage { .. }))));
}
