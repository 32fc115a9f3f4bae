//! Renewal, repetition at random, restarts, fingerprints.

use gristmill_protocol::hardware::{HardwareDigest, RenewalAnswer};

use super::desk::{BEGIN_MS, Desk, account, claim, refusal};
use crate::session::{Policy, Problem, Refusal};

const HOUR_MS: u64 = 60 * 60_000;

#[test]
fn certificates_are_renewed_until_the_lot_falls_and_never_beyond_a_day() {
    let mut days = Vec::new();
    for seed in 0..40 {
        let mut desk = Desk::new();
        desk.rng = rand_chacha::rand_core::SeedableRng::seed_from_u64(seed);
        let certificate = desk.certify(1, None, claim(None, 0));
        let mut last_ms = 0;
        for _ in 0..24 {
            desk.advance(HOUR_MS);
            match desk.renew(account(1), &certificate).unwrap() {
                RenewalAnswer::Renewed { certificate } => {
                    assert!(!certificate.is_empty());
                    let status = desk.challenges.status(&account(1), desk.now_ms);
                    assert_eq!(status.devices[0].certificate, certificate);
                    last_ms = desk.now_ms - BEGIN_MS;
                }
                RenewalAnswer::ChallengeRequired => break,
            }
        }
        let expires_at = desk
            .challenges
            .certified(desk.now_ms)
            .map(|record| record.certificate.exp)
            .max();
        assert!(expires_at.unwrap_or(0) * 1_000 <= BEGIN_MS + 24 * HOUR_MS + 10_000);
        days.push(last_ms / HOUR_MS);
    }
    assert!(days.iter().all(|hours| *hours < 19), "{days:?}");
    let (early, late) = (
        days.iter().filter(|hours| **hours < 6).count(),
        days.iter().filter(|hours| **hours >= 12).count(),
    );
    assert!(early > 4 && late > 4, "nobody can know when: {days:?}");
}

#[test]
fn a_challenge_that_nobody_demanded_puts_off_none_that_comes() {
    let mut desk = Desk::new();
    desk.certify(1, None, claim(None, 0));
    let again_at = |desk: &Desk| desk.challenges.certified(desk.now_ms).next().unwrap().again_at_ms;
    let mut due = again_at(&desk);
    while desk.now_ms + 30 * 60_000 < due {
        desk.advance(20 * 60_000);
        desk.certify(1, None, claim(None, 0));
        assert!(again_at(&desk) <= due);
        due = again_at(&desk);
    }
    desk.advance(due - desk.now_ms);
    assert!(desk.challenges.status(&account(1), desk.now_ms).devices[0].challenge_wanted);
    desk.certify(1, None, claim(None, 0));
    assert!(again_at(&desk) > due, "a demanded one draws a new lot");
}

/// Otherwise whoever rents a device for a minute could fail and pass again until the lot falls late.
#[test]
fn a_failure_draws_no_new_lot() {
    let mut desk = Desk::new();
    desk.certify(1, None, claim(None, 0));
    let again_at = |desk: &Desk| desk.challenges.certified(desk.now_ms).next().unwrap().again_at_ms;
    let due = again_at(&desk);
    for _ in 0..20 {
        desk.verdict = Err(Refusal::Proof { reason: "x".into() });
        let device = desk.open(1, None, claim(None, 0)).unwrap();
        assert_eq!(refusal(&desk.run(&device, 4_000, 0)), "proof");
        assert!(desk.challenges.status(&account(1), desk.now_ms).devices[0].challenge_wanted);
        desk.verdict = Ok(());
        desk.certify(1, None, claim(None, 0));
        assert!(!desk.challenges.status(&account(1), desk.now_ms).devices[0].challenge_wanted);
        assert!(again_at(&desk) <= due);
    }
}

