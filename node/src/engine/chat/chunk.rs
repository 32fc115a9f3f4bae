//! The `chat.completion.chunk` objects of one answer. Pure.

use serde::Serialize;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinishReason {
    /// The model, or a stop string, ended it.
    Stop,
    /// It is as long as it may be.
    Length,
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
struct Choice<'a> {
    index: u32,
    delta: Delta<'a>,
    finish_reason: Option<FinishReason>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// Writes the chunks of one answer.
pub(super) struct ChunkWriter {
    id: String,
    created: u64,
    model: String,
}

impl ChunkWriter {
    /// Chunks for one request; `created` is Unix time in seconds.
    pub(super) fn new(request_id: &str, created: u64, model: &str) -> Self {
        Self {
            id: format!("chatcmpl-{request_id}"),
            created,
            model: model.to_owned(),
        }
    }

    /// The first chunk, which says who speaks.
    pub(super) fn role(&self) -> Vec<u8> {
        self.write(
            Delta {
                role: Some("assistant"),
                content: Some(""),
            },
            None,
        )
    }

    /// A chunk of text.
    pub(super) fn content(&self, text: &str) -> Vec<u8> {
        self.write(
            Delta {
                role: None,
                content: Some(text),
            },
            None,
        )
    }

    /// The last chunk, which says why the answer ended.
    pub(super) fn finish(&self, reason: FinishReason) -> Vec<u8> {
        self.write(Delta::default(), Some(reason))
    }

    fn write(&self, delta: Delta<'_>, finish_reason: Option<FinishReason>) -> Vec<u8> {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices: [Choice {
                index: 0,
                delta,
                finish_reason,
            }],
        };
        // Strings and numbers always have a JSON form.
        serde_json::to_vec(&chunk).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn chunks_have_the_whole_schema_and_no_null_deltas() {
        let writer = ChunkWriter::new("req_1", 1_700_000_000, "m");
        let parse = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let whole = |delta: Value, finish: Value| {
            json!({
                "id": "chatcmpl-req_1", "object": "chat.completion.chunk", "created": 1_700_000_000,
                "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]
            })
        };
        assert_eq!(
            parse(writer.role()),
            whole(json!({"role": "assistant", "content": ""}), Value::Null)
        );
        assert_eq!(
            parse(writer.content("\"\n🙂")),
            whole(json!({"content": "\"\n🙂"}), Value::Null)
        );
        assert_eq!(
            parse(writer.finish(FinishReason::Stop)),
            whole(json!({}), json!("stop"))
        );
        assert_eq!(
            parse(writer.finish(FinishReason::Length)),
            whole(json!({}), json!("length"))
        );
    }
}
