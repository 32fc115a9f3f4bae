//! What a chat completion request asks for, and the refusal of what this engine can't honour. Pure.

use serde_json::{Map, Value};

use super::fields::{self, Fields, present};
use super::messages::{self, Message};
use super::options::Options;
use super::tool_request::{ToolChoice, ToolRequest};
use crate::engine::EngineError;
use crate::engine::refusal::{invalid_request, unsupported_parameter};

/// Most alternatives to a token that a chat request may ask for, as OpenAI has it.
const TOP_LOGPROBS_MAX: u64 = 20;
/// Fields that change the answer and that no built-in model honours.
const UNSUPPORTED: [&str; 5] = [
    "functions",
    "function_call",
    "modalities",
    "audio",
    "web_search_options",
];

/// What the answer must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum ResponseFormat {
    #[default]
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON of a schema; `is_strict` where that must hold whatever it takes.
    JsonSchema { schema: Value, is_strict: bool },
}

/// How the prompt ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PromptEnd {
    /// With the beginning of the assistant's turn.
    #[default]
    Turn,
    /// With the last message.
    LastMessage,
    /// Within the last message, which the answer goes on with.
    WithinLastMessage,
}

/// What is asked for. What the program left out is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ChatRequest {
    pub(super) messages: Vec<Message>,
    pub(super) options: Options,
    pub(super) max_tokens: Option<u64>,
    /// Whether the log-probabilities of tokens are wanted, and of how many alternatives to each.
    pub(super) logprobs: Option<usize>,
    pub(super) tools: ToolRequest,
    pub(super) format: ResponseFormat,
    pub(super) end: PromptEnd,
    /// Extra variables of the chat template (`chat_template_kwargs`, as vLLM has it).
    pub(super) template_arguments: Map<String, Value>,
}

impl ChatRequest {
    /// Reads an OpenAI request body. Fields that change nothing about the answer are ignored.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub(super) fn parse(body: &Value) -> Result<Self, EngineError> {
        let fields = fields::of(body)?;
        fields::refuse_unsupported(fields, &UNSUPPORTED)?;
        let request = Self {
            messages: messages::parse(fields)?,
            options: Options::parse(fields)?,
            max_tokens: match fields::integer(fields, "max_completion_tokens", 1, u64::MAX)? {
                Some(limit) => Some(limit),
                None => fields::integer(fields, "max_tokens", 1, u64::MAX)?,
            },
            logprobs: logprobs(fields)?,
            tools: ToolRequest::parse(fields)?,
            format: response_format(fields)?,
            end: prompt_end(fields)?,
            template_arguments: template_arguments(fields)?,
        };
        request.check()?;
        Ok(request)
    }

    /// Refuses fields that contradict each other.
    fn check(&self) -> Result<(), EngineError> {
        let is_forced = self.tools.choice != ToolChoice::Auto;
        if is_forced && self.format != ResponseFormat::Text {
            let message = "an answer can't be both a forced tool call and of a 'response_format'";
            return Err(invalid_request("response_format", message));
        }
        if self.end != PromptEnd::WithinLastMessage {
            return Ok(());
        }
        let can_go_on = self
            .messages
            .last()
            .is_some_and(|last| last.role == "assistant" && last.tool_calls.is_none());
        if !can_go_on {
            let message = "to be continued, the last message must be the assistant's, with text alone";
            return Err(invalid_request("continue_final_message", message));
        }
        if is_forced {
            let message = "a text that goes on can't be a forced tool call";
            return Err(invalid_request("tool_choice", message));
        }
        Ok(())
    }
}

fn logprobs(fields: &Fields) -> Result<Option<usize>, EngineError> {
    let wanted = fields::flag(fields, "logprobs")?.unwrap_or(false);
    let top = fields::integer(fields, "top_logprobs", 0, TOP_LOGPROBS_MAX)?;
    if top.is_some_and(|top| top > 0) && !wanted {
        let message = "'top_logprobs' needs 'logprobs' to be true";
        return Err(invalid_request("top_logprobs", message));
    }
    Ok(wanted.then(|| usize::try_from(top.unwrap_or(0)).unwrap_or(0)))
}

fn response_format(fields: &Fields) -> Result<ResponseFormat, EngineError> {
    let Some(format) = present(fields, "response_format") else {
        return Ok(ResponseFormat::Text);
    };
    match format["type"].as_str() {
        Some("text") => Ok(ResponseFormat::Text),
        Some("json_object") => Ok(ResponseFormat::JsonObject),
        Some("json_schema") => {
            let field = "response_format.json_schema";
            let named = format["json_schema"]
                .as_object()
                .ok_or_else(|| invalid_request(field, "'json_schema' must be an object with a 'schema'"))?;
            let schema = match present(named, "schema") {
                Some(schema @ Value::Object(_)) => schema.clone(),
                _ => {
                    let message = "'schema' must be a JSON schema: an object";
                    return Err(invalid_request(format!("{field}.schema"), message));
                }
            };
            let is_strict = match present(named, "strict") {
                None => false,
                Some(Value::Bool(is_strict)) => *is_strict,
                Some(_) => {
                    let message = "'strict' must be true or false";
                    return Err(invalid_request(format!("{field}.strict"), message));
                }
            };
            Ok(ResponseFormat::JsonSchema { schema, is_strict })
        }
        Some(_) => Err(unsupported_parameter("response_format")),
        None => {
            let message = "'response_format' must have a 'type' of 'text', 'json_object' or 'json_schema'";
            Err(invalid_request("response_format", message))
        }
    }
}