#[test]
fn a_device_that_failed_is_not_renewed() {
    let mut desk = Desk::new();
    let certificate = desk.certify(1, None, claim(None, 0));
    assert!(matches!(
        desk.renew(account(1), &certificate),
        Ok(RenewalAnswer::Renewed { .. })
    ));
    desk.verdict = Err(Refusal::Proof { reason: "x".into() });
    let device = desk.open(1, None, claim(None, 0)).unwrap();
    assert_eq!(refusal(&desk.run(&device, 4_000, 0)), "proof");
    assert_eq!(
        desk.renew(account(1), &certificate),
        Ok(RenewalAnswer::ChallengeRequired)
    );
    // Also after a restart.
    let kept = desk.kept.clone().into_values();
    let mut restarted = Desk::with(Policy::default(), kept);
    restarted.now_ms = desk.now_ms;
    assert_eq!(
        restarted.renew(account(1), &certificate),
        Ok(RenewalAnswer::ChallengeRequired)
    );
}

#[test]
fn a_restart_forgets_challenges_and_keeps_certificates() {
    let mut desk = Desk::new();
    let certificate = desk.certify(1, None, claim(Some("a"), 0));
    let open = desk.open(1, None, claim(Some("b"), 1)).unwrap();
    let mut restarted = Desk::with(Policy::default(), desk.kept.clone().into_values());
    restarted.now_ms = desk.now_ms;
    assert_eq!(restarted.challenges.counts().open, 0);
    assert!(matches!(
        restarted.renew(account(1), &certificate),
        Ok(RenewalAnswer::Renewed { .. })
    ));
    assert_eq!(
        restarted.open(2, None, claim(Some("a"), 0)).err(),
        Some(Problem::UuidTaken)
    );
    let call = restarted.step(&open, gristmill_protocol::hardware::ChallengeStep::Wait);
    assert_eq!(restarted.answer(call), Some(Err(Problem::NotFound)));
    let again = restarted.open(1, None, claim(Some("b"), 1)).unwrap();
    restarted.prepare(&again, 0);
    restarted.advance(5_000);
    assert_eq!(
        restarted
            .challenges
            .status(&account(1), restarted.now_ms)
            .devices
            .len(),
        1
    );
    assert!(restarted.challenges.status(&account(1), restarted.now_ms).devices[0].challenge_wanted);
}

#[test]
fn only_the_owner_renews_and_only_what_is_on_record() {
    let mut desk = Desk::new();
    let first = desk.certify(1, None, claim(None, 0));
    assert_eq!(desk.renew(account(2), &first), Err(Problem::OtherAccount));
    let second = desk.certify(1, None, claim(None, 0));
    assert_eq!(
        desk.renew(account(1), &first),
        Ok(RenewalAnswer::ChallengeRequired)
    );
    assert!(matches!(
        desk.renew(account(1), &second),
        Ok(RenewalAnswer::Renewed { .. })
    ));
    desk.keeps = false;
    assert_eq!(desk.renew(account(1), &second), Err(Problem::NotKept));
    let mut elsewhere = Desk::new();
    assert_eq!(
        elsewhere.renew(account(1), &second),
        Ok(RenewalAnswer::ChallengeRequired)
    );
}

#[test]
fn a_changed_fingerprint_is_flagged_until_it_is_the_same_again() {
    let mut desk = Desk::new();
    let with = |byte| {
        let mut claim = claim(Some("a"), 0);
        claim.fingerprint = HardwareDigest::from_bytes([byte; 32]);
        claim
    };
    assert!(!desk.certify(1, None, with(1)).fingerprint_changed);
    assert!(!desk.certify(1, None, with(1)).fingerprint_changed);
    assert!(desk.certify(1, None, with(2)).fingerprint_changed);
    // The one before is remembered beyond its expiry.
    desk.advance(29 * 24 * HOUR_MS);
    assert!(desk.certify(1, None, with(1)).fingerprint_changed);
    desk.advance(32 * 24 * HOUR_MS);
    assert!(!desk.certify(1, None, with(2)).fingerprint_changed, "for a month");
    assert_eq!(desk.kept.len(), 1);
}
