//! The fields of `/v1/chat/completions`.

use std::collections::BTreeMap;

use gristmill_protocol::listing::Capability;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::core::failure::ApiFailure;
use crate::core::request::content::Parts;
use crate::core::request::read::{self, Whole, missing, optional, wrong_type};
use crate::core::request::{CHOICES_MAX, Fields, ProgramRequest};

#[derive(Deserialize)]
struct ResponseFormat {
    r#type: String,
    #[serde(default)]
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    #[serde(default)]
    strict: Option<bool>,
}

impl ProgramRequest {
    pub(super) fn with_chat_fields(self, fields: &Fields<'_>) -> Result<Self, ApiFailure> {
        let messages: Vec<&RawValue> = optional(fields.messages, "messages", "a list of messages")?
            .ok_or_else(|| missing("messages"))?;
        if messages.is_empty() {
            return Err(ApiFailure::invalid_request("'messages' is empty; send at least one").at("messages"));
        }
        let mut request = self.with_stream_fields(fields)?;
        request.choices = read::count(fields.n, "n", CHOICES_MAX)?;
        // Servers differ in which of the two they heed, so the larger one is what an answer may cost.
        request.output_tokens_max = read::output_limit(fields.max_tokens, "max_tokens", 1)?.max(
            read::output_limit(fields.max_completion_tokens, "max_completion_tokens", 1)?,
        );
        request.need(request.choices > 1, Capability::ManyChoices, "n");
        request.need_tools(fields)?;
        request.need_formats(fields)?;
        request.need_sampling(fields)?;
        let continues = optional(
            fields.continue_final_message,
            "continue_final_message",
            "true or false",
        )?;
        request.need(
            continues.unwrap_or(false),
            Capability::Continuation,
            "continue_final_message",
        );
        for message in messages {
            let parts = Parts::of(message.get());
            request.need(parts.has_image, Capability::ImageInput, "messages");
            request.need(parts.has_audio, Capability::AudioInput, "messages");
        }
        Ok(request)
    }

    fn need_tools(&mut self, fields: &Fields<'_>) -> Result<(), ApiFailure> {
        let tools: Option<Vec<&RawValue>> = optional(fields.tools, "tools", "a list of tools")?;
        let has_tools = tools.is_some_and(|tools| !tools.is_empty());
        self.need(has_tools, Capability::Tools, "tools");
        // The fields before tools, which some programs still send.
        let functions: Option<Vec<&RawValue>> =
            optional(fields.functions, "functions", "a list of functions")?;
        self.need(
            functions.is_some_and(|functions| !functions.is_empty()),
            Capability::Tools,
            "functions",
        );
        let expected = "\"none\", \"auto\", \"required\" or an object that names a function";
        self.need(
            forces_a_call(fields.tool_choice, "tool_choice", expected)?,
            Capability::ForcedTools,
            "tool_choice",
        );
        let expected = "\"none\", \"auto\" or an object that names a function";
        self.need(
            forces_a_call(fields.function_call, "function_call", expected)?,
            Capability::ForcedTools,
            "function_call",
        );
        let parallel: Option<bool> =
            optional(fields.parallel_tool_calls, "parallel_tool_calls", "true or false")?;
        self.need(
            has_tools && parallel == Some(false),
            Capability::ForcedTools,
            "parallel_tool_calls",
        );
        Ok(())
    }

    fn need_formats(&mut self, fields: &Fields<'_>) -> Result<(), ApiFailure> {
        let format: Option<ResponseFormat> = optional(
            fields.response_format,
            "response_format",
            "an object with a 'type'",
        )?;
        let is_strict = format.as_ref().is_some_and(|format| {
            let schema = format.json_schema.as_ref();
            format.r#type == "json_schema" && schema.and_then(|schema| schema.strict) == Some(true)
        });
        let is_structured = format.is_some_and(|format| format.r#type != "text");
        self.need(is_structured, Capability::StructuredOutput, "response_format");
        self.need(is_strict, Capability::StrictSchema, "response_format");
        Ok(())
    }

    fn need_sampling(&mut self, fields: &Fields<'_>) -> Result<(), ApiFailure> {
        let logprobs = optional(fields.logprobs, "logprobs", "true or false")?.unwrap_or(false);
        self.need(logprobs, Capability::Logprobs, "logprobs");
        let top = read::whole(fields.top_logprobs, "top_logprobs")?.unwrap_or(0);
        self.need(top > 0, Capability::Logprobs, "top_logprobs");
        self.need_bias_and_seed(fields)
    }

    /// What chats and completions have in common.
    pub(super) fn need_bias_and_seed(&mut self, fields: &Fields<'_>) -> Result<(), ApiFailure> {
        let bias: Option<BTreeMap<String, &RawValue>> =
            optional(fields.logit_bias, "logit_bias", "an object of tokens and biases")?;
        self.need(
            bias.is_some_and(|bias| !bias.is_empty()),
            Capability::LogitBias,
            "logit_bias",
        );
        let seed: Option<Whole> = optional(fields.seed, "seed", "a whole number")?;
        self.need(seed.is_some(), Capability::Seed, "seed");
        Ok(())
    }
}

/// Whether a choice of tools makes the model call one.
fn forces_a_call(raw: Option<&RawValue>, field: &'static str, expected: &str) -> Result<bool, ApiFailure> {
    match optional::<Value>(raw, field, expected)? {
        None => Ok(false),
        Some(Value::String(word)) => match word.as_str() {
            "none" | "auto" => Ok(false),
            "required" => Ok(true),
            _ => Err(wrong_type(field, expected)),
        },
        // Also a list of allowed tools: an engine that can't force a call can't keep to a list either.
        Some(Value::Object(_)) => Ok(true),
        Some(_) => Err(wrong_type(field, expected)),
    }
}
