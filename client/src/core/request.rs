//! What the proxy reads of a request: just enough to choose a provider and to know what it can cost. The body
//! itself travels as the program wrote it.

use std::collections::BTreeMap;

use bytes::Bytes;
use gristmill_protocol::codec::PAYLOAD_MAX_BYTES;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{Capability, MODEL_NAME_MAX_BYTES};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::core::failure::ApiFailure;

mod content;

use content::has_image;

/// Most answers to one request, as at OpenAI.
pub const CHOICES_MAX: u64 = 128;

/// A request of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRequest {
    /// What is asked for.
    pub kind: JobKind,
    /// The model.
    pub model: String,
    /// Whether the answer shall come as it is made.
    pub stream: bool,
    /// Whether a streamed answer shall end with its usage.
    pub include_usage: bool,
    /// The most output tokens of one choice, where the program says.
    pub output_tokens_max: Option<u64>,
    /// How many choices are wanted.
    pub choices: u64,
    /// What an offer must be able to honour, and the field that asks for it.
    pub needs: BTreeMap<Capability, &'static str>,
    /// The body as the program wrote it, a JSON object.
    pub body: Bytes,
}

/// The fields that are looked at. One that stands twice is an error: two readers could see two requests.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    n: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    response_format: Option<&'a RawValue>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    top_logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    logit_bias: Option<&'a RawValue>,
    #[serde(borrow)]
    continue_final_message: Option<&'a RawValue>,
    #[serde(borrow)]
    dimensions: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct ResponseFormat {
    r#type: String,
}

impl ProgramRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 400 that names the field at fault.
    pub fn parse(kind: JobKind, body: Bytes) -> Result<Self, ApiFailure> {
        let text = std::str::from_utf8(&body)
            .map_err(|error| ApiFailure::invalid_request(format!("the body is not UTF-8: {error}")))?;
        if !text.trim_start().starts_with('{') {
            return Err(ApiFailure::invalid_request("the body is not a JSON object"));
        }
        let fields: Fields<'_> = serde_json::from_str(text)
            .map_err(|error| ApiFailure::invalid_request(format!("the body is not valid JSON: {error}")))?;
        let request = Self {
            kind,
            model: model(fields.model)?,
            stream: false,
            include_usage: false,
            output_tokens_max: None,
            choices: 1,
            needs: BTreeMap::new(),
            body: Bytes::new(),
        };
        let mut request = match kind {
            JobKind::ChatCompletions => request.with_chat_fields(&fields)?,
            _ => request.with_embeddings_fields(&fields)?,
        };
        request.body = body;
        Ok(request)
    }

    fn with_chat_fields(mut self, fields: &Fields<'_>) -> Result<Self, ApiFailure> {
        let messages: Vec<&RawValue> = borrowed(fields.messages, "messages", "a list of messages")?
            .ok_or_else(|| missing("messages"))?;
        if messages.is_empty() {
            return Err(ApiFailure::invalid_request("'messages' is empty; send at least one").at("messages"));
        }
        self.stream = optional(fields.stream, "stream", "true or false")?.unwrap_or(false);
        let options: Option<StreamOptions> = optional(
            fields.stream_options,
            "stream_options",
            "an object such as {\"include_usage\": true}",
        )?;
        self.include_usage = options.and_then(|options| options.include_usage).unwrap_or(false);
        self.choices = optional(fields.n, "n", "a whole number")?.unwrap_or(1);
        if !(1..=CHOICES_MAX).contains(&self.choices) {
            let message = format!("'n' must be 1 to {CHOICES_MAX}");
            return Err(ApiFailure::invalid_request(message).at("n"));
        }
        // Servers differ in which of the two they heed, so the larger one is what an answer may cost.
        self.output_tokens_max = output_limit(fields.max_tokens, "max_tokens")?.max(output_limit(
            fields.max_completion_tokens,
            "max_completion_tokens",
        )?);
        self.needs = needs(fields)?;
        if messages.iter().any(|message| has_image(message.get())) {
            self.needs.insert(Capability::ImageInput, "messages");
        }
        Ok(self)
    }

    fn with_embeddings_fields(mut self, fields: &Fields<'_>) -> Result<Self, ApiFailure> {
        let input = fields.input.ok_or_else(|| missing("input"))?.get();
        if !input.starts_with(['"', '[']) {
            let message = "'input' must be a string, or a list of strings or of tokens";
            return Err(ApiFailure::invalid_request(message).at("input"));
        }
        if fields.dimensions.is_some() {
            self.needs.insert(Capability::Dimensions, "dimensions");
        }
        Ok(self)
    }

    /// How many bytes [`ProgramRequest::body_parts`] has in all.
    #[must_use]
    pub fn body_bytes(&self, output_limit: Option<u64>) -> u64 {
        let (head, tail) = self.limited(output_limit);
        (head.len() + tail.len()) as u64
    }

    /// The body in parts that fit a frame. With `output_limit`, which is for requests that set none, the field
    /// `max_tokens` stands at its end: what is paid for can then not run away, and an answer that is cut says so.
    pub fn body_parts(&self, output_limit: Option<u64>) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
        let (head, tail) = self.limited(output_limit);
        let mut tail = tail.into_bytes();
        let mut head = head;
        std::iter::from_fn(move || {
            if head.is_empty() {
                return (!tail.is_empty()).then(|| std::mem::take(&mut tail));
            }
            let mut part = head.split_to(head.len().min(PAYLOAD_MAX_BYTES)).to_vec();
            if head.is_empty() && part.len() + tail.len() <= PAYLOAD_MAX_BYTES {
                part.append(&mut tail);
            }
            Some(part)
        })
    }

    /// The body up to where a field may be added, and the rest.
    fn limited(&self, output_limit: Option<u64>) -> (Bytes, String) {
        match (output_limit, self.body.trim_ascii_end().len()) {
            // The object has at least its model, so a comma is due; where a field stands twice, the last counts.
            (Some(limit), length @ 1..) => (
                self.body.slice(..length - 1),
                format!(",\"max_tokens\":{limit}}}"),
            ),
            _ => (self.body.clone(), String::new()),
        }
    }
}

