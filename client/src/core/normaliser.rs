//! Brings the chunks of a chat's answer into OpenAI's form, whatever server made them.
//!
//! Strict clients (pydantic-ai, the AI SDK, openai-go) validate every chunk, so each one has the full schema: `id`,
//! `object`, an integer `created`, `model`, and choices with `index`, `delta` and `finish_reason`. Nulls that break
//! clients are left out, roles and ids come once, since clients append strings.

use std::collections::BTreeMap;

use gristmill_protocol::job::RequestId;
use serde_json::{Map, Value, json};

use crate::core::answer_frame::{
    AnswerFrame, ChunkError, ChunkNames, NormalChunk, finish_reason, open_choice,
};
use crate::core::continuation::REASONING_FIELDS;
use crate::core::request::CHOICES_MAX;
use crate::core::tool_calls::ToolCalls;

const NAMES: ChunkNames = ChunkNames {
    object: "chat.completion.chunk",
    id_prefix: "chatcmpl",
};

/// The state of one answer's normalisation.
#[derive(Clone, Debug)]
pub struct Normaliser {
    frame: AnswerFrame,
    choices: BTreeMap<u64, Choice>,
}

#[derive(Clone, Debug, Default)]
struct Choice {
    has_begun: bool,
    is_finished: bool,
    tool_calls: ToolCalls,
}

impl Normaliser {
    /// For the answer to a request. `now_seconds` is used where the server does not say when it answered.
    #[must_use]
    pub const fn new(request_id: RequestId, model: String, now_seconds: u64) -> Self {
        Self {
            frame: AnswerFrame::new(NAMES, request_id, model, now_seconds),
            choices: BTreeMap::new(),
        }
    }

    /// What stands around the choices.
    #[must_use]
    pub const fn frame(&self) -> &AnswerFrame {
        &self.frame
    }

    /// The same, to be changed.
    pub const fn frame_mut(&mut self) -> &mut AnswerFrame {
        &mut self.frame
    }

    /// One message of the answer in OpenAI's form; nothing where it has nothing that programs need, such as usage,
    /// which is kept for the end.
    ///
    /// # Errors
    /// [`ChunkError`] where it is no chunk, or one that says that the answer failed.
    pub fn normalise(&mut self, message: &[u8]) -> Result<Option<NormalChunk>, ChunkError> {
        let (chunk, choices) = self.frame.open(message)?;
        let mut finishes = false;
        let mut normal = Vec::with_capacity(choices.len());
        for (position, choice) in choices.into_iter().enumerate() {
            let choice = self.choice(position, choice, &mut finishes);
            normal.extend(self.frame.noted(choice)?);
        }
        if normal.is_empty() {
            return Ok(None);
        }
        if let Some(partial) = &mut self.frame.partial {
            normal.iter().for_each(|choice| partial.observe_choice(choice));
        }
        normal.iter_mut().for_each(name_reasoning_twice);
        let value = self.frame.close(chunk, normal);
        Ok(Some(NormalChunk { value, finishes }))
    }

    /// Whether the answer has choices and all of them were ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.values().all(|choice| choice.is_finished)
    }

    fn choice(
        &mut self,
        position: usize,
        choice: Value,
        finishes: &mut bool,
    ) -> Result<Option<Value>, ChunkError> {
        let (index, mut choice) = open_choice(position, choice, CHOICES_MAX)?;
        let state = self.choices.entry(index).or_default();
        if state.is_finished {
            return Ok(None);
        }
        let mut delta = match choice.remove("delta") {
            Some(Value::Object(delta)) => delta,
            _ => Map::new(),
        };
        delta.retain(|_, field| !field.is_null());
        let finish = choice
            .remove("finish_reason")
            .and_then(|reason| finish_reason(&reason));
        if let Some(junction) = &mut self.frame.junction {
            junction.apply(&mut delta, finish.is_some())?;
        }
        let role = delta.remove("role").unwrap_or_else(|| json!("assistant"));
        let mut normal_delta = Map::new();
        if !state.has_begun {
            normal_delta.insert("role".into(), role);
            state.has_begun = true;
        }
        if let Some(tool_calls) = delta.remove("tool_calls") {
            let calls = match tool_calls {
                Value::Array(calls) => calls,
                _ => Vec::new(),
            };
            let calls = state
                .tool_calls
                .normalise(calls, self.frame.request_id().as_str())
                .map_err(|_| ChunkError::Malformed("it has too many tool calls"))?;
            if !calls.is_empty() {
                delta.insert("tool_calls".into(), calls.into());
            }
        }
        normal_delta.extend(delta);
        if self.frame.junction.is_some() && finish.is_none() && normal_delta.is_empty() {
            return Ok(None);
        }
        state.is_finished = finish.is_some();
        *finishes |= state.is_finished;
        let mut normal = Map::from_iter([
            ("index".to_owned(), json!(index)),
            ("delta".to_owned(), normal_delta.into()),
        ]);
        normal.extend(choice.into_iter().filter(|(_, field)| !field.is_null()));
        normal.insert("finish_reason".into(), json!(finish));
        Ok(Some(normal.into()))
    }
}

