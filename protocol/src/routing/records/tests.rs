//! Tests of what is remembered of providers.

use super::*;
use crate::routing::breaker::OPEN_AFTER_LIE_MS;
use proptest::prelude::*;

const PROVIDER: AccountId = AccountId::from_public_key([1; 32]);

fn after(events: &[RecordEvent]) -> ProviderRecords {
    let mut records = ProviderRecords::default();
    for event in events {
        records.note(PROVIDER, *event, 1_000);
    }
    records
}

fn standing(events: &[RecordEvent]) -> Standing {
    after(events).standing(&PROVIDER, 1_000)
}

const DELIVERED: RecordEvent = RecordEvent::Delivered {
    output_tokens: 100,
    output_ms: 2_000.0,
};

#[test]
fn a_failure_is_forgiven_in_a_minute() {
    let failing = |records: &ProviderRecords, now_ms| records.standing(&PROVIDER, now_ms).is_failing;
    let failed = after(&[RecordEvent::Failed]);
    assert!(failing(&failed, 1_000) && failing(&failed, 60_000));
    assert!(!failing(&failed, 61_001));
    let often = after(&[RecordEvent::Failed; 1_000]);
    assert!(failing(&often, 300_000));
    assert!(!failing(&often, 600_000), "even then some day");
}

#[test]
fn forgiveness_is_straight_between_halvings() {
    let failed = after(&[RecordEvent::Failed; 4]);
    for (age_ms, left) in [
        (0, 4.0),
        (30_000, 3.0),
        (60_000, 2.0),
        (90_000, 1.5),
        (120_000, 1.0),
    ] {
        assert_eq!(
            failed.standing(&PROVIDER, 1_000 + age_ms).failures,
            left,
            "{age_ms}"
        );
    }
    assert_eq!(failed.standing(&PROVIDER, u64::MAX).failures, 0.0);
}

#[test]
fn five_failures_in_a_row_and_a_single_lie_open_the_breaker() {
    let four = [RecordEvent::Failed; 4];
    assert!(standing(&four).is_admitted);
    let five = after(&[RecordEvent::Failed; 5]);
    assert!(!five.standing(&PROVIDER, 60_999).is_admitted);
    assert!(five.standing(&PROVIDER, 61_000).is_admitted);
    let interrupted = [&four[..], &[DELIVERED], &four[..]].concat();
    assert!(standing(&interrupted).is_admitted);
    let lied = after(&[RecordEvent::Misbehaved, DELIVERED]);
    assert_eq!(
        lied.standing(&PROVIDER, 2_000).breaker_wait_ms,
        OPEN_AFTER_LIE_MS - 1_000
    );
}

#[test]
fn a_probe_that_its_program_gave_up_makes_room_for_another() {
    let mut records = after(&[RecordEvent::Failed; 5]);
    records.note(PROVIDER, RecordEvent::JobBegan, 70_000);
    assert!(!records.standing(&PROVIDER, 70_000).is_admitted);
    records.note(PROVIDER, RecordEvent::JobEnded, 71_000);
    assert!(records.standing(&PROVIDER, 71_000).is_admitted);
}

#[test]
fn times_follow_the_measurements() {
    assert_eq!(standing(&[]).expected_first_output_ms(), FIRST_OUTPUT_UNKNOWN_MS);
    let first = RecordEvent::FirstOutput { latency_ms: 100.0 };
    let second = RecordEvent::FirstOutput { latency_ms: 200.0 };
    let once = standing(&[first]);
    assert_eq!(
        (once.first_output_ms, once.first_output_late_after_ms),
        (Some(100.0), Some(300.0))
    );
    assert!((standing(&[first, second]).first_output_ms.unwrap() - 130.0).abs() < 1e-9);
    // Who is always as fast is late soon.
    let steady = standing(&[first; 50]);
    assert!(steady.first_output_late_after_ms.unwrap() < 101.0);
}

#[test]
fn who_was_late_is_expected_later_and_a_short_wait_says_nothing() {
    let late = RecordEvent::WasLate { waited_ms: 4_000.0 };
    assert_eq!(standing(&[late]).first_output_ms, Some(4_000.0));
    let usual = RecordEvent::FirstOutput { latency_ms: 100.0 };
    assert!(standing(&[usual, late]).first_output_ms.unwrap() > 1_000.0);
    let short = RecordEvent::WasLate { waited_ms: 50.0 };
    assert_eq!(standing(&[usual, short]).first_output_ms, Some(100.0));
    assert!(!standing(&[late]).is_failing, "late is not failed");
}

#[test]
fn about_five_of_a_hundred_are_late() {
    // A skewed distribution as waits have: mostly near 200 ms, a tail up to 800 ms.
    let mut late = 0;
    let mut records = ProviderRecords::default();
    let mut state = 7u64;
    for round in 0..4_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let uniform = (state >> 33) as f64 / (1u64 << 31) as f64;
        let latency_ms = 150.0 + 100.0 * uniform + 550.0 * uniform.powi(12);
        let known = records.standing(&PROVIDER, 0).first_output_late_after_ms;
        late += usize::from(round >= 100 && known.is_some_and(|known| latency_ms > known));
        records.note(PROVIDER, RecordEvent::FirstOutput { latency_ms }, 0);
    }
    assert!((40..400).contains(&late), "{late} of 3,900");
}