fn missing(field: &str) -> ApiFailure {
    ApiFailure::invalid_request(format!("'{field}' is missing")).at(field)
}

fn wrong_type(field: &str, expected: &str) -> ApiFailure {
    ApiFailure::invalid_request(format!("'{field}' must be {expected}")).at(field)
}

/// Reads a field, where it is there and not null.
fn optional<T: DeserializeOwned>(
    raw: Option<&RawValue>,
    field: &str,
    expected: &str,
) -> Result<Option<T>, ApiFailure> {
    borrowed(raw, field, expected)
}

fn borrowed<'a, T: Deserialize<'a>>(
    raw: Option<&'a RawValue>,
    field: &str,
    expected: &str,
) -> Result<Option<T>, ApiFailure> {
    raw.map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map_err(|_| wrong_type(field, expected))
}

fn model(raw: Option<&RawValue>) -> Result<String, ApiFailure> {
    let model: String = optional(raw, "model", "the name of a model")?.ok_or_else(|| missing("model"))?;
    if model.is_empty() || model.len() > MODEL_NAME_MAX_BYTES || model.chars().any(char::is_control) {
        let message =
            format!("'model' must have 1 to {MODEL_NAME_MAX_BYTES} bytes and no control characters");
        return Err(ApiFailure::invalid_request(message).at("model"));
    }
    Ok(model)
}

/// A limit of output tokens. Negative ones mean none, as at llama.cpp.
fn output_limit(raw: Option<&RawValue>, field: &str) -> Result<Option<u64>, ApiFailure> {
    let limit: Option<i64> = optional(raw, field, "a whole number")?;
    if limit == Some(0) {
        return Err(ApiFailure::invalid_request(format!("'{field}' must be at least 1")).at(field));
    }
    Ok(limit.and_then(|limit| u64::try_from(limit).ok()))
}

