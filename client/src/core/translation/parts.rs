//! What a chat completion says, part by part, be it a stream's events or the whole at once.

use serde_json::{Map, Value};

use crate::core::failure::ApiFailure;

/// A failure as it stands in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) code: String,
    pub(super) kind: String,
    pub(super) param: Option<String>,
}

impl From<&ApiFailure> for Failure {
    fn from(failure: &ApiFailure) -> Self {
        Self {
            message: failure.message.clone(),
            code: failure.code.to_string(),
            kind: failure.kind().to_owned(),
            param: failure.param.clone(),
        }
    }
}

/// A part of a chat completion with one choice.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// The answer has begun.
    Begin,
    Reasoning(String),
    Text {
        text: String,
        logprobs: Vec<Value>,
    },
    Refusal(String),
    /// A tool call begins.
    Call {
        index: u64,
        id: String,
        name: String,
    },
    Arguments {
        index: u64,
        text: String,
    },
    /// Why the answer ends, and at which stop sequence, where the server says.
    Finish {
        reason: String,
        stop: Option<String>,
    },
    Usage(Map<String, Value>),
    /// What stands beside an answer as `gristmill`.
    Gristmill(Value),
    Failed(Failure),
    /// A stream ends.
    End,
}

/// The parts of whole events of a stream.
pub(super) fn of_events(piece: &[u8], take: &mut impl FnMut(Part)) {
    let text = String::from_utf8_lossy(piece);
    for data in text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
    {
        if data == "[DONE]" {
            take(Part::End);
        } else if let Ok(Value::Object(chunk)) = serde_json::from_str(data) {
            of_answer(chunk, "delta", take);
        }
    }
}

/// The parts of a whole answer.
///
/// # Errors
/// [`ApiFailure`] where it is none.
pub(super) fn of_whole(json: &[u8], take: &mut impl FnMut(Part)) -> Result<(), ApiFailure> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(answer)) => {
            of_answer(answer, "message", take);
            Ok(())
        }
        _ => Err(ApiFailure::internal()),
    }
}

/// The parts of a chunk or of a whole answer.
fn of_answer(mut answer: Map<String, Value>, message: &str, take: &mut impl FnMut(Part)) {
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        return take(Part::Failed(failure(error)));
    }
    take(Part::Begin);
    let choices = answer.get_mut("choices").and_then(Value::as_array_mut);
    if let Some(Value::Object(choice)) = choices.and_then(|choices| choices.first_mut()) {
        of_choice(choice, message, take);
    }
    if let Some(Value::Object(usage)) = answer.shift_remove("usage") {
        take(Part::Usage(usage));
    }
    if let Some(gristmill) = answer.shift_remove("gristmill") {
        take(Part::Gristmill(gristmill));
    }
}

fn of_choice(choice: &mut Map<String, Value>, message: &str, take: &mut impl FnMut(Part)) {
    let logprobs = choice
        .get_mut("logprobs")
        .and_then(|logprobs| logprobs.get_mut("content"))
        .and_then(Value::as_array_mut)
        .map(std::mem::take)
        .unwrap_or_default();
    if let Some(Value::Object(mut said)) = choice.shift_remove(message) {
        // Where both are there they say the same.
        let reasoning = text(&mut said, "reasoning_content").or_else(|| text(&mut said, "reasoning"));
        if let Some(reasoning) = reasoning {
            take(Part::Reasoning(reasoning));
        }
        if let Some(text) = text(&mut said, "content") {
            take(Part::Text { text, logprobs });
        }
        if let Some(refusal) = text(&mut said, "refusal") {
            take(Part::Refusal(refusal));
        }
        if let Some(Value::Array(calls)) = said.shift_remove("tool_calls") {
            for (place, call) in calls.into_iter().enumerate() {
                of_call(place as u64, call, take);
            }
        }
    }
    if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
        take(Part::Finish {
            reason: reason.to_owned(),
            // vLLM and SGLang tell the stop sequence here.
            stop: choice
                .get("stop_reason")
                .or_else(|| choice.get("matched_stop"))
                .and_then(Value::as_str)
                .map(str::to_owned),
        });
    }
}

fn of_call(place: u64, mut call: Value, take: &mut impl FnMut(Part)) {
    let index = call.get("index").and_then(Value::as_u64).unwrap_or(place);
    let name = call.pointer("/function/name").and_then(Value::as_str);
    if let (Some(name), Some(id)) = (name, call.get("id").and_then(Value::as_str)) {
        take(Part::Call {
            index,
            id: id.to_owned(),
            name: name.to_owned(),
        });
    }
    if let Some(Value::String(text)) = call.pointer_mut("/function/arguments").map(Value::take)
        && !text.is_empty()
    {
        take(Part::Arguments { index, text });
    }
}

/// A text that says something.
fn text(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    match fields.shift_remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn failure(error: &Value) -> Failure {
    let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
    Failure {
        message: text("message").unwrap_or_else(|| "the answer broke off".to_owned()),
        code: text("code").unwrap_or_else(|| "provider_failed".to_owned()),
        kind: text("type").unwrap_or_else(|| "server_error".to_owned()),
        param: text("param"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn collected(run: impl FnOnce(&mut dyn FnMut(Part))) -> Vec<Part> {
        let mut parts = Vec::new();
        run(&mut |part| parts.push(part));
        parts
    }

    #[test]
    fn a_stream_and_a_whole_say_the_same() {
        let call =
            json!({"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let said = json!({"role": "assistant", "reasoning": "hm", "reasoning_content": "hm", "content": "Hi",
            "tool_calls": [call]});
        let answer = |name: &str| {
            json!({"choices": [{"index": 0, name: said, "finish_reason": "stop", "stop_reason": "###"}],
                "usage": {"prompt_tokens": 3}, "gristmill": {"cost": 1}})
        };
        let piece = format!("data: {}\n\ndata: [DONE]\n\n", answer("delta"));
        let mut streamed = collected(|take| of_events(piece.as_bytes(), &mut |part| take(part)));
        assert_eq!(streamed.pop(), Some(Part::End));
        let whole = collected(|take| {
            of_whole(answer("message").to_string().as_bytes(), &mut |part| take(part)).unwrap();
        });
        assert_eq!(streamed, whole);
        assert_eq!(
            whole,
            [
                Part::Begin,
                Part::Reasoning("hm".into()),
                Part::Text {
                    text: "Hi".into(),
                    logprobs: vec![]
                },
                Part::Call {
                    index: 0,
                    id: "c".into(),
                    name: "f".into()
                },
                Part::Arguments {
                    index: 0,
                    text: "{}".into()
                },
                Part::Finish {
                    reason: "stop".into(),
                    stop: Some("###".into())
                },
                Part::Usage(json!({"prompt_tokens": 3}).as_object().unwrap().clone()),
                Part::Gristmill(json!({"cost": 1})),
            ]
        );
    }

    #[test]
    fn an_error_event_is_a_failure() {
        let failure = ApiFailure::provider_failed("gone");
        let piece = format!("data: {}\n\ndata: [DONE]\n\n", failure.to_json());
        let parts = collected(|take| of_events(piece.as_bytes(), &mut |part| take(part)));
        assert_eq!(parts, [Part::Failed((&failure).into()), Part::End]);
    }
}
