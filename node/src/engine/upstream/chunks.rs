//! Brings what upstreams stream into the form that strict clients accept, and counts it.
//!
//! Every chunk leaves with the whole schema of `chat.completion.chunk` or `text_completion`. Usage leaves once, in a chunk of its own at
//! the end, wherever the upstream put it.

use std::collections::BTreeSet;

use gristmill_protocol::content::text_bytes;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::Usage;
use serde_json::{Map, Value, json};

use super::errors;
use crate::engine::{EngineError, EngineOutput};

/// One answer of an upstream, chunk by chunk.
#[derive(Debug)]
pub(super) struct ChunkReader {
    /// A chat, or a plain completion.
    kind: JobKind,
    /// The name on offer.
    model: String,
    /// The id of chunks that have none.
    id: String,
    /// The time of chunks that have none, Unix seconds.
    created: u64,
    usage: Option<Value>,
    chunks_with_text: u64,
    metered: Usage,
    begun: BTreeSet<u64>,
    finished: BTreeSet<u64>,
}

impl ChunkReader {
    pub(super) fn new(kind: JobKind, model: &str, request_id: &str, created: u64) -> Self {
        let prefix = match kind {
            JobKind::Completions => "cmpl",
            _ => "chatcmpl",
        };
        Self {
            kind,
            model: model.to_owned(),
            id: format!("{prefix}-{request_id}"),
            created,
            usage: None,
            chunks_with_text: 0,
            metered: Usage::new(),
            begun: BTreeSet::new(),
            finished: BTreeSet::new(),
        }
    }

    /// What was used so far: the upstream's own count, but at least a token for each chunk with text, and never less
    /// than before.
    pub(super) fn meter(&mut self) -> Usage {
        let count = |name: &str| {
            self.usage
                .as_ref()
                .and_then(|usage| usage.get(name)?.as_u64())
                .unwrap_or(0)
        };
        let now = Usage::tokens(
            count("prompt_tokens"),
            count("completion_tokens").max(self.chunks_with_text),
        );
        self.metered = self.metered.maximum(&now);
        self.metered.clone()
    }

    /// Takes the data of one event. `None` where it carries nothing for the consumer.
    ///
    /// # Errors
    /// [`EngineError`] where the upstream reports one, or sends what is no chunk.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<Option<EngineOutput>, EngineError> {
        let chunk = serde_json::from_slice::<Value>(data);
        let Ok(Value::Object(mut chunk)) = chunk else {
            return Err(errors::provider_failed(
                "the upstream sent an event that is no JSON object",
            ));
        };
        if let Some(error) = errors::in_event(&chunk) {
            return Err(error);
        }
        chunk.remove("error");
        if let Some(usage @ Value::Object(_)) = chunk.remove("usage") {
            self.usage = Some(usage);
        }
        if let Some(id) = chunk
            .get("id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
        {
            id.clone_into(&mut self.id);
        }
        let choices = match chunk.remove("choices") {
            Some(Value::Array(choices)) if !choices.is_empty() => choices,
            _ => return Ok(None),
        };
        let choices = choices
            .into_iter()
            .enumerate()
            .map(|(place, choice)| self.choice(choice, place))
            .collect();
        let message = self.whole(chunk, choices);
        if text_bytes(self.kind, &message) > 0 {
            self.chunks_with_text += 1;
        }
        Ok(Some(EngineOutput {
            message,
            meter: self.meter(),
        }))
    }

    /// Ends the answer: the chunk with the usage, where the upstream told it, and what was used in all.
    ///
    /// # Errors
    /// [`EngineError`] where the answer has no end: without a finish reason nobody can tell a whole answer from a
    /// broken one.
    pub(super) fn finish(mut self) -> Result<(Option<EngineOutput>, Usage), EngineError> {
        if self.begun.is_empty() {
            return Err(errors::provider_failed(
                "the upstream ended the stream without an answer",
            ));
        }
        if !self.begun.is_subset(&self.finished) {
            return Err(errors::provider_failed(
                "the upstream ended the stream without a finish_reason",
            ));
        }
        let meter = self.meter();
        let last = self.usage.clone().map(|usage| {
            let mut chunk = Map::new();
            chunk.insert("usage".into(), usage);
            EngineOutput {
                message: self.whole(chunk, Vec::new()),
                meter: meter.clone(),
            }
        });
        Ok((last, meter))
    }

    /// A chunk with its whole schema, the upstream's own extra fields included.
    fn whole(&self, mut extra: Map<String, Value>, choices: Vec<Value>) -> Vec<u8> {
        let created = extra
            .get("created")
            .and_then(Value::as_u64)
            .unwrap_or(self.created);
        let mut chunk = Map::new();
        chunk.insert("id".into(), json!(self.id));
        let object = match self.kind {
            JobKind::Completions => "text_completion",
            _ => "chat.completion.chunk",
        };
        chunk.insert("object".into(), json!(object));
        chunk.insert("created".into(), json!(created));
        chunk.insert("model".into(), json!(self.model));
        chunk.insert("choices".into(), Value::Array(choices));
        for known in ["id", "object", "created", "model"] {
            extra.remove(known);
        }
        chunk.extend(extra);
        Value::Object(chunk).to_string().into_bytes()
    }

