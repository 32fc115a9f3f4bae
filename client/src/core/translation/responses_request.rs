//! A request to `/v1/responses` as a chat completion.
//!
//! What needs a memory, or a service of OpenAI's own, is a 400 that names the field; fields that chats know too travel
//! as they are.

use serde_json::{Map, Value, json};

use crate::core::failure::ApiFailure;
use crate::core::translation::responses::ResponsesAnswer;
use crate::core::translation::{
    TranslatedRequest, Translation, check_limit, object, refuse_more_choices, take, wrong,
};

/// The field by which the program knows a field of the chat.
pub(super) fn own_name(chat_field: &str) -> Option<&'static str> {
    Some(match chat_field {
        "messages" => "input",
        "max_tokens" | "max_completion_tokens" => "max_output_tokens",
        "response_format" => "text.format",
        "reasoning_effort" => "reasoning.effort",
        "logprobs" => "include",
        _ => return None,
    })
}

impl TranslatedRequest {
    /// Reads a request to `/v1/responses`.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 400 that names the field at fault.
    pub fn of_responses(body: &[u8]) -> Result<Self, ApiFailure> {
        let mut fields = object(body)?;
        refuse_what_needs_a_memory(&mut fields)?;
        refuse_more_choices(&mut fields)?;
        let mut chat = Map::new();
        let mut asked = Asked::take(&mut fields)?;
        let mut messages = Vec::new();
        if let Some(instructions) = &asked.instructions {
            messages.push(json!({"role": "system", "content": instructions}));
        }
        read_input(take(&mut fields, "input"), &mut messages)?;
        chat.insert("model".into(), fields.shift_remove("model").unwrap_or_default());
        chat.insert("messages".into(), messages.into());
        let stream = take(&mut fields, "stream").unwrap_or(json!(false));
        if stream == true {
            chat.insert("stream_options".into(), json!({"include_usage": true}));
        }
        chat.insert("stream".into(), stream);
        fields.shift_remove("stream_options");
        asked.write_to(&mut chat)?;
        let model = chat.get("model").cloned().unwrap_or_default();
        // What is left are fields that chats know too, and those that nobody knows here.
        for (name, value) in fields {
            if !NOT_OF_CHATS.contains(&name.as_str()) {
                chat.entry(name).or_insert(value);
            }
        }
        let answer = ResponsesAnswer::new(asked.repeated(model, &chat));
        Ok(Self {
            chat: Value::from(chat).to_string().into(),
            answer: Translation::Responses(Box::new(answer)),
        })
    }
}

/// Fields that mean nothing to a stateless endpoint and change nothing about its answer.
const NOT_OF_CHATS: [&str; 8] = [
    "store",
    "include",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "max_tool_calls",
    "background",
];

fn refuse_what_needs_a_memory(fields: &mut Map<String, Value>) -> Result<(), ApiFailure> {
    for (field, why) in [
        (
            "previous_response_id",
            "nothing is stored here, so there is no earlier response; send the whole conversation as 'input'",
        ),
        (
            "conversation",
            "nothing is stored here, so there are no conversations; send the whole one as 'input'",
        ),
        (
            "prompt",
            "nothing is stored here, so there are no prompt templates; send 'input'",
        ),
    ] {
        if take(fields, field).is_some() {
            return Err(ApiFailure::not_offered_here(
                field,
                format!("'{field}' can't be honoured: {why}"),
            ));
        }
    }
    if take(fields, "background") == Some(json!(true)) {
        let message =
            "'background' can't be honoured: nothing is stored here; leave it out and wait for the answer";
        return Err(ApiFailure::not_offered_here("background", message));
    }
    match take(fields, "truncation") {
        None => Ok(()),
        Some(word) if word == "disabled" => Ok(()),
        Some(_) => {
            let message =
                "'truncation' can't be honoured: a prompt that is too long is an error here; leave it out";
            Err(ApiFailure::not_offered_here("truncation", message))
        }
    }
}

/// What a response repeats of its request.
struct Asked {
    instructions: Option<String>,
    max_output_tokens: Value,
    tools: Vec<Value>,
    tool_choice: Value,
    parallel_tool_calls: Option<Value>,
    text: Map<String, Value>,
    reasoning: Map<String, Value>,
    top_logprobs: Option<Value>,
    wants_logprobs: bool,
    metadata: Value,
    user: Value,
}

