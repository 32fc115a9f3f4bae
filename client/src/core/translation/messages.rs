//! The answer of Anthropic's `/v1/messages`: a chat completion becomes a message, as events or whole, and failures
//! get Anthropic's shape.
//!
//! Source: Anthropic's API reference, "Messages", "Streaming messages" and "Errors" (2026).

use std::collections::BTreeMap;

use gristmill_protocol::job::RequestId;
use serde_json::{Map, Value, json};

use crate::core::failure::ApiFailure;
use crate::core::translation::parts::{Failure, Part};
use crate::core::translation::write_named_event;

/// Keeps a silent connection alive, and follows the beginning of every message.
pub const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// A message on its way to the program.
#[derive(Clone, Debug, PartialEq)]
pub struct MessagesAnswer {
    request_id: RequestId,
    model: String,
    has_begun: bool,
    blocks: Vec<Block>,
    /// The place of the block that still grows.
    open: Option<usize>,
    /// The places of tool calls, by their index in the chat.
    calls: BTreeMap<u64, usize>,
    finish: Option<String>,
    stop: Option<String>,
    usage: Map<String, Value>,
    gristmill: Value,
    failure: Option<Failure>,
    has_ended: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Block {
    Thinking(String),
    Text(String),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

impl MessagesAnswer {
    /// An answer of which nothing has come yet.
    pub(super) fn new(model: String) -> Self {
        Self {
            request_id: RequestId::from_random([0; 16]),
            model,
            has_begun: false,
            blocks: Vec::new(),
            open: None,
            calls: BTreeMap::new(),
            finish: None,
            stop: None,
            usage: Map::new(),
            gristmill: Value::Null,
            failure: None,
            has_ended: false,
        }
    }

    /// The same for a request with an id.
    #[must_use]
    pub fn of_request(mut self, request_id: RequestId) -> Self {
        self.request_id = request_id;
        self
    }

    /// Takes a part of the chat; appends the events that follow from it.
    pub(super) fn take(&mut self, part: Part, out: &mut Vec<u8>) {
        if self.failure.is_some() || self.has_ended {
            return;
        }
        if let Part::Failed(failure) = part {
            return self.fail(&failure, out);
        }
        self.begin(out);
        match part {
            Part::Begin | Part::Failed(_) => {}
            Part::Reasoning(text) => self.grow(&Block::Thinking(String::new()), &text, out),
            // A refusal is what the model says, and the reason to stop tells that it is one.
            Part::Text { text, .. } | Part::Refusal(text) => {
                self.grow(&Block::Text(String::new()), &text, out);
            }
            Part::Call { index, id, name } => {
                let arguments = String::new();
                self.open_block(Block::Call { id, name, arguments }, out);
                self.calls.insert(index, self.blocks.len() - 1);
            }
            Part::Arguments { index, text } => self.arguments(index, &text, out),
            Part::Finish { reason, stop } => (self.finish, self.stop) = (Some(reason), stop),
            Part::Usage(usage) => self.usage = usage,
            Part::Gristmill(gristmill) => self.gristmill = gristmill,
            Part::End => self.end(out),
        }
    }

    /// The whole message.
    ///
    /// # Errors
    /// [`ApiFailure`] where the chat says what no message can.
    pub(super) fn finish(&mut self) -> Result<Value, ApiFailure> {
        if let Some(failure) = &self.failure {
            return Err(ApiFailure::provider_failed(failure.message.clone()));
        }
        let mut message = self.message();
        let mut content = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            content.push(block.whole()?);
        }
        message.insert("content".into(), content.into());
        message.insert("stop_reason".into(), json!(self.stop_reason()));
        message.insert("stop_sequence".into(), json!(self.stop));
        message.insert("usage".into(), self.usage());
        if !self.gristmill.is_null() {
            message.insert("gristmill".into(), self.gristmill.clone());
        }
        Ok(message.into())
    }

    /// Appends the event of a failure.
    pub(super) fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        if self.has_ended {
            return;
        }
        self.has_ended = true;
        self.failure = Some(failure.clone());
        let error = json!({"type": "api_error", "message": failure.message, "code": failure.code});
        event("error", [("error", error)], out);
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        event("message_start", [("message", self.message().into())], out);
        out.extend_from_slice(PING);
    }

    /// The message without its content. Its usage is known at its end only.
    fn message(&self) -> Map<String, Value> {
        Map::from_iter([
            ("id".to_owned(), json!(format!("msg_{}", self.request_id))),
            ("type".to_owned(), json!("message")),
            ("role".to_owned(), json!("assistant")),
            ("model".to_owned(), json!(self.model)),
            ("content".to_owned(), json!([])),
            ("stop_reason".to_owned(), Value::Null),
            ("stop_sequence".to_owned(), Value::Null),
            ("usage".to_owned(), self.usage()),
        ])
    }

