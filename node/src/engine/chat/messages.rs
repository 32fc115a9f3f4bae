//! The messages of a chat request, as chat templates know them. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use super::fields::{Fields, present};
use crate::engine::EngineError;
use crate::engine::refusal::{invalid_request, unsupported_parameter};

/// A message as chat templates know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Message {
    pub(super) role: &'static str,
    pub(super) content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// Calls of tools, with their arguments as objects: that is what templates write as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_calls: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_call_id: Option<String>,
}

impl Message {
    /// Whether only a template that knows tools can render it.
    pub(super) fn is_about_tools(&self) -> bool {
        self.role == "tool" || self.tool_calls.is_some()
    }
}

/// Reads the messages.
///
/// # Errors
/// A 400 that names the field at fault.
pub(super) fn parse(fields: &Fields) -> Result<Vec<Message>, EngineError> {
    let list = present(fields, "messages")
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty())
        .ok_or_else(|| invalid_request("messages", "'messages' must be a list with at least one message"))?;
    let mut messages: Vec<Message> = Vec::with_capacity(list.len());
    for (index, message) in list.iter().enumerate() {
        let mut message = read_message(index, message)?;
        // Some templates write the tool's name beside its result.
        if message.role == "tool" && message.name.is_none() {
            message.name = called_name(&messages, message.tool_call_id.as_deref());
        }
        messages.push(message);
    }
    Ok(messages)
}

fn called_name(before: &[Message], id: Option<&str>) -> Option<String> {
    let mut calls = before
        .iter()
        .rev()
        .flat_map(|message| message.tool_calls.iter().flatten());
    let call = calls.find(|call| id.is_some() && call["id"].as_str() == id)?;
    call["function"]["name"].as_str().map(str::to_owned)
}

fn read_message(index: usize, message: &Value) -> Result<Message, EngineError> {
    let field = |name: &str| format!("messages[{index}].{name}");
    let role = match message.get("role").and_then(Value::as_str) {
        // Templates of open models know the role by its older name.
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool") => "tool",
        Some("function") => return Err(unsupported_parameter(field("role"))),
        _ => {
            let message = "a message's 'role' must be 'system', 'developer', 'user', 'assistant' or 'tool'";
            return Err(invalid_request(field("role"), message));
        }
    };
    for unsupported in ["function_call", "audio"] {
        if message.get(unsupported).is_some_and(|value| !value.is_null()) {
            return Err(unsupported_parameter(field(unsupported)));
        }
    }
    let tool_calls = match message.get("tool_calls") {
        None | Some(Value::Null) => None,
        Some(Value::Array(calls)) if calls.is_empty() => None,
        Some(Value::Array(calls)) if role == "assistant" => Some(read_calls(calls, &field("tool_calls"))?),
        Some(_) => {
            let message = "'tool_calls' must be a list, in a message of the assistant";
            return Err(invalid_request(field("tool_calls"), message));
        }
    };
    let content = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => join_parts(parts, &field("content"))?,
        None | Some(Value::Null) if tool_calls.is_some() => String::new(),
        _ => {
            let message = "a message's 'content' must be a string or a list of text parts";
            return Err(invalid_request(field("content"), message));
        }
    };
    let text = |name: &str| message.get(name).and_then(Value::as_str).map(str::to_owned);
    let tool_call_id = text("tool_call_id");
    if role == "tool" && tool_call_id.is_none() {
        let message = "a message of a tool must say in 'tool_call_id' which call it answers";
        return Err(invalid_request(field("tool_call_id"), message));
    }
    Ok(Message {
        role,
        content,
        name: text("name"),
        tool_calls,
        tool_call_id,
    })
}

