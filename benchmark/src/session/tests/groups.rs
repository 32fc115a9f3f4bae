//! Devices that belong together are challenged together.

use gristmill_protocol::hardware::{NextStep, RenewalAnswer};

use super::desk::{Desk, Device, account, claim, refusal};
use crate::session::{Policy, Problem};

const ADDRESS: Option<&str> = Some("192.0.2.1");

/// Runs ready devices to their ends, each as quick as it claims.
fn run_together(desk: &mut Desk, devices: &[&Device]) -> Vec<NextStep> {
    for device in devices {
        desk.prepare(device, 0);
    }
    desk.advance(1_000);
    for device in devices {
        assert!(matches!(desk.now(device), Some(NextStep::Stage { .. })));
    }
    desk.now_ms += 4_000;
    for device in devices {
        desk.commit_stage(device, 0);
    }
    for device in devices {
        assert!(matches!(desk.now(device), Some(NextStep::Residency { .. })));
    }
    for device in devices {
        desk.commit_residency(device);
    }
    for device in devices {
        desk.upload(device);
    }
    devices.iter().map(|device| desk.now(device).unwrap()).collect()
}

#[test]
fn devices_of_one_owner_begin_at_one_time_with_distinct_seeds() {
    let mut desk = Desk::new();
    let one = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    let two = desk.open(1, None, claim(Some("b"), 1)).unwrap();
    assert_ne!(one.opened.setup_seed, two.opened.setup_seed);
    let held = desk.prepare(&one, 0);
    desk.advance(5_000);
    assert_eq!(
        desk.answer(held),
        Some(Ok(NextStep::Wait { missing: 1 })),
        "the other is not ready"
    );
    desk.prepare(&two, 0);
    let (
        Some(NextStep::Stage {
            round_seed: first,
            within_ms,
            ..
        }),
        Some(NextStep::Stage {
            round_seed: second, ..
        }),
    ) = (desk.now(&one), desk.now(&two))
    else {
        panic!("no stages")
    };
    assert_ne!(first, second);
    assert_eq!(within_ms, 5_000);
    // The clock of the second one runs, whether or not it has fetched its seed.
    desk.advance(3_000);
    let Some(NextStep::Stage { within_ms, .. }) = desk.now(&two) else {
        panic!()
    };
    assert_eq!(within_ms, 2_000);
    // The memory of both is folded at one time.
    let waits = desk.commit_stage(&one, 0);
    assert_eq!(desk.answer(waits), None);
    desk.commit_stage(&two, 0);
    let (Some(Ok(NextStep::Residency { nonce: first, .. })), Some(NextStep::Residency { nonce: second, .. })) =
        (desk.answer(waits), desk.now(&two))
    else {
        panic!("no folds")
    };
    assert_ne!(first, second);
}

#[test]
fn one_device_behind_two_listings_is_too_slow_for_both() {
    let mut desk = Desk::new();
    let one = desk.open(1, ADDRESS, claim(Some("a"), 0)).unwrap();
    let two = desk.open(2, ADDRESS, claim(Some("b"), 0)).unwrap();
    desk.prepare(&one, 0);
    desk.prepare(&two, 0);
    desk.advance(1_000);
    // It does one after the other.
    desk.advance(4_000);
    desk.commit_stage(&one, 0);
    desk.advance(4_000);
    let call = desk.commit_stage(&two, 0);
    let told = desk.answer(call).unwrap().unwrap();
    assert_eq!(refusal(&told), "slower_than_claimed");
    // The first one goes on without it.
    assert!(matches!(desk.now(&one), Some(NextStep::Residency { .. })));
}

