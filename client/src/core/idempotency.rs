//! Answers to requests that carry an idempotency key: a repetition gets the first answer again and pays nothing.
//!
//! A key is running, then finished, then forgotten; a failure frees it at once. Keys and requests are kept as digests.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use gristmill_protocol::job::RequestId;

/// Longest key.
const KEY_MAX_BYTES: usize = 255;

/// What is remembered at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Keys, running and finished.
    pub keys: usize,
    /// Bytes of all answers, also of those that are being recorded.
    pub bytes: usize,
    /// Bytes of one answer.
    pub answer_bytes: usize,
    /// How long after its end a request is remembered, in milliseconds.
    pub kept_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keys: 1_024,
            bytes: 64 << 20,
            answer_bytes: 4 << 20,
            kept_ms: 10 * 60 * 1_000,
        }
    }
}

/// The digest of a key and of the program whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(blake3::Hash);

impl IdempotencyKey {
    /// Reads a header's value: 1 to 255 visible ASCII characters. `program` is the API key that tells programs apart.
    #[must_use]
    pub fn parse(value: &[u8], program: Option<&[u8]>) -> Option<Self> {
        let fits = (1..=KEY_MAX_BYTES).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        let of_program = |program: &[u8]| *blake3::hash(program).as_bytes();
        let scope = program.map_or([0; 32], of_program);
        let digest = || blake3::Hasher::new().update(&scope).update(value).finalize();
        fits.then(|| Self(digest()))
    }
}

/// The digest of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDigest(blake3::Hash);

impl RequestDigest {
    /// Of a method, a path and a body. Neither methods nor paths have blanks (RFC 9112 section 3).
    #[must_use]
    pub fn of(method: &str, path: &str, body: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [method.as_bytes(), b" ", path.as_bytes(), b" ", body] {
            hasher.update(part);
        }
        Self(hasher.finalize())
    }
}

/// What stands above a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: Cow<'static, str>,
    /// The request that was answered.
    pub request_id: RequestId,
}

/// An answer that can be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedAnswer {
    /// What stood above it.
    pub head: AnswerHead,
    /// All its bytes.
    pub body: Bytes,
}

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Run it, and tell how it ended.
    Begin,
    /// The first one still runs.
    StillRunning,
    /// It was answered so.
    Replay(RememberedAnswer),
    /// It was answered, and the answer was too large to remember.
    AnswerForgotten,
    /// The key belongs to another request.
    OtherBody,
    /// More requests with keys run than can be remembered.
    Full,
}

#[derive(Debug)]
enum Progress {
    /// What was delivered so far, unless it became too large.
    Running(Option<Vec<u8>>),
    Finished {
        at_ms: u64,
        answer: Option<RememberedAnswer>,
    },
}

#[derive(Debug)]
struct Entry {
    digest: RequestDigest,
    progress: Progress,
}

impl Entry {
    fn bytes(&self) -> usize {
        match &self.progress {
            Progress::Running(recorded) => recorded.as_ref().map_or(0, Vec::len),
            Progress::Finished { answer, .. } => answer.as_ref().map_or(0, |answer| answer.body.len()),
        }
    }
}

/// Requests with keys, and their answers. Times are milliseconds of one clock that never goes back.
#[derive(Debug)]
pub struct RememberedAnswers {
    limits: Limits,
    entries: HashMap<IdempotencyKey, Entry>,
    /// Those that are finished, oldest first.
    finished: VecDeque<IdempotencyKey>,
    bytes: usize,
}

impl RememberedAnswers {
    /// Nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            finished: VecDeque::new(),
            bytes: 0,
        }
    }

    /// A request came. After [`Begun::Begin`] the key runs until [`Self::finish`] or [`Self::free`].
    pub fn begin(&mut self, key: IdempotencyKey, digest: RequestDigest, now_ms: u64) -> Begun {
        self.forget_expired(now_ms);
        if let Some(entry) = self.entries.get(&key) {
            return match &entry.progress {
                _ if entry.digest != digest => Begun::OtherBody,
                Progress::Running(_) => Begun::StillRunning,
                Progress::Finished { answer, .. } => {
                    answer.clone().map_or(Begun::AnswerForgotten, Begun::Replay)
                }
            };
        }
        while self.entries.len() >= self.limits.keys {
            if !self.forget_oldest() {
                return Begun::Full;
            }
        }
        let progress = Progress::Running(Some(Vec::new()));
        self.entries.insert(key, Entry { digest, progress });
        Begun::Begin
    }

    /// A piece of the answer was delivered.
    pub fn record(&mut self, key: &IdempotencyKey, piece: &[u8]) {
        let Some(length) = self.recorded_bytes(key) else {
            return;
        };
        let fits = length + piece.len() <= self.limits.answer_bytes && self.make_room(piece.len());
        let Some(Progress::Running(recorded)) = self.entries.get_mut(key).map(|entry| &mut entry.progress)
        else {
            return;
        };
        if let Some(recorded) = recorded.as_mut().filter(|_| fits) {
            recorded.extend_from_slice(piece);
            self.bytes += piece.len();
        } else {
            *recorded = None;
            self.bytes -= length;
        }
    }

    /// The answer was delivered completely.
    pub fn finish(&mut self, key: &IdempotencyKey, head: AnswerHead, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Progress::Running(recorded) = &mut entry.progress else {
            return;
        };
        let answer = recorded.take().map(|mut body| {
            body.shrink_to_fit();
            RememberedAnswer {
                head,
                body: body.into(),
            }
        });
        entry.progress = Progress::Finished {
            at_ms: now_ms,
            answer,
        };
        self.finished.push_back(*key);
    }

    /// The request failed or was given up: a repetition runs again.
    pub fn free(&mut self, key: &IdempotencyKey) {
        let is_running = |entry: &Entry| matches!(entry.progress, Progress::Running(_));
        if self.entries.get(key).is_some_and(is_running) {
            self.remove(key);
        }
    }

    fn recorded_bytes(&self, key: &IdempotencyKey) -> Option<usize> {
        match &self.entries.get(key)?.progress {
            Progress::Running(recorded) => recorded.as_ref().map(Vec::len),
            Progress::Finished { .. } => None,
        }
    }

    /// Whether so many bytes more can be kept, once older answers are forgotten.
    fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes + bytes > self.limits.bytes {
            if !self.forget_oldest() {
                return false;
            }
        }
        true
    }

    fn forget_expired(&mut self, now_ms: u64) {
        let kept_ms = self.limits.kept_ms;
        while let Some(entry) = self.finished.front().and_then(|key| self.entries.get(key)) {
            match entry.progress {
                Progress::Finished { at_ms, .. } if now_ms.saturating_sub(at_ms) >= kept_ms => {
                    self.forget_oldest();
                }
                _ => return,
            }
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.finished.pop_front();
        if let Some(key) = &oldest {
            self.remove(key);
        }
        oldest.is_some()
    }

    fn remove(&mut self, key: &IdempotencyKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
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
        RequestDigest::of("POST", "/v1/embeddings", &[body])
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
    fn requests_differ_by_method_path_and_body() {
        let requests = [
            RequestDigest::of("POST", "/a", b"b"),
            RequestDigest::of("GET", "/a", b"b"),
            RequestDigest::of("POST", "/ab", b""),
            RequestDigest::of("POST", "/a", b"c"),
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
}
