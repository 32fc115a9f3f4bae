//! Tests of what is remembered of answers.

use super::*;
use proptest::prelude::*;

const SMALL: Limits = Limits {
    keys: 4,
    bytes: 20,
    answer_bytes: 8,
    kept_ms: 100,
};

fn key(name: u8) -> IdempotencyKey {
    IdempotencyKey::parse(&[b'a' + name], None).unwrap()
}

fn digest(body: u8) -> RequestDigest {
    RequestDigest::of("POST", "/v1/embeddings", &BTreeMap::new(), &[body])
}

fn head() -> AnswerHead {
    AnswerHead {
        status: 200,
        content_type: "application/json".into(),
        request_id: RequestId::from_random([7; 16]),
    }
}

fn replay(body: &[u8]) -> Begun {
    Begun::Replay(RememberedAnswer {
        head: head(),
        body: Bytes::copy_from_slice(body),
    })
}

fn answered(answers: &mut RememberedAnswers, name: u8, body: &[u8], now_ms: u64) {
    assert_eq!(answers.begin(key(name), digest(0), now_ms), Begun::Begin);
    answers.record(&key(name), body);
    answers.finish(&key(name), head(), now_ms);
}

#[test]
fn keys_are_visible_ascii_and_belong_to_a_program() {
    for value in ["a", "\"8e03978e-40d5\"", &"x".repeat(255)] {
        assert!(IdempotencyKey::parse(value.as_bytes(), None).is_some(), "{value}");
    }
    for value in ["", "a b", "a\t", "é", "\u{7f}", &"x".repeat(256)] {
        assert!(IdempotencyKey::parse(value.as_bytes(), None).is_none(), "{value}");
    }
    let of = |program| IdempotencyKey::parse(b"a", program);
    assert_eq!(of(Some(b"one")), of(Some(b"one")));
    assert_ne!(of(Some(b"one")), of(Some(b"two")));
    assert_ne!(of(Some(b"one")), of(None));
}

#[test]
fn requests_differ_by_method_path_body_and_where_they_may_go() {
    let of = |method, path, overrides: &[(&'static str, &'static [u8])], body: &[u8]| {
        RequestDigest::of(method, path, &overrides.iter().copied().collect(), body)
    };
    let requests = [
        of("POST", "/a", &[], b"b"),
        of("GET", "/a", &[], b"b"),
        of("POST", "/ab", &[], b""),
        of("POST", "/a", &[], b"c"),
        of("POST", "/a", &[("x-gristmill-region", b"CH")], b"b"),
        of("POST", "/a", &[("x-gristmill-region", b"DE")], b"b"),
        of("POST", "/a", &[("x-gristmill-regio", b"nCH")], b"b"),
        of("POST", "/a", &[("x-gristmill-region", b"")], b"CHb"),
    ];
    for (index, one) in requests.iter().enumerate() {
        assert!(requests[index + 1..].iter().all(|other| other != one), "{index}");
    }
}

#[test]
fn a_request_runs_once_and_is_answered_again() {
    let mut answers = RememberedAnswers::new(SMALL);
    assert_eq!(answers.begin(key(0), digest(0), 0), Begun::Begin);
    assert_eq!(answers.begin(key(0), digest(0), 0), Begun::StillRunning);
    assert_eq!(answers.begin(key(0), digest(1), 0), Begun::OtherBody);
    assert_eq!(answers.begin(key(1), digest(0), 0), Begun::Begin);
    answers.record(&key(0), b"ab");
    answers.record(&key(0), b"c");
    answers.finish(&key(0), head(), 50);
    assert_eq!(answers.begin(key(0), digest(0), 149), replay(b"abc"));
    assert_eq!(answers.begin(key(0), digest(1), 149), Begun::OtherBody);
    answers.free(&key(0));
    assert_eq!(
        answers.begin(key(0), digest(0), 149),
        replay(b"abc"),
        "the end is the end"
    );
    assert_eq!(
        answers.begin(key(0), digest(1), 150),
        Begun::Begin,
        "it is forgotten"
    );
    assert_eq!(answers.begin(key(1), digest(0), 999), Begun::StillRunning);
}

#[test]
fn a_failure_frees_the_key() {
    let mut answers = RememberedAnswers::new(SMALL);
    assert_eq!(answers.begin(key(0), digest(0), 0), Begun::Begin);
    answers.record(&key(0), b"ab");
    answers.free(&key(0));
    assert_eq!(
        answers.begin(key(0), digest(1), 0),
        Begun::Begin,
        "whatever its body is"
    );
    answers.finish(&key(0), head(), 0);
    assert_eq!(answers.begin(key(0), digest(1), 0), replay(b""));
}