    fn usage(&self) -> Value {
        let count = |name: &str| self.usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        let details = self.usage.get("prompt_tokens_details");
        let cached = details
            .and_then(|details| details.get("cached_tokens")?.as_u64())
            .unwrap_or(0);
        // Anthropic counts what was read from a cache apart.
        json!({
            "input_tokens": count("prompt_tokens").saturating_sub(cached),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": count("completion_tokens"),
        })
    }

    fn stop_reason(&self) -> &'static str {
        match self.finish.as_deref() {
            Some("length") => "max_tokens",
            Some("tool_calls" | "function_call") => "tool_use",
            Some("content_filter") => "refusal",
            _ if self.stop.is_some() => "stop_sequence",
            // Some servers say "stop" also after tool calls.
            _ if matches!(self.blocks.last(), Some(Block::Call { .. })) => "tool_use",
            _ => "end_turn",
        }
    }

    /// Appends text to an open block of this kind, or to a new one.
    fn grow(&mut self, kind: &Block, added: &str, out: &mut Vec<u8>) {
        let is_same =
            |open: usize| std::mem::discriminant(&self.blocks[open]) == std::mem::discriminant(kind);
        if !self.open.is_some_and(is_same) {
            self.open_block(kind.clone(), out);
        }
        let Some(place) = self.open else { return };
        let delta = match &mut self.blocks[place] {
            Block::Thinking(text) => {
                text.push_str(added);
                json!({"type": "thinking_delta", "thinking": added})
            }
            Block::Text(text) => {
                text.push_str(added);
                json!({"type": "text_delta", "text": added})
            }
            Block::Call { .. } => return,
        };
        event(
            "content_block_delta",
            [("index", json!(place)), ("delta", delta)],
            out,
        );
    }

    fn open_block(&mut self, block: Block, out: &mut Vec<u8>) {
        self.close(out);
        let place = self.blocks.len();
        let empty = block.empty();
        self.blocks.push(block);
        self.open = Some(place);
        event(
            "content_block_start",
            [("index", json!(place)), ("content_block", empty)],
            out,
        );
    }

    fn arguments(&mut self, index: u64, added: &str, out: &mut Vec<u8>) {
        let place = self.calls.get(&index).copied();
        let (Some(place), true) = (place, place == self.open) else {
            let failure =
                ApiFailure::provider_failed("the provider mixed the arguments of several tool calls");
            return self.fail(&(&failure).into(), out);
        };
        if let Block::Call { arguments, .. } = &mut self.blocks[place] {
            arguments.push_str(added);
        }
        let delta = json!({"type": "input_json_delta", "partial_json": added});
        event(
            "content_block_delta",
            [("index", json!(place)), ("delta", delta)],
            out,
        );
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(place) = self.open.take() {
            event("content_block_stop", [("index", json!(place))], out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        self.has_ended = true;
        let delta = json!({"stop_reason": self.stop_reason(), "stop_sequence": self.stop});
        let mut fields = vec![("delta", delta), ("usage", self.usage())];
        if !self.gristmill.is_null() {
            fields.push(("gristmill", self.gristmill.clone()));
        }
        event("message_delta", fields, out);
        event("message_stop", [], out);
    }
}

impl Block {
    fn empty(&self) -> Value {
        match self {
            Self::Thinking(_) => json!({"type": "thinking", "thinking": "", "signature": ""}),
            Self::Text(_) => json!({"type": "text", "text": ""}),
            Self::Call { id, name, .. } => json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
        }
    }

    fn whole(&self) -> Result<Value, ApiFailure> {
        let mut block = self.empty();
        match self {
            Self::Thinking(text) => block["thinking"] = json!(text),
            Self::Text(text) => block["text"] = json!(text),
            Self::Call { arguments, .. } if arguments.is_empty() => {}
            Self::Call { arguments, .. } => {
                let input: Map<String, Value> = serde_json::from_str(arguments).map_err(|_| {
                    ApiFailure::provider_failed(
                        "the model called a tool with arguments that are no JSON object",
                    )
                })?;
                block["input"] = input.into();
            }
        }
        Ok(block)
    }
}

fn event<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, Value)>, out: &mut Vec<u8>) {
    let mut event = Map::from_iter([("type".to_owned(), json!(name))]);
    event.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    write_named_event(name, &event, out);
}

/// A failure as Anthropic's clients read it, with our own code beside.
#[must_use]
pub fn failure_json(failure: &ApiFailure, request_id: Option<&RequestId>) -> String {
    let kind = match failure.status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 | 405 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    };
    json!({
        "type": "error",
        "error": {"type": kind, "message": failure.message, "code": failure.code, "param": failure.param},
        "request_id": request_id,
    })
    .to_string()
}

#[cfg(test)]
mod tests;
