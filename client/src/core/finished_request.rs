//! What is kept of a request when it is over: who asked for what, who answered, how fast, and what it cost. Never a
//! prompt, never an answer.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::{JobKind, RequestId};
use gristmill_protocol::usage::Usage;
use gristmill_telemetry::trace_position::TracePosition;
use serde::{Deserialize, Serialize};

use crate::core::keys::KeyId;

/// Most bytes of a line: names, numbers, and a handful of providers.
pub const LINE_MAX_BYTES: usize = 64 * 1024;
/// Most bytes of an error's code. Codes may be an engine's words; what is longer, or no word, is not kept.
const CODE_MAX_BYTES: usize = 64;
/// Most providers that are named; one request does not ask more.
const PROVIDERS_MAX: usize = 32;

/// What one provider had to do with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderShare {
    /// The provider.
    pub provider: AccountId,
    /// What it delivered.
    pub usage: Usage,
    /// What that costs, in microcredits.
    pub cost: Credits,
    /// When it was asked, in milliseconds after the request began.
    pub asked_after_ms: u64,
    /// For how long it was busy with it, in milliseconds.
    pub duration_ms: u64,
    /// Whether it delivered what it was asked for.
    pub is_complete: bool,
    /// Where its part stands in a trace. Not kept.
    #[serde(skip)]
    pub trace: Option<TracePosition>,
}

/// A request that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedRequest {
    /// The request.
    pub request_id: RequestId,
    /// The name of the key that was shown; none where no key was asked for.
    pub key: Option<String>,
    /// Which key of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// The model that was asked for.
    pub model: String,
    /// What was asked for.
    pub kind: JobKind,
    /// Whether the answer came as it was made.
    pub is_stream: bool,
    /// Who was asked, in that order.
    pub providers: Vec<ProviderShare>,
    /// When the request came, Unix milliseconds.
    pub started_at_ms: u64,
    /// How long the first output took, in milliseconds, where there was one.
    pub first_token_ms: Option<u64>,
    /// How long the whole took, in milliseconds.
    pub duration_ms: u64,
    /// What was delivered by all providers.
    pub usage: Usage,
    /// What that costs, in microcredits.
    pub cost: Credits,
    /// The HTTP status; where an answer broke off, the one that it would have had.
    pub status: u16,
    /// The error's code, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Where it stands in a trace. Not kept.
    #[serde(skip)]
    pub trace: Option<TracePosition>,
}

impl FinishedRequest {
    /// The same with bounded words: no code that is not a word, no more providers than are ever asked.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.code = self.code.map(|code| plain_code(&code).to_owned());
        self.providers.truncate(PROVIDERS_MAX);
        self
    }

    /// Whether the program got the whole answer.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.status < 400
    }

    /// The request as one line of JSON.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        // Strings, numbers and maps of them always serialise.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads a line; nothing where it is none, such as one that a power cut left half-written.
    #[must_use]
    pub fn from_line(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// The code where it is a word that programs know errors by, otherwise `other`.
#[must_use]
pub fn plain_code(code: &str) -> &str {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let fits = (1..=CODE_MAX_BYTES).contains(&code.len()) && code.bytes().all(is_word);
    if fits { code } else { "other" }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request of the key `ci` for the model `guide`.
    pub(crate) fn finished(number: u8, started_at_ms: u64, cost: u32) -> FinishedRequest {
        let usage = Usage::tokens(12, 3);
        let provider = AccountId::from_public_key([1; 32]);
        FinishedRequest {
            request_id: RequestId::from_random([number; 16]),
            key: Some("ci".into()),
            key_id: Some(crate::core::keys::KeyDigest::of(b"ci").id()),
            model: "guide".into(),
            kind: JobKind::ChatCompletions,
            is_stream: true,
            providers: vec![ProviderShare {
                provider,
                usage: usage.clone(),
                cost: Credits::micro(cost),
                asked_after_ms: 1,
                duration_ms: 40,
                is_complete: true,
                trace: None,
            }],
            started_at_ms,
            first_token_ms: Some(20),
            duration_ms: 50,
            usage,
            cost: Credits::micro(cost),
            status: 200,
            code: None,
            trace: None,
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written_and_half_a_line_is_none() {
        let request = finished(1, 5, 9);
        let line = request.to_line();
        assert!(line.ends_with(b"}\n") && line.iter().filter(|byte| **byte == b'\n').count() == 1);
        assert_eq!(FinishedRequest::from_line(&line), Some(request));
        for end in 0..line.len() - 2 {
            assert_eq!(FinishedRequest::from_line(&line[..end]), None, "{end}");
        }
        assert_eq!(
            FinishedRequest::from_line(&[0; 400]),
            None,
            "what a power cut leaves"
        );
    }

    #[test]
    fn codes_are_words_and_not_what_an_engine_makes_up() {
        let long = "x".repeat(65);
        for (code, kept) in [
            ("provider_failed", "provider_failed"),
            ("What is Gristmill?", "other"),
            ("", "other"),
            (long.as_str(), "other"),
        ] {
            assert_eq!(plain_code(code), kept);
            let request = FinishedRequest {
                code: Some(code.into()),
                ..finished(1, 5, 9)
            };
            assert_eq!(request.bounded().code.as_deref(), Some(kept));
        }
    }
}
