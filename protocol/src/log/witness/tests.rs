use super::*;
use crate::handover::KeyHandover;
use crate::log::checkpoint::Checkpoint;
use crate::log::hash::leaf_hash;
use crate::log::test_log::{TestLog, keypair};
use proptest::prelude::*;

mod random_runs;

const SIZE: u64 = 40;

fn honest() -> TestLog {
    TestLog::new(SIZE)
}

fn watching(log: &TestLog, latest: u64) -> Witness {
    Witness::new(log.keys(), Some(log.checkpoint(latest)))
}

fn hear(witness: &mut Witness, log: &TestLog, size: u64, now_ms: u64) -> Vec<Effect> {
    witness.handle(Event::HeardNote(log.checkpoint(size).into_note()), now_ms)
}

fn fetch(from: u64, to: u64) -> Effect {
    Effect::FetchExtension { from, to }
}

fn accepted(log: &TestLog, size: u64) -> Vec<Effect> {
    let checkpoint = log.checkpoint(size);
    vec![
        Effect::Persist(checkpoint.clone()),
        Effect::Accepted {
            checkpoint,
            cosign: true,
        },
    ]
}

fn lies(effects: &[Effect]) -> Vec<&Lie> {
    fn lie(effect: &Effect) -> Option<&Lie> {
        match effect {
            Effect::Alarm(_, lie) => Some(lie),
            _ => None,
        }
    }
    effects.iter().filter_map(lie).collect()
}

#[test]
fn the_first_checkpoint_is_taken_on_trust_and_the_next_ones_on_proof() {
    let log = honest();
    let mut witness = Witness::new(log.keys(), None);
    assert_eq!(hear(&mut witness, &log, 5, 0), accepted(&log, 5));
    assert_eq!(hear(&mut witness, &log, 5, 1), ignore(IgnoreReason::Known));
    assert_eq!(hear(&mut witness, &log, 9, 2), [fetch(5, 9)]);
    assert_eq!(hear(&mut witness, &log, 9, 3), ignore(IgnoreReason::Waits));
    assert_eq!(witness.latest(), Some(&log.checkpoint(5)));
    assert_eq!(
        witness.handle(Event::Extended(log.extension(5, 9)), 4),
        accepted(&log, 9)
    );
    assert_eq!(witness.latest(), Some(&log.checkpoint(9)));
    // An older one that is not known is held against the one kept, and never taken back to.
    assert_eq!(hear(&mut witness, &log, 7, 5), [fetch(7, 9)]);
    let consistent = witness.handle(Event::Extended(log.extension(7, 9)), 6);
    assert_eq!(consistent, ignore(IgnoreReason::OlderAndConsistent));
    assert_eq!(hear(&mut witness, &log, 7, 7), ignore(IgnoreReason::Known));
    assert_eq!(witness.latest(), Some(&log.checkpoint(9)));
    assert_eq!((witness.pending(), witness.caught()), (0, None));
}

#[test]
fn an_empty_log_needs_no_proof_but_the_right_root() {
    let log = honest();
    let mut witness = Witness::new(log.keys(), None);
    assert_eq!(hear(&mut witness, &log, 0, 0), accepted(&log, 0));
    assert_eq!(hear(&mut witness, &log, 3, 1), accepted(&log, 3));
    let nothing = Checkpoint::new(&log.origin, 0, leaf_hash(b"something"));
    let nothing = SignedCheckpoint::sign(&nothing, &keypair(1)).unwrap().into_note();
    // Heard before anything else, it is not taken, and convicts as soon as there is something to hold it against.
    let mut witness = Witness::new(log.keys(), None);
    assert_eq!(witness.handle(Event::HeardNote(nothing), 0), []);
    assert_eq!(witness.latest(), None);
    let mut expected = accepted(&log, 3);
    expected.push(fetch(0, 3));
    assert_eq!(hear(&mut witness, &log, 3, 1), expected);
    let effects = witness.handle(Event::Extended(log.extension(0, 3)), 2);
    assert!(matches!(
        lies(&effects)[..],
        [Lie::NotAnExtension {
            old_size: 0,
            new_size: 3,
            ..
        }]
    ));
}

#[test]
fn two_roots_for_one_size_are_caught_at_once() {
    let (log, fork) = (honest(), honest().with_changed(3));
    for latest in [5, 9] {
        // Against the one kept, and against one that waits.
        let mut witness = watching(&log, latest);
        let _ = hear(&mut witness, &log, 9, 0);
        let effects = hear(&mut witness, &fork, 9, 1);
        let [Effect::Alarm(evidence, lie @ Lie::TwoRoots { size: 9, .. })] = effects.as_slice() else {
            panic!("{effects:?}");
        };
        assert_eq!(evidence.verify(&log.keys()), Ok(*lie));
        assert_eq!(witness.caught(), Some(lie));
        assert_eq!(
            hear(&mut witness, &fork, 9, 2),
            ignore(IgnoreReason::CaughtBefore)
        );
    }
}

