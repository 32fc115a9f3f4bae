//! The objects that an answer is streamed in: `chat.completion.chunk` and `text_completion`. Pure.

use serde::Serialize;
use serde_json::{Value, json};

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinishReason {
    /// The model, or a stop string, ended it.
    Stop,
    /// It is as long as it may be.
    Length,
    /// It calls tools.
    ToolCalls,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'a> {
    Chat {
        index: u32,
        delta: Delta<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<Value>,
        finish_reason: Option<FinishReason>,
    },
    Text {
        index: u32,
        text: &'a str,
        logprobs: Option<Value>,
        finish_reason: Option<FinishReason>,
    },
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[Value; 1]>,
}

/// What an answer is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkKind {
    /// `chat.completion.chunk`.
    Chat,
    /// `text_completion`.
    Text,
}

/// Writes the chunks of one request.
pub(super) struct ChunkWriter {
    kind: ChunkKind,
    id: String,
    created: u64,
    model: String,
}

impl ChunkWriter {
    /// Chunks for one request; `created` is Unix time in seconds.
    pub(super) fn new(kind: ChunkKind, request_id: &str, created: u64, model: &str) -> Self {
        let prefix = match kind {
            ChunkKind::Chat => "chatcmpl",
            ChunkKind::Text => "cmpl",
        };
        Self {
            kind,
            id: format!("{prefix}-{request_id}"),
            created,
            model: model.to_owned(),
        }
    }

    /// What the chunks are.
    pub(super) const fn kind(&self) -> ChunkKind {
        self.kind
    }

    /// The first chunk of a choice, which says who speaks; texts have none.
    pub(super) fn role(&self, index: u32) -> Option<Vec<u8>> {
        let delta = Delta {
            role: Some("assistant"),
            content: Some(""),
            ..Delta::default()
        };
        (self.kind == ChunkKind::Chat).then(|| self.delta(index, delta, None, None))
    }

    /// A chunk of text.
    pub(super) fn content(&self, index: u32, text: &str, logprobs: Option<Value>) -> Vec<u8> {
        match self.kind {
            ChunkKind::Chat => {
                let delta = Delta {
                    content: Some(text),
                    ..Delta::default()
                };
                self.delta(index, delta, logprobs, None)
            }
            ChunkKind::Text => self.text(index, text, logprobs, None),
        }
    }

    /// A call of a function begins. Its id is the same for the same request, choice and call.
    pub(super) fn call(&self, index: u32, call: usize, name: &str) -> Vec<u8> {
        let seed = format!("{}/{index}/{call}", self.id);
        let digest = blake3::hash(seed.as_bytes()).to_hex();
        let id = format!("call_{}", &digest[..24]);
        let call =
            json!({"index": call, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
        self.call_delta(index, call)
    }

    /// More of the arguments of a call.
    pub(super) fn arguments(&self, index: u32, call: usize, text: &str) -> Vec<u8> {
        self.call_delta(index, json!({"index": call, "function": {"arguments": text}}))
    }

    /// The last chunk of a choice, which says why the answer ended.
    pub(super) fn finish(&self, index: u32, reason: FinishReason) -> Vec<u8> {
        match self.kind {
            ChunkKind::Chat => self.delta(index, Delta::default(), None, Some(reason)),
            ChunkKind::Text => self.text(index, "", None, Some(reason)),
        }
    }

    fn call_delta(&self, index: u32, call: Value) -> Vec<u8> {
        let delta = Delta {
            tool_calls: Some([call]),
            ..Delta::default()
        };
        self.delta(index, delta, None, None)
    }

    fn delta(
        &self,
        index: u32,
        delta: Delta<'_>,
        logprobs: Option<Value>,
        finish_reason: Option<FinishReason>,
    ) -> Vec<u8> {
        let choice = Choice::Chat {
            index,
            delta,
            logprobs,
            finish_reason,
        };
        self.write("chat.completion.chunk", choice)
    }

    fn text(
        &self,
        index: u32,
        text: &str,
        logprobs: Option<Value>,
        finish_reason: Option<FinishReason>,
    ) -> Vec<u8> {
        let choice = Choice::Text {
            index,
            text,
            logprobs,
            finish_reason,
        };
        self.write("text_completion", choice)
    }

    fn write(&self, object: &'static str, choice: Choice<'_>) -> Vec<u8> {
        let chunk = Chunk {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices: [choice],
        };
        // Strings and numbers always have a JSON form.
        serde_json::to_vec(&chunk).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: Vec<u8>) -> Value {
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn chunks_have_the_whole_schema_and_no_null_deltas() {
        let writer = ChunkWriter::new(ChunkKind::Chat, "req_1", 1_700_000_000, "m");
        let whole = |delta: Value, finish: Value| {
            json!({
                "id": "chatcmpl-req_1", "object": "chat.completion.chunk", "created": 1_700_000_000,
                "model": "m", "choices": [{"index": 2, "delta": delta, "finish_reason": finish}]
            })
        };
        assert_eq!(
            parse(writer.role(2).unwrap()),
            whole(json!({"role": "assistant", "content": ""}), Value::Null)
        );
        assert_eq!(
            parse(writer.content(2, "\"\n🙂", None)),
            whole(json!({"content": "\"\n🙂"}), Value::Null)
        );
        for (reason, word) in [
            (FinishReason::Stop, "stop"),
            (FinishReason::Length, "length"),
            (FinishReason::ToolCalls, "tool_calls"),
        ] {
            assert_eq!(parse(writer.finish(2, reason)), whole(json!({}), json!(word)));
        }
        let logprobs = json!({"content": []});
        let chunk = parse(writer.content(2, "x", Some(logprobs.clone())));
        assert_eq!(chunk["choices"][0]["logprobs"], logprobs);
    }

    #[test]
    fn a_call_says_once_what_it_is() {
        let writer = ChunkWriter::new(ChunkKind::Chat, "req_1", 0, "m");
        let call = |chunk: Vec<u8>| parse(chunk)["choices"][0]["delta"]["tool_calls"][0].clone();
        let first = call(writer.call(0, 1, "f"));
        let id = first["id"].as_str().unwrap();
        assert!(id.len() == 29 && id.starts_with("call_"));
        assert_eq!(
            first,
            json!({"index": 1, "id": id, "type": "function", "function": {"name": "f", "arguments": ""}})
        );
        assert_eq!(
            call(writer.arguments(0, 1, "{")),
            json!({"index": 1, "function": {"arguments": "{"}})
        );
        assert_ne!(call(writer.call(1, 1, "f"))["id"], first["id"]);
    }

    #[test]
    fn texts_have_openais_older_form() {
        let writer = ChunkWriter::new(ChunkKind::Text, "req_1", 7, "m");
        assert_eq!(writer.role(0), None);
        let whole = |text: &str, finish: Value| {
            json!({"id": "cmpl-req_1", "object": "text_completion", "created": 7, "model": "m",
                "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": finish}]})
        };
        assert_eq!(parse(writer.content(0, "a", None)), whole("a", Value::Null));
        assert_eq!(
            parse(writer.finish(0, FinishReason::Length)),
            whole("", json!("length"))
        );
    }
}
