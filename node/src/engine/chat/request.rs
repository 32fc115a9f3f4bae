//! What a chat completion request asks for, and the refusal of what this engine can't honour. Pure.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::engine::EngineError;
use crate::engine::refusal::{invalid_request, unsupported_parameter};

/// Most stop strings of a request.
const STOPS_MAX: usize = 16;
/// Most bytes of a stop string.
const STOP_MAX_BYTES: usize = 1_024;

/// A message as chat templates know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Message {
    pub(super) role: &'static str,
    pub(super) content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
}

/// What is asked for. What the program left out is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ChatRequest {
    pub(super) messages: Vec<Message>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) presence_penalty: Option<f64>,
    pub(super) seed: Option<u64>,
    pub(super) stops: Vec<String>,
    pub(super) max_tokens: Option<u64>,
    /// Extra variables of the chat template (`chat_template_kwargs`, as vLLM has it).
    pub(super) template_arguments: Map<String, Value>,
}

impl ChatRequest {
    /// Reads an OpenAI request body. Fields that change nothing about the answer are ignored.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub(super) fn parse(body: &Value) -> Result<Self, EngineError> {
        let fields = body
            .as_object()
            .ok_or_else(|| invalid_request("body", "the body must be a JSON object"))?;
        refuse_unsupported(fields)?;
        let number = |field: &str, least: f64, most: f64| number(fields, field, least, most);
        Ok(Self {
            messages: messages(fields)?,
            temperature: number("temperature", 0.0, 2.0)?,
            top_p: number("top_p", 0.0, 1.0)?,
            frequency_penalty: number("frequency_penalty", -2.0, 2.0)?,
            presence_penalty: number("presence_penalty", -2.0, 2.0)?,
            seed: seed(fields)?,
            stops: stops(fields)?,
            max_tokens: match max_tokens(fields, "max_completion_tokens")? {
                Some(limit) => Some(limit),
                None => max_tokens(fields, "max_tokens")?,
            },
            template_arguments: template_arguments(fields)?,
        })
    }
}

/// A field that is there and not null.
fn present<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// Refuses what would change the answer and is not done here: dropping it in silence would be a wrong answer.
fn refuse_unsupported(fields: &Map<String, Value>) -> Result<(), EngineError> {
    let is_empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    };
    let asks_for_nothing = |field: &str, value: &Value| match field {
        "n" => value == 1,
        "logprobs" | "continue_final_message" => value == false,
        "add_generation_prompt" => value == true,
        "top_logprobs" => value == 0,
        "tool_choice" | "function_call" => value == "none" || value == "auto",
        "response_format" => value.get("type").is_some_and(|kind| kind == "text"),
        "modalities" => value
            .as_array()
            .is_some_and(|items| items.iter().all(|item| item == "text")),
        _ => is_empty(value),
    };
    let changing = [
        "n",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "response_format",
        "modalities",
        "audio",
        "web_search_options",
        "continue_final_message",
        "add_generation_prompt",
    ];
    for field in changing {
        if present(fields, field).is_some_and(|value| !asks_for_nothing(field, value)) {
            return Err(unsupported_parameter(field));
        }
    }
    Ok(())
}

fn messages(fields: &Map<String, Value>) -> Result<Vec<Message>, EngineError> {
    let list = present(fields, "messages")
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty())
        .ok_or_else(|| invalid_request("messages", "'messages' must be a list with at least one message"))?;
    list.iter()
        .enumerate()
        .map(|(index, message)| read_message(index, message))
        .collect()
}

fn read_message(index: usize, message: &Value) -> Result<Message, EngineError> {
    let field = |name: &str| format!("messages[{index}].{name}");
    let role = match message.get("role").and_then(Value::as_str) {
        // Templates of open models know the role by its older name.
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => return Err(unsupported_parameter(field("role"))),
        _ => {
            let message = "a message's 'role' must be 'system', 'developer', 'user' or 'assistant'";
            return Err(invalid_request(field("role"), message));
        }
    };
    for tool_field in ["tool_calls", "function_call", "audio"] {
        if message
            .get(tool_field)
            .is_some_and(|calls| !calls.is_null() && calls != &Value::Array(Vec::new()))
        {
            return Err(unsupported_parameter(field(tool_field)));
        }
    }
    let content = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => join_parts(parts, &field("content"))?,
        _ => {
            let message = "a message's 'content' must be a string or a list of text parts";
            return Err(invalid_request(field("content"), message));
        }
    };
    let name = message.get("name").and_then(Value::as_str).map(str::to_owned);
    Ok(Message { role, content, name })
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

fn number(
    fields: &Map<String, Value>,
    field: &str,
    least: f64,
    most: f64,
) -> Result<Option<f64>, EngineError> {
    let Some(value) = present(fields, field) else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(invalid_request(
            field,
            format!("'{field}' must be a number between {least} and {most}"),
        )),
    }
}

fn seed(fields: &Map<String, Value>) -> Result<Option<u64>, EngineError> {
    let Some(value) = present(fields, "seed") else {
        return Ok(None);
    };
    let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    seed.map(Some)
        .ok_or_else(|| invalid_request("seed", "'seed' must be an integer of 64 bits"))
}

fn max_tokens(fields: &Map<String, Value>, field: &str) -> Result<Option<u64>, EngineError> {
    let Some(value) = present(fields, field) else {
        return Ok(None);
    };
    match value.as_u64() {
        Some(limit) if limit > 0 => Ok(Some(limit)),
        _ => Err(invalid_request(
            field,
            format!("'{field}' must be an integer of at least 1"),
        )),
    }
}