/// What the request asks for beyond plain text.
fn needs(fields: &Fields<'_>) -> Result<BTreeMap<Capability, &'static str>, ApiFailure> {
    let mut needs = BTreeMap::new();
    let mut need = |wanted: bool, capability, field| {
        if wanted {
            needs.insert(capability, field);
        }
    };
    let tools: Option<Vec<&RawValue>> = borrowed(fields.tools, "tools", "a list of tools")?;
    need(
        tools.is_some_and(|tools| !tools.is_empty()),
        Capability::Tools,
        "tools",
    );
    let format: Option<ResponseFormat> = optional(
        fields.response_format,
        "response_format",
        "an object with a 'type'",
    )?;
    let structured = format.is_some_and(|format| format.r#type != "text");
    need(structured, Capability::StructuredOutput, "response_format");
    let logprobs = optional(fields.logprobs, "logprobs", "true or false")?.unwrap_or(false);
    need(logprobs, Capability::Logprobs, "logprobs");
    let top: u64 = optional(fields.top_logprobs, "top_logprobs", "a whole number")?.unwrap_or(0);
    need(top > 0, Capability::Logprobs, "top_logprobs");
    let bias: Option<BTreeMap<String, &RawValue>> =
        borrowed(fields.logit_bias, "logit_bias", "an object of tokens and biases")?;
    need(
        bias.is_some_and(|bias| !bias.is_empty()),
        Capability::LogitBias,
        "logit_bias",
    );
    let choices: u64 = optional(fields.n, "n", "a whole number")?.unwrap_or(1);
    need(choices > 1, Capability::ManyChoices, "n");
    let continues = optional(
        fields.continue_final_message,
        "continue_final_message",
        "true or false",
    )?
    .unwrap_or(false);
    need(continues, Capability::Continuation, "continue_final_message");
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn chat(body: &str) -> Result<ProgramRequest, ApiFailure> {
        ProgramRequest::parse(JobKind::ChatCompletions, Bytes::copy_from_slice(body.as_bytes()))
    }

    fn chat_with(fields: Value) -> Result<ProgramRequest, ApiFailure> {
        let mut body = json!({"model": "guide", "messages": [{"role": "user", "content": "Hi"}]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        chat(&body.to_string())
    }

    #[test]
    fn a_plain_request_needs_nothing() {
        let request =
            chat_with(json!({"temperature": 0.5, "tools": [], "n": 1, "logit_bias": {}, "stream": null}));
        let request = request.unwrap();
        assert_eq!(
            (request.model.as_str(), request.stream, request.choices),
            ("guide", false, 1)
        );
        assert!(request.needs.is_empty() && request.output_tokens_max.is_none());
    }

    #[test]
    fn fields_ask_for_capabilities() {
        for (fields, capability, field) in [
            (json!({"tools": [{}]}), Capability::Tools, "tools"),
            (
                json!({"response_format": {"type": "json_object"}}),
                Capability::StructuredOutput,
                "response_format",
            ),
            (json!({"logprobs": true}), Capability::Logprobs, "logprobs"),
            (json!({"top_logprobs": 2}), Capability::Logprobs, "top_logprobs"),
            (
                json!({"logit_bias": {"5": 1}}),
                Capability::LogitBias,
                "logit_bias",
            ),
            (json!({"n": 2}), Capability::ManyChoices, "n"),
            (
                json!({"continue_final_message": true}),
                Capability::Continuation,
                "continue_final_message",
            ),
            (
                json!({"messages": [{"content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}]}),
                Capability::ImageInput,
                "messages",
            ),
        ] {
            let needs = chat_with(fields.clone()).unwrap().needs;
            assert_eq!(needs, BTreeMap::from([(capability, field)]), "{fields}");
        }
        let plain = json!({"response_format": {"type": "text"}, "logprobs": false});
        assert!(chat_with(plain).unwrap().needs.is_empty());
    }

    #[test]
    fn the_larger_token_limit_counts_and_negative_ones_are_none() {
        let limit = |fields| chat_with(fields).unwrap().output_tokens_max;
        assert_eq!(limit(json!({"max_tokens": 5})), Some(5));
        assert_eq!(
            limit(json!({"max_tokens": 5, "max_completion_tokens": 9})),
            Some(9)
        );
        assert_eq!(limit(json!({"max_tokens": -1})), None);
    }

    #[test]
    fn what_can_t_be_understood_names_the_field() {
        for (body, param) in [
            ("", None),
            ("[]", None),
            ("{\"model\":", None),
            ("{\"model\":\"a\",\"model\":\"b\",\"messages\":[{}]}", None),
            ("{}", Some("model")),
            ("{\"model\":5}", Some("model")),
            ("{\"model\":\"\"}", Some("model")),
            ("{\"model\":\"a\"}", Some("messages")),
            ("{\"model\":\"a\",\"messages\":\"x\"}", Some("messages")),
            ("{\"model\":\"a\",\"messages\":[]}", Some("messages")),
        ] {
            let failure = chat(body).unwrap_err();
            assert_eq!((failure.status, failure.param.as_deref()), (400, param), "{body}");
        }
        for (fields, param) in [
            (json!({"stream": "yes"}), "stream"),
            (json!({"n": 0}), "n"),
            (json!({"n": 129}), "n"),
            (json!({"n": 1.5}), "n"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"max_completion_tokens": "5"}), "max_completion_tokens"),
            (json!({"tools": {}}), "tools"),
            (json!({"response_format": "json"}), "response_format"),
            (json!({"stream_options": true}), "stream_options"),
        ] {
            let failure = chat_with(fields.clone()).unwrap_err();
            assert_eq!(
                (failure.status, failure.param.as_deref()),
                (400, Some(param)),
                "{fields}"
            );
        }
        let not_text = Bytes::from_static(b"{\"model\":\"\xff\"}");
        assert_eq!(
            ProgramRequest::parse(JobKind::ChatCompletions, not_text)
                .unwrap_err()
                .status,
            400
        );
    }

    #[test]
    fn embeddings_take_texts_and_tokens() {
        let parse =
            |body: &str| ProgramRequest::parse(JobKind::Embeddings, Bytes::copy_from_slice(body.as_bytes()));
        for input in ["\"a\"", "[\"a\",\"b\"]", "[1,2]", "[[1],[2]]"] {
            let request = parse(&format!("{{\"model\":\"e\",\"input\":{input}}}")).unwrap();
            assert!(request.needs.is_empty());
        }
        let request = parse("{\"model\":\"e\",\"input\":\"a\",\"dimensions\":64}").unwrap();
        assert_eq!(
            request.needs,
            BTreeMap::from([(Capability::Dimensions, "dimensions")])
        );
        for body in [
            "{\"model\":\"e\"}",
            "{\"model\":\"e\",\"input\":5}",
            "{\"model\":\"e\",\"input\":{}}",
        ] {
            assert_eq!(parse(body).unwrap_err().param.as_deref(), Some("input"), "{body}");
        }
    }

    fn joined(request: &ProgramRequest, limit: Option<u64>) -> Vec<u8> {
        let parts: Vec<_> = request.body_parts(limit).collect();
        assert!(
            parts
                .iter()
                .all(|part| !part.is_empty() && part.len() <= PAYLOAD_MAX_BYTES)
        );
        let joined = parts.concat();
        assert_eq!(joined.len() as u64, request.body_bytes(limit));
        joined
    }

    #[test]
    fn the_body_travels_verbatim_and_an_assumed_limit_stands_last() {
        let text = "{ \"model\":\"a\", \"messages\":[{}], \"max_tokens\":null, \"odd\" : 1.50 } \n";
        let request = chat(text).unwrap();
        assert_eq!(joined(&request, None), text.as_bytes());
        let limited = joined(&request, Some(7));
        assert_eq!(
            limited,
            b"{ \"model\":\"a\", \"messages\":[{}], \"max_tokens\":null, \"odd\" : 1.50 ,\"max_tokens\":7}"
        );
        assert_eq!(
            serde_json::from_slice::<Value>(&limited).unwrap()["max_tokens"],
            7
        );
    }

    proptest! {
        #[test]
        fn bodies_of_any_size_come_in_frames(filler in 0usize..600_000, limit: Option<u32>) {
            let text = format!("{{\"model\":\"a\",\"messages\":[\"{}\"]}}", "x".repeat(filler));
            let request = chat(&text).unwrap();
            let body = joined(&request, limit.map(u64::from));
            let value: Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(value["messages"][0].as_str().unwrap().len(), filler);
            prop_assert_eq!(value.get("max_tokens").and_then(Value::as_u64), limit.map(u64::from));
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ProgramRequest::parse(JobKind::ChatCompletions, Bytes::from(body));
        }
    }
}
