//! How much text an answer carries: what a consumer holds a provider's meter against.

use serde_json::Value;

use crate::job::JobKind;
use crate::usage::{Unit, Usage};

/// Tokens of an answer that leave no text: ends of turns, markers around tool calls.
pub const OUTPUT_TOKENS_WITHOUT_TEXT_MAX: u64 = 64;
/// Tokens of a prompt that come from the model's template and not from the body.
pub const INPUT_TOKENS_WITHOUT_TEXT_MAX: u64 = 256;

/// The most that a body can cost to read, in input tokens: a token is at least a byte.
#[must_use]
pub const fn input_tokens_max(body_bytes: u64) -> u64 {
    body_bytes.saturating_add(INPUT_TOKENS_WITHOUT_TEXT_MAX)
}

/// The bytes of text in one message of an answer: content, reasoning, refusals and tool calls of all choices.
/// What is no such message carries none.
#[must_use]
pub fn text_bytes(kind: JobKind, message: &[u8]) -> u64 {
    let field = match kind {
        JobKind::ChatCompletions => "delta",
        JobKind::Completions => "text",
        JobKind::Embeddings => return 0,
        // What is passed through is not looked into: any byte may be text.
        JobKind::AudioTranscriptions | JobKind::AudioSpeech | JobKind::ImageGenerations | JobKind::Rerank => {
            return message.len() as u64;
        }
    };
    let message: Value = serde_json::from_slice(message).unwrap_or_default();
    let choices = message.get("choices").and_then(Value::as_array);
    choices
        .into_iter()
        .flatten()
        .filter_map(|choice| choice.get(field))
        .map(all_text)
        .sum()
}

/// The bytes of every string in a delta except the names that the format itself brings.
fn all_text(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(all_text).sum(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "role" | "id" | "type"))
            .map(|(_, value)| all_text(value))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// The most input and output tokens that a job can have used. What is passed through is not counted in tokens: an
/// image has none that anybody could check.
#[must_use]
pub const fn tokens_max(kind: JobKind, body_bytes: u64, text_bytes: u64) -> (u64, u64) {
    match kind {
        JobKind::ChatCompletions | JobKind::Completions => (
            input_tokens_max(body_bytes),
            text_bytes.saturating_add(OUTPUT_TOKENS_WITHOUT_TEXT_MAX),
        ),
        JobKind::Embeddings => (input_tokens_max(body_bytes), 0),
        JobKind::AudioTranscriptions | JobKind::AudioSpeech | JobKind::ImageGenerations | JobKind::Rerank => {
            (0, 0)
        }
    }
}

/// Whether a meter can be true of a job with so many bytes of body, of text, and of payload delivered.
///
/// Time on a device can't be checked this way: a consumer bounds it by its price cap and by what it reserves.
#[must_use]
pub fn is_plausible(
    meter: &Usage,
    kind: JobKind,
    body_bytes: u64,
    text_bytes: u64,
    payload_bytes: u64,
) -> bool {
    let (input_tokens, output_tokens) = tokens_max(kind, body_bytes, text_bytes);
    meter.count(Unit::InputToken) <= input_tokens
        && meter.count(Unit::OutputToken) <= output_tokens
        && meter.count(Unit::ByteIn) <= body_bytes
        && meter.count(Unit::ByteOut) <= payload_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_and_markup_is_not() {
        let text = |json: &str| text_bytes(JobKind::ChatCompletions, json.as_bytes());
        assert_eq!(
            text(r#"{"choices":[{"delta":{"role":"assistant","content":"grüß"}}]}"#),
            6
        );
        assert_eq!(
            text(r#"{"choices":[{"delta":{"reasoning_content":"ab"}},{"delta":{"content":"c"}}]}"#),
            3
        );
        assert_eq!(
            text(
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_123","type":"function","function":{"name":"f","arguments":"{}"}}]}}]}"#
            ),
            3
        );
        assert_eq!(text(r#"{"id":"chatcmpl-0123456789","choices":[]}"#), 0);
        assert_eq!(text("not json"), 0);
        let completion = br#"{"choices":[{"text":"ab"},{"text":"c"}]}"#;
        assert_eq!(text_bytes(JobKind::Completions, completion), 3);
        assert_eq!(text_bytes(JobKind::AudioSpeech, b"not json"), 8);
        assert_eq!(
            text_bytes(JobKind::Embeddings, br#"{"choices":[{"delta":{"content":"c"}}]}"#),
            0
        );
    }

    #[test]
    fn plausibility_ends_where_tokens_would_be_less_than_bytes() {
        let plausible = |input, output| {
            is_plausible(
                &Usage::tokens(input, output),
                JobKind::ChatCompletions,
                100,
                50,
                400,
            )
        };
        assert!(plausible(356, 114));
        assert!(!plausible(357, 0));
        assert!(!plausible(0, 115));
        assert!(!is_plausible(
            &Usage::tokens(1, 1),
            JobKind::Embeddings,
            100,
            0,
            400
        ));
        let passed = |meter: Usage| is_plausible(&meter, JobKind::AudioSpeech, 100, 400, 400);
        assert!(passed(
            Usage::new().with(Unit::ByteIn, 100).with(Unit::ByteOut, 400)
        ));
        assert!(!passed(Usage::tokens(1, 0)) && !passed(Usage::tokens(0, 1)));
        assert!(!passed(Usage::new().with(Unit::ByteOut, 401)));
    }
}