fn stops(fields: &Map<String, Value>) -> Result<Vec<String>, EngineError> {
    let refuse = || {
        let message = format!(
            "'stop' must be a string or a list of at most {STOPS_MAX} strings, each of 1 to {STOP_MAX_BYTES} bytes"
        );
        invalid_request("stop", message)
    };
    let list = match present(fields, "stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.as_slice(),
        Some(single) => std::slice::from_ref(single),
    };
    if list.len() > STOPS_MAX {
        return Err(refuse());
    }
    let read = |stop: &Value| match stop.as_str() {
        Some(text) if (1..=STOP_MAX_BYTES).contains(&text.len()) => Ok(text.to_owned()),
        _ => Err(refuse()),
    };
    list.iter().map(read).collect()
}

fn template_arguments(fields: &Map<String, Value>) -> Result<Map<String, Value>, EngineError> {
    match present(fields, "chat_template_kwargs") {
        None => Ok(Map::new()),
        Some(Value::Object(arguments)) => Ok(arguments.clone()),
        Some(_) => Err(invalid_request(
            "chat_template_kwargs",
            "'chat_template_kwargs' must be an object",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn with(field: &str, value: Value) -> Result<ChatRequest, EngineError> {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        body[field] = value;
        ChatRequest::parse(&body)
    }

    fn refused_param(result: Result<ChatRequest, EngineError>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.status, 400);
        error.param.unwrap()
    }

    #[test]
    fn a_plain_request_is_read_whole() {
        let body = json!({
            "model": "m", "stream": true, "stream_options": {"include_usage": true}, "user": "u",
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
                {"role": "user", "content": "hi", "name": "Ada"},
                {"role": "assistant", "content": "hello", "tool_calls": []},
            ],
            "temperature": 0, "top_p": 0.5, "seed": -1, "stop": "x", "max_tokens": 9, "max_completion_tokens": 7,
            "n": 1, "tools": [], "tool_choice": "auto", "logprobs": false, "logit_bias": {},
            "response_format": {"type": "text"}, "frequency_penalty": null, "metadata": {"a": "b"},
        });
        let request = ChatRequest::parse(&body).unwrap();
        assert_eq!(
            request.messages[0],
            Message {
                role: "system",
                content: "Be kind.".into(),
                name: None
            }
        );
        assert_eq!(request.messages[1].name.as_deref(), Some("Ada"));
        assert_eq!(
            (request.temperature, request.top_p, request.seed),
            (Some(0.0), Some(0.5), Some(u64::MAX))
        );
        assert_eq!(
            (request.stops, request.max_tokens),
            (vec!["x".to_owned()], Some(7))
        );
        assert_eq!(request.frequency_penalty, None);
    }

    #[test]
    fn what_can_not_be_honoured_is_refused_by_name() {
        for (field, value) in [
            ("n", json!(2)),
            ("tools", json!([{"type": "function"}])),
            ("tool_choice", json!("required")),
            ("tool_choice", json!({"type": "function"})),
            ("functions", json!([{}])),
            ("logprobs", json!(true)),
            ("top_logprobs", json!(3)),
            ("logit_bias", json!({"5": 1})),
            ("response_format", json!({"type": "json_object"})),
            ("modalities", json!(["text", "audio"])),
            ("audio", json!({"voice": "x"})),
            ("web_search_options", json!({"a": 1})),
            ("continue_final_message", json!(true)),
            ("add_generation_prompt", json!(false)),
        ] {
            let error = with(field, value).unwrap_err();
            assert_eq!(error.code, "unsupported_parameter", "{field}");
            assert_eq!(error.param.as_deref(), Some(field));
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (field, value) in [
            ("temperature", json!(2.01)),
            ("temperature", json!("hot")),
            ("top_p", json!(-0.1)),
            ("presence_penalty", json!(3)),
            ("seed", json!(1.5)),
            ("max_tokens", json!(0)),
            ("max_completion_tokens", json!(-3)),
            ("stop", json!("")),
            ("stop", json!([1])),
            ("stop", json!(vec!["x"; STOPS_MAX + 1])),
            ("stop", json!("x".repeat(STOP_MAX_BYTES + 1))),
            ("chat_template_kwargs", json!(1)),
            ("messages", json!([])),
            ("messages", json!("hi")),
        ] {
            assert_eq!(refused_param(with(field, value)), field);
        }
        assert_eq!(
            with("stop", json!(vec!["x".repeat(STOP_MAX_BYTES); STOPS_MAX]))
                .unwrap()
                .stops
                .len(),
            STOPS_MAX
        );
    }

    #[test]
    fn messages_that_can_not_be_read_are_refused_by_their_place() {
        for (message, param) in [
            (json!({"role": "wizard", "content": "x"}), "messages[0].role"),
            (json!({"role": "tool", "content": "x"}), "messages[0].role"),
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
                json!({"role": "assistant", "content": "x", "tool_calls": [{}]}),
                "messages[0].tool_calls",
            ),
        ] {
            assert_eq!(refused_param(with("messages", json!([message]))), param);
        }
        assert!(ChatRequest::parse(&json!([])).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("(role|content|type|text|[a-z]{1,3})", inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_of_any_field_is_read_or_refused_with_a_400(
            field in "(messages|n|stop|seed|temperature|tools|logit_bias|response_format|max_tokens|modalities|other)",
            value in any_json(),
        ) {
            if let Err(error) = with(&field, value) {
                prop_assert_eq!(error.status, 400);
                prop_assert!(error.param.is_some_and(|param| param.starts_with(&field)));
            }
        }
    }
}
