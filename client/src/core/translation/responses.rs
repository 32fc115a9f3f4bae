//! The answer of `/v1/responses`: a chat completion becomes a response, as events in OpenAI's order or whole.
//!
//! Source: OpenAI's API reference, "The response object" and "Streaming events" (2026). Nothing is stored, so
//! `store` is false in every answer.

use std::collections::BTreeMap;

use gristmill_protocol::job::RequestId;
use serde_json::{Map, Value, json};

use crate::core::failure::ApiFailure;
use crate::core::translation::parts::{Failure, Part};
use crate::core::translation::write_named_event;

/// A response on its way to the program.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponsesAnswer {
    request_id: RequestId,
    created_at: u64,
    /// What the program asked for, as a response repeats it.
    asked: Map<String, Value>,
    sequence: u64,
    has_begun: bool,
    items: Vec<Item>,
    /// The place of the item that still grows.
    open: Option<usize>,
    /// The places of tool calls, by their index in the chat.
    calls: BTreeMap<u64, usize>,
    finish: Option<String>,
    usage: Map<String, Value>,
    gristmill: Value,
    failure: Option<Failure>,
    has_ended: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Item {
    Reasoning(String),
    Text {
        text: String,
        logprobs: Vec<Value>,
    },
    Refusal(String),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

impl ResponsesAnswer {
    /// An answer of which nothing has come yet.
    pub(super) fn new(asked: Map<String, Value>) -> Self {
        Self {
            request_id: RequestId::from_random([0; 16]),
            created_at: 0,
            asked,
            sequence: 0,
            has_begun: false,
            items: Vec::new(),
            open: None,
            calls: BTreeMap::new(),
            finish: None,
            usage: Map::new(),
            gristmill: Value::Null,
            failure: None,
            has_ended: false,
        }
    }

    /// The same for a request with an id, asked at a time in Unix seconds.
    #[must_use]
    pub fn of_request(mut self, request_id: RequestId, now_seconds: u64) -> Self {
        self.request_id = request_id;
        self.created_at = now_seconds;
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
            Part::Reasoning(text) => {
                self.grow(&Item::Reasoning(String::new()), out);
                self.delta("response.reasoning_text.delta", &text, Vec::new(), out);
            }
            Part::Text { text, logprobs } => {
                let empty = Item::Text {
                    text: String::new(),
                    logprobs: Vec::new(),
                };
                self.grow(&empty, out);
                self.delta("response.output_text.delta", &text, logprobs, out);
            }
            Part::Refusal(text) => {
                self.grow(&Item::Refusal(String::new()), out);
                self.delta("response.refusal.delta", &text, Vec::new(), out);
            }
            Part::Call { index, id, name } => self.begin_call(index, id, name, out),
            Part::Arguments { index, text } => self.arguments(index, &text, out),
            Part::Finish { reason, .. } => self.finish = Some(reason),
            Part::Usage(usage) => self.usage = usage,
            Part::Gristmill(gristmill) => self.gristmill = gristmill,
            Part::End => self.end(out),
        }
    }

    /// The whole response.
    ///
    /// # Errors
    /// [`ApiFailure`] where the chat says what no response can.
    pub(super) fn finish(&mut self) -> Result<Value, ApiFailure> {
        match &self.failure {
            Some(failure) => Err(ApiFailure::provider_failed(failure.message.clone())),
            None => Ok(self.response(self.status()).into()),
        }
    }

    /// Appends the events of a failure: the response's own, and one with the error where SDKs look for it.
    pub(super) fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        if self.has_ended {
            return;
        }
        self.begin(out);
        self.failure = Some(failure.clone());
        self.has_ended = true;
        let mut response = self.response("failed");
        response.insert(
            "error".into(),
            json!({"code": failure.code, "message": failure.message}),
        );
        self.event("response.failed", [("response", response.into())], out);
        let error = json!({"message": failure.message, "type": failure.kind, "param": failure.param,
            "code": failure.code});
        self.event(
            "error",
            [
                ("code", json!(failure.code)),
                ("message", json!(failure.message)),
                ("param", json!(failure.param)),
                ("error", error),
            ],
            out,
        );
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        for name in ["response.created", "response.in_progress"] {
            let response = self.response("in_progress");
            self.event(name, [("response", response.into())], out);
        }
    }

    /// Makes the open item one of the same kind as `kind`.
    fn grow(&mut self, kind: &Item, out: &mut Vec<u8>) {
        let is_same = |open: usize| std::mem::discriminant(&self.items[open]) == std::mem::discriminant(kind);
        if !self.open.is_some_and(is_same) {
            self.open_item(kind.clone(), out);
        }
    }

    fn open_item(&mut self, item: Item, out: &mut Vec<u8>) {
        self.close(out);
        let place = self.items.len();
        self.items.push(item);
        self.open = Some(place);
        let mut added = self.item(place, "in_progress");
        if let Some(content) = added.get_mut("content") {
            *content = json!([]);
        }
        self.event(
            "response.output_item.added",
            [("output_index", json!(place)), ("item", added.into())],
            out,
        );
        if let Some(part) = self.items[place].part() {
            self.part_event("response.content_part.added", place, [("part", part)], out);
        }
    }

    fn delta(&mut self, name: &str, added: &str, added_logprobs: Vec<Value>, out: &mut Vec<u8>) {
        let Some(place) = self.open else { return };
        let mut fields = vec![("delta", json!(added))];
        match &mut self.items[place] {
            Item::Reasoning(text) | Item::Refusal(text) => text.push_str(added),
            Item::Text { text, logprobs } => {
                text.push_str(added);
                fields.push(("logprobs", json!(added_logprobs)));
                logprobs.extend(added_logprobs);
            }
            Item::Call { .. } => return,
        }
        self.part_event(name, place, fields, out);
    }

    fn begin_call(&mut self, index: u64, id: String, name: String, out: &mut Vec<u8>) {
        let item = Item::Call {
            id,
            name,
            arguments: String::new(),
        };
        self.open_item(item, out);
        self.calls.insert(index, self.items.len() - 1);
    }

    fn arguments(&mut self, index: u64, added: &str, out: &mut Vec<u8>) {
        let place = self.calls.get(&index).copied();
        let (Some(place), true) = (place, place == self.open) else {
            let failure =
                ApiFailure::provider_failed("the provider mixed the arguments of several tool calls");
            return self.fail(&(&failure).into(), out);
        };
        if let Item::Call { arguments, .. } = &mut self.items[place] {
            arguments.push_str(added);
        }
        let item_id = self.item_id(place);
        self.event(
            "response.function_call_arguments.delta",
            [
                ("item_id", json!(item_id)),
                ("output_index", json!(place)),
                ("delta", json!(added)),
            ],
            out,
        );
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(place) = self.open.take() else { return };
        match self.items[place].clone() {
            Item::Reasoning(text) => {
                self.part_event(
                    "response.reasoning_text.done",
                    place,
                    [("text", json!(text))],
                    out,
                );
            }
            Item::Refusal(text) => {
                self.part_event("response.refusal.done", place, [("refusal", json!(text))], out);
            }
            Item::Text { text, logprobs } => {
                let fields = [("text", json!(text)), ("logprobs", json!(logprobs))];
                self.part_event("response.output_text.done", place, fields, out);
            }
            Item::Call { name, arguments, .. } => {
                let item_id = self.item_id(place);
                self.event(
                    "response.function_call_arguments.done",
                    [
                        ("item_id", json!(item_id)),
                        ("output_index", json!(place)),
                        ("name", json!(name)),
                        ("arguments", json!(arguments)),
                    ],
                    out,
                );
            }
        }
        if let Some(part) = self.items[place].part() {
            self.part_event("response.content_part.done", place, [("part", part)], out);
        }
        let item = self.item(place, "completed");
        self.event(
            "response.output_item.done",
            [("output_index", json!(place)), ("item", item.into())],
            out,
        );
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        self.has_ended = true;
        let status = self.status();
        let response = self.response(status);
        let name = format!("response.{status}");
        self.event(&name, [("response", response.into())], out);
    }

    fn status(&self) -> &'static str {
        match self.finish.as_deref() {
            Some("length" | "content_filter") => "incomplete",
            _ => "completed",
        }
    }

    /// The response object as it is now.
    fn response(&self, status: &str) -> Map<String, Value> {
        let reason = match self.finish.as_deref() {
            Some("length") => json!({"reason": "max_output_tokens"}),
            Some("content_filter") => json!({"reason": "content_filter"}),
            _ => Value::Null,
        };
        let is_running = status == "in_progress";
        let output = (0..self.items.len()).map(|place| Value::from(self.item(place, "completed")));
        let mut response = Map::from_iter([
            ("id".to_owned(), json!(format!("resp_{}", self.request_id))),
            ("object".to_owned(), json!("response")),
            ("created_at".to_owned(), json!(self.created_at)),
            ("status".to_owned(), json!(status)),
            ("error".to_owned(), Value::Null),
            (
                "incomplete_details".to_owned(),
                if is_running { Value::Null } else { reason },
            ),
            ("output".to_owned(), output.collect()),
        ]);
        response.extend(self.asked.clone());
        response.insert(
            "usage".into(),
            if is_running { Value::Null } else { self.usage() },
        );
        if !self.gristmill.is_null() {
            response.insert("gristmill".into(), self.gristmill.clone());
        }
        response
    }

    fn usage(&self) -> Value {
        if self.usage.is_empty() {
            return Value::Null;
        }
        let count = |name: &str| self.usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        let detail = |group: &str, name: &str| {
            let group = self.usage.get(group);
            group.and_then(|group| group.get(name)?.as_u64()).unwrap_or(0)
        };
        json!({
            "input_tokens": count("prompt_tokens"),
            "input_tokens_details": {"cached_tokens": detail("prompt_tokens_details", "cached_tokens")},
            "output_tokens": count("completion_tokens"),
            "output_tokens_details": {"reasoning_tokens": detail("completion_tokens_details", "reasoning_tokens")},
            "total_tokens": count("total_tokens"),
        })
    }

    fn item_id(&self, place: usize) -> String {
        let prefix = match self.items[place] {
            Item::Reasoning(_) => "rs",
            Item::Text { .. } | Item::Refusal(_) => "msg",
            Item::Call { .. } => "fc",
        };
        format!("{prefix}_{}_{place}", self.request_id)
    }

    fn item(&self, place: usize, status: &str) -> Map<String, Value> {
        let id = self.item_id(place);
        let item = match &self.items[place] {
            item @ Item::Reasoning(_) => json!({
                "id": id, "type": "reasoning", "summary": [], "content": [item.part()], "status": status,
            }),
            item @ (Item::Text { .. } | Item::Refusal(_)) => json!({
                "id": id, "type": "message", "status": status, "role": "assistant", "content": [item.part()],
            }),
            Item::Call {
                id: call_id,
                name,
                arguments,
            } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
                "arguments": arguments,
            }),
        };
        match item {
            Value::Object(item) => item,
            _ => Map::new(),
        }
    }

    fn part_event<'a>(
        &mut self,
        name: &str,
        place: usize,
        fields: impl IntoIterator<Item = (&'a str, Value)>,
        out: &mut Vec<u8>,
    ) {
        let item_id = self.item_id(place);
        let head = [
            ("item_id", json!(item_id)),
            ("output_index", json!(place)),
            ("content_index", json!(0)),
        ];
        self.event(name, head.into_iter().chain(fields), out);
    }

    fn event<'a>(
        &mut self,
        name: &str,
        fields: impl IntoIterator<Item = (&'a str, Value)>,
        out: &mut Vec<u8>,
    ) {
        let mut event = Map::from_iter([
            ("type".to_owned(), json!(name)),
            ("sequence_number".to_owned(), json!(self.sequence)),
        ]);
        self.sequence += 1;
        event.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
        write_named_event(name, &event, out);
    }
}

impl Item {
    /// The one part of its content; tool calls have none.
    fn part(&self) -> Option<Value> {
        match self {
            Self::Reasoning(text) => Some(json!({"type": "reasoning_text", "text": text})),
            Self::Text { text, logprobs } => {
                Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}))
            }
            Self::Refusal(text) => Some(json!({"type": "refusal", "refusal": text})),
            Self::Call { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
