//! What test providers say and charge.

use std::collections::BTreeMap;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::{Price, Unit, Usage};
use serde_json::Value;

use crate::provider::{Script, Setup, Step, TestProvider};

impl Setup {
    /// A provider of something else than chats.
    pub fn of_kind(kind: JobKind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }
}

impl TestProvider {
    /// The JSON that a job came with.
    pub fn body(&self, job: usize) -> Value {
        serde_json::from_slice(&self.jobs.borrow()[job].body).unwrap()
    }

    /// The JSON that the last job came with.
    pub fn last_body(&self) -> Value {
        let jobs = self.jobs.borrow().len();
        self.body(jobs - 1)
    }
}

/// What providers charge for: tokens, or bytes where nobody can count tokens.
pub fn price(kind: JobKind, each: Credits) -> Price {
    if kind.is_passed_through() {
        return Price {
            constant: Credits::ZERO,
            per_million: BTreeMap::from([(Unit::ByteIn, each), (Unit::ByteOut, each)]),
        };
    }
    Price::per_million_tokens(each, each)
}

/// So many units read and made.
pub(super) fn meter(kind: JobKind, read: u64, made: u64) -> Usage {
    if kind.is_passed_through() {
        return Usage::new().with(Unit::ByteIn, read).with(Unit::ByteOut, made);
    }
    Usage::tokens(read, made)
}

/// A chunk with some text.
pub fn text(text: &str) -> String {
    serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]}).to_string()
}

/// The chunk that ends a choice.
pub fn finish() -> String {
    serde_json::json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).to_string()
}

/// An engine that answers with some words.
pub fn words(words: &[&str]) -> Script {
    let mut steps: Vec<Step> = words
        .iter()
        .zip(1..)
        .map(|(word, tokens)| Step::Say(text(word), tokens))
        .collect();
    steps.push(Step::Say(finish(), words.len() as u64));
    Script::Run(steps)
}
