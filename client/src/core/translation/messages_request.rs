//! A request to Anthropic's `/v1/messages` as a chat completion.

use serde_json::{Map, Value, json};

use crate::core::failure::ApiFailure;
use crate::core::translation::messages::MessagesAnswer;
use crate::core::translation::{
    TranslatedRequest, Translation, check_limit, object, refuse_more_choices, take, wrong,
};

/// Fields that change nothing about the answer of a model that is not Anthropic's.
const WITHOUT_EFFECT: [&str; 6] = [
    "thinking",
    "service_tier",
    "cache_control",
    "context_management",
    "inference_geo",
    "speed",
];

/// The field by which the program knows a field of the chat.
pub(super) fn own_name(chat_field: &str) -> Option<&'static str> {
    Some(match chat_field {
        "stop" => "stop_sequences",
        "parallel_tool_calls" => "tool_choice",
        "response_format" => "output_config",
        "max_completion_tokens" => "max_tokens",
        _ => return None,
    })
}

impl TranslatedRequest {
    /// Reads a request to `/v1/messages`.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 400 that names the field at fault.
    pub fn of_messages(body: &[u8]) -> Result<Self, ApiFailure> {
        let fields = object(body)?;
        check_limit(fields.get("max_tokens").unwrap_or(&Value::Null), "max_tokens")?;
        Self::of_fields(fields)
    }

    /// Reads a request to `/v1/messages/count_tokens`, which knows no limit.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 400 that names the field at fault.
    pub fn of_messages_to_count(body: &[u8]) -> Result<Self, ApiFailure> {
        let fields = object(body)?;
        // A chat's own reader says so of a message.
        if !fields.get("model").is_some_and(Value::is_string) {
            return Err(wrong("model", "the name of a model"));
        }
        Self::of_fields(fields)
    }

    fn of_fields(mut fields: Map<String, Value>) -> Result<Self, ApiFailure> {
        for field in ["mcp_servers", "container"] {
            if take(&mut fields, field).is_some_and(|value| value != json!([])) {
                let message = format!("'{field}' is a service of Anthropic's own and can't be honoured here");
                return Err(ApiFailure::not_offered_here(field, message));
            }
        }
        refuse_more_choices(&mut fields)?;
        for field in WITHOUT_EFFECT {
            fields.shift_remove(field);
        }
        let mut chat = Map::new();
        let model = fields.shift_remove("model").unwrap_or_default();
        let mut messages = Vec::new();
        read_system(take(&mut fields, "system"), &mut messages)?;
        read_messages(take(&mut fields, "messages"), &mut messages)?;
        let answer = MessagesAnswer::new(model.as_str().unwrap_or_default().to_owned());
        chat.insert("model".into(), model);
        chat.insert("messages".into(), messages.into());
        if let Some(stops) = take(&mut fields, "stop_sequences") {
            chat.insert("stop".into(), stops);
        }
        read_tools(&mut fields, &mut chat)?;
        read_format(&mut fields, &mut chat)?;
        if let Some(user) =
            take(&mut fields, "metadata").and_then(|mut of| of.get_mut("user_id").map(Value::take))
        {
            chat.insert("user".into(), user);
        }
        let stream = take(&mut fields, "stream").unwrap_or(json!(false));
        if stream == true {
            chat.insert("stream_options".into(), json!({"include_usage": true}));
        }
        chat.insert("stream".into(), stream);
        // Temperature, `top_p`, `top_k`, `max_tokens`, and what nobody knows here.
        for (name, value) in fields {
            chat.entry(name).or_insert(value);
        }
        Ok(Self {
            chat: Value::from(chat).to_string().into(),
            answer: Translation::Messages(Box::new(answer)),
        })
    }
}