impl Asked {
    fn take(fields: &mut Map<String, Value>) -> Result<Self, ApiFailure> {
        let mut map = |name: &str| match take(fields, name) {
            None => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map),
            Some(_) => Err(wrong(name, "an object")),
        };
        let (text, reasoning) = (map("text")?, map("reasoning")?);
        let metadata = map("metadata")?;
        let instructions = match take(fields, "instructions") {
            None => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err(wrong("instructions", "a text")),
        };
        let tools = match take(fields, "tools") {
            None => Vec::new(),
            Some(Value::Array(tools)) => tools,
            Some(_) => return Err(wrong("tools", "a list of tools")),
        };
        let include = take(fields, "include").unwrap_or_default();
        let include = include.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Self {
            instructions,
            max_output_tokens: take(fields, "max_output_tokens").unwrap_or_default(),
            tools,
            tool_choice: take(fields, "tool_choice").unwrap_or(json!("auto")),
            parallel_tool_calls: take(fields, "parallel_tool_calls"),
            text,
            reasoning,
            top_logprobs: take(fields, "top_logprobs"),
            wants_logprobs: include.iter().any(|word| word == "message.output_text.logprobs"),
            metadata: metadata.into(),
            user: take(fields, "user").unwrap_or_default(),
        })
    }

    /// The fields of the chat.
    fn write_to(&mut self, chat: &mut Map<String, Value>) -> Result<(), ApiFailure> {
        if !self.max_output_tokens.is_null() {
            check_limit(&self.max_output_tokens, "max_output_tokens")?;
            chat.insert("max_tokens".into(), self.max_output_tokens.clone());
        }
        if !self.tools.is_empty() {
            let tools: Result<Vec<Value>, ApiFailure> = self.tools.iter().map(chat_tool).collect();
            chat.insert("tools".into(), tools?.into());
        }
        if self.tool_choice != "auto" {
            chat.insert("tool_choice".into(), chat_tool_choice(&self.tool_choice)?);
        }
        if let Some(parallel) = &self.parallel_tool_calls {
            chat.insert("parallel_tool_calls".into(), parallel.clone());
        }
        if let Some(format) = self.text.get("format").filter(|format| !format.is_null()) {
            chat.insert("response_format".into(), chat_format(format)?);
        }
        for (own, name, field) in [
            (&self.text, "verbosity", "verbosity"),
            (&self.reasoning, "effort", "reasoning_effort"),
        ] {
            if let Some(value) = own.get(name).filter(|value| !value.is_null()) {
                chat.insert(field.to_owned(), value.clone());
            }
        }
        if self.wants_logprobs {
            chat.insert("logprobs".into(), json!(true));
        }
        if let Some(top) = &self.top_logprobs {
            if *top != 0 {
                chat.insert("logprobs".into(), json!(true));
            }
            chat.insert("top_logprobs".into(), top.clone());
        }
        if !self.user.is_null() {
            chat.insert("user".into(), self.user.clone());
        }
        Ok(())
    }

    /// What stands in every response.
    fn repeated(self, model: Value, chat: &Map<String, Value>) -> Map<String, Value> {
        let sampling = |name: &str| {
            chat.get(name)
                .cloned()
                .filter(|value| !value.is_null())
                .unwrap_or(json!(1.0))
        };
        let (mut text, mut reasoning) = (self.text, self.reasoning);
        text.entry("format").or_insert(json!({"type": "text"}));
        for name in ["effort", "summary"] {
            reasoning.entry(name).or_insert(Value::Null);
        }
        let repeated = json!({
            "background": false,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata,
            "model": model,
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(json!(true)),
            "previous_response_id": null,
            "reasoning": reasoning,
            "service_tier": "default",
            "store": false,
            "temperature": sampling("temperature"),
            "text": text,
            "tool_choice": self.tool_choice,
            "tools": self.tools,
            "top_logprobs": self.top_logprobs.unwrap_or(json!(0)),
            "top_p": sampling("top_p"),
            "truncation": "disabled",
            "user": self.user,
        });
        match repeated {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

fn chat_tool(tool: &Value) -> Result<Value, ApiFailure> {
    let kind = tool.get("type").and_then(Value::as_str);
    if kind != Some("function") {
        let message = format!(
            "tools of type '{}' are services of OpenAI's own; only 'function' can be honoured here",
            kind.unwrap_or("?").chars().take(64).collect::<String>()
        );
        return Err(ApiFailure::not_offered_here("tools", message));
    }
    let mut function = tool.as_object().cloned().unwrap_or_default();
    function.shift_remove("type");
    function.retain(|_, value| !value.is_null());
    Ok(json!({"type": "function", "function": function}))
}

fn chat_tool_choice(choice: &Value) -> Result<Value, ApiFailure> {
    if choice.is_string() {
        return Ok(choice.clone());
    }
    let kind = choice.get("type").and_then(Value::as_str);
    match (kind, choice.get("name")) {
        (Some("function"), Some(name)) => Ok(json!({"type": "function", "function": {"name": name}})),
        (Some("allowed_tools"), _) => {
            let named = |tool: &Value| json!({"type": "function", "function": {"name": tool.get("name")}});
            let tools = choice.get("tools").and_then(Value::as_array);
            let tools: Vec<Value> = tools.into_iter().flatten().map(named).collect();
            Ok(
                json!({"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": tools}}),
            )
        }
        _ => Err(wrong(
            "tool_choice",
            "\"none\", \"auto\", \"required\" or an object that names a function",
        )),
    }
}

fn chat_format(format: &Value) -> Result<Value, ApiFailure> {
    match format.get("type").and_then(Value::as_str) {
        Some("json_schema") => {
            let mut schema = format.as_object().cloned().unwrap_or_default();
            schema.shift_remove("type");
            Ok(json!({"type": "json_schema", "json_schema": schema}))
        }
        Some(_) => Ok(format.clone()),
        None => Err(wrong("text.format", "an object with a 'type'")),
    }
}

fn read_input(input: Option<Value>, messages: &mut Vec<Value>) -> Result<(), ApiFailure> {
    match input {
        Some(Value::String(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) if !items.is_empty() => {
            let before = messages.len();
            for item in items {
                read_item(&item, messages)?;
            }
            if messages.len() == before {
                return Err(wrong("input", "a list with more than what was thought before"));
            }
        }
        None => return Err(ApiFailure::invalid_request("'input' is missing").at("input")),
        Some(_) => return Err(wrong("input", "a text or a list of items")),
    }
    Ok(())
}

fn read_item(item: &Value, messages: &mut Vec<Value>) -> Result<(), ApiFailure> {
    let text = |name: &str| item.get(name).and_then(Value::as_str);
    let needed =
        |name: &str| text(name).ok_or_else(|| wrong("input", &format!("items with a text '{name}'")));
    match text("type").unwrap_or("message") {
        "message" => {
            let role = match needed("role")? {
                "developer" => "system",
                role @ ("user" | "assistant" | "system") => role,
                _ => {
                    return Err(wrong(
                        "input",
                        "messages with the role user, assistant, system or developer",
                    ));
                }
            };
            messages.push(json!({"role": role, "content": read_content(item.get("content"), role)?}));
        }
        "function_call" => {
            let call = json!({"id": needed("call_id")?, "type": "function",
                "function": {"name": needed("name")?, "arguments": needed("arguments")?}});
            add_call(call, messages);
        }
        "function_call_output" => {
            let output = match item.get("output") {
                Some(Value::String(text)) => json!(text),
                output => read_content(output, "tool")?,
            };
            messages.push(json!({"role": "tool", "tool_call_id": needed("call_id")?, "content": output}));
        }
        // Models have no use for what they thought in earlier turns, and servers differ in where they want it.
        "reasoning" => {}
        kind => {
            let kind: String = kind.chars().take(64).collect();
            let message = format!(
                "items of type '{kind}' in 'input' can't be honoured: nothing is stored here, and only \
                functions can be called"
            );
            return Err(ApiFailure::not_offered_here("input", message));
        }
    }
    Ok(())
}

/// Calls of one turn stand in one message, also beside its text.
fn add_call(call: Value, messages: &mut Vec<Value>) {
    if let Some(Value::Object(last)) = messages.last_mut()
        && last.get("role").is_some_and(|role| role == "assistant")
    {
        let calls = last.entry("tool_calls").or_insert_with(|| json!([]));
        if let Some(calls) = calls.as_array_mut() {
            calls.push(call);
        }
        return;
    }
    messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
}

fn read_content(content: Option<&Value>, role: &str) -> Result<Value, ApiFailure> {
    let parts = match content {
        Some(Value::String(text)) => return Ok(json!(text)),
        Some(Value::Array(parts)) => parts,
        _ => return Err(wrong("input", "items whose content is a text or a list of parts")),
    };
    let mut read = Vec::with_capacity(parts.len());
    for part in parts {
        let text = |name: &str| part.get(name).and_then(Value::as_str);
        read.push(match text("type") {
            Some("input_text" | "output_text" | "text") => json!({"type": "text", "text": text("text")}),
            Some("refusal") => json!({"type": "text", "text": text("refusal")}),
            Some("input_image") => match text("image_url") {
                Some(url) => {
                    let mut image = json!({"url": url});
                    if let Some(detail) = text("detail") {
                        image["detail"] = json!(detail);
                    }
                    json!({"type": "image_url", "image_url": image})
                }
                None => {
                    let message =
                        "images by 'file_id' can't be honoured: nothing is stored here; send 'image_url'";
                    return Err(ApiFailure::not_offered_here("input", message));
                }
            },
            Some("input_audio") => part.clone(),
            kind => {
                let kind: String = kind.unwrap_or("?").chars().take(64).collect();
                let message = format!("parts of type '{kind}' in 'input' can't be honoured here");
                return Err(ApiFailure::not_offered_here("input", message));
            }
        });
    }
    // Many templates know texts alone; what is only text is one.
    if role != "user" && read.iter().all(|part| part["type"] == "text") {
        let joined: String = read.iter().filter_map(|part| part["text"].as_str()).collect();
        return Ok(json!(joined));
    }
    Ok(read.into())
}

#[cfg(test)]
mod tests;
