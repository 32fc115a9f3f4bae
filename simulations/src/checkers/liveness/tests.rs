use super::*;

const SECOND_US: u64 = 1_000_000;
const CONSUMER: NodeId = 9;
const PROVIDER: NodeId = 4;

/// A job that is asked at a second and fails so many seconds later.
fn failed(asked_s: u64, took_s: u64) -> FailedJob {
    FailedJob {
        model: ModelSize::Small,
        asked_us: asked_s * SECOND_US,
        ended_us: (asked_s + took_s) * SECOND_US,
        input_tokens: 100,
        output_tokens: 100,
        cost_max: 100,
        held_by: None,
    }
}

/// When the rule is broken, in seconds, where it looks every second for five minutes and one provider is there when
/// `is_there` says so.
fn broken_at(jobs: &[FailedJob], unable_s: u64, is_there: impl Fn(u64) -> bool) -> Option<u64> {
    let mut liveness = Liveness::default();
    (1..=300).find(|second| {
        let now_us = second * SECOND_US;
        let ended = jobs.iter().copied().filter(|job| job.ended_us <= now_us);
        let witness = is_there(*second).then(|| Witness {
            provider: PROVIDER,
            unable_us: unable_s * SECOND_US,
            could_serve: ended.collect(),
        });
        let view = ConsumerView {
            node: CONSUMER,
            witnesses: witness.into_iter().collect(),
            broken: Vec::new(),
        };
        let looked = liveness.survey(now_us, [view]);
        looked.is_err_and(|breach| breach.rule == RULE && breach.node == CONSUMER)
    })
}

#[test]
fn not_one_job_after_the_other_fails_while_somebody_could_serve_them() {
    let jobs = [failed(10, 5), failed(20, 5), failed(30, 5)];
    assert_eq!(broken_at(&jobs, 0, |_| true), Some(35));
    assert_eq!(broken_at(&jobs[1..], 0, |_| true), None, "two say nothing");
    assert_eq!(
        broken_at(&jobs, 11, |_| true),
        None,
        "it was full at the first one"
    );
    assert_eq!(broken_at(&jobs, 0, |second| second != 22), None, "it was away");
    assert_eq!(broken_at(&jobs, 0, |second| second > 12), None, "it came later");
    assert_eq!(broken_at(&jobs, 0, |_| false), None);
    let at_once = [failed(10, 5), failed(11, 5), failed(12, 5), failed(13, 5)];
    assert_eq!(
        broken_at(&at_once, 0, |_| true),
        None,
        "one cause may have been that of all"
    );
}

#[test]
fn a_provider_that_is_there_does_not_fail_one_job_after_the_other() {
    let mut history = History::default();
    let mut broken = |times: u64| {
        history = History::default();
        for time in 0..times {
            history.broke(PROVIDER, time * 10 * SECOND_US, (time * 10 + 5) * SECOND_US);
            // Beside another one: one cause may have been that of both.
            history.broke(PROVIDER, time * 10 * SECOND_US, (time * 10 + 6) * SECOND_US);
        }
        let view = ConsumerView {
            node: CONSUMER,
            witnesses: Vec::new(),
            broken: history.broken().collect(),
        };
        Liveness::default().survey(100 * SECOND_US, [view])
    };
    assert_eq!(broken(4), Ok(()));
    assert!(broken(5).unwrap_err().message.contains("5 jobs failed"));
    history.delivered(PROVIDER);
    assert_eq!(history.broken().count(), 0);
}

#[test]
fn a_program_is_told_and_a_slot_is_freed_in_time() {
    let told = |now_s: u64| is_told(ModelSize::Small, 0, 120 * SECOND_US, CONSUMER, now_s * SECOND_US);
    assert_eq!((told(125), told(126).is_err()), (Ok(()), true));
    let freed = |now_s: u64| frees_slot(0, PROVIDER, now_s * SECOND_US);
    // 30 s for the body, 900 s for the engine, 30 s for a voucher, 10 s for the last one; and 5 s.
    assert_eq!((freed(975), freed(976).is_err()), (Ok(()), true));
    let goes_on = |now_s: u64| goes_on(0, PROVIDER, now_s * SECOND_US);
    assert_eq!((goes_on(5), goes_on(6).is_err()), (Ok(()), true));
}

#[test]
fn the_bounds_are_the_policys() {
    assert_eq!(retry_waits_us(), 8_750_000);
    assert_eq!(wasted_max(3), 11);
    let mut history = History::default();
    let until_s = |history: &History| history.shunned_until_us(PROVIDER) / SECOND_US;
    assert_eq!(until_s(&history), 0);
    history.broke(PROVIDER, 0, 10 * SECOND_US);
    assert_eq!(until_s(&history), 10 + 180);
    // Eight failures are one half of one after four half-lives and less.
    (0..7).for_each(|_| history.broke(PROVIDER, 0, 10 * SECOND_US));
    assert_eq!(until_s(&history), 10 + 300);
    history.lied(PROVIDER, 20 * SECOND_US);
    assert_eq!(until_s(&history), 20 + 720);
    history.unserved(failed(10, 5));
    history.served(ModelSize::Large);
    assert_eq!(history.failed().count(), 1);
    history.served(ModelSize::Small);
    assert_eq!(history.failed().count(), 0);
}
