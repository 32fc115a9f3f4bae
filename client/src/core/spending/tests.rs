use super::*;
use crate::core::keys::KeyDigest;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn key() -> KeyId {
    KeyDigest::of(b"a").id()
}

fn micro(amount: u32) -> Credits {
    Credits::micro(amount)
}

fn cap(amount: u32, per: Period) -> Option<SpendCap> {
    Some(SpendCap {
        amount: micro(amount),
        per,
    })
}

#[test]
fn what_is_reserved_is_exchanged_for_what_it_cost() {
    let mut spending = Spending::default();
    let cap = cap(100, Period::Day);
    let first = spending.reserve(Some(key()), cap, micro(80), 0).unwrap();
    let reached = spending.reserve(Some(key()), cap, micro(30), 0).unwrap_err();
    assert!(reached.is_held_by_others && reached.left == micro(100));
    let failure = reached.to_failure();
    assert_eq!(
        (failure.status, failure.code.as_ref(), failure.retry_after_seconds),
        (503, "budget_exhausted", Some(1))
    );
    let _ = spending.settle(first, micro(75), 0);
    let reached = spending.reserve(Some(key()), cap, micro(30), 0).unwrap_err();
    assert!(!reached.is_held_by_others && reached.left == micro(25));
    let failure = reached.to_failure();
    assert_eq!(
        (failure.status, failure.code.as_ref()),
        (402, "insufficient_credits")
    );
    assert!(
        failure.message.contains("0.000025 are left") && failure.message.contains("1970-01-02"),
        "{failure}"
    );
    let last = spending.reserve(Some(key()), cap, micro(25), 0).unwrap();
    let _ = spending.settle(last, micro(25), 0);
    assert_eq!(spending.left(Some((key(), cap.unwrap())), 0), Some(micro(0)));
}

#[test]
fn caps_come_anew_with_their_period_and_not_with_a_clock_that_is_set_back() {
    for (per, anew_ms) in [
        (Period::Day, Some(DAY_MS)),
        (Period::Month, Some(31 * DAY_MS)),
        (Period::Ever, None),
    ] {
        let mut spending = Spending::default();
        let cap = cap(10, per);
        let all = spending.reserve(Some(key()), cap, micro(10), 5).unwrap();
        let _ = spending.settle(all, micro(10), 5);
        let reached = spending.reserve(Some(key()), cap, micro(1), 5).unwrap_err();
        assert_eq!(reached.resets_at_ms, anew_ms);
        let last_ms = anew_ms.unwrap_or(900 * DAY_MS);
        assert!(
            spending.reserve(Some(key()), cap, micro(1), last_ms - 1).is_err(),
            "{per}"
        );
        assert_eq!(
            spending.reserve(Some(key()), cap, micro(1), last_ms).is_ok(),
            anew_ms.is_some(),
            "{per}"
        );
    }
    let mut spending = Spending::default();
    let cap = cap(10, Period::Day);
    let all = spending.reserve(Some(key()), cap, micro(10), DAY_MS).unwrap();
    let _ = spending.settle(all, micro(10), DAY_MS);
    assert!(spending.reserve(Some(key()), cap, micro(1), 0).is_err());
}

#[test]
fn what_was_spent_before_a_start_counts_in_its_period() {
    let mut spending = Spending::default();
    for (cost, at_ms) in [
        (1, 0),
        (2, 5 * DAY_MS),
        (4, 40 * DAY_MS),
        (8, 41 * DAY_MS),
        (16, 5 * DAY_MS),
    ] {
        spending.recall(Some(key()), micro(cost), at_ms);
    }
    let spent = spending.of_key(key(), 41 * DAY_MS);
    let within = [Period::Day, Period::Month, Period::Ever].map(|period| spent.within(period).microcredits());
    assert_eq!(within, [8, 12, 31]);
    assert_eq!(spending.of_all(42 * DAY_MS).within(Period::Day), micro(0));
}