    fn choice(&mut self, choice: Value, place: usize) -> Value {
        let mut choice = match choice {
            Value::Object(choice) => choice,
            _ => Map::new(),
        };
        let index = choice
            .get("index")
            .and_then(Value::as_u64)
            .unwrap_or(place as u64);
        choice.insert("index".into(), json!(index));
        let finish = choice
            .get("finish_reason")
            .and_then(Value::as_str)
            .filter(|reason| !reason.is_empty());
        self.begun.insert(index);
        if finish.is_some() {
            self.finished.insert(index);
        } else {
            choice.insert("finish_reason".into(), Value::Null);
        }
        if self.kind == JobKind::Completions {
            if !choice.get("text").is_some_and(Value::is_string) {
                choice.insert("text".into(), json!(""));
            }
        } else if let Some(Value::Object(delta)) = choice.get_mut("delta") {
            tidy_tool_calls(delta);
        } else {
            choice.insert("delta".into(), json!({}));
        }
        Value::Object(choice)
    }
}

/// Tool deltas carry an index, and leave out what they do not say instead of saying null.
fn tidy_tool_calls(delta: &mut Map<String, Value>) {
    match delta.get_mut("tool_calls") {
        Some(Value::Array(calls)) => {
            for (place, call) in calls.iter_mut().enumerate() {
                let Value::Object(call) = call else { continue };
                call.retain(|_, value| !value.is_null());
                if !call.get("index").is_some_and(Value::is_u64) {
                    call.insert("index".into(), json!(place));
                }
                if let Some(Value::Object(function)) = call.get_mut("function") {
                    function.retain(|_, value| !value.is_null());
                }
            }
        }
        Some(Value::Null) => {
            delta.remove("tool_calls");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reader() -> ChunkReader {
        ChunkReader::new(JobKind::ChatCompletions, "offered", "req_1", 1_800_000_000)
    }

    fn take(reader: &mut ChunkReader, chunk: Value) -> Result<Option<(Value, Usage)>, EngineError> {
        let output = reader.take(chunk.to_string().as_bytes())?;
        Ok(output.map(|output| (serde_json::from_slice(&output.message).unwrap(), output.meter)))
    }

    fn text(content: &str) -> Value {
        json!({"choices": [{"delta": {"content": content}}]})
    }

    fn stop() -> Value {
        json!({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    }

    #[test]
    fn the_barest_chunk_gets_the_whole_schema() {
        let (chunk, meter) = take(&mut reader(), text("Hi")).unwrap().unwrap();
        assert_eq!(
            chunk,
            json!({
                "id": "chatcmpl-req_1", "object": "chat.completion.chunk", "created": 1_800_000_000_u64,
                "model": "offered",
                "choices": [{"delta": {"content": "Hi"}, "index": 0, "finish_reason": null}],
            })
        );
        assert_eq!(meter, Usage::tokens(0, 1));
    }

    #[test]
    fn plain_completions_have_their_own_schema() {
        let mut reader = ChunkReader::new(JobKind::Completions, "offered", "req_1", 1_800_000_000);
        let (chunk, meter) = take(
            &mut reader,
            json!({"model": "x", "choices": [{"text": "Hi", "logprobs": null}]}),
        )
        .unwrap()
        .unwrap();
        assert_eq!(
            chunk,
            json!({
                "id": "cmpl-req_1", "object": "text_completion", "created": 1_800_000_000_u64, "model": "offered",
                "choices": [{"text": "Hi", "logprobs": null, "index": 0, "finish_reason": null}],
            })
        );
        assert_eq!(meter, Usage::tokens(0, 1));
        let end = json!({"choices": [{"index": 0, "text": null, "finish_reason": "length"}]});
        let (chunk, meter) = take(&mut reader, end).unwrap().unwrap();
        assert_eq!(chunk["choices"][0]["text"], "");
        assert_eq!(meter, Usage::tokens(0, 1), "an end without text is no token");
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn what_the_upstream_says_is_kept_and_its_name_of_the_model_is_not() {
        let chunk = json!({
            "id": "up-1", "object": "x", "created": 5, "model": "/home/me/model.gguf", "system_fingerprint": "fp",
            "error": null, "timings": {"ms": 1},
            "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "logprobs": {"content": []}, "finish_reason": ""}],
        });
        let (chunk, _) = take(&mut reader(), chunk).unwrap().unwrap();
        assert_eq!(
            (&chunk["id"], &chunk["created"], &chunk["model"]),
            (&json!("up-1"), &json!(5), &json!("offered"))
        );
        assert_eq!(
            (&chunk["object"], &chunk["timings"]["ms"]),
            (&json!("chat.completion.chunk"), &json!(1))
        );
        assert!(chunk.get("error").is_none() && chunk["choices"][0]["finish_reason"].is_null());
        assert_eq!(chunk["choices"][0]["logprobs"], json!({"content": []}));
    }

    #[test]
    fn tool_deltas_leave_out_what_they_do_not_say() {
        let chunk = json!({"choices": [{"delta": {"tool_calls": [
            {"index": 1, "id": null, "type": null, "function": {"name": null, "arguments": "{"}},
            {"id": "c", "function": {"name": "f", "arguments": ""}},
        ]}}]});
        let (chunk, meter) = take(&mut reader(), chunk).unwrap().unwrap();
        assert_eq!(
            chunk["choices"][0]["delta"]["tool_calls"],
            json!([
                {"index": 1, "function": {"arguments": "{"}},
                {"id": "c", "function": {"name": "f", "arguments": ""}, "index": 1},
            ])
        );
        assert_eq!(meter, Usage::tokens(0, 1));
        let (chunk, _) = take(
            &mut reader(),
            json!({"choices": [{"delta": {"tool_calls": null}}]}),
        )
        .unwrap()
        .unwrap();
        assert_eq!(chunk["choices"][0]["delta"], json!({}));
    }

    #[test]
    fn usage_leaves_once_at_the_end_wherever_it_came() {
        let usage = |output: u64| json!({"prompt_tokens": 9, "completion_tokens": output, "total_tokens": 9 + output});
        let mut continuous = reader();
        let mut chunk = text("a b c");
        chunk["usage"] = usage(3);
        let (seen, meter) = take(&mut continuous, chunk).unwrap().unwrap();
        assert!(seen.get("usage").is_none());
        assert_eq!(meter, Usage::tokens(9, 3));
        take(&mut continuous, stop()).unwrap();
        assert!(
            take(&mut continuous, json!({"choices": [], "usage": usage(4)}))
                .unwrap()
                .is_none()
        );
        let (last, total) = continuous.finish().unwrap();
        let last: Value = serde_json::from_slice(&last.unwrap().message).unwrap();
        assert_eq!((&last["usage"], &last["choices"]), (&usage(4), &json!([])));
        assert_eq!(total, Usage::tokens(9, 4));
    }

    #[test]
    fn usage_below_what_was_seen_is_not_believed_and_none_is_not_invented() {
        let mut modest = reader();
        take(&mut modest, text("a")).unwrap();
        take(&mut modest, text("b")).unwrap();
        take(&mut modest, text("")).unwrap();
        take(
            &mut modest,
            json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}),
        )
        .unwrap();
        take(&mut modest, stop()).unwrap();
        assert_eq!(modest.meter(), Usage::tokens(1, 2));
        let mut silent = reader();
        take(&mut silent, text("a")).unwrap();
        take(&mut silent, stop()).unwrap();
        assert_eq!(silent.finish().unwrap(), (None, Usage::tokens(0, 1)));
    }

    #[test]
    fn an_answer_without_an_end_is_a_failure() {
        assert!(
            reader()
                .finish()
                .unwrap_err()
                .message
                .contains("without an answer")
        );
        let mut broken = reader();
        take(&mut broken, text("a")).unwrap();
        let error = broken.finish().unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (502, "provider_failed"));
        assert!(error.message.contains("finish_reason"));
        // Ollama has been seen ending a broken stream with an empty chunk.
        let mut empty = reader();
        take(&mut empty, text("a")).unwrap();
        assert!(take(&mut empty, json!({"choices": []})).unwrap().is_none());
        assert!(empty.finish().is_err());
        let mut one_of_two = reader();
        take(&mut one_of_two, json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}, {"index": 1, "delta": {}}]}))
            .unwrap();
        assert!(one_of_two.finish().is_err());
    }

    #[test]
    fn errors_in_the_stream_are_errors() {
        let error = take(
            &mut reader(),
            json!({"error": {"message": "no", "code": 503, "type": "x"}}),
        )
        .unwrap_err();
        assert_eq!((error.status, error.message.as_str()), (503, "no"));
        assert!(take(&mut reader(), json!("text")).is_err());
        assert!(reader().take(b"{").is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z]{0,8}".prop_map(Value::from),
        ];
        let names = prop_oneof![
            "id|object|created|model|choices|usage|error|delta|index|finish_reason|tool_calls|function|content|name",
            "[a-z]{1,4}",
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((names.clone(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_what_leaves_has_the_schema_and_the_meter_grows(
            chunks in proptest::collection::vec(any_json(), 1..12),
        ) {
            let (mut reader, mut meter) = (reader(), Usage::new());
            for chunk in chunks {
                let Ok(Some((chunk, next))) = take(&mut reader, chunk) else { continue };
                prop_assert!(chunk["id"].is_string() && chunk["created"].is_u64());
                prop_assert_eq!(&chunk["object"], "chat.completion.chunk");
                prop_assert_eq!(&chunk["model"], "offered");
                prop_assert!(chunk.get("error").is_none() && chunk.get("usage").is_none());
                for choice in chunk["choices"].as_array().unwrap() {
                    prop_assert!(choice["index"].is_u64() && choice["delta"].is_object());
                    prop_assert!(choice["finish_reason"].is_null() || choice["finish_reason"].is_string());
                }
                prop_assert!(next.covers(&meter));
                meter = next;
            }
        }
    }
}