fn read_system(system: Option<Value>, messages: &mut Vec<Value>) -> Result<(), ApiFailure> {
    let text = match system {
        None => return Ok(()),
        Some(Value::String(text)) => text,
        Some(Value::Array(blocks)) => {
            let texts: Option<Vec<&str>> = blocks.iter().map(|block| block.get("text")?.as_str()).collect();
            texts
                .ok_or_else(|| wrong("system", "a text or a list of texts"))?
                .join("\n")
        }
        Some(_) => return Err(wrong("system", "a text or a list of texts")),
    };
    messages.push(json!({"role": "system", "content": text}));
    Ok(())
}

fn read_messages(given: Option<Value>, messages: &mut Vec<Value>) -> Result<(), ApiFailure> {
    let expected = "a list of messages";
    let given = match given {
        Some(Value::Array(given)) if !given.is_empty() => given,
        None => return Err(ApiFailure::invalid_request("'messages' is missing").at("messages")),
        Some(_) => return Err(wrong("messages", expected)),
    };
    for message in given {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        let content = message
            .get("content")
            .ok_or_else(|| wrong("messages", "messages with a content"))?;
        match (role, content) {
            ("user" | "assistant" | "system", Value::String(text)) => {
                messages.push(json!({"role": role, "content": text}));
            }
            ("user", Value::Array(blocks)) => read_users_blocks(blocks, messages)?,
            ("assistant", Value::Array(blocks)) => messages.push(read_assistants_blocks(blocks)?),
            _ => {
                return Err(wrong(
                    "messages",
                    "messages with the role user or assistant, whose content is a text or a list of blocks",
                ));
            }
        }
    }
    Ok(())
}

/// The results of tools are messages of their own in a chat, and come before what the user says to them.
fn read_users_blocks(blocks: &[Value], messages: &mut Vec<Value>) -> Result<(), ApiFailure> {
    let mut parts = Vec::new();
    for block in blocks {
        if kind(block) != "tool_result" {
            parts.push(read_part(block)?);
            continue;
        }
        let mut content = match block.get("content") {
            None | Some(Value::Null) => json!(""),
            Some(Value::String(text)) => json!(text),
            Some(Value::Array(blocks)) => {
                let parts: Result<Vec<Value>, ApiFailure> = blocks.iter().map(read_part).collect();
                joined_texts(parts?)
            }
            Some(_) => {
                return Err(wrong(
                    "messages",
                    "tool results whose content is a text or a list of blocks",
                ));
            }
        };
        if block.get("is_error") == Some(&json!(true))
            && let Value::String(text) = &content
        {
            content = json!(format!("Error: {text}"));
        }
        let id = block.get("tool_use_id").cloned().unwrap_or_default();
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
    }
    if !parts.is_empty() {
        messages.push(json!({"role": "user", "content": joined_texts(parts)}));
    }
    Ok(())
}

fn read_assistants_blocks(blocks: &[Value]) -> Result<Value, ApiFailure> {
    let (mut text, mut calls) = (String::new(), Vec::new());
    for block in blocks {
        match kind(block) {
            "text" => text.push_str(block.get("text").and_then(Value::as_str).unwrap_or_default()),
            // Models have no use for what they thought in earlier turns, and servers differ in where they want it.
            "thinking" | "redacted_thinking" => {}
            "tool_use" => {
                let arguments = block.get("input").cloned().unwrap_or(json!({})).to_string();
                calls.push(json!({"id": block.get("id"), "type": "function",
                    "function": {"name": block.get("name"), "arguments": arguments}}));
            }
            kind => return Err(unknown_block(kind)),
        }
    }
    let content = if text.is_empty() && !calls.is_empty() {
        Value::Null
    } else {
        json!(text)
    };
    let mut message = json!({"role": "assistant", "content": content});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    Ok(message)
}