#[test]
fn all_programs_together_have_an_alarm_and_an_end() {
    let mut spending = Spending::new(DayBudget {
        alarm: Some(micro(5)),
        stop: Some(micro(10)),
    });
    for (cost, alarm) in [(4, None), (2, Some(micro(6))), (1, None)] {
        let reserved = spending.reserve(None, None, micro(cost), 0).unwrap();
        assert_eq!(spending.settle(reserved, micro(cost), 0), alarm);
    }
    assert_eq!(spending.alarming(0), Some(micro(7)));
    let reached = spending.reserve(Some(key()), None, micro(4), 0).unwrap_err();
    assert!(reached.whose == Whose::All && reached.to_failure().message.contains("budget_stop"));
    assert_eq!(spending.left(None, 0), Some(micro(3)));
    assert!(spending.unspent(None, 0) >= spending.left(None, 0));
    assert_eq!(spending.alarming(DAY_MS), None);
    assert!(spending.reserve(Some(key()), None, micro(4), DAY_MS).is_ok());
}

#[test]
fn a_hundred_requests_at_once_never_pass_the_cap() {
    let spending = Arc::new(Mutex::new(Spending::default()));
    let cap = cap(1_000, Period::Ever);
    let threads: Vec<_> = (0..100u32)
        .map(|index| {
            let spending = spending.clone();
            std::thread::spawn(move || {
                let reserved = spending.lock().unwrap().reserve(Some(key()), cap, micro(70), 0);
                std::thread::yield_now();
                let Ok(reserved) = reserved else { return 0 };
                let cost = 30 + index % 41;
                let _ = spending.lock().unwrap().settle(reserved, micro(cost), 0);
                u64::from(cost)
            })
        })
        .collect();
    let total: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let spent = spending.lock().unwrap().of_key(key(), 0);
    assert!(total <= 1_000 && spent.within(Period::Ever).microcredits() == total);
    assert!(spent.reserved().is_zero());
}

#[derive(Clone, Debug)]
enum Step {
    Reserve { key: u8, amount: u32 },
    Settle { which: usize, share: u32 },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..3, 0u32..60).prop_map(|(key, amount)| Step::Reserve { key, amount }),
        (any::<usize>(), 0u32..=100).prop_map(|(which, share)| Step::Settle { which, share }),
        (0u64..DAY_MS / 2).prop_map(Step::Wait),
    ]
}

proptest! {
    /// However requests begin and end, no key spends more than its cap in any period, nor all more than the stop
    /// in any day, and nothing stays held in the end.
    #[test]
    fn no_interleaving_passes_a_cap(
        steps in proptest::collection::vec(step(), 1..200),
        amount in 1u32..200,
        stop in proptest::option::of(1u32..200),
        per in prop_oneof![Just(Period::Day), Just(Period::Month), Just(Period::Ever)],
    ) {
        let mut spending = Spending::new(DayBudget { alarm: None, stop: stop.map(micro) });
        let cap = cap(amount, per);
        let keys = [0u8, 1, 2].map(|key| KeyDigest::of(&[key]).id());
        // By key: what it spent in each period, by an own reckoning.
        let mut model: BTreeMap<(u8, u64), u64> = BTreeMap::new();
        let mut days: BTreeMap<u64, u64> = BTreeMap::new();
        let period = |now_ms: u64| match per {
            Period::Day => now_ms / DAY_MS,
            Period::Month => Day::of(now_ms).month().end_ms(),
            Period::Ever => 0,
        };
        let (mut held, mut now_ms) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Reserve { key, amount } => {
                    if let Ok(reserved) = spending.reserve(Some(keys[usize::from(key)]), cap, micro(amount), now_ms) {
                        held.push((key, reserved));
                    }
                }
                Step::Settle { which, share } if !held.is_empty() => {
                    let (key, reserved) = held.swap_remove(which % held.len());
                    let cost = reserved.amount().microcredits() * u64::from(share) / 100;
                    *model.entry((key, period(now_ms))).or_default() += cost;
                    *days.entry(now_ms / DAY_MS).or_default() += cost;
                    let _ = spending.settle(reserved, Credits::from_microcredits(cost).unwrap(), now_ms);
                }
                Step::Settle { .. } => {}
                Step::Wait(ms) => now_ms += ms,
            }
        }
        for spent in model.values() {
            prop_assert!(*spent <= u64::from(amount), "{} of {}", spent, amount);
        }
        if let Some(stop) = stop {
            prop_assert!(days.values().all(|spent| *spent <= u64::from(stop)));
        }
        for (_, reserved) in held {
            let _ = spending.settle(reserved, Credits::ZERO, now_ms);
        }
        prop_assert!(spending.of_all(now_ms).reserved().is_zero());
    }
}