#[test]
fn forks_are_caught_whichever_side_is_kept_and_whichever_is_larger() {
    let log = honest();
    for fork in [log.with_changed(3), log.with_dropped(3), log.with_reordered(3)] {
        for (kept, heard) in [(9, 14), (14, 9)] {
            let mut witness = watching(&log, kept);
            let (from, to) = (kept.min(heard), kept.max(heard));
            assert_eq!(hear(&mut witness, &fork, heard, 0), [fetch(from, to)]);
            let larger = if heard > kept { &fork } else { &log };
            let effects = witness.handle(Event::Extended(larger.extension(from, to)), 1);
            let [Effect::Alarm(evidence, lie)] = effects.as_slice() else {
                panic!("{effects:?}")
            };
            assert!(matches!(lie, Lie::NotAnExtension { .. }));
            assert_eq!(evidence.verify(&log.keys()), Ok(*lie));
            assert_eq!(
                witness.latest(),
                Some(&log.checkpoint(kept)),
                "it stays where it was"
            );
            // From then on it follows what it can, but vouches for nothing.
            assert_eq!(hear(&mut witness, &log, 20, 2), [fetch(kept, 20)]);
            let effects = witness.handle(Event::Extended(log.extension(kept, 20)), 3);
            assert!(matches!(
                effects.as_slice(),
                [Effect::Persist(_), Effect::Accepted { cosign: false, .. }]
            ));
        }
    }
}

#[test]
fn hashes_that_lead_elsewhere_prove_nothing_and_are_asked_for_again() {
    let (log, fork) = (honest(), honest().with_changed(3));
    let mut witness = watching(&log, 5);
    assert_eq!(hear(&mut witness, &log, 9, 0), [fetch(5, 9)]);
    let wrong = witness.handle(Event::Extended(fork.extension(5, 9)), 10);
    assert_eq!(wrong, ignore(IgnoreReason::WrongHashes));
    let unasked = witness.handle(Event::Extended(log.extension(5, 9)), 11);
    assert_eq!(unasked, ignore(IgnoreReason::NotAsked));
    assert_eq!(witness.handle(Event::Tick, 10 + RETRY_FIRST_MS - 1), []);
    assert_eq!(witness.handle(Event::Tick, 10 + RETRY_FIRST_MS), [fetch(5, 9)]);
    let other_sizes = witness.handle(Event::Extended(log.extension(5, 8)), 2000);
    assert_eq!(other_sizes, ignore(IgnoreReason::NotAsked));
    let mut cut = log.extension(5, 9);
    cut.after.pop();
    assert_eq!(
        witness.handle(Event::Extended(cut), 2000),
        ignore(IgnoreReason::WrongHashes)
    );
    assert_eq!(witness.latest(), Some(&log.checkpoint(5)));
}

#[test]
fn what_fails_is_asked_for_ever_more_slowly() {
    let log = honest();
    let mut witness = watching(&log, 5);
    assert_eq!(hear(&mut witness, &log, 9, 0), [fetch(5, 9)]);
    let mut now_ms = 0;
    for wait_ms in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        let failed = witness.handle(Event::FetchFailed { from: 5, to: 9 }, now_ms);
        assert_eq!(failed[0], Effect::Ignore(IgnoreReason::Failed));
        assert!(
            !witness
                .handle(Event::Tick, now_ms + wait_ms - 1)
                .contains(&fetch(5, 9))
        );
        now_ms += wait_ms;
        assert!(
            witness.handle(Event::Tick, now_ms).contains(&fetch(5, 9)),
            "{wait_ms}"
        );
    }
    let unasked = witness.handle(Event::FetchFailed { from: 4, to: 9 }, now_ms);
    assert_eq!(unasked, ignore(IgnoreReason::NotAsked));
}

#[test]
fn no_answer_counts_as_failed() {
    let log = honest();
    let mut witness = watching(&log, 5);
    assert_eq!(hear(&mut witness, &log, 9, 0), [fetch(5, 9)]);
    assert_eq!(witness.handle(Event::Tick, FETCH_PATIENCE_MS - 1), []);
    assert_eq!(witness.handle(Event::Tick, FETCH_PATIENCE_MS), []);
    assert_eq!(
        witness.handle(Event::Tick, FETCH_PATIENCE_MS + RETRY_FIRST_MS),
        [fetch(5, 9)]
    );
}