#[test]
fn speed_is_tokens_per_second_and_short_answers_say_nothing() {
    assert_eq!(standing(&[DELIVERED]).tokens_per_second, Some(50.0));
    let short = RecordEvent::Delivered {
        output_tokens: 7,
        output_ms: 1.0,
    };
    assert_eq!(standing(&[DELIVERED, short]).tokens_per_second, Some(50.0));
    assert_eq!(standing(&[short]).tokens_per_second, None);
    assert_eq!(standing(&[short]).totals.delivered, 1);
}

#[test]
fn busy_ends_with_its_time_and_is_never_long() {
    let busy = |retry_after_ms, now_ms| {
        after(&[RecordEvent::Busy { retry_after_ms }])
            .standing(&PROVIDER, now_ms)
            .is_busy
    };
    assert!(busy(500, 1_499) && !busy(500, 1_500));
    assert!(!busy(u64::MAX, 1_000 + BUSY_MAX_MS));
}

#[test]
fn memory_is_bounded_and_running_jobs_are_kept() {
    let mut records = after(&[RecordEvent::JobBegan]);
    for index in 0..=PROVIDERS_MAX {
        let mut key = [9; 32];
        key[..8].copy_from_slice(&index.to_le_bytes());
        records.note(
            AccountId::from_public_key(key),
            RecordEvent::Failed,
            2_000 + index as u64,
        );
    }
    assert_eq!(records.standings(0).count(), PROVIDERS_MAX);
    assert_eq!(records.standing(&PROVIDER, 0).jobs, 1);
}

fn event() -> impl Strategy<Value = RecordEvent> {
    prop_oneof![
        Just(RecordEvent::JobBegan),
        Just(RecordEvent::JobEnded),
        any::<f64>().prop_map(|latency_ms| RecordEvent::FirstOutput { latency_ms }),
        any::<f64>().prop_map(|waited_ms| RecordEvent::WasLate { waited_ms }),
        any::<(u64, f64)>().prop_map(|(output_tokens, output_ms)| RecordEvent::Delivered {
            output_tokens,
            output_ms
        }),
        Just(RecordEvent::Failed),
        Just(RecordEvent::Misbehaved),
        any::<u64>().prop_map(|retry_after_ms| RecordEvent::Busy { retry_after_ms }),
    ]
}

proptest! {
    /// Whatever happened, and however clocks jump, numbers stay numbers and everybody is forgiven in the end.
    #[test]
    fn records_stay_sane(events in proptest::collection::vec((event(), 0u64..1 << 40), 0..50)) {
        let mut records = ProviderRecords::default();
        for (event, now_ms) in events {
            records.note(PROVIDER, event, now_ms);
            let standing = records.standing(&PROVIDER, now_ms);
            for number in [
                standing.expected_first_output_ms(),
                standing.first_output_late_after_ms.unwrap_or_default(),
                standing.expected_tokens_per_second(),
                standing.failures,
            ] {
                prop_assert!(number.is_finite() && number >= 0.0, "{standing:?}");
            }
            prop_assert!(standing.breaker_wait_ms <= OPEN_AFTER_LIE_MS);
        }
        let standing = records.standing(&PROVIDER, 1 << 41);
        prop_assert!(!standing.is_failing && !standing.is_busy && standing.is_admitted);
    }

    /// What is written down and read back is the same to the bit, and stays so whatever happens next.
    #[test]
    fn records_are_read_back_as_they_were(
        events in proptest::collection::vec((0u8..3, event(), 0u64..1 << 40), 0..50),
        written_after in 0usize..50,
    ) {
        let provider = |number| AccountId::from_public_key([number; 32]);
        let parts = [[7u8; 1_024].as_slice(), &[8; 64]];
        let (mut kept, mut restored) = (ProviderRecords::default(), ProviderRecords::default());
        for (index, (number, event, now_ms)) in events.into_iter().enumerate() {
            if index == written_after {
                let text = serde_json::to_string(&kept).unwrap();
                restored = serde_json::from_str(&text).unwrap();
                let configuration = bincode::config::standard();
                let bytes = bincode::serde::encode_to_vec(&restored, configuration).unwrap();
                (restored, _) = bincode::serde::decode_from_slice(&bytes, configuration).unwrap();
            }
            for records in [&mut kept, &mut restored] {
                if index < written_after || index % 3 == 0 {
                    let prefix = PrefixDigests::of("guide", parts[..1 + usize::from(number % 2)].iter().copied());
                    records.remember_prefix(&prefix, provider(number), now_ms);
                }
                if event == RecordEvent::JobEnded && records.may_hedge() {
                    records.hedge_began();
                }
                records.note(provider(number), event, now_ms);
            }
            prop_assert_eq!(&kept, &restored);
        }
    }
}