fn read_part(block: &Value) -> Result<Value, ApiFailure> {
    let source = |name: &str| block.pointer(&format!("/source/{name}")).and_then(Value::as_str);
    match (kind(block), source("type")) {
        ("text", _) => Ok(json!({"type": "text", "text": block.get("text")})),
        ("image", Some("url")) => Ok(json!({"type": "image_url", "image_url": {"url": source("url")}})),
        ("image", Some("base64")) => {
            let (kind, data) = (
                source("media_type").unwrap_or("image/png"),
                source("data").unwrap_or_default(),
            );
            Ok(json!({"type": "image_url", "image_url": {"url": format!("data:{kind};base64,{data}")}}))
        }
        ("document", Some("text")) => Ok(json!({"type": "text", "text": source("data")})),
        ("image" | "document", _) => {
            let message = "images and documents can be honoured with a source of type base64, url (images) or text \
                           (documents) only: nothing is stored here";
            Err(ApiFailure::not_offered_here("messages", message))
        }
        (kind, _) => Err(unknown_block(kind)),
    }
}

fn kind(block: &Value) -> &str {
    block.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn unknown_block(kind: &str) -> ApiFailure {
    let kind: String = kind.chars().take(64).collect();
    ApiFailure::not_offered_here(
        "messages",
        format!("blocks of type '{kind}' in 'messages' can't be honoured here"),
    )
}

/// Many templates know texts alone; what is only text is one.
fn joined_texts(parts: Vec<Value>) -> Value {
    if parts.iter().all(|part| kind(part) == "text") {
        let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        return json!(texts.join("\n"));
    }
    parts.into()
}

fn read_tools(fields: &mut Map<String, Value>, chat: &mut Map<String, Value>) -> Result<(), ApiFailure> {
    match take(fields, "tools") {
        None => {}
        Some(Value::Array(tools)) => {
            let tools: Result<Vec<Value>, ApiFailure> = tools.iter().map(read_tool).collect();
            chat.insert("tools".into(), tools?.into());
        }
        Some(_) => return Err(wrong("tools", "a list of tools")),
    }
    let Some(choice) = take(fields, "tool_choice") else {
        return Ok(());
    };
    let chosen = match kind(&choice) {
        "auto" => json!("auto"),
        "any" => json!("required"),
        "none" => json!("none"),
        "tool" => json!({"type": "function", "function": {"name": choice.get("name")}}),
        _ => return Err(wrong("tool_choice", "an object of type auto, any, tool or none")),
    };
    chat.insert("tool_choice".into(), chosen);
    if choice.get("disable_parallel_tool_use") == Some(&json!(true)) {
        chat.insert("parallel_tool_calls".into(), json!(false));
    }
    Ok(())
}

fn read_tool(tool: &Value) -> Result<Value, ApiFailure> {
    if !matches!(kind(tool), "" | "custom") {
        let kind: String = kind(tool).chars().take(64).collect();
        let message =
            format!("tools of type '{kind}' are services of Anthropic's own and can't be honoured here");
        return Err(ApiFailure::not_offered_here("tools", message));
    }
    let mut function = Map::new();
    for (own, field) in [
        ("name", "name"),
        ("description", "description"),
        ("input_schema", "parameters"),
        ("strict", "strict"),
    ] {
        if let Some(value) = tool.get(own) {
            function.insert(field.to_owned(), value.clone());
        }
    }
    if !function.get("name").is_some_and(Value::is_string) {
        return Err(wrong("tools", "a list of tools with a name"));
    }
    Ok(json!({"type": "function", "function": function}))
}

/// Structured outputs, as they are named now and as they were in the beta.
fn read_format(fields: &mut Map<String, Value>, chat: &mut Map<String, Value>) -> Result<(), ApiFailure> {
    let mut output = take(fields, "output_config").unwrap_or_default();
    if let Some(effort) = output.get("effort").and_then(Value::as_str) {
        chat.insert("reasoning_effort".into(), json!(effort));
    }
    let format = output
        .get_mut("format")
        .map(Value::take)
        .filter(|format| !format.is_null());
    let Some(format) = format.or_else(|| take(fields, "output_format")) else {
        return Ok(());
    };
    match (kind(&format), format.get("schema")) {
        ("json_schema", Some(schema)) => {
            let schema = json!({"name": "output", "schema": schema, "strict": true});
            chat.insert(
                "response_format".into(),
                json!({"type": "json_schema", "json_schema": schema}),
            );
            Ok(())
        }
        _ => Err(wrong(
            "output_config",
            "an object whose 'format' is of type json_schema with a 'schema'",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(request: Value) -> Value {
        let translated = TranslatedRequest::of_messages(request.to_string().as_bytes()).unwrap();
        serde_json::from_slice(&translated.chat).unwrap()
    }

    #[test]
    fn a_question_is_a_chat() {
        assert_eq!(
            chat(
                json!({"model": "guide", "max_tokens": 9, "system": [{"type": "text", "text": "Be short.", "cache_control": {}}],
                "messages": [{"role": "user", "content": "Hi"}], "stop_sequences": ["###"], "top_k": 5, "stream": true,
                "metadata": {"user_id": "u"}, "thinking": {"type": "enabled", "budget_tokens": 1024}})
            ),
            json!({"model": "guide", "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
                "stop": ["###"], "user": "u", "stream_options": {"include_usage": true}, "stream": true, "max_tokens": 9, "top_k": 5})
        );
    }

    #[test]
    fn a_tools_loop_is_a_conversation() {
        let request = json!({"model": "guide", "max_tokens": 9,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Weather?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bern"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "is_error": true,
                        "content": [{"type": "text", "text": "rain"}]}, {"type": "text", "text": "So?"}]},
            ],
            "tools": [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}});
        let chat = chat(request);
        assert_eq!(
            chat["messages"][0]["content"][1],
            json!({"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}})
        );
        let call = json!({"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Bern\"}"}});
        assert_eq!(
            chat["messages"][1],
            json!({"role": "assistant", "content": null, "tool_calls": [call]})
        );
        assert_eq!(
            chat["messages"][2],
            json!({"role": "tool", "tool_call_id": "c1", "content": "Error: rain"})
        );
        assert_eq!(chat["messages"][3], json!({"role": "user", "content": "So?"}));
        assert_eq!(
            chat["tools"],
            json!([{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}])
        );
        assert_eq!(
            (&chat["tool_choice"], &chat["parallel_tool_calls"]),
            (&json!("required"), &json!(false))
        );
        assert_eq!(chat["response_format"]["json_schema"]["strict"], true);
    }

    #[test]
    fn what_can_t_be_honoured_is_a_400_that_names_the_field() {
        let with = |field: &str, value: Value| {
            let mut request =
                json!({"model": "guide", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]});
            request[field] = value;
            TranslatedRequest::of_messages(request.to_string().as_bytes()).unwrap_err()
        };
        for (field, value) in [
            ("max_tokens", Value::Null),
            ("messages", json!([])),
            ("messages", json!("Hi")),
            ("messages", json!([{"role": "tool", "content": "x"}])),
            ("messages", json!([{"role": "user"}])),
            (
                "messages",
                json!([{"role": "user", "content": [{"type": "search_result"}]}]),
            ),
            (
                "messages",
                json!([{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "x"}}]}]),
            ),
            ("system", json!(5)),
            (
                "tools",
                json!([{"type": "web_search_20250305", "name": "web_search"}]),
            ),
            ("tools", json!([{}])),
            ("tool_choice", json!("auto")),
            ("mcp_servers", json!([{}])),
            ("output_config", json!({"format": {"type": "grammar"}})),
        ] {
            let failure = with(field, value.clone());
            assert_eq!(
                (failure.status, failure.param.as_deref()),
                (400, Some(field)),
                "{field} {value}"
            );
        }
        let nameless = br#"{"messages":[{"role":"user","content":"x"}]}"#;
        let failure = TranslatedRequest::of_messages_to_count(nameless).unwrap_err();
        assert_eq!((failure.status, failure.param.as_deref()), (400, Some("model")));
        assert!(
            TranslatedRequest::of_messages_to_count(
                br#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#
            )
            .is_ok()
        );
    }
}