#[test]
fn a_log_that_shows_nothing_for_a_minute_is_told_once() {
    let log = honest();
    let mut witness = watching(&log, 5);
    let _ = hear(&mut witness, &log, 9, 7);
    let withheld = |effects: &[Effect]| {
        effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Withheld { .. }))
            .count()
    };
    let mut told = 0;
    for now_ms in (0..7 + WITHHELD_AFTER_MS).step_by(1000) {
        told += withheld(&witness.handle(Event::FetchFailed { from: 5, to: 9 }, now_ms));
    }
    assert_eq!(
        told + withheld(&witness.handle(Event::Tick, 6 + WITHHELD_AFTER_MS)),
        0
    );
    let effects = witness.handle(Event::Tick, 7 + WITHHELD_AFTER_MS);
    assert!(effects.contains(&Effect::Withheld { size: 9, since_ms: 7 }));
    assert_eq!(
        withheld(&witness.handle(Event::Tick, 8 + 2 * WITHHELD_AFTER_MS)),
        0
    );
}

/// A fork's tiles may be shown to its victim alone: everybody else only hears its checkpoint.
#[test]
fn a_fork_whose_tiles_are_withheld_is_caught_by_the_next_checkpoint() {
    let (log, fork) = (honest(), honest().with_changed(3));
    let mut witness = watching(&log, 5);
    assert_eq!(hear(&mut witness, &fork, 9, 0), [fetch(5, 9)]);
    // The coordinator answers with the tiles that it shows to everybody.
    let _ = witness.handle(Event::Extended(log.extension(5, 9)), 1);
    assert_eq!(hear(&mut witness, &log, 12, 2), [fetch(5, 12)]);
    assert_eq!(
        witness.handle(Event::Extended(log.extension(5, 12)), 3),
        accepted(&log, 12)
    );
    assert_eq!(witness.handle(Event::Tick, 5000), [fetch(9, 12)]);
    let effects = witness.handle(Event::Extended(log.extension(9, 12)), 5001);
    assert!(matches!(
        lies(&effects)[..],
        [Lie::NotAnExtension {
            old_size: 9,
            new_size: 12,
            ..
        }]
    ));
}

#[test]
fn memory_is_bounded_and_newer_ones_go_before_older_ones() {
    let log = honest();
    let mut witness = watching(&log, 5);
    let mut asked = vec![];
    for size in (6..=SIZE).rev().chain(6..=SIZE) {
        asked.extend(hear(&mut witness, &log, size, 0));
        assert!(witness.pending() <= WITNESS_PENDING_MAX);
    }
    let fetches: Vec<_> = asked
        .iter()
        .filter(|effect| matches!(effect, Effect::FetchExtension { .. }))
        .collect();
    assert_eq!(fetches, [&fetch(5, SIZE)], "one at a time");
    assert!(asked.contains(&Effect::Ignore(IgnoreReason::TooMany)));
    let effects = witness.handle(Event::Extended(log.extension(5, SIZE)), 0);
    assert_eq!(effects[..2], accepted(&log, SIZE));

    let mut witness = Witness::new(log.keys(), None);
    let large = TestLog::new(200);
    let _ = hear(&mut witness, &large, 1, 0);
    for size in 2..=200 {
        let _ = hear(&mut witness, &large, size, 0);
        let _ = witness.handle(Event::Extended(large.extension(size - 1, size)), 0);
    }
    assert_eq!(witness.recent.len(), WITNESS_RECENT_MAX);
    assert_eq!(witness.recent[0].size(), 200 - 63);
    assert!(!hear(&mut witness, &large, 200 - 64, 0).contains(&Effect::Ignore(IgnoreReason::Known)));
}

/// What could not be checked is not crowded out by what is merely new.
#[test]
fn suspicious_ones_stay() {
    let (log, fork) = (honest(), honest().with_changed(3));
    let mut witness = watching(&log, 5);
    let _ = hear(&mut witness, &fork, 6, 0);
    let _ = witness.handle(Event::FetchFailed { from: 5, to: 6 }, 0);
    for size in 7..=SIZE {
        let _ = hear(&mut witness, &log, size, 0);
    }
    assert_eq!(witness.pending(), WITNESS_PENDING_MAX);
    let effects = hear(&mut witness, &log, 6, 0);
    assert!(matches!(lies(&effects)[..], [Lie::TwoRoots { size: 6, .. }]));
}