#[test]
fn a_large_answer_leaves_its_key_used() {
    let mut answers = RememberedAnswers::new(SMALL);
    answered(&mut answers, 0, b"12345678", 0);
    assert_eq!(answers.begin(key(0), digest(0), 0), replay(b"12345678"));
    answered(&mut answers, 1, b"123456789", 0);
    assert_eq!(answers.begin(key(1), digest(0), 0), Begun::AnswerForgotten);
    assert_eq!(answers.begin(key(1), digest(1), 0), Begun::OtherBody);
    assert_eq!(answers.begin(key(1), digest(0), 100), Begun::Begin);
}

#[test]
fn the_oldest_finished_go_first_and_the_running_stay() {
    let mut answers = RememberedAnswers::new(SMALL);
    assert_eq!(answers.begin(key(9), digest(0), 0), Begun::Begin);
    answers.record(&key(9), b"1234");
    answered(&mut answers, 0, b"12345678", 1);
    answered(&mut answers, 1, b"12345678", 2);
    answered(&mut answers, 2, b"1", 3);
    assert_eq!(answers.begin(key(1), digest(0), 3), replay(b"12345678"));
    assert_eq!(
        answers.begin(key(0), digest(0), 3),
        Begun::Begin,
        "its bytes were needed"
    );
    assert_eq!(answers.begin(key(3), digest(0), 3), Begun::Begin, "and a place");
    assert_eq!(answers.begin(key(1), digest(0), 3), Begun::Begin);
    assert_eq!(answers.begin(key(4), digest(0), 3), Begun::Full);
    assert_eq!(answers.begin(key(9), digest(0), 3), Begun::StillRunning);
}

#[derive(Clone, Debug)]
enum Step {
    Begin(u8, u8),
    Record(u8, usize),
    Finish(u8),
    Free(u8),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..8, 0u8..2).prop_map(|(name, body)| Step::Begin(name, body)),
        4 => (0u8..8, 0usize..7).prop_map(|(name, length)| Step::Record(name, length)),
        3 => (0u8..8).prop_map(Step::Finish),
        1 => (0u8..8).prop_map(Step::Free),
        1 => (0u64..60).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..120)
}

/// What a key's last request came to, without any bounds.
#[derive(Default)]
struct Truth {
    body: u8,
    said: Vec<u8>,
    finished_at_ms: Option<u64>,
}

proptest! {
    /// Whatever comes, the bounds hold, nothing runs twice at a time, and what is given again is what was said.
    #[test]
    fn memory_is_bounded_and_true(steps in steps()) {
        let mut answers = RememberedAnswers::new(SMALL);
        let mut truths: HashMap<u8, Truth> = HashMap::new();
        let (mut now_ms, mut byte) = (0, 0u8);
        for step in steps {
            match step {
                Step::Begin(name, body) => {
                    let begun = answers.begin(key(name), digest(body), now_ms);
                    let truth = truths.get(&name);
                    let is_running = truth.is_some_and(|truth| truth.finished_at_ms.is_none());
                    match begun {
                        Begun::Begin => {
                            prop_assert!(!is_running);
                            truths.insert(name, Truth { body, ..Truth::default() });
                        }
                        Begun::StillRunning => prop_assert!(is_running && truth.unwrap().body == body),
                        Begun::OtherBody => prop_assert!(truth.unwrap().body != body),
                        Begun::Replay(answer) => {
                            let truth = truth.unwrap();
                            prop_assert!(truth.body == body && answer.body == truth.said);
                            prop_assert!(now_ms - truth.finished_at_ms.unwrap() < SMALL.kept_ms);
                        }
                        Begun::AnswerForgotten => prop_assert!(truth.unwrap().finished_at_ms.is_some()),
                        Begun::Full => {
                            let running = truths.values().filter(|truth| truth.finished_at_ms.is_none());
                            prop_assert_eq!(running.count(), SMALL.keys);
                        }
                    }
                }
                Step::Record(name, length) => {
                    byte = byte.wrapping_add(1);
                    let piece = vec![byte; length];
                    answers.record(&key(name), &piece);
                    if let Some(truth) = truths.get_mut(&name).filter(|truth| truth.finished_at_ms.is_none()) {
                        truth.said.extend(piece);
                    }
                }
                Step::Finish(name) => {
                    answers.finish(&key(name), head(), now_ms);
                    if let Some(truth) = truths.get_mut(&name) {
                        truth.finished_at_ms.get_or_insert(now_ms);
                    }
                }
                Step::Free(name) => {
                    answers.free(&key(name));
                    if truths.get(&name).is_some_and(|truth| truth.finished_at_ms.is_none()) {
                        truths.remove(&name);
                    }
                }
                Step::Wait(milliseconds) => now_ms += milliseconds,
            }
            let held: Vec<usize> = answers.entries.values().map(Entry::bytes).collect();
            prop_assert!(held.len() <= SMALL.keys && held.iter().all(|bytes| *bytes <= SMALL.answer_bytes));
            let sum: usize = held.iter().sum();
            prop_assert!(sum == answers.bytes && sum <= SMALL.bytes);
            let running = truths.values().filter(|truth| truth.finished_at_ms.is_none()).count();
            prop_assert_eq!(answers.finished.len() + running, answers.entries.len());
        }
    }
}