#[test]
fn a_certified_device_has_to_take_part_when_another_of_its_owner_is_shown() {
    let mut desk = Desk::new();
    desk.certify(1, None, claim(Some("a"), 0));
    let two = desk.open(1, None, claim(Some("b"), 1)).unwrap();
    let held = desk.prepare(&two, 0);
    desk.advance(4_000);
    assert_eq!(desk.answer(held), Some(Ok(NextStep::Wait { missing: 1 })));
    let status = desk.challenges.status(&account(1), desk.now_ms);
    assert!(status.devices[0].challenge_wanted, "the provider is told");
    // It stays away: the other one can't be shown.
    desk.advance(Policy::default().together_within_ms);
    assert_eq!(refusal(&desk.now(&two).unwrap()), "together");
    assert!(!desk.challenges.status(&account(1), desk.now_ms).devices[0].challenge_wanted);
    // It takes part: both are.
    let two = desk.open(1, None, claim(Some("b"), 1)).unwrap();
    let one = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    let ends = run_together(&mut desk, &[&one, &two]);
    assert!(
        ends.iter().all(|end| matches!(end, NextStep::Certified { .. })),
        "{ends:?}"
    );
    assert_eq!(desk.challenges.status(&account(1), desk.now_ms).devices.len(), 2);
}

#[test]
fn a_certified_device_that_comes_and_fails_does_not_make_way_for_another() {
    let mut desk = Desk::new();
    let before = desk.certify(1, None, claim(Some("a"), 0));
    let one = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    let two = desk.open(1, None, claim(Some("b"), 1)).unwrap();
    desk.prepare(&one, 0);
    desk.prepare(&two, 0);
    desk.advance(1_000);
    desk.now_ms += 4_000;
    desk.commit_stage(&two, 0);
    // The first one never commits: it is the same device under another name.
    desk.advance(2_000);
    desk.commit_residency(&two);
    assert_eq!(refusal(&desk.prove(&two)), "together");
    assert_eq!(refusal(&desk.now(&one).unwrap()), "slower_than_claimed");
    let renewal = desk.renew(account(1), &before);
    assert_eq!(renewal, Ok(RenewalAnswer::ChallengeRequired));
    // Whoever is certified already is shown again, whatever becomes of others.
    let one = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    let two = desk.open(1, None, claim(Some("b"), 1)).unwrap();
    desk.prepare(&one, 0);
    desk.prepare(&two, 0);
    desk.advance(1_000);
    desk.commit_stage(&one, 0);
    desk.advance(6_000);
    desk.commit_residency(&one);
    assert!(matches!(desk.prove(&one), NextStep::Certified { .. }));
}

#[test]
fn nobody_is_certified_before_the_verdict_on_everybody() {
    let mut desk = Desk::new();
    let one = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    let two = desk.open(1, None, claim(Some("b"), 1)).unwrap();
    for device in [&one, &two] {
        desk.prepare(device, 0);
    }
    desk.advance(1_000);
    desk.now_ms += 4_000;
    for device in [&one, &two] {
        desk.commit_stage(device, 0);
    }
    for device in [&one, &two] {
        desk.commit_residency(device);
    }
    desk.upload(&one);
    assert_eq!(desk.now(&one), None);
    desk.advance(Policy::default().proof_within_ms + 1);
    assert!(
        matches!(desk.now(&one), Some(NextStep::Certified { .. })),
        "the other one's proof is late"
    );
}

#[test]
fn an_expired_device_is_not_waited_for() {
    let mut desk = Desk::new();
    desk.certify(1, None, claim(Some("a"), 0));
    desk.advance(6 * 60 * 60_000 + 60_001);
    desk.certify(1, None, claim(Some("b"), 1));
}

#[test]
fn who_comes_while_others_run_waits_for_their_end_and_then_for_them() {
    let mut desk = Desk::new();
    let one = desk.open(1, ADDRESS, claim(Some("a"), 0)).unwrap();
    desk.prepare(&one, 0);
    desk.advance(1_000);
    let two = desk.open(2, ADDRESS, claim(Some("b"), 0)).unwrap();
    desk.prepare(&two, 0);
    desk.advance(2_000);
    assert_eq!(desk.now(&two), None, "one runs");
    desk.commit_stage(&one, 0);
    desk.commit_residency(&one);
    assert!(matches!(desk.prove(&one), NextStep::Certified { .. }));
    assert_eq!(desk.now(&two), None, "one is certified and not there");
    let one = desk.open(1, ADDRESS, claim(Some("a"), 0)).unwrap();
    desk.prepare(&one, 0);
    desk.advance(1_000);
    assert!(matches!(desk.now(&one), Some(NextStep::Stage { .. })));
    assert!(matches!(desk.now(&two), Some(NextStep::Stage { .. })));
}