#[test]
fn older_ones_are_not_asked_for_at_any_rate() {
    let log = honest();
    let mut witness = watching(&log, 20);
    assert_eq!(hear(&mut witness, &log, 7, 0), [fetch(7, 20)]);
    assert_eq!(hear(&mut witness, &log, 8, 0), []);
    let checked = witness.handle(Event::Extended(log.extension(7, 20)), 1);
    assert_eq!(checked, ignore(IgnoreReason::OlderAndConsistent));
    assert_eq!(witness.handle(Event::Tick, OLDER_CHECK_EVERY_MS - 1), []);
    // A newer one does not wait for that.
    assert_eq!(hear(&mut witness, &log, 22, 2), [fetch(20, 22)]);
    assert_eq!(
        witness.handle(Event::Extended(log.extension(20, 22)), 3),
        accepted(&log, 22)
    );
    assert_eq!(witness.handle(Event::Tick, OLDER_CHECK_EVERY_MS), [fetch(8, 22)]);
}

#[test]
fn a_clock_set_back_holds_nothing_up() {
    let log = honest();
    let day_ms = 86_400_000;
    let mut witness = watching(&log, 5);
    assert_eq!(hear(&mut witness, &log, 9, day_ms), [fetch(5, 9)]);
    let _ = witness.handle(Event::FetchFailed { from: 5, to: 9 }, day_ms);
    assert_eq!(
        witness.handle(Event::Tick, day_ms - 1),
        [],
        "a moment back is no reason to hurry"
    );
    assert_eq!(
        witness.handle(Event::Tick, day_ms - RETRY_FIRST_MS),
        [fetch(5, 9)]
    );
    assert_eq!(witness.handle(Event::Tick, day_ms - 2 * RETRY_FIRST_MS), []);
    // What was asked for at a time that was never right counts as lost.
    let told: Vec<_> = witness.handle(Event::Tick, 5);
    assert!(!told.contains(&fetch(5, 9)));
    assert!(
        witness
            .handle(Event::Tick, 5 + 2 * RETRY_FIRST_MS)
            .contains(&fetch(5, 9))
    );
}

#[test]
fn keys_can_be_handed_over() {
    let log = honest();
    let mut witness = watching(&log, 5);
    let by_second = TestLog { signer: 2, ..log };
    let refused = hear(&mut witness, &by_second, 9, 0);
    assert!(matches!(refused[..], [Effect::Ignore(IgnoreReason::NotOfLog(_))]));
    let account = |name| keypair(name).account();
    let agreed = KeyHandover {
        log: account(1),
        old: account(1),
        new: account(2),
        agreed_at_ms: 0,
    };
    let handover = SignedHandover {
        by_old: keypair(1).sign(agreed),
        by_new: keypair(2).sign(agreed),
    };
    assert_eq!(witness.follow(&handover), Ok(()));
    assert_eq!(hear(&mut witness, &by_second, 9, 1), [fetch(5, 9)]);
    witness.add_key(account(3));
    assert_eq!(witness.keys().newest(), &account(3));
}

#[test]
fn notes_and_evidence_of_others_are_ignored() {
    let (log, fork) = (honest(), honest().with_changed(3));
    let mut witness = watching(&log, 5);
    for other in [
        TestLog {
            signer: 9,
            ..log.clone()
        },
        TestLog {
            origin: "elsewhere".to_owned(),
            ..log.clone()
        },
    ] {
        let effects = hear(&mut witness, &other, 9, 0);
        assert!(matches!(effects[..], [Effect::Ignore(IgnoreReason::NotOfLog(_))]));
    }
    let evidence = |fork: &TestLog| Evidence::two_roots(&log.keys(), &log.checkpoint(9), &fork.checkpoint(9));
    let effects = witness.handle(Event::HeardEvidence(evidence(&log)), 0);
    assert!(matches!(
        effects[..],
        [Effect::Ignore(IgnoreReason::NoEvidence(_))]
    ));
    let of_other = evidence(&TestLog {
        signer: 9,
        ..fork.clone()
    });
    let effects = witness.handle(Event::HeardEvidence(of_other), 0);
    assert!(matches!(
        effects[..],
        [Effect::Ignore(IgnoreReason::NoEvidence(_))]
    ));
    assert_eq!(witness.caught(), None);
    let effects = witness.handle(Event::HeardEvidence(evidence(&fork)), 0);
    assert_eq!(lies(&effects).len(), 1);
    let again = witness.handle(Event::HeardEvidence(evidence(&fork)), 0);
    assert_eq!(again, ignore(IgnoreReason::CaughtBefore));
}