/// Servers write what a model thinks under one of two names, and each program knows one of them.
fn name_reasoning_twice(choice: &mut Value) {
    let Some(delta) = choice.get_mut("delta").and_then(Value::as_object_mut) else {
        return;
    };
    let [one, other] = REASONING_FIELDS;
    for (name, missing) in [(one, other), (other, one)] {
        if let (Some(Value::String(text)), None) = (delta.get(name), delta.get(missing)) {
            let text = json!(text);
            delta.insert(missing.to_owned(), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::job::JobFailed;

    fn normaliser() -> Normaliser {
        Normaliser::new(RequestId::from_random([7; 16]), "guide".into(), 1_800_000_000)
    }

    fn normal(normaliser: &mut Normaliser, chunk: Value) -> Value {
        normaliser
            .normalise(chunk.to_string().as_bytes())
            .unwrap()
            .unwrap()
            .value
            .into()
    }

    #[test]
    fn a_bare_chunk_gets_the_full_schema() {
        let mut normaliser = normaliser();
        let chunk = normal(
            &mut normaliser,
            json!({"choices": [{"delta": {"content": "Hi"}}]}),
        );
        let id = format!("chatcmpl-req_{}", "07".repeat(16));
        assert_eq!(
            chunk.to_string(),
            format!(
                "{{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":1800000000,\"model\":\"guide\",\
                 \"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"Hi\"}},\
                 \"finish_reason\":null}}]}}"
            )
        );
    }

    #[test]
    fn the_first_chunk_decides_id_and_time_and_the_request_the_model() {
        let mut normaliser = normaliser();
        let first =
            json!({"id": "a", "created": 5, "model": "x.gguf", "object": "y", "choices": [{"delta": {}}]});
        let second = json!({"id": "b", "created": 6.5, "choices": [{"delta": {}}]});
        for chunk in [first, second] {
            let chunk = normal(&mut normaliser, chunk);
            assert_eq!((&chunk["id"], &chunk["created"]), (&json!("a"), &json!(5)));
            assert_eq!(
                (&chunk["model"], &chunk["object"]),
                (&json!("guide"), &json!("chat.completion.chunk"))
            );
        }
    }

    #[test]
    fn nulls_and_repeated_roles_are_left_out_and_unknown_fields_are_kept() {
        let mut normaliser = normaliser();
        let chunk = json!({
            "error": null, "system_fingerprint": null, "service_tier": "default", "usage": null,
            "choices": [{"index": 0, "logprobs": null, "finish_reason": "", "token_ids": [1],
                "delta": {"role": "assistant", "content": "a", "tool_calls": null, "reasoning": "r", "refusal": null}}]
        });
        let first = normal(&mut normaliser, chunk.clone());
        assert_eq!(first["service_tier"], "default");
        assert!(
            ["error", "usage", "system_fingerprint"]
                .iter()
                .all(|name| first.get(name).is_none())
        );
        let choice = &first["choices"][0];
        assert_eq!(
            choice["delta"],
            json!({"role": "assistant", "content": "a", "reasoning": "r", "reasoning_content": "r"})
        );
        assert_eq!(
            (&choice["token_ids"], &choice["finish_reason"]),
            (&json!([1]), &Value::Null)
        );
        assert!(choice.get("logprobs").is_none());
        let second = normal(&mut normaliser, chunk);
        assert_eq!(
            second["choices"][0]["delta"],
            json!({"content": "a", "reasoning": "r", "reasoning_content": "r"})
        );
    }

    #[test]
    fn finish_reasons_are_openais_words_and_nothing_follows_them() {
        for (given, expected) in [
            ("stop", "stop"),
            ("eos", "stop"),
            ("length", "length"),
            ("max_tokens", "length"),
            ("tool_calls", "tool_calls"),
        ] {
            let mut normaliser = normaliser();
            assert!(!normaliser.is_finished());
            let chunk = json!({"choices": [{"delta": {}, "finish_reason": given}]});
            let normal = normaliser
                .normalise(chunk.to_string().as_bytes())
                .unwrap()
                .unwrap();
            assert!(normal.finishes && normaliser.is_finished());
            assert_eq!(normal.value["choices"][0]["finish_reason"], expected);
            assert_eq!(normaliser.normalise(chunk.to_string().as_bytes()), Ok(None));
        }
    }

    #[test]
    fn usage_is_kept_for_the_end() {
        let mut normaliser = normaliser();
        let chunk = json!({"choices": [], "usage": {"prompt_tokens": 3}});
        assert_eq!(normaliser.normalise(chunk.to_string().as_bytes()), Ok(None));
        assert_eq!(normaliser.frame().usage().unwrap()["prompt_tokens"], 3);
    }

    #[test]
    fn every_choice_has_to_end() {
        let mut normaliser = normaliser();
        let ended = |index: u64| json!({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]});
        normal(
            &mut normaliser,
            json!({"choices": [{"index": 1, "delta": {"content": "x"}}]}),
        );
        normal(&mut normaliser, ended(0));
        assert!(!normaliser.is_finished());
        normal(&mut normaliser, ended(1));
        assert!(normaliser.is_finished());
    }

    #[test]
    fn what_is_no_chunk_is_an_error() {
        for message in [
            "",
            "5",
            "{",
            "{\"choices\":5}",
            "{\"choices\":[5]}",
            "{\"choices\":[{\"index\":128}]}",
        ] {
            let outcome = normaliser().normalise(message.as_bytes());
            assert!(matches!(outcome, Err(ChunkError::Malformed(_))), "{message}");
        }
        let error = json!({"error": {"message": "out of memory", "code": 507}});
        let outcome = normaliser().normalise(error.to_string().as_bytes());
        assert_eq!(
            outcome,
            Err(ChunkError::Failed(JobFailed::new(
                507,
                "provider_failed",
                "out of memory",
                None
            )))
        );
    }
}