fn prompt_end(fields: &Fields) -> Result<PromptEnd, EngineError> {
    let continues = fields::flag(fields, "continue_final_message")?.unwrap_or(false);
    let opens_turn = fields::flag(fields, "add_generation_prompt")?;
    match (continues, opens_turn) {
        (true, Some(true)) => {
            let message = "'add_generation_prompt' must be false where 'continue_final_message' is true";
            Err(invalid_request("add_generation_prompt", message))
        }
        (true, _) => Ok(PromptEnd::WithinLastMessage),
        (false, Some(false)) => Ok(PromptEnd::LastMessage),
        (false, _) => Ok(PromptEnd::Turn),
    }
}

fn template_arguments(fields: &Fields) -> Result<Map<String, Value>, EngineError> {
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
            "messages": [{"role": "user", "content": "hi"}],
            "temperature": 0, "max_tokens": 9, "max_completion_tokens": 7, "n": 1, "tools": [],
            "tool_choice": "auto", "logprobs": false, "top_logprobs": 0, "logit_bias": {}, "functions": [],
            "response_format": {"type": "text"}, "modalities": ["text"], "metadata": {"a": "b"},
            "add_generation_prompt": true, "continue_final_message": false,
        });
        let request = ChatRequest::parse(&body).unwrap();
        assert_eq!((request.max_tokens, request.logprobs), (Some(7), None));
        assert_eq!(
            (request.end, request.format),
            (PromptEnd::Turn, ResponseFormat::Text)
        );
        assert_eq!(request.tools, ToolRequest::default());
    }

    #[test]
    fn what_is_asked_beyond_a_plain_answer_is_read() {
        let mut body = json!({"messages": [{"role": "assistant", "content": "so"}],
            "logprobs": true, "top_logprobs": 20, "continue_final_message": true, "add_generation_prompt": false});
        let request = ChatRequest::parse(&body).unwrap();
        assert_eq!(
            (request.logprobs, request.end),
            (Some(20), PromptEnd::WithinLastMessage)
        );
        body["continue_final_message"] = json!(false);
        assert_eq!(ChatRequest::parse(&body).unwrap().end, PromptEnd::LastMessage);
        let schema = json!({"type": "json_schema", "json_schema": {"name": "s", "strict": true, "schema": {"type": "array"}}});
        assert_eq!(
            with("response_format", schema).unwrap().format,
            ResponseFormat::JsonSchema {
                schema: json!({"type": "array"}),
                is_strict: true
            }
        );
        let object = with("response_format", json!({"type": "json_object"})).unwrap();
        assert_eq!(object.format, ResponseFormat::JsonObject);
    }

    #[test]
    fn what_can_not_be_honoured_is_refused_by_name() {
        for (field, value) in [
            ("functions", json!([{}])),
            ("function_call", json!({"name": "f"})),
            ("response_format", json!({"type": "grammar"})),
            ("modalities", json!(["text", "audio"])),
            ("audio", json!({"voice": "x"})),
            ("web_search_options", json!({"a": 1})),
        ] {
            let error = with(field, value).unwrap_err();
            assert_eq!(error.code, "unsupported_parameter", "{field}");
            assert_eq!(error.param.as_deref(), Some(field));
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (field, value) in [
            ("max_tokens", json!(0)),
            ("max_completion_tokens", json!(-3)),
            ("logprobs", json!(3)),
            ("top_logprobs", json!(21)),
            ("top_logprobs", json!(1)),
            ("response_format", json!({})),
            ("response_format", json!("json")),
            ("continue_final_message", json!(true)),
            ("continue_final_message", json!("yes")),
            ("chat_template_kwargs", json!(1)),
            ("messages", json!([])),
            ("messages", json!("hi")),
        ] {
            assert_eq!(refused_param(with(field, value)), field);
        }
        let schema = |schema: Value| {
            with(
                "response_format",
                json!({"type": "json_schema", "json_schema": schema}),
            )
        };
        for (value, param) in [
            (json!(1), "response_format.json_schema"),
            (json!({}), "response_format.json_schema.schema"),
            (json!({"schema": []}), "response_format.json_schema.schema"),
            (
                json!({"schema": {}, "strict": 1}),
                "response_format.json_schema.strict",
            ),
        ] {
            assert_eq!(refused_param(schema(value)), param);
        }
        assert!(ChatRequest::parse(&json!([])).is_err());
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let tool = json!({"type": "function", "function": {"name": "f"}});
        let assistant = json!([{"role": "assistant", "content": "so"}]);
        for (body, param) in [
            (
                json!({"messages": [{"role": "user", "content": "x"}], "tools": [tool], "tool_choice": "required",
                    "response_format": {"type": "json_object"}}),
                "response_format",
            ),
            (
                json!({"messages": assistant, "tools": [tool], "tool_choice": "required", "continue_final_message": true}),
                "tool_choice",
            ),
            (
                json!({"messages": assistant, "continue_final_message": true, "add_generation_prompt": true}),
                "add_generation_prompt",
            ),
        ] {
            assert_eq!(refused_param(ChatRequest::parse(&body)), param);
        }
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
                prop::collection::btree_map("(role|content|type|text|function|name|[a-z]{1,3})", inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_of_any_field_is_read_or_refused_with_a_400(
            field in "(messages|n|stop|seed|temperature|tools|tool_choice|logit_bias|logprobs|response_format|max_tokens|modalities|continue_final_message|other)",
            value in any_json(),
        ) {
            if let Err(error) = with(&field, value) {
                prop_assert_eq!(error.status, 400);
                prop_assert!(error.param.is_some_and(|param| param.starts_with(&field)));
            }
        }
    }
}
