//! Answers to requests that carry an idempotency key: a repetition gets the first answer again and pays nothing.
//!
//! A key is running, then finished, then forgotten; a failure frees it at once. Keys and requests are kept as digests.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};

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
    /// Of a method, a path, the headers that say where the request may go, and a body. Neither methods nor paths have
    /// blanks (RFC 9112 section 3); the headers are a map, since their order means nothing.
    #[must_use]
    pub fn of(method: &str, path: &str, overrides: &BTreeMap<&str, &[u8]>, body: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [method.as_bytes(), b" ", path.as_bytes(), b" "] {
            hasher.update(part);
        }
        hasher.update(&(overrides.len() as u64).to_le_bytes());
        for (name, value) in overrides {
            for part in [name.as_bytes(), value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        hasher.update(body);
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
mod tests;