#[test]
fn a_uuid_belongs_to_one_account() {
    let mut desk = Desk::new();
    let first = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    let second = desk.open(2, None, claim(Some("a"), 0)).unwrap();
    // Both claim it before either has shown it: they are challenged together, and the first to be verified has it.
    let ends = run_together(&mut desk, &[&first, &second]);
    assert!(matches!(ends[0], NextStep::Certified { .. }));
    assert_eq!(refusal(&ends[1]), "uuid_taken");
    assert_eq!(
        desk.open(2, None, claim(Some("a"), 0)).err(),
        Some(Problem::UuidTaken)
    );
    desk.advance(7 * 60 * 60_000);
    assert!(
        desk.open(2, None, claim(Some("a"), 0)).is_ok(),
        "until it expires"
    );
}

#[test]
fn a_device_has_one_challenge_and_a_repeated_request_is_the_same() {
    let mut desk = Desk::new();
    let first = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    let ready = desk.prepare(&first, 0);
    let second = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    assert_eq!(refusal(&desk.answer(ready).unwrap().unwrap()), "replaced");
    assert_eq!(desk.challenges.counts().open, 1);
    assert_ne!(first.challenge, second.challenge);
}

#[test]
fn groups_that_come_to_have_something_in_common_become_one() {
    let mut desk = Desk::new();
    let one = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    let two = desk.open(2, ADDRESS, claim(Some("b"), 0)).unwrap();
    desk.prepare(&one, 0);
    // It has the owner of the first and the address of the second.
    let three = desk.open(1, ADDRESS, claim(Some("c"), 1)).unwrap();
    desk.prepare(&three, 0);
    desk.advance(10_000);
    assert_eq!(desk.now(&one), None, "the second is not ready");
    desk.prepare(&two, 0);
    for device in [&one, &two, &three] {
        assert!(matches!(desk.now(device), Some(NextStep::Stage { .. })));
    }
}

#[test]
fn bounds_on_open_challenges_hold() {
    let policy = Policy {
        open_per_account_max: 2,
        open_per_address_max: 3,
        open_max: 4,
        ..Policy::default()
    };
    let mut desk = Desk::with(policy, []);
    for index in 0..2 {
        desk.open(1, ADDRESS, claim(None, index)).unwrap();
    }
    let refused = desk.open(1, ADDRESS, claim(None, 2)).err();
    assert_eq!(refused, Some(Problem::TooMany { who: "the account" }));
    desk.open(2, ADDRESS, claim(None, 0)).unwrap();
    let refused = desk.open(3, ADDRESS, claim(None, 0)).err();
    assert_eq!(refused, Some(Problem::TooMany { who: "the address" }));
    desk.open(3, None, claim(None, 0)).unwrap();
    assert_eq!(desk.open(4, None, claim(None, 0)).err(), Some(Problem::Full));
    // What replaces another takes its place.
    assert!(desk.open(3, None, claim(None, 0)).is_ok());
    // What is over takes none.
    desk.advance(Policy::default().echo_within_ms + 1);
    assert_eq!(desk.challenges.counts().open, 0);
    assert!(desk.open(4, None, claim(None, 0)).is_ok());
}

#[test]
fn a_hundred_listings_on_one_device_get_no_certificates() {
    let mut desk = Desk::new();
    let mut devices = Vec::new();
    for name in 1..=100 {
        let uuid = format!("made up {name}");
        if let Ok(device) = desk.open(name, ADDRESS, claim(Some(&uuid), 0)) {
            devices.push(device);
        }
    }
    assert_eq!(devices.len(), Policy::default().open_per_address_max);
    for device in &devices {
        desk.prepare(device, 0);
    }
    desk.advance(1_000);
    // One after the other, as one device can.
    let mut certified = 0;
    for device in &devices {
        desk.advance(4_000);
        desk.commit_stage(device, 0);
        let told: Vec<_> = devices.iter().map(|device| desk.now(device)).collect();
        for (device, told) in devices.iter().zip(told) {
            if let Some(NextStep::Residency { .. }) = told {
                desk.commit_residency(device);
                certified += usize::from(matches!(desk.prove(device), NextStep::Certified { .. }));
            }
        }
    }
    assert_eq!(certified, 1, "the one that it is");
}