fn read_calls(calls: &[Value], field: &str) -> Result<Vec<Value>, EngineError> {
    let read = |(index, call): (usize, &Value)| {
        let field = |name: &str| format!("{field}[{index}].{name}");
        let function = &call["function"];
        let name = function["name"].as_str().ok_or_else(|| {
            invalid_request(
                field("function.name"),
                "a tool call must have a function with a name",
            )
        })?;
        let arguments = match function["arguments"].as_str() {
            Some(text) if text.trim().is_empty() => Some(json!({})),
            Some(text) => serde_json::from_str(text).ok().filter(Value::is_object),
            None => None,
        };
        let arguments = arguments.ok_or_else(|| {
            let message = "the 'arguments' of a tool call must be the text of a JSON object";
            invalid_request(field("function.arguments"), message)
        })?;
        Ok(json!({
            "id": call["id"], "type": "function", "function": {"name": name, "arguments": arguments},
        }))
    };
    calls.iter().enumerate().map(read).collect()
}

fn join_parts(parts: &[Value], field: &str) -> Result<String, EngineError> {
    let mut content = String::new();
    for (index, part) in parts.iter().enumerate() {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
        match (kind, part.get("text").and_then(Value::as_str)) {
            ("text", Some(text)) => content.push_str(text),
            ("text", None) => {
                return Err(invalid_request(
                    format!("{field}[{index}].text"),
                    "a text part must have a 'text'",
                ));
            }
            _ => return Err(unsupported_parameter(format!("{field}[{index}].type"))),
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: Value) -> Result<Vec<Message>, EngineError> {
        parse(json!({"messages": messages}).as_object().unwrap())
    }

    #[test]
    fn a_conversation_with_a_tool_is_read() {
        let call = json!({"id": "call_1", "type": "function",
            "function": {"name": "weather", "arguments": "{\"city\":\"Bern\"}"}});
        let messages = read(json!([
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
            {"role": "user", "content": "hi", "name": "Ada"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ]))
        .unwrap();
        assert_eq!(
            (messages[0].role, messages[0].content.as_str()),
            ("system", "Be kind.")
        );
        assert_eq!(messages[1].name.as_deref(), Some("Ada"));
        let calls = messages[2].tool_calls.as_ref().unwrap();
        assert_eq!(calls[0]["function"]["arguments"], json!({"city": "Bern"}));
        assert_eq!(
            (messages[3].role, messages[3].name.as_deref()),
            ("tool", Some("weather"))
        );
        assert!(
            messages[2].is_about_tools() && messages[3].is_about_tools() && !messages[1].is_about_tools()
        );
    }

    #[test]
    fn messages_that_can_not_be_read_are_refused_by_their_place() {
        let call =
            |function: Value| json!({"role": "assistant", "tool_calls": [{"id": "a", "function": function}]});
        for (message, param) in [
            (json!({"role": "wizard", "content": "x"}), "messages[0].role"),
            (json!({"role": "function", "content": "x"}), "messages[0].role"),
            (
                json!({"role": "tool", "content": "x"}),
                "messages[0].tool_call_id",
            ),
            (json!({"content": "x"}), "messages[0].role"),
            (json!({"role": "user"}), "messages[0].content"),
            (json!({"role": "user", "content": null}), "messages[0].content"),
            (
                json!({"role": "user", "content": [{"type": "image_url"}]}),
                "messages[0].content[0].type",
            ),
            (
                json!({"role": "user", "content": [{"type": "text"}]}),
                "messages[0].content[0].text",
            ),
            (
                json!({"role": "user", "content": "x", "tool_calls": [{}]}),
                "messages[0].tool_calls",
            ),
            (
                json!({"role": "assistant", "tool_calls": [{}]}),
                "messages[0].tool_calls[0].function.name",
            ),
            (
                call(json!({"name": "f", "arguments": "[1]"})),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (
                call(json!({"name": "f", "arguments": {}})),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (
                json!({"role": "assistant", "content": "x", "audio": {}}),
                "messages[0].audio",
            ),
        ] {
            let error = read(json!([message])).unwrap_err();
            assert_eq!(
                (error.status, error.param.as_deref()),
                (400, Some(param)),
                "{message}"
            );
        }
        assert!(read(json!([])).is_err() && read(json!("hi")).is_err());
    }
}
